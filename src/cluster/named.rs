//! Secrets and ConfigMaps watched one by one, by name: a rotated Secret is noticed at once, and the process never
//! lists, holds or may read Secrets that no trigger names.

use std::{
    collections::HashMap,
    fmt::Debug,
    hash::Hash,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::StreamExt;
use kube::{
    Api, Client, Resource,
    core::NamespaceResourceScope,
    runtime::{
        WatchStreamExt,
        watcher::{self, watch_object},
    },
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::{sync::watch, task::AbortHandle};

use super::{Key, message};

/// How long a first read may take: the API server answers in milliseconds, and a trigger that waits longer shows
/// a condition instead of hanging.
const FIRST_READ: Duration = Duration::from_secs(5);

/// What can go wrong when an object is read by name.
#[derive(Debug, thiserror::Error)]
pub enum NamedError {
    /// The API server refused or failed.
    #[error("{kind} {key} cannot be read: {message}")]
    Unreadable {
        /// Secret or ConfigMap.
        kind: String,
        /// Its namespace and name.
        key: Key,
        /// What the API server said.
        message: String,
    },
    /// `KEDA_RESTRICT_SECRET_ACCESS` is set.
    #[error(
        "Secret {key} is not read: KEDA_RESTRICT_SECRET_ACCESS allows those of namespace {allowed} only; use a \
         ClusterTriggerAuthentication"
    )]
    Restricted {
        /// Its namespace and name.
        key: Key,
        /// The namespace whose Secrets are read.
        allowed: String,
    },
}

#[derive(Clone, Debug)]
enum State<K> {
    Unknown,
    Absent,
    Present(Arc<K>),
    Failed(String),
}

/// One watched object. Dropping the last clone ends the watch.
pub struct Watched<K> {
    key: Key,
    state: watch::Receiver<State<K>>,
    task: AbortHandle,
}

impl<K> Drop for Watched<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<K> Watched<K> {
    /// Which object this is.
    pub fn key(&self) -> &Key {
        &self.key
    }
}

/// The watched objects of one kind.
pub struct Named<K> {
    client: Client,
    watched: Mutex<HashMap<Key, Weak<Watched<K>>>>,
    changed: Box<dyn Fn(Key) + Send + Sync>,
}

impl<K> Named<K>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send,
{
    /// `changed` hears of every later change of an object that is in use, not of its first state.
    pub fn new(client: Client, changed: impl Fn(Key) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { client, watched: Mutex::default(), changed: Box::new(changed) })
    }

    /// The watch of an object, started if there is none.
    pub fn watch(self: &Arc<Self>, key: &Key) -> Arc<Watched<K>> {
        let mut watched = self.watched.lock();
        if let Some(found) = watched.get(key).and_then(Weak::upgrade) {
            return found;
        }
        watched.retain(|_, entry| entry.strong_count() > 0);
        let (sender, state) = watch::channel(State::Unknown);
        let task = tokio::spawn(follow(self.clone(), key.clone(), sender)).abort_handle();
        let entry = Arc::new(Watched { key: key.clone(), state, task });
        watched.insert(key.clone(), Arc::downgrade(&entry));
        entry
    }

    /// The current object, `None` if it does not exist.
    ///
    /// # Errors
    /// The API server refuses (RBAC) or does not answer within [`FIRST_READ`].
    pub async fn get(&self, watched: &Watched<K>) -> Result<Option<Arc<K>>, NamedError> {
        let unreadable = |message: String| NamedError::Unreadable {
            kind: K::kind(&K::DynamicType::default()).into_owned(),
            key: watched.key.clone(),
            message,
        };
        let mut state = watched.state.clone();
        let known =
            tokio::time::timeout(FIRST_READ, state.wait_for(|state| !matches!(state, State::Unknown)));
        match known.await.map_err(|_| unreadable(format!("no answer in {} s", FIRST_READ.as_secs())))? {
            Ok(state) => match &*state {
                State::Present(object) => Ok(Some(object.clone())),
                State::Failed(message) => Err(unreadable(message.clone())),
                State::Absent | State::Unknown => Ok(None),
            },
            Err(_) => Err(unreadable("the watch ended".to_owned())),
        }
    }
}

async fn follow<K>(named: Arc<Named<K>>, key: Key, sender: watch::Sender<State<K>>)
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send,
{
    let api: Api<K> = Api::namespaced(named.client.clone(), &key.namespace);
    let mut states = std::pin::pin!(watch_object(api, &key.name).backoff(watcher::DefaultBackoff::default()));
    while let Some(state) = states.next().await {
        let state = match state {
            Ok(Some(object)) => State::Present(Arc::new(object)),
            Ok(None) => State::Absent,
            // What was read once stays in force while the API server is away.
            Err(error) => {
                tracing::warn!(%key, %error, "watch failed, retrying");
                if matches!(*sender.borrow(), State::Present(_) | State::Absent) {
                    continue;
                }
                State::Failed(reason(&error))
            }
        };
        let before = sender.send_replace(state.clone());
        if differs(&before, &state) {
            (named.changed)(key.clone());
        }
    }
}

fn reason(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => message(error),
        error => error.to_string(),
    }
}

/// Whether a user of the object must act. A relisted, unchanged object is no change, nor is the first state.
fn differs<K: Resource>(before: &State<K>, after: &State<K>) -> bool {
    match (before, after) {
        (State::Unknown, _) | (State::Absent, State::Absent) | (_, State::Failed(_) | State::Unknown) => {
            false
        }
        (State::Present(a), State::Present(b)) => a.meta().resource_version != b.meta().resource_version,
        _ => true,
    }
}
