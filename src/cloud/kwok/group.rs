//! Groups of nodes that kwok plays: their bounds, and the node that each new one is made from.

use std::collections::{BTreeMap, btree_map::Entry};

use k8s_openapi::api::core::v1::{Node, Taint};
use kube::api::ObjectMeta;

use super::config::Config;

/// The annotation by which kwok takes a node for its own, and its value.
pub(super) const FAKE: (&str, &str) = ("kwok.x-k8s.io/node", "fake");

/// The annotation that names a node's group.
pub(super) const GROUP: &str = "cluster-autoscaler.kwok.nodegroup/name";

const MIN: &str = "cluster-autoscaler.kwok.nodegroup/min-count";
const MAX: &str = "cluster-autoscaler.kwok.nodegroup/max-count";
const DESIRED: &str = "cluster-autoscaler.kwok.nodegroup/desired-count";

/// Where kwok answers for the metrics of a node.
const METRICS_PATH: &str = "metrics.k8s.io/resource-metrics-path";

const HOSTNAME: &str = "kubernetes.io/hostname";

/// The bounds of a group whose template has none (Cluster Autoscaler, `kwok_helpers.go`).
const DEFAULT_BOUNDS: (u32, u32) = (0, 200);

/// A group, and what its nodes are made from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    /// It never gets smaller, in nodes.
    pub(super) min: u32,
    /// It never gets larger, in nodes.
    pub(super) max: u32,
    template: Node,
}

/// The groups that the templates make, by name, and those that cannot be made, with the reason. The first template of a
/// group is the one that counts.
///
/// Unlike Cluster Autoscaler, which adds the time of its start to the name, so that nodes of an earlier run are
/// nobody's: the name is the value of the label or annotation, or that of [`GROUP`] where a template has it.
pub(super) fn groups(
    templates: Vec<Node>,
    config: &Config,
) -> (BTreeMap<String, Group>, BTreeMap<String, String>) {
    let mut groups = BTreeMap::new();
    let mut broken = BTreeMap::new();
    for template in templates {
        let Some(by_key) = config.grouping.group(&template) else { continue };
        let name = annotation(&template, GROUP).unwrap_or(by_key).to_owned();
        if broken.contains_key(&name) {
            continue;
        }
        let Entry::Vacant(free) = groups.entry(name) else { continue };
        match bounds(&template) {
            Ok((min, max)) => {
                let template = prepared(template, free.key(), config.skip_taint);
                free.insert(Group { min, max, template });
            }
            Err(problem) => {
                broken.insert(free.into_key(), problem);
            }
        }
    }
    (groups, broken)
}

fn annotation<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.metadata.annotations.as_ref()?.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

fn bounds(template: &Node) -> Result<(u32, u32), String> {
    let name = template.metadata.name.as_deref().unwrap_or_default();
    let size = |key: &str, default: u32| match annotation(template, key) {
        Some(text) => text.parse::<u32>().map_err(|_| {
            format!("annotation {key} of template {name} is {text:?}, which is no number of nodes")
        }),
        None => Ok(default),
    };
    let (min, max) = (size(MIN, DEFAULT_BOUNDS.0)?, size(MAX, DEFAULT_BOUNDS.1)?);
    if max < min {
        return Err(format!("template {name}: {MAX} {max} is below {MIN} {min}"));
    }
    let desired = size(DESIRED, min)?;
    if !(min..=max).contains(&desired) {
        return Err(format!("template {name}: {DESIRED} {desired} is not from {min} to {max}"));
    }
    Ok((min, max))
}

/// The template without what belongs to the very node that it was read from.
fn prepared(template: Node, group: &str, skip_taint: bool) -> Node {
    let mut annotations = template.metadata.annotations.unwrap_or_default();
    annotations.insert(FAKE.0.to_owned(), FAKE.1.to_owned());
    annotations.insert(GROUP.to_owned(), group.to_owned());
    let mut spec = template.spec.unwrap_or_default();
    (spec.pod_cidr, spec.pod_cidrs, spec.unschedulable) = (None, None, None);
    let mut taints = spec.taints.take().unwrap_or_default();
    taints.retain(|taint| !is_of_the_moment(taint));
    if !skip_taint {
        taints.retain(|taint| taint.key != "kwok-provider");
        taints.push(Taint {
            key: "kwok-provider".to_owned(),
            value: Some("true".to_owned()),
            effect: "NoSchedule".to_owned(),
            time_added: None,
        });
    }
    spec.taints = Some(taints);
    let mut status = template.status.unwrap_or_default();
    (status.images, status.addresses) = (None, None);
    (status.volumes_attached, status.volumes_in_use) = (None, None);
    if let Some(info) = &mut status.node_info {
        "fake".clone_into(&mut info.kubelet_version);
    }
    let metadata = ObjectMeta {
        labels: template.metadata.labels,
        annotations: Some(annotations),
        ..ObjectMeta::default()
    };
    Node { metadata, spec: Some(spec), status: Some(status) }
}

