//! Tandem's install: the CRDs and manifests that users apply.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, ListParams};
use kube::core::Selector;
use serde_json::Value;

use crate::forward::Forward;
use crate::network::Network;
use crate::{ControlPlane, source_tree, wait};

/// The namespace that `manifests/install.yaml` installs into.
pub const NAMESPACE: &str = "tandem";

/// The Deployment of Tandem, and the Service of its metrics API; its `ServiceAccount` too.
pub const NAME: &str = "tandem";

/// The Service of the admission webhooks.
pub const WEBHOOKS: &str = "tandem-webhooks";

/// The kinds that the manifests define.
const KINDS: [&str; 4] =
    ["scaledobjects", "scaledjobs", "triggerauthentications", "clustertriggerauthentications"];

/// The pod ports behind the Services (`targetPort` in the manifests).
const METRICS_API_PORT: u16 = 6443;
/// See [`METRICS_API_PORT`].
const WEBHOOKS_PORT: u16 = 9443;

/// From `kubectl apply` to Running pods: seconds, on a machine that may be busy.
const RUNNING_TIMEOUT: Duration = Duration::from_mins(1);

/// What is installed, and where it is expected to answer.
#[derive(Clone, Debug)]
pub struct Install {
    /// The Service of the metrics API, which the aggregator connects to.
    pub metrics_api: SocketAddr,
    /// The Service of the webhooks, which the API server connects to.
    pub webhooks: SocketAddr,
    /// The pods that kwok pretends to run, by name.
    pub pods: Vec<Pod>,
}

impl Install {
    /// Applies `manifests/install.yaml` and waits until the kinds are served and the pods "run".
    ///
    /// In a network namespace the file goes in as it is. On loopback the Services move to ports above 1023, which
    /// need no root, and one replica is left, since pod addresses are fiction there.
    pub async fn apply(control_plane: &ControlPlane) -> Result<Self> {
        let file = source_tree().join("manifests/install.yaml");
        let manifests =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let manifests = match control_plane.network() {
            Network::Namespace => manifests,
            Network::Loopback => for_loopback(&manifests)?,
        };
        let kubectl = control_plane.kubectl();
        kubectl.run(&["apply", "--server-side", "-f", "-"], &manifests).await?;
        let served = ["wait", "--for=condition=Established", "--timeout=60s"];
        let kinds = KINDS.map(|kind| format!("crd/{kind}.keda.sh"));
        let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
        kubectl.run(&[&served[..], &kinds].concat(), "").await?;
        Self::wait(control_plane).await
    }

    async fn wait(control_plane: &ControlPlane) -> Result<Self> {
        let services: Api<Service> = Api::namespaced(control_plane.client(), NAMESPACE);
        Ok(Self {
            metrics_api: service_address(&services.get(NAME).await?)?,
            webhooks: service_address(&services.get(WEBHOOKS).await?)?,
            pods: running_pods(control_plane).await?,
        })
    }

    /// Plays kube-proxy for both Services (in a network namespace only, where pod addresses are real).
    pub async fn forward(&self) -> Result<Vec<Forward>> {
        let pods = |port| self.pods.iter().map(|pod| Ok(SocketAddr::new(pod_address(pod)?, port))).collect();
        let metrics_api: Result<Vec<_>> = pods(METRICS_API_PORT);
        let webhooks: Result<Vec<_>> = pods(WEBHOOKS_PORT);
        Ok(vec![
            Forward::start(self.metrics_api, metrics_api?).await?,
            Forward::start(self.webhooks, webhooks?).await?,
        ])
    }
}

/// The address that kwok gave a pod.
pub fn pod_address(pod: &Pod) -> Result<IpAddr> {
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
    Ok(address.context("the pod has no address yet")?.parse()?)
}

fn service_address(service: &Service) -> Result<SocketAddr> {
    let spec = service.spec.as_ref().context("Service without spec")?;
    let ip = spec.cluster_ip.as_deref().context("Service without ClusterIP")?;
    let port = spec.ports.iter().flatten().next().context("Service without port")?.port;
    Ok(SocketAddr::new(ip.parse()?, u16::try_from(port)?))
}

async fn running_pods(control_plane: &ControlPlane) -> Result<Vec<Pod>> {
    let deployments: Api<k8s_openapi::api::apps::v1::Deployment> =
        Api::namespaced(control_plane.client(), NAMESPACE);
    let spec = deployments.get(NAME).await?.spec;
    let replicas = usize::try_from(spec.replicas.unwrap_or(1))?;
    let selector: Selector = spec.selector.try_into()?;
    let pods: Api<Pod> = Api::namespaced(control_plane.client(), NAMESPACE);
    wait::until("the pods of Tandem to run", RUNNING_TIMEOUT, || async {
        let list = pods.list(&ListParams::default().labels_from(&selector)).await?.items;
        let running: Vec<Pod> = list.into_iter().filter(|pod| pod_address(pod).is_ok()).collect();
        ensure!(running.len() == replicas, "{} of {replicas} run", running.len());
        Ok(running)
    })
    .await
}

/// The same manifests with every Service port equal to its target port, and one replica.
fn for_loopback(manifests: &str) -> Result<String> {
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(manifests)?;
    for document in &mut documents {
        let name = document["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match document["kind"].as_str().unwrap_or_default() {
            "Service" => {
                document["spec"]["ports"][0]["port"] =
                    if name == WEBHOOKS { WEBHOOKS_PORT } else { METRICS_API_PORT }.into();
            }
            "APIService" => document["spec"]["service"]["port"] = METRICS_API_PORT.into(),
            "ValidatingWebhookConfiguration" => {
                for webhook in document["webhooks"].as_array_mut().into_iter().flatten() {
                    webhook["clientConfig"]["service"]["port"] = WEBHOOKS_PORT.into();
                }
            }
            "Deployment" => document["spec"]["replicas"] = 1.into(),
            _ => {}
        }
    }
    // JSON is YAML.
    Ok(documents.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_needs_no_port_below_1024() {
        let manifests = "
kind: Service
metadata: {name: tandem-webhooks}
spec: {ports: [{port: 443, targetPort: 9443}]}
---
kind: APIService
metadata: {name: v1beta1.external.metrics.k8s.io}
spec: {service: {name: tandem, namespace: tandem}}
---
kind: Deployment
metadata: {name: tandem}
spec: {replicas: 2}
";
        let changed: Vec<Value> = serde_saphyr::from_multiple(&for_loopback(manifests).unwrap()).unwrap();
        assert_eq!(changed[0]["spec"]["ports"][0]["port"], 9443);
        assert_eq!(changed[1]["spec"]["service"]["port"], 6443);
        assert_eq!(changed[2]["spec"]["replicas"], 1);
    }
}
