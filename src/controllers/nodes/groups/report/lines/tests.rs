use tandem_core::{
    nodes::{
        action::{Increase, Removal, RemovalCause},
        backoff::BackoffSettings,
        cluster_state::Expired,
        drain::{BlockingReason, Verdict},
        group::{GroupOptions, InstanceError},
        pass::{Refusal, Unneeded},
    },
    scheduling::Pod,
};

use super::*;

/// Minutes after the beginning.
fn at(minutes: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes)
}

/// Fifteen minutes after the beginning, a group failed five minutes ago.
fn memory() -> Memory {
    let minutes = SignedDuration::from_mins;
    let backoff = BackoffSettings { first: minutes(10), longest: minutes(30), forgotten: minutes(180) };
    let mut memory = Memory::default();
    memory.grown = Some(at(3));
    memory.cluster.backoffs.fail("late", "timeout", "nobody came", at(10), backoff);
    memory
}

fn said(outcome: &Outcome, shrinks: bool) -> Vec<String> {
    let group = NodeGroup {
        id: "full".into(),
        min: 3,
        max: 9,
        target: 3,
        instances: Vec::new(),
        options: GroupOptions::default(),
    };
    let (memory, recheck) = (memory(), SignedDuration::from_mins(5));
    let told = Told { outcome, memory: &memory, groups: &[group], shrinks, recheck, now: at(15) };
    let mut lines = Vec::new();
    told.lines(&mut |level, text| lines.push(format!("{level} {text}")));
    lines
}

/// A pass over a cluster that works.
fn outcome() -> Outcome {
    let mut outcome = Outcome::default();
    outcome.found.healthy = true;
    outcome
}

#[test]
fn pods_and_groups_are_told_in_the_words_that_users_know() {
    let mut outcome = outcome();
    outcome.found.expired =
        vec![Expired { group: "late".into(), nodes: 2, waited: SignedDuration::from_secs(905) }];
    let error = InstanceError { out_of_resources: true, code: "None".to_owned(), message: String::new() };
    outcome.found.failures = vec![("late".into(), 1, error)];
    outcome.found.fulfilled = vec![("full".into(), SignedDuration::from_millis(61_500))];
    let pods: Vec<_> = (0..22)
        .map(|number| Arc::new(Pod { name: format!("web-{number}").into(), ..Pod::default() }))
        .collect();
    let refusal = |group: &str, reason: &str| Refusal { group: group.into(), reason: reason.to_owned() };
    let refusals = [
        refusal("full", MAX_SIZE_REACHED),
        refusal("late", BACKED_OFF),
        refusal("small", "Insufficient cpu"),
    ];
    outcome.plan.refused = vec![(pods[0].clone(), refusals.into())];
    outcome.plan.splits = vec![vec!["a".into(), "b".into()]];
    outcome.plan.increases = vec![Increase { group: "a".into(), from: 1, to: 2, max: 9 }];
    (outcome.unschedulable, outcome.fitting, outcome.upcoming) = (pods, 2, 1);
    outcome.max_nodes_reached = Some(9);
    let lines = said(&outcome, false);
    let (first, rest) = lines.split_at(4);
    assert_eq!(
        first,
        [
            "WARN Scale-up timed out for node group late after 15m5s",
            "WARN Disabling scale-up for node group late until 1970-01-01 00:20:00 +0000 UTC; errorClass=Other; errorCode=timeout",
            "WARN Disabling scale-up for node group late until 1970-01-01 00:20:00 +0000 UTC; errorClass=OutOfResource; errorCode=timeout",
            "INFO Scale up in group full finished successfully in 1m1.5s",
        ]
    );
    assert_eq!(rest[0], "INFO Pod /web-0 is unschedulable");
    assert_eq!(
        rest[20..],
        [
            "INFO 2 other pods are also unschedulable",
            "INFO 2 pods marked as unschedulable can be scheduled.",
            "INFO Upcoming 1 nodes",
            "DEBUG Skipping node group full - max size reached",
            "WARN Node group late is not ready for scaleup - backoff with status: timeout: nobody came",
            "DEBUG Pod /web-0 can't be scheduled on full, predicate checking error: max node group size reached",
            "DEBUG Pod /web-0 can't be scheduled on late, predicate checking error: in backoff after failed scale-up",
            "DEBUG Pod /web-0 can't be scheduled on small, predicate checking error: Insufficient cpu",
            "INFO Splitting scale-up between 2 similar node groups: {a, b}",
            "INFO Capping size to max cluster total size (9)",
            "INFO Final scale-up plan: [{a 1->2 (max: 9)}]",
        ]
    );
    outcome.plan.increases.clear();
    assert_eq!(said(&outcome, false).last().map(String::as_str), Some("INFO No expansion options"));
}

