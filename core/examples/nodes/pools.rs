//! Karpenter's scheduling benchmark, consolidation, and pods that want to be apart, by the solver of node pools. Reading the
//! pods and the pool is within the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, PodAffinity, PodAntiAffinity,
    PreferredSchedulingTerm, WeightedPodAffinityTerm,
};
use serde_json::{Value, json};
use tandem_core::{
    draws::Draws,
    nodes::pools::{
        consolidate::{Candidate, Cluster, multi_node, single_node},
        instance_type::{InstanceType, Offering},
        requirements::{
            Operator, Requirement, Requirements, WellKnownLabels,
            labels::{ARCH, CAPACITY_TYPE, INSTANCE_TYPE, ON_DEMAND, OS, SPOT, ZONE},
        },
        solver::{MOST_ATTEMPTS, Options, Pool, Preferences, Solution, Solver, solve},
    },
    scheduling::{
        HOSTNAME, Node, Pod, Resources, Snapshot,
        pod::{Shape, Traits},
    },
};

use super::{
    Measured, Row,
    inputs::{MIB, apart_from, selector, shared, spread, term, with},
    measured,
};

/// What is measured here.
pub(crate) const ROWS: &[Row] = &[
    ("diverse 500", || packed(&diverse(500), &options())),
    ("diverse 1000", || packed(&diverse(1_000), &options())),
    ("diverse 2000", || packed(&diverse(2_000), &options())),
    ("diverse 5000", || packed(&diverse(5_000), &options())),
    ("diverse 10000", || packed(&diverse(10_000), &options())),
    ("diverse 20000", || packed(&diverse(20_000), &options())),
    ("diverse 2000, every order", || packed(&diverse(2_000), &improving())),
    ("preferences respected", || packed(&preferring(4_000), &options())),
    ("preferences ignored", || packed(&preferring(4_000), &ignoring())),
    ("pools beside 150000 pods", beside_others),
    ("consolidation, many at once", || consolidation(true)),
    ("consolidation, one by one", || consolidation(false)),
    ("apart by zone", || packed(&apart(2_000, ZONE, false), &options())),
    ("apart by zone, different", || packed(&apart(2_000, ZONE, true), &options())),
    ("apart by hostname", || packed(&apart(2_000, HOSTNAME, false), &options())),
    ("apart by hostname, different", || packed(&apart(2_000, HOSTNAME, true), &options())),
];

/// Seeds by which the sums of requests are within 1 % of those of Karpenter's draws, by number of pods.
const SEEDS: [(usize, u64); 6] = [(500, 53), (1_000, 31), (2_000, 35), (5_000, 2), (10_000, 1), (20_000, 2)];

fn packed(pods: &[Pod], options: &Options) -> Measured {
    let types = instance_types();
    let pool = pool(&types);
    let section = || solve(&mut Snapshot::default(), &[pool], pods, options.clone());
    measured(section, |solution| answer(&solution, pods.len()))
}

fn answer(solution: &Solution, pods: usize) -> Value {
    json!({
        "nodes": solution.claims.len(),
        "price": solution.price(),
        "pods": pods - solution.failures.len(),
        "of": pods,
    })
}

/// 20,000 diverse pods, where 5,000 nodes run 150,000 others and have a little room left. The snapshot is made within the
/// time.
fn beside_others() -> Measured {
    let types = instance_types();
    let pool = pool(&types);
    let waiting = diverse(20_000);
    let others = inhabited(5_000, 30);
    let section = || {
        let mut snapshot = Snapshot::default();
        for (node, pods) in &others {
            let node = snapshot.add_node(node);
            for pod in pods {
                let class = snapshot.class(pod);
                snapshot.bind(class, node);
            }
        }
        solve(&mut snapshot, &[pool], &waiting, options())
    };
    measured(section, |solution| answer(&solution, waiting.len()))
}

/// Nodes of 32 cores with that many pods of a core each, of 500 controllers.
pub(crate) fn inhabited(nodes: usize, pods_each: usize) -> Vec<(Node, Vec<Pod>)> {
    let requests = Resources { cpu: 1_000, memory: 2_048 * MIB, pods: 1, ..Resources::default() };
    let shapes: Vec<_> =
        (0..500).map(|app| Arc::new(shape("app", &format!("app-{app}"), requests.clone()))).collect();
    let of = |number: usize| {
        let name = format!("node-{number:05}");
        let labels = [(HOSTNAME, name.clone()), (ZONE, format!("test-zone-{}", 1 + number % 3))];
        let labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let allocatable = types_of(32);
        let pods = (0..pods_each).map(|at| {
            let number = number * pods_each + at;
            let name: Arc<str> = format!("running-{number:06}").into();
            let shape = shapes[number % shapes.len()].clone();
            Pod { uid: name.clone(), name, shape, ..Pod::default() }
        });
        let node = Node {
            name: name.as_str().into(),
            provider_id: name.as_str().into(),
            labels,
            capacity: allocatable.clone(),
            allocatable,
            ready: true,
            ..Node::default()
        };
        (node, pods.collect())
    };
    (0..nodes).map(of).collect()
}

