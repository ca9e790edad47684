//! Flags of interruption notices: aws-node-termination-handler's names and defaults (queue processor mode).
//!
//! Source of names and defaults: aws/aws-node-termination-handler 1.25, `pkg/config/config.go`. The queue may also be named as
//! Karpenter names it, by `--interruption-queue`.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::{ArgAction::Set, Args, builder::BoolishValueParser};
use scalers::Secret;
use tandem_core::nodes::interruption::Settings;

use super::without_effect::{
    Flag,
    Takes::{Switch, Value},
};

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
    /// Seconds that a pod gets to stop; below zero, and if not given, its own grace period.
    #[arg(long, env = "POD_TERMINATION_GRACE_PERIOD", allow_negative_numbers = true)]
    pub pod_termination_grace_period: Option<i32>,
    /// The former name of --pod-termination-grace-period.
    #[arg(long, env = "GRACE_PERIOD", allow_negative_numbers = true, hide = true)]
    pub grace_period: Option<i32>,
    /// Empty nodes with pods that keep something in an emptyDir; without it such a node is cordoned, and the drain fails.
    #[arg(long, env = "DELETE_LOCAL_DATA", action = Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub delete_local_data: bool,
    /// Empty nodes with pods of DaemonSets, which stay; without it such a node is cordoned, and the drain fails.
    #[arg(long, env = "IGNORE_DAEMON_SETS", action = Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub ignore_daemon_sets: bool,
    /// Notices that are dealt with at once.
    #[arg(long, env = "WORKERS", default_value_t = 10)]
    pub workers: usize,
    /// Seconds that a message is hidden from others once it was read, 1 to 119; one that is not dealt with comes again then.
    #[arg(long, env = "SQS_MSG_VISIBILITY_TIMEOUT_SEC", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=119))]
    pub sqs_msg_visibility_timeout_sec: u32,
    /// Annotations of the events about nodes, key=value and commas between.
    #[arg(long, env = "KUBERNETES_EVENTS_EXTRA_ANNOTATIONS", value_parser = annotations, default_value = "", hide_default_value = true)]
    pub kubernetes_events_extra_annotations: Annotations,
    /// Seconds between two heartbeats for a machine that a hook holds while its node is emptied.
    #[arg(long, env = "HEARTBEAT_INTERVAL", default_value_t = 30)]
    pub heartbeat_interval: u64,
    /// Seconds after which there are no more heartbeats, and the hook's timeout ends the machine.
    #[arg(long, env = "HEARTBEAT_UNTIL", default_value_t = 172_800)]
    pub heartbeat_until: u64,
    /// Seconds between the end of a drain and the word that its machine may end; none below zero.
    #[arg(long, env = "COMPLETE_LIFECYCLE_ACTION_DELAY_SECONDS", default_value_t = -1, allow_negative_numbers = true)]
    pub complete_lifecycle_action_delay_seconds: i32,
    /// Taint nodes that are empty node.kubernetes.io/out-of-service, so that their volumes are free at once.
    #[arg(long, env = "ENABLE_OUT_OF_SERVICE_TAINT", action = Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub enable_out_of_service_taint: bool,
    /// Remove the notice of a hook whose machine is no node of this cluster; without it the notice stays for others.
    #[arg(long, env = "DELETE_SQS_MSG_IF_NODE_NOT_FOUND", action = Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub delete_sqs_msg_if_node_not_found: bool,
    /// Which machines that are no pool's are emptied.
    #[command(flatten)]
    pub managed: ManagedArgs,
    /// What is told of them.
    #[command(flatten)]
    pub webhook: WebhookArgs,
}

/// Annotations, by their keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations(pub BTreeMap<String, String>);

/// Reads annotations as the handler does (`pkg/observability/k8s-events.go`).
fn annotations(text: &str) -> Result<Annotations, String> {
    if text.is_empty() {
        return Ok(Annotations::default());
    }
    let pair = |part: &str| match part.split('=').collect::<Vec<_>>()[..] {
        [key, value] if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{part:?} is no annotation; write first=annotation,sample.annotation/number=two")),
    };
    text.split(',').map(pair).collect::<Result<_, _>>().map(Annotations)
}

/// Which machines are emptied. While none of these is given, all that are nodes of this cluster; as soon as one is, those
/// with the tag, as the handler has it. Nodes of pools go in any case.
#[derive(Debug, Clone, Args)]
pub struct ManagedArgs {
    /// Empty nodes of machines with a tag only; so it is as soon as one of the settings about the tag is given.
    #[arg(long, env = "CHECK_TAG_BEFORE_DRAINING", action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub check_tag_before_draining: Option<bool>,
    /// The key of that tag, whatever its value [default: aws-node-termination-handler/managed].
    #[arg(long, env = "MANAGED_TAG")]
    pub managed_tag: Option<String>,
    /// The former name of --check-tag-before-draining.
    #[arg(long, env = "CHECK_ASG_TAG_BEFORE_DRAINING", hide = true, action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub check_asg_tag_before_draining: Option<bool>,
    /// The former name of --managed-tag.
    #[arg(long, env = "MANAGED_ASG_TAG", hide = true)]
    pub managed_asg_tag: Option<String>,
    /// If false, a tag of the machine's Auto Scaling group counts, too.
    #[arg(long, env = "ASSUME_ASG_TAG_PROPAGATION", action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub assume_asg_tag_propagation: Option<bool>,
}

