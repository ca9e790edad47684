//! The API client: kubeconfig or in-cluster, with retries that obey the server.

use std::{collections::BTreeSet, path::Path};

use http::{HeaderValue, header::USER_AGENT};
use kube::{
    Client, Config,
    client::{ClientBuilder, retry::RetryPolicy},
    config::{KubeConfigOptions, Kubeconfig},
};
use tower::{buffer::BufferLayer, retry::RetryLayer};

/// Requests that may wait for the retrying service; beyond it, callers wait for a place.
const QUEUE: usize = 1024;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig cannot be read.
    #[error("kubeconfig {path} cannot be used: {source}")]
    Kubeconfig {
        /// The file.
        path: String,
        /// Why.
        source: kube::config::KubeconfigError,
    },
    /// No kubeconfig and no service account.
    #[error(
        "no cluster found: {0}; give --kubeconfig, set KUBECONFIG, or run in a pod with a service account"
    )]
    NoCluster(#[from] kube::config::InferConfigError),
    /// The client cannot be built.
    #[error("API client cannot be built: {0}")]
    Build(#[from] kube::Error),
}

/// Connects to the cluster of `kubeconfig`, else of `KUBECONFIG` or `~/.kube/config`, else of the pod.
///
/// There is no client-side rate limit: the server's priority and fairness decides, and its 429 with Retry-After is
/// obeyed.
///
/// # Errors
/// See [`ClientError`].
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    connect_as(kubeconfig, None).await
}

/// As [`connect`], with this `User-Agent` in each request.
///
/// # Errors
/// See [`ClientError`].
pub async fn connect_as(
    kubeconfig: Option<&Path>,
    user_agent: Option<HeaderValue>,
) -> Result<Client, ClientError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let failed = |source| ClientError::Kubeconfig { path: path.display().to_string(), source };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(failed)?
        }
        None => Config::infer().await?,
    };
    config.headers.extend(user_agent.map(|agent| (USER_AGENT, agent)));
    let builder = ClientBuilder::try_from(config)?;
    let retry = RetryLayer::new(RetryPolicy::server_retry());
    Ok(builder.with_layer(&BufferLayer::new(QUEUE)).with_layer(&retry).build())
}

/// The kinds, by their plural names, that the API server has in a version of a group (`GROUP/VERSION`); none if it has not that
/// version.
///
/// # Errors
/// It did not say.
pub async fn served(client: &Client, api_version: &str) -> kube::Result<BTreeSet<String>> {
    match client.list_api_group_resources(api_version).await {
        Ok(list) => Ok(list.resources.into_iter().map(|resource| resource.name).collect()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}