fn types_of(cores: i64) -> Resources {
    instance_type(cores).allocatable().clone()
}

/// Nodes of eight cores, half of them used, by two pods of one core and two of a half each: all are candidates.
fn consolidation(at_once: bool) -> Measured {
    let nodes = 2_000;
    let types = instance_types();
    let requirements = Requirements::from_iter([Requirement::is(CAPACITY_TYPE, ON_DEMAND)]);
    let pools = [Pool { requirements, ..pool(&types) }];
    let mut snapshot = Snapshot::default();
    let mut candidates = Vec::new();
    let plain = |cpu| Resources { cpu, memory: 1_024 * MIB, pods: 1, ..Resources::default() };
    let shapes = [1_500, 1_500, 500, 500].map(|cpu| Arc::new(shape("app", "a", plain(cpu))));
    let full = [3_950, 3_950].map(|cpu| Arc::new(shape("app", "b", plain(cpu))));
    for number in 0..nodes {
        let name = format!("node-{number:05}");
        let zone = format!("test-zone-{}", 1 + number % 3);
        let labels = [(HOSTNAME.to_owned(), name.clone()), (ZONE.to_owned(), zone)].into();
        let allocatable = types[7].allocatable().clone();
        let node =
            snapshot.add_node(&Node { name: name.as_str().into(), labels, allocatable, ..Node::default() });
        let shapes = if number % 2 == 0 { &full[..] } else { &shapes[..] };
        let pods: Vec<Pod> =
            shapes.iter().map(|shape| Pod { shape: shape.clone(), ..Pod::default() }).collect();
        for pod in &pods {
            let class = snapshot.class(pod);
            snapshot.bind(class, node);
        }
        candidates.push(Candidate {
            node,
            pool: "default".into(),
            instance_type: "fake-it-7".into(),
            capacity_type: ON_DEMAND.into(),
            price: 8.0 * 0.314_748_364_8,
            pods,
        });
    }
    let well_known = options().well_known;
    let section = || {
        let mut solver = Solver::new(&mut snapshot, &pools, options());
        let mut cluster = Cluster {
            snapshot: &mut snapshot,
            solver: &mut solver,
            pending: &[],
            uninitialized: &BTreeSet::new(),
            spot_to_spot: false,
            well_known: &well_known,
            scores: &|_| BTreeMap::new(),
        };
        if at_once {
            multi_node(&mut cluster, &candidates, || true).command
        } else {
            // Those that are full cannot go: each has to be looked at.
            let full: Vec<Candidate> = candidates.into_iter().step_by(2).collect();
            single_node(&mut cluster, &full, || true).0
        }
    };
    measured(section, |command| json!({"nodes": command.map_or(0, |command| command.remove.len())}))
}

fn pool(types: &[Arc<InstanceType>]) -> Pool<'_> {
    Pool {
        name: "default".into(),
        weight: 0,
        requirements: Requirements::new(),
        taints: Vec::new(),
        types,
        daemons: &[],
        told: tandem_core::nodes::told::Told::default(),
        outfits: None,
        remaining: [("cpu".into(), 10_000_000_000), ("memory".into(), 10_000_000 << 30)].into(),
    }
}

fn options() -> Options {
    Options {
        well_known: WellKnownLabels::default().with(["size", "special", "integer"]),
        ..Options::default()
    }
}

/// Tries every order for the cheapest packing.
fn improving() -> Options {
    Options { attempts: MOST_ATTEMPTS, ..options() }
}

fn ignoring() -> Options {
    Options { preferences: Preferences::Ignore, ..options() }
}

fn instance_types() -> Vec<Arc<InstanceType>> {
    (1..=400).map(instance_type).collect()
}

fn instance_type(n: i64) -> Arc<InstanceType> {
    let name = format!("fake-it-{}", n - 1);
    let large = n > 4;
    let zones = ["test-zone-1", "test-zone-2", "test-zone-3"];
    let mut requirements = Requirements::from_iter([
        Requirement::is(INSTANCE_TYPE, &name),
        Requirement::is(ARCH, "amd64"),
        Requirement::new(OS, Operator::In, ["linux", "windows", "darwin"]),
        Requirement::new(ZONE, Operator::In, zones),
        Requirement::new(CAPACITY_TYPE, Operator::In, [SPOT, ON_DEMAND]),
        Requirement::is("integer", &n.to_string()),
        Requirement::is("size", if large { "large" } else { "small" }),
    ]);
    if large {
        requirements.add(Requirement::is("special", "optional"));
    }
    #[allow(clippy::cast_precision_loss, reason = "hundreds")]
    let price = 0.314_748_364_8 * n as f64;
    let offering = |capacity_type: &str, zone: &str| Offering {
        requirements: Requirements::from_iter([
            Requirement::is(CAPACITY_TYPE, capacity_type),
            Requirement::is(ZONE, zone),
        ]),
        price,
        available: true,
        reservation: None,
    };
    let spot = zones[..2].iter().map(|zone| offering(SPOT, zone));
    let offerings = spot.chain(zones.iter().map(|zone| offering(ON_DEMAND, zone))).collect();
    let capacity =
        Resources { cpu: n * 1_000, memory: n * 2_048 * MIB, pods: 10 * n, ..Resources::default() };
    let overhead = Resources { cpu: 100, memory: 10 * MIB, ..Resources::default() };
    Arc::new(InstanceType::new(&name, requirements, capacity, overhead, offerings))
}

