//! What a new node of a group would look like.
//!
//! Source: Cluster Autoscaler, `processors/nodeinfosprovider/mixed_nodeinfos_processor.go`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    action::{DELETION_CANDIDATE, TO_BE_DELETED},
    group::Template,
};
use crate::scheduling::{Declared, Node, Pod, Reason, Snapshot, Surroundings, devices::Slice, room_after};

/// A node is taken as the model of its group once it has been ready for so long (`stabilizationDelay`).
const STABLE: SignedDuration = SignedDuration::from_mins(1);

/// A node's drivers have so long to publish its devices: as long as `--max-node-provision-time` gives a node by default.
const DEVICES_AWAITED: SignedDuration = SignedDuration::from_mins(15);

/// Taints that Kubernetes puts on nodes for what happens to them; no new node has them.
const CONDITION_TAINTS: &[&str] = &[
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/network-unavailable",
    "node.kubernetes.io/pid-pressure",
    "node.cloudprovider.kubernetes.io/uninitialized",
    "node.cloudprovider.kubernetes.io/shutdown",
    "cloud.google.com/impending-node-termination",
    "NodeWithImpairedVolumes",
];

/// Taints that tell of a node's state, and so are no part of a template.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PassingTaints {
    /// `--startup-taint` and `--ignore-taint`: keys of taints that a node sheds once it is ready.
    pub startup: Vec<String>,
    /// `--startup-taint-prefix`: what such keys begin with.
    pub startup_prefixes: Vec<String>,
    /// `--status-taint`: keys.
    pub status: Vec<String>,
}

/// What keys of startup taints begin with, without any flag.
const STARTUP_PREFIXES: &[&str] = &["startup-taint.cluster-autoscaler.kubernetes.io/", IGNORE_PREFIX];
/// The older name for it.
const IGNORE_PREFIX: &str = "ignore-taint.cluster-autoscaler.kubernetes.io/";
/// What keys of status taints begin with, without any flag.
const STATUS_PREFIX: &str = "status-taint.cluster-autoscaler.kubernetes.io/";

impl PassingTaints {
    /// The node, not ready as long as a startup taint is on it.
    pub fn unready(&self, node: Arc<Node>) -> Arc<Node> {
        if node.ready && node.taints.iter().any(|taint| self.is_startup(&taint.key)) {
            return Arc::new(Node { ready: false, ..(*node).clone() });
        }
        node
    }

    fn is_startup(&self, key: &str) -> bool {
        STARTUP_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
            || self.startup.iter().any(|other| other == key)
            || self.startup_prefixes.iter().any(|prefix| key.starts_with(prefix.as_str()))
    }

    fn is_status(&self, key: &str) -> bool {
        key.starts_with(STATUS_PREFIX) || self.status.iter().any(|other| other == key)
    }

    fn includes(&self, key: &str) -> bool {
        has_own_name(key) || self.is_status(key) || self.is_startup(key)
    }

    /// What a taint counts as in the metric `node_taints_count` (Cluster Autoscaler, `utils/taints`).
    pub fn type_name<'a>(&self, key: &'a str) -> &'a str {
        match key {
            _ if key.starts_with(IGNORE_PREFIX) => IGNORE_PREFIX,
            _ if has_own_name(key) => key,
            _ if self.is_startup(key) => "startup-taint",
            _ if self.is_status(key) => "status-taint",
            _ => "other",
        }
    }
}

/// Whether a taint is one of Kubernetes' or the autoscaler's own.
fn has_own_name(key: &str) -> bool {
    CONDITION_TAINTS.contains(&key) || key == TO_BE_DELETED || key == DELETION_CANDIDATE
}

/// Whether a node shows what others of its group will look like.
pub fn is_model(node: &Node, now: Timestamp) -> bool {
    let stable = match node.condition("Ready") {
        Some((true, since)) => since.is_none_or(|since| now.duration_since(since) > STABLE),
        _ => false,
    };
    stable && !node.unschedulable && node.deleting.is_none() && node.taint(TO_BE_DELETED).is_none()
}

