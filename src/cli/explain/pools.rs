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

use super::{Answer, OfNodes, buffers, page::Page};
use crate::{
    cloud,
    cluster::world::World,
    controllers::nodes::pools::{
        Config, Pools,
        explain::{self, NodeOfPools, PodOfPools},
    },
    telemetry::events::Events,
};

/// What pools could do for a pod; `None` if `--node-pools-provider` names no provider, or the pod needs nothing.
pub(super) async fn for_pod(
    of: &OfNodes,
    client: &Client,
    world: &Arc<World>,
    pod: &Arc<Pod>,
) -> anyhow::Result<Option<PodOfPools>> {
    Ok(match (start(of, client, world).await?, &pod.node) {
        (Some(pools), None) => Some(explain::pod(&pools, pod).await),
        _ => None,
    })
}

/// What becomes of a claim's node; `None` if `--node-pools-provider` names no provider.
pub(super) async fn for_node(
    of: &OfNodes,
    client: &Client,
    world: &Arc<World>,
    claim: &NodeClaim,
) -> anyhow::Result<Option<NodeOfPools>> {
    let pool = pool_of(claim).unwrap_or_default();
    Ok(match start(of, client, world).await? {
        Some(pools) => Some(explain::node(&pools, &claim.name_any(), pool).await),
        None => None,
    })
}

/// The pools of the provider that `--node-pools-provider` names: their watches, without any of their controllers.
async fn start(of: &OfNodes, client: &Client, world: &Arc<World>) -> anyhow::Result<Option<Arc<Pools>>> {
    let Some(name) = of.pools.provider() else { return Ok(None) };
    let (_, leading) = watch::channel(false);
    let (pools, _) = Pools::start(Config {
        client: client.clone(),
        world: world.clone(),
        demand: None,
        buffers: buffers::read(of.pools.feature_gates.is_on("CapacityBuffer"), client, world).await?,
        provider: cloud::pools::connect(name, &of.pools.provider_settings(world), client).await?,
        events: Events::new(client.clone(), "tandem", None),
        leading,
        settings: of.pools.clone(),
        recorder: None,
    });
    Ok(Some(pools))
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

/// Explains a node by its claim, and by what would be decided about it.
pub(super) fn answer(node: &str, claim: &NodeClaim, decided: Option<&NodeOfPools>, now: Timestamp) -> Answer {
    let (name, pool) = (claim.name_any(), pool_of(claim).unwrap_or("none"));
    let mut reasons = of_claim(claim, now);
    if let Some(decided) = decided {
        reasons.extend(of_decision(decided));
    }
    let mut page = Page::default();
    page.say(&format!("Node {node} is of NodeClaim {name}, of pool {pool}."));
    for reason in &reasons {
        page.item(reason);
    }
    if decided.is_none() {
        page.heading(
            "What disruption would do was not considered: give --node-pools-provider as tandem run has it.",
        );
    }
    Answer { page, json: json!({"node": node, "nodeClaim": name, "nodePool": pool, "reasons": reasons}) }
}

/// What the claim says of itself.
fn of_claim(claim: &NodeClaim, now: Timestamp) -> Vec<String> {
    let conditions = claim.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let holds = |kind: &str| {
        conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")
    };
    let since = |condition: &Condition| format!("{:.0}", condition.last_transition_time.0);
    let mut reasons = Vec::new();
    if claim.metadata.deletion_timestamp.is_some() {
        reasons.push("it is on its way out: its claim is being deleted".to_owned());
    }
    if holds(names::INITIALIZED).is_none() {
        reasons.push("it stays: it is not initialized yet".to_owned());
    }
    if let Some(condition) = holds(names::DRIFTED) {
        let (since, why) = (since(condition), &condition.reason);
        reasons.push(format!("it is to be replaced: it has drifted since {since} ({why})"));
    }
    reasons.push(match holds(names::CONSOLIDATABLE) {
        Some(condition) => format!("it may be consolidated since {}", since(condition)),
        None => {
            "it may not be consolidated: pods came or went within spec.disruption.consolidateAfter".to_owned()
        }
    });
    if let Some(expires) = expires(claim) {
        let word = if expires <= now { "it has expired at" } else { "it expires at" };
        reasons.push(format!("{word} {expires:.0}"));
    }
    reasons
}

/// What disruption would do with it.
fn of_decision(decided: &NodeOfPools) -> Vec<String> {
    let NodeOfPools { command, blocked, stays, allowed } = decided;
    let mut reasons = Vec::new();
    reasons.extend(command.as_ref().map(|command| format!("it goes next: {command}")));
    reasons.extend(blocked.as_ref().map(|why| format!("it is kept: {why}")));
    reasons.extend(stays.as_ref().map(|why| format!("nothing is saved without it: {why}")));
    let nothing: Vec<_> =
        allowed.iter().filter(|(_, count)| *count == 0).map(|(reason, _)| *reason).collect();
    if !nothing.is_empty() {
        reasons.push(format!("its pool's budgets let no node go now for being {}", nothing.join(", ")));
    }
    reasons
}

/// When a claim is replaced because of its age.
fn expires(claim: &NodeClaim) -> Option<Timestamp> {
    let after = claim.spec.expire_after.as_deref().filter(|after| *after != "Never")?;
    let after: jiff::SignedDuration = after.parse().ok()?;
    claim.metadata.creation_timestamp.as_ref()?.0.checked_add(after).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> NodeClaim {
        serde_json::from_value(json!({
            "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim",
            "metadata": {"name": "default-x", "labels": {"karpenter.sh/nodepool": "default"},
                "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"expireAfter": "1h", "requirements": [],
                "nodeClassRef": {"group": "g", "kind": "K", "name": "n"}},
            "status": {"conditions": [
                {"type": "Initialized", "status": "True", "reason": "Initialized", "message": "",
                    "lastTransitionTime": "1970-01-01T00:00:00Z"},
                {"type": "Consolidatable", "status": "True", "reason": "Consolidatable", "message": "",
                    "lastTransitionTime": "1970-01-01T00:10:00Z"}]}
        }))
        .unwrap()
    }

    #[test]
    fn a_node_says_what_disruption_would_do() {
        let decided = NodeOfPools {
            blocked: Some("node is nominated for a pending pod".to_owned()),
            allowed: vec![("Empty", 0), ("Drifted", 1)],
            ..NodeOfPools::default()
        };
        let Answer { page, json } = answer("n", &claim(), Some(&decided), Timestamp::UNIX_EPOCH);
        assert_eq!(
            page.text(),
            "Node n is of NodeClaim default-x, of pool default.\n  \
               it may be consolidated since 1970-01-01T00:10:00Z\n  \
               it expires at 1970-01-01T01:00:00Z\n  \
               it is kept: node is nominated for a pending pod\n  \
               its pool's budgets let no node go now for being Empty\n"
        );
        assert_eq!(json["reasons"].as_array().map(Vec::len), Some(4));
    }

    #[test]
    fn what_was_not_considered_is_said() {
        let text = answer("n", &claim(), None, Timestamp::UNIX_EPOCH).page.text();
        assert!(text.contains("was not considered"), "{text}");
    }
}
