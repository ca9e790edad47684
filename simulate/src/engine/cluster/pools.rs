//! Node pools: claims for pods that wait, and consolidation, as `tandem-core` decides them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::{
    api::resource::Quantity,
    apis::meta::v1::{Condition, Time},
};
use tandem_core::{
    api::karpenter::{DEFAULT_EXPIRE_AFTER, NodeClaim, NodeClaimStatus},
    nodes::{
        pools::{
            cluster::{self, labels_of},
            disrupt::{self, Command},
            instance_type::{InstanceType, Offering},
            names::condition,
            node_claim::{created, holds, pool_of, single_values},
            provision::{self, provision},
            requirements::{
                Requirements,
                labels::{CAPACITY_TYPE, HOSTNAME, INSTANCE_TYPE, ZONE},
            },
            sold_out::SoldOut,
            solver,
        },
        template,
    },
    pods::reasons::Event,
    quantity::format_milli,
    scheduling::{Node, Resources, Surroundings},
};

use super::{Cluster, Due, Instant};

/// `--batch-idle-duration`: nodes are looked for once no pod came for so long.
pub(super) const BATCH: Duration = Duration::from_secs(1);
/// Pods that still wait are thought about again after so long.
const AGAIN: Duration = Duration::from_secs(10);
/// How often nodes are looked for that could go, and from when on a command stands that was found before
/// (`pkg/controllers/disruption/controller.go`, `validation.go`).
const LOOK: Duration = Duration::from_secs(10);
const VALID_AFTER: Duration = Duration::from_secs(15);

/// What is known beside machines.
#[derive(Default)]
pub(super) struct Pools {
    /// When a pod last came to a node or left it.
    events: BTreeMap<Arc<str>, Timestamp>,
    /// What was found, until it is validated.
    command: Option<Command>,
    replacing: Vec<Replacement>,
    /// Claims that go.
    leaving: BTreeSet<Arc<str>>,
    /// What was taken back is not asked for again for a while.
    pub(super) sold_out: SoldOut,
}

/// Claims that go once others are nodes.
struct Replacement {
    old: Vec<Arc<str>>,
    new: Vec<Arc<str>>,
}

impl Pools {
    /// A pod came to a node, or left it.
    pub(super) fn note(&mut self, node: &Arc<str>, now: Timestamp) {
        self.events.insert(node.clone(), now);
    }

    /// The claim of a node goes.
    pub(super) fn leave(&mut self, node: &Arc<str>) {
        self.leaving.insert(node.clone());
    }

    /// Whether the claim of a node goes.
    pub(super) fn is_leaving(&self, node: &str) -> bool {
        self.leaving.contains(node)
    }

    /// The node goes.
    pub(super) fn forget(&mut self, node: &str) {
        self.events.remove(node);
        self.leaving.remove(node);
    }
}

/// What a claim becomes.
struct Launch {
    instance_type: Arc<InstanceType>,
    offering: Offering,
}

