//! The real kube-scheduler is the judge of placement: `cargo test --workspace --test scheduler`.
//!
//! Worlds are drawn from a seed. They have storage too, and somebody who makes volumes as drivers would. The scheduler places one pod after another; where it puts a pod, the core must see room, and
//! where it finds no room, the core must see none on any node. `TANDEM_WORLDS` asks for more worlds, `TANDEM_SEED` for others.
#![allow(clippy::unwrap_used, reason = "a test says best where it stands by panicking there")]

mod devices;
mod generate;
mod profiles;
mod storage;

use std::{env, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use harness::{Components, ControlPlane, Network, Options, wait};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount, Taint};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
};
use tandem_core::{
    draws::Draws,
    scheduling::{self as core, ClassId, NodeId, Snapshot, Surroundings},
};

use tokio::task::JoinSet;

use devices::Ways;
use generate::{NAMESPACES, Worlds};
use storage::Storage;

/// Pods that are tried in a world.
const PODS: usize = 24;
/// Worlds, if the environment says nothing: some hundreds of pods in less than two minutes.
const WORLDS: u64 = 20;
/// The seed, if the environment says nothing.
const SEED: u64 = 201;
/// For what takes a second on an idle machine; this one may be busy.
const SOON: Duration = Duration::from_mins(1);
/// The scheduler hears of a change a moment later than who asks; what it says too early it takes back.
const SECOND_THOUGHTS: Duration = Duration::from_secs(3);
/// What pods can ask of kubelets that not every one can do.
const FEATURE_GATES: &str = "UserNamespacesHostNetworkSupport=true,VolumeBindMountOptions=true";
/// Between two looks at a pod that the scheduler has not decided upon.
const LOOK: Duration = Duration::from_millis(10);

/// A control plane whose scheduler is not configured.
const PLAIN: Options = Options { feature_gates: FEATURE_GATES, ..Options::new(Network::Loopback) };

/// Reasons that have to be met, or nothing is proven of them.
const RARE: [&str; 6] = [
    "did not have enough free storage",
    "CSI driver is not installed",
    "exceed max volume count",
    "didn't find available persistent volumes to bind",
    "didn't match Pod's required features",
    "had no available disk",
];

/// What the scheduler says of a pod.
#[derive(Debug)]
enum Verdict {
    Node(String),
    Unschedulable(String),
    /// It cannot even be tried.
    Failed(String),
    Gated,
}

/// A real scheduler.
struct Judge {
    client: Client,
    /// Namespaces, which every world has.
    surroundings: Surroundings,
    /// Make volumes, and attach devices.
    _drivers: JoinSet<()>,
    _control_plane: ControlPlane,
}

/// An object as it was drawn, and as the API server has it.
#[derive(Clone)]
struct Twin<T> {
    drawn: T,
    seen: T,
}

/// Nodes and the pods that run on them.
#[derive(Default)]
struct World {
    storage: Storage,
    nodes: Vec<Twin<Node>>,
    pods: Vec<Twin<Pod>>,
    /// Devices and claims of them, as they were before the pod that is judged.
    devices: Option<Arc<core::devices::Objects>>,
}

