//! Every fallback behaviour, with a Prometheus that is stopped and started again.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use harness::{Prometheus, wait};
use serde_json::{Value, json};

use crate::case::{Case, SOON, condition, prometheus};

/// An object of the scenario: what it asks for, and the replicas while Prometheus answers (the query is 30 over 10)
/// and while it does not.
struct Behaviour {
    name: &'static str,
    fallback: Value,
    fallen_back: i32,
}

fn behaviours() -> [Behaviour; 5] {
    let behaviour = |name, replicas: i32, fallen_back| Behaviour {
        name,
        fallback: json!({ "failureThreshold": 2, "replicas": replicas, "behavior": name }),
        fallen_back,
    };
    [
        behaviour("static", 5, 5),
        behaviour("currentReplicas", 5, 3),
        behaviour("currentReplicasIfHigher", 2, 3),
        behaviour("currentReplicasIfLower", 2, 2),
        // The failing trigger is nil in the formula: nil ?? 10, and 30 of the healthy one.
        behaviour("scalingModifiers", 5, 4),
    ]
}

pub(crate) async fn every_behaviour(case: &Case<'_>) -> Result<()> {
    let no_targets: &[SocketAddr] = &[];
    let mut source =
        Prometheus::start(case.world.control_plane.folder(), "fallback-prometheus", no_targets).await?;
    for Behaviour { name, fallback, .. } in &behaviours() {
        let name = &name.to_lowercase();
        case.deployment(name, 1).await?;
        case.scaled_object(name, spec(case, &source, fallback)).await?;
    }
    all_have(case, |_| 3, "False", "NoFallbackFound").await?;

    source.stop().await?;
    all_have(case, |behaviour| behaviour.fallen_back, "True", "FallbackExists").await?;
    health(case).await?;
    case.wait_event("static", "ScaledObjectFallbackActivated", "").await?;

    source.resume().await?;
    all_have(case, |_| 3, "False", "NoFallbackFound").await?;
    case.wait_event("static", "ScaledObjectFallbackDeactivated", "").await?;
    Ok(())
}

/// 30 over a target of 10, from the Prometheus that will stop; with the formula (0 + 30).
fn spec(case: &Case<'_>, source: &Prometheus, fallback: &Value) -> Value {
    let mut spec = json!({ "minReplicaCount": 1, "maxReplicaCount": 8, "fallback": fallback });
    if fallback["behavior"] == "scalingModifiers" {
        let mut failing = prometheus(&source.url(), "vector(0)", "10");
        failing["name"] = json!("failing");
        let mut healthy = case.prometheus("vector(30)", "10");
        healthy["name"] = json!("healthy");
        spec["triggers"] = json!([failing, healthy]);
        spec["advanced"] =
            json!({ "scalingModifiers": { "formula": "(failing ?? 10) + healthy", "target": "10" } });
    } else {
        spec["triggers"] = json!([prometheus(&source.url(), "vector(30)", "10")]);
    }
    spec
}

async fn all_have(
    case: &Case<'_>,
    replicas: impl Fn(&Behaviour) -> i32,
    fallback: &str,
    reason: &str,
) -> Result<()> {
    for behaviour in behaviours() {
        let name = behaviour.name.to_lowercase();
        case.wait_replicas(&name, replicas(&behaviour)).await?;
        case.wait_condition(&name, "Fallback", fallback, reason).await?;
    }
    Ok(())
}

async fn health(case: &Case<'_>) -> Result<()> {
    wait::until("the health of the metric to be Failing", SOON, || async {
        let object = case.get("static").await?;
        let health = &object["status"]["health"]["s0-prometheus"];
        ensure!(health["status"] == "Failing", "{health}, {}", condition(&object, "Fallback")?);
        ensure!(health["numberOfFailures"].as_i64() > Some(2), "{health}");
        Ok(())
    })
    .await
}
