//! Which nodes are not needed, and which of them go now.
//!
//! Source of the rules: Cluster Autoscaler, `core/scaledown/{planner,eligibility,unneeded,unremovable}`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    Change, Input, Memory, Outcome, PassSettings, gpus, place,
    quota::Quota,
    world::{World, invite},
};
use crate::{
    nodes::{
        action::{Action, DELETION_CANDIDATE, Removal, RemovalCause, TO_BE_DELETED},
        drain::{self, BlockingReason, Evictable, Verdict},
        group::NodeGroup,
        printed::percent,
        utilization::{DevicePools, Ignored, Utilization, node_utilization},
    },
    scheduling::{Node, NodeId, Pod, Resources, devices::Slice, gang},
};

/// Annotation of nodes that stay, whatever they run.
const SCALE_DOWN_DISABLED: &str = "cluster-autoscaler.kubernetes.io/scale-down-disabled";

/// How groups shrink.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "a flag each")]
pub struct ScaleDownSettings {
    /// `--scale-down-enabled`.
    pub enabled: bool,
    /// `--scale-down-unneeded-time`.
    pub unneeded_time: SignedDuration,
    /// `--scale-down-unready-time`.
    pub unready_time: SignedDuration,
    /// `--scale-down-unready-enabled`.
    pub unready_enabled: bool,
    /// `--scale-down-utilization-threshold`, a share of one.
    pub threshold: f64,
    /// `--scale-down-gpu-utilization-threshold`, a share of one.
    pub gpu_threshold: f64,
    /// `--scale-down-delay-after-add`.
    pub delay_after_add: SignedDuration,
    /// `--scale-down-delay-after-delete`.
    pub delay_after_delete: SignedDuration,
    /// `--scale-down-delay-after-failure`.
    pub delay_after_failure: SignedDuration,
    /// `--scale-down-delay-type-local`: those delays hold for the group that changed, not for all.
    pub delay_is_local: bool,
    /// `--max-scale-down-parallelism`.
    pub parallelism: u32,
    /// `--max-drain-parallelism`.
    pub drain_parallelism: u32,
    /// `--unremovable-node-recheck-timeout`.
    pub recheck: SignedDuration,
    /// `--ignore-daemonsets-utilization`.
    pub ignore_daemon_sets: bool,
    /// `--ignore-mirror-pods-utilization`.
    pub ignore_mirror_pods: bool,
    /// The lesser bound of `--cores-total`, in cores.
    pub min_cores: i64,
    /// The lesser bound of `--memory-total`, in bytes.
    pub min_memory: i64,
    /// The lesser bounds of `--gpu-total`, by type.
    pub min_gpus: BTreeMap<String, i64>,
    /// `--max-bulk-soft-taint-count`; zero marks no nodes.
    pub marks_at_once: u32,
    /// The label that marks nodes with GPUs; its value is their type.
    pub gpu_label: String,
}

/// A node that is not needed.
#[derive(Debug, Clone, PartialEq)]
pub struct Unneeded {
    /// The node.
    pub node: Arc<str>,
    /// Its group.
    pub group: Arc<str>,
    /// Not needed since.
    pub since: Timestamp,
    /// How long it has to be not needed before it goes.
    pub after: SignedDuration,
    /// What becomes of its pods.
    pub verdict: Verdict,
    /// How much of it is requested, a share of one.
    pub utilization: f64,
    /// Whether it works.
    pub ready: bool,
    /// Whether budgets let its pods go only one after another.
    pub in_turn: bool,
}

/// A node that stays.
#[derive(Debug, Clone, PartialEq)]
pub struct Unremovable {
    /// The node.
    pub node: Arc<str>,
    /// Why.
    pub reason: UnremovableReason,
    /// Why, in words.
    pub text: String,
}

