//! `cluster_autoscaler_*`: Cluster Autoscaler's names, so that dashboards and alerts go on.

mod accelerators;
mod durations;
mod encode;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tandem_core::nodes::{
    action::{RemovalCause, TO_BE_DELETED},
    cluster_state::{ClusterState, Found, TIMEOUT},
    group::{NodeGroup, Template},
    pass::{Outcome, Unplaced, UnremovableReason},
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
            ("node_groups_count", count(outcome.found.groups.len())),
        ]);
        if outcome.found.healthy {
            // Nobody looks at pods in a cluster that does not work.
            let Unplaced { unschedulable, not_tried } = outcome.unplaced;
            let pods = [("unschedulable", unschedulable), ("scheduler_unprocessed", not_tried)];
            state.gauges.extend(pods.map(|(name, count)| (name, f64::from(count))));
        }
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
        self.0.lock().durations.observe(function, took);
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
mod tests;
