//! What scalers may ask the cluster for.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1::{ConfigMap, Pod, Secret},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client, api::ListParams};

use super::{Key, named::NamedError};

/// Pods that still count: a finished pod is no workload.
const NOT_FINISHED: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// Answers scalers by reads of the API server (from its watch cache).
pub struct Reader {
    client: Client,
    /// See [`super::Cluster::secrets_only_in`].
    secrets_only_in: Option<String>,
}

impl Reader {
    /// A reader over `client`, of the Secrets of one namespace or of all.
    pub fn new(client: Client, secrets_only_in: Option<String>) -> Arc<Self> {
        Arc::new(Self { client, secrets_only_in })
    }
}

fn failed(what: &str, error: &kube::Error) -> scalers::Error {
    scalers::Error::Cluster(format!("{what} cannot be read: {}", super::message(error)))
}

#[async_trait]
impl scalers::Cluster for Reader {
    async fn count_pods(
        &self,
        namespace: &str,
        selector: &str,
        by_node: bool,
    ) -> Result<i64, scalers::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        // Any version will do: the watch cache answers without a quorum read.
        let params = ListParams::default().labels(selector).fields(NOT_FINISHED).match_any();
        let what = format!("pods of {namespace} with {selector}");
        let count = if by_node {
            let pods = api.list(&params).await.map_err(|error| failed(&what, &error))?;
            let nodes: std::collections::BTreeSet<_> =
                pods.items.into_iter().filter_map(|pod| pod.spec?.node_name).collect();
            nodes.len()
        } else {
            api.list_metadata(&params).await.map_err(|error| failed(&what, &error))?.items.len()
        };
        Ok(i64::try_from(count).unwrap_or(i64::MAX))
    }

    async fn config_map_value(
        &self,
        namespace: &str,
        name: &str,
        key: &str,
    ) -> Result<Option<String>, scalers::Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let what = format!("ConfigMap {namespace}/{name}");
        let found = api.get(name).await.map_err(|error| failed(&what, &error))?;
        Ok(found.data.and_then(|mut data| data.remove(key)))
    }

    async fn secret_value(
        &self,
        namespace: &str,
        name: &str,
        key: &str,
    ) -> Result<Option<String>, scalers::Error> {
        if let Some(allowed) = self.secrets_only_in.clone().filter(|allowed| allowed != namespace) {
            let restricted = NamedError::Restricted { key: Key::new(namespace, name), allowed };
            return Err(scalers::Error::Cluster(restricted.to_string()));
        }
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let what = format!("Secret {namespace}/{name}");
        let found = api.get(name).await.map_err(|error| failed(&what, &error))?;
        let value = found.data.and_then(|mut data| data.remove(key));
        Ok(value.map(|value| String::from_utf8_lossy(&value.0).into_owned()))
    }

    async fn service_endpoints(&self, namespace: &str, service: &str) -> Result<Vec<String>, scalers::Error> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), namespace);
        let params =
            ListParams::default().labels(&format!("kubernetes.io/service-name={service}")).match_any();
        let what = format!("EndpointSlices of Service {namespace}/{service}");
        let slices = api.list(&params).await.map_err(|error| failed(&what, &error))?;
        let mut found: Vec<_> = slices.items.iter().flat_map(endpoints).collect();
        found.sort();
        found.dedup();
        Ok(found)
    }
}

/// `ip:port` of each ready endpoint (unknown readiness counts as ready, as the API says) and each port.
fn endpoints(slice: &EndpointSlice) -> Vec<String> {
    let ports = || slice.ports.iter().flatten().filter_map(|port| port.port);
    slice
        .endpoints
        .iter()
        .flatten()
        .filter(|endpoint| {
            endpoint.conditions.as_ref().is_none_or(|conditions| conditions.ready != Some(false))
        })
        .flat_map(|endpoint| endpoint.addresses.iter())
        .flat_map(|address| {
            let host = if address.contains(':') { format!("[{address}]") } else { address.clone() };
            ports().map(move |port| format!("{host}:{port}"))
        })
        .collect()
}
