//! Events of the node loop: Cluster Autoscaler's reasons and messages.
//!
//! Source: Cluster Autoscaler, `processors/status`, `core/scaledown/status`, `clusterstate`.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::{
    action::{Increase, InstanceFault},
    group::InstanceError,
    pass::Refusal,
    printed::duration,
};
use crate::pods::reasons::Event;

const NORMAL: &str = "Normal";
const WARNING: &str = "Warning";

/// A pod had a group grow.
pub const TRIGGERED_SCALE_UP: &str = "TriggeredScaleUp";
/// No group can help a pod.
pub const NOT_TRIGGER_SCALE_UP: &str = "NotTriggerScaleUp";
/// A node is removed, or a pod with it.
pub const SCALE_DOWN: &str = "ScaleDown";
/// A node that runs nothing is removed.
pub const SCALE_DOWN_EMPTY: &str = "ScaleDownEmpty";
/// A node could not be removed.
pub const SCALE_DOWN_FAILED: &str = "ScaleDownFailed";
/// A group grows.
pub const SCALED_UP_GROUP: &str = "ScaledUpGroup";
/// A group could not grow.
pub const FAILED_TO_SCALE_UP_GROUP: &str = "FailedToScaleUpGroup";
/// Nodes did not come in time.
pub const SCALE_UP_TIMED_OUT: &str = "ScaleUpTimedOut";
/// A target that nothing stands behind could not be lowered.
pub const FAILED_TO_REVERT_SCALE_UP: &str = "FailedToRevertScaleUp";
/// The provider, or one of its groups, cannot be read (no reason of Cluster Autoscaler).
pub const PROVIDER_PROBLEM: &str = "ProviderProblem";
/// The provider could not make nodes.
pub const SCALE_UP_FAILED: &str = "ScaleUpFailed";
/// The cluster is as large as it may be.
pub const MAX_NODES_TOTAL_REACHED: &str = "MaxNodesTotalReached";
/// Too many nodes do not work.
pub const CLUSTER_UNHEALTHY: &str = "ClusterUnhealthy";
/// An instance without a node was terminated.
pub const DELETE_UNREGISTERED: &str = "DeleteUnregistered";
/// An instance without a node could not be terminated.
pub const DELETE_UNREGISTERED_FAILED: &str = "DeleteUnregisteredFailed";
/// What an interrupted removal left was taken off a node.
pub const CLEANUP: &str = "ClusterAutoscalerCleanup";

/// Every reason: its types and when it is given. The documentation is written from this table.
pub const EVENTS: &[(&str, &str, &str)] = &[
    (TRIGGERED_SCALE_UP, "Normal", "on a pod that a group grows for"),
    (
        NOT_TRIGGER_SCALE_UP,
        "Normal",
        "on a pod that no group can help, with the reasons counted over the groups",
    ),
    (SCALE_DOWN, "Normal", "on a node that is removed, on its pods, and on the status ConfigMap"),
    (SCALE_DOWN_EMPTY, "Normal", "on the status ConfigMap: a node that runs nothing is removed"),
    (SCALE_DOWN_FAILED, "Warning", "on a node that could not be removed, or a pod that could not be evicted"),
    (SCALED_UP_GROUP, "Normal", "on the status ConfigMap: a group grows, and has grown"),
    (
        FAILED_TO_SCALE_UP_GROUP,
        "Warning",
        "on the status ConfigMap: the provider refused to let a group grow",
    ),
    (SCALE_UP_TIMED_OUT, "Warning", "on the status ConfigMap: nodes did not come in time"),
    (
        FAILED_TO_REVERT_SCALE_UP,
        "Warning",
        "on the status ConfigMap: the target of a group whose nodes did not come could not be lowered",
    ),
    (
        PROVIDER_PROBLEM,
        "Warning",
        "on the status ConfigMap: the provider or one of its groups cannot be read, and why",
    ),
    (SCALE_UP_FAILED, "Warning", "on the status ConfigMap: the provider could not make nodes"),
    (
        MAX_NODES_TOTAL_REACHED,
        "Warning",
        "on the status ConfigMap: pods wait, and --max-nodes-total is reached",
    ),
    (CLUSTER_UNHEALTHY, "Warning", "on the status ConfigMap: too many nodes do not work, nothing is scaled"),
    (DELETE_UNREGISTERED, "Normal", "on the status ConfigMap: an instance without a node was terminated"),
    (DELETE_UNREGISTERED_FAILED, "Warning", "on the status ConfigMap: it could not be"),
    (
        CLEANUP,
        "Normal or Warning",
        "on a node that an interrupted removal had left its taint on: it is off, or not",
    ),
];

