//! Times the solver of node pools on the inputs of Karpenter's scheduling benchmark.
//!
//! `cargo run --release -p tandem-core --example solver`. What is timed includes reading the pods and the pool.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::core::v1::{
        Affinity, NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, PodAffinity, PodAffinityTerm,
        PodAntiAffinity, PreferredSchedulingTerm, TopologySpreadConstraint, WeightedPodAffinityTerm,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use tandem_core::{
    nodes::pools::{
        consolidate::{Candidate, Cluster, multi_node, single_node},
        instance_type::{InstanceType, Offering},
        requirements::{
            Operator, Requirement, Requirements, WellKnownLabels,
            labels::{ARCH, CAPACITY_TYPE, INSTANCE_TYPE, ON_DEMAND, OS, SPOT, ZONE},
        },
        solver::{MOST_ATTEMPTS, Options, Pool, Preferences, Solution, Solver, solve},
    },
    scheduling::{HOSTNAME, Node, Pod, Resources, Snapshot, pod::Shape},
};

/// Bytes in a mebibyte.
const MIB: i64 = 1 << 20;
/// How often each case runs; the best counts.
const RUNS: usize = 5;

/// Numbers of diverse pods, each with a seed by which the sums of requests are within 1 % of those of Karpenter's draws.
const DIVERSE: [(usize, u64); 6] =
    [(500, 53), (1_000, 31), (2_000, 35), (5_000, 2), (10_000, 1), (20_000, 2)];

fn main() {
    let types = instance_types();
    for draw in DIVERSE {
        report(&format!("{} diverse pods", draw.0), &types, &diverse(draw), &options());
    }
    let improving = Options { attempts: MOST_ATTEMPTS, ..options() };
    for draw in &DIVERSE[..3] {
        report(&format!("{} diverse pods, in every order", draw.0), &types, &diverse(*draw), &improving);
    }
    let ignoring = Options { preferences: Preferences::Ignore, ..options() };
    report("4000 pods, preferences respected", &types, &preferring(4_000), &options());
    report("4000 pods, preferences ignored", &types, &preferring(4_000), &ignoring);
    consolidation(&types, 2_000);
    for key in [ZONE, HOSTNAME] {
        report(&format!("2000 pods apart by {key}"), &types, &apart(2_000, key, false), &options());
        report(&format!("2000 different pods apart by {key}"), &types, &apart(2_000, key, true), &options());
    }
}

/// Nodes of eight cores, half of them used, by two pods of one core and two of a half each: all are candidates.
fn consolidation(types: &[Arc<InstanceType>], nodes: usize) {
    let requirements = Requirements::from_iter([Requirement::is(CAPACITY_TYPE, ON_DEMAND)]);
    let pools = [Pool { requirements, ..pool(types) }];
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
    let started = Instant::now();
    let mut solver = Solver::new(&mut snapshot, &pools, options());
    let mut cluster = Cluster {
        snapshot: &mut snapshot,
        solver: &mut solver,
        pending: &[],
        uninitialized: &BTreeSet::new(),
        spot_to_spot: false,
        well_known: &well_known,
        approves: &|_| Ok(()),
    };
    let many = multi_node(&mut cluster, &candidates, || true);
    let multi = started.elapsed();
    // Those that are full cannot go: each has to be looked at.
    let full: Vec<Candidate> = candidates.into_iter().step_by(2).collect();
    let started = Instant::now();
    let (single, refused) = single_node(&mut cluster, &full, || true);
    println!(
        "consolidation of {nodes} nodes: {:.1} ms for {} nodes at once, {:.1} ms for one of {} ({} refused, found {})",
        multi.as_secs_f64() * 1e3,
        many.map_or(0, |command| command.remove.len()),
        started.elapsed().as_secs_f64() * 1e3,
        full.len(),
        refused.len(),
        single.is_some(),
    );
}

fn pool(types: &[Arc<InstanceType>]) -> Pool<'_> {
    Pool {
        name: "default".into(),
        weight: 0,
        requirements: Requirements::new(),
        taints: Vec::new(),
        types,
        daemons: &[],
        remaining: [("cpu".into(), 10_000_000_000), ("memory".into(), 10_000_000 << 30)].into(),
    }
}

fn options() -> Options {
    Options {
        well_known: WellKnownLabels::default().with(["size", "special", "integer"]),
        ..Options::default()
    }
}

