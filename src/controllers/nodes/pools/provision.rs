//! Nodes for pods that wait: pods are gathered into batches, a batch is thought about at once, and what fits on no node that is
//! there or on its way gets new NodeClaims.
//!
//! A claim that has not become a node yet counts as one, so that no need is answered twice, after a restart neither.

mod batch;
mod solve;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use kube::{ResourceExt as _, api::PostParams};
use tandem_core::{
    api::karpenter::NodeClaim,
    scheduling::{Pod, pod::Scheduled},
};
use tokio::time::Instant;

use super::{Pools, claim, claim::is_deleting, pack::NewNode};
use batch::Batch;
pub(super) use solve::{Solution, solve};

/// Pods that still wait are thought about again after so long.
const AGAIN: Duration = Duration::from_secs(10);
/// NodeClaims that are written at once.
const AT_ONCE: usize = 32;
/// The watch tells of a claim that was made within milliseconds; longer than this it is not waited for.
const HEARD_WITHIN: Duration = Duration::from_secs(10);
/// Events of one kind in one pass at most (core, `pkg/events/suite.go`: 5 a second, 10 at once).
const MOST_EVENTS: usize = 10;
/// A pod is told again that it fits nowhere after so long.
const TOLD_AGAIN: SignedDuration = SignedDuration::from_mins(5);

/// Gives pods nodes, for ever.
pub(super) async fn run(pools: Arc<Pools>) {
    let mut changes = pools.world.changes.subscribe();
    let mut batch = Batch::default();
    let mut told = Told::default();
    loop {
        let due = batch.look(&needy(&pools), claim_names(&pools), ready_pools(&pools), Instant::now());
        let times = (pools.settings.batch_idle_duration, pools.settings.batch_max_duration);
        if pools.leads() && batch.is_due(times, Instant::now()) {
            let started = Instant::now();
            pass(&pools, &mut told).await;
            pools.metrics.scheduled(started.elapsed());
            batch.done(Instant::now());
            continue;
        }
        let wait = due.map_or(AGAIN, |_| times.0).min(AGAIN);
        // The time that ran out is as good as a change.
        let _ = tokio::time::timeout(wait, changes.changed()).await;
    }
}

fn claim_names(pools: &Pools) -> HashSet<String> {
    pools.claims_of(None).iter().map(|claim| claim.name_any()).collect()
}

fn ready_pools(pools: &Pools) -> HashSet<String> {
    pools.pools().iter().filter(|pool| pool.is_ready).map(|pool| pool.name.clone()).collect()
}

/// Pods that need a node: those that fit on none, and those whose node goes.
fn needy(pools: &Pools) -> Vec<Arc<Pod>> {
    let leaving: HashSet<Arc<str>> = pools
        .claims_of(None)
        .iter()
        .filter(|claim| is_deleting(claim))
        .filter_map(|claim| Some(pools.node_of(claim)?.name.clone()))
        .collect();
    let needs = |pod: &Arc<Pod>| is_provisionable(pod) || is_leaving(pod, &leaving);
    pools.world.pods.all().into_iter().filter(needs).collect()
}

/// Whether a pod waits for a node that new nodes could help (core, `pkg/utils/pod/scheduling.go`, `IsProvisionable`).
fn is_provisionable(pod: &Pod) -> bool {
    matches!(pod.scheduled, Scheduled::Unschedulable(_))
        && pod.node.is_none()
        && pod.nominated.is_none()
        && pod.deleting.is_none()
        && !pod.is_terminal()
        && !pod.is_of_daemon_set()
        && !is_of_node(pod)
}

/// Whether a pod will be made again elsewhere when its node goes.
fn is_leaving(pod: &Pod, leaving: &HashSet<Arc<str>>) -> bool {
    pod.node.as_ref().is_some_and(|node| leaving.contains(node)) && moves(pod)
}

/// Whether a pod would have to move if its node went (core, `IsReschedulable`).
pub(super) fn moves(pod: &Pod) -> bool {
    pod.deleting.is_none()
        && !pod.is_terminal()
        && !pod.is_of_daemon_set()
        && !pod.is_mirror()
        && !is_of_node(pod)
}

fn is_of_node(pod: &Pod) -> bool {
    pod.shape.owner.as_ref().is_some_and(|owner| &*owner.kind == "Node")
}

/// What pods have been told.
#[derive(Default)]
struct Told {
    nominated: HashMap<Arc<str>, String>,
    failed: HashMap<Arc<str>, Timestamp>,
}

