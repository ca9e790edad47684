use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    draws::Draws,
    nodes::{
        capacity_quota::{CapacityQuota, tests::quota},
        drain::SAFE_TO_EVICT,
        similar::{Comparator, Flavour, Ratios},
    },
};

/// Most nodes that a generated group has.
const MOST_NODES: u32 = 4;

/// What a generated pod is like.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Plain,
    /// Nobody makes it again.
    Bare,
    /// Its annotation keeps it where it is.
    Unsafe,
    Daemon,
    /// Its budget allows no eviction.
    Exhausted,
    /// Its budget allows one eviction.
    Scarce,
    /// It runs in its node's group only.
    Pinned,
}

/// Draws a world from a seed: quicker by far than a strategy of strategies, and a hundred thousand worlds are wanted.
impl Draws {
    fn small(&mut self, bound: u32) -> u32 {
        u32::try_from(self.below(u64::from(bound))).unwrap()
    }

    /// Thousandths of a core.
    fn cpu(&mut self, least: i64, most: i64) -> i64 {
        least + i64::from(self.small(u32::try_from(most - least).unwrap()))
    }

    fn kind(&mut self) -> Kind {
        let kinds = [Kind::Bare, Kind::Unsafe, Kind::Daemon, Kind::Exhausted, Kind::Pinned, Kind::Scarce];
        kinds.get(usize::try_from(self.below(11)).unwrap()).copied().unwrap_or(Kind::Plain)
    }

    fn settings(&mut self) -> PassSettings {
        let mut settings = settings();
        let ignored = BTreeSet::from([GROUP.to_owned()]);
        let comparator = Comparator::Nodes { flavour: Flavour::Generic, ignored, ratios: Ratios::default() };
        settings.scale_up.max_nodes = self.percent(50).then(|| self.small(20));
        settings.scale_up.enforce_min = self.percent(50);
        settings.scale_up.balance = self.percent(50).then_some(comparator);
        if self.percent(30) {
            settings.scale_up.max_cores = self.cpu(0, 50);
        }
        settings.scale_down.parallelism = 1 + self.small(5);
        settings.scale_down.drain_parallelism = 1 + self.small(3);
        if self.percent(50) {
            settings.scale_down.delay_after_add = SignedDuration::ZERO;
        }
        settings
    }

    /// A quota of some groups, or of all nodes.
    fn quota(&mut self, number: u64) -> CapacityQuota {
        let groups: Vec<_> = (0..3).filter(|_| self.percent(60)).map(|number| format!("g{number}")).collect();
        let of_groups = json!({"matchExpressions": [{"key": GROUP, "operator": "In", "values": groups}]});
        let selector = if groups.is_empty() { Value::Null } else { of_groups };
        let limits = match self.below(3) {
            0 => json!({"nodes": self.small(12)}),
            1 => json!({"cpu": self.small(50)}),
            _ => {
                json!({"nodes": self.small(12), "cpu": self.small(50), "memory": format!("{}Gi", self.small(200))})
            }
        };
        quota(&format!("q{number}"), &selector, &limits).unwrap()
    }

    /// Up to three groups of up to four instances each, and nodes of no group.
    fn cluster(&mut self) -> Cluster {
        let mut cluster = Cluster::default().budget("exhausted", 0).budget("scarce", 1);
        for number in 0..=self.below(3) {
            let id = format!("g{number}");
            let min = self.small(4);
            cluster = cluster.group(&id, (min, min + self.small(4)), 0);
            if let Some(group) = cluster.input.groups.last_mut() {
                group.options.zero_or_max = self.percent(10);
            }
            let removing = self.percent(25);
            for number in 0..self.below(u64::from(MOST_NODES) + 1) {
                let name = format!("{id}-{number}");
                let has_node = self.percent(85);
                cluster = cluster.instance(&id, &name, has_node);
                if has_node && removing && number == 0 {
                    cluster.input.removing.insert(name.clone().into(), true);
                }
                for _ in 0..if has_node { self.below(4) } else { 0 } {
                    cluster = run_pod(cluster, &name, &id, (self.kind(), self.cpu(100, 1000)));
                }
            }
        }
        for number in 0..self.below(3) {
            cluster.input.nodes.push(Arc::new(node(&format!("outside-{number}"), None)));
        }
        for number in 0..self.below(3) {
            cluster.input.quotas.push(Arc::new(self.quota(number)));
        }
        cluster
    }
}

