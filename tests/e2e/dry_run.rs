//! A dry run beside another autoscaler, with rights to read and no more: what it would have done is in its record, and the
//! cluster is as it would have been without it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use harness::{network::free_address, source_tree, wait};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Event};
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use crate::case::{Case, SOON};

/// A process that is gone with the scenario.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The other one stands still at first, then scales to what Tandem wanted, and does not see that the load is gone.
pub(crate) async fn beside_another(case: &Case<'_>) -> Result<()> {
    case.world.stop_replicas().await?;
    let result = run(case).await;
    case.world.start_replicas().await?;
    result
}

async fn run(case: &Case<'_>) -> Result<()> {
    let rights = fs::read_to_string(source_tree().join("manifests/dry-run.yaml"))?;
    case.world.control_plane.kubectl().run(&["apply", "-f", "-"], &rights).await?;
    case.set_requests(5).await?;
    case.deployment("shop", 1).await?;
    let trigger = case.prometheus(&case.requests(), "10");
    case.scaled_object("shop", json!({ "cooldownPeriod": 3, "triggers": [trigger] })).await?;
    hpa_of_another(case).await?;
    let before = written(case).await?;

    let folder = tempfile::tempdir()?;
    let record = folder.path().join("record.jsonl");
    let mut process = start(case, folder.path(), &record).await?;
    let sampled = |wanted: i64, actual: i64| {
        let record = record.clone();
        async move {
            let what = format!("{wanted} replicas to be wanted, and {actual} there");
            wait::until(&what, SOON, || async {
                let text = fs::read_to_string(&record)?;
                let is_it = |line: &&str| {
                    let line: Value = serde_json::from_str(line).unwrap_or_default();
                    line["type"] == "sample" && line["wanted"] == wanted && line["actual"] == actual
                };
                ensure!(text.lines().any(|line| is_it(&line)), "{text}");
                Ok(())
            })
            .await
        }
    };
    sampled(1, 1).await?;
    case.set_requests(45).await?;
    sampled(5, 1).await?;
    case.kubectl(&["scale", "deployment", "shop", "--replicas=5"]).await?;
    sampled(5, 5).await?;
    case.set_requests(0).await?;
    sampled(0, 5).await?;

    let id = process.0.id().to_string();
    ensure!(Command::new("kill").args(["-TERM", &id]).status()?.success(), "no process {id}");
    let status = process.0.wait()?;
    let log = fs::read_to_string(folder.path().join("log"))?;
    ensure!(status.success(), "it ended with {status}: {log}");
    for refused in ["forbidden", "Forbidden", "403"] {
        ensure!(!log.contains(refused), "something was refused: {log}");
    }
    let after = written(case).await?;
    ensure!(before == after, "something was written: {before:#} {after:#}");
    ensure!(case.replicas("shop").await? == 5, "only the other one scales");
    reported(&record, folder.path())
}

/// The HPA as KEDA makes it; nobody serves its metric here.
async fn hpa_of_another(case: &Case<'_>) -> Result<()> {
    let object = case.get("shop").await?;
    case.apply(json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": "keda-hpa-shop",
            "labels": {"app.kubernetes.io/managed-by": "keda-operator"},
            "ownerReferences": [{
                "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "shop",
                "uid": object["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"},
            "minReplicas": 1, "maxReplicas": 100,
            "metrics": [{"type": "External", "external": {
                "metric": {
                    "name": "s0-prometheus",
                    "selector": {"matchLabels": {"scaledobject.keda.sh/name": "shop"}},
                },
                "target": {"type": "AverageValue", "averageValue": "10"},
            }}],
        },
    }))
    .await
}

/// What Tandem writes where it is no dry run: the object whole, the HPA's spec, Leases, and its events.
async fn written(case: &Case<'_>) -> Result<Value> {
    let hpas = case.hpas().list(&ListParams::default()).await?.items;
    let hpas: Vec<_> =
        hpas.iter().map(|hpa| json!([hpa.metadata.name, hpa.metadata.uid, hpa.spec])).collect();
    let leases: Api<Lease> = Api::namespaced(case.client(), harness::install::NAMESPACE);
    let leases = leases.list(&ListParams::default()).await?.items;
    let leases: Vec<_> = leases.into_iter().map(|lease| lease.metadata.resource_version).collect();
    let events: Api<Event> = Api::namespaced(case.client(), &case.namespace);
    let events = events.list(&ListParams::default()).await?.items;
    let of_kubernetes = [
        "horizontal-pod-autoscaler",
        "deployment-controller",
        "replicaset-controller",
        "kubelet",
        "default-scheduler",
    ];
    let reporters = events.iter().map(|event| {
        let source = event.source.as_ref().and_then(|source| source.component.clone());
        event.reporting_component.clone().filter(|name| !name.is_empty()).or(source).unwrap_or_default()
    });
    let others: Vec<_> =
        reporters.filter(|name| !of_kubernetes.contains(&name.as_str()) && name != "kwok").collect();
    Ok(json!({ "object": case.get("shop").await?, "hpas": hpas, "leases": leases, "events": others }))
}

/// Runs `tandem run --dry-run` with rights to read, until it is ready.
async fn start(case: &Case<'_>, folder: &Path, record: &Path) -> Result<Child> {
    let kubeconfig =
        case.world.control_plane.kubeconfig_of(harness::install::NAMESPACE, "tandem-dry-run").await?;
    let (metrics, probes) = (free_address()?, free_address()?);
    let log = fs::File::create(folder.join("log"))?;
    let child = Command::new(program())
        .args(["run", "--dry-run"])
        .arg(format!("--dry-run-record={}", record.display()))
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .arg(format!("--watch-namespace={}", case.namespace))
        .arg(format!("--metrics-bind-address={metrics}"))
        .arg(format!("--health-probe-bind-address={probes}"))
        .arg("--leader-elect")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let child = Child(child);
    let http = reqwest::Client::builder().no_proxy().build()?;
    wait::until("the dry run to be ready", SOON, || async {
        http.get(format!("http://{probes}/readyz")).send().await?.error_for_status()?;
        Ok(())
    })
    .await?;
    Ok(child)
}

fn program() -> PathBuf {
    std::env::var_os("TANDEM_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_tandem").into()).into()
}

/// `tandem report` shows the difference, for people, for programs and for a browser.
fn reported(record: &Path, folder: &Path) -> Result<()> {
    let report = |arguments: &[&str]| -> Result<String> {
        let output = Command::new(program()).arg("report").arg(record).args(arguments).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let page = folder.join("report.html");
    let text = report(&["--html", &page.display().to_string()])?;
    println!("{text}");
    ensure!(
        text.contains("dry-run-beside-another/shop") && text.contains("patch deployments/scale: 1"),
        "{text}"
    );
    let json: Value = serde_json::from_str(&report(&["--output", "json"])?)?;
    let shop = &json["objects"][0];
    ensure!(shop["most"] == -5, "it wanted none of five: {shop:#}");
    ensure!(shop["changesOfOthers"] == 1 && shop["tandemFirst"] == 1, "{shop:#}");
    let lead = shop["leadSeconds"].as_f64().context("no lead")?;
    ensure!(lead > 0.0 && shop["differsSeconds"].as_f64() > Some(lead), "{shop:#}");
    let page = fs::read_to_string(page)?;
    ensure!(
        page.contains("KEDAScaleTargetDeactivated") && page.contains("SuccessfulRescale"),
        "no reasons in the page"
    );
    Ok(())
}
