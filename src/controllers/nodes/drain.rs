//! Drain: pods evicted under their budgets, and waited for.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use k8s_openapi::{
    api::{core::v1::Pod as ApiPod, policy::v1::Eviction},
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
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
    drain_hearing(client, mirror, pods, options, |pod, outcome, _| done(pod, outcome)).await
}

/// The status with which the API server answered the last try to evict a pod, if it did.
pub type Answer = Option<u16>;

/// As [`drain`], for who counts answers.
pub async fn drain_hearing(
    client: &Client,
    mirror: &Mirror<Pod>,
    pods: &[Arc<Pod>],
    options: &DrainOptions,
    done: impl Fn(&Pod, &Evicted, Answer),
) -> Vec<Left> {
    let deadline = Instant::now() + options.eviction_time;
    let done = &done;
    let outcomes = stream::iter(pods.iter().cloned().map(|pod| async move {
        let (outcome, answer) = evict_until(client, &pod, options, deadline).await;
        done(&pod, &outcome, answer);
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

async fn evict_until(
    client: &Client,
    pod: &Pod,
    options: &DrainOptions,
    deadline: Instant,
) -> (Evicted, Answer) {
    loop {
        let (why, answer) = match evict(client, pod, options).await {
            Ok(()) => return (Evicted::Done, Some(200)),
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {
                return (Evicted::Done, Some(status.code));
            }
            // Too many requests: the budget; internal errors: more than one budget, or a server in trouble.
            Err(error) => {
                let answer = if let kube::Error::Api(status) = &error { Some(status.code) } else { None };
                (message(&error), answer)
            }
        };
        if Instant::now() + RETRY > deadline {
            return (Evicted::Not(why), answer);
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// One try. The uid is a precondition: a StatefulSet's next pod of the same name is not evicted in its stead.
///
/// The object is written here, since `Api::evict` names its options as no API server does, and so loses them.
async fn evict(client: &Client, pod: &Pod, options: &DrainOptions) -> Result<(), kube::Error> {
    let api: Api<ApiPod> = Api::namespaced(client.clone(), &pod.shape.namespace);
    let eviction = Eviction {
        metadata: ObjectMeta { name: Some(pod.name.to_string()), ..ObjectMeta::default() },
        delete_options: Some(DeleteOptions {
            grace_period_seconds: grace(pod, options)
                .map(|grace| i64::try_from(grace.as_secs()).unwrap_or(i64::MAX)),
            preconditions: Some(Preconditions { uid: Some(pod.uid.to_string()), resource_version: None }),
            ..DeleteOptions::default()
        }),
    };
    let params = PostParams::default();
    let _: serde_json::Value = api.create_subresource("eviction", &pod.name, &params, &eviction).await?;
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::{Value, json};
    use tandem_core::scheduling::pod::{Shape, Traits};
    use tower::service_fn;

    use super::*;

    /// An API server that answers one eviction after the other with these codes, the last for ever. Keeps what was sent.
    fn server(codes: &[u16]) -> (Client, Arc<Mutex<Vec<Value>>>) {
        let (codes, sent) = (codes.to_vec(), Arc::<Mutex<Vec<Value>>>::default());
        let log = sent.clone();
        let service = service_fn(move |request: Request<Body>| {
            let (codes, log) = (codes.clone(), log.clone());
            async move {
                assert!(request.uri().path().ends_with("/eviction"), "{}", request.uri());
                let body = request.into_body().collect_bytes().await.unwrap_or_default();
                log.lock().push(serde_json::from_slice(&body).unwrap_or_default());
                let code = codes[(log.lock().len() - 1).min(codes.len() - 1)];
                let status = if code < 300 { "Success" } else { "Failure" };
                let answer = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": status,
                    "message": "said so", "reason": "Reason", "code": code});
                let answer =
                    Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
                Ok::<_, Infallible>(answer.unwrap())
            }
        });
        (Client::new(service, "default"), sent)
    }

    fn pod() -> Pod {
        let traits = Traits { namespace: "shop".into(), grace_seconds: 900, ..Traits::default() };
        let shape = Arc::new(Shape::from(traits));
        Pod { name: "web-0".into(), uid: "uid".into(), shape, ..Pod::default() }
    }

    async fn evicted(codes: &[u16], eviction_time: Duration) -> (Evicted, usize, Duration) {
        let (client, sent) = server(codes);
        let options = DrainOptions { eviction_time, max_grace: None, wait: false };
        let began = Instant::now();
        let (outcome, answer) = evict_until(&client, &pod(), &options, began + eviction_time).await;
        let last = *codes.last().unwrap();
        assert_eq!(answer, Some(if last == 201 { 200 } else { last }));
        let tries = sent.lock().len();
        (outcome, tries, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_tried_again_for_a_while() {
        let two_minutes = Duration::from_mins(2);
        let done = |tries: usize| (Evicted::Done, tries, RETRY * u32::try_from(tries - 1).unwrap());
        assert_eq!(evicted(&[201], two_minutes).await, done(1));
        assert_eq!(evicted(&[404], two_minutes).await, done(1), "it is gone");
        assert_eq!(evicted(&[409], two_minutes).await, done(1), "another pod has its name");
        // Its budget; two budgets; its namespace is being deleted; a server in trouble.
        assert_eq!(evicted(&[429, 429, 500, 403, 504, 201], two_minutes).await, done(6));
        let (outcome, tries, passed) = evicted(&[429], two_minutes).await;
        assert!(matches!(&outcome, Evicted::Not(why) if why.contains("said so")), "{outcome:?}");
        assert_eq!((tries, passed), (13, two_minutes));
        let (outcome, tries, _) = evicted(&[500], Duration::ZERO).await;
        assert!(matches!(outcome, Evicted::Not(_)) && tries == 1);
    }

    #[tokio::test]
    async fn an_eviction_names_its_pod_and_caps_its_grace_period() {
        for (cap, wanted) in [(None, Value::Null), (Some(600), json!(600)), (Some(1200), json!(900))] {
            let (client, sent) = server(&[201]);
            let max_grace = cap.map(Duration::from_secs);
            let options = DrainOptions { eviction_time: Duration::ZERO, max_grace, wait: false };
            assert_eq!(evict_until(&client, &pod(), &options, Instant::now()).await.0, Evicted::Done);
            let sent = sent.lock()[0].clone();
            assert_eq!(
                sent["deleteOptions"]["preconditions"]["uid"], "uid",
                "no pod of the same name goes instead"
            );
            assert_eq!(sent["deleteOptions"].get("gracePeriodSeconds").cloned().unwrap_or_default(), wanted);
        }
    }
}