/// The node that shows what others of its group will look like, among those that may: of those whose drivers have published
/// the most devices the first.
pub fn model<'a>(
    nodes: impl Iterator<Item = &'a Arc<Node>>,
    slices: &BTreeMap<Arc<str>, Vec<Arc<Slice>>>,
    now: Timestamp,
) -> Option<&'a Arc<Node>> {
    let published = |node: &Node| slices.get(&node.name).map_or(0, |own| drivers(own).len());
    let mut models = nodes.filter(|node| is_model(node, now));
    if slices.is_empty() {
        return models.next();
    }
    models.reduce(|best, node| if published(node) > published(best) { node } else { best })
}

/// Whether drivers that publish devices of a group's nodes have not yet done so for this one. An older node is taken as it is: a
/// driver that comes to one node after the other makes none of them unready.
///
/// Source: Cluster Autoscaler, `processors/customresources/dra_processor.go`, which waits for ever.
pub fn awaits_devices(template: &Node, node: &Node, own: &[Arc<Slice>], now: Timestamp) -> bool {
    let there = drivers(own);
    may_await_devices(node, now)
        && template
            .slices
            .as_deref()
            .is_some_and(|slices| drivers(slices).iter().any(|it| !there.contains(it)))
}

/// Whether a node is so young that its drivers may yet publish what they find there.
pub(super) fn may_await_devices(node: &Node, now: Timestamp) -> bool {
    node.created.is_some_and(|created| now.duration_since(created) <= DEVICES_AWAITED)
}

/// The drivers of slices.
fn drivers(slices: &[Arc<Slice>]) -> BTreeSet<&Arc<str>> {
    slices.iter().map(|slice| &slice.pool.0).collect()
}

/// The label of nodes that are only imagined: drivers that keep volumes on their node may tell by it what new ones will have
/// (Cluster Autoscaler, pull request 9702).
const IMAGINED: (&str, &str) = ("cluster-autoscaler.kubernetes.io/template-node", "true");

/// A node like this one, freshly made: without the taints that pass, under a name of its own, with empty disks.
pub fn fresh(node: &Node, group: &str, passing: &PassingTaints, surroundings: &Surroundings) -> Node {
    let mut fresh = node.clone();
    fresh.taints.retain(|taint| !passing.includes(&taint.key));
    fresh.rename(format!("template-node-for-{group}").into());
    fresh.labels.insert(IMAGINED.0.to_owned(), IMAGINED.1.to_owned());
    fresh.annotations.clear();
    fresh.provider_id = "".into();
    let room = room_after(node, &fresh, surroundings);
    if room != fresh.declared.room {
        fresh.declared = Arc::new(Declared { room, ..(*fresh.declared).clone() });
    }
    fresh.unschedulable = false;
    fresh.ready = true;
    fresh.deleting = None;
    fresh
}

