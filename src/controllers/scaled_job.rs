//! ScaledJobs: accepted, and told plainly that this version does not start their Jobs.

use std::sync::Arc;

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tandem_core::{
    api::keda::{Condition, ScaledJob},
    pods::reasons,
};

use super::{Shared, finalizer, merge};
use crate::cluster::Key;

const MESSAGE: &str = "ScaledJobs are not run by this version of Tandem: no Jobs are created or deleted for this \
                       object; keep KEDA for it, or use a ScaledObject";

/// Says on the object's status that nothing will happen, and lets go what KEDA left behind.
pub async fn refuse(shared: Arc<Shared>, key: Key) {
    if !shared.owns(&key) {
        return;
    }
    let Some(object) = shared.cluster.scaled_jobs.get(&key.namespace, &key.name) else { return };
    let api: Api<ScaledJob> = Api::namespaced(shared.cluster.client.clone(), &key.namespace);
    finalizer::release(&api, &*object).await;
    if object.metadata.deletion_timestamp.is_some() {
        return;
    }
    let mut status = object.status.clone().unwrap_or_default();
    let before = json!(status);
    reasons::set(
        &mut status.conditions,
        Condition {
            type_: reasons::READY.to_owned(),
            status: "False".to_owned(),
            reason: "ScaledJobCheckFailed".to_owned(),
            message: MESSAGE.to_owned(),
        },
    );
    let Some(patch) = merge::diff(&before, &json!(status)) else { return };
    let body = Patch::Merge(json!({"status": patch}));
    if let Err(error) = api.patch_status(&key.name, &PatchParams::default(), &body).await {
        tracing::warn!(%key, %error, "status of the ScaledJob could not be written");
    }
}
