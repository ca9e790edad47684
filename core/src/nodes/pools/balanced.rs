//! The policy Balanced: nodes are consolidated where the savings outweigh the disruption.
//!
//! A move is scored by the share of its pool's cost that it saves over the share of its pool's disruption that it causes (core,
//! `pkg/controllers/disruption/balanced.go`, `designs/balanced-consolidation.md`).

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::costs::Candidate;

/// How many times its share of the savings a move may cause in disruption.
pub const TOLERANCE: f64 = 2.0;

/// What a pool is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// Dollars an hour.
    pub cost: f64,
    /// What it would cost to disrupt all of it.
    pub disruption_cost: f64,
}

/// What a move is worth to a pool.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Share of savings over share of disruption.
    pub score: f64,
    /// Share of the pool's cost that is saved.
    pub savings: f64,
    /// Share of the pool's disruption that is caused.
    pub disruption: f64,
    /// Least score that is worth it.
    pub threshold: f64,
}

impl Score {
    /// Whether the move is worth it.
    pub fn is_approved(&self) -> bool {
        self.score >= self.threshold
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { score, savings, disruption, threshold } = self;
        let sign = if self.is_approved() { ">=" } else { "<" };
        let (k, savings, disruption) = (1.0 / threshold, savings * 100.0, disruption * 100.0);
        write!(f, "score {score:.2} {sign} threshold {threshold:.2} ")?;
        write!(f, "(k: {k:.0}, savings {savings:.1}%, disruption {disruption:.1}%)")
    }
}

/// Scores a move of a pool: dollars an hour saved, cost of the disruption. What the pool's totals do not say scores 0.
pub fn score(savings: f64, disruption_cost: f64, totals: Totals, tolerance: f64) -> Score {
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let savings = share(savings, totals.cost);
    let disruption = share(disruption_cost, totals.disruption_cost);
    let score = if savings <= 0.0 || totals.disruption_cost <= 0.0 {
        0.0
    } else if disruption > 0.0 {
        savings / disruption
    } else {
        f64::INFINITY
    };
    Score { score, savings, disruption, threshold: 1.0 / tolerance }
}

/// What each pool is made of, from all of its nodes.
pub fn totals(nodes: &[Candidate]) -> BTreeMap<Arc<str>, Totals> {
    let mut totals: BTreeMap<_, Totals> = BTreeMap::new();
    for node in nodes {
        let of_pool = totals.entry(node.pool.clone()).or_default();
        of_pool.cost += node.price;
        of_pool.disruption_cost += node.disruption_cost;
    }
    totals
}

/// What a move is worth to each pool that it takes nodes of and that asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// By pool.
    pub scores: BTreeMap<Arc<str>, Score>,
}

impl Evaluation {
    /// Whether it is worth it to all of them.
    pub fn is_approved(&self) -> bool {
        self.scores.values().all(Score::is_approved)
    }
}

/// Scores a move for each pool whose policy is Balanced, by its share of what the disrupted nodes cost. `replacement` is the
/// price of the node that stands for them, dollars an hour, 0 for none.
pub fn evaluate(
    disrupted: &[Candidate],
    replacement: f64,
    is_balanced: impl Fn(&str) -> bool,
    pools: &BTreeMap<Arc<str>, Totals>,
    tolerance: f64,
) -> Evaluation {
    let parts = totals(disrupted);
    let cost: f64 = parts.values().map(|part| part.cost).sum();
    let savings = cost - replacement;
    let scores = parts
        .iter()
        .filter(|(pool, _)| is_balanced(pool))
        .map(|(pool, part)| {
            let share = if parts.len() > 1 && cost > 0.0 { part.cost / cost } else { 1.0 };
            let of_pool = pools.get(pool).copied().unwrap_or_default();
            (pool.clone(), score(savings * share, part.disruption_cost, of_pool, tolerance))
        })
        .collect();
    Evaluation { scores }
}

/// Whether any move of this node alone can be worth it: its deletion without a replacement saves the most.
pub fn can_be_approved(candidate: &Candidate, totals: Totals, tolerance: f64) -> bool {
    score(candidate.price, candidate.disruption_cost, totals, tolerance).is_approved()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, pool: &str, price: f64, disruption_cost: f64) -> Candidate {
        Candidate { name: name.into(), pool: pool.into(), price, disruption_cost }
    }

    #[test]
    fn every_balanced_pool_must_agree() {
        let nodes = [
            node("a1", "a", 1.0, 2.0),
            node("a2", "a", 9.0, 2.0),
            node("b1", "b", 5.0, 2.0),
            node("b2", "b", 5.0, 2.0),
        ];
        let totals = totals(&nodes);
        let approved = |moved: &[Candidate], replacement: f64, balanced: &str| {
            let is_balanced = |pool: &str| balanced.contains(pool);
            evaluate(moved, replacement, is_balanced, &totals, TOLERANCE).is_approved()
        };
        assert!(!approved(&nodes[..1], 0.0, "ab"), "a tenth of the cost for half of the disruption");
        assert!(approved(&nodes[..1], 0.0, "b"), "who does not ask is not asked");
        assert!(approved(&nodes[2..3], 0.0, "ab"));
        assert!(!approved(&[nodes[0].clone(), nodes[2].clone()], 0.0, "ab"), "a gets little for much");
        assert!(!approved(&nodes[2..3], 5.0, "ab"), "nothing is saved");
        let said = |savings| score(savings, 1.0, totals["a"], TOLERANCE).to_string();
        assert_eq!(said(2.5), "score 1.00 >= threshold 0.50 (k: 2, savings 25.0%, disruption 25.0%)");
        assert_eq!(said(1.0), "score 0.40 < threshold 0.50 (k: 2, savings 10.0%, disruption 25.0%)");
        assert!(!can_be_approved(&nodes[0], totals["a"], TOLERANCE));
        assert!(can_be_approved(&nodes[1], totals["a"], TOLERANCE));
    }
}
