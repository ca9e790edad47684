//! Devices by number, and which are in use.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::NodeSelector as K8sNodeSelector;

use super::{
    Objects,
    capacity::Consumed,
    claim::Allocation,
    slice::{Access, PoolName, Slice, TaintRule, qualified},
};
use crate::scheduling::{
    fleet::NodeInfo,
    ids::{NodeId, OrdinalMap, Strings, ordinal},
    selector::NodeSelector,
};

/// A device. Those of nodes that are only imagined have a home, so that each such node has devices of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct DeviceId {
    pub(super) home: Home,
    pub(super) pool: u32,
    pub(super) name: u32,
}

/// Where a pool is: on an imagined node, or where drivers publish them.
pub(super) type Home = Option<NodeId>;

/// The ordinal of a slice.
pub(super) type SliceId = u32;

/// The nodes that may use something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reach {
    Nobody,
    /// The node of this name.
    Node(Arc<str>),
    /// This node.
    Here(NodeId),
    All,
    /// Nodes that meet all of these.
    Nodes(Box<[NodeSelector]>),
}

/// A slice with its numbers.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) slice: Arc<Slice>,
    pub(super) pool: u32,
    /// The names of its devices.
    pub(super) names: Box<[u32]>,
    /// Who may use it; `None` if each device says.
    pub(super) reach: Option<Reach>,
    /// Who may use each of its devices, if each says.
    pub(super) reaches: Box<[Reach]>,
}

/// The slices that there are.
#[derive(Debug, Clone, Default)]
pub(super) struct Stock {
    pub(super) slices: Vec<Known>,
    by_address: OrdinalMap<usize, SliceId>,
    pools: BTreeMap<PoolName, u32>,
    names: BTreeMap<Arc<str>, u32>,
    /// What is published of each pool.
    pub(super) by_pool: Vec<Vec<SliceId>>,
    /// What is published and belongs to no single node.
    pub(super) common: Vec<SliceId>,
    /// What is published of single nodes.
    by_node: BTreeMap<Arc<str>, Vec<SliceId>>,
    /// Taints that slices do not tell.
    pub(super) taint_rules: Vec<Arc<TaintRule>>,
}

/// A device, or a share of one, that somebody has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) device: DeviceId,
    pub(super) is_admin: bool,
    /// What it has of a device that is shared.
    pub(super) share: Option<Consumed>,
}

/// What a claim has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) parts: Box<[Part]>,
    pub(super) reach: Reach,
}

/// Which devices are in use.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    /// How many claims have a device: more than one if somebody erred.
    taken: OrdinalMap<DeviceId, u32>,
    shares: OrdinalMap<DeviceId, Vec<Consumed>>,
}

impl Reach {
    pub(super) fn read(access: &Access, strings: &mut Strings) -> Self {
        match access {
            Access::Nobody => Self::Nobody,
            Access::Node(node) => Self::Node(node.clone()),
            Access::All => Self::All,
            Access::Nodes(selector) => Self::of(Some(selector), strings),
        }
    }

    fn of(selector: Option<&K8sNodeSelector>, strings: &mut Strings) -> Self {
        let Some(selector) = selector else { return Self::All };
        let terms = Some(selector.node_selector_terms.as_slice());
        Self::Nodes([NodeSelector::read(strings, &BTreeMap::new(), terms)].into())
    }

    pub(super) fn includes(&self, at: NodeId, node: &NodeInfo, strings: &Strings) -> bool {
        match self {
            Self::Nobody => false,
            Self::Node(name) => *name == node.name,
            Self::Here(id) => *id == at,
            Self::All => true,
            Self::Nodes(selectors) => {
                selectors.iter().all(|selector| selector.matches(&node.labels, strings))
            }
        }
    }
}

impl Given {
    /// What is taken for granted of a node whose devices nobody knows.
    pub(super) fn presumed(node: NodeId) -> Self {
        Self { parts: Box::default(), reach: Reach::Here(node) }
    }

    /// Whether it is taken for granted: what is found is not tied to a node without any device.
    pub(super) fn is_presumed(&self) -> bool {
        self.parts.is_empty() && matches!(self.reach, Reach::Here(_))
    }
}

impl Stock {
    /// Numbers what is published.
    pub(super) fn read(objects: &Objects, strings: &mut Strings) -> Self {
        let taint_rules = objects.taint_rules.values().cloned().collect();
        let mut stock = Self { taint_rules, ..Self::default() };
        for slice in objects.slices.values() {
            let id = stock.number(slice, strings);
            let pool = stock.slices[id as usize].pool as usize;
            stock.by_pool[pool].push(id);
            match slice.node() {
                Some(node) => stock.by_node.entry(node.clone()).or_default().push(id),
                None => stock.common.push(id),
            }
        }
        stock
    }