#[test]
fn nodes_are_told_in_the_words_that_users_know() {
    let mut outcome = outcome();
    let idle = |node: &str| Unneeded {
        node: node.into(),
        group: "full".into(),
        since: at(4),
        after: SignedDuration::from_mins(10),
        verdict: Verdict::default(),
        utilization: 0.0,
        ready: true,
        in_turn: false,
    };
    outcome.unneeded = vec![idle("gone"), idle("last")];
    outcome.actions = vec![Action::Remove(Removal {
        node: "gone".into(),
        provider_id: "gone".into(),
        group: "full".into(),
        pods: Vec::new(),
        daemon_pods: Vec::new(),
        cause: RemovalCause::Empty,
        utilization: 0.0,
    })];
    let stays =
        |node: &str, reason, text: &str| Unremovable { node: node.into(), reason, text: text.to_owned() };
    let busy = "cpu requested (62.5% of allocatable) is above the scale-down utilization threshold";
    outcome.unremovable = vec![
        stays("busy", UnremovableReason::NotUnderutilized, busy),
        stays("last", UnremovableReason::NodeGroupMinSizeReached, "group full has its minimum size"),
        stays(
            "held",
            UnremovableReason::BlockedByPod(BlockingReason::NotReplicated),
            "nobody makes it again",
        ),
        stays("home", UnremovableReason::NoPlaceToMovePods, "pod a/b fits on no other node"),
        stays("again", UnremovableReason::RecentlyUnremovable, "it could not be removed"),
    ];
    let lines = [
        "DEBUG No unschedulable pods",
        "DEBUG Scale down status: lastScaleUpTime=1970-01-01 00:03:00 +0000 UTC lastScaleDownDeleteTime=0001-01-01 00:00:00 +0000 UTC lastScaleDownFailTime=0001-01-01 00:00:00 +0000 UTC scaleDownForbidden=false scaleDownInCooldown=false",
        "DEBUG Simulating node gone removal",
        "DEBUG Node gone may be removed",
        "INFO gone is unneeded since 1970-01-01 00:04:00 +0000 UTC duration 11m0s",
        "DEBUG Simulating node last removal",
        "DEBUG Node last may be removed",
        "INFO last is unneeded since 1970-01-01 00:04:00 +0000 UTC duration 11m0s",
        "DEBUG Starting scale down",
        "INFO gone was unneeded for 11m0s",
        "DEBUG Node busy unremovable: cpu requested (62.5% of allocatable) is above the scale-down utilization threshold",
        "DEBUG Skipping last - node group min size reached (current: 3, min: 3)",
        "DEBUG Simulating node held removal",
        "DEBUG Node held cannot be removed: nobody makes it again",
        "DEBUG Simulating node home removal",
        "DEBUG Node home is not suitable for removal: pod a/b fits on no other node",
        "DEBUG Scale-down calculation: ignoring 1 nodes unremovable in the last 5m0s",
        "INFO 2 nodes found to be unremovable in simulation, will re-check them at 1970-01-01 00:20:00 +0000 UTC",
    ];
    assert_eq!(said(&outcome, true), lines);
    assert_eq!(said(&outcome, false), lines[..1], "nothing is said of what is not looked at");
}

#[test]
fn an_event_is_logged_as_client_go_logs_it() {
    let pod = ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: Some("default".to_owned()),
        name: Some("web".to_owned()),
        uid: Some("7".to_owned()),
        api_version: Some("v1".to_owned()),
        ..ObjectReference::default()
    };
    let increase = Increase { group: "a".into(), from: 4, to: 5, max: 8 };
    assert_eq!(
        event(&pod, &reasons::triggered_scale_up(&[increase])),
        r#"Event(v1.ObjectReference{Kind:"Pod", Namespace:"default", Name:"web", UID:"7", APIVersion:"v1", ResourceVersion:"", FieldPath:""}): type: 'Normal' reason: 'TriggeredScaleUp' pod triggered scale-up: [{a 4->5 (max: 8)}]"#
    );
}
