//! Plays the HPA controller, which reads another's metrics while that one serves `external.metrics.k8s.io`.
//!
//! Every sync period an object's metrics are read as the controller would read them of Tandem, and its algorithm is stepped
//! from the count that the target really has, over the HPA that Tandem would have made. Between zero and one the object's
//! own task decides, and says so ([`Recorder::activation`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, future, stream::FuturesUnordered};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, MetricStatus};
use kube::{Api, ResourceExt as _};
use parking_lot::Mutex;
use tandem_core::{
    api::keda::ScaledObject,
    hpa::{
        Autoscaler, Observation, Reading, Scale, Selector, Settings,
        conditions::ConditionType,
        spec::{self, Source, Target},
        state::Status,
    },
    nodes::demand::History,
    pods::{annotations::Pause, explain, hpa, polling},
    quantity::parse_milli,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    Recorder,
    record::{Metric, Sample, Told},
};
use crate::{
    cluster::{Key, scale},
    controllers::Shared,
    metrics_api::{MetricRequest, MetricSource},
    samples::HPA_CONTROLLER,
};

/// Between two looks at what is in memory: as exactly the record knows when others acted.
const LOOK: Duration = Duration::from_secs(1);

/// The HPA controller of a dry run.
pub struct Controller {
    shared: Arc<Shared>,
    recorder: Arc<Recorder>,
    rules: Settings,
    objects: Mutex<BTreeMap<Key, Object>>,
}

/// One object, as it was last seen.
#[derive(Default)]
struct Object {
    history: History,
    /// The target, for what is said of it.
    target: String,
    decided: Decided,
    /// What else a line tells.
    sample: Option<Sample>,
}

/// What is wanted of an object, and upon what that was decided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Decided {
    /// Replicas that it has.
    actual: i32,
    /// Replicas that it had at the last step of the HPA's algorithm, and those that came of it.
    desired: Option<(i32, i32)>,
    /// Replicas that Tandem would have asked for.
    wanted: i32,
}

impl Decided {
    /// Takes in what the last pass of the object's task came to. What was decided upon another count than there is now stays
    /// wanted until the next decision.
    fn settle(&mut self, activation: Option<(i32, Option<i32>)>) {
        let current = activation.filter(|(seen, _)| *seen == self.actual);
        match (current, self.desired) {
            (Some((_, Some(to))), _) => self.wanted = to,
            (_, Some((seen, to))) if seen == self.actual && seen > 0 => self.wanted = to,
            // Whoever has no replicas is no affair of the HPA's.
            (Some(_), None | Some((0, _))) => self.wanted = self.actual,
            (None, Some((0, _))) if self.actual == 0 => self.wanted = 0,
            _ => {}
        }
    }
}

/// What a visit found.
struct Visit {
    metrics: Vec<Metric>,
    desired: i32,
    limits: Vec<String>,
}

impl Controller {
    /// Of all ScaledObjects; `rules` are those of the cluster's controller.
    pub fn new(shared: Arc<Shared>, recorder: Arc<Recorder>, rules: Settings) -> Self {
        Self { shared, recorder, rules, objects: Mutex::default() }
    }

    /// Runs for ever.
    pub async fn run(self) {
        self.shared.cluster.synced().await;
        tokio::join!(self.watch(), self.visit_all());
    }

