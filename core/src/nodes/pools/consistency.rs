//! Whether a node is what its claim was launched for.
//!
//! Source: core, `pkg/controllers/nodeclaim/consistency/nodeshape.go`.

use std::fmt;

use crate::{
    api::karpenter::NodeClaim,
    quantity::format_milli,
    scheduling::{Node, Resources},
};

/// A node has at least this much of what its machine promised, percent; less is no rounding.
const LEAST: i128 = 90;

/// A resource of which a node has too little. Processor in thousandths of a core, everything else as [`Resources`] has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// The resource.
    pub resource: String,
    /// What the machine promised.
    pub expected: i64,
    /// What the node has.
    pub found: i64,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, expected, found } = self;
        let text = |amount: i64| if resource == "cpu" { format_milli(amount) } else { amount.to_string() };
        let thousandths = i128::from(*found) * 1000 / i128::from(*expected).max(1);
        let (percent, tenths) = (thousandths / 10, thousandths % 10);
        let (expected, found) = (text(*expected), text(*found));
        write!(
            f,
            "expected {expected} of resource {resource}, but found {found} ({percent}.{tenths}% of expected)"
        )
    }
}

/// What a node has too little of, among what its claim asks for, ordered as [`Resources`] are.
pub fn shortfalls(claim: &NodeClaim, node: &Node) -> Vec<Shortfall> {
    let asked = claim.spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let promised = claim.status.as_ref().and_then(|status| status.capacity.as_ref());
    let (asked, promised) = (Resources::from_optional(asked), Resources::from_optional(promised));
    let short = |(resource, asked): (&str, i64)| {
        let (expected, found) = (promised.get(resource), node.capacity.get(resource));
        let is_short = asked != 0 && expected > 0 && i128::from(found) * 100 < i128::from(expected) * LEAST;
        is_short.then(|| Shortfall { resource: resource.to_owned(), expected, found })
    };
    asked.iter().filter_map(short).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_has_nine_tenths_of_what_was_promised_and_asked_for() {
        let claim: NodeClaim = serde_json::from_value(json!({
            "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": {"name": "c"},
            "spec": {
                "requirements": [], "nodeClassRef": {"group": "g", "kind": "k", "name": "n"},
                "resources": {"requests": {"cpu": "1", "memory": "100", "nvidia.com/gpu": "1"}},
            },
            "status": {"capacity": {"cpu": "4", "memory": "1000", "pods": "110"}},
        }))
        .unwrap();
        let node = |cpu, memory| {
            let capacity = Resources { cpu, memory, ..Resources::default() };
            Node { capacity, ..Node::default() }
        };
        let cpu = "expected 4 of resource cpu, but found 3500m (87.5% of expected)";
        let memory = "expected 1000 of resource memory, but found 899 (89.9% of expected)";
        for (node, wanted) in [
            // Nobody asked for its pods, and nobody promised a GPU.
            (node(4000, 1000), &[][..]),
            (node(3600, 900), &[][..]),
            (node(3500, 900), &[cpu][..]),
            (node(3500, 899), &[cpu, memory][..]),
        ] {
            let found: Vec<_> = shortfalls(&claim, &node).iter().map(ToString::to_string).collect();
            assert_eq!(found, wanted);
        }
    }
}
