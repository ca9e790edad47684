//! NodePool: nodes of any instance type that satisfies its requirements.

use std::{borrow::Cow, collections::BTreeMap};

use jiff::SignedDuration;
use k8s_openapi::{
    api::core::v1::Taint,
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Condition},
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    duration::{DurationError, duration, nillable},
    requirement::{MIN_VALUES, NodeClassReference, RequirementWithMinValues, SELECTORS},
    schema::{DURATION, MOST_REQUIREMENTS, NILLABLE_DURATION, labels, resources, taints},
};
use crate::api::{
    numbers::resource_list,
    rules::{Rule, rules},
};

/// How long a node lives when its pool does not say: 30 days.
pub const DEFAULT_EXPIRE_AFTER: &str = "720h";
/// How long a node must be calm before it is consolidated when its pool does not say.
pub const DEFAULT_CONSOLIDATE_AFTER: &str = "0s";
/// How much of a pool may be disrupted at once when it does not say.
pub const DEFAULT_BUDGET: &str = "10%";

const SPEC: &[Rule] = &[
    (
        "only 'limits.nodes' is supported on static NodePools (replicas is set)",
        "!has(self.replicas) || !has(self.limits) || self.limits.all(x, x == 'nodes')",
    ),
    (
        "'weight' is not supported on static NodePools (replicas is set)",
        "!has(self.replicas) || !has(self.weight)",
    ),
    (
        "a NodePool cannot change between static (replicas is set) and dynamic (replicas is not set)",
        "has(self.replicas) == has(oldSelf.replicas)",
    ),
];
const CLASS: &[Rule] = &[
    ("nodeClassRef.group is immutable", "self.group == oldSelf.group"),
    ("nodeClassRef.kind is immutable", "self.kind == oldSelf.kind"),
];
const BUDGETS: &[Rule] =
    &[("'schedule' must be set with 'duration'", "self.all(x, has(x.schedule) == has(x.duration))")];

/// Nodes of any instance type that satisfies its requirements.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "karpenter.sh",
    version = "v1",
    kind = "NodePool",
    category = "karpenter",
    status = "NodePoolStatus",
    derive = "Default",
    derive = "PartialEq",
    scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.nodes"),
    printcolumn(name = "NodeClass", type_ = "string", json_path = ".spec.template.spec.nodeClassRef.name"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".spec.weight", priority = 1),
    printcolumn(name = "CPU", type_ = "string", json_path = ".status.resources.cpu", priority = 1),
    printcolumn(name = "Memory", type_ = "string", json_path = ".status.resources.memory", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rules(SPEC))]
pub struct NodePoolSpec {
    /// What every node of the pool is like.
    #[serde(default)]
    #[schemars(!default)]
    pub template: NodeClaimTemplate,
    /// When nodes may be taken away.
    #[serde(default)]
    pub disruption: Disruption,
    /// What all nodes of the pool together may not exceed.
    #[serde(default, deserialize_with = "resource_list", skip_serializing_if = "Option::is_none")]
    #[schemars(transform = resources)]
    pub limits: Option<BTreeMap<String, Quantity>>,
    /// Pools of greater weight are tried first (0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub weight: Option<i32>,
    /// Keep so many nodes, whatever pods there are: a static pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i64>,
}

impl NodePoolSpec {
    /// Its weight, 0 if it does not say.
    pub fn weight(&self) -> i32 {
        self.weight.unwrap_or(0)
    }

    /// Whether it keeps a number of nodes, whatever pods there are.
    pub fn is_static(&self) -> bool {
        self.replicas.is_some()
    }
}

/// What every node of a pool is like.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeClaimTemplate {
    /// Labels and annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,
    /// The rest.
    #[serde(default)]
    #[schemars(!default)]
    pub spec: NodeClaimTemplateSpec,
}

/// Labels and annotations of nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TemplateMetadata {
    /// Labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = labels)]
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// What every node of a pool is like, beside labels and annotations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeClaimTemplateSpec {
    /// Taints of the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = taints)]
    pub taints: Option<Vec<Taint>>,
    /// Taints that somebody takes off soon after a node starts; pods need not tolerate them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = taints)]
    pub startup_taints: Option<Vec<Taint>>,
    /// What the labels of the nodes have to be.
    #[serde(default)]
    #[schemars(!default, length(max = MOST_REQUIREMENTS), transform = rules(SELECTORS), transform = rules(MIN_VALUES))]
    pub requirements: Vec<RequirementWithMinValues>,
    /// What is not a requirement, in an object of the provider's.
    #[serde(default)]
    #[schemars(!default, transform = rules(CLASS))]
    pub node_class_ref: NodeClassReference,
    /// How long a node may take to drain; then its pods are deleted, whatever protects them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = DURATION))]
    pub termination_grace_period: Option<String>,
    /// How long a node lives (720h), or Never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = NILLABLE_DURATION, "default" = DEFAULT_EXPIRE_AFTER))]
    pub expire_after: Option<String>,
}

impl NodeClaimTemplateSpec {
    /// How long a node lives; none is for ever.
    pub fn expire_after(&self) -> Result<Option<SignedDuration>, DurationError> {
        nillable("expireAfter", self.expire_after.as_deref().unwrap_or(DEFAULT_EXPIRE_AFTER))
    }

