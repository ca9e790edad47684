//! One external metric of one trigger: its latest sample, and the one query at a time that refreshes it.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use scalers::{Context, Reading, Scaler};
use tokio::time::Instant;

use super::traffic::Traffic;

/// What a source said, and when.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When the query was sent.
    pub taken: Instant,
    /// The same instant on the wall clock.
    pub at: Timestamp,
    /// How long the answer took.
    pub latency: Duration,
    /// The value, or why there is none.
    pub result: Result<Reading, Arc<str>>,
}

/// One external metric.
pub struct Slot {
    /// As the HPA knows it: `s0-prometheus`.
    pub metric: String,
    /// As the scaler knows it: `prometheus`.
    pub part: String,
    /// Position of the trigger in the object.
    pub trigger: usize,
    /// The trigger's name, which the formula uses.
    pub trigger_name: Option<String>,
    /// Per-pod or whole-workload target, in thousandths.
    pub target: tandem_core::pods::hpa::Target,
    /// Its requests.
    pub traffic: Arc<Traffic>,
    latest: Mutex<Option<Sample>>,
    flight: tokio::sync::Mutex<()>,
    errors: AtomicU64,
}

impl Slot {
    /// A slot without a sample.
    pub fn new(
        metric: String,
        part: String,
        trigger: usize,
        trigger_name: Option<String>,
        target: tandem_core::pods::hpa::Target,
        traffic: Arc<Traffic>,
    ) -> Self {
        Self {
            metric,
            part,
            trigger,
            trigger_name,
            target,
            traffic,
            latest: Mutex::default(),
            flight: tokio::sync::Mutex::default(),
            errors: AtomicU64::new(0),
        }
    }

    /// The latest sample.
    pub fn latest(&self) -> Option<Sample> {
        self.latest.lock().clone()
    }

    /// When the latest sample was taken.
    pub fn taken(&self) -> Option<Instant> {
        self.latest.lock().as_ref().map(|sample| sample.taken)
    }

    /// How long the latest sample took.
    pub fn latency(&self) -> Option<Duration> {
        self.latest.lock().as_ref().map(|sample| sample.latency)
    }

    /// How many queries have failed.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// A failure where there is no source to ask.
    pub fn fail(&self, cx: &Context, error: &str) -> Sample {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let sample = Sample {
            taken: Instant::now(),
            at: (cx.now)(),
            latency: Duration::ZERO,
            result: Err(error.into()),
        };
        *self.latest.lock() = Some(sample.clone());
        sample
    }

    /// Takes over the failure of an earlier slot, so that a try to build the trigger anew is not counted as another.
    pub fn inherit(&self, earlier: &Self) {
        *self.latest.lock() = earlier.latest().filter(|sample| sample.result.is_err());
    }

    /// Asks the source, unless an answer comes while this call waits for its turn: then that one serves (single flight).
    /// `true` with a sample that this call took.
    pub async fn refresh(&self, scaler: &dyn Scaler, cx: &Context, deadline: Duration) -> (Sample, bool) {
        let wanted = Instant::now();
        let _flight = self.flight.lock().await;
        if let Some(sample) = self.latest().filter(|sample| sample.taken + sample.latency >= wanted) {
            return (sample, false);
        }
        let (taken, at) = (Instant::now(), (cx.now)());
        let result = guarded_read(scaler, &cx.observed(self.traffic.clone()), &self.part, deadline).await;
        if result.is_err() {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        let sample = Sample { taken, at, latency: taken.elapsed(), result };
        *self.latest.lock() = Some(sample.clone());
        (sample, true)
    }
}

/// One read, with a deadline, and a panic turned into this trigger's error: a faulty scaler is its trigger's
/// condition, never another object's.
async fn guarded_read(
    scaler: &dyn Scaler,
    cx: &Context,
    part: &str,
    deadline: Duration,
) -> Result<Reading, Arc<str>> {
    let read = AssertUnwindSafe(scaler.read(cx, part)).catch_unwind();
    match tokio::time::timeout(deadline, read).await {
        Ok(Ok(Ok(reading))) => Ok(reading),
        Ok(Ok(Err(error))) => Err(error.to_string().into()),
        Ok(Err(panic)) => Err(format!("the scaler panicked: {}", panic_text(panic.as_ref())).into()),
        Err(_) => Err(format!("no answer within {} ms", deadline.as_millis()).into()),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use async_trait::async_trait;
    use scalers::{Error, Metric};
    use tokio::sync::Semaphore;

    use super::{super::traffic, *};

    struct NoCluster;

    #[async_trait]
    impl scalers::Cluster for NoCluster {
        async fn count_pods(&self, _: &str, _: &str, _: bool) -> Result<i64, Error> {
            Err(Error::Cluster("none".to_owned()))
        }

        async fn config_map_value(&self, _: &str, _: &str, _: &str) -> Result<Option<String>, Error> {
            Ok(None)
        }

        async fn secret_value(&self, _: &str, _: &str, _: &str) -> Result<Option<String>, Error> {
            Ok(None)
        }

        async fn service_endpoints(&self, _: &str, _: &str) -> Result<Vec<String>, Error> {
            Ok(Vec::new())
        }
    }

    /// Answers once its gate opens, or panics.
    struct Gated {
        gate: Semaphore,
        asked: AtomicUsize,
        panics: bool,
    }

    #[async_trait]
    impl Scaler for Gated {
        async fn metrics(&self, _: &Context) -> Result<Vec<Metric>, Error> {
            Ok(Vec::new())
        }

        async fn read(&self, _: &Context, _: &str) -> Result<Reading, Error> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            assert!(!self.panics, "boom");
            let _open = self.gate.acquire().await;
            Ok(Reading { milli: 5000, active: true })
        }
    }

    fn bed(panics: bool) -> (Slot, Gated, Context) {
        let target = tandem_core::pods::hpa::Target::default();
        let slot = Slot::new(
            "s0-gated".to_owned(),
            "gated".to_owned(),
            0,
            None,
            target,
            Traffic::new("gated", traffic::durations()),
        );
        let scaler = Gated { gate: Semaphore::new(0), asked: AtomicUsize::new(0), panics };
        (slot, scaler, Context::new(Arc::new(NoCluster)).unwrap())
    }

    #[tokio::test]
    async fn who_waits_for_the_same_metric_shares_one_query() {
        let (slot, scaler, cx) = bed(false);
        let readers = (0..10).map(|_| slot.refresh(&scaler, &cx, Duration::from_mins(1)));
        let open = async {
            tokio::task::yield_now().await;
            scaler.gate.add_permits(1);
        };
        let (read, ()) = tokio::join!(futures::future::join_all(readers), open);
        assert_eq!(scaler.asked.load(Ordering::Relaxed), 1);
        assert!(
            read.iter().all(|(sample, _)| sample.result.as_ref().is_ok_and(|reading| reading.milli == 5000))
        );
        assert_eq!(read.iter().filter(|(_, own)| *own).count(), 1);
        slot.refresh(&scaler, &cx, Duration::from_mins(1)).await;
        assert_eq!(scaler.asked.load(Ordering::Relaxed), 2, "a later call asks anew");
    }

    #[tokio::test]
    async fn a_panic_is_the_metrics_error() {
        let (slot, scaler, cx) = bed(true);
        let (sample, _) = slot.refresh(&scaler, &cx, Duration::from_mins(1)).await;
        assert_eq!(&*sample.result.unwrap_err(), "the scaler panicked: boom");
        assert_eq!(slot.errors(), 1);
    }
}
