//! The process dies at every step, the API server goes away, AWS refuses: what is there in the end is what is needed, no more was
//! asked for on the way, and the budget held all the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use harness::{moto::Fault, wait};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    ResourceExt,
    api::{Api, ListParams},
};
use tokio::task::JoinHandle;

use crate::{groups, pools, world::World};

/// A new leader waits for the Lease of the one that died.
const SHORT_LEASE: [&str; 3] = [
    "--leader-election-lease-duration=3s",
    "--leader-election-renew-deadline=2s",
    "--leader-election-retry-period=500ms",
];
/// Several deaths, each with a Lease to wait for, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);
/// How often somebody looks whether a promise is kept.
const LOOK: Duration = Duration::from_millis(100);
/// Longer than a pass takes that finds nothing to do.
const CALM: Duration = Duration::from_secs(6);

/// One pod of the app may be missing at a time.
const BUDGET: &str = "
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web, namespace: default}
spec: {maxUnavailable: 1, selector: {matchLabels: {app: web}}}
";

/// Node groups.
pub(crate) async fn of_groups(world: Arc<World>) -> Result<()> {
    // Nodes are worth a drain however full they are.
    let flags = [
        &groups::AWS[..],
        &groups::HASTY,
        &SHORT_LEASE,
        &["--scale-down-utilization-threshold=0.95", "--initial-node-group-backoff-duration=3s"],
    ]
    .concat();
    world.group(&groups::GROUP).await?;
    let most = Most::watch(&world);
    world.kubectl("apply -f -", &groups::deployment("web", 1, "450m")).await?;
    world.kubectl("apply -f -", BUDGET).await?;
    world.start_tandem(&flags).await?;

    // It dies right after it asked.
    world.kubectl("scale --replicas=8 deployment/web", "").await?;
    wait::until("more nodes to be asked for", PATIENCE, || async {
        ensure!(world.moto.group("workers").await?.0 > 1, "none is asked for");
        Ok(())
    })
    .await?;
    world.kill_tandem().await?;
    world.start_tandem(&flags).await?;
    running(&world, 8).await?;
    // AWS refuses, and the API server is gone while it recovers.
    world.moto.fail(Fault {
        action: "autoscaling:SetDesiredCapacity",
        times: 6,
        status: 500,
        code: "InternalFailure",
        message: "An internal error occurred",
    });
    world.kubectl("scale --replicas=16 deployment/web", "").await?;
    wait::until("the refusal to be told", PATIENCE, || world.logged("InternalFailure")).await?;
    world.control_plane.kill_api_server().await?;
    tokio::time::sleep(CALM).await;
    world.control_plane.start_api_server().await?;
    running(&world, 16).await?;
    tokio::time::sleep(CALM).await;
    // Four pods fit a node, with kube-proxy.
    ensure!(most.seen() == 4, "{} nodes were asked for at once, 4 are needed", most.seen());

    halve(&world).await?;
    world.kubectl("scale --replicas=8 deployment/web", "").await?;
    running(&world, 8).await?;
    let before = uids(&world).await?;
    let budget = Budget::watch(&world, 7);
    for _ in 0..2 {
        wait::until("a node to be on its way out", PATIENCE, || async {
            ensure!(marked(&world).await? > 0, "none is marked");
            Ok(())
        })
        .await?;
        world.kill_tandem().await?;
        world.start_tandem(&flags).await?;
    }
    wait::until("two nodes to be left, and no mark", PATIENCE, || async {
        let (desired, machines) = world.moto.group("workers").await?;
        let (nodes, marked) = (groups::aws_nodes(&world).await?.len(), marked(&world).await?);
        ensure!(
            (desired, machines.len(), nodes, marked) == (2, 2, 2, 0),
            "{desired} {machines:?} {nodes} {marked}"
        );
        Ok(())
    })
    .await?;
    running(&world, 8).await?;
    ensure!(uids(&world).await? != before, "no pod had to move");
    budget.held()
}

/// Node pools on EC2.
pub(crate) async fn of_pools(world: Arc<World>) -> Result<()> {
    let flags = [pools::AWS_FLAGS, &SHORT_LEASE[..]].concat();
    world.moto.create_network(&pools::ZONES, &[pools::NETWORK_TAG]).await?;
    world.moto.create_role("chris-nodes").await?;
    pools::install(&world).await?;
    world.start_tandem(&flags).await?;
    // What is left over goes soon, and pods move together.
    let pool = pools::NODE_POOL
        .replace("WhenEmpty, consolidateAfter: 30s", "WhenEmptyOrUnderutilized, consolidateAfter: 2s");
    world.kubectl("apply -f -", &pool).await?;
    let nginx = pools::NGINX.replace("nginx", "web").replace("replicas: 1", "replicas: 6");
    let spread = "      affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [
        {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: web}}}]}}
