use super::*;
use crate::nodes::{action::DELETION_CANDIDATE, group::InstanceError};

/// A cluster of three nodes, each with room for what runs on the others.
fn three() -> Cluster {
    Cluster::default().group("a", (0, 9), 3)
}

/// What goes in a pass at `minute`, after one at the start.
fn goes(mut cluster: Cluster, minute: i64, settings: &PassSettings) -> Vec<String> {
    let mut memory = Memory::default();
    assert_eq!(removed(&cluster.pass(&mut memory, 0, settings)), [""; 0], "too early");
    removed(&cluster.pass(&mut memory, minute, settings)).into_iter().map(str::to_owned).collect()
}

#[test]
fn nodes_go_when_they_are_not_needed_for_long_enough_and_can_be_spared() {
    let busy = || three().running("a-0", 3000, |_| {});
    let parallel = |parallelism| {
        let mut settings = settings();
        settings.scale_down.parallelism = parallelism;
        settings
    };
    let keep = |name: &'static str| {
        move |node: &mut Node| {
            let annotation = ("cluster-autoscaler.kubernetes.io/scale-down-disabled", name);
            node.annotations.insert(annotation.0.to_owned(), annotation.1.to_owned());
        }
    };
    let unsafe_to_evict = |shape: &mut Shape| {
        shape
            .annotations
            .insert("cluster-autoscaler.kubernetes.io/safe-to-evict".to_owned(), "false".to_owned());
    };
    let pinned = |shape: &mut Shape| {
        shape.node_selector.insert(HOSTNAME.to_owned(), "a-1".to_owned());
    };
    let cases: Vec<(&str, Cluster, i64, PassSettings, &[&str])> = vec![
        ("too early", busy(), 9, settings(), &[]),
        ("the empty ones", busy(), 10, settings(), &["a-1", "a-2"]),
        ("one at a time", busy(), 10, parallel(1), &["a-1"]),
        ("one is needed", busy().running("a-1", 2500, |_| {}), 10, settings(), &["a-2"]),
        ("no place to move", busy().running("a-1", 1500, pinned), 10, settings(), &["a-2"]),
        ("not safe to evict", busy().running("a-1", 100, unsafe_to_evict), 10, settings(), &["a-2"]),
        (
            "nobody makes it again",
            busy().running("a-1", 100, |pod| pod.owner = None),
            10,
            settings(),
            &["a-2"],
        ),
        ("its annotation", busy().with_node("a-1", keep("true")), 10, settings(), &["a-2"]),
        (
            "an exhausted budget",
            busy().running("a-1", 100, |pod| app(pod, "db")).budget("db", 0),
            10,
            settings(),
            &["a-2"],
        ),
        (
            "a budget with something left",
            busy().running("a-1", 100, |pod| app(pod, "db")).budget("db", 1),
            10,
            settings(),
            &["a-2", "a-1"],
        ),
    ];
    for (name, cluster, minute, settings, wanted) in cases {
        assert_eq!(goes(cluster, minute, &settings), wanted, "{name}");
    }
}

#[test]
fn a_group_keeps_its_minimum() {
    let cluster = Cluster::default().group("a", (2, 9), 3).group("b", (0, 9), 1);
    assert_eq!(goes(cluster, 10, &settings()), ["a-0", "b-0"]);
}

#[test]
fn a_node_that_waits_for_its_turn_uses_up_nothing() {
    let mut settings = settings();
    settings.scale_down.drain_parallelism = 1;
    let mut cluster = Cluster::default().group("a", (2, 9), 4).running("a-3", 3000, |_| {});
    for node in ["a-0", "a-1", "a-2"] {
        cluster = cluster.running(node, 100, |_| {});
    }
    let mut memory = Memory::default();
    cluster.pass(&mut memory, 0, &settings);
    let outcome = cluster.pass(&mut memory, 10, &settings);
    assert_eq!(removed(&outcome), ["a-0"]);
    let held = |unremovable: &&Unremovable| unremovable.reason == UnremovableReason::NodeGroupMinSizeReached;
    assert_eq!(outcome.unremovable.iter().find(held), None, "the group can spare another");
}

#[test]
fn nodes_whose_pods_go_one_after_another_come_last() {
    let two = |cluster: Cluster| {
        cluster.running("a-0", 100, |pod| app(pod, "db")).running("a-0", 100, |pod| app(pod, "db"))
    };
    let mut settings = settings();
    settings.scale_down.drain_parallelism = 1;
    let busy = two(three()).running("a-1", 200, |_| {}).running("a-2", 3000, |_| {});
    assert_eq!(goes(busy.clone().budget("db", 2), 10, &settings), ["a-0"]);
    assert_eq!(goes(busy.budget("db", 1), 10, &settings), ["a-1"]);
}

