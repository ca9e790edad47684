//! `SubjectAccessReview` and `TokenReview`: asked of kube-apiserver, one flight per question, verdicts remembered.

use std::{
    collections::HashMap,
    hash::Hash,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus},
    authorization::v1::{SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus},
};
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::timeout;

use super::{
    expiring::ExpiringMap,
    observe::{Observer, Outage, Review, Verdict},
};

/// Longest wait for one review. Reviews take milliseconds; the HPA waits for the answer behind it.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(3);

/// No verdict is used beyond this age, whatever happens: a revoked right stops being served within a minute.
pub(super) const LONGEST_USE: Duration = Duration::from_mins(1);

/// A review that got no verdict.
#[derive(Clone, Debug, Error)]
pub(super) enum ReviewError {
    #[error("{review} failed: {message}")]
    Api { review: &'static str, message: String },
    #[error("{review} got no answer from kube-apiserver in {} s", REVIEW_TIMEOUT.as_secs())]
    Timeout { review: &'static str },
}

/// Asks kube-apiserver.
#[derive(Clone)]
pub(super) struct Reviewer {
    client: Client,
    observer: Observer,
    outage: Arc<Outage>,
}

impl Reviewer {
    pub(super) fn new(client: Client, observer: Observer) -> Self {
        Self { client, observer, outage: Arc::new(Outage::new("reviews by kube-apiserver")) }
    }

    /// May this subject do that?
    pub(super) async fn access(
        &self,
        spec: SubjectAccessReviewSpec,
    ) -> Result<SubjectAccessReviewStatus, ReviewError> {
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let api = Api::<SubjectAccessReview>::all(self.client.clone());
        let created = within("SubjectAccessReview", api.create(&PostParams::default(), &review)).await;
        let status = created.map(|review| review.status.unwrap_or_default());
        self.note(Review::SubjectAccess, status.as_ref().map(|status| status.allowed));
        status
    }

    /// Whose token is it?
    pub(super) async fn token(&self, token: String) -> Result<TokenReviewStatus, ReviewError> {
        let spec = TokenReviewSpec { token, ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let api = Api::<TokenReview>::all(self.client.clone());
        let created = within("TokenReview", api.create(&PostParams::default(), &review)).await;
        let status = created.map(|review| review.status.unwrap_or_default());
        self.note(Review::Token, status.as_ref().map(|status| status.authenticated == Some(true)));
        status
    }

    fn note(&self, review: Review, verdict: Result<bool, &ReviewError>) {
        self.outage.note(verdict.map(|_| ()));
        let verdict = match verdict {
            Ok(true) => Verdict::Yes,
            Ok(false) => Verdict::No,
            Err(_) => Verdict::Error,
        };
        self.observer.review(review, verdict);
    }
}

async fn within<T>(
    review: &'static str,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, ReviewError> {
    match timeout(REVIEW_TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|error| ReviewError::Api { review, message: error.to_string() }),
        Err(_) => Err(ReviewError::Timeout { review }),
    }
}

/// Where the caches read the time, so that tests can move it.
pub(super) type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// How long a verdict serves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetime {
    /// Until then nobody is asked again.
    pub(super) fresh: Duration,
    /// Until then it still serves when kube-apiserver gives no answer. At most [`LONGEST_USE`].
    pub(super) usable: Duration,
}

/// Verdicts by question.
pub(super) struct Verdicts<K, V> {
    state: Arc<Mutex<State<K, V>>>,
    clock: Clock,
}

type Flight<V> = Shared<BoxFuture<'static, Result<V, ReviewError>>>;

struct State<K, V> {
    known: ExpiringMap<K, (V, Lifetime)>,
    asking: HashMap<K, Flight<V>>,
}

impl<K, V> Verdicts<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// `capacity` is that of one generation of [`ExpiringMap`].
    pub(super) fn new(capacity: usize, clock: Clock) -> Self {
        let known = ExpiringMap::new(capacity, LONGEST_USE);
        Self { state: Arc::new(Mutex::new(State { known, asking: HashMap::new() })), clock }
    }

    /// The verdict on `key`: remembered while fresh, else asked for once for everybody who waits. When the question
    /// fails, a verdict that is still usable serves; otherwise the error is the answer, never a guess.
    pub(super) async fn get<F>(
        &self,
        key: K,
        lifetime: fn(&V) -> Lifetime,
        ask: impl FnOnce() -> F,
    ) -> Result<V, ReviewError>
    where
        F: Future<Output = Result<V, ReviewError>> + Send + 'static,
    {
        let flight = {
            let mut state = self.state.lock();
            let now = (self.clock)();
            if let Some(((verdict, lifetime), age)) = state.known.get(&key, now)
                && age < lifetime.fresh
            {
                return Ok(verdict.clone());
            }
            let launch = || self.launch(key.clone(), now, lifetime, ask());
            state.asking.entry(key.clone()).or_insert_with(launch).clone()
        };
        match flight.await {
            Ok(verdict) => Ok(verdict),
            Err(error) => self.usable(&key).ok_or(error),
        }
    }

