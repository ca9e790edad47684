//! A real control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, and kwok for the kubelets.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::certificates::{self, Authority, Identity};
use crate::kubectl::Kubectl;
use crate::network::{Network, free_address};
use crate::process::Process;
use crate::{Components, wait};

/// kube-apiserver is ready after 4 s on an idle machine with two cores; tests share the machine with a build.
const READY_TIMEOUT: Duration = Duration::from_secs(90);

/// Nodes that kwok plays. Two, so that the replicas of a Deployment may spread.
const NODES: [&str; 2] = ["node-0", "node-1"];

/// Pod addresses, within the 10.0.0.0/8 that [`Network::Namespace`] makes local: room for a million.
const POD_RANGE: &str = "10.32.0.1/12";

/// What kwok gives as the address of every node. Nothing listens there.
const NODE_ADDRESS: &str = "10.31.0.1";

/// How long the tokens that [`ControlPlane::kubeconfig_of`] asks for are valid, in seconds.
const TOKEN_SECONDS: i64 = 24 * 3600;

/// What may differ from one control plane to the next.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Where Services and pods are.
    pub network: Network,
    /// How often each HPA is evaluated; users have 15 s.
    pub hpa_sync_period: Duration,
    /// kube-controller-manager's limit of requests a second to the API server (20 by default); a benchmark with
    /// 1,000 HPAs needs more.
    pub controller_qps: u32,
    /// `--feature-gates` of all components; empty for what Kubernetes has by default.
    pub feature_gates: &'static str,
    /// `--runtime-config` of kube-apiserver: APIs that are off by default; empty for none.
    pub runtime_config: &'static str,
    /// A `KubeSchedulerConfiguration` as JSON, without connection and election; empty for what kube-scheduler has by default.
    pub scheduler_configuration: &'static str,
    /// Further flags of kube-controller-manager.
    pub controller_flags: &'static [&'static str],
    /// The labels of the nodes that kwok plays; empty for all nodes.
    pub played_nodes: &'static str,
}

impl Options {
    /// What users have.
    pub const fn new(network: Network) -> Self {
        Self {
            network,
            hpa_sync_period: Duration::from_secs(15),
            controller_qps: 20,
            feature_gates: "",
            runtime_config: "",
            scheduler_configuration: "",
            controller_flags: &[],
            played_nodes: "",
        }
    }
}

/// A running control plane. Dropping it stops every process and removes its folder.
pub struct ControlPlane {
    api_server: Mutex<Option<Process>>,
    others: Vec<Process>,
    components: Components,
    options: Options,
    address: SocketAddr,
    etcd_address: SocketAddr,
    client: Client,
    certificates: Certificates,
    // The last field: it is removed when nothing writes into it any more.
    folder: TempDir,
}

struct Certificates {
    cluster: Authority,
    front_proxy: Authority,
    server: Identity,
    token_signer: Identity,
    front_proxy_client: Identity,
}

impl ControlPlane {
    /// Starts all of it and returns when a pod could be scheduled; takes about 6 s on two idle cores.
    pub async fn start(components: &Components, options: Options) -> Result<Self> {
        // kube and reqwest take the process-wide provider; a second call changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let started = Instant::now();
        let folder = tempfile::Builder::new().prefix("tandem-").tempdir()?;
        let address = free_address()?;
        let certificates = Certificates::new(folder.path())?;
        let admin = certificates.cluster.client("admin", "kubernetes-admin", &["system:masters"])?;
        write_kubeconfig(folder.path(), "admin", address, &certificates.cluster, &certificate_user(&admin))?;
        let client = client(&folder.path().join("admin.kubeconfig")).await?;

        let (etcd, etcd_address) = start_etcd(components, folder.path()).await?;
        let mut control_plane = Self {
            api_server: Mutex::new(None),
            others: vec![etcd],
            components: components.clone(),
            options,
            address,
            etcd_address,
            client,
            certificates,
            folder,
        };
        control_plane.start_api_server().await?;
        let controllers = control_plane.start_controllers().await?;
        control_plane.others.extend(controllers);
        control_plane.add_nodes().await?;
        eprintln!("control plane ready after {:.1} s", started.elapsed().as_secs_f64());
        Ok(control_plane)
    }

