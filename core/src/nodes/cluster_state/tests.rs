use proptest::prelude::*;

use super::*;
use crate::{
    nodes::{group::GroupOptions, pass::PassSettings},
    scheduling::node::Condition,
};

fn settings() -> ClusterStateSettings {
    PassSettings::default().cluster
}

fn at(minute: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
}

fn node(name: &str, ready: bool, created: i64) -> Arc<Node> {
    Arc::new(Node {
        name: name.into(),
        provider_id: name.into(),
        ready,
        created: Some(at(created)),
        ..Node::default()
    })
}

fn instance(id: &str, state: InstanceState) -> Instance {
    Instance { id: id.into(), state }
}

fn group(target: u32, instances: &[&str]) -> NodeGroup {
    NodeGroup {
        id: "g".into(),
        min: 0,
        max: 100,
        target,
        instances: instances.iter().map(|id| instance(id, InstanceState::Running)).collect(),
        options: GroupOptions::default(),
    }
}

fn out_of_stock() -> InstanceError {
    InstanceError { out_of_resources: true, code: "stockout".to_owned(), message: "none left".to_owned() }
}

/// A group's state after one look.
fn look(
    state: &mut ClusterState,
    nodes: &[Arc<Node>],
    group: &NodeGroup,
    minute: i64,
) -> (GroupState, Found) {
    let found = state.update(nodes, std::slice::from_ref(group), at(minute), &settings());
    (found.groups["g"].clone(), found)
}

#[test]
fn what_was_asked_for_is_upcoming_until_it_is_ready() {
    let mut state = ClusterState::default();
    state.requested("g", 2, at(0), settings().provision_time);
    let (seen, _) = look(&mut state, &[node("a", true, 0)], &group(3, &["a"]), 1);
    assert_eq!(seen.upcoming, 2);
    let starting = [node("a", true, 0), node("b", false, 2)];
    let (seen, _) = look(&mut state, &starting, &group(3, &["a", "b", "c"]), 3);
    assert_eq!((seen.upcoming, seen.starting.len(), seen.readiness.unregistered), (2, 1, 1));
    let there = [node("a", true, 0), node("b", true, 2), node("c", true, 3)];
    let (seen, found) = look(&mut state, &there, &group(3, &["a", "b", "c"]), 5);
    assert_eq!(seen.upcoming, 0);
    assert_eq!(found.fulfilled, [("g".into(), SignedDuration::from_mins(5))]);
    assert!(state.requests.is_empty());
}

#[test]
fn what_does_not_come_in_time_is_given_up_and_the_group_left_alone() {
    let mut state = ClusterState::default();
    state.requested("g", 2, at(0), settings().provision_time);
    let (_, found) = look(&mut state, &[node("a", true, 0)], &group(3, &["a"]), 15);
    assert_eq!(found.expired, []);
    let (seen, found) = look(&mut state, &[node("a", true, 0)], &group(3, &["a"]), 16);
    assert_eq!(found.expired.len(), 1);
    assert_eq!((found.expired[0].nodes, seen.upcoming), (2, 0));
    assert_eq!(state.backoffs.of("g", at(20)).map(|backoff| &*backoff.code), Some(TIMEOUT));
    assert!(state.backoffs.of("g", at(21)).is_none());
}

#[test]
fn instances_that_cannot_be_made_are_told_once() {
    let mut state = ClusterState::default();
    state.requested("g", 1, at(0), settings().provision_time);
    let mut failing = group(2, &["a"]);
    failing.instances.push(instance("placeholder", InstanceState::Creating(Some(out_of_stock()))));
    let nodes = [node("a", true, 0)];
    let (seen, found) = look(&mut state, &nodes, &failing, 1);
    assert_eq!(found.failures, [("g".into(), 1, out_of_stock())]);
    assert_eq!(seen.failed, [("placeholder".into(), out_of_stock())]);
    assert_eq!(seen.upcoming, 0);
    assert!(state.requests.is_empty(), "nothing is left to wait for");
    let (_, found) = look(&mut state, &nodes, &failing, 2);
    assert_eq!(found.failures, []);
}

#[test]
fn an_instance_without_a_node_is_given_up_after_its_time() {
    let mut state = ClusterState::default();
    let lost = group(1, &["a"]);
    assert_eq!(look(&mut state, &[], &lost, 0).0.readiness.unregistered, 1);
    assert_eq!(look(&mut state, &[], &lost, 15).0.long_unregistered, []);
    let (seen, _) = look(&mut state, &[], &lost, 16);
    assert_eq!(seen.long_unregistered, ["a".into()]);
    assert_eq!((seen.readiness.unregistered, seen.upcoming), (0, 0));
}

#[test]
fn a_target_that_nothing_stands_behind_is_told_after_its_time() {
    let mut state = ClusterState::default();
    let empty = group(3, &["a"]);
    let nodes = [node("a", true, 0)];
    assert_eq!(look(&mut state, &nodes, &empty, 0).0.overstated, 0);
    assert_eq!(look(&mut state, &nodes, &empty, 15).0.overstated, 0);
    assert_eq!(look(&mut state, &nodes, &empty, 16).0.overstated, 2);
    assert_eq!(look(&mut state, &nodes, &group(2, &["a"]), 17).0.overstated, 0, "it has changed");
}

