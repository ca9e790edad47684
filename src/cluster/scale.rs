//! The scale subresource of any kind.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
    core::GroupVersionKind,
    discovery,
};
use parking_lot::RwLock;
use tandem_core::api::keda::ScaleTargetRef;
use tandem_core::pods::{hpa::ScaleTargetGvk, workload::Workload};

use super::{cache::Cache, message, model::Model};

/// Why a target cannot be scaled.
#[derive(Debug, thiserror::Error)]
pub enum ScaleError {
    /// The kind is not served.
    #[error("kind {kind} of {api_version} is not known to the API server: {message}; is its CRD installed?")]
    UnknownKind {
        /// As written.
        api_version: String,
        /// As written.
        kind: String,
        /// What discovery said.
        message: String,
    },
    /// The object does not exist.
    #[error("Target resource doesn't exist: {kind} {name}")]
    NotFound {
        /// The target's kind.
        kind: String,
        /// The target's name.
        name: String,
    },
    /// The object exists without a scale subresource.
    #[error("Target resource doesn't expose /scale subresource: {kind} {name}")]
    NoScale {
        /// The target's kind.
        kind: String,
        /// The target's name.
        name: String,
    },
    /// The API server failed.
    #[error("{action} {kind} {name} failed: {}", message(.source))]
    Api {
        /// What was tried.
        action: &'static str,
        /// The target's kind.
        kind: String,
        /// The target's name.
        name: String,
        /// Why.
        source: kube::Error,
    },
}

/// A target whose kind is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Group, version, kind and plural.
    pub gvk: ScaleTargetGvk,
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Target {
    fn resource(&self) -> ApiResource {
        let ScaleTargetGvk { group, version, kind, resource } = &self.gvk;
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), resource)
    }
}

/// Reads and writes scales.
pub struct Scales {
    client: Client,
    deployments: Arc<Cache<Workload>>,
    stateful_sets: Arc<Cache<Workload>>,
    /// What discovery answered. A kind does not change its plural, so an entry never expires.
    kinds: RwLock<HashMap<(String, String), ScaleTargetGvk>>,
}

impl Scales {
    /// The caches answer for Deployments and StatefulSets; other kinds are asked for.
    pub fn new(
        client: Client,
        deployments: Arc<Cache<Workload>>,
        stateful_sets: Arc<Cache<Workload>>,
    ) -> Self {
        Self { client, deployments, stateful_sets, kinds: RwLock::default() }
    }

    /// Without caches: everything is asked for.
    pub fn uncached(client: Client) -> Self {
        Self::new(client, Arc::new(Cache::new(0)), Arc::new(Cache::new(0)))
    }

    /// The target that `reference` names, its kind resolved (apiVersion apps/v1 and kind Deployment by default).
    ///
    /// # Errors
    /// [`ScaleError::UnknownKind`].
    pub async fn target(&self, namespace: &str, reference: &ScaleTargetRef) -> Result<Target, ScaleError> {
        let api_version = reference.api_version.as_deref().filter(|v| !v.is_empty()).unwrap_or("apps/v1");
        let kind = reference.kind.as_deref().filter(|kind| !kind.is_empty()).unwrap_or("Deployment");
        let gvk = self.kind(api_version, kind).await?;
        Ok(Target { gvk, namespace: namespace.to_owned(), name: reference.name.clone() })
    }

    /// The target of a group, in the version that the API server prefers.
    ///
    /// # Errors
    /// The kind is not served.
    pub async fn target_of(
        &self,
        namespace: &str,
        group: &str,
        kind: &str,
        name: &str,
    ) -> Result<Target, ScaleError> {
        let target = |gvk| Target { gvk, namespace: namespace.to_owned(), name: name.to_owned() };
        if group == "apps" {
            return Ok(target(self.kind("apps/v1", kind).await?));
        }
        let key = (group.to_owned(), kind.to_owned());
        let known = self.kinds.read().get(&key).cloned();
        if let Some(known) = known {
            return Ok(target(known));
        }
        let unknown = |message: String| ScaleError::UnknownKind {
            api_version: if group.is_empty() { "v1".to_owned() } else { group.to_owned() },
            kind: kind.to_owned(),
            message,
        };
        let found = match discovery::group(&self.client, group).await {
            Ok(served) => served.recommended_kind(kind),
            Err(error @ kube::Error::Discovery(_)) => return Err(unknown(message(&error))),
            Err(source) => {
                let (kind, name) = (kind.to_owned(), name.to_owned());
                return Err(ScaleError::Api { action: "finding the kind of", kind, name, source });
            }
        };
        let (resource, _) = found.ok_or_else(|| unknown("its group has no such kind".to_owned()))?;
        let ApiResource { group, version, kind, plural, .. } = resource;
        let found = ScaleTargetGvk { group, version, kind, resource: plural };
        self.kinds.write().insert(key, found.clone());
        Ok(target(found))
    }

