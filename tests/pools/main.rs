//! Node pools on a real control plane, on nodes that kwok plays: `cargo test --test pools`.
//!
//! The controllers run in this process with the rights that `manifests/node-pools.yaml` grants and no others.
#![allow(clippy::unwrap_used, reason = "a test says best where it stands by panicking there")]

mod bed;
mod consolidation;
mod explain;
mod gates;
mod overlays;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::wait;
use k8s_openapi::api::{core::v1::Node, policy::v1::PodDisruptionBudget};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use tandem_core::api::karpenter::Provisioner;

use bed::{Bed, SOON, only_one};

/// As users have it.
const PROVISIONER: &str = "
apiVersion: karpenter.sh/v1alpha5
kind: Provisioner
metadata:
  name: default
spec:
  requirements:
    - key: karpenter.sh/capacity-type
      operator: In
      values: [\"on-demand\"]
  limits:
    resources:
      cpu: 1000
      memory: 1000Gi
  provider:
    subnetSelector:
      kubernetes.io/cluster/chris: '*'
    securityGroupSelector:
      kubernetes.io/cluster/chris: '*'
    instanceProfile: chris2022090904481313660000000c
  ttlSecondsAfterEmpty: 30
  ttlSecondsUntilExpired: 2592000
";

/// As Karpenter's own documentation has it for kwok, with a short patience.
const NODE_POOL: &str = "
apiVersion: karpenter.kwok.sh/v1alpha1
kind: KWOKNodeClass
metadata: {name: default}
---
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: general}
spec:
  template:
    spec:
      requirements:
      - {key: kubernetes.io/arch, operator: In, values: [amd64]}
      - {key: kubernetes.io/os, operator: In, values: [linux]}
      - {key: karpenter.sh/capacity-type, operator: In, values: [spot, on-demand]}
      nodeClassRef: {group: karpenter.kwok.sh, kind: KWOKNodeClass, name: default}
      expireAfter: 720h
  limits: {cpu: 1000}
  disruption:
    consolidationPolicy: WhenEmpty
    consolidateAfter: 3s
    budgets: [{nodes: 100%}]
";

/// One control plane serves all steps: each takes a few seconds, its start more.
#[tokio::test(flavor = "multi_thread")]
async fn node_pools() -> Result<()> {
    let _only = only_one().await;
    let bed = Bed::start().await?;
    let first = bed.run().await?;
    provisioner(&bed).await.context("provisioner")?;
    first.stop();
    // From here on by another process, so to say: what the first knew is on the API server.
    let second = bed.run().await?;
    node_pool(&bed).await.context("node pool")?;
    budgets_hold(&bed).await.context("disruption budget")?;
    explain::node(&bed).await.context("explain node")?;
    second.stop();
    explain::pods(&bed).await.context("explain pod")?;
    restart(&bed).await.context("restart")?;
    gates::repair_and_static_pools(&bed).await.context("gates")?;
    for running in [first, second] {
        let text = running.metrics()?;
        ensure!(text.contains("karpenter_nodeclaims_created_total{reason=\"provisioned\""), "{text}");
        ensure!(text.contains("karpenter_nodeclaims_terminated_total{"), "{text}");
    }
    Ok(())
}

/// The Provisioner that users have: pods get nodes, which go when they are empty.
async fn provisioner(bed: &Bed) -> Result<()> {
    bed.kubectl(&["apply", "-f", "-"], PROVISIONER).await?;
    bed.deploy("old", 3, "2", json!({"karpenter.sh/provisioner-name": "default"})).await?;
    bed.running("old", 3).await?;

    let claims = bed.claims_of("default").await?;
    ensure!(claims.len() == 1, "three pods share one machine, there are {}", claims.len());
    let labels = claims[0].labels();
    ensure!(labels["karpenter.sh/provisioner-name"] == "default", "{labels:?}");
    ensure!(labels["karpenter.sh/capacity-type"] == "on-demand", "{labels:?}");
    let node = wait::until("the node to be initialized", SOON, || async {
        let node = bed.nodes_of("default").await?.pop().context("there is no node")?;
        ensure!(node.labels().contains_key("karpenter.sh/initialized"), "{:?}", node.labels());
        Ok(node)
    })
    .await?;
    ensure!(node.owner_references()[0].kind == "NodeClaim", "{:?}", node.owner_references());
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    ensure!(taints.is_empty(), "{taints:?}");

    bed.kubectl(&["wait", "--for=condition=Ready", "--timeout=30s", "nodeclaim", "--all"], "").await?;
    let table = bed.kubectl(&["get", "nodeclaims"], "").await?;
    let header: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    ensure!(header == ["NAME", "TYPE", "CAPACITY", "ZONE", "NODE", "READY", "AGE"], "{table}");
    let row: Vec<&str> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    ensure!(row[2..6] == ["on-demand", "test-zone-a", claims[0].name_any().as_str(), "True"], "{table}");

    // The thirty seconds of the manifest would only be waited for.
    let shorter = json!({"spec": {"ttlSecondsAfterEmpty": 2}});
    let provisioners: Api<Provisioner> = Api::all(bed.client.clone());
    provisioners.patch("default", &PatchParams::default(), &Patch::Merge(shorter)).await?;
    bed.scale("old", 0).await?;
    bed.gone("default").await?;
    provisioners.delete("default", &DeleteParams::default()).await?;
    Ok(())
}

