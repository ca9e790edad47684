//! What schemas say beyond types: rules, patterns, and the parts of Kubernetes' own types that Karpenter narrows.

use schemars::Schema;
use serde_json::{Value, json};

use crate::api::rules::add_rules;

/// A qualified name: an optional DNS domain, a slash, a name.
pub(super) const QUALIFIED_NAME: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*(\/))?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$";
/// The value of a label.
const LABEL_VALUE: &str = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
/// Hours, minutes and seconds.
pub(super) const DURATION: &str = r"^([0-9]+(s|m|h))+$";
/// Hours, minutes and seconds, or Never.
pub(super) const NILLABLE_DURATION: &str = r"^(([0-9]+(s|m|h))+|Never)$";
/// A quantity.
const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

/// Longest key of a label: a domain of 253, a slash, a name of 63, less one (Karpenter's limit).
pub(super) const LONGEST_KEY: u32 = 316;
/// Longest value of a label.
const LONGEST_VALUE: u32 = 63;
/// Most requirements of an object.
pub(super) const MOST_REQUIREMENTS: u32 = 100;

/// Sets keywords of a schema below this one.
pub(super) fn set(schema: &mut Schema, below: &str, keywords: Value) {
    if let (Some(target), Value::Object(keywords)) =
        (schema.pointer_mut(below).and_then(Value::as_object_mut), keywords)
    {
        target.extend(keywords);
    }
}

/// An empty list is what is absent.
pub(super) fn without_default(schema: &mut Schema) {
    schema.remove("default");
}

/// Values of a requirement.
pub(super) fn values(schema: &mut Schema) {
    without_default(schema);
    set(schema, "/items", json!({"maxLength": LONGEST_VALUE, "pattern": LABEL_VALUE}));
}

/// Taints as Karpenter narrows them.
pub(super) fn taints(schema: &mut Schema) {
    set(schema, "/items/properties/key", json!({"minLength": 1, "pattern": QUALIFIED_NAME}));
    set(schema, "/items/properties/value", json!({"pattern": QUALIFIED_NAME}));
    set(schema, "/items/properties/effect", json!({"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]}));
}

/// A list of resources: what is no quantity is refused.
pub(super) fn resources(schema: &mut Schema) {
    set(schema, "/additionalProperties", json!({"pattern": QUANTITY}));
}

/// Labels that a pool gives its nodes.
pub(super) fn labels(schema: &mut Schema) {
    schema.insert("maxProperties".to_owned(), 100.into());
    set(schema, "/additionalProperties", json!({"maxLength": LONGEST_VALUE, "pattern": LABEL_VALUE}));
    let rules = restrictions("x")
        .map(|(message, rule)| json!({"message": message, "rule": format!("self.all(x, {rule})")}));
    add_rules(
        schema,
        rules.into_iter().chain([of_pool("self.all(x, x != \"karpenter.sh/nodepool\")")]).collect(),
    );
}

/// The key of a requirement of a pool or a claim.
pub(super) fn requirement_key(schema: &mut Schema) {
    overlay_requirement_key(schema);
    add_rules(schema, vec![of_pool("self != \"karpenter.sh/nodepool\"")]);
}

/// The key of a requirement of an overlay, which may name a pool.
pub(super) fn overlay_requirement_key(schema: &mut Schema) {
    let rules = restrictions("self").map(|(message, rule)| json!({"message": message, "rule": rule}));
    add_rules(schema, rules.to_vec());
}

fn of_pool(rule: &str) -> Value {
    json!({"message": "label \"karpenter.sh/nodepool\" is restricted", "rule": rule})
}

/// Labels that only Karpenter and the kubelet set, `subject` being the label.
fn restrictions(subject: &str) -> [(&'static str, String); 3] {
    let known: Vec<_> =
        AWS_LABELS.split_whitespace().map(|name| format!("\"karpenter.k8s.aws/{name}\"")).collect();
    [
        (
            "label domain \"karpenter.sh\" is restricted",
            format!(
                "{subject} in [\"karpenter.sh/capacity-type\", \"karpenter.sh/nodepool\"] || \
                 !{subject}.find(\"^([^/]+)\").endsWith(\"karpenter.sh\")"
            ),
        ),
        (
            "label \"kubernetes.io/hostname\" is restricted",
            format!("{subject} != \"kubernetes.io/hostname\""),
        ),
        (
            "label domain \"karpenter.k8s.aws\" is restricted",
            format!(
                "{subject} in [{}] || !{subject}.find(\"^([^/]+)\").endsWith(\"karpenter.k8s.aws\")",
                known.join(", ")
            ),
        ),
    ]
}

/// Names below karpenter.k8s.aws that requirements may use (aws, `pkg/apis/v1/labels.go`).
const AWS_LABELS: &str = "capacity-reservation-id capacity-reservation-type capacity-reservation-interruptible ec2nodeclass \
    instance-encryption-in-transit-supported instance-category instance-hypervisor instance-family instance-generation \
    instance-local-nvme instance-size instance-cpu instance-cpu-manufacturer instance-cpu-sustained-clock-speed-mhz \
    instance-memory instance-ebs-bandwidth instance-network-bandwidth instance-gpu-name instance-gpu-manufacturer \
    instance-gpu-count instance-gpu-memory instance-accelerator-name instance-accelerator-manufacturer \
    instance-accelerator-count instance-capability-flex instance-tenancy nitro-sandbox placement-group-id \
    placement-group-partition";
