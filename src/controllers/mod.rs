//! Act: the only ring that writes, and it writes on change only.

pub mod authentication;
pub mod finalizer;
pub mod manager;
pub mod merge;
pub mod nodes;
pub mod scaled_job;
pub mod scaled_object;

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, watch};

use self::nodes::demand::Demand;
use crate::{cluster::Cluster, dry_run::Recorder, samples::SampleStore, telemetry::events::Events};

/// Objects that reconcile at the same moment. A start with 10,000 objects must not open 10,000 connections; the
/// server's own priority and fairness orders the rest.
const CONCURRENT_RECONCILES: usize = 16;
/// Writes of status, scales and events that are under way at the same moment, whatever they belong to. Each needs a
/// connection, which stays open for a while and holds some 50 KB.
const CONCURRENT_WRITES: usize = 16;

/// What every controller works with.
pub struct Shared {
    /// What is observed.
    pub cluster: Arc<Cluster>,
    /// Samples of all objects.
    pub samples: Arc<SampleStore>,
    /// Writer of events.
    pub events: Events,
    /// Whether this replica writes.
    pub leading: watch::Receiver<bool>,
    /// Places for reconciles.
    pub reconciles: Semaphore,
    /// Places for single writes. Whoever holds one waits for nothing else.
    pub writes: Semaphore,
    /// Deadline of one request to a source, unless the trigger sets its own.
    pub http_timeout: Duration,
    /// Where node loops hear of what HPAs are about to ask for; `None` without them, or with `--max-expected-pods=0`.
    pub demand: Option<Arc<Demand>>,
    /// Where decisions go of which nothing is to come; `None` where they are done.
    pub recorder: Option<Arc<Recorder>>,
}

impl Shared {
    /// Puts the parts together.
    pub fn new(
        cluster: Arc<Cluster>,
        samples: Arc<SampleStore>,
        events: Events,
        leading: watch::Receiver<bool>,
        http_timeout: Duration,
        demand: Option<Arc<Demand>>,
        recorder: Option<Arc<Recorder>>,
    ) -> Arc<Self> {
        let (reconciles, writes) = (Semaphore::new(CONCURRENT_RECONCILES), Semaphore::new(CONCURRENT_WRITES));
        Arc::new(Self {
            cluster,
            samples,
            events,
            leading,
            reconciles,
            writes,
            http_timeout,
            demand,
            recorder,
        })
    }

    /// Whether this replica writes for the object named `key`: today the Lease holder, whatever the object.
    /// Sharding objects over replicas changes this function and nothing else.
    pub fn owns(&self, _key: &crate::cluster::Key) -> bool {
        *self.leading.borrow()
    }
}
