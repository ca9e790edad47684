//! Nodes that go although nothing forces them to: those that are empty, then those that have drifted (core,
//! `pkg/controllers/disruption`).
//!
//! A node with pods goes when they have a place: on other nodes, or on new ones that are ready by then. What replaces what is
//! known in memory only: after a restart the new nodes are empty and go, and the drifted ones are looked at again.

mod eligible;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kube::ResourceExt as _;
use tandem_core::{
    api::karpenter::NodeClaim,
    nodes::{
        drain::Evictable,
        pools::{
            budgets::{NodeFacts, PoolCount, Reason},
            provision::{Input, provision},
        },
    },
};

use super::{
    Pools,
    claim::{changed, holds, is_deleting},
    claims::StepError,
    names::{DISRUPTED, condition, disrupted},
    observe::{observe, options},
    provision::create,
    view::Pool,
};
use crate::controllers::nodes::taint::{Marking, mark};
use eligible::{Candidate, candidate};
use tokio::time::Instant;

/// What comes within this time is looked at together.
const CALM: Duration = Duration::from_secs(1);
/// The longest time between two looks (core, `pollingPeriod`).
const PERIOD: Duration = Duration::from_secs(10);

/// Claims that wait for others to take their place: by name, the names of those.
type Replacing = BTreeMap<String, Vec<String>>;

/// Takes nodes away, for ever.
pub(super) async fn run(pools: Arc<Pools>) {
    let mut changes = pools.world.changes.subscribe();
    let mut replacing = Replacing::new();
    let mut is_new = true;
    loop {
        if pools.leads() {
            if std::mem::take(&mut is_new) {
                release(&pools).await;
            }
            if let Err(error) = pass(&pools, &mut replacing).await {
                tracing::warn!(%error, "no node can be taken away now, tried again later");
            }
        } else {
            // What another leader does, this one will not know.
            (is_new, replacing) = (true, Replacing::new());
        }
        pools.changed(&mut changes, CALM, PERIOD).await;
    }
}

/// Gives nodes back that an earlier leader was about to take away.
async fn release(pools: &Pools) {
    let deleting: HashSet<Arc<str>> = pools
        .claims_of(None)
        .iter()
        .filter(|claim| is_deleting(claim))
        .filter_map(|claim| Some(pools.node_of(claim)?.name.clone()))
        .collect();
    for node in pools.world.nodes.all() {
        if node.taint(DISRUPTED).is_some() && node.deleting.is_none() && !deleting.contains(&node.name) {
            untaint(pools, &node.name).await;
        }
    }
}

async fn untaint(pools: &Pools, node: &str) {
    let marking = Marking { remove: vec![DISRUPTED.to_owned()], ..Marking::default() };
    if let Err(error) = mark(&pools.client, node, &marking).await {
        tracing::warn!(node, %error, "a node that stays could not be given back to the scheduler");
    }
}

async fn pass(pools: &Arc<Pools>, replacing: &mut Replacing) -> Result<(), StepError> {
    replace(pools, replacing).await?;
    let now = Timestamp::now();
    for pool in pools.pools() {
        let claims = pools.claims_of(Some(&pool.name));
        let count = PoolCount::of(claims.iter().map(|claim| facts(pools, claim, replacing)));
        let candidates: Vec<_> = claims
            .iter()
            .filter(|claim| !replacing.contains_key(&claim.name_any()))
            .filter_map(|claim| candidate(pools, claim, now))
            .collect();
        let disrupting = empty(pools, &pool, count, &candidates, now).await?;
        drifted(pools, &pool, count, &candidates, replacing, disrupting, now).await?;
        pools.metrics.eligible(&pool.name, candidates.len());
    }
    Ok(())
}

fn facts(pools: &Pools, claim: &NodeClaim, replacing: &Replacing) -> NodeFacts {
    NodeFacts {
        managed: true,
        initialized: holds(claim, condition::INITIALIZED),
        instance_terminating: holds(claim, condition::INSTANCE_TERMINATING),
        ready: pools.node_of(claim).is_some_and(|node| node.ready),
        marked_for_deletion: is_deleting(claim) || replacing.contains_key(&claim.name_any()),
    }
}

/// How many nodes of a pool may go now, beside `disrupting` that this pass has chosen.
async fn allowed(
    pools: &Pools,
    pool: &Pool,
    count: PoolCount,
    reason: Reason,
    disrupting: usize,
    now: Timestamp,
) -> usize {
    let allowance = count.allowed(&pool.spec.disruption.budgets(), reason, now);
    for problem in &allowance.problems {
        tracing::warn!(pool = pool.name, %problem, "a budget cannot be read and allows nothing");
    }
    let left = usize::try_from(allowance.nodes).unwrap_or(0).saturating_sub(disrupting);
    pools.metrics.allowed(&pool.name, reason.name(), left);
    if left == 0
        && let Some(object) = pools.node_pools.get("", &pool.name)
    {
        let message =
            format!("No allowed disruptions for disruption reason {} due to blocking budget", reason.name());
        pools.tell(&*object, "Normal", "DisruptionBlocked", message).await;
    }
    left
}

