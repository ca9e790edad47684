//! Removal of one node: taint, drain, terminate. Each step can fail; then the node is given back.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Taint;
use kube::Client;
use tandem_core::{
    nodes::{
        action::{Removal, TO_BE_DELETED},
        drain::{Order, is_daemon_pod_evicted},
    },
    scheduling::Pod,
};
use tokio::time::Instant;

use crate::{
    cloud::{CloudProvider, NodeRef},
    cluster::{message, world::World},
    controllers::nodes::{
        drain::{DrainOptions, Evicted, drain},
        taint::{Marking, mark},
    },
};

/// Nodes with an annotation that begins so wait for whoever set it to take it off.
const DELAY_DELETION: &str = "delay-deletion.cluster-autoscaler.kubernetes.io/";
/// Between two looks whether it is off.
const LOOK: Duration = Duration::from_secs(1);

/// How nodes are removed.
#[derive(Debug, Clone)]
pub struct RemoveOptions {
    /// `--node-delete-delay-after-taint`.
    pub delay_after_taint: Duration,
    /// `--node-deletion-delay-timeout`.
    pub delay_timeout: Duration,
    /// `--cordon-node-before-terminating`.
    pub cordon: bool,
    /// `--daemonset-eviction-for-empty-nodes`.
    pub evict_daemon_pods_of_empty: bool,
    /// `--daemonset-eviction-for-occupied-nodes`.
    pub evict_daemon_pods_of_occupied: bool,
    /// How pods are evicted.
    pub drain: DrainOptions,
    /// In which order (`--drain-priority-config`).
    pub order: Order,
    /// The longest grace period without an order (`--max-graceful-termination-sec`).
    pub max_grace: SignedDuration,
}

impl RemoveOptions {
    /// How pods are evicted whose grace periods count up to this.
    fn within(&self, grace: SignedDuration) -> DrainOptions {
        DrainOptions { max_grace: Duration::try_from(grace).ok(), ..self.drain.clone() }
    }
}

/// Why a node is still there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRemoved {
    /// Something came to run on it, or its pods could not be evicted.
    #[error("its pods stay: {0}")]
    Drain(String),
    /// The provider did not terminate it.
    #[error("the provider did not terminate it: {0}")]
    Terminate(String),
}

/// Removes a node whose taint is on it: waits, looks again what runs there, drains, terminates.
///
/// `pods_now` judges the node as it is after the taint: pods that have to move, or why it may not go after all.
///
/// # Errors
/// The step that failed. The taint is off again then, and the node can be used.
pub async fn remove(
    client: &Client,
    world: &World,
    provider: &dyn CloudProvider,
    removal: &Removal,
    options: &RemoveOptions,
    pods_now: impl Fn() -> Result<Vec<Arc<Pod>>, String>,
    evicted: impl Fn(&Pod, &Evicted),
) -> Result<(), NotRemoved> {
    let outcome = remove_tainted(client, world, provider, removal, options, pods_now, evicted).await;
    if outcome.is_err()
        && let Err(error) = give_back(client, &removal.node).await
    {
        let node = &removal.node;
        tracing::warn!(%node, error, "taint {TO_BE_DELETED} could not be removed; the next start does it");
    }
    outcome
}

async fn remove_tainted(
    client: &Client,
    world: &World,
    provider: &dyn CloudProvider,
    removal: &Removal,
    options: &RemoveOptions,
    pods_now: impl Fn() -> Result<Vec<Arc<Pod>>, String>,
    evicted: impl Fn(&Pod, &Evicted),
) -> Result<(), NotRemoved> {
    tokio::time::sleep(options.delay_after_taint).await;
    let pods = pods_now().map_err(NotRemoved::Drain)?;
    let evict_daemon_pods = if pods.is_empty() {
        options.evict_daemon_pods_of_empty
    } else {
        options.evict_daemon_pods_of_occupied
    };
    for turn in options.order.turns(&pods, options.max_grace) {
        let left = drain(client, &world.pods, &turn.pods, &options.within(turn.grace), &evicted).await;
        if !left.is_empty() {
            let texts: Vec<_> = left.iter().map(|left| format!("{}: {}", left.pod.key(), left.why)).collect();
            return Err(NotRemoved::Drain(texts.join("; ")));
        }
    }
    if !pods.is_empty() {
        tracing::info!("All pods removed from {}", removal.node);
    }
    let mut daemon_pods = removal.daemon_pods.clone();
    daemon_pods.retain(|pod| is_daemon_pod_evicted(pod, evict_daemon_pods));
    for turn in options.order.turns(&daemon_pods, options.max_grace) {
        // Best effort: they end with the node in any case.
        let options =
            DrainOptions { eviction_time: Duration::ZERO, wait: false, ..options.within(turn.grace) };
        drain(client, &world.pods, &turn.pods, &options, &evicted).await;
    }
    wait_for_delays(world, &removal.node, options.delay_timeout).await;
    let known = world.nodes.get("", &removal.node).map(|node| NodeRef::from(&*node)).unwrap_or_default();
    // The decision's own names, whatever became of the node since.
    let node = NodeRef { name: removal.node.clone(), provider_id: removal.provider_id.clone(), ..known };
    provider
        .delete_nodes(&removal.group, &[node])
        .await
        .map_err(|error| NotRemoved::Terminate(error.to_string()))
}

/// Puts the taint on, with the time, and the cordon.
///
/// # Errors
/// The API server's words.
pub async fn taint(client: &Client, node: &str, cordon: bool, now: Timestamp) -> Result<(), String> {
    let taint = Taint {
        key: TO_BE_DELETED.to_owned(),
        value: Some(now.as_second().to_string()),
        effect: "NoSchedule".to_owned(),
        time_added: None,
    };
    let marking = Marking { add: vec![taint], cordon: cordon.then_some(true), ..Marking::default() };
    mark(client, node, &marking).await.map_err(|error| message(&error))
}

/// Takes taint and cordon off.
///
/// # Errors
/// The API server's words.
pub async fn give_back(client: &Client, node: &str) -> Result<(), String> {
    let marking =
        Marking { remove: vec![TO_BE_DELETED.to_owned()], cordon: Some(false), ..Marking::default() };
    mark(client, node, &marking).await.map_err(|error| message(&error))
}

async fn wait_for_delays(world: &World, node: &str, timeout: Duration) {
    let deadline = Instant::now() + timeout;
    let delayed = || {
        world
            .nodes
            .get("", node)
            .is_some_and(|node| node.annotations.keys().any(|name| name.starts_with(DELAY_DELETION)))
    };
    while delayed() {
        if Instant::now() >= deadline {
            tracing::warn!(node, "annotations {DELAY_DELETION} are still there, the node goes nevertheless");
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}
