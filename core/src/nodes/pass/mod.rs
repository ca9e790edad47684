//! One pass over node groups: everything that is decided, from what is seen to what is to be done.
//!
//! Pure, so that the live loop and the simulation run the very same pass. What outlives a pass is [`Memory`].

mod buffers;
mod cooldown;
mod defaults;
pub mod explain;
mod gangs;
mod gpus;
mod pending;
mod quota;
mod quotas;
mod requests;
mod room;
mod scale_down;
mod scale_up;
#[cfg(test)]
mod tests;
mod world;

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    action::{Action, InstanceFault, TO_BE_DELETED},
    backoff::{BackoffSettings, Backoffs},
    capacity_quota::CapacityQuota,
    cluster_state::{ClusterState, ClusterStateSettings, Found},
    drain::{self, Budgets, Owners},
    group::{NodeGroup, Template},
    provisioning_request::{Answered, Request},
};
use crate::scheduling::{ClassId, LeftOut, Node, NodeId, Pod, Snapshot, Surroundings};
use cooldown::ByGroup;
use world::World;

pub use buffers::Buffered;
pub use cooldown::{Change, Changes};
pub use pending::{Ignored, PendingSettings, Unplaced};
pub use scale_down::{ScaleDownSettings, Unneeded, Unremovable, UnremovableReason};
pub use scale_up::{
    BACKED_OFF, Candidate, ExpansionOption, MAX_SIZE_REACHED, Refusal, ScaleUp, ScaleUpPlan, ScaleUpSettings,
    Waiting,
};

/// What the flags say.
#[derive(Debug, Clone)]
pub struct PassSettings {
    /// Groups beyond one pass.
    pub cluster: ClusterStateSettings,
    /// What is done about instances that never became nodes.
    pub repair: RepairSettings,
    /// Which pods count.
    pub pending: PendingSettings,
    /// How groups grow.
    pub scale_up: ScaleUpSettings,
    /// How groups shrink.
    pub scale_down: ScaleDownSettings,
    /// Which pods keep their node.
    pub drain: drain::Options,
    /// How long a ProvisioningRequest waits that found no room.
    pub requests: BackoffSettings,
}

/// What may be done about instances that are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RepairSettings {
    /// `--force-delete-failed-nodes`: those that could not be made go even below the minimum of their group.
    pub force_failed: bool,
    /// `--force-delete-unregistered-nodes`: those that never registered, likewise.
    pub force_unregistered: bool,
}

/// What a pass sees.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// The time.
    pub now: Timestamp,
    /// All nodes.
    pub nodes: Vec<Arc<Node>>,
    /// All pods.
    pub pods: Vec<Arc<Pod>>,
    /// Pods that will soon be made (demand), then those that stand for the room of buffers; bound to no node.
    pub expected: Vec<Arc<Pod>>,
    /// ProvisioningRequests that ask for room or keep it, in the order in which they were made.
    pub requests: Vec<Request>,
    /// A pod of each DaemonSet.
    pub daemon_sets: Vec<Arc<Pod>>,
    /// Budgets.
    pub budgets: Budgets,
    /// Controllers; `None` if they are not looked up.
    pub owners: Option<Owners>,
    /// What else the scheduler reads.
    pub surroundings: Arc<Surroundings>,
    /// Groups, in order of name.
    pub groups: Vec<NodeGroup>,
    /// What new nodes of a group look like; a group without one cannot grow.
    pub templates: BTreeMap<Arc<str>, Template>,
    /// Nodes whose removal is under way, and whether they are drained.
    pub removing: BTreeMap<Arc<str>, bool>,
    /// CapacityQuotas, in order of name.
    pub quotas: Vec<Arc<CapacityQuota>>,
}

/// What outlives a pass, and a restart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Groups.
    pub cluster: ClusterState,
    /// Nodes that are not needed, and since when.
    pub unneeded: BTreeMap<String, Timestamp>,
    /// Nodes that could not be removed, and when they are looked at again.
    pub unremovable: BTreeMap<String, Timestamp>,
    /// When a group last grew.
    pub grown: Option<Timestamp>,
    /// When a node was last removed.
    pub shrunk: Option<Timestamp>,
    /// When a removal last failed.
    pub failed: Option<Timestamp>,
    /// The same by group, for `--scale-down-delay-type-local`.
    #[serde(default)]
    by_group: ByGroup,
    /// ProvisioningRequests that found no room, by uid.
    #[serde(default)]
    pub requests: Backoffs,
}

