//! NodeClaim: one node that was asked for.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::Taint,
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{Condition, Time},
    },
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    node_pool::DEFAULT_EXPIRE_AFTER,
    requirement::{MIN_VALUES, NodeClassReference, RequirementWithMinValues, SELECTORS},
    schema::{DURATION, MOST_REQUIREMENTS, NILLABLE_DURATION, resources, taints},
};
use crate::api::{
    numbers::resource_list,
    rules::{Rule, rules},
};

const SPEC: &[Rule] = &[("spec is immutable", "self == oldSelf")];

/// One node that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "karpenter.sh",
    version = "v1",
    kind = "NodeClaim",
    category = "karpenter",
    status = "NodeClaimStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(
        name = "Type",
        type_ = "string",
        json_path = ".metadata.labels.node\\.kubernetes\\.io/instance-type"
    ),
    printcolumn(
        name = "Capacity",
        type_ = "string",
        json_path = ".metadata.labels.karpenter\\.sh/capacity-type"
    ),
    printcolumn(
        name = "Zone",
        type_ = "string",
        json_path = ".metadata.labels.topology\\.kubernetes\\.io/zone"
    ),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.nodeName"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "ImageID", type_ = "string", json_path = ".status.imageID", priority = 1),
    printcolumn(name = "ID", type_ = "string", json_path = ".status.providerID", priority = 1),
    printcolumn(
        name = "NodePool",
        type_ = "string",
        json_path = ".metadata.labels.karpenter\\.sh/nodepool",
        priority = 1
    ),
    printcolumn(name = "NodeClass", type_ = "string", json_path = ".spec.nodeClassRef.name", priority = 1),
    printcolumn(
        name = "Drifted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Drifted\")].status",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rules(SPEC))]
pub struct NodeClaimSpec {
    /// Taints of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = taints)]
    pub taints: Option<Vec<Taint>>,
    /// Taints that somebody takes off soon after the node starts; pods need not tolerate them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = taints)]
    pub startup_taints: Option<Vec<Taint>>,
    /// What the labels of the node have to be.
    #[serde(default)]
    #[schemars(!default, length(max = MOST_REQUIREMENTS), transform = rules(SELECTORS), transform = rules(MIN_VALUES))]
    pub requirements: Vec<RequirementWithMinValues>,
    /// What the node has to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ClaimResources>,
    /// What is not a requirement, in an object of the provider's.
    #[serde(default)]
    #[schemars(!default)]
    pub node_class_ref: NodeClassReference,
    /// How long the node may take to drain; then its pods are deleted, whatever protects them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = DURATION))]
    pub termination_grace_period: Option<String>,
    /// How long the node lives (720h), or Never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = NILLABLE_DURATION, "default" = DEFAULT_EXPIRE_AFTER))]
    pub expire_after: Option<String>,
}

/// What a node has to have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClaimResources {
    /// At least this.
    #[serde(default, deserialize_with = "resource_list", skip_serializing_if = "Option::is_none")]
    #[schemars(transform = resources)]
    pub requests: Option<BTreeMap<String, Quantity>>,
}

/// What Tandem says of a NodeClaim.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeClaimStatus {
    /// The node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// The provider's id of the machine.
    #[serde(default, rename = "providerID", skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// The image that it runs.
    #[serde(default, rename = "imageID", skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// What the machine has.
    #[serde(default, deserialize_with = "resource_list", skip_serializing_if = "Option::is_none")]
    #[schemars(transform = resources)]
    pub capacity: Option<BTreeMap<String, Quantity>>,
    /// What pods may use of it.
    #[serde(default, deserialize_with = "resource_list", skip_serializing_if = "Option::is_none")]
    #[schemars(transform = resources)]
    pub allocatable: Option<BTreeMap<String, Quantity>>,
    /// `Launched`, `Registered`, `Initialized`, `Ready`; `Consolidatable`, `Drifted`, `Drained`, `VolumesDetached`,
    /// `InstanceTerminating`, `ConsistentStateFound`, `DisruptionReason`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// When a pod last came, ended or left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_pod_event_time: Option<Time>,
}
