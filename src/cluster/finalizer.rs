//! Finalizers: an object goes when everybody who has put one on it has taken it off.

use std::fmt::Debug;

use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;

/// Whether an object carries a finalizer.
pub fn is_set<K: Resource>(object: &K, name: &str) -> bool {
    object.finalizers().iter().any(|finalizer| finalizer == name)
}

/// Puts a finalizer on an object, or takes it off; whether anything was written. An object that is gone is no error.
///
/// # Errors
/// The API server refuses; a conflict (409) means that somebody else changed the object meanwhile.
pub async fn set<K>(api: &Api<K>, object: &K, name: &str, wanted: bool) -> Result<bool, kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    if is_set(object, name) == wanted {
        return Ok(false);
    }
    let mut finalizers: Vec<_> = object.finalizers().iter().filter(|it| *it != name).cloned().collect();
    if wanted {
        finalizers.push(name.to_owned());
    }
    // The version makes the patch fail instead of undoing what another controller wrote meanwhile.
    let metadata = json!({ "finalizers": finalizers, "resourceVersion": object.resource_version() });
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    match api.patch(&object.name_any(), &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        result => result.map(|_| true),
    }
}
