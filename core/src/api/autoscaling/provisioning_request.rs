//! ProvisioningRequest (`provreq`): room for pods to come, all of it or none.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LocalObjectReference;
use crate::api::rules::{Rule, rules};

const IMMUTABLE: &[Rule] = &[("Value is immutable", "self == oldSelf")];

/// Room for pods to come, all of it or none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "autoscaling.x-k8s.io",
    version = "v1",
    kind = "ProvisioningRequest",
    namespaced,
    shortname = "provreq",
    shortname = "provreqs",
    status = "ProvisioningRequestStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ProvisioningRequestSpec {
    /// How the room is found or made.
    #[serde(default)]
    #[schemars(!default, length(max = 253), transform = rules(IMMUTABLE))]
    pub provisioning_class_name: String,
    /// The pods that it is room for.
    #[serde(default)]
    #[schemars(!default, length(min = 1, max = 32), transform = rules(IMMUTABLE))]
    pub pod_sets: Vec<PodSet>,
    /// What else the class takes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 100), transform = rules(IMMUTABLE))]
    pub parameters: BTreeMap<String, String>,
}

/// Pods that are alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodSet {
    /// The PodTemplate that says what one of them needs.
    #[serde(default)]
    #[schemars(!default)]
    pub pod_template_ref: LocalObjectReference,
    /// How many.
    #[serde(default)]
    #[schemars(!default, range(min = 1))]
    pub count: i32,
}

/// What Tandem says of a ProvisioningRequest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProvisioningRequestStatus {
    /// `Accepted`, `Provisioned`, `BookingExpired`, `Failed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What else the class says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub provisioning_class_details: BTreeMap<String, String>,
}

/// The kind as it was served first; the same fields.
pub mod v1beta1 {
    use kube::CustomResource;
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    /// Room for pods to come, all of it or none.
    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
    #[kube(
        group = "autoscaling.x-k8s.io",
        version = "v1beta1",
        kind = "ProvisioningRequest",
        namespaced,
        shortname = "provreq",
        shortname = "provreqs",
        status = "super::ProvisioningRequestStatus",
        derive = "Default",
        derive = "PartialEq",
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
    )]
    pub struct ProvisioningRequestSpec(pub super::ProvisioningRequestSpec);

    impl From<&ProvisioningRequest> for super::ProvisioningRequest {
        fn from(request: &ProvisioningRequest) -> Self {
            let ProvisioningRequest { metadata, spec, status } = request.clone();
            Self { metadata, spec: spec.0, status }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn either_version_reads_the_same() {
        let of = |version: &str| {
            json!({"apiVersion": format!("autoscaling.x-k8s.io/{version}"), "kind": "ProvisioningRequest",
                "metadata": {"name": "r", "namespace": "ns", "uid": "u"},
                "spec": {"provisioningClassName": "c", "parameters": {"noRetry": "true"},
                    "podSets": [{"podTemplateRef": {"name": "t"}, "count": 3}]},
                "status": {"provisioningClassDetails": {"a": "b"}}})
        };
        let v1: ProvisioningRequest = serde_json::from_value(of("v1")).unwrap();
        let v1beta1: v1beta1::ProvisioningRequest = serde_json::from_value(of("v1beta1")).unwrap();
        assert_eq!(v1.spec.pod_sets[0].count, 3);
        assert_eq!(ProvisioningRequest::from(&v1beta1), v1);
    }

    #[test]
    fn a_bad_one_can_be_read_and_so_be_told() {
        let spec: ProvisioningRequestSpec =
            serde_json::from_value(json!({"podSets": [{"count": -1}]})).unwrap();
        assert_eq!((spec.pod_sets[0].count, spec.provisioning_class_name.as_str()), (-1, ""));
    }
}
