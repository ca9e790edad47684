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
        demand::{DemandSettings, Expectation, Forecast, Held, Ledger, STEPS, Wanted, reasons},
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

/// How long nothing is expected of an object whose expected pods did not come: whatever keeps them away (a quota, an
/// admission webhook, an HPA that is fed otherwise) takes somebody minutes to mend.
const COOL_OFF: SignedDuration = SignedDuration::from_mins(5);
/// Targets that are read at the same moment.
const READS: usize = 16;

/// What the HPA of an object is about to ask for.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The object, for events.
    pub object: ObjectReference,
    /// The target.
    pub target: Target,
    /// What it will ask for.
    pub forecast: Forecast,
    /// Replicas that it may have at most.
    pub max: i32,
    /// When the sample was taken.
    pub at: Timestamp,
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
    offers: Mutex<BTreeMap<Key, Offer>>,
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
    pub fn offer(&self, key: &Key, offer: Offer) {
        if offer.forecast.falls {
            return self.withdraw(key);
        }
        let mut offers = self.offers.lock();
        let before = offers.get(key).map(|offer| offer.forecast.to);
        let rises = offer.forecast.rises();
        if !rises && before.is_none() {
            return;
        }
        let is_more = rises && before.is_none_or(|before| offer.forecast.to > before);
        offers.insert(key.clone(), offer);
        if is_more {
            self.rises.send_modify(|count| *count += 1);
        }
    }

    /// Forgets what an object was about to ask for.
    pub fn withdraw(&self, key: &Key) {
        self.offers.lock().remove(key);
    }

    /// Hears of rises.
    pub fn rises(&self) -> watch::Receiver<u64> {
        self.rises.subscribe()
    }

    /// What is expected of each object now, beside the pods that there are: unbound pods, in order.
    pub async fn expected(&self, pods: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let now = Timestamp::now();
        let patience = *self.period.lock() * i32::try_from(STEPS).unwrap_or(i32::MAX);
        let offers = self.standing(now, patience);
        let read = |(key, offer): (Key, Offer)| async move { (self.model(&key, &offer).await, key) };
        let models: Vec<_> = stream::iter(offers.clone()).map(read).buffered(READS).collect().await;
        let spaces: BTreeSet<&str> = offers.keys().map(|key| key.namespace.as_str()).collect();
        let living: Vec<&Arc<Pod>> = pods.iter().filter(|pod| counts(pod, &spaces)).collect();
        let mut shapes = BTreeMap::new();
        let mut wanted = Vec::new();
        for (model, key) in models {
            let (Some(model), Some(offer)) = (model, offers.get(&key)) else { continue };
            let own: Vec<&Arc<Pod>> = living.iter().copied().filter(|pod| is_of(pod, &key, &model)).collect();
            let object: Arc<str> = key.to_string().into();
            wanted.push(Wanted {
                object: object.clone(),
                replicas: u32::try_from(offer.forecast.to).unwrap_or_default(),
                max: u32::try_from(offer.max).unwrap_or_default(),
                pods: u32::try_from(own.len()).unwrap_or(u32::MAX),
            });
            // The newest pod has what admission added, too: priority, defaults, sidecars.
            let newest = own.into_iter().max_by_key(|pod| (pod.created, pod.name.clone()));
            shapes.extend(
                newest.map(|pod| &**pod).or(model.pod.as_ref()).map(|pod| (object, pod.shape.clone())),
            );
        }
        let settings = DemandSettings { most: self.most, patience, cool_off: COOL_OFF };
        let expectations = self.ledger.lock().update(&wanted, now, &settings);
        self.settle(&expectations, &offers);
        let mut expected = Vec::new();
        for expectation in &expectations {
            let Some(shape) = shapes.get(&expectation.object) else { continue };
            expected.extend((0..expectation.pods).map(|number| {
                let name: Arc<str> = format!("{}-expected-{number}", expectation.object).into();
                Arc::new(Pod { uid: name.clone(), name, shape: shape.clone(), ..Pod::default() })
            }));
        }
        expected
    }

    /// Offers that still hold: of objects that are there and not paused, whose targets were not scaled down since, and
    /// not older than `patience`.
    fn standing(&self, now: Timestamp, patience: SignedDuration) -> BTreeMap<Key, Offer> {
        let holds = |key: &Key, offer: &mut Offer| {
            let object = self.cluster.scaled_objects.get(&key.namespace, &key.name);
            let paused = object.is_none_or(|object| {
                let pause = Pause::of(object.annotations());
                pause.full || pause.scale_out
            });
            let workload = self.cluster.scale.workload(&offer.target);
            let fell = workload.is_some_and(|it| (1..offer.forecast.from).contains(&it.replicas));
            !paused && !fell && now.duration_since(offer.at) < patience
        };
        let mut offers = self.offers.lock();
        offers.retain(holds);
        offers.clone()
    }

    /// What an object's target makes its pods from, read once a rise and after each change of a target that is watched.
    async fn model(&self, key: &Key, offer: &Offer) -> Option<Arc<Model>> {
        let known = self.models.lock().get(key).cloned();
        let workload = self.cluster.scale.workload(&offer.target);
        let generation = workload.map(|workload| workload.generation);
        if let Some(model) = known.filter(|model| generation.is_none_or(|now| now == model.generation)) {
            return Some(model);
        }
        match self.cluster.scale.model(&offer.target).await {
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
    fn settle(&self, expectations: &[Expectation], offers: &BTreeMap<Key, Offer>) {
        let by_object: BTreeMap<&str, &Expectation> =
            expectations.iter().map(|expectation| (&*expectation.object, expectation)).collect();
        let lacks = |key: &Key| by_object.contains_key(key.to_string().as_str());
        {
            let mut standing = self.offers.lock();
            standing.retain(|key, offer| offer.forecast.rises() || lacks(key));
            self.models.lock().retain(|key, _| standing.contains_key(key));
        }
        self.counts.lock().settled(expectations, offers.keys());
        for (key, offer) in offers {
            let Some(expectation) = by_object.get(key.to_string().as_str()) else { continue };
            match expectation.held {
                Some(Held::CoolOff { until, begins: true }) => {
                    self.tell(key, offer, reasons::expected_pods_missing(expectation.missing, until));
                }
                _ if expectation.begins => {
                    self.tell(key, offer, reasons::pods_expected(expectation, &offer.forecast));
                }
                _ => {}
            }
        }
    }

    /// On the ScaledObject, without waiting for it.
    fn tell(&self, key: &Key, offer: &Offer, event: Event) {
        tracing::info!(%key, reason = event.reason, "{}", event.message);
        let (events, object) = (self.events.clone(), offer.object.clone());
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
