//! Flags of interruption notices: aws-node-termination-handler's names and defaults (queue processor mode).
//!
//! Source of names and defaults: aws/aws-node-termination-handler 1.25, `pkg/config/config.go`. The queue may also be named as
//! Karpenter names it, by `--interruption-queue`.

use std::time::Duration;

use clap::{ArgAction::Set, Args, builder::BoolishValueParser};
use tandem_core::nodes::interruption::Settings;

/// What is wanted of interruption notices.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Interruption notices")]
#[expect(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
pub struct InterruptionArgs {
    /// Address of the SQS queue of notices; with --interruption-queue its name is enough.
    #[arg(long, env = "QUEUE_URL", default_value = "")]
    pub queue_url: String,
    /// Drain nodes whose spot capacity is taken back.
    #[arg(long, env = "ENABLE_SPOT_INTERRUPTION_DRAINING", action = Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub enable_spot_interruption_draining: bool,
    /// Drain nodes for which EC2 announced maintenance.
    #[arg(long, env = "ENABLE_SCHEDULED_EVENT_DRAINING", action = Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub enable_scheduled_event_draining: bool,
    /// Drain nodes whose spot capacity is likely to be taken back; without it those of node pools stay and others go.
    #[arg(long, env = "ENABLE_REBALANCE_DRAINING", action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub enable_rebalance_draining: Option<bool>,
    /// Drain nodes that their Auto Scaling group ends, and let them end when they are empty.
    #[arg(long, env = "ENABLE_ASG_LIFECYCLE_DRAINING", action = Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub enable_asg_lifecycle_draining: bool,
    /// Cordon nodes, and evict nothing.
    #[arg(long, env = "CORDON_ONLY", action = Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub cordon_only: bool,
    /// Taint nodes with the reason; by the taint node groups know that another machine comes without being asked for.
    #[arg(long, env = "TAINT_NODE", action = Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub taint_node: bool,
    /// The effect of that taint.
    #[arg(long, env = "TAINT_EFFECT", default_value = "NoSchedule")]
    pub taint_effect: String,
    /// Take such nodes out of load balancers.
    #[arg(long, env = "EXCLUDE_FROM_LOAD_BALANCERS", action = Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub exclude_from_load_balancers: bool,
    /// Seconds that the pods of a node have to be gone.
    #[arg(long, env = "NODE_TERMINATION_GRACE_PERIOD", default_value_t = 120)]
    pub node_termination_grace_period: u32,
    /// Seconds that a pod gets to stop; below zero its own grace period.
    #[arg(long, env = "POD_TERMINATION_GRACE_PERIOD", default_value_t = -1, allow_negative_numbers = true)]
    pub pod_termination_grace_period: i32,
    /// Notices that are dealt with at once.
    #[arg(long, env = "WORKERS", default_value_t = 10)]
    pub workers: usize,
    /// Seconds between two heartbeats for a machine that a hook holds while its node is emptied.
    #[arg(long, env = "HEARTBEAT_INTERVAL", default_value_t = 30)]
    pub heartbeat_interval: u64,
    /// Seconds after which there are no more heartbeats, and the hook's timeout ends the machine.
    #[arg(long, env = "HEARTBEAT_UNTIL", default_value_t = 172_800)]
    pub heartbeat_until: u64,
    /// Remove the notice of a hook whose machine is no node of this cluster; without it the notice stays for others.
    #[arg(long, env = "DELETE_SQS_MSG_IF_NODE_NOT_FOUND", action = Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub delete_sqs_msg_if_node_not_found: bool,
}

impl InterruptionArgs {
    /// What decisions read of them.
    pub fn decisions(&self) -> Settings {
        Settings {
            spot: self.enable_spot_interruption_draining,
            scheduled: self.enable_scheduled_event_draining,
            rebalance: self.enable_rebalance_draining,
            hooks: self.enable_asg_lifecycle_draining,
            cordon_only: self.cordon_only,
            taint: self.taint_node,
        }
    }

    /// How long the pods of a node have to be gone.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.node_termination_grace_period.into())
    }

    /// How long a pod gets to stop at most; `None` leaves it its own.
    pub fn pod_grace(&self) -> Option<Duration> {
        u64::try_from(self.pod_termination_grace_period).ok().map(Duration::from_secs)
    }
}
