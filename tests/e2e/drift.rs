//! The world changes under a running object: edits and deletions.

use anyhow::{Context, Result, ensure};
use harness::wait;
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::case::{Case, SOON};

async fn at_three(case: &Case<'_>) -> Result<()> {
    case.set_requests(30).await?;
    case.deployment("shop", 1).await?;
    let trigger = case.prometheus(&case.requests(), "10");
    let spec = json!({ "minReplicaCount": 1, "maxReplicaCount": 9, "triggers": [trigger] });
    case.scaled_object("shop", spec).await?;
    case.wait_replicas("shop", 3).await
}

pub(crate) async fn query_edited(case: &Case<'_>) -> Result<()> {
    at_three(case).await?;
    let edited = case.prometheus("vector(58)", "10");
    case.patch("shop", json!({ "spec": { "triggers": [edited] } })).await?;
    case.wait_replicas("shop", 6).await?;
    let edited = case.prometheus("vector(58)", "20");
    case.patch("shop", json!({ "spec": { "triggers": [edited], "maxReplicaCount": 2 } })).await?;
    case.wait_replicas("shop", 2).await
}

pub(crate) async fn hpa_edited(case: &Case<'_>) -> Result<()> {
    at_three(case).await?;
    let edit = json!({ "spec": { "maxReplicas": 2 }, "metadata": { "labels": { "app.kubernetes.io/part-of": "x" } } });
    let hpas = case.hpas();
    hpas.patch("keda-hpa-shop", &PatchParams::default(), &Patch::Merge(edit)).await?;
    wait::until("the HPA to be as it was", SOON, || async {
        let hpa = hpas.get("keda-hpa-shop").await?;
        ensure!(hpa.spec.max_replicas == 9, "maxReplicas is {}", hpa.spec.max_replicas);
        let part_of = hpa.labels().get("app.kubernetes.io/part-of");
        ensure!(part_of.is_some_and(|part_of| part_of == "shop"), "part-of is {part_of:?}");
        Ok(())
    })
    .await?;
    case.wait_replicas("shop", 3).await
}

pub(crate) async fn hpa_deleted(case: &Case<'_>) -> Result<()> {
    at_three(case).await?;
    let hpas = case.hpas();
    let first = hpas.get("keda-hpa-shop").await?.uid();
    hpas.delete("keda-hpa-shop", &DeleteParams::default()).await?;
    wait::until("another HPA", SOON, || async {
        let second = hpas.get("keda-hpa-shop").await?.uid();
        ensure!(second != first, "it is still the first");
        Ok(())
    })
    .await?;
    case.set_requests(50).await?;
    case.wait_replicas("shop", 5).await
}

pub(crate) async fn target_deleted(case: &Case<'_>) -> Result<()> {
    at_three(case).await?;
    let deployments: Api<Deployment> = Api::namespaced(case.client(), &case.namespace);
    deployments.delete("shop", &DeleteParams::default()).await?;
    let message = case.wait_condition("shop", "Ready", "False", "").await?;
    ensure!(message.contains("shop"), "the message does not name the target: {message}");
    case.deployment("shop", 1).await?;
    case.wait_condition("shop", "Ready", "True", "ScaledObjectReady").await?;
    case.wait_replicas("shop", 3).await
}

/// The HPA goes with the object, the target goes back to what it was if that is asked for.
pub(crate) async fn scaled_object_deleted(case: &Case<'_>) -> Result<()> {
    case.deployment("shop", 2).await?;
    let trigger = case.prometheus("vector(40)", "10");
    let spec = json!({ "advanced": { "restoreToOriginalReplicaCount": true }, "triggers": [trigger] });
    case.scaled_object("shop", spec).await?;
    case.wait_replicas("shop", 4).await?;
    let original = case.get("shop").await?["status"]["originalReplicaCount"].clone();
    ensure!(original == 2, "originalReplicaCount is {original}");
    let objects = case.api("keda.sh/v1alpha1", "ScaledObject").await?;
    objects.delete("shop", &DeleteParams::default()).await?;
    wait::until("the ScaledObject and its HPA to be gone", SOON, || async {
        ensure!(objects.get_opt("shop").await?.is_none(), "the ScaledObject is still there");
        ensure!(case.hpas().get_opt("keda-hpa-shop").await?.is_none(), "the HPA is still there");
        Ok(())
    })
    .await?;
    case.wait_replicas("shop", 2).await.context("replicas are not restored")
}
