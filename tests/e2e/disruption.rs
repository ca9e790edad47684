//! Parts that fail: the leader, kube-apiserver, all of Tandem.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::wait;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use serde_json::json;

use crate::case::{Case, SOON};

/// Longer than a Lease holds (15 s).
const TAKE_OVER: Duration = Duration::from_secs(40);

async fn at_two(case: &Case<'_>) -> Result<()> {
    case.set_requests(20).await?;
    case.deployment("shop", 1).await?;
    let trigger = case.prometheus(&case.requests(), "10");
    case.scaled_object("shop", json!({ "minReplicaCount": 1, "triggers": [trigger] })).await?;
    case.wait_replicas("shop", 2).await
}

/// Reads go on through the other replica, without one failure, long before it takes the Lease over.
pub(crate) async fn leader_killed(case: &Case<'_>) -> Result<()> {
    at_two(case).await?;
    let (stop, reads) = (AtomicBool::new(false), AtomicU32::new(0));
    let reader = async {
        while !stop.load(Ordering::Relaxed) {
            let value = case.read_metric("s0-prometheus", "shop").await.context("a read failed")?;
            ensure!(value == "20" || value == "40", "a read got {value}");
            reads.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    };
    let script = async {
        let result = kill_leader(case).await;
        stop.store(true, Ordering::Relaxed);
        result
    };
    let (read, followed) = futures::join!(reader, script);
    let result = read.and(followed);
    case.world.start_replicas().await?;
    ensure!(result.is_err() || reads.load(Ordering::Relaxed) > 100, "too few reads to say anything");
    result
}

async fn kill_leader(case: &Case<'_>) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let first = case.world.kill_leader().await?;
    // The HPA scales on while nobody holds the Lease.
    case.set_requests(40).await?;
    case.wait_replicas("shop", 4).await?;
    wait::until("another leader", TAKE_OVER, || async {
        let leader = case.world.leader().await?;
        ensure!(leader != first, "it is still {leader}");
        Ok(())
    })
    .await?;
    // The new leader writes: an edit is followed.
    case.patch("shop", json!({ "spec": { "maxReplicaCount": 3 } })).await?;
    case.wait_replicas("shop", 3).await
}

pub(crate) async fn api_server_restarted(case: &Case<'_>) -> Result<()> {
    at_two(case).await?;
    let control_plane = &case.world.control_plane;
    control_plane.kill_api_server().await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    control_plane.start_api_server().await?;
    case.set_requests(50).await?;
    case.wait_replicas("shop", 5).await?;
    case.patch("shop", json!({ "spec": { "maxReplicaCount": 3 } })).await?;
    case.wait_replicas("shop", 3).await?;
    let ended = case.world.ended_replicas().await;
    ensure!(ended.is_empty(), "{ended:?} ended");
    Ok(())
}

/// Nothing of a ScaledObject holds its namespace back while no Tandem runs.
///
/// The namespace itself may stay until Tandem is back: kube-controller-manager deletes none for good while a
/// registered API does not answer, whether or not there ever was a ScaledObject in it.
pub(crate) async fn namespace_deleted_while_stopped(case: &Case<'_>) -> Result<()> {
    at_two(case).await?;
    case.world.stop_replicas().await?;
    case.delete().await?;
    let namespaces: Api<Namespace> = Api::all(case.client());
    let emptied =
        wait::until("the namespace to be empty", SOON, || is_empty(&namespaces, &case.namespace)).await;
    case.world.start_replicas().await?;
    emptied?;
    wait::until("the namespace to be gone", SOON, || async {
        ensure!(namespaces.get_opt(&case.namespace).await?.is_none(), "it is still there");
        Ok(())
    })
    .await
}

/// Whether the namespace is gone, or its controller has found nothing left in it that waits for a finalizer.
async fn is_empty(namespaces: &Api<Namespace>, name: &str) -> Result<()> {
    let Some(namespace) = namespaces.get_opt(name).await? else { return Ok(()) };
    let conditions = namespace.status.and_then(|status| status.conditions).unwrap_or_default();
    for kind in ["NamespaceContentRemaining", "NamespaceFinalizersRemaining"] {
        let condition = conditions.iter().find(|condition| condition.type_ == kind);
        let condition = condition.context("its controller has not looked yet")?;
        ensure!(condition.status == "False", "{kind}: {:?}", condition.message);
    }
    Ok(())
}
