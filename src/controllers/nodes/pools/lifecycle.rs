//! A claim becomes a machine, the machine a node, the node a ready one (core, `pkg/controllers/nodeclaim/lifecycle`).

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{Node as ApiNode, Taint},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tandem_core::{
    api::karpenter::{NodeClaim, NodeClaimStatus, RequirementWithMinValues},
    nodes::pools::{
        consistency::shortfalls, launch::order_by_price, registration::Failure,
        requirements::labels::INSTANCE_TYPE,
    },
    scheduling::{Node, Resources, taints::is_ephemeral},
};

use super::{
    Pools,
    claim::{self, changed, created, holds, since},
    claims::{Next, StepError},
    conditions::{self, Status},
    consistency,
    names::{DO_NOT_SYNC_TAINTS, FINALIZER, INITIALIZED, REGISTERED, UNREGISTERED, condition},
    pool_of, registration, write,
};
use crate::{
    cloud::{
        CloudError,
        pools::{Class, LaunchError, Launched, quantities},
    },
    controllers::nodes::taint::{Marking, mark},
};

/// A claim without a machine by then is given up.
const LAUNCH_TIMEOUT: SignedDuration = SignedDuration::from_mins(5);
/// Why a claim is deleted that was not launched within it.
const LAUNCH_TIMED_OUT: &str = "launch_timeout";
/// A machine that is no node by then is given up.
const REGISTRATION_TIMEOUT: SignedDuration = SignedDuration::from_mins(15);

/// What has to hold for a claim to be ready.
const STAGES: [&str; 3] = [condition::LAUNCHED, condition::REGISTERED, condition::INITIALIZED];

/// The next stage of a claim that is not being deleted.
pub(super) async fn step(pools: &Pools, claim: &NodeClaim, now: Timestamp) -> Result<Next, StepError> {
    if !holds(claim, condition::LAUNCHED) {
        return launch(pools, claim, now).await;
    }
    if !holds(claim, condition::REGISTERED) {
        return register(pools, claim, now).await;
    }
    if !holds(claim, condition::INITIALIZED) {
        return initialize(pools, claim, now).await;
    }
    Ok(Next::Change)
}

/// The node class of a claim: of a Provisioner's, what stands there.
pub(super) fn class_of(pools: &Pools, claim: &NodeClaim) -> Class {
    let reference = claim.spec.node_class_ref.clone();
    let pool = pool_of(claim).and_then(|name| pools.pool(name));
    let inline =
        pool.filter(|pool| pool.class.reference == reference).and_then(|pool| pool.class.inline.clone());
    Class { reference, inline }
}

async fn launch(pools: &Pools, claim: &NodeClaim, now: Timestamp) -> Result<Next, StepError> {
    match create(pools, claim, now).await {
        Ok(launched) => {
            pools.sold_out.lock().note(launched.sold_out.iter().cloned(), now);
            let next = write_launched(pools, claim, &launched, now).await?;
            tracing::info!(
                claim = claim.name_any(),
                provider_id = launched.provider_id,
                instance_type = launched.instance_type,
                zone = launched.zone,
                capacity_type = launched.capacity_type,
                "machine is launched"
            );
            Ok(next)
        }
        Err(failure) => {
            pools.sold_out.lock().note(failure.sold_out.iter().cloned(), now);
            refuse(pools, claim, failure.error, now).await
        }
    }
}

async fn create(pools: &Pools, claim: &NodeClaim, now: Timestamp) -> Result<Launched, LaunchError> {
    let class = class_of(pools, claim);
    let requirements = RequirementWithMinValues::read_all(&claim.spec.requirements);
    let asked = claim.spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let asked = Resources::from_optional(asked);
    let well_known = pools.provider.well_known();
    let all = pools.types_of(claim, &class).await?;
    let mut types = pools.sold_out.lock().mask(&all, now);
    types.retain(|one| {
        requirements.allows(INSTANCE_TYPE, &one.name)
            && one.requirements.intersects(&requirements)
            && asked.fits(one.allocatable())
            && one.available(&requirements, well_known).next().is_some()
    });
    order_by_price(&mut types, &requirements, well_known);
    let mut launched = pools.provider.create(claim, &class, &types).await?;
    // A machine that was launched before and is found again is told as the provider knows it.
    let overlaid = all.iter().find(|one| one.overlaid.capacity && *one.name == *launched.instance_type);
    if let Some(of) = overlaid {
        launched.capacity = of.capacity.clone();
        launched.allocatable = of.allocatable().clone();
    }
    Ok(launched)
}

