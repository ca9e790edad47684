//! Nodes and the pods on them: the scheduler, the node loop, and machines that take their time.
//!
//! Where a pod may run, which groups grow and which nodes go is decided by `tandem-core`; here is what a cluster does of
//! itself: pods are bound to the emptiest node that takes them, machines start, ReplicaSets make up for evicted pods.

mod bill;
mod demand;
mod leaving;
mod machines;
mod pools;
mod preemption;
mod replicas;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tandem_core::{
    nodes::{
        action::Action,
        drain::Budgets,
        expander::{Chain, Context, Expander, Pricing, Progress, pick},
        pass::{self, Memory, Model, PassSettings},
        reasons,
    },
    scheduling::{ClassId, NodeId, Pod, Resources, Snapshot, Surroundings, pod::Scheduled},
};

use super::{Clock, Instant, pods::Counts};
use crate::{
    compile::{Workload, World},
    outcome::Event,
};
use demand::Demand;
use leaving::End;
pub(crate) use leaving::Interruptions;
use machines::Machines;
use pools::{BATCH, Pools};
use replicas::Replicas;

/// `--scan-interval`: passes of the node loop while somebody waits for nodes.
const SCAN_INTERVAL: Duration = Duration::from_secs(10);
/// Passes while pods only come and go: whether a node is needed is told in minutes.
const QUIET_INTERVAL: Duration = Duration::from_mins(1);

/// Something that is due, in the order in which it is done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A machine has become a node.
    Node(Arc<str>),
    /// Pods of a workload have started.
    Started(usize),
    /// A claim goes that nobody chose.
    End(Arc<str>, End),
    /// Pods of a node that goes are evicted.
    Drain(Arc<str>),
    /// The time of a machine that goes is up.
    Gone(Arc<str>),
    /// Pods want nodes.
    Place,
    /// The node loop looks at groups.
    Pass,
    /// Claims are made for pods that wait.
    Provision,
    /// Nodes of pools are looked at that could go.
    Disrupt,
}

/// The nodes and all pods.
pub(crate) struct Cluster<'a> {
    world: &'a World,
    clock: Clock,
    settings: PassSettings,
    chain: Chain,
    memory: Memory,
    /// What the last pass saw.
    model: Model,
    /// When it was.
    passed: Instant,
    demand: Demand,
    snapshot: Snapshot,
    machines: Machines<'a>,
    pools: Pools,
    /// Those of the objects, then those that nothing scales.
    workloads: Vec<Replicas>,
    /// By priority, the highest first.
    order: Vec<usize>,
    due: BTreeSet<(Instant, Due)>,
    /// When each of the loops looks next.
    planned: BTreeMap<Due, Instant>,
    changed: BTreeSet<usize>,
    /// Workloads of which it was told that no group can help.
    refused: BTreeSet<usize>,
    pub(crate) events: Vec<Event>,
}

impl<'a> Cluster<'a> {
    pub(crate) fn new(world: &'a World, clock: Clock, points: usize) -> Self {
        let mut snapshot = Snapshot::new(Arc::new(Surroundings::default()));
        let scaled = world.objects.iter().map(|object| &object.workload);
        let workloads: Vec<_> = scaled
            .chain(&world.still)
            .enumerate()
            .map(|(index, workload)| Replicas::new(index, workload, &mut snapshot))
            .collect();
        let mut order: Vec<_> = (0..workloads.len()).collect();
        order.sort_by_key(|index| std::cmp::Reverse(workloads[*index].priority()));
        let mut cluster = Self {
            world,
            clock,
            model: Model::new(PassSettings::default()),
            passed: Instant::ZERO,
            demand: Demand::new(world),
            settings: PassSettings::default(),
            chain: Chain::new(vec![Expander::LeastWaste]),
            memory: Memory::default(),
            snapshot,
            machines: Machines::new(&world.nodes.groups, world.step, points),
            workloads,
            order,
            due: BTreeSet::new(),
            planned: BTreeMap::new(),
            pools: Pools::default(),
            changed: BTreeSet::new(),
            refused: BTreeSet::new(),
            events: Vec::new(),
        };
        cluster.begin();
        cluster
    }

