//! A cache of one kind in a form of our own: what decisions read, converted as it arrives, the rest never kept.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Debug,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt};
use kube::{
    Api, Client, Resource,
    api::ListParams,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{Key, client::served, retry::Pauses};

/// After discovery failed, before the next try.
const RETRY: Duration = Duration::from_secs(1);

/// After it was forbidden to read a kind, before that is tried again: somebody may have changed the role.
const RETRY_FORBIDDEN: Duration = Duration::from_mins(1);

/// The objects of one kind, by namespace and name.
pub struct Mirror<T> {
    objects: RwLock<BTreeMap<Key, Arc<T>>>,
    /// Counts up with every change.
    version: AtomicU64,
    synced: watch::Sender<bool>,
    /// Whether there has been a listing.
    listed: AtomicBool,
}

impl<T: PartialEq + Send + Sync + 'static> Mirror<T> {
    /// Watches every object of kind `K`; `read` makes of it what is kept, `changed` hears when that is something new.
    pub fn start<K>(
        client: &Client,
        read: impl Fn(&K) -> T + Send + 'static,
        changed: impl Fn() + Send + 'static,
    ) -> Arc<Self>
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        K::DynamicType: Default + Eq + Hash + Clone + Send,
    {
        let mirror = Arc::new(Self::empty());
        let api: Api<K> = Api::all(client.clone());
        let events = watcher::watcher(api, watcher::Config::default()).backoff(Pauses::default());
        tokio::spawn(mirror.clone().fill(events, read, changed));
        mirror
    }

    /// As [`Mirror::start`], for a kind that not every API server has: where it is not served now, there is nothing for ever.
    pub fn start_if_served<K>(
        client: &Client,
        read: impl Fn(&K) -> T + Send + 'static,
        changed: impl Fn() + Send + 'static,
    ) -> Arc<Self>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let (mirror, client) = (Arc::new(Self::empty()), client.clone());
        let filled = mirror.clone();
        tokio::spawn(async move {
            loop {
                match served(&client, &K::api_version(&())).await {
                    Ok(kinds) if kinds.contains(&*K::plural(&())) => break,
                    Ok(_) => {
                        filled.synced.send_replace(true);
                        return;
                    }
                    Err(error) => {
                        let kind = K::kind(&()).into_owned();
                        tracing::warn!(kind, %error, "it is not known whether this kind is served, retrying");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
            let events = watcher::watcher(Api::<K>::all(client), watcher::Config::default())
                .backoff(Pauses::default());
            filled.fill(events, read, changed).await;
        });
        mirror
    }

    /// As [`Mirror::start_if_served`], for a kind that nothing stands or falls with: as long as it may not be read, there is
    /// nothing, and nobody waits for it. See [`Mirror::is_listed`].
    pub fn start_if_readable<K>(
        client: &Client,
        read: impl Fn(&K) -> T + Send + 'static,
        changed: impl Fn() + Send + 'static,
    ) -> Arc<Self>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let (mirror, client) = (Arc::new(Self::empty()), client.clone());
        let filled = mirror.clone();
        tokio::spawn(async move {
            let kind = K::kind(&()).into_owned();
            loop {
                let pause = match is_readable::<K>(&client).await {
                    Ok(()) => break,
                    Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403 | 404) => {
                        let why = &status.message;
                        tracing::debug!(kind, why, "this kind is not served or may not be read");
                        filled.synced.send_replace(true);
                        RETRY_FORBIDDEN
                    }
                    Err(error) => {
                        tracing::warn!(kind, %error, "it is not known whether this kind may be read, retrying");
                        RETRY
                    }
                };
                tokio::time::sleep(pause).await;
            }
            let events = watcher::watcher(Api::<K>::all(client), watcher::Config::default())
                .backoff(Pauses::default());
            filled.fill(events, read, changed).await;
        });
        mirror
    }

    fn empty() -> Self {
        Self {
            objects: RwLock::default(),
            version: AtomicU64::new(0),
            synced: watch::Sender::new(false),
            listed: AtomicBool::new(false),
        }
    }

    /// Whether what is here is all there is, and not only nothing because nobody may read it.
    pub fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }

    /// The object of that name; an empty namespace for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.objects.read().get(&Key::new(namespace, name)).cloned()
    }

    /// All objects, ordered by namespace and name.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.objects.read().values().cloned().collect()
    }

    /// All objects with their names, in order.
    pub fn entries(&self) -> Vec<(Key, Arc<T>)> {
        self.objects.read().iter().map(|(key, object)| (key.clone(), object.clone())).collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.read().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A number that is another one after every change.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Waits for the first listing.
    pub async fn synced(&self) {
        // The sender lives in self, so waiting cannot fail.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    async fn fill<K>(
        self: Arc<Self>,
        events: impl Stream<Item = watcher::Result<Event<K>>>,
        read: impl Fn(&K) -> T,
        changed: impl Fn(),
    ) where
        K: Resource,
        K::DynamicType: Default,
    {
        let mut events = std::pin::pin!(events);
        let mut seen = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => seen.clear(),
                Ok(Event::InitApply(object)) => {
                    let key = Key::of(&object);
                    seen.insert(key.clone());
                    self.put(key, read(&object), &changed);
                }
                Ok(Event::InitDone) => {
                    self.objects.write().retain(|key, _| seen.contains(key));
                    seen = HashSet::new();
                    self.version.fetch_add(1, Ordering::AcqRel);
                    self.listed.store(true, Ordering::Release);
                    self.synced.send_replace(true);
                    changed();
                }
                Ok(Event::Apply(object)) => self.put(Key::of(&object), read(&object), &changed),
                Ok(Event::Delete(object)) => {
                    self.objects.write().remove(&Key::of(&object));
                    self.version.fetch_add(1, Ordering::AcqRel);
                    changed();
                }
                Err(error) => {
                    let kind = K::kind(&K::DynamicType::default()).into_owned();
                    tracing::warn!(kind, %error, "watch failed, retrying");
                }
            }
        }
    }

    /// Heartbeats and the like change nothing that is kept, and so nothing at all.
    fn put(&self, key: Key, object: T, changed: &impl Fn()) {
        let mut objects = self.objects.write();
        if objects.get(&key).is_some_and(|old| **old == object) {
            return;
        }
        objects.insert(key, Arc::new(object));
        drop(objects);
        self.version.fetch_add(1, Ordering::AcqRel);
        changed();
    }
}

