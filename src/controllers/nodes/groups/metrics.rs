//! `cluster_autoscaler_*`: Cluster Autoscaler's names, so that dashboards and alerts go on.

mod accelerators;
mod durations;
mod encode;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tandem_core::nodes::{
    action::{RemovalCause, TO_BE_DELETED},
    cluster_state::{ClusterState, Found, TIMEOUT},
    group::{NodeGroup, Template},
    pass::{Outcome, UnremovableReason},
    template::PassingTaints,
};
use tandem_core::scheduling::Node;

pub use self::encode::MetricsCollector;
use self::{accelerators::Accelerators, durations::Durations};
use super::{
    latency::{Latencies, Latency},
    settings::passing_taints,
};
use crate::cli::nodes::NodeArgs;

/// What a group that could not be asked failed of, whatever the provider's reason.
const CLOUD_PROVIDER_ERROR: &str = "cloudProviderError";
/// Why groups fail to grow, beside the codes of providers (`metrics/metrics.go`, `FailedScaleUpReason`).
const FAILURES: [&str; 3] = [CLOUD_PROVIDER_ERROR, "apiCallError", TIMEOUT];
/// Errors that belong to no group (`utils/errors`, `AutoscalerErrorType`).
const ERRORS: [&str; 7] = [
    CLOUD_PROVIDER_ERROR,
    "apiCallError",
    "internalError",
    "transientError",
    "configurationError",
    "nodeGroupDoesNotExistError",
    "unexpectedScaleDownStateError",
];
/// Limits that keep a pass from scaling, and in which direction.
const SKIPPED: [(&str, &str); 4] = [
    ("down", "CpuResourceLimit"),
    ("down", "MemoryResourceLimit"),
    ("up", "CpuResourceLimit"),
    ("up", "MemoryResourceLimit"),
];

/// From a second to 25 minutes, each half as long again as the one before (`metrics/metrics.go`).
fn latency_buckets() -> impl Iterator<Item = f64> {
    exponential_buckets(1.0, 1.5, 19)
}