/// The tag that says which machines are emptied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedTag {
    /// Its key.
    pub key: String,
    /// Whether only machines with it are emptied; else they are only counted.
    pub is_checked: bool,
    /// Whether it may be the group's.
    pub of_groups: bool,
}

impl ManagedArgs {
    /// The tag, if one of these was given (aws-node-termination-handler, `pkg/config/config.go`: a newer name goes before the
    /// older; a group's own tags were read by the versions that had `ASSUME_ASG_TAG_PROPAGATION`, while it was false).
    pub fn tag(&self) -> Option<ManagedTag> {
        let key = self.managed_tag.as_ref().or(self.managed_asg_tag.as_ref());
        let is_checked = self.check_tag_before_draining.or(self.check_asg_tag_before_draining);
        if key.is_none() && is_checked.is_none() && self.assume_asg_tag_propagation.is_none() {
            return None;
        }
        Some(ManagedTag {
            key: key.map_or_else(|| MANAGED_TAG.to_owned(), Clone::clone),
            is_checked: is_checked.unwrap_or(true),
            of_groups: self.assume_asg_tag_propagation == Some(false),
        })
    }
}

/// The handler's own tag (`pkg/config/config.go`).
const MANAGED_TAG: &str = "aws-node-termination-handler/managed";

/// The webhook that is told of notices. What may hold a token is not printed, nor are the values of variables.
#[derive(Debug, Clone, Args)]
pub struct WebhookArgs {
    /// Address that each notice that is acted on is posted to.
    #[arg(long, env = "WEBHOOK_URL", default_value = "", hide_default_value = true, hide_env_values = true)]
    pub webhook_url: Secret,
    /// Proxy on the way there; those of the environment are not asked.
    #[arg(
        long,
        env = "WEBHOOK_PROXY",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    pub webhook_proxy: Secret,
    /// Headers of these requests, an object of texts in JSON.
    #[arg(
        long,
        env = "WEBHOOK_HEADERS",
        default_value = r#"{"Content-type":"application/json"}"#,
        hide_env_values = true
    )]
    pub webhook_headers: Secret,
    /// Their body: a template of Go with fields, {{ .Kind }} or {{ .Kind | lower }}.
    #[arg(long, env = "WEBHOOK_TEMPLATE", default_value = WEBHOOK_TEMPLATE)]
    pub webhook_template: String,
    /// A file with that body, read at start; it goes before --webhook-template.
    #[arg(long, env = "WEBHOOK_TEMPLATE_FILE")]
    pub webhook_template_file: Option<PathBuf>,
}

/// What the handler tells.
const WEBHOOK_TEMPLATE: &str = r#"{"text":"[NTH][Instance Interruption] EventID: {{ .EventID }} - Kind: {{ .Kind }} - Instance: {{ .InstanceID }} - Node: {{ .NodeName }} - Description: {{ .Description }} - Start Time: {{ .StartTime }}"}"#;

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

    /// Between the end of a drain and the word that its machine may end.
    pub fn completion_delay(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.complete_lifecycle_action_delay_seconds).unwrap_or(0))
    }

    /// How long the pods of a node have to be gone.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.node_termination_grace_period.into())
    }

    /// How long a pod gets to stop at most; `None` leaves it its own.
    pub fn pod_grace(&self) -> Option<Duration> {
        let seconds = self.pod_termination_grace_period.or(self.grace_period)?;
        u64::try_from(seconds).ok().map(Duration::from_secs)
    }
}

const NO_METADATA: &str = "notices come from a queue, no process on the node asks its metadata";
const PROBES: &str = "see --health-probe-bind-address";

