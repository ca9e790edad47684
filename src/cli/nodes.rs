//! Flags of the node loop: Cluster Autoscaler's names and defaults.
//!
//! Source of names and defaults: kubernetes/autoscaler 1.37, `cluster-autoscaler/config/flags/flags.go`. Go's flags take
//! a boolean bare or with `=true` or `=false`.

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction::Set, Args};
use tandem_core::nodes::{drain::Order, expander::Chain};

use super::{
    address::BindAddress,
    without_effect::{
        Flag,
        Takes::{Switch, Value},
    },
};
use crate::cloud::{provider, spec};

/// Reads a time as Go's flags do (`1h30m`, `1.5h`, `0`).
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let read = spec::duration(text).and_then(|span| Duration::try_from(span).ok());
    read.ok_or_else(|| format!("{text:?} is no time; write 10m, 90s or 1h30m"))
}

/// The least and the most of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The least.
    pub min: i64,
    /// The most.
    pub max: i64,
}

fn bounds(text: &str) -> Result<Bounds, String> {
    let pair = text.split_once(':').and_then(|(min, max)| Some((min.parse().ok()?, max.parse().ok()?)));
    match pair {
        Some((min, max)) if 0 <= min && min <= max => Ok(Bounds { min, max }),
        Some((min, max)) => Err(format!("{min}:{max} is no range; write MIN:MAX with 0 <= MIN <= MAX")),
        None => Err(format!("{text:?} is no range; write MIN:MAX, two whole numbers")),
    }
}

/// The least and the most GPUs of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuBounds {
    /// The type, a value of the provider's label for GPUs, such as `nvidia-tesla-t4`.
    pub kind: String,
    /// How many.
    pub bounds: Bounds,
}

fn gpu_bounds(text: &str) -> Result<GpuBounds, String> {
    let pair = text.split_once(':').filter(|(kind, _)| !kind.is_empty());
    let Some((kind, range)) = pair else {
        return Err(format!("{text:?} names no type and range; write TYPE:MIN:MAX, as nvidia-tesla-t4:0:16"));
    };
    Ok(GpuBounds { kind: kind.to_owned(), bounds: bounds(range)? })
}

