//! Node groups, as Cluster Autoscaler's users know them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::moto::Group;
use harness::wait;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::World;

/// t3.medium has 2 cores and 4 GiB: 4 pods of 500m and 512 MiB fit.
pub(crate) const GROUP: Group<'static> = Group {
    name: "workers",
    instance_type: "t3.medium",
    min: 1,
    max: 8,
    desired: 1,
    rebalances: false,
    zones: &["eu-central-1a"],
    tags: &[("k8s.io/cluster-autoscaler/enabled", "true"), ("k8s.io/cluster-autoscaler/test", "owned")],
};

/// The groups that Tandem finds.
pub(crate) const AWS: [&str; 2] = [
    "--cloud-provider=aws",
    "--node-group-auto-discovery=asg:tag=k8s.io/cluster-autoscaler/enabled,k8s.io/cluster-autoscaler/test",
];

/// Nodes that are not needed go within seconds.
pub(crate) const HASTY: [&str; 6] = [
    "--scale-down-unneeded-time=3s",
    "--scale-down-delay-after-add=3s",
    "--node-delete-delay-after-taint=1s",
    "--unremovable-node-recheck-timeout=2s",
    "--scan-interval=1s",
    "--skip-nodes-with-system-pods=false",
];

/// Where Cluster Autoscaler serves metrics and its probe.
const PEERS_ADDRESS: &str = "127.0.0.1:8085";

/// Users see this take as long as EC2 takes; here machines come at once.
const SOON: Duration = Duration::from_mins(1);

pub(crate) fn deployment(name: &str, replicas: u32, cpu: &str) -> String {
    format!(
        r"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: default}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
            - matchExpressions: [{{key: node.kubernetes.io/instance-type, operator: Exists}}]
      containers:
      - name: nginx
        image: nginx
        resources: {{requests: {{cpu: {cpu}, memory: 512Mi}}}}
"
    )
}

pub(crate) async fn aws_nodes(world: &World) -> Result<Vec<Node>> {
    let nodes: Api<Node> = Api::all(world.client());
    let nodes = nodes.list(&ListParams::default()).await?;
    let ours = |node: &Node| {
        node.spec
            .as_ref()
            .and_then(|spec| spec.provider_id.as_deref())
            .is_some_and(|id| id.starts_with("aws:"))
    };
    Ok(nodes.items.into_iter().filter(ours).collect())
}

/// Up by what is needed and no more, and down again under the very names that users know.
pub(crate) async fn walk_through(world: Arc<World>) -> Result<()> {
    world.group(&GROUP).await?;
    wait::until("the first node", SOON, || async {
        ensure!(aws_nodes(&world).await?.len() == 1, "no node yet");
        Ok(())
    })
    .await?;
    world.start_tandem(&[&AWS[..], &HASTY, &[&format!("--address={PEERS_ADDRESS}")]].concat()).await?;
    world.kubectl("apply -f -", &deployment("nginx-to-scaleout", 1, "500m")).await?;
    world.kubectl("scale --replicas=10 deployment/nginx-to-scaleout", "").await?;
    wait::until("ten pods to run", SOON, || async {
        let running = world.running("nginx-to-scaleout").await?;
        ensure!(running == 10, "{running} of 10 run");
        Ok(())
    })
    .await?;
    // 2 cores hold four pods of half a core each, so ten need three nodes.
    let (desired, _) = world.moto.group("workers").await?;
    ensure!(desired == 3, "the group has {desired} nodes, 3 are needed");
    for line in [
        "is unschedulable",
        "Upcoming 0 nodes",
        "Best option to resize: workers",
        "Final scale-up plan: [{workers ",
        "Scale-up: setting group workers size to 3",
    ] {
        world.logged(line).await?;
    }
    wait::until("the events of the scale-up", SOON, || async {
        let events = world.kubectl("get events -A", "").await?;
        for text in [
            "TriggeredScaleUp",
            "pod triggered scale-up: [{workers ",
            "ScaledUpGroup",
            "Scale-up: group workers size set to 3 instead of ",
        ] {
            ensure!(events.contains(text), "no event says {text:?}:\n{events}");
        }
        Ok(())
    })
    .await?;
    let metrics = get("/metrics").await?;
    for name in [
        "cluster_autoscaler_cluster_safe_to_autoscale 1",
        "cluster_autoscaler_scaled_up_nodes_total ",
        "cluster_autoscaler_aws_request_duration_seconds_count{endpoint=\"SetDesiredCapacity\"",
    ] {
        ensure!(metrics.contains(name), "{name} is not among the metrics");
    }
    ensure!(get("/health-check").await?.starts_with("HTTP/1.0 200"), "the probe fails");
    shrinks(&world).await
}

