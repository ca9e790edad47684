//! [`Metrics`] in the text of `/metrics`.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet},
    metrics::MetricType,
};

use super::{Metrics, OneGroup, State, accelerators::Accelerators, float};

/// Prefix of every name.
pub(super) const PREFIX: &str = "cluster_autoscaler_";

/// Labels, under Cluster Autoscaler's names.
type Labels = Vec<(&'static str, String)>;

/// One label.
fn label(name: &'static str, value: impl Into<String>) -> Labels {
    vec![(name, value.into())]
}

/// [`Metrics`] as a collector.
#[derive(Debug)]
pub struct MetricsCollector(pub Arc<Metrics>);

impl Collector for MetricsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (encoder, state) = (&mut encoder, &*self.0.0.lock());
        of_cluster(encoder, state)?;
        of_limits(encoder, state)?;
        of_each_group(encoder, state)?;
        of_what_was_done(encoder, state)?;
        of_failures(encoder, state)?;
        of_what_never_happens(encoder)?;
        state.durations.encode(encoder)?;
        latencies(encoder, state)
    }
}

fn of_cluster(encoder: &mut DescriptorEncoder<'_>, state: &State) -> fmt::Result {
    for (name, help) in [
        ("cluster_safe_to_autoscale", "Whether the cluster is healthy enough to be scaled"),
        ("unneeded_nodes_count", "Nodes that are not needed"),
        ("scale_down_in_cooldown", "Whether no node is removed for now"),
        ("max_nodes_count", "Most nodes that all groups may have together"),
        ("cluster_cpu_current_cores", "Cores of all nodes but those that are being removed"),
        ("cluster_memory_current_bytes", "Memory of all nodes but those that are being removed"),
        ("pending_node_deletions", "Nodes that are being removed"),
    ] {
        gauge(encoder, name, help, state.gauges.get(name).map(|value| (Labels::new(), *value)))?;
    }
    let pods = ["unschedulable", "scheduler_unprocessed"];
    let pods = pods.iter().filter_map(|name| Some((label("type", *name), *state.gauges.get(name)?)));
    gauge(encoder, "unschedulable_pods_count", "Pods without a node", pods)?;
    let taints = state.taints.iter().map(|(name, count)| (label("type", name), *count));
    gauge(encoder, "node_taints_count", "Taints of nodes, by type", taints)?;
    let groups = state.gauges.get("node_groups_count").map(|count| {
        // None is made here.
        [("autoscaled", *count), ("autoprovisioned", 0.0)]
            .map(|(kind, count)| (label("node_group_type", kind), count))
    });
    gauge(encoder, "node_groups_count", "Node groups", groups.into_iter().flatten())?;
    let nodes = state.nodes.iter().map(|(name, count)| (label("state", *name), *count));
    gauge(encoder, "nodes_count", "Nodes by state", nodes)?;
    let reasons = state.unremovable.iter().map(|(name, count)| (label("reason", *name), *count));
    gauge(encoder, "unremovable_nodes_count", "Nodes that stay, by reason", reasons)?;
    let activity = state.activity.iter().map(|(name, at)| (label("activity", *name), *at));
    gauge(encoder, "last_activity", "When something was last done, Unix seconds", activity)
}

fn of_limits(encoder: &mut DescriptorEncoder<'_>, state: &State) -> fmt::Result {
    for (name, help) in [
        ("cpu_limits_cores", "Least and most cores of the cluster"),
        ("memory_limits_bytes", "Least and most memory of the cluster"),
    ] {
        let of = state.limits.iter().filter(|(other, ..)| *other == name);
        let of = of.map(|(_, direction, value)| (label("direction", *direction), *value));
        gauge(encoder, name, help, of)?;
    }
    let skipped = state.skipped.iter().map(|((direction, reason), count)| {
        let labels = vec![("direction", (*direction).to_owned()), ("reason", (*reason).to_owned())];
        (labels, float(i64::try_from(*count).unwrap_or(i64::MAX)))
    });
    // No counters of OpenMetrics, whose names would end in _total.
    gauge(encoder, "skipped_scale_events_count", "Passes that a limit kept from scaling", skipped)?;
    let removed = float(i64::try_from(state.old_unregistered).unwrap_or(i64::MAX));
    let help = "Instances that never became nodes, ended";
    gauge(encoder, "old_unregistered_nodes_removed_count", help, [(Labels::new(), removed)])
}

/// The value that a gauge has of a group.
type OfGroup = fn(&OneGroup) -> f64;

fn of_each_group(encoder: &mut DescriptorEncoder<'_>, state: &State) -> fmt::Result {
    if state.groups.is_empty() {
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
        let series = state.groups.iter().map(|group| (label("node_group", &group.name), value(group)));
        gauge(encoder, name, help, series)?;
    }
    let mut left_alone = Vec::new();
    for OneGroup { name, backoff, .. } in &state.groups {
        let of = |reason: &str| vec![("node_group", name.clone()), ("reason", reason.to_owned())];
        match state.backoffs.get(name).filter(|reasons| !reasons.is_empty()) {
            None => left_alone.push((of(""), 0.0)),
            Some(reasons) => left_alone.extend(
                reasons
                    .iter()
                    .map(|reason| (of(reason), f64::from(u8::from(backoff.as_ref() == Some(reason))))),
            ),
        }
    }
    gauge(encoder, "node_group_backoff_status", "Whether a group is left alone, by reason", left_alone)
}

