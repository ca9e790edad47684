//! What it costs to disrupt a node, and what it saves (core, `pkg/utils/disruption`, `pkg/controllers/disruption/types.go`).
//!
//! Costs have no unit: an ordinary pod is 1. Prices are dollars an hour.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::scheduling::pod::Shape;

/// What a node costs to disrupt without any pods.
pub const COST_OF_NODE: f64 = 1.0;
/// The annotation by which a pod says how dear its deletion is, a number.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// A deletion cost that makes a pod worth one more: 2^27.
const DELETION_COST_OF_ONE: f64 = 134_217_728.0;
/// A priority that makes a pod worth one more: 2^25.
const PRIORITY_OF_ONE: f64 = 33_554_432.0;
/// How much and how little a pod can be worth.
const WORTH: f64 = 10.0;

/// What it costs to evict a pod. A deletion cost that is no number counts as none.
pub fn eviction_cost(pod: &Shape) -> f64 {
    let deletion = pod.annotations.get(DELETION_COST).and_then(|cost| cost.parse::<f64>().ok());
    let deletion = deletion.filter(|cost| cost.is_finite()).unwrap_or(0.0) / DELETION_COST_OF_ONE;
    let priority = f64::from(pod.priority.unwrap_or(0)) / PRIORITY_OF_ONE;
    (1.0 + deletion + priority).clamp(-WORTH, WORTH)
}

/// What it costs to disrupt a node with these pods, those that would have to move.
pub fn disruption_cost<'a>(pods: impl IntoIterator<Item = &'a Shape>) -> f64 {
    COST_OF_NODE + pods.into_iter().map(|pod| eviction_cost(pod).max(0.0)).sum::<f64>()
}

/// The share of its life that a node has still before it, from 0 to 1; all of it, if it lives for ever.
pub fn lifetime_remaining(created: Timestamp, expire_after: Option<SignedDuration>, now: Timestamp) -> f64 {
    let Some(life) = expire_after.filter(SignedDuration::is_positive) else { return 1.0 };
    let age = now.duration_since(created);
    ((life - age).as_secs_f64() / life.as_secs_f64()).clamp(0.0, 1.0)
}

/// A node that may be disrupted, as its worth goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The node.
    pub name: Arc<str>,
    /// Its pool.
    pub pool: Arc<str>,
    /// Its price, dollars an hour; 0 if nobody knows.
    pub price: f64,
    /// See [`disruption_cost`].
    pub disruption_cost: f64,
}

impl Candidate {
    /// What is saved by the cost of saving it.
    pub fn savings_ratio(&self) -> f64 {
        self.price / self.disruption_cost
    }

    /// Whether no pod of it is worth anything: its pods may all be of very low priority.
    pub fn is_empty(&self) -> bool {
        self.disruption_cost <= COST_OF_NODE
    }
}

/// Puts what saves most for its cost first, ties by name.
pub fn sort(candidates: &mut [Candidate]) {
    candidates.sort_by(|left, right| {
        right.savings_ratio().total_cmp(&left.savings_ratio()).then_with(|| left.name.cmp(&right.name))
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::scheduling::pod::Traits;

    fn pod(deletion_cost: &str, priority: i32) -> Shape {
        let annotations = BTreeMap::from([(DELETION_COST.to_owned(), deletion_cost.to_owned())]);
        Shape::from(Traits { annotations, priority: Some(priority), ..Traits::default() })
    }

    #[test]
    #[allow(clippy::float_cmp, reason = "powers of two are exact")]
    fn a_pod_is_worth_one_more_or_less() {
        for (deletion_cost, priority, wanted) in [
            ("0", 0, 1.0),
            ("134217728", 0, 2.0),
            ("-134217728", 0, 0.0),
            ("much", 0, 1.0),
            ("NaN", 0, 1.0),
            ("0", 67_108_864, 3.0),
            ("2147483647", i32::MAX, 10.0),
            ("0", i32::MIN, -10.0),
        ] {
            assert_eq!(eviction_cost(&pod(deletion_cost, priority)), wanted, "{deletion_cost} {priority}");
        }
        // What is worth less than nothing makes a node no cheaper to disrupt.
        assert_eq!(disruption_cost([&pod("0", i32::MIN), &pod("0", 0)]), 2.0);
    }

    #[test]
    #[allow(clippy::float_cmp, reason = "halves are exact")]
    fn life_passes() {
        let created = Timestamp::UNIX_EPOCH;
        let hours = SignedDuration::from_hours;
        for (life, age, wanted) in [
            (Some(hours(10)), hours(5), 0.5),
            (Some(hours(10)), hours(20), 0.0),
            (Some(hours(10)), hours(-1), 1.0),
            (Some(hours(0)), hours(1), 1.0),
            (None, hours(5), 1.0),
        ] {
            assert_eq!(lifetime_remaining(created, life, created + age), wanted, "{life:?} {age:?}");
        }
    }
}