    /// The world as it has long been: nodes are there, and pods that fit are ready.
    fn begin(&mut self) {
        for (index, group) in self.world.nodes.groups.iter().enumerate() {
            for _ in 0..group.size {
                let name = self.machines.order(index, Instant::ZERO);
                self.join(&name, Instant::ZERO);
            }
        }
        let scaled = self.world.objects.iter().map(|object| &object.workload);
        let counts: Vec<u32> = scaled.chain(&self.world.still).map(|workload| workload.replicas).collect();
        for (index, count) in counts.into_iter().enumerate() {
            let now = self.clock.time(Instant::ZERO);
            self.workloads[index].grow(count, now);
        }
        self.place_all(Instant::ZERO, true);
        self.want_pass(Instant::ZERO);
    }

    /// When something is due next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Does what is due at `now`.
    pub(crate) fn act(&mut self, now: Instant) {
        while let Some((at, due)) = self.due.pop_first() {
            if at > now {
                self.due.insert((at, due));
                break;
            }
            match due {
                Due::Node(name) => {
                    self.join(&name, now);
                    self.initialize(&name, now);
                    self.due.insert((now, Due::Place));
                }
                Due::Started(index) => {
                    self.workloads[index].start(now);
                    self.changed.insert(index);
                }
                Due::End(name, why) => self.end(&name, why, now),
                Due::Drain(name) => self.drain(&name, now),
                Due::Gone(name) => self.gone(&name, now),
                Due::Place => self.place_all(now, false),
                Due::Pass | Due::Provision | Due::Disrupt => {
                    self.planned.remove(&due);
                    match due {
                        Due::Provision => self.provision(now),
                        Due::Disrupt => self.disrupt(now),
                        _ => self.pass(now),
                    }
                }
            }
        }
    }

