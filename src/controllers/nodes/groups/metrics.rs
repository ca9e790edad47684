//! `cluster_autoscaler_*`: Cluster Autoscaler's names, so that dashboards and alerts go on.

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use tandem_core::nodes::{
    action::RemovalCause,
    cluster_state::{ClusterState, Found},
    group::NodeGroup,
    pass::Outcome,
};

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
    seconds: f64,
    passes: u64,
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabel {
    node_group: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackoffLabels {
    node_group: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActivityLabel {
    activity: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    eviction_result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabel {
    r#type: &'static str,
}

impl Metrics {
    /// Something was done now.
    pub(super) fn activity(&self, activity: &'static str) {
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
        let now = Timestamp::now().as_second() as f64;
        self.0.lock().activity.insert(activity, now);
    }

    /// A pass is over.
    pub(super) fn passed(&self, outcome: &Outcome, took: Duration) {
        self.activity("autoscaling");
        let total = outcome.found.total;
        let mut state = self.0.lock();
        state.nodes = [
            ("ready", total.ready),
            ("unready", total.unready),
            ("notStarted", total.not_started),
            ("unregistered", total.unregistered),
            ("longUnregistered", total.long_unregistered),
        ]
        .map(|(name, count)| (name, f64::from(count)))
        .into();
        let count = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        state.gauges = [
            ("cluster_safe_to_autoscale", f64::from(u8::from(outcome.found.healthy))),
            ("unneeded_nodes_count", count(outcome.unneeded.len())),
            ("scale_down_in_cooldown", f64::from(u8::from(outcome.scale_down_held.is_some()))),
            ("unschedulable_pods_count", count(outcome.unschedulable.len())),
            ("node_groups_count", count(outcome.found.groups.len())),
        ]
        .into();
        state.unremovable.clear();
        for unremovable in &outcome.unremovable {
            *state.unremovable.entry(unremovable.reason.name()).or_default() += 1.0;
        }
        state.seconds += took.as_secs_f64();
        state.passes += 1;
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

    /// A group could not be asked.
    pub(super) fn failed_to_grow(&self, reason: &str) {
        *self.0.lock().failed.entry(reason.to_owned()).or_default() += 1;
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
        ];
        for (name, help) in gauges {
            gauge(&mut encoder, name, help, [(None::<StateLabel>, state.gauges.get(name).copied())])?;
        }
        let pods = TypeLabel { r#type: "unschedulable" };
        let waiting = state.gauges.get("unschedulable_pods_count").copied();
        gauge(&mut encoder, "unschedulable_pods_count", "Pods that fit nowhere", [(Some(pods), waiting)])?;
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
        counter(&mut encoder, "evicted_pods", "Pods evicted", evicted)
    }
}

/// Prefix of every name.
const PREFIX: &str = "cluster_autoscaler_";

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