#[test]
fn nodes_are_told_apart() {
    let tainted = {
        let mut node = (*node("leaving", true, 0)).clone();
        node.taints.push(k8s_openapi::api::core::v1::Taint {
            key: TO_BE_DELETED.to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Default::default()
        });
        Arc::new(node)
    };
    let suspended = {
        let mut node = (*node("suspended", false, 0)).clone();
        node.conditions.insert("Suspended".into(), Condition::new(true, None));
        Arc::new(node)
    };
    let nodes =
        [node("ready", true, 0), node("new", false, 100), node("broken", false, 0), tainted, suspended];
    let all = group(5, &["ready", "new", "broken", "leaving", "suspended"]);
    let (seen, found) = look(&mut ClusterState::default(), &nodes, &all, 101);
    let wanted = Readiness {
        registered: 5,
        ready: 1,
        not_started: 1,
        unready: 1,
        being_deleted: 1,
        suspended: 1,
        ..Readiness::default()
    };
    assert_eq!((seen.readiness, found.total), (wanted, wanted));
}

#[test]
fn a_machine_that_is_taken_back_is_replaced_by_its_group() {
    let mut taken = Node::clone(&node("i1", true, 0));
    taken.taints.push(k8s_openapi::api::core::v1::Taint {
        key: "aws-node-termination-handler/spot-itn".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Default::default()
    });
    let mut state = ClusterState::default();
    let (seen, found) =
        look(&mut state, &[node("i0", true, 0), Arc::new(taken.clone())], &group(2, &["i0", "i1"]), 60);
    assert_eq!((seen.upcoming, seen.readiness.replaced, seen.healthy), (1, 1, true));
    assert_eq!(found.total.replaced, 1);
    // The other has come: nothing is awaited any more.
    let nodes = [node("i0", true, 0), Arc::new(taken), node("i2", true, 61)];
    let (seen, _) = look(&mut state, &nodes, &group(2, &["i0", "i1", "i2"]), 62);
    assert_eq!(seen.upcoming, 0);
}

#[test]
fn a_machine_that_its_group_ends_is_no_part_of_its_size() {
    let cordoned = [node("i0", true, 0), node("i1", true, 0)];
    let mut ending = group(2, &["i0"]);
    ending.instances.push(instance("i1", InstanceState::Deleting));
    // The group keeps its size: another comes. It is made smaller: none does.
    for (target, upcoming) in [(2, 1), (1, 0)] {
        ending.target = target;
        let (seen, _) = look(&mut ClusterState::default(), &cordoned, &ending, 60);
        assert_eq!((seen.upcoming, seen.readiness.replaced), (upcoming, 1), "of {target}");
    }
}

#[test]
fn a_machine_that_is_likely_to_be_taken_back_is_replaced_where_the_group_does_so() {
    let mut likely = Node::clone(&node("i0", true, 0));
    likely.taints.push(k8s_openapi::api::core::v1::Taint {
        key: "aws-node-termination-handler/rebalance-recommendation".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Default::default()
    });
    let likely = [Arc::new(likely)];
    let mut rebalancing = group(1, &["i0"]);
    assert_eq!(look(&mut ClusterState::default(), &likely, &rebalancing, 60).0.upcoming, 0);
    rebalancing.options.rebalances = true;
    assert_eq!(look(&mut ClusterState::default(), &likely, &rebalancing, 60).0.upcoming, 1);
}

#[test]
fn a_cluster_is_unhealthy_only_beyond_both_bounds() {
    // Nodes that do not work, of how many, and whether that is well.
    for (broken, all, healthy) in [(3, 3, true), (4, 4, false), (4, 9, true), (4, 8, false), (50, 200, true)]
    {
        let nodes: Vec<_> = (0..all).map(|n| node(&format!("n{n}"), n >= broken, 0)).collect();
        let found = ClusterState::default().update(&nodes, &[], at(60), &settings());
        assert_eq!(found.healthy, healthy, "{broken} of {all}");
    }
}

proptest! {
    /// Whatever happens to a group, its numbers add up, and what is remembered survives a restart.
    #[test]
    fn numbers_add_up(
        steps in prop::collection::vec((0i64..10, 0u32..8, prop::collection::vec(0u8..4, 0..8), 0u32..4), 1..12),
    ) {
        let (mut state, mut minute) = (ClusterState::default(), 0);
        for (gap, target, kinds, asked) in steps {
            minute += gap;
            if asked > 0 {
                state.requested("g", asked, at(minute), settings().provision_time);
            }
            let mut seen_group = group(target, &[]);
            let mut nodes = Vec::new();
            for (index, kind) in kinds.iter().enumerate() {
                let id = format!("i{index}");
                let life = match kind {
                    0 => InstanceState::Creating(Some(out_of_stock())),
                    1 => InstanceState::Creating(None),
                    _ => InstanceState::Running,
                };
                if *kind > 1 {
                    nodes.push(node(&id, *kind == 3, 0));
                }
                seen_group.instances.push(instance(&id, life));
            }
            let (seen, found) = look(&mut state, &nodes, &seen_group, minute);
            let Readiness { registered, ready, unready, not_started, suspended, being_deleted, .. } = found.total;
            prop_assert_eq!(registered, ready + unready + not_started + suspended + being_deleted);
            prop_assert_eq!(usize::try_from(registered).unwrap(), nodes.len());
            prop_assert!(seen.upcoming <= target);
            prop_assert!(seen.upcoming == 0 || state.backoffs.of("g", at(minute)).is_none());
            prop_assert!(found.expired.iter().all(|expired| expired.nodes <= target));
            let written = serde_json::to_string(&state).unwrap();
            prop_assert_eq!(&serde_json::from_str::<ClusterState>(&written).unwrap(), &state);
        }
    }
}
