//! The end of a ScaledObject.

use std::sync::Arc;

use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tandem_core::{
    api::keda::ScaledObject,
    pods::{annotations::SCALED_OBJECT_LABEL, reasons::event},
};
use tokio::time::Instant;

use super::{RETRY_AFTER, Task, reconcile::Failure};
use crate::{cluster::message, controllers::finalizer};

impl Task {
    fn objects(&self) -> Api<ScaledObject> {
        Api::namespaced(self.shared.cluster.client.clone(), &self.key.namespace)
    }

    /// The label by which external metrics name the object. Returns the object as it is with it, so that the HPA gets
    /// its copy at once.
    pub(super) async fn ensure_label(
        &self,
        object: &Arc<ScaledObject>,
    ) -> Result<Arc<ScaledObject>, Failure> {
        if object.labels().get(SCALED_OBJECT_LABEL) == Some(&self.key.name) {
            return Ok(object.clone());
        }
        let patch = json!({"metadata": {"labels": {SCALED_OBJECT_LABEL: self.key.name}}});
        self.patch(&patch)
            .await
            .map_err(|error| Failure(format!("cannot label the ScaledObject: {}", message(&error))))?;
        let mut labelled = (**object).clone();
        labelled.labels_mut().insert(SCALED_OBJECT_LABEL.to_owned(), self.key.name.clone());
        Ok(Arc::new(labelled))
    }

    /// A finalizer only where there is something to do at the end: one that does nothing blocks the deletion of
    /// namespaces while Tandem is away.
    pub(super) async fn ensure_finalizer(&self, object: &ScaledObject) -> Result<(), Failure> {
        let written = finalizer::write(&self.objects(), object, object.spec.restores_replicas()).await;
        written
            .map(drop)
            .map_err(|error| Failure(format!("cannot change the finalizers: {}", message(&error))))
    }

    async fn patch(&self, patch: &serde_json::Value) -> Result<(), kube::Error> {
        self.objects().patch(&self.key.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    /// Restores the target where asked, and lets the object go. The HPA goes with its owner.
    pub(super) async fn finalize(&mut self, object: &ScaledObject, owns: bool) {
        self.retry = None;
        if !owns || !finalizer::is_set(object) {
            return;
        }
        if object.spec.restores_replicas()
            && let Some(replicas) = object.status.as_ref().and_then(|status| status.original_replica_count)
        {
            self.restore(object, replicas).await;
        }
        match finalizer::write(&self.objects(), object, false).await {
            Ok(true) => self.tell(object, &event::scaled_object_deleted()).await,
            Ok(false) => {}
            // A conflict or an outage: the next change of the object, or the retry, tries again.
            Err(error) => {
                tracing::warn!(key = %self.key, %error, "finalizer could not be removed, retrying");
                self.retry = Some((Instant::now() + RETRY_AFTER, RETRY_AFTER));
            }
        }
    }

    async fn restore(&self, object: &ScaledObject, replicas: i32) {
        let scale = &self.shared.cluster.scale;
        let written = match scale.target(&self.key.namespace, &object.spec.scale_target_ref).await {
            Ok(target) => scale.write(&target, replicas).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            tracing::warn!(key = %self.key, replicas, %error, "original replica count could not be restored");
        }
    }
}
