//! Admission: looks at ScaledObjects, ScaledJobs and TriggerAuthentications before they are stored.
//!
//! The rules live in [`crate::check`]; here is what carries them: paths, admission reviews, counters. An answer comes from
//! memory within milliseconds; no source is ever asked, so an apply never waits for one.

mod lookup;
mod observe;
mod review;
mod warnings;

use std::{fmt::Display, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;

use crate::check::{Kind, Lookup, Schemas};

pub use self::observe::Observer;

/// The largest `AdmissionReview` that is read, bytes: the old and the new object, each at most the 3 MiB that
/// kube-apiserver takes (k8s.io/apiserver, `MaxRequestBodyBytes`), and what is around them.
const BODY_LIMIT: usize = 7 << 20;

/// The path of each kind (KEDA's, from controller-runtime: `/validate-<group>-<version>-<kind>`).
pub const PATHS: [(&str, Kind); 4] = [
    ("/validate-keda-sh-v1alpha1-scaledobject", Kind::ScaledObject),
    ("/validate-keda-sh-v1alpha1-scaledjob", Kind::ScaledJob),
    ("/validate-keda-sh-v1alpha1-triggerauthentication", Kind::TriggerAuthentication),
    ("/validate-keda-sh-v1alpha1-clustertriggerauthentication", Kind::ClusterTriggerAuthentication),
];

/// The webhooks. Clones share everything.
#[derive(Clone)]
pub struct Webhooks(Arc<Shared>);

struct Shared {
    schemas: Schemas,
    lookup: Arc<dyn Lookup>,
    observer: Observer,
}

impl Webhooks {
    /// Webhooks that judge by what `lookup` holds.
    pub fn new(lookup: Arc<dyn Lookup>, observer: Observer) -> Self {
        Self(Arc::new(Shared { schemas: Schemas::default(), lookup, observer }))
    }

    /// Answers one request: an `AdmissionReview` by an `AdmissionReview`, anything else by an HTTP error that says why.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let Some((_, kind)) = PATHS.into_iter().find(|(known, _)| *known == path) else {
            return refuse(StatusCode::NOT_FOUND, format_args!("no webhook at {path:?}"));
        };
        if head.method != Method::POST {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "an AdmissionReview comes by POST");
        }
        let content_type =
            head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if content_type.split(';').next().map(str::trim) != Some("application/json") {
            let problem = format!("an AdmissionReview is application/json, not {content_type:?}");
            return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem);
        }
        let body = match Limited::new(body, BODY_LIMIT).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                return refuse(StatusCode::PAYLOAD_TOO_LARGE, format_args!("cannot read the body: {error}"));
            }
        };
        let started = Instant::now();
        let response = match self.review(kind, &body) {
            Ok(review) => respond(StatusCode::OK, "application/json", review),
            Err(error) => refuse(StatusCode::BAD_REQUEST, error),
        };
        self.0.observer.answered(started.elapsed());
        response
    }
}

fn refuse(status: StatusCode, problem: impl Display) -> Response<Full<Bytes>> {
    tracing::debug!(%status, %problem, "admission request refused");
    respond(status, "text/plain; charset=utf-8", problem.to_string().into())
}

fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests;
