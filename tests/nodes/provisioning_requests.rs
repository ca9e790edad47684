//! ProvisioningRequests: room that is there or made as a whole, kept, and taken by the pods that it was for.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::moto::Group;
use harness::wait;

use crate::groups::{self, AWS, HASTY, aws_nodes};
use crate::world::World;

/// t3.medium has 2 cores, a little of them reserved: 2 pods of 900m fit.
const GROUP: Group<'static> = Group { min: 1, max: 4, desired: 1, ..groups::GROUP };

const TEMPLATE: &str = "
apiVersion: v1
kind: PodTemplate
metadata: {name: small, namespace: default}
template:
  spec:
    nodeSelector: {node.kubernetes.io/instance-type: t3.medium}
    containers: [{name: main, image: image, resources: {requests: {cpu: 900m, memory: 128Mi}}}]
";

const WORKERS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: worker, namespace: default}
spec:
  replicas: 4
  selector: {matchLabels: {app: worker}}
  template:
    metadata:
      labels: {app: worker}
      annotations: {autoscaling.x-k8s.io/consume-provisioning-request: batch}
    spec:
      nodeSelector: {node.kubernetes.io/instance-type: t3.medium}
      containers: [{name: main, image: image, resources: {requests: {cpu: 900m, memory: 128Mi}}}]
";

const CHECK: &str = "check-capacity";
const ATOMIC: &str = "best-effort-atomic-scale-up";

/// A pass, machines that come at once, and a status: seconds on an idle machine.
const SOON: Duration = Duration::from_mins(1);
/// Longer than a node that is empty would stay.
const A_WHILE: Duration = Duration::from_secs(8);

/// The group never has more nodes than some request needs, nor fewer than they were promised.
pub(crate) async fn walk_through(world: Arc<World>) -> Result<()> {
    let world = &*world;
    world.group(&GROUP).await?;
    let crd = harness::source_tree().join("crds/autoscaling.x-k8s.io_provisioningrequests.yaml");
    world.kubectl(&format!("apply --server-side -f {}", crd.display()), "").await?;
    world.kubectl("apply -f -", TEMPLATE).await?;
    let flags = [&AWS[..], &HASTY, &["--enable-provisioning-requests"]].concat();
    world.start_tandem(&flags).await?;
    wait::until("the first node", SOON, || async {
        ensure!(aws_nodes(world).await?.len() == 1, "no node yet");
        Ok(())
    })
    .await?;

    ask(world, "now", CHECK, ("small", 2)).await?;
    says(world, "now", "Provisioned", "True CapacityIsFound Capacity is found in the cluster").await?;
    says(world, "now", "Accepted", "True Accepted ProvisioningRequest is accepted").await?;
    ask(world, "more", CHECK, ("small", 3)).await?;
    says(world, "more", "Provisioned", "False CapacityIsNotFound Capacity is not found, CA will try").await?;
    ask(world, "wrong", CHECK, ("missing", 1)).await?;
    says(world, "wrong", "Accepted", "False PodTemplateNotFound there is no PodTemplate missing").await?;
    ensure!(world.moto.group(GROUP.name).await?.0 == 1, "the group grew for who only asks what is there");

    ask(world, "batch", ATOMIC, ("small", 4)).await?;
    says(world, "batch", "Provisioned", "True CapacityIsProvisioned").await?;
    sized(world, 3).await?;
    ask(world, "flood", ATOMIC, ("small", 6)).await?;
    says(world, "flood", "Provisioned", "False CapacityIsNotFound Capacity is not found").await?;
    wait::throughout("nodes stay and none comes", A_WHILE, || async { has(world, 3).await }).await?;

    consume(world, &flags).await
}

/// Pods take their room; those that nobody asked room for get no node.
async fn consume(world: &World, flags: &[&str]) -> Result<()> {
    world.kubectl("apply -f -", WORKERS).await?;
    runs(world, 4).await?;
    says(world, "batch", "BookingExpired", "True CapacityBookingConsumed").await?;
    world.kubectl("scale --replicas=7 deployment/worker", "").await?;
    runs(world, 6).await?;
    let text =
        "Unschedulable pod didn't trigger scale-up, because it's consuming ProvisioningRequest default/batch";
    wait::until("the pod to be told", SOON, || async {
        let events = world.kubectl("get events -n default", "").await?;
        ensure!(events.contains(text), "no event says {text:?}:\n{events}");
        Ok(())
    })
    .await?;
    has(world, 3).await?;
    let pending = "get pods -n default --field-selector=status.phase=Pending -o name";
    let pending = world.kubectl(pending, "").await?;
    let pod = pending.trim().strip_prefix("pod/").context("no pod waits")?;
    let words = [&["pod", pod, "--namespace=default"], flags].concat();
    let explained = world.explain(&words).await?;
    ensure!(explained.contains("it consumes ProvisioningRequest batch"), "{explained}");
    Ok(())
}

async fn ask(world: &World, name: &str, class: &str, (template, count): (&str, u32)) -> Result<()> {
    let request = format!(
        "
apiVersion: autoscaling.x-k8s.io/v1beta1
kind: ProvisioningRequest
metadata: {{name: {name}, namespace: default}}
spec:
  provisioningClassName: {class}.autoscaling.x-k8s.io
  podSets: [{{podTemplateRef: {{name: {template}}}, count: {count}}}]
"
    );
    world.kubectl("apply -f -", &request).await.map(drop)
}

/// Waits until a condition of a request begins so: status, reason, message.
async fn says(world: &World, name: &str, kind: &str, wanted: &str) -> Result<()> {
    let path = format!("{{.status.conditions[?(@.type==\"{kind}\")]['status','reason','message']}}");
    wait::until(&format!("{name}'s {kind} to say {wanted:?}"), SOON, || async {
        let words = ["get", "provreq", name, "-n", "default", "-o", &format!("jsonpath={path}")];
        let said = world.control_plane.kubectl().run(&words, "").await?;
        ensure!(said.starts_with(wanted), "it says {said:?}");
        Ok(())
    })
    .await
}

/// That the group has so many machines.
async fn has(world: &World, count: usize) -> Result<()> {
    let (desired, machines) = world.moto.group(GROUP.name).await?;
    ensure!(desired as usize == count && machines.len() == count, "{desired} are desired: {machines:?}");
    Ok(())
}

async fn sized(world: &World, count: usize) -> Result<()> {
    wait::until(&format!("{count} machines"), SOON, || async { has(world, count).await }).await
}

async fn runs(world: &World, count: usize) -> Result<()> {
    wait::until(&format!("{count} pods to run"), SOON, || async {
        let running = world.running("worker").await?;
        ensure!(running == count, "{running} run");
        Ok(())
    })
    .await
}