/// Why a node stays, as Cluster Autoscaler calls it (`simulator.UnremovableReason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnremovableReason {
    /// Its annotation says so.
    ScaleDownDisabledAnnotation,
    /// It is not ready, and such nodes are kept.
    ScaleDownUnreadyDisabled,
    /// It is in no group.
    NotAutoscaled,
    /// It has not been unneeded for long enough.
    NotUnneededLongEnough,
    /// It has not been unready for long enough.
    NotUnreadyLongEnough,
    /// Its group changed a short while ago.
    NotUnneededOtherReason,
    /// Its group may not get smaller.
    NodeGroupMinSizeReached,
    /// Its group goes as a whole or not at all.
    AtomicScaleDownFailed,
    /// The cluster would have too few cores or too little memory.
    MinimalResourceLimitExceeded,
    /// It is on its way out.
    CurrentlyBeingDeleted,
    /// Too much of it is requested.
    NotUnderutilized,
    /// It could not be removed a short while ago.
    RecentlyUnremovable,
    /// Its pods fit nowhere else.
    NoPlaceToMovePods,
    /// A gang is disrupted as a whole or not at all (no reason of Cluster Autoscaler).
    DividesGang,
    /// A pod keeps it.
    BlockedByPod(BlockingReason),
    /// A pod has to end first.
    BlockedByOnCompletionPod,
    /// It could not be judged.
    UnexpectedError,
}

impl UnremovableReason {
    /// The name, as the label of a metric has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ScaleDownDisabledAnnotation => "ScaleDownDisabledAnnotation",
            Self::ScaleDownUnreadyDisabled => "ScaleDownUnreadyDisabled",
            Self::NotAutoscaled => "NotAutoscaled",
            Self::NotUnneededLongEnough => "NotUnneededLongEnough",
            Self::NotUnreadyLongEnough => "NotUnreadyLongEnough",
            Self::NotUnneededOtherReason => "NotUnneededOtherReason",
            Self::NodeGroupMinSizeReached => "NodeGroupMinSizeReached",
            Self::AtomicScaleDownFailed => "AtomicScaleDownFailed",
            Self::MinimalResourceLimitExceeded => "MinimalResourceLimitExceeded",
            Self::CurrentlyBeingDeleted => "CurrentlyBeingDeleted",
            Self::NotUnderutilized => "NotUnderutilized",
            Self::RecentlyUnremovable => "RecentlyUnremovable",
            Self::NoPlaceToMovePods => "NoPlaceToMovePods",
            Self::DividesGang => "DividesGang",
            Self::BlockedByPod(_) => "BlockedByPod",
            Self::BlockedByOnCompletionPod => "BlockedByOnCompletionPod",
            Self::UnexpectedError => "UnexpectedError",
        }
    }
}

/// A node that may turn out not to be needed.
struct Eligible<'a> {
    node: &'a Arc<Node>,
    group: &'a NodeGroup,
    id: NodeId,
    utilization: f64,
    empty: bool,
}

/// Finds the nodes that are not needed, and says which go now.
pub(super) fn plan(
    memory: &mut Memory,
    world: &mut World,
    input: &Input,
    settings: &PassSettings,
    outcome: &mut Outcome,
) {
    if !settings.scale_down.enabled {
        return;
    }
    let eligible = eligible(memory, world, input, settings, outcome);
    world.keep_what_is_there();
    simulate(memory, world, input, settings, eligible, outcome);
    let since = outcome.unneeded.iter().map(|unneeded| (unneeded.node.to_string(), unneeded.since));
    memory.unneeded = since.collect();
    mark(input, settings, outcome);
    outcome.scale_down_held = memory.held(input.now, &settings.scale_down);
    if outcome.scale_down_held.is_none() {
        remove(memory, input, settings, outcome);
    }
}

fn eligible<'a>(
    memory: &mut Memory,
    world: &World,
    input: &'a Input,
    settings: &PassSettings,
    outcome: &mut Outcome,
) -> Vec<Eligible<'a>> {
    let groups: BTreeMap<&str, &NodeGroup> = input
        .groups
        .iter()
        .flat_map(|group| group.instances.iter().map(move |instance| (&*instance.id, group)))
        .collect();
    memory.unremovable.retain(|_, until| input.now < *until);
    let slices = input.surroundings.devices.as_ref().map(|devices| devices.by_node()).unwrap_or_default();
    let mut eligible = Vec::new();
    for node in &input.nodes {
        let Some(group) = groups.get(&*node.provider_id) else { continue };
        let Some(id) = world.id(&node.name) else { continue };
        let pods = world.pods_on(&node.name);
        let own = slices.get(&node.name).map_or(&[][..], Vec::as_slice);
        let utilization = match judge((node, own), pods, group, memory, input, &settings.scale_down) {
            Ok(utilization) => utilization,
            Err((reason, text)) => {
                outcome.unremovable.push(Unremovable { node: node.name.clone(), reason, text });
                continue;
            }
        };
        let stays = |pod: &&Arc<Pod>| !pod.is_of_daemon_set() && !pod.is_mirror();
        let empty = pods.iter().find(stays).is_none();
        eligible.push(Eligible { node, group, id, utilization, empty });
    }
    // The empty first, since they cost nobody anything; then those that were not needed before, so that choices last; then
    // those that waste the most.
    let was_needed = |eligible: &Eligible<'_>| !memory.unneeded.contains_key(&*eligible.node.name);
    eligible.sort_by(|one, other| {
        let rank = |eligible: &Eligible<'_>| (!eligible.empty, was_needed(eligible));
        let by_share = || one.utilization.total_cmp(&other.utilization);
        rank(one).cmp(&rank(other)).then_with(by_share).then_with(|| one.node.name.cmp(&other.node.name))
    });
    eligible
}

