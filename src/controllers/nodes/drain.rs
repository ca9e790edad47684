//! Drain: pods evicted under their budgets, and waited for.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod as ApiPod;
use kube::{
    Api, Client,
    api::{DeleteParams, EvictParams},
};
use tandem_core::scheduling::Pod;
use tokio::time::Instant;

use crate::cluster::{message, mirror::Mirror};

/// Between two tries to evict a pod that its budget holds back (Cluster Autoscaler's `EvictionRetryTime`).
const RETRY: Duration = Duration::from_secs(10);
/// Between two looks whether evicted pods are gone.
const LOOK: Duration = Duration::from_millis(200);
/// Beyond its grace period a pod has so long to be gone (Cluster Autoscaler's `PodEvictionHeadroom`).
const HEADROOM: Duration = Duration::from_secs(30);
/// Evictions under way at once; the API server answers each in milliseconds.
const AT_ONCE: usize = 32;

/// How to drain.
#[derive(Debug, Clone)]
pub struct DrainOptions {
    /// How long an eviction that a budget holds back is tried again (`--max-pod-eviction-time`).
    pub eviction_time: Duration,
    /// A pod's own grace period counts up to this (`--max-graceful-termination-sec`); `None` leaves it.
    pub max_grace: Option<Duration>,
    /// Whether to wait until the pods are gone.
    pub wait: bool,
}

/// What became of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evicted {
    /// It was evicted, or was gone already.
    Done,
    /// It could not be, for this reason.
    Not(String),
}

/// A pod that stays, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Left {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Why it is still there.
    pub why: String,
}

/// Evicts all `pods` and waits until they are gone; returns those that are not. `done` hears of each eviction.
///
/// A pod is only ever evicted, never deleted past its budget.
pub async fn drain(
    client: &Client,
    mirror: &Mirror<Pod>,
    pods: &[Arc<Pod>],
    options: &DrainOptions,
    done: impl Fn(&Pod, &Evicted),
) -> Vec<Left> {
    let deadline = Instant::now() + options.eviction_time;
    let done = &done;
    let outcomes = stream::iter(pods.iter().cloned().map(|pod| async move {
        let outcome = evict_until(client, &pod, options, deadline).await;
        done(&pod, &outcome);
        (pod, outcome)
    }));
    let outcomes: Vec<_> = outcomes.buffer_unordered(AT_ONCE).collect().await;
    let mut left = Vec::new();
    let mut leaving = Vec::new();
    for (pod, outcome) in outcomes {
        match outcome {
            Evicted::Done => leaving.push(pod),
            Evicted::Not(why) => left.push(Left { pod, why }),
        }
    }
    if options.wait {
        left.extend(wait_gone(mirror, leaving, options).await);
    }
    left.sort_by_key(|left| left.pod.key());
    left
}

async fn evict_until(client: &Client, pod: &Pod, options: &DrainOptions, deadline: Instant) -> Evicted {
    loop {
        let why = match evict(client, pod, options).await {
            Ok(()) => return Evicted::Done,
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {
                return Evicted::Done;
            }
            // Too many requests: the budget; internal errors: more than one budget, or a server in trouble.
            Err(error) => message(&error),
        };
        if Instant::now() + RETRY > deadline {
            return Evicted::Not(why);
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// One try. The uid is a precondition: a StatefulSet's next pod of the same name is not evicted in its stead.
async fn evict(client: &Client, pod: &Pod, options: &DrainOptions) -> Result<(), kube::Error> {
    let api: Api<ApiPod> = Api::namespaced(client.clone(), &pod.shape.namespace);
    let grace = grace(pod, options).map(|grace| u32::try_from(grace.as_secs()).unwrap_or(u32::MAX));
    let params = EvictParams {
        delete_options: Some(DeleteParams {
            grace_period_seconds: grace,
            preconditions: Some(kube::api::Preconditions {
                uid: Some(pod.uid.to_string()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        }),
        ..EvictParams::default()
    };
    api.evict(&pod.name, &params).await.map(drop)
}

/// The grace period to ask for: the pod's own, capped.
fn grace(pod: &Pod, options: &DrainOptions) -> Option<Duration> {
    let own = Duration::from_secs(u64::try_from(pod.shape.grace_seconds).unwrap_or(0));
    options.max_grace.map(|cap| own.min(cap))
}

async fn wait_gone(mirror: &Mirror<Pod>, mut leaving: Vec<Arc<Pod>>, options: &DrainOptions) -> Vec<Left> {
    let longest = leaving.iter().map(|pod| {
        grace(pod, options)
            .unwrap_or_else(|| Duration::from_secs(u64::try_from(pod.shape.grace_seconds).unwrap_or(0)))
    });
    // A grace period may be longer than there is time; then nothing ends the wait but the pods.
    let deadline = Instant::now().checked_add(longest.max().unwrap_or_default().saturating_add(HEADROOM));
    loop {
        leaving.retain(|pod| {
            let now = mirror.get(&pod.shape.namespace, &pod.name);
            now.is_some_and(|now| now.uid == pod.uid && now.node == pod.node && !now.is_terminal())
        });
        if leaving.is_empty() {
            return Vec::new();
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let why = "evicted, but still there after its grace period".to_owned();
            return leaving.into_iter().map(|pod| Left { pod, why: why.clone() }).collect();
        }
        tokio::time::sleep(LOOK).await;
    }
}
