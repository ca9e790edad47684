//! NodeOverlays decide which machine is the cheapest and what it has: `cargo test --test pools node_overlays`.

use anyhow::{Context as _, Result, ensure};
use harness::{kwok_pool, wait};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use tandem_core::api::karpenter::NodeClaim;

use crate::bed::{self, Bed, SOON, only_one};

const GATE: &str = "--feature-gates=NodeOverlay=true";

/// An overlay of one instance type.
fn overlay(name: &str, instance_type: &str, mut spec: Value) -> Value {
    let key = "node.kubernetes.io/instance-type";
    spec["requirements"] = json!([{"key": key, "operator": "In", "values": [instance_type]}]);
    json!({
        "apiVersion": "karpenter.sh/v1alpha1", "kind": "NodeOverlay", "metadata": {"name": name}, "spec": spec,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn node_overlays() -> Result<()> {
    let _only = only_one().await;
    let bed = Bed::start().await?;
    let quick =
        "  disruption: {consolidationPolicy: WhenEmpty, consolidateAfter: 2s, budgets: [{nodes: 100%}]}";
    bed.kubectl(&["apply", "-f", "-"], &kwok_pool("general", quick)).await?;

    let crd = ["get", "crd", "nodeoverlays.karpenter.sh", "--output=json"];
    let crd: Value = serde_json::from_str(&bed.kubectl(&crd, "").await?)?;
    bed.kubectl(&["delete", "crd", "nodeoverlays.karpenter.sh"], "").await?;
    let running = bed.run_with(GATE).await?;
    ensure!(machine(&used(&bed, "plain").await?) == "c-2x-amd64-linux", "the cheapest without any");
    running.stop();

    let crd = json!({
        "apiVersion": crd["apiVersion"], "kind": crd["kind"], "spec": crd["spec"],
        "metadata": {"name": crd["metadata"]["name"]},
    });
    bed.apply(&crd).await?;
    bed.kubectl(&["wait", "--for=condition=Established", "crd", "nodeoverlays.karpenter.sh"], "").await?;
    let running = bed.run_with(GATE).await?;
    decides(&bed).await.context("an overlay")?;
    wait::until("the costs to be those of the overlay", SOON, || async {
        let text = running.metrics()?;
        ensure!(text.contains("karpenter_nodepools_cost_total{nodepool=\"general\"} 0.001\n"), "{text}");
        Ok(())
    })
    .await?;
    end(&bed, "fused").await?;
    contradicts(&bed).await.context("a second overlay")?;
    running.stop();

    let running = bed.run().await?;
    ensure!(machine(&used(&bed, "shut").await?) == "c-2x-amd64-linux", "the gate is off");
    running.stop();
    Ok(())
}

/// A machine that is dearer becomes the cheapest, and the only one with a resource.
async fn decides(bed: &Bed) -> Result<()> {
    let spec = json!({"price": "0.001", "capacity": {"example.com/fuse": "4"}});
    bed.apply(&overlay("fused", "m-4x-amd64-linux", spec)).await?;
    bed.kubectl(&["wait", "--for=condition=Ready", "--timeout=30s", "nodeoverlay", "fused"], "").await?;
    let mut deployment = bed::deployment("fused", 1, "1", &json!({"karpenter.sh/nodepool": "general"}));
    let resources = &mut deployment["spec"]["template"]["spec"]["containers"][0]["resources"];
    resources["requests"]["example.com/fuse"] = json!("1");
    resources["limits"] = json!({"example.com/fuse": "1"});
    bed.apply(&deployment).await?;
    bed.running("fused", 1).await?;
    let claim = only(bed).await?;
    ensure!(machine(&claim) == "m-4x-amd64-linux", "{:?}", claim.labels());
    for key in ["karpenter.sh/price-overlay-applied", "karpenter.sh/capacity-overlay-applied"] {
        ensure!(claim.annotations().get(key).is_some_and(|it| it == "true"), "{:?}", claim.annotations());
    }
    let capacity =
        claim.status.as_ref().and_then(|status| status.capacity.as_ref()).context("no capacity")?;
    ensure!(capacity["example.com/fuse"].0 == "4", "{capacity:?}");
    Ok(())
}

/// Of two that say the same otherwise one does not hold, and says why; with another weight it decides.
async fn contradicts(bed: &Bed) -> Result<()> {
    bed.apply(&overlay("dear", "m-4x-amd64-linux", json!({"price": "9"}))).await?;
    wait::until("the overlay to say what it contradicts", SOON, || async {
        let path = "jsonpath={.status.conditions[?(@.type==\"ValidationSucceeded\")]}";
        let said = bed.kubectl(&["get", "nodeoverlay", "dear", "--output", path], "").await?;
        let said: Value = serde_json::from_str(&said)?;
        ensure!(said["status"] == "False" && said["reason"] == "Conflict", "{said}");
        let message = said["message"].as_str().unwrap_or_default();
        let wanted = "conflict with another overlay: \"fused\" has the same weight, 0, and says the price of m-4x-amd64-linux";
        ensure!(message.starts_with(wanted), "{message}");
        Ok(())
    })
    .await?;
    let table = bed.kubectl(&["get", "nodeoverlays", "--output=wide"], "").await?;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    ensure!(rows[0] == ["NAME", "READY", "AGE", "WEIGHT"] && rows[1][..2] == ["dear", "False"], "{table}");
    ensure!(machine(&used(bed, "same").await?) == "m-4x-amd64-linux", "the other one holds");

    bed.apply(&overlay("dear", "m-4x-amd64-linux", json!({"price": "9", "weight": 10}))).await?;
    bed.kubectl(&["wait", "--for=condition=Ready", "--timeout=30s", "nodeoverlay", "dear"], "").await?;
    ensure!(machine(&used(bed, "other").await?) == "c-2x-amd64-linux", "the heavier one decides");
    Ok(())
}

/// The claim that a pod of one core gets, which goes with the pod.
async fn used(bed: &Bed, name: &str) -> Result<NodeClaim> {
    bed.deploy(name, 1, "1", json!({"karpenter.sh/nodepool": "general"})).await?;
    bed.running(name, 1).await?;
    let claim = only(bed).await?;
    end(bed, name).await?;
    Ok(claim)
}

async fn end(bed: &Bed, name: &str) -> Result<()> {
    bed.scale(name, 0).await?;
    bed.gone("general").await
}

async fn only(bed: &Bed) -> Result<NodeClaim> {
    let mut claims = bed.claims_of("general").await?;
    ensure!(claims.len() == 1, "{} claims", claims.len());
    claims.pop().context("no claim")
}

/// The instance type of a claim's machine.
fn machine(claim: &NodeClaim) -> &str {
    claim.labels().get("node.kubernetes.io/instance-type").map_or("none", String::as_str)
}
