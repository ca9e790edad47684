//! How long nodes that may go stay nevertheless (Cluster Autoscaler, `core/scaledown/latencytracker`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use tandem_core::nodes::{
    action::Action,
    pass::{Outcome, UnremovableReason},
};

/// A node that is not needed.
#[derive(Debug)]
struct Tracked {
    /// It may go from then on.
    due: Timestamp,
    /// What last kept it.
    delay: Option<&'static str>,
}

/// A node that is no longer among those that are not needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Latency {
    /// Whether it is removed; it is needed again otherwise.
    pub deleted: bool,
    /// What last kept it, or `none`.
    pub delay_reason: &'static str,
    /// How long it might have gone, above zero.
    pub time: SignedDuration,
}

/// Nodes that are not needed, from pass to pass.
#[derive(Debug, Default)]
pub(super) struct Latencies(BTreeMap<Arc<str>, Tracked>);

impl Latencies {
    /// Looks at a pass; nodes that went, or are needed again, before they were due have no latency.
    pub(super) fn observe(&mut self, outcome: &Outcome, now: Timestamp) -> Vec<Latency> {
        for unneeded in &outcome.unneeded {
            let due = unneeded.since + unneeded.after;
            self.0.entry(unneeded.node.clone()).or_insert(Tracked { due, delay: None }).due = due;
        }
        for unremovable in outcome.unremovable.iter().filter(|unremovable| keeps(unremovable.reason)) {
            if let Some(tracked) = self.0.get_mut(&unremovable.node) {
                tracked.delay = Some(unremovable.reason.name());
            }
        }
        let removed: BTreeSet<_> = outcome.actions.iter().filter_map(removed).collect();
        let unneeded: BTreeSet<_> = outcome.unneeded.iter().map(|unneeded| &unneeded.node).collect();
        let ended = self.0.extract_if(.., |node, _| removed.contains(node) || !unneeded.contains(node)).map(
            |(node, Tracked { due, delay })| Latency {
                deleted: removed.contains(&node),
                delay_reason: delay.unwrap_or("none"),
                time: now.duration_since(due),
            },
        );
        ended.filter(|latency| latency.time.is_positive()).collect()
    }
}

fn removed(action: &Action) -> Option<&Arc<str>> {
    match action {
        Action::Remove(removal) => Some(&removal.node),
        _ => None,
    }
}

/// Whether a reason keeps a node that might go; that its time has not come yet does not.
fn keeps(reason: UnremovableReason) -> bool {
    !matches!(reason, UnremovableReason::NotUnneededLongEnough | UnremovableReason::NotUnreadyLongEnough)
}

#[cfg(test)]
mod tests {
    use tandem_core::nodes::{
        action::{Removal, RemovalCause},
        drain::Verdict,
        pass::{Unneeded, Unremovable},
    };

    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes)
    }

    /// Not needed since the beginning, and due after ten minutes.
    fn unneeded(node: &str) -> Unneeded {
        Unneeded {
            node: node.into(),
            group: "group".into(),
            since: at(0),
            after: SignedDuration::from_mins(10),
            verdict: Verdict::default(),
            utilization: 0.0,
            ready: true,
            in_turn: false,
        }
    }

    fn stays(node: &str, reason: UnremovableReason) -> Unremovable {
        Unremovable { node: node.into(), reason, text: String::new() }
    }

    fn removal(node: &str) -> Action {
        Action::Remove(Removal {
            node: node.into(),
            provider_id: node.into(),
            group: "group".into(),
            pods: Vec::new(),
            daemon_pods: Vec::new(),
            cause: RemovalCause::Empty,
            utilization: 0.0,
        })
    }

    #[test]
    fn a_node_is_late_from_the_time_it_might_go_to_the_time_it_goes_or_is_needed_again() {
        use UnremovableReason::{NodeGroupMinSizeReached, NotUnneededLongEnough};
        let mut latencies = Latencies::default();
        let mut pass = |minutes, unneeded: &[Unneeded], unremovable: &[Unremovable], actions: &[Action]| {
            let outcome = Outcome {
                unneeded: unneeded.to_vec(),
                unremovable: unremovable.to_vec(),
                actions: actions.to_vec(),
                ..Outcome::default()
            };
            latencies.observe(&outcome, at(minutes))
        };
        let all = ["early", "goes", "kept"].map(unneeded);
        let waits = [stays("goes", NotUnneededLongEnough), stays("kept", NodeGroupMinSizeReached)];
        assert_eq!(pass(1, &all, &waits, &[]), []);
        assert_eq!(pass(5, &all[1..], &[], &[]), [], "early is needed again before it was due");
        let went = Latency { deleted: true, delay_reason: "none", time: SignedDuration::from_mins(2) };
        assert_eq!(pass(12, &all[1..], &[], &[removal("goes")]), [went]);
        let needed = Latency {
            deleted: false,
            delay_reason: "NodeGroupMinSizeReached",
            time: SignedDuration::from_mins(5),
        };
        assert_eq!(pass(15, &[], &[], &[]), [needed]);
        assert_eq!(pass(16, &[], &[], &[]), [], "each is told once");
    }
}
