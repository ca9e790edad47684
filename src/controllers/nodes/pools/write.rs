//! Writes that hold for the version they were decided upon only: what somebody else wrote meanwhile is never undone.

use std::fmt::Debug;

use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// Whether a write failed because the object was not the one that it was decided upon: its watch will tell.
pub(super) fn is_outdated(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// Whether a call failed because the object is gone.
pub(super) fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Writes a whole status.
pub(super) async fn status<K, S>(api: &Api<K>, object: &K, status: &S) -> Result<K, kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
    S: Serialize + Sync,
{
    let version = object.resource_version();
    let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
    api.patch_status(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await
}

/// Merges into the metadata.
pub(super) async fn metadata<K>(api: &Api<K>, object: &K, mut metadata: Value) -> Result<K, kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    metadata["resourceVersion"] = json!(object.resource_version());
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    api.patch(&object.name_any(), &PatchParams::default(), &patch).await
}
