//! The ConfigMap `kwok-provider-config`, and the templates that it points at.
//!
//! Source: Cluster Autoscaler, `cloudprovider/kwok/kwok_config.go` and `kwok_helpers.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::{Api, Client, api::ListParams};
use serde::Deserialize;
use serde_json::Value;

use crate::cloud::CloudError;

/// The key of the ConfigMap that holds the configuration.
const CONFIG_KEY: &str = "config";

/// The key of the templates, unless `configmap.key` names another that is there.
const TEMPLATES_KEY: &str = "templates";

/// What the configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Config {
    /// Where templates are.
    pub(super) templates: Source,
    /// What says which group a template is of.
    pub(super) grouping: Grouping,
    /// Whether nodes lack the taint that keeps ordinary pods away.
    pub(super) skip_taint: bool,
    /// The label that marks nodes with GPUs; empty if there are none.
    pub(super) gpu_label: String,
    /// The values that it may have.
    pub(super) gpu_types: Vec<String>,
}

/// Where templates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// The nodes that the cluster has.
    Cluster,
    /// A ConfigMap of the same namespace.
    ConfigMap { name: String, key: Option<String> },
}

/// What says which group a template is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Grouping {
    /// The value of this label.
    Label(String),
    /// The value of this annotation.
    Annotation(String),
}

impl Grouping {
    /// The group that a template says it is of.
    pub(super) fn group<'a>(&self, node: &'a Node) -> Option<&'a str> {
        let (map, key) = match self {
            Self::Label(key) => (&node.metadata.labels, key),
            Self::Annotation(key) => (&node.metadata.annotations, key),
        };
        map.as_ref()?.get(key).map(String::as_str).filter(|group| !group.is_empty())
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    api_version: String,
    read_nodes_from: String,
    nodegroups: Option<Nodegroups>,
    nodes: Nodes,
    configmap: Option<Templates>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Nodegroups {
    from_node_label_key: String,
    // The samples of Cluster Autoscaler have it without "Key".
    #[serde(alias = "fromNodeAnnotation")]
    from_node_annotation_key: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Nodes {
    skip_taint: bool,
    gpu_config: Option<GpuConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct GpuConfig {
    gpu_label_key: String,
    #[serde(rename = "availableGPUTypes")]
    available_gpu_types: BTreeMap<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Templates {
    name: String,
    key: String,
}

impl Config {
    /// Reads the key `config` of the ConfigMap.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let written: Written =
            serde_saphyr::from_str(text).map_err(|error| format!("no YAML of its kind: {error}"))?;
        if !matches!(written.api_version.as_str(), "" | "v1alpha1") {
            return Err(format!("apiVersion {:?} is not known; it should be v1alpha1", written.api_version));
        }
        let gpu = written.nodes.gpu_config.unwrap_or_default();
        if gpu.gpu_label_key.is_empty() != gpu.available_gpu_types.is_empty() {
            return Err("nodes.gpuConfig needs both gpuLabelKey and availableGPUTypes".to_owned());
        }
        Ok(Self {
            templates: source(&written.read_nodes_from, written.configmap)?,
            grouping: grouping(&written.nodegroups.unwrap_or_default())?,
            skip_taint: written.nodes.skip_taint,
            gpu_label: gpu.gpu_label_key,
            gpu_types: gpu.available_gpu_types.into_keys().collect(),
        })
    }
}

fn source(read_nodes_from: &str, configmap: Option<Templates>) -> Result<Source, String> {
    match read_nodes_from {
        "cluster" => Ok(Source::Cluster),
        "configmap" => {
            let Templates { name, key } = configmap.unwrap_or_default();
            if name.trim().is_empty() {
                return Err("readNodesFrom is configmap, but configmap.name is empty".to_owned());
            }
            Ok(Source::ConfigMap { name, key: Some(key).filter(|key| !key.is_empty()) })
        }
        other => Err(format!("readNodesFrom {other:?} should be cluster or configmap")),
    }
}

fn grouping(keys: &Nodegroups) -> Result<Grouping, String> {
    let label = keys.from_node_label_key.trim().to_owned();
    let annotation = keys.from_node_annotation_key.trim().to_owned();
    match (label.is_empty(), annotation.is_empty()) {
        (false, true) => Ok(Grouping::Label(label)),
        (true, false) => Ok(Grouping::Annotation(annotation)),
        (true, true) => {
            Err("neither nodegroups.fromNodeLabelKey nor nodegroups.fromNodeAnnotationKey is given"
                .to_owned())
        }
        (false, false) => {
            Err("nodegroups has both fromNodeLabelKey and fromNodeAnnotationKey, where one is possible"
                .to_owned())
        }
    }
}

/// The nodes of a YAML text: documents of one each, or a list.
pub(super) fn templates(text: &str) -> Result<Vec<Node>, String> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| format!("no YAML: {error}"))?;
    let mut nodes = Vec::new();
    for (index, mut document) in documents.into_iter().enumerate() {
        let place = |what: &str| format!("document {}{what}", index + 1);
        match document["kind"].as_str() {
            Some("Node") => nodes.push(node(&place(""), document)?),
            Some("List" | "NodeList") => {
                let Value::Array(items) = document["items"].take() else {
                    return Err(format!("{} has no items", place("")));
                };
                for (item, value) in items.into_iter().enumerate() {
                    nodes.push(node(&place(&format!(", item {}", item + 1)), value)?);
                }
            }
            kind => return Err(format!("{} is no Node and no List, but {kind:?}", place(""))),
        }
    }
    Ok(nodes)
}

