//! `cluster_autoscaler_*`: Cluster Autoscaler's names, so that dashboards and alerts go on.

mod labels;

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{
        MetricType,
        counter::ConstCounter,
        gauge::ConstGauge,
        histogram::{Histogram, exponential_buckets},
    },
};
use tandem_core::nodes::{
    action::RemovalCause,
    cluster_state::{ClusterState, Found, TIMEOUT},
    group::NodeGroup,
    pass::{Outcome, UnremovableReason},
    template::PassingTaints,
};
use tandem_core::scheduling::{Node, Resources, pod::Scheduled};

use self::labels::{
    ActivityLabel, BackoffLabels, DirectionLabel, FunctionLabel, GroupLabel, GroupTypeLabel, LatencyLabels,
    ReasonLabel, RequestorLabel, ResultLabel, SkippedLabels, StateLabel, TaintLabel, TypeLabel,
};
use super::{
    latency::{Latencies, Latency},
    settings::passing_taints,
};
use crate::cli::nodes::NodeArgs;

/// From a millisecond to half an hour; a pass takes milliseconds, a provider may take minutes.
const BUCKETS: [f64; 14] =
    [0.001, 0.01, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0];

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
    grown: u64,
    failed: BTreeMap<String, u64>,
    shrunk: BTreeMap<&'static str, u64>,
    evicted: BTreeMap<&'static str, u64>,
    groups: Vec<OneGroup>,
    errors: BTreeMap<&'static str, u64>,
    failed_nodes: BTreeMap<String, u64>,
    old_unregistered: u64,
    skipped: BTreeMap<(&'static str, &'static str), u64>,
    durations: BTreeMap<&'static str, Histogram>,
    limits: Vec<(&'static str, &'static str, f64)>,
    passing: PassingTaints,
    taints: BTreeMap<String, f64>,
    latencies: Latencies,
    latency: BTreeMap<(bool, &'static str), Histogram>,
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
    /// Nothing has happened yet; the limits are those of the flags.
    pub(super) fn new(args: &NodeArgs) -> Self {
        let gibibytes = |count: i64| float(count.saturating_mul(1 << 30));
        let limits = vec![
            ("cpu_limits_cores", "minimum", float(args.cores_total.min)),
            ("cpu_limits_cores", "maximum", float(args.cores_total.max)),
            ("memory_limits_bytes", "minimum", gibibytes(args.memory_total.min)),
            ("memory_limits_bytes", "maximum", gibibytes(args.memory_total.max)),
        ];
        let max = ("max_nodes_count", f64::from(args.max_nodes_total));
        let passing = passing_taints(args);
        Self(Mutex::new(State { limits, passing, gauges: [max].into(), ..State::default() }))
    }

    /// Something was done now.
    pub(super) fn activity(&self, activity: &'static str) {
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
        let now = Timestamp::now().as_second() as f64;
        self.0.lock().activity.insert(activity, now);
    }

    /// A pass is over.
    pub(super) fn passed(&self, outcome: &Outcome, took: Duration) {
        self.activity("autoscaling");
        self.took("main", took);
        if !outcome.unschedulable.is_empty() {
            self.activity("scaleUp");
        }
        if outcome.found.healthy && outcome.scale_down_held.is_none() {
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
        let (unprocessed, unschedulable): (Vec<_>, Vec<_>) =
            outcome.unschedulable.iter().partition(|pod| pod.scheduled == Scheduled::NotTried);
        state.gauges.extend([
            ("cluster_safe_to_autoscale", f64::from(u8::from(outcome.found.healthy))),
            ("unneeded_nodes_count", count(outcome.unneeded.len())),
            ("scale_down_in_cooldown", f64::from(u8::from(outcome.scale_down_held.is_some()))),
            ("unschedulable", count(unschedulable.len())),
            ("scheduler_unprocessed", count(unprocessed.len())),
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

    /// The cluster as a pass sees it, and how many nodes are being removed.
    pub(super) fn of_cluster<'a>(&self, nodes: impl Iterator<Item = &'a Node>, removing: usize) {
        let mut capacity = Resources::default();
        let mut guard = self.0.lock();
        let state = &mut *guard;
        state.taints.clear();
        for node in nodes {
            capacity.add(&node.capacity);
            for taint in &node.taints {
                let name = state.passing.type_name(&taint.key).to_owned();
                *state.taints.entry(name).or_default() += 1.0;
            }
        }
        state.gauges.extend([
            ("cluster_cpu_current_cores", float(capacity.cpu) / 1000.0),
            ("cluster_memory_current_bytes", float(capacity.memory)),
            ("pending_node_deletions", float(i64::try_from(removing).unwrap_or(i64::MAX))),
        ]);
    }

    /// How long a part of a pass took.
    pub(super) fn took(&self, function: &'static str, took: Duration) {
        let mut state = self.0.lock();
        let durations = state.durations.entry(function).or_insert_with(|| Histogram::new(BUCKETS));
        durations.observe(took.as_secs_f64());
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
        self.0.lock().groups = groups.iter().map(of).collect();
    }

    /// Groups were asked for nodes.
    pub(super) fn grown(&self, nodes: u32) {
        self.0.lock().grown += u64::from(nodes);
    }

    /// A group could not be asked, as Cluster Autoscaler calls it whatever the provider's reason.
    pub(super) fn failed_to_grow(&self) {
        *self.0.lock().failed.entry("cloudProviderError".to_owned()).or_default() += 1;
    }

    /// A node is gone.
    pub(super) fn shrunk(&self, cause: RemovalCause) {
        *self.0.lock().shrunk.entry(cause.name()).or_default() += 1;
    }

    /// A pod was evicted, or could not be.
    pub(super) fn evicted(&self, done: bool) {
        *self.0.lock().evicted.entry(if done { "succeeded" } else { "failed" }).or_default() += 1;
    }
}

impl State {
    /// What of a pass went wrong, or was not done because of a limit.
    fn failures(&mut self, outcome: &Outcome) {
        let expired = outcome.found.expired.len() as u64;
        if expired > 0 {
            *self.failed.entry(TIMEOUT.to_owned()).or_default() += expired;
        }
        for (_, nodes, error) in &outcome.found.failures {
            *self.failed.entry(error.code.clone()).or_default() += 1;
            *self.failed_nodes.entry(error.code.clone()).or_default() += u64::from(*nodes);
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

/// [`Metrics`] as a collector.
#[derive(Debug)]
pub struct MetricsCollector(pub std::sync::Arc<Metrics>);

impl Collector for MetricsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let state = self.0.0.lock();
        let gauges = [
            ("cluster_safe_to_autoscale", "Whether the cluster is healthy enough to be scaled"),
            ("unneeded_nodes_count", "Nodes that are not needed"),
            ("scale_down_in_cooldown", "Whether no node is removed for now"),
            ("max_nodes_count", "Most nodes that the cluster may have; 0 is no limit"),
            ("cluster_cpu_current_cores", "Cores of all nodes"),
            ("cluster_memory_current_bytes", "Memory of all nodes"),
            ("pending_node_deletions", "Nodes that are being removed"),
        ];
        for (name, help) in gauges {
            gauge(&mut encoder, name, help, [(None::<StateLabel>, state.gauges.get(name).copied())])?;
        }
        let pods = ["unschedulable", "scheduler_unprocessed"]
            .map(|name| (Some(TypeLabel { r#type: name }), state.gauges.get(name).copied()));
        gauge(&mut encoder, "unschedulable_pods_count", "Pods that fit nowhere", pods)?;
        let taints = state.taints.iter();
        let taints = taints.map(|(name, count)| (Some(TaintLabel { r#type: name.clone() }), Some(*count)));
        gauge(&mut encoder, "node_taints_count", "Taints of nodes, by type", taints)?;
        let groups = TypeLabel { r#type: "autoscaled" };
        let label = state.gauges.get("node_groups_count").copied();
        gauge(&mut encoder, "node_groups_count", "Node groups", [(Some(groups), label)])?;
        of_each_group(&mut encoder, &state.groups)?;
        let nodes = state.nodes.iter().map(|(name, count)| (Some(StateLabel { state: name }), Some(*count)));
        gauge(&mut encoder, "nodes_count", "Nodes by state", nodes)?;
        let reasons = state.unremovable.iter();
        let reasons =
            reasons.map(|(name, count)| (Some(ReasonLabel { reason: (*name).to_owned() }), Some(*count)));
        gauge(&mut encoder, "unremovable_nodes_count", "Nodes that stay, by reason", reasons)?;
        let activity = state.activity.iter();
        let activity = activity.map(|(name, at)| (Some(ActivityLabel { activity: name }), Some(*at)));
        gauge(&mut encoder, "last_activity", "When something was last done, Unix seconds", activity)?;
        counter(&mut encoder, "scaled_up_nodes", "Nodes asked for", [(None::<StateLabel>, state.grown)])?;
        let failed = state.failed.iter();
        let failed = failed.map(|(name, count)| (Some(ReasonLabel { reason: name.clone() }), *count));
        counter(&mut encoder, "failed_scale_ups", "Groups that could not grow", failed)?;
        let shrunk = state.shrunk.iter();
        let shrunk = shrunk.map(|(name, count)| (Some(ReasonLabel { reason: (*name).to_owned() }), *count));
        counter(&mut encoder, "scaled_down_nodes", "Nodes removed", shrunk)?;
        let evicted = state.evicted.iter();
        let evicted = evicted.map(|(name, count)| (Some(ResultLabel { eviction_result: name }), *count));
        counter(&mut encoder, "evicted_pods", "Pods evicted", evicted)?;
        of_limits(&mut encoder, &state)?;
        of_failures(&mut encoder, &state)?;
        of_what_never_happens(&mut encoder)?;
        durations(&mut encoder, &state)
    }
}

/// Prefix of every name.
const PREFIX: &str = "cluster_autoscaler_";

fn of_limits(encoder: &mut DescriptorEncoder<'_>, state: &State) -> fmt::Result {
    for (name, help) in [
        ("cpu_limits_cores", "Least and most cores of the cluster"),
        ("memory_limits_bytes", "Least and most memory of the cluster"),
    ] {
        let of = state.limits.iter().filter(|(other, ..)| *other == name);
        let of = of.map(|(_, direction, value)| (Some(DirectionLabel { direction }), Some(*value)));
        gauge(encoder, name, help, of)?;
    }
    let skipped = state.skipped.iter().map(|((direction, reason), count)| {
        let count = float(i64::try_from(*count).unwrap_or(i64::MAX));
        (Some(SkippedLabels { direction, reason }), Some(count))
    });
    // No counters of OpenMetrics, whose names would end in _total.
    gauge(encoder, "skipped_scale_events_count", "Passes that a limit kept from scaling", skipped)?;
    let removed = float(i64::try_from(state.old_unregistered).unwrap_or(i64::MAX));
    let removed = [(None::<StateLabel>, Some(removed))];
    gauge(
        encoder,
        "old_unregistered_nodes_removed_count",
        "Instances that never became nodes, ended",
        removed,
    )
}

fn of_failures(encoder: &mut DescriptorEncoder<'_>, state: &State) -> fmt::Result {
    let errors = state.errors.iter().map(|(kind, count)| (Some(TypeLabel { r#type: kind }), *count));
    counter(encoder, "errors", "What failed and belongs to no group", errors)?;
    let nodes = state.failed_nodes.iter();
    let nodes = nodes.map(|(code, count)| (Some(ReasonLabel { reason: code.clone() }), *count));
    counter(encoder, "failed_node_creations", "Nodes that the provider could not make", nodes)
}

/// What cannot happen here, so that alerts on it (and on its absence) go on: groups are neither made nor deleted, pods are told
/// apart however many kinds a controller has, and every pass looks at all that wait.
fn of_what_never_happens(encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    for (name, help) in
        [("created_node_groups", "Node groups made"), ("deleted_node_groups", "Node groups deleted")]
    {
        counter(encoder, name, help, [(Some(GroupTypeLabel { group_type: "" }), 0)])?;
    }
    let none = [(None::<StateLabel>, Some(0.0))];
    gauge(
        encoder,
        "overflowing_controllers_count",
        "Controllers with more kinds of pods than are told apart",
        none,
    )?;
    // The one that asks in Cluster Autoscaler's `filter_out_schedulable.go`.
    let requestor = Some(RequestorLabel { requestor: "filter-out-pod-list-processor" });
    gauge(encoder, "skipped_pods_count", "Pods that a pass had no time for", [(requestor, Some(0.0))])
}

fn durations(encoder: &mut DescriptorEncoder<'_>, state: &State) -> fmt::Result {
    let name = format!("{PREFIX}function_duration_seconds");
    let help = "How long the parts of a pass took";
    let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Histogram)?;
    for (function, histogram) in &state.durations {
        histogram.encode(metric.encode_family(&FunctionLabel { function })?)?;
    }
    let name = format!("{PREFIX}node_removal_latency_seconds");
    let help = "From the time a node might go to the time it went or was needed again";
    let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Histogram)?;
    for ((deleted, delay_reason), histogram) in &state.latency {
        let deleted = if *deleted { "true" } else { "false" };
        histogram.encode(metric.encode_family(&LatencyLabels { deleted, delay_reason })?)?;
    }
    Ok(())
}

/// The value that a gauge has of a group.
type OfGroup = fn(&OneGroup) -> f64;

fn of_each_group(encoder: &mut DescriptorEncoder<'_>, groups: &[OneGroup]) -> fmt::Result {
    if groups.is_empty() {
        return Ok(());
    }
    let gauges: [(&str, &str, OfGroup); 4] = [
        ("node_group_min_count", "Least nodes of a group", |group| f64::from(group.min)),
        ("node_group_max_count", "Most nodes of a group", |group| f64::from(group.max)),
        ("node_group_target_count", "Nodes asked for of a group", |group| f64::from(group.target)),
        ("node_group_healthiness", "Whether enough of its nodes work", |group| {
            f64::from(u8::from(group.healthy))
        }),
    ];
    for (name, help, value) in gauges {
        let label = |group: &OneGroup| GroupLabel { node_group: group.name.clone() };
        gauge(encoder, name, help, groups.iter().map(|group| (Some(label(group)), Some(value(group)))))?;
    }
    let left_alone = groups.iter().filter_map(|group| {
        let labels = BackoffLabels { node_group: group.name.clone(), reason: group.backoff.clone()? };
        Some((Some(labels), Some(1.0)))
    });
    gauge(encoder, "node_group_backoff_status", "Groups that are left alone, by reason", left_alone)
}

fn gauge<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Option<L>, Option<f64>)>,
) -> fmt::Result {
    let kind = prometheus_client::metrics::MetricType::Gauge;
    let name = format!("{PREFIX}{name}");
    let mut metric = encoder.encode_descriptor(&name, help, None, kind)?;
    for (labels, value) in series {
        let Some(value) = value else { continue };
        match labels {
            Some(labels) => ConstGauge::new(value).encode(metric.encode_family(&labels)?)?,
            None => return ConstGauge::new(value).encode(metric),
        }
    }
    Ok(())
}

fn counter<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Option<L>, u64)>,
) -> fmt::Result {
    let kind = prometheus_client::metrics::MetricType::Counter;
    let name = format!("{PREFIX}{name}");
    let mut metric = encoder.encode_descriptor(&name, help, None, kind)?;
    for (labels, value) in series {
        match labels {
            Some(labels) => ConstCounter::new(value).encode(metric.encode_family(&labels)?)?,
            None => return ConstCounter::new(value).encode(metric),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clap::Parser;
    use jiff::SignedDuration;
    use k8s_openapi::api::core::v1::Taint;
    use prometheus_client::registry::Registry;
    use tandem_core::nodes::{cluster_state::Expired, drain::Verdict, group::InstanceError, pass::Unneeded};

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
        outcome.unschedulable.push(Arc::default());
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
        metrics.grown(3);
        metrics.failed_to_grow();
        metrics.error("cloudProviderError");
        metrics.removed_unregistered(1);
        let text = text(&registry).unwrap();
        for line in READ {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