impl Cluster<'_> {
    /// The cluster as node pools see it, with what is calm marked so; and when the next claim becomes calm.
    fn observe(&mut self, time: Timestamp) -> (cluster::Cluster, Option<Timestamp>) {
        let pools = &self.world.nodes.pools;
        let after = |claim: &NodeClaim| {
            let pool = pools.iter().find(|pool| pool_of(claim) == Some(&*pool.name))?;
            pool.spec.disruption.consolidate_after().ok().flatten()
        };
        let events = &self.pools.events;
        let (mut claims, mut next) = (Vec::new(), None::<Timestamp>);
        for (name, claim) in self.machines.claims() {
            let since = events.get(name).copied().unwrap_or_default().max(created(claim));
            let calm_at = after(claim).and_then(|after| since.checked_add(after).ok());
            let is_calm = calm_at.is_some_and(|at| at <= time) && holds(claim, condition::INITIALIZED);
            if is_calm != holds(claim, condition::CONSOLIDATABLE) {
                let conditions = &mut Arc::make_mut(claim).status.get_or_insert_default().conditions;
                conditions.retain(|known| known.type_ != condition::CONSOLIDATABLE);
                conditions.extend(is_calm.then(|| is_true(condition::CONSOLIDATABLE, time)));
            }
            if let Some(at) = calm_at.filter(|at| *at > time) {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
            claims.push(claim.clone());
        }
        let pods = self.workloads.iter().flat_map(super::Replicas::pods).chain(self.machines.daemon_pods());
        let cluster = cluster::Cluster {
            nodes: self.machines.nodes(),
            claims,
            pods: pods.collect(),
            daemon_sets: self.world.nodes.daemon_sets.clone(),
            pools: self.offered(time),
            leaving: self.pools.leaving.clone(),
            well_known: self.world.nodes.well_known.clone(),
            ..cluster::Cluster::default()
        };
        (cluster, next)
    }

    /// The pools with what can be had of them.
    fn offered(&mut self, time: Timestamp) -> Vec<cluster::Pool> {
        let mut pools = self.world.nodes.pools.clone();
        if self.pools.sold_out.is_any(time) {
            for pool in &mut pools {
                pool.types = self.pools.sold_out.mask(&pool.types, time);
            }
        }
        pools
    }

    fn solver(&self) -> solver::Options {
        solver::Options { well_known: self.world.nodes.well_known.clone(), ..solver::Options::default() }
    }

    /// Makes claims for pods that wait.
    pub(super) fn provision(&mut self, now: Instant) {
        let time = self.clock.time(now);
        let (cluster, _) = self.observe(time);
        let mut pods = cluster.needy();
        let waiting = pods.len();
        pods.extend(self.expected(time));
        let mut plan =
            provision(&provision::Input { cluster: &cluster, pods: &pods, options: self.solver() });
        // Nobody can tell expected pods anything.
        plan.unschedulable.retain(|failure| failure.pod < waiting);
        if waiting > 0 || self.demand.is_any() {
            self.want_provision(now + AGAIN);
        }
        for claim in &plan.claims {
            self.launch(claim, now);
        }
        for failure in &plan.unschedulable {
            let index = self.workloads.iter().position(|workload| workload.owns(&pods[failure.pod]));
            if let Some(index) = index.filter(|index| self.refused.insert(*index)) {
                let message = format!("Failed to schedule pod, {failure}");
                let event = Event { type_: "Warning", reason: "FailedScheduling", message };
                self.tell(time, format!("Pod {}", self.workloads[index].key()), event);
            }
        }
    }

    /// Launches the cheapest machine that a claim may be; its name.
    fn launch(&mut self, wanted: &solver::Claim, now: Instant) -> Option<Arc<str>> {
        let time = self.clock.time(now);
        let world = self.world;
        let well_known = &world.nodes.well_known;
        let offered = wanted
            .types
            .iter()
            .filter_map(|one| Some((one, one.cheapest(&wanted.requirements, well_known)?)));
        let (of, offering) = offered.min_by(|(_, one), (_, other)| one.price.total_cmp(&other.price))?;
        let launch = Launch { instance_type: of.clone(), offering: offering.clone() };
        let pool = world.nodes.pools.iter().find(|pool| pool.name == wanted.pool)?;
        let name = self.machines.name(&pool.name);
        let claim = launch.claim(pool, &wanted.requirements, &name, time);
        let node = launch.node(&claim, &name);
        let (daemons, around) = (&world.nodes.daemon_sets, Surroundings::default());
        let daemons = template::with_daemon_pods(node.clone(), Vec::new(), daemons, false, &around).pods;
        let prices = &world.nodes.prices;
        let price = prices.get(&*of.name).copied().unwrap_or(offering.price);
        let capacity_type = offering.capacity_type().unwrap_or_default();
        let message = format!("{} {capacity_type}, {} pods", of.name, wanted.pods.len());
        let event = Event { type_: "Normal", reason: "Launched", message };
        self.tell(time, format!("NodeClaim {name}"), event);
        self.expect_expiry(&claim, &name, now);
        self.machines.launch(claim, (&format!("{} {capacity_type}", of.name), price), node, &daemons, now);
        let starts_in = world.nodes.starts_in(&of.name);
        self.due.insert((now + starts_in, Due::Node(name.clone())));
        Some(name)
    }

    /// The machine of a claim has become a node, which pods may run on.
    pub(super) fn initialize(&mut self, name: &Arc<str>, now: Instant) {
        let time = self.clock.time(now);
        if let Some((_, claim)) = self.machines.claims().find(|(known, _)| *known == name) {
            let status = Arc::make_mut(claim).status.get_or_insert_default();
            status.node_name = Some(name.to_string());
            status
                .conditions
                .extend([condition::REGISTERED, condition::INITIALIZED].map(|kind| is_true(kind, time)));
            self.pools.note(name, time);
        }
        self.expect_interruption(name, now);
        self.finish_replacements(now);
    }

    /// Nodes whose replacements are there go.
    fn finish_replacements(&mut self, now: Instant) {
        let machines = &self.machines;
        // One that is gone again keeps nobody.
        let is_there = |it: &mut Replacement| !it.new.iter().any(|name| machines.is_starting(name));
        let done: Vec<_> = self.pools.replacing.extract_if(.., is_there).collect();
        for old in done.into_iter().flat_map(|replacement| replacement.old) {
            self.remove(&old, now);
        }
    }

    /// Looks for nodes that can go; what is found is done once it has stood for a while.
    pub(super) fn disrupt(&mut self, now: Instant) {
        let time = self.clock.time(now);
        let (cluster, next) = self.observe(time);
        let (budgets, nominated) = (self.budgets(), BTreeSet::new());
        let input = disrupt::Input {
            cluster: &cluster,
            budgets: &budgets,
            nominated: &nominated,
            options: self.solver(),
            spot_to_spot: false,
            now: time,
        };
        if let Some(found) = self.pools.command.take() {
            if let Ok(command) = disrupt::validate(&input, &found) {
                self.carry_out_command(&command, now);
            }
            self.want_disrupt(now + LOOK);
            return;
        }
        let decision = disrupt::decide(&input, |_| true);
        if decision.command.is_some() {
            self.pools.command = decision.command;
            self.want_disrupt(now + VALID_AFTER);
        } else if decision.is_held || !self.pools.replacing.is_empty() {
            self.want_disrupt(now + super::QUIET_INTERVAL);
        } else if let Some(at) = next {
            self.want_disrupt(now + at.duration_since(time).unsigned_abs().max(LOOK));
        }
    }

    fn carry_out_command(&mut self, command: &Command, now: Instant) {
        let time = self.clock.time(now);
        for claim in &command.claims {
            let message = format!("Disrupting NodeClaim: {}", command.method.reason().name());
            let event = Event { type_: "Normal", reason: "DisruptionTerminating", message };
            self.tell(time, format!("NodeClaim {claim}"), event);
        }
        self.pools.leaving.extend(command.claims.iter().cloned());
        let new = command.replacements.iter().filter_map(|claim| self.launch(claim, now)).collect();
        self.pools.replacing.push(Replacement { old: command.claims.clone(), new });
        self.finish_replacements(now);
    }
}

