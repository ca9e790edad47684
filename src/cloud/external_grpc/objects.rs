//! `proto/kubernetes.proto` as Rust: the objects of Kubernetes that the protocol carries as bytes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1 as k8s,
    apimachinery::pkg::{api::resource, apis::meta::v1 as meta},
};
use prost::Message;
use tandem_core::{quantity::format_milli, scheduling};

use super::protocol::WireTimestamp;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(message, optional, tag = "1")]
    pub(super) metadata: Option<ObjectMeta>,
    #[prost(message, optional, tag = "2")]
    pub(super) spec: Option<NodeSpec>,
    #[prost(message, optional, tag = "3")]
    pub(super) status: Option<NodeStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ObjectMeta {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) namespace: String,
    #[prost(btree_map = "string, string", tag = "11")]
    pub(super) labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "12")]
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeSpec {
    #[prost(string, tag = "3")]
    pub(super) provider_id: String,
    #[prost(bool, tag = "4")]
    pub(super) unschedulable: bool,
    #[prost(message, repeated, tag = "5")]
    pub(super) taints: Vec<Taint>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Taint {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
    #[prost(string, tag = "3")]
    pub(super) effect: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeStatus {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) capacity: BTreeMap<String, Quantity>,
    #[prost(btree_map = "string, message", tag = "2")]
    pub(super) allocatable: BTreeMap<String, Quantity>,
    #[prost(message, repeated, tag = "4")]
    pub(super) conditions: Vec<NodeCondition>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeCondition {
    #[prost(string, tag = "1")]
    pub(super) r#type: String,
    #[prost(string, tag = "2")]
    pub(super) status: String,
    #[prost(message, optional, tag = "4")]
    pub(super) last_transition_time: Option<WireTimestamp>,
    #[prost(string, tag = "5")]
    pub(super) reason: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Quantity {
    #[prost(string, tag = "1")]
    pub(super) string: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Pod {
    #[prost(message, optional, tag = "1")]
    pub(super) metadata: Option<ObjectMeta>,
    #[prost(message, optional, tag = "2")]
    pub(super) spec: Option<PodSpec>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PodSpec {
    #[prost(message, repeated, tag = "2")]
    pub(super) containers: Vec<Container>,
    #[prost(btree_map = "string, string", tag = "7")]
    pub(super) node_selector: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Container {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "8")]
    pub(super) resources: Option<ResourceRequirements>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResourceRequirements {
    #[prost(btree_map = "string, message", tag = "2")]
    pub(super) requests: BTreeMap<String, Quantity>,
}

/// The node that these bytes are, as decisions see nodes. Allocatable is the capacity if it is left out, as kubelets
/// have it.
///
/// # Errors
/// They are no node.
pub(super) fn node(bytes: &[u8]) -> Result<scheduling::Node, prost::DecodeError> {
    let Node { metadata, spec, status } = Node::decode(bytes)?;
    let (metadata, spec) = (metadata.unwrap_or_default(), spec.unwrap_or_default());
    let status = status.unwrap_or_default();
    let allocatable = if status.allocatable.is_empty() { &status.capacity } else { &status.allocatable };
    let node = k8s::Node {
        metadata: meta::ObjectMeta {
            name: Some(metadata.name),
            labels: Some(metadata.labels),
            annotations: Some(metadata.annotations),
            ..meta::ObjectMeta::default()
        },
        spec: Some(k8s::NodeSpec {
            provider_id: Some(spec.provider_id),
            unschedulable: Some(spec.unschedulable),
            taints: Some(spec.taints.into_iter().map(Taint::into_api).collect()),
            ..k8s::NodeSpec::default()
        }),
        status: Some(k8s::NodeStatus {
            allocatable: Some(quantities(allocatable)),
            capacity: Some(quantities(&status.capacity)),
            conditions: Some(status.conditions.into_iter().map(NodeCondition::into_api).collect()),
            ..k8s::NodeStatus::default()
        }),
    };
    Ok(scheduling::Node::describe(&node))
}

fn quantities(list: &BTreeMap<String, Quantity>) -> BTreeMap<String, resource::Quantity> {
    list.iter().map(|(name, quantity)| (name.clone(), resource::Quantity(quantity.string.clone()))).collect()
}

impl Taint {
    fn into_api(self) -> k8s::Taint {
        let value = Some(self.value).filter(|value| !value.is_empty());
        k8s::Taint { key: self.key, value, effect: self.effect, time_added: None }
    }
}

impl NodeCondition {
    fn into_api(self) -> k8s::NodeCondition {
        let since = self.last_transition_time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok());
        k8s::NodeCondition {
            type_: self.r#type,
            status: self.status,
            last_transition_time: since.map(meta::Time),
            reason: Some(self.reason).filter(|reason| !reason.is_empty()),
            ..k8s::NodeCondition::default()
        }
    }
}

/// A node as bytes: what pods are placed by.
pub(crate) fn node_bytes(node: &scheduling::Node) -> Vec<u8> {
    let taint = |taint: &k8s::Taint| Taint {
        key: taint.key.clone(),
        value: taint.value.clone().unwrap_or_default(),
        effect: taint.effect.clone(),
    };
    let ready = NodeCondition {
        r#type: "Ready".to_owned(),
        status: if node.ready { "True" } else { "False" }.to_owned(),
        ..NodeCondition::default()
    };
    let metadata = ObjectMeta {
        name: node.name.to_string(),
        namespace: String::new(),
        labels: node.labels.clone(),
        annotations: node.annotations.clone(),
    };
    let spec = NodeSpec {
        provider_id: node.provider_id.to_string(),
        unschedulable: node.unschedulable,
        taints: node.taints.iter().map(taint).collect(),
    };
    let status = NodeStatus {
        capacity: amounts(node.capacity.iter()),
        allocatable: amounts(node.allocatable.iter()),
        conditions: vec![ready],
    };
    Node { metadata: Some(metadata), spec: Some(spec), status: Some(status) }.encode_to_vec()
}

fn amounts<'a>(amounts: impl Iterator<Item = (&'a str, i64)>) -> BTreeMap<String, Quantity> {
    let quantity = |(name, amount): (&str, i64)| {
        let string = if name == "cpu" { format_milli(amount) } else { amount.to_string() };
        (name.to_owned(), Quantity { string })
    };
    amounts.map(quantity).collect()
}

/// A pod as bytes: what it asks for is in one container, since that is all that a price depends on.
pub(crate) fn pod_bytes(pod: &scheduling::Pod) -> Vec<u8> {
    let shape = &pod.shape;
    // "pods" is what a pod takes of a node, and nothing that a container may ask for.
    let requests = amounts(shape.requests.iter().filter(|(name, _)| *name != "pods"));
    let container =
        Container { name: "requests".to_owned(), resources: Some(ResourceRequirements { requests }) };
    let metadata = ObjectMeta {
        name: pod.name.to_string(),
        namespace: shape.namespace.to_string(),
        labels: shape.labels.clone(),
        annotations: shape.annotations.clone(),
    };
    let spec = PodSpec { containers: vec![container], node_selector: shape.node_selector.clone() };
    Pod { metadata: Some(metadata), spec: Some(spec) }.encode_to_vec()
}
