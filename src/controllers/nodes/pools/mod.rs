//! Act: node pools. NodeClaims are made for pods that wait, become machines and nodes, and go when nothing needs them.
//!
//! Karpenter's controllers, one file each; what a claim goes through in its life is done by one task a claim
//! ([`claims`]), what is decided over all of them by loops. The API server is the memory: a restart forgets no machine,
//! and asks for none twice.

mod claim;
mod claims;
mod classes;
mod consistency;
mod consolidatable;
mod disrupt;
mod drift;
pub mod explain;
mod fixed;
mod garbage;
pub mod gauges;
mod interruption;
mod lifecycle;
pub mod metrics;
mod nominations;
mod observe;
mod overlays;
mod pool;
mod provision;
mod registration;
mod rehearsal;
mod repair;
mod startups;
mod termination;
mod transitions;
mod view;
mod write;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Api, Client, Resource, ResourceExt, api::DeleteParams, api::Preconditions};
use parking_lot::Mutex;
use tandem_core::{
    api::karpenter::{AWSNodeTemplate, NodeClaim, NodeClassReference, NodePool, Provisioner},
    nodes::{
        pools::{
            budgets::Reason,
            node_claim::pool_of,
            pods::moves,
            provisioner::{ProvisionerError, Translation, translate},
            sold_out::SoldOut,
        },
        told::Learned,
    },
    pods::reasons::Event,
    scheduling::{Node, Pod},
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    cli::pools::PoolArgs,
    cloud::pools::{PoolProvider, measured::as_controller},
    cluster::{
        cache::{Cache, watch_cluster},
        conditions,
        world::World,
    },
    controllers::nodes::{buffer::Buffers, demand::Demand},
    dry_run::Recorder,
    telemetry::events::Events,
};
pub use tandem_core::nodes::pools::names;

use metrics::Metrics;
use nominations::Nominations;
use overlays::Overlays;
use registration::Registrations;
use rehearsal::Rehearsal;
use startups::Startups;
use view::Pool;

/// After a failed call to the API server, before the next try.
const RETRY: Duration = Duration::from_secs(1);

/// What node pools need.
pub struct Config {
    /// The API client.
    pub client: Client,
    /// Pods, nodes and DaemonSets.
    pub world: Arc<World>,
    /// Pods that are about to be made.
    pub demand: Option<Arc<Demand>>,
    /// Room that is kept (gate `CapacityBuffer`).
    pub buffers: Option<Arc<Buffers>>,
    /// The provider of machines.
    pub provider: Arc<dyn PoolProvider>,
    /// Writes events.
    pub events: Events,
    /// Whether this replica acts.
    pub leading: watch::Receiver<bool>,
    /// What the flags say.
    pub settings: PoolArgs,
    /// Where decisions go of which nothing is to come.
    pub recorder: Option<Arc<Recorder>>,
}

/// Names of nodes by their provider ids.
type NodeNames = HashMap<Arc<str>, Arc<str>>;

/// What all controllers of node pools share.
#[expect(clippy::struct_field_names, reason = "NodePools are pools")]
pub struct Pools {
    client: Client,
    world: Arc<World>,
    demand: Option<Arc<Demand>>,
    buffers: Option<Arc<Buffers>>,
    provider: Arc<dyn PoolProvider>,
    events: Events,
    leading: watch::Receiver<bool>,
    settings: PoolArgs,
    node_pools: Arc<Cache<NodePool>>,
    provisioners: Arc<Cache<Provisioner>>,
    templates: Arc<Cache<AWSNodeTemplate>>,
    claims: Arc<Cache<NodeClaim>>,
    /// With the gate `NodeOverlay`.
    overlays: Option<Overlays>,
    /// Names of nodes by their provider ids, of this version of the nodes.
    names_of_nodes: Mutex<(u64, NodeNames)>,
    sold_out: Mutex<SoldOut>,
    /// What nodes told of themselves.
    told: Mutex<Learned>,
    nominations: Nominations,
    registrations: Registrations,
    startups: Startups,
    /// Claims, by name, that are deleted as soon as their replacements are ready.
    leaving: Mutex<BTreeSet<Arc<str>>>,
    /// Held while claims are replaced, so that nobody counts those of a static pool in between.
    replacing: tokio::sync::Mutex<()>,
    /// In a dry run.
    rehearsal: Option<Rehearsal>,
    /// What they have done, for `/metrics`.
    pub metrics: Metrics,
}

/// Names of NodeClaims that came, changed or went.
pub type ClaimChanges = mpsc::UnboundedReceiver<String>;

