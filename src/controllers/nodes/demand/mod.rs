//! Demand: what ScaledObjects are about to ask for, handed from the pods loop to the node loops.
//!
//! An object's task makes an [`Offer`] after each sample that lets its HPA rise; a node loop turns offers into expected
//! pods when it looks at the pods that there are. What is decided in between is `tandem_core::nodes::demand`.

pub mod metrics;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::ResourceExt as _;
use parking_lot::Mutex;
use tandem_core::{
    hpa::Settings,
    nodes::{
        demand::{self, COOL_OFF, DemandSettings, Expectation, Ledger, Offer, Offers, patience, reasons},
        drain::selects,
    },
    pods::{annotations::Pause, reasons::Event},
    scheduling::Pod,
};
use tokio::sync::watch;

use crate::{
    cluster::{Cluster, Key, model::Model, scale::Target},
    telemetry::events::Events,
};

/// Targets that are read at the same moment.
const READS: usize = 16;

/// Whose an offer is.
#[derive(Debug, Clone)]
pub struct Source {
    /// The object.
    pub key: Key,
    /// The object, for events.
    pub object: ObjectReference,
    /// The target.
    pub target: Target,
}

/// What is expected of objects.
#[derive(Debug, Default)]
pub struct Expected {
    /// Unbound pods, in order.
    pub pods: Vec<Arc<Pod>>,
    /// The controllers, by uid, whose pods are among what is expected of their object.
    pub owners: BTreeSet<Arc<str>>,
}

/// The offers of all objects, and what became of them.
pub struct Demand {
    cluster: Arc<Cluster>,
    events: Events,
    most: u32,
    /// The HPA controller's rules.
    rules: Settings,
    /// Time between two of its syncs, as its visits tell; never less than the default, since patience hangs on it.
    period: Mutex<SignedDuration>,
    offers: Mutex<Offers<Source>>,
    models: Mutex<BTreeMap<Key, Arc<Model>>>,
    ledger: Mutex<Ledger>,
    counts: Mutex<metrics::Counts>,
    /// Counts up when more is offered than was.
    rises: watch::Sender<u64>,
}

impl Demand {
    /// No offers; `most` is `--max-expected-pods`, `minor` that of the cluster's version.
    pub fn new(cluster: Arc<Cluster>, events: Events, most: u32, minor: u32) -> Arc<Self> {
        let rules = Settings::of(minor);
        Arc::new(Self {
            cluster,
            events,
            most,
            period: Mutex::new(rules.sync_period),
            rules,
            offers: Mutex::default(),
            models: Mutex::default(),
            ledger: Mutex::default(),
            counts: Mutex::default(),
            rises: watch::Sender::new(0),
        })
    }

    /// The HPA controller's rules, with the period at which it visits an object if that is known.
    pub fn rules(&self, period: Option<Duration>) -> Settings {
        let visits = period.and_then(|period| SignedDuration::try_from(period).ok());
        let sync_period = visits.map_or(self.rules.sync_period, |period| period.max(self.rules.sync_period));
        *self.period.lock() = sync_period;
        Settings { sync_period, ..self.rules }
    }

    /// Takes what an object's HPA is about to ask for. One that rises wakes the node loops.
    pub fn offer(&self, offer: Offer<Source>) {
        let object = offer.of.key.to_string().into();
        if self.offers.lock().take(object, offer) {
            self.rises.send_modify(|count| *count += 1);
        }
    }

    /// Forgets what an object was about to ask for.
    pub fn withdraw(&self, key: &Key) {
        self.offers.lock().withdraw(&key.to_string());
    }

    /// Hears of rises.
    pub fn rises(&self) -> watch::Receiver<u64> {
        self.rises.subscribe()
    }

