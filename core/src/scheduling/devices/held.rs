//! Who has which devices: kept with the pods of each node, and taken back as they are.

use std::sync::Arc;

use super::{
    Objects,
    allocate::{Place, allocate},
    demand::{Demand, DemandId, Need},
    ledger::{Given, Ledger, SliceId, Stock},
    pools,
    slice::PoolName,
};
use crate::scheduling::{
    fleet::NodeInfo,
    ids::{ClassId, Interned, NodeId, OrdinalMap, Strings, Symbol},
    node::Node,
    pod::{Pod, Shape},
    reason::Reason,
    snapshot::{Change, Snapshot},
};

/// The most pods that may use a claim (API: `ResourceClaimReservedForMaxSize`).
pub(super) const MOST_USERS: u32 = 256;

/// Devices, and who has them.
#[derive(Debug, Clone, Default)]
pub(in crate::scheduling) struct Devices {
    pub(super) demands: Interned<Demand>,
    pub(super) stock: Stock,
    pub(super) ledger: Ledger,
    claims: OrdinalMap<Symbol, State>,
    /// Whether nothing is presumed of nodes whose devices nobody knows.
    pub(super) is_strict: bool,
    /// Classes by the address of a shape, which is kept so that no other takes its address.
    pub(in crate::scheduling) by_shape: OrdinalMap<(usize, bool, DemandId), (Arc<Shape>, ClassId)>,
}

/// A claim that pods may share.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) given: Option<Arc<Given>>,
    /// Pods that use it, wherever they are.
    pub(super) users: u32,
    /// What it has according to the API.
    published: Option<Arc<Given>>,
    /// Pods that it is reserved for according to the API, and that have been taken away.
    away: u32,
}

/// The devices of a node, and what its pods have.
#[derive(Debug, Clone, Default)]
pub(in crate::scheduling) struct NodeDevices {
    /// What drivers published of it.
    published: Arc<[SliceId]>,
    /// What it will have beside that.
    imagined: Arc<[SliceId]>,
    /// Whether nobody knows what it will have.
    is_unknown: bool,
    held: Vec<(ClassId, Arc<Held>)>,
    /// What shared claims were before the node was taken away, the last first.
    before: Vec<Before>,
}

/// What a pod has.
#[derive(Debug, Clone, Default)]
struct Held {
    own: Vec<Arc<Given>>,
    shared: Vec<Symbol>,
}

/// What a claim was before something was done.
type Before = (Symbol, State);

/// How what a pod has was changed.
#[derive(Debug, Clone)]
pub(in crate::scheduling) struct Undo {
    class: ClassId,
    node: NodeId,
    held: Arc<Held>,
    /// Whether the pod got it, or else gave it back.
    taken: bool,
    before: Vec<Before>,
}

impl Devices {
    /// Reads what there is, and who has it.
    pub(in crate::scheduling) fn read(objects: Option<&Objects>, strings: &mut Strings) -> Self {
        let Some(objects) = objects else { return Self::default() };
        let mut devices = Self { stock: Stock::read(objects, strings), ..Self::default() };
        for ((namespace, name), claim) in &objects.claims {
            let given = claim.allocation.as_ref().map(|it| Arc::new(devices.stock.given(it, strings)));
            if let Some(given) = &given {
                devices.ledger.add(given);
            }
            let users = u32::try_from(claim.reserved.len()).unwrap_or(u32::MAX);
            let state = State { published: given.clone(), given, users, away: 0 };
            devices.claims.insert(strings.intern(&format!("{namespace}/{name}")), state);
        }
        devices
    }

    /// The devices of a node that is read.
    pub(in crate::scheduling) fn of_node(
        &mut self,
        node: &Node,
        strings: &mut Strings,
    ) -> Option<Box<NodeDevices>> {
        let published: Arc<[SliceId]> = self.stock.of_node(&node.name).into();
        let slices = node.slices.iter().flat_map(|slices| slices.iter());
        let imagined: Arc<[SliceId]> = slices.map(|slice| self.stock.number(slice, strings)).collect();
        let is_unknown = node.devices_unknown;
        let is_any = is_unknown || !published.is_empty() || !imagined.is_empty();
        is_any.then(|| Box::new(NodeDevices { published, imagined, is_unknown, ..NodeDevices::default() }))
    }

    pub(super) fn demand(&self, id: DemandId) -> &Arc<Demand> {
        self.demands.get(id.0)
    }

    /// Whether pods of a class may use the same devices.
    pub(in crate::scheduling) fn shares(&self, demand: DemandId) -> bool {
        self.demand(demand).shares()
    }

