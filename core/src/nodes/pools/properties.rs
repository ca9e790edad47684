//! What must never be, whatever the pools and their cluster look like.

mod devices;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{Taint, Toleration, TopologySpreadConstraint},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, Time},
};
use kube::ResourceExt as _;
use proptest::prelude::*;

use super::{
    cluster::{Cluster, labels_of},
    disrupt::{self, Command, Method, decide, validate},
    names::{DO_NOT_DISRUPT, condition},
    node_claim::{holds, is_deleting, single_values},
    provision::{self, Plan, provision},
    requirements::{
        Operator, Requirement,
        labels::{CAPACITY_TYPE, INSTANCE_TYPE, NODE_POOL, ON_DEMAND, SPOT, ZONE},
    },
    solver::{self, NODES, Options},
    testing::{ZONES, add_node_of, claim, cluster, limit, pod, pool, set, with},
};
use crate::{
    api::karpenter::{Budget, NEVER, NodeClaim, RequirementWithMinValues},
    draws::Draws,
    nodes::drain::{self, Budgets},
    scheduling::{ClassId, Node, NodeId, Pod, Resources, Snapshot},
};

/// Now: an hour after all machines were made.
const NOW: Timestamp = Timestamp::constant(3_600, 0);
/// The label of a pod that says what it is like.
const KIND: &str = "kind";
/// What pods are like that go wherever they are sent.
const YIELDING: [&str; 5] = ["plain", "plain", "small", "daemon", "protected-once"];
/// What pods are like that keep their node.
const STUBBORN: [&str; 4] = ["protected", "protected-still", "exhausted", "twice"];

/// A drawn cluster, and what else decides about it.
struct World {
    cluster: Cluster,
    pdbs: Vec<drain::Budget>,
    nominated: BTreeSet<String>,
}

impl World {
    fn draw(draws: &mut Draws) -> Self {
        let mut world = Self { cluster: cluster(), pdbs: pdbs(), nominated: BTreeSet::new() };
        world.draw_pool(draws);
        for number in 0..draws.below(7) {
            world.draw_node(draws, &format!("node-{number}"));
        }
        if draws.percent(30) {
            let node = Node { name: "outside".into(), ..node_of(20) };
            world.cluster.nodes.push(Arc::new(node));
            world.run(draws, "outside", "plain");
        }
        for number in 0..if draws.percent(30) { draws.below(4) } else { 0 } {
            let waits = pod(&format!("waits-{number}"), "waits", cpu(draws, 3_000));
            world.cluster.pods.push(Arc::new(waits));
        }
        world
    }

    fn draw_pool(&mut self, draws: &mut Draws) {
        let pool = &mut self.cluster.pools[0];
        pool.spec.template.spec.requirements[0].values = vec![SPOT.to_owned(), ON_DEMAND.to_owned()];
        let nodes = draws.one(&["0", "1", "2", "3", "50%", "100%", "100%"]);
        let disruption = &mut pool.spec.disruption;
        disruption.budgets = Some(vec![Budget::of(nodes)]);
        disruption.consolidate_after = draws.percent(5).then(|| NEVER.to_owned());
        let policy = draws.one(&["WhenEmpty", "Balanced", "", "", "", ""]);
        disruption.consolidation_policy = (!policy.is_empty()).then(|| policy.to_owned());
        if draws.percent(40) {
            limit(pool, "cpu", &(10 + draws.below(40)).to_string());
        }
        if draws.percent(30) {
            limit(pool, NODES, &draws.below(8).to_string());
        }
    }

