//! Events of notices: Karpenter's reasons on NodeClaims, aws-node-termination-handler's on nodes that are no pool's.
//!
//! Source: karpenter-provider-aws, `pkg/controllers/interruption/events`; aws-node-termination-handler,
//! `pkg/observability/k8s-events.go`.

use super::{Home, Kind, State};
use crate::pods::reasons::Event;

/// Every reason: its types and when it is given. The documentation is written from this table.
pub const EVENTS: &[(&str, &str, &str)] = &[
    ("SpotInterrupted", "Warning", "on a NodeClaim: EC2 takes its spot machine back in two minutes"),
    ("SpotRebalanceRecommendation", "Warning", "on a NodeClaim: EC2 is likely to take its spot machine back"),
    ("InstanceUnhealthy", "Warning", "on a NodeClaim: EC2 announced maintenance"),
    ("InstanceStopping", "Warning", "on a NodeClaim: its machine stops or has stopped"),
    ("InstanceTerminating", "Warning", "on a NodeClaim: its machine ends or has ended"),
    (
        "CapacityReservationInstanceInterrupted",
        "Warning",
        "on a NodeClaim or a node: the capacity reservation of its machine is taken back",
    ),
    ("SpotInterruption", "Normal", "on a node: EC2 takes its spot machine back in two minutes"),
    ("RebalanceRecommendation", "Normal", "on a node: EC2 is likely to take its spot machine back"),
    ("ScheduledEvent", "Normal", "on a node: EC2 announced maintenance"),
    ("StateChange", "Normal", "on a node: its machine stops or ends, or has"),
    (
        "ASGLifecycle",
        "Warning",
        "on a NodeClaim: its Auto Scaling group ends the machine, and a hook holds it",
    ),
    ("ASGLifecycle", "Normal", "on a node: its Auto Scaling group ends the machine, and a hook holds it"),
    ("PreDrain", "Normal", "on a node: the taint that says why it goes is on it"),
    ("Cordon", "Normal", "on a node: it takes no more pods (CORDON_ONLY)"),
    ("CordonError", "Warning", "on a node: it could not be cordoned (CORDON_ONLY)"),
    ("CordonAndDrain", "Normal", "on a node: it takes no more pods, and its pods are gone"),
    (
        "PostDrain",
        "Normal",
        "on a node: the notice is dealt with, and a hook that held its machine was told that it may end",
    ),
    ("PostDrainError", "Warning", "on a node: the hook could not be told, and why"),
    ("MonitorError", "Warning", "on the pod of Tandem: the queue of notices cannot be read, and why"),
    ("TerminatingOnInterruption", "Warning", "on a NodeClaim: it is deleted because of a notice"),
    (
        "CordonAndDrainError",
        "Warning",
        "on a node: it could not be cordoned, or pods are still there, each with the reason",
    ),
];

/// What a notice says of a node. One that is no pool's hears of it as something normal, as the handler has it.
pub fn noticed(kind: &Kind, home: Home) -> Event {
    let (reason, message) = match (kind, home) {
        (Kind::SpotInterruption, Home::Pool) => {
            ("SpotInterrupted", "Spot interruption warning was triggered")
        }
        (Kind::SpotInterruption, Home::Other) => {
            ("SpotInterruption", "EC2 takes the spot capacity back in two minutes")
        }
        (Kind::RebalanceRecommendation, Home::Pool) => {
            ("SpotRebalanceRecommendation", "Spot rebalance recommendation was triggered")
        }
        (Kind::RebalanceRecommendation, Home::Other) => {
            ("RebalanceRecommendation", "EC2 is likely to take the spot capacity back")
        }
        (Kind::ScheduledChange, Home::Pool) => ("InstanceUnhealthy", "EC2 announced maintenance"),
        (Kind::ScheduledChange, Home::Other) => ("ScheduledEvent", "EC2 announced maintenance"),
        (Kind::StateChange(State::Stopping | State::Stopped), Home::Pool) => {
            ("InstanceStopping", "Instance is stopping")
        }
        (Kind::StateChange(_), Home::Pool) => ("InstanceTerminating", "Instance is terminating"),
        (Kind::StateChange(_), Home::Other) => ("StateChange", "the machine is stopping or ending"),
        (Kind::TerminateHook(_), _) => ("ASGLifecycle", "the Auto Scaling group ends the machine"),
        (Kind::ReservationInterruption, _) => {
            ("CapacityReservationInstanceInterrupted", "EC2 takes the capacity reservation back")
        }
    };
    let is_handlers = home == Home::Other && *kind != Kind::ReservationInterruption;
    let type_ = if is_handlers { "Normal" } else { "Warning" };
    Event { type_, reason, message: message.to_owned() }
}

