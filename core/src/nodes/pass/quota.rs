//! How many nodes may go at once, and how many a group and the cluster can spare.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Input, Outcome, ScaleDownSettings, Unneeded, UnremovableReason,
    gpus::{self, Gpus},
};
use crate::{
    nodes::{action::Action, group::NodeGroup},
    scheduling::{Node, Resources},
};

/// What may still be removed in this pass.
#[derive(Clone)]
pub(super) struct Quota {
    /// How many nodes each group may lose.
    spare: BTreeMap<Arc<str>, i64>,
    cores: i64,
    memory: i64,
    gpus: Gpus,
    gpu_label: String,
    parallel: u32,
    drains: u32,
    /// Whether nothing is being removed.
    is_idle: bool,
}

impl Quota {
    pub(super) fn new(input: &Input, outcome: &Outcome, settings: &ScaleDownSettings) -> Self {
        let leaving = |group: &NodeGroup| {
            let of = |node: &&Arc<Node>| {
                input.removing.contains_key(&node.name)
                    && group.instances.iter().any(|instance| instance.id == node.provider_id)
            };
            i64::try_from(input.nodes.iter().filter(of).count()).unwrap_or(i64::MAX)
        };
        let spare = input.groups.iter().map(|group| {
            (
                group.id.clone(),
                i64::from(group.target) - i64::from(group.min) - leaving(group) - repaired(group, outcome),
            )
        });
        let mut capacity = Resources::default();
        let stay = || input.nodes.iter().filter(|node| !input.removing.contains_key(&node.name));
        stay().for_each(|node| capacity.add(&node.capacity));
        let mut gpus = gpus::total(stay().map(|node| &**node), &settings.gpu_label, input);
        gpus.retain(|kind, count| {
            settings.min_gpus.get(kind).map(|min| *count = count.saturating_sub(*min)).is_some()
        });
        let under_way = u32::try_from(input.removing.len()).unwrap_or(u32::MAX);
        let drains = input.removing.values().filter(|drained| **drained).count();
        Self {
            spare: spare.collect(),
            cores: capacity.cpu.saturating_sub(settings.min_cores.saturating_mul(1000)),
            memory: capacity.memory.saturating_sub(settings.min_memory),
            gpus,
            gpu_label: settings.gpu_label.clone(),
            parallel: settings.parallelism.saturating_sub(under_way),
            drains: settings.drain_parallelism.saturating_sub(u32::try_from(drains).unwrap_or(u32::MAX)),
            is_idle: input.removing.is_empty(),
        }
    }

    /// Whether these can be removed at the same time. Those that go as a whole may be more than go at once if they go alone.
    pub(super) fn has_slots(&self, together: &[&Unneeded]) -> bool {
        let fits = |count: usize, slots: u32| u32::try_from(count).is_ok_and(|count| count <= slots);
        let drained = together.iter().filter(|unneeded| !unneeded.verdict.drain.is_empty()).count();
        let alone = self.is_idle && together.len() > 1;
        alone || fits(together.len(), self.parallel) && fits(drained, self.drains)
    }

    /// Takes a node off what its group and the cluster can spare; says why that cannot be.
    pub(super) fn take(
        &mut self,
        node: &Node,
        unneeded: &Unneeded,
    ) -> Result<(), (UnremovableReason, String)> {
        let spare = self.spare.entry(unneeded.group.clone()).or_default();
        if *spare <= 0 {
            let text = format!("group {} has its minimum size", unneeded.group);
            return Err((UnremovableReason::NodeGroupMinSizeReached, text));
        }
        let gpus = gpus::of(node, &self.gpu_label);
        let mut spare_gpus = gpus.and_then(|(kind, count)| Some((self.gpus.get_mut(kind)?, count)));
        let too_few_gpus = spare_gpus.as_ref().is_some_and(|(spare, count)| **spare < *count);
        if self.cores < node.capacity.cpu || self.memory < node.capacity.memory || too_few_gpus {
            let text = "--cores-total, --memory-total or --gpu-total would not be kept".to_owned();
            return Err((UnremovableReason::MinimalResourceLimitExceeded, text));
        }
        *spare -= 1;
        self.is_idle = false;
        if let Some((spare, count)) = &mut spare_gpus {
            **spare = spare.saturating_sub(*count);
        }
        self.cores = self.cores.saturating_sub(node.capacity.cpu);
        self.memory = self.memory.saturating_sub(node.capacity.memory);
        self.parallel = self.parallel.saturating_sub(1);
        self.drains = self.drains.saturating_sub(u32::from(!unneeded.verdict.drain.is_empty()));
        Ok(())
    }
}

/// By how much the pass lowers a group's target for other reasons.
fn repaired(group: &NodeGroup, outcome: &Outcome) -> i64 {
    let by = |action: &Action| match action {
        Action::DeleteInstances { group: of, instances, .. } if *of == group.id => instances.len(),
        Action::Decrease { group: of, delta, .. } if *of == group.id => *delta as usize,
        _ => 0,
    };
    i64::try_from(outcome.actions.iter().map(by).sum::<usize>()).unwrap_or(i64::MAX)
}
