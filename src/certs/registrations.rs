//! The `caBundle` of the `APIService` and of the webhooks: looked at, patched by the leader, repaired when it drifts.
//!
//! Nothing but `caBundle` is ever written, and nothing at all into an object that points at somebody else's Service.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, pin_mut};
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{
        ValidatingWebhook, ValidatingWebhookConfiguration, WebhookClientConfig,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher, watcher::watch_object},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{CertsConfig, Clock};

/// Pause after a patch that failed.
const RETRY: Duration = Duration::from_secs(10);

/// cert-manager writes `caBundle` into objects with such an annotation (cert-manager.io/docs, "CA Injector").
const INJECTED_BY_CERT_MANAGER: &str = "cert-manager.io/inject-";

/// A bundle, and since when it has stood in every `caBundle` of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) bundle: Arc<str>,
    pub(super) since: Timestamp,
}

/// How an object stands to the bundle.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Standing {
    /// It holds the bundle.
    InPlace,
    /// It is ours and needs this JSON patch.
    Outdated(Value),
    /// It points elsewhere.
    Foreign {
        /// Whom it points at.
        owner: String,
    },
    /// Somebody else is charged with its `caBundle`, or it verifies nothing.
    LeftAlone(String),
}

/// What of ours an object may point at.
pub(super) struct Ours<'a> {
    pub(super) namespace: &'a str,
    pub(super) service: &'a str,
    /// Names that the serving certificate covers, for webhooks by URL.
    pub(super) names: &'a [String],
}

/// Looks at the `APIService`.
pub(super) fn examine_api_service(object: &APIService, ours: &Ours, bundle: &str) -> Standing {
    if let Some(other) = injected(&object.metadata) {
        return Standing::LeftAlone(other);
    }
    let Some(spec) = &object.spec else { return Standing::Foreign { owner: "nobody".to_owned() } };
    let service = spec.service.as_ref();
    let (namespace, name) = service
        .map(|service| (service.namespace.as_deref().unwrap_or(""), service.name.as_deref().unwrap_or("")))
        .unwrap_or_default();
    if (namespace, name) != (ours.namespace, ours.service) {
        let owner = match service {
            None => "kube-apiserver itself".to_owned(),
            Some(_) => format!("Service {namespace}/{name}{}", installed_by(&object.metadata)),
        };
        return Standing::Foreign { owner };
    }
    if spec.insecure_skip_tls_verify == Some(true) {
        return Standing::LeftAlone("insecureSkipTLSVerify is set".to_owned());
    }
    if holds(spec.ca_bundle.as_ref(), bundle) {
        return Standing::InPlace;
    }
    Standing::Outdated(patch(&object.metadata, std::iter::once("/spec/caBundle".to_owned()), bundle))
}

/// Looks at the webhooks; those that point elsewhere are passed over.
pub(super) fn examine_webhooks(
    object: &ValidatingWebhookConfiguration,
    ours: &Ours,
    bundle: &str,
) -> Standing {
    if let Some(other) = injected(&object.metadata) {
        return Standing::LeftAlone(other);
    }
    let webhooks = object.webhooks.as_deref().unwrap_or_default();
    let is_ours = |webhook: &ValidatingWebhook| points_at_us(&webhook.client_config, ours);
    if !webhooks.iter().any(is_ours) {
        let owner =
            webhooks.first().map_or_else(|| "nobody".to_owned(), |webhook| target(&webhook.client_config));
        return Standing::Foreign { owner: owner + &installed_by(&object.metadata) };
    }
    let outdated = webhooks
        .iter()
        .enumerate()
        .filter(|(_, webhook)| is_ours(webhook) && !holds(webhook.client_config.ca_bundle.as_ref(), bundle))
        .map(|(index, _)| format!("/webhooks/{index}/clientConfig/caBundle"))
        .collect::<Vec<_>>();
    if outdated.is_empty() {
        return Standing::InPlace;
    }
    Standing::Outdated(patch(&object.metadata, outdated.into_iter(), bundle))
}

