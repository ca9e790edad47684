//! Flags of the programs that Tandem stands in for which have no meaning here. They are taken, so that the arguments
//! of an installation may stay as they are, and each that is given is said once, with what to do instead.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, parser::ValueSource};

use super::nodes;

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

/// Variables of KEDA's environment.
const VARIABLES: &[(&str, &str)] = &[
    ("KEDA_HTTP_TLS_CIPHER_LIST", CIPHERS),
    ("KEDA_SERVICE_TLS_CIPHER_LIST", CIPHERS),
    ("KEDA_SCALEDOBJECT_CTRL_MAX_RECONCILES", "each object has a task of its own; none waits for another"),
    ("KEDA_SCALEDJOB_CTRL_MAX_RECONCILES", "each object has a task of its own; none waits for another"),
    ("KEDA_BOUND_SERVICE_ACCOUNT_TOKEN_EXPIRY", "boundServiceAccountToken is not supported"),
    ("RAW_METRICS_GRPC_PROTOCOL", "there is no stream of raw metrics"),
    ("RAW_METRICS_MODE", "there is no stream of raw metrics"),
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
    OF_KEDA.iter().chain(nodes::WITHOUT_EFFECT)
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
        for (name, why) in VARIABLES.iter().filter(|(name, _)| is_set(name)) {
            tracing::warn!("the variable {name} has no effect: {why}");
        }
    }
}

impl Args for WithoutEffect {
    fn augment_args(command: Command) -> Command {
        all().fold(command, |command, (name, takes, _)| {
            let arg = Arg::new(*name).long(*name).hide(true).action(ArgAction::Append);
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
