//! Machines of Auto Scaling groups that are taken away: emptied under their budgets, let go, and replaced once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::moto::Group;
use harness::wait;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use crate::groups::{self, AWS, aws_nodes, deployment};
use crate::world::World;

/// t3.medium has 2 cores: one pod of 1200m fits.
const GROUP: Group<'static> = Group { min: 0, max: 6, desired: 2, rebalances: true, ..groups::GROUP };

const SET_SIZE: &str = "autoscaling:SetDesiredCapacity";
const HEARTBEAT: &str = "autoscaling:RecordLifecycleActionHeartbeat";
const COMPLETE: &str = "autoscaling:CompleteLifecycleAction";
const DETACH: &str = "autoscaling:DetachInstances";

/// Groups are read once a minute while nobody changes them: what takes so long has waited for that.
const AT_ONCE: Duration = Duration::from_secs(45);
/// An eviction that a budget holds back is tried again after ten seconds.
const PATIENCE: Duration = Duration::from_mins(2);

const BUDGET: &str = r"
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web, namespace: default}
spec: {maxUnavailable: 0, selector: {matchLabels: {app: web}}}
";

/// A group with two machines, and a pod on each, is hit four times.
pub(crate) async fn walk_through(world: Arc<World>) -> Result<()> {
    world.group(&GROUP).await?;
    world.moto.hook(GROUP.name, "drain").await?;
    let queue = world.moto.create_queue("notices").await?;
    world
        .start_tandem(&[&AWS[..], &["--interruption-queue=notices", "--heartbeat-interval=1"]].concat())
        .await?;
    world.kubectl("apply -f -", &deployment("web", 2, "1200m")).await?;
    serves(&world, "at first").await?;
    group_replaces(&world, &queue).await.context("the group ends a machine and keeps its size")?;
    group_shrinks(&world, &queue).await.context("somebody makes the group smaller")?;
    spot_is_taken_back(&world, &queue).await.context("spot capacity is taken back")?;
    group_rebalances(&world, &queue).await.context("spot capacity is likely to be taken back")
}

/// As a user of the handler sets it: only machines with the tag are emptied, and a machine that is empty waits a while before
/// it may end, with the taint that frees its volumes.
pub(crate) async fn as_the_handler_is_set(world: Arc<World>) -> Result<()> {
    world.group(&GROUP).await?;
    world.moto.hook(GROUP.name, "drain").await?;
    let queue = world.moto.create_queue("notices").await?;
    let settings = [
        "--interruption-queue=notices",
        "--check-tag-before-draining=true",
        "--complete-lifecycle-action-delay-seconds=10",
        "--enable-out-of-service-taint",
        "--kubernetes-events-extra-annotations=team=web",
    ];
    world.start_tandem(&[&AWS[..], &settings[..]].concat()).await?;
    world.kubectl("apply -f -", &deployment("web", 2, "1200m")).await?;
    serves(&world, "at first").await?;
    untagged_is_left_alone(&world, &queue).await.context("a machine without the tag")?;
    tagged_is_emptied(&world, &queue).await.context("a machine with the tag")
}

/// Its notices are deleted, and nothing else is done.
async fn untagged_is_left_alone(world: &World, queue: &str) -> Result<()> {
    let (node, machine) = victim(world).await?;
    let pod = pod_on(world, &node).await?;
    world.moto.forget_calls();
    world.moto.send(queue, &of_ec2("EC2 Spot Instance Interruption Warning", &machine)).await?;
    world.moto.send(queue, &hook(&machine)).await?;
    settled(world, queue).await?;
    let spec = node_named(world, &node).await?.spec.context("no spec")?;
    let mut taints = spec.taints.iter().flatten();
    let is_marked = taints.any(|taint| taint.key.starts_with("aws-node-termination-handler/"));
    ensure!(spec.unschedulable.is_none() && !is_marked, "the node is marked: {spec:?}");
    ensure!(pod_on(world, &node).await? == pod, "the pod was evicted");
    ensure!(made(world, DETACH) == 0 && made(world, COMPLETE) == 0, "{:?}", world.moto.calls());
    Ok(())
}

