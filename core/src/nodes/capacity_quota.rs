//! CapacityQuotas (`--capacity-quotas-enabled`): the most that the nodes of a selector may have together.
//!
//! Source: Cluster Autoscaler, `resourcequotas` and `resourcequotas/capacityquota`.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::LabelSelector};
use kube::ResourceExt as _;
use thiserror::Error;

use super::{buffer::Said, drain::selects};
use crate::{
    api::autoscaling,
    quantity::{format_milli, parse_milli},
    scheduling::{Node, Resources},
};

/// The name under which a quota limits how many nodes there are.
pub const NODES: &str = "nodes";

/// A label of nodes that are no machines; they count for nothing.
const VIRTUAL_KUBELET: (&str, &str) = ("type", "virtual-kubelet");

/// A CapacityQuota as decisions see it.
#[derive(Debug, Clone, PartialEq)]
pub struct CapacityQuota {
    /// Its name.
    pub name: Arc<str>,
    selector: LabelSelector,
    /// By resource, in the units of [`Resources`]; nodes in pieces.
    limits: Vec<(Box<str>, i64)>,
}

/// Why a quota cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// An operator that there is not.
    #[error("spec.selector: {key} has the operator {operator:?}; write In, NotIn, Exists or DoesNotExist")]
    Operator {
        /// The label.
        key: String,
        /// The operator.
        operator: String,
    },
    /// Values that are missing, or that nothing is compared with.
    #[error("spec.selector: {key} has the operator {operator} and {count} values; {hint}")]
    Values {
        /// The label.
        key: String,
        /// The operator.
        operator: String,
        /// How many values it has.
        count: usize,
        /// What to write.
        hint: &'static str,
    },
    /// A limit that is no amount.
    #[error(
        "spec.limits.resources: {resource} is {value:?}; write a whole number that is not negative, such as 8 or 32Gi"
    )]
    Limit {
        /// The resource.
        resource: String,
        /// What it says.
        value: String,
    },
}

impl CapacityQuota {
    /// Reads a quota of the API.
    ///
    /// # Errors
    /// It does not say what it limits, or by how much.
    pub fn read(quota: &autoscaling::CapacityQuota) -> Result<Self, Problem> {
        let selector = quota.spec.selector.clone().unwrap_or_default();
        check_selector(&selector)?;
        let list = quota.spec.limits.resources.clone().unwrap_or_default();
        for (resource, Quantity(value)) in &list {
            if parse_milli(value).ok().is_none_or(|milli| milli < 0) {
                return Err(Problem::Limit { resource: resource.clone(), value: value.clone() });
            }
        }
        let amounts = Resources::from_list(&list);
        let limits = list.keys().map(|name| (name.as_str().into(), amounts.get(name))).collect();
        Ok(Self { name: quota.name_any().into(), selector, limits })
    }

    /// Whether it counts a node.
    pub fn applies_to(&self, node: &Node) -> bool {
        is_machine(node) && selects(&self.selector, &node.labels)
    }

    /// Its limits by resource, in the units of [`Resources`].
    pub fn limits(&self) -> impl Iterator<Item = (&str, i64)> {
        self.limits.iter().map(|(resource, limit)| (&**resource, *limit))
    }

    /// What those of these nodes that it counts have of what it limits, as its status tells it.
    pub fn used<'a>(&self, nodes: impl Iterator<Item = &'a Node>) -> BTreeMap<String, Quantity> {
        let mut sums = vec![0_i64; self.limits.len()];
        for node in nodes.filter(|node| self.applies_to(node)) {
            for ((resource, _), sum) in self.limits.iter().zip(&mut sums) {
                let amount = if &**resource == NODES { 1 } else { node.capacity.get(resource) };
                *sum = sum.saturating_add(amount);
            }
        }
        let text = |resource: &str, sum: i64| match resource {
            "cpu" => format_milli(sum),
            // As nodes have it themselves.
            "memory" if sum % 1024 == 0 && sum != 0 => format!("{}Ki", sum / 1024),
            _ => sum.to_string(),
        };
        let used = self.limits.iter().zip(sums);
        used.map(|((resource, _), sum)| (resource.to_string(), Quantity(text(resource, sum)))).collect()
    }
}

/// Whether a node is a machine, and counts for limits.
pub fn is_machine(node: &Node) -> bool {
    let (label, value) = VIRTUAL_KUBELET;
    node.labels.get(label).is_none_or(|other| other != value)
}