    /// Asks in a task of its own: a reader that goes away does not take the question with it. The verdict counts
    /// from the moment it was asked for, which is no later than the moment it was true.
    fn launch<F>(&self, key: K, asked: Instant, lifetime: fn(&V) -> Lifetime, ask: F) -> Flight<V>
    where
        F: Future<Output = Result<V, ReviewError>> + Send + 'static,
    {
        let state = self.state.clone();
        let task = tokio::spawn(async move {
            let answer = AssertUnwindSafe(ask).catch_unwind().await.unwrap_or_else(|_| {
                Err(ReviewError::Api { review: "review", message: "panicked".to_owned() })
            });
            let mut state = state.lock();
            state.asking.remove(&key);
            if let Ok(verdict) = &answer {
                state.known.insert(key, (verdict.clone(), lifetime(verdict)), asked);
            }
            answer
        });
        task.map(|ended| {
            ended.unwrap_or_else(|error| {
                Err(ReviewError::Api { review: "review", message: error.to_string() })
            })
        })
        .boxed()
        .shared()
    }

    /// The verdict that still serves while kube-apiserver gives none.
    pub(super) fn usable(&self, key: &K) -> Option<V> {
        let state = self.state.lock();
        let ((verdict, lifetime), age) = state.known.get(key, (self.clock)())?;
        (age < lifetime.usable).then(|| verdict.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    use super::*;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that Verdicts asks for")]
    fn lifetime(allowed: &bool) -> Lifetime {
        let seconds = if *allowed { (50, 60) } else { (10, 10) };
        Lifetime { fresh: Duration::from_secs(seconds.0), usable: Duration::from_secs(seconds.1) }
    }

    struct Bed {
        verdicts: Arc<Verdicts<&'static str, bool>>,
        seconds: Arc<AtomicU64>,
        asked: Arc<AtomicU32>,
    }

    fn bed() -> Bed {
        let seconds = Arc::new(AtomicU64::new(0));
        let start = Instant::now();
        let clock: Clock = {
            let seconds = seconds.clone();
            Arc::new(move || start + Duration::from_secs(seconds.load(Ordering::SeqCst)))
        };
        Bed { verdicts: Arc::new(Verdicts::new(16, clock)), seconds, asked: Arc::default() }
    }

    impl Bed {
        async fn ask_at(&self, second: u64, answer: Result<bool, ()>) -> Result<bool, ()> {
            self.seconds.store(second, Ordering::SeqCst);
            let asked = self.asked.clone();
            let answer = answer.map_err(|()| ReviewError::Api { review: "test", message: "down".to_owned() });
            let get = self.verdicts.get("key", lifetime, || async move {
                asked.fetch_add(1, Ordering::SeqCst);
                answer
            });
            get.await.map_err(|_| ())
        }
    }

    /// Second, what kube-apiserver would say, what the reader gets, questions asked so far.
    type Step = (u64, Result<bool, ()>, Result<bool, ()>, u32);

    #[tokio::test]
    async fn verdicts_serve_their_time() {
        let cases: [(&str, &[Step]); 5] = [
            ("fresh", &[(0, Ok(true), Ok(true), 1), (49, Ok(false), Ok(true), 1)]),
            (
                "revoked",
                &[(0, Ok(true), Ok(true), 1), (50, Ok(false), Ok(false), 2), (51, Ok(true), Ok(false), 2)],
            ),
            (
                "denied, then granted",
                &[(0, Ok(false), Ok(false), 1), (9, Ok(true), Ok(false), 1), (10, Ok(true), Ok(true), 2)],
            ),
            (
                "kube-apiserver is down",
                &[
                    (0, Ok(true), Ok(true), 1),
                    (55, Err(()), Ok(true), 2),
                    (59, Err(()), Ok(true), 3),
                    (60, Err(()), Err(()), 4),
                    (61, Ok(true), Ok(true), 5),
                ],
            ),
            (
                "a denial does not outlive its time",
                &[(0, Ok(false), Ok(false), 1), (11, Err(()), Err(()), 2)],
            ),
        ];
        for (name, steps) in cases {
            let bed = bed();
            for (second, answer, want, asked) in steps {
                assert_eq!(bed.ask_at(*second, *answer).await, *want, "{name} at {second}");
                assert_eq!(bed.asked.load(Ordering::SeqCst), *asked, "{name} at {second}");
            }
        }
    }

    #[tokio::test]
    async fn one_question_for_all_who_wait_even_if_the_first_leaves() {
        let bed = bed();
        let (release, released) = tokio::sync::oneshot::channel();
        let first = {
            let (verdicts, asked) = (bed.verdicts.clone(), bed.asked.clone());
            tokio::spawn(async move {
                verdicts
                    .get("key", lifetime, || async move {
                        asked.fetch_add(1, Ordering::SeqCst);
                        released.await.map_err(|_| ReviewError::Timeout { review: "test" })
                    })
                    .await
            })
        };
        while bed.asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (0..10)
            .map(|_| {
                let verdicts = bed.verdicts.clone();
                tokio::spawn(async move {
                    verdicts.get("key", lifetime, || async { panic!("asked twice") }).await.unwrap()
                })
            })
            .collect();
        tokio::task::yield_now().await;
        first.abort();
        release.send(true).unwrap();
        for other in others {
            assert!(other.await.unwrap());
        }
        assert_eq!(bed.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_once() {
        let bed = bed();
        let panicked = bed.verdicts.get("key", lifetime, || async { panic!("reviewer bug") }).await;
        assert!(panicked.is_err());
        assert_eq!(bed.ask_at(0, Ok(true)).await, Ok(true));
    }
}
