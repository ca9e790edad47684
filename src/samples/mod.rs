//! Observe: the values of all triggers. One query a source and need, whoever wants the value.

pub mod build;
pub mod object;
pub mod observe;
pub mod slot;
mod stand_in;
pub mod traffic;

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use parking_lot::RwLock;
use scalers::Context;
use tandem_core::pods::{fallback::Resolved, hpa::COMPOSITE};
use tokio::time::Instant;

use crate::{
    cluster::{Cluster, Key},
    metrics_api::{MetricError, MetricRequest, MetricSource, MetricValue},
};
use object::ObjectSamples;
use observe::Observer;

/// Users whose reads have a rhythm: the HPA controller, with and without a service account of its own.
const HPA_CONTROLLERS: [&str; 2] = [HPA_CONTROLLER, "system:kube-controller-manager"];
/// The user whom the HPA controller reads metrics as.
pub const HPA_CONTROLLER: &str = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";

/// The samples of all objects.
pub struct SampleStore {
    cluster: Arc<Cluster>,
    cx: Context,
    observer: Observer,
    objects: RwLock<HashMap<Key, Arc<ObjectSamples>>>,
}

impl SampleStore {
    /// An empty store.
    pub fn new(cluster: Arc<Cluster>, cx: Context) -> Arc<Self> {
        Arc::new(Self { cluster, cx, observer: Observer::default(), objects: RwLock::default() })
    }

    /// What scalers may use.
    pub fn context(&self) -> &Context {
        &self.cx
    }

    /// The store's histograms.
    pub fn observer(&self) -> &Observer {
        &self.observer
    }

    /// Puts an object's samples in, in the place of those of an earlier generation.
    pub fn insert(&self, samples: Arc<ObjectSamples>) {
        self.objects.write().insert(samples.key.clone(), samples);
    }

    /// Forgets an object.
    pub fn remove(&self, key: &Key) {
        self.objects.write().remove(key);
    }

    /// The samples of one object.
    pub fn get(&self, key: &Key) -> Option<Arc<ObjectSamples>> {
        self.objects.read().get(key).cloned()
    }

    /// The samples of all objects, in no order.
    pub fn all(&self) -> Vec<Arc<ObjectSamples>> {
        self.objects.read().values().cloned().collect()
    }
}

#[async_trait]
impl MetricSource for SampleStore {
    /// A read waits on a source only where no fresh sample is there, and then shares one query with all who wait.
    async fn get(&self, request: MetricRequest) -> Result<MetricValue, MetricError> {
        let key = Key::new(&request.namespace, &request.scaled_object);
        let samples = self
            .get(&key)
            .ok_or_else(|| MetricError::NotFound(format!("ScaledObject {key} is not known to Tandem")))?;
        let has_rhythm = HPA_CONTROLLERS.contains(&request.reader.as_str());
        if has_rhythm {
            samples.visited(Instant::now());
        }
        let metric = request.metric.as_str();
        if metric.eq_ignore_ascii_case(COMPOSITE) && samples.object().spec.scaling_modifiers().is_some() {
            return self.composite(&samples, has_rhythm).await;
        }
        let Some(slot) = samples.slot(metric) else { return Err(unknown(&samples, metric)) };
        let sample = samples.current(slot, &self.cx, has_rhythm).await;
        if has_rhythm {
            self.observer.age(sample.taken.elapsed());
        }
        if let Ok(reading) = &sample.result {
            return Ok(MetricValue { milli: reading.milli, taken_at: sample.at });
        }
        let evaluation = samples.evaluate(&self.cluster, None).await;
        let place = samples.slots.iter().position(|other| std::ptr::eq(other, slot));
        let resolved = place.and_then(|place| evaluation.metrics.get(place)?.as_ref());
        match resolved {
            Some(Resolved::Value(milli) | Resolved::Fallback { milli }) => {
                Ok(MetricValue { milli: *milli, taken_at: sample.at })
            }
            Some(Resolved::Error(error)) => {
                Err(MetricError::Failed(format!("metric:{metric} encountered error: {error}")))
            }
            Some(Resolved::Nil) | None => {
                Err(MetricError::Failed(format!("metric:{metric} encountered error")))
            }
        }
    }
}

impl SampleStore {
    async fn composite(&self, samples: &ObjectSamples, has_rhythm: bool) -> Result<MetricValue, MetricError> {
        let current = samples.slots.iter().map(|slot| samples.current(slot, &self.cx, has_rhythm));
        let read = futures::future::join_all(current).await;
        let oldest = read.iter().map(|sample| sample.taken.elapsed()).max();
        if let Some(age) = oldest.filter(|_| has_rhythm) {
            self.observer.age(age);
        }
        // The composite value is as old as its oldest part.
        let taken_at = read.iter().map(|sample| sample.at).min().unwrap_or_else(self.cx.now);
        let evaluation = samples.evaluate(&self.cluster, None).await;
        match evaluation.composite {
            Some(Ok(milli)) => Ok(MetricValue { milli, taken_at }),
            Some(Err(error)) => {
                Err(MetricError::Failed(format!("metric:{COMPOSITE} encountered error: {error}")))
            }
            None => Err(unknown(samples, COMPOSITE)),
        }
    }
}

/// Why an object has no such metric: a trigger that could not be built says so itself.
fn unknown(samples: &ObjectSamples, metric: &str) -> MetricError {
    let index = metric.strip_prefix('s').and_then(|rest| rest.split_once('-')?.0.parse::<usize>().ok());
    let broken = index.and_then(|index| samples.triggers.get(index)?.broken());
    match broken.or_else(|| samples.formula.as_ref().err().cloned()) {
        Some(error) => MetricError::Failed(format!("metric:{metric} encountered error: {error}")),
        None => MetricError::Failed(format!("no matching metrics found for {metric}")),
    }
}
