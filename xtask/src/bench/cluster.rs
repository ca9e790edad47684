//! The nodes loop in a large cluster: the whole process beside a real API server, with everything that it watches.

use std::{
    fmt::Debug,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use harness::{
    Components, ControlPlane, Install, Network, Options, Tandem, install, network, source_tree,
    tandem::Addresses, wait,
};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{pods::build_release, process, resident, row, scrape};

/// Requests of ours that are under way at once while objects are made.
const WRITERS: usize = 32;
/// Nodes and their pods are this group's.
const GROUP: &str = "workers";
/// Nodes without a kubelet stay alive, and nobody makes further pods for the owners of ours.
const CONTROLLERS: &[&str] =
    &["--node-monitor-grace-period=24h", "--controllers=*,-replicationcontroller-controller"];
/// Pods have one of so many owners.
const OWNERS: usize = 300;
/// For what a busy machine does while it works on tens of thousands of objects.
const PATIENCE: Duration = Duration::from_mins(10);
/// Before something is measured: three passes.
const SETTLE: Duration = Duration::from_secs(35);
/// How many times one pod waits for a node, for a median.
const TRIES: usize = 5;

/// Flags of `bench cluster`.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// Nodes, all of one node group.
    #[arg(long, default_value_t = 5000)]
    nodes: usize,
    /// Pods on each.
    #[arg(long, default_value_t = 10)]
    pods: usize,
    /// Pods that come at once and fit nowhere.
    #[arg(long, default_value_t = 500)]
    surge: usize,
    /// Length of the measured window, seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// A built `tandem`; without it the release build of this checkout.
    #[arg(long)]
    program: Option<PathBuf>,
}

/// Measures and prints the table.
pub(super) fn run(args: &ClusterArgs) -> Result<()> {
    let program = args.program.clone().map_or_else(build_release, Ok)?;
    network::enter_namespace()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(args, &program))
}

async fn measure(args: &ClusterArgs, program: &Path) -> Result<()> {
    let components = Components::find_or_build()?;
    let options = Options {
        controller_flags: CONTROLLERS,
        played_nodes: "!bench",
        controller_qps: 200,
        ..Options::new(Network::Namespace)
    };
    let control_plane = ControlPlane::start(&components, options).await?;
    let client = control_plane.client();
    let install = Install::apply(&control_plane).await?;
    for rights in ["node-groups", "node-pools"] {
        let file = source_tree().join(format!("manifests/{rights}.yaml"));
        control_plane.kubectl().run(&["apply", "-f", &file.display().to_string()], "").await?;
    }
    let started = Instant::now();
    fill(&client, args).await?;
    row(
        "nodes, pods",
        format!("{}, {} ({:.0?} to make them)", args.nodes, args.nodes * args.pods, started.elapsed()),
    );

    let flags = ["--cloud-provider=kwok", "--scale-down-delay-after-add=1h"].map(str::to_owned);
    let addresses = Addresses::of_services(&install)?;
    let pod = install.pods.first().context("no pod of Tandem")?;
    let started = Instant::now();
    let tandem = Tandem::start_with(&control_plane, program, pod, addresses, &flags, &[]).await?;
    first_pass(&client, args.nodes).await?;
    row("start to the end of the first pass", format!("{:.1} s", started.elapsed().as_secs_f64()));
    tokio::time::sleep(SETTLE).await;

    idle(&tandem, Duration::from_secs(args.seconds)).await?;
    resident("resident memory", tandem.id())?;

    let mut took = Vec::new();
    for index in 0..TRIES {
        took.push(surge(&client, &format!("one-{index}"), 1).await?.1);
    }
    took.sort();
    let median = took.get(TRIES / 2).context("no try")?;
    row("one pod that fits nowhere to its node", format!("{:.2} s", median.as_secs_f64()));
    let (looked_at, there) = surge(&client, "surge", args.surge).await?;
    let there =
        format!("{:.1} s, of it kube-scheduler's {:.1} s", there.as_secs_f64(), looked_at.as_secs_f64());
    row(&format!("{} such pods to the last node", args.surge), there);
    resident("resident memory", tandem.id())?;
    tandem.stop().await?;
    Ok(())
}

/// What it takes while nothing happens.
async fn idle(tandem: &Tandem, window: Duration) -> Result<()> {
    let seen = || async {
        let metrics = scrape(tandem.addresses().metrics).await?;
        anyhow::Ok((process::processor_time(tandem.id())?, passes(&metrics)))
    };
    let (processor, (count, seconds)) = seen().await?;
    tokio::time::sleep(window).await;
    let (used, (count_after, seconds_after)) = seen().await?;
    let used = used.saturating_sub(processor).as_secs_f64() * 60.0 / window.as_secs_f64();
    row("processor time a minute", format!("{used:.2} s"));
    let each = (seconds_after - seconds) / (count_after - count) * 1000.0;
    row("a pass", format!("{each:.1} ms, {} of them", count_after - count));
    Ok(())
}

