//! What `cargo xtask demo --context NAME` brings to a cluster of the user's, beside Tandem's own manifests.

use anyhow::{Result, ensure};
use harness::{Kubectl, wait};

use crate::case::{Case, SOON};

/// The API server takes all of it, its pods get ready, and each Service finds its pod: here kwok says that they run, so
/// what is in them is not looked at.
pub(crate) async fn sources(case: &Case<'_>) -> Result<()> {
    let kubectl = case.world.control_plane.kubectl();
    let contexts = kubectl.run(&["config", "get-contexts", "-o", "name"], "").await?;
    let kubectl = Kubectl { context: contexts.lines().next().map(str::to_owned), ..kubectl };
    let file = harness::source_tree().join("xtask/src/demo/cluster.yaml");
    let file = file.to_string_lossy();
    kubectl.run(&["apply", "--validate=strict", "-f", &file], "").await?;
    let found = sources_run(&kubectl).await;
    kubectl.run(&["delete", "--wait=false", "-f", &file], "").await?;
    found
}

async fn sources_run(kubectl: &Kubectl) -> Result<()> {
    for deployment in ["deployment/prometheus", "deployment/istio-exporter"] {
        kubectl.run(&["-n", "monitoring", "rollout", "status", deployment, "--timeout=45s"], "").await?;
    }
    for service in ["prometheus-operated", "istio-exporter"] {
        let label = format!("kubernetes.io/service-name={service}");
        let address = "jsonpath={.items[*].endpoints[*].addresses[0]}";
        wait::until(&format!("a pod behind {service}"), SOON, || async {
            let slices = ["-n", "monitoring", "get", "endpointslices", "-l", &label, "-o", address];
            let found = kubectl.run(&slices, "").await?;
            ensure!(found.split_whitespace().count() == 1, "{found}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
