//! `cluster_autoscaler_*`: Cluster Autoscaler's names, so that dashboards and alerts go on.

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use tandem_core::nodes::{action::RemovalCause, pass::Outcome};

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
    seconds: f64,
    passes: u64,
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
