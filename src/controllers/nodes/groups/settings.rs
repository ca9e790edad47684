//! What the flags say, as the decisions and the removal want it.

use std::{collections::BTreeMap, time::Duration};

use jiff::SignedDuration;
use tandem_core::nodes::{
    backoff::BackoffSettings,
    cluster_state::ClusterStateSettings,
    drain,
    pass::{PassSettings, PendingSettings, RepairSettings, ScaleDownSettings, ScaleUpSettings},
    similar::{Comparator, Flavour, Ratios},
    template::PassingTaints,
};

use super::remove::RemoveOptions;
use crate::{
    cli::nodes::{Bounds, NodeArgs},
    cloud::CloudProvider,
    controllers::nodes::drain::DrainOptions,
};

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// For the pass.
pub fn pass(args: &NodeArgs, provider: &dyn CloudProvider) -> PassSettings {
    of_flags(args, provider.name(), provider.gpu_label())
}

fn of_flags(args: &NodeArgs, provider: &str, gpu_label: &str) -> PassSettings {
    PassSettings {
        cluster: ClusterStateSettings {
            max_unready_percentage: args.max_total_unready_percentage,
            ok_unready: args.ok_total_unready_count,
            provision_time: signed(args.max_node_provision_time),
            startup_time: signed(args.max_node_startup_time),
            backoff: BackoffSettings {
                first: signed(args.initial_node_group_backoff_duration),
                longest: signed(args.max_node_group_backoff_duration),
                forgotten: signed(args.node_group_backoff_reset_timeout),
            },
        },
        repair: RepairSettings {
            force_failed: args.force_delete_failed_nodes,
            force_unregistered: args.force_delete_unregistered_nodes,
        },
        pending: PendingSettings {
            priority_cutoff: args.expendable_pods_priority_cutoff,
            delay: signed(args.new_pod_scale_up_delay),
            schedulers: named(&args.allowed_scheduler_names),
            bypassed: named(&args.bypassed_scheduler_names),
            requests: args.enable_provisioning_requests,
        },
        scale_up: ScaleUpSettings {
            most_at_once: args.max_nodes_per_scaleup,
            max_nodes: (args.max_nodes_total > 0).then_some(args.max_nodes_total),
            max_cores: args.cores_total.max,
            max_memory: gibibytes(args.memory_total.max),
            max_gpus: gpus(args, |bounds| bounds.max),
            from_zero: args.scale_up_from_zero,
            enforce_min: args.enforce_node_group_min_size,
            balance: args.balance_similar_node_groups.then(|| comparator(args, provider)),
        },
        scale_down: ScaleDownSettings {
            enabled: args.scale_down_enabled,
            unneeded_time: signed(args.scale_down_unneeded_time),
            unready_time: signed(args.scale_down_unready_time),
            unready_enabled: args.scale_down_unready_enabled,
            threshold: args.scale_down_utilization_threshold,
            gpu_threshold: args.scale_down_gpu_utilization_threshold,
            delay_after_add: signed(args.scale_down_delay_after_add),
            delay_after_delete: signed(args.scale_down_delay_after_delete),
            delay_after_failure: signed(args.scale_down_delay_after_failure),
            delay_is_local: args.scale_down_delay_type_local,
            parallelism: args.max_scale_down_parallelism,
            drain_parallelism: args.max_drain_parallelism,
            recheck: signed(args.unremovable_node_recheck_timeout),
            ignore_daemon_sets: args.ignore_daemonsets_utilization,
            ignore_mirror_pods: args.ignore_mirror_pods_utilization,
            min_cores: args.cores_total.min,
            min_memory: gibibytes(args.memory_total.min),
            min_gpus: gpus(args, |bounds| bounds.min),
            marks_at_once: args.max_bulk_soft_taint_count,
            gpu_label: gpu_label.to_owned(),
        },
        drain: drain::Options {
            skip_system_pods: args.skip_nodes_with_system_pods,
            skip_local_storage: args.skip_nodes_with_local_storage,
            skip_custom_controllers: args.skip_nodes_with_custom_controller_pods,
            min_replica_count: args.min_replica_count,
            system_pod_timeout: signed(args.blocking_system_pod_distruption_timeout),
        },
        requests: BackoffSettings {
            first: signed(args.provisioning_request_initial_backoff_time),
            longest: signed(args.provisioning_request_max_backoff_time),
            forgotten: SignedDuration::MAX,
        },
    }
}

/// How groups that are alike are told.
fn comparator(args: &NodeArgs, provider: &str) -> Comparator {
    if !args.balancing_label.is_empty() {
        return Comparator::Labels(args.balancing_label.clone());
    }
    Comparator::Nodes {
        flavour: if provider == "aws" { Flavour::Aws } else { Flavour::Generic },
        ignored: args.balancing_ignore_label.iter().cloned().collect(),
        ratios: Ratios {
            allocatable: args.max_allocatable_difference_ratio,
            free: args.max_free_difference_ratio,
            memory: args.memory_difference_ratio,
        },
    }
}