    async fn kind(&self, api_version: &str, kind: &str) -> Result<ScaleTargetGvk, ScaleError> {
        let key = (api_version.to_owned(), kind.to_owned());
        if let Some(found) = self.kinds.read().get(&key) {
            return Ok(found.clone());
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvk = |resource: &str| ScaleTargetGvk {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            resource: resource.to_owned(),
        };
        let found = match (api_version, kind) {
            ("apps/v1", "Deployment") => gvk("deployments"),
            ("apps/v1", "StatefulSet") => gvk("statefulsets"),
            ("apps/v1", "ReplicaSet") => gvk("replicasets"),
            _ => {
                let wanted = GroupVersionKind::gvk(group, version, kind);
                let answer = discovery::pinned_kind(&self.client, &wanted).await;
                let (resource, _) = answer.map_err(|error| ScaleError::UnknownKind {
                    api_version: api_version.to_owned(),
                    kind: kind.to_owned(),
                    message: message(&error),
                })?;
                gvk(&resource.plural)
            }
        };
        self.kinds.write().insert(key, found.clone());
        Ok(found)
    }

    /// The replicas the target asks for (its spec), from memory where the kind is watched.
    ///
    /// # Errors
    /// The target does not exist, has no scale, or the API server failed.
    pub async fn replicas(&self, target: &Target) -> Result<i32, ScaleError> {
        match self.workload(target) {
            Some(workload) => Ok(workload.replicas),
            None => self.read(target).await,
        }
    }

    /// The target, where its kind is watched and it exists.
    pub fn workload(&self, target: &Target) -> Option<Arc<Workload>> {
        let cache = match (target.gvk.group.as_str(), target.gvk.kind.as_str()) {
            ("apps", "Deployment") => &self.deployments,
            ("apps", "StatefulSet") => &self.stateful_sets,
            _ => return None,
        };
        cache.get(&target.namespace, &target.name)
    }

    /// What the target makes its pods from.
    ///
    /// # Errors
    /// It does not exist, may not be read, or the API server failed.
    pub async fn model(&self, target: &Target) -> Result<Model, ScaleError> {
        let object = self.api(target).get(&target.name).await;
        object.map(|object| Model::read(target, &object)).map_err(|source| error("getting", target, source))
    }

    /// The replicas by GET of the scale subresource.
    ///
    /// # Errors
    /// As [`Self::replicas`].
    pub async fn read(&self, target: &Target) -> Result<i32, ScaleError> {
        let api = self.api(target);
        match api.get_scale(&target.name).await {
            Ok(scale) => Ok(scale.spec.and_then(|spec| spec.replicas).unwrap_or(0)),
            Err(kube::Error::Api(status)) if status.code == 404 => {
                // The object is missing, or its kind has no scale: the object itself tells which.
                let (kind, name) = (target.gvk.kind.clone(), target.name.clone());
                Err(match api.get_metadata(&target.name).await {
                    Ok(_) => ScaleError::NoScale { kind, name },
                    Err(_) => ScaleError::NotFound { kind, name },
                })
            }
            Err(source) => Err(error("getting the scale of", target, source)),
        }
    }

    /// How many pods of the target are running and ready, which a fallback with a `Value` target divides by.
    ///
    /// # Errors
    /// As [`Self::replicas`].
    pub async fn ready_pods(&self, target: &Target) -> Result<i32, ScaleError> {
        let failed = |source| error("getting the scale of", target, source);
        let scale = self.api(target).get_scale(&target.name).await.map_err(failed)?;
        let Some(selector) = scale.status.and_then(|status| status.selector) else { return Ok(0) };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &target.namespace);
        let params = ListParams::default().labels(&selector).fields("status.phase=Running").match_any();
        let pods = pods.list(&params).await.map_err(failed)?;
        Ok(i32::try_from(pods.items.iter().filter(|pod| is_ready(pod)).count()).unwrap_or(i32::MAX))
    }

    /// Sets the replicas of the target.
    ///
    /// # Errors
    /// The API server refused or failed.
    pub async fn write(&self, target: &Target, replicas: i32) -> Result<(), ScaleError> {
        let patch = serde_json::json!({"spec": {"replicas": replicas}});
        let params = PatchParams::default();
        let result = self.api(target).patch_scale(&target.name, &params, &Patch::Merge(patch)).await;
        result.map(drop).map_err(|source| error("updating the scale of", target, source))
    }

    fn api(&self, target: &Target) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &target.namespace, &target.resource())
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn error(action: &'static str, target: &Target, source: kube::Error) -> ScaleError {
    ScaleError::Api { action, kind: target.gvk.kind.clone(), name: target.name.clone(), source }
}
