//! `budgets`: how many nodes of a pool may be disrupted at once.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tandem_core::{
    api::karpenter::Budget,
    nodes::pools::budgets::{NodeFacts, PoolCount, Reason, UNLIMITED, allowed, allowed_by_reason, is_active},
};

use super::{Differences, Verdict, read, unknown_kind};

/// Where a case does not say, no schedule matters.
const NOW: &str = "2000-06-15T12:30:30Z";

/// So many equal pools.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Pools {
    name: String,
    count: i64,
    budgets: Vec<Budget>,
    nodes: Vec<Nodes>,
    expected: Option<i32>,
}

/// So many equal nodes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_excessive_bools, reason = "as the cases have them")]
struct Nodes {
    count: usize,
    managed: bool,
    initialized: bool,
    instance_terminating: bool,
    ready: bool,
    marked_for_deletion: bool,
}

impl Pools {
    fn count(&self) -> PoolCount {
        let facts = |nodes: &Nodes| NodeFacts {
            managed: nodes.managed,
            initialized: nodes.initialized,
            instance_terminating: nodes.instance_terminating,
            ready: nodes.ready,
            marked_for_deletion: nodes.marked_for_deletion,
        };
        PoolCount::of(self.nodes.iter().flat_map(|nodes| std::iter::repeat_n(facts(nodes), nodes.count)))
    }
}

pub(super) fn judge(case: &Value) -> Verdict {
    let mut differences = Differences::default();
    let budgets: Vec<Budget> = read(&case["budgets"]);
    let now: Timestamp = case["now"].as_str().unwrap_or(NOW).parse().expect("a time");
    let nodes: u32 = read(&case["nodes"]);
    match case["kind"].as_str() {
        Some("active") => {
            let got = is_active(&budgets[0], now);
            differences.same("active", got.as_ref().ok().copied(), read(&case["expected"]));
            error(case, got.err().map(|problem| problem.to_string()), &mut differences);
        }
        Some("allowed") => {
            let got = allowed(&budgets[0], nodes, now);
            if let Some(wanted) = case["expectedActive"].as_bool() {
                differences.same("active", is_active(&budgets[0], now), Ok(wanted));
            }
            differences.same("allowed", *got.as_ref().unwrap_or(&0), read(&case["expected"]));
            error(case, got.err().map(|problem| problem.to_string()), &mut differences);
        }
        Some("allowedByReason") => {
            let got = allowed_by_reason(&budgets, nodes, reason(case), now);
            differences.same("allowed", got.nodes, read(&case["expected"]));
            error(case, got.problems.first().map(ToString::to_string), &mut differences);
        }
        Some("mapping") => {
            let pools: Vec<Pools> = read(&case["pools"]);
            let got: BTreeMap<String, i32> = pools
                .iter()
                .map(|pool| (pool.name.clone(), pool.count().allowed(&pool.budgets, reason(case), now).nodes))
                .collect();
            differences.same("allowed", got, read(&case["expected"]));
        }
        Some("scenario") => scenario(case, now, &mut differences),
        _ => return unknown_kind(case),
    }
    differences.verdict()
}

fn reason(case: &Value) -> Reason {
    match case["reason"].as_str() {
        Some("Underutilized") => Reason::Underutilized,
        Some("Empty") => Reason::Empty,
        Some("Drifted") => Reason::Drifted,
        other => panic!("reason {other:?}"),
    }
}

fn error(case: &Value, got: Option<String>, differences: &mut Differences) {
    differences.same("error", Some(got.is_some()), case["expectedError"].as_bool());
    if let Some(part) = case["expectedErrorContains"].as_str() {
        let got = got.unwrap_or_default();
        differences.holds(got.contains(part), || format!("{got:?} does not contain {part:?}"));
    }
}

/// All of the nodes may go: what the budgets allow goes, and comes again where it is replaced.
fn scenario(case: &Value, now: Timestamp, differences: &mut Differences) {
    let mut left = 0;
    for pools in read::<Vec<Pools>>(&case["pools"]) {
        let count = pools.count();
        let allowed = count.allowed(&pools.budgets, reason(case), now).nodes;
        if let Some(wanted) = pools.expected {
            differences.same(&pools.name, allowed, wanted);
        }
        let nodes: i64 = pools.nodes.iter().map(|nodes| i64::try_from(nodes.count).unwrap_or_default()).sum();
        let gone = if allowed == UNLIMITED { nodes } else { i64::from(allowed).min(nodes) };
        let replaced: bool = read(&case["replaced"]);
        left += pools.count * (nodes - if replaced { 0 } else { gone });
    }
    if let Some(wanted) = case["expectedNodesLeft"].as_i64() {
        differences.same("nodes left", left, wanted);
    }
}