fn of_what_was_done(encoder: &mut DescriptorEncoder<'_>, state: &State) -> fmt::Result {
    let grown = state.grown.iter().map(|(of, count)| (of.labels().collect(), *count));
    counter(encoder, "scaled_up_nodes", "Nodes asked for", grown)?;
    let with =
        |reason: &str, of: &Accelerators| label("reason", reason).into_iter().chain(of.labels()).collect();
    let failed = state.failed.iter().map(|((reason, of), count)| (with(reason, of), *count));
    counter(encoder, "failed_scale_ups", "Groups that could not grow", failed)?;
    let shrunk = state.shrunk.iter().map(|((reason, of), count)| (with(reason, of), *count));
    counter(encoder, "scaled_down_nodes", "Nodes removed", shrunk)?;
    let evicted = state.evicted.iter().map(|(result, count)| (label("eviction_result", *result), *count));
    counter(encoder, "evicted_pods", "Pods evicted", evicted)?;
    of_gpus(encoder, state)
}

/// What the labels of the metrics above tell as well, under the names that it had before Cluster Autoscaler 1.36.
fn of_gpus(encoder: &mut DescriptorEncoder<'_>, state: &State) -> fmt::Result {
    let with = |reason: &str, of: &Accelerators| {
        label("reason", reason).into_iter().chain(of.gpu_labels()).collect()
    };
    let has = |of: &Accelerators| !of.name.is_empty();
    let grown = state.grown.iter().filter(|(of, _)| has(of));
    let grown = grown.map(|(of, count)| (of.gpu_labels().to_vec(), *count));
    counter(encoder, "scaled_up_gpu_nodes", "Nodes with GPUs asked for", grown)?;
    let failed = state.failed.iter().filter(|((_, of), _)| has(of));
    let failed = failed.map(|((reason, of), count)| (with(reason, of), *count));
    counter(encoder, "failed_gpu_scale_ups", "Groups with GPUs that could not grow", failed)?;
    let shrunk = state.shrunk.iter().filter(|((_, of), _)| has(of));
    let shrunk = shrunk.map(|((reason, of), count)| (with(reason, of), *count));
    counter(encoder, "scaled_down_gpu_nodes", "Nodes with GPUs removed", shrunk)
}

fn of_failures(encoder: &mut DescriptorEncoder<'_>, state: &State) -> fmt::Result {
    let errors = state.errors.iter().map(|(kind, count)| (label("type", *kind), *count));
    counter(encoder, "errors", "What failed and belongs to no group", errors)?;
    let nodes = state.failed_nodes.iter().map(|(reason, count)| (label("reason", reason), *count));
    counter(encoder, "failed_node_creations", "Nodes that groups could not get", nodes)
}

/// What cannot happen here, so that alerts on it (and on its absence) go on: groups are neither made nor deleted, pods are told
/// apart however many kinds a controller has, and every pass looks at all pods that wait and at all nodes.
fn of_what_never_happens(encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    for (name, help) in
        [("created_node_groups", "Node groups made"), ("deleted_node_groups", "Node groups deleted")]
    {
        counter(encoder, name, help, [(label("group_type", ""), 0)])?;
    }
    for (name, help) in [
        ("overflowing_controllers_count", "Controllers with more kinds of pods than are told apart"),
        ("max_node_skip_eval_duration_seconds", "How long passes have had no time for a node"),
    ] {
        gauge(encoder, name, help, [(Labels::new(), 0.0)])?;
    }
    // The one that asks in Cluster Autoscaler's `filter_out_schedulable.go`.
    let requestor = label("requestor", "filter-out-pod-list-processor");
    gauge(encoder, "skipped_pods_count", "Pods that a pass had no time for", [(requestor, 0.0)])
}

fn latencies(encoder: &mut DescriptorEncoder<'_>, state: &State) -> fmt::Result {
    let name = format!("{PREFIX}node_removal_latency_seconds");
    let help = "From the time a node might go to the time it went or was needed again";
    let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Histogram)?;
    for ((deleted, delay_reason), histogram) in &state.latency {
        let labels = [("deleted", if *deleted { "true" } else { "false" }), ("delay_reason", delay_reason)];
        histogram.encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Labels, f64)>,
) -> fmt::Result {
    let name = format!("{PREFIX}{name}");
    let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
    for (labels, value) in series {
        if labels.is_empty() {
            metric.encode_gauge(&value)?;
        } else {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
    }
    Ok(())
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Labels, u64)>,
) -> fmt::Result {
    let name = format!("{PREFIX}{name}");
    let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
    for (labels, value) in series {
        if labels.is_empty() {
            metric.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        } else {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        }
    }
    Ok(())
}
