//! The pause annotations.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::wait;
use serde_json::json;

use crate::case::{Case, SOON};

/// Several evaluations of the HPA and polls.
const QUIET: Duration = Duration::from_secs(6);

/// A Deployment at two replicas, since 20 requests over 10 ask for two.
async fn at_two(case: &Case<'_>) -> Result<()> {
    case.set_requests(20).await?;
    case.deployment("shop", 1).await?;
    let trigger = case.prometheus(&case.requests(), "10");
    case.scaled_object("shop", json!({ "minReplicaCount": 1, "triggers": [trigger] })).await?;
    case.wait_replicas("shop", 2).await
}

async fn hpa_is_gone(case: &Case<'_>) -> Result<()> {
    wait::until("the HPA to be gone", SOON, || async {
        let hpa = case.hpas().get_opt("keda-hpa-shop").await?;
        ensure!(hpa.is_none(), "it is still there");
        Ok(())
    })
    .await
}

pub(crate) async fn paused(case: &Case<'_>) -> Result<()> {
    at_two(case).await?;
    case.annotate("shop", "autoscaling.keda.sh/paused", Some("true")).await?;
    case.wait_condition("shop", "Paused", "True", "ScaledObjectPaused").await?;
    hpa_is_gone(case).await?;
    case.wait_event("shop", "ScaledObjectPaused", "").await?;
    case.wait_event("shop", "KEDAScalersStopped", "Stopped scalers watch").await?;
    case.set_requests(50).await?;
    case.replicas_stay("shop", 2, QUIET).await?;

    case.annotate("shop", "autoscaling.keda.sh/paused", None).await?;
    case.wait_condition("shop", "Paused", "False", "ScaledObjectUnpaused").await?;
    case.wait_event("shop", "ScaledObjectUnpaused", "").await?;
    case.wait_replicas("shop", 5).await?;

    case.annotate("shop", "autoscaling.keda.sh/paused", Some("true")).await?;
    case.wait_event_counted("shop", "ScaledObjectPaused", 2).await
}

pub(crate) async fn paused_replicas(case: &Case<'_>) -> Result<()> {
    at_two(case).await?;
    case.annotate("shop", "autoscaling.keda.sh/paused-replicas", Some("4")).await?;
    case.wait_replicas("shop", 4).await?;
    hpa_is_gone(case).await?;
    case.wait_condition("shop", "Paused", "True", "ScaledObjectPaused").await?;
    let paused_at = case.get("shop").await?["status"]["pausedReplicaCount"].clone();
    ensure!(paused_at == 4, "pausedReplicaCount is {paused_at}");
    case.replicas_stay("shop", 4, QUIET).await?;

    case.annotate("shop", "autoscaling.keda.sh/paused-replicas", None).await?;
    case.wait_replicas("shop", 2).await?;
    case.wait_condition("shop", "Paused", "False", "ScaledObjectUnpaused").await?;
    Ok(())
}

pub(crate) async fn paused_scale_in(case: &Case<'_>) -> Result<()> {
    at_two(case).await?;
    case.annotate("shop", "autoscaling.keda.sh/paused-scale-in", Some("true")).await?;
    wait::until("scaleDown to be disabled", SOON, || async {
        let behavior = case.hpa("shop").await?.spec.behavior.context("HPA without behavior")?;
        let policy = behavior.scale_down.and_then(|rules| rules.select_policy);
        ensure!(policy.as_deref() == Some("Disabled"), "selectPolicy is {policy:?}");
        Ok(())
    })
    .await?;
    case.wait_condition("shop", "Paused", "True", "ScaledObjectPaused").await?;
    case.set_requests(40).await?;
    case.wait_replicas("shop", 4).await?;
    case.set_requests(10).await?;
    case.replicas_stay("shop", 4, QUIET).await?;

    case.annotate("shop", "autoscaling.keda.sh/paused-scale-in", None).await?;
    case.wait_replicas("shop", 1).await
}
