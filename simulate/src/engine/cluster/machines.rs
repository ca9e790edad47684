//! Machines of groups: asked for, starting, nodes, gone; and what they cost.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use tandem_core::{
    nodes::group::{Instance, InstanceState, NodeGroup, Template},
    scheduling::{ClassId, HOSTNAME, Node, NodeId, Pod, Snapshot},
};

use super::Instant;
use crate::{
    compile::Group,
    outcome::{NodeSeries, NodesOutcome, Summary},
};

/// A machine of a group.
pub(super) struct Machine {
    group: usize,
    /// What the snapshot calls it, once it is a node.
    id: Option<NodeId>,
    node: Arc<Node>,
    daemon_pods: Vec<Arc<Pod>>,
}

/// All machines, by name.
pub(super) struct Machines<'a> {
    specs: &'a [Group],
    templates: BTreeMap<Arc<str>, Template>,
    by_name: BTreeMap<Arc<str>, Machine>,
    /// By group: how many were ever asked for.
    serial: Vec<u32>,
    record: Record,
}

/// Series and sums.
struct Record {
    step: Duration,
    points: usize,
    since: Instant,
    ready: Vec<u32>,
    starting: Vec<u32>,
    series: Vec<NodeSeries>,
    cost_per_hour: Vec<f64>,
    node_seconds: f64,
    dollars: f64,
    added: u64,
    removed: u64,
}

/// The nodes' part of the result: series, and the summary's fields of nodes.
pub(crate) struct Result {
    pub(crate) nodes: NodesOutcome,
    pub(crate) summary: Summary,
}

impl<'a> Machines<'a> {
    pub(super) fn new(specs: &'a [Group], step: u32, points: usize) -> Self {
        let series = specs.iter().map(|spec| NodeSeries {
            name: spec.offer.id.to_string(),
            price_per_hour: spec.price,
            ..NodeSeries::default()
        });
        Self {
            specs,
            templates: specs.iter().map(|spec| (spec.offer.id.clone(), spec.template.clone())).collect(),
            by_name: BTreeMap::new(),
            serial: vec![0; specs.len()],
            record: Record {
                step: Duration::from_secs(step.into()),
                points,
                since: Instant::ZERO,
                ready: vec![0; specs.len()],
                starting: vec![0; specs.len()],
                series: series.collect(),
                cost_per_hour: Vec::with_capacity(points),
                node_seconds: 0.0,
                dollars: 0.0,
                added: 0,
                removed: 0,
            },
        }
    }

    /// Asks for a machine of a group; its name.
    pub(super) fn order(&mut self, group: usize, now: Instant) -> Arc<str> {
        self.record.advance(now, self.specs);
        let spec = &self.specs[group];
        let name: Arc<str> = format!("{}-{}", spec.offer.id, self.serial[group]).into();
        self.serial[group] += 1;
        let mut node = spec.template.node.clone();
        node.name = name.clone();
        node.provider_id = name.clone();
        node.labels.insert(HOSTNAME.to_owned(), name.to_string());
        let daemon = |pod: &Pod| {
            Arc::new(Pod {
                name: format!("{}-{name}", pod.name).into(),
                node: Some(name.clone()),
                ready: true,
                ..pod.clone()
            })
        };
        let daemon_pods = spec.template.pods.iter().map(daemon).collect();
        let machine = Machine { group, id: None, node: Arc::new(node), daemon_pods };
        self.by_name.insert(name.clone(), machine);
        self.record.starting[group] += 1;
        name
    }

    /// Asks for more machines of a group: when each will be a node, and its name.
    pub(super) fn increase(&mut self, group: &str, count: u32, now: Instant) -> Vec<(Instant, Arc<str>)> {
        let Some(index) = self.specs.iter().position(|spec| &*spec.offer.id == group) else {
            return Vec::new();
        };
        let at = now + Duration::from_secs(self.specs[index].starts_in.into());
        self.record.added += u64::from(count);
        (0..count).map(|_| (at, self.order(index, now))).collect()
    }

