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
    ("enable-opentelemetry-metrics", Switch, "metrics are served at --metrics-bind-address only"),
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
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "metrics are served at --metrics-bind-address only"),
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
        for (name, why) in VARIABLES.iter().filter(|(name, _)| std::env::var_os(name).is_some()) {
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
    use clap::Parser;

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
