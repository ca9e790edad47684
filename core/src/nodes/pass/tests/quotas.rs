use serde_json::{Value, json};

use super::*;
use crate::nodes::{
    capacity_quota::tests::quota,
    similar::{Comparator, Flavour, Ratios},
};

/// Bounds the nodes of these groups.
fn bounded(mut cluster: Cluster, name: &str, groups: &[&str], limits: &Value) -> Cluster {
    let of_groups = json!({"matchExpressions": [{"key": GROUP, "operator": "In", "values": groups}]});
    let selector = if groups.is_empty() { Value::Null } else { of_groups };
    cluster.input.quotas.push(Arc::new(quota(name, &selector, limits).unwrap()));
    cluster
}

/// Two groups, the first with a node, and pods for three nodes more.
fn two() -> Cluster {
    let cluster = Cluster::default().group("a", (0, 9), 1).group("b", (0, 9), 0);
    cluster.running("a-0", CPU, |_| {}).waiting(3, CPU)
}

fn balanced() -> PassSettings {
    let mut settings = settings();
    let ignored = [GROUP.to_owned()].into();
    let comparator = Comparator::Nodes { flavour: Flavour::Generic, ignored, ratios: Ratios::default() };
    settings.scale_up.balance = Some(comparator);
    settings
}

#[test]
fn groups_grow_within_the_quotas_that_count_their_nodes() {
    let pinned = |mut cluster: Cluster| {
        cluster.input.groups.truncate(1);
        cluster
    };
    let cases = [
        ("of nodes", two(), "a", json!({"nodes": 3}), vec![("a", 3), ("b", 1)]),
        ("of cpu", two(), "a", json!({"cpu": 11}), vec![("a", 2), ("b", 2)]),
        ("of memory", two(), "a", json!({"memory": "32Gi"}), vec![("a", 2), ("b", 2)]),
        ("of another resource", two(), "a", json!({"pods": 220}), vec![("a", 2), ("b", 2)]),
        ("the least of several", two(), "a", json!({"cpu": 100, "nodes": 2}), vec![("a", 2), ("b", 2)]),
        ("of what nodes do not have", two(), "a", json!({"tpu": 0}), vec![("a", 4)]),
        ("of another group", two(), "b", json!({"nodes": 0}), vec![("a", 4)]),
        ("that is exceeded", two(), "a", json!({"nodes": 0}), vec![("b", 3)]),
        (
            "what is on its way counts",
            two().instance("a", "new", false),
            "a",
            json!({"nodes": 2}),
            vec![("b", 2)],
        ),
        ("nothing else may grow", pinned(two()), "a", json!({"nodes": 2}), vec![("a", 2)]),
    ];
    for (name, cluster, group, limits, wanted) in cases {
        let outcome = bounded(cluster, "q", &[group], &limits).pass(&mut Memory::default(), 0, &settings());
        assert_eq!(grown(&outcome), wanted, "{name}");
    }
    let all = bounded(two(), "q", &[], &json!({"nodes": 3})).pass(&mut Memory::default(), 0, &settings());
    assert_eq!(grown(&all), [("a", 3)], "several groups share one");
}

#[test]
fn a_node_that_is_starting_counts_before_it_has_its_labels_and_devices() {
    let labels = |node: &mut Node| {
        node.labels.remove(GROUP);
        node.ready = false;
        node.created = Some(at(0));
    };
    let cluster = two().instance("a", "new", true).with_node("new", labels);
    let outcome =
        bounded(cluster, "q", &["a"], &json!({"nodes": 2})).pass(&mut Memory::default(), 0, &settings());
    assert_eq!(grown(&outcome), [("b", 2)]);
}

#[test]
fn pods_are_told_which_quota_is_in_the_way() {
    let cluster = bounded(two(), "team", &["a", "b"], &json!({"nodes": 1, "cpu": 4}));
    let reason = "exceeded quota: \"CapacityQuota/team\", resources: cpu, nodes";
    let outcome = cluster.clone().pass(&mut Memory::default(), 0, &settings());
    let reasons: Vec<_> = outcome.plan.refused[0].1.iter().map(|refusal| &*refusal.reason).collect();
    assert_eq!(reasons, [reason, reason]);
    let pod = cluster.input.pods.last().unwrap();
    let explained = super::super::explain::pod(pod, &Memory::default(), &cluster.input, &settings());
    assert_eq!(explained.groups[0].refusal.as_deref(), Some(reason));
}

#[test]
fn groups_that_are_alike_share_new_nodes_within_their_quotas() {
    let groups = || Cluster::default().group("a", (0, 9), 0).group("b", (0, 9), 0).waiting(4, CPU);
    let even = groups().pass(&mut Memory::default(), 0, &balanced());
    assert_eq!(grown(&even), [("a", 2), ("b", 2)]);
    let few =
        bounded(groups(), "q", &["b"], &json!({"nodes": 1})).pass(&mut Memory::default(), 0, &balanced());
    assert_eq!(grown(&few), [("a", 3), ("b", 1)]);
    let none =
        bounded(groups(), "q", &["b"], &json!({"nodes": 0})).pass(&mut Memory::default(), 0, &balanced());
    assert_eq!(grown(&none), [("a", 4)]);
    assert!(none.plan.splits.is_empty(), "{:?}", none.plan.splits);
    // The other's nodes are a little larger.
    let mut larger = groups();
    larger.input.templates.get_mut("b").unwrap().node.capacity.memory += 1 << 20;
    let mut tight = balanced();
    tight.scale_up.max_memory = 4 * (16 << 30);
    assert_eq!(grown(&larger.pass(&mut Memory::default(), 0, &tight)), [("a", 4)]);
}

#[test]
fn a_calm_cluster_follows_a_quota_that_is_raised() {
    let mut settings = settings();
    settings.scale_up.enforce_min = true;
    let mut cluster = bounded(Cluster::default().group("a", (2, 9), 1), "q", &[], &json!({"nodes": 1}));
    cluster = cluster.running("a-0", CPU, |_| {});
    let (mut memory, mut model) = (Memory::default(), Model::new(settings));
    let mut pass = |input: &Input| model.pass(&mut memory, input, &mut |_, _| None);
    assert!(pass(&cluster.input).actions.is_empty() && pass(&cluster.input).actions.is_empty());
    cluster.input.quotas.clear();
    assert_eq!(grown(&pass(&cluster.input)), [("a", 2)]);
}

#[test]
fn nodes_that_are_no_machines_count_for_no_limit() {
    let mut settings = settings();
    settings.scale_up.max_cores = 8;
    let strange = |node: &mut Node| drop(node.labels.insert("type".to_owned(), "virtual-kubelet".to_owned()));
    let mut cluster = bounded(two().with_node("a-0", strange), "q", &[], &json!({"nodes": 5}));
    assert_eq!(grown(&cluster.pass(&mut Memory::default(), 0, &settings)), [("a", 3)]);
}
