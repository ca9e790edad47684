//! What a pass reasons on: the snapshot, and where in it everything is. Kept from pass to pass, with what changed applied.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{Input, PassSettings};
use crate::{
    nodes::cluster_state::Found,
    scheduling::{Checkpoint, ClassId, Node, NodeId, Pod, Snapshot, Surroundings, gang},
};

/// Classes of pods that are gone stay on a snapshot; with so many times the classes that it began with, it is made anew.
const STALE_CLASSES: u32 = 2;
/// And so many more, so that small clusters are not made anew all the time.
const SPARE_CLASSES: u32 = 1_000;

/// How many pods of each class, in the order in which they came.
pub(super) type Guests = Vec<(ClassId, u32)>;

/// Adds pods of a class.
pub(super) fn invite(guests: &mut Guests, class: ClassId, count: u32) {
    match guests.iter_mut().find(|(other, _)| *other == class) {
        Some((_, there)) => *there += count,
        None => guests.push((class, count)),
    }
}

/// The snapshot, and where in it everything is.
#[derive(Debug)]
pub(super) struct World {
    pub(super) snapshot: Snapshot,
    /// Nodes, and names of nodes that pods say they are on.
    homes: HashMap<Arc<str>, Home>,
    /// Pods on no node, by namespace and name.
    pub(super) unbound: Vec<Arc<Pod>>,
    /// Pods that will run on a node though they do not yet: they need another place if it goes.
    pub(super) guests: BTreeMap<NodeId, Guests>,
    /// What all this was made from.
    nodes: Vec<Resident>,
    pods: Vec<Arc<Pod>>,
    surroundings: Arc<Surroundings>,
    /// Classes that there were at first.
    classes: u32,
    /// The state between passes: what one tries is taken back before the next.
    between: Option<Checkpoint>,
}

/// A node by name.
#[derive(Debug, Default)]
struct Home {
    /// Absent for nodes that cannot run pods.
    id: Option<NodeId>,
    /// The pods on it, by namespace and name.
    pods: Vec<Arc<Pod>>,
}

/// A node on the snapshot.
#[derive(Debug)]
struct Resident {
    node: Arc<Node>,
    /// Whether its removal is under way.
    going: bool,
    id: NodeId,
}

impl World {
    /// Every node that can run pods, with those it runs. Nodes that are starting are left out: as long as they are not
    /// ready, copies of their group's template stand for them.
    fn new(input: &Input, nodes: &[(&Arc<Node>, bool)], settings: &PassSettings) -> Self {
        let mut world = Self {
            snapshot: Snapshot::new(input.surroundings.clone()),
            homes: HashMap::new(),
            unbound: Vec::new(),
            guests: BTreeMap::new(),
            nodes: Vec::with_capacity(nodes.len()),
            pods: Vec::new(),
            surroundings: input.surroundings.clone(),
            classes: 0,
            between: None,
        };
        for (node, going) in nodes {
            let id = world.snapshot.add_node(&seen(node, *going));
            world.homes.entry(node.name.clone()).or_default().id = Some(id);
            world.nodes.push(Resident { node: (*node).clone(), going: *going, id });
        }
        world.follow_pods(input, settings);
        world.classes = world.snapshot.class_count();
        world
    }

    /// The world as a pass sees it: `former` with what changed since, or a new one.
    pub(super) fn of(former: Option<Self>, input: &Input, found: &Found, settings: &PassSettings) -> Self {
        let starting: BTreeSet<&str> =
            found.groups.values().flat_map(|group| &group.starting).map(|name| &**name).collect();
        let runs = input.nodes.iter().filter(|node| !starting.contains(&*node.name));
        let nodes: Vec<_> = runs.map(|node| (node, input.removing.contains_key(&node.name))).collect();
        let mut world = match former {
            Some(mut world) if world.is_like(&nodes, input) => {
                if let Some(between) = world.between.take() {
                    world.snapshot.rollback(between);
                }
                world.follow_nodes(&nodes);
                world.follow_pods(input, settings);
                world
            }
            _ => Self::new(input, &nodes, settings),
        };
        world.between = Some(world.snapshot.checkpoint());
        world.seat_guests(settings);
        world
    }