/// For the removal of a node.
pub(super) fn remove(args: &NodeArgs) -> RemoveOptions {
    RemoveOptions {
        delay_after_taint: args.node_delete_delay_after_taint,
        delay_timeout: args.node_deletion_delay_timeout,
        cordon: args.cordon_node_before_terminating,
        evict_daemon_pods_of_empty: args.daemonset_eviction_for_empty_nodes,
        evict_daemon_pods_of_occupied: args.daemonset_eviction_for_occupied_nodes,
        drain: DrainOptions { eviction_time: args.max_pod_eviction_time, max_grace: None, wait: true },
        order: args.drain_priority_config.clone(),
        max_grace: SignedDuration::from_secs(i64::from(args.max_graceful_termination_sec)),
    }
}

/// For templates.
pub fn passing_taints(args: &NodeArgs) -> PassingTaints {
    PassingTaints {
        startup: args.startup_taint.iter().chain(&args.ignore_taint).cloned().collect(),
        startup_prefixes: args.startup_taint_prefix.clone(),
        status: args.status_taint.clone(),
    }
}

fn named(names: &[String]) -> Vec<String> {
    names.iter().filter(|name| !name.is_empty()).cloned().collect()
}

/// A bound of each type; of two for one type the latter counts.
fn gpus(args: &NodeArgs, bound: impl Fn(&Bounds) -> i64) -> BTreeMap<String, i64> {
    args.gpu_total.iter().map(|gpus| (gpus.kind.clone(), bound(&gpus.bounds))).collect()
}

fn gibibytes(count: i64) -> i64 {
    count.saturating_mul(1 << 30)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        nodes: NodeArgs,
    }

    #[test]
    fn without_flags_the_settings_are_those_of_a_simulation() {
        let args = Flags::parse_from(["tandem"]).nodes;
        assert_eq!(format!("{:?}", of_flags(&args, "kwok", "")), format!("{:?}", PassSettings::default()));
    }

    /// Flags that are no settings of a pass, a removal or a template, each with who reads it.
    const ELSEWHERE: &[(&str, &str)] = &[
        ("cloud-provider", "provider"),
        ("cloud-config", "provider"),
        ("nodes", "provider"),
        ("node-group-auto-discovery", "provider"),
        ("clusterapi-cloud-config-authoritative", "provider"),
        ("aws-use-static-instance-list", "provider"),
        ("cluster-name", "provider"),
        ("address", "operator"),
        ("scan-interval", "loop"),
        ("scheduler-config-file", "world"),
        ("expander", "chooser"),
        ("grpc-expander-url", "chooser"),
        ("grpc-expander-cert", "chooser"),
        ("force-ds", "look"),
        ("max-bulk-soft-taint-time", "loop"),
        ("max-node-provision-time", "loop"),
        ("capacity-buffer-controller-enabled", "operator"),
        ("capacity-buffer-pod-injection-enabled", "operator"),
        ("capacity-quotas-enabled", "operator"),
        ("check-capacity-processor-instance", "requests"),
        ("write-status-configmap", "status map"),
        ("status-config-map-name", "status map"),
        ("emit-per-nodegroup-metrics", "loop"),
        ("max-expected-pods", "demand"),
        ("enable-proactive-scaleup", "injection"),
        ("max-inactivity", "liveness"),
        ("max-failing-time", "liveness"),
        ("max-startup-time", "liveness"),
        ("pod-injection-limit", "injection"),
    ];

    /// A value that is not the default, with what has to come along.
    fn other(flag: &str, default: &str) -> Vec<String> {
        let value = match flag {
            "drain-priority-config" => "0:30",
            "cores-total" | "memory-total" => "1:2",
            "gpu-total" => "t4:0:1",
            "max-allocatable-difference-ratio"
            | "max-free-difference-ratio"
            | "memory-difference-ratio"
            | "balancing-ignore-label"
            | "balancing-label" => {
                return vec![
                    "--balance-similar-node-groups".to_owned(),
                    format!("--{flag}={}", if flag.ends_with("label") { "x" } else { "0.5" }),
                ];
            }
            _ => match default {
                "true" => "false",
                "false" => "true",
                "" => "x",
                number if number.parse::<f64>().is_ok() => "7",
                _ => "77s",
            },
        };
        vec![format!("--{flag}={value}")]
    }

    #[test]
    fn every_flag_changes_what_is_decided_or_done() {
        use clap::CommandFactory;
        let all = |arguments: &[String]| {
            let args =
                Flags::parse_from(std::iter::once("tandem".to_owned()).chain(arguments.to_vec())).nodes;
            format!("{:?} {:?} {:?}", of_flags(&args, "kwok", ""), remove(&args), passing_taints(&args))
        };
        for arg in Flags::command().get_arguments() {
            let Some(flag) = arg.get_long().filter(|flag| ELSEWHERE.iter().all(|(other, _)| other != flag))
            else {
                continue;
            };
            let default = arg.get_default_values().first().map(|it| it.to_string_lossy().into_owned());
            let given = other(flag, default.as_deref().unwrap_or_default());
            let without: Vec<_> = given[..given.len() - 1].to_vec();
            assert_ne!(all(&given), all(&without), "--{flag} is taken and changes nothing");
        }
    }
}
