//! Observe: the cluster as this process sees it. Watches fill caches, everything else reads memory.

pub mod auth;
pub mod cache;
pub mod client;
pub mod conditions;
mod devices;
pub mod env;
pub mod finalizer;
pub mod mirror;
pub mod model;
pub mod named;
pub mod pod_group;
pub mod reader;
mod retry;
pub mod scale;
pub mod shapes;
mod storage;
mod workloads;
pub mod world;

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, LimitRange, Secret},
};
use kube::{Client, Resource, ResourceExt};
use tandem_core::{
    api::keda::{ClusterTriggerAuthentication, ScaledJob, ScaledObject, TriggerAuthentication},
    pods::workload::Workload,
};
use tokio::sync::mpsc;

use cache::{Cache, Scope, unmanaged};
use named::Named;

/// Namespace and name of an object. Cluster-scoped objects have an empty namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The namespace, or empty.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Key {
    /// A key from its parts.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The key of an object.
    pub fn of<K: Resource>(object: &K) -> Self {
        Self { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Something that a controller may have to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A ScaledObject appeared, changed or went.
    ScaledObject(Key),
    /// A ScaledJob appeared, changed or went.
    ScaledJob(Key),
    /// An HPA that the named ScaledObject owns changed or went.
    OwnedHpa(Key),
    /// A TriggerAuthentication (or, with an empty namespace, a ClusterTriggerAuthentication) changed.
    Authentication(Key),
    /// The data of a Secret that a trigger uses changed.
    Secret(Key),
    /// The data of a ConfigMap that a trigger uses changed.
    ConfigMap(Key),
}

/// Every cache, filled by watches that start with [`Cluster::start`].
pub struct Cluster {
    /// The API client.
    pub client: Client,
    /// ScaledObjects of the watched namespaces.
    pub scaled_objects: Arc<Cache<ScaledObject>>,
    /// ScaledJobs of the watched namespaces.
    pub scaled_jobs: Arc<Cache<ScaledJob>>,
    /// TriggerAuthentications of the watched namespaces.
    pub authentications: Arc<Cache<TriggerAuthentication>>,
    /// ClusterTriggerAuthentications.
    pub cluster_authentications: Arc<Cache<ClusterTriggerAuthentication>>,
    /// HPAs, ours and others'.
    pub hpas: Arc<Cache<HorizontalPodAutoscaler>>,
    /// Deployments: replicas and container environments.
    pub deployments: Arc<Cache<Workload>>,
    /// StatefulSets: replicas and container environments.
    pub stateful_sets: Arc<Cache<Workload>>,
    /// LimitRanges (their defaults count as resource requests at admission).
    pub limit_ranges: Arc<Cache<LimitRange>>,
    /// Secrets, each watched by its name while a trigger uses it.
    pub secrets: Arc<Named<Secret>>,
    /// ConfigMaps, each watched by its name while a trigger uses it.
    pub config_maps: Arc<Named<ConfigMap>>,
    /// Scale subresources.
    pub scale: Arc<scale::Scales>,
    /// Where a ClusterTriggerAuthentication's Secrets live (`KEDA_CLUSTER_OBJECT_NAMESPACE`).
    pub cluster_object_namespace: String,
    /// The one namespace whose Secrets are read (`KEDA_RESTRICT_SECRET_ACCESS`); `None` for all.
    pub secrets_only_in: Option<String>,
}

/// What is watched, and what may be read.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Namespaces to watch; empty means all.
    pub namespaces: Vec<String>,
    /// Label selector of ScaledObjects and ScaledJobs.
    pub labels: Option<String>,
    /// Label selector of TriggerAuthentications and ClusterTriggerAuthentications.
    pub authentication_labels: Option<String>,
    /// See [`Cluster::cluster_object_namespace`].
    pub cluster_object_namespace: String,
    /// See [`Cluster::secrets_only_in`].
    pub secrets_only_in: Option<String>,
}

