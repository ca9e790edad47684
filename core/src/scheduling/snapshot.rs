//! The snapshot: nodes with their pods, to try things on and take back.

use std::sync::Arc;

use super::{
    class::{Class, amounts},
    devices::{self, Devices},
    family::Family,
    filters::Filters,
    find::Memo,
    fleet::{Fleet, NodeInfo, shift},
    ids::{ClassId, FamilyId, Interned, Label, NodeId, OrdinalMap, Strings, Symbol, ordinal},
    node::Node,
    pod::{Shape, Traits},
    resources::Resources,
    selector::NAME_FIELD,
    surroundings::Surroundings,
    topology::{CounterId, Topology, World},
};

/// Nodes with their pods, as kube-scheduler would see them, to try things on.
///
/// Whatever is done after [`Snapshot::checkpoint`] can be taken back by [`Snapshot::rollback`]. Classes, and the shapes they
/// were read from, are kept as long as the snapshot is; so is what the surroundings said.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub(super) surroundings: Arc<Surroundings>,
    pub(super) strings: Strings,
    pub(super) resources: Interned<Symbol>,
    pub(super) filters: Filters,
    pub(super) fleet: Fleet,
    pub(super) topology: Topology,
    pub(super) namespaces: OrdinalMap<Symbol, Box<[Label]>>,
    pub(super) families: Interned<Family>,
    /// Families by the address of traits, which are kept so that no others take their address.
    pub(super) by_traits: OrdinalMap<(usize, bool), (Arc<Traits>, FamilyId)>,
    pub(super) classes: Interned<Class>,
    /// Classes by the address of a shape, which is kept so that no other takes its address.
    pub(super) by_shape: OrdinalMap<(usize, bool), (Arc<Shape>, ClassId)>,
    /// The families with a label, of those before `indexed`.
    pub(super) families_with: OrdinalMap<Label, Vec<FamilyId>>,
    pub(super) indexed: u32,
    /// By family: the counters that count its pods.
    pub(super) counters_of: Vec<Vec<CounterId>>,
    /// By family: pods on nodes.
    pub(super) bound: Vec<u32>,
    pub(super) memos: Vec<Memo>,
    /// Pods that use a claim that one alone may use.
    pub(super) claims_in_use: OrdinalMap<Symbol, u32>,
    pub(super) devices: Devices,
    /// Counts changes.
    pub(super) now: u64,
    /// When a node came or went or a pod went: what fitted nowhere before may fit now.
    pub(super) freed: u64,
    /// What was done since the first open checkpoint, the last thing last.
    log: Vec<Change>,
    open: usize,
}

/// A state to come back to. Checkpoints nest: the one made last is rolled back or kept first.
#[derive(Debug)]
#[must_use = "a checkpoint is rolled back or kept"]
pub struct Checkpoint {
    changes: usize,
    freed: u64,
}

/// What can be undone.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Added(NodeId),
    Removed(NodeId, Box<NodeInfo>),
    Bound(ClassId, NodeId, i64),
    Nominated(ClassId, NodeId, i64),
    Remembered(ClassId, Memo),
    Devices(Box<devices::Undo>),
}

/// A node read once, to be added many times.
#[derive(Debug, Clone)]
pub(crate) struct Mold {
    info: NodeInfo,
    /// The keys whose value is the node's name, see [`Node::rename`].
    named: Vec<Symbol>,
}

impl Mold {
    /// Takes all room from it.
    pub(super) fn close(&mut self) {
        self.info.allocatable = [0; 4];
        self.info.others_allocatable = Arc::default();
        self.info.others_free = Vec::new();
        self.info.is_closed = true;
    }

    /// The node.
    pub(crate) fn info(&self) -> &NodeInfo {
        &self.info
    }
}

impl Snapshot {
    /// An empty snapshot.
    pub fn new(surroundings: Arc<Surroundings>) -> Self {
        let mut strings = Strings::default();
        let devices = Devices::read(surroundings.devices.as_deref(), &mut strings);
        Self { surroundings, strings, devices, ..Self::default() }
    }

    /// What it reads beside pods and nodes.
    pub(crate) fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    /// Adds a node.
    pub fn add_node(&mut self, node: &Node) -> NodeId {
        let mold = self.mold(node);
        self.enter(mold.info)
    }

    /// Adds another node like one that has been read, under its own name and hostname.
    pub(crate) fn add_copy(&mut self, mold: &Mold, name: &str) -> NodeId {
        let symbol = self.strings.intern(name);
        let mut info = mold.info.clone();
        let labels = info
            .labels
            .iter()
            .map(|(key, value)| (*key, if mold.named.contains(key) { symbol } else { *value }));
        info.labels = labels.collect();
        info.name = self.strings.name(symbol).clone();
        self.enter(info)
    }