/// How much of a node with these devices of its own is requested, a share of one; or why it is not looked at any further.
fn judge(
    (node, slices): (&Node, &[Arc<Slice>]),
    pods: &[Arc<Pod>],
    group: &NodeGroup,
    memory: &Memory,
    input: &Input,
    settings: &ScaleDownSettings,
) -> Result<f64, (UnremovableReason, String)> {
    if node.deleting.is_some()
        || node.taint(TO_BE_DELETED).is_some()
        || input.removing.contains_key(&node.name)
    {
        return Err((UnremovableReason::CurrentlyBeingDeleted, "it is being removed".to_owned()));
    }
    if node.annotations.get(SCALE_DOWN_DISABLED).is_some_and(|value| value == "true") {
        let text = format!("annotation {SCALE_DOWN_DISABLED} is true");
        return Err((UnremovableReason::ScaleDownDisabledAnnotation, text));
    }
    if !node.ready && !settings.unready_enabled {
        let text = "it is not ready and --scale-down-unready-enabled is false".to_owned();
        return Err((UnremovableReason::ScaleDownUnreadyDisabled, text));
    }
    let ignored = Ignored {
        daemon_sets: group.options.ignore_daemon_sets.unwrap_or(settings.ignore_daemon_sets),
        mirrors: settings.ignore_mirror_pods,
    };
    // Where a driver publishes the devices there is no device plugin to come.
    let gpu = gpus::resource(node, &settings.gpu_label)
        .filter(|resource| slices.is_empty() || node.allocatable.get(resource) > 0);
    let objects = input.surroundings.devices.as_ref().filter(|_| !slices.is_empty());
    let claims: Vec<_> = objects.into_iter().flat_map(|objects| objects.allocations(pods)).collect();
    let devices = DevicePools { slices, claims: &claims };
    let utilization = match node_utilization(node, pods, ignored, gpu, Some(&devices), input.now) {
        Ok(utilization) => utilization,
        // What never became ready may never have said what it has.
        Err(_) if !node.ready => Utilization::default(),
        Err(error) => return Err((UnremovableReason::UnexpectedError, error.to_string())),
    };
    let threshold = match gpu {
        Some(_) => group.options.gpu_utilization_threshold.unwrap_or(settings.gpu_threshold),
        None => group.options.utilization_threshold.unwrap_or(settings.threshold),
    };
    if node.ready && utilization.share > threshold {
        let (resource, percent) = (&utilization.resource, percent(utilization.share));
        let text = format!(
            "{resource} requested ({percent}% of allocatable) is above the scale-down utilization threshold"
        );
        return Err((UnremovableReason::NotUnderutilized, text));
    }
    if let Some(until) = memory.unremovable.get(&*node.name) {
        let text = format!("it could not be removed; looked at again at {until}");
        return Err((UnremovableReason::RecentlyUnremovable, text));
    }
    Ok(utilization.share)
}

