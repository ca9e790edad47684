//! What node pools have done, under Karpenter's names (core, `pkg/metrics`).

mod disruption;
mod scheduling;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::{ResourceExt as _, api::ObjectMeta};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use tandem_core::{
    api::karpenter::{ConsolidationPolicy, NodeClaim},
    nodes::pools::{
        names::{MIN_VALUES_RELAXED, condition},
        node_claim::changed,
        requirements::labels::{CAPACITY_TYPE, NODE_POOL, ZONE},
    },
};

use super::transitions::Transitions;
use crate::telemetry::summary::{Objectives, Summary};
pub(super) use disruption::Disruption;
use scheduling::Scheduling;

/// What summaries tell (core, `pkg/metrics/constants.go`, `SummaryObjectives`; `client_golang`, `DefMaxAge`).
const OBJECTIVES: Objectives = Objectives {
    quantiles: &[("0", 0.0), ("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99), ("1", 1.0)],
    lately: Duration::from_mins(10),
    most: 4_096,
};

/// From five milliseconds to ten minutes (core, `DurationBuckets` of `pkg/metrics/constants.go`).
const BUCKETS: [f64; 45] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25,
    1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0,
    50.0, 60.0, 120.0, 150.0, 300.0, 450.0, 600.0,
];
/// Seconds of an hour.
const HOUR: f64 = 3600.0;
/// From a quarter of an hour to a month.
const LIFETIME_BUCKETS: [f64; 21] = [
    0.25 * HOUR,
    0.5 * HOUR,
    0.75 * HOUR,
    HOUR,
    2.0 * HOUR,
    4.0 * HOUR,
    6.0 * HOUR,
    8.0 * HOUR,
    10.0 * HOUR,
    12.0 * HOUR,
    16.0 * HOUR,
    20.0 * HOUR,
    24.0 * HOUR,
    48.0 * HOUR,
    72.0 * HOUR,
    120.0 * HOUR,
    240.0 * HOUR,
    360.0 * HOUR,
    480.0 * HOUR,
    600.0 * HOUR,
    720.0 * HOUR,
];

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
    consolidation_policy: &'static str,
    termination_mode: &'static str,
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
struct Broken {
    condition: String,
    nodepool: String,
    capacity_type: String,
    image_id: String,
}

/// No labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Nothing {}

type Histograms = Family<OfPool, Histogram, fn() -> Histogram>;

fn durations() -> Histogram {
    Histogram::new(BUCKETS)
}

fn of_claims() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 12))
}

fn of_instances() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 11))
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
    pods_disrupted: Family<Disrupted, Counter>,
    broken: Family<Broken, Counter>,
    nodes_created: Family<OfZone, Counter>,
    nodes_terminated: Family<OfZone, Counter>,
    nodes_drained: Family<OfPool, Counter>,
    termination_seconds: Histograms,
    instance_termination_seconds: Histograms,
    node_termination_seconds: Summary<OfPool>,
    node_lifetime_seconds: Histograms,
    pub(super) scheduling: Scheduling,
    pub(super) disruption: Disruption,
    pub(super) transitions: Transitions,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            created: Family::default(),
            terminated: Family::default(),
            disrupted: Family::default(),
            pods_disrupted: Family::default(),
            broken: Family::default(),
            nodes_created: Family::default(),
            nodes_terminated: Family::default(),
            nodes_drained: Family::default(),
            termination_seconds: Family::new_with_constructor(of_claims),
            instance_termination_seconds: Family::new_with_constructor(of_instances),
            node_termination_seconds: Summary::new(OBJECTIVES),
            node_lifetime_seconds: Family::new_with_constructor(lifetimes),
            scheduling: Scheduling::default(),
            disruption: Disruption::default(),
            transitions: Transitions::default(),
        }
    }
}

fn label(claim: &NodeClaim, key: &str) -> String {
    claim.labels().get(key).cloned().unwrap_or_default()
}

