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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;
    use std::time::Duration;

    use anyhow::{Result, ensure};
    use harness::wait;
    use serde_json::Value;

    use super::{SOURCES, image};

    #[test]
    fn the_image_is_named() {
        assert!(image().unwrap().contains("/tandem:"));
    }

    /// Its script, run here: 13 requests to nginx by each of two reporters, and those to the shop at the rate that the
    /// demo writes.
    #[tokio::test]
    async fn the_exporter_counts_requests() {
        let documents: Vec<Value> = serde_saphyr::from_multiple(SOURCES).unwrap();
        let script = documents.iter().find_map(|document| document["data"]["run.sh"].as_str()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        fs::create_dir(folder.path().join("state")).unwrap();
        let script = script.replace("httpd ", ": ");
        let script =
            ["/state", "/www"].iter().fold(script, |it, path| it.replace(path, &format!("{root}{path}")));
        let mut shell = Command::new("sh").args(["-ec", &script]).spawn().unwrap();
        let metrics = folder.path().join("www/metrics");
        let nginx = until(&metrics, "nginx", 1).await;
        fs::write(folder.path().join("state/shop.rps"), "35").unwrap();
        let shop = until(&metrics, "shop", 70).await;
        shell.kill().unwrap();
        shell.wait().unwrap();
        assert_eq!(nginx.unwrap(), 26);
        assert_eq!(shop.unwrap() % 70, 0, "each second 35 by each of two reporters");
    }

    /// The sum over the series of `app`, once it is at least that; the exporter writes them once a second.
    async fn until(metrics: &Path, app: &str, least: u64) -> Result<u64> {
        let label = format!("destination_app=\"{app}\"");
        wait::until(&format!("requests to {app}"), Duration::from_secs(30), || async {
            let text = fs::read_to_string(metrics)?;
            let series = text.lines().filter(|line| line.contains(&label));
            let total: u64 = series.filter_map(|line| line.split(' ').next_back()?.parse::<u64>().ok()).sum();
            ensure!(total >= least, "it is {total}");
            Ok(total)
        })
        .await
    }
}
