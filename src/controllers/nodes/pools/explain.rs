//! What node pools could do for a pod, and what becomes of a node, by the decisions that the loops make. Nothing is
//! written.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use tandem_core::{
    nodes::pools::{
        cluster::{Cluster, Pool},
        disrupt::{self, decide},
        provision::{Input, provision},
        solver::Options,
    },
    scheduling::{Node, Pod, Presumed, Unmet, declared, gang},
};

use super::{
    Pools,
    observe::{observe, options},
};

/// What pools could do for a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodOfPools {
    /// The node or the NodeClaim that takes it already, as events name it.
    pub fits: Option<String>,
    /// Each pool, by name.
    pub pools: Vec<PoolVerdict>,
    /// Its gang, if fewer of it would run than have to.
    pub gang: Option<Unmet>,
}

/// What one pool could do for a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolVerdict {
    /// The pool.
    pub pool: String,
    /// Why it cannot help; `None` if it can.
    pub refusal: Option<String>,
    /// What is taken for granted of its new node, since nobody can know it.
    pub presumed: Vec<Presumed>,
    /// If the pod asks for devices, how many of each driver nodes of the pool have or had, by instance type.
    pub devices: BTreeMap<String, BTreeMap<String, usize>>,
}

/// Explains a pod that has no node.
pub async fn pod(pools: &Pools, pod: &Arc<Pod>) -> PodOfPools {
    pools.synced().await;
    let (cluster, options) = (observe(pools, Timestamp::now()).await, options(pools));
    // A gang is placed whole, so the others of it that wait are asked for too.
    let mut pods = vec![pod.clone()];
    if let Some(gang) = gang::key(pod) {
        let waits = |fellow: &&Arc<Pod>| fellow.node.is_none() && fellow.uid != pod.uid;
        pods.extend(gang::fellows(&gang, &cluster.pods).filter(waits).cloned());
    }
    let plan = provision(&Input { cluster: &cluster, pods: &pods, options: options.clone() });
    let fits = plan.nominations.iter().find(|(at, _)| *at == 0).map(|(_, target)| target.to_string());
    let gang =
        plan.unschedulable.into_iter().find(|failure| failure.pod == 0).and_then(|failure| failure.gang);
    let verdict = |pool: &Pool| verdict(&cluster, pool, &pods, &options);
    PodOfPools { fits, pools: cluster.pools.iter().map(verdict).collect(), gang }
}

/// What a pool could do if there were no other, and no node.
fn verdict(cluster: &Cluster, pool: &Pool, pods: &[Arc<Pod>], options: &Options) -> PoolVerdict {
    let mut presumed = Vec::new();
    let refusal = if !pool.is_usable {
        Some("it is not ready, or is being deleted; see its conditions".to_owned())
    } else if pool.spec.is_static() {
        Some("it has a fixed number of nodes (spec.replicas)".to_owned())
    } else {
        // Nodes stay out of it, claims do not: they count against its limits.
        let alone = Cluster { pools: vec![pool.clone()], nodes: Vec::new(), ..cluster.clone() };
        let plan = provision(&Input { cluster: &alone, pods, options: options.clone() });
        if let (Some(claim), Some(pod)) = (plan.claims.first(), pods.first()) {
            let labels = claim.requirements.labels(&options.well_known);
            let node = Node { declared: pool.told.of_node(&labels), labels, ..Node::default() };
            presumed = declared::presumed(pod, &node, &cluster.surroundings);
            presumed.extend(claim.presumes_devices.then_some(Presumed::Devices));
        }
        plan.unschedulable.iter().find(|failure| failure.pod == 0).map(ToString::to_string)
    };
    let asks = |pod: &&Arc<Pod>| !(pod.device_claims.is_empty() && pod.shape.extended.is_empty());
    let counts = cluster.settling.is_some() && pods.first().as_ref().is_some_and(asks);
    let devices = if counts { pool.told.devices.counts() } else { BTreeMap::new() };
    PoolVerdict { pool: pool.name.to_string(), refusal, presumed, devices }
}

/// What becomes of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeOfPools {
    /// What is to be done next, if that is about this node.
    pub command: Option<String>,
    /// What keeps it although it would go.
    pub blocked: Option<String>,
    /// Why nothing would be saved without it.
    pub stays: Option<String>,
    /// How many nodes of its pool the budgets let go now, by reason.
    pub allowed: Vec<(&'static str, usize)>,
}

/// Explains the node of a claim. Which nodes pods are expected on is known to the running process only.
pub async fn node(pools: &Pools, claim: &str, pool: &str) -> NodeOfPools {
    pools.synced().await;
    let now = Timestamp::now();
    let cluster = observe(pools, now).await;
    let decision = decide(
        &disrupt::Input {
            cluster: &cluster,
            budgets: &pools.world.budgets(),
            nominated: &BTreeSet::new(),
            options: options(pools),
            spot_to_spot: pools.settings.feature_gates.is_on("SpotToSpotConsolidation"),
            now,
        },
        |_| true,
    );
    let of = |name: &Arc<str>| **name == *claim;
    let allowed = decision.allowed.iter().filter(|((of, _), _)| **of == *pool);
    NodeOfPools {
        command: decision.command.filter(|command| command.claims.iter().any(of)).map(|it| it.to_string()),
        blocked: decision.blocked.iter().find(|(name, _)| of(name)).map(|(_, why)| why.to_string()),
        stays: decision.unconsolidatable.iter().find(|(name, _)| of(name)).map(|(_, why)| why.clone()),
        allowed: allowed.map(|((_, reason), count)| (reason.name(), *count)).collect(),
    }
}
