//! The demo on a cluster that the user has.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use harness::{Kubectl, components, source_tree};

use super::{Place, say, traffic::Traffic};

/// Prometheus and an exporter in namespace `monitoring`, under the name that the manifest knows.
const SOURCES: &str = include_str!("cluster.yaml");

/// Namespaces that the demo makes and removes.
const NAMESPACES: [&str; 2] = ["web", "monitoring"];

/// Installs Tandem by its manifests, and Prometheus with the exporter.
pub(crate) async fn install(context: &str) -> Result<Place> {
    let program = components::require("kubectl", "kubernetes-client")?;
    let kubectl = Kubectl { program, kubeconfig: None, context: Some(context.to_owned()) };
    for namespace in NAMESPACES {
        if kubectl.run(&["get", "namespace", namespace], "").await.is_ok() {
            bail!(
                "context {context} has a namespace {namespace} already, and the demo makes and removes its own"
            );
        }
    }
    let manifests = manifests();
    let manifests = manifests.to_str().context("the source tree's path is not UTF-8")?;
    say(&format!(
        "Installing Tandem: kubectl --context {context} apply --server-side -f manifests/install.yaml"
    ));
    eprintln!("The cluster needs the image: docker build -t {image} . and then", image = image()?);
    eprintln!("  kind load docker-image {image}    or    k3d image import {image}", image = image()?);
    kubectl.run(&["apply", "--server-side", "-f", manifests], "").await?;
    rolled_out(&kubectl, "tandem", "tandem").await?;
    say("Installing Prometheus and an exporter of Istio's request metrics in namespace monitoring");
    kubectl.run(&["apply", "-f", "-"], SOURCES).await?;
    rolled_out(&kubectl, "monitoring", "prometheus").await?;
    rolled_out(&kubectl, "monitoring", "istio-exporter").await?;
    Ok(Place {
        traffic: Traffic::InCluster(kubectl.clone()),
        kubectl,
        prometheus: "http://prometheus-operated.monitoring:9090".to_owned(),
        access: format!("  kubectl config use-context {context}"),
    })
}

/// Removes all of it. The namespace of the ScaledObjects goes first, while Tandem is there to let them go.
pub(crate) async fn remove(kubectl: &Kubectl) -> Result<()> {
    say("Removing what the demo installed (--keep leaves it)");
    for namespace in NAMESPACES {
        kubectl.run(&["delete", "namespace", namespace, "--timeout=120s"], "").await?;
    }
    let manifests = manifests();
    let manifests = manifests.to_str().context("the source tree's path is not UTF-8")?;
    kubectl.run(&["delete", "-f", manifests, "--timeout=120s"], "").await?;
    Ok(())
}

async fn rolled_out(kubectl: &Kubectl, namespace: &str, deployment: &str) -> Result<()> {
    let deployment = format!("deployment/{deployment}");
    let status = ["-n", namespace, "rollout", "status", &deployment, "--timeout=120s"];
    kubectl.run(&status, "").await.context("are its images in the cluster, or can it pull them?")?;
    Ok(())
}

fn manifests() -> PathBuf {
    source_tree().join("manifests/install.yaml")
}

/// The image that the Deployment of the manifests names.
fn image() -> Result<String> {
    let text = std::fs::read_to_string(manifests())?;
    let image = text.lines().find_map(|line| line.trim().strip_prefix("image: "));
    Ok(image.context("manifests/install.yaml names no image")?.to_owned())
}