/// Labels first: with the condition they are never looked at again.
async fn write_launched(
    pools: &Pools,
    claim: &NodeClaim,
    launched: &Launched,
    now: Timestamp,
) -> Result<Next, StepError> {
    let api = pools.claim_api();
    let claim = write::metadata(
        &api,
        claim,
        json!({ "labels": launched.all_labels(), "annotations": launched.annotations }),
    )
    .await?;
    let mut status = claim.status.clone().unwrap_or_default();
    status.provider_id = Some(launched.provider_id.clone());
    status.image_id = launched.image.clone();
    status.capacity = Some(quantities(&launched.capacity));
    status.allocatable = Some(quantities(&launched.allocatable));
    conditions::set(&mut status.conditions, condition::LAUNCHED, Status::True, ("", ""), now);
    let waits = ("NodeNotFound", "the node has not registered with the cluster");
    conditions::set(&mut status.conditions, condition::REGISTERED, Status::Unknown, waits, now);
    write(pools, &claim, status, now).await
}

/// What becomes of a claim that got no machine: what is sold out or cannot be launched at all is given up at once, so that
/// its pods are thought about again.
async fn refuse(
    pools: &Pools,
    claim: &NodeClaim,
    error: CloudError,
    now: Timestamp,
) -> Result<Next, StepError> {
    let is_late = now > created(claim) + LAUNCH_TIMEOUT;
    let (reason, given_up) = match &error {
        CloudError::OutOfCapacity { .. } => ("InsufficientCapacityError", Some("insufficient_capacity")),
        CloudError::Configuration { .. } => ("NodeClassNotReady", Some("nodeclass_not_ready")),
        _ => ("LaunchFailed", is_late.then_some(LAUNCH_TIMED_OUT)),
    };
    tracing::warn!(claim = claim.name_any(), %error, reason, "no machine could be launched");
    let message = format!("NodeClaim {} event: {error}", claim.name_any());
    pools.tell(claim, "Warning", reason, message).await;
    if let Some(why) = given_up {
        pools.delete_claim(claim, why).await?;
        if why == LAUNCH_TIMED_OUT {
            let failure = Failure { reason: reason.to_owned(), message: error.to_string() };
            registration::note(pools, claim, Err(failure));
        }
        return Ok(Next::Written);
    }
    let mut status = claim.status.clone().unwrap_or_default();
    let said = (reason, error.to_string());
    conditions::set(&mut status.conditions, condition::LAUNCHED, Status::Unknown, (said.0, &said.1), now);
    write(pools, claim, status, now).await?;
    // Tried again by the caller, less and less often.
    Err(error.into())
}

async fn register(pools: &Pools, claim: &NodeClaim, now: Timestamp) -> Result<Next, StepError> {
    let Some(node) = pools.node_of(claim) else {
        let due = changed(claim, condition::LAUNCHED).unwrap_or(created(claim)) + REGISTRATION_TIMEOUT;
        if now < due {
            return Ok(Next::At(due));
        }
        pools.delete_claim(claim, "registration_timeout").await?;
        registration::note(pools, claim, Err(registration::not_registered()));
        return Ok(Next::Written);
    };
    let api: Api<ApiNode> = Api::all(pools.client.clone());
    let Some(found) = api.get_opt(&node.name).await? else { return Ok(Next::Change) };
    if node.taint(UNREGISTERED).is_none() && !found.labels().contains_key(REGISTERED) {
        let message = format!("missing required taint {UNREGISTERED}, its pods may have come too early");
        pools.tell(&found, "Warning", "UnregisteredTaintMissing", message).await;
    }
    api.patch(&node.name, &PatchParams::default(), &Patch::Merge(registration(&found, claim))).await?;
    let mut status = claim.status.clone().unwrap_or_default();
    status.node_name = Some(node.name.to_string());
    conditions::set(&mut status.conditions, condition::REGISTERED, Status::True, ("", ""), now);
    let waits = ("NodeNotReady", "the node is not ready");
    conditions::set(&mut status.conditions, condition::INITIALIZED, Status::Unknown, waits, now);
    let next = write(pools, claim, status, now).await?;
    tracing::info!(claim = claim.name_any(), node = &*node.name, "node is registered");
    pools.metrics.registered(claim);
    registration::note(pools, claim, Ok(()));
    Ok(next)
}

