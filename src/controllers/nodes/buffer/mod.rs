//! Capacity buffers: what each stands for, handed to the node loops as pods that nobody else sees, and told in its status.
//!
//! What a buffer refers to is read into [`Kept`]; a node loop takes the pods of all buffers along with those that are expected,
//! and says where they would be. What is decided in between is `tandem_core::nodes::buffer`.

mod source;
mod status;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as k8s;
use kube::{Api, Client, Resource as _, ResourceExt as _};
use parking_lot::Mutex;
use tandem_core::{
    api::autoscaling::{ACTIVE_CAPACITY, CapacityBuffer},
    nodes::buffer::{self, Allotment, Placement, Problem, Quota, Traits, allot},
    scheduling::{Pod, pod::Shape},
};
use tokio::sync::{Notify, watch};

use crate::cluster::{
    Key,
    cache::{Cache, Scope, watch_custom},
    client::served,
    mirror::Mirror,
    scale::Scales,
    world::World,
};
pub(super) use source::Template;
use source::{Found, Models, Unresolved};

/// What no watch tells of (the replicas of kinds that are not watched) is read again after so long. The peers take 30 s.
const PERIOD: Duration = Duration::from_secs(10);

/// Who places pods on nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loop {
    /// Node groups.
    Groups,
    /// Node pools.
    Pools,
}

/// Why buffers cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum NotServed {
    /// Their kind is not there.
    #[error(
        "CRD capacitybuffers.autoscaling.x-k8s.io is not installed; apply it: \
         kubectl apply -f crds/autoscaling.x-k8s.io_capacitybuffers.yaml"
    )]
    NotInstalled,
    /// The API server did not say.
    #[error("it is not known whether there are CapacityBuffers: {0}")]
    Unknown(#[from] kube::Error),
}

/// Says at once what a watch would wait for in vain.
///
/// # Errors
/// See [`NotServed`].
pub async fn check_installed(client: &Client) -> Result<(), NotServed> {
    let is_there = served(client, buffer::API_VERSION).await?.contains("capacitybuffers");
    if is_there { Ok(()) } else { Err(NotServed::NotInstalled) }
}

/// What buffers need.
pub struct Config {
    /// The API client.
    pub client: Client,
    /// The workloads that buffers refer to.
    pub scale: Arc<Scales>,
    /// Pods, and whoever waits for a change of them.
    pub world: Arc<World>,
    /// Whether this replica writes.
    pub leading: watch::Receiver<bool>,
    /// Whether statuses are written at all.
    pub writes: bool,
}

/// All buffers, and the pods that stand for their room.
pub struct Buffers {
    config: Config,
    objects: Arc<Cache<CapacityBuffer>>,
    templates: Arc<Mirror<Template>>,
    quotas: Arc<Mirror<Option<Quota>>>,
    models: Models,
    /// Something is to be looked at.
    changed: Arc<Notify>,
    kept: Mutex<BTreeMap<Key, Kept>>,
    placements: Mutex<BTreeMap<Loop, BTreeMap<Arc<str>, Placement>>>,
    /// Whether every buffer has been looked at.
    ready: watch::Sender<bool>,
}

/// What a buffer stands for.
#[derive(Debug, Clone, PartialEq)]
struct Kept {
    /// A pod's shape, as its template or workload has it.
    shape: Arc<Shape>,
    /// What quotas tell its pods apart by.
    traits: Traits,
    /// How many it asks for.
    wanted: u32,
    allotment: Allotment,
    /// The PodTemplate that was read, and its generation.
    template: Option<(String, i64)>,
    /// The pods that stand for its room.
    pods: Vec<Arc<Pod>>,
}

impl Buffers {
    /// Starts the watches.
    pub fn start(config: Config) -> Arc<Self> {
        let client = &config.client;
        let changed = Arc::new(Notify::new());
        let tell = || {
            let changed = changed.clone();
            move || changed.notify_one()
        };
        let buffer_changed = tell();
        Arc::new(Self {
            objects: watch_custom::<CapacityBuffer>(client, &Scope::default(), move |_, _| buffer_changed()),
            templates: Mirror::start(client, |template: &k8s::PodTemplate| Template::read(template), tell()),
            quotas: Mirror::start(client, |quota: &k8s::ResourceQuota| Quota::read(quota), tell()),
            models: Models::default(),
            changed,
            kept: Mutex::default(),
            placements: Mutex::default(),
            ready: watch::Sender::new(false),
            config,
        })
    }

    /// Waits until every buffer has been looked at: whoever decides before that would take their room away.
    pub async fn synced(&self) {
        // The sender lives in self, so waiting cannot fail.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// The pods that stand for the room of all buffers, in order of the buffers' names.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.kept.lock().values().flat_map(|kept| &kept.pods).cloned().collect()
    }

    /// Takes where a loop has placed the pods of buffers, by `NAMESPACE/NAME`.
    pub fn placed(&self, by: Loop, placements: BTreeMap<Arc<str>, Placement>) {
        let changed = match self.placements.lock().entry(by) {
            Entry::Occupied(mut entry) => {
                let changed = *entry.get() != placements;
                entry.insert(placements);
                changed
            }
            Entry::Vacant(entry) => !entry.insert(placements).is_empty(),
        };
        if changed {
            self.changed.notify_one();
        }
    }

