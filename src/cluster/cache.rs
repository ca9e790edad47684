//! A cache of one kind, filled by one watch a namespace (or one for all).
//!
//! kube's own reflector store holds one watch only; `WATCH_NAMESPACE` may name several namespaces, each of which
//! restarts on its own, so a restart here replaces its namespace's share and nothing else.

use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    hash::Hash,
    sync::Arc,
};

use futures::{Stream, StreamExt};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{ClusterResourceScope, DeserializeGuard, NamespaceResourceScope},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{Key, retry::Pauses};

/// Objects of one answer of the first listing, a few hundred kB: what is parsed at once is what the process keeps for ever
/// as its greatest size.
const PAGE: u32 = 50;

/// Which objects are watched.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Namespaces; empty means all.
    pub namespaces: Vec<String>,
    /// A label selector (`WATCH_LABEL_SELECTOR`).
    pub labels: Option<String>,
}

/// The objects of one kind, by namespace and name.
pub struct Cache<T> {
    objects: RwLock<HashMap<String, HashMap<String, Arc<T>>>>,
    /// How many of the watches have not delivered their first listing.
    pending: watch::Sender<usize>,
}

impl<T> Cache<T> {
    /// An empty cache that waits for `watches` first listings.
    pub fn new(watches: usize) -> Self {
        Self { objects: RwLock::default(), pending: watch::Sender::new(watches) }
    }

    /// The object of that name; an empty namespace for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.objects.read().get(namespace)?.get(name).cloned()
    }

    /// All objects of a namespace, ordered by name.
    pub fn list(&self, namespace: &str) -> Vec<Arc<T>> {
        self.select(namespace, |_| true)
    }

    /// The objects of a namespace that are `wanted`, ordered by name.
    pub fn select(&self, namespace: &str, wanted: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        let objects = self.objects.read();
        let all = objects.get(namespace).into_iter().flatten();
        let mut found: Vec<_> = all.filter(|(_, object)| wanted(object)).collect();
        found.sort_by(|a, b| a.0.cmp(b.0));
        found.into_iter().map(|(_, object)| object.clone()).collect()
    }

    /// All objects, in no order.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.objects.read().values().flat_map(HashMap::values).cloned().collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.read().values().map(HashMap::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every watch has delivered its first listing.
    pub fn is_synced(&self) -> bool {
        *self.pending.borrow() == 0
    }

    /// Waits for [`Self::is_synced`].
    pub async fn synced(&self) {
        // The sender lives in self, so waiting cannot fail.
        let _ = self.pending.subscribe().wait_for(|pending| *pending == 0).await;
    }

    /// Puts an object in; `true` if it is new.
    pub fn insert(&self, namespace: String, name: String, object: Arc<T>) {
        self.objects.write().entry(namespace).or_default().insert(name, object);
    }

    fn remove(&self, key: &Key) {
        let mut objects = self.objects.write();
        if let Some(share) = objects.get_mut(&key.namespace) {
            share.remove(&key.name);
            if share.is_empty() {
                objects.remove(&key.namespace);
            }
        }
    }

    /// Takes out what a fresh listing of `share` (a namespace, or all) no longer holds, and returns it.
    fn retain(&self, share: Option<&str>, seen: &HashSet<Key>) -> Vec<(Key, Arc<T>)> {
        let mut gone = Vec::new();
        let mut objects = self.objects.write();
        for (namespace, names) in objects.iter_mut() {
            if share.is_some_and(|share| share != namespace) {
                continue;
            }
            names.retain(|name, object| {
                let key = Key::new(namespace, name);
                let keep = seen.contains(&key);
                if !keep {
                    gone.push((key, object.clone()));
                }
                keep
            });
        }
        objects.retain(|_, names| !names.is_empty());
        gone
    }
}

/// Watches a namespaced kind of Kubernetes' own. `keep` makes what is held of an object, without what nobody reads;
/// `changed` hears of every object that appeared, changed or went.
pub fn watch_builtin<K, T>(
    client: &Client,
    scope: &Scope,
    keep: fn(K) -> T,
    changed: impl Fn(Key, &T) + Clone + Send + Sync + 'static,
) -> Arc<Cache<T>>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send,
    T: Send + Sync + 'static,
{
    let cache = Arc::new(Cache::new(scope.watches()));
    for share in scope.shares() {
        let api: Api<K> = share
            .as_deref()
            .map_or_else(|| Api::all(client.clone()), |namespace| Api::namespaced(client.clone(), namespace));
        let events = watcher::watcher(api, scope.config()).backoff(Pauses::default());
        tokio::spawn(fill(events, share, cache.clone(), keep, changed.clone()));
    }
    cache
}

/// Watches a namespaced custom kind: an object that cannot be read is said and skipped, so that it never stalls
/// the watch for the others.
pub fn watch_custom<K>(
    client: &Client,
    scope: &Scope,
    changed: impl Fn(Key, &K) + Clone + Send + Sync + 'static,
) -> Arc<Cache<K>>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send,
{
    let cache = Arc::new(Cache::new(scope.watches()));
    for share in scope.shares() {
        let api: Api<DeserializeGuard<K>> = share
            .as_deref()
            .map_or_else(|| Api::all(client.clone()), |namespace| Api::namespaced(client.clone(), namespace));
        let events = watcher::watcher(api, scope.config()).backoff(Pauses::default());
        tokio::spawn(fill(readable(events), share, cache.clone(), unmanaged, changed.clone()));
    }
    cache
}