fn normal(reason: &'static str, message: String) -> Event {
    Event { type_: NORMAL, reason, message }
}

fn warning(reason: &'static str, message: String) -> Event {
    Event { type_: WARNING, reason, message }
}

/// `[{GROUP 4->5 (max: 8)}]`.
pub fn plan_text(increases: &[Increase]) -> String {
    let each = increases
        .iter()
        .map(|Increase { group, from, to, max }| format!("{{{group} {from}->{to} (max: {max})}}"));
    format!("[{}]", each.collect::<Vec<_>>().join(" "))
}

/// On a pod: these groups grow for it.
pub fn triggered_scale_up(increases: &[Increase]) -> Event {
    normal(TRIGGERED_SCALE_UP, format!("pod triggered scale-up: {}", plan_text(increases)))
}

/// On a pod: no group can help it.
pub fn not_trigger_scale_up(refusals: &[Refusal]) -> Event {
    normal(NOT_TRIGGER_SCALE_UP, format!("pod didn't trigger scale-up: {}", refusals_text(refusals)))
}

/// `2 Insufficient cpu, 1 max node group size reached`.
pub fn refusals_text(refusals: &[Refusal]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for refusal in refusals {
        *counts.entry(refusal.reason.as_str()).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(reason, count)| (std::cmp::Reverse(*count), *reason));
    let texts: Vec<_> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    if texts.is_empty() { "there is no node group".to_owned() } else { texts.join(", ") }
}

/// On the status object: a group is about to grow.
pub fn setting_group_size(increase: &Increase) -> Event {
    let Increase { group, from, to, max } = increase;
    normal(
        SCALED_UP_GROUP,
        format!("Scale-up: setting group {group} size to {to} instead of {from} (max: {max})"),
    )
}

/// On the status object: a group has been asked to grow.
pub fn group_size_set(increase: &Increase) -> Event {
    let Increase { group, from, to, max } = increase;
    normal(
        SCALED_UP_GROUP,
        format!("Scale-up: group {group} size set to {to} instead of {from} (max: {max})"),
    )
}

/// On the status object: the provider refused.
pub fn failed_to_scale_up_group(group: &str, error: &str) -> Event {
    warning(FAILED_TO_SCALE_UP_GROUP, format!("Scale-up failed for group {group}: {error}"))
}

/// On the status object: nodes did not come.
pub fn scale_up_timed_out(group: &str, waited: SignedDuration) -> Event {
    let waited = duration(waited);
    warning(SCALE_UP_TIMED_OUT, format!("Nodes added to group {group} failed to register within {waited}"))
}

/// On the status object: the provider could not make nodes.
pub fn scale_up_failed(group: &str, nodes: u32, error: &InstanceError) -> Event {
    let InstanceError { code, message, .. } = error;
    let class = error.class();
    warning(
        SCALE_UP_FAILED,
        format!(
            "Failed adding {nodes} nodes to group {group} due to {class}.{code}; source errors: {message}"
        ),
    )
}

/// On the status object: a target could not be lowered.
pub fn failed_to_revert_scale_up(group: &str, error: &str) -> Event {
    let text = format!("Failed to decrease target size for group {group} after scale-up timeout: {error}");
    warning(FAILED_TO_REVERT_SCALE_UP, text)
}

