//! One ScaledObject: its triggers, its HPA, its target's 0 ↔ 1.
//!
//! Everything about an object happens in its one task, so nothing here needs a lock, and no other object waits.

mod demand;
mod finalize;
mod hpa;
mod reconcile;
mod scaling;
mod status;
mod target;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, ResourceExt};
use scalers::Push;
use tandem_core::{
    api::keda::ScaledObject,
    nodes::demand::History,
    pods::{annotations::Pause, polling},
};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use super::{Shared, manager::Wake};
use crate::{
    cluster::Key,
    samples::{
        build,
        object::{ObjectSamples, Trigger},
    },
};
use scaling::Failure;
use status::StatusKeeper;

/// First polls after a start are spread over this at least: short enough that all loops run within seconds.
const START_WINDOW: Duration = Duration::from_secs(2);
/// First polls a second after a start; two cores build and ask this many triggers beside everything else.
const STARTS_PER_SECOND: u32 = 500;
/// An interval shorter than this has no second half worth spreading over.
const SPREAD_FROM: Duration = Duration::from_secs(10);
/// The first pause after a failed reconcile, doubled up to [`RETRY_AT_MOST`].
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// A failing reconcile is tried at least this often, so that a target or Secret that appears is found.
const RETRY_AT_MOST: Duration = Duration::from_mins(1);
/// Pushes that wait for their turn; a source that pushes faster repeats itself.
const PUSHES: usize = 16;

/// The task of one ScaledObject.
struct Task {
    shared: Arc<Shared>,
    key: Key,
    wake: Arc<Wake>,
    samples: Option<Arc<ObjectSamples>>,
    /// What the last reconcile saw; `None` asks for a new one.
    reconciled: Option<Arc<ScaledObject>>,
    /// When a failed reconcile is tried again, and the pause after that.
    retry: Option<(Instant, Duration)>,
    /// When triggers that could not be built are tried again, and the pause after that.
    rebuild: Option<(Instant, Duration)>,
    /// Name of the HPA, after a successful reconcile of an object that is not paused.
    hpa: Option<String>,
    /// Whether the object passed validation; nothing is scaled for one that did not.
    valid: bool,
    /// What was told of sources that failed, by metric.
    failures: BTreeMap<String, Failure>,
    /// How often this task has polled.
    polls: u64,
    status: StatusKeeper,
    /// What the HPA controller remembers of an active object, where nodes are scaled.
    history: Option<History>,
    /// No poll before this.
    first_poll: Instant,
    /// What the push scalers say, where the object has any; dropped with the samples they belong to.
    pushes: Option<Pushes>,
}

/// The watches of an object's push scalers, and where they send.
struct Pushes {
    received: mpsc::Receiver<(usize, Push)>,
    _watches: JoinSet<()>,
}

/// Whether two states of an object ask a reconcile for the same, beside the HPA: its status does not count.
fn asks_the_same(before: &ScaledObject, after: &ScaledObject) -> bool {
    let (before, after) = (&before.metadata, &after.metadata);
    before.uid == after.uid
        && before.generation == after.generation
        && before.annotations == after.annotations
        && before.labels == after.labels
}

