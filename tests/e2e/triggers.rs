//! Several triggers in one object.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::case::{Case, prometheus};

pub(crate) async fn the_highest_of_two_wins(case: &Case<'_>) -> Result<()> {
    case.set_requests(20).await?;
    case.deployment("shop", 1).await?;
    let constant = case.prometheus("vector(35)", "10");
    let requests = case.prometheus(&case.requests(), "10");
    case.scaled_object("shop", json!({ "triggers": [constant, requests] })).await?;
    case.wait_replicas("shop", 4).await?;
    // The HPA lets four pods come in 15 s, so this one takes a moment.
    case.set_requests(75).await?;
    case.wait_replicas("shop", 8).await?;
    case.set_requests(20).await?;
    case.wait_replicas("shop", 4).await?;
    let names = case.get("shop").await?["status"]["externalMetricNames"].clone();
    ensure!(names == json!(["s0-prometheus", "s1-prometheus"]), "{names}");
    Ok(())
}

pub(crate) async fn scaling_modifiers(case: &Case<'_>) -> Result<()> {
    case.set_requests(12).await?;
    case.deployment("shop", 1).await?;
    let mut requests = case.prometheus(&case.requests(), "10");
    requests["name"] = json!("requests");
    let mut jobs = case.prometheus("vector(20)", "10");
    jobs["name"] = json!("jobs");
    let modifiers = json!({ "formula": "requests + jobs", "target": "8" });
    case.scaled_object(
        "shop",
        json!({ "triggers": [requests, jobs], "advanced": { "scalingModifiers": modifiers } }),
    )
    .await?;
    case.wait_replicas("shop", 4).await?;
    let hpa = serde_json::to_value(case.hpa("shop").await?)?;
    let metrics = hpa["spec"]["metrics"].as_array().map_or(0, Vec::len);
    ensure!(metrics == 1, "{metrics} metrics in the HPA");
    ensure!(hpa["spec"]["metrics"][0]["external"]["metric"]["name"] == "composite-metric", "{hpa}");
    ensure!(case.read_metric("composite-metric", "shop").await? == "32");

    let modifiers = json!({ "formula": "max([requests, jobs])", "target": "8" });
    case.patch("shop", json!({ "spec": { "advanced": { "scalingModifiers": modifiers } } })).await?;
    case.wait_replicas("shop", 3).await
}

/// An error is its trigger's condition: the other trigger scales on.
pub(crate) async fn a_broken_one_leaves_the_other(case: &Case<'_>) -> Result<()> {
    case.set_requests(30).await?;
    case.deployment("shop", 1).await?;
    let nobody = prometheus(&format!("http://{}", harness::network::free_address()?), "vector(1)", "10");
    let requests = case.prometheus(&case.requests(), "10");
    case.scaled_object("shop", json!({ "triggers": [nobody, requests] })).await?;
    case.wait_replicas("shop", 3).await?;
    case.wait_condition("shop", "Ready", "Unknown", "PartialTriggerError").await?;
    // The HPA does not scale down on a partial view.
    case.set_requests(0).await?;
    case.replicas_stay("shop", 3, Duration::from_secs(6)).await
}

/// As many as half the pods of another workload.
pub(crate) async fn kubernetes_workload(case: &Case<'_>) -> Result<()> {
    case.deployment("producers", 4).await?;
    case.deployment("consumers", 1).await?;
    let metadata = json!({ "podSelector": "app=producers", "value": "2" });
    let trigger = json!({ "type": "kubernetes-workload", "metadata": metadata });
    case.scaled_object("consumers", json!({ "cooldownPeriod": 2, "triggers": [trigger] })).await?;
    case.wait_replicas("consumers", 2).await?;
    case.deployment("producers", 0).await?;
    case.wait_replicas("consumers", 0).await
}