fn run_pod(cluster: Cluster, node: &str, group: &str, (kind, cpu): (Kind, i64)) -> Cluster {
    cluster.running(node, cpu, |shape| match kind {
        Kind::Plain => {}
        Kind::Bare => shape.owner = None,
        Kind::Unsafe => {
            shape.annotations.insert(SAFE_TO_EVICT.to_owned(), "false".to_owned());
        }
        Kind::Daemon => {
            if let Some(owner) = &mut shape.owner {
                owner.kind = "DaemonSet".into();
            }
        }
        Kind::Exhausted => app(shape, "exhausted"),
        Kind::Scarce => app(shape, "scarce"),
        Kind::Pinned => {
            shape.node_selector.insert(GROUP.to_owned(), group.to_owned());
        }
    })
}

/// Nodes and instances that are to become nodes.
fn size(input: &Input) -> usize {
    let names: BTreeSet<&str> = input.nodes.iter().map(|node| &*node.name).collect();
    let instances = input.groups.iter().flat_map(|group| &group.instances);
    names.len() + instances.filter(|instance| !names.contains(&*instance.id)).count()
}

fn grows_within_its_bounds(
    input: &Input,
    outcome: &Outcome,
    settings: &PassSettings,
) -> Result<(), TestCaseError> {
    let mut more = 0;
    let mut grown = BTreeSet::new();
    for action in &outcome.actions {
        let Action::Increase(Increase { group, from, to, max }) = action else { continue };
        let known = input.groups.iter().find(|known| known.id == *group);
        let known = known.ok_or_else(|| TestCaseError::fail("a group that is not there"))?;
        prop_assert!((*from, *max) == (known.target, known.max) && from < to, "{action:?}");
        prop_assert!(to <= max, "{action:?} is above its maximum");
        let comes_in_part = known.options.zero_or_max && to < max && !settings.scale_up.enforce_min;
        prop_assert!(!comes_in_part, "{action:?} comes in part");
        prop_assert!(grown.insert(group.clone()), "{group} grows twice");
        more += (to - from) as usize;
    }
    let on_their_way: u32 = outcome.found.groups.values().map(|group| group.upcoming).sum();
    let there = input.nodes.len() + on_their_way as usize;
    let most = settings.scale_up.max_nodes.map_or(usize::MAX, |max| max as usize);
    prop_assert!(more == 0 || there + more <= most, "{there} and {more} are more than {most}");
    let cores = i64::try_from(there + more).unwrap() * CPU;
    prop_assert!(more == 0 || cores <= settings.scale_up.max_cores * 1000, "{cores} are too many");
    let targets: u32 = input.groups.iter().map(|group| group.target).sum();
    prop_assert!(
        there <= size(input).max(targets as usize + input.nodes.len()),
        "more is awaited than asked for"
    );
    Ok(())
}

/// What there is, what is on its way and what is asked for: a group that a quota counts grows within it alone.
fn quotas_are_kept(input: &Input, outcome: &Outcome) -> Result<(), TestCaseError> {
    let template = |group: &str| &input.templates[group].node;
    let coming = outcome.found.groups.iter();
    let coming = coming.flat_map(|(group, state)| (0..state.on_their_way()).map(|_| template(group)));
    let grown: Vec<_> = increases(outcome);
    let asked = grown.iter().flat_map(|it| (it.from..it.to).map(|_| template(&it.group)));
    let all: Vec<&Node> = input.nodes.iter().map(|node| &**node).chain(coming).chain(asked).collect();
    for quota in &input.quotas {
        let counts = |node: &&&Node| quota.applies_to(node);
        let nodes = i64::try_from(all.iter().filter(counts).count()).unwrap();
        let grows = grown.iter().any(|increase| quota.applies_to(template(&increase.group)));
        for (resource, most) in quota.limits() {
            let each = match resource {
                "cpu" => CPU,
                "memory" => 16 << 30,
                _ => 1,
            };
            prop_assert!(!grows || nodes * each <= most, "{nodes} nodes are above {quota:?}: {grown:?}");
        }
    }
    Ok(())
}