impl Pools {
    /// Starts the watches.
    pub fn start(config: Config) -> (Arc<Self>, ClaimChanges) {
        let Config { client, world, demand, buffers, provider, events, leading, settings, recorder } = config;
        let (changed_claim, claim_changes) = mpsc::unbounded_channel();
        let count = world.changes.clone();
        let changed = move || count.send_modify(|count| *count += 1);
        let on = |changed: &(dyn Fn() + Send + Sync)| changed();
        let (pool, provisioner, template, claim, overlay) =
            (changed.clone(), changed.clone(), changed.clone(), changed.clone(), changed);
        let overlaid = settings.feature_gates.is_on(overlays::GATE);
        let pools = Self {
            node_pools: watch_cluster::<NodePool>(&client, move |_, _| on(&pool)),
            provisioners: watch_cluster::<Provisioner>(&client, move |_, _| on(&provisioner)),
            templates: watch_cluster::<AWSNodeTemplate>(&client, move |_, _| on(&template)),
            claims: watch_cluster::<NodeClaim>(&client, move |key, _| {
                // The receiver lives as long as the process.
                drop(changed_claim.send(key.name));
                claim();
            }),
            overlays: overlaid.then(|| Overlays::start(&client, move || on(&overlay))),
            names_of_nodes: Mutex::default(),
            metrics: Metrics::default(),
            sold_out: Mutex::default(),
            told: Mutex::default(),
            nominations: Nominations::default(),
            registrations: Registrations::default(),
            startups: Startups::default(),
            leaving: Mutex::default(),
            replacing: tokio::sync::Mutex::default(),
            rehearsal: recorder.map(Rehearsal::new),
            client,
            world,
            demand,
            buffers,
            provider,
            events,
            leading,
            settings,
        };
        (Arc::new(pools), claim_changes)
    }

    async fn synced(&self) {
        tokio::join!(
            self.node_pools.synced(),
            self.provisioners.synced(),
            self.templates.synced(),
            self.claims.synced(),
            self.world.synced(),
        );
        if let Some(overlays) = &self.overlays {
            overlays.synced().await;
        }
        if let Some(buffers) = &self.buffers {
            buffers.synced().await;
        }
    }

    /// Whether this replica acts.
    fn leads(&self) -> bool {
        *self.leading.borrow()
    }

    /// Every pool that this provider serves, by name: NodePools, and Provisioners of which no NodePool has the name.
    fn pools(&self) -> Vec<Arc<Pool>> {
        let mut pools: Vec<_> = self.node_pools.all().iter().map(|pool| Pool::of_node_pool(pool)).collect();
        for provisioner in self.provisioners.all() {
            if self.node_pools.get("", &provisioner.name_any()).is_none()
                && let Ok(translation) = self.translate(&provisioner)
            {
                pools.push(Pool::of_provisioner(&provisioner, translation));
            }
        }
        pools.retain(|pool| self.serves(pool));
        pools.sort_by(|left, right| left.name.cmp(&right.name));
        pools.into_iter().map(Arc::new).collect()
    }

    /// A Provisioner as a NodePool. Where its class means nothing, neither do labels that only such machines have.
    fn translate(&self, provisioner: &Provisioner) -> Result<Translation, ProvisionerError> {
        let template = |name: &str| self.templates.get("", name).map(|template| (*template).clone());
        let mut translation = translate(provisioner, template)?;
        if !self.knows(&translation.pool.spec.template.spec.node_class_ref) {
            translation.without_labels_of_class();
        }
        Ok(translation)
    }

    fn serves(&self, pool: &Pool) -> bool {
        pool.class.inline.is_some() || self.knows(&pool.class.reference)
    }

    /// Whether the provider knows node classes of this kind.
    fn knows(&self, class: &NodeClassReference) -> bool {
        self.provider.kinds().iter().any(|it| it.group == class.group && it.kind == class.kind)
    }

    fn pool(&self, name: &str) -> Option<Arc<Pool>> {
        self.pools().into_iter().find(|pool| pool.name == name)
    }

    /// The claims of a pool, or all; ordered by name.
    fn claims_of(&self, pool: Option<&str>) -> Vec<Arc<NodeClaim>> {
        let mut claims = self.claims.list("");
        claims.retain(|claim| pool.is_none_or(|pool| pool_of(claim) == Some(pool)));
        claims
    }

    /// The node that a claim's machine has become.
    fn node_of(&self, claim: &NodeClaim) -> Option<Arc<Node>> {
        let status = claim.status.as_ref()?;
        let provider_id = status.provider_id.as_deref().filter(|id| !id.is_empty())?;
        let named = status.node_name.as_deref().and_then(|name| self.world.nodes.get("", name));
        named.filter(|node| &*node.provider_id == provider_id).or_else(|| {
            let name = self.node_named(provider_id)?;
            self.world.nodes.get("", &name)
        })
    }

