//! `balanced`: the policy Balanced, and what it costs to disrupt a node.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as k8s;
use serde::Deserialize;
use serde_json::{Value, json};
use tandem_core::{
    api::karpenter::{ConsolidationPolicy, Disruption},
    nodes::pools::{
        balanced::{Score, TOLERANCE, Totals, evaluate, score, totals},
        costs::{self, Candidate, disruption_cost, eviction_cost},
        instance_type::{InstanceType, cheapest, compatible},
        requirements::{Requirements, WellKnownLabels},
    },
    scheduling::{Resources, pod::Shape},
};

use super::{Differences, Verdict, instance_selection, read, requirements, unknown_kind};

/// A node that may be disrupted, as cases word it.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Node {
    name: String,
    pool: String,
    price: Value,
    pods: Vec<k8s::Pod>,
    disruption_cost: Option<f64>,
}

impl Node {
    fn candidate(&self) -> Candidate {
        let shapes: Vec<_> = self.pods.iter().map(Shape::read).collect();
        Candidate {
            name: self.name.as_str().into(),
            pool: self.pool.as_str().into(),
            price: self.price.as_f64().unwrap_or(0.0),
            disruption_cost: self.disruption_cost.unwrap_or_else(|| disruption_cost(&shapes)),
        }
    }
}

pub(super) fn judge(case: &Value) -> Verdict {
    let mut differences = Differences::default();
    let number = |name: &str| case[name].as_f64().unwrap_or_default();
    let tolerance = number("tolerance").max(1e-9);
    let of_pool = || Totals { cost: number("totalCost"), disruption_cost: number("totalDisruptionCost") };
    let k = case["k"].as_f64().unwrap_or(TOLERANCE);
    match case["kind"].as_str() {
        Some("scoreMove") => {
            let got = score(number("savings"), number("disruptionCost"), of_pool(), k);
            differences.same("approved", Some(got.is_approved()), case["expectedApproved"].as_bool());
            near("score", got.score, &case["expectedScore"], tolerance, &mut differences);
        }
        Some("poolTotals") => pool_totals(case, tolerance, &mut differences),
        Some("evaluateMove") => evaluate_move(case, k, tolerance, &mut differences),
        Some("replaceSavings") => {
            let nodes = candidates(case);
            let wanted = requirements::requirements(&case["replacement"]["requirements"]);
            let offerings = instance_selection::offerings(&case["replacement"]["offerings"]);
            let well_known = WellKnownLabels::default();
            let available =
                compatible(&offerings, &wanted, &well_known).filter(|offering| offering.available);
            let paid: f64 = nodes.iter().map(|node| node.price).sum();
            let savings = paid - cheapest(available).map_or(0.0, |offering| offering.price);
            near("savings", savings, &case["expectedSavings"], tolerance, &mut differences);
            let cost: f64 = nodes.iter().map(|node| node.disruption_cost).sum();
            if let Some(wanted) = case["expectedApproved"].as_bool() {
                differences.same("approved", score(savings, cost, of_pool(), k).is_approved(), wanted);
            }
        }
        Some("nodePrice") => {
            let labels = Requirements::of_labels(&read::<BTreeMap<String, String>>(&case["nodeLabels"]));
            let offerings = instance_selection::offerings(&case["offerings"]);
            let none = Resources::default();
            let one = InstanceType::new("one", Requirements::new(), none.clone(), none, offerings);
            let got = one.price_of_node(&labels, &WellKnownLabels::default());
            near("price", got, &case["expected"], tolerance, &mut differences);
        }
        Some("savingsRatio") => {
            let got = read::<Node>(&case["candidate"]).candidate().savings_ratio();
            near("ratio", got, &case["expected"], tolerance, &mut differences);
        }
        Some("sortCandidates") => {
            let mut nodes = candidates(case);
            costs::sort(&mut nodes);
            let names: Vec<_> = nodes.iter().map(|node| node.name.to_string()).collect();
            differences.same("order", names, read(&case["expectedOrder"]));
        }
        Some("podEvictionCost") => {
            let cost = eviction_cost(&Shape::read(&read::<k8s::Pod>(&case["pod"])));
            near("cost", cost, &case["derivedCost"], tolerance, &mut differences);
            let relation = case["expectedRelationToOne"].as_str().unwrap_or_default();
            let got = match cost.total_cmp(&1.0) {
                std::cmp::Ordering::Less => "<",
                std::cmp::Ordering::Equal => "=",
                std::cmp::Ordering::Greater => ">",
            };
            differences.holds(relation.starts_with(got), || format!("{cost} is not {relation} 1"));
        }
        Some("isBalanced") => {
            let consolidation_policy = case["policy"].as_str().map(str::to_owned);
            let policy = Disruption { consolidation_policy, ..Disruption::default() }.policy();
            let got = policy == ConsolidationPolicy::Balanced;
            differences.same("balanced", Some(got), case["expected"].as_bool());
        }
        _ => return unknown_kind(case),
    }
    differences.verdict()
}

fn candidates(case: &Value) -> Vec<Candidate> {
    read::<Vec<Node>>(&case["candidates"]).iter().map(Node::candidate).collect()
}

/// Equal up to a tolerance; a value that a case does not assert is null.
fn near(what: &str, got: f64, wanted: &Value, tolerance: f64, differences: &mut Differences) {
    let wanted = if wanted == "Infinity" { Some(f64::INFINITY) } else { wanted.as_f64() };
    if let Some(wanted) = wanted {
        let same = got.total_cmp(&wanted).is_eq() || (got - wanted).abs() <= tolerance;
        differences.holds(same, || format!("{what}: got {got}, wanted {wanted}"));
    }
}

fn pool_totals(case: &Value, tolerance: f64, differences: &mut Differences) {
    let got = totals(&candidates(case));
    for (pool, wanted) in read::<BTreeMap<String, Value>>(&case["expectedTotals"]) {
        let got = got.get(pool.as_str()).copied().unwrap_or_default();
        near(&pool, got.cost, &wanted["totalCost"], tolerance, differences);
        near(&pool, got.disruption_cost, &wanted["totalDisruptionCost"], tolerance, differences);
    }
}

fn evaluate_move(case: &Value, k: f64, tolerance: f64, differences: &mut Differences) {
    let nodes = candidates(case);
    let moved: Vec<String> = read(&case["moveCandidates"]);
    let disrupted: Vec<_> =
        nodes.iter().filter(|node| moved.iter().any(|name| **name == *node.name)).cloned().collect();
    let known = if case["totalsMissing"] == json!(true) { BTreeMap::new() } else { totals(&nodes) };
    let replacement = case["replacementPrice"].as_f64().unwrap_or(0.0);
    let got = evaluate(&disrupted, replacement, |pool| case["pools"][pool] == "Balanced", &known, k);
    if let Some(wanted) = case["expectedApproved"].as_bool() {
        differences.same("approved", got.is_approved(), wanted);
    }
    let wanted: BTreeMap<String, Value> = read(&case["expectedScores"]);
    let pools: Vec<_> = got.scores.keys().map(ToString::to_string).collect();
    differences.same("scored", pools, wanted.keys().cloned().collect());
    for (pool, wanted) in &wanted {
        let score = got.scores.get(pool.as_str()).map_or(0.0, |score: &Score| score.score);
        near(pool, score, wanted, tolerance, differences);
    }
}
