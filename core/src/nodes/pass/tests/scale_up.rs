use std::collections::BTreeSet;

use super::*;
use crate::nodes::similar::{Comparator, Flavour, Ratios};

fn grows(mut cluster: Cluster, settings: &PassSettings) -> Vec<(String, u32)> {
    let outcome = cluster.pass(&mut Memory::default(), 0, settings);
    grown(&outcome).into_iter().map(|(group, to)| (group.to_owned(), to)).collect()
}

#[test]
fn groups_grow_by_what_is_needed_and_no_more() {
    let limited = |max_nodes| {
        let mut settings = settings();
        settings.scale_up.max_nodes = Some(max_nodes);
        settings
    };
    let one = |max| Cluster::default().group("a", (0, max), 1);
    let cases = [
        ("nothing waits", one(9), settings(), vec![]),
        ("what waits fits", one(9).waiting(4, 1000), settings(), vec![]),
        ("one more than fits", one(9).waiting(5, 1000), settings(), vec![("a", 2)]),
        ("as many as it takes", one(9).waiting(12, 1000), settings(), vec![("a", 3)]),
        ("the maximum", one(2).waiting(40, 1000), settings(), vec![("a", 2)]),
        ("too large for any node", one(9).waiting(1, 5000), settings(), vec![]),
        ("--max-nodes-total", one(9).waiting(40, 1000), limited(3), vec![("a", 3)]),
        ("--max-nodes-total reached", one(9).waiting(40, 1000), limited(1), vec![]),
        (
            "one group after the other",
            one(2).group("b", (0, 9), 0).waiting(12, 1000),
            settings(),
            vec![("a", 2), ("b", 1)],
        ),
        ("nodes on their way", one(9).instance("a", "a-new", false).waiting(8, 1000), settings(), vec![]),
        (
            "more than is on its way",
            one(9).instance("a", "a-new", false).waiting(9, 1000),
            settings(),
            vec![("a", 3)],
        ),
    ];
    for (name, cluster, settings, wanted) in cases {
        let wanted: Vec<_> = wanted.into_iter().map(|(group, to)| (group.to_owned(), to)).collect();
        assert_eq!(grows(cluster, &settings), wanted, "{name}");
    }
}

#[test]
fn who_cannot_be_helped_is_told_why() {
    let mut cluster = Cluster::default().group("a", (0, 1), 1).waiting(5, 1000);
    let outcome = cluster.pass(&mut Memory::default(), 0, &settings());
    let [(_, refusals)] = outcome.plan.refused.as_slice() else { panic!("{:?}", outcome.plan.refused) };
    assert_eq!(refusals[0].reason, MAX_SIZE_REACHED);
}

#[test]
fn the_limit_of_the_cluster_is_told_when_pods_wait() {
    let mut settings = settings();
    settings.scale_up.max_nodes = Some(1);
    let of = |waiting| {
        let mut cluster = Cluster::default().group("a", (0, 9), 1).waiting(waiting, 1000);
        cluster.pass(&mut Memory::default(), 0, &settings).max_nodes_reached
    };
    assert_eq!((of(4), of(5)), (None, Some(1)));
}

#[test]
fn the_limit_of_the_cluster_is_told_where_it_cuts_a_plan_short() {
    let mut settings = settings();
    settings.scale_up.max_nodes = Some(3);
    let of = |waiting| {
        let mut cluster = Cluster::default().group("a", (0, 9), 1).waiting(waiting, 1000);
        let outcome = cluster.pass(&mut Memory::default(), 0, &settings);
        (outcome.plan.increases.first().map(|increase| increase.to), outcome.max_nodes_reached)
    };
    // Four pods a node, on the one that there is and on two more.
    assert_eq!((of(12), of(13)), ((Some(3), None), (Some(3), Some(3))));
}

#[test]
fn an_unhealthy_cluster_is_left_alone() {
    let broken = (0..4)
        .fold(Cluster::default().group("a", (0, 99), 8).waiting(99, 1000), |cluster, number| {
            cluster.with_node(&format!("a-{number}"), |node| node.ready = false)
        });
    let mut memory = Memory::default();
    let outcome = broken.clone().pass(&mut memory, 0, &settings());
    assert!(!outcome.found.healthy && outcome.actions.is_empty(), "{:?}", outcome.actions);
    let mended = broken.with_node("a-0", |node| node.ready = true);
    assert!(!grown(&mended.clone().pass(&mut memory, 1, &settings())).is_empty());
}