/// Takes nodes off the snapshot one after the other, as long as their pods fit elsewhere.
fn simulate(
    memory: &mut Memory,
    world: &mut World,
    input: &Input,
    settings: &PassSettings,
    eligible: Vec<Eligible<'_>>,
    outcome: &mut Outcome,
) {
    let mut budgets = input.budgets.clone();
    for Eligible { node, group, id, utilization, .. } in eligible {
        let pods = world.pods_on(&node.name);
        let verdict = drain::node(pods, &settings.drain, input.owners.as_ref(), &budgets, input.now);
        let held = gang::held(&verdict.drain, &input.pods, &input.surroundings);
        let divides = held.map(|held| (UnremovableReason::DividesGang, held.to_string()));
        if let Err((reason, text)) = divides.map_or_else(|| try_without(world, node, id, &verdict), Err) {
            memory.unremovable.insert(node.name.to_string(), input.now + settings.scale_down.recheck);
            outcome.unremovable.push(Unremovable { node: node.name.clone(), reason, text });
            continue;
        }
        let in_turn = budgets.can_evict(&verdict.drain) != Evictable::InParallel;
        budgets.evict(&verdict.drain);
        let since = memory.unneeded.get(&*node.name).copied();
        let options = &group.options;
        let after = if node.ready {
            options.unneeded_time.unwrap_or(settings.scale_down.unneeded_time)
        } else {
            options.unready_time.unwrap_or(settings.scale_down.unready_time)
        };
        outcome.unneeded.push(Unneeded {
            node: node.name.clone(),
            group: group.id.clone(),
            since: since.or_else(|| marked_since(node)).unwrap_or(input.now),
            after,
            verdict,
            utilization,
            ready: node.ready,
            in_turn,
        });
    }
}

/// The time that an earlier process wrote on the node.
fn marked_since(node: &Node) -> Option<Timestamp> {
    let seconds = node.taint(DELETION_CANDIDATE)?.value.as_ref()?.parse().ok()?;
    Timestamp::from_second(seconds).ok()
}

/// Takes a node out of use if all its pods fit elsewhere; leaves everything as it was otherwise.
fn try_without(
    world: &mut World,
    node: &Node,
    id: NodeId,
    verdict: &Verdict,
) -> Result<(), (UnremovableReason, String)> {
    if let Some((_, reason, text)) = &verdict.blocked {
        return Err((UnremovableReason::BlockedByPod(*reason), text.clone()));
    }
    if let Some(pod) = verdict.waiting.first() {
        let text = format!("pod {} has to end first", pod.key());
        return Err((UnremovableReason::BlockedByOnCompletionPod, text));
    }
    let snapshot = &mut world.snapshot;
    let checkpoint = snapshot.checkpoint();
    snapshot.remove_node(id);
    // The node stays as a domain that pods are spread over, but takes none.
    let mut ghost = node.clone();
    ghost.unschedulable = true;
    ghost.allocatable = Resources::default();
    snapshot.add_node(&ghost);
    let mut classes = world.guests.get(&id).cloned().unwrap_or_default();
    for pod in &verdict.drain {
        invite(&mut classes, snapshot.class(pod), 1);
    }
    let mut landed = Vec::new();
    for (class, count) in classes {
        if place(snapshot, class, count, None, |node, count| landed.push((node, class, count))) == 0 {
            continue;
        }
        let of_class = |pod: &&Arc<Pod>| snapshot.class(pod) == class;
        let text = match verdict.drain.iter().find(of_class) {
            Some(pod) => format!("pod {} fits on no other node", pod.key()),
            None => "pods that are to run there fit on no other node".to_owned(),
        };
        snapshot.rollback(checkpoint);
        return Err((UnremovableReason::NoPlaceToMovePods, text));
    }
    snapshot.keep(checkpoint);
    world.guests.remove(&id);
    for (node, class, count) in landed {
        invite(world.guests.entry(node).or_default(), class, count);
    }
    Ok(())
}

/// Writes on nodes that they are not needed, so that the scheduler prefers others and a restart knows since when.
fn mark(input: &Input, settings: &PassSettings, outcome: &mut Outcome) {
    let most = settings.scale_down.marks_at_once as usize;
    let since: BTreeMap<&str, Timestamp> =
        outcome.unneeded.iter().map(|unneeded| (&*unneeded.node, unneeded.since)).collect();
    let changes = input.nodes.iter().filter_map(|node| {
        match (since.get(&*node.name), node.taint(DELETION_CANDIDATE)) {
            (Some(since), None) if most > 0 => {
                Some(Action::MarkCandidate { node: node.name.clone(), since: *since })
            }
            (None, Some(_)) if node.taint(TO_BE_DELETED).is_none() => {
                Some(Action::UnmarkCandidate { node: node.name.clone() })
            }
            _ => None,
        }
    });
    outcome.actions.extend(changes.take(most.max(1)));
}

