//! `tandem run`.

use std::{path::PathBuf, process::ExitCode};

use clap::{ArgAction, Args, builder::BoolishValueParser};
use http::HeaderValue;
use scalers::TlsVersion;

use super::{
    address::BindAddress, election::ElectionArgs, interruption::InterruptionArgs, nodes::NodeArgs,
    pools::PoolArgs, without_effect::WithoutEffect,
};
use crate::{
    controllers::nodes::interruption::Queue,
    telemetry::logs::{self, Encoder},
};

/// Flags and environment of `tandem run`: KEDA's names and defaults where the meaning is the same.
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
pub struct RunArgs {
    /// Kubeconfig file; without it KUBECONFIG, ~/.kube/config, or the pod's service account.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Namespaces to watch, separated by commas; empty means all.
    #[arg(long, env = "WATCH_NAMESPACE", default_value = "", value_delimiter = ',')]
    pub watch_namespace: Vec<String>,
    /// Only ScaledObjects and ScaledJobs with these labels.
    #[arg(long, env = "WATCH_LABEL_SELECTOR")]
    pub watch_label_selector: Option<String>,
    /// Only TriggerAuthentications and ClusterTriggerAuthentications with these labels.
    #[arg(long, env = "WATCH_LABEL_SELECTOR_FOR_TRIGGERAUTH")]
    pub watch_label_selector_for_triggerauth: Option<String>,
    /// Namespace of this process: its Lease, its certificates, its Services.
    #[arg(long, env = "POD_NAMESPACE", default_value = "tandem")]
    pub namespace: String,
    /// Name of this replica, unique among the replicas.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// Namespace of the Secrets that ClusterTriggerAuthentications name; without it this process's namespace.
    #[arg(long, env = "KEDA_CLUSTER_OBJECT_NAMESPACE")]
    pub cluster_object_namespace: Option<String>,

    /// Decide, write nothing to the cluster, and record what would have been done, beside KEDA, Cluster Autoscaler or
    /// Karpenter. `tandem report` reads the record.
    #[arg(long, env = "DRY_RUN", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub dry_run: bool,
    /// Record of the dry run; each run adds to it.
    #[arg(long, default_value = "tandem-dry-run.jsonl")]
    pub dry_run_record: PathBuf,

    /// Address of the metrics API (external.metrics.k8s.io).
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: std::net::IpAddr,
    /// Port of the metrics API.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// Address of the admission webhooks; 0 turns them off.
    #[arg(long, default_value = ":9443")]
    pub webhook_bind_address: BindAddress,
    /// Address of /metrics; 0 turns it off.
    #[arg(long, default_value = ":8080")]
    pub metrics_bind_address: BindAddress,
    /// Serve /metrics at all.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub enable_prometheus_metrics: bool,
    /// Address of /healthz and /readyz; 0 turns them off.
    #[arg(long, default_value = ":8081")]
    pub health_probe_bind_address: BindAddress,
    /// Service through which kube-apiserver reaches the metrics API.
    #[arg(long, default_value = "tandem")]
    pub metrics_server_service_name: String,
    /// Service through which kube-apiserver reaches the webhooks.
    #[arg(long, default_value = "tandem-webhooks")]
    pub webhooks_service_name: String,
    /// DNS domain of the cluster.
    #[arg(long, default_value = "cluster.local")]
    pub k8s_cluster_domain: String,
    /// Secret that holds the certificates that Tandem makes and rotates.
    #[arg(long, default_value = "kedaorg-certs")]
    pub cert_secret_name: String,
    /// Folder with tls.crt, tls.key and ca.crt to serve with, instead of certificates of our own making.
    #[arg(long)]
    pub cert_dir: Option<PathBuf>,
    /// Make and rotate the certificates whatever --cert-dir says: in KEDA's installation it names what the operator made.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub enable_cert_rotation: bool,
    /// Folders with PEM certificates of authorities that sign the certificates of sources, beside the system's.
    #[arg(long, default_value = "/custom/ca")]
    pub ca_dir: Vec<PathBuf>,
    /// Read Secrets of our own namespace only, whatever TriggerAuthentications of others name.
    #[arg(long, env = "KEDA_RESTRICT_SECRET_ACCESS", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub restrict_secret_access: bool,
    /// `ValidatingWebhookConfiguration` whose caBundle is kept right.
    #[arg(long, default_value = "keda-admission")]
    pub validating_webhook_name: String,
    /// Another external metrics adapter (an https URL) that answers metrics which are not ours, so that its HPAs keep
    /// working beside ours.
    #[arg(long)]
    pub external_metrics_upstream: Option<String>,
    /// CA certificate file of that adapter; without it the system's roots.
    #[arg(long, requires = "external_metrics_upstream")]
    pub external_metrics_upstream_ca: Option<PathBuf>,

