//! A control plane, an AWS, and Tandem between them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::aws_nodes::AwsNodes;
use harness::forward::Forward;
use harness::moto::{Group, Moto};
use harness::tandem::Addresses;
use harness::{Components, ControlPlane, Install, Network, Options, Tandem};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams};
use tokio::sync::Mutex;

/// Users have 15 s; most scenarios do not depend on it.
const HPA_SYNC_PERIOD: Duration = Duration::from_secs(2);
/// Log lines that a failed scenario shows.
const LINES: usize = 60;

/// A control plane as most scenarios have it.
pub(crate) fn options() -> Options {
    Options { hpa_sync_period: HPA_SYNC_PERIOD, ..Options::new(Network::Namespace) }
}

/// What one scenario works with.
pub(crate) struct World {
    tandem: Mutex<Option<Tandem>>,
    forwards: Mutex<Vec<Forward>>,
    pub(crate) moto: Arc<Moto>,
    _nodes: AwsNodes,
    pub(crate) install: Install,
    pub(crate) control_plane: ControlPlane,
}

impl World {
    pub(crate) async fn start(options: Options) -> Result<Self> {
        let components = Components::find_or_build()?;
        let control_plane = ControlPlane::start(&components, options).await?;
        let moto = Arc::new(Moto::start(control_plane.folder()).await?);
        let install = Install::apply(&control_plane).await?;
        let nodes = AwsNodes::start(moto.clone(), control_plane.client());
        let kubectl = control_plane.kubectl();
        let rights = harness::source_tree().join("manifests/node-groups.yaml");
        let rights = rights.to_str().context("path")?;
        kubectl.run(&["apply", "--server-side", "-f", rights], "").await?;
        Ok(Self {
            tandem: Mutex::new(None),
            forwards: Mutex::default(),
            moto,
            _nodes: nodes,
            install,
            control_plane,
        })
    }

    /// Starts `tandem run` with these flags beside those of the installation.
    pub(crate) async fn start_tandem(&self, flags: &[&str]) -> Result<()> {
        let program = std::env::var_os("TANDEM_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_tandem").into());
        let pod = self.install.pods.first().context("no pod")?;
        let mut forwards = self.forwards.lock().await;
        if forwards.is_empty() {
            *forwards = self.install.forward().await?;
        }
        let flags: Vec<_> = flags.iter().map(ToString::to_string).collect();
        let environment = self.moto.environment();
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let addresses = Addresses::of_pod(pod)?;
        let tandem = Tandem::start_with(
            &self.control_plane,
            Path::new(&program),
            pod,
            addresses,
            &flags,
            &environment,
        );
        *self.tandem.lock().await = Some(tandem.await?);
        Ok(())
    }

    /// What `tandem explain` prints.
    pub(crate) async fn explain(&self, arguments: &[&str]) -> Result<String> {
        let program = std::env::var_os("TANDEM_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_tandem").into());
        let kubeconfig = format!("--kubeconfig={}", self.control_plane.kubeconfig().display());
        let mut command = tokio::process::Command::new(program);
        command.arg("explain").args(arguments).arg(kubeconfig).envs(self.moto.environment());
        let output = command.output().await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tandem explain {arguments:?}: {errors}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Ends Tandem in an orderly way.
    pub(crate) async fn stop_tandem(&self) -> Result<()> {
        let tandem = self.tandem.lock().await.take().context("Tandem does not run")?;
        let status = tandem.stop().await?;
        ensure!(status.success(), "Tandem ended with {status} on SIGTERM");
        Ok(())
    }

    /// Ends it as a crash would.
    pub(crate) async fn kill_tandem(&self) -> Result<()> {
        self.tandem.lock().await.take().context("Tandem does not run")?.kill().map(drop)
    }

    pub(crate) async fn group(&self, group: &Group<'_>) -> Result<()> {
        self.moto.create_group(group).await
    }

    pub(crate) fn client(&self) -> Client {
        self.control_plane.client()
    }

    /// kubectl with these words, and this on its standard input.
    pub(crate) async fn kubectl(&self, words: &str, input: &str) -> Result<String> {
        let words: Vec<_> = words.split_whitespace().collect();
        self.control_plane.kubectl().run(&words, input).await
    }

    /// How many pods of an app run and are not on their way out.
    pub(crate) async fn running(&self, app: &str) -> Result<usize> {
        let pods: Api<Pod> = Api::namespaced(self.client(), "default");
        let pods = pods.list(&ListParams::default().labels(&format!("app={app}"))).await?;
        let runs = |pod: &&Pod| {
            pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
                && pod.metadata.deletion_timestamp.is_none()
        };
        Ok(pods.iter().filter(runs).count())
    }

    /// The whole log of Tandem so far.
    pub(crate) async fn whole_log(&self) -> String {
        self.tandem.lock().await.as_ref().map(Tandem::log).unwrap_or_default()
    }

    /// The end of it.
    pub(crate) async fn log(&self) -> String {
        let log = self.whole_log().await;
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    /// That the log has a line with this text.
    pub(crate) async fn logged(&self, text: &str) -> Result<()> {
        ensure!(self.whole_log().await.contains(text), "the log does not say {text:?}");
        Ok(())
    }
}