/// Source: apimachinery, `LabelSelectorAsSelector`.
fn check_selector(selector: &LabelSelector) -> Result<(), Problem> {
    for expression in selector.match_expressions.iter().flatten() {
        let (key, operator) = (expression.key.clone(), expression.operator.clone());
        let count = expression.values.as_ref().map_or(0, Vec::len);
        let hint = match (operator.as_str(), count) {
            ("In" | "NotIn", 0) => "name at least one",
            ("Exists" | "DoesNotExist", 1..) => "leave values out",
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => continue,
            _ => return Err(Problem::Operator { key, operator }),
        };
        return Err(Problem::Values { key, operator, count, hint });
    }
    Ok(())
}

/// Every condition: type, status, reason, and when it is said.
pub const CONDITIONS: &[(&str, &str, &str, &str)] = &[
    ("cluster-autoscaler.kubernetes.io/valid", "True", "ValidationSucceeded", "it is kept"),
    ("cluster-autoscaler.kubernetes.io/valid", "False", "ValidationFailed", "it is not, and what to write"),
    ("Reconciled", "True", "ReconciliationSucceeded", "`status.used` is what its nodes have"),
    ("Reconciled", "False", "ReconciliationFailed", "it is not, since the quota is not valid"),
];

/// What its conditions say: whether it is valid, and so kept, and whether its status is right. `valid` is how the former is
/// called in the version that is served.
pub fn said(problem: Option<&Problem>, valid: &'static str) -> [Said; 2] {
    let reconciled = "Reconciled";
    let condition =
        |kind, holds, reason, message: &str| Said { kind, holds, reason, message: message.to_owned() };
    match problem {
        None => [
            condition(valid, true, "ValidationSucceeded", "CapacityQuota is valid"),
            condition(reconciled, true, "ReconciliationSucceeded", "CapacityQuota successfully reconciled"),
        ],
        Some(problem) => [
            condition(valid, false, "ValidationFailed", &problem.to_string()),
            condition(reconciled, false, "ReconciliationFailed", "Validation failed"),
        ],
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(crate) fn quota(name: &str, selector: &Value, limits: &Value) -> Result<CapacityQuota, Problem> {
        let object = json!({"apiVersion": "autoscaling.x-k8s.io/v1beta1", "kind": "CapacityQuota",
            "metadata": {"name": name}, "spec": {"selector": selector, "limits": {"resources": limits}}});
        CapacityQuota::read(&serde_json::from_value(object).unwrap())
    }

    fn node(labels: &[(&str, &str)]) -> Node {
        let mut capacity = Resources { cpu: 3920, memory: 3 << 20, ..Resources::default() };
        capacity.set("nvidia.com/gpu", 2);
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Node { labels, capacity, ..Node::default() }
    }

    #[test]
    fn a_quota_counts_the_nodes_of_its_selector() {
        let nodes = [node(&[("team", "a")]), node(&[("team", "b")]), node(&[("type", "virtual-kubelet")])];
        let limits = json!({"cpu": 8, "memory": "1Gi", "nodes": "3", "nvidia.com/gpu": 4, "absent": 1});
        let used = |selector: Value| {
            let used = quota("q", &selector, &limits).unwrap().used(nodes.iter());
            used.values().map(|Quantity(text)| text.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(used(Value::Null), "0 7840m 6144Ki 2 4");
        assert_eq!(used(json!({})), "0 7840m 6144Ki 2 4");
        assert_eq!(used(json!({"matchLabels": {"team": "a"}})), "0 3920m 3072Ki 1 2");
        let others =
            json!({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["a", "b"]}]});
        assert_eq!(used(others), "0 0 0 0 0");
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_write() {
        let expression = |operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": "a", "operator": operator, "values": values}]});
        let some = json!({"cpu": 1});
        for (selector, limits, wanted) in [
            (expression("Is", &["b"]), &some, "operator \"Is\"; write In"),
            (expression("In", &[]), &some, "In and 0 values; name at least one"),
            (expression("Exists", &["b"]), &some, "Exists and 1 values; leave values out"),
            (Value::Null, &json!({"cpu": "many"}), "cpu is \"many\"; write a whole number"),
            (Value::Null, &json!({"cpu": -1}), "cpu is \"-1\"; write a whole number"),
        ] {
            let problem = quota("q", &selector, limits).unwrap_err();
            let [valid, reconciled] = said(Some(&problem), "Valid");
            assert!(valid.message.contains(wanted), "{}", valid.message);
            assert!(!valid.holds && !reconciled.holds);
        }
        let valid = quota("q", &expression("Exists", &[]), &some);
        assert!(valid.is_ok() && said(None, "Valid").iter().all(|said| said.holds), "{valid:?}");
    }
}