    /// Take any certificate of that adapter. The token of our service account then goes to whoever answers.
    #[arg(long, requires = "external_metrics_upstream")]
    pub external_metrics_upstream_insecure: bool,

    /// Write only while holding the Lease; needed as soon as there is more than one replica.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub leader_elect: bool,
    /// How the election goes.
    #[command(flatten)]
    pub election: ElectionArgs,
    /// `User-Agent` of requests to the API server.
    #[arg(long)]
    pub user_agent: Option<HeaderValue>,

    /// Deadline of one request to a source, in milliseconds.
    #[arg(long, env = "KEDA_HTTP_DEFAULT_TIMEOUT", default_value_t = 3000)]
    pub http_default_timeout: u64,
    /// The oldest TLS that sources are spoken to with: TLS12 or TLS13.
    #[arg(long, env = "KEDA_HTTP_MIN_TLS_VERSION", default_value = "TLS12")]
    pub http_min_tls_version: TlsVersion,
    /// A connection a request to a source.
    #[arg(long, env = "KEDA_HTTP_DISABLE_KEEP_ALIVE", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub http_disable_keep_alive: bool,
    /// The oldest TLS that the metrics API and the webhooks speak: TLS12 or TLS13.
    #[arg(long, env = "KEDA_SERVICE_MIN_TLS_VERSION", default_value = "TLS12")]
    pub service_min_tls_version: TlsVersion,

    /// debug, info, error, a number, or a tracing filter.
    #[arg(long, alias = "log-level", env = "LOG_LEVEL", default_value = "info")]
    pub zap_log_level: String,
    /// Log format.
    #[arg(long, value_enum, default_value_t = Encoder::Console)]
    pub zap_encoder: Encoder,

    /// Node groups.
    #[command(flatten)]
    pub nodes: NodeArgs,
    /// Node pools.
    #[command(flatten)]
    pub pools: PoolArgs,
    /// Interruption notices.
    #[command(flatten)]
    pub interruption: InterruptionArgs,
    /// Flags without a meaning here.
    #[command(flatten)]
    pub without_effect: WithoutEffect,
}

/// Threads of the runtime where pods alone are scaled, nodes not. To poll 10,000 objects and to serve their HPAs takes an
/// eighth of a core; a second thread would only be woken to find that there is nothing left to do.
const THREADS_FOR_PODS: usize = 1;

impl RunArgs {
    /// Whether this replica takes part in the election; a dry run is nobody's rival.
    pub fn takes_part(&self) -> bool {
        self.leader_elect && !self.dry_run
    }

    /// The namespaces to watch; empty means all. Templates that quote twice hand over `""`, which KEDA reads as all.
    pub fn watched_namespaces(&self) -> Vec<String> {
        let names = self.watch_namespace.iter().map(|name| name.trim().trim_matches('"'));
        names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    /// The queue of notices that machines are taken away, if one is read.
    pub fn notices(&self) -> Option<Queue> {
        Queue::new(&self.interruption.queue_url).or_else(|| Queue::new(&self.pools.interruption_queue))
    }

    /// Whether nodes are scaled, in groups or pools.
    pub fn scales_nodes(&self) -> bool {
        self.nodes.provider().is_some() || self.pools.provider().is_some()
    }

    fn looks_after_nodes(&self) -> bool {
        self.scales_nodes() || self.notices().is_some()
    }
}

/// Runs until SIGTERM or SIGINT.
pub fn run(args: RunArgs) -> ExitCode {
    logs::install(&args.zap_log_level, args.zap_encoder);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if !args.looks_after_nodes() {
        runtime.worker_threads(THREADS_FOR_PODS);
    }
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(crate::operator::run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "tandem stops");
            ExitCode::FAILURE
        }
    }
}
