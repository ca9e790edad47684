//! Which nodes may be taken away at all.

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt as _;
use tandem_core::{
    api::karpenter::NodeClaim,
    nodes::pools::{
        costs::{COST_OF_NODE, disruption_cost},
        pods::{is_protected, moves},
    },
    scheduling::{Node, Pod},
};
use tokio::time::Instant;

use super::super::{
    Pools,
    claim::{holds, is_deleting},
    names::{DO_NOT_DISRUPT, condition},
};

/// A node that may be taken away.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Its claim.
    pub(super) claim: Arc<NodeClaim>,
    /// The node.
    pub(super) node: Arc<Node>,
    /// Pods that would have to move.
    pub(super) pods: Vec<Arc<Pod>>,
    /// Whether none of them is worth anything.
    pub(super) is_empty: bool,
}

/// The node of a claim, if it may be taken away.
pub(super) fn candidate(pools: &Pools, claim: &Arc<NodeClaim>, now: Timestamp) -> Option<Candidate> {
    if is_deleting(claim) || !holds(claim, condition::INITIALIZED) {
        return None;
    }
    let node = pools.node_of(claim).filter(|node| node.deleting.is_none())?;
    let at = Instant::now();
    let is_nominated =
        pools.nominations.holds(&claim.name_any(), at) || pools.nominations.holds(&node.name, at);
    let says = |value: Option<&String>| value.is_some_and(|value| value == "true");
    let is_kept = says(node.annotations.get(DO_NOT_DISRUPT)) || says(claim.annotations().get(DO_NOT_DISRUPT));
    if is_nominated || is_kept {
        return None;
    }
    let all = pools.pods_on(&node.name);
    let has_protected =
        all.iter().any(|pod| pod.deleting.is_none() && !pod.is_mirror() && is_protected(pod, now));
    // Its end would wait for them; where the claim bounds that wait, drift does not.
    let may_wait = claim.spec.termination_grace_period.is_some() && holds(claim, condition::DRIFTED);
    if has_protected && !may_wait {
        return None;
    }
    let pods: Vec<_> = all.into_iter().filter(|pod| moves(pod)).collect();
    let is_empty = disruption_cost(pods.iter().map(|pod| &*pod.shape)) <= COST_OF_NODE;
    Some(Candidate { claim: claim.clone(), node, pods, is_empty })
}
