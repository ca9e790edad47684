//! Serves external.metrics.k8s.io/v1beta1 to kube-apiserver's aggregation layer, and so to every HPA.
//!
//! A request is authenticated ([`authentication`]: front proxy, client certificate, token), authorised
//! ([`authorization`]) and answered by the [`MetricSource`]. Discovery is answered from memory, always: an API service
//! that answers 503 is marked stale, and a stale group blocks the deletion of namespaces all over the cluster. What is
//! not ready yet says so on `/readyz`, and the Service leaves it out.

mod accept;
mod authentication;
mod authorization;
mod discovery;
mod expiring;
mod observe;
mod percent;
mod reviews;
mod route;
mod selector;
mod source;
mod status;
mod trust;
mod upstream;
mod value_list;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
    request::Parts,
};
use http_body_util::Full;
use kube::Client;
use rustls::ServerConfig;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::{
    authentication::{Authenticator, User},
    authorization::{Authorizer, Decision},
    discovery::Discovery,
    observe::{Outage, Outcome},
    reviews::{ReviewError, Reviewer},
    route::Route,
    status::Failure,
};
pub use self::{
    observe::Observer,
    source::{MetricError, MetricRequest, MetricSource, MetricValue},
    trust::{Trust, TrustError, TrustStore, watch as watch_trust},
    upstream::{SERVICE_ACCOUNT_TOKEN, Upstream, UpstreamConfig, UpstreamError},
};
use crate::serve::{PeerCertificates, serve};

/// A read that takes longer is given up. Sources have their own, shorter deadlines; this one is for their bugs.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// What the server needs of the rest of the process.
pub struct MetricsApiConfig {
    /// Answers reads.
    pub source: Arc<dyn MetricSource>,
    /// For `SubjectAccessReview` and `TokenReview`.
    pub client: Client,
    /// Client authorities, kept current by [`watch_trust`].
    pub trust: Arc<TrustStore>,
    /// Where metrics that are not ours come from, if anywhere.
    pub upstream: Option<Upstream>,
    /// Whether `/readyz` says yes.
    pub ready: Box<dyn Fn() -> bool + Send + Sync>,
    /// Counters; registered by the caller.
    pub observer: Observer,
}

/// The external metrics API.
pub struct MetricsApi {
    source: Arc<dyn MetricSource>,
    authenticator: Authenticator,
    authorizer: Authorizer,
    discovery: Discovery,
    upstream: Option<Upstream>,
    upstream_outage: Outage,
    ready: Box<dyn Fn() -> bool + Send + Sync>,
    observer: Observer,
}

type Answer = Response<Full<Bytes>>;

/// An answer or a failure, with what it counts as.
type Reply = Result<(Outcome, Answer), (Outcome, Failure)>;

impl MetricsApi {
    /// Puts the server together; it asks nobody yet.
    pub fn new(config: MetricsApiConfig) -> Self {
        Self::with_clock(config, Arc::new(Instant::now))
    }

    fn with_clock(config: MetricsApiConfig, clock: reviews::Clock) -> Self {
        let MetricsApiConfig { source, client, trust, upstream, ready, observer } = config;
        let reviewer = Reviewer::new(client, observer.clone());
        Self {
            source,
            authenticator: Authenticator::new(trust, reviewer.clone(), clock.clone()),
            authorizer: Authorizer::new(reviewer, clock),
            discovery: Discovery::default(),
            upstream,
            upstream_outage: Outage::new("reads of the external metrics upstream"),
            ready,
            observer,
        }
    }

    /// Serves until `shutdown`; open requests may finish.
    pub async fn run(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        shutdown: CancellationToken,
    ) {
        let handler = move |request, peer| {
            let api = self.clone();
            async move { api.handle(request, peer).await }
        };
        serve(listener, tls, handler, shutdown).await;
    }

    /// Answers one request; its body, which no GET needs, is dropped unread.
    pub async fn handle<B>(&self, request: Request<B>, peer: PeerCertificates) -> Answer {
        let started = Instant::now();
        let (head, _) = request.into_parts();
        let (outcome, answer) = match self.answer(&head, &peer).await {
            Ok(answer) => answer,
            Err((outcome, failure)) => {
                debug!(path = head.uri.path(), ?failure, "refused");
                (outcome, failure_answer(&failure))
            }
        };
        self.observer.request(outcome, answer.status(), started.elapsed());
        answer
    }