    /// What an event about a buffer refers to, by `NAMESPACE/NAME`.
    pub fn reference(&self, buffer: &str) -> Option<k8s::ObjectReference> {
        let (namespace, name) = buffer.split_once('/')?;
        Some(self.objects.get(namespace, name)?.object_ref(&()))
    }

    /// Looks at buffers whenever something changes, for ever.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(
            self.config.world.synced(),
            self.objects.synced(),
            self.templates.synced(),
            self.quotas.synced()
        );
        loop {
            self.look().await;
            self.ready.send_replace(true);
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    async fn look(&self) {
        let mut buffers = self.objects.all();
        // Another strategy is another controller's.
        buffers.retain(|buffer| {
            let strategy = buffer.spec.provisioning_strategy.as_deref().unwrap_or_default();
            strategy.is_empty() || strategy == ACTIVE_CAPACITY
        });
        // Who came first gets first what quotas leave.
        let age = |buffer: &CapacityBuffer| buffer.creation_timestamp().map(|time| time.0);
        buffers.sort_by_key(|buffer| (buffer.namespace(), age(buffer), buffer.name_any()));
        self.models.keep(&buffers);
        let mut quotas = self.free();
        let mut kept = BTreeMap::new();
        let mut problems = BTreeMap::new();
        for buffer in &buffers {
            let key = Key::of(&**buffer);
            let quotas = quotas.entry(key.namespace.clone()).or_default();
            match self.resolve(&key, buffer, quotas).await {
                Ok(found) => drop(kept.insert(key, found)),
                Err(problem) => drop(problems.insert(key, problem)),
            }
        }
        let changed = {
            let mut former = self.kept.lock();
            let changed = *former != kept;
            former.clone_from(&kept);
            changed
        };
        if changed {
            self.config.world.changes.send_modify(|count| *count += 1);
            self.config.world.unschedulable.notify_one();
        }
        for buffer in &buffers {
            let key = Key::of(&**buffer);
            let found = kept.get(&key).ok_or_else(|| problems.get(&key));
            self.tell(&key, buffer, found).await;
        }
    }

    /// What a buffer stands for. What cannot be read for the moment stays as it was.
    async fn resolve(
        &self,
        key: &Key,
        buffer: &CapacityBuffer,
        quotas: &mut [Quota],
    ) -> Result<Kept, Problem> {
        let former = self.kept.lock().get(key).cloned();
        let found = match self.source(key, &buffer.spec).await {
            Ok(found) => found,
            Err(Unresolved::Wrong(problem)) => return Err(problem),
            Err(Unresolved::Failed(error)) => {
                tracing::warn!(buffer = %key, %error, "what this buffer refers to cannot be read now");
                let Some(former) = former else {
                    let reference = "workload".to_owned();
                    return Err(Problem::Unscalable { reference, why: error.to_string() });
                };
                allot(former.allotment.replicas, (&former.shape.requests, &former.traits), quotas);
                return Ok(former);
            }
        };
        let wanted = buffer::replicas(&buffer.spec, &found.shape.requests, found.replicas)?;
        let allotment = allot(wanted, (&found.shape.requests, &found.traits), quotas);
        let count = allotment.replicas as usize;
        // Who looks again and again at the same pods reads them once.
        let pods = match former {
            Some(former) if *former.shape == *found.shape && former.pods.len() == count => former.pods,
            _ => buffer::pods(&key.namespace, &key.name, &found.shape, allotment.replicas),
        };
        let Found { shape, traits, template, .. } = found;
        Ok(Kept { shape, traits, wanted, allotment, template, pods })
    }

    /// What is free of the quotas of each namespace.
    fn free(&self) -> BTreeMap<String, Vec<Quota>> {
        let mut free: BTreeMap<String, Vec<Quota>> = BTreeMap::new();
        for (key, quota) in self.quotas.entries() {
            free.entry(key.namespace).or_default().extend((*quota).clone());
        }
        free
    }

    /// Where the pods of a buffer would be, by the loop that has more of them on nodes.
    fn placement(&self, key: &Key, pods: usize) -> Option<Placement> {
        let name = key.to_string();
        let placements = self.placements.lock();
        let of = placements.values().filter_map(|placements| placements.get(name.as_str()).copied());
        // What was said of another number of pods is not about these.
        of.filter(|placement| placement.pods() as usize == pods).max_by_key(|placement| placement.there)
    }

    /// Writes the status if it says something new.
    async fn tell(&self, key: &Key, buffer: &CapacityBuffer, found: Result<&Kept, Option<&Problem>>) {
        if !self.config.writes || !*self.config.leading.borrow() {
            return;
        }
        let placement = found.ok().and_then(|kept| self.placement(key, kept.pods.len()));
        let wanted = status::of(buffer, found, placement, Timestamp::now());
        if buffer.status.as_ref() == Some(&wanted) {
            return;
        }
        let api = Api::namespaced(self.config.client.clone(), &key.namespace);
        if let Err(error) = status::write(&api, buffer, &wanted).await {
            tracing::warn!(buffer = %key, %error, "its status could not be written");
        }
    }
}
