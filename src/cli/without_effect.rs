//! Flags of the programs that Tandem stands in for which have no meaning here. They are taken, so that the arguments
//! of an installation may stay as they are, and each that is given is said once, with what to do instead.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, parser::ValueSource};

use super::{interruption, nodes, pools};

/// One flag: its name, whether it is a switch (`--flag`, `--flag=false`) or takes a value, and why it does nothing.
pub(super) type Flag = (&'static str, Takes, &'static str);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Switch,
    Value,
}

use Takes::{Switch, Value};

const ONE_PROCESS: &str = "operator and metrics API are one process: there is no connection between them";
const SERVER_DECIDES: &str =
    "there is no client-side rate limit: the API server's priority and fairness decides";
const POOLS: &str = "connections are pooled by host, 32 idle ones for 90 s";
const LOGS: &str = "logs have one format an encoder; see --zap-log-level and --zap-encoder";
const OWN_TLS: &str = "certificates come from --cert-dir or are our own, for TLS 1.2 and 1.3";
const CIPHERS: &str = "rustls speaks its own short list, all of them strong";
const IN_CLUSTER: &str =
    "requests are authenticated and authorized by the API server that --kubeconfig names";
const NO_PROFILE: &str = "there is no profiling endpoint";
const NO_OTLP: &str = "metrics are served at --metrics-bind-address only";

/// Those of KEDA's operator, metrics adapter and webhooks. Flags with a meaning are [`super::run::RunArgs`].
const OF_KEDA: &[Flag] = &[
    // All three
    ("kube-api-qps", Value, SERVER_DECIDES),
    ("kube-api-burst", Value, SERVER_DECIDES),
    ("disable-compression", Switch, "answers of the API server come as it sends them"),
    ("profiling-bind-address", Value, NO_PROFILE),
    ("zap-devel", Switch, LOGS),
    ("zap-time-encoding", Value, LOGS),
    ("zap-stacktrace-level", Value, LOGS),
    // Operator
    ("enable-opentelemetry-metrics", Switch, NO_OTLP),
    (
        "enable-high-cardinality-metrics-labels",
        Switch,
        "durations of requests are by trigger type and status",
    ),
    ("metrics-service-bind-address", Value, ONE_PROCESS),
    ("operator-service-name", Value, ONE_PROCESS),
    ("k8s-cluster-name", Value, "CloudEvents, which carry it, are not sent by this version"),
    ("enable-webhook-patching", Switch, "a caBundle that names another Service is never touched"),
    ("enable-apiservice-patching", Switch, "a caBundle that names another Service is never touched"),
    ("filepath-auth-root-path", Value, "filePath of a ClusterTriggerAuthentication is not supported"),
    ("http-max-idle-conns", Value, POOLS),
    ("http-max-idle-conns-per-host", Value, POOLS),
    ("http-idle-conn-timeout", Value, POOLS),
    // Metrics adapter
    ("metrics-service-address", Value, ONE_PROCESS),
    ("metrics-service-grpc-authority", Value, ONE_PROCESS),
    ("port", Value, "the ports are --secure-port, --metrics-bind-address and --webhook-bind-address"),
    ("v", Value, LOGS),
    ("logtostderr", Switch, LOGS),
    ("alsologtostderr", Switch, LOGS),
    ("log-flush-frequency", Value, LOGS),
    ("logging-format", Value, LOGS),
    ("skip-headers", Switch, LOGS),
    ("vmodule", Value, LOGS),
    ("stderrthreshold", Value, LOGS),
    // The other flags of klog, which Cluster Autoscaler has, too
    ("add-dir-header", Switch, LOGS),
    ("log-backtrace-at", Value, LOGS),
    ("log-dir", Value, LOGS),
    ("log-file", Value, LOGS),
    ("log-file-max-size", Value, LOGS),
    ("log-json-info-buffer-size", Value, LOGS),
    ("log-json-split-stream", Switch, LOGS),
    ("log-text-info-buffer-size", Value, LOGS),
    ("log-text-split-stream", Switch, LOGS),
    ("one-output", Switch, LOGS),
    ("skip-log-headers", Switch, LOGS),
    ("tls-cert-file", Value, OWN_TLS),
    ("tls-private-key-file", Value, OWN_TLS),
    ("tls-min-version", Value, OWN_TLS),
    ("tls-cipher-suites", Value, OWN_TLS),
    ("client-ca-file", Value, IN_CLUSTER),
    ("authentication-kubeconfig", Value, IN_CLUSTER),
    ("authentication-skip-lookup", Switch, IN_CLUSTER),
    ("authentication-token-webhook-cache-ttl", Value, IN_CLUSTER),
    ("authentication-tolerate-lookup-failure", Switch, IN_CLUSTER),
    ("authorization-kubeconfig", Value, IN_CLUSTER),
    ("authorization-always-allow-paths", Value, IN_CLUSTER),
    ("authorization-webhook-cache-authorized-ttl", Value, IN_CLUSTER),
    ("authorization-webhook-cache-unauthorized-ttl", Value, IN_CLUSTER),
    ("requestheader-client-ca-file", Value, IN_CLUSTER),
    ("requestheader-allowed-names", Value, IN_CLUSTER),
    ("requestheader-extra-headers-prefix", Value, IN_CLUSTER),
    ("requestheader-group-headers", Value, IN_CLUSTER),
    ("requestheader-username-headers", Value, IN_CLUSTER),
    ("lister-kubeconfig", Value, IN_CLUSTER),
    ("audit-log-path", Value, "there is no audit log; the API server's has every read"),
    ("audit-policy-file", Value, "there is no audit log; the API server's has every read"),
    ("profiling", Switch, NO_PROFILE),
    ("contention-profiling", Switch, NO_PROFILE),
    // Webhooks
    ("cache-miss-to-direct-client", Switch, "a target that is not seen yet is a warning, not a refusal"),
];

