//! Gangs: no node is asked for a part of one that would not run.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    Choose, Input, Memory, Outcome, PassSettings, Refusal,
    pending::{asking, by_turn, waiting},
    scale_up,
    world::World,
};
use crate::scheduling::{Gangs, LeftOut, Pod};

/// Places pods, and decides what grows for those that fit nowhere. Where fewer pods of a gang fit than have to, everything is
/// tried again without it, and it is said why it waits.
pub(super) fn plan(
    memory: &mut Memory,
    world: &mut World,
    input: &Input,
    settings: &PassSettings,
    choose: &mut Choose<'_>,
    outcome: &mut Outcome,
) {
    let gangs = Gangs::of(&input.pods, &input.surroundings);
    let mut left_out = LeftOut::default();
    if gangs.is_empty() {
        return place(memory, world, input, settings, &left_out, choose, outcome);
    }
    let mut why = Why::default();
    loop {
        let before = (world.snapshot.checkpoint(), world.guests.clone(), memory.clone(), outcome.clone());
        place(memory, world, input, settings, &left_out, choose, outcome);
        let tried: Vec<_> =
            asking(world, input, settings).into_iter().filter(|pod| !left_out.has(pod)).collect();
        let unmet = gangs.unmet(&tried, is_placed(outcome, &tried));
        if unmet.is_empty() {
            world.snapshot.keep(before.0);
            tell(world, input, settings, &left_out, &why, outcome);
            outcome.left_out = left_out;
            return;
        }
        why.extend(outcome.plan.refused.iter().map(|(pod, refusals)| (Arc::as_ptr(pod), refusals.clone())));
        left_out.add(unmet);
        world.snapshot.rollback(before.0);
        (world.guests, *memory, *outcome) = (before.1, before.2, before.3);
    }
}

/// Why groups could not help pods, by their addresses.
type Why = HashMap<*const Pod, Arc<[Refusal]>>;

fn place(
    memory: &mut Memory,
    world: &mut World,
    input: &Input,
    settings: &PassSettings,
    left_out: &LeftOut,
    choose: &mut Choose<'_>,
    outcome: &mut Outcome,
) {
    let short = waiting(memory, world, input, settings, left_out, outcome);
    scale_up::plan(memory, world, short, input, settings, choose, outcome);
}

/// Whether a pod that was tried has a place now, or will have one.
fn is_placed(outcome: &Outcome, tried: &[Arc<Pod>]) -> impl Fn(usize) -> bool {
    let of = |pod: &Arc<Pod>| Arc::as_ptr(pod);
    let helped: HashSet<_> = outcome.plan.helped.iter().map(|(pod, _)| of(pod)).collect();
    let short: HashSet<_> =
        outcome.unschedulable.iter().map(of).filter(|pod| !helped.contains(pod)).collect();
    let placed: Vec<bool> = tried.iter().map(|pod| !short.contains(&of(pod))).collect();
    move |place| placed[place]
}

/// Pods of gangs that were left out wait, and are told for what.
fn tell(
    world: &World,
    input: &Input,
    settings: &PassSettings,
    left_out: &LeftOut,
    why: &Why,
    outcome: &mut Outcome,
) {
    for pod in asking(world, input, settings) {
        let Some(unmet) = left_out.of(&pod) else { continue };
        let gang = Refusal { group: "".into(), reason: unmet.to_string() };
        let own = why.get(&Arc::as_ptr(&pod)).into_iter().flat_map(|refusals| refusals.iter().cloned());
        let refusals = std::iter::once(gang).chain(own).collect();
        outcome.unschedulable.push(pod.clone());
        outcome.plan.refused.push((pod, refusals));
    }
    outcome.unschedulable.sort_by(|one, other| by_turn(one, other));
}