    /// Workloads whose counts may have changed since the last call.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<usize> {
        std::mem::take(&mut self.changed)
    }

    /// Where the pods of a workload are.
    pub(crate) fn counts(&self, workload: usize) -> Counts {
        self.workloads[workload].counts()
    }

    /// Makes or removes pods of a workload.
    pub(crate) fn resize(&mut self, workload: usize, count: u32, now: Instant) {
        let replicas = &mut self.workloads[workload];
        let there = replicas.len();
        if count == there {
            return;
        }
        self.changed.insert(workload);
        if count > there {
            replicas.grow(count - there, self.clock.time(now));
            self.due.insert((now, Due::Place));
        } else {
            for node in replicas.shrink(there - count) {
                self.pools.note(&node, self.clock.time(now));
                self.machines.unbind(&mut self.snapshot, &node, self.workloads[workload].class);
            }
            // Others may fit now.
            self.due.insert((now, Due::Place));
        }
        self.want_pass(now + QUIET_INTERVAL);
        self.want_disrupt(now + QUIET_INTERVAL);
    }

    /// A machine becomes a node that takes pods.
    fn join(&mut self, name: &Arc<str>, now: Instant) {
        let time = self.clock.time(now);
        self.machines.join(name, time, now, &mut self.snapshot);
        self.want_pass(now + QUIET_INTERVAL);
        self.want_disrupt(now + QUIET_INTERVAL);
    }

    /// Binds what fits. `at_once`: the pods have long been ready.
    fn place_all(&mut self, now: Instant, at_once: bool) {
        let mut stuck = false;
        for index in self.order.clone() {
            while let Some(pod) = self.workloads[index].first_pending() {
                let class = self.workloads[index].class;
                let Some(node) = self.best(class).or_else(|| self.preempt(index, now)) else {
                    stuck |= self.workloads[index].give_up(self.clock.time(now));
                    break;
                };
                self.snapshot.bind(class, node);
                let name = self.snapshot.node(node).name().clone();
                self.pools.note(&name, self.clock.time(now));
                let ready_at = self.workloads[index].bind(pod, name, now, at_once);
                if !at_once {
                    self.due.insert((ready_at, Due::Started(index)));
                }
                self.refused.remove(&index);
                self.changed.insert(index);
            }
        }
        if stuck {
            self.want_pass(now);
            self.want_provision(now + BATCH);
        }
    }

    /// The emptiest of the nodes that take a pod: kube-scheduler's own preference (`NodeResourcesFit`, `LeastAllocated`).
    fn best(&mut self, class: ClassId) -> Option<NodeId> {
        let first = self.snapshot.find(class, None)?;
        let fits = self
            .snapshot
            .nodes()
            .map(|(id, _)| id)
            .filter(|id| *id == first || self.snapshot.check(class, *id).is_ok());
        fits.map(|id| (emptiness(&self.snapshot.free(id), &self.snapshot.allocatable(id)), id))
            .max_by(|(one, first), (other, second)| {
                one.cmp(other)
                    .then_with(|| self.snapshot.node(*second).name().cmp(self.snapshot.node(*first).name()))
            })
            .map(|(_, id)| id)
    }

    /// The loops look at `at`, or earlier where that is planned.
    fn want(&mut self, what: Due, at: Instant) {
        match self.planned.get(&what) {
            Some(planned) if *planned <= at => return,
            Some(planned) => {
                self.due.remove(&(*planned, what.clone()));
            }
            None => {}
        }
        self.planned.insert(what.clone(), at);
        self.due.insert((at, what));
    }

    fn want_pass(&mut self, at: Instant) {
        if !self.world.nodes.groups.is_empty() {
            self.want(Due::Pass, at);
        }
    }

    fn want_disrupt(&mut self, at: Instant) {
        if !self.world.nodes.pools.is_empty() {
            self.want(Due::Disrupt, at);
        }
    }

    /// One pass of the node loop.
    fn pass(&mut self, now: Instant) {
        let time = self.clock.time(now);
        self.passed = now;
        let expected = self.expected(time);
        let pods = self.workloads.iter().flat_map(Replicas::pods).chain(self.machines.daemon_pods());
        let input = pass::Input {
            now: time,
            nodes: self.machines.nodes(),
            pods: pods.collect(),
            expected,
            daemon_sets: self.world.nodes.daemon_sets.clone(),
            budgets: self.budgets(),
            groups: self.machines.groups(),
            templates: self.machines.templates().clone(),
            ..pass::Input::default()
        };
        let (chain, cluster_nodes) = (&self.chain, input.nodes.len());
        let outcome = self.model.pass(&mut self.memory, &input, &mut |scale_up, options| {
            let choices: Vec<_> =
                options.iter().map(|option| scale_up.choice(option, Pricing::default())).collect();
            let context = Context { priorities: None, cluster_nodes, seed: 0 };
            match chain.begin(&choices, &context, &mut Vec::new()) {
                Progress::Left(left) => pick(&left, context.seed),
                Progress::Ask(_) => None,
            }
        });
        for action in &outcome.actions {
            self.carry_out(action, now);
        }
        for (pod, refusals) in &outcome.plan.refused {
            let index = self.workloads.iter().position(|workload| workload.owns(pod));
            if let Some(index) = index.filter(|index| self.refused.insert(*index)) {
                let event = reasons::not_trigger_scale_up(refusals);
                let object = format!("Pod {}", self.workloads[index].key());
                self.tell(time, object, event);
            }
        }
        self.plan_next(now, time);
    }

    fn carry_out(&mut self, action: &Action, now: Instant) {
        let time = self.clock.time(now);
        match action {
            Action::Increase(increase) => {
                self.tell(
                    time,
                    format!("NodeGroup {}", increase.group),
                    reasons::setting_group_size(increase),
                );
                let nodes = increase.to - increase.from;
                self.memory.cluster.requested(
                    &increase.group,
                    nodes,
                    time,
                    self.settings.cluster.provision_time,
                );
                for (at, name) in self.machines.increase(&increase.group, nodes, now) {
                    self.due.insert((at, Due::Node(name)));
                }
            }
            Action::Remove(removal) => {
                let pods: Vec<_> = removal.pods.iter().map(|pod| pod.key()).collect();
                let event = reasons::removing_node(&removal.node, removal.utilization, &pods);
                self.tell(time, format!("Node {}", removal.node), event);
                self.remove(&removal.node, now);
            }
            // Machines of a simulation neither fail nor get lost, and nobody reads soft taints.
            Action::Decrease { .. }
            | Action::DeleteInstances { .. }
            | Action::MarkCandidate { .. }
            | Action::UnmarkCandidate { .. }
            | Action::CleanUp { .. } => {}
        }
    }

    /// Takes a node away; its pods are made again elsewhere.
    fn remove(&mut self, name: &Arc<str>, now: Instant) {
        let time = self.clock.time(now);
        self.machines.remove(name, now, &mut self.snapshot);
        self.pools.forget(name);
        for (index, workload) in self.workloads.iter_mut().enumerate() {
            if workload.evict(time, |pod| pod.node.as_deref() == Some(name)) {
                self.changed.insert(index);
            }
        }
        self.memory.shrunk = Some(time);
        self.memory.unneeded.remove(&**name);
        self.due.insert((now, Due::Place));
    }

    /// The next pass: soon while somebody waits, else when a timer runs out.
    fn plan_next(&mut self, now: Instant, time: Timestamp) {
        let waits = self.machines.bill.starting() > 0
            || self.demand.is_any()
            || self.workloads.iter().any(|workload| workload.counts().pending > 0);
        if waits {
            return self.want_pass(now + SCAN_INTERVAL);
        }
        let scale_down = &self.settings.scale_down;
        let unneeded = self.memory.unneeded.values().map(|since| *since + scale_down.unneeded_time);
        let held = [
            self.memory.grown.map(|at| at + scale_down.delay_after_add),
            self.memory.shrunk.map(|at| at + scale_down.delay_after_delete),
        ];
        let timers =
            unneeded.chain(held.into_iter().flatten()).chain(self.memory.unremovable.values().copied());
        if let Some(at) = timers.filter(|at| *at > time).min() {
            let ahead = at.duration_since(time).unsigned_abs();
            self.want_pass(now + ahead.max(SCAN_INTERVAL));
        }
    }

    /// Budgets as their controller would have counted them.
    fn budgets(&self) -> Budgets {
        let count = |disruption: &crate::compile::Disruption| {
            let mut budget = disruption.budget.clone();
            let (mut wanted, mut ready) = (0, 0);
            for workload in &self.workloads {
                if workload.sample().is_some_and(|pod| budget.covers(pod)) {
                    wanted += workload.len();
                    ready += workload.counts().ready;
                }
            }
            budget.allowed = disruption.allowed(wanted, ready);
            budget
        };
        Budgets::new(self.world.nodes.disruptions.iter().map(count))
    }

    fn tell(&mut self, at: Timestamp, object: String, event: tandem_core::pods::reasons::Event) {
        let (reason, kind) = (event.reason.to_owned(), event.type_.to_owned());
        self.events.push(Event { at, object, reason, message: event.message, kind });
    }

    /// The nodes' part of the result.
    pub(crate) fn finish(self, end: Instant) -> (bill::Total, Vec<Event>) {
        (self.machines.bill.total(end), self.events)
    }
}

/// The mean of what is free of cpu and of memory, thousandths.
fn emptiness(free: &Resources, all: &Resources) -> i64 {
    let share = |free: i64, all: i64| i128::from(free) * 1000 / i128::from(all.max(1));
    i64::try_from(share(free.cpu, all.cpu) + share(free.memory, all.memory)).unwrap_or_default()
}

/// What all pods of a workload have in common.
fn model(index: usize, workload: &Workload) -> Pod {
    let mut pod = Pod::read(&workload.pod, Arc::new);
    pod.uid = format!("{index}").into();
    pod.scheduled = Scheduled::NotTried;
    pod
}
