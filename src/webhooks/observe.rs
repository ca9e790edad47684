//! What the webhooks tell about themselves: KEDA's counters, so that its dashboards and alerts go on working, and a
//! latency of our own.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

/// Upper bounds in seconds: an answer comes from memory and takes well under a millisecond; 10 s is the deadline that
/// the installed configuration gives kube-apiserver.
const LATENCY_BUCKETS: [f64; 9] = [0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 1.0, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ValidationLabels {
    namespace: String,
    action: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    namespace: String,
    action: &'static str,
    reason: &'static str,
}

/// Counters of the webhooks. Clones share their values.
#[derive(Clone, Debug)]
pub struct Observer {
    validations: Family<ValidationLabels, Counter>,
    errors: Family<ErrorLabels, Counter>,
    latency: Histogram,
}

impl Default for Observer {
    fn default() -> Self {
        Self {
            validations: Family::default(),
            errors: Family::default(),
            latency: Histogram::new(LATENCY_BUCKETS),
        }
    }
}

impl Observer {
    /// Registers `keda_webhook_scaled_object_validations_total` and `keda_webhook_scaled_object_validation_errors_total`
    /// (names and labels: KEDA, `pkg/metricscollector/webhook/prommetrics.go`) and `tandem_webhook_duration_seconds`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "keda_webhook_scaled_object_validations",
            "Total number of scaled object validations",
            self.validations.clone(),
        );
        registry.register(
            "keda_webhook_scaled_object_validation_errors",
            "Total number of scaled object validating errors",
            self.errors.clone(),
        );
        registry.register(
            "tandem_webhook_duration_seconds",
            "Time from an admission request's body to its answer, inside this server",
            self.latency.clone(),
        );
    }

    /// Counts one ScaledObject that was looked at, and the reason of each violation. `action` is create or update.
    pub(super) fn scaled_object(
        &self,
        namespace: &str,
        action: &'static str,
        reasons: impl Iterator<Item = &'static str>,
    ) {
        let namespace = namespace.to_owned();
        self.validations.get_or_create(&ValidationLabels { namespace: namespace.clone(), action }).inc();
        for reason in reasons {
            let labels = ErrorLabels { namespace: namespace.clone(), action, reason };
            self.errors.get_or_create(&labels).inc();
        }
    }

    /// Records how long an answer took.
    pub(super) fn answered(&self, took: Duration) {
        self.latency.observe(took.as_secs_f64());
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
        observer.scaled_object("web", "create", std::iter::empty());
        observer.scaled_object("web", "create", ["other-hpa", "incorrect-replicas"].into_iter());
        observer.answered(Duration::from_micros(400));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"keda_webhook_scaled_object_validations_total{namespace="web",action="create"} 2"#,
            r#"keda_webhook_scaled_object_validation_errors_total{namespace="web",action="create",reason="other-hpa"} 1"#,
            r#"tandem_webhook_duration_seconds_bucket{le="0.0005"} 1"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
