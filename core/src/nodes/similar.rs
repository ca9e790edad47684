//! Groups that are alike (`--balance-similar-node-groups`): which are, and how new nodes are spread over them.
//!
//! Source: Cluster Autoscaler, `processors/nodegroupset`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::group::{NodeGroup, Template};
use crate::scheduling::{Node, Resources};

/// Labels that say where a node is, not what it is.
const IGNORED: &[&str] = &[
    "beta.kubernetes.io/fluentd-ds-ready",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kops.k8s.io/instancegroup",
    "kubernetes.io/hostname",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
/// Labels of the same sort that AWS adds.
const IGNORED_AWS: &[&str] = &[
    "alpha.eksctl.io/instance-id",
    "alpha.eksctl.io/nodegroup-name",
    "eks.amazonaws.com/nodegroup",
    "k8s.amazonaws.com/eniConfig",
    "lifecycle",
    "topology.ebs.csi.aws.com/zone",
    "topology.k8s.aws/zone-id",
];
/// Labels of the same sort that Azure adds.
const IGNORED_AZURE: &[&str] = &[
    "agentpool",
    "aksEngineVersion",
    "creationSource",
    "kubernetes.azure.com/agentpool",
    "kubernetes.azure.com/consolidated-additional-properties",
    "kubernetes.azure.com/node-image-version",
    "poolName",
    "resourceNameSuffix",
    "topology.disk.csi.azure.com/zone",
];
/// Labels by which Azure tells pools: nodes of one pool are alike whatever else they have, the newer label first.
const AZURE_POOLS: &[&str] = &["kubernetes.azure.com/agentpool", "agentpool"];

/// Resources that every node has.
const FIXED: &[&str] = &["cpu", "memory", "ephemeral-storage", "pods"];

/// Whose labels are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flavour {
    /// Nobody's in particular.
    #[default]
    Generic,
    /// AWS.
    Aws,
    /// Azure.
    Azure,
}

/// By how much nodes that are alike may differ, shares of the larger amount.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratios {
    /// `--max-allocatable-difference-ratio`.
    pub allocatable: f64,
    /// `--max-free-difference-ratio`.
    pub free: f64,
    /// `--memory-difference-ratio`, of the memory that nodes have.
    pub memory: f64,
}

impl Default for Ratios {
    fn default() -> Self {
        Self { allocatable: 0.05, free: 0.05, memory: 0.015 }
    }
}

/// How nodes are compared.
#[derive(Debug, Clone, PartialEq)]
pub enum Comparator {
    /// By what they have, and by their labels but for some.
    Nodes {
        /// Whose labels are left out.
        flavour: Flavour,
        /// Further labels that are left out (`--balancing-ignore-label`).
        ignored: BTreeSet<String>,
        /// By how much amounts may differ.
        ratios: Ratios,
    },
    /// By these labels alone, which both must have (`--balancing-label`).
    Labels(Vec<String>),
}

impl Comparator {
    /// Whether nodes of both templates are alike.
    pub fn similar(&self, one: &Template, other: &Template) -> bool {
        match self {
            Self::Labels(labels) => labels.iter().all(|label| {
                let value = one.node.labels.get(label);
                value.is_some() && value == other.node.labels.get(label)
            }),
            Self::Nodes { flavour: Flavour::Azure, .. } if of_one_pool(&one.node, &other.node) => true,
            Self::Nodes { flavour, ignored, ratios } => {
                same_capacity(&one.node.capacity, &other.node.capacity, ratios.memory)
                    && near(&one.node.allocatable, &other.node.allocatable, ratios.allocatable)
                    && same_free(one, other, ratios.free)
                    && same_labels(&one.node, &other.node, |label| {
                        flavour.ignores(label) || ignored.contains(label)
                    })
            }
        }
    }

    /// The other groups whose nodes are like those of `group`, in order of name.
    pub fn find_similar(&self, group: &str, templates: &BTreeMap<Arc<str>, Template>) -> Vec<Arc<str>> {
        let Some(template) = templates.get(group) else { return Vec::new() };
        let others = templates.iter().filter(|(id, _)| &***id != group);
        others.filter(|(_, other)| self.similar(template, other)).map(|(id, _)| id.clone()).collect()
    }
}

