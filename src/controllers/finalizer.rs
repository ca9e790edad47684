//! KEDA's finalizer.

use std::fmt::Debug;

use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::cluster::finalizer;

/// As KEDA writes it, on every kind of its own (`controllers/keda/*_finalizer.go`).
pub const FINALIZER: &str = "finalizer.keda.sh";

/// Whether `object` carries it.
pub fn is_set<K: Resource>(object: &K) -> bool {
    finalizer::is_set(object, FINALIZER)
}

/// Sets it on `object`, or takes it off; whether anything was written.
///
/// # Errors
/// The API server refuses; a conflict means that somebody else changed the object meanwhile.
pub async fn write<K>(api: &Api<K>, object: &K, wanted: bool) -> Result<bool, kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    finalizer::set(api, object, FINALIZER, wanted).await
}

/// Lets an object go that KEDA left behind: Tandem does nothing at its end.
pub async fn release<K>(api: &Api<K>, object: &K)
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    if object.meta().deletion_timestamp.is_some()
        && let Err(error) = write(api, object, false).await
    {
        tracing::warn!(name = object.name_any(), %error, "finalizer could not be removed");
    }
}