    /// Reads a node.
    pub(crate) fn mold(&mut self, node: &Node) -> Mold {
        let name_key = self.strings.intern(NAME_FIELD);
        let mut labels = self.strings.labels(&node.labels);
        labels.push((name_key, self.strings.intern(&node.name)));
        labels.sort_unstable();
        let mut others = vec![0; self.resources.len() as usize];
        for (name, amount) in &node.allocatable.other {
            let resource = self.resource(name) as usize;
            if resource >= others.len() {
                others.resize(resource + 1, 0);
            }
            others[resource] = *amount;
        }
        let limits = node.volume_limits.iter();
        let info = NodeInfo {
            name: node.name.clone(),
            labels: labels.into(),
            taints: node.taints.clone().into(),
            declared: node.declared.clone(),
            unschedulable: node.unschedulable,
            allocatable: amounts(&node.allocatable),
            others_allocatable: others.clone().into(),
            others_free: others,
            limits: limits.map(|(driver, limit)| (self.strings.intern(driver), *limit)).collect(),
            devices: self.devices.of_node(node, &mut self.strings),
            ..NodeInfo::default()
        };
        let name = self.strings.intern(&node.name);
        let mut named: Vec<_> =
            info.labels.iter().filter(|label| label.1 == name).map(|label| label.0).collect();
        named.push(self.strings.intern(super::class::HOSTNAME));
        Mold { info, named }
    }

    /// Puts a node after all others.
    pub(super) fn append(&mut self, mold: Mold) -> NodeId {
        let id = NodeId(ordinal(self.fleet.nodes.len()));
        self.place(id, mold.info);
        self.record(Change::Added(id));
        id
    }

    fn enter(&mut self, info: NodeInfo) -> NodeId {
        // While something may be rolled back, new nodes come last, so that those of an estimate are a range.
        let vacant = if self.open == 0 { self.fleet.vacant.pop() } else { None };
        let id = NodeId(vacant.unwrap_or_else(|| ordinal(self.fleet.nodes.len())));
        self.place(id, info);
        self.record(Change::Added(id));
        id
    }

    /// Puts a node without pods under its ordinal.
    fn place(&mut self, id: NodeId, info: NodeInfo) {
        self.fleet.enter(id.index(), info);
        let Self { topology, fleet, filters, strings, .. } = self;
        topology.enter(id.index(), &World { fleet, filters, strings });
        self.touch_freed();
    }

    /// Removes a node with its pods.
    pub fn remove_node(&mut self, node: NodeId) {
        let info = self.displace(node);
        self.fleet.vacant.push(node.0);
        self.record(Change::Removed(node, Box::new(info)));
    }

    /// Takes a node from under its ordinal, and returns it as it was.
    fn displace(&mut self, node: NodeId) -> NodeInfo {
        let pods = self.fleet.nodes[node.index()].pods.clone();
        for (class, count) in &pods {
            self.shift(*class, node, -i64::from(*count));
        }
        self.lay_down_devices(node);
        self.topology.leave(node.index());
        self.filters.forget(node.index());
        let mut info = self.fleet.leave(node.index());
        info.pods = pods;
        self.touch_freed();
        info
    }

    /// Brings back what [`Snapshot::displace`] took.
    fn restore(&mut self, node: NodeId, mut info: NodeInfo) {
        let pods = std::mem::take(&mut info.pods);
        self.place(node, info);
        for (class, count) in pods {
            self.shift(class, node, i64::from(count));
        }
        self.take_up_devices(node);
    }

    /// Puts a pod of a class on a node, whether it fits or not.
    pub fn bind(&mut self, class: ClassId, node: NodeId) {
        self.bind_many(class, node, 1);
    }

    /// Puts pods of a class on a node, whether they fit or not.
    pub fn bind_many(&mut self, class: ClassId, node: NodeId, count: u32) {
        self.change(class, node, i64::from(count));
        self.take_devices(class, node, count);
    }

    /// Takes a pod of a class from a node; nothing happens if there is none.
    pub fn unbind(&mut self, class: ClassId, node: NodeId) {
        let there = self.fleet.nodes[node.index()].pods.iter().any(|(other, _)| *other == class);
        if there {
            self.change(class, node, -1);
            self.give_devices(class, node);
        }
    }

    pub(super) fn change(&mut self, class: ClassId, node: NodeId, delta: i64) {
        if delta != 0 {
            self.shift(class, node, delta);
            self.record(Change::Bound(class, node, delta));
        }
    }

    /// Counts pods of a class on a node in or out, everywhere that counts them.
    fn shift(&mut self, id: ClassId, node: NodeId, delta: i64) {
        let at = node.index();
        let class = self.classes.get(id.0).clone();
        self.fleet.take(at, &class.requests, &class.others, delta);
        if !class.unasked.is_empty() {
            self.fleet.take(at, &[0; 4], &class.unasked, delta);
        }
        let info = &mut self.fleet.nodes[at];
        shift(&mut info.pods, id, delta);
        for hold in &class.family.holds {
            shift(&mut info.holds, *hold, delta);
        }
        for volume in &class.family.storage.attached {
            shift(&mut info.attached, *volume, delta);
        }
        for claim in &class.family.storage.exclusive {
            let count = self.claims_in_use.entry(*claim).or_default();
            *count = super::fleet::moved(*count, delta);
        }
        let bound = &mut self.bound[class.id.index()];
        *bound = super::fleet::moved(*bound, delta);
        self.now += 1;
        self.topology.shift(at, &self.counters_of[class.id.index()], &class.family.apart, delta, self.now);
        if delta < 0 {
            self.freed = self.now;
        }
    }

