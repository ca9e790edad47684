//! What notices came and what became of them, under Karpenter's and aws-node-termination-handler's names.

use std::{collections::VecDeque, sync::Arc};

use jiff::SignedDuration;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tandem_core::{nodes::interruption::Notice, scheduling::Node};

use super::webhook::event_id;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Received {
    message_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Acted {
    node_action: &'static str,
    node_status: &'static str,
}

/// As [`Acted`], of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(clippy::struct_field_names, reason = "labels have these names")]
struct ActedOnNode {
    node_action: &'static str,
    node_status: &'static str,
    node_name: String,
    node_event_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    event_error_where: &'static str,
}

/// From a tenth of a second to ten minutes.
const BUCKETS: [f64; 8] = [0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 600.0];

/// Series of nodes that are kept: those acted on last. The handler keeps them all, until it ends.
const NODES: usize = 500;

/// Counters of notices.
#[derive(Debug, Clone)]
pub struct Metrics {
    received: Family<Received, Counter>,
    deleted: Counter,
    actions: Family<Acted, Counter>,
    actions_node: Family<ActedOnNode, Counter>,
    /// The series of `actions_node`, in the order in which they came.
    lately: Arc<Mutex<VecDeque<ActedOnNode>>>,
    errors: Family<Failed, Counter>,
    waited: Arc<Histogram>,
    /// Machines with the managed tag, and nodes; only where it means something.
    tagged: Option<(Gauge, Gauge)>,
}

impl Metrics {
    /// `counts_tagged`: whether machines with the managed tag are counted.
    pub fn new(counts_tagged: bool) -> Self {
        Self {
            received: Family::default(),
            deleted: Counter::default(),
            actions: Family::default(),
            actions_node: Family::default(),
            lately: Arc::default(),
            errors: Family::default(),
            waited: Arc::new(Histogram::new(BUCKETS)),
            tagged: counts_tagged.then(Default::default),
        }
    }

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
        registry.register(
            "actions_node",
            "What was done with a node because of a notice, for the nodes of late",
            self.actions_node.clone(),
        );
        if let Some((instances, nodes)) = &self.tagged {
            registry.register("nth_tagged_instances", "Machines with the managed tag", instances.clone());
            registry.register("nth_tagged_nodes", "Nodes whose machine has the managed tag", nodes.clone());
        }
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

    /// Something was done because of a notice with a node, or with a machine that has none.
    pub(super) fn acted(&self, node_action: &'static str, notice: &Notice, node: Option<&Node>, well: bool) {
        let node_status = if well { "success" } else { "error" };
        self.actions.get_or_create(&Acted { node_action, node_status }).inc();
        let node_name = node.map_or_else(String::new, |node| node.name.to_string());
        let node_event_id = event_id(notice);
        let series = ActedOnNode { node_action, node_status, node_name, node_event_id };
        self.actions_node.get_or_create(&series).inc();
        let mut lately = self.lately.lock();
        if lately.contains(&series) {
            return;
        }
        lately.push_back(series);
        if lately.len() > NODES
            && let Some(oldest) = lately.pop_front()
        {
            self.actions_node.remove(&oldest);
        }
    }

    /// So many machines have the managed tag, and so many nodes are such.
    pub(super) fn tagged(&self, instances: usize, nodes: usize) {
        let count = |number| i64::try_from(number).unwrap_or(i64::MAX);
        if let Some((of_instances, of_nodes)) = &self.tagged {
            of_instances.set(count(instances));
            of_nodes.set(count(nodes));
        }
    }

    pub(super) fn failed(&self, event_error_where: &'static str) {
        self.errors.get_or_create(&Failed { event_error_where }).inc();
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use tandem_core::nodes::interruption::Kind;

    use super::*;

    fn text(metrics: &Metrics) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        metrics.register(&mut registry);
        encode(&mut text, &registry).unwrap();
        text
    }

    fn act(metrics: &Metrics, number: usize) {
        let notice = Notice {
            id: "a-1".to_owned(),
            kind: Kind::SpotInterruption,
            machines: Vec::new(),
            sent: None,
            begins: None,
        };
        let node = Node { name: format!("web-{number}").into(), ..Node::default() };
        metrics.acted("cordon", &notice, Some(&node), true);
    }

    #[test]
    fn nodes_of_long_ago_have_no_series() {
        let metrics = Metrics::new(false);
        for number in 0..NODES + 2 {
            act(&metrics, number);
        }
        act(&metrics, 2);
        let text = text(&metrics);
        assert_eq!(text.matches("actions_node_total{").count(), NODES, "{text}");
        assert!(!text.contains("node_name=\"web-1\""), "{text}");
        assert!(text.contains(r#"node_name="web-2",node_event_id="spot-itn-event-612d31"} 2"#), "{text}");
    }

    #[test]
    fn tagged_machines_are_told_where_they_are_counted() {
        let metrics = Metrics::new(true);
        metrics.tagged(3, 2);
        let with = text(&metrics);
        assert!(with.contains("nth_tagged_instances 3\n") && with.contains("nth_tagged_nodes 2\n"), "{with}");
        assert!(!text(&Metrics::new(false)).contains("nth_tagged"));
    }
}
