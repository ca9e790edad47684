//! A dry run beside another autoscaler, with rights to read and no more: what it would have done is in its record, and the
//! cluster is as it would have been without it.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use harness::{kwok_pool, network::free_address, source_tree, wait};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Event};
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use tandem::cloud::{CloudProvider as _, kwok::Kwok};
use tempfile::TempDir;

use crate::case::{Case, SOON, workload};

/// `tandem run --dry-run` with rights to read, which is gone with the scenario.
struct DryRun {
    process: Child,
    folder: TempDir,
}

impl Drop for DryRun {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl DryRun {
    /// Starts it for the scenario's namespace, and waits until it is ready.
    async fn start(case: &Case<'_>, flags: &[&str]) -> Result<Self> {
        let rights = fs::read_to_string(source_tree().join("manifests/dry-run.yaml"))?;
        case.world.control_plane.kubectl().run(&["apply", "-f", "-"], &rights).await?;
        let kubeconfig =
            case.world.control_plane.kubeconfig_of(harness::install::NAMESPACE, "tandem-dry-run").await?;
        let (metrics, probes) = (free_address()?, free_address()?);
        let folder = tempfile::tempdir()?;
        let log = fs::File::create(folder.path().join("log"))?;
        let process = Command::new(program())
            .args(["run", "--dry-run", "--leader-elect"])
            .arg(format!("--dry-run-record={}", folder.path().join("record").display()))
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--watch-namespace={}", case.namespace))
            .arg(format!("--metrics-bind-address={metrics}"))
            .arg(format!("--health-probe-bind-address={probes}"))
            .args(flags)
            .env("POD_NAMESPACE", &case.namespace)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let run = Self { process, folder };
        let http = reqwest::Client::builder().no_proxy().build()?;
        wait::until("the dry run to be ready", SOON, || async {
            http.get(format!("http://{probes}/readyz")).send().await?.error_for_status()?;
            Ok(())
        })
        .await?;
        Ok(run)
    }

    fn record(&self) -> PathBuf {
        self.folder.path().join("record")
    }

    /// Waits for a line in which every field of `wanted` is so.
    async fn wait_line(&self, wanted: Value) -> Result<()> {
        wait::until(&format!("the line {wanted}"), SOON, || async {
            let text = fs::read_to_string(self.record())?;
            let is_it = |line: &str| {
                let line: Value = serde_json::from_str(line).unwrap_or_default();
                wanted
                    .as_object()
                    .is_some_and(|wanted| wanted.iter().all(|(name, value)| line[name] == *value))
            };
            ensure!(text.lines().any(is_it), "{text}");
            Ok(())
        })
        .await
    }

    /// Waits until so many replicas are wanted, and so many are there.
    async fn wait_replicas(&self, wanted: i64, actual: i64) -> Result<()> {
        self.wait_line(json!({ "type": "sample", "wanted": wanted, "actual": actual })).await
    }

    /// Ends it, and makes sure that it never tried what it may not do.
    fn stop(&mut self) -> Result<()> {
        let id = self.process.id().to_string();
        ensure!(Command::new("kill").args(["-TERM", &id]).status()?.success(), "no process {id}");
        let status = self.process.wait()?;
        let log = fs::read_to_string(self.folder.path().join("log"))?;
        ensure!(status.success(), "it ended with {status}: {log}");
        ensure!(!log.to_lowercase().contains("forbidden"), "something was refused: {log}");
        Ok(())
    }

