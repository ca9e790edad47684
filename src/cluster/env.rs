//! The environment of the target's container, which `…FromEnv` parameters and `TriggerAuthentication.spec.env` name.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{ConfigMap, PodTemplateSpec, Secret};
use kube::{
    Api,
    api::{ApiResource, DynamicObject},
    core::GroupVersionKind,
};
use tandem_core::pods::{
    hpa::ScaleTargetGvk,
    workload::{Container, EnvFrom, EnvSource, EnvValue, Template},
};

use super::{
    Cluster, Key,
    named::{NamedError, Watched},
    scale::Target,
};

/// Why the environment cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    /// The target's kind has no pod template, or the object cannot be read.
    #[error("the environment of {kind} {name} cannot be read: {message}")]
    NoTemplate {
        /// The target's kind.
        kind: String,
        /// The target's name.
        name: String,
        /// Why.
        message: String,
    },
    /// The named container does not exist.
    #[error("container {wanted:?} does not exist in {kind} {name}; it has {present}")]
    NoContainer {
        /// The container asked for.
        wanted: String,
        /// The target's kind.
        kind: String,
        /// The target's name.
        name: String,
        /// The containers there are.
        present: String,
    },
    /// A Secret or ConfigMap it refers to cannot be read.
    #[error(transparent)]
    Named(#[from] NamedError),
}

/// Secrets and ConfigMaps that a value came from: while they are held they are watched.
#[derive(Default)]
pub struct Sources {
    /// Secrets.
    pub secrets: Vec<Arc<Watched<Secret>>>,
    /// ConfigMaps.
    pub config_maps: Vec<Arc<Watched<ConfigMap>>>,
}

impl Sources {
    /// Whether `key` is one of the Secrets.
    pub fn has_secret(&self, key: &Key) -> bool {
        self.secrets.iter().any(|watched| watched.key() == key)
    }

    /// Whether `key` is one of the ConfigMaps.
    pub fn has_config_map(&self, key: &Key) -> bool {
        self.config_maps.iter().any(|watched| watched.key() == key)
    }
}

impl Cluster {
    /// A value of a Secret; `None` where the Secret or the key is missing.
    ///
    /// # Errors
    /// The API server refuses or does not answer.
    pub async fn secret_value(
        &self,
        namespace: &str,
        name: &str,
        key: &str,
        sources: &mut Sources,
    ) -> Result<Option<String>, NamedError> {
        let secret = self.secret(namespace, name, sources).await?;
        let data = secret.and_then(|secret| secret.data.as_ref()?.get(key).cloned());
        Ok(data.map(|value| String::from_utf8_lossy(&value.0).into_owned()))
    }

    async fn secret(
        &self,
        namespace: &str,
        name: &str,
        sources: &mut Sources,
    ) -> Result<Option<Arc<Secret>>, NamedError> {
        let key = Key::new(namespace, name);
        if let Some(allowed) = self.secrets_only_in.clone().filter(|allowed| allowed != namespace) {
            return Err(NamedError::Restricted { key, allowed });
        }
        let watched = self.secrets.watch(&key);
        let secret = self.secrets.get(&watched).await;
        sources.secrets.push(watched);
        secret
    }

    /// A value of a ConfigMap; `None` where the ConfigMap or the key is missing.
    ///
    /// # Errors
    /// The API server refuses or does not answer.
    pub async fn config_map_value(
        &self,
        namespace: &str,
        name: &str,
        key: &str,
        sources: &mut Sources,
    ) -> Result<Option<String>, NamedError> {
        let watched = self.config_maps.watch(&Key::new(namespace, name));
        let map = self.config_maps.get(&watched).await;
        sources.config_maps.push(watched);
        Ok(map?.and_then(|map| map.data.as_ref()?.get(key).cloned()))
    }

