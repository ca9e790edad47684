//! What the flags say when nobody says anything: Cluster Autoscaler's defaults (`config/flags/flags.go`), which the command
//! line's are checked against.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::{PassSettings, PendingSettings, RepairSettings, ScaleDownSettings, ScaleUpSettings};
use crate::nodes::{backoff::BackoffSettings, cluster_state::ClusterStateSettings, drain};

/// `--cores-total` and `--memory-total` end there, in cores and in GiB.
const MAX_CORES: i64 = 320_000;
const MAX_GIBIBYTES: i64 = 6_400_000;
/// Pods of a lower priority cause no scale-up (`--expendable-pods-priority-cutoff`).
const PRIORITY_CUTOFF: i32 = -10;

impl Default for PassSettings {
    fn default() -> Self {
        Self {
            cluster: ClusterStateSettings {
                max_unready_percentage: 45.0,
                ok_unready: 3,
                provision_time: SignedDuration::from_mins(15),
                startup_time: SignedDuration::from_mins(15),
                backoff: BackoffSettings {
                    first: SignedDuration::from_mins(5),
                    longest: SignedDuration::from_mins(30),
                    forgotten: SignedDuration::from_hours(3),
                },
            },
            repair: RepairSettings::default(),
            pending: PendingSettings { priority_cutoff: PRIORITY_CUTOFF, ..PendingSettings::default() },
            scale_up: ScaleUpSettings {
                most_at_once: 1000,
                max_nodes: None,
                max_cores: MAX_CORES,
                max_memory: MAX_GIBIBYTES << 30,
                max_gpus: BTreeMap::new(),
                from_zero: true,
                enforce_min: false,
                balance: None,
            },
            scale_down: ScaleDownSettings {
                enabled: true,
                unneeded_time: SignedDuration::from_mins(10),
                unready_time: SignedDuration::from_mins(20),
                unready_enabled: true,
                threshold: 0.5,
                gpu_threshold: 0.5,
                delay_after_add: SignedDuration::from_mins(10),
                delay_after_delete: SignedDuration::ZERO,
                delay_after_failure: SignedDuration::from_mins(3),
                delay_is_local: false,
                parallelism: 10,
                drain_parallelism: 1,
                recheck: SignedDuration::from_mins(5),
                ignore_daemon_sets: false,
                ignore_mirror_pods: false,
                min_cores: 0,
                min_memory: 0,
                min_gpus: BTreeMap::new(),
                marks_at_once: 10,
                gpu_label: String::new(),
            },
            drain: drain::Options {
                skip_system_pods: true,
                skip_local_storage: true,
                skip_custom_controllers: true,
                min_replica_count: 0,
                system_pod_timeout: SignedDuration::from_hours(1),
            },
            requests: BackoffSettings {
                first: SignedDuration::from_mins(1),
                longest: SignedDuration::from_mins(10),
                forgotten: SignedDuration::MAX,
            },
        }
    }
}
