//! The end of a claim: its node is emptied under the pods' budgets, then its machine goes, then the objects do.
//!
//! Source: core, `pkg/controllers/node/termination`, `pkg/controllers/nodeclaim/lifecycle/termination.go`.

mod order;

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    core::v1::{Node as ApiNode, Pod as ApiPod},
    storage::v1::VolumeAttachment,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Preconditions},
};
use serde_json::json;
use tandem_core::{
    api::karpenter::{NodeClaim, NodeClaimStatus},
    scheduling::Pod,
};

use super::{
    Pools,
    claim::holds,
    claims::{Next, StepError},
    conditions::{self, Status},
    names::{FINALIZER, NO_LOAD_BALANCER, TERMINATION_TIME, condition, disrupted},
    write,
};
use crate::{
    cloud::CloudError,
    cluster::finalizer,
    controllers::nodes::{
        drain::{Answer, DrainOptions, Evicted, drain_hearing},
        taint::{Marking, mark},
    },
};

/// A node counts as drained this long after its end began at the earliest: until then a scheduler that has not seen the taint
/// may bind a pod (core, `MinDrainTime`).
const LEAST_DRAIN: SignedDuration = SignedDuration::from_secs(5);
/// One round of evictions waits this long for pods to go; then it looks anew.
const ROUND: Duration = Duration::from_secs(30);
/// Between two rounds that budgets hold back.
const PAUSE: Duration = Duration::from_secs(2);
/// Between two looks at volumes and at the machine.
const LOOK: Duration = Duration::from_secs(1);

/// The next step of a claim that is being deleted.
pub(super) async fn step(pools: &Pools, claim: &NodeClaim) -> Result<Next, StepError> {
    if !finalizer::is_set(claim, FINALIZER) {
        return Ok(Next::Change);
    }
    let now = Timestamp::now();
    let Some(deadline) = deadline(pools, claim).await? else { return Ok(Next::Written) };
    let node = node(pools, claim).await?;
    if let Some(node) = node.as_ref().filter(|node| finalizer::is_set(*node, FINALIZER))
        && let Some(next) = empty(pools, claim, node, deadline.0, now).await?
    {
        return Ok(next);
    }
    terminate(pools, claim, node.as_ref(), now).await
}

/// When the machine goes, whatever still runs there; never, if the claim does not say.
struct Deadline(Option<Timestamp>);

/// The deadline as it is written on the claim, so that a later change of what is allowed does not move it; `None` while it is
/// being written.
async fn deadline(pools: &Pools, claim: &NodeClaim) -> Result<Option<Deadline>, StepError> {
    if let Some(written) = claim.annotations().get(TERMINATION_TIME) {
        return Ok(Some(Deadline(written.parse().ok())));
    }
    let period = claim.spec.termination_grace_period.as_deref();
    let period = period.and_then(|text| text.parse::<SignedDuration>().ok());
    let begun = claim.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    let (Some(period), Some(begun)) = (period, begun) else { return Ok(Some(Deadline(None))) };
    let end = begun.checked_add(period).unwrap_or(Timestamp::MAX);
    let message = format!("All pods will be deleted by {end}");
    pools.tell(claim, "Warning", "TerminationGracePeriodExpiring", message).await;
    let annotations = json!({ "annotations": { TERMINATION_TIME: end.to_string() } });
    write::metadata(&pools.claim_api(), claim, annotations).await?;
    Ok(None)
}

/// The node of the claim's machine, as the API server has it now.
async fn node(pools: &Pools, claim: &NodeClaim) -> Result<Option<ApiNode>, StepError> {
    let status = claim.status.as_ref();
    let written = status.and_then(|status| status.node_name.clone());
    let Some(name) = pools.node_of(claim).map(|node| node.name.to_string()).or(written) else {
        return Ok(None);
    };
    let node = Api::<ApiNode>::all(pools.client.clone()).get_opt(&name).await?;
    let provider_id = status.and_then(|status| status.provider_id.as_deref());
    Ok(node.filter(|node| node.spec.as_ref().and_then(|spec| spec.provider_id.as_deref()) == provider_id))
}