async fn pass(pools: &Arc<Pools>, told: &mut Told) {
    let now = Timestamp::now();
    let pods = needy(pools);
    let solution = solve(pools, pods, &HashSet::new(), now).await;
    let batch = pools.settings.batch_max_duration;
    for (_, node) in &solution.placed {
        pools.nominations.note(node, batch, Instant::now());
    }
    let made = create(pools, &solution, "provisioned").await;
    pools.metrics.unschedulable(solution.unschedulable.len());
    told.retain(&solution.pods);
    tell(pools, told, &solution, &made, now);
}

/// Makes the claims; returns the pods' places with the names of their claims. Returns when the watch has told of them.
pub(super) async fn create(pools: &Pools, solution: &Solution, reason: &'static str) -> Vec<(usize, String)> {
    let api = pools.claim_api();
    let write = |node: &NewNode| {
        let (api, wanted, places) = (api.clone(), claim::build(&node.pool, &node.claim), node.pods.clone());
        async move { (api.create(&PostParams::default(), &wanted).await, places) }
    };
    let made: Vec<(Result<NodeClaim, _>, _)> =
        stream::iter(solution.nodes.iter().map(write)).buffered(AT_ONCE).collect().await;
    let mut names = Vec::new();
    let mut placed = Vec::new();
    for (result, places) in made {
        match result {
            Err(error) => {
                tracing::warn!(%error, "a NodeClaim could not be made, its pods are thought about again");
            }
            Ok(claim) => {
                let name = claim.name_any();
                tracing::info!(claim = name, pods = places.len(), reason, "NodeClaim is made");
                pools.metrics.created(&claim, reason);
                pools.nominations.note(&name, pools.settings.batch_max_duration, Instant::now());
                placed.extend(places.into_iter().map(|place| (place, name.clone())));
                names.push(name);
            }
        }
    }
    heard_of(pools, &names).await;
    placed
}

/// Waits until the watch has told of these claims: what is not known counts as no node on its way.
async fn heard_of(pools: &Pools, names: &[String]) {
    let mut changes = pools.world.changes.subscribe();
    let all = async {
        while names.iter().any(|name| pools.claims.get("", name).is_none()) {
            // Its sender lives as long as the pools.
            let _ = changes.changed().await;
        }
    };
    if tokio::time::timeout(HEARD_WITHIN, all).await.is_err() {
        tracing::warn!(claims = names.len(), "the watch of NodeClaims lags behind");
    }
}

impl Told {
    /// Forgets pods that need nothing any more.
    fn retain(&mut self, pods: &[Arc<Pod>]) {
        let there: HashSet<&str> = pods.iter().map(|pod| &*pod.uid).collect();
        self.nominated.retain(|uid, _| there.contains(&**uid));
        self.failed.retain(|uid, _| there.contains(&**uid));
    }
}

/// Tells pods where they will run, or why nowhere. Beside the pass, which waits for no event.
fn tell(pools: &Arc<Pools>, told: &mut Told, solution: &Solution, made: &[(usize, String)], now: Timestamp) {
    let mut events = Vec::new();
    let on_claims = made.iter().map(|(place, claim)| (*place, format!("nodeclaim/{claim}")));
    let on_nodes = solution.placed.iter().map(|(place, node)| (*place, format!("node/{node}")));
    for (place, target) in on_claims.chain(on_nodes) {
        let pod = &solution.pods[place];
        if events.len() < MOST_EVENTS && told.nominated.get(&pod.uid) != Some(&target) {
            told.nominated.insert(pod.uid.clone(), target.clone());
            events.push((pod.clone(), "Normal", "Nominated", format!("Pod should schedule on: {target}")));
        }
    }
    let nominated = events.len();
    for (place, why) in &solution.unschedulable {
        let pod = &solution.pods[*place];
        let is_told = told.failed.get(&pod.uid).is_some_and(|at| *at + TOLD_AGAIN > now);
        if events.len() < nominated + MOST_EVENTS && !is_told {
            told.failed.insert(pod.uid.clone(), now);
            events.push((
                pod.clone(),
                "Warning",
                "FailedScheduling",
                format!("Failed to schedule pod, {why}"),
            ));
        }
    }
    let pools = pools.clone();
    tokio::spawn(async move {
        for (pod, type_, reason, message) in events {
            pools.tell_pod(&pod, type_, reason, message).await;
        }
    });
}