impl Flavour {
    fn ignores(self, label: &str) -> bool {
        let more = match self {
            Self::Generic => &[],
            Self::Aws => IGNORED_AWS,
            Self::Azure => IGNORED_AZURE,
        };
        IGNORED.contains(&label) || more.contains(&label)
    }
}

fn of_one_pool(one: &Node, other: &Node) -> bool {
    let pool = |node: &Node, label: &str| node.labels.get(label).filter(|pool| !pool.is_empty()).cloned();
    AZURE_POOLS.iter().any(|label| {
        let pool_of_one = pool(one, label);
        pool_of_one.is_some() && pool_of_one == pool(other, label)
    })
}

fn names<'a>(one: &'a Resources, other: &'a Resources) -> BTreeSet<&'a str> {
    one.iter().chain(other.iter()).map(|(name, _)| name).collect()
}

/// The same resources, and of each the same amount; memory may differ a little, as machines report it.
fn same_capacity(one: &Resources, other: &Resources, memory_ratio: f64) -> bool {
    names(one, other).into_iter().all(|name| {
        let (amount, others) = (one.get(name), other.get(name));
        match name {
            "memory" => amount != 0 && others != 0 && within(amount, others, memory_ratio),
            _ => amount == others,
        }
    })
}

/// The same resources, and of each nearly the same amount.
fn near(one: &Resources, other: &Resources, ratio: f64) -> bool {
    names(one, other).into_iter().all(|name| within(one.get(name), other.get(name), ratio))
}

#[allow(clippy::cast_precision_loss, reason = "a ratio of amounts: 53 bits are plenty")]
fn within(one: i64, other: i64, ratio: f64) -> bool {
    let (larger, smaller) = (one.max(other) as f64, one.min(other) as f64);
    larger - smaller <= larger * ratio
}

/// Whether the templates' own pods leave nearly the same; of resources that not every node has, only those count that the pods
/// of both request, and none that the pods of one do.
fn same_free(one: &Template, other: &Template, ratio: f64) -> bool {
    let (requested, others) = (requested(one), requested(other));
    let free = |template: &Template, requested: &Resources, name: &str| {
        template.node.allocatable.get(name).saturating_sub(requested.get(name))
    };
    requested.other.keys().eq(others.other.keys())
        && FIXED
            .iter()
            .copied()
            .chain(requested.other.keys().map(|name| &**name))
            .all(|name| within(free(one, &requested, name), free(other, &others, name), ratio))
}

/// What the template's own pods request; of the room for pods they take nothing.
fn requested(template: &Template) -> Resources {
    let mut requested = Resources::default();
    for pod in &template.pods {
        requested.add(&pod.shape.requests);
    }
    requested.pods = 0;
    requested
}

fn same_labels(one: &Node, other: &Node, is_ignored: impl Fn(&str) -> bool) -> bool {
    let kept = |node: &Node| -> BTreeMap<String, String> {
        node.labels
            .iter()
            .filter(|(name, _)| !is_ignored(name))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    kept(one) == kept(other)
}

/// Sizes that groups get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The group.
    pub group: Arc<str>,
    /// Its target now.
    pub from: u32,
    /// Its target then.
    pub to: u32,
    /// Its maximum.
    pub max: u32,
}

