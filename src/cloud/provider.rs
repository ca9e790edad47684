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
    aws::{self, Aws, client::OnRequest},
    cluster_api::{self, ClusterApi, discovery::Discovery},
    external_grpc::ExternalGrpc,
    kwok::Kwok,
};
use crate::{
    cluster::client,
    dry_run::{Recorder, guard::guard},
};

/// The names that `--cloud-provider` may have.
pub const PROVIDERS: &[&str] = &["aws", "clusterapi", "externalgrpc", "kwok"];

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
    /// `--aws-use-static-instance-list`: tags of Auto Scaling groups that say what nodes have are believed.
    pub believes_tags: bool,
    /// What the flags say of groups that do not say otherwise.
    pub defaults: GroupOptions,
    /// Told of every request to AWS.
    pub on_aws_request: OnRequest,
    /// Where what would be written to another cluster goes instead, in a dry run.
    pub recorder: Option<Arc<Recorder>>,
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
        "aws" => Ok(Arc::new(connect_aws(settings).await?)),
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

async fn connect_aws(settings: &Settings) -> Result<Aws, CloudError> {
    if settings.believes_tags {
        tracing::warn!(
            "--aws-use-static-instance-list: no list is built in; EC2 is not asked about groups whose tags \
             node-template/resources/cpu and memory say what a node has, and about the others it is"
        );
    }
    let cloud_config = match &settings.cloud_config {
        Some(file) => Some(std::fs::read_to_string(file).map_err(|error| {
            CloudError::configuration("--cloud-config", format!("{} cannot be read: {error}", file.display()))
        })?),
        None => None,
    };
    let config = aws::Config {
        cloud_config,
        believes_tags: settings.believes_tags,
        on_request: settings.on_aws_request.clone(),
        ..aws::Config::new(settings.nodes.clone(), settings.discoveries.clone())
    };
    Ok(Aws::new(&config).await?)
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
    let management = match &settings.recorder {
        Some(recorder) => guard(management, recorder.clone()),
        None => management,
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of `--cloud-provider=NAME`, with a cluster where nobody listens.
    async fn refusal(name: &str, settings: &Settings) -> String {
        let config = Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = Client::try_from(config).unwrap();
        connect(name, settings, client).await.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[tokio::test]
    async fn what_cannot_be_is_said_before_anything_is_asked() {
        let settings = Settings::default();
        assert_eq!(
            refusal("moon", &settings).await,
            format!("--cloud-provider: \"moon\" is not known; there are {}", PROVIDERS.join(", "))
        );
        let error = refusal("externalgrpc", &settings).await;
        assert!(error.starts_with("--cloud-config: externalgrpc needs it"), "{error}");
        let discoveries = vec!["asg:tag=a".to_owned()];
        let error = refusal("clusterapi", &Settings { discoveries, ..settings.clone() }).await;
        assert!(error.starts_with("--node-group-auto-discovery: \"asg\" of"), "{error}");
        let cloud_config = Some(PathBuf::from("/nowhere/kubeconfig"));
        for name in ["externalgrpc", "clusterapi"] {
            let error =
                refusal(name, &Settings { cloud_config: cloud_config.clone(), ..settings.clone() }).await;
            assert!(error.contains("--cloud-config") && error.contains("/nowhere/kubeconfig"), "{error}");
        }
    }

    #[tokio::test]
    async fn every_name_in_the_list_is_known() {
        for name in PROVIDERS {
            let error = refusal(name, &Settings::default()).await;
            assert!(!error.is_empty() && !error.contains("is not known"), "{name}: {error}");
        }
    }
}
