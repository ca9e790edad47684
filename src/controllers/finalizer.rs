//! KEDA's finalizer.

use std::fmt::Debug;

use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;

/// As KEDA writes it, on every kind of its own (`controllers/keda/*_finalizer.go`).
pub const FINALIZER: &str = "finalizer.keda.sh";

/// Whether `object` carries it.
pub fn is_set<K: Resource>(object: &K) -> bool {
    object.finalizers().iter().any(|name| name == FINALIZER)
}

/// Sets it on `object`, or takes it off.
///
/// # Errors
/// The API server refuses; a conflict means that somebody else changed the object meanwhile.
pub async fn write<K>(api: &Api<K>, object: &K, wanted: bool) -> Result<(), kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let mut finalizers: Vec<_> =
        object.finalizers().iter().filter(|name| *name != FINALIZER).cloned().collect();
    if wanted {
        finalizers.push(FINALIZER.to_owned());
    }
    // The version makes the patch fail instead of undoing what another controller wrote meanwhile.
    let metadata = json!({"finalizers": finalizers, "resourceVersion": object.resource_version()});
    let patch = Patch::Merge(json!({"metadata": metadata}));
    api.patch(&object.name_any(), &PatchParams::default(), &patch).await.map(drop)
}

/// Lets an object go that KEDA left behind: Tandem does nothing at its end.
pub async fn release<K>(api: &Api<K>, object: &K)
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    if object.meta().deletion_timestamp.is_some()
        && is_set(object)
        && let Err(error) = write(api, object, false).await
    {
        tracing::warn!(name = object.name_any(), %error, "finalizer could not be removed");
    }
}