/// Says which of the nodes that are not needed go now.
fn remove(memory: &mut Memory, input: &Input, settings: &PassSettings, outcome: &mut Outcome) {
    let settings = &settings.scale_down;
    let mut quota = Quota::new(input, outcome, settings);
    let by_name: BTreeMap<&str, &Arc<Node>> = input.nodes.iter().map(|node| (&*node.name, node)).collect();
    let mut chosen = Vec::new();
    let mut whole = BTreeSet::new();
    // Drains that may take long come last, so that they hold up no others.
    let at_once = outcome.unneeded.iter().filter(|unneeded| !unneeded.in_turn);
    let in_turn = outcome.unneeded.iter().filter(|unneeded| unneeded.in_turn);
    for unneeded in at_once.chain(in_turn) {
        let together = together(unneeded, &outcome.unneeded, input);
        if together.len() > 1 && !whole.insert(&unneeded.group) {
            continue;
        }
        let held = memory.held_in(&unneeded.group, input.now, settings);
        let held = held.map(|why| (UnremovableReason::NotUnneededOtherReason, why));
        let due = held.map_or_else(|| due(unneeded, &outcome.unneeded, input), Err);
        if due.is_ok() && !quota.has_slots(&together) {
            continue;
        }
        let mut left = quota.clone();
        let mut removals = together.iter().filter_map(|it| Some((*it, by_name.get(&*it.node)?)));
        let taken = due.and_then(|()| {
            removals.try_fold(Vec::new(), |mut removals, (unneeded, node)| {
                left.take(node, unneeded)?;
                removals.push(removal(unneeded, node));
                Ok(removals)
            })
        });
        match taken {
            Ok(removals) => {
                quota = left;
                chosen.extend(removals);
            }
            Err((reason, text)) => {
                outcome.unremovable.extend(together.into_iter().map(|unneeded| Unremovable {
                    node: unneeded.node.clone(),
                    reason,
                    text: text.clone(),
                }));
            }
        }
    }
    for removal in &chosen {
        memory.note(Change::Shrunk, &removal.group, input.now);
    }
    outcome.actions.extend(chosen.into_iter().map(Action::Remove));
}

/// The nodes that go with one: of a group that goes as a whole all that are not needed, else itself.
fn together<'a>(unneeded: &'a Unneeded, all: &'a [Unneeded], input: &Input) -> Vec<&'a Unneeded> {
    let is_whole = |group: &&NodeGroup| group.id == unneeded.group && group.options.zero_or_max;
    if input.groups.iter().find(is_whole).is_none() {
        return vec![unneeded];
    }
    all.iter().filter(|other| other.group == unneeded.group).collect()
}

fn removal(unneeded: &Unneeded, node: &Node) -> Removal {
    Removal {
        group: unneeded.group.clone(),
        node: unneeded.node.clone(),
        provider_id: node.provider_id.clone(),
        pods: unneeded.verdict.drain.clone(),
        daemon_pods: unneeded.verdict.daemon.clone(),
        cause: match (unneeded.ready, unneeded.verdict.drain.is_empty()) {
            (false, _) => RemovalCause::Unready,
            (true, true) => RemovalCause::Empty,
            (true, false) => RemovalCause::Underutilized,
        },
        utilization: unneeded.utilization,
    }
}

/// Whether a node has been unneeded for long enough, and those that have to go with it too.
fn due(unneeded: &Unneeded, all: &[Unneeded], input: &Input) -> Result<(), (UnremovableReason, String)> {
    let age = |unneeded: &Unneeded| input.now.duration_since(unneeded.since);
    if age(unneeded) < unneeded.after {
        let reason = if unneeded.ready {
            UnremovableReason::NotUnneededLongEnough
        } else {
            UnremovableReason::NotUnreadyLongEnough
        };
        let text = format!("unneeded for {:#}, goes after {:#}", age(unneeded), unneeded.after);
        return Err((reason, text));
    }
    let group = input.groups.iter().find(|group| group.id == unneeded.group);
    if let Some(group) = group.filter(|group| group.options.zero_or_max) {
        let due = all.iter().filter(|other| other.group == group.id && age(other) >= other.after);
        if due.count() < group.target as usize {
            let text = format!("group {} goes as a whole", group.id);
            return Err((UnremovableReason::AtomicScaleDownFailed, text));
        }
    }
    Ok(())
}