fn points_at_us(config: &WebhookClientConfig, ours: &Ours) -> bool {
    if let Some(service) = &config.service {
        return service.namespace == ours.namespace && service.name == ours.service;
    }
    let host = config.url.as_deref().and_then(|url| url.parse::<http::Uri>().ok());
    host.as_ref().and_then(http::Uri::host).is_some_and(|host| ours.names.iter().any(|name| name == host))
}

fn target(config: &WebhookClientConfig) -> String {
    match &config.service {
        Some(service) => format!("Service {}/{}", service.namespace, service.name),
        None => config.url.clone().unwrap_or_else(|| "nobody".to_owned()),
    }
}

fn holds(field: Option<&ByteString>, bundle: &str) -> bool {
    field.is_some_and(|field| field.0 == bundle.as_bytes())
}

/// JSON patch of the given fields. It fails if the object has changed since we looked: it may be another's by then.
fn patch(metadata: &ObjectMeta, fields: impl Iterator<Item = String>, bundle: &str) -> Value {
    let guard =
        json!({"op": "test", "path": "/metadata/resourceVersion", "value": metadata.resource_version});
    let value = ByteString(bundle.as_bytes().to_vec());
    let sets = fields.map(|path| json!({"op": "add", "path": path, "value": value}));
    std::iter::once(guard).chain(sets).collect()
}

fn injected(metadata: &ObjectMeta) -> Option<String> {
    let annotation =
        metadata.annotations.iter().flatten().find(|(key, _)| key.starts_with(INJECTED_BY_CERT_MANAGER));
    annotation.map(|(key, value)| format!("cert-manager fills it in ({key}: {value})"))
}

/// Who put it there, as far as labels and annotations tell.
fn installed_by(metadata: &ObjectMeta) -> String {
    let label = |key: &str| metadata.labels.as_ref().and_then(|labels| labels.get(key));
    let annotation = |key: &str| metadata.annotations.as_ref().and_then(|annotations| annotations.get(key));
    let known = [
        ("Helm release", annotation("meta.helm.sh/release-name")),
        ("part of", label("app.kubernetes.io/part-of")),
        ("managed by", label("app.kubernetes.io/managed-by")),
    ];
    let known: Vec<_> =
        known.iter().filter_map(|(what, value)| value.map(|value| format!("{what} {value}"))).collect();
    if known.is_empty() { String::new() } else { format!(" ({})", known.join(", ")) }
}

/// What is known of an object.
#[derive(Clone, Debug, Default)]
enum View<K> {
    #[default]
    Unknown,
    Absent,
    Present(Box<K>),
}

/// One registered object, and what was said about it last.
struct Registration<K> {
    api: Api<K>,
    name: String,
    view: View<K>,
    said: String,
}

impl<K> Registration<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    fn new(client: Client, name: String) -> Self
    where
        K: Resource<Scope = k8s_openapi::ClusterResourceScope>,
    {
        Self { api: Api::all(client), name, view: View::Unknown, said: String::new() }
    }

    fn see(&mut self, seen: Result<Option<K>, watcher::Error>) {
        match seen {
            Ok(Some(object)) => self.view = View::Present(Box::new(object)),
            Ok(None) => self.view = View::Absent,
            Err(error) => warn!(%error, kind = %K::kind(&()), name = self.name, "cannot watch"),
        }
    }

    /// Brings it in line if we lead; whether it is, or needs nothing of us.
    async fn settle(
        &mut self,
        examine: impl Fn(&K) -> Standing,
        advice: &str,
        leads: bool,
    ) -> Result<bool, kube::Error> {
        let standing = match &self.view {
            View::Unknown => return Ok(false),
            View::Absent => {
                self.inform(format!("{} {} does not exist: nothing to register", K::kind(&()), self.name));
                return Ok(true);
            }
            View::Present(object) => examine(object),
        };
        match standing {
            Standing::InPlace => {
                self.said.clear();
                Ok(true)
            }
            Standing::Foreign { owner } => {
                self.warn(format!("{} {} belongs to {owner}{advice}", K::kind(&()), self.name));
                Ok(true)
            }
            Standing::LeftAlone(why) => {
                self.inform(format!("caBundle of {} {} is left alone: {why}", K::kind(&()), self.name));
                Ok(true)
            }
            Standing::Outdated(_) if !leads => Ok(false),
            Standing::Outdated(operations) => {
                let patch = serde_json::from_value(operations).map_err(kube::Error::SerdeError)?;
                let patch = Patch::<()>::Json(patch);
                let patched = self.api.patch(&self.name, &PatchParams::default(), &patch).await?;
                info!(kind = %K::kind(&()), name = self.name, "caBundle written");
                self.view = View::Present(Box::new(patched));
                Ok(true)
            }
        }
    }

    fn inform(&mut self, text: String) {
        if self.said != text {
            info!("{text}");
            self.said = text;
        }
    }

    fn warn(&mut self, text: String) {
        if self.said != text {
            warn!("{text}");
            self.said = text;
        }
    }
}

