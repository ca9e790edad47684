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
    match protection(pod) {
        None | Some(Err(_)) => false,
        Some(Ok(Protection::Always)) => true,
        Some(Ok(Protection::For(period))) => {
            pod.started.is_none_or(|started| now.duration_since(started) < period)
        }
    }
}

/// What a pod says of its protection that means nothing, so that it has none.
pub fn unread_protection(pod: &Pod) -> Option<&str> {
    protection(pod)?.err()
}

enum Protection {
    Always,
    /// From its start.
    For(SignedDuration),
}

fn protection(pod: &Pod) -> Option<Result<Protection, &str>> {
    match pod.shape.annotations.get(DO_NOT_DISRUPT)?.as_str() {
        "true" => Some(Ok(Protection::Always)),
        text => Some(text.parse().map(Protection::For).map_err(|_| text)),
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
        for (said, after, wanted, is_read) in [
            ("true", 999, true, true),
            ("5m", 299, true, true),
            ("5m", 300, false, true),
            // Longer than there is time: from its start it would end after the last moment that can be told.
            ("99999999h", 300, true, true),
            ("soon", 0, false, false),
            ("false", 0, false, false),
        ] {
            let annotations = [(DO_NOT_DISRUPT.to_owned(), said.to_owned())].into();
            let shape = Arc::new(Shape::from(Traits { annotations, ..Traits::default() }));
            let pod = Pod { shape, started: Some(start), ..Pod::default() };
            assert_eq!(unread_protection(&pod), (!is_read).then_some(said));
            assert_eq!(
                is_protected(&pod, start + SignedDuration::from_secs(after)),
                wanted,
                "{said} {after}"
            );
        }
    }
}