/// A template of this node with the pods that DaemonSets will run there, beside those that the provider knows of. Those that are
/// too large for it take what it has if `force` says so (`--force-ds`): then it takes no other pods. Of the surroundings only
/// what the scheduler is configured to do otherwise counts.
pub fn with_daemon_pods(
    node: Node,
    known: Vec<Pod>,
    daemon_sets: &[Arc<Pod>],
    force: bool,
    surroundings: &Surroundings,
) -> Template {
    let Surroundings { profile, workloads, .. } = surroundings;
    let (profile, workloads) = (profile.clone(), workloads.clone());
    let mut snapshot =
        Snapshot::new(Arc::new(Surroundings { profile, workloads, ..Surroundings::default() }));
    let id = snapshot.add_node(&node);
    let mut pods = known;
    for pod in &pods {
        let class = snapshot.class(pod);
        snapshot.bind(class, id);
    }
    for pod in daemon_sets {
        // Their controller tolerates these taints for them.
        let mut tolerant = (**pod).clone();
        tolerant.claims.clear();
        tolerant.device_claims.clear();
        let class = snapshot.class(&tolerant);
        let twice = pods.iter().any(|other| other.name == tolerant.name);
        let suits = match snapshot.check(class, id) {
            Ok(()) => true,
            Err(reason) => force && matches!(reason, Reason::Insufficient { .. }),
        };
        if !twice && suits {
            snapshot.bind(class, id);
            pods.push(tolerant);
        }
    }
    Template { node, pods }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::{
        Resources,
        node::Condition,
        pod::{Shape, Traits},
    };

    fn slice(driver: &str) -> Arc<Slice> {
        let mut slice = Slice::default();
        slice.pool.0 = driver.into();
        Arc::new(slice)
    }

    fn node(name: &str) -> Arc<Node> {
        let conditions = [("Ready".into(), Condition::new(true, None))].into();
        Arc::new(Node {
            name: name.into(),
            created: Some(Timestamp::UNIX_EPOCH),
            conditions,
            ..Node::default()
        })
    }

    #[test]
    fn taints_count_by_their_own_name_or_by_what_they_are() {
        let passing = PassingTaints {
            startup: vec!["cni".to_owned()],
            startup_prefixes: vec!["starts/".to_owned()],
            status: vec!["hot".to_owned()],
        };
        let table = [
            ("ToBeDeletedByClusterAutoscaler", "ToBeDeletedByClusterAutoscaler"),
            ("DeletionCandidateOfClusterAutoscaler", "DeletionCandidateOfClusterAutoscaler"),
            ("node.kubernetes.io/not-ready", "node.kubernetes.io/not-ready"),
            (
                "ignore-taint.cluster-autoscaler.kubernetes.io/a",
                "ignore-taint.cluster-autoscaler.kubernetes.io/",
            ),
            ("startup-taint.cluster-autoscaler.kubernetes.io/a", "startup-taint"),
            ("status-taint.cluster-autoscaler.kubernetes.io/a", "status-taint"),
            ("cni", "startup-taint"),
            ("starts/a", "startup-taint"),
            ("hot", "status-taint"),
            ("dedicated", "other"),
        ];
        for (key, name) in table {
            assert_eq!(passing.type_name(key), name, "{key}");
        }
    }

    #[test]
    fn the_node_with_the_most_drivers_is_the_model_and_young_ones_wait_for_theirs() {
        let nodes = [node("a"), node("b"), node("c")];
        let both = vec![slice("gpu.test"), slice("nic.test")];
        let slices = [("a".into(), vec![slice("gpu.test")]), ("b".into(), both.clone()), ("c".into(), both)];
        let at = |minutes| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
        let found = model(nodes.iter(), &slices.clone().into(), at(5)).unwrap();
        assert_eq!(&*found.name, "b");
        let [_, (_, both), _] = slices;
        let template = Node { slices: Some(both.as_slice().into()), ..Node::default() };
        let awaits = |own: &[Arc<Slice>], minutes| awaits_devices(&template, found, own, at(minutes));
        assert!(awaits(&[slice("nic.test")], 10));
        assert!(!awaits(&both, 10));
        assert!(!awaits(&[], 20), "it has been long enough");
    }

    #[test]
    fn daemon_pods_that_are_too_large_fill_the_node_only_if_they_are_forced() {
        let pod = |name: &str, cpu: i64| {
            let requests = Resources { cpu, pods: 1, ..Resources::default() };
            let shape = Arc::new(Shape::new(requests, Traits::default()));
            Arc::new(Pod { name: name.into(), shape, ..Pod::default() })
        };
        let allocatable = Resources { cpu: 1000, pods: 10, ..Resources::default() };
        let node = Node { allocatable, ready: true, ..Node::default() };
        let all = [pod("small", 100), pod("large", 2000)];
        for (force, wanted) in [(false, vec!["small"]), (true, vec!["small", "large"])] {
            let template = with_daemon_pods(node.clone(), Vec::new(), &all, force, &Surroundings::default());
            assert_eq!(template.pods.iter().map(|pod| &*pod.name).collect::<Vec<_>>(), wanted);
        }
    }
}