    /// What is expected of each object now, beside the pods that there are.
    pub async fn expected(&self, pods: &[Arc<Pod>]) -> Expected {
        let now = Timestamp::now();
        let patience = patience(*self.period.lock());
        let offers = self.standing(now, patience);
        let sources: Vec<_> =
            offers.iter().map(|(object, offer)| (object.clone(), offer.of.clone())).collect();
        let read = |(object, of): (Arc<str>, Source)| async move { (self.model(&of).await, object, of.key) };
        let models: Vec<_> = stream::iter(sources).map(read).buffered(READS).collect().await;
        let spaces: BTreeSet<&str> = offers.iter().map(|(_, offer)| &*offer.of.key.namespace).collect();
        let living: Vec<&Arc<Pod>> = pods.iter().filter(|pod| counts(pod, &spaces)).collect();
        let mut shapes = BTreeMap::new();
        let mut owners: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
        let mut wanted = Vec::new();
        for (model, object, key) in models {
            let (Some(model), Some(offer)) = (model, offers.get(&object)) else { continue };
            let own: Vec<&Arc<Pod>> = living.iter().copied().filter(|pod| is_of(pod, &key, &model)).collect();
            wanted.push(offer.wanted(object.clone(), own.len()));
            let uids = own.iter().filter_map(|pod| Some(pod.shape.owner.as_ref()?.uid.clone()));
            owners.insert(object.clone(), uids.collect());
            // The newest pod has what admission added, too: priority, defaults, sidecars.
            let newest = own.into_iter().max_by_key(|pod| (pod.created, pod.name.clone()));
            shapes.extend(
                newest.map(|pod| &**pod).or(model.pod.as_ref()).map(|pod| (object, pod.shape.clone())),
            );
        }
        let settings = DemandSettings { most: self.most, patience, cool_off: COOL_OFF, longest: COOL_OFF };
        let expectations = self.ledger.lock().update(&wanted, now, &settings);
        self.settle(&expectations, &offers);
        let some = || expectations.iter().filter(|one| one.pods > 0);
        let pods = some().filter_map(|one| Some(demand::pods(one, shapes.get(&one.object)?))).flatten();
        Expected {
            pods: pods.collect(),
            owners: some().filter_map(|one| owners.remove(&one.object)).flatten().collect(),
        }
    }

    /// Offers that still stand, of objects that are there and not paused.
    fn standing(&self, now: Timestamp, patience: SignedDuration) -> Offers<Source> {
        let mut offers = self.offers.lock();
        offers.retain(|offer| {
            let Source { key, target, .. } = &offer.of;
            let object = self.cluster.scaled_objects.get(&key.namespace, &key.name);
            let paused = object.is_none_or(|object| {
                let pause = Pause::of(object.annotations());
                pause.full || pause.scale_out
            });
            let replicas = self.cluster.scale.workload(target).map(|workload| workload.replicas);
            !paused && offer.stands(replicas, now, patience)
        });
        offers.clone()
    }

    /// What an object's target makes its pods from, read once a rise and after each change of a target that is watched.
    async fn model(&self, Source { key, target, .. }: &Source) -> Option<Arc<Model>> {
        let known = self.models.lock().get(key).cloned();
        let workload = self.cluster.scale.workload(target);
        let generation = workload.map(|workload| workload.generation);
        if let Some(model) = known.filter(|model| generation.is_none_or(|now| now == model.generation)) {
            return Some(model);
        }
        match self.cluster.scale.model(target).await {
            Ok(model) => {
                let model = Arc::new(model);
                self.models.lock().insert(key.clone(), model.clone());
                Some(model)
            }
            Err(error) => {
                tracing::warn!(%key, %error, "it is not known what pods of this target look like; none are expected");
                None
            }
        }
    }

    /// Forgets offers that are met, counts, and says what begins and what was in vain.
    fn settle(&self, expectations: &[Expectation], offers: &Offers<Source>) {
        {
            let mut standing = self.offers.lock();
            standing.settle(expectations);
            let keys: BTreeSet<&Key> = standing.iter().map(|(_, offer)| &offer.of.key).collect();
            self.models.lock().retain(|key, _| keys.contains(key));
        }
        self.counts.lock().settled(expectations, offers.iter().map(|(_, offer)| &offer.of.key));
        for expectation in expectations {
            let Some(offer) = offers.get(&expectation.object) else { continue };
            if let Some(event) = reasons::news(expectation, &offer.forecast) {
                self.tell(&offer.of, event);
            }
        }
    }

    /// On the ScaledObject, without waiting for it.
    fn tell(&self, Source { key, object, .. }: &Source, event: Event) {
        tracing::info!(%key, reason = event.reason, "{}", event.message);
        let (events, object) = (self.events.clone(), object.clone());
        tokio::spawn(async move { events.tell(&object, &event).await });
    }
}

/// Whether a pod of one of these namespaces is one of its target's replicas.
fn counts(pod: &Pod, namespaces: &BTreeSet<&str>) -> bool {
    !pod.is_terminal() && pod.deleting.is_none() && namespaces.contains(&*pod.shape.namespace)
}

fn is_of(pod: &Pod, key: &Key, model: &Model) -> bool {
    *pod.shape.namespace == *key.namespace && selects(&model.selector, &pod.shape.labels)
}
