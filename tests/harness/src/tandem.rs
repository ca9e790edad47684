//! The Tandem process, run as the kubelet would run it in its pod.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{EnvVar, Pod};
use kube::ResourceExt;

use crate::ControlPlane;
use crate::install::{self, Install};
use crate::network::free_address;
use crate::process::Process;

/// Ready in well under 3 s on an idle machine.
const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// Flags of the pod's container that the harness sets itself.
const OWN_FLAGS: [&str; 6] = [
    "--kubeconfig",
    "--bind-address",
    "--secure-port",
    "--webhook-bind-address",
    "--metrics-bind-address",
    "--health-probe-bind-address",
];

/// Where a process listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// external.metrics.k8s.io.
    pub metrics_api: SocketAddr,
    /// Admission.
    pub webhooks: SocketAddr,
    /// `/metrics`.
    pub metrics: SocketAddr,
    /// `/healthz` and `/readyz`.
    pub probes: SocketAddr,
}

impl Addresses {
    /// The pod's own address with the ports that users have. Several replicas can run so, behind
    /// [`Install::forward`].
    pub fn of_pod(pod: &Pod) -> Result<Self> {
        let address: IpAddr = install::pod_address(pod)?;
        let at = |port| SocketAddr::new(address, port);
        Ok(Self { metrics_api: at(6443), webhooks: at(9443), metrics: at(8080), probes: at(8081) })
    }

    /// The Services' own addresses, with nothing between the API server and the process: for one replica.
    pub fn of_services(install: &Install) -> Result<Self> {
        let Install { metrics_api, webhooks, .. } = *install;
        Ok(Self { metrics_api, webhooks, metrics: free_address()?, probes: free_address()? })
    }
}

/// A running `tandem run`.
#[derive(Debug)]
pub struct Tandem {
    process: Process,
    addresses: Addresses,
}

impl Tandem {
    /// Starts `program` with the arguments and the environment of `pod`'s container and the rights of its
    /// `ServiceAccount`, and waits until `/readyz` answers. `environment` is added to the container's.
    pub async fn start(
        control_plane: &ControlPlane,
        program: &Path,
        pod: &Pod,
        addresses: Addresses,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        Self::start_with(control_plane, program, pod, addresses, &[], environment).await
    }

    /// Like [`Tandem::start`] with further flags.
    pub async fn start_with(
        control_plane: &ControlPlane,
        program: &Path,
        pod: &Pod,
        addresses: Addresses,
        flags: &[String],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let mut tandem = Self::spawn_with(control_plane, program, pod, addresses, flags, environment).await?;
        let ready = format!("http://{}/readyz", addresses.probes);
        let http = reqwest::Client::builder().no_proxy().build()?;
        tandem
            .process
            .wait_until_ready(READY_TIMEOUT, || async {
                http.get(&ready).send().await?.error_for_status()?;
                Ok(())
            })
            .await?;
        Ok(tandem)
    }

    /// Like [`Tandem::start`] without waiting.
    pub async fn spawn(
        control_plane: &ControlPlane,
        program: &Path,
        pod: &Pod,
        addresses: Addresses,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        Self::spawn_with(control_plane, program, pod, addresses, &[], environment).await
    }

    async fn spawn_with(
        control_plane: &ControlPlane,
        program: &Path,
        pod: &Pod,
        addresses: Addresses,
        flags: &[String],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let kubeconfig = control_plane.kubeconfig_of(install::NAMESPACE, install::NAME).await?;
        let container =
            pod.spec.as_ref().and_then(|spec| spec.containers.first()).context("pod without container")?;
        let mut arguments = container_arguments(container.args.as_deref().unwrap_or_default());
        arguments.extend([
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--bind-address={}", addresses.metrics_api.ip()),
            format!("--secure-port={}", addresses.metrics_api.port()),
            format!("--webhook-bind-address={}", addresses.webhooks),
            format!("--metrics-bind-address={}", addresses.metrics),
            format!("--health-probe-bind-address={}", addresses.probes),
        ]);
        arguments.extend_from_slice(flags);
        let own = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let environment =
            container.env.iter().flatten().map(|variable| resolve(variable, pod)).chain(own).collect();
        let process =
            Process::start(&pod.name_any(), &control_plane.logs(), program, arguments, environment).await?;
        Ok(Self { process, addresses })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The exit status if it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Ends it in an orderly way (SIGTERM).
    pub async fn stop(self) -> Result<ExitStatus> {
        self.process.stop().await
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(self) -> Result<ExitStatus> {
        self.process.kill()
    }
}

/// The container's arguments without those that the harness sets, whether written `--flag=value` or `--flag value`.
fn container_arguments(arguments: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let flag = argument.split('=').next().unwrap_or_default();
        if !OWN_FLAGS.contains(&flag) {
            kept.push(argument.clone());
        } else if !argument.contains('=') {
            arguments.next();
        }
    }
    kept
}

/// A variable of the container's environment as the kubelet resolves it, for the fields that the manifests use.
fn resolve(variable: &EnvVar, pod: &Pod) -> (String, String) {
    let field = variable.value_from.as_ref().and_then(|source| source.field_ref.as_ref());
    let value = match field.map(|field| field.field_path.as_str()) {
        Some("metadata.name") => pod.name_any(),
        Some("metadata.namespace") => pod.namespace().unwrap_or_default(),
        Some("status.podIP") => install::pod_address(pod).map(|ip| ip.to_string()).unwrap_or_default(),
        _ => variable.value.clone().unwrap_or_default(),
    };
    (variable.name.clone(), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_flags_replace_the_containers() {
        let arguments = ["run", "--leader-elect", "--secure-port=6443", "--metrics-bind-address", ":8080"];
        let kept = container_arguments(&arguments.map(str::to_owned));
        assert_eq!(kept, ["run", "--leader-elect"]);
    }
}