    /// A machine becomes a node.
    pub(super) fn join(&mut self, name: &str, time: Timestamp, now: Instant, snapshot: &mut Snapshot) {
        self.record.advance(now, self.specs);
        let Some(machine) = self.by_name.get_mut(name).filter(|machine| machine.id.is_none()) else {
            return;
        };
        let node = Arc::make_mut(&mut machine.node);
        node.conditions.insert("Ready".into(), (true, Some(time)));
        node.created = Some(time);
        let id = snapshot.add_node(node);
        for pod in &machine.daemon_pods {
            let class = snapshot.class(pod);
            snapshot.bind(class, id);
        }
        machine.id = Some(id);
        self.record.starting[machine.group] -= 1;
        self.record.ready[machine.group] += 1;
    }

    /// A machine goes.
    pub(super) fn remove(&mut self, name: &str, now: Instant, snapshot: &mut Snapshot) {
        self.record.advance(now, self.specs);
        let Some(machine) = self.by_name.remove(name) else { return };
        match machine.id {
            Some(id) => {
                snapshot.remove_node(id);
                self.record.ready[machine.group] -= 1;
            }
            None => self.record.starting[machine.group] -= 1,
        }
        self.record.removed += 1;
    }

    /// A pod left a node.
    pub(super) fn unbind(&self, snapshot: &mut Snapshot, node: &str, class: ClassId) {
        if let Some(id) = self.by_name.get(node).and_then(|machine| machine.id) {
            snapshot.unbind(class, id);
        }
    }

    /// Machines that are no nodes yet.
    pub(super) fn starting(&self) -> u32 {
        self.record.starting.iter().sum()
    }

    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        let nodes = self.by_name.values().filter(|machine| machine.id.is_some());
        nodes.map(|machine| machine.node.clone()).collect()
    }

    pub(super) fn daemon_pods(&self) -> impl Iterator<Item = Arc<Pod>> {
        let nodes = self.by_name.values().filter(|machine| machine.id.is_some());
        nodes.flat_map(|machine| machine.daemon_pods.iter().cloned())
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
            let group = &mut groups[machine.group];
            group.target += 1;
            let state = match machine.id {
                Some(_) => InstanceState::Running,
                None => InstanceState::Creating(None),
            };
            group.instances.push(Instance { id: name.clone(), state });
        }
        groups
    }

    pub(super) fn finish(mut self, end: Instant) -> Result {
        self.record.advance(end, self.specs);
        // The last point is the last moment itself.
        self.record.fill(end + Duration::from_nanos(1), self.specs);
        let prices = self.specs.iter().any(|spec| spec.price.is_some());
        let summary = Summary {
            node_hours: self.record.node_seconds / 3600.0,
            cost: prices.then_some(self.record.dollars),
            nodes_added: self.record.added,
            nodes_removed: self.record.removed,
            ..Summary::default()
        };
        let nodes = NodesOutcome { types: self.record.series, cost_per_hour: self.record.cost_per_hour };
        Result { nodes, summary }
    }
}

impl Record {
    /// Brings sums and points up to date with what held until now.
    fn advance(&mut self, now: Instant, specs: &[Group]) {
        self.fill(now, specs);
        let seconds = now.saturating_sub(self.since).as_secs_f64();
        let machines: u32 = self.ready.iter().chain(&self.starting).sum();
        self.node_seconds += seconds * f64::from(machines);
        self.dollars += seconds / 3600.0 * self.price(specs);
        self.since = now;
    }

    /// Dollars an hour. A machine costs from when it is asked for.
    fn price(&self, specs: &[Group]) -> f64 {
        let counts = self.ready.iter().zip(&self.starting);
        let of = |(spec, (ready, starting)): (&Group, (&u32, &u32))| {
            spec.price.unwrap_or_default() * f64::from(ready + starting)
        };
        specs.iter().zip(counts).map(of).sum()
    }

    fn fill(&mut self, now: Instant, specs: &[Group]) {
        while self.cost_per_hour.len() < self.points {
            let at = self.step * u32::try_from(self.cost_per_hour.len()).unwrap_or(u32::MAX);
            if at >= now {
                break;
            }
            self.cost_per_hour.push(self.price(specs));
            for (group, series) in self.series.iter_mut().enumerate() {
                series.ready.push(self.ready[group]);
                series.starting.push(self.starting[group]);
            }
        }
    }
}