    /// How long a node may take to drain; none is as long as its pods want.
    pub fn termination_grace_period(&self) -> Result<Option<SignedDuration>, DurationError> {
        let period = self.termination_grace_period.as_deref();
        period.map(|text| duration("terminationGracePeriod", text)).transpose()
    }
}

/// When nodes of a pool may be taken away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
    /// How long no pod may have come or gone before a node is consolidated (0s), or Never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = NILLABLE_DURATION, "default" = DEFAULT_CONSOLIDATE_AFTER))]
    pub consolidate_after: Option<String>,
    /// Which nodes are consolidated: empty ones, all that pods can do without, or those whose savings outweigh the disruption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "enum" = ["WhenEmpty", "WhenEmptyOrUnderutilized", "Balanced"],
        "default" = "WhenEmptyOrUnderutilized"
    ))]
    pub consolidation_policy: Option<String>,
    /// How many nodes may be disrupted at once; the least of those that apply counts (10%).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 50),
        extend("default" = [Budget::of(DEFAULT_BUDGET)]),
        transform = rules(BUDGETS)
    )]
    pub budgets: Option<Vec<Budget>>,
}

/// Which nodes are consolidated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConsolidationPolicy {
    /// Those without pods that would have to move.
    WhenEmpty,
    /// All that pods can do without, or that a cheaper node can replace.
    WhenEmptyOrUnderutilized,
    /// As [`ConsolidationPolicy::WhenEmptyOrUnderutilized`], where the savings outweigh the disruption.
    Balanced,
}

impl ConsolidationPolicy {
    /// As a NodePool has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::WhenEmpty => "WhenEmpty",
            Self::WhenEmptyOrUnderutilized => "WhenEmptyOrUnderutilized",
            Self::Balanced => "Balanced",
        }
    }

    /// As the label `consolidation_policy` of metrics has it.
    pub fn label(self) -> &'static str {
        match self {
            Self::WhenEmpty => "when_empty",
            Self::WhenEmptyOrUnderutilized => "when_empty_or_underutilized",
            Self::Balanced => "balanced",
        }
    }
}

impl Disruption {
    /// Which nodes are consolidated.
    pub fn policy(&self) -> ConsolidationPolicy {
        match self.consolidation_policy.as_deref() {
            Some("WhenEmpty") => ConsolidationPolicy::WhenEmpty,
            Some("Balanced") => ConsolidationPolicy::Balanced,
            _ => ConsolidationPolicy::WhenEmptyOrUnderutilized,
        }
    }

    /// How long no pod may have come or gone before a node is consolidated; none is for ever.
    pub fn consolidate_after(&self) -> Result<Option<SignedDuration>, DurationError> {
        let after = self.consolidate_after.as_deref().unwrap_or(DEFAULT_CONSOLIDATE_AFTER);
        nillable("consolidateAfter", after)
    }

    /// Its budgets, one of 10% if it does not say.
    pub fn budgets(&self) -> Cow<'_, [Budget]> {
        match &self.budgets {
            Some(budgets) => Cow::Borrowed(budgets),
            None => Cow::Owned(vec![Budget::of(DEFAULT_BUDGET)]),
        }
    }
}

/// How many nodes of a pool may be disrupted at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Budget {
    /// Why they are disrupted; absent is for whatever reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = reasons)]
    pub reasons: Option<Vec<String>>,
    /// A number of nodes, or a percentage of those that there are, rounded up.
    #[serde(default)]
    #[schemars(!default, extend("pattern" = r"^((100|[0-9]{1,2})%|[0-9]+)$", "default" = DEFAULT_BUDGET))]
    pub nodes: String,
    /// When it begins to apply, a cron line in UTC; always, without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = r"^(@(annually|yearly|monthly|weekly|daily|midnight|hourly))|((.+)\s(.+)\s(.+)\s(.+)\s(.+))$"))]
    pub schedule: Option<String>,
    /// How long it applies from then, hours and minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = r"^((([0-9]+(h|m))|([0-9]+h[0-9]+m))(0s)?)$"))]
    pub duration: Option<String>,
}

impl Budget {
    /// So many nodes, always and for whatever reason.
    pub fn of(nodes: &str) -> Self {
        Self { nodes: nodes.to_owned(), ..Self::default() }
    }
}

fn reasons(schema: &mut schemars::Schema) {
    super::schema::set(schema, "/items", serde_json::json!({"enum": ["Underutilized", "Empty", "Drifted"]}));
}

/// What Tandem says of a NodePool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodePoolStatus {
    /// What its nodes have together.
    #[serde(default, deserialize_with = "resource_list", skip_serializing_if = "Option::is_none")]
    #[schemars(transform = resources)]
    pub resources: Option<BTreeMap<String, Quantity>>,
    /// How many there are.
    #[serde(default)]
    pub nodes: i64,
    /// The generation of its node class that was last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_class_observed_generation: Option<i64>,
    /// `ValidationSucceeded`, `NodeClassReady`, `NodeRegistrationHealthy`, `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
