//! Nodes for pods that wait: pods are gathered into batches, a batch is thought about at once, and what fits on no node that is
//! there or on its way gets new NodeClaims.
//!
//! A claim that has not become a node yet counts as one, so that no need is answered twice, after a restart neither.

mod batch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use kube::{ResourceExt as _, api::PostParams};
use tandem_core::{
    nodes::{
        buffer::{Placement, placements},
        pools::{
            cluster::Target,
            provision::{Input, Plan, provision},
            solver::{self, Options},
        },
    },
    scheduling::Pod,
};
use tokio::{sync::watch, time::Instant};

use super::{
    Pools, claim,
    observe::{observe, options, present},
};
use crate::controllers::nodes::buffer::Loop;
use batch::Batch;

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
    let mut rises = pools.demand.as_ref().map(|demand| demand.rises());
    let mut batch = Batch::default();
    let mut told = Told::default();
    loop {
        let present = present(&pools);
        let mut pods = present.needy();
        // In a dry run nobody follows pods to their start.
        if pools.leads() && pools.rehearsal.is_none() {
            pools.startups.seen(&pods, Timestamp::now());
        }
        pods.extend(expected(&pools).await);
        pods.extend(present.buffers);
        if let Some(rehearsal) = pools.rehearsal.as_ref().filter(|_| pods.is_empty()) {
            rehearsal.would_provision(&[]);
        }
        let due = batch.look(&pods, claim_names(&pools), ready_pools(&pools), Instant::now());
        let times = (pools.settings.batch_idle_duration, pools.settings.batch_max_duration);
        if pools.leads() && batch.is_due(times, Instant::now()) {
            pools.metrics.scheduling.begins(pods.len());
            pass(&pools, &mut told).await;
            pools.metrics.scheduling.ended();
            batch.done(Instant::now());
            continue;
        }
        let wait = due.map_or(AGAIN, |_| times.0).min(AGAIN);
        tokio::select! {
            // Its sender lives as long as the pools.
            _ = changes.changed() => {}
            () = rise(rises.as_mut()) => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Until more pods are expected than were.
async fn rise(rises: Option<&mut watch::Receiver<u64>>) {
    match rises {
        // Its sender lives as long as the pools.
        Some(rises) => drop(rises.changed().await),
        None => std::future::pending().await,
    }
}

/// Pods that are about to be made.
async fn expected(pools: &Pools) -> Vec<Arc<Pod>> {
    match &pools.demand {
        Some(demand) if pools.leads() => demand.expected(&pools.world.pods.all()).await.pods,
        _ => Vec::new(),
    }
}

fn claim_names(pools: &Pools) -> HashSet<String> {
    pools.claims_of(None).iter().map(|claim| claim.name_any()).collect()
}

fn ready_pools(pools: &Pools) -> HashSet<String> {
    pools.pools().iter().filter(|pool| pool.is_ready).map(|pool| pool.name.clone()).collect()
}

/// What was decided for pods.
#[derive(Default)]
struct Solution {
    /// Pods that wait; the plan's further places are those of expected ones, whom nobody can tell anything.
    pods: Vec<Arc<Pod>>,
    plan: Plan,
    /// Where the room of buffers would be.
    room: BTreeMap<Arc<str>, Placement>,
}

/// Finds nodes for pods that need them. Beside the other tasks, since it may take a while where there are many.
async fn solve(pools: &Pools, now: Timestamp) -> Solution {
    let cluster = observe(pools, now).await;
    let options = Options { tells_zones: true, ..options(pools) };
    let expected = expected(pools).await;
    let decide = move || {
        let mut pods = cluster.needy();
        let waiting = pods.len();
        pods.extend(expected);
        let real = pods.len();
        pods.extend(cluster.buffers.iter().cloned());
        let mut plan = provision(&Input { cluster: &cluster, pods: &pods, options });
        let room = placements(&pods, &plan);
        pods.truncate(waiting);
        plan.unschedulable.retain(|failure| failure.pod < waiting);
        // A node that only has room may go if another has it too.
        plan.nominations.retain(|(pod, _)| *pod < real);
        Solution { pods, plan, room }
    };
    tokio::task::spawn_blocking(decide).await.unwrap_or_else(|error| {
        tracing::error!(%error, "no nodes could be found for pods");
        Solution::default()
    })
}

/// What pods have been told.
#[derive(Default)]
struct Told {
    nominated: HashMap<Arc<str>, String>,
    failed: HashMap<Arc<str>, Timestamp>,
    /// Pools without instance types.
    without_types: BTreeMap<Arc<str>, Timestamp>,
}

/// What a pool is told that has none (core, `pkg/controllers/provisioning/scheduling`).
const WITHOUT_TYPES: &str = "NodePool requirements filtered out all compatible available instance types";

async fn pass(pools: &Arc<Pools>, told: &mut Told) {
    let now = Timestamp::now();
    let Solution { pods, plan, room } = solve(pools, now).await;
    if let Some(buffers) = &pools.buffers {
        buffers.placed(Loop::Pools, room);
    }
    for (_, target) in &plan.nominations {
        nominate(pools, target);
    }
    let made = match &pools.rehearsal {
        Some(rehearsal) => {
            rehearsal.would_provision(&plan.claims);
            vec![None; plan.claims.len()]
        }
        None => create(pools, &plan.claims, "provisioned").await,
    };
    pools.metrics.scheduling.found(plan.unschedulable.len(), &plan.zones);
    let without_place = plan.unschedulable.iter().map(|failure| failure.pod).collect();
    for seconds in pools.startups.decided(&pods, &without_place, Timestamp::now()) {
        pools.metrics.scheduling.decided(seconds);
    }
    told.retain(&pods);
    tell(pools, told, &pods, &plan, &made, now);
}

/// Keeps a node that pods are expected on.
fn nominate(pools: &Pools, Target { claim, node }: &Target) {
    if let Some(name) = claim.as_ref().or(node.as_ref()) {
        pools.nominations.note(name, pools.settings.batch_max_duration, Instant::now());
    }
}

/// Makes the claims; returns the name of each that could be made. Returns when the watch has told of them.
pub(super) async fn create(
    pools: &Pools,
    claims: &[solver::Claim],
    reason: &'static str,
) -> Vec<Option<String>> {
    let api = pools.claim_api();
    let served = pools.pools();
    let write = |wanted: &solver::Claim| {
        let pool = served.iter().find(|pool| *pool.name == *wanted.pool);
        let (api, wanted) = (api.clone(), pool.map(|pool| claim::build(pool, wanted)));
        async move {
            match wanted {
                Some(wanted) => api.create(&PostParams::default(), &wanted).await.map(Some),
                // Its pool is gone by now.
                None => Ok(None),
            }
        }
    };
    let made: Vec<_> = stream::iter(claims.iter().map(write)).buffered(AT_ONCE).collect().await;
    let mut names = Vec::new();
    for (result, wanted) in made.into_iter().zip(claims) {
        let made = result.unwrap_or_else(|error| {
            tracing::warn!(%error, "a NodeClaim could not be made, its pods are thought about again");
            None
        });
        names.push(made.map(|claim| {
            let name = claim.name_any();
            tracing::info!(claim = name, pods = wanted.pods.len(), reason, "NodeClaim is made");
            pools.metrics.created(&claim, reason);
            pools.nominations.note(&name, pools.settings.batch_max_duration, Instant::now());
            name
        }));
    }
    heard_of(pools, names.iter().flatten()).await;
    names
}

/// Waits until the watch has told of these claims: what is not known counts as no node on its way.
async fn heard_of(pools: &Pools, names: impl Iterator<Item = &String> + Clone) {
    let mut changes = pools.world.changes.subscribe();
    let all = async {
        while names.clone().any(|name| pools.claims.get("", name).is_none()) {
            // Its sender lives as long as the pools.
            let _ = changes.changed().await;
        }
    };
    if tokio::time::timeout(HEARD_WITHIN, all).await.is_err() {
        tracing::warn!(claims = names.count(), "the watch of NodeClaims lags behind");
    }
}

impl Told {
    /// Forgets pods that need nothing any more.
    fn retain(&mut self, pods: &[Arc<Pod>]) {
        let there: HashSet<&str> = pods.iter().map(|pod| &*pod.uid).collect();
        self.nominated.retain(|uid, _| there.contains(&**uid));
        self.failed.retain(|uid, _| there.contains(&**uid));
    }

    /// Pools that had no instance type for pods and have not been told so lately.
    fn without_types(&mut self, failures: &[solver::Failure], now: Timestamp) -> Vec<Arc<str>> {
        self.without_types.retain(|_, at| *at + TOLD_AGAIN > now);
        let refusals = failures.iter().flat_map(|failure| &failure.reasons);
        let without = refusals.filter(|(_, why)| *why == solver::Refusal::NoTypes);
        let without: BTreeSet<_> = without.map(|(pool, _)| pool.clone()).collect();
        let news: Vec<_> = without.into_iter().filter(|it| !self.without_types.contains_key(it)).collect();
        self.without_types.extend(news.iter().map(|pool| (pool.clone(), now)));
        news
    }
}

/// Tells pods where they will run, or why nowhere. Beside the pass, which waits for no event.
fn tell(
    pools: &Arc<Pools>,
    told: &mut Told,
    pods: &[Arc<Pod>],
    plan: &Plan,
    made: &[Option<String>],
    now: Timestamp,
) {
    let mut events = Vec::new();
    let on_claims = plan.claims.iter().zip(made).flat_map(|(claim, name)| {
        claim.pods.iter().filter_map(move |pod| Some((*pod, format!("nodeclaim/{}", name.as_ref()?))))
    });
    let on_nodes = plan.nominations.iter().map(|(pod, target)| (*pod, target.to_string()));
    for (pod, target) in on_claims.chain(on_nodes) {
        let Some(pod) = pods.get(pod) else { continue };
        if events.len() < MOST_EVENTS && told.nominated.get(&pod.uid) != Some(&target) {
            told.nominated.insert(pod.uid.clone(), target.clone());
            events.push((pod.clone(), "Normal", "Nominated", format!("Pod should schedule on: {target}")));
        }
    }
    let nominated = events.len();
    for failure in &plan.unschedulable {
        let pod = &pods[failure.pod];
        let is_told = told.failed.get(&pod.uid).is_some_and(|at| *at + TOLD_AGAIN > now);
        if events.len() < nominated + MOST_EVENTS && !is_told {
            told.failed.insert(pod.uid.clone(), now);
            let message = format!("Failed to schedule pod, {failure}");
            events.push((pod.clone(), "Warning", "FailedScheduling", message));
        }
    }
    let without_types = told.without_types(&plan.unschedulable, now);
    let pools = pools.clone();
    tokio::spawn(async move {
        for pool in without_types.iter().filter_map(|name| pools.node_pools.get("", name)) {
            pools.tell(&*pool, "Warning", "NoCompatibleInstanceTypes", WITHOUT_TYPES.to_owned()).await;
        }
        for (pod, type_, reason, message) in events {
            pools.tell_pod(&pod, type_, reason, message).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_without_instance_types_is_told_once_in_a_while() {
        let refused = |pool: &str, why| (Arc::from(pool), why);
        let reasons = vec![refused("b", solver::Refusal::NoTypes), refused("a", solver::Refusal::Limits)];
        let failure = |pod| solver::Failure { pod, reasons: reasons.clone(), gang: None };
        let failures = [failure(0), failure(1)];
        let mut told = Told::default();
        let mut at = |seconds| told.without_types(&failures, Timestamp::from_second(seconds).unwrap());
        assert_eq!(at(0), [Arc::from("b")]);
        assert_eq!(at(299), []);
        assert_eq!(at(300), [Arc::from("b")]);
    }
}
