//! Machines: asked for, starting, nodes, gone.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use tandem_core::{
    api::karpenter::NodeClaim,
    nodes::{
        group::{Instance, InstanceState, NodeGroup, Template},
        pools::names::disrupted,
    },
    scheduling::{ClassId, HOSTNAME, Node, NodeId, Pod, Snapshot, node::Condition},
};

use super::{Instant, bill::Bill};
use crate::compile::Group;

/// A machine.
pub(super) struct Machine {
    origin: Origin,
    /// Its place in the bill.
    kind: usize,
    /// What the snapshot calls it, once it is a node.
    id: Option<NodeId>,
    node: Arc<Node>,
    daemon_pods: Vec<Arc<Pod>>,
}

/// What a machine was made for.
enum Origin {
    /// A node group, by its place.
    Group(usize),
    /// A node pool.
    Claim(Arc<NodeClaim>),
}

/// All machines, by name.
pub(super) struct Machines<'a> {
    specs: &'a [Group],
    templates: BTreeMap<Arc<str>, Template>,
    by_name: BTreeMap<Arc<str>, Machine>,
    /// How many machines of a group or pool were ever asked for, by its name.
    serial: BTreeMap<Arc<str>, u32>,
    pub(super) bill: Bill,
}

impl<'a> Machines<'a> {
    pub(super) fn new(specs: &'a [Group], step: u32, points: usize) -> Self {
        let mut bill = Bill::new(step, points);
        for spec in specs {
            bill.kind(&spec.offer.id, spec.price);
        }
        Self {
            specs,
            templates: specs.iter().map(|spec| (spec.offer.id.clone(), spec.template.clone())).collect(),
            by_name: BTreeMap::new(),
            serial: BTreeMap::new(),
            bill,
        }
    }

    /// A name for another machine of a group or pool.
    pub(super) fn name(&mut self, of: &Arc<str>) -> Arc<str> {
        let serial = self.serial.entry(of.clone()).or_default();
        let name = format!("{of}-{serial}").into();
        *serial += 1;
        name
    }

    /// Asks for a machine of a group; its name.
    pub(super) fn order(&mut self, group: usize, now: Instant) -> Arc<str> {
        let spec = &self.specs[group];
        let name = self.name(&spec.offer.id);
        let mut node = spec.template.node.clone();
        node.name = name.clone();
        node.provider_id = name.clone();
        node.labels.insert(HOSTNAME.to_owned(), name.to_string());
        let kind = self.bill.kind(&spec.offer.id, spec.price);
        self.start(Origin::Group(group), kind, node, &spec.template.pods, now);
        name
    }

    /// Starts the machine of a claim, which will be this node with these pods of DaemonSets.
    pub(super) fn launch(
        &mut self,
        claim: NodeClaim,
        (name, price): (&str, f64),
        node: Node,
        daemons: &[Pod],
        now: Instant,
    ) {
        let kind = self.bill.kind(name, Some(price));
        self.bill.count_added(1);
        self.start(Origin::Claim(Arc::new(claim)), kind, node, daemons, now);
    }

    fn start(&mut self, origin: Origin, kind: usize, node: Node, daemons: &[Pod], now: Instant) {
        let name = node.name.clone();
        let daemon = |pod: &Pod| {
            Arc::new(Pod {
                name: format!("{}-{name}", pod.name).into(),
                uid: format!("{}-{name}", pod.name).into(),
                node: Some(name.clone()),
                ready: true,
                ..pod.clone()
            })
        };
        let daemon_pods = daemons.iter().map(daemon).collect();
        let machine = Machine { origin, kind, id: None, node: Arc::new(node), daemon_pods };
        self.by_name.insert(name.clone(), machine);
        self.bill.ask(kind, now);
    }

    /// Asks for more machines of a group: when each will be a node, and its name.
    pub(super) fn increase(&mut self, group: &str, count: u32, now: Instant) -> Vec<(Instant, Arc<str>)> {
        let Some(index) = self.specs.iter().position(|spec| &*spec.offer.id == group) else {
            return Vec::new();
        };
        let at = now + Duration::from_secs(self.specs[index].starts_in.into());
        self.bill.count_added(count);
        (0..count).map(|_| (at, self.order(index, now))).collect()
    }