";
    let apart = nginx.replace("      containers:", &format!("{spread}      containers:"));

    // It dies whenever a machine has been made: each pod needs one of its own.
    world.kubectl("apply -f -", &apart).await?;
    for least in [1, 3, 5] {
        wait::until(&format!("{least} machines"), PATIENCE, || async {
            let machines = machines(&world).await?;
            ensure!(machines >= least, "{machines}");
            Ok(())
        })
        .await?;
        world.kill_tandem().await?;
        world.start_tandem(&flags).await?;
    }
    running(&world, 6).await?;
    tokio::time::sleep(CALM).await;
    let made = (machines(&world).await?, claims(&world).await?);
    ensure!(made == (6, 6), "{made:?} machines and claims for six pods");

    // All of them fit fewer nodes now; it dies while they move, and the API server goes away.
    world.kubectl("apply -f -", BUDGET).await?;
    let before = names(&world).await?;
    world.kubectl("delete deployment web --cascade=orphan", "").await?;
    world.kubectl("apply -f -", &nginx).await?;
    wait::until("the pods to have been replaced", PATIENCE, || async {
        let pods = pods(&world).await?;
        let free = |pod: &&Pod| pod.spec.as_ref().is_some_and(|spec| spec.affinity.is_none());
        ensure!(pods.iter().filter(free).count() == 6 && pods.len() == 6, "{}", pods.len());
        Ok(())
    })
    .await?;
    running(&world, 6).await?;
    let budget = Budget::watch(&world, 5);
    wait::until("a node to be on its way out", PATIENCE, || async {
        ensure!(marked(&world).await? > 0 || names(&world).await? != before, "none is marked");
        Ok(())
    })
    .await?;
    world.kill_tandem().await?;
    world.control_plane.kill_api_server().await?;
    world.control_plane.start_api_server().await?;
    world.start_tandem(&flags).await?;
    wait::until("fewer nodes, and no mark", PATIENCE, || async {
        let (made, claims, marked) = (machines(&world).await?, claims(&world).await?, marked(&world).await?);
        ensure!(
            made < 6 && made == claims && marked == 0,
            "{made} machines, {claims} claims, {marked} marked"
        );
        Ok(())
    })
    .await?;
    running(&world, 6).await?;
    budget.held()
}

/// Waits until so many pods run and no other is there.
async fn running(world: &World, count: usize) -> Result<()> {
    wait::until(&format!("{count} pods to run"), PATIENCE, || async {
        let running = world.running("web").await?;
        ensure!(running == count, "{running} run");
        Ok(())
    })
    .await
}

async fn pods(world: &World) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(world.client(), "default");
    Ok(pods.list(&ListParams::default().labels("app=web")).await?.items)
}

/// The pods that there are.
async fn uids(world: &World) -> Result<BTreeSet<String>> {
    Ok(pods(world).await?.into_iter().filter_map(|pod| pod.metadata.uid).collect())
}

/// Half of each node's pods go first: no node is empty then, some pods have to move.
async fn halve(world: &World) -> Result<()> {
    let mut by_node: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in pods(world).await? {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        by_node.entry(node).or_default().push(pod.name_any());
    }
    for names in by_node.values() {
        let half = names[..names.len() / 2].join(" ");
        let cost = "controller.kubernetes.io/pod-deletion-cost=-1";
        world.kubectl(&format!("annotate pod {half} {cost}"), "").await?;
    }
    Ok(())
}

async fn names(world: &World) -> Result<Vec<String>> {
    let mut names: Vec<_> = pools::nodes(world, "karpenter.sh/nodepool=default").await?;
    names.sort_by_key(ResourceExt::name_any);
    Ok(names.iter().map(ResourceExt::name_any).collect())
}

async fn claims(world: &World) -> Result<usize> {
    Ok(world.kubectl("get nodeclaims --output=name", "").await?.lines().count())
}

/// Machines that run.
async fn machines(world: &World) -> Result<usize> {
    let running = [("Filter.1.Name", "instance-state-name"), ("Filter.1.Value.1", "running")];
    let answer = world.moto.ask("ec2", "DescribeInstances", &running).await?;
    Ok(answer.matches("<instanceId>").count())
}

/// How many nodes carry a mark of their end.
async fn marked(world: &World) -> Result<usize> {
    let nodes: Api<Node> = Api::all(world.client());
    let marks = ["ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted"];
    let marked = |node: &&Node| {
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        taints.map(|taint| taint.key.as_str()).any(|key| marks.contains(&key))
    };
    Ok(nodes.list(&ListParams::default()).await?.iter().filter(marked).count())
}

/// The largest size that the group was asked to have.
struct Most(Arc<AtomicU32>, JoinHandle<()>);

impl Most {
    fn watch(world: &Arc<World>) -> Self {
        let most = Arc::new(AtomicU32::new(0));
        let (seen, world) = (most.clone(), world.clone());
        let looking = tokio::spawn(async move {
            loop {
                if let Ok((desired, _)) = world.moto.group("workers").await {
                    seen.fetch_max(desired, Ordering::SeqCst);
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        Self(most, looking)
    }

    fn seen(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Most {
    fn drop(&mut self) {
        self.1.abort();
    }
}

/// The fewest pods that ran at any time.
struct Budget {
    least: u32,
    seen: Arc<AtomicU32>,
    looking: JoinHandle<()>,
}

impl Budget {
    fn watch(world: &Arc<World>, least: u32) -> Self {
        let fewest = Arc::new(AtomicU32::new(u32::MAX));
        let (seen, world) = (fewest.clone(), world.clone());
        let looking = tokio::spawn(async move {
            loop {
                // While the API server is gone nobody can evict, either.
                if let Ok(running) = world.running("web").await {
                    seen.fetch_min(u32::try_from(running).unwrap_or(u32::MAX), Ordering::SeqCst);
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        Self { least, seen: fewest, looking }
    }

    fn held(self) -> Result<()> {
        self.looking.abort();
        let fewest = self.seen.load(Ordering::SeqCst);
        ensure!(fewest != u32::MAX, "nobody looked");
        ensure!(fewest >= self.least, "{fewest} pods ran at a time, the budget demands {}", self.least);
        Ok(())
    }
}
