//! The HPA of a ScaledObject: made, kept, repaired, removed.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};
use tandem_core::{
    api::keda::ScaledObject,
    pods::{
        annotations::TRANSFER_HPA_OWNERSHIP,
        hpa, reasons,
        validate::{self, Violation},
    },
};

use super::{Task, reconcile::Failure};
use crate::cluster::{message, scale::Target, scaled_object_owner};

impl Task {
    fn hpas(&self) -> Api<HorizontalPodAutoscaler> {
        Api::namespaced(self.shared.cluster.client.clone(), &self.key.namespace)
    }

    /// Whether somebody changed or removed the HPA since it was made.
    pub(super) fn hpa_drifted(&self, object: &ScaledObject) -> bool {
        let (Some(name), Some(samples)) = (&self.hpa, &self.samples) else { return false };
        let Some(found) = self.shared.cluster.hpas.get(&self.key.namespace, name) else { return true };
        let (Ok(target), Ok(metrics)) = (&samples.target, samples.trigger_metrics()) else { return false };
        let desired = hpa::generate(object, &target.gvk, &metrics, env!("CARGO_PKG_VERSION"));
        desired.is_ok_and(|desired| hpa::needs_update(&found, &desired))
    }

    /// Creates the HPA, or updates it where it differs; removes one of an earlier name.
    pub(super) async fn ensure_hpa(&mut self, object: &ScaledObject, target: &Target) -> Result<(), Failure> {
        let Some(samples) = self.samples.clone() else { return Ok(()) };
        let metrics = samples.trigger_metrics().map_err(Failure)?;
        let desired = hpa::generate(object, &target.gvk, &metrics, env!("CARGO_PKG_VERSION"))
            .map_err(|error| Failure(error.to_string()))?;
        let name = desired.name_any();
        if let Some(old) = self.status.hpa_name().filter(|old| *old != name).map(str::to_owned) {
            self.remove(&old).await?;
        }
        let cached = self.shared.cluster.hpas.get(&self.key.namespace, &name);
        // The watch may lag behind our own create, and behind the HPA controller's status.
        let written = match cached {
            Some(found) => self.write_hpa(object, &desired, Some(&found)).await,
            None => Err(Failed::Stale),
        };
        let written = match written {
            Err(Failed::Stale) => {
                let live = self.hpas().get_opt(&name).await.map_err(|error| failed("get", &name, &error))?;
                self.write_hpa(object, &desired, live.as_ref()).await
            }
            written => written,
        };
        written.map_err(|error| match error {
            Failed::For(failure) => failure,
            Failed::Stale => Failure(format!("HPA {name} is being changed by somebody else, trying again")),
        })?;
        self.status.hpa(&name, &metrics, object);
        self.hpa = Some(name);
        Ok(())
    }

    async fn write_hpa(
        &self,
        object: &ScaledObject,
        desired: &HorizontalPodAutoscaler,
        existing: Option<&HorizontalPodAutoscaler>,
    ) -> Result<(), Failed> {
        let (name, params) = (desired.name_any(), PostParams::default());
        let (action, result) = match existing {
            None => ("create", self.hpas().create(&params, desired).await),
            Some(found) => {
                self.check_owner(object, found).map_err(Failed::For)?;
                if scaled_object_owner(found).is_some() && !hpa::needs_update(found, desired) {
                    return Ok(());
                }
                let mut update = desired.clone();
                update.metadata.resource_version.clone_from(&found.metadata.resource_version);
                ("update", self.hpas().replace(&name, &params, &update).await)
            }
        };
        match result {
            Ok(_) => {
                tracing::info!(key = %self.key, hpa = name, action, "HPA written");
                Ok(())
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Err(Failed::Stale),
            Err(error) => Err(Failed::For(failed(action, &name, &error))),
        }
    }

    /// HPAs of others on the target of an object that has none of its own yet: kube-controller-manager scales by neither
    /// of two, so the one that works is left alone.
    pub(super) fn hpas_on_target(&self, object: &ScaledObject) -> Vec<Violation> {
        let (hpas, namespace) = (&self.shared.cluster.hpas, &self.key.namespace);
        let own = hpas.get(namespace, &hpa::hpa_name(object));
        if own.is_some_and(|own| scaled_object_owner(&own).as_ref() == Some(&self.key)) {
            return Vec::new();
        }
        let others = hpas.select(namespace, |other| validate::other_hpa(object, other).is_some());
        others.iter().filter_map(|other| validate::other_hpa(object, other)).collect()
    }

    /// An HPA that another owner made is taken over only where the user said so.
    fn check_owner(&self, object: &ScaledObject, found: &HorizontalPodAutoscaler) -> Result<(), Failure> {
        let name = found.name_any();
        match scaled_object_owner(found) {
            Some(owner) if owner == self.key => Ok(()),
            Some(owner) => {
                Err(Failure(format!("the HPA '{name}' is already managed by the ScaledObject '{owner}'")))
            }
            None if found.owner_references().iter().any(|owner| owner.controller == Some(true)) => Err(
                Failure(format!("the HPA '{name}' is controlled by another object; choose another HPA name")),
            ),
            None if object.annotations().get(TRANSFER_HPA_OWNERSHIP).is_some_and(|value| value == "true") => {
                Ok(())
            }
            None => Err(Failure(format!(
                "the HPA '{name}' exists and is not owned by this ScaledObject; \
                 to hand it over, annotate the ScaledObject with {TRANSFER_HPA_OWNERSHIP}: \"true\""
            ))),
        }
    }

    /// Deletes the HPA while the object is paused.
    pub(super) async fn delete_hpa(&mut self, object: &ScaledObject) -> Result<(), Failure> {
        let name = self.status.hpa_name().map_or_else(|| hpa::hpa_name(object), str::to_owned);
        self.remove(&name).await
    }

    async fn remove(&self, name: &str) -> Result<(), Failure> {
        let Some(found) = self.hpas().get_opt(name).await.map_err(|e| failed("get", name, &e))? else {
            return Ok(());
        };
        if scaled_object_owner(&found).as_ref() != Some(&self.key) {
            return Ok(());
        }
        match self.hpas().delete(name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(failed("delete", name, &error)),
        }
    }

    /// `HPAActive` follows the HPA's own `ScalingActive`.
    pub(super) async fn mirror_hpa(&mut self) {
        if let Some(condition) = self.hpa_condition() {
            self.status.set(condition);
            self.write_status().await;
        }
    }

    /// The HPAActive condition, `None` where the HPA cannot be observed.
    pub(super) fn hpa_condition(&self) -> Option<tandem_core::api::keda::Condition> {
        let found = self.shared.cluster.hpas.get(&self.key.namespace, self.hpa.as_ref()?)?;
        reasons::hpa_active(&found)
    }
}

/// Why a write did not happen.
enum Failed {
    /// What we held was out of date.
    Stale,
    /// Anything else.
    For(Failure),
}

fn failed(action: &str, name: &str, error: &kube::Error) -> Failure {
    Failure(format!("cannot {action} HPA {name}: {}", message(error)))
}
