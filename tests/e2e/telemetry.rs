//! What dashboards read.

use anyhow::{Context, Result, ensure};
use harness::wait;
use serde_json::json;

use crate::case::{Case, SOON};

/// KEDA's series with the labels that it puts on them, `NAMESPACE` being the scenario's.
const SERIES: [(&str, &[&str]); 12] = [
    ("keda_build_info", &["version=", "git_commit=", "goversion=\"rust", "goos=\"linux\"", "goarch="]),
    ("keda_scaler_metrics_value", SCALER),
    ("keda_scaler_metrics_latency_seconds", SCALER),
    ("keda_scaler_active", SCALER),
    ("keda_scaler_detail_errors_total", SCALER),
    ("keda_scaled_object_paused", &["namespace=\"NAMESPACE\"", "scaledObject=\"shop\""]),
    ("keda_scaled_object_errors_total", &["namespace=\"NAMESPACE\"", "scaledObject=\"shop\""]),
    (
        "keda_internal_scale_loop_latency_seconds",
        &["namespace=\"NAMESPACE\"", "type=\"scaledobject\"", "resource=\"shop\""],
    ),
    (
        "keda_scaler_http_requests_total",
        &[
            "namespace=\"NAMESPACE\"",
            "scaled_resource=\"shop\"",
            "scaler=\"prometheus\"",
            "trigger_name=\"requests\"",
            "metric_name=\"s0-prometheus\"",
            "status_code=\"200\"",
        ],
    ),
    (
        "keda_scaler_http_request_duration_seconds_bucket",
        &["scaler=\"prometheus\"", "status_code=\"200\"", "le="],
    ),
    (
        "keda_scaler_empty_upstream_responses_total",
        &[
            "namespace=\"NAMESPACE\"",
            "scaledResource=\"shop\"",
            "triggerName=\"nothing\"",
            "metricName=\"s1-prometheus\"",
            "resourceType=\"scaledobject\"",
            "ignoreNullValues=\"true\"",
        ],
    ),
    ("keda_trigger_registered_total", &["type=\"prometheus\""]),
];

const SCALER: &[&str] = &[
    "namespace=\"NAMESPACE\"",
    "metric=\"s0-prometheus\"",
    "scaledObject=\"shop\"",
    "scaler=\"prometheus\"",
    "triggerIndex=\"0\"",
    "type=\"scaledobject\"",
];

/// Every series of KEDA that this version has something to say of, with its labels.
pub(crate) async fn series_of_keda(case: &Case<'_>) -> Result<()> {
    case.deployment("shop", 1).await?;
    let mut requests = case.prometheus("vector(20)", "10");
    requests["name"] = json!("requests");
    let mut nothing = case.prometheus("absent_of_everything", "10");
    nothing["name"] = json!("nothing");
    case.scaled_object("shop", json!({ "triggers": [requests, nothing] })).await?;
    let reference = |name: &str| json!([{ "parameter": "username", "name": name, "key": "user" }]);
    case.apply(json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": { "name": "source" },
        "spec": { "secretTargetRef": reference("source") },
    }))
    .await?;
    case.wait_replicas("shop", 2).await?;
    wait::until("every series", SOON, || async {
        let text = case.world.metrics().await?;
        for (name, labels) in SERIES {
            has(&text, name, labels, &case.namespace)?;
        }
        for kind in ["scaled_object", "trigger_authentication"] {
            let labels = [&*format!("type=\"{kind}\""), "namespace=\"NAMESPACE\""];
            has(&text, "keda_resource_registered_total", &labels, &case.namespace)?;
        }
        Ok(())
    })
    .await
}

fn has(text: &str, name: &str, labels: &[&str], namespace: &str) -> Result<()> {
    let is_it = |line: &&str| {
        let series = line.strip_prefix(name).filter(|rest| rest.starts_with('{'));
        series.is_some_and(|series| {
            labels.iter().all(|label| series.contains(&label.replace("NAMESPACE", namespace)))
        })
    };
    let line = text.lines().find(is_it).with_context(|| format!("no {name} with {labels:?}"))?;
    ensure!(line.split(' ').count() > 1, "{line}");
    Ok(())
}