#[test]
fn a_group_that_failed_is_left_alone_for_a_while() {
    let mut cluster = Cluster::default().group("a", (0, 9), 1).group("b", (0, 9), 1).waiting(9, 1000);
    let mut memory = Memory::default();
    let settings = settings();
    memory.cluster.backoffs.fail("a", "stockout", "none left", at(0), settings.cluster.backoff);
    assert_eq!(grown(&cluster.pass(&mut memory, 4, &settings)), [("b", 2)]);
    assert_eq!(grown(&cluster.pass(&mut memory, 5, &settings)), [("a", 2)]);
}

#[test]
fn the_minimum_is_kept_where_the_cluster_has_room() {
    let mut settings = settings();
    settings.scale_up.enforce_min = true;
    let cluster = || Cluster::default().group("a", (3, 9), 1);
    assert_eq!(grows(cluster(), &settings), [("a".to_owned(), 3)]);
    settings.scale_up.max_nodes = Some(2);
    assert_eq!(grows(cluster(), &settings), [("a".to_owned(), 2)]);
}

#[test]
fn new_nodes_are_split_over_groups_that_are_alike() {
    let mut settings = settings();
    let ignored = BTreeSet::from([GROUP.to_owned()]);
    let comparator = Comparator::Nodes { flavour: Flavour::Generic, ignored, ratios: Ratios::default() };
    settings.scale_up.balance = Some(comparator);
    let three = |max_of_c| {
        Cluster::default().group("a", (0, 9), 2).group("b", (0, 9), 1).group("c", (0, max_of_c), 0)
    };
    let mut even = three(9).waiting(36, 1000);
    let outcome = even.pass(&mut Memory::default(), 0, &settings);
    assert_eq!(grown(&outcome), [("a", 3), ("b", 3), ("c", 3)]);
    assert_eq!(outcome.plan.splits, [["a".into(), "b".into(), "c".into()]]);
    let helped_by_all = |(_, groups): &(_, Vec<Arc<str>>)| groups.len() == 3;
    assert!(outcome.plan.helped.iter().all(helped_by_all), "{:?}", outcome.plan.helped);
    let mut full = three(1).waiting(36, 1000);
    assert_eq!(grown(&full.pass(&mut Memory::default(), 0, &settings)), [("a", 4), ("b", 4), ("c", 1)]);
}

#[test]
fn a_group_that_comes_as_a_whole_gets_all_its_nodes_or_none() {
    let cluster = |max_nodes| {
        let mut cluster = Cluster::default().group("a", (0, 4), 0).group("b", (0, 9), 0).waiting(5, 3000);
        cluster.input.groups[0].options.zero_or_max = true;
        let mut settings = settings();
        (settings.scale_up.max_nodes, settings.scale_up.most_at_once) = (Some(max_nodes), 2);
        let outcome = cluster.pass(&mut Memory::default(), 0, &settings);
        let grown: Vec<_> = grown(&outcome).into_iter().map(|(group, to)| format!("{group} {to}")).collect();
        (grown.join(", "), outcome)
    };
    assert_eq!(cluster(9).0, "a 4, b 1");
    assert_eq!(cluster(4).0, "a 4");
    let (grown, outcome) = cluster(3);
    assert_eq!(grown, "b 3");
    let reasons = outcome.plan.refused.iter().flat_map(|(_, refusals)| refusals.iter());
    let of_a: Vec<_> = reasons.filter(|refusal| &*refusal.group == "a").map(|it| it.reason.clone()).collect();
    assert_eq!(of_a, ["atomic scale-up exceeds cluster node count limit"; 2]);
    let mut few = Cluster::default().group("a", (0, 4), 0).waiting(1, 3000);
    few.input.groups[0].options.zero_or_max = true;
    assert_eq!(
        super::grown(&few.pass(&mut Memory::default(), 0, &settings())),
        [("a", 4)],
        "one is needed, all come"
    );
}
