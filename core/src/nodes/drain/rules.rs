//! The rules that say of a pod whether its node may go, in their order; the first that says something decides.
//!
//! Source: Cluster Autoscaler, `simulator/drainability/rules`.

use jiff::{SignedDuration, Timestamp};

use super::{BlockingReason, Budgets, Known, Options, Outcome, Owners};
use crate::scheduling::{
    Pod,
    pod::{Owner, Phase, Restart},
};

/// Annotation of pods: `true` lets the node go, `false` keeps it, `on-completion` waits for the pod's end.
pub const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";
/// Annotation of pods: local volumes that need not be kept, separated by commas.
pub const SAFE_LOCAL_VOLUMES: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
/// Beyond its grace period a pod that is being deleted counts for so long (`PodLongTerminatingExtraThreshold`).
const LONG_TERMINATING: SignedDuration = SignedDuration::from_secs(30);

/// What rules look at beside the pod.
pub struct Context<'a> {
    /// What the flags say.
    pub options: &'a Options,
    /// The controllers that there are; `None` if they are not looked up.
    pub owners: Option<&'a Owners>,
    /// Budgets, and what is left of them.
    pub budgets: &'a Budgets,
    /// The time.
    pub now: Timestamp,
}

/// A rule; `None` says nothing.
pub type Rule = fn(&Pod, &Context<'_>) -> Option<Outcome>;

/// Every rule with its name, in order.
pub(super) const RULES: &[(&str, Rule)] = &[
    ("Mirror", mirror),
    ("LongTerminating", long_terminating),
    ("ReplicaCount", replica_count),
    ("DaemonSet", daemon_set),
    ("SafeToEvict", safe_to_evict),
    ("Terminal", terminal),
    ("OnCompletion", on_completion),
    ("Replicated", replicated),
    ("System", system),
    ("NotSafeToEvict", not_safe_to_evict),
    ("LocalStorage", local_storage),
    ("PDB", disruption_budget),
];

fn mirror(pod: &Pod, _: &Context<'_>) -> Option<Outcome> {
    pod.is_mirror().then_some(Outcome::Skip)
}

fn long_terminating(pod: &Pod, context: &Context<'_>) -> Option<Outcome> {
    is_long_terminating(pod, context.now).then_some(Outcome::Skip)
}

/// Whether a pod should have been gone for half a minute.
pub fn is_long_terminating(pod: &Pod, now: Timestamp) -> bool {
    // A grace period has no upper bound: no time may be computed from it that there is not.
    let grace = SignedDuration::from_secs(pod.shape.grace_seconds).saturating_add(LONG_TERMINATING);
    pod.deleting.is_some_and(|deleting| now.duration_since(deleting) > grace)
}

fn replica_count(pod: &Pod, context: &Context<'_>) -> Option<Outcome> {
    let (Owner { kind, name, api_version, .. }, owners) = (pod.shape.owner.as_ref()?, context.owners?);
    // Others have kinds of the same name (`OpenKruise`, say), which are not looked up.
    let is_looked_up = match &**kind {
        "DaemonSet" | "StatefulSet" if !api_version.starts_with("apps/") => false,
        "ReplicationController" | "DaemonSet" => true,
        "Job" | "ReplicaSet" | "StatefulSet" => !pod.is_of_daemon_set(),
        _ => false,
    };
    if !context.options.skip_custom_controllers || !is_looked_up {
        return None;
    }
    let replicas = match owners.find(kind, &pod.shape.namespace, name) {
        Known::NotLookedUp => return None,
        Known::Present(replicas) => replicas,
        Known::Missing => {
            return Some(Outcome::Blocked(
                BlockingReason::ControllerNotFound,
                format!("{kind} for {} is not available", pod.key()),
            ));
        }
    };
    let counted = matches!(&**kind, "ReplicationController" | "ReplicaSet");
    let least = i64::from(context.options.min_replica_count);
    let too_few = replicas.filter(|replicas| counted && i64::from(*replicas) < least)?;
    Some(Outcome::Blocked(
        BlockingReason::MinReplicasReached,
        format!("{kind} for {} has too few replicas spec: {too_few} min: {least}", pod.key()),
    ))
}

fn daemon_set(pod: &Pod, _: &Context<'_>) -> Option<Outcome> {
    pod.is_of_daemon_set().then_some(Outcome::DrainDaemonSet)
}

fn annotated(pod: &Pod, value: &str) -> bool {
    pod.shape.annotations.get(SAFE_TO_EVICT).is_some_and(|found| found == value)
}

fn safe_to_evict(pod: &Pod, _: &Context<'_>) -> Option<Outcome> {
    annotated(pod, "true").then_some(Outcome::Drain)
}

fn terminal(pod: &Pod, _: &Context<'_>) -> Option<Outcome> {
    // Whatever restarts its containers, a pod that the kubelet gave up on stays failed.
    let ended = match pod.phase {
        Phase::Failed => true,
        Phase::Succeeded => pod.shape.restart != Restart::Always,
        _ => false,
    };
    ended.then_some(Outcome::Drain)
}

fn on_completion(pod: &Pod, _: &Context<'_>) -> Option<Outcome> {
    annotated(pod, "on-completion").then_some(Outcome::WaitForCompletion)
}

fn replicated(pod: &Pod, context: &Context<'_>) -> Option<Outcome> {
    const KINDS: &[&str] = &["ReplicationController", "Job", "ReplicaSet", "StatefulSet"];
    let replicated = pod
        .shape
        .owner
        .as_ref()
        .is_some_and(|owner| !context.options.skip_custom_controllers || KINDS.contains(&&*owner.kind));
    if replicated {
        return None;
    }
    Some(Outcome::Blocked(BlockingReason::NotReplicated, format!("{} is not replicated", pod.key())))
}

fn system(pod: &Pod, context: &Context<'_>) -> Option<Outcome> {
    let covered = || context.budgets.of(pod).next().is_some();
    if !context.options.skip_system_pods || &*pod.shape.namespace != "kube-system" || covered() {
        return None;
    }
    let timeout = context.options.system_pod_timeout;
    let old = pod.created.is_some_and(|created| context.now.duration_since(created) > timeout);
    if old {
        return Some(Outcome::Drain);
    }
    Some(Outcome::Blocked(
        BlockingReason::UnmovableKubeSystemPod,
        format!("non-daemonset, non-mirrored, non-pdb-assigned kube-system pod present: {}", pod.name),
    ))
}

fn not_safe_to_evict(pod: &Pod, _: &Context<'_>) -> Option<Outcome> {
    if !annotated(pod, "false") {
        return None;
    }
    Some(Outcome::Blocked(
        BlockingReason::NotSafeToEvictAnnotation,
        format!("pod annotated as not safe to evict present: {}", pod.name),
    ))
}

fn local_storage(pod: &Pod, context: &Context<'_>) -> Option<Outcome> {
    if !context.options.skip_local_storage {
        return None;
    }
    let safe = pod.shape.annotations.get(SAFE_LOCAL_VOLUMES).filter(|names| !names.is_empty());
    // Names are compared to the letter: the peer takes no blanks away.
    let kept = |name: &str| safe.is_none_or(|names| names.split(',').all(|other| other != name));
    let volume = pod.shape.local_volumes.iter().find(|volume| !volume.in_memory && kept(&volume.name))?;
    Some(Outcome::Blocked(
        BlockingReason::LocalStorageRequested,
        format!("pod with local storage present: {} (volume {})", pod.name, volume.name),
    ))
}

fn disruption_budget(pod: &Pod, context: &Context<'_>) -> Option<Outcome> {
    let budget = context.budgets.of(pod).find(|budget| budget.allowed < 1)?;
    Some(Outcome::Blocked(
        BlockingReason::NotEnoughPdb,
        format!("not enough pod disruption budget {} to move {}", budget.name, pod.key()),
    ))
}
