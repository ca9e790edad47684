//! The provider that `--cloud-provider` names.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
};

use kube::{Client, Config};
use tandem_core::nodes::group::GroupOptions;

use super::{
    CloudError, CloudProvider,
    cluster_api::{self, ClusterApi, discovery::Discovery},
    external_grpc::ExternalGrpc,
    kwok::Kwok,
};
use crate::cluster::client;

/// The names that `--cloud-provider` may have.
pub const PROVIDERS: &[&str] = &["clusterapi", "externalgrpc", "kwok"];

/// The ConfigMap of kwok when `KWOK_PROVIDER_CONFIGMAP` does not say.
const KWOK_CONFIG_MAP: &str = "kwok-provider-config";

/// Where a pod finds its own namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// What the flags say to providers.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `--cloud-config`: a file whose meaning is the provider's.
    pub cloud_config: Option<PathBuf>,
    /// `--nodes`, see [`super::spec::GroupSpec`].
    pub nodes: Vec<String>,
    /// `--node-group-auto-discovery`.
    pub discoveries: Vec<String>,
    /// `--clusterapi-cloud-config-authoritative`: without `--cloud-config` the management cluster is the one that the
    /// pod runs in, not the one of `--kubeconfig`.
    pub cluster_api_authoritative: bool,
    /// What the flags say of groups that do not say otherwise.
    pub defaults: GroupOptions,
}

/// Makes the provider of this name. `client` is of the cluster whose nodes are scaled.
///
/// # Errors
/// There is no such provider, a flag or a file cannot be used, or a server that is needed at once does not answer.
pub async fn connect(
    name: &str,
    settings: &Settings,
    client: Client,
) -> Result<Arc<dyn CloudProvider>, CloudError> {
    match name {
        "clusterapi" => Ok(Arc::new(connect_cluster_api(settings, client).await?)),
        "externalgrpc" => {
            let Some(file) = &settings.cloud_config else {
                let problem = "externalgrpc needs it: a YAML file with the address of the gRPC server";
                return Err(CloudError::configuration("--cloud-config", problem));
            };
            Ok(Arc::new(ExternalGrpc::connect(file, settings.defaults.clone())?))
        }
        "kwok" => {
            let config_map =
                variable("KWOK_PROVIDER_CONFIGMAP").unwrap_or_else(|| KWOK_CONFIG_MAP.to_owned());
            Ok(Arc::new(Kwok::connect(client, &own_namespace()?, &config_map).await?))
        }
        other => {
            let problem = format!("{other:?} is not known; there are {}", PROVIDERS.join(", "));
            Err(CloudError::configuration("--cloud-provider", problem))
        }
    }
}

async fn connect_cluster_api(settings: &Settings, workload: Client) -> Result<ClusterApi, CloudError> {
    let discoveries = settings.discoveries.iter().map(|spec| Discovery::read(spec));
    let discoveries = discoveries
        .collect::<Result<_, _>>()
        .map_err(|error| CloudError::configuration("--node-group-auto-discovery", error.to_string()))?;
    let options = cluster_api::Options {
        group: variable("CAPI_GROUP").unwrap_or_else(|| cluster_api::DEFAULT_GROUP.to_owned()),
        version: variable("CAPI_VERSION"),
        architecture: variable("CAPI_SCALE_ZERO_DEFAULT_ARCH")
            .unwrap_or_else(|| cluster_api::DEFAULT_ARCHITECTURE.to_owned()),
        discoveries,
    };
    let management = management(settings, &workload).await?;
    ClusterApi::connect(management, workload, options).await
}

/// The client of the management cluster.
async fn management(settings: &Settings, workload: &Client) -> Result<Client, CloudError> {
    match &settings.cloud_config {
        Some(file) => client::connect(Some(Path::new(file)))
            .await
            .map_err(|error| CloudError::configuration("--cloud-config", error.to_string())),
        None if settings.cluster_api_authoritative => {
            let wrong = |error: String| {
                CloudError::configuration(
                    "--clusterapi-cloud-config-authoritative without --cloud-config",
                    error,
                )
            };
            let config = Config::incluster().map_err(|error| wrong(error.to_string()))?;
            Client::try_from(config).map_err(|error| wrong(error.to_string()))
        }
        None => Ok(workload.clone()),
    }
}

/// The namespace that Tandem runs in.
fn own_namespace() -> Result<String, CloudError> {
    let of_pod = || std::fs::read_to_string(NAMESPACE_FILE).ok().map(|text| text.trim().to_owned());
    variable("POD_NAMESPACE").or_else(of_pod).filter(|namespace| !namespace.is_empty()).ok_or_else(|| {
        CloudError::configuration("environment variable POD_NAMESPACE", "it is not set, and this is no pod")
    })
}

/// An environment variable that is set to something.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}