/// Objects that have no namespace, all of them.
pub fn watch_cluster<K>(client: &Client, changed: impl Fn(Key, &K) + Send + Sync + 'static) -> Arc<Cache<K>>
where
    K: Resource<Scope = ClusterResourceScope> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send,
{
    watch_cluster_selected(client, &Scope::default(), changed)
}

/// [`watch_custom`] for a cluster-scoped kind.
pub fn watch_cluster_selected<K>(
    client: &Client,
    scope: &Scope,
    changed: impl Fn(Key, &K) + Send + Sync + 'static,
) -> Arc<Cache<K>>
where
    K: Resource<Scope = ClusterResourceScope> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send,
{
    let cache = Arc::new(Cache::new(1));
    let api: Api<DeserializeGuard<K>> = Api::all(client.clone());
    let events = watcher::watcher(api, scope.config()).backoff(Pauses::default());
    tokio::spawn(fill(readable(events), None, cache.clone(), unmanaged, changed));
    cache
}

impl Scope {
    fn watches(&self) -> usize {
        self.namespaces.len().max(1)
    }

    fn shares(&self) -> Vec<Option<String>> {
        if self.namespaces.is_empty() {
            vec![None]
        } else {
            self.namespaces.iter().cloned().map(Some).collect()
        }
    }

    fn config(&self) -> watcher::Config {
        let config = watcher::Config::default().page_size(PAGE);
        match &self.labels {
            Some(labels) => config.labels(labels),
            None => config,
        }
    }
}

/// The object without the book of who wrote which field, often its greater part.
pub fn unmanaged<K: Resource>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

fn readable<K>(
    events: impl Stream<Item = watcher::Result<Event<DeserializeGuard<K>>>> + Send,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Send,
    K::DynamicType: Default,
{
    events.filter_map(|event| {
        std::future::ready(match event {
            Err(error) => Some(Err(error)),
            Ok(Event::Init) => Some(Ok(Event::Init)),
            Ok(Event::InitDone) => Some(Ok(Event::InitDone)),
            Ok(Event::InitApply(guard)) => accept(guard).map(|object| Ok(Event::InitApply(object))),
            Ok(Event::Apply(guard)) => accept(guard).map(|object| Ok(Event::Apply(object))),
            Ok(Event::Delete(guard)) => accept(guard).map(|object| Ok(Event::Delete(object))),
        })
    })
}

fn accept<K>(guard: DeserializeGuard<K>) -> Option<K>
where
    K: Resource,
    K::DynamicType: Default,
{
    let (namespace, name) = (guard.namespace().unwrap_or_default(), guard.name_any());
    match guard.0 {
        Ok(object) => Some(object),
        Err(error) => {
            let kind = K::kind(&K::DynamicType::default()).into_owned();
            tracing::error!(kind, %namespace, %name, %error, "object cannot be read and is ignored");
            None
        }
    }
}

async fn fill<K, T>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    share: Option<String>,
    cache: Arc<Cache<T>>,
    keep: fn(K) -> T,
    changed: impl Fn(Key, &T),
) where
    K: Resource,
    K::DynamicType: Default,
{
    let mut events = std::pin::pin!(events);
    let mut seen = HashSet::new();
    let mut synced = false;
    let put = |key: Key, object: K| {
        let object = Arc::new(keep(object));
        cache.insert(key.namespace.clone(), key.name.clone(), object.clone());
        changed(key, &object);
    };
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => seen.clear(),
            Ok(Event::InitApply(object)) => {
                let key = Key::of(&object);
                seen.insert(key.clone());
                put(key, object);
            }
            Ok(Event::InitDone) => {
                for (key, object) in cache.retain(share.as_deref(), &std::mem::take(&mut seen)) {
                    changed(key, &object);
                }
                if !std::mem::replace(&mut synced, true) {
                    cache.pending.send_modify(|pending| *pending = pending.saturating_sub(1));
                }
            }
            Ok(Event::Apply(object)) => put(Key::of(&object), object),
            Ok(Event::Delete(object)) => {
                let key = Key::of(&object);
                cache.remove(&key);
                changed(key, &keep(object));
            }
            Err(error) => {
                let kind = K::kind(&K::DynamicType::default()).into_owned();
                tracing::warn!(kind, %error, "watch failed, retrying");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn config_map(namespace: &str, name: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some(namespace.to_owned());
        object.metadata.name = Some(name.to_owned());
        object
    }

    #[tokio::test]
    async fn a_restarted_watch_replaces_its_own_namespace_only() {
        let cache = Arc::new(Cache::<ConfigMap>::new(2));
        let deleted = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let changed = |key: Key, _: &ConfigMap| deleted.lock().push(key.name);
        let first = |namespace: &str, names: &[&str]| {
            let mut events = vec![Ok(Event::Init)];
            events.extend(names.iter().map(|name| Ok(Event::InitApply(config_map(namespace, name)))));
            events.push(Ok(Event::InitDone));
            stream::iter(events)
        };
        fill(first("a", &["x", "y"]), Some("a".into()), cache.clone(), unmanaged, |_, _| {}).await;
        assert!(!cache.is_synced(), "namespace b has not been listed");
        fill(first("b", &["z"]), Some("b".into()), cache.clone(), unmanaged, |_, _| {}).await;
        assert!(cache.is_synced());

        fill(first("a", &["y"]), Some("a".into()), cache.clone(), unmanaged, changed).await;
        let names: Vec<_> = cache.list("a").iter().map(|object| object.name_any()).collect();
        assert_eq!(names, ["y"]);
        assert!(cache.get("b", "z").is_some());
        assert!(deleted.lock().contains(&"x".to_owned()), "what went while the watch was down is told");
    }
}
