//! The triggers of one ScaledObject, built, with their samples.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use scalers::{Context, Metric, Scaler};
use tandem_core::{
    api::keda::{HealthStatus, ScaleTrigger, ScaledObject},
    pods::{
        fallback::{self, Replicas},
        formula::Formula,
        hpa::{TargetKind, TriggerMetric},
        polling::{self, Needs, Rhythm, next_due},
        status::{self, Evaluation, MetricState},
    },
};
use tokio::{sync::Notify, time::Instant};

use super::{
    build,
    slot::{Sample, Slot},
};
use crate::cluster::{Cluster, Key, env::Sources, scale::Target};

/// A scaler's own timeout ends its query; the deadline around it only catches what hangs in spite of that.
const DEADLINE_SLACK: Duration = Duration::from_secs(2);

/// One trigger, built as far as it could be.
pub struct Trigger {
    /// Position in the object.
    pub index: usize,
    /// `prometheus`, `cron`, ….
    pub trigger_type: String,
    /// The user's name for it.
    pub name: Option<String>,
    /// The HPA reads the last poll's value.
    pub use_cached: bool,
    /// Whether its target is for the whole workload (`metricType: Value`).
    pub value_target: bool,
    /// The scaler, where it could be built.
    pub scaler: Option<Arc<dyn Scaler>>,
    /// Its metrics, where they are known. Those of a trigger with a `problem` are what a fallback stands on.
    pub metrics: Option<Vec<Metric>>,
    /// Why it could not be built, or its metrics not be asked for.
    pub problem: Option<String>,
}

impl Trigger {
    /// Its problem, with its place.
    pub fn broken(&self) -> Option<String> {
        let problem = self.problem.as_ref()?;
        Some(format!("error in trigger {} ({}): {problem}", self.index, self.trigger_type))
    }
}

/// What an object's triggers were built from and into.
pub struct Parts {
    /// Which object.
    pub key: Key,
    /// The target, or why it is not known.
    pub target: Result<Target, String>,
    /// Its triggers, in order.
    pub triggers: Vec<Trigger>,
    /// Its external metrics, in trigger order.
    pub slots: Vec<Slot>,
    /// The compiled formula, or why it does not compile.
    pub formula: Result<Option<Formula>, String>,
    /// Secrets and ConfigMaps in use; held so that they stay watched.
    pub sources: Sources,
    /// TriggerAuthentications in use.
    pub authentications: Vec<Key>,
    /// Deadline of one request to a source.
    pub timeout: Duration,
}

/// The triggers of one ScaledObject at one generation, with their samples.
pub struct ObjectSamples {
    parts: Parts,
    object: ArcSwap<ScaledObject>,
    health: Mutex<BTreeMap<String, HealthStatus>>,
    rhythm: Mutex<Rhythm<Instant>>,
    /// Wakes the object's task when a reader changed what is due.
    wake: Arc<Notify>,
    /// How late the last poll started, in microseconds.
    delay: AtomicU64,
}

impl std::ops::Deref for ObjectSamples {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl ObjectSamples {
    /// Without a sample yet, but with what an earlier generation learned.
    pub fn new(
        parts: Parts,
        object: Arc<ScaledObject>,
        mut health: BTreeMap<String, HealthStatus>,
        rhythm: Rhythm<Instant>,
        wake: Arc<Notify>,
    ) -> Self {
        health.retain(|metric, _| parts.slots.iter().any(|slot| slot.metric == *metric));
        let (health, rhythm) = (Mutex::new(health), Mutex::new(rhythm));
        let object = ArcSwap::new(object);
        Self { parts, object, health, rhythm, wake, delay: AtomicU64::new(0) }
    }

    /// The object, of the generation that the triggers were built from.
    pub fn object(&self) -> Arc<ScaledObject> {
        self.object.load_full()
    }

    /// Takes the object as the cache holds it now, at the same generation: nobody then holds its earlier status.
    pub fn follow(&self, object: &Arc<ScaledObject>) {
        self.object.store(object.clone());
    }

