//! Several pods at once: estimates that build on each other.

use std::sync::Arc;

use jiff::Timestamp;
use tandem_core::{
    nodes::{
        estimator::{Limiter, Limits, estimate, estimate_and_keep},
        group::Template,
    },
    scheduling::{Node, Pod, Reason, Resources, Snapshot, pod::Shape},
};

fn node(name: &str, cpu: i64) -> Node {
    Node {
        name: name.into(),
        allocatable: Resources { cpu, pods: 10, ..Resources::default() },
        ..Node::default()
    }
}

fn pod(cpu: i64) -> Pod {
    let requests = Resources { cpu, pods: 1, ..Resources::default() };
    Pod { shape: Arc::new(Shape { requests, ..Shape::default() }), ..Pod::default() }
}

#[test]
fn a_kept_estimate_leaves_its_gaps_to_the_next() {
    let mut snapshot = Snapshot::default();
    let agent = pod(100);
    let template = Template { node: node("new", 1000), pods: vec![agent] };
    let [large, small, huge] = [500, 400, 2000].map(|cpu| snapshot.class(&pod(cpu)));
    let clock = || Timestamp::UNIX_EPOCH;
    let limiter = || Limiter::start(Limits::default(), &clock);

    // The agent takes 100 of each, so that one large pod fits on a node, and a small one beside it.
    let tried = estimate(&mut snapshot, &template, &[(large, 3)], &mut limiter());
    assert_eq!((tried.nodes, tried.scheduled, snapshot.nodes().count()), (3, vec![3], 0));

    let first = estimate_and_keep(&mut snapshot, &template, &[(large, 3), (huge, 1)], &mut limiter());
    assert_eq!((first.nodes, &first.scheduled[..]), (3, &[3, 0][..]));
    let nodes: Vec<_> = first.placements.iter().map(|(group, node, count)| (*group, *node, *count)).collect();
    assert_eq!(snapshot.nodes().map(|(node, _)| (0, node, 1)).collect::<Vec<_>>(), nodes);
    let names: Vec<_> = snapshot.nodes().map(|(_, node)| node.name().to_string()).collect();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");

    for _ in 0..3 {
        let node = snapshot.find(small, None).expect("a gap");
        snapshot.bind(small, node);
    }
    let second = estimate(&mut snapshot, &template, &[(small, 3)], &mut limiter());
    assert_eq!((second.nodes, second.scheduled), (2, vec![3]));
}

#[test]
fn reasons_are_in_the_schedulers_words() {
    let mut snapshot = Snapshot::default();
    let full = snapshot.add_node(&Node {
        allocatable: Resources { cpu: 1000, memory: 10, ..Resources::default() },
        ..node("full", 0)
    });
    let other = [("example.com/device".into(), 1)].into();
    let requests = Resources { cpu: 500, memory: 11, pods: 1, other, ..Resources::default() };
    let shape = Arc::new(Shape { requests, ..Shape::default() });
    let class = snapshot.class(&Pod { shape, ..Pod::default() });
    let reason = snapshot.check(class, full).expect_err("too small");
    assert_eq!(reason.to_string(), "Too many pods, Insufficient memory, Insufficient example.com/device");
    assert!(reason.is_unresolvable());
    let taint = Reason::Taint;
    assert_eq!(taint.to_string(), "node(s) had untolerated taint(s)");
}
