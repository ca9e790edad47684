//! The CRDs, as the API server reads them: structural schemas whose limits are KEDA's.
#![allow(clippy::unwrap_used, reason = "a test may")]

use kube::core::CustomResourceExt;
use serde_json::{Value, json};
use tandem_core::api::{
    autoscaling::{CapacityBuffer, CapacityQuota, ProvisioningRequest, v1alpha1, v1beta1},
    karpenter::{
        AWSNodeTemplate, EC2NodeClass, KWOKNodeClass, NodeClaim, NodeOverlay, NodePool, Provisioner,
    },
    keda::{ClusterTriggerAuthentication, ScaledJob, ScaledObject, TriggerAuthentication},
};

const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";

fn schema<K: CustomResourceExt>() -> Value {
    serde_json::to_value(K::crd()).unwrap().pointer(SCHEMA).unwrap().clone()
}

fn all() -> [(&'static str, Value); 4] {
    [
        ("ScaledObject", schema::<ScaledObject>()),
        ("ScaledJob", schema::<ScaledJob>()),
        ("TriggerAuthentication", schema::<TriggerAuthentication>()),
        ("ClusterTriggerAuthentication", schema::<ClusterTriggerAuthentication>()),
    ]
}

/// The field at a path of names below `spec`; `[]` is an element.
fn field<'a>(schema: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(&schema["properties"]["spec"], |schema, name| match name {
        "[]" => &schema["items"],
        name => &schema["properties"][name],
    })
}

/// What `k8s.io/apiextensions-apiserver` calls structural: a type everywhere, no references, no alternatives.
fn check_structure(schema: &Value, path: &str) {
    let Some(keywords) = schema.as_object() else { return };
    for keyword in ["$ref", "definitions", "$defs", "anyOf", "oneOf", "allOf", "not"] {
        assert!(!keywords.contains_key(keyword), "{path} has {keyword}");
    }
    let int_or_string = schema["x-kubernetes-int-or-string"] == true;
    let anything = schema["x-kubernetes-preserve-unknown-fields"] == true;
    assert!(schema["type"].is_string() != int_or_string || anything, "{path} has no type: {schema}");
    if schema["type"] == "integer" {
        assert!(
            schema["format"] == "int32" || schema["format"] == "int64",
            "{path} has format {}",
            schema["format"]
        );
    }
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties.for_each(|(name, property)| check_structure(property, &format!("{path}.{name}")));
    for (keyword, name) in [("items", "[]"), ("additionalProperties", "{}")] {
        if !schema[keyword].is_null() {
            check_structure(&schema[keyword], &format!("{path}.{name}"));
        }
    }
}

#[test]
fn schemas_are_structural() {
    let of_nodes = [
        ("NodePool", schema::<NodePool>()),
        ("NodeClaim", schema::<NodeClaim>()),
        ("NodeOverlay", schema::<NodeOverlay>()),
        ("EC2NodeClass", schema::<EC2NodeClass>()),
        ("KWOKNodeClass", schema::<KWOKNodeClass>()),
        ("Provisioner", schema::<Provisioner>()),
        ("AWSNodeTemplate", schema::<AWSNodeTemplate>()),
        ("CapacityBuffer", schema::<CapacityBuffer>()),
        ("CapacityQuota", schema::<CapacityQuota>()),
        ("CapacityQuota v1alpha1", schema::<v1alpha1::CapacityQuota>()),
        ("ProvisioningRequest", schema::<ProvisioningRequest>()),
        ("ProvisioningRequest v1beta1", schema::<v1beta1::ProvisioningRequest>()),
    ];
    for (kind, schema) in all().into_iter().chain(of_nodes) {
        let properties = schema["properties"].as_object().unwrap();
        for (name, property) in properties.iter().filter(|(name, _)| *name != "metadata") {
            check_structure(property, &format!("{kind}.{name}"));
        }
    }
}

#[test]
fn what_keda_requires_is_required_and_nothing_else() {
    let [(_, object), (_, job), (_, authentication), _] = all();
    for (schema, path, required) in [
        (&object, "scaleTargetRef", json!(["name"])),
        (&object, "triggers.[]", json!(["metadata", "type"])),
        (&object, "triggers.[].authenticationRef", json!(["name"])),
        (&object, "fallback", json!(["failureThreshold", "replicas"])),
        (&object, "advanced", Value::Null),
        (&object, "advanced.scalingModifiers", Value::Null),
        (&job, "scalingStrategy", Value::Null),
        (&authentication, "podIdentity", json!(["provider"])),
        (&authentication, "hashiCorpVault", json!(["address", "authentication", "secrets"])),
        (&authentication, "oauth2", json!(["clientId", "clientSecret", "tokenUrl"])),
    ] {
        assert_eq!(field(schema, path)["required"], required, "{path}");
    }
    assert_eq!(object["properties"]["spec"]["required"], json!(["scaleTargetRef", "triggers"]));
    assert_eq!(job["properties"]["spec"]["required"], json!(["jobTargetRef", "triggers"]));
    assert_eq!(authentication["properties"]["spec"]["required"], Value::Null);
}

