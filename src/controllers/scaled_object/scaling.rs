//! From samples to 0 ↔ 1: one pass after each refresh. Between 1 and N the HPA decides.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tandem_core::{
    api::keda::ScaledObject,
    pods::{
        activation::{self, Input},
        reasons::{self, event},
    },
};

use tokio::time::Instant;

use super::Task;
use crate::samples::{object::ObjectSamples, slot::Sample};

/// A source that goes on failing in ever other ways is told of this often.
const TELL_AGAIN_AFTER: Duration = Duration::from_mins(1);

/// What was told of a source that failed.
pub(super) struct Failure {
    error: Arc<str>,
    at: Instant,
    /// Whether the source failed at the last look too.
    pub(super) lasts: bool,
}

impl Task {
    /// Decides on the latest samples, and acts. `pushed` is a trigger that just said it is active.
    pub(super) async fn scale(&mut self, object: &ScaledObject, pushed: Option<usize>) {
        let Some(samples) = self.samples.clone() else { return };
        let (Ok(target), true) = (samples.target.clone(), self.valid) else { return };
        let current = match self.shared.cluster.scale.replicas(&target).await {
            Ok(current) => current,
            Err(error) => {
                tracing::debug!(key = %self.key, %error, "replicas of the target are not known");
                // The reconcile that follows looks at the target and says what is wrong with it.
                if self.retry.is_none() {
                    self.reconciled = None;
                }
                return;
            }
        };
        let mut evaluation = samples.evaluate(&self.shared.cluster, Some(current)).await;
        let mut active_triggers = std::mem::take(&mut evaluation.active_triggers);
        if let Some(slot) =
            pushed.and_then(|trigger| samples.slots.iter().find(|slot| slot.trigger == trigger))
            && !active_triggers.contains(&slot.metric)
        {
            active_triggers.push(slot.metric.clone());
        }
        let hpa = self.hpa.as_ref().and_then(|name| self.shared.cluster.hpas.get(&self.key.namespace, name));
        if !evaluation.complete && pushed.is_none() {
            // Not every source has been asked: what is not known is neither active nor inactive.
            return;
        }
        let now = Timestamp::now();
        let outcome = activation::pass(&Input {
            object,
            target_kind: &format!("{}.{}", target.gvk.api_version(), target.gvk.kind),
            current,
            active: evaluation.active || pushed.is_some(),
            error: evaluation.error || samples.is_blind(),
            active_triggers: &active_triggers,
            last_active: self.status.last_active(),
            hpa: hpa.as_deref(),
            now,
        });
        if let Some(recorder) = &self.shared.recorder {
            recorder.activation(&self.key, current, outcome.scale_to);
        }
        self.tell_fallback(object, evaluation.fallback_active).await;
        for condition in outcome.conditions {
            // A reconcile that failed has said why the object is not ready; a poll does not gainsay it.
            if condition.type_ != reasons::READY || self.retry.is_none() {
                self.status.set(condition);
            }
        }
        self.tell_failures(object, &samples).await;
        self.status.activity(std::mem::take(&mut evaluation.triggers_activity));
        self.status.health(samples.health(), &object.spec);
        let mut scaled = true;
        let mut replicas_now = current;
        if let Some(replicas) = outcome.scale_to {
            match self.shared.cluster.scale.write(&target, replicas).await {
                Ok(()) => {
                    replicas_now = replicas;
                    tracing::info!(key = %self.key, from = current, to = replicas, "scaled");
                    if let Some(event) = &outcome.event {
                        self.tell(object, event).await;
                    }
                }
                Err(error) => {
                    scaled = false;
                    tracing::error!(key = %self.key, from = current, to = replicas, %error, "target could not be scaled");
                    if let Some(failed) = outcome.failed_event {
                        self.tell(object, &failed.event(&error.to_string())).await;
                    }
                }
            }
        }
        self.foresee(object, &samples, &evaluation, (&target, replicas_now)).await;
        if outcome.set_last_active && scaled {
            self.status.touch(now);
        }
        self.write_status().await;
    }

    /// An event when a source begins to fail, or fails in another way than before, with what it said.
    async fn tell_failures(&mut self, object: &ScaledObject, samples: &ObjectSamples) {
        let mut told = std::mem::take(&mut self.failures);
        for slot in &samples.slots {
            let before = told.remove(&slot.metric);
            let Some(Sample { result: Err(error), .. }) = slot.latest() else {
                self.failures.extend(before.map(|it| (slot.metric.clone(), Failure { lasts: false, ..it })));
                continue;
            };
            let failure = match before {
                Some(same) if same.lasts && (same.error == error || same.at.elapsed() < TELL_AGAIN_AFTER) => {
                    same
                }
                _ => {
                    tracing::warn!(key = %self.key, metric = slot.metric, %error, "source gives no value");
                    let event = if object.spec.scaling_modifiers().is_some() {
                        event::metric_source_failed(&slot.metric, &error)
                    } else {
                        event::scaler_failed(&slot.metric, &error)
                    };
                    self.tell_by_message(object, &event).await;
                    Failure { error, at: Instant::now(), lasts: true }
                }
            };
            self.failures.insert(slot.metric.clone(), failure);
        }
    }

    async fn tell_fallback(&mut self, object: &ScaledObject, active: bool) {
        let was = self.status.is_true(reasons::FALLBACK);
        if active != was {
            let event = if active { event::fallback_activated() } else { event::fallback_deactivated() };
            self.tell(object, &event).await;
        }
        self.status.set(if active { reasons::fallback_exists() } else { reasons::no_fallback() });
    }
}
