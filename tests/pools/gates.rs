//! What stands behind gates: broken nodes are replaced, static pools have as many nodes as they say.

use anyhow::{Context as _, Result, ensure};
use harness::wait;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use serde_json::json;

use crate::bed::{Bed, PATIENCE, SOON};

const STATIC_POOL: &str = "
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: fixed}
spec:
  replicas: 2
  template:
    spec:
      requirements:
      - {key: kubernetes.io/arch, operator: In, values: [amd64]}
      - {key: kubernetes.io/os, operator: In, values: [linux]}
      - {key: karpenter.sh/capacity-type, operator: In, values: [on-demand]}
      nodeClassRef: {group: karpenter.kwok.sh, kind: KWOKNodeClass, name: default}
";

pub(crate) async fn repair_and_static_pools(bed: &Bed) -> Result<()> {
    let running = bed.run_with("--feature-gates=NodeRepair=true,StaticCapacity=true").await?;
    repair(bed).await.context("repair")?;
    static_pool(bed).await.context("static pool")?;
    let text = running.metrics()?;
    let broken =
        "karpenter_nodeclaims_unhealthy_disrupted_total{condition=\"storage_ready\",nodepool=\"general\"";
    ensure!(text.contains(broken), "{text}");
    running.stop();
    Ok(())
}

/// A node that has been broken for longer than is tolerated goes whatever its pods' budgets say.
async fn repair(bed: &Bed) -> Result<()> {
    bed.deploy("ill", 1, "1", json!({"karpenter.sh/nodepool": "general"})).await?;
    bed.running("ill", 1).await?;
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "ill", "namespace": "default"},
        "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "ill"}}},
    });
    bed.apply(&budget).await?;
    let node = bed.nodes_of("general").await?.first().context("no node")?.name_any();
    // What a node monitoring agent writes; the half hour of patience would only be waited for.
    let condition = json!({
        "type": "StorageReady", "status": "False", "reason": "IODelays", "message": "the disk is slow",
        "lastTransitionTime": (Timestamp::now() - SignedDuration::from_hours(1)).to_string(),
    });
    let patch = json!({"status": {"conditions": [condition]}}).to_string();
    bed.kubectl(&["patch", "node", &node, "--subresource=status", "--type=strategic", "--patch", &patch], "")
        .await?;
    wait::until("another node in its place", PATIENCE, || async {
        let nodes = bed.nodes_of("general").await?;
        let names: Vec<_> = nodes.iter().map(kube::ResourceExt::name_any).collect();
        ensure!(names.len() == 1 && names[0] != node, "{names:?}");
        Ok(())
    })
    .await?;
    bed.running("ill", 1).await?;
    bed.kubectl(&["delete", "poddisruptionbudget", "ill"], "").await?;
    bed.scale("ill", 0).await?;
    bed.gone("general").await
}

/// So many nodes, whatever pods there are; an empty one stays.
async fn static_pool(bed: &Bed) -> Result<()> {
    bed.kubectl(&["apply", "-f", "-"], STATIC_POOL).await?;
    nodes(bed, 2).await?;
    bed.kubectl(&["scale", "nodepool", "fixed", "--replicas=1"], "").await?;
    nodes(bed, 1).await?;
    bed.kubectl(&["scale", "nodepool", "fixed", "--replicas=0"], "").await?;
    bed.gone("fixed").await?;
    bed.kubectl(&["delete", "nodepool", "fixed"], "").await.map(drop)
}

/// Waits until the pool has so many nodes and says so.
async fn nodes(bed: &Bed, wanted: usize) -> Result<()> {
    wait::until(&format!("{wanted} nodes of the static pool"), SOON, || async {
        let (claims, nodes) = (bed.claims_of("fixed").await?, bed.nodes_of("fixed").await?);
        ensure!(
            claims.len() == wanted && nodes.len() == wanted,
            "{} claims, {} nodes",
            claims.len(),
            nodes.len()
        );
        let initialized = nodes.iter().filter(|node| node.labels().contains_key("karpenter.sh/initialized"));
        ensure!(initialized.count() == wanted, "not all are initialized");
        let said = ["get", "nodepool", "fixed", "--output=jsonpath={.status.nodes}"];
        let said = bed.kubectl(&said, "").await?;
        ensure!(said == wanted.to_string(), "the pool says {said:?}");
        Ok(())
    })
    .await
}
