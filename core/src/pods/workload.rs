//! What decisions read of a workload and its pods. A cluster has thousands of Deployments, most of them of no interest:
//! what is kept of one is a tenth of what the API server sends.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, StatefulSet},
        core::v1::{self, PodTemplateSpec},
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};

use crate::quantity::parse_milli;

/// A Deployment or StatefulSet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Its name.
    pub name: Box<str>,
    /// The replicas it asks for; the API server defaults an absent count to 1.
    pub replicas: i32,
    /// Counts up with its spec (`metadata.generation`).
    pub generation: i64,
    /// What its pods are made from.
    pub template: Template,
}

/// A pod template.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template {
    /// The containers, in order.
    pub containers: Box<[Container]>,
    /// What the pod as a whole requests.
    pub requests: Requests,
}

/// A container of a pod template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: Box<str>,
    /// `envFrom`, in order.
    pub env_from: Box<[EnvFrom]>,
    /// `env`, in order.
    pub env: Box<[EnvVar]>,
    /// What it requests, or limits, which requests as much.
    pub requests: Requests,
}

/// The resources of which more than zero is requested.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// Processor time.
    pub cpu: bool,
    /// Memory.
    pub memory: bool,
}

impl Requests {
    /// Whether `resource` (`cpu` or `memory`) is among them.
    pub fn has(self, resource: &str) -> bool {
        match resource {
            "cpu" => self.cpu,
            "memory" => self.memory,
            _ => false,
        }
    }

    /// The resources of which one of `lists` holds more than zero.
    pub fn of(lists: &[Option<&BTreeMap<String, Quantity>>]) -> Self {
        let has = |resource: &str| {
            let found = lists.iter().flatten().filter_map(|list| list.get(resource));
            found.filter_map(|quantity| parse_milli(&quantity.0).ok()).any(|milli| milli > 0)
        };
        Self { cpu: has("cpu"), memory: has("memory") }
    }
}

/// A variable of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvVar {
    /// Its name.
    pub name: Box<str>,
    /// Where its value is found.
    pub value: EnvValue,
}

/// Where the value of a variable is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// Here, with references to other variables.
    Text(Box<str>),
    /// In a Secret.
    Secret(KeyOf),
    /// In a ConfigMap.
    ConfigMap(KeyOf),
    /// Only inside a pod.
    Pod,
}

/// A key of a Secret or ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyOf {
    /// The Secret or ConfigMap.
    pub name: Box<str>,
    /// The key.
    pub key: Box<str>,
}

/// All keys of a Secret or ConfigMap as variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvFrom {
    /// Put before each key.
    pub prefix: Box<str>,
    /// The Secret or ConfigMap.
    pub source: EnvSource,
}

/// A Secret or a ConfigMap, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvSource {
    /// A Secret.
    Secret(Box<str>),
    /// A ConfigMap.
    ConfigMap(Box<str>),
}

impl From<Deployment> for Workload {
    fn from(object: Deployment) -> Self {
        Self::new(object.metadata, object.spec.replicas, object.spec.template)
    }
}

impl From<StatefulSet> for Workload {
    fn from(object: StatefulSet) -> Self {
        Self::new(object.metadata, object.spec.replicas, object.spec.template)
    }
}

impl Workload {
    fn new(metadata: ObjectMeta, replicas: Option<i32>, template: PodTemplateSpec) -> Self {
        Self {
            name: metadata.name.unwrap_or_default().into(),
            replicas: replicas.unwrap_or(1),
            generation: metadata.generation.unwrap_or_default(),
            template: template.into(),
        }
    }
}

impl From<PodTemplateSpec> for Template {
    fn from(template: PodTemplateSpec) -> Self {
        let Some(spec) = template.spec else { return Self::default() };
        let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        Self {
            requests: Requests::of(&[requests]),
            containers: spec.containers.into_iter().map(Container::from).collect(),
        }
    }
}

impl From<v1::Container> for Container {
    fn from(container: v1::Container) -> Self {
        let resources = container.resources.unwrap_or_default();
        Self {
            name: container.name.into(),
            env_from: container.env_from.into_iter().flatten().filter_map(env_from).collect(),
            env: container.env.into_iter().flatten().map(env_var).collect(),
            requests: Requests::of(&[resources.requests.as_ref(), resources.limits.as_ref()]),
        }
    }
}

fn env_from(source: v1::EnvFromSource) -> Option<EnvFrom> {
    let config_map = source.config_map_ref.map(|reference| EnvSource::ConfigMap(reference.name.into()));
    let secret = || source.secret_ref.map(|reference| EnvSource::Secret(reference.name.into()));
    Some(EnvFrom { prefix: source.prefix.unwrap_or_default().into(), source: config_map.or_else(secret)? })
}

fn env_var(variable: v1::EnvVar) -> EnvVar {
    let value = match variable.value_from {
        None => EnvValue::Text(variable.value.unwrap_or_default().into()),
        Some(v1::EnvVarSource { secret_key_ref: Some(at), .. }) => {
            EnvValue::Secret(KeyOf { name: at.name.into(), key: at.key.into() })
        }
        Some(v1::EnvVarSource { config_map_key_ref: Some(at), .. }) => {
            EnvValue::ConfigMap(KeyOf { name: at.name.into(), key: at.key.into() })
        }
        Some(_) => EnvValue::Pod,
    };
    EnvVar { name: variable.name.into(), value }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_decisions_read_is_kept() {
        let object: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "web"},
            "spec": {"selector": {}, "template": {"spec": {
                "resources": {"requests": {"cpu": "1"}},
                "containers": [
                    {
                        "name": "app",
                        "envFrom": [
                            {"prefix": "C_", "configMapRef": {"name": "settings"}},
                            {"secretRef": {"name": "keys"}}
                        ],
                        "env": [
                            {"name": "A", "value": "$(B)"},
                            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "b"}}},
                            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "c"}}},
                            {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                            {"name": "E"}
                        ],
                        "resources": {"requests": {"cpu": "0"}, "limits": {"memory": "1Mi"}}
                    },
                    {"name": "sidecar"}
                ]
            }}}
        }))
        .unwrap();
        let workload = Workload::from(object);
        assert_eq!((&*workload.name, workload.replicas), ("web", 1));
        let Template { containers, requests } = workload.template;
        assert_eq!(requests, Requests { cpu: true, memory: false });
        let key = |name: &str, key: &str| KeyOf { name: name.into(), key: key.into() };
        let variable = |name: &str, value| EnvVar { name: name.into(), value };
        let app = Container {
            name: "app".into(),
            env_from: [
                EnvFrom { prefix: "C_".into(), source: EnvSource::ConfigMap("settings".into()) },
                EnvFrom { prefix: "".into(), source: EnvSource::Secret("keys".into()) },
            ]
            .into(),
            env: [
                variable("A", EnvValue::Text("$(B)".into())),
                variable("B", EnvValue::Secret(key("keys", "b"))),
                variable("C", EnvValue::ConfigMap(key("settings", "c"))),
                variable("D", EnvValue::Pod),
                variable("E", EnvValue::Text("".into())),
            ]
            .into(),
            requests: Requests { cpu: false, memory: true },
        };
        assert_eq!(containers[0], app);
        assert_eq!(&*containers[1].name, "sidecar");
        assert_eq!(containers[1].requests, Requests::default());
    }
}
