use clap::Parser;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Taint;
use prometheus_client::registry::Registry;
use tandem_core::{
    nodes::{
        backoff::BackoffSettings,
        cluster_state::{Expired, GroupState},
        drain::Verdict,
        group::{GroupOptions, InstanceError},
        pass::Unneeded,
    },
    scheduling::Resources,
};

use super::*;
use crate::telemetry::metrics::text;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    nodes: NodeArgs,
}

/// Names that dashboards (Grafana 3831) and alerts read.
const READ: &[&str] = &[
    "cluster_autoscaler_cluster_safe_to_autoscale 1.0",
    r#"cluster_autoscaler_nodes_count{state="ready"} 0.0"#,
    r#"cluster_autoscaler_nodes_count{state="suspended"} 0.0"#,
    r#"cluster_autoscaler_unschedulable_pods_count{type="unschedulable"} 0.0"#,
    r#"cluster_autoscaler_unschedulable_pods_count{type="scheduler_unprocessed"} 1.0"#,
    r#"cluster_autoscaler_node_taints_count{type="other"} 1.0"#,
    r#"cluster_autoscaler_node_taints_count{type="status-taint"} 2.0"#,
    r#"cluster_autoscaler_node_removal_latency_seconds_count{deleted="false",delay_reason="none"} 1"#,
    r#"cluster_autoscaler_last_activity{activity="scaleDown"}"#,
    r#"cluster_autoscaler_last_activity{activity="autoscaling"}"#,
    "cluster_autoscaler_unneeded_nodes_count 0.0",
    "cluster_autoscaler_scaled_up_nodes_total 3",
    "cluster_autoscaler_max_nodes_count 9.0",
    r#"cluster_autoscaler_cpu_limits_cores{direction="maximum"} 40.0"#,
    r#"cluster_autoscaler_memory_limits_bytes{direction="minimum"} 1073741824.0"#,
    "cluster_autoscaler_cluster_cpu_current_cores 4.0",
    "cluster_autoscaler_pending_node_deletions 2.0",
    r#"cluster_autoscaler_failed_scale_ups_total{reason="timeout"} 1"#,
    r#"cluster_autoscaler_failed_scale_ups_total{reason="cloudProviderError"} 1"#,
    r#"cluster_autoscaler_failed_scale_ups_total{reason="InsufficientInstanceCapacity"} 1"#,
    r#"cluster_autoscaler_failed_node_creations_total{reason="InsufficientInstanceCapacity"} 2"#,
    r#"cluster_autoscaler_errors_total{type="cloudProviderError"} 1"#,
    "cluster_autoscaler_old_unregistered_nodes_removed_count 1.0",
    r#"cluster_autoscaler_function_duration_seconds_count{function="main"} 2"#,
    r#"cluster_autoscaler_created_node_groups_total{group_type=""} 0"#,
    r#"cluster_autoscaler_deleted_node_groups_total{group_type=""} 0"#,
    "cluster_autoscaler_overflowing_controllers_count 0.0",
    r#"cluster_autoscaler_skipped_pods_count{requestor="filter-out-pod-list-processor"} 0.0"#,
];

#[test]
fn a_limit_is_told_by_its_resources() {
    for (reason, cpu, memory) in [
        ("exceeded quota: \"cluster-wide\", resources: cpu", true, false),
        ("exceeded quota: \"CapacityQuota/cpu\", resources: memory, nodes", false, true),
        ("exceeded quota: \"CapacityQuota/q\", resources: cpu, memory", true, true),
        ("Insufficient cpu", false, false),
    ] {
        assert_eq!((exceeds(reason, "cpu"), exceeds(reason, "memory")), (cpu, memory), "{reason}");
    }
}