fn requests(draws: &mut Draws) -> Resources {
    let cpu = draws.one(&[100, 250, 500, 1_000, 1_500]);
    let memory = draws.one(&[100, 256, 512, 1_024, 2_048, 4_096]) * MIB;
    Resources { cpu, memory, pods: 1, ..Resources::default() }
}

fn label(draws: &mut Draws) -> &'static str {
    draws.one(&["a", "b", "c", "d", "e", "f", "g"])
}

fn numbered(shapes: Vec<Shape>) -> Vec<Pod> {
    let pod = |(number, shape)| {
        let name: Arc<str> = format!("pod-{number:05}").into();
        Pod { uid: name.clone(), name, shape, ..Pod::default() }
    };
    shared(shapes).into_iter().enumerate().map(pod).collect()
}

fn shape(key: &str, value: &str, requests: Resources) -> Shape {
    let labels = [(key.to_owned(), value.to_owned())].into();
    Shape::new(requests, Traits { namespace: "default".into(), labels, ..Traits::default() })
}

/// Karpenter's `makeDiversePods`.
pub(crate) fn diverse(count: usize) -> Vec<Pod> {
    let seed = SEEDS.iter().find(|(pods, _)| *pods == count).map_or(1, |(_, seed)| *seed);
    let mut draws = Draws(seed);
    let of_each = count / 5;
    let mut shapes = Vec::new();
    let generic = |draws: &mut Draws| shape("my-label", label(draws), requests(draws));
    shapes.extend((0..of_each).map(|_| generic(&mut draws)));
    for topology_key in [ZONE, HOSTNAME] {
        shapes.extend((0..of_each).map(|_| {
            let (own, selected) = (label(&mut draws), label(&mut draws));
            let spread = vec![spread(topology_key, selector("my-label", selected))];
            with(shape("my-label", own, requests(&mut draws)), |shape| shape.spread = spread)
        }));
    }
    shapes.extend((0..of_each).map(|_| {
        let own = label(&mut draws);
        let required = Some(vec![term("my-affininity", own, ZONE)]);
        let near = PodAffinity {
            required_during_scheduling_ignored_during_execution: required,
            ..PodAffinity::default()
        };
        let affinity = Affinity { pod_affinity: Some(near), ..Affinity::default() };
        with(shape("my-affininity", own, requests(&mut draws)), |shape| {
            shape.affinity = Some(Box::new(affinity));
        })
    }));
    shapes.extend((0..of_each).map(|_| apart_shape("nginx", HOSTNAME, requests(&mut draws))));
    while shapes.len() < count {
        shapes.push(generic(&mut draws));
    }
    numbered(shapes)
}

fn apart_shape(app: &str, topology_key: &str, requests: Resources) -> Shape {
    with(shape("app", app, requests), |shape| {
        shape.affinity = Some(apart_from(term("app", app, topology_key)));
    })
}

/// Pods that want to be apart from each other in a domain; all alike, or each with a label of its own.
fn apart(count: usize, topology_key: &str, differ: bool) -> Vec<Pod> {
    let requests = Resources { cpu: 500, memory: 512 * MIB, pods: 1, ..Resources::default() };
    let shape = |number: usize| {
        let mut shape = apart_shape("nginx", topology_key, requests.clone());
        if differ {
            shape.labels.insert("number".to_owned(), number.to_string());
        }
        shape
    };
    numbered((0..count).map(shape).collect())
}

/// Karpenter's preference pods.
fn preferring(count: usize) -> Vec<Pod> {
    let requests = Resources { cpu: 100, memory: 4_096 * MIB, pods: 1, ..Resources::default() };
    let zone = NodeSelectorRequirement {
        key: ZONE.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec!["test-zone-1".to_owned()]),
    };
    let preference = NodeSelectorTerm { match_expressions: Some(vec![zone]), ..NodeSelectorTerm::default() };
    let node = NodeAffinity {
        preferred_during_scheduling_ignored_during_execution: Some(vec![PreferredSchedulingTerm {
            preference,
            weight: 1,
        }]),
        ..NodeAffinity::default()
    };
    let weighted =
        |weight, key| WeightedPodAffinityTerm { weight, pod_affinity_term: term("app", "nginx", key) };
    let anti = PodAntiAffinity {
        preferred_during_scheduling_ignored_during_execution: Some(vec![
            weighted(10, ZONE),
            weighted(1, HOSTNAME),
        ]),
        ..PodAntiAffinity::default()
    };
    let affinity =
        Affinity { node_affinity: Some(node), pod_anti_affinity: Some(anti), ..Affinity::default() };
    let shape = with(shape("app", "nginx", requests), |shape| shape.affinity = Some(Box::new(affinity)));
    numbered(vec![shape; count])
}
