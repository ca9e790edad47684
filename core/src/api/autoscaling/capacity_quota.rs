//! CapacityQuota (`cq`): the most that the nodes of a selector may have together.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::{
    api::resource::Quantity,
    apis::meta::v1::{Condition, LabelSelector},
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    numbers::resource_list,
    rules::{Rule, rules},
};

/// The most resources that a quota may name, as the peer has it: rules over more would cost the API server too much.
const MOST_RESOURCES: u32 = 20;

const RESOURCES: &[Rule] = &[
    ("Resource names must be 63 characters or less.", "self.all(key, size(key) <= 63)"),
    (
        "All resource quantities must be non-negative integers.",
        "self.all(key, type(self[key]) == int ? self[key] >= 0 : (!self[key].startsWith('-') && \
         quantity(self[key]).isInteger()))",
    ),
];

/// The most that the nodes of a selector may have together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "autoscaling.x-k8s.io",
    version = "v1beta1",
    kind = "CapacityQuota",
    shortname = "cq",
    status = "CapacityQuotaStatus",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct CapacityQuotaSpec {
    /// The nodes that count; without it all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// What they may have.
    #[serde(default)]
    #[schemars(!default)]
    pub limits: CapacityQuotaLimits,
}

/// What nodes may have together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CapacityQuotaLimits {
    /// By resource: `cpu`, `memory`, `nodes` for how many nodes there may be, or another of their capacity.
    #[serde(default, deserialize_with = "resource_list", skip_serializing_if = "Option::is_none")]
    #[schemars(!default, required, extend("maxProperties" = MOST_RESOURCES), transform = rules(RESOURCES))]
    pub resources: Option<BTreeMap<String, Quantity>>,
}

/// What Tandem says of a CapacityQuota.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapacityQuotaStatus {
    /// What its nodes have now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<CapacityQuotaUsage>,
    /// `cluster-autoscaler.kubernetes.io/valid` (`Valid` in v1alpha1), `Reconciled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The generation that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// What nodes have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CapacityQuotaUsage {
    /// Of the resources that are limited.
    #[serde(default, deserialize_with = "resource_list", skip_serializing_if = "Option::is_none")]
    #[schemars(!default, required)]
    pub resources: Option<BTreeMap<String, Quantity>>,
}

/// The kind as it was served first; the same fields.
pub mod v1alpha1 {
    use kube::CustomResource;
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    /// The most that the nodes of a selector may have together.
    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
    #[kube(
        group = "autoscaling.x-k8s.io",
        version = "v1alpha1",
        kind = "CapacityQuota",
        shortname = "cq",
        status = "super::CapacityQuotaStatus",
        derive = "Default",
        derive = "PartialEq"
    )]
    pub struct CapacityQuotaSpec(pub super::CapacityQuotaSpec);

    impl From<&CapacityQuota> for super::CapacityQuota {
        fn from(quota: &CapacityQuota) -> Self {
            let CapacityQuota { metadata, spec, status } = quota.clone();
            Self { metadata, spec: spec.0, status }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn either_version_reads_the_same_and_takes_numbers() {
        let of = |version: &str| {
            json!({"apiVersion": format!("autoscaling.x-k8s.io/{version}"), "kind": "CapacityQuota",
                "metadata": {"name": "q"},
                "spec": {"selector": {"matchLabels": {"a": "b"}},
                    "limits": {"resources": {"cpu": 8, "memory": "32Gi"}}}})
        };
        let v1beta1: CapacityQuota = serde_json::from_value(of("v1beta1")).unwrap();
        let v1alpha1: v1alpha1::CapacityQuota = serde_json::from_value(of("v1alpha1")).unwrap();
        let limits = v1beta1.spec.limits.resources.clone().unwrap();
        assert_eq!((limits["cpu"].0.as_str(), limits["memory"].0.as_str()), ("8", "32Gi"));
        assert_eq!(CapacityQuota::from(&v1alpha1), v1beta1);
    }
}
