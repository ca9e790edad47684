//! CapacityBuffers: room that is there before the pods are, on node groups and on node pools.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{kwok_pool, moto::Group, wait};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};

use crate::groups::{self, AWS, HASTY, aws_nodes, deployment};
use crate::pools;
use crate::world::World;

/// t3.medium has 2 cores, a little of them reserved: 2 pods of 900m fit.
const GROUP: Group<'static> = Group { min: 0, max: 5, desired: 0, ..groups::GROUP };

const BUFFER: &str = "
apiVersion: autoscaling.x-k8s.io/v1beta1
kind: CapacityBuffer
metadata: {name: spare, namespace: default}
spec: {scalableRef: {apiGroup: apps, kind: Deployment, name: shop}, replicas: 2}
";

/// kwok's machine of 4 cores holds two pods of 1800m.
const POOL_BUFFER: &str = "
apiVersion: v1
kind: PodTemplate
metadata: {name: small, namespace: default}
template:
  metadata: {labels: {app: web}}
  spec:
    nodeSelector: {karpenter.sh/nodepool: general}
    containers: [{name: main, image: image, resources: {requests: {cpu: 1800m, memory: 128Mi}}}]
---
apiVersion: autoscaling.x-k8s.io/v1beta1
kind: CapacityBuffer
metadata: {name: spare, namespace: default}
spec: {podTemplateRef: {name: small}, replicas: 2}
";

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeSelector: {karpenter.sh/nodepool: general}
      containers: [{name: main, image: image, resources: {requests: {cpu: 1800m, memory: 128Mi}}}]
";

const POOL_NODES: &str = "karpenter.sh/nodepool=general";
const POOL_FLAGS: &[&str] =
    &["--node-pools-provider=kwok", "--batch-idle-duration=500ms", "--feature-gates=CapacityBuffer=true"];

/// A pass, machines that come at once, and what a buffer waits for: seconds on an idle machine.
const SOON: Duration = Duration::from_mins(1);
/// Longer than a node that is empty would stay.
const A_WHILE: Duration = Duration::from_secs(20);

/// Room is made, a pod takes it at once, it is made again; without the buffer nodes go.
pub(crate) async fn walk_through(world: Arc<World>) -> Result<()> {
    world.group(&GROUP).await?;
    pools::install(&world).await?;
    let flags = ["--capacity-buffer-controller-enabled", "--capacity-buffer-pod-injection-enabled"];
    world.start_tandem(&[&AWS[..], &HASTY, &flags].concat()).await?;
    on_groups(&world).await.context("node groups")?;
    world.stop_tandem().await?;
    world.start_tandem(POOL_FLAGS).await?;
    on_pools(&world).await.context("node pools")
}

async fn on_groups(world: &World) -> Result<()> {
    world.kubectl("apply -f -", BUFFER).await?;
    says(world, "ReadyForProvisioning", "False ScalableRefNotFound there is no Deployment shop").await?;
    world.kubectl("apply -f -", &deployment("shop", 0, "900m")).await?;
    says(world, "Provisioning", "True FitsExistingCapacity All 2 virtual pods").await?;
    sized(world, 1).await?;
    let node = aws_nodes(world).await?.pop().context("no node")?.name_any();
    let words = [&["node", &node, "--capacity-buffer-pod-injection-enabled"], &AWS[..]].concat();
    let explained = world.explain(&words).await?;
    ensure!(explained.contains("NoPlaceToMovePods"), "{explained}");

    world.kubectl("scale --replicas=1 deployment/shop", "").await?;
    runs(world, "shop").await?;
    sized(world, 2).await?;
    let events = world.kubectl("get events -n default", "").await?;
    for text in [
        "capacity buffer 2 fake pods triggered scale-up: [{workers 0->1 (max: 5)}]",
        "capacity buffer 1 fake pods triggered scale-up: [{workers 1->2 (max: 5)}]",
    ] {
        ensure!(events.contains(text), "no event says {text:?}:\n{events}");
    }
    ensure!(!events.contains("pod triggered scale-up"), "the pod waited for a node:\n{events}");
    says(world, "Provisioning", "True FitsExistingCapacity").await?;

    world.kubectl("delete capacitybuffer/spare deployment/shop", "").await?;
    sized(world, 0).await
}

async fn on_pools(world: &World) -> Result<()> {
    let quick =
        "  disruption: {consolidationPolicy: WhenEmpty, consolidateAfter: 2s, budgets: [{nodes: 100%}]}";
    world.kubectl("apply -f -", &kwok_pool("general", quick)).await?;
    world.kubectl("apply -f -", POOL_BUFFER).await?;
    says(world, "Provisioning", "True FitsExistingCapacity").await?;
    ensure!(nodes(world).await?.len() == 1, "two pods of the buffer share a node");
    wait::throughout("the node stays", A_WHILE, || async {
        ensure!(nodes(world).await?.len() == 1, "it went although its room is needed");
        Ok(())
    })
    .await?;
    let events = world.kubectl("get events -A", "").await?;
    ensure!(events.contains("has buffer pods"), "{events}");

    let first = nodes(world).await?.remove(0).name_any();
    world.kubectl("apply -f -", WEB).await?;
    let node = runs(world, "web").await?;
    ensure!(node == first, "the pod runs on {node}, and the room was on {first}");
    wait::until("the room to be made again", SOON, || async {
        let nodes = nodes(world).await?.len();
        ensure!(nodes == 2, "{nodes} nodes");
        Ok(())
    })
    .await?;
    says(world, "Provisioning", "True FitsExistingCapacity").await?;

    world.kubectl("delete capacitybuffer/spare deployment/web", "").await?;
    wait::until("the nodes to go", SOON, || async {
        let nodes = nodes(world).await?.len();
        ensure!(nodes == 0, "{nodes} are there");
        Ok(())
    })
    .await
}

/// Waits until a condition of the buffer begins so: status, reason, message.
async fn says(world: &World, kind: &str, wanted: &str) -> Result<()> {
    let path = format!("{{.status.conditions[?(@.type==\"{kind}\")]['status','reason','message']}}");
    wait::until(&format!("{kind} to say {wanted:?}"), SOON, || async {
        let words = ["get", "capacitybuffer", "spare", "-o", &format!("jsonpath={path}")];
        let said = world.control_plane.kubectl().run(&words, "").await?;
        ensure!(said.starts_with(wanted), "it says {said:?}");
        Ok(())
    })
    .await
}

/// Waits until the group has so many machines.
async fn sized(world: &World, count: usize) -> Result<()> {
    wait::until(&format!("{count} machines"), SOON, || async {
        let (desired, machines) = world.moto.group(GROUP.name).await?;
        ensure!(desired as usize == count && machines.len() == count, "{desired} are desired: {machines:?}");
        Ok(())
    })
    .await
}

/// Waits until the pod of a Deployment runs; returns its node.
async fn runs(world: &World, app: &str) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(world.client(), "default");
    wait::until(&format!("the pod of {app} to run"), SOON, || async {
        let pod = pods.list(&ListParams::default().labels(&format!("app={app}"))).await?;
        let pod = pod.items.into_iter().next().context("no pod")?;
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
        ensure!(phase.as_deref() == Some("Running"), "it is {phase:?}");
        pod.spec.and_then(|spec| spec.node_name).context("no node")
    })
    .await
}

async fn nodes(world: &World) -> Result<Vec<Node>> {
    let nodes: Api<Node> = Api::all(world.client());
    Ok(nodes.list(&ListParams::default().labels(POOL_NODES)).await?.items)
}