async fn tagged_is_emptied(world: &World, queue: &str) -> Result<()> {
    let (node, machine) = victim(world).await?;
    // What was told of the machine before is remembered for a minute, so it is the other one's turn.
    let other = pods(world).await?.iter().filter_map(node_of).find(|name| *name != node);
    let node = other.context("all pods are on one node")?;
    let machine = world.moto.group(GROUP.name).await?.1.into_iter().find(|other| *other != machine);
    let machine = machine.context("the group has one machine")?;
    let tag = ("Tag.1.Key", "aws-node-termination-handler/managed");
    let tags = [("ResourceId.1", machine.as_str()), tag, ("Tag.1.Value", "")];
    world.moto.ask("ec2", "CreateTags", &tags).await?;
    world.moto.forget_calls();
    world.moto.end_unwell(GROUP.name, &machine);
    world.moto.send(queue, &hook(&machine)).await?;
    wait::until("the node to be empty and out of service", PATIENCE, || async {
        let taints = node_named(world, &node).await?.spec.context("no spec")?.taints.unwrap_or_default();
        let is_out = |taint: &Taint| taint.key == "node.kubernetes.io/out-of-service";
        let taint = taints.iter().find(|taint| is_out(taint)).context("the node is not out of service")?;
        ensure!(taint.value.as_deref() == Some("nodeshutdown") && taint.effect == "NoExecute", "{taint:?}");
        ensure!(pod_on(world, &node).await.is_err(), "a pod is on {node}");
        Ok(())
    })
    .await?;
    wait::throughout("the machine is not let go at once", Duration::from_secs(5), || async {
        ensure!(made(world, COMPLETE) == 0, "it was let go");
        Ok(())
    })
    .await?;
    gone(world, &machine, PATIENCE).await?;
    ensure!(made(world, COMPLETE) == 1, "let go {} times", made(world, COMPLETE));
    serves(world, "after the group replaced a machine").await?;
    settled(world, queue).await?;
    let events = world.kubectl("get events -A -o yaml", "").await?;
    ensure!(events.contains("team: web"), "no event has the annotation:\n{events}");
    Ok(())
}

/// What the group replaces by itself is asked of nobody; the hook is kept waiting as long as a budget keeps a pod.
async fn group_replaces(world: &World, queue: &str) -> Result<()> {
    let (node, machine) = victim(world).await?;
    let pod = pod_on(world, &node).await?;
    world.kubectl("apply -f -", BUDGET).await?;
    world.moto.forget_calls();
    world.moto.end_unwell(GROUP.name, &machine);
    world.moto.send(queue, &hook(&machine)).await?;
    wait::until("the hook to be kept waiting", PATIENCE, || async {
        ensure!(made(world, HEARTBEAT) >= 2, "{} heartbeats", made(world, HEARTBEAT));
        Ok(())
    })
    .await?;
    let marked = node_named(world, &node).await?.spec.context("no spec")?;
    let taints: Vec<_> = marked.taints.iter().flatten().map(|taint| taint.key.as_str()).collect();
    ensure!(taints.contains(&"aws-node-termination-handler/asg-lifecycle-termination"), "{taints:?}");
    ensure!(marked.unschedulable == Some(true), "the node is not cordoned");
    ensure!(pod_on(world, &node).await? == pod, "the pod went although its budget keeps it");
    ensure!(made(world, COMPLETE) == 0, "the machine was let go with a pod on it");
    ensure!(world.moto.messages(queue).await? == 1, "the notice is gone before it is dealt with");

    world.kubectl("delete poddisruptionbudget web --namespace=default", "").await?;
    gone(world, &machine, PATIENCE).await?;
    serves(world, "after the group replaced a machine").await?;
    settled(world, queue).await?;
    ensure!(made(world, COMPLETE) == 1, "let go {} times", made(world, COMPLETE));
    ensure!(made(world, SET_SIZE) == 0, "a machine was asked for that the group gets by itself");
    let events = world.kubectl("get events -A", "").await?;
    for reason in ["ASGLifecycle", "CordonAndDrain"] {
        ensure!(events.contains(reason), "no event {reason}:\n{events}");
    }
    Ok(())
}

/// A group that was made smaller gets no other machine: one is asked for at once, for the pod.
async fn group_shrinks(world: &World, queue: &str) -> Result<()> {
    let (_, machine) = victim(world).await?;
    world.moto.forget_calls();
    world.moto.shrink(&machine).await?;
    world.moto.send(queue, &hook(&machine)).await?;
    wait::until("a machine to be asked for", AT_ONCE, || async {
        ensure!(made(world, SET_SIZE) == 1, "asked for {} times", made(world, SET_SIZE));
        Ok(())
    })
    .await?;
    gone(world, &machine, PATIENCE).await?;
    serves(world, "after the group was made smaller").await?;
    settled(world, queue).await?;
    ensure!(made(world, SET_SIZE) == 1, "asked for {} times", made(world, SET_SIZE));
    Ok(())
}

/// The group gets another machine when the notice comes, not when it misses the one that is taken.
async fn spot_is_taken_back(world: &World, queue: &str) -> Result<()> {
    let (node, machine) = victim(world).await?;
    world.moto.forget_calls();
    world.moto.send(queue, &of_ec2("EC2 Spot Instance Interruption Warning", &machine)).await?;
    wait::until("the pod to move, with the machine still there", AT_ONCE, || async {
        ensure!(pod_on(world, &node).await.is_err(), "a pod is on {node}");
        ensure!(world.running("web").await? == 2, "a pod waits");
        Ok(())
    })
    .await?;
    world.moto.take_back(&machine).await?;
    gone(world, &machine, PATIENCE).await?;
    serves(world, "after a machine was taken back").await?;
    settled(world, queue).await?;
    ensure!(made(world, DETACH) == 1, "taken out {} times", made(world, DETACH));
    ensure!(made(world, SET_SIZE) == 0, "a machine was asked for that the group gets by itself");
    let events = world.kubectl("get events -A", "").await?;
    ensure!(events.contains("SpotInterruption"), "{events}");
    Ok(())
}