/// What a pass decided, and why.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// What is known of groups and nodes.
    pub found: Found,
    /// What is to be done, in this order.
    pub actions: Vec<Action>,
    /// Pods without a node, whether or not they will fit or ask for one.
    pub unplaced: Unplaced,
    /// Pods that fit nowhere, in order; those of removed nodes and expected ones are not among them.
    pub unschedulable: Vec<Arc<Pod>>,
    /// Pods that the scheduler could not place and that will fit nevertheless.
    pub fitting: u32,
    /// Nodes on their way.
    pub upcoming: u32,
    /// What is done for pods that fit nowhere.
    pub plan: ScaleUpPlan,
    /// Gangs that wait, since nodes are only asked for all of one.
    pub left_out: LeftOut,
    /// What became of the pods that stand for the room of buffers, in order of the buffers' names.
    pub buffers: Vec<Buffered>,
    /// What is made of ProvisioningRequests that ask for room now.
    pub requests: Vec<Answered>,
    /// Pods that fit nowhere and cause no scale-up, since they consume a ProvisioningRequest.
    pub consuming: Vec<Arc<Pod>>,
    /// `--max-nodes-total`, if pods wait and the cluster may not grow beyond it.
    pub max_nodes_reached: Option<u32>,
    /// Nodes that are not needed.
    pub unneeded: Vec<Unneeded>,
    /// Nodes that stay, and why.
    pub unremovable: Vec<Unremovable>,
    /// Why no node is removed now, whatever is not needed.
    pub scale_down_held: Option<String>,
}

/// Chooses among the options of a scale-up: the index of one, or `None` to stop.
pub type Choose<'a> = dyn FnMut(&ScaleUp<'_>, &[ExpansionOption]) -> Option<usize> + 'a;

/// A part of a pass, for those who have a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What there is: groups, nodes, pods.
    State,
    /// Pods placed, and what groups grow for.
    ScaleUp,
    /// Nodes that are not needed, and which of them go.
    ScaleDown,
}

/// One pass, on its own.
pub fn run(memory: &mut Memory, input: &Input, settings: &PassSettings, choose: &mut Choose<'_>) -> Outcome {
    Model::new(settings.clone()).pass(memory, input, choose)
}

/// Passes one after another: each decides as [`run`] would, and reads only what has changed since the one before.
///
/// Nodes and pods are the same if they are behind the same pointer, so what a pointer shows must never change. Quickest with
/// nodes and pods in the order of their names.
#[derive(Debug)]
pub struct Model {
    settings: PassSettings,
    world: Option<World>,
    calm: Option<Calm>,
}

/// A pass after which nothing is left that time alone could change, except for how long ago groups grew and shrank.
#[derive(Debug)]
struct Calm {
    groups: Vec<NodeGroup>,
    templates: BTreeMap<Arc<str>, Template>,
    quotas: Vec<Arc<CapacityQuota>>,
    cluster: ClusterState,
    outcome: Outcome,
}

impl Model {
    /// Begins with nothing.
    pub fn new(settings: PassSettings) -> Self {
        Self { settings, world: None, calm: None }
    }

    /// One pass.
    pub fn pass(&mut self, memory: &mut Memory, input: &Input, choose: &mut Choose<'_>) -> Outcome {
        self.pass_in_parts(memory, input, choose, &mut |_| {})
    }

    /// One pass; `ended` hears of the end of each part. One that finds nothing changed has none.
    pub fn pass_in_parts(
        &mut self,
        memory: &mut Memory,
        input: &Input,
        choose: &mut Choose<'_>,
        ended: &mut dyn FnMut(Part),
    ) -> Outcome {
        if let Some(outcome) = self.unchanged(memory, input) {
            return outcome;
        }
        let settings = &self.settings;
        let found = memory.cluster.update(&input.nodes, &input.groups, input.now, &settings.cluster);
        memory.by_group.retain(|id, _| input.groups.iter().any(|group| *group.id == **id));
        let mut outcome = Outcome { found, ..Outcome::default() };
        repair(input, settings.repair, &mut outcome);
        self.calm = None;
        if !outcome.found.healthy {
            // Too much is broken to tell what is needed; every node is looked at afresh when it works again.
            memory.unneeded.clear();
            outcome.scale_down_held = Some("cluster is unhealthy".to_owned());
            return outcome;
        }
        let mut world = World::of(self.world.take(), input, &outcome.found, settings);
        outcome.unplaced = pending::unplaced(&world, &settings.pending);
        ended(Part::State);
        gangs::plan(memory, &mut world, input, settings, choose, &mut outcome);
        requests::remember(memory, input, settings, &outcome);
        ended(Part::ScaleUp);
        scale_down::plan(memory, &mut world, input, settings, &mut outcome);
        ended(Part::ScaleDown);
        self.calm = Calm::after(&outcome, memory, input, &world);
        self.world = Some(world);
        outcome
    }

