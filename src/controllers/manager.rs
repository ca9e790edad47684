//! One task an object: objects are isolated from each other, and an idle one costs nothing.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use tokio::sync::{Notify, mpsc};

use super::{Shared, authentication, scaled_job, scaled_object};
use crate::cluster::{Change, Key};

/// The first pause after a task panicked, doubled up to [`RESTART_AT_MOST`].
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// A task that keeps panicking is tried this often.
const RESTART_AT_MOST: Duration = Duration::from_mins(1);

/// Why an object's task was woken.
#[derive(Default)]
pub struct Wake {
    /// The object's task waits on this, also for its readers.
    pub notify: Arc<Notify>,
    /// The object or its HPA changed.
    changed: AtomicBool,
    /// A Secret, ConfigMap or TriggerAuthentication that its triggers use changed.
    rebuild: AtomicBool,
}

impl Wake {
    /// Whether the triggers are to be built anew.
    pub fn must_rebuild(&self) -> bool {
        self.rebuild.load(Ordering::Relaxed)
    }

    /// Takes the request to build the triggers anew.
    pub fn take_rebuild(&self) -> bool {
        self.rebuild.swap(false, Ordering::Relaxed)
    }

    /// Takes the request to look at the object and its HPA.
    pub fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::Relaxed)
    }

    fn changed(&self) {
        self.changed.store(true, Ordering::Relaxed);
        self.notify.notify_one();
    }

    fn rebuild(&self) {
        self.rebuild.store(true, Ordering::Relaxed);
        self.notify.notify_one();
    }
}

/// Runs until the channel of changes closes.
pub async fn run(shared: Arc<Shared>, mut changes: mpsc::UnboundedReceiver<Change>) {
    let mut tasks: HashMap<Key, Arc<Wake>> = HashMap::new();
    let (ended, mut endings) = mpsc::unbounded_channel();
    let authentications = Arc::new(Notify::new());
    tokio::spawn(authentication::run(shared.clone(), authentications.clone()));
    let mut leading = shared.leading.clone();
    let mut starting = true;
    loop {
        let change = tokio::select! {
            change = changes.recv() => match change {
                Some(change) => change,
                None => return,
            },
            Ok(()) = leading.changed() => {
                // What only the leader writes, and no object's own task does.
                for job in shared.cluster.scaled_jobs.all() {
                    tokio::spawn(scaled_job::refuse(shared.clone(), Key::of(&*job)));
                }
                authentications.notify_one();
                continue;
            }
            Some(key) = endings.recv() => {
                tasks.remove(&key);
                // An object that came back while its task ended needs a new one.
                if shared.cluster.scaled_objects.get(&key.namespace, &key.name).is_none() {
                    continue;
                }
                Change::ScaledObject(key)
            }
        };
        starting = starting && !shared.cluster.scaled_objects.is_synced();
        if matches!(change, Change::ScaledObject(_) | Change::ScaledJob(_) | Change::Authentication(_)) {
            authentications.notify_one();
        }
        match change {
            Change::ScaledObject(key) => {
                if let Some(wake) = tasks.get(&key) {
                    wake.changed();
                } else {
                    let wake = Arc::new(Wake::default());
                    tasks.insert(key.clone(), wake.clone());
                    tokio::spawn(supervise(shared.clone(), key, wake, starting, ended.clone()));
                }
            }
            Change::OwnedHpa(key) => {
                if let Some(wake) = tasks.get(&key) {
                    wake.changed();
                }
            }
            Change::Secret(source) => wake_users(&shared, &tasks, |s| s.sources.has_secret(&source)),
            Change::ConfigMap(source) => wake_users(&shared, &tasks, |s| s.sources.has_config_map(&source)),
            Change::Authentication(source) => {
                wake_users(&shared, &tasks, |samples| samples.authentications.contains(&source));
            }
            Change::ScaledJob(key) => drop(tokio::spawn(scaled_job::refuse(shared.clone(), key))),
        }
    }
}

fn wake_users(
    shared: &Shared,
    tasks: &HashMap<Key, Arc<Wake>>,
    uses: impl Fn(&crate::samples::object::ObjectSamples) -> bool,
) {
    for samples in shared.samples.all().into_iter().filter(|samples| uses(samples)) {
        if let Some(wake) = tasks.get(&samples.key) {
            wake.rebuild();
        }
    }
}

/// Runs an object's task, again after a panic: it is that object's trouble and nobody else's.
async fn supervise(
    shared: Arc<Shared>,
    key: Key,
    wake: Arc<Wake>,
    starting: bool,
    ended: mpsc::UnboundedSender<Key>,
) {
    let mut pause = RESTART_AFTER;
    loop {
        let task = scaled_object::run(shared.clone(), key.clone(), wake.clone(), starting);
        if AssertUnwindSafe(task).catch_unwind().await.is_ok() {
            break;
        }
        tracing::error!(%key, "the ScaledObject's task panicked and starts again in {} s", pause.as_secs());
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RESTART_AT_MOST);
    }
    shared.samples.remove(&key);
    // The manager lives as long as the process.
    let _ = ended.send(key);
}