    /// What `tandem report` prints of it.
    fn report(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(program()).arg("report").arg(self.record()).args(arguments).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn program() -> PathBuf {
    std::env::var_os("TANDEM_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_tandem").into()).into()
}

/// The other one stands still at first, then scales to what Tandem wanted, and does not see that the load is gone.
pub(crate) async fn beside_another(case: &Case<'_>) -> Result<()> {
    case.world.stop_replicas().await?;
    let result = replicas(case).await;
    case.world.start_replicas().await?;
    result
}

async fn replicas(case: &Case<'_>) -> Result<()> {
    case.set_requests(5).await?;
    case.deployment("shop", 1).await?;
    let trigger = case.prometheus(&case.requests(), "10");
    case.scaled_object("shop", json!({ "cooldownPeriod": 3, "triggers": [trigger] })).await?;
    hpa_of_another(case).await?;
    let before = written(case).await?;

    let mut run = DryRun::start(case, &[]).await?;
    run.wait_replicas(1, 1).await?;
    case.set_requests(45).await?;
    run.wait_replicas(5, 1).await?;
    case.kubectl(&["scale", "deployment", "shop", "--replicas=5"]).await?;
    run.wait_replicas(5, 5).await?;
    case.set_requests(0).await?;
    run.wait_replicas(0, 5).await?;
    run.stop()?;

    let after = written(case).await?;
    ensure!(before == after, "something was written: {before:#} {after:#}");
    ensure!(case.replicas("shop").await? == 5, "only the other one scales");
    differences_of_replicas(&run)
}

/// `tandem report` shows them, for people, for programs and for a browser.
fn differences_of_replicas(run: &DryRun) -> Result<()> {
    let text = run.report(&[])?;
    println!("{text}");
    ensure!(text.contains("dry-run-beside-another/shop"), "{text}");
    ensure!(text.contains("patch deployments/scale: 1"), "{text}");
    let json: Value = serde_json::from_str(&run.report(&["--output", "json"])?)?;
    let shop = &json["objects"][0];
    ensure!(shop["most"] == -5, "it wanted none of five: {shop:#}");
    ensure!(shop["changesOfOthers"] == 1 && shop["tandemFirst"] == 1, "{shop:#}");
    let lead = shop["leadSeconds"].as_f64().context("no lead")?;
    ensure!(lead > 0.0 && shop["differsSeconds"].as_f64() > Some(lead), "{shop:#}");
    let page = run.report(&["--html", "-"])?;
    for reason in ["KEDAScaleTargetDeactivated", "SuccessfulRescale", "Scaled"] {
        ensure!(page.contains(reason), "the page has no {reason}");
    }
    Ok(())
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

/// A pod for a node group and one for a node pool wait; whoever runs the group makes a node for its pod, whoever runs the pool
/// does nothing. When the pod is gone its node is not needed.
pub(crate) async fn nodes_of_others(case: &Case<'_>) -> Result<()> {
    kwok_group(case).await?;
    node_pool(case).await?;
    let group = Kwok::connect(case.client(), &case.namespace, "kwok-provider-config").await?;
    waiting(case, "of-group", "pool", "dry").await?;
    waiting(case, "of-pool", "karpenter.sh/nodepool", "dry").await?;

    let flags = [
        "--cloud-provider=kwok",
        "--node-pools-provider=kwok",
        "--scan-interval=2s",
        "--scale-down-unneeded-time=3s",
        "--scale-down-delay-after-add=1s",
    ];
    let mut run = DryRun::start(case, &flags).await?;
    let nodes = |kind: &str, wanted: u32, actual: u32| json!({ "type": "nodes", "kind": kind, "name": "dry", "wanted": wanted, "actual": actual });
    run.wait_line(nodes("group", 1, 0)).await?;
    run.wait_line(nodes("pool", 1, 0)).await?;
    run.wait_line(json!({ "type": "pending", "pods": 2 })).await?;
    group.increase("dry", 0, 1).await?;
    run.wait_line(nodes("group", 1, 1)).await?;
    case.kubectl(&["delete", "deployment", "of-group"]).await?;
    run.wait_line(nodes("group", 0, 1)).await?;
    run.stop()?;

    let claims = case.kubectl(&["get", "nodeclaims", "-o", "name"]).await?;
    ensure!(claims.trim().is_empty(), "{claims}");
    let made = case.kubectl(&["get", "nodes", "-l", "pool=dry", "-o", "jsonpath={.items[*].spec}"]).await?;
    ensure!(made.contains("kwok-provider"), "the node is there: {made}");
    for mark in ["ToBeDeleted", "DeletionCandidate", "unschedulable"] {
        ensure!(!made.contains(mark), "{made}");
    }
    let maps = case.kubectl(&["get", "configmaps", "-o", "name"]).await?;
    ensure!(!maps.contains("cluster-autoscaler-status"), "{maps}");
    differences_of_nodes(&run)?;
    case.kubectl(&["delete", "nodepool,kwoknodeclass", "dry"]).await?;
    group.cleanup().await?;
    Ok(())
}

fn differences_of_nodes(run: &DryRun) -> Result<()> {
    let text = run.report(&[])?;
    println!("{text}");
    for part in
        ["node group dry", "node pool dry", "increase nodegroup: 1", "create nodeclaims: 1", "remove node: 1"]
    {
        ensure!(text.contains(part), "no {part:?} in {text}");
    }
    let json: Value = serde_json::from_str(&run.report(&["--output", "json"])?)?;
    let (group, pool) = (&json["nodes"][0], &json["nodes"][1]);
    ensure!(group["changesOfOthers"] == 1 && group["tandemFirst"] == 1, "{group:#}");
    ensure!(pool["most"] == 1 && pool["changesOfOthers"] == 0, "{pool:#}");
    let page = run.report(&["--html", "-"])?;
    for reason in ["NodeJoined", "Resized", "TriggeredScaleUp"] {
        ensure!(page.contains(reason), "the page has no {reason}");
    }
    Ok(())
}

/// A node group of kwok's, without nodes.
async fn kwok_group(case: &Case<'_>) -> Result<()> {
    let config = "
apiVersion: v1alpha1
readNodesFrom: configmap
nodegroups: {fromNodeLabelKey: pool}
configmap: {name: kwok-provider-templates}
";
    let templates = "
apiVersion: v1
kind: List
items:
- kind: Node
  metadata:
    name: dry
    labels: {pool: dry, kubernetes.io/hostname: dry}
    annotations:
      cluster-autoscaler.kwok.nodegroup/min-count: '0'
      cluster-autoscaler.kwok.nodegroup/max-count: '3'
  spec: {providerID: kind://dry}
  status: {capacity: {cpu: '4', memory: 8Gi, pods: '110'}, allocatable: {cpu: '3', memory: 7Gi, pods: '110'}}
";
    for (name, key, text) in
        [("kwok-provider-config", "config", config), ("kwok-provider-templates", "templates", templates)]
    {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {key: text},
        });
        case.apply(map).await?;
    }
    Ok(())
}

/// A node pool that Karpenter says is ready, without nodes.
async fn node_pool(case: &Case<'_>) -> Result<()> {
    let kubectl = case.world.control_plane.kubectl();
    for kind in [
        "karpenter.sh_nodepools",
        "karpenter.sh_nodeclaims",
        "karpenter.sh_provisioners",
        "karpenter.k8s.aws_awsnodetemplates",
        "karpenter.kwok.sh_kwoknodeclasses",
    ] {
        let file = source_tree().join(format!("crds/{kind}.yaml")).display().to_string();
        kubectl.run(&["apply", "--server-side", "-f", &file], "").await?;
    }
    kubectl.run(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"], "").await?;
    kubectl.run(&["apply", "-f", "-"], &kwok_pool("dry", "      expireAfter: 720h")).await?;
    let ready = json!({"status": {"conditions": [{
        "type": "Ready", "status": "True", "reason": "Ready", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]}});
    let patch = ready.to_string();
    kubectl
        .run(&["patch", "nodepool", "dry", "--subresource=status", "--type=merge", "-p", &patch], "")
        .await?;
    Ok(())
}

/// A Deployment whose one pod runs only on nodes with this label.
async fn waiting(case: &Case<'_>, name: &str, label: &str, value: &str) -> Result<()> {
    let mut deployment = workload("Deployment", name, 1);
    let pod = &mut deployment["spec"]["template"]["spec"];
    pod["nodeSelector"] = json!({ label: value });
    pod["tolerations"] = json!([{ "key": "kwok-provider", "operator": "Exists" }]);
    pod["containers"][0]["resources"] = json!({ "requests": { "cpu": "2" } });
    case.apply(deployment).await
}