/// Empties a node; `None` when it is empty, or its time is up.
async fn empty(
    pools: &Pools,
    claim: &NodeClaim,
    node: &ApiNode,
    deadline: Option<Timestamp>,
    now: Timestamp,
) -> Result<Option<Next>, StepError> {
    let name = node.name_any();
    let label = (NO_LOAD_BALANCER.0.to_owned(), Some(NO_LOAD_BALANCER.1.to_owned()));
    let marking = Marking { add: vec![disrupted()], labels: vec![label], ..Marking::default() };
    mark(&pools.client, &name, &marking).await?;
    if node.metadata.deletion_timestamp.is_none() {
        let nodes: Api<ApiNode> = Api::all(pools.client.clone());
        match nodes.delete(&name, &DeleteParams::default()).await {
            Err(error) if !write::is_gone(&error) => return Err(error.into()),
            _ => {}
        }
    }
    if deadline.is_some_and(|deadline| deadline <= now) {
        return Ok(None);
    }
    if let Some(next) = drain_pods(pools, claim, node, deadline, now).await? {
        return Ok(Some(next));
    }
    let mut status = claim.status.clone().unwrap_or_default();
    conditions::set(&mut status.conditions, condition::DRAINED, Status::True, ("", ""), now);
    let detached = detached(pools, &name).await?;
    let said = if detached {
        (Status::True, ("", ""))
    } else {
        (Status::Unknown, ("AwaitingVolumeDetachment", "volumes are still attached"))
    };
    conditions::set(&mut status.conditions, condition::VOLUMES_DETACHED, said.0, said.1, now);
    // The machine goes when it is written that its pods are gone.
    if write_status(pools, claim, status).await? {
        if !holds(claim, condition::DRAINED) {
            pools.metrics.drained(claim);
        }
        return Ok(Some(Next::Written));
    }
    Ok((!detached).then_some(Next::After(LOOK)))
}

/// Evicts the pods whose turn it is; `None` when none is left.
async fn drain_pods(
    pools: &Pools,
    claim: &NodeClaim,
    node: &ApiNode,
    deadline: Option<Timestamp>,
    now: Timestamp,
) -> Result<Option<Next>, StepError> {
    let waiting = order::waiting(pools.pods_on(&node.name_any()), now);
    if let Some(deadline) = deadline {
        for pod in waiting.iter().filter(|pod| order::overruns(pod, deadline, now)) {
            delete_pod(pools, claim, pod, (deadline, now)).await?;
        }
    }
    let turn = order::turn(&waiting);
    if turn.is_empty() {
        let earliest = claim.metadata.deletion_timestamp.as_ref().map(|time| time.0 + LEAST_DRAIN);
        return Ok(earliest.filter(|earliest| *earliest > now).map(Next::At));
    }
    let mut status = claim.status.clone().unwrap_or_default();
    let said = ("Draining", format!("{} pods are to leave", waiting.len()));
    conditions::set(&mut status.conditions, condition::DRAINED, Status::Unknown, (said.0, &said.1), now);
    if !says_the_same(claim, &status) && write_status(pools, claim, status).await? {
        return Ok(Some(Next::Written));
    }
    let (evictable, kept): (Vec<_>, Vec<_>) =
        turn.into_iter().partition(|pod| order::may_be_evicted(pod, now));
    // One try a round: what a budget holds back is tried again with the next.
    let options = DrainOptions { eviction_time: Duration::ZERO, max_grace: None, wait: true };
    let done = |_: &Pod, _: &Evicted, answer: Answer| {
        if let Some(code) = answer {
            pools.metrics.scheduling.evicted(code);
        }
        if answer == Some(200) {
            pools.metrics.scheduling.drained(&why_drained(claim));
        }
    };
    let round = drain_hearing(&pools.client, &pools.world.pods, &evictable, &options, done);
    let left = tokio::time::timeout(ROUND, round).await.unwrap_or_default();
    let first = left.first().map(|left| format!("{}: {}", left.pod.key(), left.why));
    let kept = kept.first().map(|pod| format!("{} is not to be disrupted", pod.key()));
    if let Some(why) = first.or(kept) {
        pools.tell(node, "Warning", "FailedDraining", format!("Failed to drain node, {why}")).await;
        return Ok(Some(Next::After(PAUSE)));
    }
    Ok(Some(Next::Now))
}

/// Why the pods of a claim leave, as metrics tell it (core, `evictionReason` of `pkg/controllers/node/termination/terminator`).
fn why_drained(claim: &NodeClaim) -> String {
    let conditions = claim.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let disruption = conditions::find(conditions, condition::DISRUPTION_REASON);
    disruption
        .filter(|condition| condition.status == "True")
        .map_or_else(|| "Forceful Termination".to_owned(), |condition| condition.reason.clone())
}

