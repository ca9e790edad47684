//! The decisions of a pass about one pod or one node, read out: what each group could do, and why a node stays.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use super::{
    Ignored, Input, MAX_SIZE_REACHED, Memory, Model, Outcome, PassSettings, UnremovableReason, pending,
    room::Room, run, scale_up::candidates, world::World,
};
use crate::{
    nodes::{
        action::Action,
        drain,
        provisioning_request::{Stage, consumed_by},
    },
    scheduling::{ClassId, Node, Pod, Presumed, Unmet, gang},
};

/// What a pass means for a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct PodExplanation {
    /// Why it asks for no node; `None` if it does.
    pub ignored: Option<Ignored>,
    /// Whether it fits on a node that is there or on its way.
    pub fits: Option<Fit>,
    /// ProvisioningRequests, by name, that all the room in which it fits is kept for.
    pub kept_for: Vec<Arc<str>>,
    /// What keeps it from the nodes that there are: how many nodes, by reason, most first.
    pub nodes: Vec<(String, u32)>,
    /// What each group could do for it.
    pub groups: Vec<GroupVerdict>,
    /// Its gang, if fewer of it would run than have to.
    pub gang: Option<Unmet>,
    /// Why nothing is scaled at all.
    pub unhealthy: bool,
}

/// Where a pod fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// On this node, which is there.
    There(Arc<str>),
    /// On a node that a group was asked for.
    OnItsWay,
}

/// What a group could do for a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupVerdict {
    /// The group.
    pub group: Arc<str>,
    /// Nodes that it was asked for, least, most.
    pub size: (u32, u32, u32),
    /// Why it cannot help; `None` if it can.
    pub refusal: Option<String>,
    /// What is taken for granted of its new nodes, since nobody can know it.
    pub presumed: Vec<Presumed>,
}

/// Explains a pod.
pub fn pod(pod: &Arc<Pod>, memory: &Memory, input: &Input, settings: &PassSettings) -> PodExplanation {
    let gang = gang_of(pod, memory, input, settings);
    let mut memory = memory.clone();
    let found = memory.cluster.update(&input.nodes, &input.groups, input.now, &settings.cluster);
    let mut outcome = Outcome { found, ..Outcome::default() };
    // It is looked at as if it were new, or it would be in its own way.
    let others = input.pods.iter().filter(|other| other.uid != pod.uid).cloned().collect();
    let input = Input { pods: others, ..input.clone() };
    let mut world = World::of(None, &input, &outcome.found, settings);
    let class = world.snapshot.class(pod);
    let mut nodes: BTreeMap<String, u32> = BTreeMap::new();
    let mut there: Option<Arc<str>> = None;
    for (id, node) in world.snapshot.nodes() {
        match world.snapshot.check(class, id) {
            Ok(()) => there = there.into_iter().chain([node.name().clone()]).min(),
            Err(reason) => *nodes.entry(reason.to_string()).or_default() += 1,
        }
    }
    let groups = verdicts(class, &memory, &mut world, &input, settings, &outcome);
    pending::add_upcoming(&mut world, &input, &mut outcome);
    let fits = there.map(Fit::There).or_else(|| world.snapshot.find(class, None).map(|_| Fit::OnItsWay));
    let kept_for = if fits.is_some() { kept_for(pod, class, &mut world, &input) } else { Vec::new() };
    let mut nodes: Vec<_> = nodes.into_iter().collect();
    nodes.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    let ignored = settings.pending.ignores(pod, input.now);
    PodExplanation { ignored, fits, kept_for, nodes, groups, gang, unhealthy: !outcome.found.healthy }
}

/// The requests that have booked room, if the pod would fit nowhere beside their pods. The scheduler knows nothing of bookings,
/// so it may give the pod that room nevertheless.
fn kept_for(pod: &Pod, class: ClassId, world: &mut World, input: &Input) -> Vec<Arc<str>> {
    let own = consumed_by(pod).map(|name| format!("{}/{name}", pod.shape.namespace));
    let booked = input.requests.iter().filter(|it| it.stage == Stage::Booked);
    let others: Vec<_> = booked.filter(|request| own.as_deref() != Some(&*request.name)).collect();
    for request in &others {
        pending::fit(world, request.pods());
    }
    if world.snapshot.find(class, None).is_some() {
        return Vec::new();
    }
    others.into_iter().map(|request| request.name.clone()).collect()
}

/// What the gang of a pod lacks, whichever groups grow.
fn gang_of(pod: &Pod, memory: &Memory, input: &Input, settings: &PassSettings) -> Option<Unmet> {
    gang::key(pod).filter(|gang| input.surroundings.gangs.contains_key(gang))?;
    let outcome =
        run(&mut memory.clone(), input, settings, &mut |_, options| (!options.is_empty()).then_some(0));
    let left_out = outcome.left_out.of(pod).cloned();
    left_out.or_else(|| gang::too_small(pod, &input.pods, &input.surroundings))
}

