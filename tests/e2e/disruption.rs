//! Parts that fail: the leader, kube-apiserver, all of Tandem.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::wait;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams};
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

/// A namespace with a `ScaledObject` goes as quickly as one without while no Tandem runs: its finalizer must not hold
/// it.
pub(crate) async fn namespace_deleted_while_stopped(case: &Case<'_>) -> Result<()> {
    at_two(case).await?;
    let (with, without) = (case.namespace.clone(), "namespace-without-objects");
    case.create_namespace(without).await?;
    case.world.stop_replicas().await?;
    let namespaces: Api<Namespace> = Api::all(case.client());
    for name in [with.as_str(), without] {
        namespaces.delete(name, &DeleteParams::default()).await?;
    }
    let result = both_go(&namespaces, &with, without).await;
    case.world.start_replicas().await?;
    result?;
    wait::until("both namespaces to be gone", SOON, || async {
        for name in [with.as_str(), without] {
            ensure!(namespaces.get_opt(name).await?.is_none(), "{name} is still there");
        }
        Ok(())
    })
    .await
}

/// While the metrics API does not answer, the namespace controller may hold every namespace back, so what counts is
/// that nothing of the `ScaledObject`'s keeps its namespace longer than the empty one.
async fn both_go(namespaces: &Api<Namespace>, with: &str, without: &str) -> Result<()> {
    let deadline = Instant::now() + SOON;
    loop {
        let [with, without] = [namespaces.get_opt(with).await?, namespaces.get_opt(without).await?];
        match (with, without) {
            (None, _) => return Ok(()),
            (Some(with), without) if Instant::now() > deadline => {
                let conditions = with.status.and_then(|status| status.conditions).unwrap_or_default();
                let held = conditions.iter().find(|condition| {
                    ["NamespaceContentRemaining", "NamespaceFinalizersRemaining"]
                        .contains(&condition.type_.as_str())
                        && condition.status == "True"
                });
                match held {
                    Some(held) => bail!("the namespace is held: {:?}", held.message),
                    None if without.is_none() => {
                        bail!("the empty namespace is gone, the other is not: {conditions:?}")
                    }
                    None => return Ok(()),
                }
            }
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
