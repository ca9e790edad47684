//! Classes: pods that the scheduler cannot tell apart.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::{
    family::{Family, SpreadOver},
    fleet::{Amounts, FIXED},
    ids::{ClassId, FamilyId},
    pod::Pod,
    profile::Plugin,
    snapshot::Snapshot,
    topology::CounterId,
};

/// The topology key of a single node.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// What makes pods of one class: everything that the scheduler reads.
#[derive(Debug, Clone)]
pub(super) struct Class {
    pub(super) id: FamilyId,
    pub(super) family: Arc<Family>,
    pub(super) requests: Amounts,
    /// Other resources by ordinal, above zero.
    pub(super) others: Box<[(u32, i64)]>,
    /// Those that it takes whether they are there or not.
    pub(super) unasked: Box<[(u32, i64)]>,
}

impl PartialEq for Class {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
            && self.requests == other.requests
            && self.others == other.others
            && self.unasked == other.unasked
    }
}

impl Eq for Class {}

impl Hash for Class {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.id, self.requests, &self.others, &self.unasked).hash(state);
    }
}

impl Class {
    /// What has to be free of what every node has.
    pub(super) fn asked(&self) -> &Amounts {
        if self.family.without.has(Plugin::NodeResourcesFit) { &[0; FIXED] } else { &self.requests }
    }
}

impl Snapshot {
    /// The class of a pod.
    ///
    /// Pods are of one class if the scheduler cannot tell them apart, whatever their names. A shape that is shared is read
    /// once. What [`Surroundings`](super::Surroundings) say of its claims is read here.
    pub fn class(&mut self, pod: &Pod) -> ClassId {
        let terminating = pod.deleting.is_some();
        let address = Arc::as_ptr(&pod.shape).addr();
        if pod.has_no_claims()
            && let Some((_, class)) = self.by_shape.get(&(address, terminating))
        {
            return *class;
        }
        let devices = self.demand(pod);
        if pod.claims.is_empty()
            && let Some(demand) = devices
            && let Some((_, class)) = self.devices.by_shape.get(&(address, terminating, demand))
        {
            return *class;
        }
        let id = self.family(&pod.shape.traits, &pod.claims, devices, terminating);
        let family = self.families.get(id.0).clone();
        let profile = self.surroundings.profile_of(&pod.shape).cloned();
        let ignores = |name: &str| profile.as_ref().is_some_and(|profile| profile.ignores(name));
        let (mut others, mut unasked) = (Vec::new(), Vec::new());
        for (name, amount) in pod.shape.requests.other.iter().filter(|(_, amount)| **amount > 0) {
            let taken = (self.resource(name), *amount);
            if ignores(name) { unasked.push(taken) } else { others.push(taken) }
        }
        let (others, unasked) = (others.into(), unasked.into());
        let requests = amounts(&pod.shape.requests);
        let class = self.intern_class(Class { id, family, requests, others, unasked });
        let kept = (pod.shape.clone(), class);
        if pod.has_no_claims() {
            self.by_shape.insert((address, terminating), kept);
        } else if let Some(demand) = devices.filter(|_| pod.claims.is_empty()) {
            self.devices.by_shape.insert((address, terminating, demand), kept);
        }
        class
    }

    /// What a pod of a class asks for: cpu in thousandths, memory in bytes.
    pub(crate) fn cpu_and_memory(&self, class: ClassId) -> [i64; 2] {
        let [cpu, memory, ..] = self.classes.get(class.0).requests;
        [cpu, memory]
    }

    /// See [`Family::gains_by_its_like`].
    pub(crate) fn gains_by_its_like(&self, class: ClassId) -> bool {
        self.classes.get(class.0).family.gains_by_its_like()
    }

    /// Whether pods of a class are spread, softly or not, over single nodes.
    pub(crate) fn is_spread_over_nodes(&self, class: ClassId) -> bool {
        self.classes.get(class.0).family.spread_over == SpreadOver::Nodes
    }

    /// Whether no two pods of a class may be on one node.
    pub(crate) fn is_apart_on_nodes(&self, class: ClassId) -> bool {
        let own = &self.counters_of[self.classes.get(class.0).id.index()];
        let apart = &self.classes.get(class.0).family.apart;
        apart.iter().any(|counter| own.contains(counter) && self.is_of_nodes(*counter))
    }

    /// Whether as many pods of a class fit on one empty node as on the next: no spread, and no anti-affinity in larger
    /// domains than a node.
    pub(crate) fn is_alike_on_every_node(&self, class: ClassId) -> bool {
        let class = self.classes.get(class.0);
        class.family.spread_over == SpreadOver::Nothing
            && class.family.apart.iter().all(|counter| self.is_of_nodes(*counter))
    }

    fn is_of_nodes(&self, counter: CounterId) -> bool {
        &**self.strings.name(self.topology.key(counter)) == HOSTNAME
    }

    fn intern_class(&mut self, class: Class) -> ClassId {
        let (id, new) = self.classes.intern(class);
        let id = ClassId(id);
        if new {
            self.memos.push(super::find::Memo::default());
        }
        id
    }

    /// The ordinal of a resource other than the four that every node has.
    pub(super) fn resource(&mut self, name: &str) -> u32 {
        let name = self.strings.intern(name);
        self.resources.intern(name).0
    }
}

/// Cpu, memory, ephemeral storage and pods.
pub(super) fn amounts(resources: &super::Resources) -> [i64; FIXED] {
    [resources.cpu, resources.memory, resources.storage, resources.pods]
}
