//! The HPA of an object: what it reads, and its step.

use tandem_core::{
    hpa::{self, Reading, pods::Tally},
    pods::{fallback::Resolved, hpa::COMPOSITE},
};

use super::{
    super::{Instant, pods::Counts},
    Actor,
    slots::{Sample, missing},
};
use crate::compile::{Origin, Scaled};

/// What the HPA controller puts before an error of the external metrics API.
const EXTERNAL: &str = "unable to fetch metrics from external metrics API: ";
/// What it puts before one of the resource metrics API, and of the custom one.
const RESOURCE: &str = "unable to fetch metrics from resource metrics API: ";

impl Actor<'_> {
    /// One step of the HPA controller.
    pub(super) fn look(&mut self, now: Instant) {
        let Some(autoscaler) = &self.spec.autoscaler else { return };
        let current = self.current();
        // Without replicas the controller reads no metric of an HPA whose minimum is above zero.
        let reads = current > 0 || autoscaler.min == 0;
        if let Some(scaled) = self.spec.scaled.as_ref().filter(|_| reads) {
            self.rhythm.observe(now);
            self.freshen(scaled, now);
        }
        let values: Vec<Value> = if reads {
            (0..self.spec.origins.len()).map(|metric| self.read(metric, now)).collect()
        } else {
            Vec::new()
        };
        let readings: Vec<Reading<'_>> = values.iter().map(Value::reading).collect();
        let Counts { ready, .. } = self.pods.counts();
        let outcome = hpa::step(
            autoscaler,
            self.settings,
            &mut self.hpa,
            &hpa::Observation {
                now: self.clock.time(now),
                scale: Ok(hpa::Scale {
                    spec_replicas: current,
                    status_replicas: current,
                    selector: hpa::Selector::Valid,
                }),
                readings: &readings,
                ready_pods: (self.replicas > 0).then_some(ready),
                update_error: None,
            },
        );
        self.record.tell_hpa(now, &self.names[1], &outcome.events);
        if outcome.rescale.is_some() {
            self.set_replicas(outcome.desired, now);
        }
    }

    /// What the HPA controller gets for one of its metrics.
    fn read(&mut self, metric: usize, now: Instant) -> Value {
        match (&self.spec.origins[metric], &self.spec.scaled) {
            (Origin::Slot(index), Some(scaled)) => self.served(scaled, *index),
            (Origin::Composite, Some(scaled)) => self.composed(scaled),
            (Origin::Slot(_) | Origin::Composite, None) => Value::failed(EXTERNAL, "there is no such metric"),
            (Origin::Value(feed), _) => match feed.0.at(self.clock.seconds(now), &mut self.cursors[metric]) {
                Some(value) => Value::Milli([scalers::milli(value)]),
                None => Value::failed(EXTERNAL, &missing(feed)),
            },
            (Origin::Usage(feed, requests), _) => {
                match (feed.0.at(self.clock.seconds(now), &mut self.cursors[metric]), requests) {
                    (None, _) => Value::failed(RESOURCE, &missing(feed)),
                    (Some(_), Err(error)) => Value::Pods(Err(error.clone())),
                    (Some(usage), Ok(requests)) => {
                        Value::Pods(Ok(self.tally(scalers::milli(usage), *requests)))
                    }
                }
            }
        }
    }

    /// The composite metric as Tandem serves it.
    pub(super) fn composed(&self, scaled: &Scaled) -> Value {
        match self.evaluate(scaled).composite {
            Some(Ok(milli)) => Value::Milli([milli]),
            Some(Err(error)) => {
                Value::failed(EXTERNAL, &format!("metric:{COMPOSITE} encountered error: {error}"))
            }
            None => Value::failed(EXTERNAL, "there is no composite metric"),
        }
    }

    /// An external metric as Tandem serves it.
    pub(super) fn served(&self, scaled: &Scaled, index: usize) -> Value {
        if let Some(Sample { result: Ok((milli, _)), .. }) = &self.slots[index].latest {
            return Value::Milli([*milli]);
        }
        let metric = &scaled.slots[index].metric;
        let about =
            |error: &str| Value::failed(EXTERNAL, &format!("metric:{metric} encountered error: {error}"));
        match self.evaluate(scaled).metrics.swap_remove(index) {
            Some(Resolved::Value(milli) | Resolved::Fallback { milli }) => Value::Milli([milli]),
            Some(Resolved::Error(error)) => about(&error),
            Some(Resolved::Nil) | None => about("no value"),
        }
    }

    /// All pods share the load; those that start have no usage yet.
    fn tally(&self, usage: i64, requests: i64) -> Tally {
        let Counts { ready, running, pending } = self.pods.counts();
        let each = usage.checked_div(i64::from(ready)).unwrap_or_default();
        let unready = running - ready + pending;
        let unready_requests = requests.saturating_mul(i64::from(unready));
        Tally { unready, unready_requests, ..Tally::alike(ready, each, requests) }
    }
}

/// What an HPA gets.
#[derive(Debug)]
pub(super) enum Value {
    Milli([i64; 1]),
    Pods(Result<Tally, hpa::pods::TallyError>),
    Failed(String),
}

impl Value {
    fn failed(api: &str, error: &str) -> Self {
        Self::Failed(format!("{api}{error}"))
    }

    pub(super) fn reading(&self) -> Reading<'_> {
        match self {
            Self::Milli(values) => Reading::Values(values),
            Self::Pods(tally) => Reading::Pods(tally.clone()),
            Self::Failed(error) => Reading::Failed(error),
        }
    }
}