    /// Whether what changed can be applied: nodes are tried in their order, so they must be the same ones.
    fn is_like(&self, nodes: &[(&Arc<Node>, bool)], input: &Input) -> bool {
        let same = |(resident, (node, going)): (&Resident, &(&Arc<Node>, bool))| {
            let unchanged = Arc::ptr_eq(&resident.node, node) || resident.node == **node;
            unchanged && resident.going == *going
                // What pods have of a node's devices is read with the node.
                || resident.node.name == node.name && !self.snapshot.holds_devices(resident.id)
        };
        self.nodes.len() == nodes.len()
            && self.nodes.iter().zip(nodes).all(same)
            && (Arc::ptr_eq(&self.surroundings, &input.surroundings)
                || self.surroundings == input.surroundings)
            && self.snapshot.class_count() <= self.classes * STALE_CLASSES + SPARE_CLASSES
    }

    /// Whether nodes and pods are the very same as in the last pass.
    pub(super) fn is_of(&self, input: &Input) -> bool {
        let same_nodes = || {
            let mut pairs = self.nodes.iter().zip(&input.nodes);
            pairs.all(|(resident, node)| Arc::ptr_eq(&resident.node, node))
        };
        self.nodes.len() == input.nodes.len() && same_nodes() && are_same(&self.pods, &input.pods)
    }

    fn follow_nodes(&mut self, nodes: &[(&Arc<Node>, bool)]) {
        for (resident, (node, going)) in self.nodes.iter_mut().zip(nodes) {
            let same = Arc::ptr_eq(&resident.node, node) || resident.node == **node;
            if !same || resident.going != *going {
                let pods: Vec<_> = self.snapshot.node(resident.id).pods().collect();
                self.snapshot.remove_node(resident.id);
                let id = self.snapshot.add_node(&seen(node, *going));
                debug_assert_eq!(id, resident.id, "the ordinal that was given up last is given first");
                for (class, count) in pods {
                    self.snapshot.bind_many(class, id, count);
                }
            }
            resident.node = (*node).clone();
            resident.going = *going;
        }
    }

    fn follow_pods(&mut self, input: &Input, settings: &PassSettings) {
        if are_same(&self.pods, &input.pods) {
            return;
        }
        let former = std::mem::take(&mut self.pods);
        let (gone, come) = changes(&former, &input.pods);
        let left: HashSet<_> = gone.iter().map(|pod| Arc::as_ptr(pod)).collect();
        self.unbound.retain(|pod| !left.contains(&Arc::as_ptr(pod)));
        for pod in gone {
            self.leave(pod, settings);
        }
        for pod in come {
            self.arrive(pod, settings);
        }
        self.unbound.sort_by(|one, other| by_key(one, other));
        self.pods.clone_from(&input.pods);
    }

    fn arrive(&mut self, pod: &Arc<Pod>, settings: &PassSettings) {
        if pod.is_terminal() {
            return;
        }
        let Some(node) = &pod.node else { return self.unbound.push(pod.clone()) };
        if !self.homes.contains_key(node) {
            self.homes.insert(node.clone(), Home::default());
        }
        let Some(home) = self.homes.get_mut(node) else { return };
        let in_order = home.pods.last().is_none_or(|last| by_key(last, pod).is_le());
        let at = if in_order {
            home.pods.len()
        } else {
            home.pods.partition_point(|other| by_key(other, pod).is_le())
        };
        home.pods.insert(at, pod.clone());
        if let Some(id) = home.id.filter(|_| !settings.pending.is_expendable(pod)) {
            let class = self.snapshot.class(pod);
            self.snapshot.settle(pod, class, id);
        }
    }

    /// Takes back [`World::arrive`] of a pod on a node.
    fn leave(&mut self, pod: &Arc<Pod>, settings: &PassSettings) {
        let Some(home) = pod.node.as_ref().and_then(|node| self.homes.get_mut(node)) else { return };
        let Some(at) = home.pods.iter().position(|other| Arc::ptr_eq(other, pod)) else { return };
        home.pods.remove(at);
        if let Some(id) = home.id.filter(|_| !settings.pending.is_expendable(pod)) {
            let class = self.snapshot.class(pod);
            self.snapshot.unsettle(pod, class, id);
        }
    }

