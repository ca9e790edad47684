//! The price expander: the least cost for what runs, and nodes that are neither too small nor too large.
//!
//! Source: Cluster Autoscaler, `expander/price`.

use super::Choice;

/// Nodes with accelerators are taken for pods that need them only.
const GPU_UNFITNESS: f64 = 1000.0;
/// A group that would have to be made first is worth it only at half the price.
const NOT_EXISTING: f64 = 2.0;
/// Over this many nodes the fit of one node loses most of its weight.
const UNFITNESS_NODES: f64 = 15.0;

/// What a group's nodes and the pods cost, in any one currency for an hour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pricing {
    /// One node; `None` if that is not known.
    pub node: Option<f64>,
    /// The pods together, as a part of a node would cost; `None` if that of any is not known.
    pub pods: Option<f64>,
    /// A small pod, which keeps the ratio steady where pods request next to nothing.
    pub stabilization: f64,
    /// Whether the nodes have accelerators.
    pub has_gpu: bool,
    /// Whether the group is there, and need not be made first.
    pub exists: bool,
}

impl Default for Pricing {
    fn default() -> Self {
        Self { node: None, pods: None, stabilization: 0.0, has_gpu: false, exists: true }
    }
}

/// How good a choice is by its price: less is better.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// What the nodes cost for each unit that the pods are worth.
    pub price: f64,
    /// By how much the size of the nodes is off, from 1.
    pub unfitness: f64,
    /// The product, that decides.
    pub total: f64,
}

/// The score of a choice; `None` if a price is not known. `preferred` is the cpu of the preferred node, thousandths.
pub fn score(choice: &Choice, preferred: i64) -> Option<Score> {
    let Pricing { node, pods, stabilization, has_gpu, exists } = choice.pricing;
    let price = (node? * f64::from(choice.nodes) + stabilization) / (pods? + stabilization);
    let further_nodes = f64::from(choice.nodes) - 1.0;
    let unfitness = if has_gpu {
        GPU_UNFITNESS
    } else {
        let alone = unfitness(preferred, choice.capacity.cpu);
        (alone - 1.0) * (1.0 - (further_nodes / UNFITNESS_NODES).tanh()) + 1.0
    };
    let total = price * unfitness * if exists { 1.0 } else { NOT_EXISTING };
    Some(Score { price, unfitness, total })
}

/// How many times larger or smaller a node is than the preferred one, by cpu in thousandths; at least 1.
#[allow(clippy::cast_precision_loss, reason = "a ratio of amounts: 53 bits are plenty")]
pub fn unfitness(preferred: i64, cpu: i64) -> f64 {
    let (preferred, cpu) = (preferred as f64, cpu as f64);
    (preferred / cpu).max(cpu / preferred)
}

/// The cpu of the node that is preferred in a cluster of so many nodes, thousandths: twice as much for a cluster three
/// times as large.
pub fn preferred_cpu(cluster_nodes: usize) -> i64 {
    match cluster_nodes {
        0..=2 => 1000,
        3..=6 => 2000,
        7..=20 => 4000,
        21..=60 => 8000,
        61..=200 => 16_000,
        _ => 32_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::Resources;

    fn choice(nodes: u32, pricing: Pricing) -> Choice {
        let capacity = Resources { cpu: 4000, ..Resources::default() };
        Choice { nodes, capacity, pricing, ..Choice::default() }
    }

    #[test]
    fn groups_to_be_made_and_accelerators_cost_more() {
        let known = Pricing { node: Some(2.0), pods: Some(1.0), ..Pricing::default() };
        let total = |pricing| score(&choice(1, pricing), 4000).map(|score| score.total);
        assert_eq!(total(known), Some(2.0));
        assert_eq!(total(Pricing { exists: false, ..known }), Some(4.0));
        assert_eq!(total(Pricing { has_gpu: true, ..known }), Some(2000.0));
        assert_eq!(total(Pricing { pods: None, ..known }), None);
    }

    #[test]
    fn the_fit_of_one_node_matters_less_among_many() {
        let known = Pricing { node: Some(1.0), pods: Some(1.0), ..Pricing::default() };
        let unfitness = |nodes| score(&choice(nodes, known), 1000).unwrap().unfitness;
        assert!((unfitness(1) - 4.0).abs() < 1e-9);
        assert!(unfitness(2) < unfitness(1) && unfitness(100) < 1.001);
    }
}