#[test]
fn limits_are_kedas() {
    let [(_, object), (_, job), ..] = all();
    let window = |direction| {
        format!("advanced.horizontalPodAutoscalerConfig.behavior.{direction}.stabilizationWindowSeconds")
    };
    for (schema, path, keyword, limit) in [
        (&object, "pollingInterval", "minimum", 1),
        (&object, "cooldownPeriod", "minimum", 0),
        (&object, "initialCooldownPeriod", "minimum", 0),
        (&object, "idleReplicaCount", "minimum", 0),
        (&object, "minReplicaCount", "minimum", 0),
        (&object, "maxReplicaCount", "minimum", 1),
        (&object, "fallback.failureThreshold", "minimum", 0),
        (&object, "fallback.replicas", "minimum", 0),
        (&object, "triggers", "minItems", 1),
        (&object, "triggers.[].type", "minLength", 1),
        (&object, "scaleTargetRef.name", "minLength", 1),
        (&object, &window("scaleUp"), "maximum", 3600),
        (&object, &window("scaleDown"), "minimum", 0),
        (&job, "maxReplicaCount", "minimum", 1),
        (&job, "successfulJobsHistoryLimit", "minimum", 0),
        (&job, "triggers", "minItems", 1),
    ] {
        assert_eq!(field(schema, path)[keyword].as_f64(), Some(f64::from(limit)), "{path}");
    }
}

#[test]
fn the_rule_and_the_default_are_kedas() {
    let object = schema::<ScaledObject>();
    let rules = json!([{
        "message": "minReplicaCount must be less than or equal to maxReplicaCount",
        "rule": "!has(self.minReplicaCount) || self.minReplicaCount <= (has(self.maxReplicaCount) ? \
                 self.maxReplicaCount : 100)",
    }]);
    assert_eq!(object["properties"]["spec"]["x-kubernetes-validations"], rules);
    let behavior = field(&object, "fallback.behavior");
    assert_eq!(behavior["default"], "static");
    let behaviors = json!([
        "static",
        "currentReplicas",
        "currentReplicasIfHigher",
        "currentReplicasIfLower",
        "scalingModifiers"
    ]);
    assert_eq!(behavior["enum"], behaviors);
}

#[test]
fn cluster_authentications_have_the_fields_of_namespaced_ones() {
    let [.., (_, namespaced), (_, cluster)] = all();
    assert_eq!(cluster["properties"]["spec"]["properties"], namespaced["properties"]["spec"]["properties"]);
    assert!(field(&cluster, "secretTargetRef")["items"].is_object());
}

#[test]
fn jobs_have_no_metric_type() {
    let job = schema::<ScaledJob>();
    let trigger = field(&job, "triggers.[]");
    assert!(trigger["properties"]["useCachedMetrics"].is_object());
    assert!(trigger["properties"]["metricType"].is_null());
}

#[test]
fn quantities_may_be_numbers() {
    let job: ScaledJob = serde_json::from_value(json!({
        "metadata": {"name": "j"},
        "spec": {
            "triggers": [],
            "jobTargetRef": {"template": {"spec": {
                "containers": [{"name": "c", "resources": {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"cpu": 1.5}}}],
                "volumes": [{"name": "v", "emptyDir": {"sizeLimit": 1_000_000}}],
            }}},
        },
    }))
    .unwrap();
    let pod = job.spec.job_target_ref.template.spec.unwrap();
    let resources = pod.containers[0].resources.as_ref().unwrap();
    assert_eq!(resources.requests.as_ref().unwrap()["cpu"].0, "1");
    assert_eq!(resources.requests.as_ref().unwrap()["memory"].0, "1Gi");
    assert_eq!(resources.limits.as_ref().unwrap()["cpu"].0, "1.5");
    let volume = &pod.volumes.unwrap()[0];
    assert_eq!(volume.empty_dir.as_ref().unwrap().size_limit.as_ref().unwrap().0, "1000000");

    let object: ScaledObject = serde_json::from_value(json!({
        "metadata": {"name": "o"},
        "spec": {"advanced": {"horizontalPodAutoscalerConfig": {"behavior": {"scaleUp": {"tolerance": 0}}}}},
    }))
    .unwrap();
    let config = object.spec.advanced.unwrap().horizontal_pod_autoscaler_config.unwrap();
    assert_eq!(config.behavior.unwrap().scale_up.unwrap().tolerance.unwrap().0, "0");
}

#[test]
fn an_object_reads_back_as_it_was_written() {
    let written = json!({
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "so", "namespace": "ns"},
        "spec": {
            "scaleTargetRef": {"name": "web"},
            "triggers": [{"type": "cron", "metadata": {"timezone": "UTC"}}],
            "advanced": {"scalingModifiers": {}},
        },
    });
    let object: ScaledObject = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(serde_json::to_value(object).unwrap(), written);
}