fn verdicts(
    class: ClassId,
    memory: &Memory,
    world: &mut World,
    input: &Input,
    settings: &PassSettings,
    outcome: &Outcome,
) -> Vec<GroupVerdict> {
    let room = Room::new(input, outcome, settings);
    let candidates = candidates(memory, input, outcome);
    let mut verdict = |group: &crate::nodes::group::NodeGroup, presumed: &mut Vec<Presumed>| {
        let Some(candidate) = candidates.iter().find(|candidate| candidate.group.id == group.id) else {
            return Some("it is not known what its nodes look like".to_owned());
        };
        let checkpoint = world.snapshot.checkpoint();
        let node = world.snapshot.add_node(&candidate.template.node);
        for pod in &candidate.template.pods {
            let class = world.snapshot.class(pod);
            world.snapshot.bind(class, node);
        }
        let checked = world.snapshot.check(class, node);
        presumed.extend(world.snapshot.presumes(class, node));
        world.snapshot.rollback(checkpoint);
        if let Err(reason) = checked {
            return Some(reason.to_string());
        }
        if candidate.barred.is_some() {
            return candidate.barred.clone();
        }
        if group.max <= group.target {
            return Some(MAX_SIZE_REACHED.to_owned());
        }
        let (allowed, limit) = room.allowed(&candidate.template.node, 1);
        limit.filter(|_| allowed == 0)
    };
    let of = |group: &crate::nodes::group::NodeGroup| {
        let mut presumed = Vec::new();
        let refusal = verdict(group, &mut presumed);
        GroupVerdict {
            group: group.id.clone(),
            size: (group.target, group.min, group.max),
            refusal,
            presumed,
        }
    };
    input.groups.iter().map(of).collect()
}

/// What a pass means for a node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeExplanation {
    /// Its group.
    pub group: Option<Arc<str>>,
    /// What becomes of it.
    pub fate: Fate,
    /// Why no node is removed now, whatever is not needed.
    pub held: Option<String>,
    /// When it is looked at again after a removal that failed.
    pub recheck: Option<Timestamp>,
    /// What becomes of its pods if it goes: each pod and its outcome.
    pub pods: Vec<(String, drain::Outcome)>,
    /// Gangs of which pods that wait are expected on it, `NAMESPACE/NAME` of their PodGroups.
    pub gangs: Vec<String>,
}

/// What becomes of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// It stays: why, in one word and in words.
    Stays(UnremovableReason, String),
    /// It is not needed: since when, when it goes, how much of it is requested.
    Unneeded {
        /// Since then.
        since: Timestamp,
        /// It goes then, if nothing holds removals.
        due: Timestamp,
        /// How much of it is requested, a share of one.
        utilization: f64,
        /// Why it does not go when it is due.
        but: Option<String>,
    },
    /// It goes with the next pass.
    Goes,
}

/// Explains a node.
pub fn node(node: &Node, memory: &Memory, input: &Input, settings: &PassSettings) -> NodeExplanation {
    let mut memory = memory.clone();
    // Why it could not be removed is found out again, without waiting.
    let recheck = memory.unremovable.remove(&*node.name);
    let mut model = Model::new(settings.clone());
    let outcome = model.pass(&mut memory, input, &mut |_, _| None);
    let of = |name: &Arc<str>| *name == node.name;
    let own = |group: &&crate::nodes::group::NodeGroup| {
        group.instances.iter().any(|instance| instance.id == node.provider_id)
    };
    let group = input.groups.iter().find(own).map(|group| group.id.clone());
    let goes = |action: &Action| matches!(action, Action::Remove(removal) if of(&removal.node));
    let stays = outcome.unremovable.iter().find(|other| of(&other.node));
    let fate = match (outcome.unneeded.iter().find(|other| of(&other.node)), stays) {
        _ if outcome.actions.iter().any(goes) => Fate::Goes,
        (Some(unneeded), but) => Fate::Unneeded {
            since: unneeded.since,
            due: unneeded.since.checked_add(unneeded.after).unwrap_or(Timestamp::MAX),
            utilization: unneeded.utilization,
            but: but.filter(|but| !is_time(but.reason)).map(|but| but.text.clone()),
        },
        (None, Some(stays)) => Fate::Stays(stays.reason, stays.text.clone()),
        (None, None) if group.is_none() => {
            Fate::Stays(UnremovableReason::NotAutoscaled, "it is in no node group".to_owned())
        }
        (None, None) => Fate::Stays(UnremovableReason::UnexpectedError, nothing(&outcome, settings)),
    };
    let pods = input.pods.iter().filter(|pod| pod.node.as_ref().is_some_and(of) && !pod.is_terminal());
    let outcome_of = |pod: &Arc<Pod>| {
        let owners = input.owners.as_ref();
        (pod.key(), drain::pod(pod, &settings.drain, owners, &input.budgets, input.now))
    };
    let recheck = recheck.filter(|until| input.now < *until);
    NodeExplanation {
        group,
        fate,
        held: outcome.scale_down_held,
        recheck,
        pods: pods.map(outcome_of).collect(),
        gangs: model.gangs_expected_on(&node.name),
    }
}

/// Whether all that is missing is time, which `due` tells.
fn is_time(reason: UnremovableReason) -> bool {
    matches!(reason, UnremovableReason::NotUnneededLongEnough | UnremovableReason::NotUnreadyLongEnough)
}

/// Why a pass says nothing of a node of a group.
fn nothing(outcome: &Outcome, settings: &PassSettings) -> String {
    if !settings.scale_down.enabled {
        return "--scale-down-enabled is false".to_owned();
    }
    outcome.scale_down_held.clone().unwrap_or_else(|| "it is still starting".to_owned())
}
