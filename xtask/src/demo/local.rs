//! The demo's own control plane, on this machine's loopback.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use harness::tandem::Addresses;
use harness::{
    Components, ControlPlane, Install, IstioExporter, Network, Options, Prometheus, Tandem, source_tree,
};

use super::{Place, say, traffic::Traffic};

/// Everything that runs; it stops when this is dropped.
pub(crate) struct Local {
    place: Place,
    _tandem: Tandem,
    _prometheus: Prometheus,
    _control_plane: ControlPlane,
}

impl Local {
    /// Builds what is missing and starts it all; `tandem run` with these flags beside those of the installation.
    pub(crate) async fn start(flags: &[&str]) -> Result<Self> {
        say("Building tandem");
        let program = build()?;
        say("Starting etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok on loopback");
        let components = Components::find_or_build()?;
        let control_plane = ControlPlane::start(&components, Options::new(Network::Loopback)).await?;
        say("Starting Prometheus and an exporter of Istio's request metrics");
        let exporter = IstioExporter::start().await?;
        let prometheus =
            Prometheus::start(control_plane.folder(), "prometheus", &[exporter.address()]).await?;
        exporter.set_total("nginx", 26);
        eprintln!("prometheus is at {}", prometheus.url());
        say("Installing Tandem: kubectl apply --server-side -f manifests/install.yaml");
        let install = Install::apply(&control_plane).await?;
        let addresses = Addresses::of_services(&install)?;
        let flags: Vec<_> = flags.iter().map(ToString::to_string).collect();
        let pod = &install.pods[0];
        let tandem = Tandem::start_with(&control_plane, &program, pod, addresses, &flags, &[]).await?;
        eprintln!("tandem run is ready; logs of all are in {}", control_plane.logs().display());
        let place = Place {
            kubectl: control_plane.kubectl(),
            traffic: Traffic::Here(exporter),
            prometheus: prometheus.url(),
            access: access(&control_plane, &components),
        };
        Ok(Self { place, _tandem: tandem, _prometheus: prometheus, _control_plane: control_plane })
    }

    /// What the tour needs.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }
}

fn build() -> Result<PathBuf> {
    let status =
        Command::new("cargo").args(["build", "--bin", "tandem"]).current_dir(source_tree()).status()?;
    ensure!(status.success(), "cargo build --bin tandem ended with {status}");
    Ok(target_folder()?.join("debug/tandem"))
}

/// Where cargo puts things: this program lies in `<target>/<profile>`.
fn target_folder() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.ancestors().nth(2).unwrap_or(&own).to_path_buf())
}

fn access(control_plane: &ControlPlane, components: &Components) -> String {
    let kubeconfig = format!("  export KUBECONFIG={}", control_plane.kubeconfig().display());
    let on_path = Command::new("kubectl").args(["version", "--client"]).output().is_ok();
    if on_path {
        kubeconfig
    } else {
        format!("{kubeconfig}\n  alias kubectl={}", components.kubectl.display())
    }
}
