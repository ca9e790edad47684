//! Preemption: which pods make room for one of a higher priority, as kube-scheduler chooses them.
//!
//! Source: Kubernetes, `pkg/scheduler/framework/plugins/defaultpreemption/default_preemption.go` and
//! `pkg/scheduler/framework/preemption/preemption.go`. Every node is looked at, where kube-scheduler stops after some.

use std::cmp::Reverse;

use jiff::Timestamp;

use super::{
    ids::{ClassId, NodeId},
    snapshot::Snapshot,
};

/// A pod on a node that may have to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its class.
    pub class: ClassId,
    /// Its priority, 0 if it has none.
    pub priority: i32,
    /// Since when it runs; `None` counts as now.
    pub started: Option<Timestamp>,
    /// The ordinals of the disruption budgets that cover it.
    pub budgets: Vec<usize>,
}

/// Which pods go from which node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preemption {
    /// The node.
    pub node: NodeId,
    /// Those of its tenants that go, by ordinal, the most important first.
    pub victims: Vec<usize>,
    /// How many of them go although their budget forbids it.
    pub violations: usize,
}

/// Finds pods that make room for one of a class and priority where none is. The snapshot is left as it was.
///
/// `tenants` are the pods that may go, by node; those of the same or a higher priority stay. `allowed` is how many evictions
/// each budget allows. Of several nodes the one is taken whose victims violate the fewest budgets, then whose most important
/// victim is the least important, then with the lowest sum of priorities, then with the fewest victims, then with the most
/// important ones started last, then the first.
pub fn preempt(
    snapshot: &mut Snapshot,
    (class, priority): (ClassId, i32),
    tenants: &[(NodeId, Vec<Tenant>)],
    allowed: &[i32],
) -> Option<Preemption> {
    let mut best: Option<(Rank, Preemption)> = None;
    for (node, tenants) in tenants {
        let Some(found) = on_node(snapshot, (class, priority), (*node, tenants), allowed) else { continue };
        let rank = Rank::of(&found, tenants);
        if best.as_ref().is_none_or(|(least, _)| rank < *least) {
            best = Some((rank, found));
        }
    }
    best.map(|(_, found)| found)
}

/// What nodes are compared by; the least is taken.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    violations: usize,
    highest: i32,
    sum: i64,
    victims: usize,
    /// When the first of the most important victims started; none is later than all.
    started: Reverse<(bool, Option<Timestamp>)>,
}

impl Rank {
    fn of(found: &Preemption, tenants: &[Tenant]) -> Self {
        let victims = || found.victims.iter().map(|victim| &tenants[*victim]);
        let highest = victims().map(|victim| victim.priority).max().unwrap_or(i32::MIN);
        let most_important = victims().filter(|victim| victim.priority == highest);
        let started =
            most_important.map(|victim| (victim.started.is_none(), victim.started)).min().unwrap_or_default();
        // No priority may make up for another victim.
        let above_zero = |victim: &Tenant| i64::from(victim.priority) - i64::from(i32::MIN) + 1;
        Self {
            violations: found.violations,
            highest,
            sum: victims().map(above_zero).sum(),
            victims: found.victims.len(),
            started: Reverse(started),
        }
    }
}

/// The fewest pods of a node that have to go: all of lower priority leave, and come back as far as there is room, those
/// first whose budgets forbid that they go, and of these the most important.
fn on_node(
    snapshot: &mut Snapshot,
    (class, priority): (ClassId, i32),
    (node, tenants): (NodeId, &[Tenant]),
    allowed: &[i32],
) -> Option<Preemption> {
    let mut lower: Vec<usize> = (0..tenants.len()).filter(|at| tenants[*at].priority < priority).collect();
    if lower.is_empty() {
        return None;
    }
    lower.sort_by_key(|at| importance(&tenants[*at]));
    let checkpoint = snapshot.checkpoint();
    for at in &lower {
        snapshot.unbind(tenants[*at].class, node);
    }
    let found = snapshot.check(class, node).is_ok().then(|| {
        let (forbidden, free) = by_budget(&lower, tenants, allowed);
        let mut victims = Vec::new();
        let mut violations = 0;
        for (at, violates) in
            forbidden.into_iter().map(|at| (at, true)).chain(free.into_iter().map(|at| (at, false)))
        {
            snapshot.bind(tenants[at].class, node);
            if snapshot.check(class, node).is_err() {
                snapshot.unbind(tenants[at].class, node);
                victims.push(at);
                violations += usize::from(violates);
            }
        }
        victims.sort_by_key(|at| importance(&tenants[*at]));
        Preemption { node, victims, violations }
    });
    snapshot.rollback(checkpoint);
    found
}

