//! What CapacityQuotas leave of what the nodes of their selectors may have.

use std::{collections::BTreeMap, sync::Arc};

use super::{Input, Outcome, gpus};
use crate::{
    nodes::{
        capacity_quota::{CapacityQuota, NODES},
        group::Template,
    },
    scheduling::Node,
};

/// What is left of each quota.
#[derive(Clone)]
pub(super) struct Quotas {
    all: Vec<Left>,
    gpu_label: String,
}

#[derive(Clone)]
struct Left {
    quota: Arc<CapacityQuota>,
    /// By resource, in the order of its limits; below zero if there is more than it allows.
    left: Vec<i64>,
}

impl Quotas {
    /// What the nodes that there are and those on their way leave.
    pub(super) fn new(input: &Input, outcome: &Outcome, gpu_label: &str) -> Self {
        let left = |quota: &Arc<CapacityQuota>| Left {
            quota: quota.clone(),
            left: quota.limits().map(|(_, limit)| limit).collect(),
        };
        let all = input.quotas.iter().map(left).collect::<Vec<_>>();
        let mut quotas = Self { all, gpu_label: gpu_label.to_owned() };
        if quotas.all.is_empty() {
            return quotas;
        }
        let mut templates: BTreeMap<&str, &Template> = BTreeMap::new();
        for group in &input.groups {
            if let Some(template) = input.templates.get(&group.id) {
                templates.extend(group.instances.iter().map(|instance| (&*instance.id, template)));
            }
        }
        for node in &input.nodes {
            let template = templates.get(&*node.provider_id).map(|template| &template.node);
            quotas.count(node, template);
        }
        for (group, state) in &outcome.found.groups {
            if let Some(template) = input.templates.get(group) {
                quotas.take(&template.node, i64::from(state.on_their_way()));
            }
        }
        quotas
    }

    /// Counts a node that is there. What it has yet to show, of labels as long as it is not ready and of resources, it has as
    /// its group's template.
    fn count(&mut self, node: &Node, template: Option<&Node>) {
        let label = &self.gpu_label;
        for Left { quota, left } in &mut self.all {
            let will = || template.is_some_and(|template| !node.ready && quota.applies_to(template));
            if quota.applies_to(node) || will() {
                for ((resource, _), left) in quota.limits().zip(left) {
                    let shown = amount(node, resource, label);
                    let to_come = || template.map_or(0, |template| amount(template, resource, label));
                    *left = left.saturating_sub(if shown > 0 { shown } else { to_come() });
                }
            }
        }
    }

    /// Takes so many nodes off what is left; a number below zero gives them back.
    pub(super) fn take(&mut self, node: &Node, nodes: i64) {
        let label = &self.gpu_label;
        for Left { quota, left } in self.all.iter_mut().filter(|it| it.quota.applies_to(node)) {
            for ((resource, _), left) in quota.limits().zip(left) {
                *left = left.saturating_sub(amount(node, resource, label).saturating_mul(nodes));
            }
        }
    }

    /// How many of `nodes` the quota allows that allows the fewest, and what it says of the others; `None` if all may come.
    pub(super) fn allowed(&self, node: &Node, nodes: u32) -> Option<(u32, String)> {
        let mut least: Option<(u32, String)> = None;
        for Left { quota, left } in self.all.iter().filter(|it| it.quota.applies_to(node)) {
            let (mut allowed, mut exceeded) = (nodes, Vec::new());
            for ((resource, _), left) in quota.limits().zip(left) {
                let each = amount(node, resource, &self.gpu_label);
                let fitting = if each > 0 { left.max(&0) / each } else { i64::from(nodes) };
                if fitting < i64::from(nodes) {
                    allowed = allowed.min(u32::try_from(fitting).unwrap_or(allowed));
                    exceeded.push(resource);
                }
            }
            if least.as_ref().map_or(nodes, |(least, _)| *least) > allowed {
                let (name, resources) = (&quota.name, exceeded.join(", "));
                least = Some((
                    allowed,
                    format!("exceeded quota: \"CapacityQuota/{name}\", resources: {resources}"),
                ));
            }
        }
        least
    }
}

/// What a node has of a resource that a quota names. GPUs go by their resource, or by their type as for `--gpu-total`.
fn amount(node: &Node, resource: &str, gpu_label: &str) -> i64 {
    if resource == NODES {
        return 1;
    }
    let shown = node.capacity.get(resource).max(node.allocatable.get(resource));
    let of_type = || gpus::of(node, gpu_label).filter(|(kind, _)| *kind == resource);
    if shown > 0 { shown } else { of_type().map_or(0, |(_, count)| count) }
}