    /// A client with every right.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Where Services and pods are.
    pub fn network(&self) -> Network {
        self.options.network
    }

    /// The programs it runs.
    pub fn components(&self) -> &Components {
        &self.components
    }

    /// A folder that lives as long as the control plane.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the logs of its processes are.
    pub fn logs(&self) -> PathBuf {
        self.folder.path().join("logs")
    }

    /// A kubeconfig with every right.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("admin.kubeconfig")
    }

    /// The authority that signs client certificates of users.
    pub fn client_authority(&self) -> &Authority {
        &self.certificates.cluster
    }

    /// The authority that signs the aggregator's client certificate (`requestheader-client-ca-file`).
    pub fn front_proxy_authority(&self) -> &Authority {
        &self.certificates.front_proxy
    }

    /// The aggregator's own client certificate.
    pub fn front_proxy_client(&self) -> &Identity {
        &self.certificates.front_proxy_client
    }

    /// A kubeconfig with the rights of a `ServiceAccount`, through a token as a pod has it.
    pub async fn kubeconfig_of(&self, namespace: &str, service_account: &str) -> Result<PathBuf> {
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                expiration_seconds: Some(TOKEN_SECONDS),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let answer = accounts
            .create_token_request(service_account, &PostParams::default(), &request)
            .await
            .with_context(|| format!("no token for ServiceAccount {namespace}/{service_account}"))?;
        let token = answer.status.context("TokenRequest without status")?.token;
        let name = format!("{namespace}-{service_account}");
        let user = json!({ "token": token });
        write_kubeconfig(self.folder.path(), &name, self.address, &self.certificates.cluster, &user)
    }

    /// A kubectl with every right.
    pub fn kubectl(&self) -> Kubectl {
        let program = self.components.kubectl.clone();
        Kubectl { program, kubeconfig: Some(self.kubeconfig()), context: None }
    }

    /// Ends kube-apiserver as a crash would and returns when its port is closed.
    pub async fn kill_api_server(&self) -> Result<()> {
        let Some(process) = self.api_server.lock().await.take() else {
            bail!("kube-apiserver is not running")
        };
        process.kill()?;
        Ok(())
    }

    /// Starts kube-apiserver and waits until it is ready.
    pub async fn start_api_server(&self) -> Result<()> {
        let log = self.logs();
        let program = &self.components.kube_apiserver;
        let mut process =
            Process::start("kube-apiserver", &log, program, self.api_server_arguments(), Vec::new()).await?;
        process
            .wait_until_ready(READY_TIMEOUT, || async {
                let request = http_get("/readyz");
                self.client.request_text(request).await?;
                Ok(())
            })
            .await?;
        *self.api_server.lock().await = Some(process);
        Ok(())
    }

    fn api_server_arguments(&self) -> Vec<String> {
        let certificates = &self.certificates;
        let file = |path: PathBuf| path.display().to_string();
        let flags = [
            ("etcd-servers", format!("http://{}", self.etcd_address)),
            ("bind-address", self.address.ip().to_string()),
            ("secure-port", self.address.port().to_string()),
            // Never dialled: it only has to be there, on a machine without a default route too.
            ("advertise-address", "10.255.0.1".into()),
            ("service-cluster-ip-range", self.options.network.service_range().into()),
            ("endpoint-reconciler-type", "none".into()),
            ("authorization-mode", "Node,RBAC".into()),
            ("tls-cert-file", file(certificates.server.certificate_file.clone())),
            ("tls-private-key-file", file(certificates.server.key_file.clone())),
            ("client-ca-file", file(certificates.cluster.certificate_file())),
            ("service-account-issuer", "https://kubernetes.default.svc".into()),
            ("service-account-key-file", file(certificates.token_signer.certificate_file.clone())),
            ("service-account-signing-key-file", file(certificates.token_signer.key_file.clone())),
            ("requestheader-client-ca-file", file(certificates.front_proxy.certificate_file())),
            ("requestheader-allowed-names", "front-proxy-client".into()),
            ("requestheader-username-headers", "X-Remote-User".into()),
            ("requestheader-group-headers", "X-Remote-Group".into()),
            ("requestheader-extra-headers-prefix", "X-Remote-Extra-".into()),
            ("proxy-client-cert-file", file(certificates.front_proxy_client.certificate_file.clone())),
            ("proxy-client-key-file", file(certificates.front_proxy_client.key_file.clone())),
        ];
        let mut arguments = arguments(flags);
        arguments.extend(self.gates());
        let runtime_config = self.options.runtime_config;
        arguments.extend((!runtime_config.is_empty()).then(|| format!("--runtime-config={runtime_config}")));
        arguments
    }

    /// The flag of feature gates, if any are set.
    fn gates(&self) -> Option<String> {
        let gates = self.options.feature_gates;
        (!gates.is_empty()).then(|| format!("--feature-gates={gates}"))
    }

    /// The scheduler's arguments. What a configuration has, flags do not say once more.
    fn scheduler(&self, kubeconfig: &str) -> Result<Vec<String>> {
        let mut scheduler = arguments([("leader-elect", "false".into()), ("secure-port", "0".into())]);
        scheduler.extend(self.gates());
        if self.options.scheduler_configuration.is_empty() {
            scheduler.push(format!("--kubeconfig={kubeconfig}"));
            return Ok(scheduler);
        }
        let mut configuration: Value = serde_json::from_str(self.options.scheduler_configuration)?;
        configuration["clientConnection"] = json!({ "kubeconfig": kubeconfig });
        let file = self.folder.path().join("scheduler.json");
        fs::write(&file, configuration.to_string())?;
        scheduler.push(format!("--config={}", file.display()));
        Ok(scheduler)
    }

    async fn start_controllers(&self) -> Result<Vec<Process>> {
        let kubeconfig = |name: &str, user: &str| -> Result<String> {
            let identity = self.certificates.cluster.client(name, user, &[])?;
            let user = certificate_user(&identity);
            let file =
                write_kubeconfig(self.folder.path(), name, self.address, &self.certificates.cluster, &user)?;
            Ok(file.display().to_string())
        };
        let cluster = &self.certificates.cluster;
        let mut controller_manager = arguments([
            ("kubeconfig", kubeconfig("kube-controller-manager", "system:kube-controller-manager")?),
            ("leader-elect", "false".into()),
            ("secure-port", "0".into()),
            ("use-service-account-credentials", "true".into()),
            (
                "service-account-private-key-file",
                self.certificates.token_signer.key_file.display().to_string(),
            ),
            ("root-ca-file", cluster.certificate_file().display().to_string()),
            ("cluster-signing-cert-file", cluster.certificate_file().display().to_string()),
            ("cluster-signing-key-file", cluster.key_file().display().to_string()),
            (
                "horizontal-pod-autoscaler-sync-period",
                format!("{}ms", self.options.hpa_sync_period.as_millis()),
            ),
            ("kube-api-qps", self.options.controller_qps.to_string()),
            ("kube-api-burst", (self.options.controller_qps * 3 / 2).to_string()),
        ]);
        controller_manager.extend(self.options.controller_flags.iter().map(|flag| (*flag).to_owned()));
        controller_manager.extend(self.gates());
        let scheduler = self.scheduler(&kubeconfig("kube-scheduler", "system:kube-scheduler")?)?;
        let stages = self.folder.path().join("stages.yaml");
        fs::write(&stages, include_str!("../../control-plane/stages.yaml"))?;
        let kwok = arguments([
            ("kubeconfig", self.kubeconfig().display().to_string()),
            ("config", stages.display().to_string()),
            ("manage-all-nodes", self.options.played_nodes.is_empty().to_string()),
            ("manage-nodes-with-label-selector", self.options.played_nodes.into()),
            ("node-lease-duration-seconds", "40".into()),
            ("cidr", POD_RANGE.into()),
            ("node-ip", NODE_ADDRESS.into()),
        ]);
        let Components { kube_controller_manager, kube_scheduler, kwok: kwok_program, .. } = &self.components;
        let logs = self.logs();
        Ok(vec![
            Process::start(
                "kube-controller-manager",
                &logs,
                kube_controller_manager,
                controller_manager,
                vec![],
            )
            .await?,
            Process::start("kube-scheduler", &logs, kube_scheduler, scheduler, vec![]).await?,
            Process::start("kwok", &logs, kwok_program, kwok, vec![]).await?,
        ])
    }

    /// Adds the nodes and waits until kwok has made them ready and the controllers have begun to work (the
    /// `ServiceAccount` that pods need is there).
    async fn add_nodes(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client());
        for name in NODES {
            // What a kubelet says of itself, and node selectors ask for.
            let labels = [
                ("kubernetes.io/hostname", name),
                ("kubernetes.io/os", "linux"),
                ("kubernetes.io/arch", "amd64"),
            ];
            let labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into();
            let metadata =
                ObjectMeta { name: Some(name.into()), labels: Some(labels), ..ObjectMeta::default() };
            nodes.create(&PostParams::default(), &Node { metadata, ..Node::default() }).await?;
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), "default");
        wait::until("ready nodes and ServiceAccount default", READY_TIMEOUT, || async {
            for name in NODES {
                let node = nodes.get(name).await?;
                let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
                let ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
                ensure!(ready, "node {name} is not ready");
            }
            accounts.get("default").await?;
            Ok(())
        })
        .await
        .with_context(|| format!("logs are in {}", self.logs().display()))
    }
}