    /// Sees what others do to the targets.
    async fn watch(&self) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let there = self.shared.samples.all();
            for samples in &there {
                let Ok(target) = &samples.target else { continue };
                if let Some(workload) = self.shared.cluster.scale.workload(target) {
                    self.saw(&samples.key, target, workload.replicas);
                }
                self.settle(&samples.key);
            }
            let mut objects = self.objects.lock();
            objects.retain(|key, _| {
                let stays = self.shared.cluster.scaled_objects.get(&key.namespace, &key.name).is_some();
                if !stays {
                    self.recorder.forget(key);
                }
                stays
            });
        }
    }

    /// Visits each object once a period, at a time of its own. None waits for the source of another.
    async fn visit_all(&self) {
        let period = self.rules.sync_period.unsigned_abs();
        let mut due: BTreeMap<Key, Instant> = BTreeMap::new();
        let (mut visits, mut under_way) = (FuturesUnordered::new(), BTreeSet::new());
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(key) = visits.next() => drop(under_way.remove(&key)),
                _ = ticks.tick() => {
                    let now = Instant::now();
                    let objects = self.shared.cluster.scaled_objects.all();
                    let there: BTreeSet<_> = objects.iter().map(|object| Key::of(&**object)).collect();
                    due.retain(|key, _| there.contains(key));
                    for object in objects {
                        let key = Key::of(&*object);
                        let first = || now + polling::phase(&key.to_string(), period);
                        let at = due.entry(key.clone()).or_insert_with(first);
                        if *at <= now && under_way.insert(key.clone()) {
                            *at = now + period;
                            visits.push(async move {
                                self.visit(object).await;
                                key
                            });
                        }
                    }
                }
            }
        }
    }

    /// One sync of the controller.
    async fn visit(&self, object: Arc<ScaledObject>) {
        let key = Key::of(&*object);
        let Some(samples) = self.shared.samples.get(&key) else { return };
        let Ok(target) = &samples.target else { return };
        let Ok(actual) = self.shared.cluster.scale.replicas(target).await else { return };
        self.saw(&key, target, actual);
        let metrics = samples.trigger_metrics().ok();
        let made = metrics.and_then(|metrics| {
            hpa::generate(&object, &target.gvk, &metrics, env!("CARGO_PKG_VERSION")).ok()
        });
        let visit = match &made {
            Some(hpa) => self.step(&object, hpa, target, actual).await,
            None => None,
        };
        // What Tandem cannot make an HPA of stays as it is, and its condition says why.
        let visit = visit.unwrap_or_else(|| Visit {
            metrics: Vec::new(),
            desired: actual,
            limits: vec!["ScaledObjectCheckFailed".to_owned()],
        });
        let pause = Pause::of(object.annotations());
        let paused = pause.full.then(|| pause.replicas.unwrap_or(actual));
        if paused.is_some() {
            self.recorder.activation(&key, actual, None);
        }
        {
            let mut objects = self.objects.lock();
            let known = objects.entry(key.clone()).or_default();
            known.decided.desired = Some((actual, paused.unwrap_or(visit.desired)));
            known.sample = Some(Sample {
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                min: object.spec.min_replicas(),
                max: object.spec.max_replicas(),
                metrics: visit.metrics,
                wanted: actual,
                actual,
                limits: if paused.is_some() { vec!["ScaledObjectPaused".to_owned()] } else { visit.limits },
            });
        }
        self.settle(&key);
    }

    /// The controller's algorithm; `None` where the HPA could not be.
    async fn step(
        &self,
        object: &ScaledObject,
        hpa: &HorizontalPodAutoscaler,
        target: &scale::Target,
        actual: i32,
    ) -> Option<Visit> {
        let key = Key::of(object);
        let autoscaler = Autoscaler::compile(hpa).ok()?;
        let statuses = self.statuses(&autoscaler, hpa).await;
        let reads = autoscaler.metrics.iter().map(|metric| self.read(&key, metric, &statuses, actual));
        let values = future::join_all(reads).await;
        let readings: Vec<_> = values.iter().map(Value::reading).collect();
        let by_ready_pods = autoscaler.metrics.iter().any(|metric| {
            matches!((&metric.source, metric.target), (Source::External { .. }, Target::Value(_)))
        });
        let ready_pods = if by_ready_pods {
            self.shared.cluster.scale.ready_pods(target).await.ok()
        } else {
            Some(actual)
        };
        let scale = Scale { spec_replicas: actual, status_replicas: actual, selector: Selector::Valid };
        let seen = Observation {
            now: Timestamp::now(),
            scale: Ok(scale),
            readings: &readings,
            ready_pods: ready_pods.and_then(|ready| u32::try_from(ready).ok()),
            update_error: None,
        };
        let (outcome, status) = {
            let mut objects = self.objects.lock();
            objects.entry(key).or_default().history.look(&autoscaler, &self.rules, &seen)
        };
        for event in &outcome.events {
            self.recorder.event(Told {
                object: format!("HorizontalPodAutoscaler {}", Key::of(hpa)),
                reason: event.reason().to_owned(),
                message: event.to_string(),
                kind: event.type_().to_owned(),
            });
        }
        let metrics = autoscaler.metrics.iter().zip(&values).map(|(metric, value)| line(metric, value));
        Some(Visit { metrics: metrics.collect(), desired: outcome.desired, limits: limits(&status) })
    }

    /// What the HPA of whoever scales now says of resources, which only the HPA controller reads.
    async fn statuses(&self, autoscaler: &Autoscaler, hpa: &HorizontalPodAutoscaler) -> Vec<MetricStatus> {
        let is_resource = |metric: &spec::Metric| !matches!(metric.source, Source::External { .. });
        if !autoscaler.metrics.iter().any(is_resource) {
            return Vec::new();
        }
        let (client, key) = (self.shared.cluster.client.clone(), Key::of(hpa));
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(client, &key.namespace);
        let live = api.get_opt(&key.name).await.ok().flatten();
        live.and_then(|live| live.status?.current_metrics).unwrap_or_default()
    }

    /// What the controller would have read of a metric.
    async fn read(&self, key: &Key, metric: &spec::Metric, statuses: &[MetricStatus], pods: i32) -> Value {
        let Source::External { name, .. } = &metric.source else {
            let Some(current) = explain::resource_status(statuses, &metric.source) else {
                return Value::Failed("the HPA that is there has no value of it".to_owned());
            };
            let average = current.average_value.as_ref().and_then(|value| parse_milli(&value.0).ok());
            let shown = current.average_utilization.map(f64::from).or_else(|| average.map(units));
            let pods = u32::try_from(pods).unwrap_or_default();
            return match explain::tally(current, pods) {
                Some(tally) => Value::Pods(tally, shown),
                None => Value::Failed("the HPA that is there has no average of it".to_owned()),
            };
        };
        let request = MetricRequest {
            namespace: key.namespace.clone(),
            metric: name.clone(),
            scaled_object: key.name.clone(),
            reader: HPA_CONTROLLER.to_owned(),
        };
        match MetricSource::get(&*self.shared.samples, request).await {
            Ok(value) => Value::Milli([value.milli]),
            Err(error) => {
                Value::Failed(format!("unable to fetch metrics from external metrics API: {error}"))
            }
        }
    }

    /// The target has so many replicas.
    fn saw(&self, key: &Key, target: &scale::Target, actual: i32) {
        let mut objects = self.objects.lock();
        let known = objects.entry(key.clone()).or_insert_with(|| Object {
            target: format!("{} {}/{}", target.gvk.kind, target.namespace, target.name),
            decided: Decided { actual, desired: None, wanted: actual },
            ..Object::default()
        });
        let before = std::mem::replace(&mut known.decided.actual, actual);
        if before != actual {
            let message = format!("from {before} to {actual} replicas");
            self.recorder.observed(known.target.clone(), "Scaled", message);
        }
    }

    /// Writes what is so now.
    fn settle(&self, key: &Key) {
        let mut objects = self.objects.lock();
        let Some(known) = objects.get_mut(key) else { return };
        known.decided.settle(self.recorder.activation_of(key));
        let Decided { actual, wanted, .. } = known.decided;
        if let Some(sample) = &mut known.sample {
            (sample.actual, sample.wanted) = (actual, wanted);
            self.recorder.sample(sample.clone());
        }
    }
}