/// Runs a case a few times and prints the best.
fn report(name: &str, types: &[Arc<InstanceType>], pods: &[Pod], options: &Options) {
    let once = || -> (Duration, Solution) {
        let pool = pool(types);
        let started = Instant::now();
        let solution = solve(&mut Snapshot::default(), &[pool], pods, options.clone());
        (started.elapsed(), solution)
    };
    let Some((time, solution)) = (0..RUNS).map(|_| once()).min_by_key(|(time, _)| *time) else { return };
    #[allow(clippy::cast_precision_loss, reason = "thousands")]
    let rate = pods.len() as f64 / time.as_secs_f64();
    println!(
        "{name}: {:.1} ms, {rate:.0} pods/s, {} nodes, price {:.1}, {} pods nowhere",
        time.as_secs_f64() * 1e3,
        solution.claims.len(),
        solution.price(),
        solution.failures.len(),
    );
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

/// Draws numbers that look random, always the same.
struct Draws(u64);

impl Draws {
    /// One of a list (`SplitMix64`).
    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        #[allow(clippy::cast_possible_truncation, reason = "a remainder below the length of a list")]
        of[((mixed ^ (mixed >> 31)) % of.len() as u64) as usize]
    }

    fn requests(&mut self) -> Resources {
        let cpu = self.one(&[100, 250, 500, 1_000, 1_500]);
        let memory = self.one(&[100, 256, 512, 1_024, 2_048, 4_096]) * MIB;
        Resources { cpu, memory, pods: 1, ..Resources::default() }
    }

    fn label(&mut self) -> &'static str {
        self.one(&["a", "b", "c", "d", "e", "f", "g"])
    }
}

fn pod(number: usize, shape: Shape) -> Pod {
    let name: Arc<str> = format!("pod-{number:05}").into();
    Pod { uid: name.clone(), name, shape: Arc::new(shape), ..Pod::default() }
}

fn selector(key: &str, value: &str) -> LabelSelector {
    LabelSelector {
        match_labels: Some([(key.to_owned(), value.to_owned())].into()),
        ..LabelSelector::default()
    }
}

fn shape(key: &str, value: &str, requests: Resources) -> Shape {
    let labels = [(key.to_owned(), value.to_owned())].into();
    Shape { namespace: "default".into(), labels, requests, ..Shape::default() }
}

fn term(key: &str, value: &str, topology_key: &str) -> PodAffinityTerm {
    PodAffinityTerm {
        label_selector: Some(selector(key, value)),
        topology_key: topology_key.to_owned(),
        ..PodAffinityTerm::default()
    }
}

/// Karpenter's `makeDiversePods`.
fn diverse((count, seed): (usize, u64)) -> Vec<Pod> {
    let mut draws = Draws(seed);
    let of_each = count / 5;
    let mut shapes = Vec::new();
    let generic = |draws: &mut Draws| shape("my-label", draws.label(), draws.requests());
    shapes.extend((0..of_each).map(|_| generic(&mut draws)));
    for topology_key in [ZONE, HOSTNAME] {
        shapes.extend((0..of_each).map(|_| {
            let (label, selected) = (draws.label(), draws.label());
            let spread = vec![TopologySpreadConstraint {
                max_skew: 1,
                topology_key: topology_key.to_owned(),
                when_unsatisfiable: "DoNotSchedule".to_owned(),
                label_selector: Some(selector("my-label", selected)),
                ..TopologySpreadConstraint::default()
            }];
            Shape { spread, ..shape("my-label", label, draws.requests()) }
        }));
    }
    shapes.extend((0..of_each).map(|_| {
        let label = draws.label();
        let required = Some(vec![term("my-affininity", label, ZONE)]);
        let near = PodAffinity {
            required_during_scheduling_ignored_during_execution: required,
            ..PodAffinity::default()
        };
        let affinity = Affinity { pod_affinity: Some(near), ..Affinity::default() };
        Shape { affinity: Some(Box::new(affinity)), ..shape("my-affininity", label, draws.requests()) }
    }));
    shapes.extend((0..of_each).map(|_| apart_shape("nginx", HOSTNAME, draws.requests())));
    while shapes.len() < count {
        shapes.push(generic(&mut draws));
    }
    shapes.into_iter().enumerate().map(|(number, shape)| pod(number, shape)).collect()
}

fn apart_shape(app: &str, topology_key: &str, requests: Resources) -> Shape {
    let required = Some(vec![term("app", app, topology_key)]);
    let anti = PodAntiAffinity {
        required_during_scheduling_ignored_during_execution: required,
        ..PodAntiAffinity::default()
    };
    let affinity = Affinity { pod_anti_affinity: Some(anti), ..Affinity::default() };
    Shape { affinity: Some(Box::new(affinity)), ..shape("app", app, requests) }
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
    (0..count).map(|number| pod(number, shape(number))).collect()
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
    let shape = Shape { affinity: Some(Box::new(affinity)), ..shape("app", "nginx", requests) };
    (0..count).map(|number| pod(number, shape.clone())).collect()
}
