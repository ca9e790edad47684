//! Which pods leave a node, and in what order (core, `pkg/controllers/node/termination/terminator`).

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tandem_core::{
    nodes::pools::pods::is_protected,
    scheduling::{Pod, taints::tolerates},
};

use super::{super::names::disrupted, Waiting};

/// A pod that should have been gone for so long is not waited for.
const STUCK: SignedDuration = SignedDuration::from_mins(1);
/// The priority of `system-cluster-critical`; that of `system-node-critical` is above it.
const CRITICAL: i32 = 2_000_000_000;

/// The pods that have to be gone before the machine goes.
pub(super) fn waiting(mut pods: Waiting, now: Timestamp) -> Waiting {
    let taint = disrupted();
    pods.retain(|pod| {
        let stays = pod.shape.tolerations.iter().any(|toleration| tolerates(toleration, &taint));
        let is_stuck = pod.deleting.is_some_and(|gone_by| gone_by + STUCK < now);
        !stays && !is_stuck && !pod.is_mirror() && !pod.is_terminal()
    });
    pods
}

/// Those whose turn it is: what serves others goes after those it serves.
pub(super) fn turn(waiting: &[Arc<Pod>]) -> Waiting {
    let rank = |pod: &Arc<Pod>| {
        let is_critical = pod.shape.priority.is_some_and(|priority| priority >= CRITICAL);
        (is_critical, pod.is_of_daemon_set())
    };
    let first = waiting.iter().map(rank).min();
    waiting.iter().filter(|pod| Some(rank(pod)) == first).cloned().collect()
}

/// Whether a pod may be evicted; one that is not to be disrupted is waited for.
pub(super) fn may_be_evicted(pod: &Pod, now: Timestamp) -> bool {
    !is_protected(pod, now)
}

/// Whether a pod, asked to stop now, would outlive its node, and has not been asked before.
pub(super) fn overruns(pod: &Pod, deadline: Timestamp, now: Timestamp) -> bool {
    let grace = SignedDuration::from_secs(pod.shape.grace_seconds);
    grace >= deadline.duration_since(now) && pod.deleting.is_none_or(|gone_by| gone_by > deadline)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Toleration;
    use tandem_core::scheduling::pod::{Owner, Shape, Traits};

    use super::*;

    fn pod(name: &str, priority: i32, kind: &str) -> Arc<Pod> {
        let owner =
            Owner { kind: kind.into(), name: "o".into(), uid: "u".into(), api_version: "apps/v1".into() };
        let shape = Shape::from(Traits {
            priority: Some(priority),
            owner: Some(owner),
            grace_seconds: 30,
            ..Traits::default()
        });
        Arc::new(Pod { name: name.into(), shape: Arc::new(shape), ..Pod::default() })
    }

    #[test]
    fn what_serves_others_goes_last() {
        let mut left = vec![
            pod("dns", CRITICAL, "ReplicaSet"),
            pod("proxy", CRITICAL + 1000, "DaemonSet"),
            pod("logs", 0, "DaemonSet"),
            pod("web", 0, "ReplicaSet"),
        ];
        let mut order = Vec::new();
        while !left.is_empty() {
            let names: Vec<_> = turn(&left).iter().map(|pod| pod.name.to_string()).collect();
            left.retain(|pod| !names.contains(&pod.name.to_string()));
            order.push(names.join(","));
        }
        assert_eq!(order, ["web", "logs", "dns", "proxy"]);
    }

    #[test]
    fn who_tolerates_the_taint_stays() {
        let everything = Toleration { operator: Some("Exists".to_owned()), ..Toleration::default() };
        let mut stays = (*pod("stays", 0, "DaemonSet")).clone();
        Arc::make_mut(&mut stays.shape).tolerations = vec![everything];
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(61);
        let mut stuck = (*pod("stuck", 0, "ReplicaSet")).clone();
        stuck.deleting = Some(Timestamp::UNIX_EPOCH);
        let pods = vec![Arc::new(stays), Arc::new(stuck), pod("goes", 0, "ReplicaSet")];
        let names: Vec<_> = waiting(pods, now).iter().map(|pod| pod.name.to_string()).collect();
        assert_eq!(names, ["goes"]);
    }

    #[test]
    fn a_pod_is_deleted_when_its_grace_period_would_overrun() {
        let now = Timestamp::UNIX_EPOCH;
        let in_seconds = |seconds| now + SignedDuration::from_secs(seconds);
        let mut pod = (*pod("p", 0, "ReplicaSet")).clone();
        assert!(!overruns(&pod, in_seconds(31), now));
        assert!(overruns(&pod, in_seconds(30), now));
        pod.deleting = Some(in_seconds(20));
        assert!(!overruns(&pod, in_seconds(25), now), "it stops in time already");
        pod.deleting = Some(in_seconds(26));
        assert!(overruns(&pod, in_seconds(25), now));
        Arc::make_mut(&mut pod.shape).grace_seconds = i64::MAX;
        assert!(overruns(&pod, in_seconds(25), now), "a grace period may be longer than there is time");
    }
}
