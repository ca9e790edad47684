//! `similar_groups`: which groups are alike, and how new nodes are spread over them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1 as k8s;
use serde_json::Value;
use tandem_core::{
    nodes::{
        group::{GroupOptions, NodeGroup, Template},
        similar::{Comparator, Flavour, Ratios, balance},
    },
    scheduling::{Node, Pod},
};

use super::{Differences, Verdict, read, unknown_kind};

pub(super) fn judge(case: &Value) -> Verdict {
    match case["kind"].as_str() {
        Some("similar") => similar(case),
        Some("findSimilar") => find_similar(case),
        Some("balance") => spread(case),
        _ => unknown_kind(case),
    }
}

fn comparator(case: &Value) -> Comparator {
    let flavour = match case["comparator"].as_str() {
        Some("labels") => return Comparator::Labels(read(&case["comparedLabels"])),
        Some("aws") => Flavour::Aws,
        Some("azure") => Flavour::Azure,
        _ => Flavour::Generic,
    };
    let ratio = |name: &str| case["ratios"][name].as_f64().unwrap_or(0.0);
    let ignored: Vec<String> = read(&case["ignoredLabels"]);
    Comparator::Nodes {
        flavour,
        ignored: BTreeSet::from_iter(ignored),
        ratios: Ratios {
            allocatable: ratio("maxAllocatableDifferenceRatio"),
            free: ratio("maxFreeDifferenceRatio"),
            memory: ratio("maxCapacityMemoryDifferenceRatio"),
        },
    }
}

fn template(node: &Value, pods: &Value) -> Template {
    let pods: Vec<k8s::Pod> = read(pods);
    Template {
        node: Node::read(&read::<k8s::Node>(node)),
        pods: pods.iter().map(|pod| Pod::read(pod, Arc::new)).collect(),
    }
}

fn similar(case: &Value) -> Verdict {
    let [one, other] = [0, 1].map(|index| template(&case["nodes"][index], &case["pods"][index]));
    let mut differences = Differences::default();
    let comparator = comparator(case);
    differences.same("similar", comparator.similar(&one, &other), read(&case["expected"]));
    differences.same("the other way round", comparator.similar(&other, &one), read(&case["expected"]));
    differences.verdict()
}

fn find_similar(case: &Value) -> Verdict {
    let groups = case["groups"].as_array().into_iter().flatten();
    let templates: BTreeMap<Arc<str>, Template> = groups
        .map(|group| {
            (group["name"].as_str().expect("a name").into(), template(&group["template"], &group["pods"]))
        })
        .collect();
    let group = case["group"].as_str().expect("a name");
    let found: Vec<String> =
        comparator(case).find_similar(group, &templates).iter().map(ToString::to_string).collect();
    let mut differences = Differences::default();
    differences.same("similar", found, read(&case["expected"]));
    differences.verdict()
}

fn spread(case: &Value) -> Verdict {
    let groups: Vec<NodeGroup> = case["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|group| NodeGroup {
            id: group["name"].as_str().expect("a name").into(),
            min: read(&group["minSize"]),
            max: read(&group["maxSize"]),
            target: read(&group["targetSize"]),
            instances: Vec::new(),
            options: GroupOptions::default(),
        })
        .collect();
    let shares = balance(&groups, read(&case["newNodes"]));
    let got: BTreeMap<String, u32> = shares.iter().map(|share| (share.group.to_string(), share.to)).collect();
    let wanted: Vec<BTreeMap<String, u32>> = read(&case["expectedAnyOf"]);
    let mut differences = Differences::default();
    differences.holds(wanted.contains(&got), || format!("got {got:?}, wanted any of {wanted:?}"));
    differences.verdict()
}
