//! Which pods need nodes, which would have to move, and which say that they will not (core, `pkg/utils/pod/scheduling.go`).

use jiff::{SignedDuration, Timestamp};

use super::names::DO_NOT_DISRUPT;
use crate::scheduling::{Pod, pod::Scheduled};

/// Whether a pod waits for a node that new nodes could help.
pub fn is_provisionable(pod: &Pod) -> bool {
    matches!(pod.scheduled, Scheduled::Unschedulable(_))
        && pod.node.is_none()
        && pod.nominated.is_none()
        && moves(pod)
}

/// Whether a pod would be made again elsewhere if its node went.
pub fn moves(pod: &Pod) -> bool {
    pod.deleting.is_none()
        && !pod.is_terminal()
        && !pod.is_of_daemon_set()
        && !pod.is_mirror()
        && !is_of_node(pod)
}

fn is_of_node(pod: &Pod) -> bool {
    pod.shape.owner.as_ref().is_some_and(|owner| &*owner.kind == "Node")
}

/// Whether a pod says that it is not to be disrupted: always, or for so long from its start.
pub fn is_protected(pod: &Pod, now: Timestamp) -> bool {
    match pod.shape.annotations.get(DO_NOT_DISRUPT).map(String::as_str) {
        None => false,
        Some("true") => true,
        Some(text) => text
            .parse::<SignedDuration>()
            .is_ok_and(|period| pod.started.is_none_or(|started| now.duration_since(started) < period)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::scheduling::pod::{Shape, Traits};

    #[test]
    fn protection_may_end() {
        let start = Timestamp::UNIX_EPOCH;
        for (said, after, wanted) in [
            ("true", 999, true),
            ("5m", 299, true),
            ("5m", 300, false),
            // Longer than there is time: from its start it would end after the last moment that can be told.
            ("99999999h", 300, true),
            ("soon", 0, false),
            ("false", 0, false),
        ] {
            let annotations = [(DO_NOT_DISRUPT.to_owned(), said.to_owned())].into();
            let shape = Arc::new(Shape::from(Traits { annotations, ..Traits::default() }));
            let pod = Pod { shape, started: Some(start), ..Pod::default() };
            assert_eq!(
                is_protected(&pod, start + SignedDuration::from_secs(after)),
                wanted,
                "{said} {after}"
            );
        }
    }
}