/// How many passes there were, and how long they took together, in seconds.
fn passes(metrics: &str) -> (f64, f64) {
    let value = |what: &str| {
        let name = format!("cluster_autoscaler_function_duration_seconds_{what}{{function=\"main\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_default()
    };
    (value("count"), value("sum"))
}

/// The group, its nodes and their pods.
async fn fill(client: &Client, args: &ClusterArgs) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), install::NAMESPACE);
    let config = "apiVersion: v1alpha1\nreadNodesFrom: configmap\nnodegroups: {fromNodeLabelKey: pool}\nconfigmap: {name: kwok-provider-templates}\n";
    let mut template = node(GROUP);
    template["metadata"]["annotations"] = json!({
        "cluster-autoscaler.kwok.nodegroup/min-count": "0",
        "cluster-autoscaler.kwok.nodegroup/max-count": (args.nodes + args.surge + TRIES).to_string(),
    });
    let templates = json!({"apiVersion": "v1", "kind": "List", "items": [template]}).to_string();
    for (name, key, text) in
        [("kwok-provider-config", "config", config), ("kwok-provider-templates", "templates", &templates)]
    {
        create(&maps, json!({"metadata": {"name": name}, "data": {key: text}})).await?;
    }
    let nodes: Api<Node> = Api::all(client.clone());
    let owners = Api::namespaced(client.clone(), "default");
    let owner = |index| {
        let name = format!("owner-{index}");
        let labels = json!({"app": name});
        let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "image"}]}});
        create(
            &owners,
            json!({
                "metadata": {"name": name}, "spec": {"replicas": 1, "selector": labels, "template": template},
            }),
        )
    };
    let owners: Vec<k8s_openapi::api::core::v1::ReplicationController> =
        stream::iter(0..OWNERS).map(owner).buffered(WRITERS).try_collect().await?;
    let made = |index: usize| {
        let name = format!("{GROUP}-{index:05}");
        let mut made = node(&name);
        made["metadata"]["labels"]["bench"] = json!("true");
        made["metadata"]["annotations"] = json!({
            "kwok.x-k8s.io/node": "fake", "cluster-autoscaler.kwok.nodegroup/name": GROUP,
        });
        made["spec"] = json!({"providerID": format!("kwok:{name}")});
        create(&nodes, made)
    };
    stream::iter(0..args.nodes)
        .map(made)
        .buffer_unordered(WRITERS)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let cpu = 3800 / args.pods.max(1);
    let run = |index: usize| {
        let owner = &owners[index % OWNERS];
        let (name, node) = (format!("pod-{index}"), format!("{GROUP}-{:05}", index / args.pods));
        let pods = &pods;
        async move {
            let mut pod = pod(&name, &owner.name_any(), &format!("{cpu}m"));
            pod["metadata"]["ownerReferences"] = json!([{
                "apiVersion": "v1", "kind": "ReplicationController", "name": owner.name_any(),
                "uid": owner.metadata.uid, "controller": true,
            }]);
            pod["spec"]["nodeName"] = json!(node);
            create(pods, pod).await?;
            let running = json!({"status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
            }});
            pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&running)).await?;
            Ok(())
        }
    };
    let all = args.nodes * args.pods;
    stream::iter(0..all).map(run).buffer_unordered(WRITERS).try_for_each(|()| async { Ok(()) }).await
}

/// Until the status document counts all nodes.
async fn first_pass(client: &Client, nodes: usize) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), install::NAMESPACE);
    let counted = format!("ready: {nodes}");
    wait::until("the first pass", PATIENCE, || async {
        let status = maps.get("cluster-autoscaler-status").await?.data.unwrap_or_default();
        ensure!(
            status.values().any(|text| text.contains(&counted)),
            "the status does not count {nodes} nodes"
        );
        Ok(())
    })
    .await
}

/// So many pods that each need a node of their own, from the first one's creation: until kube-scheduler has looked at all of
/// them, and until a node is there for each.
async fn surge(client: &Client, name: &str, count: usize) -> Result<(Duration, Duration)> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let nodes: Api<Node> = Api::all(client.clone());
    let unmarked = ListParams::default().labels("!bench");
    let new = || async { anyhow::Ok(nodes.list_metadata(&unmarked).await?.items.len()) };
    let before = new().await?;
    let started = Instant::now();
    let made = |index: usize| create(&pods, pod(&format!("{name}-{index}"), name, "3800m"));
    stream::iter(0..count).map(made).buffer_unordered(WRITERS).try_for_each(|_| async { Ok(()) }).await?;
    let of_surge = ListParams::default().labels(&format!("app={name}"));
    let looked_at = wait::until("kube-scheduler", PATIENCE, || async {
        let seen = pods.list(&of_surge).await?;
        let seen = seen.iter().filter_map(|pod| pod.status.as_ref()?.conditions.as_ref());
        let seen = seen.filter(|all| all.iter().any(|one| one.type_ == "PodScheduled")).count();
        ensure!(seen == count, "{seen} of {count} pods");
        Ok(started.elapsed())
    });
    let there = wait::until("nodes", PATIENCE, || async {
        let there = new().await? - before;
        ensure!(there >= count, "{there} of {count} nodes");
        Ok(started.elapsed())
    });
    let took = tokio::try_join!(looked_at, there)?;
    let there = new().await? - before;
    ensure!(there == count, "{there} nodes for {count} pods");
    Ok(took)
}

async fn create<K>(api: &Api<K>, object: Value) -> Result<K>
where
    K: Clone + Debug + Serialize + DeserializeOwned,
{
    Ok(api.create(&PostParams::default(), &serde_json::from_value(object)?).await?)
}

/// A ready node of 4 cores and 16 GiB.
fn node(name: &str) -> Value {
    let room = json!({"cpu": "4", "memory": "16Gi", "pods": "110", "ephemeral-storage": "100Gi"});
    json!({
        "kind": "Node", "apiVersion": "v1",
        "metadata": {"name": name, "labels": {
            "pool": GROUP, "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": "zone-a", "node.kubernetes.io/instance-type": "large",
        }},
        "status": {
            "capacity": room, "allocatable": room,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        },
    })
}

fn pod(name: &str, app: &str, cpu: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {
            "nodeSelector": {"pool": GROUP},
            "tolerations": [{"key": "kwok-provider", "operator": "Exists"}],
            "containers": [{
                "name": "main", "image": "image", "resources": {"requests": {"cpu": cpu, "memory": "256Mi"}},
            }],
        },
    })
}
