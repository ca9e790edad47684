//! What notices came and what became of them, under Karpenter's and aws-node-termination-handler's names.

use std::sync::Arc;

use jiff::SignedDuration;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Received {
    message_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Acted {
    node_action: &'static str,
    node_status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    event_error_where: &'static str,
}

/// From a tenth of a second to ten minutes.
const BUCKETS: [f64; 8] = [0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 600.0];

/// Counters of notices.
#[derive(Debug, Clone)]
pub struct Metrics {
    received: Family<Received, Counter>,
    deleted: Counter,
    actions: Family<Acted, Counter>,
    errors: Family<Failed, Counter>,
    waited: Arc<Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            received: Family::default(),
            deleted: Counter::default(),
            actions: Family::default(),
            errors: Family::default(),
            waited: Arc::new(Histogram::new(BUCKETS)),
        }
    }
}

impl Metrics {
    /// Makes them part of `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        let karpenter = registry.sub_registry_with_prefix("karpenter");
        karpenter.register(
            "interruption_received_messages",
            "Messages of the queue of notices",
            self.received.clone(),
        );
        karpenter.register(
            "interruption_deleted_messages",
            "Messages that were dealt with",
            self.deleted.clone(),
        );
        karpenter.register(
            "interruption_message_queue_duration_seconds",
            "From the time a notice was sent to the time it was read",
            (*self.waited).clone(),
        );
        registry.register("actions", "What was done with nodes because of notices", self.actions.clone());
        registry.register("events_error", "What went wrong with notices", self.errors.clone());
    }

    pub(super) fn received(&self, message_type: &'static str) {
        self.received.get_or_create(&Received { message_type }).inc();
    }

    /// A notice was read so long after it was sent.
    pub(super) fn waited(&self, time: SignedDuration) {
        self.waited.observe(time.as_secs_f64().max(0.0));
    }

    pub(super) fn deleted(&self) {
        self.deleted.inc();
    }

    pub(super) fn acted(&self, node_action: &'static str, well: bool) {
        let node_status = if well { "success" } else { "error" };
        self.actions.get_or_create(&Acted { node_action, node_status }).inc();
    }

    pub(super) fn failed(&self, event_error_where: &'static str) {
        self.errors.get_or_create(&Failed { event_error_where }).inc();
    }
}