/// How the node of a claim ends: whenever its pods let it, within a time at the latest, or at once.
fn termination_mode(claim: &NodeClaim) -> &'static str {
    let Some(period) = claim.spec.termination_grace_period.as_deref() else { return "graceful" };
    match period.parse::<SignedDuration>() {
        Ok(period) if period <= SignedDuration::ZERO => "forceful",
        _ => "eventual",
    }
}

/// `NetworkingReady` as `networking_ready`.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

impl Metrics {
    /// Makes them part of `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        self.transitions.register(registry);
        let registry = registry.sub_registry_with_prefix("karpenter");
        self.register_claims(registry.sub_registry_with_prefix("nodeclaims"));
        self.register_nodes(registry.sub_registry_with_prefix("nodes"));
        registry.register(
            "pods_disruption_initiated",
            "Pods that had to move since their NodeClaims were deleted, and why",
            self.pods_disrupted.clone(),
        );
        self.scheduling.register(registry);
        self.disruption.register(registry);
    }

    fn register_claims(&self, registry: &mut Registry) {
        registry.register("created", "NodeClaims that were made", self.created.clone());
        registry.register("terminated", "NodeClaims that came to their end", self.terminated.clone());
        registry.register("disrupted", "NodeClaims that were deleted, and why", self.disrupted.clone());
        registry.register(
            "unhealthy_disrupted",
            "NodeClaims that were deleted since their nodes were broken",
            self.broken.clone(),
        );
        registry.register(
            "termination_duration_seconds",
            "From the deletion of a NodeClaim to its end",
            self.termination_seconds.clone(),
        );
        registry.register(
            "instance_termination_duration_seconds",
            "From the call that terminates a machine to its end",
            self.instance_termination_seconds.clone(),
        );
    }

    fn register_nodes(&self, registry: &mut Registry) {
        registry.register("created", "Nodes that registered", self.nodes_created.clone());
        registry.register("terminated", "Nodes that were terminated", self.nodes_terminated.clone());
        registry.register("drained", "Nodes that were drained", self.nodes_drained.clone());
        registry.register(
            "termination_duration_seconds",
            "From the deletion of a node to its end",
            self.node_termination_seconds.clone(),
        );
        registry.register(
            "lifetime_duration_seconds",
            "From the creation of a node to its end",
            self.node_lifetime_seconds.clone(),
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

    /// A claim is deleted; what its pool says of consolidation, if that is why; and how many pods have to move, if it has a
    /// node.
    pub(super) fn disrupted(
        &self,
        claim: &NodeClaim,
        reason: &'static str,
        policy: Option<ConsolidationPolicy>,
        pods: Option<usize>,
    ) {
        let labels = Disrupted {
            reason,
            nodepool: label(claim, NODE_POOL),
            capacity_type: label(claim, CAPACITY_TYPE),
            consolidation_policy: policy.map_or("", ConsolidationPolicy::label),
            termination_mode: termination_mode(claim),
        };
        self.disrupted.get_or_create(&labels).inc();
        if let Some(pods) = pods {
            self.pods_disrupted.get_or_create(&labels).inc_by(pods as u64);
        }
    }

    pub(super) fn broken(&self, claim: &NodeClaim, condition: &str) {
        let image_id = claim.status.as_ref().and_then(|status| status.image_id.clone()).unwrap_or_default();
        let (nodepool, capacity_type) = (label(claim, NODE_POOL), label(claim, CAPACITY_TYPE));
        let condition = snake_case(condition);
        self.broken.get_or_create(&Broken { condition, nodepool, capacity_type, image_id }).inc();
    }

    pub(super) fn drained(&self, claim: &NodeClaim) {
        self.nodes_drained.get_or_create(&OfPool { nodepool: label(claim, NODE_POOL) }).inc();
    }

    /// The machine of a claim is gone.
    pub(super) fn instance_gone(&self, claim: &NodeClaim, now: Timestamp) {
        if let Some(begun) = changed(claim, condition::INSTANCE_TERMINATING) {
            let labels = OfPool { nodepool: label(claim, NODE_POOL) };
            let seconds = now.duration_since(begun).as_secs_f64();
            self.instance_termination_seconds.get_or_create(&labels).observe(seconds);
        }
    }

    pub(super) fn terminated(&self, claim: &NodeClaim, now: Timestamp) {
        let (nodepool, zone) = (label(claim, NODE_POOL), label(claim, ZONE));
        let capacity_type = label(claim, CAPACITY_TYPE);
        if let Some(begun) = &claim.metadata.deletion_timestamp {
            let seconds = now.duration_since(begun.0).as_secs_f64();
            self.termination_seconds.get_or_create(&OfPool { nodepool: nodepool.clone() }).observe(seconds);
        }
        self.terminated.get_or_create(&Terminated { nodepool, capacity_type, zone }).inc();
    }

    /// A node is gone that was one of this claim.
    pub(super) fn node_gone(&self, claim: &NodeClaim, node: &ObjectMeta, now: Timestamp) {
        let (nodepool, zone) = (label(claim, NODE_POOL), label(claim, ZONE));
        let labels = OfPool { nodepool: nodepool.clone() };
        self.nodes_terminated.get_or_create(&OfZone { nodepool, zone }).inc();
        let seconds = |since: Timestamp| now.duration_since(since).as_secs_f64();
        if let Some(created) = &node.creation_timestamp {
            self.node_lifetime_seconds.get_or_create(&labels).observe(seconds(created.0));
        }
        if let Some(deleted) = &node.deletion_timestamp {
            self.node_termination_seconds.observe(labels, seconds(deleted.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc, time::Duration};

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
    use tandem_core::nodes::pools::{
        balanced::Score,
        budgets::Reason,
        disrupt::{BudgetUse, Command, Decision, Invalid, Method, Move},
        solver::Zones,
    };

    use super::{
        super::startups::{Reached, Stage},
        *,
    };
    use crate::telemetry::metrics::text;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn claim() -> NodeClaim {
        let mut claim = NodeClaim::default();
        for (key, value) in [(NODE_POOL, "general"), (ZONE, "a"), (CAPACITY_TYPE, "spot")] {
            claim.labels_mut().insert(key.to_owned(), value.to_owned());
        }
        claim
    }

    /// What `/metrics` has after this.
    fn shown(act: impl FnOnce(&Metrics)) -> String {
        let (metrics, mut registry) = (Metrics::default(), Registry::default());
        metrics.register(&mut registry);
        act(&metrics);
        text(&registry).unwrap()
    }

    fn has(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|it| it == *line), "{line}\n{text}");
        }
    }

    #[tokio::test]
    async fn the_end_of_a_node_and_the_start_of_a_pod_are_timed() {
        let mut claim = claim();
        claim.metadata.deletion_timestamp = Some(Time(at(4000)));
        claim.status.get_or_insert_default().conditions = vec![Condition {
            type_: condition::INSTANCE_TERMINATING.to_owned(),
            status: "True".to_owned(),
            reason: String::new(),
            message: String::new(),
            last_transition_time: Time(at(4060)),
            observed_generation: None,
        }];
        let node = ObjectMeta {
            creation_timestamp: Some(Time(at(100))),
            deletion_timestamp: Some(Time(at(4000))),
            ..ObjectMeta::default()
        };
        let text = shown(|metrics| {
            metrics.instance_gone(&claim, at(4090));
            metrics.node_gone(&claim, &node, at(4090));
            metrics.terminated(&claim, at(4095));
            let reached = |stage, seconds| Reached { stage, seconds, since_placed: Some(seconds - 1.0) };
            metrics.scheduling.reached(reached(Stage::Bound, 3.0));
            metrics.scheduling.reached(reached(Stage::Started, 8.0));
        });
        has(
            &text,
            &[
                r#"karpenter_nodeclaims_instance_termination_duration_seconds_sum{nodepool="general"} 30.0"#,
                r#"karpenter_nodeclaims_termination_duration_seconds_sum{nodepool="general"} 95.0"#,
                r#"karpenter_nodeclaims_terminated_total{nodepool="general",capacity_type="spot",zone="a"} 1"#,
                r#"karpenter_nodes_terminated_total{nodepool="general",zone="a"} 1"#,
                r#"karpenter_nodes_lifetime_duration_seconds_sum{nodepool="general"} 3990.0"#,
                r#"karpenter_nodes_termination_duration_seconds_sum{nodepool="general"} 90.0"#,
                r#"karpenter_nodes_termination_duration_seconds{nodepool="general",quantile="0.99"} 90.0"#,
                "karpenter_pods_bound_duration_seconds_sum 3.0",
                "karpenter_pods_startup_duration_seconds_sum{} 8.0",
                r#"karpenter_pods_startup_duration_seconds{quantile="0.5"} 8.0"#,
                "karpenter_pods_provisioning_bound_duration_seconds_sum 2.0",
                "karpenter_pods_provisioning_startup_duration_seconds_sum 7.0",
            ],
        );
    }

    #[test]
    fn why_and_how_a_node_ends_is_told() {
        let text = shown(|metrics| {
            let mut claim = claim();
            metrics.disrupted(&claim, "underutilized", Some(ConsolidationPolicy::Balanced), Some(3));
            claim.spec.termination_grace_period = Some("30m".to_owned());
            metrics.disrupted(&claim, "drifted", None, Some(0));
            claim.spec.termination_grace_period = Some("0s".to_owned());
            metrics.disrupted(&claim, "insufficient_capacity", None, None);
            metrics.broken(&claim, "NetworkingReady");
        });
        let of = |reason: &str, policy: &str, mode: &str| {
            format!(
                r#"{{reason="{reason}",nodepool="general",capacity_type="spot",consolidation_policy="{policy}",termination_mode="{mode}"}}"#
            )
        };
        let moved = of("underutilized", "balanced", "graceful");
        has(
            &text,
            &[
                &format!("karpenter_nodeclaims_disrupted_total{moved} 1"),
                &format!("karpenter_nodeclaims_disrupted_total{} 1", of("drifted", "", "eventual")),
                &format!(
                    "karpenter_nodeclaims_disrupted_total{} 1",
                    of("insufficient_capacity", "", "forceful")
                ),
                &format!("karpenter_pods_disruption_initiated_total{moved} 3"),
                &format!("karpenter_pods_disruption_initiated_total{} 0", of("drifted", "", "eventual")),
                r#"karpenter_nodeclaims_unhealthy_disrupted_total{condition="networking_ready",nodepool="general",capacity_type="spot",image_id=""} 1"#,
            ],
        );
        assert_eq!(text.matches("karpenter_pods_disruption_initiated_total{").count(), 2, "it had no node");
    }

    #[tokio::test]
    async fn a_search_for_nodes_is_told_while_it_goes_on_and_after_it() {
        let zones = [(Zones::One("a".into()), 2), (Zones::Flexible, 3), (Zones::None, 1)];
        let text = shown(|metrics| {
            metrics.scheduling.begins(7);
            assert!(metrics.scheduling.unfinished().is_some());
            metrics.scheduling.ended();
            assert!(metrics.scheduling.unfinished().is_none());
            metrics.scheduling.found(1, &BTreeMap::from([(Zones::One("gone".into()), 1)]));
            metrics.scheduling.found(4, &zones.into_iter().collect());
            metrics.scheduling.begins(9);
            metrics.scheduling.evicted(429);
            metrics.scheduling.drained("Drifted");
            metrics.scheduling.decided(2.0);
        });
        has(
            &text,
            &[
                r#"karpenter_scheduler_queue_depth{controller="provisioner",scheduling_id="1"} 9"#,
                r#"karpenter_scheduler_scheduling_duration_seconds_count{controller="provisioner"} 1"#,
                r#"karpenter_scheduler_unschedulable_pods_count{controller="provisioner"} 4"#,
                r#"karpenter_scheduler_pending_pods_by_effective_zone_count{controller="provisioner",zone="a"} 2"#,
                r#"karpenter_scheduler_pending_pods_by_effective_zone_count{controller="provisioner",zone="flexible"} 3"#,
                r#"karpenter_scheduler_pending_pods_by_effective_zone_count{controller="provisioner",zone="none"} 1"#,
                r#"karpenter_pods_eviction_requests_total{code="429"} 1"#,
                r#"karpenter_pods_drained_total{reason="Drifted"} 1"#,
                "karpenter_pods_scheduling_decision_duration_seconds_sum 2.0",
            ],
        );
        assert!(!text.contains("gone") && !text.contains(r#"scheduling_id="0""#), "{text}");
    }

    fn moved(is_approved: bool, score: Option<f64>) -> Move {
        let score = score.map(|score| Score { score, savings: 0.0, disruption: 0.0, threshold: 0.5 });
        let policy = match score {
            Some(_) => ConsolidationPolicy::Balanced,
            None => ConsolidationPolicy::WhenEmptyOrUnderutilized,
        };
        Move { pool: "general".into(), policy, is_approved, score }
    }

    #[test]
    fn what_is_decided_about_nodes_is_told() {
        let command = Command {
            method: Method::MultiNode,
            claims: vec!["a".into(), "b".into()],
            replacements: Vec::new(),
            savings: 1.0,
            scores: BTreeMap::new(),
        };
        let decision = |pool: &str| {
            let budget = BudgetUse { allowed: 5, disrupting: 2 };
            Decision {
                budgets: BTreeMap::from([((Arc::from(pool), Reason::Empty), budget)]),
                eligible: BTreeMap::from([(Reason::Empty, 4)]),
                moves: vec![moved(true, None), moved(false, Some(0.4)), moved(false, Some(0.6))],
                ..Decision::default()
            }
        };
        let text = shown(|Metrics { disruption: metrics, .. }| {
            metrics.decided(&decision("gone"));
            metrics.decided(&decision("general"));
            metrics.evaluated(Method::Emptiness, Duration::from_secs(2));
            metrics.begun(&command, ["general".to_owned(), "other".to_owned()]);
            metrics.failed(&command, 3);
            metrics.timed_out(Method::MultiNode);
            metrics.invalid(&command, &Invalid::Churn("a".into()));
            metrics.invalid(&command, &Invalid::Scheduling("no place".to_owned()));
            metrics.cost(&BTreeMap::from([("general".into(), 1.5)]), &BTreeMap::from([("other".into(), 2)]));
        });
        let of = r#"decision="delete",reason="underutilized",consolidation_type="multi""#;
        has(
            &text,
            &[
                r#"karpenter_nodepools_allowed_disruptions{nodepool="general",reason="empty"} 5"#,
                r#"karpenter_nodepools_nodes_consuming_budgets{nodepool="general",reason="empty"} 2"#,
                r#"karpenter_nodepools_cost_total{nodepool="general"} 1.5"#,
                r#"karpenter_nodepools_cost_tracker_errors_total{nodepool="other"} 2"#,
                r#"karpenter_voluntary_disruption_eligible_nodes{reason="empty"} 4"#,
                r#"karpenter_voluntary_disruption_decision_evaluation_duration_seconds_sum{reason="empty",consolidation_type="empty"} 2.0"#,
                &format!("karpenter_voluntary_disruption_decisions_total{{{of}}} 1"),
                &format!(
                    r#"karpenter_voluntary_disruption_decisions_by_nodepool_total{{nodepool="other",{of}}} 1"#
                ),
                &format!("karpenter_voluntary_disruption_queue_failures_total{{{of}}} 3"),
                r#"karpenter_voluntary_disruption_consolidation_timeouts_total{consolidation_type="multi"} 1"#,
                r#"karpenter_voluntary_disruption_consolidation_timeouts_total{consolidation_type="single"} 0"#,
                r#"karpenter_voluntary_disruption_failed_validations_total{consolidation_type="multi"} 2"#,
                r#"karpenter_consolidation_moves_total{decision="approved",nodepool="general",policy="WhenEmptyOrUnderutilized"} 2"#,
                r#"karpenter_consolidation_moves_total{decision="rejected",nodepool="general",policy="Balanced"} 4"#,
                r#"karpenter_consolidation_score_sum{decision="approved",nodepool="general",policy="Balanced"} 1.2"#,
                r#"karpenter_consolidation_score_bucket{le="0.5",decision="rejected",nodepool="general",policy="Balanced"} 2"#,
            ],
        );
        assert!(!text.contains(r#""gone""#), "{text}");
    }
}