/// Whether the drain is already said to be under way; how many pods are left is not worth a write each.
fn says_the_same(claim: &NodeClaim, wanted: &NodeClaimStatus) -> bool {
    let says = |status: &NodeClaimStatus| {
        conditions::find(&status.conditions, condition::DRAINED)
            .map(|condition| (condition.status.clone(), condition.reason.clone()))
    };
    claim.status.as_ref().and_then(says) == says(wanted)
}

/// Deletes a pod that would outlive its node, past its budget, with what time is left.
async fn delete_pod(
    pools: &Pools,
    claim: &NodeClaim,
    pod: &Pod,
    (deadline, now): (Timestamp, Timestamp),
) -> Result<(), StepError> {
    let left = deadline.duration_since(now).as_secs().max(1);
    let api: Api<ApiPod> = Api::namespaced(pools.client.clone(), &pod.shape.namespace);
    let message = format!("Deleting the pod to accommodate the terminationTime {deadline} of the node");
    pools.tell_pod(pod, "Normal", "Disrupted", message).await;
    let params = DeleteParams {
        grace_period_seconds: Some(u32::try_from(left).unwrap_or(u32::MAX)),
        preconditions: Some(Preconditions { uid: Some(pod.uid.to_string()), resource_version: None }),
        ..DeleteParams::default()
    };
    match api.delete(&pod.name, &params).await {
        Ok(_) => {
            pools.metrics.scheduling.drained(&why_drained(claim));
            Ok(())
        }
        Err(error) if write::is_gone(&error) || write::is_outdated(&error) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether no volume is attached that will be detached: as long as pods with volumes stay to the end, none is waited for.
async fn detached(pools: &Pools, node: &str) -> Result<bool, StepError> {
    if pools.pods_on(node).iter().any(|pod| !pod.claims.is_empty()) {
        return Ok(true);
    }
    let attachments: Api<VolumeAttachment> = Api::all(pools.client.clone());
    let all = attachments.list(&ListParams::default()).await?;
    Ok(all.items.iter().all(|attachment| attachment.spec.node_name != node))
}

/// Terminates the machine, and lets the objects go when it is gone.
async fn terminate(
    pools: &Pools,
    claim: &NodeClaim,
    node: Option<&ApiNode>,
    now: Timestamp,
) -> Result<Next, StepError> {
    let written = claim.status.as_ref().and_then(|status| status.provider_id.clone());
    let written = written.filter(|id| !id.is_empty());
    let provider_id = if written.is_some() {
        written
    } else {
        // It may have been launched by somebody who did not live to write it down.
        let machines = pools.provider.list().await?;
        machines.into_iter().find(|it| it.claim == claim.name_any()).map(|it| it.provider_id)
    };
    if let Some(id) = provider_id {
        match pools.provider.delete(&id).await {
            Err(CloudError::NotFound(_)) => pools.metrics.instance_gone(claim, now),
            Err(error) => return Err(error.into()),
            Ok(()) => {
                let mut status = claim.status.clone().unwrap_or_default();
                let kind = condition::INSTANCE_TERMINATING;
                conditions::set(&mut status.conditions, kind, Status::True, ("", ""), now);
                let is_written = write_status(pools, claim, status).await?;
                return Ok(if is_written { Next::Written } else { Next::After(LOOK) });
            }
        }
    }
    if let Some(node) = node {
        let nodes: Api<ApiNode> = Api::all(pools.client.clone());
        // As it is now: the taint has changed it.
        if let Some(node) = nodes.get_opt(&node.name_any()).await?
            && finalizer::set(&nodes, &node, FINALIZER, false).await?
        {
            pools.metrics.node_gone(claim, &node.metadata, now);
        }
    }
    if finalizer::set(&pools.claim_api(), claim, FINALIZER, false).await? {
        tracing::info!(claim = claim.name_any(), "machine is terminated");
        pools.metrics.terminated(claim, now);
    }
    Ok(Next::Written)
}

/// Writes a status if it is another one; whether it was.
async fn write_status(pools: &Pools, claim: &NodeClaim, status: NodeClaimStatus) -> Result<bool, StepError> {
    if claim.status.as_ref() == Some(&status) {
        return Ok(false);
    }
    write::status(&pools.claim_api(), claim, &status).await?;
    Ok(true)
}

/// Pods of a node that is to be emptied.
type Waiting = Vec<Arc<Pod>>;
