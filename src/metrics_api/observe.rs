//! What the server tells about itself.

use std::{
    fmt::Display,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use http::StatusCode;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};
use tracing::{info, warn};

/// Upper bounds in seconds. An answer from memory takes well under a millisecond, a read of the source up to seconds.
const LATENCY_BUCKETS: [f64; 13] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0];

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A metric value of ours.
    Served,
    /// Answered by the upstream adapter.
    Forwarded,
    /// No such metric, here or upstream.
    NotFound,
    /// A metric without a value: its source, the upstream or a review failed.
    Failed,
    /// Not authenticated or not allowed.
    Refused,
    /// Wrong path, method, selector or `Accept`.
    Invalid,
    /// A discovery document.
    Discovery,
    /// A probe.
    Probe,
}

/// Which review was asked of kube-apiserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Review {
    /// `SubjectAccessReview`
    SubjectAccess,
    /// `TokenReview`
    Token,
}

/// What a review said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Allowed, authenticated.
    Yes,
    /// Denied, not authenticated.
    No,
    /// kube-apiserver gave no answer.
    Error,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Forwarded => "forwarded",
            Self::NotFound => "not_found",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::Discovery => "discovery",
            Self::Probe => "probe",
        }
    }
}

impl ReviewLabels {
    fn new(review: Review, verdict: Verdict) -> Self {
        let review = match review {
            Review::SubjectAccess => "subject_access",
            Review::Token => "token",
        };
        let verdict = match verdict {
            Verdict::Yes => "yes",
            Verdict::No => "no",
            Verdict::Error => "error",
        };
        Self { review, verdict }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    result: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReviewLabels {
    review: &'static str,
    verdict: &'static str,
}

/// Counters and histograms of the metrics API. Clones share their values.
#[derive(Clone, Debug)]
pub struct Observer {
    requests: Family<RequestLabels, Counter>,
    latency: Histogram,
    reviews: Family<ReviewLabels, Counter>,
}

impl Default for Observer {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            latency: Histogram::new(LATENCY_BUCKETS),
            reviews: Family::default(),
        }
    }
}

impl Observer {
    /// Registers `tandem_metrics_api_requests_total`, `tandem_metrics_api_read_duration_seconds` and
    /// `tandem_metrics_api_reviews_total`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "tandem_metrics_api_requests",
            "Requests to the external metrics API by result and HTTP code",
            self.requests.clone(),
        );
        registry.register(
            "tandem_metrics_api_read_duration_seconds",
            "Time from a metric read's headers to its answer, inside this server",
            self.latency.clone(),
        );
        registry.register(
            "tandem_metrics_api_reviews",
            "Reviews asked of kube-apiserver by kind and verdict; cached verdicts are not asked for",
            self.reviews.clone(),
        );
    }

    /// Counts a request; the latency histogram takes metric reads only.
    pub(super) fn request(&self, result: Outcome, code: StatusCode, took: Duration) {
        self.requests.get_or_create(&RequestLabels { result: result.label(), code: code.as_u16() }).inc();
        if matches!(result, Outcome::Served | Outcome::Forwarded | Outcome::NotFound | Outcome::Failed) {
            self.latency.observe(took.as_secs_f64());
        }
    }

    /// Counts a review.
    pub(super) fn review(&self, review: Review, verdict: Verdict) {
        self.reviews.get_or_create(&ReviewLabels::new(review, verdict)).inc();
    }

    /// Reviews asked so far with this verdict.
    #[cfg(test)]
    pub(super) fn reviews(&self, review: Review, verdict: Verdict) -> u64 {
        self.reviews.get_or_create(&ReviewLabels::new(review, verdict)).get()
    }
}

/// Logs the beginning and the end of an outage, not each request that it fails.
#[derive(Debug)]
pub(super) struct Outage {
    of: &'static str,
    lasts: AtomicBool,
}

impl Outage {
    pub(super) fn new(of: &'static str) -> Self {
        Self { of, lasts: AtomicBool::new(false) }
    }

    /// Takes notice of one attempt.
    pub(super) fn note<E: Display>(&self, attempt: Result<(), E>) {
        let lasted = self.lasts.swap(attempt.is_err(), Ordering::Relaxed);
        match attempt {
            Err(error) if !lasted => warn!(%error, "{} began to fail", self.of),
            Ok(()) if lasted => info!("{} work again", self.of),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposition() {
        let mut registry = Registry::default();
        let observer = Observer::default();
        observer.register(&mut registry);
        observer.request(Outcome::Served, StatusCode::OK, Duration::from_micros(200));
        observer.request(Outcome::Discovery, StatusCode::OK, Duration::from_secs(1));
        observer.request(Outcome::NotFound, StatusCode::NOT_FOUND, Duration::from_millis(2));
        observer.review(Review::SubjectAccess, Verdict::No);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"tandem_metrics_api_requests_total{result="served",code="200"} 1"#,
            r#"tandem_metrics_api_requests_total{result="not_found",code="404"} 1"#,
            r#"tandem_metrics_api_read_duration_seconds_bucket{le="0.00025"} 1"#,
            "tandem_metrics_api_read_duration_seconds_count 2",
            r#"tandem_metrics_api_reviews_total{review="subject_access",verdict="no"} 1"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
