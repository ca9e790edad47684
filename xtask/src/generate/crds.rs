//! The CRDs of every group, from their Rust types.

use std::path::PathBuf;

use anyhow::{Context, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResourceExt, core::crd::merge_crds};
use serde_json::Value;
use tandem_core::api::{
    autoscaling::{CapacityBuffer, CapacityQuota, ProvisioningRequest, v1alpha1, v1beta1},
    karpenter::{
        AWSNodeTemplate, EC2NodeClass, KWOKNodeClass, NodeClaim, NodeOverlay, NodePool, Provisioner,
    },
    keda::{ClusterTriggerAuthentication, ScaledJob, ScaledObject, TriggerAuthentication},
};

use super::File;

/// The largest CRD that a plain `kubectl apply` takes, bytes of JSON: it stores the whole object in an annotation, and
/// the annotations of an object may have 256 KiB (k8s.io/apimachinery, `TotalAnnotationSizeLimitB`).
const APPLY_LIMIT: usize = 256 << 10;

/// Every CRD, in its file, named as the peers name theirs.
pub(super) fn files() -> Result<Vec<File>> {
    let crds = [
        ScaledObject::crd(),
        ScaledJob::crd(),
        TriggerAuthentication::crd(),
        ClusterTriggerAuthentication::crd(),
        NodePool::crd(),
        NodeClaim::crd(),
        NodeOverlay::crd(),
        EC2NodeClass::crd(),
        KWOKNodeClass::crd(),
        Provisioner::crd(),
        AWSNodeTemplate::crd(),
        CapacityBuffer::crd(),
        // Those who ask write either version.
        merge_crds(vec![ProvisioningRequest::crd(), v1beta1::ProvisioningRequest::crd()], "v1")?,
        merge_crds(vec![CapacityQuota::crd(), v1alpha1::CapacityQuota::crd()], "v1beta1")?,
    ];
    crds.into_iter().map(file).collect()
}

