//! The cluster that new machines join.

use kube::Client as Kubernetes;
use tokio::sync::OnceCell;

use crate::cloud::{
    CloudError,
    aws::{client::Client, eks},
    pools::Settings,
};

/// Where a pod finds the API server's authority.
const AUTHORITY_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/// What machines have to know of their cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Details {
    /// `https://…` of the API server.
    pub(super) endpoint: String,
    /// Its authority, base64.
    pub(super) authority: String,
    /// Addresses of Services; empty if EKS was not asked.
    pub(super) service_cidr: String,
}

/// The cluster that new machines join.
pub(super) struct Cluster {
    /// Its name.
    pub(super) name: String,
    endpoint: String,
    authority: String,
    kubernetes: Kubernetes,
    asked: OnceCell<eks::Cluster>,
}

impl Cluster {
    /// What the flags say of it.
    ///
    /// # Errors
    /// It has no name.
    pub(super) fn new(settings: &Settings, kubernetes: Kubernetes) -> Result<Self, CloudError> {
        if settings.cluster_name.is_empty() {
            let problem = "is not set; machines of node pools are tagged with it, and join the cluster by it";
            return Err(CloudError::configuration("CLUSTER_NAME (--node-pools-cluster-name)", problem));
        }
        Ok(Self {
            name: settings.cluster_name.clone(),
            endpoint: settings.cluster_endpoint.clone(),
            authority: settings.cluster_authority.clone(),
            kubernetes,
            asked: OnceCell::new(),
        })
    }

    /// What machines have to know; EKS is asked, once, for what no flag says, and for `service_cidr`.
    pub(super) async fn details(&self, client: &Client, service_cidr: bool) -> Result<Details, CloudError> {
        let mut details = Details {
            endpoint: self.endpoint.clone(),
            authority: self.authority.clone(),
            service_cidr: String::new(),
        };
        if details.authority.is_empty()
            && let Ok(certificate) = std::fs::read(AUTHORITY_FILE)
        {
            use base64::Engine;
            details.authority = base64::engine::general_purpose::STANDARD.encode(certificate);
        }
        if service_cidr || details.endpoint.is_empty() {
            let asked = self.asked.get_or_try_init(|| eks::cluster(client, &self.name)).await?;
            details.service_cidr = asked.service_cidr().to_owned();
            if details.endpoint.is_empty() {
                details.endpoint.clone_from(&asked.endpoint);
            }
            if details.authority.is_empty() {
                details.authority.clone_from(&asked.certificate_authority.data);
            }
        }
        Ok(details)
    }

    /// Its version of Kubernetes, `1.33`.
    pub(super) async fn version(&self) -> Result<String, CloudError> {
        let version = self.kubernetes.apiserver_version().await;
        let version = version.map_err(|error| CloudError::from_api("get /version", &error))?;
        // EKS has said `30+`.
        let minor = version.minor.trim_end_matches(|letter: char| !letter.is_ascii_digit());
        Ok(format!("{}.{minor}", version.major))
    }
}