/// What the node loop is told.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Nodes")]
#[expect(clippy::struct_excessive_bools, reason = "a flag each")]
pub struct NodeArgs {
    /// Provider of node groups: aws, kwok, externalgrpc or clusterapi; without it no node group is scaled.
    #[arg(long)]
    pub cloud_provider: Option<String>,
    /// Configuration file of the provider.
    #[arg(long)]
    pub cloud_config: Option<PathBuf>,
    /// A node group, as MIN:MAX:NAME; may be given several times.
    #[arg(long)]
    pub nodes: Vec<String>,
    /// Where to find node groups, such as asg:tag=KEY,KEY or clusterapi:namespace=NAME.
    #[arg(long)]
    pub node_group_auto_discovery: Vec<String>,
    /// Another address of /metrics, with /health-check beside it, as Cluster Autoscaler has it (:8085).
    #[arg(long)]
    pub address: Option<BindAddress>,
    /// Cluster API: without --cloud-config the management cluster is the one that the pod runs in.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub clusterapi_cloud_config_authoritative: bool,
    /// The longest time between two passes; a change of the cluster starts one at once.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub scan_interval: Duration,
    /// Which group grows when several would do: random, most-pods, least-waste, least-nodes, price, priority or grpc, each narrowing what the one before it left.
    #[arg(long, default_value = "least-waste")]
    pub expander: Chain,
    /// Where the expander grpc is asked, HOST:PORT.
    #[arg(long, default_value = "")]
    pub grpc_expander_url: String,
    /// CA certificate of the expander grpc.
    #[arg(long)]
    pub grpc_expander_cert: Option<PathBuf>,
    /// Spread new nodes over groups that are alike.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub balance_similar_node_groups: bool,
    /// A label in which groups that are alike may differ.
    #[arg(long)]
    pub balancing_ignore_label: Vec<String>,
    /// Compare groups by these labels only.
    #[arg(long)]
    pub balancing_label: Vec<String>,
    /// How much the memory of groups that are alike may differ, a share of one.
    #[arg(long, default_value = "0.015")]
    pub memory_difference_ratio: f64,
    /// How much what is free of groups that are alike may differ, a share of one.
    #[arg(long, default_value = "0.05")]
    pub max_free_difference_ratio: f64,
    /// How much what is allocatable of groups that are alike may differ, a share of one.
    #[arg(long, default_value = "0.05")]
    pub max_allocatable_difference_ratio: f64,
    /// The most nodes in the cluster, all counted; 0 means no limit.
    #[arg(long, default_value = "0")]
    pub max_nodes_total: u32,
    /// The least and the most cores in the cluster.
    #[arg(long, default_value = "0:320000", value_parser = bounds)]
    pub cores_total: Bounds,
    /// The least and the most memory in the cluster, GiB.
    #[arg(long, default_value = "0:6400000", value_parser = bounds)]
    pub memory_total: Bounds,
    /// The least and the most GPUs of a type in the cluster, as TYPE:MIN:MAX; may be given several times.
    #[arg(long, value_parser = gpu_bounds)]
    pub gpu_total: Vec<GpuBounds>,
    /// The most nodes that are added to a group at once.
    #[arg(long, default_value = "1000")]
    pub max_nodes_per_scaleup: u32,
    /// A node that has not registered by then is given up, and its group backs off.
    #[arg(long, default_value = "15m", value_parser = duration)]
    pub max_node_provision_time: Duration,
    /// A node that is not ready by then after it registered counts as unready.
    #[arg(long, default_value = "15m", value_parser = duration)]
    pub max_node_startup_time: Duration,
    /// Nothing is scaled while more of the nodes, in percent, are unready.
    #[arg(long, default_value = "45")]
    pub max_total_unready_percentage: f64,
    /// So many unready nodes are no cause to stop, whatever their share.
    #[arg(long, default_value = "3")]
    pub ok_total_unready_count: u32,
    /// Pods younger than this do not cause a scale-up.
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub new_pod_scale_up_delay: Duration,
    /// Scale up while there is no ready node.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub scale_up_from_zero: bool,
    /// Bring groups up to their minimum.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub enforce_node_group_min_size: bool,
    /// Pods of a lower priority cause no scale-up and keep no node.
    #[arg(long, default_value = "-10", allow_hyphen_values = true)]
    pub expendable_pods_priority_cutoff: i32,
    /// Groups whose nodes are too small for all DaemonSets that suit them do not grow; without it, room is kept for those that fit.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub force_ds: bool,
    /// How long a group that failed to grow is left alone at first.
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub initial_node_group_backoff_duration: Duration,
    /// How long a group that failed to grow is left alone at most.
    #[arg(long, default_value = "30m", value_parser = duration)]
    pub max_node_group_backoff_duration: Duration,
    /// After so long without a failure a group is trusted again.
    #[arg(long, default_value = "3h", value_parser = duration)]
    pub node_group_backoff_reset_timeout: Duration,
    /// Only pods of these schedulers cause a scale-up; empty means all.
    #[arg(long, value_delimiter = ',')]
    pub allowed_scheduler_names: Vec<String>,
    /// Do not wait for these schedulers to say that a pod fits nowhere.
    #[arg(long, value_delimiter = ',')]
    pub bypassed_scheduler_names: Vec<String>,
    /// The configuration of kube-scheduler, the file that it has as --config: nodes are made and left for pods as it places
    /// them. With one profile, whose scheduler's pods it is for.
    #[arg(long)]
    pub scheduler_config_file: Option<PathBuf>,
    /// A taint that a node sheds once it is ready: not part of a group's template.
    #[arg(long)]
    pub startup_taint: Vec<String>,
    /// As --startup-taint, for all taints whose keys begin so.
    #[arg(long)]
    pub startup_taint_prefix: Vec<String>,
    /// The old name of --startup-taint.
    #[arg(long)]
    pub ignore_taint: Vec<String>,
    /// A taint that tells of a state of a node: not part of a group's template.
    #[arg(long)]
    pub status_taint: Vec<String>,
    /// Remove nodes.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub scale_down_enabled: bool,
    /// How long a node is not needed before it goes.
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub scale_down_unneeded_time: Duration,
    /// How long an unready node is not needed before it goes.
    #[arg(long, default_value = "20m", value_parser = duration)]
    pub scale_down_unready_time: Duration,
    /// Remove unready nodes.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub scale_down_unready_enabled: bool,
    /// A node of which more is requested, a share of one, stays.
    #[arg(long, default_value = "0.5")]
    pub scale_down_utilization_threshold: f64,
    /// As --scale-down-utilization-threshold, of a node's GPUs.
    #[arg(long, default_value = "0.5")]
    pub scale_down_gpu_utilization_threshold: f64,
    /// No node is removed for so long after one was added.
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub scale_down_delay_after_add: Duration,
    /// No node is removed for so long after one was removed.
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub scale_down_delay_after_delete: Duration,
    /// No node is removed for so long after a removal failed.
    #[arg(long, default_value = "3m", value_parser = duration)]
    pub scale_down_delay_after_failure: Duration,
    /// Those delays hold for the group that grew or shrank, not for all.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub scale_down_delay_type_local: bool,
    /// The most nodes that are being removed at once.
    #[arg(long, default_value = "10")]
    pub max_scale_down_parallelism: u32,
    /// The most nodes that are being drained at once.
    #[arg(long, default_value = "1")]
    pub max_drain_parallelism: u32,
    /// The longest grace period that a pod gets when its node is removed, seconds.
    #[arg(long, default_value = "600")]
    pub max_graceful_termination_sec: u32,
    /// How long an eviction is tried.
    #[arg(long, default_value = "2m", value_parser = duration)]
    pub max_pod_eviction_time: Duration,
    /// The longest grace periods by priority, as PRIORITY:SECONDS,…; pods of the lowest priorities leave first, and are gone before the next are evicted.
    #[arg(long, default_value = "", conflicts_with = "max_graceful_termination_sec")]
    pub drain_priority_config: Order,
    /// Time between the taint and the drain, in which the scheduler hears of it.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub node_delete_delay_after_taint: Duration,
    /// The longest wait for annotations delay-deletion.cluster-autoscaler.kubernetes.io/ to go.
    #[arg(long, default_value = "2m", value_parser = duration)]
    pub node_deletion_delay_timeout: Duration,
    /// Cordon a node before it is drained.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub cordon_node_before_terminating: bool,
    /// Evict DaemonSet pods of nodes that run nothing else.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub daemonset_eviction_for_empty_nodes: bool,
    /// Evict DaemonSet pods of nodes that are drained.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub daemonset_eviction_for_occupied_nodes: bool,
    /// Leave DaemonSet pods out of a node's utilization.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub ignore_daemonsets_utilization: bool,
    /// Leave mirror pods out of a node's utilization.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub ignore_mirror_pods_utilization: bool,
    /// Keep nodes with pods of kube-system.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub skip_nodes_with_system_pods: bool,
    /// Keep nodes with pods that have local storage.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub skip_nodes_with_local_storage: bool,
    /// Keep nodes with pods of controllers that are not Kubernetes' own.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub skip_nodes_with_custom_controller_pods: bool,
    /// A pod of kube-system keeps its node for so long.
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub blocking_system_pod_distruption_timeout: Duration,
    /// Pods of controllers with fewer replicas keep their node.
    #[arg(long, default_value = "0")]
    pub min_replica_count: u32,
    /// A node that could not be removed is looked at again after so long.
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub unremovable_node_recheck_timeout: Duration,
    /// The most nodes whose soft taint is written in a pass; 0 turns it off.
    #[arg(long, default_value = "10")]
    pub max_bulk_soft_taint_count: u32,
    /// The longest time that a pass spends on soft taints.
    #[arg(long, default_value = "3s", value_parser = duration)]
    pub max_bulk_soft_taint_time: Duration,
    /// Remove nodes that never registered even below the minimum of their group.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub force_delete_unregistered_nodes: bool,
    /// Remove nodes that could not be made even below the minimum of their group.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub force_delete_failed_nodes: bool,
    /// Read CapacityBuffers, and write what becomes of them into their status.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub capacity_buffer_controller_enabled: bool,
    /// Keep the room of CapacityBuffers on node groups.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub capacity_buffer_pod_injection_enabled: bool,
    /// Keep CapacityQuotas, and write what their nodes have into their status.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub capacity_quotas_enabled: bool,
    /// Ask for nodes for the pods that a controller will make, too, as soon as one of its pods waits for a node.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub enable_proactive_scaleup: bool,
    /// The most pods that nodes are asked for so, those that wait included.
    #[arg(long, default_value = "5000")]
    pub pod_injection_limit: u32,
    /// Answer ProvisioningRequests, and keep the room that was promised.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub enable_provisioning_requests: bool,
    /// Answer only those requests of the class check-capacity whose parameter processorInstance says so.
    #[arg(long, default_value = "")]
    pub check_capacity_processor_instance: String,
    /// A ProvisioningRequest that found no room is tried again after so long, and each time after twice as long.
    #[arg(long, default_value = "1m", value_parser = duration)]
    pub provisioning_request_initial_backoff_time: Duration,
    /// The longest time after which a ProvisioningRequest is tried again.
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub provisioning_request_max_backoff_time: Duration,
    /// A leader that began no pass for so long is not alive.
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub max_inactivity: Duration,
    /// /health-check fails for a leader whose passes have failed for so long.
    #[arg(long, default_value = "15m", value_parser = duration)]
    pub max_failing_time: Duration,
    /// How long a leader's first pass may take, instead of both.
    #[arg(long, default_value = "20m", value_parser = duration)]
    pub max_startup_time: Duration,
    /// Keep the status ConfigMap.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub write_status_configmap: bool,
    /// Name of the status ConfigMap.
    #[arg(long, default_value = "cluster-autoscaler-status")]
    pub status_config_map_name: String,
    /// Metrics of each group.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub emit_per_nodegroup_metrics: bool,
    /// Do not ask EC2 for instance types of groups whose tags node-template/resources/cpu and memory say what a node has.
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub aws_use_static_instance_list: bool,
    /// The most pods that nodes are asked for before they exist, from the samples of ScaledObjects; 0 turns it off.
    #[arg(long, default_value_t = tandem_core::nodes::demand::MOST)]
    pub max_expected_pods: u32,
}