fn node(place: &str, value: Value) -> Result<Node, String> {
    if let Some(kind) = value["kind"].as_str().filter(|kind| *kind != "Node") {
        return Err(format!("{place} is no Node, but a {kind}"));
    }
    serde_json::from_value(value).map_err(|error| format!("{place} is no Node: {error}"))
}

/// Reads the configuration and its templates.
///
/// # Errors
/// The API server refused, or what is written cannot be used.
pub(super) async fn load(
    client: &Client,
    namespace: &str,
    config_map: &str,
) -> Result<(Config, Vec<Node>), CloudError> {
    let text = data(client, namespace, config_map, CONFIG_KEY, None).await?;
    let wrong = |problem| {
        CloudError::configuration(format!("ConfigMap {namespace}/{config_map}, key {CONFIG_KEY}"), problem)
    };
    let config = Config::read(&text).map_err(wrong)?;
    let nodes = match &config.templates {
        Source::Cluster => {
            let all: Api<Node> = Api::all(client.clone());
            let list = all.list(&ListParams::default()).await;
            list.map_err(|error| CloudError::from_api("list nodes", &error))?.items
        }
        Source::ConfigMap { name, key } => {
            let text = data(client, namespace, name, TEMPLATES_KEY, key.as_deref()).await?;
            let what = format!("node templates in ConfigMap {namespace}/{name}");
            templates(&text).map_err(|problem| CloudError::configuration(what, problem))?
        }
    };
    Ok((config, nodes))
}