#[test]
fn what_dashboards_and_alerts_read_is_there() {
    let flags =
        ["tandem", "--max-nodes-total=9", "--cores-total=0:40", "--memory-total=1:6", "--status-taint=hot"];
    let metrics = Arc::new(Metrics::new(&Flags::parse_from(flags).nodes));
    let mut registry = Registry::default();
    registry.register_collector(Box::new(MetricsCollector(metrics.clone())));
    let mut outcome = Outcome::default();
    outcome.found.healthy = true;
    let waited = SignedDuration::from_mins(15);
    outcome.found.expired.push(Expired { group: "a".into(), nodes: 1, waited });
    let code = "InsufficientInstanceCapacity".to_owned();
    let error = InstanceError { out_of_resources: true, code, message: String::new() };
    outcome.found.failures.push(("a".into(), 2, error));
    outcome.unplaced.not_tried = 1;
    let (since, after) = (Timestamp::UNIX_EPOCH, SignedDuration::ZERO);
    let (node, group) = ("a".into(), "a".into());
    let verdict = Verdict::default();
    let unneeded =
        vec![Unneeded { node, group, since, after, verdict, utilization: 0.0, ready: true, in_turn: false }];
    metrics.passed(&Outcome { unneeded, ..Outcome::default() }, Duration::from_millis(3));
    metrics.passed(&outcome, Duration::from_millis(3));
    let capacity = Resources { cpu: 4000, ..Resources::default() };
    let taints = ["dedicated", "hot", "hot"];
    let taints = taints.map(|key| Taint { key: key.to_owned(), ..Taint::default() }).into();
    metrics.of_cluster([Node { capacity, taints, ..Node::default() }].iter(), 2);
    metrics.grown("a", 3);
    metrics.failed_to_grow("a", 3);
    metrics.error("cloudProviderError");
    metrics.removed_unregistered(1);
    let text = text(&registry).unwrap();
    for line in READ {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

fn told(metrics: &Arc<Metrics>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(MetricsCollector(metrics.clone())));
    text(&registry).unwrap()
}

fn new(flags: &[&str]) -> Arc<Metrics> {
    let flags = std::iter::once(&"tandem").chain(flags);
    Arc::new(Metrics::new(&Flags::parse_from(flags).nodes))
}

fn group(id: &str, max: u32) -> NodeGroup {
    let (instances, options) = (Vec::new(), GroupOptions::default());
    NodeGroup { id: id.into(), min: 0, max, target: 1, instances, options }
}

fn has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|other| other == *line), "{line}\n{text}");
    }
}

#[test]
fn what_has_not_happened_yet_is_told_as_none() {
    let text = told(&new(&[]));
    has(
        &text,
        &[
            "cluster_autoscaler_scaled_up_nodes_total 0",
            r#"cluster_autoscaler_errors_total{type="apiCallError"} 0"#,
            r#"cluster_autoscaler_errors_total{type="unexpectedScaleDownStateError"} 0"#,
            r#"cluster_autoscaler_failed_scale_ups_total{reason="apiCallError"} 0"#,
            r#"cluster_autoscaler_failed_node_creations_total{reason="timeout"} 0"#,
            r#"cluster_autoscaler_scaled_down_nodes_total{reason="unready"} 0"#,
            r#"cluster_autoscaler_evicted_pods_total{eviction_result="failed"} 0"#,
            r#"cluster_autoscaler_skipped_scale_events_count{direction="down",reason="MemoryResourceLimit"} 0.0"#,
            "cluster_autoscaler_max_node_skip_eval_duration_seconds 0.0",
        ],
    );
    assert!(!text.contains("node_group_"), "only where the flag asks for it:\n{text}");
}

