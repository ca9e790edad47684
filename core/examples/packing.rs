//! Times the scheduling simulation on the inputs of Cluster Autoscaler's benchmarks.
//!
//! `cargo run --release -p tandem-core --example packing`. Each case once with identical pods, once with pods that all
//! differ in a label.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Affinity, PodAffinityTerm, PodAntiAffinity, TopologySpreadConstraint},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use tandem_core::{
    nodes::{
        estimator::{Limiter, Limits, estimate},
        group::Template,
    },
    scheduling::{HOSTNAME, Node, Pod, Resources, Snapshot, pod::Shape},
};

fn main() {
    for differ in [false, true] {
        println!("{}", if differ { "every pod different" } else { "identical pods" });
        report("51,000 pods on new nodes", || binpacking(differ));
        report("60,000 pods that fit on none of 200 nodes", || fits_nowhere(200, 60_000, differ));
        report("12,000 pods that fit on none of 1,000 nodes", || fits_nowhere(1_000, 12_000, differ));
        report("10,000 pods spread over zones and apart on nodes, on 1,000 nodes", || constrained(differ));
        report("one pod apart from those on 4,999 of 5,000 nodes", || apart(differ));
    }
}

/// Runs a case a few times and prints the best.
fn report(name: &str, case: impl Fn() -> (Duration, String)) {
    let best = (0..5).map(|_| case()).min_by_key(|(time, _)| *time);
    if let Some((time, answer)) = best {
        println!("  {name}: {:.3} ms, {answer}", time.as_secs_f64() * 1e3);
    }
}

fn node(name: &str, cpu: i64, memory: i64, pods: i64) -> Node {
    let allocatable = Resources { cpu, memory, pods, ..Resources::default() };
    let labels = [(HOSTNAME.to_owned(), name.to_owned())].into();
    Node { name: name.into(), labels, capacity: allocatable.clone(), allocatable, ..Node::default() }
}

fn shape(cpu: i64, memory: i64) -> Shape {
    let requests = Resources { cpu, memory, pods: 1, ..Resources::default() };
    let labels = [("app".to_owned(), "p".to_owned())].into();
    Shape { namespace: "default".into(), labels, requests, ..Shape::default() }
}

fn pods(count: usize, shape: &Shape, differ: bool) -> Vec<Pod> {
    let shared = Arc::new(shape.clone());
    let own = |number: usize| {
        let mut shape = shape.clone();
        shape.labels.insert("pod".to_owned(), number.to_string());
        Arc::new(shape)
    };
    let shape = |number| if differ { own(number) } else { shared.clone() };
    (0..count).map(|number| Pod { shape: shape(number), ..Pod::default() }).collect()
}

/// `BenchmarkBinpackingEstimate`.
fn binpacking(differ: bool) -> (Duration, String) {
    let small = pods(50_000, &shape(50, 100), differ);
    let large = pods(1_000, &shape(95, 190), differ);
    let template = Template { node: node("template", 1_000, 5_000 << 20, 100), pods: Vec::new() };
    let started = Instant::now();
    let mut snapshot = Snapshot::default();
    snapshot.add_node(&node("old", 100, 100 << 20, 10));
    let mut groups: Vec<(_, u32)> = Vec::new();
    for pod in small.iter().chain(&large) {
        let class = snapshot.class(pod);
        match groups.last_mut() {
            Some((last, count)) if *last == class => *count += 1,
            _ => groups.push((class, 1)),
        }
    }
    let clock = || Timestamp::UNIX_EPOCH;
    let limits = Limits { nodes: 3_000, ..Limits::default() };
    let got = estimate(&mut snapshot, &template, &groups, &mut Limiter::start(limits, &clock));
    let placed: u32 = got.scheduled.iter().sum();
    (started.elapsed(), format!("{} nodes, {placed} pods placed", got.nodes))
}