#[test]
fn the_least_used_go_first() {
    let mut settings = settings();
    settings.scale_down.drain_parallelism = 1;
    let cluster = three().running("a-0", 300, |_| {}).running("a-1", 100, |_| {}).running("a-2", 200, |_| {});
    assert_eq!(goes(cluster, 10, &settings), ["a-1"]);
}

#[test]
fn nothing_goes_right_after_a_group_grew() {
    let mut cluster = three().running("a-0", 3000, |_| {});
    let mut memory = Memory { grown: Some(at(5)), ..Memory::default() };
    cluster.pass(&mut memory, 0, &settings());
    let held = cluster.pass(&mut memory, 14, &settings());
    assert_eq!(removed(&held), [""; 0]);
    assert!(held.scale_down_held.is_some_and(|why| why.starts_with("a group grew")));
    assert_eq!(removed(&cluster.pass(&mut memory, 15, &settings())), ["a-1", "a-2"]);
}

#[test]
fn a_soft_taint_tells_a_new_process_since_when_a_node_is_not_needed() {
    let marked = |value: &str| {
        let taint = k8s_openapi::api::core::v1::Taint {
            key: DELETION_CANDIDATE.to_owned(),
            value: Some(value.to_owned()),
            effect: "PreferNoSchedule".to_owned(),
            time_added: None,
        };
        three().running("a-0", 3000, |_| {}).with_node("a-1", |node| node.taints.push(taint.clone()))
    };
    let first = |value: &str| {
        let outcome = marked(value).pass(&mut Memory::default(), 20, &settings());
        removed(&outcome).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(first("600"), ["a-1"], "marked ten minutes ago");
    assert_eq!(first("601"), [""; 0]);
    assert_eq!(first("long ago"), [""; 0], "what cannot be read begins anew");
    let busy = marked("600").running("a-1", 3000, |_| {}).pass(&mut Memory::default(), 20, &settings());
    assert!(busy.actions.contains(&Action::UnmarkCandidate { node: "a-1".into() }), "{:?}", busy.actions);
}

#[test]
fn a_groups_delay_may_be_its_own() {
    let mut settings = settings();
    settings.scale_down.delay_is_local = true;
    let mut cluster = Cluster::default().group("a", (0, 9), 2).group("b", (0, 9), 2);
    for (change, after) in [(Change::Grown, 10), (Change::Failed, 3)] {
        let mut memory = Memory::default();
        cluster.pass(&mut memory, 0, &settings);
        memory.note(change, "a", at(20));
        // What the next process reads.
        let written = serde_json::to_string(&memory).unwrap();
        let mut memory: Memory = serde_json::from_str(&written).unwrap();
        let outcome = cluster.pass(&mut memory.clone(), 19 + after, &settings);
        assert_eq!((removed(&outcome), &outcome.scale_down_held), (vec!["b-0", "b-1"], &None));
        let kept = outcome.unremovable.iter().find(|kept| &*kept.node == "a-0").unwrap();
        assert_eq!(kept.reason, UnremovableReason::NotUnneededOtherReason);
        assert!(kept.text.ends_with("ago"), "{}", kept.text);
        assert_eq!(removed(&cluster.pass(&mut memory, 20 + after, &settings)).len(), 4, "{change:?}");
    }
    settings.scale_down.delay_after_delete = SignedDuration::from_mins(7);
    settings.scale_down.parallelism = 1;
    let mut memory = Memory::default();
    let mut goes = |minute| {
        let gone: Vec<_> =
            removed(&cluster.pass(&mut memory, minute, &settings)).into_iter().map(str::to_owned).collect();
        gone.join(" ")
    };
    assert_eq!([0, 10, 11, 17].map(&mut goes), ["", "a-0", "b-0", "a-0"], "each group waits for itself");
}

/// A group of three that are there all or not at all.
fn whole() -> Cluster {
    let mut cluster = three();
    let group = &mut cluster.input.groups[0];
    (group.max, group.options.zero_or_max) = (3, true);
    cluster
}

#[test]
fn a_group_that_goes_as_a_whole_loses_no_part() {
    let parallel = |parallelism| {
        let mut settings = settings();
        settings.scale_down.parallelism = parallelism;
        settings
    };
    let all = ["a-0", "a-1", "a-2"];
    assert_eq!(goes(whole(), 10, &settings()), all);
    assert_eq!(goes(whole().running("a-1", 3000, |_| {}), 10, &settings()), [""; 0], "one is needed");
    assert_eq!(goes(whole(), 10, &parallel(2)), all, "alone it may go although it is too large");
    let with_another =
        Cluster { input: Input { removing: [("b-0".into(), false)].into(), ..whole().input }, ..whole() };
    assert_eq!(goes(with_another, 10, &parallel(3)), [""; 0], "another node goes");
    let mut kept = whole();
    kept.input.groups[0].min = 1;
    let mut memory = Memory::default();
    kept.pass(&mut memory, 0, &settings());
    let outcome = kept.pass(&mut memory, 10, &settings());
    assert_eq!(removed(&outcome), [""; 0], "its minimum is in the way");
    assert_eq!(outcome.unremovable.len(), 3);
}

#[test]
fn instances_that_are_none_go_down_to_the_minimum_or_below_if_forced() {
    let error = InstanceError { out_of_resources: true, code: "none left".into(), message: String::new() };
    let mut cluster = Cluster::default().group("a", (2, 9), 1);
    for (name, state) in [
        ("failed-0", InstanceState::Creating(Some(error.clone()))),
        ("failed-1", InstanceState::Creating(Some(error))),
        ("lost-0", InstanceState::Running),
    ] {
        cluster = cluster.instance("a", name, false);
        cluster.input.groups[0].instances.last_mut().unwrap().state = state;
    }
    for (force_failed, force_unregistered, wanted) in [
        (false, false, vec!["failed-0", "failed-1"]),
        (true, false, vec!["failed-0", "failed-1"]),
        (false, true, vec!["failed-0", "failed-1", "lost-0"]),
    ] {
        let mut settings = settings();
        settings.repair = RepairSettings { force_failed, force_unregistered };
        let mut memory = Memory::default();
        cluster.pass(&mut memory, 0, &settings);
        let outcome = cluster.pass(&mut memory, 16, &settings);
        let deleted = outcome.actions.iter().filter_map(|action| match action {
            Action::DeleteInstances { instances, .. } => Some(instances.iter().map(|it| &**it)),
            _ => None,
        });
        assert_eq!(deleted.flatten().collect::<Vec<_>>(), wanted, "{force_failed} {force_unregistered}");
    }
    cluster.input.groups[0].min = 4;
    let mut settings = settings();
    settings.repair.force_failed = true;
    let outcome = cluster.pass(&mut Memory::default(), 0, &settings);
    assert!(
        matches!(&outcome.actions[..], [Action::DeleteInstances { instances, .. }, ..] if instances.len() == 2)
    );
}

#[test]
fn a_node_that_is_needed_again_starts_anew() {
    let mut cluster = three().running("a-0", 3000, |_| {});
    let mut memory = Memory::default();
    cluster.pass(&mut memory, 0, &settings());
    let mut busy = cluster.clone().running("a-1", 3000, |_| {}).running("a-2", 3000, |_| {});
    busy.pass(&mut memory, 9, &settings());
    assert_eq!(removed(&cluster.pass(&mut memory, 11, &settings())), [""; 0]);
    assert_eq!(removed(&cluster.pass(&mut memory, 21, &settings())), ["a-1", "a-2"]);
}

#[test]
fn pods_are_not_sent_to_nodes_that_are_only_on_their_way() {
    // The one node there is holds a pod that would fit the node to come.
    let cluster = || Cluster::default().group("a", (0, 9), 1).running("a-0", 100, |_| {});
    assert_eq!(goes(cluster().instance("a", "a-new", false), 12, &settings()), [""; 0]);
    assert_eq!(goes(cluster().instance("a", "a-new", true), 12, &settings()), ["a-new"]);
}

#[test]
fn pods_that_would_move_to_a_node_keep_it() {
    let pinned = |shape: &mut Shape| {
        shape.node_selector.insert(GROUP.to_owned(), "a".to_owned());
    };
    let two = Cluster::default().group("a", (0, 9), 2).group("b", (0, 9), 1).running("b-0", 3000, |_| {});
    let cluster = two.clone().running("a-0", 100, pinned).running("a-1", 100, |_| {});
    assert_eq!(goes(cluster, 10, &settings()), ["a-0"]);
    assert_eq!(goes(two.waiting(1, 3000), 10, &settings()).len(), 1, "one is for the pod that waits");
}