/// Spreads new nodes over groups so that they get as even as can be: one after another to the smallest that may grow, of
/// those to the one that was the smallest before, then by name. What is beyond every maximum is left out, and so is a group
/// that gets nothing.
pub fn balance<'a>(groups: impl IntoIterator<Item = &'a NodeGroup>, new_nodes: u32) -> Vec<Share> {
    let mut shares: Vec<Share> = groups
        .into_iter()
        .filter(|group| group.target < group.max)
        .map(|group| Share { group: group.id.clone(), from: group.target, to: group.target, max: group.max })
        .collect();
    shares.sort_by(|one, other| (one.from, &one.group).cmp(&(other.from, &other.group)));
    let mut left = new_nodes;
    while let Some(smallest) = shares.iter().filter(|share| share.to < share.max).map(|share| share.to).min()
    {
        // All of the smallest rise together, up to the next larger one or the next maximum.
        let growing = shares.iter().filter(|share| share.to < share.max && share.to == smallest);
        let count = u32::try_from(growing.clone().count()).unwrap_or(u32::MAX);
        let next = shares.iter().map(|share| share.to).filter(|size| *size > smallest).min();
        let cap = growing.map(|share| share.max).min().unwrap_or(smallest);
        let step = next.map_or(cap, |next| next.min(cap)) - smallest;
        let (each, mut rest) = if left / count >= step { (step, 0) } else { (left / count, left % count) };
        for share in shares.iter_mut().filter(|share| share.to < share.max && share.to == smallest) {
            let one_more = u32::from(rest > 0);
            rest -= one_more;
            share.to += each + one_more;
            left -= each + one_more;
        }
        if each < step {
            break;
        }
    }
    shares.retain(|share| share.to > share.from);
    shares.sort_by(|one, other| one.group.cmp(&other.group));
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::nodes::group::GroupOptions;

    fn group(index: usize, max: u32, target: u32) -> NodeGroup {
        NodeGroup {
            id: format!("g{index}").into(),
            min: 0,
            max,
            target,
            instances: Vec::new(),
            options: GroupOptions::default(),
        }
    }

    /// As it is defined: one node at a time to the smallest.
    fn one_by_one(groups: &[NodeGroup], new_nodes: u32) -> BTreeMap<Arc<str>, u32> {
        let mut sizes: Vec<(u32, &NodeGroup)> = groups.iter().map(|group| (group.target, group)).collect();
        sizes.sort_by_key(|(size, group)| (*size, &group.id));
        for _ in 0..new_nodes {
            let open = sizes.iter_mut().filter(|(size, group)| *size < group.max);
            let Some(smallest) = open.min_by_key(|(size, _)| *size) else { break };
            smallest.0 += 1;
        }
        sizes.into_iter().map(|(size, group)| (group.id.clone(), size)).collect()
    }

    proptest! {
        #[test]
        fn balances_as_one_node_after_another_would(
            sizes in prop::collection::vec((0u32..30, 0u32..30), 0..6),
            new_nodes in 0u32..120,
        ) {
            let groups: Vec<NodeGroup> =
                sizes.iter().enumerate().map(|(index, (max, target))| group(index, *max, *target)).collect();
            let shares = balance(&groups, new_nodes);
            let room: u32 = groups.iter().map(|group| group.max.saturating_sub(group.target)).sum();
            let given: u32 = shares.iter().map(|share| share.to - share.from).sum();
            prop_assert_eq!(given, new_nodes.min(room));
            prop_assert!(shares.iter().all(|share| share.from < share.to && share.to <= share.max));
            let wanted = one_by_one(&groups, new_nodes);
            prop_assert!(shares.iter().all(|share| wanted[&share.group] == share.to), "{:?} {:?}", shares, wanted);
        }

        #[test]
        fn likeness_is_mutual(one in 0i64..5, other in 0i64..5, gpu: bool) {
            let template = |memory: i64, gpu: bool| {
                let mut capacity = Resources { cpu: 1000, memory: 1000 + 10 * memory, ..Resources::default() };
                if gpu {
                    capacity.set("nvidia.com/gpu", 1);
                }
                let node = Node { allocatable: capacity.clone(), capacity, ..Node::default() };
                Template { node, pods: Vec::new() }
            };
            let comparator = Comparator::Nodes {
                flavour: Flavour::Generic,
                ignored: BTreeSet::new(),
                ratios: Ratios::default(),
            };
            let (one, other) = (template(one, gpu), template(other, false));
            prop_assert_eq!(comparator.similar(&one, &other), comparator.similar(&other, &one));
            prop_assert!(!gpu || !comparator.similar(&one, &other));
            prop_assert!(comparator.similar(&one, &one));
        }
    }
}