/// By how much each group gets smaller, removals under way included.
fn shrunk(input: &Input, outcome: &Outcome, id: &str) -> usize {
    let of_action = |action: &Action| match action {
        Action::Remove(removal) if &*removal.group == id => 1,
        Action::DeleteInstances { group, instances, .. } if &**group == id => instances.len(),
        Action::Decrease { group, delta, .. } if &**group == id => *delta as usize,
        _ => 0,
    };
    outcome.actions.iter().map(of_action).sum::<usize>()
        + input.removing.keys().filter(|node| node.starts_with(&format!("{id}-"))).count()
}

fn shrinks_within_its_bounds(
    input: &Input,
    outcome: &Outcome,
    settings: &PassSettings,
) -> Result<(), TestCaseError> {
    let removals = removals(outcome);
    for group in &input.groups {
        let by = shrunk(input, outcome, &group.id);
        let spare = group.target.saturating_sub(group.min) as usize;
        let goes = removals.iter().any(|removal| removal.group == group.id);
        prop_assert!(!goes || by <= spare, "{} loses {by} of {spare}", group.id);
        let goes_in_part = goes && group.options.zero_or_max && by < group.target as usize;
        prop_assert!(!goes_in_part, "{} loses {by} of {}", group.id, group.target);
    }
    let under_way = removals.len() + input.removing.len();
    let is_whole = |removal: &&&Removal| {
        input.groups.iter().any(|group| group.id == removal.group && group.options.zero_or_max)
    };
    let alone = input.removing.is_empty() && removals.iter().all(|removal| is_whole(&removal));
    prop_assert!(removals.is_empty() || alone || under_way <= settings.scale_down.parallelism as usize);
    for removal in removals {
        let group = input.groups.iter().find(|group| group.id == removal.group);
        let is_member = group
            .is_some_and(|group| group.instances.iter().any(|instance| instance.id == removal.provider_id));
        prop_assert!(is_member, "{} is in no group", removal.node);
        prop_assert!(!input.removing.contains_key(&removal.node), "{} goes twice", removal.node);
    }
    Ok(())
}

/// Whether a pod lets its node go, told without the rules that are tested.
fn may_move(pod: &Pod) -> bool {
    let shape = &pod.shape;
    let exhausted = shape.labels.get("app").is_some_and(|app| app == "exhausted");
    pod.is_of_daemon_set()
        || (shape.owner.is_some() && !shape.annotations.contains_key(SAFE_TO_EVICT) && !exhausted)
}

fn pods_find_a_place(input: &Input, outcome: &Outcome) -> Result<(), TestCaseError> {
    let gone: BTreeSet<&str> = removed(outcome).into_iter().collect();
    let of = |node: &str| -> Vec<&Arc<Pod>> {
        input.pods.iter().filter(|pod| pod.node.as_deref() == Some(node)).collect()
    };
    let free = |node: &Node| CPU - of(&node.name).iter().map(|pod| pod.shape.requests.cpu).sum::<i64>();
    let stay: Vec<_> = input
        .nodes
        .iter()
        .filter(|node| !gone.contains(&*node.name) && !input.removing.contains_key(&node.name))
        .collect();
    let mut moved = 0;
    for pod in gone.iter().flat_map(|node| of(node)) {
        prop_assert!(may_move(pod), "{} keeps its node", pod.name);
        if pod.is_of_daemon_set() {
            continue;
        }
        let (cpu, selector) = (pod.shape.requests.cpu, &pod.shape.node_selector);
        let selects = |node: &Node| selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
        prop_assert!(
            stay.iter().any(|node| selects(node) && free(node) >= cpu),
            "{} has nowhere to go",
            pod.name
        );
        moved += cpu;
    }
    let room: i64 = stay.iter().map(|node| free(node)).sum();
    prop_assert!(moved <= room, "{moved} is moved to {room}");
    Ok(())
}