/// Takes empty nodes away that have been calm long enough. Returns how many.
async fn empty(
    pools: &Pools,
    pool: &Pool,
    count: PoolCount,
    candidates: &[Candidate],
    now: Timestamp,
) -> Result<usize, StepError> {
    let empty: Vec<_> = candidates
        .iter()
        .filter(|candidate| candidate.is_empty && holds(&candidate.claim, condition::CONSOLIDATABLE))
        .collect();
    if empty.is_empty() {
        return Ok(0);
    }
    let left = allowed(pools, pool, count, Reason::Empty, 0, now).await;
    let chosen = &empty[..left.min(empty.len())];
    for candidate in chosen {
        take(pools, candidate, "empty").await?;
    }
    Ok(chosen.len())
}

/// No pod more, and the claim's end. A pod that came between is evicted under its budget like any other.
async fn take(pools: &Pools, candidate: &Candidate, reason: &'static str) -> Result<(), StepError> {
    let marking = Marking { add: vec![disrupted()], ..Marking::default() };
    mark(&pools.client, &candidate.node.name, &marking).await?;
    let message = format!("Disrupting NodeClaim: {reason}");
    pools.tell(&*candidate.claim, "Normal", "DisruptionTerminating", message).await;
    pools.delete_claim(&candidate.claim, reason).await?;
    Ok(())
}

/// Takes a drifted node away, empty ones first, then the one that drifted first. Returns how many were begun.
async fn drifted(
    pools: &Arc<Pools>,
    pool: &Pool,
    count: PoolCount,
    candidates: &[Candidate],
    replacing: &mut Replacing,
    disrupting: usize,
    now: Timestamp,
) -> Result<usize, StepError> {
    let mut drifted: Vec<_> =
        candidates.iter().filter(|candidate| holds(&candidate.claim, condition::DRIFTED)).collect();
    if drifted.is_empty() || allowed(pools, pool, count, Reason::Drifted, disrupting, now).await == 0 {
        return Ok(0);
    }
    drifted.sort_by_key(|candidate| {
        (!candidate.is_empty, changed(&candidate.claim, condition::DRIFTED), candidate.claim.name_any())
    });
    let budgets = pools.world.budgets();
    for candidate in drifted {
        if let Evictable::Not(pod) = budgets.can_evict(&candidate.pods)
            && candidate.claim.spec.termination_grace_period.is_none()
        {
            let message = format!("pdb prevents pod evictions (pod={})", pod.key());
            pools.tell(&*candidate.claim, "Normal", "DisruptionBlocked", message).await;
            continue;
        }
        if move_off(pools, candidate, replacing, now).await? {
            return Ok(1);
        }
    }
    Ok(0)
}

/// Finds places for a candidate's pods, and takes it away once they are there; whether that has begun.
async fn move_off(
    pools: &Arc<Pools>,
    candidate: &Candidate,
    replacing: &mut Replacing,
    now: Timestamp,
) -> Result<bool, StepError> {
    let name = candidate.claim.name_any();
    let mut cluster = observe(pools, now).await;
    cluster.leaving.extend(replacing.keys().chain([&name]).map(|name| name.as_str().into()));
    let plan = provision(&Input { cluster: &cluster, pods: &candidate.pods, options: options(pools) });
    if let Some(why) = plan.unschedulable.first() {
        let message = format!("pod {} would have no place: {why}", candidate.pods[why.pod].key());
        pools.tell(&*candidate.claim, "Normal", "DisruptionBlocked", message).await;
        return Ok(false);
    }
    if plan.claims.is_empty() {
        take(pools, candidate, "drifted").await?;
        return Ok(true);
    }
    let marking = Marking { add: vec![disrupted()], ..Marking::default() };
    mark(&pools.client, &candidate.node.name, &marking).await?;
    let wanted = plan.claims.len();
    let made: Vec<String> = create(pools, &plan.claims, "drifted").await.into_iter().flatten().collect();
    if made.len() < wanted {
        // Those that were made are empty, and go by themselves.
        untaint(pools, &candidate.node.name).await;
        return Ok(false);
    }
    let message = format!("Launching NodeClaim: {}", made.join(", "));
    pools.tell(&*candidate.claim, "Normal", "DisruptionLaunching", message).await;
    replacing.insert(name, made);
    Ok(true)
}

/// Takes away those whose replacements are ready, and gives back those whose replacements failed.
async fn replace(pools: &Pools, replacing: &mut Replacing) -> Result<(), StepError> {
    for (name, made) in std::mem::take(replacing) {
        let Some(claim) = pools.claims.get("", &name).filter(|claim| !is_deleting(claim)) else { continue };
        let found: Vec<_> = made.iter().filter_map(|name| pools.claims.get("", name)).collect();
        if found.len() < made.len() || found.iter().any(|claim| is_deleting(claim)) {
            if let Some(node) = pools.node_of(&claim) {
                untaint(pools, &node.name).await;
            }
            continue;
        }
        // Nobody takes them away while they wait for the pods.
        for name in &made {
            pools.nominations.note(name, pools.settings.batch_max_duration, Instant::now());
        }
        if found.iter().all(|claim| holds(claim, condition::INITIALIZED)) {
            pools.delete_claim(&claim, "drifted").await?;
        } else {
            replacing.insert(name, made);
        }
    }
    Ok(())
}
