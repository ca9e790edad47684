//! The serving certificate of the metrics API and of the webhooks, and the `caBundle`s that verify it.
//!
//! Without files from the user, Tandem is its own certificate authority. Authority and certificate live in one Secret,
//! made by whichever replica comes first, served by all of them, rotated by the leader in overlapping steps
//! ([`rotation`]) without a restart or a gap.

mod files;
mod material;
mod registrations;
pub mod rotation;
mod secret;

use std::{path::PathBuf, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{rotation::Policy, secret::Keeper};
use crate::serve::CertificateResolver;

/// Where the time is read, so that tests can move it.
type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Whose certificates, for which names, registered where.
#[derive(Clone, Debug)]
pub struct CertsConfig {
    /// Our own namespace.
    pub namespace: String,
    /// The Secret's name.
    pub secret: String,
    /// The Service of the metrics API.
    pub metrics_service: String,
    /// The Service of the webhooks.
    pub webhook_service: String,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// Further names or addresses that clients use.
    pub extra_names: Vec<String>,
    /// The `APIService` to register with.
    pub api_service: String,
    /// The `ValidatingWebhookConfiguration` to register with.
    pub webhook_configuration: String,
    /// A directory with `tls.crt`, `tls.key` and perhaps `ca.crt`, instead of certificates of our own.
    pub directory: Option<PathBuf>,
    /// Lifetimes of certificates of our own.
    pub policy: Policy,
}

/// A name that no certificate can carry.
#[derive(Debug, Error)]
#[error(
    "{name:?} is neither a DNS name nor an IP address: check namespace, Service names and cluster domain"
)]
pub struct NameError {
    name: String,
}

impl CertsConfig {
    /// The names that the install manifests and KEDA use, in our namespace.
    pub fn new(namespace: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            secret: "kedaorg-certs".to_owned(),
            metrics_service: "tandem".to_owned(),
            webhook_service: "tandem-webhooks".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            extra_names: Vec::new(),
            api_service: "v1beta1.external.metrics.k8s.io".to_owned(),
            webhook_configuration: "keda-admission".to_owned(),
            directory: None,
            policy: Policy::default(),
        }
    }

    /// Every name that a client may ask for: of each Service the four that cluster DNS knows.
    fn names(&self) -> Vec<String> {
        let Self { namespace, cluster_domain, .. } = self;
        let of_service = |service: &String| {
            [
                format!("{service}.{namespace}.svc"),
                service.clone(),
                format!("{service}.{namespace}"),
                format!("{service}.{namespace}.svc.{cluster_domain}"),
            ]
        };
        let services = [&self.metrics_service, &self.webhook_service].into_iter().flat_map(of_service);
        services.chain(self.extra_names.iter().cloned()).collect()
    }

    fn check(&self) -> Result<(), NameError> {
        let wrong = self.names().into_iter().find(|name| ServerName::try_from(name.as_str()).is_err());
        wrong.map_or(Ok(()), |name| Err(NameError { name }))
    }
}

/// Keeps `certificates` served and registered until `shutdown`. Every replica runs it; `leads` says which one writes.
///
/// Errors: a name that no certificate can carry, at once. Everything else is logged and tried again.
pub async fn run(
    config: CertsConfig,
    client: Client,
    certificates: Arc<CertificateResolver>,
    leads: watch::Receiver<bool>,
    shutdown: CancellationToken,
) -> Result<(), NameError> {
    run_with_clock(config, client, certificates, leads, Arc::new(Timestamp::now), shutdown).await
}

async fn run_with_clock(
    config: CertsConfig,
    client: Client,
    certificates: Arc<CertificateResolver>,
    leads: watch::Receiver<bool>,
    clock: Clock,
    shutdown: CancellationToken,
) -> Result<(), NameError> {
    config.check()?;
    let config = Arc::new(config);
    let (bundle, bundles) = watch::channel(None);
    let (published, heard) = watch::channel(None);
    let registrations = registrations::keep(
        client.clone(),
        config.clone(),
        clock.clone(),
        bundles,
        leads.clone(),
        published,
        shutdown.clone(),
    );
    let source = async {
        if let Some(directory) = &config.directory {
            return files::keep(directory, &certificates, bundle, shutdown).await;
        }
        let api = Api::<Secret>::namespaced(client, &config.namespace);
        let config = config.clone();
        let keeper = Keeper { api, config, clock, certificates, leads, bundle, published: heard };
        keeper.keep(shutdown).await;
    };
    tokio::join!(Box::pin(registrations), Box::pin(source));
    Ok(())
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