/// What the loop counts.
#[derive(Debug, Default)]
pub struct Metrics(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    gauges: BTreeMap<&'static str, f64>,
    nodes: BTreeMap<&'static str, f64>,
    unremovable: BTreeMap<&'static str, f64>,
    activity: BTreeMap<&'static str, f64>,
    /// What new nodes of groups have beside processors and memory; those that have nothing are left out.
    accelerators: BTreeMap<Arc<str>, Accelerators>,
    grown: BTreeMap<Accelerators, u64>,
    failed: BTreeMap<(String, Accelerators), u64>,
    shrunk: BTreeMap<(&'static str, Accelerators), u64>,
    evicted: BTreeMap<&'static str, u64>,
    groups: Vec<OneGroup>,
    /// Why groups have been left alone since the start: what is over is told as 0.
    backoffs: BTreeMap<String, BTreeSet<String>>,
    errors: BTreeMap<&'static str, u64>,
    failed_nodes: BTreeMap<String, u64>,
    old_unregistered: u64,
    skipped: BTreeMap<(&'static str, &'static str), u64>,
    durations: Durations,
    limits: Vec<(&'static str, &'static str, f64)>,
    passing: PassingTaints,
    taints: BTreeMap<String, f64>,
    latencies: Latencies,
    latency: BTreeMap<(bool, &'static str), Histogram>,
    /// `--max-nodes-total`; 0 is no limit.
    max_nodes: u32,
    /// `--scale-down-enabled`.
    shrinks: bool,
}

/// A group, for `--emit-per-nodegroup-metrics`.
#[derive(Debug)]
struct OneGroup {
    name: String,
    min: u32,
    max: u32,
    target: u32,
    healthy: bool,
    /// The provider's code, while the group is left alone.
    backoff: Option<String>,
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn float(count: i64) -> f64 {
    count as f64
}

impl Metrics {
    /// Nothing has happened yet, and what may be counted is so often (`metrics/metrics.go`, `InitMetrics`), so that the first
    /// time is an increase. The limits are those of the flags.
    pub(super) fn new(args: &NodeArgs) -> Self {
        let gibibytes = |count: i64| float(count.saturating_mul(1 << 30));
        let limits = vec![
            ("cpu_limits_cores", "minimum", float(args.cores_total.min)),
            ("cpu_limits_cores", "maximum", float(args.cores_total.max)),
            ("memory_limits_bytes", "minimum", gibibytes(args.memory_total.min)),
            ("memory_limits_bytes", "maximum", gibibytes(args.memory_total.max)),
        ];
        let max = ("max_nodes_count", f64::from(args.max_nodes_total));
        let none = Accelerators::default;
        let causes = [RemovalCause::Empty, RemovalCause::Underutilized, RemovalCause::Unready];
        Self(Mutex::new(State {
            limits,
            passing: passing_taints(args),
            gauges: [max].into(),
            max_nodes: args.max_nodes_total,
            shrinks: args.scale_down_enabled,
            grown: [(none(), 0)].into(),
            failed: FAILURES.map(|reason| ((reason.to_owned(), none()), 0)).into(),
            failed_nodes: FAILURES.map(|reason| (reason.to_owned(), 0)).into(),
            shrunk: causes.map(|cause| ((cause.name(), none()), 0)).into(),
            evicted: ["succeeded", "failed"].map(|result| (result, 0)).into(),
            errors: ERRORS.map(|kind| (kind, 0)).into(),
            skipped: SKIPPED.map(|skipped| (skipped, 0)).into(),
            ..State::default()
        }))
    }

    /// Something was done now.
    pub(super) fn activity(&self, activity: &'static str) {
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
        let now = Timestamp::now().as_second() as f64;
        self.0.lock().activity.insert(activity, now);
    }

    /// A pass is over.
    pub(super) fn passed(&self, outcome: &Outcome, took: Duration) {
        self.took("main", took);
        if outcome.found.healthy {
            self.activity("autoscaling");
        }
        if !outcome.unschedulable.is_empty() {
            self.activity("scaleUp");
        }
        let shrinks = self.0.lock().shrinks;
        if shrinks && outcome.found.healthy && outcome.scale_down_held.is_none() {
            self.activity("scaleDown");
        }
        let total = outcome.found.total;
        let mut state = self.0.lock();
        state.nodes = [
            ("ready", total.ready),
            ("unready", total.unready),
            ("notStarted", total.not_started),
            ("suspended", total.suspended),
            ("unregistered", total.unregistered),
            ("longUnregistered", total.long_unregistered),
        ]
        .map(|(name, count)| (name, f64::from(count)))
        .into();
        let count = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        state.gauges.extend([
            ("cluster_safe_to_autoscale", f64::from(u8::from(outcome.found.healthy))),
            ("unneeded_nodes_count", count(outcome.unneeded.len())),
            ("scale_down_in_cooldown", f64::from(u8::from(outcome.scale_down_held.is_some()))),
            ("unschedulable", f64::from(outcome.unplaced.unschedulable)),
            ("scheduler_unprocessed", f64::from(outcome.unplaced.not_tried)),
            ("node_groups_count", count(outcome.found.groups.len())),
        ]);
        state.unremovable.clear();
        for unremovable in &outcome.unremovable {
            *state.unremovable.entry(unremovable.reason.name()).or_default() += 1.0;
        }
        state.failures(outcome);
        for Latency { deleted, delay_reason, time } in state.latencies.observe(outcome, Timestamp::now()) {
            let latency = state.latency.entry((deleted, delay_reason));
            latency.or_insert_with(|| Histogram::new(latency_buckets())).observe(time.as_secs_f64());
        }
    }

    /// The cluster as a pass sees it, and how many nodes are being removed, which give it nothing any more.
    pub(super) fn of_cluster<'a>(&self, nodes: impl Iterator<Item = &'a Node>, removing: usize) {
        let (mut cores, mut memory) = (0_i64, 0_i64);
        let mut guard = self.0.lock();
        let state = &mut *guard;
        state.taints.clear();
        for node in nodes {
            if node.deleting.is_none() && node.taint(TO_BE_DELETED).is_none() {
                // A part of a core counts as one (`core/utils`, `GetNodeCoresAndMemory`).
                cores = cores.saturating_add(node.capacity.cpu.saturating_add(999) / 1000);
                memory = memory.saturating_add(node.capacity.memory);
            }
            for taint in &node.taints {
                let name = state.passing.type_name(&taint.key).to_owned();
                *state.taints.entry(name).or_default() += 1.0;
            }
        }
        state.gauges.extend([
            ("cluster_cpu_current_cores", float(cores)),
            ("cluster_memory_current_bytes", float(memory)),
            ("pending_node_deletions", float(i64::try_from(removing).unwrap_or(i64::MAX))),
        ]);
    }

    /// What groups there are, as the provider has just told: how large they may get together.
    pub(super) fn of_sizes(&self, groups: &[NodeGroup]) {
        let all = groups.iter().fold(0, |sum: u32, group| sum.saturating_add(group.max));
        let mut state = self.0.lock();
        let most = if state.max_nodes > 0 { all.min(state.max_nodes) } else { all };
        state.gauges.insert("max_nodes_count", f64::from(most));
    }

    /// What new nodes of groups look like, with the provider's label of GPUs.
    pub(super) fn of_templates(&self, templates: &BTreeMap<Arc<str>, Template>, gpu_label: &str) {
        let of = |(id, template): (&Arc<str>, &Template)| {
            let accelerators = Accelerators::of(&template.node, gpu_label);
            (!accelerators.is_none()).then(|| (id.clone(), accelerators))
        };
        self.0.lock().accelerators = templates.iter().filter_map(of).collect();
    }

    /// How long a part of a pass took.
    pub(super) fn took(&self, function: &'static str, took: Duration) {
        self.0.lock().durations.observe(function, took, Instant::now());
    }

    /// Something failed that belongs to no group.
    pub(super) fn error(&self, kind: &'static str) {
        *self.0.lock().errors.entry(kind).or_default() += 1;
    }

    /// Instances that never became nodes were terminated.
    pub(super) fn removed_unregistered(&self, instances: usize) {
        self.0.lock().old_unregistered += instances as u64;
    }

    /// The groups after a pass.
    pub(super) fn of_groups(&self, found: &Found, groups: &[NodeGroup], memory: &ClusterState) {
        let now = Timestamp::now();
        let of = |group: &NodeGroup| OneGroup {
            name: group.id.to_string(),
            min: group.min,
            max: group.max,
            target: group.target,
            healthy: found.groups.get(&group.id).is_some_and(|state| state.healthy),
            backoff: memory.backoffs.of(&group.id, now).map(|backoff| backoff.code.clone()),
        };
        let mut state = self.0.lock();
        state.groups = groups.iter().map(of).collect();
        state.backoffs.retain(|name, _| groups.iter().any(|group| *group.id == **name));
        let State { groups, backoffs, .. } = &mut *state;
        for OneGroup { name, backoff, .. } in groups {
            backoffs.entry(name.clone()).or_default().extend(backoff.clone());
        }
    }

    /// A group was asked for nodes.
    pub(super) fn grown(&self, group: &str, nodes: u32) {
        let mut state = self.0.lock();
        let of_group = state.of_group(group);
        *state.grown.entry(of_group).or_default() += u64::from(nodes);
    }

    /// A group could not be asked for nodes.
    pub(super) fn failed_to_grow(&self, group: &str, nodes: u32) {
        self.0.lock().failed_scale_up(group, CLOUD_PROVIDER_ERROR, nodes);
    }

    /// A node is gone.
    pub(super) fn shrunk(&self, cause: RemovalCause, group: &str) {
        let mut state = self.0.lock();
        let of_group = state.of_group(group);
        *state.shrunk.entry((cause.name(), of_group)).or_default() += 1;
    }

    /// A pod was evicted, or could not be.
    pub(super) fn evicted(&self, done: bool) {
        *self.0.lock().evicted.entry(if done { "succeeded" } else { "failed" }).or_default() += 1;
    }
}

impl State {
    fn of_group(&self, group: &str) -> Accelerators {
        self.accelerators.get(group).cloned().unwrap_or_default()
    }

    fn failed_scale_up(&mut self, group: &str, reason: &str, nodes: u32) {
        let failed = (reason.to_owned(), self.of_group(group));
        *self.failed.entry(failed).or_default() += 1;
        *self.failed_nodes.entry(reason.to_owned()).or_default() += u64::from(nodes);
    }

    /// What of a pass went wrong, or was not done because of a limit.
    fn failures(&mut self, outcome: &Outcome) {
        for expired in &outcome.found.expired {
            self.failed_scale_up(&expired.group, TIMEOUT, expired.nodes);
        }
        for (group, nodes, error) in &outcome.found.failures {
            self.failed_scale_up(group, &error.code, *nodes);
        }
        let refused = || outcome.plan.refused.iter().flat_map(|(_, refusals)| refusals.iter());
        for (resource, reason) in [("cpu", "CpuResourceLimit"), ("memory", "MemoryResourceLimit")] {
            if refused().any(|refusal| exceeds(&refusal.reason, resource)) {
                *self.skipped.entry(("up", reason)).or_default() += 1;
            }
        }
        let spared = UnremovableReason::MinimalResourceLimitExceeded;
        if outcome.unremovable.iter().any(|unremovable| unremovable.reason == spared) {
            *self.skipped.entry(("down", "CpuResourceLimit")).or_default() += 1;
        }
    }
}

/// Whether a limit of a resource is the reason: `exceeded quota: "cluster-wide", resources: cpu, memory`.
fn exceeds(reason: &str, resource: &str) -> bool {
    let resources =
        reason.starts_with("exceeded quota:").then(|| reason.rsplit_once("resources: ")).flatten();
    resources.is_some_and(|(_, resources)| resources.split(", ").any(|other| other == resource))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use jiff::SignedDuration;
    use k8s_openapi::api::core::v1::Taint;
    use prometheus_client::registry::Registry;
    use tandem_core::{
        nodes::{
            backoff::BackoffSettings,
            cluster_state::Expired,
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
        let flags = [
            "tandem",
            "--max-nodes-total=9",
            "--cores-total=0:40",
            "--memory-total=1:6",
            "--status-taint=hot",
        ];
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
        let unneeded = vec![Unneeded {
            node,
            group,
            since,
            after,
            verdict,
            utilization: 0.0,
            ready: true,
            in_turn: false,
        }];
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
        outcome.found.groups = groups.iter().map(|group| (group.id.clone(), Default::default())).collect();
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
        let leaving = Node { taints: vec![leaving].into(), ..node.clone() };
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
}
