//! TriggerAuthentications: who uses them, and the finalizer that KEDA left on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::Arc,
    time::Duration,
};

use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tandem_core::api::keda::{ScaleTrigger, TriggerAuthenticationStatus};
use tokio::sync::Notify;

use super::{Shared, finalizer, merge};
use crate::cluster::Key;

/// Changes within this time become one look at all authentications.
const SETTLE: Duration = Duration::from_secs(1);

/// Names of the users of one authentication.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Users {
    scaled_objects: BTreeSet<String>,
    scaled_jobs: BTreeSet<String>,
}

/// Keeps `status.scaledobjects` and `status.scaledjobs`; woken by every change that may matter.
pub async fn run(shared: Arc<Shared>, changed: Arc<Notify>) {
    loop {
        changed.notified().await;
        tokio::time::sleep(SETTLE).await;
        if !*shared.leading.borrow() {
            continue;
        }
        let users = users(&shared);
        for object in shared.cluster.authentications.all() {
            let key = Key::of(&*object);
            let api = Api::namespaced(shared.cluster.client.clone(), &key.namespace);
            keep(&api, &*object, object.status.as_ref(), users.get(&key)).await;
        }
        for object in shared.cluster.cluster_authentications.all() {
            let api = Api::all(shared.cluster.client.clone());
            keep(&api, &*object, object.status.as_ref(), users.get(&Key::of(&*object))).await;
        }
    }
}

fn users(shared: &Shared) -> BTreeMap<Key, Users> {
    let mut users: BTreeMap<Key, Users> = BTreeMap::new();
    for object in shared.cluster.scaled_objects.all() {
        for key in used(&object.namespace().unwrap_or_default(), &object.spec.triggers) {
            users.entry(key).or_default().scaled_objects.insert(object.name_any());
        }
    }
    for object in shared.cluster.scaled_jobs.all() {
        for key in used(&object.namespace().unwrap_or_default(), &object.spec.triggers) {
            users.entry(key).or_default().scaled_jobs.insert(object.name_any());
        }
    }
    users
}

fn used(namespace: &str, triggers: &[ScaleTrigger]) -> Vec<Key> {
    let references = triggers.iter().filter_map(|trigger| trigger.authentication_ref.as_ref());
    references
        .map(|reference| Key::new(if reference.is_cluster() { "" } else { namespace }, &reference.name))
        .collect()
}

async fn keep<K>(
    api: &Api<K>,
    object: &K,
    status: Option<&TriggerAuthenticationStatus>,
    users: Option<&Users>,
) where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let name = object.name_any();
    finalizer::release(api, object).await;
    if object.meta().deletion_timestamp.is_some() {
        return;
    }
    let joined = |names: &BTreeSet<String>| {
        (!names.is_empty()).then(|| names.iter().map(String::as_str).collect::<Vec<_>>().join(","))
    };
    let users = users.cloned().unwrap_or_default();
    let wanted = TriggerAuthenticationStatus {
        scaledobjects: joined(&users.scaled_objects),
        scaledjobs: joined(&users.scaled_jobs),
    };
    let before = json!(status.cloned().unwrap_or_default());
    let Some(patch) = merge::diff(&before, &json!(wanted)) else { return };
    let body = Patch::Merge(json!({"status": patch}));
    if let Err(error) = api.patch_status(&name, &PatchParams::default(), &body).await {
        tracing::warn!(name, %error, "status of the authentication could not be written");
    }
}