    async fn answer(&self, head: &Parts, peer: &PeerCertificates) -> Reply {
        let route = route::parse(head.uri.path());
        if matches!(route, Route::Alive | Route::Ready) {
            require_get(&head.method)?;
            return Ok((Outcome::Probe, probe(matches!(route, Route::Alive) || (self.ready)())));
        }
        let user = self
            .authenticator
            .authenticate(&head.headers, peer)
            .await
            .map_err(|error| review_failed(&error))?;
        let user = user.ok_or_else(|| (Outcome::Refused, Failure::unauthorized()))?;
        require_get(&head.method)?;
        match route {
            // The documents say nothing about the cluster and are the same for all: no question to kube-apiserver
            // stands between them and the aggregator.
            Route::Discovery(document) => {
                Ok((Outcome::Discovery, self.discovery.answer(document, &head.headers)))
            }
            Route::OpenApi => Err((Outcome::Discovery, Failure::no_such_path())),
            Route::Nowhere => Err((Outcome::Invalid, Failure::no_such_path())),
            Route::Metric { namespace, metric } => self.read(head, &user, &namespace, &metric).await,
            Route::Alive | Route::Ready | Route::Unknown => {
                let decision = self
                    .authorizer
                    .path(&user, head.uri.path())
                    .await
                    .map_err(|error| review_failed(&error))?;
                Err(match decision {
                    Decision::Allowed => (Outcome::Invalid, Failure::no_such_path()),
                    Decision::Denied(_) => {
                        (Outcome::Refused, Failure::forbidden_path(&user, head.uri.path()))
                    }
                })
            }
        }
    }

    async fn read(&self, head: &Parts, user: &Arc<User>, namespace: &str, metric: &str) -> Reply {
        let decision =
            self.authorizer.metric(user, namespace, metric).await.map_err(|error| review_failed(&error))?;
        if let Decision::Denied(why) = decision {
            return Err((Outcome::Refused, Failure::forbidden_metric(user, namespace, metric, &why)));
        }
        let invalid = |failure| (Outcome::Invalid, failure);
        let encoding = accept::negotiate(&head.headers).ok_or_else(|| invalid(Failure::not_acceptable()))?;
        let scaled_object = scaled_object(head.uri.query().unwrap_or_default()).map_err(invalid)?;
        let Some(scaled_object) = scaled_object else {
            let unnamed = Failure::bad_request("scaledObject name is not specified");
            return self.forward(head).await.unwrap_or(Err(invalid(unnamed)));
        };
        let request = MetricRequest {
            namespace: namespace.to_owned(),
            metric: metric.to_owned(),
            scaled_object,
            reader: user.name.clone(),
        };
        match timeout(READ_TIMEOUT, self.source.get(request)).await {
            Ok(Ok(value)) => {
                let mut answer = Response::new(Full::new(value_list::encode(metric, value, encoding)));
                answer.headers_mut().insert(CONTENT_TYPE, encoding.content_type());
                Ok((Outcome::Served, answer))
            }
            Ok(Err(MetricError::NotFound(message))) => {
                let unknown = (Outcome::NotFound, Failure::no_such_metric(metric, message));
                self.forward(head).await.unwrap_or(Err(unknown))
            }
            Ok(Err(MetricError::Failed(message))) => Err((Outcome::Failed, Failure::internal(message))),
            Err(_) => {
                let message = format!("no value for {namespace}/{metric} in {} s", READ_TIMEOUT.as_secs());
                Err((Outcome::Failed, Failure::timeout(message)))
            }
        }
    }

    /// The upstream's answer; None without an upstream, or when the request came from one of us already.
    async fn forward(&self, head: &Parts) -> Option<Reply> {
        let upstream = self.upstream.as_ref()?;
        if Upstream::is_loop(&head.headers) {
            self.upstream_outage.note(Err("its URL leads back to Tandem"));
            return None;
        }
        let path = head.uri.path_and_query().map_or("", |path| path.as_str());
        let relayed = upstream.get(path, &head.headers).await;
        self.upstream_outage.note(relayed.as_ref().map(|_| ()));
        Some(match relayed {
            Ok(answer) if answer.status() == StatusCode::NOT_FOUND => Ok((Outcome::NotFound, answer)),
            Ok(answer) => Ok((Outcome::Forwarded, answer)),
            Err(error @ UpstreamError::Timeout { .. }) => {
                Err((Outcome::Failed, Failure::timeout(error.to_string())))
            }
            Err(error) => Err((Outcome::Failed, Failure::internal(error.to_string()))),
        })
    }
}

/// The object's name in the query's selector.
fn scaled_object(query: &str) -> Result<Option<String>, Failure> {
    let selector = percent::query_value(query, "labelSelector")
        .map_err(|_| Failure::bad_request("labelSelector is not percent-encoded UTF-8"))?;
    selector::scaled_object(&selector.unwrap_or_default())
        .map_err(|error| Failure::bad_request(error.to_string()))
}

fn require_get(method: &Method) -> Result<(), (Outcome, Failure)> {
    if method == Method::GET { Ok(()) } else { Err((Outcome::Invalid, Failure::method_not_allowed())) }
}

fn review_failed(error: &ReviewError) -> (Outcome, Failure) {
    (Outcome::Failed, Failure::internal(error.to_string()))
}

fn failure_answer(failure: &Failure) -> Answer {
    let mut answer = Response::new(Full::new(failure.body()));
    *answer.status_mut() = failure.code;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if failure.code == StatusCode::METHOD_NOT_ALLOWED {
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    }
    answer
}

/// 500 rather than 503 for "not ready", as kube-apiserver's own probes answer.
fn probe(healthy: bool) -> Answer {
    let mut answer = Response::new(Full::from(if healthy { "ok" } else { "not ready" }));
    if !healthy {
        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
