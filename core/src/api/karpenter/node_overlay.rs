//! NodeOverlay (`overlays`): prices and extended resources of instance types, as a user knows them better.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Condition};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    requirement::SELECTORS,
    schema::{LONGEST_KEY, MOST_REQUIREMENTS, QUALIFIED_NAME, overlay_requirement_key, resources, values},
};
use crate::{
    api::{
        numbers::resource_list,
        rules::{Rule, rules},
    },
    nodes::pools::requirements::{Operator, Requirement},
};

const SPEC: &[Rule] =
    &[("cannot set both 'price' and 'priceAdjustment'", "!has(self.price) || !has(self.priceAdjustment)")];
const VALUES: &[Rule] = &[(
    "requirements with operator 'NotIn' must have a value defined",
    "self.all(x, x.operator == 'NotIn' ? x.values.size() != 0 : true)",
)];
const CAPACITY: &[Rule] =
    &[("invalid resource restricted", "self.all(x, !(x in ['cpu', 'memory', 'ephemeral-storage', 'pods']))")];

/// Prices and extended resources of instance types, as a user knows them better.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "karpenter.sh",
    version = "v1alpha1",
    kind = "NodeOverlay",
    category = "karpenter",
    shortname = "overlays",
    status = "NodeOverlayStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".spec.weight", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rules(SPEC))]
pub struct NodeOverlaySpec {
    /// Which offerings are meant.
    #[serde(default)]
    #[schemars(!default, length(max = MOST_REQUIREMENTS), transform = rules(VALUES), transform = rules(SELECTORS))]
    pub requirements: Vec<OverlayRequirement>,
    /// Added to the price: a signed amount, dollars an hour, or a signed percentage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = r"^(([+-]{1}(\d*\.?\d+))|(\+{1}\d*\.?\d+%)|(^(-\d{1,2}(\.\d+)?%)$)|(-100%))$"))]
    pub price_adjustment: Option<String>,
    /// The price, dollars an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = r"^\d+(\.\d+)?$"))]
    pub price: Option<String>,
    /// Extended resources that the nodes have besides.
    #[serde(default, deserialize_with = "resource_list", skip_serializing_if = "Option::is_none")]
    #[schemars(transform = resources, transform = rules(CAPACITY))]
    pub capacity: Option<BTreeMap<String, Quantity>>,
    /// Overlays of greater weight go before others (0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub weight: Option<i32>,
}

/// What a label of an offering has to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OverlayRequirement {
    /// The label.
    #[serde(default)]
    #[schemars(
        !default,
        length(max = LONGEST_KEY),
        extend("pattern" = QUALIFIED_NAME),
        transform = overlay_requirement_key
    )]
    pub key: String,
    /// How the values are meant.
    #[serde(default)]
    #[schemars(
        !default,
        extend("enum" = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Gte", "Lte"])
    )]
    pub operator: String,
    /// Values; one integer for Gt, Lt, Gte and Lte.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = values)]
    pub values: Vec<String>,
}

impl OverlayRequirement {
    /// As decisions read it. An operator that is not known allows no value.
    pub fn read(&self) -> Requirement {
        let operator = Operator::parse(&self.operator).unwrap_or(Operator::DoesNotExist);
        Requirement::new(&self.key, operator, &self.values)
    }
}

/// What Tandem says of a NodeOverlay.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeOverlayStatus {
    /// `ValidationSucceeded`, `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