/// No more pods of a budget are evicted than it allows, over all nodes that go.
fn budgets_are_kept(outcome: &Outcome) -> Result<(), TestCaseError> {
    let removals = removals(outcome);
    for (app, allowed) in [("exhausted", 0), ("scarce", 1)] {
        let counted = |pods: &[Arc<Pod>]| {
            pods.iter().filter(|pod| pod.shape.labels.get("app").is_some_and(|other| other == app)).count()
        };
        let at_once = removals.iter().filter(|removal| {
            let in_turn = |unneeded: &Unneeded| unneeded.node == removal.node && unneeded.in_turn;
            !outcome.unneeded.iter().any(in_turn)
        });
        let evicted: usize = at_once.map(|removal| counted(&removal.pods)).sum();
        prop_assert!(evicted <= allowed, "{evicted} pods of {app} are evicted at once");
        let all: usize = removals.iter().map(|removal| counted(&removal.pods)).sum();
        prop_assert!(allowed > 0 || all == 0, "pods of {app} are evicted");
    }
    Ok(())
}

/// Two passes over a drawn world: the first starts every timer, at the second all of them are over.
fn no_harm(draws: &mut Draws, cluster: &mut Cluster) -> Result<(), TestCaseError> {
    let settings = draws.settings();
    let mut memory = Memory::default();
    for minute in [0, 60] {
        cluster.input.now = at(minute);
        let input = &cluster.input;
        let mut choose = |_: &ScaleUp<'_>, options: &[ExpansionOption]| {
            let number = usize::try_from(draws.below(6)).unwrap();
            number.checked_rem(options.len())
        };
        let outcome = run(&mut memory, input, &settings, &mut choose);
        grows_within_its_bounds(input, &outcome, &settings)?;
        quotas_are_kept(input, &outcome)?;
        shrinks_within_its_bounds(input, &outcome, &settings)?;
        pods_find_a_place(input, &outcome)?;
        budgets_are_kept(&outcome)?;
    }
    Ok(())
}

fn increases(outcome: &Outcome) -> Vec<&Increase> {
    let increases = outcome.actions.iter().filter_map(|action| match action {
        Action::Increase(increase) => Some(increase),
        _ => None,
    });
    increases.collect()
}

/// Nodes that are asked for.
fn asked(increases: &[&Increase]) -> u32 {
    increases.iter().map(|increase| increase.to - increase.from).sum()
}

/// A group as it may be found some moments after it grew: some of its instances are there, some of them are nodes.
fn grow(draws: &mut Draws, mut cluster: Cluster, increase: &Increase) -> Cluster {
    let id = &increase.group;
    for number in 0..increase.to - increase.from {
        if draws.percent(40) {
            let name = format!("{id}-new-{number}");
            let has_node = draws.percent(40);
            cluster = cluster.instance(id, &name, has_node).with_node(&name, |node| {
                node.ready = false;
                node.created = Some(at(0));
            });
        }
    }
    for group in cluster.input.groups.iter_mut().filter(|group| group.id == *id) {
        group.target = increase.to;
    }
    cluster
}

/// Something that no cluster should have.
fn spoil(draws: &mut Draws, mut cluster: Cluster) -> Cluster {
    let amount = [i64::MAX, i64::MIN, -1, 0][usize::try_from(draws.below(4)).unwrap()];
    let input = &mut cluster.input;
    match draws.below(9) {
        0 => input.nodes.push(Arc::new(Node { ready: true, ..Node::default() })),
        1 => {
            let allocatable = Resources { cpu: amount, memory: amount, pods: amount, ..Resources::default() };
            // What a node says that it has counts against the cluster's limits, however much it is.
            let capacity = Resources { cpu: amount.min(0), memory: amount.min(0), ..Resources::default() };
            input.nodes.push(Arc::new(Node { allocatable, capacity, ..node("strange", None) }));
        }
        2 => return cluster.running("nowhere", amount, |_| {}),
        3 => return cluster.waiting(1, amount),
        4 => {
            return cluster.waiting(1, 100).running("full", 1, |shape| {
                shape.spread = vec![k8s_openapi::api::core::v1::TopologySpreadConstraint {
                    max_skew: i32::MIN,
                    min_domains: Some(-1),
                    when_unsatisfiable: "DoNotSchedule".to_owned(),
                    ..k8s_openapi::api::core::v1::TopologySpreadConstraint::default()
                }];
                shape.requests.memory = amount;
            });
        }
        5 => {
            cluster = cluster.group("bad", (9, 2), 1);
            cluster.input.templates.remove("bad");
        }
        6 => {
            cluster = cluster.group("bad", (0, 2), 1).instance("bad", "full", false);
            if let Some(template) = cluster.input.templates.get_mut("bad") {
                template.node.capacity.cpu = amount;
                template.node.allocatable.cpu = amount;
            }
        }
        7 => {
            // Who is on their way out since, or for, longer than there is time.
            let changed = cluster.running("full", 1, |shape| shape.grace_seconds = amount);
            return changed.last_pod(|pod| {
                pod.deleting = Some(if amount > 0 { Timestamp::MAX } else { at(0) });
                pod.created = Some(Timestamp::MIN);
            });
        }
        _ => {
            input.removing.insert("nowhere".into(), true);
            return cluster.budget("bad", -1);
        }
    }
    cluster
}