impl Cluster {
    /// Starts all watches. Changes arrive on the returned channel, also those of the first listing.
    pub fn start(client: &Client, settings: Settings) -> (Arc<Self>, mpsc::UnboundedReceiver<Change>) {
        let (changes, receiver) = mpsc::unbounded_channel();
        let Settings { namespaces, labels, authentication_labels, cluster_object_namespace, secrets_only_in } =
            settings;
        let scope = Scope { namespaces, labels: None };
        let selected = Scope { labels, ..scope.clone() };
        let authenticating = Scope { labels: authentication_labels, ..scope.clone() };
        let send = |make: fn(Key) -> Change| {
            let changes = changes.clone();
            // The receiver lives as long as the process; after it, a change has no reader and no meaning.
            move |key: Key| drop(changes.send(make(key)))
        };

        let scaled_object = send(Change::ScaledObject);
        let scaled_job = send(Change::ScaledJob);
        let authentication = send(Change::Authentication);
        let cluster_authentication = send(Change::Authentication);
        let owned_hpa = send(Change::OwnedHpa);
        let deployments =
            cache::watch_builtin(client, &scope, <Workload as From<Deployment>>::from, |_, _| {});
        let stateful_sets =
            cache::watch_builtin(client, &scope, <Workload as From<StatefulSet>>::from, |_, _| {});
        let cluster = Self {
            client: client.clone(),
            scaled_objects: cache::watch_custom::<ScaledObject>(client, &selected, move |key, _| {
                scaled_object(key);
            }),
            scaled_jobs: cache::watch_custom::<ScaledJob>(client, &selected, move |key, _| {
                scaled_job(key);
            }),
            authentications: cache::watch_custom::<TriggerAuthentication>(
                client,
                &authenticating,
                move |key, _| {
                    authentication(key);
                },
            ),
            cluster_authentications: cache::watch_cluster_selected::<ClusterTriggerAuthentication>(
                client,
                &authenticating,
                move |key, _| {
                    cluster_authentication(key);
                },
            ),
            hpas: cache::watch_builtin(client, &scope, slim_hpa, move |_, hpa| {
                if let Some(owner) = scaled_object_owner(hpa) {
                    owned_hpa(owner);
                }
            }),
            scale: Arc::new(scale::Scales::new(client.clone(), deployments.clone(), stateful_sets.clone())),
            deployments,
            stateful_sets,
            limit_ranges: cache::watch_builtin(client, &scope, unmanaged::<LimitRange>, |_, _| {}),
            secrets: Named::new(client.clone(), send(Change::Secret)),
            config_maps: Named::new(client.clone(), send(Change::ConfigMap)),
            cluster_object_namespace,
            secrets_only_in,
        };
        (Arc::new(cluster), receiver)
    }

    /// Waits until every cache holds its first listing.
    pub async fn synced(&self) {
        tokio::join!(
            self.scaled_objects.synced(),
            self.scaled_jobs.synced(),
            self.authentications.synced(),
            self.cluster_authentications.synced(),
            self.hpas.synced(),
            self.deployments.synced(),
            self.stateful_sets.synced(),
            self.limit_ranges.synced(),
        );
    }

    /// Whether every cache holds its first listing.
    pub fn is_synced(&self) -> bool {
        self.scaled_objects.is_synced()
            && self.hpas.is_synced()
            && self.deployments.is_synced()
            && self.stateful_sets.is_synced()
            && self.authentications.is_synced()
    }
}

/// What the API server said, without the shape it was said in.
pub fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        error => error.to_string(),
    }
}

/// The ScaledObject that controls `hpa`, if one does.
pub fn scaled_object_owner(hpa: &HorizontalPodAutoscaler) -> Option<Key> {
    let owner = hpa
        .owner_references()
        .iter()
        .find(|owner| owner.kind == "ScaledObject" && owner.api_version.starts_with("keda.sh/"))?;
    Some(Key::new(&hpa.namespace()?, &owner.name))
}

/// What decisions read of an HPA. Its current metrics change with every sync; of its conditions only one is looked at.
fn slim_hpa(hpa: HorizontalPodAutoscaler) -> HorizontalPodAutoscaler {
    let mut hpa = unmanaged(hpa);
    if let Some(metrics) = &mut hpa.spec.metrics {
        // A list grows to four places of 0.8 kB each; most HPAs have one metric.
        metrics.shrink_to_fit();
    }
    if let Some(status) = &mut hpa.status {
        status.current_metrics = None;
        if let Some(conditions) = &mut status.conditions {
            conditions.retain(|condition| condition.type_ == "ScalingActive");
            conditions.shrink_to_fit();
        }
    }
    hpa
}