    /// The environment of `container` (the first one if `None`) of `target`'s pod template: `envFrom`, then `env`,
    /// with `$(VAR)` expanded, as kubelet does. Field and resource references have no value outside a pod and are
    /// left out.
    ///
    /// # Errors
    /// See [`EnvError`].
    pub async fn environment(
        &self,
        target: &Target,
        container: Option<&str>,
        sources: &mut Sources,
    ) -> Result<BTreeMap<String, String>, EnvError> {
        let workload = self.scale.workload(target);
        let read;
        let template = if let Some(workload) = &workload {
            &workload.template
        } else {
            read = self.read_template(target).await?;
            &read
        };
        let container = pick(template, container, target)?;
        let mut env = BTreeMap::new();
        for source in &container.env_from {
            for (name, value) in self.env_from(&target.namespace, source, sources).await? {
                env.insert(format!("{}{name}", source.prefix), value);
            }
        }
        for variable in &container.env {
            let value = match &variable.value {
                EnvValue::Text(text) => Some(expand(text, &env)),
                EnvValue::Secret(at) => {
                    self.secret_value(&target.namespace, &at.name, &at.key, sources).await?
                }
                EnvValue::ConfigMap(at) => {
                    self.config_map_value(&target.namespace, &at.name, &at.key, sources).await?
                }
                EnvValue::Pod => None,
            };
            if let Some(value) = value {
                env.insert(variable.name.to_string(), value);
            }
        }
        Ok(env)
    }

    async fn env_from(
        &self,
        namespace: &str,
        source: &EnvFrom,
        sources: &mut Sources,
    ) -> Result<BTreeMap<String, String>, NamedError> {
        match &source.source {
            EnvSource::ConfigMap(name) => {
                let watched = self.config_maps.watch(&Key::new(namespace, name));
                let map = self.config_maps.get(&watched).await;
                sources.config_maps.push(watched);
                Ok(map?.and_then(|map| map.data.clone()).unwrap_or_default())
            }
            EnvSource::Secret(name) => {
                let secret = self.secret(namespace, name, sources).await?;
                let data = secret.and_then(|secret| secret.data.clone()).unwrap_or_default();
                let text = |value: k8s_openapi::ByteString| String::from_utf8_lossy(&value.0).into_owned();
                Ok(data.into_iter().map(|(name, value)| (name, text(value))).collect())
            }
        }
    }

    /// The pod template of a kind that is not watched.
    async fn read_template(&self, target: &Target) -> Result<Template, EnvError> {
        let ScaleTargetGvk { group, version, kind, resource } = &target.gvk;
        let none =
            |message: String| EnvError::NoTemplate { kind: kind.clone(), name: target.name.clone(), message };
        if group == "apps" && matches!(kind.as_str(), "Deployment" | "StatefulSet") {
            return Err(none("it does not exist".to_owned()));
        }
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let resource = ApiResource::from_gvk_with_plural(&gvk, resource);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &target.namespace, &resource);
        let object = api.get(&target.name).await.map_err(|error| none(super::message(&error)))?;
        let template = object.data.pointer("/spec/template").cloned();
        let template = template.ok_or_else(|| none("it has no spec.template".to_owned()))?;
        let template: PodTemplateSpec =
            serde_json::from_value(template).map_err(|error| none(error.to_string()))?;
        Ok(template.into())
    }
}

fn pick<'a>(
    template: &'a Template,
    wanted: Option<&str>,
    target: &Target,
) -> Result<&'a Container, EnvError> {
    let wanted = wanted.filter(|name| !name.is_empty());
    let found = match wanted {
        Some(name) => template.containers.iter().find(|container| *container.name == *name),
        None => template.containers.first(),
    };
    found.ok_or_else(|| EnvError::NoContainer {
        wanted: wanted.unwrap_or_default().to_owned(),
        kind: target.gvk.kind.clone(),
        name: target.name.clone(),
        present: template.containers.iter().map(|container| &*container.name).collect::<Vec<_>>().join(", "),
    })
}

/// Replaces `$(NAME)` by what is known, leaves an unknown one as it is, and turns `$$(` into `$(`
/// (Kubernetes API reference, EnvVar.value).
fn expand(value: &str, known: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix("$(").and_then(|rest| rest.split_once(')')) {
            match known.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[..name.len() + 3]),
            }
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion_follows_the_kubelet() {
        let known =
            BTreeMap::from([("HOST".to_owned(), "db".to_owned()), ("PORT".to_owned(), "5432".to_owned())]);
        for (value, want) in [
            ("plain", "plain"),
            ("$(HOST):$(PORT)", "db:5432"),
            ("$(MISSING)/x", "$(MISSING)/x"),
            ("$$(HOST)", "$(HOST)"),
            ("cost $5 $(HOST", "cost $5 $(HOST"),
            ("$$$(HOST)", "$db"),
        ] {
            assert_eq!(expand(value, &known), want, "{value}");
        }
    }
}
