//! Cluster Autoscaler's benchmarks of its simulation: `BenchmarkBinpackingEstimate`, `BenchmarkFilterOutSchedulable`,
//! `BenchmarkRunFiltersUntilPassingNode`.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;
use tandem_core::{
    nodes::{
        estimator::{Limiter, Limits, estimate},
        group::Template,
    },
    scheduling::{HOSTNAME, Pod, Snapshot},
};

use super::{
    Measured, Row,
    inputs::{MIB, apart_from, node, pods, shape, term, with},
    measured,
};

/// What is measured here.
pub(crate) const ROWS: &[Row] = &[
    ("binpacking", || binpacking(false)),
    ("binpacking, different", || binpacking(true)),
    ("filter 200", || fits_nowhere(200, 60_000, false)),
    ("filter 200, different", || fits_nowhere(200, 60_000, true)),
    ("filter 1000", || fits_nowhere(1_000, 12_000, false)),
    ("filter 1000, different", || fits_nowhere(1_000, 12_000, true)),
    ("passing node", || passing_node(false)),
    ("passing node, different", || passing_node(true)),
];

/// The snapshot is made within the time, as theirs is.
fn binpacking(differ: bool) -> Measured {
    let small = pods("small", 50_000, &shape(50, 100), differ);
    let large = pods("large", 1_000, &shape(95, 190), differ);
    let template = Template { node: node("template", 1_000, 5_000 * MIB, 100), pods: Vec::new() };
    let section = || {
        let mut snapshot = Snapshot::default();
        snapshot.add_node(&node("old", 100, 100 * MIB, 10));
        let mut groups: Vec<(_, u32)> = Vec::new();
        let mut group_of = Vec::new();
        for pod in small.iter().chain(&large) {
            let class = snapshot.class(pod);
            if class.index() >= group_of.len() {
                group_of.push(groups.len());
                groups.push((class, 0));
            }
            groups[group_of[class.index()]].1 += 1;
        }
        let clock = || Timestamp::UNIX_EPOCH;
        let limits = Limits { nodes: 3_000, ..Limits::default() };
        estimate(&mut snapshot, &template, &groups, &mut Limiter::start(limits, &clock))
    };
    measured(
        section,
        |estimate| json!({"nodes": estimate.nodes, "pods": estimate.scheduled.iter().sum::<u32>()}),
    )
}

/// Half of each node is taken, and no pod that waits fits anywhere.
fn fits_nowhere(nodes: usize, waiting: usize, differ: bool) -> Measured {
    let mut snapshot = Snapshot::default();
    let there = snapshot.class(&pods("there", 1, &shape(1_000, 200_000), false)[0]);
    for number in 0..nodes {
        let node = snapshot.add_node(&node(&format!("node-{number}"), 2_000, 200_000, 100));
        snapshot.bind(there, node);
    }
    let waiting = pods("waiting", waiting, &shape(1_000, 2_000_000), differ);
    let section = || {
        let mut fit = 0;
        for pod in &waiting {
            let class = snapshot.class(pod);
            if let Some(node) = snapshot.find(class, None) {
                snapshot.bind(class, node);
                fit += 1;
            }
        }
        fit
    };
    measured(section, |fit| json!({"pods": fit}))
}

/// A pod apart from those on all nodes but the last.
fn passing_node(differ: bool) -> Measured {
    let mut snapshot = Snapshot::default();
    for number in 0..5_000 {
        let node = snapshot.add_node(&node(&format!("node-{number}"), 10_000, 1 << 40, 100));
        for pod in pods("there", if number < 4_999 { 10 } else { 0 }, &shape(10, 10), differ) {
            let class = snapshot.class(&pod);
            snapshot.bind(class, node);
        }
    }
    let apart = with(shape(10, 10), |shape| shape.affinity = Some(apart_from(term("app", "p", HOSTNAME))));
    let pod = Pod { shape: Arc::new(apart), ..Pod::default() };
    let section = || {
        let class = snapshot.class(&pod);
        snapshot.find(class, None)
    };
    measured(section, |found| json!({"node": found.map(tandem_core::scheduling::NodeId::index)}))
}