/// Variables of KEDA's environment, and of Karpenter's what Cluster Autoscaler has as flags.
const VARIABLES: &[(&str, &str)] = &[
    ("KEDA_HTTP_TLS_CIPHER_LIST", CIPHERS),
    ("KEDA_SERVICE_TLS_CIPHER_LIST", CIPHERS),
    ("KEDA_SCALEDOBJECT_CTRL_MAX_RECONCILES", "each object has a task of its own; none waits for another"),
    ("KEDA_SCALEDJOB_CTRL_MAX_RECONCILES", "each object has a task of its own; none waits for another"),
    ("KEDA_BOUND_SERVICE_ACCOUNT_TOKEN_EXPIRY", "boundServiceAccountToken is not supported"),
    ("RAW_METRICS_GRPC_PROTOCOL", "there is no stream of raw metrics"),
    ("RAW_METRICS_MODE", "there is no stream of raw metrics"),
    ("KUBE_CLIENT_QPS", SERVER_DECIDES),
    ("KUBE_CLIENT_BURST", SERVER_DECIDES),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", NO_OTLP),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", NO_OTLP),
    ("OPERATOR_NAME", "the reporter of events is keda-operator, whatever the Deployment is called"),
    (
        "KEDA_CHECK_UNEXPECTED_SCALERS_PARAMS",
        "a parameter that no trigger takes is always a warning, at admission and of tandem check",
    ),
    ("SPANNER_EMULATOR_HOST", "there is no trigger type gcp-spanner in this version"),
];

/// All of them.
fn all() -> impl Iterator<Item = &'static Flag> {
    let flags = OF_KEDA.iter().chain(nodes::WITHOUT_EFFECT).chain(interruption::FLAGS_WITHOUT_EFFECT);
    flags.chain(with_variables())
}