    /// A machine becomes a node.
    pub(super) fn join(&mut self, name: &str, time: Timestamp, now: Instant, snapshot: &mut Snapshot) {
        let Some(machine) = self.by_name.get_mut(name).filter(|machine| machine.id.is_none()) else { return };
        let node = Arc::make_mut(&mut machine.node);
        node.conditions.insert("Ready".into(), Condition::new(true, Some(time)));
        node.created = Some(time);
        let id = snapshot.add_node(node);
        for pod in &machine.daemon_pods {
            let class = snapshot.class(pod);
            snapshot.bind(class, id);
        }
        machine.id = Some(id);
        self.bill.join(machine.kind, now);
    }

    /// No pod comes to this node any more.
    pub(super) fn cordon(&mut self, name: &str, snapshot: &mut Snapshot) {
        let Some(machine) = self.by_name.get_mut(name) else { return };
        let Some(id) = machine.id else { return };
        let node = Arc::make_mut(&mut machine.node);
        node.taints.push(disrupted());
        let pods: Vec<_> = snapshot.node(id).pods().collect();
        snapshot.remove_node(id);
        let id = snapshot.add_node(node);
        for (class, count) in pods {
            snapshot.bind_many(class, id, count);
        }
        machine.id = Some(id);
    }

    /// A machine goes.
    pub(super) fn remove(&mut self, name: &str, now: Instant, snapshot: &mut Snapshot) {
        let Some(machine) = self.by_name.remove(name) else { return };
        if let Some(id) = machine.id {
            snapshot.remove_node(id);
        }
        self.bill.leave(machine.kind, machine.id.is_some(), now);
    }

    /// A pod left a node.
    pub(super) fn unbind(&self, snapshot: &mut Snapshot, node: &str, class: ClassId) {
        if let Some(id) = self.id(node) {
            snapshot.unbind(class, id);
        }
    }

    /// What the snapshot calls a machine, once it is a node.
    pub(super) fn id(&self, name: &str) -> Option<NodeId> {
        self.by_name.get(name)?.id
    }

    /// Whether this machine is on its way.
    pub(super) fn is_starting(&self, name: &str) -> bool {
        self.by_name.get(name).is_some_and(|machine| machine.id.is_none())
    }

    /// Whether this machine is a node.
    pub(super) fn is_node(&self, name: &str) -> bool {
        self.id(name).is_some()
    }

    /// Machines that are nodes.
    fn joined(&self) -> impl Iterator<Item = &Machine> {
        self.by_name.values().filter(|machine| machine.id.is_some())
    }

    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        self.joined().map(|machine| machine.node.clone()).collect()
    }

    pub(super) fn daemon_pods(&self) -> impl Iterator<Item = Arc<Pod>> {
        self.joined().flat_map(|machine| machine.daemon_pods.iter().cloned())
    }

    /// The claim of a machine.
    pub(super) fn claim(&self, name: &str) -> Option<Arc<NodeClaim>> {
        match &self.by_name.get(name)?.origin {
            Origin::Claim(claim) => Some(claim.clone()),
            Origin::Group(_) => None,
        }
    }

    /// The claims, by the names of their nodes.
    pub(super) fn claims(&mut self) -> impl Iterator<Item = (&Arc<str>, &mut Arc<NodeClaim>)> {
        self.by_name.iter_mut().filter_map(|(name, machine)| match &mut machine.origin {
            Origin::Claim(claim) => Some((name, claim)),
            Origin::Group(_) => None,
        })
    }

    pub(super) fn templates(&self) -> &BTreeMap<Arc<str>, Template> {
        &self.templates
    }

    /// The groups as their provider tells of them.
    pub(super) fn groups(&self) -> Vec<NodeGroup> {
        let mut groups: Vec<NodeGroup> = self.specs.iter().map(|spec| spec.offer.clone()).collect();
        for group in &mut groups {
            group.target = 0;
        }
        for (name, machine) in &self.by_name {
            let Origin::Group(group) = machine.origin else { continue };
            let group = &mut groups[group];
            group.target += 1;
            let state = match machine.id {
                Some(_) => InstanceState::Running,
                None => InstanceState::Creating(None),
            };
            group.instances.push(Instance { id: name.clone(), state });
        }
        groups
    }
}
