//! What node pools have done, under Karpenter's names (core, `pkg/metrics`).

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use jiff::Timestamp;
use kube::{ResourceExt as _, api::ObjectMeta};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tandem_core::{
    api::karpenter::NodeClaim,
    nodes::pools::{
        disrupt::{Command, Decision, Method},
        names::MIN_VALUES_RELAXED,
        requirements::labels::{CAPACITY_TYPE, NODE_POOL, ZONE},
    },
};

use super::{startups::Stage, transitions::Transitions};

/// From a millisecond to a minute.
const BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// From half a second to twenty minutes.
const START_BUCKETS: [f64; 12] = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0];
/// From a quarter of an hour to a month.
const LIFETIME_BUCKETS: [f64; 11] = [
    900.0,
    1800.0,
    3600.0,
    7200.0,
    14_400.0,
    28_800.0,
    86_400.0,
    172_800.0,
    604_800.0,
    1_209_600.0,
    2_592_000.0,
];
/// From five seconds to twenty minutes.
const LONG_BUCKETS: [f64; 9] = [5.0, 10.0, 30.0, 60.0, 120.0, 180.0, 300.0, 600.0, 1200.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Created {
    reason: &'static str,
    nodepool: String,
    min_values_relaxed: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Terminated {
    nodepool: String,
    capacity_type: String,
    zone: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Disrupted {
    reason: &'static str,
    nodepool: String,
    capacity_type: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfZone {
    nodepool: String,
    zone: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPool {
    nodepool: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Allowed {
    nodepool: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Broken {
    condition: &'static str,
    nodepool: String,
    capacity_type: String,
    image_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfMethod {
    consolidation_type: &'static str,
}

/// What was decided about nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    decision: &'static str,
    reason: &'static str,
    consolidation_type: &'static str,
}

impl Decided {
    fn of(command: &Command) -> Self {
        let (decision, method) = (command.decision(), command.method);
        Self { decision, reason: method.reason().label(), consolidation_type: method.consolidation_type() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Eviction {
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfController {
    controller: &'static str,
}

/// The controller whose pods wait.
const PROVISIONER: OfController = OfController { controller: "provisioner" };

type Histograms = Family<OfPool, Histogram, fn() -> Histogram>;

fn durations() -> Histogram {
    Histogram::new(LONG_BUCKETS)
}

fn lifetimes() -> Histogram {
    Histogram::new(LIFETIME_BUCKETS)
}

/// Counters of node pools.
#[derive(Debug, Clone)]
pub struct Metrics {
    created: Family<Created, Counter>,
    terminated: Family<Terminated, Counter>,
    disrupted: Family<Disrupted, Counter>,
    broken: Family<Broken, Counter>,
    nodes_created: Family<OfZone, Counter>,
    nodes_terminated: Family<OfZone, Counter>,
    nodes_drained: Family<OfPool, Counter>,
    termination_seconds: Histograms,
    node_termination_seconds: Histograms,
    node_lifetime_seconds: Histograms,
    evictions: Family<Eviction, Counter>,
    bound_seconds: Arc<Histogram>,
    startup_seconds: Arc<Histogram>,
    scheduling_seconds: Arc<Histogram>,
    queue: Family<OfController, Gauge>,
    unschedulable: Family<OfController, Gauge>,
    allowed: Family<Allowed, Gauge>,
    costs: Family<OfPool, Gauge<f64, AtomicU64>>,
    eligible: Family<OfReason, Gauge>,
    decision_seconds: Arc<Histogram>,
    decisions: Family<Decided, Counter>,
    decisions_failed: Family<Decided, Counter>,
    timeouts: Family<OfMethod, Counter>,
    failed_validations: Family<OfMethod, Counter>,
    pub(super) transitions: Transitions,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            created: Family::default(),
            terminated: Family::default(),
            disrupted: Family::default(),
            broken: Family::default(),
            nodes_created: Family::default(),
            nodes_terminated: Family::default(),
            nodes_drained: Family::default(),
            termination_seconds: Family::new_with_constructor(durations),
            node_termination_seconds: Family::new_with_constructor(durations),
            node_lifetime_seconds: Family::new_with_constructor(lifetimes),
            evictions: Family::default(),
            bound_seconds: Arc::new(Histogram::new(START_BUCKETS)),
            startup_seconds: Arc::new(Histogram::new(START_BUCKETS)),
            scheduling_seconds: Arc::new(Histogram::new(BUCKETS)),
            queue: Family::default(),
            unschedulable: Family::default(),
            allowed: Family::default(),
            costs: Family::default(),
            eligible: Family::default(),
            decision_seconds: Arc::new(Histogram::new(BUCKETS)),
            decisions: Family::default(),
            decisions_failed: Family::default(),
            timeouts: Family::default(),
            failed_validations: Family::default(),
            transitions: Transitions::default(),
        }
    }
}

fn label(claim: &NodeClaim, key: &str) -> String {
    claim.labels().get(key).cloned().unwrap_or_default()
}

impl Metrics {
    /// Makes them part of `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        self.transitions.register(registry);
        let registry = registry.sub_registry_with_prefix("karpenter");
        registry.register("nodeclaims_created", "NodeClaims that were made", self.created.clone());
        registry.register(
            "nodeclaims_terminated",
            "NodeClaims that came to their end",
            self.terminated.clone(),
        );
        registry.register(
            "nodeclaims_disrupted",
            "NodeClaims that were deleted, and why",
            self.disrupted.clone(),
        );
        registry.register(
            "nodeclaims_unhealthy_disrupted",
            "NodeClaims that were deleted since their nodes were broken",
            self.broken.clone(),
        );
        registry.register(
            "nodeclaims_termination_duration_seconds",
            "From the deletion of a NodeClaim to its end",
            self.termination_seconds.clone(),
        );
        registry.register("nodes_created", "Nodes that registered", self.nodes_created.clone());
        registry.register("nodes_terminated", "Nodes that were terminated", self.nodes_terminated.clone());
        registry.register("nodes_drained", "Nodes that were drained", self.nodes_drained.clone());
        registry.register(
            "nodes_termination_duration_seconds",
            "From the deletion of a node to its end",
            self.node_termination_seconds.clone(),
        );
        registry.register(
            "nodes_lifetime_duration_seconds",
            "From the creation of a node to its end",
            self.node_lifetime_seconds.clone(),
        );
        self.register_pods(registry.sub_registry_with_prefix("pods"));
        registry.register(
            "scheduler_scheduling_duration_seconds",
            "How long a batch of pods was thought about and answered",
            (*self.scheduling_seconds).clone(),
        );
        registry.register("scheduler_queue_depth", "Pods that are being thought about", self.queue.clone());
        registry.register(
            "scheduler_unschedulable_pods_count",
            "Pods for which there is no node to be had",
            self.unschedulable.clone(),
        );
        registry.register(
            "nodepools_allowed_disruptions",
            "Nodes of a pool that may go now",
            self.allowed.clone(),
        );
        registry.register(
            "nodepools_cost_total",
            "What the machines of a pool cost, dollars an hour as far as prices are known",
            self.costs.clone(),
        );
        self.register_disruption(registry.sub_registry_with_prefix("voluntary_disruption"));
    }

    fn register_pods(&self, registry: &mut Registry) {
        registry.register("eviction_requests", "Evictions by answer", self.evictions.clone());
        registry.register(
            "bound_duration_seconds",
            "From the creation of a pod until it has a node",
            (*self.bound_seconds).clone(),
        );
        registry.register(
            "startup_duration_seconds",
            "From the creation of a pod until it is ready",
            (*self.startup_seconds).clone(),
        );
    }

    fn register_disruption(&self, registry: &mut Registry) {
        registry.register("eligible_nodes", "Nodes that may be taken away", self.eligible.clone());
        registry.register(
            "decision_evaluation_duration_seconds",
            "How long it took to decide which nodes go",
            (*self.decision_seconds).clone(),
        );
        registry.register("decisions", "Decisions that were carried out", self.decisions.clone());
        registry.register(
            "queue_failures",
            "Decisions that were begun and came to nothing",
            self.decisions_failed.clone(),
        );
        registry.register(
            "consolidation_timeouts",
            "Searches for nodes to take away that took too long",
            self.timeouts.clone(),
        );
        registry.register(
            "failed_validations",
            "Decisions that were not right any more a while later",
            self.failed_validations.clone(),
        );
    }

    pub(super) fn created(&self, claim: &NodeClaim, reason: &'static str) {
        let nodepool = label(claim, NODE_POOL);
        let is_relaxed = claim.annotations().get(MIN_VALUES_RELAXED).is_some_and(|it| it == "true");
        let min_values_relaxed = if is_relaxed { "true" } else { "false" };
        self.created.get_or_create(&Created { reason, nodepool, min_values_relaxed }).inc();
    }

    pub(super) fn registered(&self, claim: &NodeClaim) {
        let labels = OfZone { nodepool: label(claim, NODE_POOL), zone: label(claim, ZONE) };
        self.nodes_created.get_or_create(&labels).inc();
    }

    pub(super) fn disrupted(&self, claim: &NodeClaim, reason: &'static str) {
        let (nodepool, capacity_type) = (label(claim, NODE_POOL), label(claim, CAPACITY_TYPE));
        self.disrupted.get_or_create(&Disrupted { reason, nodepool, capacity_type }).inc();
    }

    pub(super) fn broken(&self, claim: &NodeClaim, condition: &'static str) {
        let image_id = claim.status.as_ref().and_then(|status| status.image_id.clone()).unwrap_or_default();
        let (nodepool, capacity_type) = (label(claim, NODE_POOL), label(claim, CAPACITY_TYPE));
        self.broken.get_or_create(&Broken { condition, nodepool, capacity_type, image_id }).inc();
    }

    pub(super) fn drained(&self, claim: &NodeClaim) {
        self.nodes_drained.get_or_create(&OfPool { nodepool: label(claim, NODE_POOL) }).inc();
    }

    pub(super) fn terminated(&self, claim: &NodeClaim, now: Timestamp) {
        let (nodepool, zone) = (label(claim, NODE_POOL), label(claim, ZONE));
        let capacity_type = label(claim, CAPACITY_TYPE);
        if claim.status.as_ref().is_some_and(|status| status.node_name.is_some()) {
            let labels = OfZone { nodepool: nodepool.clone(), zone: zone.clone() };
            self.nodes_terminated.get_or_create(&labels).inc();
        }
        if let Some(begun) = &claim.metadata.deletion_timestamp {
            let seconds = now.duration_since(begun.0).as_secs_f64();
            self.termination_seconds.get_or_create(&OfPool { nodepool: nodepool.clone() }).observe(seconds);
        }
        self.terminated.get_or_create(&Terminated { nodepool, capacity_type, zone }).inc();
    }

    /// A node is gone that was one of this claim.
    pub(super) fn node_gone(&self, claim: &NodeClaim, node: &ObjectMeta, now: Timestamp) {
        let labels = OfPool { nodepool: label(claim, NODE_POOL) };
        for (since, histograms) in [
            (&node.deletion_timestamp, &self.node_termination_seconds),
            (&node.creation_timestamp, &self.node_lifetime_seconds),
        ] {
            if let Some(since) = since {
                let seconds = now.duration_since(since.0).as_secs_f64();
                histograms.get_or_create(&labels).observe(seconds);
            }
        }
    }

    /// A pod has come so far, so many seconds after its creation.
    pub(super) fn reached(&self, stage: Stage, seconds: f64) {
        match stage {
            Stage::Waiting => {}
            Stage::Bound => self.bound_seconds.observe(seconds),
            Stage::Started => self.startup_seconds.observe(seconds),
        }
    }

    pub(super) fn evicted(&self, is_done: bool) {
        let code = if is_done { "201" } else { "429" };
        self.evictions.get_or_create(&Eviction { code }).inc();
    }

    /// So many pods are being thought about.
    pub(super) fn queued(&self, pods: usize) {
        self.queue.get_or_create(&PROVISIONER).set(i64::try_from(pods).unwrap_or(i64::MAX));
    }

    pub(super) fn scheduled(&self, took: Duration) {
        self.scheduling_seconds.observe(took.as_secs_f64());
    }

    pub(super) fn unschedulable(&self, pods: usize) {
        self.unschedulable.get_or_create(&PROVISIONER).set(i64::try_from(pods).unwrap_or(i64::MAX));
    }

    /// What was decided about nodes, and how long that took.
    pub(super) fn decided(&self, decision: &Decision, took: Duration) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.decision_seconds.observe(took.as_secs_f64());
        for (reason, count) in &decision.eligible {
            self.eligible.get_or_create(&OfReason { reason: reason.label() }).set(gauge(*count));
        }
        for ((pool, reason), count) in &decision.allowed {
            let labels = Allowed { nodepool: pool.to_string(), reason: reason.name() };
            self.allowed.get_or_create(&labels).set(gauge(*count));
        }
    }

    /// What the machines of pools cost; pools that are gone cost nothing any more.
    pub(super) fn cost(&self, costs: &BTreeMap<Arc<str>, f64>) {
        self.costs.clear();
        for (pool, cost) in costs {
            self.costs.get_or_create(&OfPool { nodepool: pool.to_string() }).set(*cost);
        }
    }

    pub(super) fn disrupting(&self, command: &Command) {
        self.decisions.get_or_create(&Decided::of(command)).inc();
    }

    pub(super) fn disruption_failed(&self, command: &Command) {
        self.decisions_failed.get_or_create(&Decided::of(command)).inc();
    }

    pub(super) fn consolidation_timed_out(&self, method: Method) {
        self.timeouts.get_or_create(&OfMethod { consolidation_type: method.consolidation_type() }).inc();
    }

    pub(super) fn failed_validation(&self, method: Method) {
        let labels = OfMethod { consolidation_type: method.consolidation_type() };
        self.failed_validations.get_or_create(&labels).inc();
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::telemetry::metrics::text;

    #[test]
    fn the_end_of_a_node_and_the_start_of_a_pod_are_timed() {
        let (metrics, mut registry) = (Metrics::default(), Registry::default());
        metrics.register(&mut registry);
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut claim = NodeClaim::default();
        claim.labels_mut().insert(NODE_POOL.to_owned(), "general".to_owned());
        let node = ObjectMeta {
            creation_timestamp: Some(Time(at(100))),
            deletion_timestamp: Some(Time(at(4000))),
            ..ObjectMeta::default()
        };
        metrics.node_gone(&claim, &node, at(4090));
        metrics.reached(Stage::Bound, 3.0);
        metrics.reached(Stage::Started, 8.0);
        metrics.queued(7);
        let text = text(&registry).unwrap();
        for line in [
            r#"karpenter_nodes_lifetime_duration_seconds_sum{nodepool="general"} 3990.0"#,
            r#"karpenter_nodes_termination_duration_seconds_sum{nodepool="general"} 90.0"#,
            "karpenter_pods_bound_duration_seconds_sum 3.0",
            "karpenter_pods_startup_duration_seconds_sum 8.0",
            r#"karpenter_scheduler_queue_depth{controller="provisioner"} 7"#,
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
    }
}