/// The most important first: of the highest priority, then those that run longest.
fn importance(tenant: &Tenant) -> (Reverse<i32>, bool, Option<Timestamp>) {
    (Reverse(tenant.priority), tenant.started.is_none(), tenant.started)
}

/// Those that some budget forbids to go once those before them are gone, and the others.
fn by_budget(order: &[usize], tenants: &[Tenant], allowed: &[i32]) -> (Vec<usize>, Vec<usize>) {
    let mut left = allowed.to_vec();
    order.iter().partition(|at| {
        let mut forbids = false;
        for budget in &tenants[**at].budgets {
            if let Some(left) = left.get_mut(*budget) {
                *left -= 1;
                forbids |= *left < 0;
            }
        }
        forbids
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::scheduling::{
        Node, Pod, Resources, Surroundings,
        pod::{Shape, Traits},
    };

    fn pod(cpu: i64, priority: i32) -> Pod {
        let requests = Resources { cpu, pods: 1, ..Resources::default() };
        let shape =
            Shape::new(requests, Traits { priority: Some(priority), preempts: true, ..Traits::default() });
        Pod { shape: Arc::new(shape), ..Pod::default() }
    }

    /// A pod on a node: milli CPU, priority, the second at which it started, the budget that covers it.
    type Guest = (i64, i32, i64, Option<usize>);

    struct Fleet {
        snapshot: Snapshot,
        tenants: Vec<(NodeId, Vec<Tenant>)>,
    }

    /// Nodes of one core each.
    fn fleet(nodes: &[&[Guest]]) -> Fleet {
        let mut snapshot = Snapshot::new(Arc::new(Surroundings::default()));
        let mut tenants = Vec::new();
        for (number, guests) in nodes.iter().enumerate() {
            let allocatable = Resources { cpu: 1000, pods: 110, ..Resources::default() };
            let node = Node {
                name: number.to_string().into(),
                capacity: allocatable.clone(),
                allocatable,
                ready: true,
                ..Node::default()
            };
            let id = snapshot.add_node(&node);
            let on_it = guests.iter().map(|(cpu, priority, second, budget)| {
                let class = snapshot.class(&pod(*cpu, *priority));
                snapshot.bind(class, id);
                let started = Timestamp::from_second(*second).ok();
                Tenant { class, priority: *priority, started, budgets: budget.iter().copied().collect() }
            });
            tenants.push((id, on_it.collect()));
        }
        Fleet { snapshot, tenants }
    }

    /// The node and the victims that make room for half a core of priority 10.
    fn chosen(nodes: &[&[Guest]], allowed: &[i32]) -> Option<(usize, Vec<usize>)> {
        let Fleet { mut snapshot, tenants } = fleet(nodes);
        let class = snapshot.class(&pod(500, 10));
        let found = preempt(&mut snapshot, (class, 10), &tenants, allowed)?;
        Some((found.node.index(), found.victims))
    }

    #[test]
    fn victims_are_those_that_kube_scheduler_would_choose() {
        type Case<'a> = (&'a str, &'a [&'a [Guest]], &'a [i32], Option<(usize, Vec<usize>)>);
        let cases: &[Case<'_>] = &[
            ("equals stay", &[&[(600, 10, 0, None), (400, 10, 0, None)]], &[], None),
            ("too little would be free", &[&[(600, 10, 0, None), (400, 1, 0, None)]], &[], None),
            (
                "no more than needed",
                &[&[(300, 1, 0, None), (300, 1, 5, None), (400, 1, 9, None)]],
                &[],
                Some((0, vec![1, 2])),
            ),
            ("the least important goes", &[&[(500, 5, 0, None), (500, 1, 0, None)]], &[], Some((0, vec![1]))),
            ("the youngest goes", &[&[(500, 1, 9, None), (500, 1, 0, None)]], &[], Some((0, vec![0]))),
            (
                "budgets before priority",
                &[&[(500, 5, 0, None), (500, 1, 0, Some(0))]],
                &[0],
                Some((0, vec![0])),
            ),
            (
                "a budget that allows it",
                &[&[(500, 5, 0, None), (500, 1, 0, Some(0))]],
                &[1],
                Some((0, vec![1])),
            ),
            (
                "a budget is violated if nothing else helps",
                &[&[(1000, 1, 0, Some(0))]],
                &[0],
                Some((0, vec![0])),
            ),
            (
                "the node without violation",
                &[&[(1000, 1, 0, Some(0))], &[(1000, 9, 0, None)]],
                &[0],
                Some((1, vec![0])),
            ),
            (
                "the node with the lowest highest priority",
                &[&[(1000, 5, 0, None)], &[(1000, 4, 0, None)]],
                &[],
                Some((1, vec![0])),
            ),
            (
                "the lowest sum of priorities",
                &[&[(600, 4, 0, None), (600, 3, 0, None)], &[(600, 4, 0, None), (600, 2, 0, None)]],
                &[],
                Some((1, vec![0, 1])),
            ),
            (
                "the fewest victims",
                &[
                    &[(300, 4, 0, None), (300, 4, 0, None), (400, 4, 0, None)],
                    &[(500, 4, 0, None), (500, 4, 0, None)],
                ],
                &[],
                Some((1, vec![1])),
            ),
            (
                "the most important started last",
                &[&[(1000, 4, 0, None)], &[(1000, 4, 9, None)]],
                &[],
                Some((1, vec![0])),
            ),
            ("the first", &[&[(1000, 4, 0, None)], &[(1000, 4, 0, None)]], &[], Some((0, vec![0]))),
        ];
        for (name, nodes, allowed, expected) in cases {
            assert_eq!(chosen(nodes, allowed), *expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn the_pod_fits_once_the_victims_are_gone_and_nobody_goes_in_vain(
            nodes in prop::collection::vec(prop::collection::vec((100_i64..600, 0..12_i32, 0..9_i64, prop::option::of(0..2_usize)), 0..5), 1..5),
            allowed in prop::collection::vec(0..3_i32, 2),
        ) {
            let nodes: Vec<&[Guest]> = nodes.iter().map(Vec::as_slice).collect();
            let Fleet { mut snapshot, tenants } = fleet(&nodes);
            let class = snapshot.class(&pod(500, 10));
            let free: Vec<_> = tenants.iter().map(|(node, _)| snapshot.free(*node)).collect();
            let found = preempt(&mut snapshot, (class, 10), &tenants, &allowed);
            for ((node, _), free) in tenants.iter().zip(free) {
                prop_assert_eq!(snapshot.free(*node), free, "the snapshot is left as it was");
            }
            let Some(Preemption { node, victims, .. }) = found else { return Ok(()) };
            let guests = &tenants[node.index()].1;
            prop_assert!(victims.iter().all(|victim| guests[*victim].priority < 10));
            for victim in &victims {
                snapshot.unbind(guests[*victim].class, node);
            }
            prop_assert!(snapshot.check(class, node).is_ok());
            for victim in &victims {
                snapshot.bind(guests[*victim].class, node);
                prop_assert!(snapshot.check(class, node).is_err(), "{victim} could have stayed");
                snapshot.unbind(guests[*victim].class, node);
            }
        }
    }
}