    /// The name of the node with this provider id.
    fn node_named(&self, provider_id: &str) -> Option<Arc<str>> {
        let version = self.world.nodes.version();
        let mut index = self.names_of_nodes.lock();
        if index.0 != version {
            let nodes = self.world.nodes.all();
            let names = nodes.iter().map(|node| (node.provider_id.clone(), node.name.clone()));
            *index = (version, names.collect());
        }
        index.1.get(provider_id).cloned()
    }

    /// The pods that are bound to a node and have not ended.
    fn pods_on(&self, node: &str) -> Vec<Arc<Pod>> {
        let on_it = |pod: &Arc<Pod>| pod.node.as_deref() == Some(node) && !pod.is_terminal();
        self.world.pods.all().into_iter().filter(on_it).collect()
    }

    fn claim_api(&self) -> Api<NodeClaim> {
        Api::all(self.client.clone())
    }

    /// Starts the end of a claim; its finalizer does the rest.
    async fn delete_claim(&self, claim: &NodeClaim, reason: &'static str) -> Result<(), kube::Error> {
        let name = claim.name_any();
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: claim.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        match self.claim_api().delete(&name, &params).await {
            Ok(_) => {
                tracing::info!(claim = name, reason, "NodeClaim is deleted");
                self.count_disruption(claim, reason);
                Ok(())
            }
            // Gone, or another of the same name by now.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Counts the deletion of a claim, before its pods move.
    fn count_disruption(&self, claim: &NodeClaim, reason: &'static str) {
        let consolidates = [Reason::Empty, Reason::Underutilized].iter().any(|it| it.label() == reason);
        let pool = pool_of(claim).filter(|_| consolidates).and_then(|name| self.pool(name));
        let policy = pool.map(|pool| pool.spec.disruption.policy());
        let node = claim.status.as_ref().and_then(|status| status.node_name.as_deref());
        let moving = |node: &str| self.pods_on(node).iter().filter(|pod| moves(pod)).count();
        self.metrics.disrupted(claim, reason, policy, node.map(moving));
    }

    /// Publishes an event about a cluster-scoped object.
    async fn tell<K: Resource<DynamicType = ()>>(
        &self,
        about: &K,
        type_: &'static str,
        reason: &'static str,
        message: String,
    ) {
        self.events.publish(&about.object_ref(&()), &Event { type_, reason, message }).await;
    }

    /// Publishes an event about a pod.
    async fn tell_pod(&self, pod: &Pod, type_: &'static str, reason: &'static str, message: String) {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.shape.namespace.to_string()),
            name: Some(pod.name.to_string()),
            uid: Some(pod.uid.to_string()),
            ..ObjectReference::default()
        };
        self.events.publish(&about, &Event { type_, reason, message }).await;
    }

    /// Waits for a change, at most `most`; and then `calm`, so that what comes together is looked at once.
    async fn changed(&self, changes: &mut watch::Receiver<u64>, calm: Duration, most: Duration) {
        // Its sender lives as long as self; the time that ran out is as good as a change.
        let _ = tokio::time::timeout(most, changes.changed()).await;
        tokio::time::sleep(calm).await;
        changes.mark_unchanged();
    }
}

/// Runs every controller, in a dry run those that decide; never returns.
pub async fn run(pools: Arc<Pools>, claim_changes: ClaimChanges) {
    let started = Instant::now();
    pools.synced().await;
    tracing::info!(
        provider = pools.provider.name(),
        pools = pools.pools().len(),
        claims = pools.claims.len(),
        seconds = started.elapsed().as_secs_f64(),
        "node pools are watched"
    );
    if let Some(rehearsal) = &pools.rehearsal {
        tokio::join!(
            provision::run(pools.clone()),
            disrupt::run(pools.clone()),
            fixed::run(pools.clone()),
            rehearsal::watch(&pools, rehearsal),
        );
        return;
    }
    // What calls the provider does so under the names of Karpenter's controllers; claims do in tasks of their own.
    tokio::join!(
        claims::run(pools.clone(), claim_changes),
        as_controller("nodeclass", classes::run(pools.clone())),
        as_controller("nodepool.readiness", pool::run(pools.clone())),
        as_controller("nodeoverlay", overlays::run(pools.clone())),
        as_controller("provisioner", provision::run(pools.clone())),
        consolidatable::run(pools.clone()),
        consistency::run(pools.clone()),
        as_controller("nodeclaim.disruption", drift::run(pools.clone())),
        as_controller("disruption", disrupt::run(pools.clone())),
        as_controller("nodeclaim.garbagecollection", garbage::run(pools.clone())),
        repair::run(pools.clone()),
        as_controller("static.provisioning", fixed::run(pools.clone())),
        startups::run(pools.clone()),
        transitions::run(pools.clone()),
    );
}