    /// Why no node will do.
    pub(in crate::scheduling) fn impossible(&self, demand: DemandId) -> Option<&Reason> {
        self.demand(demand).impossible.as_ref()
    }

    pub(super) fn state(&self, claim: Symbol) -> State {
        self.claims.get(&claim).cloned().unwrap_or_default()
    }

    fn set(&mut self, claim: Symbol, state: State) -> State {
        let given = state.given.clone();
        let before = self.claims.insert(claim, state).unwrap_or_default();
        let same = match (&before.given, &given) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        if !same {
            if let Some(given) = &before.given {
                self.ledger.remove(given);
            }
            if let Some(given) = &given {
                self.ledger.add(given);
            }
        }
        before
    }

    /// Enters what a pod has.
    fn enter(&mut self, held: &Held) {
        held.own.iter().for_each(|given| self.ledger.add(given));
    }

    /// Takes back what a pod has; says what shared claims were before, the last first.
    fn leave(&mut self, held: &Held) -> Vec<Before> {
        held.own.iter().for_each(|given| self.ledger.remove(given));
        let mut before = Vec::new();
        for claim in &held.shared {
            let mut state = self.state(*claim);
            state.users = state.users.saturating_sub(1);
            state.given = state.given.filter(|_| state.users > 0);
            before.push((*claim, self.set(*claim, state)));
        }
        before.reverse();
        before
    }
}

/// Whether nobody knows which devices a node will have.
pub(super) fn is_unknown(node: &NodeInfo) -> bool {
    node.devices.as_ref().is_some_and(|devices| devices.is_unknown)
}

impl Snapshot {
    /// Whether the claims of a class can be allocated on a node, or already are where it can use them.
    pub(in crate::scheduling) fn devices_fit(
        &self,
        demand: Option<DemandId>,
        at: usize,
    ) -> Result<(), Reason> {
        match demand {
            None => Ok(()),
            Some(demand) => self.find_devices(demand, at).map(|_| ()),
        }
    }

    /// Whether what pods of a class ask for has to be found among the devices of a node.
    pub(in crate::scheduling) fn needs_devices(&self, demand: Option<DemandId>, at: usize) -> bool {
        let Some(demand) = demand.map(|id| self.devices.demand(id)) else { return false };
        let extended = || demand.extended.as_ref().and_then(|extended| extended.on(&self.fleet.nodes[at]));
        !demand.needs.is_empty() || extended().is_some()
    }

    /// Whether a class asks for devices of a node by the name of a resource.
    pub(in crate::scheduling) fn is_device(
        &self,
        demand: Option<DemandId>,
        resource: u32,
        at: usize,
    ) -> bool {
        let extended = demand.and_then(|id| self.devices.demand(id).extended.as_ref());
        extended.is_some_and(|extended| extended.is_device(resource, &self.fleet.nodes[at]))
    }

    /// What each claim of a class that has nothing yet would get on a node.
    fn find_devices(&self, demand: DemandId, at: usize) -> Result<Vec<Given>, Reason> {
        let demand = self.devices.demand(demand);
        if let Some(reason) = &demand.impossible {
            return Err(reason.clone());
        }
        let (id, node) = (NodeId::at(u32::try_from(at).unwrap_or(u32::MAX)), &self.fleet.nodes[at]);
        let mut unallocated: Vec<&Need> = Vec::new();
        let mut is_elsewhere = false;
        for need in &demand.needs {
            let state = need.claim.and_then(|claim| self.devices.claims.get(&claim));
            let Some(given) = state.and_then(|state| state.given.as_ref()) else {
                unallocated.push(need);
                continue;
            };
            if state.is_some_and(|state| state.users >= MOST_USERS) {
                return Err(Reason::DeviceClaimInUse);
            }
            is_elsewhere |= !given.reach.includes(id, node, &self.strings);
        }
        let extended = demand.extended.as_ref().and_then(|extended| extended.on(node));
        unallocated.extend(extended.as_deref());
        let found = match self.search(id, node, &unallocated) {
            Err(Reason::NoDevices { .. }) if is_unknown(node) => self.presume(id, node, unallocated.len())?,
            found => found?,
        };
        if is_elsewhere { Err(Reason::DevicesElsewhere) } else { Ok(found) }
    }