impl NodeArgs {
    /// The provider of node groups, if there is one.
    pub fn provider(&self) -> Option<&str> {
        self.cloud_provider.as_deref().filter(|name| !name.is_empty())
    }

    /// What is said to the provider.
    pub fn provider_settings(&self) -> provider::Settings {
        provider::Settings {
            cloud_config: self.cloud_config.clone(),
            nodes: self.nodes.clone(),
            discoveries: self.node_group_auto_discovery.clone(),
            cluster_api_authoritative: self.clusterapi_cloud_config_authoritative,
            believes_tags: self.aws_use_static_instance_list,
            ..provider::Settings::default()
        }
    }
}

const GCE: &str = "Google's groups are not built in; use externalgrpc";
const NO_AUTOPROVISIONING: &str = "no groups are made; use node pools";
const NO_RATE_LIMIT: &str = "there is no client-side rate limit";
const NOBODY: &str = "nothing reads it";
const QUICK: &str = "no pass takes so long";
const ALL_NODES: &str = "every node is looked at in every pass";
const ALL_REQUESTS: &str = "every pass answers all ProvisioningRequests";

/// Flags of Cluster Autoscaler that change nothing here, with the reason.
pub(super) const WITHOUT_EFFECT: &[Flag] = &[
    ("async-node-groups", Switch, NO_AUTOPROVISIONING),
    ("bulk-mig-instances-listing-enabled", Switch, GCE),
    (
        "capacity-buffer-pod-dry-run-enabled",
        Switch,
        "a buffer's pods are as the newest pod of its workload, or as its template",
    ),
    ("check-capacity-batch-processing", Switch, ALL_REQUESTS),
    ("check-capacity-provisioning-request-batch-timebox", Value, ALL_REQUESTS),
    ("check-capacity-provisioning-request-max-batch-size", Value, ALL_REQUESTS),
    ("cluster-snapshot-parallelism", Value, NOBODY),
    ("debugging-snapshot-enabled", Switch, "status, events and log say what was decided and why"),
    ("dynamic-node-delete-delay-after-taint-enabled", Switch, "--node-delete-delay-after-taint holds"),
    ("enable-csi-node-aware-scheduling", Switch, "limits of CSINode always count"),
    ("enable-dynamic-resource-allocation", Switch, "claims of devices always count"),
    ("enable-graceful-degradation", Switch, QUICK),
    ("estimator", Value, "binpacking is the only one"),
    ("fastpath-binpacking-enabled", Switch, "the estimator always counts where counting is exact"),
    ("frequent-loops-enabled", Switch, "a pod that fits nowhere always starts a pass"),
    ("gce-concurrent-refreshes", Value, GCE),
    ("gce-expander-ephemeral-storage-support", Switch, GCE),
    ("gce-mig-instances-min-refresh-wait-time", Value, GCE),
    ("kube-api-content-type", Value, "the API is read as JSON"),
    ("kube-client-burst", Value, NO_RATE_LIMIT),
    ("kube-client-qps", Value, NO_RATE_LIMIT),
    ("kubernetes", Value, "see --kubeconfig"),
    ("leader-elect-resource-lock", Value, "it is always a Lease"),
    ("max-autoprovisioned-node-group-count", Value, NO_AUTOPROVISIONING),
    ("max-binpacking-time", Value, QUICK),
    ("max-empty-bulk-delete", Value, "see --max-scale-down-parallelism"),
    ("max-node-skip-eval-time-tracker-enabled", Switch, ALL_NODES),
    ("max-nodegroup-binpacking-duration", Value, QUICK),
    ("node-autoprovisioning-enabled", Switch, NO_AUTOPROVISIONING),
    ("node-deletion-batcher-interval", Value, "nodes are handed to the provider at once"),
    ("node-deletion-candidate-ttl", Value, "timers are always read back after a restart"),
    ("node-info-cache-expire-time", Value, "templates follow their group"),
    ("node-removal-latency-tracking-enabled", Switch, "it is always measured"),
    ("parallel-drain", Switch, "drains are parallel; see --max-drain-parallelism"),
    ("parallel-scale-up", Switch, "several groups grow in one pass"),
    ("pending-pods-batching-timeout", Value, QUICK),
    ("predicate-parallelism", Value, NOBODY),
    ("provisioning-request-max-backoff-cache-size", Value, "the backoffs of all requests are remembered"),
    ("record-duplicated-events", Switch, "equal events are counted, not repeated"),
    ("regional", Switch, NOBODY),
    ("salvo-scale-up", Switch, "several groups always grow in one pass"),
    ("salvo-scale-up-budget", Value, "several groups always grow in one pass"),
    ("scale-down-candidates-pool-min-count", Value, ALL_NODES),
    ("scale-down-candidates-pool-ratio", Value, ALL_NODES),
    ("scale-down-non-empty-candidates-count", Value, ALL_NODES),
    ("scale-from-unschedulable", Switch, "templates are always schedulable"),
    ("scale-down-simulation-timeout", Value, QUICK),
    ("scaleup-simulation-for-skipped-node-groups-enabled", Switch, "reasons are always known"),
    ("scheduler-verbosity", Value, "the simulation has no log of its own; see tandem explain pod"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_bounded_by_type() {
        let t4 = GpuBounds { kind: "nvidia-tesla-t4".to_owned(), bounds: Bounds { min: 1, max: 16 } };
        assert_eq!(gpu_bounds("nvidia-tesla-t4:1:16"), Ok(t4));
        for (wrong, said) in [
            ("t4", "\"t4\" names no type and range; write TYPE:MIN:MAX"),
            (":1:2", "\":1:2\" names no type"),
            ("t4:1", "\"1\" is no range; write MIN:MAX"),
            ("t4:3:2", "3:2 is no range"),
        ] {
            let error = gpu_bounds(wrong).unwrap_err();
            assert!(error.starts_with(said), "{wrong}: {error}");
        }
    }
}