/// What Tandem answers where Cluster Autoscaler would.
async fn get(path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(PEERS_ADDRESS).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: tandem\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn shrinks(world: &Arc<World>) -> Result<()> {
    world.kubectl("scale --replicas=1 deployment/nginx-to-scaleout", "").await?;
    wait::until("the group to shrink to its minimum", SOON, || async {
        let (desired, machines) = world.moto.group("workers").await?;
        ensure!(desired == 1 && machines.len() == 1, "desired {desired}, machines {machines:?}");
        let nodes = aws_nodes(world).await?;
        ensure!(nodes.len() == 1, "{} nodes", nodes.len());
        let taints =
            nodes.iter().flat_map(|node| node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()));
        let taints: Vec<_> = taints.map(|taint| taint.key.clone()).collect();
        ensure!(
            !taints.iter().any(|key| key.contains("ToBeDeleted")),
            "{} has {taints:?}",
            nodes[0].name_any()
        );
        Ok(())
    })
    .await?;
    wait::until("the pod to run", SOON, || async {
        let running = world.running("nginx-to-scaleout").await?;
        ensure!(running == 1, "{running} run");
        Ok(())
    })
    .await?;
    world.logged("is unneeded since").await?;
    ensure!(
        world.moto.calls().iter().any(|call| call == "autoscaling:TerminateInstanceInAutoScalingGroup"),
        "machines go by TerminateInstanceInAutoScalingGroup"
    );
    wait::until("the events of the scale-down", SOON, || async {
        let events = world.kubectl("get events -A", "").await?;
        for text in [
            "marked the node as toBeDeleted/unschedulable",
            "nodes removed by cluster autoscaler",
            "ScaleDownEmpty",
        ] {
            ensure!(events.contains(text), "no event says {text:?}:\n{events}");
        }
        Ok(())
    })
    .await
}

/// A pod beyond every group's node is told so, with the reason, and nothing grows.
pub(crate) async fn a_pod_that_fits_no_group(world: Arc<World>) -> Result<()> {
    world.group(&GROUP).await?;
    world.start_tandem(&[&AWS[..], &HASTY].concat()).await?;
    world.kubectl("apply -f -", &deployment("giant", 1, "64")).await?;
    wait::until("the event", SOON, || async {
        let events = world.kubectl("get events -n default", "").await?;
        let text = "pod didn't trigger scale-up: 1 Insufficient cpu";
        ensure!(events.contains("NotTriggerScaleUp") && events.contains(text), "{events}");
        Ok(())
    })
    .await?;
    let (desired, _) = world.moto.group("workers").await?;
    ensure!(desired == 1, "the group grew to {desired} for nothing");

    let pods: Api<Pod> = Api::namespaced(world.client(), "default");
    let pods = pods.list(&ListParams::default().labels("app=giant")).await?;
    let pod = pods.items.first().context("no pod")?.name_any();
    let explained = world.explain(&["pod", &pod, "--namespace=default", AWS[0], AWS[1]]).await?;
    for text in ["has no node. It requests 64000m CPU", "workers  1 of 1..8  Insufficient cpu"] {
        ensure!(explained.contains(text), "{text:?} is not explained:\n{explained}");
    }
    let node = aws_nodes(&world).await?.first().context("no node")?.name_any();
    let explained = world.explain(&["node", &node, AWS[0], AWS[1], "--output=json"]).await?;
    ensure!(explained.contains("NodeGroupMinSizeReached") || explained.contains("unneeded"), "{explained}");
    Ok(())
}
