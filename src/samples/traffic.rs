//! The requests of each metric, counted as KEDA counts them (`pkg/metricscollector/prommetrics.go`).

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, histogram::Histogram},
};

/// Seconds; KEDA's buckets.
const DURATIONS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How long requests took, by trigger type and status.
pub type Durations = Family<DurationLabels, Histogram, fn() -> Histogram>;

/// Histograms that hold nothing yet.
pub fn durations() -> Durations {
    Family::new_with_constructor(|| Histogram::new(DURATIONS))
}

/// Labels of a request's duration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DurationLabels {
    scaler: String,
    status_code: String,
}

/// The requests of one metric.
pub struct Traffic {
    scaler: String,
    durations: Durations,
    /// By status; `None` where no answer came.
    requests: Mutex<BTreeMap<Option<u16>, u64>>,
    empty: AtomicU64,
    empty_ignored: AtomicU64,
}

impl Traffic {
    /// None yet. `scaler` is the trigger's type.
    pub fn new(scaler: &str, durations: Durations) -> Arc<Self> {
        Arc::new(Self {
            scaler: scaler.to_owned(),
            durations,
            requests: Mutex::default(),
            empty: AtomicU64::new(0),
            empty_ignored: AtomicU64::new(0),
        })
    }

    /// The trigger's type.
    pub fn scaler(&self) -> &str {
        &self.scaler
    }

    /// How many requests there were, by status.
    pub fn requests(&self) -> Vec<(String, u64)> {
        self.requests.lock().iter().map(|(status, count)| (label(*status), *count)).collect()
    }

    /// How many answers held no value: those taken for 0 (`true`), and those that were errors.
    pub fn empty(&self) -> [(bool, u64); 2] {
        [(true, &self.empty_ignored), (false, &self.empty)]
            .map(|(ignored, count)| (ignored, count.load(Ordering::Relaxed)))
    }
}

/// The status as a label; `error` where no answer came.
fn label(status: Option<u16>) -> String {
    status.map_or_else(|| "error".to_owned(), |status| status.to_string())
}

impl scalers::Observer for Traffic {
    fn request(&self, status: Option<u16>, took: Duration) {
        *self.requests.lock().entry(status).or_default() += 1;
        let labels = DurationLabels { scaler: self.scaler.clone(), status_code: label(status) };
        self.durations.get_or_create(&labels).observe(took.as_secs_f64());
    }

    fn empty_answer(&self, ignored: bool) {
        let count = if ignored { &self.empty_ignored } else { &self.empty };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use scalers::Observer;

    use super::*;

    #[test]
    fn requests_are_counted_by_status_and_empty_answers_by_what_becomes_of_them() {
        let traffic = Traffic::new("prometheus", durations());
        for status in [Some(200), None, Some(200)] {
            traffic.request(status, Duration::from_millis(3));
        }
        traffic.empty_answer(true);
        assert_eq!(traffic.requests(), [("error".to_owned(), 1), ("200".to_owned(), 2)]);
        assert_eq!(traffic.empty(), [(true, 1), (false, 0)]);
    }
}
