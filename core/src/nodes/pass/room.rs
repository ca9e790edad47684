//! What the cluster may still grow by, as `--max-nodes-total`, `--cores-total`, `--memory-total`, `--gpu-total` and
//! CapacityQuotas say.

use super::{
    Input, Outcome, PassSettings,
    gpus::{self, Gpus},
    quotas::Quotas,
};
use crate::{
    nodes::capacity_quota::is_machine,
    scheduling::{Node, Resources},
};

/// Why no group grows any further, with `--max-nodes-total`.
pub(super) const MAX_NODES_REACHED: &str = "max total nodes in cluster reached";

/// What the cluster may still grow by.
#[derive(Clone)]
pub(super) struct Room {
    /// Nodes; `None` without a limit.
    pub(super) nodes: Option<u32>,
    cores: i64,
    memory: i64,
    /// Of types that have a limit.
    gpus: Gpus,
    gpu_label: String,
    quotas: Quotas,
}

impl Room {
    pub(super) fn new(input: &Input, outcome: &Outcome, settings: &PassSettings) -> Self {
        let (label, settings) = (&settings.scale_down.gpu_label, &settings.scale_up);
        let mut nodes = u32::try_from(input.nodes.len()).unwrap_or(u32::MAX);
        let mut used = Resources::default();
        let machines = || input.nodes.iter().map(|node| &**node).filter(|node| is_machine(node));
        machines().for_each(|node| used.add(&node.capacity));
        let mut gpus = settings.max_gpus.clone();
        let mut take =
            |kind: &str, count: i64| gpus.get_mut(kind).map(|left| *left = left.saturating_sub(count));
        for (kind, count) in gpus::total(machines(), label, input) {
            take(&kind, count);
        }
        for (group, state) in &outcome.found.groups {
            let more = state.on_their_way();
            nodes = nodes.saturating_add(more);
            if let Some(template) = input.templates.get(group) {
                used.add(&template.node.capacity.times(i64::from(more)));
                if let Some((kind, count)) = gpus::of(&template.node, label) {
                    take(kind, count.saturating_mul(i64::from(more)));
                }
            }
        }
        Self {
            nodes: settings.max_nodes.map(|max| max.saturating_sub(nodes)),
            cores: settings.max_cores.saturating_mul(1000).saturating_sub(used.cpu),
            memory: settings.max_memory.saturating_sub(used.memory),
            gpus,
            gpu_label: label.clone(),
            quotas: Quotas::new(input, outcome, label),
        }
    }

    /// How many of `nodes` may be added, and the limit that is in the way of the others.
    pub(super) fn allowed(&self, node: &Node, nodes: u32) -> (u32, Option<String>) {
        let capacity = &node.capacity;
        let by = |room: i64, each: i64| {
            if each <= 0 { nodes } else { u32::try_from((room / each).max(0)).unwrap_or(nodes) }
        };
        let gpus = gpus::of(node, &self.gpu_label);
        let gpus = gpus.and_then(|(kind, count)| Some((by(*self.gpus.get(kind)?, count), kind)));
        let limits = [
            Some((self.nodes.unwrap_or(nodes), None)),
            Some((by(self.cores, capacity.cpu), Some("cpu"))),
            Some((by(self.memory, capacity.memory), Some("memory"))),
            gpus.map(|(allowed, kind)| (allowed, Some(kind))),
        ];
        let least = limits.into_iter().flatten().min_by_key(|(allowed, _)| *allowed);
        let most = least.map_or(nodes, |(allowed, _)| allowed.min(nodes));
        if let Some((allowed, quota)) = self.quotas.allowed(node, nodes).filter(|(by, _)| *by < most) {
            return (allowed, Some(quota));
        }
        match least.filter(|(allowed, _)| *allowed < nodes) {
            None => (nodes, None),
            Some((allowed, None)) => (allowed, Some(MAX_NODES_REACHED.to_owned())),
            Some((allowed, Some(resource))) => {
                (allowed, Some(format!("exceeded quota: \"cluster-wide\", resources: {resource}")))
            }
        }
    }

    /// Takes new nodes off what is left.
    pub(super) fn take(&mut self, node: &Node, nodes: u32) {
        self.nodes = self.nodes.map(|left| left.saturating_sub(nodes));
        self.change(node, i64::from(nodes));
    }

    /// Takes [`Room::take`] back: those nodes do not come after all.
    pub(super) fn give_back(&mut self, node: &Node, nodes: u32) {
        self.nodes = self.nodes.map(|left| left.saturating_add(nodes));
        self.change(node, -i64::from(nodes));
    }

    fn change(&mut self, node: &Node, nodes: i64) {
        let capacity = &node.capacity;
        if let Some((kind, count)) = gpus::of(node, &self.gpu_label)
            && let Some(left) = self.gpus.get_mut(kind)
        {
            *left = left.saturating_sub(count.saturating_mul(nodes));
        }
        self.cores = self.cores.saturating_sub(capacity.cpu.saturating_mul(nodes));
        self.memory = self.memory.saturating_sub(capacity.memory.saturating_mul(nodes));
        self.quotas.take(node, nodes);
    }
}
