//! Devices: a group whose nodes show what a driver finds there grows for claims of them, shrinks, and grows from nothing; a pool
//! tries one node, and then knows.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, ensure};
use harness::{kwok_pool, moto::Group, wait};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::resource::v1::ResourceSlice;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::task::JoinSet;

use crate::groups::{self, AWS, HASTY, aws_nodes};
use crate::pools;
use crate::world::World;

const GROUP: Group<'static> = Group { min: 0, max: 4, ..groups::GROUP };

/// Devices that the driver finds on each node.
const DEVICES: usize = 2;

/// Pods that claim a device, and pods that name the extended resource which stands for one.
const CLAIMING: usize = 3;
const NAMING: usize = 2;

/// Between two looks of the driver at the nodes.
const LOOK: Duration = Duration::from_millis(200);

/// A pass, machines that come at once, and a driver that looks five times a second.
const SOON: Duration = Duration::from_mins(1);

fn objects() -> String {
    format!(
        r"
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {{name: gpu}}
spec:
  extendedResourceName: example.com/gpu
  selectors: [{{cel: {{expression: device.driver == 'gpu.test'}}}}]
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {{name: one, namespace: default}}
spec: {{spec: {{devices: {{requests: [{{name: gpu, exactly: {{deviceClassName: gpu}}}}]}}}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: claiming, namespace: default}}
spec:
  replicas: {CLAIMING}
  selector: {{matchLabels: {{app: claiming}}}}
  template:
    metadata: {{labels: {{app: claiming}}}}
    spec:
      resourceClaims: [{{name: gpu, resourceClaimTemplateName: one}}]
      containers: [{{name: main, image: image, resources: {{requests: {{cpu: 10m}}, claims: [{{name: gpu}}]}}}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: naming, namespace: default}}
spec:
  replicas: {NAMING}
  selector: {{matchLabels: {{app: naming}}}}
  template:
    metadata: {{labels: {{app: naming}}}}
    spec:
      containers: [{{name: main, image: image, resources: {{limits: {{example.com/gpu: 1}}}}}}]
"
    )
}

/// Publishes devices of every node of the group and of the pool, as a driver's DaemonSet does.
async fn publish(world: Arc<World>) {
    let slices: Api<ResourceSlice> = Api::all(world.client());
    loop {
        let nodes = [aws_nodes(&world).await, pool_nodes(&world).await];
        for node in nodes.into_iter().flatten().flatten() {
            // What is published already, and what cannot be now, changes nothing.
            let _ = slices.create(&PostParams::default(), &slice(&node)).await;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn slice(node: &Node) -> ResourceSlice {
    let name = node.name_any();
    let devices: Vec<_> = (0..DEVICES).map(|number| json!({"name": format!("gpu-{number}")})).collect();
    // It goes with its node.
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": node.uid()});
    serde_json::from_value(json!({
        "metadata": {"name": format!("{name}-gpu.test"), "ownerReferences": [owner]},
        "spec": {"driver": "gpu.test", "nodeName": name, "devices": devices,
                 "pool": {"name": name, "generation": 1, "resourceSliceCount": 1}},
    }))
    .unwrap()
}

/// Both kinds of pods get as many nodes as they need devices. The nodes go when the pods do, all of them, and one comes back.
pub(crate) async fn walk_through(world: Arc<World>) -> Result<()> {
    let mut drivers = JoinSet::new();
    drivers.spawn(publish(world.clone()));
    world.group(&GROUP).await?;
    world.kubectl("apply -f -", &objects()).await?;
    wait::until("the devices of the first node to be taken", SOON, || async {
        let running = world.running("claiming").await? + world.running("naming").await?;
        ensure!(running == DEVICES, "{running} pods run");
        Ok(())
    })
    .await?;
    settle(&world).await?;
    world.start_tandem(&[&AWS[..], &HASTY].concat()).await?;
    wait::until("all pods to run", SOON, || async {
        let (claiming, naming) = (world.running("claiming").await?, world.running("naming").await?);
        ensure!((claiming, naming) == (CLAIMING, NAMING), "{claiming} and {naming} run");
        Ok(())
    })
    .await?;
    let (desired, _) = world.moto.group("workers").await?;
    let needed = (CLAIMING + NAMING).div_ceil(DEVICES);
    ensure!(usize::try_from(desired)? == needed, "the group has {desired} nodes, {needed} are needed");

    world.kubectl("scale --replicas=0 deployment/claiming deployment/naming", "").await?;
    wait::until("the group to be empty", SOON, || async {
        let (desired, machines) = world.moto.group("workers").await?;
        ensure!(desired == 0 && machines.is_empty(), "desired {desired}, machines {machines:?}");
        ensure!(aws_nodes(&world).await?.is_empty(), "there are nodes");
        Ok(())
    })
    .await?;
    world.kubectl("scale --replicas=1 deployment/claiming", "").await?;
    wait::until("a pod to run on a node like those that were there", SOON, || async {
        ensure!(world.running("claiming").await? == 1, "it does not run");
        Ok(())
    })
    .await
}

/// Lets the nodes have been ready for long: those that have not show nobody what new ones will have.
async fn settle(world: &World) -> Result<()> {
    let nodes: Api<Node> = Api::all(world.client());
    for node in nodes.list(&ListParams::default()).await? {
        let ready = json!({"type": "Ready", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let patch = Patch::Strategic(json!({"status": {"conditions": [ready]}}));
        nodes.patch_status(&node.name_any(), &PatchParams::default(), &patch).await?;
    }
    Ok(())
}

/// A pod that asks for more than a node has.
const GREEDY: &str = "
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: four, namespace: default}
spec: {spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: gpu, count: 4}}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: greedy, namespace: default}
spec:
  resourceClaims: [{name: gpu, resourceClaimTemplateName: four}]
  containers: [{name: main, image: image, resources: {claims: [{name: gpu}]}}]
";

const POOL_FLAGS: [&str; 2] = ["--node-pools-provider=kwok", "--batch-idle-duration=500ms"];
const COUNTS: &str = "--ignore-dra-requests=false";

/// Two passes for pods that wait, and more than an empty node of the pool would stay.
const A_WHILE: Duration = Duration::from_secs(22);

async fn pool_nodes(world: &World) -> Result<Vec<Node>> {
    let nodes: Api<Node> = Api::all(world.client());
    Ok(nodes.list(&ListParams::default().labels("karpenter.sh/nodepool=general")).await?.items)
}

/// A pod with a claim gets a node where claims count, and waits for its driver. What that tells buys the next node, and no more.
pub(crate) async fn of_pools(world: Arc<World>) -> Result<()> {
    pools::install(&world).await?;
    world.start_tandem(&POOL_FLAGS).await?;
    let quick = "  disruption: {consolidationPolicy: WhenEmpty, consolidateAfter: 0s}";
    world.kubectl("apply -f -", &kwok_pool("general", quick)).await?;
    wait::until("the pool to be ready", SOON, || async {
        let pools = world.kubectl("get nodepools", "").await?;
        ensure!(pools.contains("True"), "{pools}");
        Ok(())
    })
    .await?;
    world.kubectl("apply -f -", &objects()).await?;
    world.kubectl("scale --replicas=0 deployment/naming", "").await?;
    wait::until("the event", SOON, || async {
        let events = world.kubectl("get events -n default", "").await?;
        ensure!(events.contains("pod has Dynamic Resource Allocation requirements"), "{events}");
        Ok(())
    })
    .await?;
    let claims =
        || async { Ok::<_, Error>(world.kubectl("get nodeclaims --output=name", "").await?.lines().count()) };
    ensure!(claims().await? == 0, "a node is made for claims that do not count");
    world.stop_tandem().await?;
    let pod = world.kubectl("get pods -n default -l app=claiming --output=name", "").await?;
    let pod = pod.lines().next().and_then(|line| line.strip_prefix("pod/")).context("no pod")?;
    let explained = world.explain(&["pod", pod, "--namespace=default", POOL_FLAGS[0], COUNTS]).await?;
    let presumed = "can help, presuming that it has the devices that are asked for";
    ensure!(explained.contains(presumed), "{explained}");

    world.start_tandem(&[&POOL_FLAGS[..], &[COUNTS]].concat()).await?;
    wait::until("a node to be tried", SOON, || async {
        ensure!(pool_nodes(&world).await?.len() == 1, "it is not there");
        Ok(())
    })
    .await?;
    wait::throughout("the one node waits for its driver", A_WHILE, || async {
        let (claims, nodes) = (claims().await?, pool_nodes(&world).await?.len());
        ensure!((claims, nodes) == (1, 1), "{claims} claims, {nodes} nodes");
        Ok(())
    })
    .await?;
    let mut drivers = JoinSet::new();
    drivers.spawn(publish(world.clone()));
    wait::until("all pods to run", SOON, || async {
        let running = world.running("claiming").await?;
        ensure!(running == CLAIMING, "{running} run");
        Ok(())
    })
    .await?;
    let needed = CLAIMING.div_ceil(DEVICES);
    let made = claims().await?;
    ensure!(made == needed, "{made} NodeClaims were made, {needed} are needed");
    world.kubectl("apply -f -", GREEDY).await?;
    let explained = world.explain(&["pod", "greedy", "--namespace=default", POOL_FLAGS[0], COUNTS]).await?;
    ensure!(explained.contains(&format!("has {DEVICES} of gpu.test")), "{explained}");
    Ok(())
}