    /// `pollingInterval`.
    pub fn polling_interval(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.object.load().spec.polling_interval()).unwrap_or(1))
    }

    /// The first thing that keeps the object from working, in words for its condition.
    pub fn broken(&self) -> Option<String> {
        let formula = self.formula.as_ref().err().cloned();
        formula.or_else(|| self.triggers.iter().find_map(Trigger::broken))
    }

    /// Whether something of the object says nothing at all, and no fallback can stand in for it.
    pub fn is_blind(&self) -> bool {
        self.formula.is_err() || self.triggers.iter().any(|trigger| trigger.metrics.is_none())
    }

    /// The metrics of all triggers, for the HPA.
    ///
    /// # Errors
    /// The first trigger whose metrics are not known.
    pub fn trigger_metrics(&self) -> Result<Vec<TriggerMetric>, String> {
        build::trigger_metrics(&self.triggers)
    }

    /// Failures by metric.
    pub fn health(&self) -> BTreeMap<String, HealthStatus> {
        self.health.lock().clone()
    }

    /// The reader's rhythm as learned so far.
    pub fn rhythm(&self) -> Rhythm<Instant> {
        self.rhythm.lock().clone()
    }

    /// When the sources are asked next; `polling` is the interval, where this replica owns the object.
    pub fn next_due(&self, now: Instant, first_poll: Instant, polling: Option<Duration>) -> Option<Instant> {
        let rhythm = self.rhythm.lock();
        let follows = self.slots.iter().any(|slot| !self.triggers[slot.trigger].use_cached);
        let visit = rhythm.next(now).filter(|_| follows);
        next_due(Needs {
            last: self.slots.iter().filter_map(Slot::taken).min(),
            polling,
            first_poll,
            visit,
            visit_after: visit.and_then(|visit| rhythm.next(visit)),
            latency: self.slots.iter().filter_map(Slot::latency).max().unwrap_or_default(),
        })
    }

    /// A reader with a rhythm (the HPA controller) came.
    pub fn visited(&self, now: Instant) {
        self.rhythm.lock().observe(now);
        self.wake.notify_one();
    }

    /// Keeps how late a poll started.
    pub fn record_delay(&self, delay: Duration) {
        self.delay.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How late the last poll started.
    pub fn delay(&self) -> Duration {
        Duration::from_micros(self.delay.load(Ordering::Relaxed))
    }

    /// Asks every source at once. Each trigger fails, hangs or panics for itself.
    pub async fn refresh(&self, cx: &Context) {
        futures::future::join_all(self.slots.iter().map(|slot| self.refresh_slot(slot, cx))).await;
    }

    /// Asks the source of one metric; whoever waits for the same answer shares it.
    pub async fn refresh_slot(&self, slot: &Slot, cx: &Context) -> Sample {
        let trigger = &self.triggers[slot.trigger];
        let (sample, own) = match &trigger.scaler {
            Some(scaler) => {
                let timeout = scaler.patience().max(self.timeout);
                let deadline = self.polling_interval().max(timeout) + DEADLINE_SLACK;
                slot.refresh(scaler.as_ref(), cx, deadline).await
            }
            None => (slot.fail(cx, trigger.problem.as_deref().unwrap_or_default()), true),
        };
        if own {
            let mut health = self.health.lock();
            let health = health.entry(slot.metric.clone()).or_default();
            fallback::record(health, sample.result.is_ok(), &self.object.load().spec);
        }
        sample
    }

    /// A sample that need not be asked for: from the last poll where the trigger says so, else a fresh one. A reader
    /// whose rhythm is followed and who came out of turn is given a new sample if the source is quick: the refresh
    /// that was meant for its visit then falls away, so the source is not asked more often.
    pub async fn current(&self, slot: &Slot, cx: &Context, has_rhythm: bool) -> Sample {
        let use_cached = self.triggers[slot.trigger].use_cached;
        let is_fresh = |sample: &Sample| {
            let interval = self.polling_interval();
            let fresh_for = if has_rhythm {
                polling::fresh_for_reader(interval, sample.latency)
            } else {
                polling::fresh_for(interval)
            };
            use_cached || sample.taken.elapsed() <= fresh_for
        };
        match slot.latest().filter(is_fresh) {
            Some(sample) => sample,
            None => self.refresh_slot(slot, cx).await,
        }
    }

    /// The external metric of that name; names compare without case, as KEDA does.
    pub fn slot(&self, metric: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.metric.eq_ignore_ascii_case(metric))
    }

    /// What the latest samples mean together: activity, errors, fallback, the formula's value.
    pub async fn evaluate(&self, cluster: &Cluster, current: Option<i32>) -> Evaluation {
        let latest: Vec<_> = self.slots.iter().map(Slot::latest).collect();
        let health = self.health();
        let healthy = HealthStatus::default();
        let replicas = self.replicas(cluster, current, &latest).await;
        let samples: Vec<_> = self
            .slots
            .iter()
            .zip(&latest)
            .map(|(slot, sample)| MetricState {
                name: &slot.metric,
                trigger: slot.trigger_name.as_deref(),
                target: slot.target,
                sample: sample.as_ref().map(|sample| match &sample.result {
                    Ok(reading) => Ok((reading.milli, reading.active)),
                    Err(error) => Err(&**error),
                }),
                health: health.get(&slot.metric).unwrap_or(&healthy),
            })
            .collect();
        let formula = self.formula.as_ref().ok().and_then(Option::as_ref);
        let object = self.object();
        let resource_triggers = object.spec.triggers.iter().any(ScaleTrigger::is_resource);
        status::evaluate(&object.spec, &samples, formula, resource_triggers, replicas)
    }

    /// What a fallback may need, asked for only where a source fails and a fallback is configured.
    async fn replicas(&self, cluster: &Cluster, current: Option<i32>, latest: &[Option<Sample>]) -> Replicas {
        let failing = latest.iter().flatten().any(|sample| sample.result.is_err());
        let (true, Some(_), Ok(target)) = (failing, &self.object.load().spec.fallback, &self.target) else {
            return Replicas { current, ready_pods: None };
        };
        let current = match current {
            Some(current) => Some(current),
            None => cluster.scale.replicas(target).await.ok(),
        };
        let formula = self.formula.as_ref().ok().and_then(Option::as_ref);
        let per_pod = match formula {
            Some(formula) => formula.target_kind == TargetKind::Value,
            None => self.slots.iter().any(|slot| slot.target.kind == TargetKind::Value),
        };
        let ready_pods = if per_pod { cluster.scale.ready_pods(target).await.ok() } else { None };
        Replicas { current, ready_pods }
    }
}