    fn draw_node(&mut self, draws: &mut Draws, name: &str) {
        let cores = i64::try_from(2 + draws.below(8)).unwrap();
        let capacity_type = draws.one(&[SPOT, ON_DEMAND]);
        let mut claim = claim(name, cores, draws.one(&ZONES), capacity_type);
        if draws.percent(20) {
            set(&mut claim, condition::DRIFTED);
        }
        claim.spec.termination_grace_period = draws.percent(30).then(|| "1h".to_owned());
        let protected = [(DO_NOT_DISRUPT.to_owned(), "true".to_owned())];
        if draws.percent(5) {
            claim.annotations_mut().extend(protected.clone());
        }
        if draws.percent(10) {
            claim.metadata.deletion_timestamp = Some(Time(NOW));
        }
        if draws.percent(5) {
            claim.labels_mut().insert(NODE_POOL.to_owned(), "of-somebody-else".to_owned());
        }
        let restless = draws.percent(20);
        add_node_of(&mut self.cluster, claim, cores, Vec::new());
        let node = Arc::make_mut(self.cluster.nodes.last_mut().unwrap());
        node.ready = draws.percent(90);
        if draws.percent(5) {
            node.annotations.extend(protected);
        }
        if restless {
            let claim = Arc::make_mut(self.cluster.claims.last_mut().unwrap());
            claim.status.as_mut().unwrap().conditions.retain(|it| it.type_ != condition::CONSOLIDATABLE);
        }
        if draws.percent(7) {
            self.nominated.insert(name.to_owned());
        }
        for _ in 0..draws.below(4) {
            let kind = if draws.percent(12) { draws.one(&STUBBORN) } else { draws.one(&YIELDING) };
            self.run(draws, name, kind);
        }
    }

    /// Adds a pod to a node.
    fn run(&mut self, draws: &mut Draws, node: &str, kind: &str) {
        let name = format!("{kind}-{}", self.cluster.pods.len());
        let cpu = if kind == "small" { 100 } else { cpu(draws, 2_000) };
        let mut pod = with(pod(&name, kind, cpu), |shape| {
            shape.labels.insert(KIND.to_owned(), kind.to_owned());
            let protection = match kind {
                "protected" => Some("true"),
                "protected-still" => Some("2h"),
                "protected-once" => Some("30m"),
                _ => None,
            };
            let said = protection.map(|said| (DO_NOT_DISRUPT.to_owned(), said.to_owned()));
            shape.annotations.extend(said);
            if let Some(owner) = shape.owner.as_mut().filter(|_| kind == "daemon") {
                owner.kind = "DaemonSet".into();
            }
        });
        pod.node = Some(node.into());
        pod.scheduled = crate::scheduling::pod::Scheduled::Bound;
        pod.started = Some(Timestamp::UNIX_EPOCH);
        self.cluster.pods.push(Arc::new(pod));
    }