/// Runs until the object is gone. `starting` is whether the whole process starts.
pub async fn run(shared: Arc<Shared>, key: Key, wake: Arc<Wake>, starting: bool) {
    let objects = u32::try_from(shared.cluster.scaled_objects.len()).unwrap_or(u32::MAX);
    let window = if starting {
        START_WINDOW.max(Duration::from_secs(1) * (objects / STARTS_PER_SECOND))
    } else {
        Duration::ZERO
    };
    let mut task = Task {
        status: StatusKeeper::default(),
        samples: None,
        reconciled: None,
        retry: None,
        rebuild: None,
        hpa: None,
        valid: false,
        failures: BTreeMap::new(),
        polls: 0,
        history: None,
        first_poll: Instant::now() + polling::phase(&key.to_string(), window),
        pushes: None,
        shared,
        key,
        wake,
    };
    let mut leading = task.shared.leading.clone();
    // What an idle object holds is this loop alone: everything it does now and then lives on the heap while it does it.
    while let Some(object) = task.shared.cluster.scaled_objects.get(&task.key.namespace, &task.key.name) {
        let owns = task.shared.owns(&task.key);
        if !owns {
            // Whoever leads next starts from what the API server holds.
            (task.reconciled, task.retry, task.hpa) = (None, None, None);
            task.status.forget();
        }
        let due = if object.metadata.deletion_timestamp.is_some() {
            Box::pin(task.finalize(&object, owns)).await;
            task.retry.map(|(at, _)| at)
        } else {
            if task.must_look(owns) {
                Box::pin(task.bring_up_to_date(&object, owns)).await;
            }
            task.next_due(&object, owns)
        };
        tokio::select! {
            () = task.wake.notify.notified() => {}
            changed = leading.changed() => if changed.is_err() { return },
            Some((trigger, push)) = next_push(&mut task.pushes) => {
                Box::pin(task.on_push(&object, trigger, push)).await;
            }
            () = sleep_until(due) => Box::pin(task.on_due(&object, due)).await,
        }
    }
}

