//! Disruption: what was decided about nodes that could go, and what came of it (core, `pkg/controllers/disruption/metrics.go`).

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tandem_core::nodes::pools::disrupt::{Command, Decision, Invalid, Method, Move};

use super::{OfPool, durations};

/// What a move is worth, from a tenth of what it costs to ten times as much.
const SCORES: [f64; 8] = [0.1, 0.25, 0.33, 0.5, 1.0, 2.0, 5.0, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBudget {
    nodepool: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfMethod {
    consolidation_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Evaluated {
    reason: &'static str,
    consolidation_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    decision: &'static str,
    reason: &'static str,
    consolidation_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecidedOfPool {
    nodepool: String,
    decision: &'static str,
    reason: &'static str,
    consolidation_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Weighed {
    decision: &'static str,
    nodepool: String,
    policy: &'static str,
}

/// Counters of disruption.
#[derive(Debug, Clone)]
pub(in super::super) struct Disruption {
    allowed: Family<OfBudget, Gauge>,
    consuming: Family<OfBudget, Gauge>,
    costs: Family<OfPool, Gauge<f64, AtomicU64>>,
    cost_errors: Family<OfPool, Counter>,
    eligible: Family<OfReason, Gauge>,
    seconds: Family<Evaluated, Histogram, fn() -> Histogram>,
    decisions: Family<Decided, Counter>,
    decisions_of_pools: Family<DecidedOfPool, Counter>,
    failed: Family<Decided, Counter>,
    timeouts: Family<OfMethod, Counter>,
    failed_validations: Family<OfMethod, Counter>,
    moves: Family<Weighed, Counter>,
    scores: Family<Weighed, Histogram, fn() -> Histogram>,
}

impl Default for Disruption {
    fn default() -> Self {
        let timeouts = Family::<OfMethod, Counter>::default();
        // Only these take long enough; an alert on what has not happened yet needs a zero.
        for method in [Method::MultiNode, Method::SingleNode] {
            let _zero = timeouts.get_or_create(&OfMethod { consolidation_type: method.consolidation_type() });
        }
        Self {
            allowed: Family::default(),
            consuming: Family::default(),
            costs: Family::default(),
            cost_errors: Family::default(),
            eligible: Family::default(),
            seconds: Family::new_with_constructor(durations),
            decisions: Family::default(),
            decisions_of_pools: Family::default(),
            failed: Family::default(),
            timeouts,
            failed_validations: Family::default(),
            moves: Family::default(),
            scores: Family::new_with_constructor(|| Histogram::new(SCORES)),
        }
    }
}

fn gauge(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

impl Disruption {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "nodepools_allowed_disruptions",
            "Nodes of a pool that its budgets let go at once",
            self.allowed.clone(),
        );
        registry.register(
            "nodepools_nodes_consuming_budgets",
            "Nodes of a pool that go, or are not ready, and count against its budgets",
            self.consuming.clone(),
        );
        registry.register(
            "nodepools_cost_total",
            "What the machines of a pool cost, dollars an hour as far as prices are known",
            self.costs.clone(),
        );
        registry.register(
            "nodepools_cost_tracker_errors",
            "NodeClaims that a look at costs left out, since what their pool offers could not be told",
            self.cost_errors.clone(),
        );
        registry.register(
            "consolidation_moves",
            "Moves of consolidation that could be done, by whether they were worth it",
            self.moves.clone(),
        );
        registry.register(
            "consolidation_score",
            "What moves of consolidation are worth to pools whose policy is Balanced",
            self.scores.clone(),
        );
        self.register_decisions(registry.sub_registry_with_prefix("voluntary_disruption"));
    }

    fn register_decisions(&self, registry: &mut Registry) {
        registry.register("eligible_nodes", "Nodes that may be taken away", self.eligible.clone());
        registry.register(
            "decision_evaluation_duration_seconds",
            "How long a method took to find nodes to take away",
            self.seconds.clone(),
        );
        registry.register("decisions", "Decisions that were carried out", self.decisions.clone());
        registry.register(
            "decisions_by_nodepool",
            "Decisions that were carried out, by the pools of their nodes",
            self.decisions_of_pools.clone(),
        );
        registry.register(
            "queue_failures",
            "Replacements that did not come up, so that nodes stayed",
            self.failed.clone(),
        );
        registry.register(
            "consolidation_timeouts",
            "Searches for nodes to take away that took too long",
            self.timeouts.clone(),
        );
        registry.register(
            "failed_validations",
            "Nodes that were to go and could not any more a while later",
            self.failed_validations.clone(),
        );
    }

    /// What was decided about nodes. Pools that are gone have no budgets any more.
    pub(in super::super) fn decided(&self, decision: &Decision) {
        for (reason, count) in &decision.eligible {
            self.eligible.get_or_create(&OfReason { reason: reason.label() }).set(gauge(*count));
        }
        self.allowed.clear();
        self.consuming.clear();
        for ((pool, reason), of) in &decision.budgets {
            let labels = OfBudget { nodepool: pool.to_string(), reason: reason.label() };
            self.allowed.get_or_create(&labels).set(of.allowed.into());
            self.consuming.get_or_create(&labels).set(of.disrupting.into());
        }
        for weighed in &decision.moves {
            self.weighed(weighed);
        }
    }

    /// A score says what its own pool thinks of a move, the count what came of it.
    fn weighed(&self, Move { pool, policy, is_approved, score }: &Move) {
        let labels = |is_approved| Weighed {
            decision: if is_approved { "approved" } else { "rejected" },
            nodepool: pool.to_string(),
            policy: policy.name(),
        };
        self.moves.get_or_create(&labels(*is_approved)).inc();
        if let Some(score) = score {
            self.scores.get_or_create(&labels(score.is_approved())).observe(score.score);
        }
    }

    /// A method took so long.
    pub(in super::super) fn evaluated(&self, method: Method, took: Duration) {
        let (reason, consolidation_type) = (method.reason().label(), method.consolidation_type());
        self.seconds.get_or_create(&Evaluated { reason, consolidation_type }).observe(took.as_secs_f64());
    }

    /// What the machines of pools cost, and how many nobody knows the price of; pools that are gone cost nothing any more.
    pub(in super::super) fn cost(
        &self,
        costs: &BTreeMap<Arc<str>, f64>,
        unpriced: &BTreeMap<Arc<str>, usize>,
    ) {
        let of = |pool: &Arc<str>| OfPool { nodepool: pool.to_string() };
        self.costs.clear();
        for (pool, cost) in costs {
            self.costs.get_or_create(&of(pool)).set(*cost);
        }
        for (pool, claims) in unpriced {
            self.cost_errors.get_or_create(&of(pool)).inc_by(*claims as u64);
        }
    }

    /// A decision is carried out, which takes nodes of these pools.
    pub(in super::super) fn begun(&self, command: &Command, pools: impl IntoIterator<Item = String>) {
        let Decided { decision, reason, consolidation_type } = Decided::of(command);
        for nodepool in pools {
            let labels = DecidedOfPool { nodepool, decision, reason, consolidation_type };
            self.decisions_of_pools.get_or_create(&labels).inc();
        }
        self.decisions.get_or_create(&Decided::of(command)).inc();
    }

    /// A decision was given up since so many replacements had not come up.
    pub(in super::super) fn failed(&self, command: &Command, replacements: usize) {
        self.failed.get_or_create(&Decided::of(command)).inc_by(replacements as u64);
    }

    pub(in super::super) fn timed_out(&self, method: Method) {
        self.timeouts.get_or_create(&OfMethod { consolidation_type: method.consolidation_type() }).inc();
    }

    /// Nodes of a decision may not go any more; that their pods would have no place, or another one, is no matter of theirs.
    pub(in super::super) fn invalid(&self, command: &Command, why: &Invalid) {
        if !matches!(why, Invalid::Scheduling(_)) {
            let labels = OfMethod { consolidation_type: command.method.consolidation_type() };
            self.failed_validations.get_or_create(&labels).inc_by(command.claims.len() as u64);
        }
    }
}

impl Decided {
    fn of(command: &Command) -> Self {
        let (decision, method) = (command.decision(), command.method);
        Self { decision, reason: method.reason().label(), consolidation_type: method.consolidation_type() }
    }
}
