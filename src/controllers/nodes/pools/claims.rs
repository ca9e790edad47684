//! One task a claim: from its launch to the end of its machine.

use std::{
    collections::{HashMap, HashSet},
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use parking_lot::Mutex;
use tandem_core::api::karpenter::NodeClaim;
use thiserror::Error;
use tokio::sync::{Notify, mpsc};

use super::{
    ClaimChanges, Pools, RETRY,
    claim::{expires, holds, is_deleting},
    lifecycle,
    names::{FINALIZER, condition},
    termination, write,
};
use crate::{
    cloud::{CloudError, pools::measured::as_controller},
    cluster::{finalizer, message},
};

/// A claim that keeps failing is tried this often.
const RETRY_AT_MOST: Duration = Duration::from_mins(1);
/// The longest time until a claim is looked at again, whatever its timers say.
const LOOK: SignedDuration = SignedDuration::from_hours(1);
/// Nodes that come up change several times within this time; their claims are woken once.
const CALM: Duration = Duration::from_millis(100);

/// Why a step was not done.
#[derive(Debug, Error)]
pub(super) enum StepError {
    /// The API server refused.
    #[error("{}", message(.0))]
    Api(#[from] kube::Error),
    /// The provider refused.
    #[error(transparent)]
    Cloud(#[from] CloudError),
}

impl StepError {
    /// Whether the object was another by then: its watch will tell.
    fn is_outdated(&self) -> bool {
        matches!(self, Self::Api(error) if write::is_outdated(error) || write::is_gone(error))
    }
}

/// When a claim is to be looked at again; a change wakes it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// At once.
    Now,
    /// When it, or the cluster, changes.
    Change,
    /// When the watch tells of what was written: until then nothing is known but what it was before.
    Written,
    /// Then.
    At(Timestamp),
    /// After so long.
    After(Duration),
}

/// A claim's task, as it is woken.
#[derive(Default)]
struct Wake {
    notify: Notify,
    /// Whether what it waits for may be a change of the cluster, not of the claim alone.
    is_unsettled: AtomicBool,
    /// The claim's node.
    node: Mutex<Option<String>>,
}

impl Wake {
    /// Whether the claim is to be looked at when the cluster changes while these nodes are being deleted.
    fn is_waiting_for(&self, leaving: &HashSet<&str>) -> bool {
        self.is_unsettled.load(Ordering::Relaxed)
            || self.node.lock().as_deref().is_some_and(|node| leaving.contains(node))
    }
}

/// Gives every claim a task.
pub(super) async fn run(pools: Arc<Pools>, mut claim_changes: ClaimChanges) {
    let mut tasks: HashMap<String, Arc<Wake>> = HashMap::new();
    let (ended, mut endings) = mpsc::unbounded_channel::<String>();
    let mut leading = pools.leading.clone();
    let mut world = pools.world.changes.subscribe();
    loop {
        let name = tokio::select! {
            name = claim_changes.recv() => match name {
                Some(name) => name,
                None => return,
            },
            Ok(()) = leading.changed() => {
                for claim in pools.claims_of(None) {
                    start(&pools, &mut tasks, claim.name_any(), &ended);
                }
                continue;
            }
            Some(name) = endings.recv() => {
                tasks.remove(&name);
                // A claim that came back while its task ended needs a new one.
                if pools.claims.get("", &name).is_none() || !pools.leads() {
                    continue;
                }
                name
            }
            Ok(()) = world.changed() => {
                tokio::time::sleep(CALM).await;
                world.mark_unchanged();
                let nodes = pools.world.nodes.all();
                let doomed: HashSet<&str> =
                    nodes.iter().filter(|node| node.deleting.is_some()).map(|node| &*node.name).collect();
                for task in tasks.values().filter(|task| task.is_waiting_for(&doomed)) {
                    task.notify.notify_one();
                }
                continue;
            }
        };
        start(&pools, &mut tasks, name, &ended);
    }
}

/// Wakes a claim's task, or gives it one.
fn start(
    pools: &Arc<Pools>,
    tasks: &mut HashMap<String, Arc<Wake>>,
    name: String,
    ended: &mpsc::UnboundedSender<String>,
) {
    if let Some(wake) = tasks.get(&name) {
        wake.notify.notify_one();
    } else if pools.leads() {
        let wake = Arc::new(Wake::default());
        tasks.insert(name.clone(), wake.clone());
        tokio::spawn(as_controller(
            "nodeclaim.lifecycle",
            supervise(pools.clone(), name, wake, ended.clone()),
        ));
    }
}

/// Runs a claim's task, again after a panic: it is that claim's trouble and nobody else's.
async fn supervise(pools: Arc<Pools>, name: String, wake: Arc<Wake>, ended: mpsc::UnboundedSender<String>) {
    while AssertUnwindSafe(drive(&pools, &name, &wake)).catch_unwind().await.is_err() {
        tracing::error!(claim = name, "the NodeClaim's task panicked and starts again");
        tokio::time::sleep(RETRY_AT_MOST).await;
    }
    // Whoever gives claims their tasks lives as long as the process.
    drop(ended.send(name));
}

/// Step after step until the claim is gone, or this replica leads no more.
async fn drive(pools: &Pools, name: &str, wake: &Wake) {
    let mut pause = RETRY;
    while let Some(claim) = pools.claims.get("", name).filter(|_| pools.leads()) {
        let settled = holds(&claim, condition::INITIALIZED) && !is_deleting(&claim);
        wake.is_unsettled.store(!settled, Ordering::Relaxed);
        *wake.node.lock() = claim.status.as_ref().and_then(|status| status.node_name.clone());
        let next = match step(pools, &claim).await {
            Ok(next) => {
                pause = RETRY;
                next
            }
            // The change that it lacks may have come between the read and the write.
            Err(error) if error.is_outdated() => Next::After(RETRY),
            Err(error) => {
                tracing::warn!(claim = name, %error, "a step of the NodeClaim failed and is tried again");
                let after = pause;
                pause = (pause * 2).min(RETRY_AT_MOST);
                Next::After(after)
            }
        };
        if next == Next::Written {
            heard_of(pools, &claim, wake).await;
        } else {
            wait(next, wake).await;
        }
    }
}

/// Waits until the claim is another than it was.
async fn heard_of(pools: &Pools, claim: &NodeClaim, wake: &Wake) {
    let name = claim.name_any();
    let is_same = || {
        let now = pools.claims.get("", &name);
        now.is_some_and(|now| now.metadata.resource_version == claim.metadata.resource_version)
    };
    let changed = async {
        while is_same() {
            wake.notify.notified().await;
        }
    };
    // A watch that lags is no reason to stop: what is written twice is refused.
    let _ = tokio::time::timeout(RETRY_AT_MOST, changed).await;
}

async fn wait(next: Next, wake: &Wake) {
    let after = match next {
        Next::Now => return,
        Next::Change | Next::Written => LOOK,
        Next::At(time) => time.duration_since(Timestamp::now()).min(LOOK),
        Next::After(after) => SignedDuration::try_from(after).unwrap_or(LOOK),
    };
    let after = Duration::try_from(after).unwrap_or(Duration::ZERO);
    // Woken or not, it looks again.
    let _ = tokio::time::timeout(after, wake.notify.notified()).await;
}

async fn step(pools: &Pools, claim: &NodeClaim) -> Result<Next, StepError> {
    if is_deleting(claim) {
        return termination::step(pools, claim).await;
    }
    let now = Timestamp::now();
    let expires = expires(claim);
    if expires.is_some_and(|expires| expires <= now) {
        pools.delete_claim(claim, "expired").await?;
        return Ok(Next::Written);
    }
    // Who deletes a node means its machine.
    if pools.node_of(claim).is_some_and(|node| node.deleting.is_some()) {
        pools.delete_claim(claim, "node_deleted").await?;
        return Ok(Next::Written);
    }
    if !finalizer::is_set(claim, FINALIZER) {
        finalizer::set(&pools.claim_api(), claim, FINALIZER, true).await?;
        return Ok(Next::Written);
    }
    let next = lifecycle::step(pools, claim, now).await?;
    Ok(match (next, expires) {
        (Next::Change, Some(expires)) => Next::At(expires),
        (next, _) => next,
    })
}
