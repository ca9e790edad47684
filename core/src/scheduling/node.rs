//! A node as decisions see it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{self as k8s, Taint};

use super::{class::HOSTNAME, declared::Declared, devices::Slice, resources::Resources};

/// A node as decisions see it: a real one, or a template of one that could be had.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// `spec.providerID`.
    pub provider_id: Arc<str>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<Taint>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// What pods may use of it.
    pub allocatable: Resources,
    /// What it has.
    pub capacity: Resources,
    /// Volumes that may be attached, by CSI driver (`CSINode`); a driver that is absent has no limit.
    pub volume_limits: BTreeMap<Box<str>, i64>,
    /// What its kubelet and its drivers say.
    pub declared: Arc<Declared>,
    /// Slices of devices that it alone has, or will have, beside those that go by its name: all of a template's, and what the
    /// drivers of a node that is on its way have not published yet.
    pub slices: Option<Arc<[Arc<Slice>]>>,
    /// Whether nobody knows which devices it will have. Then it is presumed to have what one pod asks for, and no more.
    pub devices_unknown: bool,
    /// Whether it takes pods: its conditions say so, and none of the taints of a node that starts is left.
    pub ready: bool,
    /// Conditions by type. For who decides by them there is [`Node::condition`].
    pub conditions: BTreeMap<Box<str>, Condition>,
    /// Created then.
    pub created: Option<Timestamp>,
    /// Being deleted since then.
    pub deleting: Option<Timestamp>,
}

/// What is said of a node (`status.conditions`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    /// Whether it holds; `None` if nobody knows.
    pub holds: Option<bool>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Why, in one word.
    pub reason: Box<str>,
}

impl Condition {
    /// That something holds, or does not, and nobody says why.
    pub fn new(holds: bool, since: Option<Timestamp>) -> Self {
        Self { holds: Some(holds), since, reason: Box::default() }
    }
}

/// Taints of a node that has registered and does not take pods yet.
const STARTING: &[&str] = &[
    "node.kubernetes.io/not-ready",
    "node.cloudprovider.kubernetes.io/uninitialized",
    "karpenter.sh/unregistered",
];

/// The kubelet says that it is ready a moment before the taint goes that keeps pods off.
fn is_ready(conditions: &BTreeMap<Box<str>, Condition>, taints: &[Taint]) -> bool {
    let is = |kind: &str| conditions.get(kind).is_some_and(|condition| condition.holds == Some(true));
    is("Ready")
        && !is("NetworkUnavailable")
        && !taints.iter().any(|taint| STARTING.contains(&taint.key.as_str()))
}

fn features(status: Option<&k8s::NodeStatus>) -> BTreeSet<Box<str>> {
    let declared = status.and_then(|status| status.declared_features.as_ref());
    declared.into_iter().flatten().map(|feature| feature.as_str().into()).collect()
}

impl Node {
    /// Reads a node of the API. Volume limits and what drivers say come from elsewhere (`CSINode`).
    pub fn read(node: &k8s::Node) -> Self {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let conditions: BTreeMap<_, _> = status
            .and_then(|status| status.conditions.as_ref())
            .into_iter()
            .flatten()
            .map(|condition| {
                let holds = match condition.status.as_str() {
                    "True" => Some(true),
                    "False" => Some(false),
                    _ => None,
                };
                let since = condition.last_transition_time.as_ref().map(|time| time.0);
                let reason = condition.reason.as_deref().unwrap_or_default().into();
                (condition.type_.as_str().into(), Condition { holds, since, reason })
            })
            .collect();
        let taints = spec.and_then(|spec| spec.taints.clone()).unwrap_or_default();
        Self {
            name: node.metadata.name.as_deref().unwrap_or_default().into(),
            provider_id: spec.and_then(|spec| spec.provider_id.as_deref()).unwrap_or_default().into(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            annotations: node.metadata.annotations.clone().unwrap_or_default(),
            unschedulable: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
            allocatable: Resources::from_optional(status.and_then(|status| status.allocatable.as_ref())),
            capacity: Resources::from_optional(status.and_then(|status| status.capacity.as_ref())),
            volume_limits: BTreeMap::new(),
            declared: Arc::new(Declared { features: Some(features(status)), ..Declared::default() }),
            slices: None,
            devices_unknown: false,
            ready: is_ready(&conditions, &taints),
            taints,
            conditions,
            created: node.metadata.creation_timestamp.as_ref().map(|time| time.0),
            deleting: node.metadata.deletion_timestamp.as_ref().map(|time| time.0),
        }
    }

    /// Reads the description of a node that is not there yet: what it does not say of its kubelet, nobody knows.
    pub fn describe(node: &k8s::Node) -> Self {
        let mut read = Self::read(node);
        if read.declared.features.as_ref().is_some_and(BTreeSet::is_empty) {
            read.declared = Arc::default();
        }
        read
    }

    /// Gives it another name, in its labels too: those with a node's name as their value tell the node, such as
    /// `kubernetes.io/hostname` or the topology key of a driver that keeps volumes on their node.
    pub fn rename(&mut self, name: Arc<str>) {
        let hostname = self.labels.get(HOSTNAME).cloned().unwrap_or_default();
        let named = |value: &String| !value.is_empty() && (**value == *self.name || *value == hostname);
        for value in self.labels.values_mut().filter(|value| named(value)) {
            *value = name.to_string();
        }
        self.labels.insert(HOSTNAME.to_owned(), name.to_string());
        self.name = name;
    }

    /// Whether a condition of this type holds, and since when. That nobody knows says nothing, unless the kubelet itself is
    /// what nobody hears of (`Ready`).
    pub fn condition(&self, kind: &str) -> Option<(bool, Option<Timestamp>)> {
        let condition = self.conditions.get(kind)?;
        let holds = condition.holds.or((kind == "Ready").then_some(false))?;
        Some((holds, condition.since))
    }

    /// The value of a taint with this key, if there is one.
    pub fn taint(&self, key: &str) -> Option<&Taint> {
        self.taints.iter().find(|taint| taint.key == key)
    }
}