/// Whether the API server has a kind in this version, and lets us read it.
async fn is_readable<K>(client: &Client) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    Api::<K>::all(client.clone()).list(&ListParams::default().limit(1)).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures::stream;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt as _;

    use super::*;

    fn config_map(name: &str, value: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some("a".to_owned());
        object.metadata.name = Some(name.to_owned());
        object.metadata.labels = Some([("x".to_owned(), value.to_owned())].into());
        object
    }

    #[tokio::test]
    async fn only_what_is_kept_changes_it() {
        let mirror = Arc::new(Mirror::empty());
        let changes = Arc::new(AtomicUsize::new(0));
        let events = |events: Vec<Event<ConfigMap>>| stream::iter(events.into_iter().map(Ok));
        let run = |list: Vec<Event<ConfigMap>>| {
            let changes = changes.clone();
            mirror.clone().fill(
                events(list),
                |object: &ConfigMap| object.labels().get("x").cloned(),
                move || {
                    changes.fetch_add(1, Ordering::Relaxed);
                },
            )
        };
        let (first, second) = (config_map("m", "1"), config_map("n", "1"));
        run(vec![Event::Init, Event::InitApply(first.clone()), Event::InitApply(second), Event::InitDone])
            .await;
        assert_eq!((mirror.len(), changes.load(Ordering::Relaxed)), (2, 3));

        let mut heartbeat = first.clone();
        heartbeat.metadata.resource_version = Some("9".to_owned());
        let version = mirror.version();
        run(vec![Event::Apply(heartbeat)]).await;
        assert_eq!((mirror.version(), changes.load(Ordering::Relaxed)), (version, 3));

        run(vec![Event::Init, Event::InitApply(config_map("m", "2")), Event::InitDone]).await;
        assert_eq!(mirror.get("a", "m").as_deref(), Some(&Some("2".to_owned())));
        assert!(mirror.get("a", "n").is_none(), "what went while the watch was down is gone");
        assert!(mirror.version() > version);
    }
}