impl Launch {
    fn claim(&self, pool: &cluster::Pool, required: &Requirements, name: &str, now: Timestamp) -> NodeClaim {
        let Self { instance_type, offering } = self;
        let mut labels = single_values(&instance_type.requirements);
        labels.extend(single_values(required));
        labels.extend(labels_of(&pool.name, &pool.spec));
        let of = [
            (INSTANCE_TYPE, Some(&*instance_type.name)),
            (ZONE, offering.zone()),
            (CAPACITY_TYPE, offering.capacity_type()),
        ];
        labels.extend(of.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned()))));
        let mut claim = NodeClaim::default();
        claim.metadata.name = Some(name.to_owned());
        claim.metadata.labels = Some(labels);
        claim.metadata.creation_timestamp = Some(Time(now));
        claim.spec.taints.clone_from(&pool.spec.template.spec.taints);
        // As the API server fills it in.
        let expire_after = pool.spec.template.spec.expire_after.as_deref().unwrap_or(DEFAULT_EXPIRE_AFTER);
        claim.spec.expire_after = Some(expire_after.to_owned());
        claim.spec.termination_grace_period.clone_from(&pool.spec.template.spec.termination_grace_period);
        claim.spec.node_class_ref = pool.spec.template.spec.node_class_ref.clone();
        claim.status = Some(NodeClaimStatus {
            provider_id: Some(name.to_owned()),
            capacity: Some(quantities(&instance_type.capacity)),
            allocatable: Some(quantities(instance_type.allocatable())),
            conditions: vec![is_true(condition::LAUNCHED, now)],
            ..NodeClaimStatus::default()
        });
        claim
    }

    fn node(&self, claim: &NodeClaim, name: &Arc<str>) -> Node {
        let mut labels = claim.metadata.labels.clone().unwrap_or_default();
        labels.insert(HOSTNAME.to_owned(), name.to_string());
        Node {
            name: name.clone(),
            provider_id: name.clone(),
            labels,
            taints: claim.spec.taints.clone().unwrap_or_default(),
            allocatable: self.instance_type.allocatable().clone(),
            capacity: self.instance_type.capacity.clone(),
            ready: true,
            ..Node::default()
        }
    }
}

fn is_true(kind: &str, now: Timestamp) -> Condition {
    Condition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: kind.to_owned(),
        message: String::new(),
        observed_generation: None,
        last_transition_time: Time(now),
    }
}

/// Amounts as the API writes them.
fn quantities(resources: &Resources) -> BTreeMap<String, Quantity> {
    let text = |(name, amount): (&str, i64)| {
        let text = if name == "cpu" { format_milli(amount) } else { amount.to_string() };
        (name.to_owned(), Quantity(text))
    };
    resources.iter().map(text).collect()
}