fn file(crd: CustomResourceDefinition) -> Result<File> {
    let path = format!("crds/{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
    let mut value = serde_json::to_value(crd)?;
    for version in value.pointer_mut(VERSIONS).and_then(Value::as_array_mut).into_iter().flatten() {
        let schema = version.pointer_mut(SCHEMA).with_context(|| format!("{path} has no schema"))?;
        // The derive says where it comes from, and the kind once more.
        schema["description"] = schema["properties"]["spec"]["description"].clone();
        strip(schema, |name, value| name == "title" && value.is_string());
        // A null (a template's empty value, say) is then dropped before rules see it, as with KEDA's schemas.
        strip(schema, |name, value| name == "nullable" && value.is_boolean());
        // kubectl explain shows our own descriptions; those of a Job's pods are elsewhere, and would fill the annotation.
        if let Some(job) = schema.pointer_mut(JOB_TEMPLATE) {
            strip(job, |name, value| name == "description" && value.is_string());
        }
    }
    let size = value.to_string().len();
    anyhow::ensure!(size < APPLY_LIMIT, "{path} has {size} bytes, too many for a plain kubectl apply");
    let text = serde_saphyr::to_string(&value).with_context(|| format!("cannot write {path} as YAML"))?;
    Ok((PathBuf::from(path), text))
}

/// The versions of a kind.
const VERSIONS: &str = "/spec/versions";

/// In one of them, the schema.
const SCHEMA: &str = "/schema/openAPIV3Schema";

/// In it, the template of ScaledJob: all of a Job's, and so all of a pod's.
const JOB_TEMPLATE: &str = "/properties/spec/properties/jobTargetRef/properties";

/// Drops keywords from a schema and all below it. `is_dropped` sees the value too, since a field that is itself called
/// like a keyword is a schema.
fn strip(value: &mut Value, is_dropped: fn(&str, &Value) -> bool) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| !is_dropped(name, value));
            fields.values_mut().for_each(|value| strip(value, is_dropped));
        }
        Value::Array(elements) => elements.iter_mut().for_each(|value| strip(value, is_dropped)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crds() -> Vec<Value> {
        let files = files().unwrap();
        files.iter().map(|(_, text)| serde_saphyr::from_str(text).unwrap()).collect()
    }

    fn texts<'a>(value: &'a Value, field: &str) -> Vec<&'a str> {
        value.as_array().into_iter().flatten().map(|element| element[field].as_str().unwrap()).collect()
    }

    /// What `kubectl get` shows and which short names it takes is what the peers' users know.
    #[test]
    fn names_and_columns_are_the_peers() {
        let authentication = ["PodIdentity", "Secret", "Env", "VaultAddress", "ScaledObjects", "ScaledJobs"];
        let cluster_authentication =
            ["PodIdentity", "Secret", "Env", "FilePath", "VaultAddress", "ScaledObjects", "ScaledJobs"];
        let scaled_object = [
            "ScaleTargetKind",
            "ScaleTargetName",
            "Min",
            "Max",
            "Ready",
            "Active",
            "Fallback",
            "Paused",
            "Triggers",
            "Authentications",
            "Age",
        ];
        let scaled_job = ["Min", "Max", "Ready", "Active", "Paused", "Triggers", "Authentications", "Age"];
        let node_pool = ["NodeClass", "Nodes", "Ready", "Age", "Weight", "CPU", "Memory"];
        let node_claim = [
            "Type",
            "Capacity",
            "Zone",
            "Node",
            "Ready",
            "Age",
            "ImageID",
            "ID",
            "NodePool",
            "NodeClass",
            "Drifted",
        ];
        let buffer = [
            "Strategy",
            "PodTemplate",
            "Replicas",
            "ConditionsType",
            "ConditionsStatus",
            "ConditionsReason",
            "Age",
        ];
        let wanted: [(&str, &str, &[&str], &[&str]); 14] = [
            ("scaledobjects.keda.sh", "Namespaced", &["so"], &scaled_object),
            ("scaledjobs.keda.sh", "Namespaced", &["sj"], &scaled_job),
            ("triggerauthentications.keda.sh", "Namespaced", &["ta", "triggerauth"], &authentication),
            (
                "clustertriggerauthentications.keda.sh",
                "Cluster",
                &["cta", "clustertriggerauth"],
                &cluster_authentication,
            ),
            ("nodepools.karpenter.sh", "Cluster", &[], &node_pool),
            ("nodeclaims.karpenter.sh", "Cluster", &[], &node_claim),
            ("nodeoverlays.karpenter.sh", "Cluster", &["overlays"], &["Ready", "Age", "Weight"]),
            ("ec2nodeclasses.karpenter.k8s.aws", "Cluster", &["ec2nc", "ec2ncs"], &["Ready", "Age", "Role"]),
            ("kwoknodeclasses.karpenter.kwok.sh", "Cluster", &["kwoknc", "kwokncs"], &[]),
            ("provisioners.karpenter.sh", "Cluster", &[], &["Template", "Weight"]),
            ("awsnodetemplates.karpenter.k8s.aws", "Cluster", &[], &[]),
            ("capacitybuffers.autoscaling.x-k8s.io", "Namespaced", &["cb"], &buffer),
            ("provisioningrequests.autoscaling.x-k8s.io", "Namespaced", &["provreq", "provreqs"], &["Age"]),
            ("capacityquotas.autoscaling.x-k8s.io", "Cluster", &["cq"], &[]),
        ];
        let crds = crds();
        assert_eq!(crds.len(), wanted.len());
        for (crd, (name, scope, short_names, columns)) in crds.iter().zip(wanted) {
            assert_eq!(crd["metadata"]["name"], name);
            assert_eq!(crd["spec"]["scope"], scope, "{name}");
            let names = crd["spec"]["names"]["shortNames"].as_array().cloned().unwrap_or_default();
            assert_eq!(names, short_names, "{name}");
            let version = &crd["spec"]["versions"][0];
            assert_eq!(version["subresources"]["status"], serde_json::json!({}), "{name}");
            assert_eq!(texts(&version["additionalPrinterColumns"], "name"), columns, "{name}");
        }
    }

    /// Defaults live in code, so that an object reads back as its author wrote it; one is KEDA's own.
    #[test]
    fn the_only_default_is_kedas() {
        fn defaults(value: &Value, path: &str, found: &mut Vec<String>) {
            match value {
                Value::Object(fields) => {
                    if let Some(default) = fields.get("default").filter(|_| !path.ends_with("/properties")) {
                        found.push(format!("{path}={default}"));
                    }
                    fields.iter().for_each(|(name, value)| defaults(value, &format!("{path}/{name}"), found));
                }
                Value::Array(elements) => elements.iter().for_each(|value| defaults(value, path, found)),
                _ => {}
            }
        }
        for crd in crds().iter().filter(|crd| crd["spec"]["group"] == "keda.sh") {
            let mut found = Vec::new();
            let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            defaults(schema, "", &mut found);
            let wanted: &[&str] = match crd["spec"]["names"]["kind"].as_str().unwrap() {
                "ScaledObject" => &["/properties/spec/properties/fallback/properties/behavior=\"static\""],
                _ => &[],
            };
            assert_eq!(found, wanted, "{}", crd["metadata"]["name"]);
        }
    }

    /// `kubectl scale nodepool` works for static pools.
    #[test]
    fn a_node_pool_can_be_scaled() {
        let crds = crds();
        let pool = crds.iter().find(|crd| crd["spec"]["names"]["kind"] == "NodePool").unwrap();
        let wanted =
            serde_json::json!({"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.nodes"});
        assert_eq!(pool["spec"]["versions"][0]["subresources"]["scale"], wanted);
    }

    /// They are written in either version, and read in the one that is stored.
    #[test]
    fn kinds_of_two_versions_have_them_alike() {
        let crds = crds();
        for (kind, stored, other) in
            [("ProvisioningRequest", "v1", "v1beta1"), ("CapacityQuota", "v1beta1", "v1alpha1")]
        {
            let crd = crds.iter().find(|crd| crd["spec"]["names"]["kind"] == kind).unwrap();
            let [new, old] = crd["spec"]["versions"].as_array().unwrap().as_slice() else { panic!("{crd}") };
            let of = |version: &Value| {
                (version["name"].clone(), version["served"].clone(), version["storage"].clone())
            };
            assert_eq!(of(new), (stored.into(), true.into(), true.into()));
            assert_eq!(of(old), (other.into(), true.into(), false.into()));
            assert_eq!(new["schema"], old["schema"]);
        }
    }

    #[test]
    fn a_field_called_description_stays() {
        let mut schema =
            serde_json::json!({"description": "text", "properties": {"description": {"type": "string"}}});
        strip(&mut schema, |name, value| name == "description" && value.is_string());
        assert_eq!(schema, serde_json::json!({"properties": {"description": {"type": "string"}}}));
    }
}