    fn with<T>(&self, decide: impl FnOnce(&disrupt::Input<'_>) -> T) -> T {
        decide(&disrupt::Input {
            cluster: &self.cluster,
            budgets: &Budgets::new(self.pdbs.clone()),
            nominated: &self.nominated,
            options: Options::default(),
            spot_to_spot: true,
            now: NOW,
        })
    }

    fn decide(&self) -> Option<Command> {
        self.with(|input| decide(input, |_| true)).command
    }

    fn claim(&self, name: &str) -> &NodeClaim {
        self.cluster.claims.iter().find(|claim| claim.name_any() == name).unwrap()
    }

    /// The pods on a node; DaemonSets' are no reason to keep it.
    fn pods_on(&self, node: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.cluster
            .pods
            .iter()
            .filter(move |pod| pod.node.as_deref() == Some(node) && !pod.is_of_daemon_set())
    }
}

fn cpu(draws: &mut Draws, most: u64) -> i64 {
    i64::try_from(100 + draws.below(most)).unwrap()
}

fn node_of(cores: i64) -> Node {
    let capacity = super::testing::capacity(cores);
    Node { allocatable: capacity.clone(), capacity, ready: true, ..Node::default() }
}

fn pdb(name: &str, kind: &str, allowed: i32) -> drain::Budget {
    let labels = Some([(KIND.to_owned(), kind.to_owned())].into());
    let selector = Some(LabelSelector { match_labels: labels, ..LabelSelector::default() });
    drain::Budget { namespace: "default".into(), name: name.into(), selector, allowed, ..Default::default() }
}

fn pdbs() -> Vec<drain::Budget> {
    vec![
        pdb("none", "exhausted", 0),
        pdb("one", "twice", 5),
        pdb("other", "twice", 5),
        pdb("some", "plain", 1),
    ]
}

/// What a command does to nodes is allowed, told without the rules that are tested.
fn takes_what_may_go(world: &World, command: &Command) -> Result<(), TestCaseError> {
    let disruption = &world.cluster.pools[0].spec.disruption;
    for name in &command.claims {
        let claim = world.claim(name);
        let node = world.cluster.nodes.iter().find(|node| node.name == *name).unwrap();
        prop_assert_eq!(claim.labels().get(NODE_POOL).map(String::as_str), Some("general"), "not of a pool");
        prop_assert!(!is_deleting(claim), "{name} goes twice");
        prop_assert!(!world.nominated.contains(&**name), "{name} is expected to run pods");
        let says = |annotations: &BTreeMap<String, String>| annotations.contains_key(DO_NOT_DISRUPT);
        prop_assert!(!says(claim.annotations()) && !says(&node.annotations), "{name} says that it stays");
        let keeps = |pod: &&Arc<Pod>| STUBBORN.contains(&pod.shape.labels[KIND].as_str());
        let has_an_end = command.method == Method::Drift && claim.spec.termination_grace_period.is_some();
        prop_assert!(has_an_end || !world.pods_on(name).any(|pod| keeps(&pod)), "a pod keeps {name}");
        if command.method == Method::Drift {
            prop_assert!(holds(claim, condition::DRIFTED), "{name} has not drifted");
        } else {
            prop_assert!(holds(claim, condition::CONSOLIDATABLE), "{name} is not calm");
            prop_assert!(disruption.consolidate_after.is_none(), "the pool does not consolidate");
        }
        let is_empty = world.pods_on(name).next().is_none();
        prop_assert!(command.method != Method::Emptiness || is_empty, "{name} is not empty");
        let only_empty = disruption.consolidation_policy.as_deref() == Some("WhenEmpty");
        let consolidates = matches!(command.method, Method::MultiNode | Method::SingleNode);
        prop_assert!(!(only_empty && consolidates), "only empty nodes may go");
    }
    Ok(())
}

/// The claims of the pool, those that go included.
fn members(cluster: &Cluster) -> impl Iterator<Item = &Arc<NodeClaim>> {
    cluster.claims.iter().filter(|claim| claim.labels().get(NODE_POOL).is_some_and(|pool| pool == "general"))
}

fn stays_within_budgets(world: &World, command: &Command) -> Result<(), TestCaseError> {
    let budget = world.cluster.pools[0].spec.disruption.budgets.as_ref().unwrap()[0].nodes.clone();
    let count = members(&world.cluster).count();
    let most = match budget.strip_suffix('%') {
        Some(percent) => (percent.parse::<usize>().unwrap() * count).div_ceil(100),
        None => budget.parse().unwrap(),
    };
    let unready = |name: &str| world.cluster.nodes.iter().any(|node| &*node.name == name && !node.ready);
    let already = members(&world.cluster).filter(|claim| is_deleting(claim) || unready(&claim.name_any()));
    // One that is not ready and goes was counted before it did.
    let all: BTreeSet<String> =
        already.map(|claim| claim.name_any()).chain(command.claims.iter().map(ToString::to_string)).collect();
    prop_assert!(all.len() <= most, "{all:?} of {budget}");
    Ok(())
}

/// What there is and what comes is within the limits of the pool, whatever types the new nodes will be of.
fn stays_within_limits(cluster: &Cluster, new: &[solver::Claim]) -> Result<(), TestCaseError> {
    let limits = cluster.pools[0].limits();
    if new.is_empty() {
        return Ok(());
    }
    let most = |claim: &NodeClaim| super::node_claim::capacity(claim, &cluster.pools[0].types).cpu;
    let cores: i64 = members(cluster).map(|claim| most(claim)).sum();
    let more: i64 = new.iter().filter_map(|claim| claim.types.iter().map(|it| it.capacity.cpu).max()).sum();
    let nodes = i64::try_from(members(cluster).count() + new.len()).unwrap();
    prop_assert!(
        limits.get("cpu").is_none_or(|limit| cores + more <= *limit),
        "{cores} + {more} of {limits:?}"
    );
    prop_assert!(limits.get(NODES).is_none_or(|limit| nodes <= *limit), "{nodes} nodes of {limits:?}");
    Ok(())
}

fn saves(world: &World, command: &Command) -> Result<(), TestCaseError> {
    if command.method == Method::Drift {
        return Ok(());
    }
    let price = |claim: &NodeClaim| {
        let cores: f64 = claim.labels()[INSTANCE_TYPE]["cores-".len()..].parse().unwrap();
        if claim.labels()[CAPACITY_TYPE] == SPOT { cores / 2.0 } else { cores }
    };
    let before: f64 = command.claims.iter().map(|name| price(world.claim(name))).sum();
    prop_assert!(command.replacements.len() <= 1);
    for claim in &command.replacements {
        let well_known = Options::default().well_known;
        let worst =
            claim.types.iter().filter_map(|it| it.worst_launch_price(&claim.requirements, &well_known));
        prop_assert!(worst.fold(0.0, f64::max) < before, "{} instead of {before}", claim.price);
    }
    Ok(())
}

/// Without the nodes that go, and with those that come first, every pod that has to move has a place.
fn pods_find_a_place(world: &World, command: &Command) -> Result<(), TestCaseError> {
    let mut after = world.cluster.clone();
    after.pools.clear();
    let goes = |node: Option<&Arc<str>>| node.is_some_and(|node| command.claims.contains(node));
    after.pods.retain(|pod| pod.node.is_some());
    after.claims.retain(|claim| !is_deleting(claim));
    after.nodes.retain(|node| &*node.name == "outside" || !is_deleting(world.claim(&node.name)));
    for (number, replacement) in command.replacements.iter().enumerate() {
        let cores = replacement.types[0].capacity.cpu / 1_000;
        let zone = replacement.requirements.get(ZONE).and_then(Requirement::any);
        let of = claim(&format!("new-{number}"), cores, zone.as_deref().unwrap_or(ZONES[0]), SPOT);
        add_node_of(&mut after, of, cores, Vec::new());
    }
    after.leaving = command.claims.iter().cloned().collect();
    let needy = after.needy();
    prop_assert!(needy.iter().all(|pod| goes(pod.node.as_ref())));
    // One pod after the other may end badly where another order does not: what counts is whether there is one.
    let plan = provision(&provision::Input { cluster: &after, pods: &needy, options: Options::default() });
    prop_assert!(plan.unschedulable.is_empty() || can_be_placed(&after, &needy), "{:?}", plan.unschedulable);
    Ok(())
}

/// Whether the nodes that stay take all these pods in some way.
fn can_be_placed(cluster: &Cluster, pods: &[Arc<Pod>]) -> bool {
    let mut snapshot = Snapshot::new(cluster.surroundings.clone());
    let mut nodes = Vec::new();
    for node in cluster.nodes.iter().filter(|node| !cluster.leaving.contains(&node.name)) {
        let id = snapshot.add_node(node);
        nodes.push(id);
        for pod in cluster.pods.iter().filter(|pod| pod.node.as_ref() == Some(&node.name)) {
            let class = snapshot.class(pod);
            snapshot.bind(class, id);
        }
    }
    let mut pods: Vec<_> = pods.iter().map(|pod| (pod.shape.requests.cpu, snapshot.class(pod))).collect();
    pods.sort_unstable();
    let classes: Vec<_> = pods.into_iter().map(|(_, class)| class).collect();
    place(&mut snapshot, &nodes, &classes)
}

/// Tries the greatest, which is the last, on each node.
fn place(snapshot: &mut Snapshot, nodes: &[NodeId], classes: &[ClassId]) -> bool {
    let Some((class, others)) = classes.split_last() else { return true };
    nodes.iter().any(|node| {
        if snapshot.check(*class, *node).is_err() {
            return false;
        }
        snapshot.bind(*class, *node);
        let all = place(snapshot, nodes, others);
        snapshot.unbind(*class, *node);
        all
    })
}

#[test]
fn an_order_that_ends_badly_is_not_the_only_one() {
    let world = World::draw(&mut Draws(12_493_476_436_612_937_394));
    let command = world.decide().unwrap();
    assert_eq!(command.replacements.len(), 1);
    pods_find_a_place(&world, &command).unwrap();
}

fn plan(cluster: &Cluster) -> Plan {
    let pods = cluster.needy();
    provision(&provision::Input { cluster, pods: &pods, options: Options::default() })
}

/// The claim that is written for a node that was decided upon; with a machine, if that has been launched.
fn written(cluster: &Cluster, wanted: &solver::Claim, name: &str, is_launched: bool) -> NodeClaim {
    if is_launched {
        let offering = wanted.types[0].cheapest(&wanted.requirements, &cluster.well_known).unwrap();
        let cores = wanted.types[0].capacity.cpu / 1_000;
        return claim(name, cores, offering.zone().unwrap(), offering.capacity_type().unwrap());
    }
    let mut requirements = wanted.requirements.clone();
    requirements.add(Requirement::new(INSTANCE_TYPE, Operator::In, wanted.types.iter().map(|it| &*it.name)));
    let mut claim = NodeClaim::default();
    claim.metadata.name = Some(name.to_owned());
    claim.metadata.labels = Some(single_values(&requirements));
    claim.labels_mut().extend(labels_of("general", &cluster.pools[0].spec));
    claim.spec.requirements = RequirementWithMinValues::list(&requirements);
    claim
}

/// The key of a taint that only what is good tolerates.
const GOOD: &str = "good";

/// A pool whose nodes nobody else takes, and one that is spoiled.
fn good_and_bad() -> Cluster {
    let mut good = pool("good");
    good.spec.template.spec.taints =
        Some(vec![Taint { key: GOOD.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() }]);
    Cluster { pools: vec![pool("general"), good], ..Cluster::default() }
}

fn tolerant(name: &str) -> Pod {
    with(pod(name, "good", 700), |shape| {
        let tolerates = Toleration {
            key: Some(GOOD.to_owned()),
            operator: Some("Exists".to_owned()),
            ..Toleration::default()
        };
        shape.tolerations = vec![tolerates];
        shape.node_selector.insert(NODE_POOL.to_owned(), "good".to_owned());
    })
}

/// Something that no cluster should have.
fn spoil(draws: &mut Draws, cluster: &mut Cluster) {
    let amount = draws.one(&[i64::MAX, i64::MIN, -1, 0]);
    let name = format!("bad-{}", draws.below(100));
    let pool = &mut cluster.pools[0];
    match draws.below(9) {
        0 => cluster.claims.push(Arc::new(NodeClaim::default())),
        1 => cluster.nodes.push(Arc::new(Node::default())),
        2 => {
            let allocatable = Resources { cpu: amount, memory: amount, pods: amount, ..Resources::default() };
            let strange = Node { allocatable: allocatable.clone(), capacity: allocatable, ..node_of(1) };
            cluster.nodes.push(Arc::new(Node { name: name.into(), ..strange }));
        }
        3 => cluster.pods.push(Arc::new(pod(&name, "bad", amount))),
        4 => {
            let on_node = with(pod(&name, "bad", 1), |shape| {
                shape.grace_seconds = amount;
                shape.annotations.insert(DO_NOT_DISRUPT.to_owned(), "99999999h".to_owned());
                shape
                    .annotations
                    .insert("controller.kubernetes.io/pod-deletion-cost".to_owned(), "x".to_owned());
            });
            add_node_of(
                cluster,
                claim(&name, 2, ZONES[0], SPOT),
                2,
                vec![Pod { started: Some(NOW), ..on_node }],
            );
        }
        5 => {
            limit(pool, "cpu", "many");
            limit(pool, NODES, "-1");
            pool.types.clear();
        }
        6 => {
            let broken = Budget { schedule: Some("at noon".to_owned()), ..Budget::of("some") };
            pool.spec.disruption.budgets = Some(vec![broken]);
            pool.spec.disruption.consolidate_after = Some("99999999h".to_owned());
            pool.spec.template.spec.expire_after = Some("soon".to_owned());
            pool.spec.template.spec.requirements =
                vec![RequirementWithMinValues::new(ZONE, Operator::In, &[])];
        }
        7 => {
            let mut lost = claim(&name, 4, "nowhere", "stolen");
            lost.status = None;
            lost.spec.termination_grace_period = Some("ever".to_owned());
            add_node_of(cluster, lost, 4, Vec::new());
        }
        _ => {
            let strange = TopologySpreadConstraint {
                max_skew: i32::MIN,
                min_domains: Some(-1),
                when_unsatisfiable: "DoNotSchedule".to_owned(),
                ..TopologySpreadConstraint::default()
            };
            let waits = with(pod(&name, "bad", 1), |shape| shape.spread = vec![strange]);
            cluster.pods.push(Arc::new(waits));
        }
    }
}

/// Worlds of each kind.
const WORLDS: u32 = 10_000;

proptest! {
    #![proptest_config(ProptestConfig { cases: WORLDS, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_disrupted_that_may_not_be(seed in any::<u64>()) {
        let world = World::draw(&mut Draws(seed));
        let Some(command) = world.decide() else { return Ok(()) };
        prop_assert!(!command.claims.is_empty());
        takes_what_may_go(&world, &command)?;
        stays_within_budgets(&world, &command)?;
        stays_within_limits(&world.cluster, &command.replacements)?;
        saves(&world, &command)?;
        pods_find_a_place(&world, &command)?;
        prop_assert_eq!(world.with(|input| validate(input, &command)), Ok(command));
    }

