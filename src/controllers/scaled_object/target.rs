//! The target: it exists, it has a scale, and what it had before Tandem came is remembered.

use tandem_core::api::keda::ScaledObject;

use super::{Task, reconcile::Failure};
use crate::cluster::scale::Target;

impl Task {
    /// Resolves the target's kind and reads its scale; on first sight its replicas become
    /// `status.originalReplicaCount`.
    pub(super) async fn check_target(&mut self, object: &ScaledObject) -> Result<Target, Failure> {
        let reference = &object.spec.scale_target_ref;
        let scale = &self.shared.cluster.scale;
        let target =
            scale.target(&self.key.namespace, reference).await.map_err(|e| Failure(e.to_string()))?;
        // Memory knows whether a watched kind exists; the scale of other kinds is asked for.
        let replicas = scale.replicas(&target).await.map_err(|e| Failure(e.to_string()))?;
        self.status.target(&target.gvk, replicas);
        Ok(target)
    }
}
