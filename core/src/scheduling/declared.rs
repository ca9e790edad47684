//! What only those who run on a node can say of it: its kubelet, and the drivers of its volumes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use k8s_openapi::api::core::v1 as k8s;

use super::{
    ids::{Label, Strings},
    node::Node,
    pod::Pod,
    selector::{Conjunction, all_match},
    snapshot::Snapshot,
    surroundings::Surroundings,
};

/// What a node says of itself. Of one that nobody has seen yet nothing is known, and what is not known refuses no pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Declared {
    /// What its kubelet can do (`status.declaredFeatures`); `None` if nobody knows.
    pub features: Option<BTreeSet<Box<str>>>,
    /// The CSI drivers that run there (`CSINode`); `None` if nobody knows.
    pub drivers: Option<BTreeSet<Box<str>>>,
    /// Of a node to come: the greatest volume that its drivers can make on the node itself, bytes by storage class.
    pub room: BTreeMap<Arc<str>, i64>,
}

/// What is taken for granted of a node that nobody has seen yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Presumed {
    /// That its kubelet can do what a pod needs.
    Features(Box<[&'static str]>),
    /// That a CSI driver runs there.
    Driver(Arc<str>),
    /// That its drivers have room for a volume of this class.
    Room(Arc<str>),
    /// That it has the devices that a pod asks for.
    Devices,
}

impl fmt::Display for Presumed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Features(features) => write!(f, "that its kubelet declares {}", features.join(", ")),
            Self::Driver(driver) => write!(f, "that the CSI driver {driver} runs there"),
            Self::Devices => f.write_str("that it has the devices that are asked for"),
            Self::Room(class) => write!(f, "that there is storage of class {class}"),
        }
    }
}

/// What is taken for granted if a pod is sent to this node.
pub fn presumed(pod: &Pod, node: &Node, surroundings: &Arc<Surroundings>) -> Vec<Presumed> {
    let mut snapshot = Snapshot::new(surroundings.clone());
    let (class, node) = (snapshot.class(pod), snapshot.add_node(node));
    snapshot.presumes(class, node).collect()
}

/// What a pod asks of those who run on a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Demand {
    /// That the kubelet declares these features.
    Features(Box<[&'static str]>),
    /// That a CSI driver runs there.
    Driver(Arc<str>),
    /// That a volume can be had.
    Room(Room),
}

/// What a claim that waits for its pod asks of a driver that says how much room it has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Room {
    /// The storage class.
    pub(super) class: Arc<str>,
    /// What is asked for.
    pub(super) bytes: i64,
    /// Where there is a volume, or room for one.
    pub(super) enough: Box<[Conjunction]>,
    /// Where a driver has too little.
    pub(super) short: Box<[Conjunction]>,
}

/// An answer to a demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    Unknown,
}

impl From<bool> for Answer {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl Demand {
    /// Whether a node meets it, as far as anybody knows.
    pub(super) fn accepts(&self, node: &Declared, labels: &[Label], strings: &Strings) -> bool {
        self.answer(node, labels, strings) != Answer::No
    }

    /// What it takes for granted of a node.
    pub(super) fn presumes(&self, node: &Declared, labels: &[Label], strings: &Strings) -> Option<Presumed> {
        (self.answer(node, labels, strings) == Answer::Unknown).then(|| match self {
            Self::Features(features) => Presumed::Features(features.clone()),
            Self::Driver(driver) => Presumed::Driver(driver.clone()),
            Self::Room(room) => Presumed::Room(room.class.clone()),
        })
    }

    fn answer(&self, node: &Declared, labels: &[Label], strings: &Strings) -> Answer {
        let lies_in = |places: &[Conjunction]| places.iter().any(|place| all_match(place, labels, strings));
        match self {
            Self::Features(needed) => node.features.as_ref().map_or(Answer::Unknown, |declared| {
                needed.iter().all(|feature| declared.contains(*feature)).into()
            }),
            Self::Driver(driver) => {
                node.drivers.as_ref().map_or(Answer::Unknown, |running| running.contains(&**driver).into())
            }
            Self::Room(room) if lies_in(&room.enough) => Answer::Yes,
            Self::Room(room) if lies_in(&room.short) => Answer::No,
            Self::Room(room) => match node.room.get(&room.class) {
                Some(most) => (room.bytes <= *most).into(),
                None if node.drivers.is_none() => Answer::Unknown,
                None => Answer::No,
            },
        }
    }
}

/// What the kubelet has to declare for a pod to be scheduled on its node, in order.
///
/// Source: Kubernetes 1.37, `component-helpers/nodedeclaredfeatures/features`; features that only updates of pods ask for
/// are left out.
pub(super) fn features(spec: &k8s::PodSpec) -> Box<[&'static str]> {
    let containers = || spec.init_containers.iter().flatten().chain(&spec.containers);
    let restarts_all = || {
        let mut rules = containers().flat_map(|container| container.restart_policy_rules.iter().flatten());
        rules.any(|rule| rule.action == "RestartAllContainers")
    };
    let maps_users = || spec.host_network == Some(true) && spec.host_users == Some(false);
    let binds_with_options = || {
        let debugging = spec.ephemeral_containers.iter().flatten();
        let mounts = containers()
            .map(|container| &container.volume_mounts)
            .chain(debugging.map(|container| &container.volume_mounts));
        mounts.flatten().flatten().any(|mount| mount.bind_mount_options.iter().flatten().next().is_some())
    };
    let needs = [
        ("RestartAllContainersOnContainerExits", restarts_all()),
        ("UserNamespacesHostNetworkSupport", maps_users()),
        ("VolumeBindMountOptions", binds_with_options()),
    ];
    needs.iter().filter(|(_, needed)| *needed).map(|(feature, _)| *feature).collect()
}