/// What the ConfigMap holds under `preferred` if that is there, else under `key`.
async fn data(
    client: &Client,
    namespace: &str,
    name: &str,
    key: &str,
    preferred: Option<&str>,
) -> Result<String, CloudError> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let call = format!("get configmaps {namespace}/{name}");
    let map = maps.get_opt(name).await.map_err(|error| CloudError::from_api(call, &error))?;
    let what = format!("ConfigMap {namespace}/{name}");
    let Some(map) = map else {
        let hint = "it does not exist; the environment variable KWOK_PROVIDER_CONFIGMAP names another";
        return Err(CloudError::configuration(what, hint));
    };
    let mut data = map.data.unwrap_or_default();
    preferred
        .and_then(|preferred| data.remove(preferred))
        .or_else(|| data.remove(key))
        .filter(|text| !text.trim().is_empty())
        .ok_or_else(|| CloudError::configuration(what, format!("key {key} is absent or empty")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cluster Autoscaler's sample of groups by label, in our words.
    const BY_LABEL: &str = "
apiVersion: v1alpha1
readNodesFrom: configmap
nodegroups: {fromNodeLabelKey: node.kubernetes.io/instance-type}
nodes:
  gpuConfig:
    gpuLabelKey: k8s.amazonaws.com/accelerator
    availableGPUTypes: {nvidia-tesla-k80: {}, nvidia-tesla-p100: {}}
configmap: {name: kwok-provider-templates, key: kwok-config}
kwok: {}
";

    #[test]
    fn a_configuration_is_read() {
        let wanted = Config {
            templates: Source::ConfigMap {
                name: "kwok-provider-templates".to_owned(),
                key: Some("kwok-config".to_owned()),
            },
            grouping: Grouping::Label("node.kubernetes.io/instance-type".to_owned()),
            skip_taint: false,
            gpu_label: "k8s.amazonaws.com/accelerator".to_owned(),
            gpu_types: vec!["nvidia-tesla-k80".to_owned(), "nvidia-tesla-p100".to_owned()],
        };
        assert_eq!(Config::read(BY_LABEL), Ok(wanted));
        let cluster =
            "{readNodesFrom: cluster, nodegroups: {fromNodeAnnotation: pool}, nodes: {skipTaint: true}}";
        let config = Config::read(cluster).unwrap();
        assert_eq!(config.templates, Source::Cluster);
        assert_eq!(config.grouping, Grouping::Annotation("pool".to_owned()));
        assert!(config.skip_taint);
    }

    #[test]
    fn a_configuration_that_cannot_be_used_says_why() {
        for (text, part) in [
            ("{", "no YAML"),
            ("{apiVersion: v2, readNodesFrom: cluster}", "apiVersion \"v2\" is not known"),
            ("{readNodesFrom: moon}", "readNodesFrom \"moon\" should be cluster or configmap"),
            ("{readNodesFrom: configmap}", "configmap.name is empty"),
            ("{readNodesFrom: cluster}", "neither nodegroups.fromNodeLabelKey nor"),
            (
                "{readNodesFrom: cluster, nodegroups: {fromNodeLabelKey: a, fromNodeAnnotationKey: b}}",
                "has both fromNodeLabelKey and",
            ),
            (
                "{readNodesFrom: cluster, nodegroups: {fromNodeLabelKey: a}, nodes: {gpuConfig: {gpuLabelKey: g}}}",
                "needs both gpuLabelKey and availableGPUTypes",
            ),
        ] {
            let error = Config::read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn templates_are_documents_or_a_list() {
        let names = |text: &str| {
            let nodes = templates(text)?;
            Ok::<_, String>(
                nodes.into_iter().map(|node| node.metadata.name.unwrap_or_default()).collect::<Vec<_>>(),
            )
        };
        let list =
            "{kind: List, items: [{kind: Node, metadata: {name: a}}, {kind: Node, metadata: {name: b}}]}";
        assert_eq!(names(list), Ok(vec!["a".to_owned(), "b".to_owned()]));
        let documents = "{kind: Node, metadata: {name: a}}\n---\n{kind: Node, metadata: {name: b}}\n";
        assert_eq!(names(documents), Ok(vec!["a".to_owned(), "b".to_owned()]));
        for (text, part) in [
            ("{kind: Pod}", "document 1 is no Node and no List, but Some(\"Pod\")"),
            ("{kind: List, items: [{kind: Node}, {kind: Pod}]}", "document 1, item 2 is no Node, but a Pod"),
            ("{kind: List}", "document 1 has no items"),
            ("{kind: Node, spec: {taints: 5}}", "document 1 is no Node: "),
            ("a: [", "no YAML: "),
        ] {
            let error = names(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
