//! Node pools as the running process sees them, read without a trace.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use serde_json::json;
use tandem_core::{
    api::karpenter::NodeClaim,
    nodes::pools::{names::condition as names, node_claim::pool_of},
    scheduling::Pod,
};
use tokio::sync::watch;

use super::{Answer, OfNodes, page::Page};
use crate::{
    cloud,
    cluster::world::World,
    controllers::nodes::pools::{
        Config, Pools,
        explain::{self, PodOfPools},
    },
    telemetry::events::Events,
};

/// What pools could do for a pod; `None` if `--node-pools-provider` names no provider.
pub(super) async fn for_pod(
    of: &OfNodes,
    client: &Client,
    world: &Arc<World>,
    pod: &Arc<Pod>,
) -> anyhow::Result<Option<PodOfPools>> {
    let name = of.pools.node_pools_provider.as_deref().filter(|name| !name.is_empty());
    let (Some(name), None) = (name, &pod.node) else { return Ok(None) };
    let (_, leading) = watch::channel(false);
    // Its watches are read; none of its controllers runs.
    let (pools, _changes) = Pools::start(Config {
        client: client.clone(),
        world: world.clone(),
        demand: None,
        provider: cloud::pools::connect(name, &of.pools.provider_settings(world), client).await?,
        events: Events::new(client.clone(), "tandem", None),
        leading,
        settings: of.pools.clone(),
    });
    Ok(Some(explain::pod(&pools, pod).await))
}

/// The claim whose machine has this provider id; none where NodeClaims are not installed.
pub(super) async fn of_node(client: &Client, provider_id: &str) -> anyhow::Result<Option<NodeClaim>> {
    let claims: Api<NodeClaim> = Api::all(client.clone());
    let claims = match claims.list(&ListParams::default()).await {
        Ok(claims) => claims.items,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let is_its = |claim: &NodeClaim| {
        let known = claim.status.as_ref().and_then(|status| status.provider_id.as_deref());
        !provider_id.is_empty() && known == Some(provider_id)
    };
    Ok(claims.into_iter().find(is_its))
}

/// Explains a node by its claim: what its conditions say is what the loops go by.
pub(super) fn answer(node: &str, claim: &NodeClaim, now: Timestamp) -> Answer {
    let conditions = claim.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let found = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind);
    let holds = |kind: &str| found(kind).filter(|condition| condition.status == "True");
    let since = |condition: &Condition| format!("{:.0}", condition.last_transition_time.0);
    let (name, pool) = (claim.name_any(), pool_of(claim).unwrap_or("none"));
    let mut page = Page::default();
    page.say(&format!("Node {node} is of NodeClaim {name}, of pool {pool}."));
    let mut reasons = Vec::new();
    if claim.metadata.deletion_timestamp.is_some() {
        reasons.push("it is on its way out: its claim is being deleted".to_owned());
    }
    if holds(names::INITIALIZED).is_none() {
        reasons.push("it stays: it is not initialized yet".to_owned());
    }
    if let Some(condition) = holds(names::DRIFTED) {
        reasons.push(format!(
            "it is to be replaced: it has drifted since {} ({})",
            since(condition),
            condition.reason
        ));
    }
    match holds(names::CONSOLIDATABLE) {
        Some(condition) => reasons.push(format!(
            "it may be consolidated since {}: it goes once it is empty, or its pods fit elsewhere for less, and \
             its pool's budgets allow it",
            since(condition)
        )),
        None => reasons.push("it is not up for consolidation: spec.disruption.consolidateAfter has not passed since pods last came or went".to_owned()),
    }
    if let Some(expires) = expires(claim) {
        let word = if expires <= now { "it has expired at" } else { "it expires at" };
        reasons.push(format!("{word} {expires:.0}"));
    }
    for reason in &reasons {
        page.item(reason);
    }
    page.say("What blocks its disruption is told by events (DisruptionBlocked): kubectl describe node.");
    Answer { page, json: json!({"node": node, "nodeClaim": name, "nodePool": pool, "reasons": reasons}) }
}

/// When a claim is replaced because of its age.
fn expires(claim: &NodeClaim) -> Option<Timestamp> {
    let after = claim.spec.expire_after.as_deref().filter(|after| *after != "Never")?;
    let after: jiff::SignedDuration = after.parse().ok()?;
    claim.metadata.creation_timestamp.as_ref()?.0.checked_add(after).ok()
}