/// Taints that say how a node fares, or that an autoscaler is about to remove it.
fn is_of_the_moment(taint: &Taint) -> bool {
    taint.key.starts_with("node.kubernetes.io/")
        || ["ToBeDeletedByClusterAutoscaler", "DeletionCandidateOfClusterAutoscaler"].contains(&&*taint.key)
}

impl Group {
    /// A node of this group.
    pub(super) fn node(&self, name: &str) -> Node {
        let mut node = self.template.clone();
        node.metadata.name = Some(name.to_owned());
        if let Some(annotations) = &mut node.metadata.annotations {
            annotations.insert(METRICS_PATH.to_owned(), format!("/metrics/nodes/{name}/metrics/resource"));
        }
        if let Some(hostname) = node.metadata.labels.as_mut().and_then(|labels| labels.get_mut(HOSTNAME)) {
            name.clone_into(hostname);
        }
        if let Some(spec) = &mut node.spec {
            spec.provider_id = Some(provider_id(name));
        }
        node
    }
}

/// `spec.providerID` of a node that kwok plays.
pub(super) fn provider_id(node: &str) -> String {
    format!("kwok:{node}")
}

#[cfg(test)]
mod tests {
    use super::{super::config::templates, *};

    fn config(text: &str) -> Config {
        Config::read(text).unwrap()
    }

    fn by_label() -> Config {
        config("{readNodesFrom: cluster, nodegroups: {fromNodeLabelKey: pool}}")
    }

    #[test]
    fn a_group_is_named_by_label_or_annotation() {
        let nodes = templates(
            "
{kind: Node, metadata: {name: n1, labels: {pool: a}, annotations: {zone: east}}}
---
{kind: Node, metadata: {name: n2, labels: {pool: a}, annotations: {zone: west}}}
---
{kind: Node, metadata: {name: n3, labels: {pool: b}, annotations: {cluster-autoscaler.kwok.nodegroup/name: own}}}
---
{kind: Node, metadata: {name: n4, labels: {pool: ''}}}
",
        )
        .unwrap();
        let names = |config: &Config| groups(nodes.clone(), config).0.into_keys().collect::<Vec<_>>();
        assert_eq!(names(&by_label()), ["a", "own"]);
        let by_annotation = config("{readNodesFrom: cluster, nodegroups: {fromNodeAnnotationKey: zone}}");
        assert_eq!(names(&by_annotation), ["east", "west"]);
    }

    #[test]
    fn bounds_come_from_annotations() {
        let read = |annotations: &str| {
            let text = format!(
                "{{kind: Node, metadata: {{name: n1, labels: {{pool: a}}, annotations: {{{annotations}}}}}}}"
            );
            let (groups, broken) = groups(templates(&text).unwrap(), &by_label());
            match groups.get("a") {
                Some(group) => Ok((group.min, group.max)),
                None => Err(broken["a"].clone()),
            }
        };
        let key = |name: &str, value: &str| format!("cluster-autoscaler.kwok.nodegroup/{name}: '{value}'");
        assert_eq!(read(""), Ok((0, 200)));
        assert_eq!(read(&format!("{}, {}", key("min-count", "1"), key("max-count", "5"))), Ok((1, 5)));
        for (annotations, part) in [
            (key("min-count", "few"), "min-count of template n1 is \"few\", which is no number"),
            (key("max-count", "-1"), "max-count of template n1 is \"-1\""),
            (key("min-count", "201"), "max-count 200 is below"),
            (key("desired-count", "201"), "desired-count 201 is not from 0 to 200"),
        ] {
            let error = read(&annotations).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_node_has_nothing_of_the_one_it_was_read_from() {
        let text = "
kind: Node
metadata: {name: n1, uid: u1, resourceVersion: '7', labels: {pool: a, kubernetes.io/hostname: n1}}
spec:
  podCIDR: 10.0.0.0/24
  podCIDRs: [10.0.0.0/24]
  providerID: aws:///a/b
  unschedulable: true
  taints:
  - {key: node.kubernetes.io/unreachable, effect: NoSchedule}
  - {key: gpu, value: 'yes', effect: NoSchedule}
status: {capacity: {cpu: '4'}, allocatable: {cpu: '3'}}
";
        let (groups, _) = groups(templates(text).unwrap(), &by_label());
        let made = serde_json::to_value(groups["a"].node("a-x7k2p")).unwrap();
        let wanted = serde_json::json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": "a-x7k2p",
                "labels": {"pool": "a", "kubernetes.io/hostname": "a-x7k2p"},
                "annotations": {
                    "kwok.x-k8s.io/node": "fake",
                    "cluster-autoscaler.kwok.nodegroup/name": "a",
                    "metrics.k8s.io/resource-metrics-path": "/metrics/nodes/a-x7k2p/metrics/resource",
                },
            },
            "spec": {
                "providerID": "kwok:a-x7k2p",
                "taints": [
                    {"key": "gpu", "value": "yes", "effect": "NoSchedule"},
                    {"key": "kwok-provider", "value": "true", "effect": "NoSchedule"},
                ],
            },
            "status": {"capacity": {"cpu": "4"}, "allocatable": {"cpu": "3"}},
        });
        assert_eq!(made, wanted);
    }
}