/// Flags of aws-node-termination-handler that change nothing here, with the reason; each is a variable, too.
pub(super) const WITHOUT_EFFECT: &[Flag] = &[
    ("aws-endpoint", Value, "see AWS_ENDPOINT_URL_SQS"),
    ("emit-kubernetes-events", Switch, "events are always written"),
    ("enable-imds-rebalance-monitoring", Switch, NO_METADATA),
    ("enable-probes-server", Switch, PROBES),
    ("enable-prometheus-server", Switch, "see --metrics-bind-address"),
    ("enable-rebalance-monitoring", Switch, "see --enable-rebalance-draining"),
    ("enable-sqs-termination-draining", Switch, "notices are read as soon as --queue-url names a queue"),
    ("instance-metadata-url", Value, NO_METADATA),
    ("json-logging", Switch, "see --zap-encoder=json"),
    ("log-format-version", Value, "see --zap-encoder"),
    ("metadata-tries", Value, NO_METADATA),
    ("metadata-url", Value, NO_METADATA),
    ("node-name", Value, NO_METADATA),
    ("probes-server-endpoint", Value, PROBES),
    ("probes-server-port", Value, PROBES),
    ("prometheus-server-port", Value, "see --metrics-bind-address"),
    ("uptime-from-file", Value, NO_METADATA),
    ("use-apiserver-cache", Switch, "pods are always watched"),
    ("use-provider-id", Switch, "nodes are always found by their provider id"),
];

/// Those of its flags whose variables have a meaning here, or are there in every pod.
pub(super) const FLAGS_WITHOUT_EFFECT: &[Flag] = &[
    ("aws-region", Value, "see the variable AWS_REGION"),
    ("kubernetes-service-host", Value, "see --kubeconfig"),
    ("kubernetes-service-port", Value, "see --kubeconfig"),
    ("pod-namespace", Value, "see --namespace"),
];

/// Variables of aws-node-termination-handler that no flag of its is called like, and of logicmonitor/k8s-asg-lifecycle-manager,
/// with what to set instead.
pub(super) const VARIABLES: &[(&str, &str)] = &[
    ("NAMESPACE", "see POD_NAMESPACE"),
    ("NODEMAN_AWS_REGION", "see AWS_REGION"),
    ("NODEMAN_AWS_SQS_QUEUE_URL", "see QUEUE_URL"),
    ("NODEMAN_CONSUMER_THREADS", "see WORKERS"),
    ("NODEMAN_DEBUG", "see --zap-log-level"),
    ("NODEMAN_DEFAULT_VISIBILITY_TIMEOUT_SEC", "a message that comes again while it is dealt with is known"),
    ("NODEMAN_ERROR_VISIBILITY_TIMEOUT_SEC", "a message that comes again while it is dealt with is known"),
    ("NODEMAN_QUEUE_WAIT_TIME_SEC", "the queue is asked with the longest wait that SQS has, 20 s"),
];

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// The flags alone.
    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        interruption: InterruptionArgs,
    }

    fn args(flags: &[&str]) -> InterruptionArgs {
        Flags::try_parse_from(["tandem"].iter().chain(flags)).unwrap().interruption
    }

    #[test]
    fn grace_periods_have_a_former_name() {
        let table: &[(&[&str], Option<u64>)] = &[
            (&[], None),
            (&["--grace-period=5"], Some(5)),
            (&["--grace-period=5", "--pod-termination-grace-period=-1"], None),
            (&["--grace-period=5", "--pod-termination-grace-period=7"], Some(7)),
        ];
        for (flags, seconds) in table {
            assert_eq!(args(flags).pod_grace(), seconds.map(Duration::from_secs), "{flags:?}");
        }
    }

    #[test]
    fn annotations_are_pairs() {
        let flag = "--kubernetes-events-extra-annotations=first=annotation,sample.annotation/number=two";
        let pairs = [("first", "annotation"), ("sample.annotation/number", "two")];
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(args(&[flag]).kubernetes_events_extra_annotations.0, pairs.into());
        for wrong in ["a", "a=b=c", "=b", "a=b,"] {
            assert!(annotations(wrong).is_err_and(|error| error.contains("is no annotation")), "{wrong}");
        }
    }

    #[test]
    fn the_tag_counts_as_soon_as_a_setting_names_it() {
        let tag = |key: &str, is_checked, of_groups| {
            Some(ManagedTag { key: key.to_owned(), is_checked, of_groups })
        };
        let table: &[(&[&str], Option<ManagedTag>)] = &[
            (&[], None),
            (&["--check-tag-before-draining"], tag(MANAGED_TAG, true, false)),
            (&["--check-tag-before-draining=false"], tag(MANAGED_TAG, false, false)),
            (&["--managed-tag=ours"], tag("ours", true, false)),
            (&["--managed-asg-tag=old"], tag("old", true, false)),
            (&["--managed-asg-tag=old", "--managed-tag=new"], tag("new", true, false)),
            (&["--check-asg-tag-before-draining=false"], tag(MANAGED_TAG, false, false)),
            (
                &["--check-asg-tag-before-draining=false", "--check-tag-before-draining=true"],
                tag(MANAGED_TAG, true, false),
            ),
            (&["--assume-asg-tag-propagation"], tag(MANAGED_TAG, true, false)),
            (&["--assume-asg-tag-propagation=false", "--managed-tag=ours"], tag("ours", true, true)),
        ];
        for (flags, wanted) in table {
            assert_eq!(args(flags).managed.tag(), *wanted, "{flags:?}");
        }
    }
}
