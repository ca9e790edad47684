//! `tandem explain` of nodes of pools, and of pods that pools could help.

use anyhow::{Context as _, Result, ensure};
use harness::wait;
use kube::ResourceExt as _;
use serde_json::json;

use crate::bed::{Bed, SOON};

/// What `tandem explain` prints, on one line.
async fn explain(bed: &Bed, arguments: &[&str]) -> Result<String> {
    let kubeconfig = format!("--kubeconfig={}", bed.control_plane.kubeconfig().display());
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tandem"));
    command.arg("explain").args(arguments).args(["--node-pools-provider=kwok", &kubeconfig]);
    let output = command.output().await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "tandem explain {arguments:?}: {errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Repeats an explanation until it says all of this.
async fn says(bed: &Bed, arguments: &[&str], wanted: &[&str]) -> Result<()> {
    wait::until("the explanation", SOON, || async {
        let explained = explain(bed, arguments).await?;
        let missing = wanted.iter().find(|text| !explained.contains(**text));
        ensure!(missing.is_none(), "{missing:?} is not explained: {explained}");
        Ok(())
    })
    .await
}

/// A node with a pod: since when it is calm, when it expires, and what keeps it.
pub(crate) async fn node(bed: &Bed) -> Result<()> {
    bed.deploy("seen", 1, "1", json!({"karpenter.sh/nodepool": "general"})).await?;
    bed.running("seen", 1).await?;
    let claim = bed.claims_of("general").await?.first().context("no claim")?.name_any();
    let node = ["node", &claim];
    let first = format!("Node {claim} is of NodeClaim {claim}, of pool general.");
    let stays = "nothing is saved without it: NodePool \"general\" has non-empty consolidation disabled";
    says(bed, &node, &[&first, "it may be consolidated since ", "it expires at ", stays]).await?;

    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "seen", "namespace": "default"},
        "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "seen"}}},
    });
    bed.apply(&budget).await?;
    let kept = "it is kept: pdb prevents pod evictions (PodDisruptionBudget=[default/seen])";
    says(bed, &node, &[kept]).await?;
    bed.kubectl(&["delete", "poddisruptionbudget", "seen"], "").await?;
    bed.scale("seen", 0).await?;
    bed.gone("general").await
}

/// Pods that wait while nobody acts: one that a pool can help, one that none can.
pub(crate) async fn pods(bed: &Bed) -> Result<()> {
    for (name, cpu, requested, verdict) in [
        ("small", "1", "It requests 1000m CPU and 128 MiB of memory.", "Node pools general can help"),
        (
            "giant",
            "5k",
            "It requests 5000000m CPU and 128 MiB of memory.",
            "no instance type has enough resources",
        ),
    ] {
        bed.deploy(name, 1, cpu, json!({"karpenter.sh/nodepool": "general"})).await?;
        let pod = wait::until("the pod", SOON, || async {
            bed.pods(name).await?.first().map(kube::ResourceExt::name_any).context("no pod")
        })
        .await?;
        let groups = "Node groups were not considered: give --cloud-provider";
        says(bed, &["pod", &pod, "--namespace=default"], &["has no node.", requested, groups, verdict])
            .await?;
        bed.kubectl(&["delete", "deployment", name], "").await?;
    }
    Ok(())
}