    #[test]
    fn a_crash_at_any_step_makes_no_node_twice_and_limits_hold(seed in any::<u64>()) {
        let mut draws = Draws(seed);
        let mut world = World::draw(&mut draws);
        world.cluster.pods.retain(|pod| pod.node.is_some());
        // Pods that are all alike: others might take the place of one that is more particular, and it needs one more then.
        world.cluster.claims.iter_mut().for_each(|claim| Arc::make_mut(claim).metadata.deletion_timestamp = None);
        let size = cpu(&mut draws, 3_000);
        for number in 0..draws.below(8) {
            world.cluster.pods.push(Arc::new(pod(&format!("waits-{number}"), "waits", size)));
        }
        let planned = plan(&world.cluster);
        stays_within_limits(&world.cluster, &planned.claims)?;
        let most = usize::try_from(draws.below(planned.claims.len() as u64 + 1)).unwrap();
        for (number, wanted) in planned.claims[..most].iter().enumerate() {
            let is_launched = draws.percent(50);
            let made = written(&world.cluster, wanted, &format!("new-{number}"), is_launched);
            world.cluster.claims.push(Arc::new(made));
        }
        let again = plan(&world.cluster);
        prop_assert!(most + again.claims.len() <= planned.claims.len(), "{most} made, then {:?}", again.claims);
        stays_within_limits(&world.cluster, &again.claims)?;
    }