/// Worlds of each of the first two kinds; with a quarter of it for each of the others a hundred thousand.
const WORLDS: u32 = 40_000;

proptest! {
    #![proptest_config(ProptestConfig { cases: WORLDS, ..ProptestConfig::default() })]

    #[test]
    fn no_pass_over_a_cluster_at_rest_does_harm(seed in any::<u64>()) {
        let mut draws = Draws(seed);
        let mut cluster = draws.cluster();
        no_harm(&mut draws, &mut cluster)?;
    }

    #[test]
    fn no_pass_over_a_cluster_where_pods_wait_does_harm(seed in any::<u64>()) {
        let mut draws = Draws(seed);
        let mut cluster = draws.cluster();
        for _ in 0..=draws.below(8) {
            cluster = cluster.waiting(1, draws.cpu(100, 5000));
        }
        no_harm(&mut draws, &mut cluster)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: WORLDS / 4, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_at_any_step_makes_no_node_twice(seed in any::<u64>()) {
        let mut draws = Draws(seed);
        let waiting = usize::try_from(draws.below(20)).unwrap();
        let mut cluster = draws.cluster().waiting(waiting, 1000);
        // Pods that are all alike: others might take the place of one that is more particular, and it needs one more then.
        cluster.input.removing.clear();
        let mut settings = draws.settings();
        // A group that grows for pods gets its minimum in the pass after: another need.
        settings.scale_up.enforce_min = false;
        let mut first = |_: &ScaleUp<'_>, options: &[ExpansionOption]| (!options.is_empty()).then_some(0);
        cluster.input.now = at(0);
        let mut memory = Memory::default();
        let outcome = run(&mut memory, &cluster.input, &settings, &mut first);
        // It got so far, and what it knew may be lost.
        let planned = increases(&outcome);
        let done = &planned[..usize::try_from(draws.below(planned.len() as u64 + 1)).unwrap()];
        for increase in done {
            cluster = grow(&mut draws, cluster, increase);
        }
        if draws.percent(50) {
            memory = Memory::default();
        }
        cluster.input.now = at(0) + SignedDuration::from_secs(20);
        let again = run(&mut memory, &cluster.input, &settings, &mut first);
        let more = asked(&increases(&again));
        prop_assert!(asked(done) + more <= asked(&planned), "{planned:?}, {done:?} done, then {:?}", again.actions);
    }

    #[test]
    fn what_is_bad_stops_nothing(seed in any::<u64>()) {
        let mut draws = Draws(seed);
        let mut cluster = Cluster::default().group("good", (0, 5), 0).instance("good", "full", true);
        cluster = cluster.running("full", CPU, |_| {}).waiting(1, 2000);
        for pod in &mut cluster.input.pods {
            Arc::make_mut(&mut Arc::make_mut(pod).shape).node_selector.insert(GROUP.into(), "good".into());
        }
        for _ in 0..=draws.below(3) {
            cluster = spoil(&mut draws, cluster);
        }
        let outcome = cluster.pass(&mut Memory::default(), 0, &settings());
        prop_assert!(grown(&outcome).iter().any(|(group, _)| *group == "good"), "{outcome:?}");
    }
}
