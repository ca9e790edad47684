//! `estimator`: how many nodes of one kind pods need.

use std::{cell::Cell, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as k8s;
use serde_json::Value;
use tandem_core::{
    nodes::{
        estimator::{
            self, Estimate, Limiter, Limits, cluster_limit, decreasing, estimate, estimate_in_order,
            fastpath, fastpath_group, similar_groups_limit,
        },
        group::Template,
    },
    scheduling::{ClassId, Node, Pod, Snapshot},
};

use super::{Differences, Verdict, object, read, unknown_kind};

pub(super) fn judge(case: &Value) -> Verdict {
    let mut differences = Differences::default();
    match case["kind"].as_str() {
        Some("estimate") => estimation(case, &mut differences),
        Some("fastpathGroup") => fastpath_choice(case, &mut differences),
        Some("order") => order(case, &mut differences),
        Some("limiter") => limiter(case, &mut differences),
        Some("minLimit") => min_limit(case, &mut differences),
        Some("similarGroupsLimit") => similar_groups(case, &mut differences),
        Some("clusterLimit") => {
            let limit = cluster_limit(read(&case["maxNodesTotal"]), read(&case["currentNodes"]));
            differences.same("limit", limit, read(&case["expectedLimit"]));
        }
        _ => return unknown_kind(case),
    }
    differences.verdict()
}

struct World {
    snapshot: Snapshot,
    template: Template,
    groups: Vec<(ClassId, u32)>,
    names: Vec<Arc<str>>,
}

fn world(case: &Value) -> World {
    let mut snapshot = Snapshot::default();
    for existing in case["existingNodes"].as_array().into_iter().flatten() {
        snapshot.add_node(&node(existing));
    }
    let mut groups = Vec::new();
    let mut names = Vec::new();
    for group in case["podGroups"].as_array().expect("groups") {
        let pod = pod(&group["pod"]);
        groups.push((snapshot.class(&pod), read(&group["count"])));
        names.push(pod.name);
    }
    let template = Template { node: node(&case["nodeTemplate"]), pods: Vec::new() };
    World { snapshot, template, groups, names }
}

fn node(value: &Value) -> Node {
    Node::read(&object::<k8s::Node>(value))
}

fn pod(value: &Value) -> Pod {
    Pod::read(&object::<k8s::Pod>(value), Arc::new)
}

fn estimation(case: &Value, differences: &mut Differences) {
    let World { mut snapshot, template, groups, .. } = world(case);
    let limits = Limits { nodes: read(&case["maxNodes"]), ..Limits::default() };
    let clock = || Timestamp::UNIX_EPOCH;
    let got = estimate(&mut snapshot, &template, &groups, &mut Limiter::start(limits, &clock));
    compare(case, &got, differences);
    if case["expectedFastpathSame"] == true {
        let order = fastpath(&snapshot, &template.node, &groups);
        let limiter = &mut Limiter::start(limits, &clock);
        compare(case, &estimate_in_order(&mut snapshot, &template, &groups, &order, limiter), differences);
    }
}

/// The peer counts every node that got a pod, those of the cluster too.
fn compare(case: &Value, got: &Estimate, differences: &mut Differences) {
    let Estimate { nodes, existing_nodes, scheduled, .. } = got;
    differences.same("nodes", nodes + existing_nodes, read(&case["expectedNodes"]));
    differences.same("pods", scheduled.iter().sum::<u32>(), read(&case["expectedPods"]));
    if let Some(new) = case["derivedNewNodesWithPods"].as_u64() {
        differences.same("new nodes", u64::from(*nodes), new);
    }
    if case["expectedPodsPerGroup"].is_array() {
        differences.same("pods a group", scheduled.clone(), read(&case["expectedPodsPerGroup"]));
    }
}

fn fastpath_choice(case: &Value, differences: &mut Differences) {
    let World { snapshot, template, groups, .. } = world(case);
    let group = fastpath_group(&snapshot, &template.node, &groups);
    let got = group.map_or(-1, |group| i64::try_from(group).expect("a small index"));
    differences.same("group", got, read(&case["expectedGroupIndex"]));
}

fn order(case: &Value, differences: &mut Differences) {
    let World { snapshot, template, groups, names } = world(case);
    let order = decreasing(&snapshot, &template.node, &groups);
    let got: Vec<String> = order.into_iter().map(|group| names[group].to_string()).collect();
    differences.same("order", got, read(&case["expectedOrder"]));
}

fn limiter(case: &Value, differences: &mut Differences) {
    let thresholds = case["thresholds"].as_array().into_iter().flatten().map(|threshold| Limits {
        nodes: read(&threshold["maxNodes"]),
        duration: SignedDuration::from_secs_f64(read(&threshold["maxDurationSeconds"])),
    });
    let limits = thresholds.fold(Limits::default(), Limits::and);
    let now = Cell::new(Timestamp::UNIX_EPOCH);
    let clock = || now.get();
    let mut limiter = Limiter::start(limits, &clock);
    now.set(now.get() + SignedDuration::from_secs(read(&case["startedSecondsAgo"])));
    for (at, operation) in case["operations"].as_array().expect("operations").iter().enumerate() {
        match operation.as_str() {
            Some("restart") => limiter = Limiter::start(limits, &clock),
            wanted => {
                let got = if limiter.permit() { "allow" } else { "deny" };
                differences.same(&format!("operation {at}"), Some(got), wanted);
            }
        }
    }
    differences.same("nodes", limiter.added(), read(&case["expectedNodeCount"]));
}

fn min_limit(case: &Value, differences: &mut Differences) {
    let (base, target): (i64, i64) = (read(&case["base"]), read(&case["target"]));
    differences.same("limit", estimator::stricter(base, target), read(&case["expected"]));
}

fn similar_groups(case: &Value, differences: &mut Differences) {
    let similar = case["similarGroups"].as_array().into_iter().flatten();
    let groups = similar.chain([&case["group"]]).filter(|group| !group.is_null());
    let limit =
        similar_groups_limit(groups.map(|group| (read(&group["maxSize"]), read(&group["targetSize"]))));
    differences.same("limit", limit, read(&case["expectedLimit"]));
}