/// What the controller gets.
enum Value {
    /// Of an external metric.
    Milli([i64; 1]),
    /// Of the pods, and what is shown of it.
    Pods(tandem_core::hpa::pods::Tally, Option<f64>),
    /// Nothing.
    Failed(String),
}

impl Value {
    fn reading(&self) -> Reading<'_> {
        match self {
            Self::Milli(values) => Reading::Values(values),
            Self::Pods(tally, _) => Reading::Pods(Ok(*tally)),
            Self::Failed(error) => Reading::Failed(error),
        }
    }
}

/// A metric as a line tells it.
fn line(metric: &spec::Metric, value: &Value) -> Metric {
    let (name, is_external) = match &metric.source {
        Source::Resource { resource } | Source::ContainerResource { resource, .. } => (resource, false),
        Source::Pods { name } | Source::Object { name, .. } | Source::Unknown(name) => (name, false),
        Source::External { name, .. } => (name, true),
    };
    let target = match metric.target {
        Target::AverageValue(milli) | Target::Value(milli) => units(milli),
        Target::Utilization(percent) => f64::from(percent),
        Target::Missing => 0.0,
    };
    Metric {
        name: name.clone(),
        value: match value {
            Value::Milli([milli]) => Some(units(*milli)),
            Value::Pods(_, shown) => *shown,
            Value::Failed(_) => None,
        },
        target,
        per_replica: is_external && matches!(metric.target, Target::AverageValue(_)),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a metric beyond 9e12 is shown a little rounded")]
fn units(milli: i64) -> f64 {
    milli as f64 / 1000.0
}

/// What held the count back, by the conditions that the step left.
fn limits(status: &Status) -> Vec<String> {
    let holds = |kind: ConditionType, wanted: bool| {
        let reason = &status.condition(kind)?.reason;
        (reason.status() == wanted).then(|| reason.name().to_owned())
    };
    let stabilized = holds(ConditionType::AbleToScale, true).filter(|reason| reason.ends_with("Stabilized"));
    let limited = holds(ConditionType::ScalingLimited, true);
    let blind = holds(ConditionType::ScalingActive, false);
    [stabilized, limited, blind].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_follows_the_decisions_and_not_the_others() {
        // The count that is there, the HPA's last step, the last pass, and what was wanted until now.
        for (name, actual, desired, activation, before, wanted) in [
            ("nothing is decided yet", 2, None, None, 2, 2),
            ("the HPA's step", 2, Some((2, 5)), Some((2, None)), 2, 5),
            ("a pass wants the first replica", 0, Some((0, 0)), Some((0, Some(1))), 0, 1),
            ("a pass wants zero whatever the HPA says", 3, Some((3, 3)), Some((3, Some(0))), 3, 0),
            ("others were first, the next step is to come", 5, Some((2, 2)), Some((2, None)), 2, 2),
            ("a pass has seen it, the HPA not yet", 5, Some((2, 2)), Some((5, None)), 2, 2),
            ("others activated, the next pass is to come", 1, Some((0, 0)), Some((0, None)), 0, 0),
            ("others activated, and the pass agrees", 1, Some((0, 0)), Some((1, None)), 0, 1),
            ("others deactivated, the next pass is to come", 0, Some((3, 3)), Some((3, None)), 3, 3),
            ("others deactivated, and the pass agrees", 0, Some((0, 0)), Some((0, None)), 3, 0),
            ("without a pass the HPA alone decides", 4, Some((4, 2)), None, 4, 2),
        ] {
            let mut decided = Decided { actual, desired, wanted: before };
            decided.settle(activation);
            assert_eq!(decided.wanted, wanted, "{name}");
        }
    }
}
