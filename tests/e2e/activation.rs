//! 0 → 1 → N → 0: what the HPA does not do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::case::Case;

pub(crate) async fn from_zero_to_n_and_back(case: &Case<'_>) -> Result<()> {
    let istio = &case.world.istio;
    let app = &case.namespace;
    let rate =
        format!("sum(rate(istio_requests_total{{reporter=\"source\",destination_app=\"{app}\"}}[10s]))");
    istio.set_rps(app, 0.0);
    case.deployment("shop", 1).await?;
    let trigger = case.prometheus(&rate, "10");
    case.scaled_object("shop", json!({ "cooldownPeriod": 3, "maxReplicaCount": 6, "triggers": [trigger] }))
        .await?;
    case.wait_replicas("shop", 0).await?;
    case.wait_event("shop", "KEDAScaleTargetDeactivated", "from 1 to 0").await?;

    istio.set_rps(app, 25.0);
    case.wait_event("shop", "KEDAScaleTargetActivated", "from 0 to 1, triggered by").await?;
    case.wait_replicas("shop", 3).await?;
    case.wait_condition("shop", "Active", "True", "ScalerActive").await?;

    istio.set_rps(app, 45.0);
    case.wait_replicas("shop", 5).await?;

    istio.set_rps(app, 0.0);
    case.wait_replicas("shop", 0).await?;
    case.wait_condition("shop", "Active", "False", "ScalerNotActive").await?;
    Ok(())
}

pub(crate) async fn cooldown(case: &Case<'_>) -> Result<()> {
    let cooldown = Duration::from_secs(8);
    case.set_requests(5).await?;
    case.deployment("shop", 1).await?;
    let trigger = case.prometheus(&case.requests(), "10");
    case.scaled_object("shop", json!({ "cooldownPeriod": cooldown.as_secs(), "triggers": [trigger] }))
        .await?;
    case.wait_condition("shop", "Active", "True", "ScalerActive").await?;

    case.world.istio.set_total(&case.namespace, 0);
    case.wait_condition("shop", "Active", "False", "ScalerCooldown").await?;
    let seen = Instant::now();
    case.wait_replicas("shop", 0).await?;
    // The last active poll was at most the condition's way to us earlier.
    ensure!(
        seen.elapsed() > cooldown.checked_sub(Duration::from_secs(3)).unwrap(),
        "to zero {:?} after the last activity",
        seen.elapsed()
    );
    let last_active = case.get("shop").await?["status"]["lastActiveTime"].clone();
    last_active.as_str().context("no lastActiveTime")?;
    Ok(())
}

/// Inside its window a cron trigger asks for its replicas, outside for none.
pub(crate) async fn cron(case: &Case<'_>) -> Result<()> {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let line = |minutes: i64| {
        let at = now.saturating_add(jiff::SignedDuration::from_mins(minutes));
        format!("{} {} * * *", at.minute(), at.hour())
    };
    let window = |start: i64, end: i64| {
        json!({
            "type": "cron",
            "metadata": { "timezone": "Etc/UTC", "start": line(start), "end": line(end), "desiredReplicas": "3" },
        })
    };
    for (name, trigger) in [("inside", window(-5, 30)), ("outside", window(30, 60))] {
        case.deployment(name, 1).await?;
        case.scaled_object(name, json!({ "triggers": [trigger] })).await?;
    }
    case.wait_replicas("inside", 3).await?;
    case.wait_replicas("outside", 0).await
}

/// `idleReplicaCount` is where inactivity leads, `minReplicaCount` where activity begins.
pub(crate) async fn idle_replicas(case: &Case<'_>) -> Result<()> {
    case.set_requests(0).await?;
    case.deployment("shop", 1).await?;
    let trigger = case.prometheus(&case.requests(), "10");
    let spec = json!({
        "idleReplicaCount": 0, "minReplicaCount": 2, "maxReplicaCount": 6, "cooldownPeriod": 3, "triggers": [trigger],
    });
    case.scaled_object("shop", spec).await?;
    case.wait_replicas("shop", 0).await?;
    case.set_requests(5).await?;
    case.wait_replicas("shop", 2).await?;
    case.set_requests(0).await?;
    case.wait_replicas("shop", 0).await
}

/// An annotation keeps a workload up that nothing asks for.
pub(crate) async fn forced(case: &Case<'_>) -> Result<()> {
    case.set_requests(0).await?;
    case.deployment("shop", 1).await?;
    let trigger = case.prometheus(&case.requests(), "10");
    case.scaled_object("shop", json!({ "cooldownPeriod": 2, "triggers": [trigger] })).await?;
    case.wait_replicas("shop", 0).await?;
    case.annotate("shop", "autoscaling.keda.sh/force-activation", Some("true")).await?;
    case.wait_event("shop", "KEDAScaleTargetActivated", "caused by forced activation annotation").await?;
    case.replicas_stay("shop", 1, Duration::from_secs(5)).await?;
    case.annotate("shop", "autoscaling.keda.sh/force-activation", None).await?;
    case.wait_replicas("shop", 0).await
}
