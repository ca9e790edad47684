use proptest::prelude::*;

use super::*;

const SPOT: &str = r#"{"version": "0", "id": "1e5527d7", "detail-type": "EC2 Spot Instance Interruption Warning",
    "source": "aws.ec2", "account": "123456789012", "time": "2022-02-11T14:54:40Z", "region": "us-east-2",
    "resources": ["arn:aws:ec2:us-east-2:123456789012:instance/i-0b662ef9931388ba0"],
    "detail": {"instance-id": "i-0b662ef9931388ba0", "instance-action": "terminate"}}"#;

fn of_ec2(kind: &str, detail: &str) -> String {
    format!(
        r#"{{"id": "1", "source": "aws.ec2", "detail-type": "{kind}", "detail": {{"instance-id": "i-1"{detail}}}}}"#
    )
}

const HEALTH: &str = r#"{"id": "2", "detail-type": "AWS Health Event", "source": "aws.health", "time": "2021-06-04T00:00:00Z",
    "detail": {"service": "EC2", "eventTypeCategory": "scheduledChange", "eventTypeCode": "AWS_EC2_PERSISTENT_INSTANCE_RETIREMENT_SCHEDULED",
    "startTime": "Sat, 05 Jun 2021 15:10:09 GMT", "affectedEntities": [{"entityValue": "i-1"}, {"entityValue": "vol-1"}, {"entityValue": "i-2"}]}}"#;

const HOOK: &str = r#"{"LifecycleHookName": "drain", "AccountId": "1", "RequestId": "r", "AutoScalingGroupName": "web",
    "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING", "Service": "AWS Auto Scaling", "Time": "2021-06-04T00:00:00Z",
    "EC2InstanceId": "i-1", "LifecycleActionToken": "t"}"#;

fn hook() -> Kind {
    Kind::TerminateHook(Hook { group: "web".to_owned(), name: "drain".to_owned(), token: "t".to_owned() })
}

fn notice(body: &str) -> Notice {
    match parse(body) {
        Ok(Message::Notice(notice)) => notice,
        other => panic!("{body}: {other:?}"),
    }
}

