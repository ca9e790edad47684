//! The CRDs of Karpenter's kinds: what is required, what is filled in, and what is read.
#![allow(clippy::unwrap_used, reason = "a test may")]

use kube::core::CustomResourceExt;
use serde_json::{Value, json};
use tandem_core::api::{
    autoscaling::CapacityBuffer,
    karpenter::{
        AWSNodeTemplate, ConsolidationPolicy, EC2NodeClass, KWOKNodeClass, NodeClaim, NodeOverlay, NodePool,
        Provisioner,
    },
};

/// The schema of a kind's spec.
fn spec<K: CustomResourceExt>() -> Value {
    let crd = serde_json::to_value(K::crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

/// The field at a path of names below `spec`; `[]` is an element.
fn field<'a>(spec: &'a Value, path: &str) -> &'a Value {
    path.split('.').filter(|name| !name.is_empty()).fold(spec, |schema, name| match name {
        "[]" => &schema["items"],
        name => &schema["properties"][name],
    })
}

#[test]
fn what_karpenter_requires_is_required_and_nothing_else() {
    for (spec, path, required) in [
        (spec::<NodePool>(), "", json!(["template"])),
        (spec::<NodePool>(), "template", json!(["spec"])),
        (spec::<NodePool>(), "template.spec", json!(["nodeClassRef", "requirements"])),
        (spec::<NodePool>(), "template.spec.requirements.[]", json!(["key", "operator"])),
        (spec::<NodePool>(), "disruption", Value::Null),
        (spec::<NodePool>(), "disruption.budgets.[]", json!(["nodes"])),
        (spec::<NodeClaim>(), "", json!(["nodeClassRef", "requirements"])),
        (spec::<NodeClaim>(), "nodeClassRef", json!(["group", "kind", "name"])),
        (spec::<NodeOverlay>(), "", json!(["requirements"])),
        (
            spec::<EC2NodeClass>(),
            "",
            json!(["amiSelectorTerms", "securityGroupSelectorTerms", "subnetSelectorTerms"]),
        ),
        (spec::<KWOKNodeClass>(), "", Value::Null),
        (spec::<Provisioner>(), "", Value::Null),
        (spec::<Provisioner>(), "providerRef", json!(["name"])),
        (spec::<AWSNodeTemplate>(), "", Value::Null),
        (spec::<CapacityBuffer>(), "scalableRef", json!(["kind", "name"])),
    ] {
        assert_eq!(field(&spec, path)["required"], required, "{path}");
    }
}

#[test]
fn what_karpenter_fills_in_is_filled_in() {
    for (spec, path, default) in [
        (spec::<NodePool>(), "disruption", json!({})),
        (spec::<NodePool>(), "disruption.consolidateAfter", json!("0s")),
        (spec::<NodePool>(), "disruption.consolidationPolicy", json!("WhenEmptyOrUnderutilized")),
        (spec::<NodePool>(), "disruption.budgets", json!([{"nodes": "10%"}])),
        (spec::<NodePool>(), "disruption.budgets.[].nodes", json!("10%")),
        (spec::<NodePool>(), "template.spec.expireAfter", json!("720h")),
        (spec::<NodePool>(), "template.spec.requirements.[].values", Value::Null),
        (spec::<NodeClaim>(), "expireAfter", json!("720h")),
        (spec::<EC2NodeClass>(), "metadataOptions.httpPutResponseHopLimit", json!(1)),
        (
            spec::<EC2NodeClass>(),
            "metadataOptions",
            json!({
                "httpEndpoint": "enabled",
                "httpProtocolIPv6": "disabled",
                "httpPutResponseHopLimit": 1,
                "httpTokens": "required",
            }),
        ),
        (spec::<AWSNodeTemplate>(), "metadataOptions", Value::Null),
        (spec::<CapacityBuffer>(), "provisioningStrategy", json!("buffer.x-k8s.io/active-capacity")),
    ] {
        assert_eq!(field(&spec, path)["default"], default, "{path}");
    }
}

#[test]
fn limits_are_karpenters() {
    for (spec, path, keyword, limit) in [
        (spec::<NodePool>(), "weight", "maximum", json!(100.0)),
        (spec::<NodePool>(), "disruption.budgets", "maxItems", json!(50)),
        (spec::<NodePool>(), "template.metadata.labels", "maxProperties", json!(100)),
        (spec::<NodePool>(), "template.spec.requirements", "maxItems", json!(100)),
        (spec::<NodePool>(), "template.spec.requirements.[].key", "maxLength", json!(316)),
        (spec::<NodePool>(), "template.spec.requirements.[].minValues", "maximum", json!(50.0)),
        (
            spec::<NodePool>(),
            "template.spec.taints.[].effect",
            "enum",
            json!(["NoSchedule", "PreferNoSchedule", "NoExecute"]),
        ),
        (spec::<NodeOverlay>(), "weight", "maximum", json!(10_000.0)),
        (spec::<EC2NodeClass>(), "networkInterfaces", "maxItems", json!(150)),
        (spec::<EC2NodeClass>(), "amiSelectorTerms", "minItems", json!(1)),
        (spec::<EC2NodeClass>(), "blockDeviceMappings.[].ebs.volumeSize", "type", json!("string")),
        (
            spec::<AWSNodeTemplate>(),
            "blockDeviceMappings.[].ebs.volumeSize",
            "x-kubernetes-int-or-string",
            json!(true),
        ),
        (spec::<EC2NodeClass>(), "kubelet", "x-kubernetes-preserve-unknown-fields", json!(true)),
        (spec::<Provisioner>(), "provider", "x-kubernetes-preserve-unknown-fields", json!(true)),
    ] {
        assert_eq!(field(&spec, path)[keyword], limit, "{path} {keyword}");
    }
}

#[test]
fn what_people_write_is_read() {
    let pool: NodePool = serde_json::from_value(json!({
        "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "default"},
        "spec": {
            "template": {"spec": {
                "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
                "requirements": [{"key": "team", "operator": "Exists", "minValues": 2}],
            }},
            "limits": {"cpu": 1000, "memory": "1000Gi"},
        },
    }))
    .unwrap();
    assert_eq!(pool.spec.limits.as_ref().unwrap()["cpu"].0, "1000");
    assert_eq!(pool.spec.disruption.policy(), ConsolidationPolicy::WhenEmptyOrUnderutilized);
    assert_eq!(pool.spec.disruption.budgets()[0].nodes, "10%");
    assert_eq!(pool.spec.template.spec.expire_after().unwrap().unwrap().as_hours(), 720);
    assert_eq!(pool.spec.template.spec.requirements[0].read().min_values(), Some(2));
    assert!(!pool.spec.is_static());
}