/// The first seed, and how many worlds are tried.
fn seeds() -> Result<(u64, u64)> {
    let number = |name: &str, default| match env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text} is no number")),
        Err(_) => Ok(default),
    };
    Ok((number("TANDEM_SEED", SEED)?, number("TANDEM_WORLDS", WORLDS)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_core_judges_as_the_real_scheduler_does() -> Result<()> {
    let (seed, worlds) = seeds()?;
    let judge = Judge::start(PLAIN).await?;
    let mut counts = Counts::default();
    for world in seed..seed + worlds {
        judge.try_world(world, &mut counts, None).await.with_context(|| format!("TANDEM_SEED={world}"))?;
    }
    counts.report()?;
    let rare = counts.rare;
    ensure!(rare.iter().all(|count| *count > 0), "these worlds never refuse for one of {RARE:?}: {rare:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_core_allocates_devices_as_the_real_scheduler_does() -> Result<()> {
    let (seed, worlds) = seeds()?;
    let judge = Judge::start(PLAIN).await?;
    judge.permit_admin_access().await?;
    let (mut counts, mut ways) = (Counts::default(), Ways::default());
    for world in seed..seed + worlds {
        let tried = judge.try_devices(world, &mut counts, &mut ways).await;
        tried.with_context(|| format!("TANDEM_SEED={world}"))?;
    }
    counts.report()?;
    let Ways { by_plugin, by_claim, by_rule, after_waiting } = ways;
    let all = [by_plugin, by_claim, by_rule, after_waiting];
    ensure!(all.iter().all(|count| *count > 0), "these worlds leave some way to devices out: {ways:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_core_judges_as_a_scheduler_that_is_configured_does() -> Result<()> {
    let (seed, worlds) = seeds()?;
    let scheduler_configuration = profiles::configuration();
    let controller_flags = profiles::CONTROLLER_FLAGS;
    let mut judge = Judge::start(Options { scheduler_configuration, controller_flags, ..PLAIN }).await?;
    let (mut counts, mut ways) = (Counts::default(), profiles::Ways::prepare(&mut judge).await?);
    for world in seed..seed + worlds {
        ways.next(&mut judge, world)?;
        let tried = judge.try_world(world, &mut counts, Some(&mut ways)).await;
        tried.with_context(|| format!("TANDEM_SEED={world}"))?;
    }
    counts.report()?;
    ways.report()
}

#[derive(Default)]
struct Counts {
    placed: u32,
    refused: u32,
    gated: u32,
    invalid: u32,
    /// How often a node was refused for one of [`RARE`].
    rare: [u32; RARE.len()],
}

impl Counts {
    fn report(&self) -> Result<()> {
        let Self { placed, refused, gated, invalid, .. } = *self;
        eprintln!("{placed} pods placed, {refused} refused, {gated} gated, {invalid} not valid");
        let tried = placed + refused + gated + invalid;
        ensure!(
            invalid * 5 < tried && placed * 4 > tried && refused * 10 > tried,
            "these worlds try too little"
        );
        Ok(())
    }
}

impl Judge {
    async fn start(options: Options) -> Result<Self> {
        let components = Components::find_or_build()?;
        let control_plane = ControlPlane::start(&components, options).await?;
        let client = control_plane.client();
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let mut surroundings = Surroundings::default();
        for (name, team) in NAMESPACES {
            let labels = team.map(|team| ("team".to_owned(), team.to_owned())).into_iter().collect();
            if team.is_some() {
                let metadata =
                    ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() };
                namespaces
                    .create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() })
                    .await?;
            }
            let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
            wait::until("ServiceAccount default", SOON, || async { Ok(accounts.get("default").await?) })
                .await?;
            let labels = namespaces.get(name).await?.labels().clone();
            surroundings.namespaces.insert(name.into(), labels);
        }
        let mut drivers = storage::start(&client).await?;
        drivers.spawn(devices::attach(client.clone()));
        let judge = Self { client, surroundings, _drivers: drivers, _control_plane: control_plane };
        judge.clear().await?;
        Ok(judge)
    }

    /// Lets the scheduler place the pods of a world; a disagreement is an error with the smallest world that shows it.
    ///
    /// `ways` says what the scheduler's configuration has to do with the pods.
    async fn try_world(
        &self,
        seed: u64,
        counts: &mut Counts,
        mut ways: Option<&mut profiles::Ways>,
    ) -> Result<()> {
        let mut draws = Worlds(Draws(seed));
        let prefix = format!("w{seed}");
        let nodes = draws.nodes(&prefix)?;
        let storage = draws.storage(&prefix, &nodes)?;
        let mut world = self.furnish(storage, nodes, Vec::new()).await?;
        for number in 0..PODS {
            let mut drawn = draws.pod(&format!("{prefix}-{number}"))?;
            if let Some(ways) = &ways {
                ways.dress(&mut draws, &mut drawn);
            }
            let surroundings = self.surroundings().await?;
            let Some(seen) = self.create(&drawn).await? else {
                counts.invalid += 1;
                continue;
            };
            let mut pod = Twin { drawn, seen };
            let (verdict, disagreement) = self.judge(&world, &surroundings, &pod.seen).await?;
            if let Some(disagreement) = disagreement {
                let smallest = self.shrink(world, &pod.drawn).await?;
                bail!("{disagreement}\n{}", smallest.text(&pod.drawn)?);
            }
            if let Some(ways) = &mut ways {
                let plain = Surroundings { profile: None, ..(*surroundings).clone() };
                ways.note(world.disagreement(&Arc::new(plain), &pod.seen, &verdict).is_some());
            }
            match verdict {
                Verdict::Node(node) => {
                    counts.placed += 1;
                    pod.seen = self.pods(&pod.seen).get(&pod.seen.name_any()).await?;
                    pod.drawn.spec.get_or_insert_default().node_name = Some(node);
                    world.pods.push(pod);
                    continue;
                }
                Verdict::Unschedulable(message) | Verdict::Failed(message) => {
                    counts.refused += 1;
                    let told =
                        RARE.iter().zip(&mut counts.rare).filter(|(reason, _)| message.contains(*reason));
                    told.for_each(|(_, count)| *count += 1);
                }
                Verdict::Gated => counts.gated += 1,
            }
            self.delete(&pod.seen).await?;
        }
        self.clear().await
    }

    /// What the scheduler reads beside pods and nodes, as it is now.
    async fn surroundings(&self) -> Result<Arc<Surroundings>> {
        let mut surroundings = self.surroundings.clone();
        storage::read(&self.client, &mut surroundings).await?;
        Ok(Arc::new(surroundings))
    }

    /// Makes storage, nodes, and pods that run on them.
    async fn furnish(&self, storage: Storage, nodes: Vec<Node>, pods: Vec<Pod>) -> Result<World> {
        storage.furnish(&self.client).await?;
        let api: Api<Node> = Api::all(self.client.clone());
        for node in &nodes {
            api.create(&PostParams::default(), node).await?;
        }
        let mut world = World { storage, ..World::default() };
        for drawn in nodes {
            let name = drawn.name_any();
            let cordoned = drawn.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
            // The node's controller takes the taint of the start away, and adds one to a node that is cordoned.
            let taints = taints(&drawn).count() + usize::from(cordoned);
            let seen = wait::until("the node's taints", SOON, || async {
                let node = api.get(&name).await?;
                let starts = self::taints(&node).any(|taint| taint.key == "node.kubernetes.io/not-ready");
                ensure!(self::taints(&node).count() == taints && !starts, "taints of {name}");
                Ok(node)
            });
            world.nodes.push(Twin { seen: seen.await?, drawn });
        }
        for drawn in pods {
            let seen = self.create(&drawn).await?.context("a pod that was valid before")?;
            world.pods.push(Twin { drawn, seen });
        }
        Ok(world)
    }

    /// Takes everything away.
    async fn clear(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let pods: Api<Pod> = Api::all(self.client.clone());
        let (now, all) = (DeleteParams::default().grace_period(0), ListParams::default());
        for (namespace, _) in NAMESPACES {
            Api::<Pod>::namespaced(self.client.clone(), namespace).delete_collection(&now, &all).await?;
        }
        wait::until("no pods", SOON, || async {
            ensure!(pods.list(&all).await?.items.is_empty());
            Ok(())
        })
        .await?;
        storage::clear(&self.client).await?;
        nodes.delete_collection(&now, &all).await?;
        wait::until("no nodes", SOON, || async {
            ensure!(nodes.list(&all).await?.items.is_empty());
            Ok(())
        })
        .await
    }

    fn pods(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default())
    }

    /// Creates a pod; `None` if the API server says that it is not valid.
    async fn create(&self, pod: &Pod) -> Result<Option<Pod>> {
        match self.pods(pod).create(&PostParams::default(), pod).await {
            Ok(pod) => Ok(Some(pod)),
            Err(kube::Error::Api(status)) if status.code == 422 => {
                eprintln!("{}", status.message);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn delete(&self, pod: &Pod) -> Result<()> {
        let (pods, name) = (self.pods(pod), pod.name_any());
        pods.delete(&name, &DeleteParams::default().grace_period(0)).await?;
        while pods.get_opt(&name).await?.is_some() {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// What the scheduler says of a pod that was created, and in what the core does not agree.
    async fn judge(
        &self,
        world: &World,
        surroundings: &Arc<Surroundings>,
        pod: &Pod,
    ) -> Result<(Verdict, Option<String>)> {
        let mut patience = SECOND_THOUGHTS;
        loop {
            let verdict = self.verdict(pod).await?;
            let disagreement = world.disagreement(surroundings, pod, &verdict);
            let may_change = matches!(verdict, Verdict::Unschedulable(_) | Verdict::Failed(_));
            let settled = !may_change || patience.is_zero();
            if disagreement.is_none() || settled {
                return Ok((verdict, disagreement));
            }
            patience = patience.saturating_sub(LOOK);
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn verdict(&self, pod: &Pod) -> Result<Verdict> {
        let (pods, name) = (self.pods(pod), pod.name_any());
        let started = std::time::Instant::now();
        while started.elapsed() < SOON {
            let pod = pods.get(&name).await?;
            if let Some(node) = pod.spec.and_then(|spec| spec.node_name) {
                return Ok(Verdict::Node(node));
            }
            let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
            let scheduled = conditions.into_iter().find(|condition| condition.type_ == "PodScheduled");
            match scheduled.as_ref().and_then(|condition| condition.reason.as_deref()) {
                Some("SchedulingGated") => return Ok(Verdict::Gated),
                Some(reason @ ("Unschedulable" | "SchedulerError")) => {
                    let verdict =
                        if reason == "Unschedulable" { Verdict::Unschedulable } else { Verdict::Failed };
                    let message = scheduled.as_ref().and_then(|condition| condition.message.clone());
                    return Ok(verdict(message.unwrap_or_default()));
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
        bail!("the scheduler says nothing of pod {name}")
    }

    /// Leaves out one pod or node after another, as long as scheduler and core still disagree.
    async fn shrink(&self, mut world: World, pod: &Pod) -> Result<World> {
        let mut at = 0;
        while at < world.pods.len() + world.nodes.len() {
            let Some((nodes, pods)) = world.without(at) else {
                at += 1;
                continue;
            };
            self.clear().await?;
            let smaller = self.furnish(world.storage.clone(), nodes, pods).await?;
            let surroundings = self.surroundings().await?;
            let asked = self.create(pod).await?.context("a pod that was valid before")?;
            let (_, disagreement) = self.judge(&smaller, &surroundings, &asked).await?;
            if disagreement.is_some() { world = smaller } else { at += 1 }
        }
        Ok(world)
    }
}

fn taints(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten())
}

impl World {
    /// What was drawn, without one pod, or without a node that runs none; `None` if that cannot be left out.
    fn without(&self, at: usize) -> Option<(Vec<Node>, Vec<Pod>)> {
        let mut pods: Vec<_> = self.pods.iter().map(|pod| pod.drawn.clone()).collect();
        let mut nodes: Vec<_> = self.nodes.iter().map(|node| node.drawn.clone()).collect();
        if at < pods.len() {
            pods.remove(at);
        } else {
            let node = nodes.remove(at - pods.len()).name_any();
            let runs =
                |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_ref() == Some(&node));
            if pods.iter().any(runs) {
                return None;
            }
        }
        Some((nodes, pods))
    }

    /// Nodes and pods as the core sees them, and the class of a pod that is asked about.
    fn view(&self, surroundings: &Arc<Surroundings>, pod: &Pod) -> (Snapshot, Vec<NodeId>, ClassId) {
        let devices = self.devices.clone();
        self.view_with(Surroundings { devices, ..(**surroundings).clone() }, pod)
    }

    fn view_with(&self, surroundings: Surroundings, pod: &Pod) -> (Snapshot, Vec<NodeId>, ClassId) {
        let read = |pod: &Pod| core::Pod::read(pod, Arc::new);
        let mut snapshot = Snapshot::new(Arc::new(surroundings));
        let nodes = self.nodes.iter().map(|node| self.storage.tell(core::Node::read(&node.seen)));
        let nodes: Vec<_> = nodes.map(|node| snapshot.add_node(&node)).collect();
        for bound in self.pods.iter().map(|pod| read(&pod.seen)) {
            let class = snapshot.class(&bound);
            let at = nodes.iter().find(|node| Some(snapshot.node(**node).name()) == bound.node.as_ref());
            snapshot.settle(&bound, class, *at.unwrap());
        }
        // Claims are judged as they were, and so is the pod.
        let mut asked = read(pod);
        for claim in &mut asked.device_claims {
            if let core::devices::PodClaim::Own { name, .. } = claim {
                *name = None;
            }
        }
        let class = snapshot.class(&asked);
        (snapshot, nodes, class)
    }

    /// In what the core judges otherwise.
    fn disagreement(&self, surroundings: &Arc<Surroundings>, pod: &Pod, verdict: &Verdict) -> Option<String> {
        let (snapshot, nodes, class) = self.view(surroundings, pod);
        let judged = |at: usize| snapshot.check(class, nodes[at]);
        match verdict {
            Verdict::Gated => (core::Pod::read(pod, Arc::new).scheduled != core::pod::Scheduled::Gated)
                .then(|| "the core does not know that the pod is gated".to_owned()),
            Verdict::Node(name) => {
                let at = self.nodes.iter().position(|node| node.seen.name_any() == *name)?;
                let reason = judged(at).err()?;
                Some(format!("the scheduler takes {name}, where the core sees: {reason}"))
            }
            // One node that cannot be judged ends the whole attempt.
            Verdict::Failed(message) => {
                let fails = |at| matches!(judged(at), Err(core::Reason::DeviceRequest(_)));
                let at = (0..nodes.len()).find(|at| judged(*at).is_ok());
                let at = at.filter(|_| !(0..nodes.len()).any(fails))?;
                let node = self.nodes[at].seen.name_any();
                Some(format!("the core takes {node}, where the scheduler fails: {message}"))
            }
            Verdict::Unschedulable(message) => {
                let at = (0..nodes.len()).find(|at| judged(*at).is_ok())?;
                let node = self.nodes[at].seen.name_any();
                Some(format!("the core takes {node}, where the scheduler says: {message}"))
            }
        }
    }

    /// What is in it, a line an object.
    fn text(&self, pod: &Pod) -> Result<String> {
        let mut lines = Vec::new();
        self.storage.text(&mut lines)?;
        for node in &self.nodes {
            lines.push(serde_json::to_string(&node.drawn)?);
        }
        for pod in self.pods.iter().map(|pod| &pod.drawn).chain([pod]) {
            lines.push(serde_json::to_string(pod)?);
        }
        Ok(lines.join("\n"))
    }
}
