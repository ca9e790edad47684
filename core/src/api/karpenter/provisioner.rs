//! Provisioner, what NodePools were before v1beta1 (v0.31.0).

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{NodeSelectorRequirement, Taint},
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{Condition, Time},
    },
};
use kube::CustomResource;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    kubelet::KubeletConfiguration,
    schema::{resources, taints, without_default},
};
use crate::api::numbers::resource_list;

/// Nodes of any instance type that satisfies its requirements; read as a NodePool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "karpenter.sh",
    version = "v1alpha5",
    kind = "Provisioner",
    category = "karpenter",
    status = "ProvisionerStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Template", type_ = "string", json_path = ".spec.providerRef.name"),
    printcolumn(name = "Weight", type_ = "string", json_path = ".spec.weight", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct ProvisionerSpec {
    /// Annotations of the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Labels of the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Taints of the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = taints)]
    pub taints: Option<Vec<Taint>>,
    /// Taints that somebody takes off soon after a node starts; pods need not tolerate them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = taints)]
    pub startup_taints: Option<Vec<Taint>>,
    /// What the labels of the nodes have to be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = without_default)]
    pub requirements: Vec<NodeSelectorRequirement>,
    /// Settings of the kubelet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubelet_configuration: Option<KubeletConfiguration>,
    /// What an AWSNodeTemplate would say, in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = anything)]
    pub provider: Option<Value>,
    /// The AWSNodeTemplate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_ref: Option<ProviderReference>,
    /// Seconds that a node may be empty; never removed for that, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_empty: Option<i64>,
    /// Seconds that a node lives; for ever, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_until_expired: Option<i64>,
    /// What all nodes together may not exceed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ProvisionerLimits>,
    /// Provisioners of greater weight are tried first (0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub weight: Option<i32>,
    /// Whether nodes are consolidated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consolidation: Option<Consolidation>,
}

/// Any object.
fn anything(schema: &mut Schema) {
    schema.insert("type".to_owned(), "object".into());
    schema.insert("x-kubernetes-preserve-unknown-fields".to_owned(), true.into());
}

/// The object that says what of a provider's nodes is not a requirement.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderReference {
    /// Its group and version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its name.
    #[serde(default)]
    #[schemars(!default)]
    pub name: String,
}

/// What all nodes together may not exceed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProvisionerLimits {
    /// By resource.
    #[serde(default, deserialize_with = "resource_list", skip_serializing_if = "Option::is_none")]
    #[schemars(transform = resources)]
    pub resources: Option<BTreeMap<String, Quantity>>,
}

/// Whether nodes are consolidated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Consolidation {
    /// Whether they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// What Tandem says of a Provisioner.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProvisionerStatus {
    /// When a node was last asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Time>,
    /// Active.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What its nodes have together.
    #[serde(default, deserialize_with = "resource_list", skip_serializing_if = "Option::is_none")]
    #[schemars(transform = resources)]
    pub resources: Option<BTreeMap<String, Quantity>>,
}
