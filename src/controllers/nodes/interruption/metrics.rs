//! What notices came and what became of them, under Karpenter's and aws-node-termination-handler's names.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
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

/// Counters of notices.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    received: Family<Received, Counter>,
    deleted: Counter,
    actions: Family<Acted, Counter>,
    errors: Family<Failed, Counter>,
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
        registry.register("actions", "What was done with nodes because of notices", self.actions.clone());
        registry.register("events_error", "What went wrong with notices", self.errors.clone());
    }

    pub(super) fn received(&self, message_type: &'static str) {
        self.received.get_or_create(&Received { message_type }).inc();
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