    /// The devices that a pod of a class would get on a node beside those that its claims have already, by pool and name.
    ///
    /// # Errors
    /// The node has not what it asks for.
    pub fn devices_for(&self, class: ClassId, node: NodeId) -> Result<Vec<(PoolName, Arc<str>)>, Reason> {
        let Some(demand) = self.classes.get(class.0).family.devices else { return Ok(Vec::new()) };
        let found = self.find_devices(demand, node.index())?;
        let devices = found.iter().flat_map(|given| given.parts.iter().map(|part| part.device));
        Ok(devices.filter_map(|device| self.devices.stock.told(device)).collect())
    }

    /// What so many claims of a pod are presumed to get on a node whose devices nobody knows: one pod's, and no others.
    fn presume(&self, id: NodeId, node: &NodeInfo, claims: usize) -> Result<Vec<Given>, Reason> {
        let is_presumed = |given: &Given| given.is_presumed();
        let of_shared =
            |claim: &Symbol| self.devices.claims.get(claim).and_then(|state| state.given.as_deref());
        let is_tried = node.devices.as_ref().is_some_and(|devices| {
            devices.held.iter().any(|(_, held)| {
                held.own.iter().any(|given| is_presumed(given))
                    || held.shared.iter().filter_map(of_shared).any(is_presumed)
            })
        });
        if is_tried || self.devices.is_strict {
            return Err(Reason::DevicesOfNewNode);
        }
        Ok(vec![Given::presumed(id); claims])
    }

    pub(super) fn search(&self, id: NodeId, node: &NodeInfo, needs: &[&Need]) -> Result<Vec<Given>, Reason> {
        if needs.is_empty() {
            return Ok(Vec::new());
        }
        let own: (&[SliceId], &[SliceId]) =
            node.devices.as_ref().map_or((&[], &[]), |devices| (&devices.published, &devices.imagined));
        let pools = pools::of_node(&self.devices.stock, (id, node), own, &self.strings);
        let place = Place {
            node: (id, node),
            pools,
            taint_rules: &self.devices.stock.taint_rules,
            ledger: &self.devices.ledger,
            strings: &self.strings,
        };
        allocate(&place, needs)
    }

    /// Puts a pod on a node that it is on: its claims have what the API says.
    pub fn settle(&mut self, pod: &Pod, class: ClassId, node: NodeId) {
        self.change(class, node, 1);
        if self.classes.get(class.0).family.devices.is_none() {
            return;
        }
        let mut held = Held::default();
        let mut before = Vec::new();
        for claim in self.allocated_claims(pod) {
            held.shared.push(claim);
            let mut state = self.devices.state(claim);
            if !self.is_reserved(pod, claim) {
                state.users = state.users.saturating_add(1);
            } else if state.away > 0 {
                (state.users, state.away) = (state.users.saturating_add(1), state.away - 1);
            }
            state.given = state.given.or_else(|| state.published.clone());
            before.push((claim, self.devices.set(claim, state)));
        }
        before.reverse();
        self.hold(class, node, Arc::new(held), before);
    }

    /// Takes back [`Snapshot::settle`], which is no part of what a checkpoint undoes.
    pub fn unsettle(&mut self, pod: &Pod, class: ClassId, node: NodeId) {
        let mut shared = Vec::new();
        if !pod.device_claims.is_empty() {
            // What this very pod has comes last, and so goes first.
            shared = self.allocated_claims(pod);
            if let Some(devices) = &mut self.fleet.nodes[node.index()].devices
                && let Some(at) =
                    devices.held.iter().position(|(of, held)| *of == class && held.shared == shared)
            {
                let own = devices.held.remove(at);
                devices.held.push(own);
            }
        }
        self.unbind(class, node);
        for claim in shared {
            if self.is_reserved(pod, claim) {
                let mut state = self.devices.state(claim);
                state.away = state.away.saturating_add(1);
                self.devices.set(claim, state);
            }
        }
    }

    /// The claims of a pod that have devices.
    fn allocated_claims(&mut self, pod: &Pod) -> Vec<Symbol> {
        let mut claims = Vec::new();
        for claim in &pod.device_claims {
            let Some(name) = claim.name() else { continue };
            let key = self.claim_key(&pod.shape.namespace, name);
            if self.devices.claims.get(&key).is_some_and(|it| it.given.is_some() || it.published.is_some()) {
                claims.push(key);
            }
        }
        claims
    }

    fn is_reserved(&self, pod: &Pod, claim: Symbol) -> bool {
        let Some(objects) = &self.surroundings.devices else { return false };
        let Some((_, name)) = self.strings.name(claim).split_once('/') else { return false };
        let claim = objects.claims.get(&(pod.shape.namespace.clone(), name.into()));
        claim.is_some_and(|claim| claim.reserved.contains(&pod.uid))
    }