    /// Gangs of which pods that wait are expected on a node, by the last pass.
    fn gangs_expected_on(&mut self, node: &str) -> Vec<String> {
        self.world.as_mut().map(|world| world.gangs_expected_on(node)).unwrap_or_default()
    }

    /// What the last pass said, if another would say the same.
    fn unchanged(&self, memory: &Memory, input: &Input) -> Option<Outcome> {
        let (calm, world) = (self.calm.as_ref()?, self.world.as_ref()?);
        let same = input.expected.is_empty()
            && input.requests.is_empty()
            && input.removing.is_empty()
            && memory.unneeded.is_empty()
            && memory.unremovable.is_empty()
            && memory.cluster == calm.cluster
            && input.groups == calm.groups
            && input.templates == calm.templates
            && input.quotas == calm.quotas
            && world.is_of(input);
        let outcome = || {
            let held = memory.held(input.now, &self.settings.scale_down);
            let held = held.filter(|_| self.settings.scale_down.enabled);
            Outcome { scale_down_held: held, ..calm.outcome.clone() }
        };
        same.then(outcome)
    }
}

impl Calm {
    /// Nothing waits or is on its way, no node could go and none is in trouble: every rule that reads the clock is at rest.
    fn after(outcome: &Outcome, memory: &Memory, input: &Input, world: &World) -> Option<Self> {
        let Found { total, expired, fulfilled, failures, .. } = &outcome.found;
        let calm = outcome.actions.is_empty()
            && outcome.upcoming == 0
            && (total.unready, total.not_started) == (0, 0)
            && expired.is_empty()
            && fulfilled.is_empty()
            && failures.is_empty()
            && memory.cluster.is_at_rest()
            && memory.unneeded.is_empty()
            && memory.unremovable.is_empty()
            && input.expected.is_empty()
            && input.requests.is_empty()
            && input.removing.is_empty()
            && world.unbound.is_empty()
            && !world.has_pods_that_end();
        let calm_after = || Self {
            groups: input.groups.clone(),
            templates: input.templates.clone(),
            quotas: input.quotas.clone(),
            cluster: memory.cluster.clone(),
            outcome: outcome.clone(),
        };
        calm.then(calm_after)
    }
}

/// Places as many pods of a class as fit; returns how many are left. `placed` hears where they went.
fn place(
    snapshot: &mut Snapshot,
    class: ClassId,
    mut count: u32,
    hint: Option<NodeId>,
    mut placed: impl FnMut(NodeId, u32),
) -> u32 {
    while count > 0 {
        let Some(node) = snapshot.find(class, hint) else { break };
        let fitting = snapshot.how_many_more(class, node).clamp(1, count);
        snapshot.bind_many(class, node, fitting);
        placed(node, fitting);
        count -= fitting;
    }
    count
}

/// What is wrong with groups is put right first: instances that failed or never came, targets that nothing stands behind.
/// No group gets below its minimum, unless the flags say that it may.
fn repair(input: &Input, settings: RepairSettings, outcome: &mut Outcome) {
    for group in &input.groups {
        let Some(state) = outcome.found.groups.get(&group.id) else { continue };
        let mut spare = group.target.saturating_sub(group.min);
        let failed = state.failed.iter().map(|(id, _)| id).collect::<Vec<_>>();
        let lost = state.long_unregistered.iter().collect();
        for (cause, ids, is_forced) in [
            (InstanceFault::Failed, failed, settings.force_failed),
            (InstanceFault::NeverRegistered, lost, settings.force_unregistered),
        ] {
            let most = if is_forced { ids.len() } else { spare as usize };
            let instances: Vec<_> = ids.into_iter().take(most).cloned().collect();
            spare = spare.saturating_sub(u32::try_from(instances.len()).unwrap_or(spare));
            if !instances.is_empty() {
                let group = group.id.clone();
                outcome.actions.push(Action::DeleteInstances { group, instances, cause });
            }
        }
        let delta = state.overstated.min(spare);
        if delta > 0 {
            let (group, target) = (group.id.clone(), group.target);
            outcome.actions.push(Action::Decrease { group, target, delta });
        }
    }
}

/// Nodes with a removal's taint that nobody is removing: a removal that a restart interrupted.
pub fn left_over(nodes: &[Arc<Node>], removing: &BTreeMap<Arc<str>, bool>) -> Vec<Action> {
    let left = |node: &&Arc<Node>| {
        node.taint(TO_BE_DELETED).is_some() && node.deleting.is_none() && !removing.contains_key(&node.name)
    };
    nodes.iter().filter(left).map(|node| Action::CleanUp { node: node.name.clone() }).collect()
}

/// Whether `since` lies less than `span` back.
fn within(since: Option<Timestamp>, span: SignedDuration, now: Timestamp) -> bool {
    since.is_some_and(|since| now.duration_since(since) < span)
}