/// A node has the taint that says why it goes.
pub fn tainted() -> Event {
    let message = "Pre-drain task successfully executed".to_owned();
    Event { type_: "Normal", reason: "PreDrain", message }
}

/// A node takes no more pods, and has none any more unless they were to stay.
pub fn emptied(evicted: bool) -> Event {
    let (reason, message) = if evicted {
        ("CordonAndDrain", "Node successfully cordoned and drained")
    } else {
        ("Cordon", "Node successfully cordoned")
    };
    Event { type_: "Normal", reason, message: message.to_owned() }
}

/// A node could not be tainted and cordoned, or pods are still there.
pub fn not_emptied(evict: bool, problem: &str) -> Event {
    let (reason, what) =
        if evict { ("CordonAndDrainError", "cordon and drain") } else { ("CordonError", "cordon") };
    let message = format!("There was a problem while trying to {what} the node: {problem}");
    Event { type_: "Warning", reason, message }
}

/// A notice is dealt with: where a hook held the machine it was told that it may end, or could not be.
pub fn let_go(problem: Option<&str>) -> Event {
    match problem {
        None => {
            let message = "Post-drain task successfully executed".to_owned();
            Event { type_: "Normal", reason: "PostDrain", message }
        }
        Some(problem) => {
            let message = format!("There was a problem executing the post-drain task: {problem}");
            Event { type_: "Warning", reason: "PostDrainError", message }
        }
    }
}

/// On the pod of this process: the queue cannot be read.
pub fn not_read(queue: &str, error: &str) -> Event {
    let message = format!("notices of interruptions cannot be read from {queue}: {error}");
    Event { type_: "Warning", reason: "MonitorError", message }
}

/// On a NodeClaim: it goes.
pub fn terminating() -> Event {
    let message = "Interruption triggered termination for the NodeClaim".to_owned();
    Event { type_: "Warning", reason: "TerminatingOnInterruption", message }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::nodes::interruption::Hook;

    #[test]
    fn every_reason_is_listed_with_its_type_and_no_other_is() {
        let hook = Hook { group: String::new(), name: String::new(), token: String::new() };
        let kinds = [
            Kind::SpotInterruption,
            Kind::RebalanceRecommendation,
            Kind::ScheduledChange,
            Kind::StateChange(State::Stopping),
            Kind::StateChange(State::Terminated),
            Kind::TerminateHook(hook),
            Kind::ReservationInterruption,
        ];
        let noticed = kinds.iter().flat_map(|kind| [Home::Pool, Home::Other].map(|home| noticed(kind, home)));
        let done = [emptied(true), emptied(false), not_emptied(false, "no"), not_emptied(true, "a: no")];
        let done = done.into_iter().chain([not_read("queue", "no"), terminating()]);
        let done = done.chain([let_go(None), let_go(Some("no")), tainted()]);
        let given: BTreeSet<_> = noticed.chain(done).map(|event| (event.reason, event.type_)).collect();
        let listed: BTreeSet<_> = EVENTS.iter().map(|(reason, type_, _)| (*reason, *type_)).collect();
        assert_eq!(given, listed);
    }
}