/// `BenchmarkFilterOutSchedulable`.
fn fits_nowhere(nodes: usize, pending: usize, differ: bool) -> (Duration, String) {
    let mut snapshot = Snapshot::default();
    let there = snapshot.class(&pods(1, &shape(1_000, 200_000), false)[0]);
    for number in 0..nodes {
        let node = snapshot.add_node(&node(&format!("node-{number}"), 2_000, 200_000, 100));
        snapshot.bind(there, node);
    }
    let pending = pods(pending, &shape(1_000, 2_000_000), differ);
    let started = Instant::now();
    let mut fit = 0;
    for pod in &pending {
        let class = snapshot.class(pod);
        if let Some(node) = snapshot.find(class, None) {
            snapshot.bind(class, node);
            fit += 1;
        }
    }
    (started.elapsed(), format!("{fit} fit"))
}

/// `BenchmarkRunFiltersUntilPassingNode`.
fn apart(differ: bool) -> (Duration, String) {
    let mut snapshot = Snapshot::default();
    for number in 0..5_000 {
        let node = snapshot.add_node(&node(&format!("node-{number}"), 10_000, 1 << 40, 100));
        for pod in pods(if number < 4_999 { 10 } else { 0 }, &shape(10, 10), differ) {
            let class = snapshot.class(&pod);
            snapshot.bind(class, node);
        }
    }
    let pod =
        Pod { shape: Arc::new(Shape { affinity: Some(apart_from("p")), ..shape(10, 10) }), ..Pod::default() };
    let started = Instant::now();
    let class = snapshot.class(&pod);
    let found = snapshot.find(class, None).map(|node| snapshot.node(node).name().to_string());
    (started.elapsed(), format!("found {found:?}"))
}

fn selector(app: &str) -> LabelSelector {
    LabelSelector {
        match_labels: Some([("app".to_owned(), app.to_owned())].into()),
        ..LabelSelector::default()
    }
}

/// Anti-affinity on nodes to the pods of an app.
fn apart_from(app: &str) -> Box<Affinity> {
    let term = PodAffinityTerm {
        label_selector: Some(selector(app)),
        topology_key: HOSTNAME.to_owned(),
        ..PodAffinityTerm::default()
    };
    let anti = PodAntiAffinity {
        required_during_scheduling_ignored_during_execution: Some(vec![term]),
        ..PodAntiAffinity::default()
    };
    Box::new(Affinity { pod_anti_affinity: Some(anti), ..Affinity::default() })
}

/// Apps of ten pods each, or of one if the pods differ, each spread over three zones and apart on nodes.
fn constrained(differ: bool) -> (Duration, String) {
    const ZONE: &str = "topology.kubernetes.io/zone";
    let mut snapshot = Snapshot::default();
    for number in 0..1_000 {
        let mut node = node(&format!("node-{number}"), 10_000, 1 << 40, 100);
        node.labels.insert(ZONE.to_owned(), format!("zone-{}", number % 3));
        snapshot.add_node(&node);
    }
    let pods_per_app = if differ { 1 } else { 10 };
    let app = |number: usize| {
        let app = format!("app-{number}");
        let spread = TopologySpreadConstraint {
            max_skew: 1,
            topology_key: ZONE.to_owned(),
            when_unsatisfiable: "DoNotSchedule".to_owned(),
            label_selector: Some(selector(&app)),
            ..TopologySpreadConstraint::default()
        };
        let labels = [("app".to_owned(), app.clone())].into();
        let shape =
            Shape { labels, affinity: Some(apart_from(&app)), spread: vec![spread], ..shape(1_000, 10) };
        let pod = Pod { shape: Arc::new(shape), ..Pod::default() };
        std::iter::repeat_n(pod, pods_per_app)
    };
    let pods: Vec<_> = (0..10_000 / pods_per_app).flat_map(app).collect();
    let started = Instant::now();
    let mut placed = 0;
    for pod in &pods {
        let class = snapshot.class(pod);
        if let Some(node) = snapshot.find(class, None) {
            snapshot.bind(class, node);
            placed += 1;
        }
    }
    (started.elapsed(), format!("{placed} placed"))
}
