//! GPUs: which nodes have some, of which type and how many.

use std::collections::BTreeMap;

use super::Input;
use crate::scheduling::Node;

/// The resource of GPUs that are not there yet.
const NVIDIA_GPU: &str = "nvidia.com/gpu";

/// GPUs by type, as the provider's label has it.
pub(super) type Gpus = BTreeMap<String, i64>;

/// The resource of a node's GPUs, if it has or is to get any.
pub(super) fn resource<'a>(node: &'a Node, label: &str) -> Option<&'a str> {
    let marked = !label.is_empty() && node.labels.contains_key(label);
    let counts = |name: &&str| *name == NVIDIA_GPU || marked && name.ends_with("/gpu");
    let offered = node.allocatable.iter().map(|(name, _)| name).find(counts);
    offered.or(marked.then_some(NVIDIA_GPU))
}

/// The type and the number of a node's GPUs; none of a type that nobody named.
///
/// Source: Cluster Autoscaler, `processors/customresources/gpu_processor.go`.
pub(super) fn of<'a>(node: &'a Node, label: &str) -> Option<(&'a str, i64)> {
    let kind = node.labels.get(label).filter(|_| !label.is_empty())?;
    Some((kind, node.allocatable.get(resource(node, label)?)))
}

/// The GPUs of all of these nodes. One whose GPUs are not there yet counts as its group's template.
pub(super) fn total<'a>(nodes: impl Iterator<Item = &'a Node>, label: &str, input: &Input) -> Gpus {
    let mut total = Gpus::new();
    for node in nodes {
        let Some((kind, count)) = of(node, label) else { continue };
        let count = if count > 0 { count } else { to_come(node, label, input) };
        let sum = total.entry(kind.to_owned()).or_default();
        *sum = sum.saturating_add(count);
    }
    total
}

fn to_come(node: &Node, label: &str, input: &Input) -> i64 {
    let group = input.groups.iter().find(|group| group.instances.iter().any(|it| it.id == node.provider_id));
    let template = group.and_then(|group| input.templates.get(&group.id));
    template.and_then(|template| of(&template.node, label)).map_or(0, |(_, count)| count)
}