    /// Expects a pod of a class on a node (`status.nominatedNodeName`): pods of its priority or less must leave it room.
    ///
    /// Withdraw the nomination of a pod before asking where that very pod fits.
    pub fn nominate(&mut self, class: ClassId, node: NodeId) {
        shift(&mut self.fleet.nodes[node.index()].nominated, class, 1);
        self.record(Change::Nominated(class, node, 1));
    }

    /// Takes back [`Snapshot::nominate`]; nothing happens if no pod of the class is expected there.
    pub fn withdraw(&mut self, class: ClassId, node: NodeId) {
        let nominated = &mut self.fleet.nodes[node.index()].nominated;
        if nominated.iter().any(|(other, _)| *other == class) {
            shift(nominated, class, -1);
            self.touch_freed();
            self.record(Change::Nominated(class, node, -1));
        }
    }

    fn touch_freed(&mut self) {
        self.now += 1;
        self.freed = self.now;
    }

    /// Marks a state to come back to.
    pub fn checkpoint(&mut self) -> Checkpoint {
        self.open += 1;
        Checkpoint { changes: self.log.len(), freed: self.freed }
    }

    /// Undoes everything since the checkpoint.
    #[allow(clippy::needless_pass_by_value, reason = "a checkpoint serves once")]
    pub fn rollback(&mut self, to: Checkpoint) {
        let Checkpoint { changes, freed } = to;
        while self.log.len() > changes {
            let Some(change) = self.log.pop() else { break };
            self.undo(change);
        }
        self.freed = freed;
        self.close();
    }

    /// Keeps what was done since the checkpoint; an outer checkpoint can still undo it.
    pub fn keep(&mut self, checkpoint: Checkpoint) {
        drop(checkpoint);
        self.close();
    }

    fn close(&mut self) {
        self.open = self.open.saturating_sub(1);
        if self.open == 0 {
            self.log.clear();
        }
    }

    pub(super) fn record(&mut self, change: Change) {
        if self.open > 0 {
            self.log.push(change);
        }
    }

    fn undo(&mut self, change: Change) {
        match change {
            Change::Added(node) => {
                self.displace(node);
                self.fleet.shrink();
            }
            Change::Removed(node, info) => {
                self.fleet.vacant.pop();
                self.restore(node, *info);
            }
            Change::Bound(class, node, delta) => self.shift(class, node, -delta),
            Change::Nominated(class, node, delta) => {
                shift(&mut self.fleet.nodes[node.index()].nominated, class, -delta);
            }
            Change::Remembered(class, memo) => self.memos[class.index()] = memo,
            Change::Devices(undo) => self.undo_devices(*undo),
        }
    }

    /// How many classes of pods it knows, those included of which no pod is left.
    pub(crate) fn class_count(&self) -> u32 {
        self.classes.len()
    }

    /// The node of this ordinal.
    pub fn node(&self, node: NodeId) -> &NodeInfo {
        &self.fleet.nodes[node.index()]
    }

    /// All nodes, in order.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &NodeInfo)> {
        self.fleet.present.iter().map(|at| (NodeId(ordinal(at)), &self.fleet.nodes[at]))
    }

    /// What pods may use of a node.
    pub fn allocatable(&self, node: NodeId) -> Resources {
        let info = self.node(node);
        self.as_resources(info.allocatable, &info.others_allocatable)
    }

    /// What no pod on a node has asked for; below zero where more is bound than fits.
    pub fn free(&self, node: NodeId) -> Resources {
        self.as_resources(self.fleet.free[node.index()], &self.node(node).others_free)
    }

    /// What the pods on a node ask for.
    pub fn used(&self, node: NodeId) -> Resources {
        let info = self.node(node);
        let free = self.fleet.free[node.index()];
        let mut used = info.allocatable;
        used.iter_mut().zip(free).for_each(|(all, free)| *all = all.saturating_sub(free));
        let all = info.others_allocatable.iter().copied().chain(std::iter::repeat(0));
        let others: Vec<_> =
            all.zip(&info.others_free).map(|(all, free)| all.saturating_sub(*free)).collect();
        self.as_resources(used, &others)
    }

    /// What a pod of a class asks for.
    pub fn requests(&self, class: ClassId) -> Resources {
        let class = self.classes.get(class.0);
        let mut resources = self.as_resources(class.requests, &[]);
        for (resource, amount) in class.others.iter().chain(&class.unasked) {
            resources.set(self.resource_name(*resource), *amount);
        }
        resources
    }

    fn as_resources(&self, [cpu, memory, storage, pods]: [i64; 4], others: &[i64]) -> Resources {
        let mut resources = Resources { cpu, memory, storage, pods, ..Resources::default() };
        for (resource, amount) in others.iter().enumerate().filter(|(_, amount)| **amount != 0) {
            resources.set(self.resource_name(ordinal(resource)), *amount);
        }
        resources
    }

    pub(super) fn resource_name(&self, resource: u32) -> &Arc<str> {
        self.strings.name(**self.resources.get(resource))
    }
}