async fn next_push(pushes: &mut Option<Pushes>) -> Option<(usize, Push)> {
    match pushes {
        Some(pushes) => pushes.received.recv().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl Task {
    /// Whether anything happened since the last look but readers and polls.
    fn must_look(&mut self, owns: bool) -> bool {
        let now = Instant::now();
        let is_due = |at: Option<(Instant, Duration)>| at.is_some_and(|(at, _)| at <= now);
        let due = is_due(self.rebuild) || (owns && (is_due(self.retry) || self.reconciled.is_none()));
        self.wake.take_changed() || due || self.samples.is_none() || self.wake.must_rebuild()
    }

    /// Builds the triggers where the object or what they use changed, and reconciles where this replica writes.
    async fn bring_up_to_date(&mut self, object: &Arc<ScaledObject>, owns: bool) {
        let stale = self.samples.as_ref().is_none_or(|samples| {
            let built = samples.object();
            built.metadata.generation != object.metadata.generation
                || built.metadata.uid != object.metadata.uid
        });
        let now = Instant::now();
        let is_due = |at: Option<(Instant, Duration)>| at.is_some_and(|(at, _)| at <= now);
        if self.wake.take_rebuild() || stale || is_due(self.rebuild) {
            self.build(object, stale).await;
            // A changed Secret or target may heal or break the object: it is looked at again.
            self.reconciled = None;
        } else if let Some(samples) = &self.samples {
            samples.follow(object);
        }
        if !owns {
            return;
        }
        self.status.seed(object);
        if is_due(self.retry)
            || self.reconciled.as_ref().is_none_or(|seen| !asks_the_same(seen, object))
            || self.hpa_drifted(object)
        {
            self.reconcile(object).await;
        } else {
            self.reconciled = Some(object.clone());
            self.mirror_hpa().await;
        }
    }

    async fn build(&mut self, object: &Arc<ScaledObject>, fresh: bool) {
        if fresh {
            // What fails from here on fails anew.
            self.failures.values_mut().for_each(|failure| failure.lasts = false);
        }
        let before = self.samples.take();
        let builder = build::Builder {
            cluster: &self.shared.cluster,
            cx: self.shared.samples.context(),
            durations: &self.shared.samples.observer().durations,
            http_timeout: self.shared.http_timeout,
        };
        let samples = build::build(&builder, object, before.as_deref(), self.wake.notify.clone()).await;
        let samples = Arc::new(samples);
        self.shared.samples.insert(samples.clone());
        self.pushes = self.watch_pushes(&samples.triggers);
        let pause = self.rebuild.filter(|_| !fresh).map_or(RETRY_AFTER, |(_, pause)| pause);
        self.rebuild = samples.broken().map(|_| (Instant::now() + pause, (pause * 2).min(RETRY_AT_MOST)));
        self.samples = Some(samples);
    }

    fn watch_pushes(&self, triggers: &[Trigger]) -> Option<Pushes> {
        let pushing = triggers.iter().filter_map(|trigger| {
            let scaler = trigger.scaler.as_ref().filter(|scaler| scaler.pushes())?;
            Some((trigger.index, scaler.clone()))
        });
        let mut pushing = pushing.peekable();
        pushing.peek()?;
        let (sender, received) = mpsc::channel(PUSHES);
        let mut watches = JoinSet::new();
        for (index, scaler) in pushing {
            let cx = self.shared.samples.context().clone();
            watches.spawn(follow_pushes(scaler, cx, index, sender.clone()));
        }
        Some(Pushes { received, _watches: watches })
    }

    fn next_due(&self, object: &ScaledObject, owns: bool) -> Option<Instant> {
        let retries = [self.retry, self.rebuild].map(|retry| retry.map(|(at, _)| at));
        let paused = Pause::of(object.annotations()).full;
        let samples = self.samples.as_ref().filter(|_| !paused);
        let poll = samples.and_then(|samples| {
            let interval = samples.polling_interval();
            let polling =
                owns.then(|| if self.polls == 1 { self.second_interval(interval) } else { interval });
            samples.next_due(Instant::now(), self.first_poll, polling)
        });
        retries.into_iter().chain([poll]).flatten().min()
    }

    /// First polls come close together, so that all loops run soon; the second spreads them over the interval.
    fn second_interval(&self, interval: Duration) -> Duration {
        if interval < SPREAD_FROM {
            return interval;
        }
        interval / 2 + polling::phase(&self.key.to_string(), interval / 2)
    }

    async fn on_due(&mut self, object: &ScaledObject, due: Option<Instant>) {
        if [self.retry, self.rebuild].into_iter().flatten().any(|(at, _)| Some(at) == due) {
            // The next turn of the loop does it.
            return;
        }
        let Some(samples) = self.samples.clone() else { return };
        if let Some(due) = due {
            let delay = Instant::now().saturating_duration_since(due);
            samples.record_delay(delay);
            self.shared.samples.observer().delay(delay);
        }
        self.polls += 1;
        samples.refresh(self.shared.samples.context()).await;
        if samples.slots.is_empty() {
            // Nothing but cpu and memory: no sample says when the next pass is due.
            self.first_poll = Instant::now() + samples.polling_interval();
        }
        if self.shared.owns(&self.key) {
            self.scale(object, None).await;
        }
    }

    async fn on_push(&mut self, object: &ScaledObject, trigger: usize, push: Push) {
        if !self.shared.owns(&self.key) {
            return;
        }
        match push {
            Push::Active(true) => self.scale(object, Some(trigger)).await,
            // Deactivation is decided by polling, which sees every trigger.
            Push::Active(false) => {}
            // The trigger is built anew, and its metrics asked for.
            Push::Metrics(_) => self.samples = None,
        }
    }

    fn reference(object: &ScaledObject) -> ObjectReference {
        object.object_ref(&())
    }
}

async fn follow_pushes(
    scaler: Arc<dyn scalers::Scaler>,
    cx: scalers::Context,
    trigger: usize,
    pushed: mpsc::Sender<(usize, Push)>,
) {
    let (events, mut receiver) = mpsc::channel(PUSHES);
    let forward = async {
        while let Some(push) = receiver.recv().await {
            if pushed.send((trigger, push)).await.is_err() {
                return;
            }
        }
    };
    let (watched, ()) = tokio::join!(scaler.watch(&cx, events), forward);
    if let Err(error) = watched {
        tracing::warn!(trigger, %error, "push scaler ended; polling goes on");
    }
}