/// Those of programs that name a variable as its flag, in capitals.
fn with_variables() -> impl Iterator<Item = &'static Flag> {
    pools::WITHOUT_EFFECT.iter().chain(interruption::WITHOUT_EFFECT)
}

/// Variables without effect, each with the reason.
fn variables() -> impl Iterator<Item = (String, &'static str)> {
    let own = VARIABLES.iter().chain(interruption::VARIABLES).map(|(name, why)| ((*name).to_owned(), *why));
    own.chain(with_variables().map(|(flag, _, why)| (flag.to_uppercase().replace('-', "_"), *why)))
}

/// The flags that were given.
#[derive(Debug, Clone, Default)]
pub struct WithoutEffect(Vec<&'static Flag>);

impl WithoutEffect {
    /// Says of each flag and variable why it does nothing.
    pub fn warn(&self) {
        for (name, _, why) in &self.0 {
            tracing::warn!("--{name} has no effect: {why}");
        }
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        for (name, why) in variables().filter(|(name, _)| is_set(name)) {
            tracing::warn!("the variable {name} has no effect: {why}");
        }
    }
}

impl Args for WithoutEffect {
    fn augment_args(command: Command) -> Command {
        all().fold(command, |command, (name, takes, _)| {
            let arg = Arg::new(*name).long(*name).hide(true).action(ArgAction::Append);
            // Go's klog has it as -v=4, too.
            let arg = if *name == "v" { arg.short('v') } else { arg };
            command.arg(match takes {
                Value => arg.num_args(1).allow_hyphen_values(true),
                // As Go's flags: `--flag false` is a flag and an argument.
                Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for WithoutEffect {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |flag: &&Flag| matches.value_source(flag.0) == Some(ValueSource::CommandLine);
        Ok(Self(all().filter(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use crate::cli::run::RunArgs;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        run: RunArgs,
    }

    fn parse(arguments: &[&str]) -> RunArgs {
        Program::try_parse_from(["tandem"].iter().chain(arguments)).unwrap().run
    }

    #[test]
    fn the_arguments_of_kedas_charts_are_taken() {
        for arguments in [
            &[
                "--leader-elect",
                "--disable-compression=true",
                "--zap-log-level=info",
                "--zap-encoder=console",
                "--zap-time-encoding=rfc3339",
                "--enable-webhook-patching=true",
                "--cert-dir=/certs",
                "--enable-cert-rotation=true",
                "--cert-secret-name=kedaorg-certs",
                "--operator-service-name=keda-operator",
                "--metrics-server-service-name=keda-operator-metrics-apiserver",
                "--webhooks-service-name=keda-admission-webhooks",
                "--k8s-cluster-name=kubernetes-default",
                "--k8s-cluster-domain=cluster.local",
                "--enable-prometheus-metrics=false",
                "--ca-dir=/custom/ca",
                "--ca-dir=/more",
            ][..],
            &[
                "--port=8080",
                "--secure-port=6443",
                "--logtostderr=true",
                "--stderrthreshold=ERROR",
                "--metrics-service-address=keda-operator.keda.svc.cluster.local:9666",
                "--client-ca-file=/certs/ca.crt",
                "--tls-cert-file=/certs/tls.crt",
                "--tls-private-key-file=/certs/tls.key",
                "--cert-dir=/certs",
                "--v=0",
            ],
            &[
                "--health-probe-bind-address=:8081",
                "--metrics-bind-address=:8080",
                "--cache-miss-to-direct-client",
            ],
        ] {
            parse(arguments);
        }
    }

    /// Every flag that KEDA's three programs define themselves, and the variables of its environment.
    #[test]
    fn every_flag_and_variable_of_keda_is_known() {
        let command = Program::command();
        let flags = "enable-prometheus-metrics enable-opentelemetry-metrics enable-high-cardinality-metrics-labels \
                     metrics-bind-address health-probe-bind-address metrics-service-bind-address \
                     profiling-bind-address leader-elect leader-election-id kube-api-qps kube-api-burst \
                     disable-compression cert-secret-name cert-dir operator-service-name metrics-server-service-name \
                     webhooks-service-name k8s-cluster-name k8s-cluster-domain enable-cert-rotation \
                     validating-webhook-name ca-dir enable-webhook-patching enable-apiservice-patching \
                     filepath-auth-root-path http-max-idle-conns http-max-idle-conns-per-host http-idle-conn-timeout \
                     zap-log-level zap-encoder zap-devel zap-time-encoding zap-stacktrace-level port secure-port \
                     metrics-service-address metrics-service-grpc-authority v logtostderr stderrthreshold \
                     cache-miss-to-direct-client";
        for flag in flags.split_whitespace() {
            let known = command.get_arguments().any(|argument| argument.get_long() == Some(flag));
            assert!(known, "--{flag}");
        }
        let variables = "WATCH_NAMESPACE WATCH_LABEL_SELECTOR WATCH_LABEL_SELECTOR_FOR_TRIGGERAUTH POD_NAME \
                         POD_NAMESPACE OPERATOR_NAME KEDA_HTTP_DEFAULT_TIMEOUT KEDA_HTTP_DISABLE_KEEP_ALIVE \
                         KEDA_HTTP_MIN_TLS_VERSION KEDA_HTTP_TLS_CIPHER_LIST KEDA_SERVICE_MIN_TLS_VERSION \
                         KEDA_SERVICE_TLS_CIPHER_LIST KEDA_SCALEDOBJECT_CTRL_MAX_RECONCILES \
                         KEDA_SCALEDJOB_CTRL_MAX_RECONCILES KEDA_OPERATOR_LEADER_ELECTION_LEASE_DURATION \
                         KEDA_OPERATOR_LEADER_ELECTION_RENEW_DEADLINE KEDA_OPERATOR_LEADER_ELECTION_RETRY_PERIOD \
                         KEDA_RESTRICT_SECRET_ACCESS KEDA_CLUSTER_OBJECT_NAMESPACE \
                         KEDA_BOUND_SERVICE_ACCOUNT_TOKEN_EXPIRY KEDA_CHECK_UNEXPECTED_SCALERS_PARAMS \
                         RAW_METRICS_GRPC_PROTOCOL RAW_METRICS_MODE OTEL_EXPORTER_OTLP_ENDPOINT \
                         OTEL_EXPORTER_OTLP_PROTOCOL SPANNER_EMULATOR_HOST";
        for variable in variables.split_whitespace() {
            let read =
                command.get_arguments().any(|argument| argument.get_env().is_some_and(|it| it == variable));
            let said = super::VARIABLES.iter().any(|(name, _)| *name == variable);
            assert!(read != said, "{variable}: read {read}, said to have no effect {said}");
        }
    }

    /// Every flag of aws-node-termination-handler, and the variables that are not called like one of them.
    #[test]
    fn every_flag_and_variable_of_the_handler_is_known() {
        let flags = "aws-endpoint aws-region check-asg-tag-before-draining check-tag-before-draining \
                     complete-lifecycle-action-delay-seconds cordon-only delete-local-data \
                     delete-sqs-msg-if-node-not-found dry-run emit-kubernetes-events enable-asg-lifecycle-draining \
                     enable-out-of-service-taint enable-probes-server enable-prometheus-server \
                     enable-rebalance-draining enable-rebalance-monitoring enable-scheduled-event-draining \
                     enable-spot-interruption-draining enable-sqs-termination-draining exclude-from-load-balancers \
                     grace-period heartbeat-interval heartbeat-until ignore-daemon-sets json-logging \
                     kubernetes-events-extra-annotations kubernetes-service-host kubernetes-service-port \
                     log-format-version log-level managed-asg-tag managed-tag metadata-tries metadata-url node-name \
                     node-termination-grace-period pod-name pod-namespace pod-termination-grace-period \
                     probes-server-endpoint probes-server-port prometheus-server-port queue-url taint-effect \
                     taint-node uptime-from-file use-apiserver-cache use-provider-id webhook-headers webhook-proxy \
                     webhook-template webhook-template-file webhook-url workers";
        let command = Program::command();
        for flag in flags.split_whitespace() {
            let is_called = |arg: &clap::Arg| {
                arg.get_long() == Some(flag)
                    || arg.get_all_aliases().into_iter().flatten().any(|it| it == flag)
            };
            let arg = command.get_arguments().find(|arg| is_called(arg));
            let arg = arg.unwrap_or_else(|| panic!("--{flag} is not taken"));
            let variable = flag.to_uppercase().replace('-', "_");
            let has_one = arg.get_env().is_some_and(|env| env.to_string_lossy() == variable);
            let is_other = super::interruption::FLAGS_WITHOUT_EFFECT.iter().any(|(other, ..)| *other == flag);
            let is_told = super::variables().any(|(other, _)| other == variable);
            assert!(has_one || is_other || is_told, "the variable {variable} is neither read nor told");
        }
        for variable in ["NAMESPACE", "INSTANCE_METADATA_URL"] {
            assert!(super::variables().any(|(other, _)| other == variable), "{variable} is not told");
        }
    }

    /// Every flag of Cluster Autoscaler 1.37, and those that it had before, each with a value that it takes.
    const OF_CLUSTER_AUTOSCALER: &str = include_str!("cluster_autoscaler.flags");

    #[test]
    fn every_flag_of_cluster_autoscaler_is_taken() {
        let flags: Vec<_> = OF_CLUSTER_AUTOSCALER.lines().collect();
        for flag in &flags {
            assert!(Program::try_parse_from(["tandem", *flag]).is_ok(), "{flag}");
        }
        parse(&flags);
    }

    #[test]
    fn each_variable_without_effect_is_said_once_and_has_no_effect() {
        use clap::CommandFactory;
        let names: Vec<_> = super::variables().map(|(name, _)| name).collect();
        for (at, name) in names.iter().enumerate() {
            assert!(!names[..at].contains(name), "{name} twice");
        }
        for arg in Program::command().get_arguments() {
            let read = arg.get_env().map(|name| name.to_string_lossy().into_owned());
            assert!(read.is_none_or(|read| !names.contains(&read)), "{} is read", arg.get_id());
        }
        for expected in ["METRICS_PORT", "USE_APISERVER_CACHE", "NODEMAN_AWS_SQS_QUEUE_URL"] {
            assert!(names.iter().any(|name| name == expected), "{expected}");
        }
    }

    /// Karpenter's (core 1.14 and AWS) and aws-node-termination-handler's (queue processor, 1.25).
    const VARIABLES_OF_PEERS: &[&str] = &[
        // Karpenter
        "METRICS_PORT",
        "HEALTH_PROBE_PORT",
        "KUBE_CLIENT_QPS",
        "KUBE_CLIENT_BURST",
        "ENABLE_PROFILING",
        "DISABLE_LEADER_ELECTION",
        "LEADER_ELECTION_NAME",
        "LEADER_ELECTION_NAMESPACE",
        "DISABLE_CONTROLLER_WARMUP",
        "DISABLE_CLUSTER_STATE_OBSERVABILITY",
        "MEMORY_LIMIT",
        "CPU_REQUESTS",
        "LOG_LEVEL",
        "LOG_OUTPUT_PATHS",
        "LOG_ERROR_OUTPUT_PATHS",
        "BATCH_MAX_DURATION",
        "BATCH_IDLE_DURATION",
        "PREFERENCE_POLICY",
        "MIN_VALUES_POLICY",
        "IGNORE_DRA_REQUESTS",
        "SCHEDULER_CONFIG",
        "FEATURE_GATES",
        "CLUSTER_NAME",
        "CLUSTER_ENDPOINT",
        "CLUSTER_CA_BUNDLE",
        "ISOLATED_VPC",
        "EKS_CONTROL_PLANE",
        "VM_MEMORY_OVERHEAD_PERCENT",
        "INTERRUPTION_QUEUE",
        "RESERVED_ENIS",
        "DISABLE_DRY_RUN",
        "ENABLE_ZONAL_SHIFT",
        "AMI_REFRESH_INTERVAL",
        "SUBNET_REFRESH_INTERVAL",
        "AWS_FEATURE_GATES",
        // aws-node-termination-handler
        "ENABLE_SPOT_INTERRUPTION_DRAINING",
        "ENABLE_SCHEDULED_EVENT_DRAINING",
        "ENABLE_REBALANCE_MONITORING",
        "ENABLE_REBALANCE_DRAINING",
        "ENABLE_ASG_LIFECYCLE_DRAINING",
        "ENABLE_SQS_TERMINATION_DRAINING",
        "WORKERS",
        "QUEUE_URL",
        "CHECK_TAG_BEFORE_DRAINING",
        "MANAGED_TAG",
        "USE_PROVIDER_ID",
        "TAINT_NODE",
        "TAINT_EFFECT",
        "EXCLUDE_FROM_LOAD_BALANCERS",
        "CORDON_ONLY",
        "ENABLE_OUT_OF_SERVICE_TAINT",
        "HEARTBEAT_INTERVAL",
        "HEARTBEAT_UNTIL",
        "COMPLETE_LIFECYCLE_ACTION_DELAY_SECONDS",
        "DELETE_SQS_MSG_IF_NODE_NOT_FOUND",
        "POD_TERMINATION_GRACE_PERIOD",
        "NODE_TERMINATION_GRACE_PERIOD",
        "DELETE_LOCAL_DATA",
        "IGNORE_DAEMON_SETS",
        "JSON_LOGGING",
        "ENABLE_PROMETHEUS_SERVER",
        "PROMETHEUS_SERVER_PORT",
        "ENABLE_PROBES_SERVER",
        "PROBES_SERVER_PORT",
        "PROBES_SERVER_ENDPOINT",
        "EMIT_KUBERNETES_EVENTS",
        "KUBERNETES_EVENTS_EXTRA_ANNOTATIONS",
        "DRY_RUN",
        "WEBHOOK_URL",
        "WEBHOOK_PROXY",
        "WEBHOOK_HEADERS",
        "WEBHOOK_TEMPLATE",
        "WEBHOOK_TEMPLATE_FILE",
        "METADATA_TRIES",
        "INSTANCE_METADATA_URL",
        "NODE_NAME",
        "GRACE_PERIOD",
        "USE_APISERVER_CACHE",
        "SQS_MSG_VISIBILITY_TIMEOUT_SEC",
    ];

    #[test]
    fn every_variable_of_peers_is_read_or_said_to_have_no_effect() {
        use clap::CommandFactory;
        let command = Program::command();
        let read = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str().map(str::to_owned));
        let known: Vec<_> = read.chain(super::variables().map(|(name, _)| name)).collect();
        let missing: Vec<_> =
            VARIABLES_OF_PEERS.iter().filter(|name| !known.iter().any(|it| it == *name)).collect();
        assert_eq!(missing, [&""; 0]);
    }

    #[test]
    fn what_was_given_is_known() {
        let given = |arguments: &[&str]| -> Vec<&str> {
            parse(arguments).without_effect.0.iter().map(|(name, ..)| *name).collect()
        };
        assert_eq!(given(&["--leader-elect"]), [""; 0]);
        assert_eq!(
            given(&["--v", "-1", "--kube-api-qps=20", "--zap-devel"]),
            ["kube-api-qps", "zap-devel", "v"]
        );
    }
}