    /// The ordinal of a slice.
    pub(super) fn number(&mut self, slice: &Arc<Slice>, strings: &mut Strings) -> SliceId {
        let address = Arc::as_ptr(slice).addr();
        if let Some(id) = self.by_address.get(&address) {
            return *id;
        }
        let id = ordinal(self.slices.len());
        let names = slice.devices.iter().map(|device| self.name(&device.name)).collect();
        let reaches = match slice.access {
            Some(_) => Box::default(),
            None => slice.devices.iter().map(|device| Reach::read(&device.access, strings)).collect(),
        };
        let pool = self.pool(&slice.pool);
        self.slices.push(Known {
            pool,
            names,
            reach: slice.access.as_ref().map(|access| Reach::read(access, strings)),
            reaches,
            slice: slice.clone(),
        });
        self.by_address.insert(address, id);
        id
    }

    /// What is published of a node.
    pub(super) fn of_node(&self, node: &str) -> &[SliceId] {
        self.by_node.get(node).map_or(&[], Vec::as_slice)
    }

    fn pool(&mut self, pool: &PoolName) -> u32 {
        if let Some(id) = self.pools.get(pool) {
            return *id;
        }
        let id = ordinal(self.pools.len());
        self.pools.insert(pool.clone(), id);
        self.by_pool.push(Vec::new());
        id
    }

    /// The pool and the name of a device.
    pub(super) fn told(&self, device: DeviceId) -> Option<(PoolName, Arc<str>)> {
        let (pool, _) = self.pools.iter().find(|(_, id)| **id == device.pool)?;
        let (name, _) = self.names.iter().find(|(_, id)| **id == device.name)?;
        Some((pool.clone(), name.clone()))
    }

    fn name(&mut self, name: &Arc<str>) -> u32 {
        if let Some(id) = self.names.get(name) {
            return *id;
        }
        let id = ordinal(self.names.len());
        self.names.insert(name.clone(), id);
        id
    }

    /// What a claim has according to the API.
    pub(super) fn given(&mut self, allocation: &Allocation, strings: &mut Strings) -> Given {
        let parts = allocation.devices.iter().map(|allocated| {
            let share = allocated.share.as_ref().map(|share| {
                let driver = &allocated.pool.0;
                share.iter().map(|(name, amount)| (qualified(name, driver), *amount)).collect()
            });
            let device =
                DeviceId { home: None, pool: self.pool(&allocated.pool), name: self.name(&allocated.device) };
            Part { device, is_admin: allocated.is_admin, share }
        });
        let parts = parts.collect();
        Given { parts, reach: Reach::of(allocation.nodes.as_deref(), strings) }
    }
}

impl Ledger {
    /// Enters what somebody gets.
    pub(super) fn add(&mut self, given: &Given) {
        for Part { device, share, .. } in given.parts.iter().filter(|part| !part.is_admin) {
            match share {
                Some(share) => self.shares.entry(*device).or_default().push(share.clone()),
                None => *self.taken.entry(*device).or_default() += 1,
            }
        }
    }

    /// Takes back [`Ledger::add`].
    pub(super) fn remove(&mut self, given: &Given) {
        for Part { device, share, .. } in given.parts.iter().filter(|part| !part.is_admin) {
            let Some(share) = share else {
                self.give_back(*device);
                continue;
            };
            let shares = self.shares.entry(*device).or_default();
            if let Some(at) = shares.iter().position(|other| other == share) {
                shares.swap_remove(at);
            }
            if shares.is_empty() {
                self.shares.remove(device);
            }
        }
    }

    fn give_back(&mut self, device: DeviceId) {
        let count = self.taken.entry(device).or_default();
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.taken.remove(&device);
        }
    }

    /// Whether somebody has a device for itself.
    pub(super) fn is_taken(&self, device: DeviceId) -> bool {
        self.taken.contains_key(&device)
    }

    /// Whether somebody has a device or a share of it.
    pub(super) fn is_in_use(&self, device: DeviceId) -> bool {
        self.is_taken(device) || self.shares.contains_key(&device)
    }

    /// The shares that a device has been cut into.
    pub(super) fn shares(&self, device: DeviceId) -> &[Consumed] {
        self.shares.get(&device).map_or(&[], Vec::as_slice)
    }

    /// How many claims have each device for themselves.
    #[cfg(test)]
    pub(super) fn holders(&self) -> impl Iterator<Item = (DeviceId, u32)> {
        self.taken.iter().map(|(device, count)| (*device, *count))
    }
}