    /// Gives pods of a class that come to a node what they ask for; nothing if it cannot be had.
    pub(in crate::scheduling) fn take_devices(&mut self, class: ClassId, node: NodeId, count: u32) {
        let Some(id) = self.classes.get(class.0).family.devices else { return };
        for _ in 0..count {
            let mut found = self.find_devices(id, node.index()).unwrap_or_default().into_iter().map(Arc::new);
            let demand = self.devices.demand(id).clone();
            let (mut held, mut before) = (Held::default(), Vec::new());
            for need in &demand.needs {
                let Some(claim) = need.claim else {
                    held.own.extend(found.next());
                    continue;
                };
                let mut state = self.devices.state(claim);
                state.given = state.given.or_else(|| found.next());
                state.users = state.users.saturating_add(1);
                before.push((claim, self.devices.set(claim, state)));
                held.shared.push(claim);
            }
            // What is claimed for extended resources comes last.
            held.own.extend(found);
            before.reverse();
            self.devices.enter(&held);
            self.hold(class, node, Arc::new(held), before);
        }
    }

    fn hold(&mut self, class: ClassId, node: NodeId, held: Arc<Held>, before: Vec<Before>) {
        let devices = self.fleet.nodes[node.index()].devices.get_or_insert_default();
        devices.held.push((class, held.clone()));
        self.record(Change::Devices(Box::new(Undo { class, node, held, taken: true, before })));
    }

    /// Takes what pods of a class that leave a node have.
    pub(in crate::scheduling) fn give_devices(&mut self, class: ClassId, node: NodeId) {
        let Some(devices) = &mut self.fleet.nodes[node.index()].devices else { return };
        let Some(at) = devices.held.iter().rposition(|(of, _)| *of == class) else { return };
        let (_, held) = devices.held.remove(at);
        let before = self.devices.leave(&held);
        self.record(Change::Devices(Box::new(Undo { class, node, held, taken: false, before })));
    }

    pub(in crate::scheduling) fn undo_devices(&mut self, undo: Undo) {
        let Undo { class, node, held, taken, before } = undo;
        if let Some(devices) = &mut self.fleet.nodes[node.index()].devices {
            if !taken {
                devices.held.push((class, held.clone()));
            } else if let Some(at) = devices.held.iter().rposition(|(_, other)| Arc::ptr_eq(other, &held)) {
                devices.held.remove(at);
            }
        }
        if taken {
            held.own.iter().for_each(|given| self.devices.ledger.remove(given));
        } else {
            self.devices.enter(&held);
        }
        for (claim, state) in before {
            self.devices.set(claim, state);
        }
    }

    /// Frees what the pods of a node have that goes; the node remembers it.
    pub(in crate::scheduling) fn lay_down_devices(&mut self, node: NodeId) {
        let Some(devices) = &mut self.fleet.nodes[node.index()].devices else { return };
        let held = devices.held.clone();
        let mut before: Vec<Before> = Vec::new();
        for (_, held) in &held {
            before.splice(0..0, self.devices.leave(held));
        }
        if let Some(devices) = &mut self.fleet.nodes[node.index()].devices {
            devices.before = before;
        }
    }

    /// Takes back [`Snapshot::lay_down_devices`].
    pub(in crate::scheduling) fn take_up_devices(&mut self, node: NodeId) {
        let Some(devices) = &mut self.fleet.nodes[node.index()].devices else { return };
        for (_, held) in &devices.held {
            self.devices.enter(held);
        }
        for (claim, state) in std::mem::take(&mut devices.before) {
            self.devices.set(claim, state);
        }
    }

    /// Whether pods of a node have devices.
    pub(crate) fn holds_devices(&self, node: NodeId) -> bool {
        let some = |held: &Held| !(held.own.is_empty() && held.shared.is_empty());
        let devices = self.node(node).devices.as_ref();
        devices.is_some_and(|devices| devices.held.iter().any(|(_, held)| some(held)))
    }

    /// How many claims have each device for themselves.
    #[cfg(test)]
    pub(super) fn device_holders(&self) -> Vec<u32> {
        self.devices.ledger.holders().map(|(_, count)| count).collect()
    }

    /// What devices in use take together, each by the number in its name.
    #[cfg(test)]
    pub(super) fn units_in_use(&self, of: &[u8]) -> usize {
        let numbers = self.devices.ledger.holders().filter_map(|(device, _)| {
            let (_, name) = self.devices.stock.told(device)?;
            name.strip_prefix("gpu-")?.parse::<usize>().ok()
        });
        numbers.map(|number| usize::from(of[number])).sum()
    }
}