    /// Keeps room for the pods that nodes are expected to run.
    fn seat_guests(&mut self, settings: &PassSettings) {
        self.guests.clear();
        for pod in &self.unbound {
            let node = pod.nominated.as_ref().filter(|_| pod.deleting.is_none());
            let home = node.and_then(|node| self.homes.get(node));
            let Some(id) = home.and_then(|home| home.id) else { continue };
            if !settings.pending.is_expendable(pod) {
                let class = self.snapshot.class(pod);
                self.snapshot.bind(class, id);
                invite(self.guests.entry(id).or_default(), class, 1);
            }
        }
    }

    /// Gangs of which pods that wait are expected on a node, `NAMESPACE/NAME` each.
    pub(super) fn gangs_expected_on(&mut self, node: &str) -> Vec<String> {
        let guests = self.id(node).and_then(|id| self.guests.get(&id)).cloned().unwrap_or_default();
        let mut gangs = BTreeSet::new();
        for pod in &self.unbound {
            if let Some((namespace, name)) = gang::key(pod) {
                let class = self.snapshot.class(pod);
                if guests.iter().any(|(guest, _)| *guest == class) {
                    gangs.insert(format!("{namespace}/{name}"));
                }
            }
        }
        gangs.into_iter().collect()
    }

    /// The node of a name, if it can run pods.
    pub(super) fn id(&self, node: &str) -> Option<NodeId> {
        self.homes.get(node)?.id
    }

    /// The pods on a node, by namespace and name.
    pub(super) fn pods_on(&self, node: &str) -> &[Arc<Pod>] {
        self.homes.get(node).map_or(&[], |home| &home.pods)
    }

    /// Whether a pod is on its way out.
    pub(super) fn has_pods_that_end(&self) -> bool {
        self.homes.values().flat_map(|home| &home.pods).any(|pod| pod.deleting.is_some())
    }

    /// Takes off the snapshot the nodes that are only on their way: pods are not sent where nothing may ever come.
    pub(super) fn keep_what_is_there(&mut self) {
        let real = self.nodes.len();
        let coming: Vec<NodeId> =
            self.snapshot.nodes().map(|(id, _)| id).filter(|id| id.index() >= real).collect();
        for id in coming {
            self.snapshot.remove_node(id);
        }
    }
}

/// A node that goes takes no pods, even before its taint is seen.
fn seen(node: &Node, going: bool) -> std::borrow::Cow<'_, Node> {
    if going {
        std::borrow::Cow::Owned(Node { unschedulable: true, ..node.clone() })
    } else {
        std::borrow::Cow::Borrowed(node)
    }
}

fn are_same(some: &[Arc<Pod>], others: &[Arc<Pod>]) -> bool {
    some.len() == others.len() && some.iter().zip(others).all(|(one, other)| Arc::ptr_eq(one, other))
}

/// The order of pods that are alike otherwise: by namespace and name.
pub(super) fn by_key(one: &Pod, other: &Pod) -> Ordering {
    (&one.shape.namespace, &one.name).cmp(&(&other.shape.namespace, &other.name))
}

/// The pods that are only among the former, and only among the latter. Quick if both are in order; right if not.
fn changes<'a>(former: &'a [Arc<Pod>], latter: &'a [Arc<Pod>]) -> (Vec<&'a Arc<Pod>>, Vec<&'a Arc<Pod>>) {
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    let (mut old, mut new) = (former.iter().peekable(), latter.iter().peekable());
    while let (Some(one), Some(other)) = (old.peek(), new.peek()) {
        let order = if Arc::ptr_eq(one, other) { None } else { Some(by_key(one, other)) };
        if order.is_none_or(Ordering::is_eq) {
            let (one, other) = (old.next(), new.next());
            if order.is_some() {
                gone.extend(one);
                come.extend(other);
            }
        } else if order == Some(Ordering::Less) {
            gone.extend(old.next());
        } else {
            come.extend(new.next());
        }
    }
    gone.extend(old);
    come.extend(new);
    (gone, come)
}
