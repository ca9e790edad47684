//! Targets that are not Deployments.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::wait;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::case::{Case, SOON, scaled_object, workload};

async fn wait_spec_replicas(
    case: &Case<'_>,
    api_version: &str,
    kind: &str,
    name: &str,
    wanted: i64,
) -> Result<()> {
    let api = case.api(api_version, kind).await?;
    wait::until(&format!("{kind} {name} to have {wanted} replicas"), SOON, || async {
        let seen = api.get(name).await?.data["spec"]["replicas"].as_i64().context("no spec.replicas")?;
        ensure!(seen == wanted, "it has {seen}");
        Ok(())
    })
    .await
}

pub(crate) async fn stateful_set(case: &Case<'_>) -> Result<()> {
    case.set_requests(0).await?;
    case.apply(workload("StatefulSet", "store", 1)).await?;
    let trigger = case.prometheus(&case.requests(), "10");
    let spec = json!({
        "scaleTargetRef": { "kind": "StatefulSet", "name": "store" }, "cooldownPeriod": 2, "triggers": [trigger],
    });
    case.scaled_object("store", spec).await?;
    wait_spec_replicas(case, "apps/v1", "StatefulSet", "store", 0).await?;
    case.set_requests(30).await?;
    wait_spec_replicas(case, "apps/v1", "StatefulSet", "store", 3).await?;
    let kind = case.get("store").await?["status"]["scaleTargetKind"].clone();
    ensure!(kind == "apps/v1.StatefulSet", "scaleTargetKind is {kind}");
    Ok(())
}

/// A kind of somebody else's with a scale subresource, and the two rules that let Tandem scale it.
async fn define_widgets(case: &Case<'_>) -> Result<()> {
    let replicas = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let scale = json!({
        "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    });
    let version = json!({
        "name": "v1", "served": true, "storage": true, "subresources": { "status": {}, "scale": scale },
        "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": replicas, "status": replicas } } },
    });
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "widgets.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced", "versions": [version],
            "names": { "kind": "Widget", "plural": "widgets", "singular": "widget" },
        },
    });
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {
            "name": "tandem-custom-target-widgets", "labels": { "tandem.dev/aggregate-to-scale": "true" },
        },
        "rules": [
            { "apiGroups": ["example.com"], "resources": ["widgets"], "verbs": ["get"] },
            { "apiGroups": ["example.com"], "resources": ["widgets/scale"], "verbs": ["get", "patch"] },
        ],
    });
    case.kubectl_apply(&json!({ "apiVersion": "v1", "kind": "List", "items": [definition, role] })).await?;
    case.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd/widgets.example.com"])
        .await?;
    Ok(())
}

pub(crate) async fn custom_resource(case: &Case<'_>) -> Result<()> {
    define_widgets(case).await?;
    case.set_requests(0).await?;
    let widget = json!({
        "apiVersion": "example.com/v1", "kind": "Widget", "metadata": { "name": "big" }, "spec": { "replicas": 1 },
    });
    case.apply(widget).await?;
    // What its controller would report.
    let status = json!({ "status": { "replicas": 1, "selector": "app=big" } });
    let widgets = case.api("example.com/v1", "Widget").await?;
    widgets.patch_status("big", &PatchParams::default(), &Patch::Merge(status)).await?;

    let target = json!({ "apiVersion": "example.com/v1", "kind": "Widget", "name": "big" });
    let trigger = case.prometheus(&case.requests(), "10");
    let spec = json!({ "scaleTargetRef": target, "cooldownPeriod": 2, "triggers": [trigger] });
    case.apply(scaled_object("big", spec)).await?;
    wait_spec_replicas(case, "example.com/v1", "Widget", "big", 0).await?;
    case.set_requests(30).await?;
    wait_spec_replicas(case, "example.com/v1", "Widget", "big", 3).await?;

    // A kind without /scale is refused with what is missing.
    case.apply(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "plain" } })).await?;
    let target = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "plain" });
    let trigger = case.prometheus(&case.requests(), "10");
    case.apply(scaled_object("plain", json!({ "scaleTargetRef": target, "triggers": [trigger] }))).await?;
    let message = case.wait_condition("plain", "Ready", "False", "ScaledObjectCheckFailed").await?;
    ensure!(message.contains("scale"), "{message}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    ensure!(
        case.hpas().get_opt("keda-hpa-plain").await?.is_none(),
        "an HPA was made for a target without /scale"
    );
    Ok(())
}
