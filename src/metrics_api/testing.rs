//! For tests: a Kubernetes API that answers reviews, and a metric source.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use k8s_openapi::api::authorization::v1::{SubjectAccessReview, SubjectAccessReviewSpec};
use kube::{Client, client::Body};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{MetricError, MetricRequest, MetricSource, MetricValue, Trust, reviews::Clock};
use crate::serve::testing::Authority;

/// A right: user, namespace ("" is all), resource ("*" is all).
pub(super) type Right = (&'static str, &'static str, &'static str);

/// User and groups.
pub(super) type Holder = (&'static str, &'static [&'static str]);

/// kube-apiserver as far as reviews go.
#[derive(Clone, Default)]
pub(super) struct FakeKubernetes {
    pub(super) rights: Arc<Mutex<Vec<Right>>>,
    /// Whose token it is.
    pub(super) tokens: Arc<Mutex<HashMap<&'static str, Holder>>>,
    pub(super) down: Arc<AtomicBool>,
    pub(super) asked: Arc<Mutex<Vec<SubjectAccessReviewSpec>>>,
    pub(super) token_reviews: Arc<AtomicU64>,
}

impl FakeKubernetes {
    pub(super) fn client(&self) -> Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let fake = fake.clone();
            async move { Ok::<_, Infallible>(fake.answer(request).await) }
        });
        Client::new(service, "default")
    }

    /// How many reviews asked about this namespace and resource.
    pub(super) fn asked_about(&self, namespace: &str, resource: &str) -> usize {
        let matches = |spec: &&SubjectAccessReviewSpec| {
            spec.resource_attributes.as_ref().is_some_and(|attributes| {
                attributes.namespace.as_deref().unwrap_or_default() == namespace
                    && attributes.resource.as_deref() == Some(resource)
            })
        };
        self.asked.lock().iter().filter(matches).count()
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        if self.down.load(Ordering::SeqCst) {
            return respond(
                StatusCode::INTERNAL_SERVER_ERROR,
                &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "message": "etcd is away", "reason": "InternalError", "code": 500}),
            );
        }
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        match path.as_str() {
            "/apis/authorization.k8s.io/v1/subjectaccessreviews" => {
                let mut review: SubjectAccessReview = serde_json::from_slice(&body).unwrap();
                let allowed = self.may(&review.spec);
                self.asked.lock().push(review.spec.clone());
                review.status = serde_json::from_value(json!({"allowed": allowed})).unwrap();
                respond(StatusCode::CREATED, &serde_json::to_value(&review).unwrap())
            }
            "/apis/authentication.k8s.io/v1/tokenreviews" => {
                self.token_reviews.fetch_add(1, Ordering::SeqCst);
                let mut review: Value = serde_json::from_slice(&body).unwrap();
                let token = review["spec"]["token"].as_str().unwrap().to_owned();
                review["status"] = match self.tokens.lock().get(token.as_str()) {
                    Some((name, groups)) => {
                        json!({"authenticated": true, "user": {"username": name, "uid": "7", "groups": groups}})
                    }
                    None => json!({"authenticated": false, "error": "invalid bearer token"}),
                };
                respond(StatusCode::CREATED, &review)
            }
            path => panic!("unexpected request to {path}"),
        }
    }

    /// RBAC in one line.
    fn may(&self, spec: &SubjectAccessReviewSpec) -> bool {
        let Some(attributes) = &spec.resource_attributes else { return false };
        assert_eq!(attributes.verb.as_deref(), Some("list"));
        assert_eq!(attributes.group.as_deref(), Some("external.metrics.k8s.io"));
        self.rights.lock().iter().any(|(user, namespace, resource)| {
            spec.user.as_deref() == Some(user)
                && (namespace.is_empty() || attributes.namespace.as_deref() == Some(namespace))
                && (*resource == "*" || attributes.resource.as_deref() == Some(resource))
        })
    }
}

fn respond(status: StatusCode, document: &Value) -> Response<Body> {
    let builder = Response::builder().status(status).header("content-type", "application/json");
    builder.body(Body::from(document.to_string().into_bytes())).unwrap()
}

/// A clock that stands still until it is moved.
#[derive(Clone)]
pub(super) struct ManualClock {
    start: Instant,
    seconds: Arc<AtomicU64>,
}

impl ManualClock {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), seconds: Arc::default() }
    }

    pub(super) fn set(&self, seconds: u64) {
        self.seconds.store(seconds, Ordering::SeqCst);
    }

    pub(super) fn clock(&self) -> Clock {
        let this = self.clone();
        Arc::new(move || this.start + Duration::from_secs(this.seconds.load(Ordering::SeqCst)))
    }
}

/// Knows web/nginx with the metrics `s0-prometheus` (8.5), `s1-broken` and `s2-hangs`.
pub(super) struct FakeSource;

#[async_trait]
impl MetricSource for FakeSource {
    async fn get(&self, request: MetricRequest) -> Result<MetricValue, MetricError> {
        let MetricRequest { namespace, metric, scaled_object, .. } = request;
        match (namespace.as_str(), scaled_object.as_str(), metric.as_str()) {
            ("web", "nginx", "s0-prometheus") => {
                Ok(MetricValue { milli: 8500, taken_at: "2026-11-20T00:00:00Z".parse().unwrap() })
            }
            ("web", "nginx", "s1-broken") => Err(MetricError::Failed("prometheus answered 502".to_owned())),
            ("web", "nginx", "s2-panics") => panic!("a scaler's bug"),
            _ => Err(MetricError::NotFound(format!(
                "no metric {metric} of ScaledObject {namespace}/{scaled_object}"
            ))),
        }
    }
}

/// The `ConfigMap` as kube-apiserver writes it.
pub(super) fn config_map(
    front_proxy: Option<&Authority>,
    allowed_names: &str,
    clients: Option<&Authority>,
) -> BTreeMap<String, String> {
    let mut data = BTreeMap::from([
        ("requestheader-allowed-names", allowed_names.to_owned()),
        ("requestheader-username-headers", r#"["X-Remote-User"]"#.to_owned()),
        ("requestheader-uid-headers", r#"["X-Remote-Uid"]"#.to_owned()),
        ("requestheader-group-headers", r#"["X-Remote-Group"]"#.to_owned()),
        ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#.to_owned()),
    ]);
    if let Some(authority) = front_proxy {
        data.insert("requestheader-client-ca-file", authority.pem());
    }
    if let Some(authority) = clients {
        data.insert("client-ca-file", authority.pem());
    }
    data.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The trust that such a `ConfigMap` gives.
pub(super) fn trust(
    front_proxy: Option<&Authority>,
    allowed_names: &str,
    clients: Option<&Authority>,
) -> Trust {
    Trust::from_config_map(&config_map(front_proxy, allowed_names, clients)).unwrap()
}