#[test]
fn notices_are_read() {
    let state =
        |state: &str| of_ec2("EC2 Instance State-change Notification", &format!(r#", "state": "{state}""#));
    let through_event_bridge = format!(
        r#"{{"id": "3", "source": "aws.autoscaling", "detail-type": "EC2 Instance-terminate Lifecycle Action", "detail": {HOOK}}}"#
    );
    for (body, kind, machines) in [
        (SPOT.to_owned(), Kind::SpotInterruption, vec!["i-0b662ef9931388ba0"]),
        (of_ec2("EC2 Instance Rebalance Recommendation", ""), Kind::RebalanceRecommendation, vec!["i-1"]),
        (
            of_ec2("EC2 Capacity Reservation Instance Interruption Warning", ""),
            Kind::ReservationInterruption,
            vec!["i-1"],
        ),
        (state("stopping"), Kind::StateChange(State::Stopping), vec!["i-1"]),
        (state("stopped"), Kind::StateChange(State::Stopped), vec!["i-1"]),
        (state("shutting-down"), Kind::StateChange(State::ShuttingDown), vec!["i-1"]),
        (state("terminated"), Kind::StateChange(State::Terminated), vec!["i-1"]),
        (HEALTH.to_owned(), Kind::ScheduledChange, vec!["i-1", "i-2"]),
        (through_event_bridge, hook(), vec!["i-1"]),
        (HOOK.to_owned(), hook(), vec!["i-1"]),
        // Through a topic.
        (
            serde_json::json!({"Type": "Notification", "Message": SPOT}).to_string(),
            Kind::SpotInterruption,
            vec!["i-0b662ef9931388ba0"],
        ),
    ] {
        let notice = notice(&body);
        assert_eq!(
            (notice.kind, notice.machines),
            (kind, machines.into_iter().map(str::to_owned).collect()),
            "{body}"
        );
        assert!(!notice.id.is_empty(), "{body}");
    }
    let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
    assert_eq!(notice(SPOT).deadline(), at("2022-02-11T14:56:40Z"));
    assert_eq!(notice(HEALTH).deadline(), at("2021-06-05T15:10:09Z"));
    assert_eq!(notice(HOOK).deadline(), None);
}

#[test]
fn what_is_no_notice_is_told_apart() {
    for (body, wanted) in [
        (
            r#"{"Event": "autoscaling:TEST_NOTIFICATION", "AutoScalingGroupName": "web"}"#.to_owned(),
            "test notification",
        ),
        (
            of_ec2("EC2 Instance State-change Notification", r#", "state": "running""#),
            "EC2 Instance State-change Notification (running)",
        ),
        (HEALTH.replace("scheduledChange", "issue"), "AWS Health Event"),
        (HOOK.replace("TERMINATING", "LAUNCHING"), "lifecycle action (autoscaling:EC2_INSTANCE_LAUNCHING)"),
        (of_ec2("Something new", ""), "Something new"),
    ] {
        assert_eq!(parse(&body), Ok(Message::Other(wanted.to_owned())), "{body}");
    }
    for (body, wanted) in [
        (
            "garbage".to_owned(),
            "the message is no event of EventBridge or Auto Scaling: expected value at line 1 column 1",
        ),
        (
            "{}".to_owned(),
            "the message is no event of EventBridge or Auto Scaling: it has neither detail-type nor LifecycleTransition",
        ),
        (
            SPOT.replace("instance-id", "id-of"),
            r#"the event "EC2 Spot Instance Interruption Warning" has no instance-id"#,
        ),
        (HOOK.replace("EC2InstanceId", "x"), r#"the event "lifecycle action" has no EC2InstanceId"#),
        (
            HEALTH.replace("\"i-", "\"x-"),
            r#"the event "AWS Health Event" has no affectedEntities with an instance"#,
        ),
    ] {
        assert_eq!(parse(&body).unwrap_err().to_string(), wanted, "{body}");
    }
}

#[test]
fn what_is_done_follows_from_whose_a_node_is_and_the_settings() {
    let all = Settings::default();
    let none = Settings { spot: false, scheduled: false, rebalance: Some(false), hooks: false, ..all };
    let empty = |taint| Verdict::Empty { taint, evict: true };
    let change = Kind::StateChange(State::Stopping);
    for (kind, settings, pool, other) in [
        (Kind::SpotInterruption, all, Verdict::DeleteClaim, empty(Some(SPOT_TAINT))),
        (hook(), all, Verdict::DeleteClaim, empty(Some(HOOK_TAINT))),
        (change.clone(), none, Verdict::DeleteClaim, empty(None)),
        (
            Kind::RebalanceRecommendation,
            all,
            Verdict::Leave("a recommendation alone does not end nodes of pools"),
            empty(Some(REBALANCE_TAINT)),
        ),
        (
            Kind::RebalanceRecommendation,
            Settings { rebalance: Some(true), taint: false, ..all },
            Verdict::DeleteClaim,
            empty(None),
        ),
        (
            change,
            Settings { cordon_only: true, ..all },
            Verdict::DeleteClaim,
            Verdict::Empty { taint: None, evict: false },
        ),
    ] {
        assert_eq!(decide(&kind, Home::Pool, &settings), pool, "{kind:?}");
        assert_eq!(decide(&kind, Home::Other, &settings), other, "{kind:?}");
    }
    for kind in [Kind::SpotInterruption, Kind::ScheduledChange, Kind::RebalanceRecommendation, hook()] {
        assert!(matches!(decide(&kind, Home::Other, &none), Verdict::Leave(_)), "{kind:?}");
    }
}

#[test]
fn a_group_replaces_what_is_taken_and_what_it_ends() {
    let plain = GroupOptions::default();
    let rebalancing = GroupOptions { rebalances: true, ..plain.clone() };
    for (taint, by_any, by_rebalancing) in [
        (SPOT_TAINT, true, true),
        (HOOK_TAINT, true, true),
        (REBALANCE_TAINT, false, true),
        ("aws-node-termination-handler/scheduled-maintenance", false, false),
    ] {
        assert_eq!((is_replaced(taint, &plain), is_replaced(taint, &rebalancing)), (by_any, by_rebalancing));
    }
}

proptest! {
    /// Whatever a queue holds, it is read or refused.
    #[test]
    fn nothing_breaks_the_reader(body in "\\PC*") {
        let _ = parse(&body);
    }
}