    #[test]
    fn what_is_bad_stops_nothing(seed in any::<u64>()) {
        let mut draws = Draws(seed);
        let mut cluster = good_and_bad();
        for _ in 0..=draws.below(3) {
            spoil(&mut draws, &mut cluster);
        }
        let mut needy = cluster.clone();
        needy.pods.push(Arc::new(tolerant("wanted")));
        let plan = plan(&needy);
        prop_assert!(plan.claims.iter().any(|claim| &*claim.pool == "good"), "{plan:?}");
        let mut idle = claim("idle", 4, ZONES[0], ON_DEMAND);
        idle.labels_mut().insert(NODE_POOL.to_owned(), "good".to_owned());
        add_node_of(&mut cluster, idle, 4, Vec::new());
        let node = Arc::make_mut(cluster.nodes.last_mut().unwrap());
        node.taints = cluster.pools[1].spec.template.spec.taints.clone().unwrap();
        let world = World { cluster, pdbs: vec![pdb("bad", "bad", -1)], nominated: BTreeSet::new() };
        let command = world.decide();
        prop_assert!(command.is_some_and(|command| command.claims.contains(&"idle".into())));
    }
}

#[test]
fn the_worlds_have_all_that_is_to_be_kept_apart() {
    let mut methods = BTreeSet::new();
    let mut kept = 0;
    for seed in 0..2_000 {
        let world = World::draw(&mut Draws(seed));
        let decision = world.with(|input| decide(input, |_| true));
        kept += decision.blocked.len();
        methods.extend(decision.command.map(|command| (command.method, command.replacements.is_empty())));
    }
    let wanted = [
        (Method::Emptiness, true),
        (Method::Drift, false),
        (Method::Drift, true),
        (Method::MultiNode, false),
        (Method::MultiNode, true),
        (Method::SingleNode, false),
        (Method::SingleNode, true),
    ];
    assert_eq!(methods, BTreeSet::from(wanted));
    assert!(kept > 500, "{kept} nodes are kept by something");
    let span = SignedDuration::from_hours(1);
    assert_eq!(NOW.duration_since(Timestamp::UNIX_EPOCH), span, "some protections are over, some are not");
}
