use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::nodes::{
    drain::SAFE_TO_EVICT,
    similar::{Comparator, Flavour, Ratios},
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

#[derive(Debug, Clone)]
struct Group {
    min: u32,
    beyond: u32,
    /// The pods of each node; `None` for an instance that never becomes a node.
    instances: Vec<Option<Vec<(Kind, i64)>>>,
    /// Instances whose removal is under way.
    removing: usize,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => Just(Kind::Plain),
        1 => Just(Kind::Bare),
        1 => Just(Kind::Unsafe),
        1 => Just(Kind::Daemon),
        1 => Just(Kind::Exhausted),
        2 => Just(Kind::Scarce),
        1 => Just(Kind::Pinned),
    ]
}

fn group() -> impl Strategy<Value = Group> {
    let pods = prop::collection::vec((kind(), 100i64..1000), 0..4);
    let instances = prop::collection::vec(prop::option::weighted(0.85, pods), 0..=MOST_NODES as usize);
    (0u32..4, 0u32..4, instances, prop_oneof![3 => Just(0usize), 1 => Just(1usize)])
        .prop_map(|(min, beyond, instances, removing)| Group { min, beyond, instances, removing })
}

fn limits() -> impl Strategy<Value = PassSettings> {
    (prop::option::of(0u32..20), 1u32..6, 1u32..4, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(max_nodes, parallelism, drains, enforce_min, balance, at_once)| {
            let mut settings = settings();
            let ignored = BTreeSet::from([GROUP.to_owned()]);
            let comparator =
                Comparator::Nodes { flavour: Flavour::Generic, ignored, ratios: Ratios::default() };
            settings.scale_up.max_nodes = max_nodes;
            settings.scale_up.enforce_min = enforce_min;
            settings.scale_up.balance = balance.then_some(comparator);
            settings.scale_down.parallelism = parallelism;
            settings.scale_down.drain_parallelism = drains;
            if at_once {
                settings.scale_down.delay_after_add = SignedDuration::ZERO;
            }
            settings
        },
    )
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

fn cluster(groups: &[Group], outside: usize, waiting: &[i64]) -> Cluster {
    let mut cluster = Cluster::default().budget("exhausted", 0).budget("scarce", 1);
    for (number, group) in groups.iter().enumerate() {
        let id = format!("g{number}");
        cluster = cluster.group(&id, (group.min, group.min + group.beyond), 0);
        for (number, pods) in group.instances.iter().enumerate() {
            let name = format!("{id}-{number}");
            cluster = cluster.instance(&id, &name, pods.is_some());
            if pods.is_some() && number < group.removing {
                cluster.input.removing.insert(name.clone().into(), true);
            }
            for pod in pods.iter().flatten() {
                cluster = run_pod(cluster, &name, &id, *pod);
            }
        }
    }
    for number in 0..outside {
        cluster.input.nodes.push(Arc::new(node(&format!("outside-{number}"), None)));
    }
    waiting.iter().fold(cluster, |cluster, cpu| cluster.waiting(1, *cpu))
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
        prop_assert!(grown.insert(group.clone()), "{group} grows twice");
        more += (to - from) as usize;
    }
    let on_their_way: u32 = outcome.found.groups.values().map(|group| group.upcoming).sum();
    let there = input.nodes.len() + on_their_way as usize;
    let most = settings.scale_up.max_nodes.map_or(usize::MAX, |max| max as usize);
    prop_assert!(more == 0 || there + more <= most, "{there} and {more} are more than {most}");
    prop_assert!(there <= size(input), "more is awaited than was asked for");
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
    }
    let under_way = removals.len() + input.removing.len();
    prop_assert!(removals.is_empty() || under_way <= settings.scale_down.parallelism as usize);
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

proptest! {
    #[test]
    fn no_pass_does_harm(
        groups in prop::collection::vec(group(), 1..4),
        outside in 0usize..3,
        waiting in prop::collection::vec(100i64..5000, 0..12),
        settings in limits(),
        chosen in any::<usize>(),
    ) {
        let mut cluster = cluster(&groups, outside, &waiting);
        let mut memory = Memory::default();
        // The first pass starts every timer; at the second all of them are over.
        for minute in [0, 60] {
            cluster.input.now = at(minute);
            let input = &cluster.input;
            let mut choose = |_: &ScaleUp<'_>, options: &[ExpansionOption]| {
                chosen.checked_rem(options.len())
            };
            let outcome = run(&mut memory, input, &settings, &mut choose);
            grows_within_its_bounds(input, &outcome, &settings)?;
            shrinks_within_its_bounds(input, &outcome, &settings)?;
            pods_find_a_place(input, &outcome)?;
        }
    }
}