#[test]
fn groups_are_told_as_long_as_they_are_there_and_backoffs_that_are_over_as_none() {
    let metrics = new(&["--max-nodes-total=7"]);
    let groups = [group("a", 4), group("b", 5)];
    metrics.of_sizes(&groups[..1]);
    has(&told(&metrics), &["cluster_autoscaler_max_nodes_count 4.0"]);
    metrics.of_sizes(&groups);
    let mut outcome = Outcome::default();
    outcome.found.groups = groups.iter().map(|group| (group.id.clone(), GroupState::default())).collect();
    metrics.passed(&outcome, Duration::ZERO);
    let hour = SignedDuration::from_hours(1);
    let settings = BackoffSettings { first: hour, longest: hour, forgotten: hour };
    let mut memory = ClusterState::default();
    memory.backoffs.fail("a", "NoRoom", "", Timestamp::now(), settings);
    metrics.of_groups(&outcome.found, &groups, &memory);
    has(
        &told(&metrics),
        &[
            "cluster_autoscaler_max_nodes_count 7.0",
            r#"cluster_autoscaler_node_groups_count{node_group_type="autoscaled"} 2.0"#,
            r#"cluster_autoscaler_node_groups_count{node_group_type="autoprovisioned"} 0.0"#,
            r#"cluster_autoscaler_node_group_target_count{node_group="a"} 1.0"#,
            r#"cluster_autoscaler_node_group_backoff_status{node_group="a",reason="NoRoom"} 1.0"#,
            r#"cluster_autoscaler_node_group_backoff_status{node_group="b",reason=""} 0.0"#,
        ],
    );
    metrics.of_groups(&outcome.found, &groups[..1], &ClusterState::default());
    let text = told(&metrics);
    has(&text, &[r#"cluster_autoscaler_node_group_backoff_status{node_group="a",reason="NoRoom"} 0.0"#]);
    assert!(!text.contains(r#"node_group="b""#), "it is gone:\n{text}");
}

#[test]
fn nodes_with_gpus_are_told_apart() {
    let metrics = new(&[]);
    let mut template = Template { node: Node::default(), pods: Vec::new() };
    template.node.labels.insert("gpu".to_owned(), "t4".to_owned());
    template.node.allocatable.set("nvidia.com/gpu", 1);
    metrics.of_templates(&[("a".into(), template)].into(), "gpu");
    metrics.grown("a", 2);
    metrics.grown("b", 3);
    metrics.failed_to_grow("a", 2);
    metrics.shrunk(RemovalCause::Empty, "a");
    let gpu = r#"gpu_resource_name="nvidia.com/gpu",gpu_name="t4""#;
    let lines = [
        "scaled_up_nodes_total 3".to_owned(),
        format!("scaled_up_nodes_total{{{gpu}}} 2"),
        format!("scaled_up_gpu_nodes_total{{{gpu}}} 2"),
        format!(r#"failed_scale_ups_total{{reason="cloudProviderError",{gpu}}} 1"#),
        format!(r#"failed_gpu_scale_ups_total{{reason="cloudProviderError",{gpu}}} 1"#),
        r#"failed_node_creations_total{reason="cloudProviderError"} 2"#.to_owned(),
        format!(r#"scaled_down_nodes_total{{reason="empty",{gpu}}} 1"#),
        format!(r#"scaled_down_gpu_nodes_total{{reason="empty",{gpu}}} 1"#),
    ];
    let lines = lines.map(|line| format!("cluster_autoscaler_{line}"));
    has(&told(&metrics), &lines.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn nodes_that_are_being_removed_give_nothing_any_more() {
    let metrics = new(&[]);
    let capacity = Resources { cpu: 3920, memory: 7, ..Resources::default() };
    let node = Node { capacity, ..Node::default() };
    let leaving = Taint { key: TO_BE_DELETED.to_owned(), ..Taint::default() };
    let leaving = Node { taints: vec![leaving], ..node.clone() };
    metrics.of_cluster([node, leaving].iter(), 1);
    metrics.took("scaleUp", Duration::from_secs(2));
    has(
        &told(&metrics),
        &[
            "cluster_autoscaler_cluster_cpu_current_cores 4.0",
            "cluster_autoscaler_cluster_memory_current_bytes 7.0",
            r#"cluster_autoscaler_function_duration_quantile_seconds{function="scaleUp",quantile="0.99"} 2.0"#,
            r#"cluster_autoscaler_function_duration_quantile_seconds_count{function="scaleUp"} 1"#,
        ],
    );
}

#[test]
fn every_metric_is_documented_and_no_other_is() {
    let metrics = new(&[]);
    let groups = [group("a", 4)];
    let mut outcome = Outcome::default();
    outcome.found.healthy = true;
    metrics.passed(&outcome, Duration::ZERO);
    metrics.of_cluster([Node::default()].iter(), 0);
    metrics.of_groups(&outcome.found, &groups, &ClusterState::default());
    let text = told(&metrics);
    // What stands for the parts of one summary.
    let part = |name: &&str| !name.ends_with("_sum") && !name.ends_with("_quantile_seconds_count");
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE cluster_autoscaler_"));
    let served: BTreeSet<&str> = families.filter_map(|line| line.split(' ').next()).filter(part).collect();
    let page = include_str!("../../../../../docs/cluster-autoscaler.md");
    let page =
        page.split("## Metrics of node groups").nth(1).and_then(|page| page.split("Functions:").next());
    let rows = page.unwrap().lines().filter_map(|line| line.strip_prefix("| ")).skip(1);
    let names = rows.filter_map(|row| row.split(" |").next()).flat_map(|names| names.split(", "));
    // The client adds it to counters, and `telemetry::aws` tells of AWS.
    let names = names.map(|name| name.strip_suffix("_total").unwrap_or(name));
    let documented: BTreeSet<&str> = names.filter(|name| !name.starts_with("aws_")).collect();
    assert_eq!(served, documented);
}
