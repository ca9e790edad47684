//! What a ScaledObject asks for, made so: the target checked, the HPA in place, the conditions said.

use std::sync::Arc;

use kube::ResourceExt;
use tandem_core::{
    api::keda::ScaledObject,
    pods::{
        annotations::Pause,
        reasons::{self, Event, event},
        validate,
    },
};
use tokio::time::Instant;

use super::{RETRY_AFTER, RETRY_AT_MOST, Task};
use crate::check;

/// Why an object is not ready, in the words of its condition.
pub(super) struct Failure(pub(super) String);

impl Task {
    /// One reconcile, its outcome in the conditions, its retry planned.
    pub(super) async fn reconcile(&mut self, object: &Arc<ScaledObject>) {
        let shared = self.shared.clone();
        let Ok(_place) = shared.reconciles.acquire().await else { return };
        // Leadership may have gone while this object waited for its place.
        if !shared.owns(&self.key) {
            return;
        }
        let outcome = self.apply(object).await;
        match &outcome {
            Ok(message) => {
                if !self.status.is_true(reasons::READY) {
                    if self.hpa.is_some() {
                        self.tell(object, &event::scalers_started()).await;
                    }
                    self.tell(object, &event::scaled_object_ready(message)).await;
                    for warning in validate::warnings(object) {
                        self.tell_by_message(object, &event::scaler_info(&warning)).await;
                    }
                }
                self.status.set(reasons::ready(message));
                self.retry = None;
            }
            Err(Failure(message)) => {
                if self.status.message_of(reasons::READY) != Some(message) {
                    tracing::warn!(key = %self.key, %message, "ScaledObject is not ready");
                    self.tell_by_message(object, &event::scaled_object_check_failed(message)).await;
                }
                self.status.set(reasons::check_failed(message));
                if self.samples.as_ref().is_none_or(|samples| samples.target.is_err()) || !self.valid {
                    self.status.set(reasons::active_unknown());
                }
                let pause = self.retry.map_or(RETRY_AFTER, |(_, pause)| pause);
                self.retry = Some((Instant::now() + pause, (pause * 2).min(RETRY_AT_MOST)));
            }
        }
        if object.spec.fallback.is_none() {
            self.status.set(reasons::no_fallback());
        }
        self.reconciled = Some(object.clone());
        self.write_status().await;
    }

    /// The steps, in KEDA's order (`controllers/keda/scaledobject_controller.go`).
    async fn apply(&mut self, object: &Arc<ScaledObject>) -> Result<String, Failure> {
        let pause = Pause::of(object.annotations());
        if pause.full {
            return self.pause(object, pause.replicas).await;
        }
        let partly = pause.scale_in || pause.scale_out;
        let polled_again = !partly && self.status.is_true(reasons::PAUSED) && self.hpa.is_none();
        if partly {
            self.set_paused(object).await;
        } else {
            self.set_unpaused(object).await;
        }
        let mut violations = validate::reconcilable(object);
        violations.extend(self.hpas_on_target(object));
        self.valid = violations.is_empty();
        if !self.valid {
            let said: Vec<_> =
                violations.into_iter().map(|violation| check::explained(violation).to_string()).collect();
            return Err(Failure(said.join("; ")));
        }
        let target = self.check_target(object).await?;
        self.status.describe(object);
        self.ensure_finalizer(object).await?;
        let labelled = self.ensure_label(object).await?;
        self.ensure_hpa(&labelled, &target).await?;
        if polled_again {
            self.tell(object, &event::scalers_started()).await;
        }
        if let Some(broken) = self.samples.as_ref().and_then(|samples| samples.broken()) {
            return Err(Failure(broken));
        }
        Ok(reasons::READY_MESSAGE.to_owned())
    }

    /// Full pause: no HPA, no polling, the target at the asked count if one is given.
    async fn pause(&mut self, object: &Arc<ScaledObject>, replicas: Option<i32>) -> Result<String, Failure> {
        self.set_paused(object).await;
        self.delete_hpa(object).await?;
        if self.hpa.take().is_some() {
            self.tell(object, &event::scalers_stopped()).await;
        }
        if let Some(replicas) = replicas {
            let target = self.check_target(object).await?;
            let scale = &self.shared.cluster.scale;
            let current = scale.read(&target).await.map_err(|error| Failure(error.to_string()))?;
            if current != replicas {
                scale.write(&target, replicas).await.map_err(|error| Failure(error.to_string()))?;
            }
        }
        self.status.paused_replicas(replicas);
        Ok(reasons::PAUSED_MESSAGE.to_owned())
    }

    async fn set_paused(&mut self, object: &ScaledObject) {
        if !self.status.is_true(reasons::PAUSED) {
            self.tell(object, &event::scaled_object_paused()).await;
        }
        self.status.set(reasons::paused());
    }

    async fn set_unpaused(&mut self, object: &ScaledObject) {
        if self.status.is_true(reasons::PAUSED) {
            self.tell(object, &event::scaled_object_unpaused()).await;
            self.status.set(reasons::unpaused());
            self.status.paused_replicas(None);
        }
    }

    /// Publishes an event about the object; a repeated one is counted up, whatever it says.
    pub(super) async fn tell(&self, object: &ScaledObject, event: &Event) {
        let Ok(_place) = self.shared.writes.acquire().await else { return };
        self.shared.events.publish(&Self::reference(object), event).await;
    }

    /// Publishes an event about the object whose message matters: only one that says the same is counted up.
    pub(super) async fn tell_by_message(&self, object: &ScaledObject, event: &Event) {
        let Ok(_place) = self.shared.writes.acquire().await else { return };
        self.shared.events.publish_by_message(&Self::reference(object), event).await;
    }
}