/// On the status object: the cluster is as large as it may be.
pub fn max_nodes_total_reached(limit: u32) -> Event {
    warning(MAX_NODES_TOTAL_REACHED, format!("Max total nodes in cluster reached: {limit}"))
}

/// On the status object: nothing is scaled.
pub fn cluster_unhealthy() -> Event {
    warning(CLUSTER_UNHEALTHY, "Cluster is unhealthy".to_owned())
}

/// On the status object: nothing grows, since there is no node, or none that is ready (`--scale-up-from-zero=false`).
pub fn no_nodes(is_empty: bool) -> Event {
    let text = if is_empty { "Cluster has no nodes." } else { "Cluster has no ready nodes." };
    warning(CLUSTER_UNHEALTHY, text.to_owned())
}

/// On the status object: the provider, or one of its groups, cannot be read.
pub fn provider_problem(problem: &str) -> Event {
    warning(PROVIDER_PROBLEM, problem.to_owned())
}

/// On the status object: an instance is gone.
pub fn deleted_instance(instance: &str, fault: InstanceFault) -> Event {
    let what = match fault {
        InstanceFault::Failed => "instance that could not be made",
        InstanceFault::NeverRegistered => "unregistered node",
    };
    normal(DELETE_UNREGISTERED, format!("Removed {what} {instance}"))
}

/// On the status object: an instance could not be terminated.
pub fn failed_to_delete_instance(instance: &str, error: &str) -> Event {
    warning(DELETE_UNREGISTERED_FAILED, format!("Failed to remove node {instance}: {error}"))
}

/// On a node: it is about to go.
pub fn marked_to_be_deleted() -> Event {
    normal(SCALE_DOWN, "marked the node as toBeDeleted/unschedulable".to_owned())
}

/// On a node: it could not be marked.
pub fn failed_to_mark(error: &str) -> Event {
    warning(SCALE_DOWN_FAILED, format!("failed to mark the node as toBeDeleted/unschedulable: {error}"))
}

/// On a node: it is gone.
pub fn node_removed() -> Event {
    normal(SCALE_DOWN, "nodes removed by cluster autoscaler".to_owned())
}

/// On a node: it is still there.
pub fn failed_to_remove(empty: bool, error: &str) -> Event {
    let what = if empty { "delete empty node" } else { "drain and delete node" };
    warning(SCALE_DOWN_FAILED, format!("failed to {what}: {error}"))
}

/// On the status object: a node is being removed.
pub fn removing_node(node: &str, utilization: f64, pods: &[String]) -> Event {
    if pods.is_empty() {
        return normal(SCALE_DOWN_EMPTY, format!("Scale-down: removing empty node \"{node}\""));
    }
    let pods = pods.join(",");
    normal(
        SCALE_DOWN,
        format!(
            "Scale-down: removing node {node}, utilization: {utilization:.2}, pods to reschedule: {pods}"
        ),
    )
}

/// On the status object: a node has been removed.
pub fn removed_node(node: &str, empty: bool) -> Event {
    if empty {
        normal(SCALE_DOWN_EMPTY, format!("Scale-down: empty node {node} removed"))
    } else {
        normal(SCALE_DOWN, format!("Scale-down: node {node} removed with drain"))
    }
}

/// On a pod: it is evicted with its node.
pub fn pod_evicted() -> Event {
    normal(SCALE_DOWN, "deleting pod for node scale down".to_owned())
}

/// On a pod: it could not be evicted.
pub fn pod_not_evicted() -> Event {
    warning(SCALE_DOWN_FAILED, "failed to delete pod for ScaleDown".to_owned())
}

/// On a node: what an interrupted removal left is off.
pub fn cleaned_up(taint: &str, node: &str) -> Event {
    normal(CLEANUP, format!("removed {taint} taint from node {node}"))
}

/// On a node: what an interrupted removal left is still on it.
pub fn failed_to_clean_up(taint: &str, node: &str, error: &str) -> Event {
    warning(CLEANUP, format!("failed to clean {taint} on node {node}: {error}"))
}
