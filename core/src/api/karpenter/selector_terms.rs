//! Terms that select what EC2 has: one of the terms has to match, all of a term.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::rules::{Rule, rules};

/// Rules of tags that select.
pub(super) const TAGS: &[Rule] =
    &[("empty tag keys or values aren't supported", "self.all(k, k != '' && self[k] != '')")];

/// Rules of `subnetSelectorTerms`.
pub(super) const SUBNETS: &[Rule] = &[
    ("subnetSelectorTerms cannot be empty", "self.size() != 0"),
    ("expected at least one, got none, ['tags', 'id']", "self.all(x, has(x.tags) || has(x.id))"),
    (
        "'id' is mutually exclusive, cannot be set with a combination of other fields in a subnet selector term",
        "!self.exists(x, has(x.id) && has(x.tags))",
    ),
];

/// Rules of `securityGroupSelectorTerms`.
pub(super) const SECURITY_GROUPS: &[Rule] = &[
    ("securityGroupSelectorTerms cannot be empty", "self.size() != 0"),
    (
        "expected at least one, got none, ['tags', 'id', 'name']",
        "self.all(x, has(x.tags) || has(x.id) || has(x.name))",
    ),
    (
        "'id' is mutually exclusive, cannot be set with a combination of other fields in a security group selector term",
        "!self.exists(x, has(x.id) && (has(x.tags) || has(x.name)))",
    ),
    (
        "'name' is mutually exclusive, cannot be set with a combination of other fields in a security group selector term",
        "!self.exists(x, has(x.name) && (has(x.tags) || has(x.id)))",
    ),
];

/// Rules of `capacityReservationSelectorTerms`.
pub(super) const CAPACITY_RESERVATIONS: &[Rule] = &[
    (
        "expected at least one, got none, ['tags', 'id', 'instanceMatchCriteria']",
        "self.all(x, has(x.tags) || has(x.id) || has(x.instanceMatchCriteria))",
    ),
    (
        "'id' is mutually exclusive, cannot be set along with other fields in a capacity reservation selector term",
        "!self.exists(x, has(x.id) && (has(x.tags) || has(x.ownerID) || has(x.instanceMatchCriteria)))",
    ),
];

/// Rules of `amiSelectorTerms`.
pub(super) const AMIS: &[Rule] = &[
    (
        "expected at least one, got none, ['tags', 'id', 'name', 'alias', 'ssmParameter']",
        "self.all(x, has(x.tags) || has(x.id) || has(x.name) || has(x.alias) || has(x.ssmParameter))",
    ),
    (
        "'id' is mutually exclusive, cannot be set with a combination of other fields in amiSelectorTerms",
        "!self.exists(x, has(x.id) && (has(x.alias) || has(x.tags) || has(x.name) || has(x.owner)))",
    ),
    (
        "'alias' is mutually exclusive, cannot be set with a combination of other fields in amiSelectorTerms",
        "!self.exists(x, has(x.alias) && (has(x.id) || has(x.tags) || has(x.name) || has(x.owner)))",
    ),
    (
        "'alias' is mutually exclusive, cannot be set with a combination of other amiSelectorTerms",
        "!(self.exists(x, has(x.alias)) && self.size() != 1)",
    ),
];

const ALIAS: &[Rule] = &[
    (
        "'alias' is improperly formatted, must match the format 'family@version'",
        "self.matches('^[a-zA-Z0-9]+@.+$')",
    ),
    (
        "family is not supported, must be one of the following: 'al2', 'al2023', 'bottlerocket', 'windows2019', 'windows2022', 'windows2025'",
        "self.split('@')[0] in ['al2','al2023','bottlerocket','windows2019','windows2022','windows2025']",
    ),
    (
        "windows families may only specify version 'latest'",
        "self.split('@')[0] in ['windows2019','windows2022','windows2025'] ? self.split('@')[1] == 'latest' : true",
    ),
];

/// Rules of `placementGroupSelector`.
const PLACEMENT_GROUP: &[Rule] =
    &[("expected exactly one of ['name', 'id'] to be set", "has(self.name) != has(self.id)")];

/// Selects subnets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SubnetSelectorTerm {
    /// Tags; `*` is any value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 20), transform = rules(TAGS))]
    pub tags: Option<BTreeMap<String, String>>,
    /// Id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "subnet-[0-9a-z]+"))]
    pub id: Option<String>,
}

/// Selects security groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecurityGroupSelectorTerm {
    /// Tags; `*` is any value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 20), transform = rules(TAGS))]
    pub tags: Option<BTreeMap<String, String>>,
    /// Id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "sg-[0-9a-z]+"))]
    pub id: Option<String>,
    /// Name of the group, which is not its tag `Name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Selects capacity reservations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapacityReservationSelectorTerm {
    /// Tags; `*` is any value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 20), transform = rules(TAGS))]
    pub tags: Option<BTreeMap<String, String>>,
    /// Id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^cr-[0-9a-z]+$"))]
    pub id: Option<String>,
    /// Account that owns it.
    #[serde(default, rename = "ownerID", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[0-9]{12}$"))]
    pub owner_id: Option<String>,
    /// How instances are matched to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["open", "targeted"]))]
    pub instance_match_criteria: Option<String>,
}

/// Selects images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AmiSelectorTerm {
    /// `family@version` of an image that EKS makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 30), transform = rules(ALIAS))]
    pub alias: Option<String>,
    /// Tags; `*` is any value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 20), transform = rules(TAGS))]
    pub tags: Option<BTreeMap<String, String>>,
    /// Id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "ami-[0-9a-z]+"))]
    pub id: Option<String>,
    /// Name of the image, which is not its tag `Name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Account that owns it, `self`, `amazon` or `aws-marketplace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Name or ARN of a parameter of Systems Manager that holds the id.
    #[serde(default, rename = "ssmParameter", skip_serializing_if = "Option::is_none")]
    pub ssm_parameter: Option<String>,
}

/// Selects a placement group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = rules(PLACEMENT_GROUP))]
pub struct PlacementGroupSelector {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}
