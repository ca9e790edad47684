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
    ) -> Self {
        Self {
            metric,
            part,
            trigger,
            trigger_name,
            target,
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

    /// How many queries have failed.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Asks the source, unless somebody asked it after this call began: then their answer serves (single flight).
    /// `true` with a sample that this call took.
    pub async fn refresh(&self, scaler: &dyn Scaler, cx: &Context, deadline: Duration) -> (Sample, bool) {
        let wanted = Instant::now();
        let _flight = self.flight.lock().await;
        if let Some(sample) = self.latest().filter(|sample| sample.taken >= wanted) {
            return (sample, false);
        }
        let (taken, at) = (Instant::now(), (cx.now)());
        let result = guarded_read(scaler, cx, &self.part, deadline).await;
        if result.is_err() {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        let sample = Sample { taken, at, latency: taken.elapsed(), result };
        *self.latest.lock() = Some(sample.clone());
        (sample, true)
    }

    /// Replaces the activity of the latest sample: a push scaler spoke.
    pub fn push_activity(&self, active: bool) {
        if let Some(Sample { result: Ok(reading), .. }) = self.latest.lock().as_mut() {
            reading.active = active;
        }
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
