//! What becomes of the pods that stand for the room of buffers.

use std::{collections::BTreeMap, sync::Arc};

use super::{Input, PendingSettings, Refusal, ScaleUpPlan, Waiting};
use crate::{
    nodes::buffer::{Placement, buffer_of, is_virtual},
    scheduling::Pod,
};

/// What became of a buffer's pods.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Buffered {
    /// The buffer, `NAMESPACE/NAME`.
    pub buffer: Arc<str>,
    /// Where they would be.
    pub placement: Placement,
    /// Groups that grow for them.
    pub groups: Vec<Arc<str>>,
    /// Why no group can help the others, group by group.
    pub refusals: Arc<[Refusal]>,
}

/// Those of the pods that fit nowhere which stand for room.
pub(super) fn short_of(waiting: &[Waiting]) -> Vec<Arc<Pod>> {
    waiting.iter().flat_map(|waiting| &waiting.pods).filter(|pod| is_virtual(pod)).cloned().collect()
}

/// What became of each buffer, in order of name: `short` fitted nowhere before the plan.
pub(super) fn settle(
    input: &Input,
    settings: &PendingSettings,
    short: &[Arc<Pod>],
    plan: &ScaleUpPlan,
) -> Vec<Buffered> {
    let mut found: BTreeMap<Arc<str>, Buffered> = BTreeMap::new();
    for pod in &input.expected {
        let Some(buffer) = buffer_of(pod) else { continue };
        let fresh = || Buffered { buffer: buffer.clone(), ..Buffered::default() };
        let Placement { there, nowhere, .. } =
            &mut found.entry(buffer.clone()).or_insert_with(fresh).placement;
        *if settings.expects(pod) { there } else { nowhere } += 1;
    }
    let mut of = |pod: &Pod, change: &dyn Fn(&mut Buffered)| {
        if let Some(buffered) = buffer_of(pod).and_then(|buffer| found.get_mut(&buffer)) {
            change(buffered);
        }
    };
    for pod in short {
        of(pod, &|buffered| {
            buffered.placement.there -= 1;
            buffered.placement.nowhere += 1;
        });
    }
    for (pod, groups) in &plan.helped {
        of(pod, &|buffered| {
            buffered.placement.nowhere -= 1;
            buffered.placement.new += 1;
            buffered.groups.clone_from(groups);
        });
    }
    for (pod, refusals) in &plan.refused {
        of(pod, &|buffered| buffered.refusals = refusals.clone());
    }
    found.into_values().collect()
}
