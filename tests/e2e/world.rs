//! What all scenarios share: the control plane, Tandem's two replicas, Prometheus and the Istio exporter.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use harness::forward::Forward;
use harness::tandem::Addresses;
use harness::{Components, ControlPlane, Install, IstioExporter, Network, Options, Prometheus, Tandem, wait};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::Api;
use tokio::sync::Mutex;

/// Users have 15 s. A scenario waits for two or three evaluations; the HPA's algorithm knows no other clock that
/// these scenarios touch.
pub(crate) const HPA_SYNC_PERIOD: Duration = Duration::from_secs(2);

/// From readiness to an `APIService` that kube-apiserver calls Available: its own controller looks every few seconds.
const AVAILABLE_TIMEOUT: Duration = Duration::from_mins(1);

/// The running test bed.
pub(crate) struct World {
    replicas: Mutex<Vec<Replica>>,
    _forwards: Vec<Forward>,
    pub(crate) install: Install,
    pub(crate) prometheus: Prometheus,
    pub(crate) istio: IstioExporter,
    pub(crate) control_plane: ControlPlane,
}

struct Replica {
    pod: Pod,
    process: Option<Tandem>,
}

impl World {
    pub(crate) async fn start(components: Components) -> Result<Self> {
        let options = Options { hpa_sync_period: HPA_SYNC_PERIOD, ..Options::new(Network::Namespace) };
        let control_plane = ControlPlane::start(&components, options).await?;
        remove_on_interrupt(&control_plane);
        let istio = IstioExporter::start().await?;
        let prometheus = Prometheus::start(control_plane.folder(), "prometheus", &[istio.address()]).await?;
        let install = Install::apply(&control_plane).await?;
        let forwards = install.forward().await?;
        let replicas = install.pods.iter().map(|pod| Replica { pod: pod.clone(), process: None }).collect();
        let world = Self {
            replicas: Mutex::new(replicas),
            _forwards: forwards,
            install,
            prometheus,
            istio,
            control_plane,
        };
        world.start_replicas().await?;
        Ok(world)
    }

    /// Starts the replicas that do not run and waits until kube-apiserver takes the metrics API for available.
    pub(crate) async fn start_replicas(&self) -> Result<()> {
        let program = program();
        for replica in self.replicas.lock().await.iter_mut().filter(|replica| replica.process.is_none()) {
            let addresses = Addresses::of_pod(&replica.pod)?;
            replica.process =
                Some(Tandem::start(&self.control_plane, &program, &replica.pod, addresses, &[]).await?);
        }
        wait::until("the APIService to be available", AVAILABLE_TIMEOUT, || async {
            let service = "v1beta1.external.metrics.k8s.io";
            let condition = "jsonpath={.status.conditions[?(@.type=='Available')]}";
            let seen = self
                .control_plane
                .kubectl()
                .run(&["get", "apiservice", service, "-o", condition], "")
                .await?;
            ensure!(seen.contains(r#""status":"True""#), "{seen}");
            Ok(())
        })
        .await
    }

    /// Kills (SIGKILL) the replica that holds the Lease and returns its name.
    pub(crate) async fn kill_leader(&self) -> Result<String> {
        let leader = self.leader().await?;
        for replica in self.replicas.lock().await.iter_mut() {
            if leader.contains(&replica.pod.name_any()) {
                replica.process.take().context("the leader does not run")?.kill()?;
                return Ok(leader);
            }
        }
        bail!("no replica is the leader {leader}")
    }

    /// Ends every replica in an orderly way.
    pub(crate) async fn stop_replicas(&self) -> Result<()> {
        for replica in self.replicas.lock().await.iter_mut() {
            if let Some(process) = replica.process.take() {
                let status = process.stop().await?;
                ensure!(status.success(), "{} ended with {status} on SIGTERM", replica.pod.name_any());
            }
        }
        Ok(())
    }

    /// What the replica that holds the Lease answers at `/metrics`.
    pub(crate) async fn metrics(&self) -> Result<String> {
        let leader = self.leader().await?;
        let replicas = self.replicas.lock().await;
        let leads = |replica: &&Replica| leader.contains(&replica.pod.name_any());
        let process = replicas.iter().find(leads).and_then(|replica| replica.process.as_ref());
        let address = process.context("the leader does not run")?.addresses().metrics;
        let http = reqwest::Client::builder().no_proxy().build()?;
        let answer = http.get(format!("http://{address}/metrics")).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    /// The names of replicas that ended by themselves.
    pub(crate) async fn ended_replicas(&self) -> Vec<String> {
        let mut replicas = self.replicas.lock().await;
        let ended =
            |replica: &mut Replica| replica.process.as_mut().is_some_and(|process| process.ended().is_some());
        replicas.iter_mut().filter_map(|replica| ended(replica).then(|| replica.pod.name_any())).collect()
    }

    /// Who holds the Lease.
    pub(crate) async fn leader(&self) -> Result<String> {
        let leases: Api<Lease> = Api::namespaced(self.control_plane.client(), harness::install::NAMESPACE);
        let spec = leases.get("operator.keda.sh").await?.spec.context("Lease without spec")?;
        spec.holder_identity.filter(|holder| !holder.is_empty()).context("nobody holds the Lease")
    }

    /// The lines of the replicas' logs that contain `text`, at most `most` of each replica, the newest.
    pub(crate) async fn log_lines(&self, text: &str, most: usize) -> String {
        let mut lines = Vec::new();
        for replica in self.replicas.lock().await.iter() {
            let log = replica.process.as_ref().map(Tandem::log).unwrap_or_default();
            let about: Vec<&str> = log.lines().filter(|line| line.contains(text)).collect();
            lines.push(format!("log of {}:", replica.pod.name_any()));
            lines.extend(about[about.len().saturating_sub(most)..].iter().map(ToString::to_string));
        }
        lines.join("\n")
    }
}

/// Ctrl-C ends the process where it stands, and with it every child; only the folder would be left.
fn remove_on_interrupt(control_plane: &ControlPlane) {
    let folder = control_plane.folder().to_owned();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            let _ = std::fs::remove_dir_all(folder);
            std::process::exit(130);
        }
    });
}

/// The binary of this build, or `$TANDEM_BIN`.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("TANDEM_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_tandem").into()).into()
}