impl Certificates {
    fn new(folder: &Path) -> Result<Self> {
        let cluster = Authority::new(folder, "cluster-ca")?;
        let front_proxy = Authority::new(folder, "front-proxy-ca")?;
        let names = ["127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        Ok(Self {
            server: cluster.server("kube-apiserver", &names)?,
            token_signer: certificates::token_signer(folder, "service-account")?,
            front_proxy_client: front_proxy.client("front-proxy-client", "front-proxy-client", &[])?,
            cluster,
            front_proxy,
        })
    }
}

async fn start_etcd(components: &Components, folder: &Path) -> Result<(Process, SocketAddr)> {
    let (clients, peers) = (free_address()?, free_address()?);
    let arguments = arguments([
        ("name", "tandem".into()),
        ("data-dir", folder.join("etcd").display().to_string()),
        ("listen-client-urls", format!("http://{clients}")),
        ("advertise-client-urls", format!("http://{clients}")),
        ("listen-peer-urls", format!("http://{peers}")),
        ("initial-advertise-peer-urls", format!("http://{peers}")),
        ("initial-cluster", format!("tandem=http://{peers}")),
        // The data is thrown away at the end.
        ("unsafe-no-fsync", "true".into()),
    ]);
    let mut etcd = Process::start("etcd", &folder.join("logs"), &components.etcd, arguments, vec![]).await?;
    let health = format!("http://{clients}/health");
    let http = reqwest::Client::builder().no_proxy().build()?;
    etcd.wait_until_ready(READY_TIMEOUT, || async {
        http.get(&health).send().await?.error_for_status()?;
        Ok(())
    })
    .await?;
    Ok((etcd, clients))
}

fn arguments<const N: usize>(flags: [(&str, String); N]) -> Vec<String> {
    flags.into_iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

fn http_get(path: &str) -> hyper::Request<Vec<u8>> {
    let mut request = hyper::Request::new(Vec::new());
    if let Ok(uri) = path.parse() {
        *request.uri_mut() = uri;
    }
    request
}

fn certificate_user(identity: &Identity) -> Value {
    json!({ "client-certificate": identity.certificate_file, "client-key": identity.key_file })
}

fn write_kubeconfig(
    folder: &Path,
    name: &str,
    server: SocketAddr,
    authority: &Authority,
    user: &Value,
) -> Result<PathBuf> {
    let cluster = json!({
        "server": format!("https://{server}"), "certificate-authority": authority.certificate_file(),
    });
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "tandem",
        "clusters": [{ "name": "tandem", "cluster": cluster }],
        "users": [{ "name": "tandem", "user": user }],
        "contexts": [{ "name": "tandem", "context": { "cluster": "tandem", "user": "tandem" } }],
    });
    let file = folder.join(format!("{name}.kubeconfig"));
    fs::write(&file, serde_json::to_string_pretty(&kubeconfig)?)?;
    Ok(file)
}

/// A client for a kubeconfig file.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}
