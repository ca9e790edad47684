//! How fresh samples are when they are read, and how punctual polls are.

use std::time::Duration;

use prometheus_client::{metrics::histogram::Histogram, registry::Registry};

use super::traffic::{self, Durations};

/// Seconds. Around the promise: a reader with a rhythm sees a sample of at most 2 s.
const AGES: [f64; 10] = [0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 15.0, 30.0];
/// Seconds. Around the promise: polls start within 50 ms of their time.
const DELAYS: [f64; 9] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

/// Histograms of the sample store. Clones share their values.
#[derive(Clone, Debug)]
pub struct Observer {
    ages: Histogram,
    delays: Histogram,
    /// How long requests to sources took.
    pub durations: Durations,
}

impl Default for Observer {
    fn default() -> Self {
        Self { ages: Histogram::new(AGES), delays: Histogram::new(DELAYS), durations: traffic::durations() }
    }
}

impl Observer {
    /// Registers `tandem_hpa_sample_age_seconds`, `tandem_poll_start_delay_seconds` and
    /// `keda_scaler_http_request_duration_seconds`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "tandem_hpa_sample_age_seconds",
            "Age of the sample that the HPA controller was given",
            self.ages.clone(),
        );
        registry.register(
            "tandem_poll_start_delay_seconds",
            "How much later than planned a poll started",
            self.delays.clone(),
        );
        registry.register(
            "keda_scaler_http_request_duration_seconds",
            "How long the requests of triggers to their sources took",
            self.durations.clone(),
        );
    }

    pub(super) fn age(&self, age: Duration) {
        self.ages.observe(age.as_secs_f64());
    }

    /// A poll started this late.
    pub fn delay(&self, delay: Duration) {
        self.delays.observe(delay.as_secs_f64());
    }
}