/// What makes a node that of a claim: its labels, annotations and taints, the owner, the finalizer.
fn registration(node: &ApiNode, claim: &NodeClaim) -> Value {
    let mut labels: BTreeMap<_, _> = claim.labels().clone();
    labels.insert(REGISTERED.to_owned(), "true".to_owned());
    let old = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut taints: Vec<Taint> = old.into_iter().filter(|taint| taint.key != UNREGISTERED).collect();
    if !labels.contains_key(DO_NOT_SYNC_TAINTS) && !node.labels().contains_key(DO_NOT_SYNC_TAINTS) {
        for wanted in claim.spec.taints.iter().chain(&claim.spec.startup_taints).flatten() {
            taints.retain(|taint| (&taint.key, &taint.effect) != (&wanted.key, &wanted.effect));
            taints.push(wanted.clone());
        }
    }
    let mut owners = node.owner_references().to_vec();
    let uid = claim.uid().unwrap_or_default();
    if !owners.iter().any(|owner| owner.uid == uid) {
        owners.push(OwnerReference {
            api_version: "karpenter.sh/v1".to_owned(),
            kind: "NodeClaim".to_owned(),
            name: claim.name_any(),
            uid,
            controller: None,
            block_owner_deletion: Some(true),
        });
    }
    let mut finalizers = node.finalizers().to_vec();
    if !finalizers.iter().any(|name| name == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    json!({
        "metadata": {
            "resourceVersion": node.resource_version(),
            "labels": labels,
            "annotations": claim.annotations(),
            "ownerReferences": owners,
            "finalizers": finalizers,
        },
        "spec": {"taints": taints},
    })
}

async fn initialize(pools: &Pools, claim: &NodeClaim, now: Timestamp) -> Result<Next, StepError> {
    let Some(node) = pools.node_of(claim) else { return Ok(Next::Change) };
    let mut status = claim.status.clone().unwrap_or_default();
    if let Some((reason, message)) = uninitialized(&node, claim) {
        let said = (reason, message.as_str());
        conditions::set(&mut status.conditions, condition::INITIALIZED, Status::Unknown, said, now);
        return write(pools, claim, status, now).await;
    }
    let label = (INITIALIZED.to_owned(), Some("true".to_owned()));
    mark(&pools.client, &node.name, &Marking { labels: vec![label], ..Marking::default() }).await?;
    conditions::set(&mut status.conditions, condition::INITIALIZED, Status::True, ("", ""), now);
    let short = shortfalls(claim, &node);
    consistency::judge(&mut status.conditions, &short, now);
    let next = write(pools, claim, status, now).await?;
    consistency::tell(pools, claim, &short).await;
    let seconds = now.duration_since(created(claim)).as_secs_f64();
    tracing::info!(claim = claim.name_any(), node = &*node.name, seconds, "node is initialized");
    Ok(next)
}

/// What a node lacks to be initialized: a reason and a sentence.
fn uninitialized(node: &Node, claim: &NodeClaim) -> Option<(&'static str, String)> {
    if !node.ready {
        return Some(("NodeNotReady", "the node is not ready".to_owned()));
    }
    let mut startup = claim.spec.startup_taints.iter().flatten();
    let left = startup.find(|taint| {
        node.taints.iter().any(|there| (&there.key, &there.effect) == (&taint.key, &taint.effect))
    });
    if let Some(taint) = left {
        return Some(("StartupTaintsExist", format!("the startup taint {} is still there", taint.key)));
    }
    if let Some(taint) = node.taints.iter().find(|taint| is_ephemeral(taint)) {
        return Some(("KnownEphemeralTaintsExist", format!("the taint {} is still there", taint.key)));
    }
    let asked = claim.spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let asked = Resources::from_optional(asked);
    let missing = asked.iter().find(|(name, _)| node.allocatable.get(name) == 0);
    missing.map(|(name, _)| ("ResourceNotRegistered", format!("the node does not offer {name} yet")))
}

/// Writes a claim's status if it is another one; its watch brings the claim's task on.
async fn write(
    pools: &Pools,
    claim: &NodeClaim,
    mut status: NodeClaimStatus,
    now: Timestamp,
) -> Result<Next, StepError> {
    conditions::set_ready(&mut status.conditions, &STAGES, now);
    if claim.status.as_ref() == Some(&status) {
        return Ok(Next::Change);
    }
    write::status(&pools.claim_api(), claim, &status).await?;
    Ok(Next::Written)
}

/// When the node of a claim was initialized.
pub(super) fn initialized(claim: &NodeClaim) -> Option<Timestamp> {
    since(claim, condition::INITIALIZED).filter(|_| !claim::is_deleting(claim))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str, effect: &str) -> Taint {
        Taint { key: key.to_owned(), effect: effect.to_owned(), ..Taint::default() }
    }

    fn claim() -> NodeClaim {
        let mut claim = NodeClaim::default();
        claim.metadata.name = Some("c".to_owned());
        claim.metadata.uid = Some("u".to_owned());
        claim.spec.taints = Some(vec![taint("dedicated", "NoSchedule")]);
        claim.spec.startup_taints = Some(vec![taint("cni", "NoExecute")]);
        claim
    }

    #[test]
    fn a_node_gets_what_its_claim_says_and_keeps_what_others_said() {
        let mut node = ApiNode::default();
        node.metadata.finalizers = Some(vec!["theirs".to_owned()]);
        node.spec.get_or_insert_default().taints =
            Some(vec![taint(UNREGISTERED, "NoExecute"), taint("node.kubernetes.io/not-ready", "NoSchedule")]);
        let patch = registration(&node, &claim());
        let keys: Vec<_> = patch["spec"]["taints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|taint| taint["key"].as_str().unwrap())
            .collect();
        assert_eq!(keys, ["node.kubernetes.io/not-ready", "dedicated", "cni"]);
        assert_eq!(patch["metadata"]["finalizers"], json!(["theirs", FINALIZER]));
        assert_eq!(patch["metadata"]["ownerReferences"][0]["kind"], "NodeClaim");
        assert_eq!(patch["metadata"]["labels"][REGISTERED], "true");

        node.labels_mut().insert(DO_NOT_SYNC_TAINTS.to_owned(), "true".to_owned());
        let patch = registration(&node, &claim());
        assert_eq!(patch["spec"]["taints"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn a_node_is_initialized_when_nothing_is_missing() {
        let mut claim = claim();
        let mut wanted = Resources::default();
        wanted.set("nvidia.com/gpu", 1);
        claim.spec.resources =
            Some(tandem_core::api::karpenter::ClaimResources { requests: Some(quantities(&wanted)) });
        let mut node = Node { taints: vec![taint("cni", "NoExecute")], ..Node::default() };
        let reason = |node: &Node| uninitialized(node, &claim).map(|(reason, _)| reason);
        assert_eq!(reason(&node), Some("NodeNotReady"));
        node.ready = true;
        assert_eq!(reason(&node), Some("StartupTaintsExist"));
        node.taints = vec![taint("node.kubernetes.io/not-ready", "NoSchedule")];
        assert_eq!(reason(&node), Some("KnownEphemeralTaintsExist"));
        node.taints.clear();
        assert_eq!(reason(&node), Some("ResourceNotRegistered"));
        node.allocatable.set("nvidia.com/gpu", 1);
        assert_eq!(reason(&node), None);
    }
}