/// The same by a NodePool, which says how it is.
async fn node_pool(bed: &Bed) -> Result<()> {
    bed.kubectl(&["apply", "-f", "-"], NODE_POOL).await?;
    bed.deploy(
        "new",
        2,
        "1",
        json!({"karpenter.sh/nodepool": "general", "topology.kubernetes.io/zone": "test-zone-c"}),
    )
    .await?;
    bed.running("new", 2).await?;
    let claims = bed.claims_of("general").await?;
    ensure!(claims.len() == 1, "{} claims", claims.len());
    let labels = claims[0].labels();
    ensure!(labels["karpenter.sh/capacity-type"] == "spot", "the cheapest: {labels:?}");
    ensure!(labels["topology.kubernetes.io/zone"] == "test-zone-c", "{labels:?}");
    wait::until("the columns of the pool", SOON, || async {
        let table = bed.kubectl(&["get", "nodepools"], "").await?;
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        ensure!(rows[0] == ["NAME", "NODECLASS", "NODES", "READY", "AGE"], "{table}");
        ensure!(rows[1][..4] == ["general", "default", "1", "True"], "{table}");
        Ok(())
    })
    .await?;
    bed.scale("new", 0).await?;
    bed.gone("general").await
}

/// Whoever deletes a node waits for its pods, and these for their budget.
async fn budgets_hold(bed: &Bed) -> Result<()> {
    bed.deploy("kept", 1, "1", json!({"karpenter.sh/nodepool": "general"})).await?;
    bed.running("kept", 1).await?;
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "kept", "namespace": "default"},
        "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "kept"}}},
    });
    bed.kubectl(&["apply", "-f", "-"], &budget.to_string()).await?;
    let pod = bed.pods("kept").await?.remove(0);
    let node = bed.nodes_of("general").await?.remove(0).name_any();
    bed.kubectl(&["delete", "node", &node, "--wait=false"], "").await?;
    let nodes: Api<Node> = Api::all(bed.client.clone());
    wait::until("the node to be marked", SOON, || async {
        let taints = nodes.get(&node).await?.spec.and_then(|spec| spec.taints).unwrap_or_default();
        ensure!(taints.iter().any(|taint| taint.key == "karpenter.sh/disrupted"), "{taints:?}");
        Ok(())
    })
    .await?;
    wait::throughout("the pod stays, and its node", Duration::from_secs(8), || async {
        ensure!(bed.pods("kept").await?.iter().any(|now| now.uid() == pod.uid()), "the pod is gone");
        nodes.get(&node).await?;
        Ok(())
    })
    .await?;
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(bed.client.clone(), "default");
    budgets.delete("kept", &DeleteParams::default()).await?;
    wait::until("the node to be gone", SOON, || async {
        ensure!(nodes.get_opt(&node).await?.is_none(), "{node} is there");
        Ok(())
    })
    .await?;
    bed.running("kept", 1).await?;
    bed.scale("kept", 0).await?;
    bed.gone("general").await
}

/// A crash at any time makes no second machine.
async fn restart(bed: &Bed) -> Result<()> {
    // They fill a machine of four cores: two smaller ones would cost more.
    bed.deploy("crash", 3, "1", json!({"karpenter.sh/nodepool": "general"})).await?;
    for milliseconds in [700, 50, 150, 400] {
        let running = bed.run().await?;
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        running.stop();
    }
    let running = bed.run().await?;
    bed.running("crash", 3).await?;
    let claims = bed.claims_of("general").await?;
    ensure!(claims.len() == 1, "{} claims for pods that fit on one machine", claims.len());
    bed.scale("crash", 0).await?;
    bed.gone("general").await?;
    running.stop();
    Ok(())
}