/// Keeps the registrations in line with `bundle` until `shutdown`, and says in `published` since when they are.
pub(super) async fn keep(
    client: Client,
    config: Arc<CertsConfig>,
    clock: Clock,
    mut bundle: watch::Receiver<Option<Arc<str>>>,
    mut leads: watch::Receiver<bool>,
    published: watch::Sender<Option<Published>>,
    shutdown: CancellationToken,
) {
    let mut api_service = Registration::<APIService>::new(client.clone(), config.api_service.clone());
    let mut webhooks =
        Registration::<ValidatingWebhookConfiguration>::new(client, config.webhook_configuration.clone());
    let api_services = watch_object(api_service.api.clone(), &api_service.name).default_backoff();
    let configurations = watch_object(webhooks.api.clone(), &webhooks.name).default_backoff();
    pin_mut!(api_services, configurations);
    let names = config.names();
    loop {
        let current = bundle.borrow_and_update().clone();
        let leading = *leads.borrow_and_update();
        let mut failed = false;
        if let Some(current) = current {
            let settled = settle(&config, &names, &mut api_service, &mut webhooks, &current, leading).await;
            failed = settled.is_err();
            note(&published, settled.unwrap_or(false).then_some(current), clock());
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(seen) = api_services.next() => api_service.see(seen),
            Some(seen) = configurations.next() => webhooks.see(seen),
            Ok(()) = bundle.changed() => {}
            Ok(()) = leads.changed() => {}
            () = sleep(RETRY), if failed => {}
            else => return,
        }
    }
}

async fn settle(
    config: &CertsConfig,
    names: &[String],
    api_service: &mut Registration<APIService>,
    webhooks: &mut Registration<ValidatingWebhookConfiguration>,
    bundle: &str,
    leads: bool,
) -> Result<bool, kube::Error> {
    let namespace = config.namespace.as_str();
    let metrics = Ours { namespace, service: &config.metrics_service, names };
    let admission = Ours { namespace, service: &config.webhook_service, names };
    let advice = format!(
        ": HPAs do not read from Tandem until its spec.service is {namespace}/{}. To keep the other adapter's metrics, \
         start Tandem with --external-metrics-upstream=https://<service>.<namespace>.svc of that adapter first",
        config.metrics_service,
    );
    let first =
        api_service.settle(|object| examine_api_service(object, &metrics, bundle), &advice, leads).await;
    let second = webhooks
        .settle(|object| examine_webhooks(object, &admission, bundle), ": its caBundle is not touched", leads)
        .await;
    for error in [first.as_ref().err(), second.as_ref().err()].into_iter().flatten() {
        warn!(%error, "cannot write caBundle; trying again in {} s", RETRY.as_secs());
    }
    Ok(first? & second?)
}

/// A bundle keeps the time since which it has been published; any other starts anew.
fn note(published: &watch::Sender<Option<Published>>, bundle: Option<Arc<str>>, now: Timestamp) {
    published.send_if_modified(|former| {
        let same = former.as_ref().map(|published| &published.bundle) == bundle.as_ref();
        if !same {
            *former = bundle.map(|bundle| Published { bundle, since: now });
        }
        !same
    });
}

#[cfg(test)]
mod tests;
