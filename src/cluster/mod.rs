//! Observe: the cluster as this process sees it. Watches fill caches, everything else reads memory.

pub mod auth;
pub mod cache;
pub mod client;
pub mod env;
pub mod mirror;
pub mod named;
pub mod reader;
pub mod scale;
pub mod shapes;
pub mod world;

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, LimitRange, Secret},
};
use kube::{Client, Resource, ResourceExt};
use tandem_core::api::keda::{ClusterTriggerAuthentication, ScaledJob, ScaledObject, TriggerAuthentication};
use tokio::sync::mpsc;

use cache::{Cache, Scope};
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
    pub deployments: Arc<Cache<Deployment>>,
    /// StatefulSets: replicas and container environments.
    pub stateful_sets: Arc<Cache<StatefulSet>>,
    /// LimitRanges (their defaults count as resource requests at admission).
    pub limit_ranges: Arc<Cache<LimitRange>>,
    /// Secrets, each watched by its name while a trigger uses it.
    pub secrets: Arc<Named<Secret>>,
    /// ConfigMaps, each watched by its name while a trigger uses it.
    pub config_maps: Arc<Named<ConfigMap>>,
    /// Scale subresources.
    pub scale: scale::Scales,
    /// Where a ClusterTriggerAuthentication's Secrets live (`KEDA_CLUSTER_OBJECT_NAMESPACE`).
    pub cluster_object_namespace: String,
}

impl Cluster {
    /// Starts all watches. Changes arrive on the returned channel, also those of the first listing.
    pub fn start(
        client: &Client,
        namespaces: &[String],
        labels: Option<&str>,
        cluster_object_namespace: String,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Change>) {
        let (changes, receiver) = mpsc::unbounded_channel();
        let scope = Scope { namespaces: namespaces.to_vec(), labels: None };
        let selected = Scope { labels: labels.map(str::to_owned), ..scope.clone() };
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
        let deployments = cache::watch_builtin::<Deployment>(client, &scope, strip_deployment, |_| {});
        let stateful_sets = cache::watch_builtin::<StatefulSet>(client, &scope, strip_stateful_set, |_| {});
        let cluster = Self {
            client: client.clone(),
            scaled_objects: cache::watch_custom::<ScaledObject>(client, &selected, move |object| {
                scaled_object(Key::of(object));
            }),
            scaled_jobs: cache::watch_custom::<ScaledJob>(client, &selected, move |object| {
                scaled_job(Key::of(object));
            }),
            authentications: cache::watch_custom::<TriggerAuthentication>(client, &scope, move |object| {
                authentication(Key::of(object));
            }),
            cluster_authentications: cache::watch_cluster::<ClusterTriggerAuthentication>(
                client,
                move |object| {
                    cluster_authentication(Key::of(object));
                },
            ),
            hpas: cache::watch_builtin::<HorizontalPodAutoscaler>(client, &scope, strip_hpa, move |hpa| {
                if let Some(owner) = scaled_object_owner(hpa) {
                    owned_hpa(owner);
                }
            }),
            scale: scale::Scales::new(client.clone(), deployments.clone(), stateful_sets.clone()),
            deployments,
            stateful_sets,
            limit_ranges: cache::watch_builtin::<LimitRange>(client, &scope, |_| {}, |_| {}),
            secrets: Named::new(client.clone(), send(Change::Secret)),
            config_maps: Named::new(client.clone(), send(Change::ConfigMap)),
            cluster_object_namespace,
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

/// Drops what no decision reads; a cache of 15,000 Deployments must not hold their volumes and histories.
fn strip_deployment(deployment: &mut Deployment) {
    deployment.status = None;
    deployment.metadata.annotations = None;
    strip_template(&mut deployment.spec.template);
}

fn strip_stateful_set(set: &mut StatefulSet) {
    set.status = None;
    set.metadata.annotations = None;
    set.spec.volume_claim_templates = None;
    strip_template(&mut set.spec.template);
}

fn strip_template(template: &mut k8s_openapi::api::core::v1::PodTemplateSpec) {
    template.metadata = None;
    let Some(spec) = &mut template.spec else { return };
    let containers = spec.containers.drain(..).map(|container| k8s_openapi::api::core::v1::Container {
        name: container.name,
        env: container.env,
        env_from: container.env_from,
        resources: container.resources,
        ..Default::default()
    });
    *spec = k8s_openapi::api::core::v1::PodSpec {
        containers: containers.collect(),
        resources: spec.resources.take(),
        ..Default::default()
    };
}

fn strip_hpa(hpa: &mut HorizontalPodAutoscaler) {
    // The current metrics change with every sync and decide nothing here; of the conditions only one is read.
    if let Some(status) = &mut hpa.status {
        status.current_metrics = None;
        if let Some(conditions) = &mut status.conditions {
            conditions.retain(|condition| condition.type_ == "ScalingActive");
        }
    }
}
