//! One pass over node groups: everything that is decided, from what is seen to what is to be done.
//!
//! Pure, so that the live loop and the simulation run the very same pass. What outlives a pass is [`Memory`].

mod defaults;
pub mod explain;
mod pending;
mod quota;
mod scale_down;
mod scale_up;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    action::{Action, InstanceFault, TO_BE_DELETED},
    cluster_state::{ClusterState, ClusterStateSettings, Found},
    drain::{self, Budgets, Owners},
    group::{NodeGroup, Template},
};
use crate::scheduling::{ClassId, Node, NodeId, Pod, Snapshot, Surroundings};

pub use pending::{Ignored, PendingSettings};
pub use scale_down::{ScaleDownSettings, Unneeded, Unremovable, UnremovableReason};
pub use scale_up::{
    Candidate, ExpansionOption, MAX_SIZE_REACHED, Refusal, ScaleUp, ScaleUpPlan, ScaleUpSettings, Waiting,
};

/// What the flags say.
#[derive(Debug, Clone)]
pub struct PassSettings {
    /// Groups beyond one pass.
    pub cluster: ClusterStateSettings,
    /// Which pods count.
    pub pending: PendingSettings,
    /// How groups grow.
    pub scale_up: ScaleUpSettings,
    /// How groups shrink.
    pub scale_down: ScaleDownSettings,
    /// Which pods keep their node.
    pub drain: drain::Options,
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
    /// Pods that will soon be made (demand), bound to no node.
    pub expected: Vec<Arc<Pod>>,
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
}

/// What a pass decided, and why.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// What is known of groups and nodes.
    pub found: Found,
    /// What is to be done, in this order.
    pub actions: Vec<Action>,
    /// Pods that fit nowhere, in order; those of removed nodes and expected ones are not among them.
    pub unschedulable: Vec<Arc<Pod>>,
    /// Pods that the scheduler could not place and that will fit nevertheless.
    pub fitting: u32,
    /// Nodes on their way.
    pub upcoming: u32,
    /// What is done for pods that fit nowhere.
    pub plan: ScaleUpPlan,
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

/// One pass.
pub fn run(memory: &mut Memory, input: &Input, settings: &PassSettings, choose: &mut Choose<'_>) -> Outcome {
    let now = input.now;
    let found = memory.cluster.update(&input.nodes, &input.groups, now, &settings.cluster);
    let mut outcome = Outcome { found, ..Outcome::default() };
    repair(input, &mut outcome);
    if !outcome.found.healthy {
        // Too much is broken to tell what is needed; every node is looked at afresh when it works again.
        memory.unneeded.clear();
        outcome.scale_down_held = Some("cluster is unhealthy".to_owned());
        return outcome;
    }
    let mut world = World::new(input, &outcome.found, settings);
    let waiting = pending::waiting(&mut world, input, settings, &mut outcome);
    scale_up::plan(memory, &mut world, waiting, input, settings, choose, &mut outcome);
    scale_down::plan(memory, &mut world, input, settings, &mut outcome);
    outcome
}

/// The snapshot, and where in it everything is.
struct World<'a> {
    snapshot: Snapshot,
    /// Nodes that run pods, by name.
    ids: BTreeMap<&'a str, NodeId>,
    /// Pods on each node.
    pods: BTreeMap<&'a str, Vec<Arc<Pod>>>,
    /// Pods that will run on a node though they do not yet: they need another place if it goes.
    guests: BTreeMap<NodeId, Guests>,
}

/// How many pods of each class.
type Guests = BTreeMap<ClassId, u32>;

impl<'a> World<'a> {
    /// Every node that can run pods, with those it runs. Nodes that are starting are left out: as long as they are not
    /// ready, copies of their group's template stand for them.
    fn new(input: &'a Input, found: &Found, settings: &PassSettings) -> Self {
        let starting: BTreeSet<&str> =
            found.groups.values().flat_map(|group| &group.starting).map(|name| &**name).collect();
        let mut snapshot = Snapshot::new(input.surroundings.clone());
        let mut ids = BTreeMap::new();
        for node in input.nodes.iter().filter(|node| !starting.contains(&*node.name)) {
            // A node that goes takes no pods, even before its taint is seen.
            let going = input.removing.contains_key(&node.name);
            let id = if going {
                snapshot.add_node(&Node { unschedulable: true, ..(**node).clone() })
            } else {
                snapshot.add_node(node)
            };
            ids.insert(&*node.name, id);
        }
        let mut pods: BTreeMap<&str, Vec<Arc<Pod>>> = BTreeMap::new();
        let mut guests: BTreeMap<NodeId, Guests> = BTreeMap::new();
        for pod in &input.pods {
            let Some(node) = pod.node.as_deref().or(pod.nominated.as_deref()) else { continue };
            if pod.is_terminal() || pod.deleting.is_some() && pod.node.is_none() {
                continue;
            }
            if pod.node.is_some() {
                pods.entry(node).or_default().push(pod.clone());
            }
            if let Some(id) = ids.get(node)
                && !settings.pending.is_expendable(pod)
            {
                let class = snapshot.class(pod);
                snapshot.bind(class, *id);
                if pod.node.is_none() {
                    *guests.entry(*id).or_default().entry(class).or_default() += 1;
                }
            }
        }
        Self { snapshot, ids, pods, guests }
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
/// No group gets below its minimum.
fn repair(input: &Input, outcome: &mut Outcome) {
    for group in &input.groups {
        let Some(state) = outcome.found.groups.get(&group.id) else { continue };
        let mut spare = group.target.saturating_sub(group.min);
        let failed = state.failed.iter().map(|(id, _)| id);
        let lost = state.long_unregistered.iter();
        let faults: [(InstanceFault, Vec<_>); 2] =
            [(InstanceFault::Failed, failed.collect()), (InstanceFault::NeverRegistered, lost.collect())];
        for (cause, ids) in faults {
            let instances: Vec<_> = ids.into_iter().take(spare as usize).cloned().collect();
            spare -= u32::try_from(instances.len()).unwrap_or(spare);
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