/// A group with Capacity Rebalancing launches another machine beyond its size, and ends this one when that one is well.
async fn group_rebalances(world: &World, queue: &str) -> Result<()> {
    let (node, machine) = victim(world).await?;
    world.moto.forget_calls();
    world.moto.send(queue, &of_ec2("EC2 Instance Rebalance Recommendation", &machine)).await?;
    wait::until("the pod to go", AT_ONCE, || async {
        ensure!(pod_on(world, &node).await.is_err(), "a pod is on {node}");
        Ok(())
    })
    .await?;
    wait::throughout("no machine is asked for beside the group's own", Duration::from_secs(3), || async {
        ensure!(made(world, SET_SIZE) == 0, "asked for {} times", made(world, SET_SIZE));
        Ok(())
    })
    .await?;
    world.moto.launch_beyond(GROUP.name).await?;
    serves(world, "with a machine beyond the group's size").await?;
    world.moto.end_beyond(GROUP.name, &machine);
    world.moto.send(queue, &hook(&machine)).await?;
    gone(world, &machine, PATIENCE).await?;
    settled(world, queue).await?;
    ensure!(made(world, SET_SIZE) == 0, "a machine was asked for that the group gets by itself");
    Ok(())
}

/// As EC2 tells EventBridge.
fn of_ec2(what: &str, machine: &str) -> String {
    let event = json!({
        "id": format!("{what} {machine}"), "source": "aws.ec2", "detail-type": what,
        "time": jiff::Timestamp::now().to_string(),
        "detail": {"instance-id": machine, "instance-action": "terminate"},
    });
    event.to_string()
}

/// As the hook tells EventBridge.
fn hook(machine: &str) -> String {
    let detail = json!({
        "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING", "AutoScalingGroupName": GROUP.name,
        "LifecycleHookName": "drain", "LifecycleActionToken": "token", "EC2InstanceId": machine,
    });
    let event: Value = json!({
        "id": format!("hook-{machine}"), "source": "aws.autoscaling",
        "detail-type": "EC2 Instance-terminate Lifecycle Action",
        "time": jiff::Timestamp::now().to_string(), "detail": detail,
    });
    event.to_string()
}

/// How often a call was made.
fn made(world: &World, call: &str) -> usize {
    world.moto.calls().iter().filter(|made| *made == call).count()
}

/// Both pods run, each on a node of its own.
async fn serves(world: &World, when: &str) -> Result<()> {
    wait::until(&format!("two pods on two nodes {when}"), PATIENCE, || async {
        let running = world.running("web").await?;
        let nodes: BTreeSet<_> = pods(world).await?.iter().filter_map(node_of).collect();
        ensure!(running == 2 && nodes.len() == 2, "{running} pods run on {nodes:?}");
        Ok(())
    })
    .await
}

/// The notice is dealt with, and the group has as many machines as before.
async fn settled(world: &World, queue: &str) -> Result<()> {
    wait::until("the notice to be deleted, and a group of two machines", PATIENCE, || async {
        let (messages, (size, machines)) =
            (world.moto.messages(queue).await?, world.moto.group(GROUP.name).await?);
        ensure!(messages == 0 && size == 2, "{messages} messages, a size of {size}");
        ensure!(machines.len() == 2, "{machines:?}");
        let nodes = aws_nodes(world).await?.len();
        ensure!(nodes == 2, "{nodes} nodes");
        Ok(())
    })
    .await
}

/// A node with a pod, and its machine.
async fn victim(world: &World) -> Result<(String, String)> {
    let pods = pods(world).await?;
    let name = pods.iter().find_map(node_of).context("no pod has a node")?;
    let node = node_named(world, &name).await?;
    let id = node.spec.and_then(|spec| spec.provider_id).context("no provider id")?;
    Ok((name, id.rsplit('/').next().unwrap_or_default().to_owned()))
}

async fn gone(world: &World, machine: &str, patience: Duration) -> Result<()> {
    wait::until(&format!("{machine} to be gone"), patience, || async {
        let nodes = aws_nodes(world).await?;
        let ids: Vec<_> =
            nodes.iter().filter_map(|node| node.spec.as_ref()?.provider_id.as_deref()).collect();
        ensure!(ids.iter().all(|id| !id.ends_with(machine)), "it is a node still");
        Ok(())
    })
    .await
}

async fn node_named(world: &World, name: &str) -> Result<Node> {
    Ok(Api::<Node>::all(world.client()).get(name).await?)
}

async fn pods(world: &World) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(world.client(), "default");
    Ok(pods.list(&ListParams::default().labels("app=web")).await?.items)
}

fn node_of(pod: &Pod) -> Option<String> {
    pod.spec.as_ref()?.node_name.clone()
}

/// The uid of the pod on a node.
async fn pod_on(world: &World, node: &str) -> Result<Option<String>> {
    let pods = pods(world).await?;
    let pod = pods.iter().find(|pod| node_of(pod).as_deref() == Some(node));
    Ok(pod.with_context(|| format!("no pod on {node}"))?.uid())
}
