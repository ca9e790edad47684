//! Which groups grow, and by how much, for the pods that fit nowhere.
//!
//! As Cluster Autoscaler's orchestrator (`core/scaleup/orchestrator`), except that several groups may grow in one pass:
//! after each choice the nodes that it adds are part of the snapshot, and what still fits nowhere is weighed again.

mod all_or_nothing;
mod whole;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    Change, Choose, Input, Memory, Outcome, PassSettings, World, buffers, place,
    requests::Wanting,
    room::{MAX_NODES_REACHED, Room},
};
use crate::{
    nodes::{
        action::{Action, Increase},
        buffer::is_virtual,
        estimator::{Estimate, Limiter, Limits, estimate, estimate_and_keep, keep},
        expander::{Choice, Pricing},
        group::{NodeGroup, Template},
        similar::{Comparator, balance},
    },
    scheduling::{ClassId, Pod, Resources, Snapshot},
};

/// How groups grow.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaleUpSettings {
    /// `--max-nodes-per-scaleup`.
    pub most_at_once: u32,
    /// `--max-nodes-total`; `None` without a limit.
    pub max_nodes: Option<u32>,
    /// The greater bound of `--cores-total`, in cores.
    pub max_cores: i64,
    /// The greater bound of `--memory-total`, in bytes.
    pub max_memory: i64,
    /// The greater bounds of `--gpu-total`, by type; a type that is absent has none.
    pub max_gpus: BTreeMap<String, i64>,
    /// `--scale-up-from-zero`.
    pub from_zero: bool,
    /// `--enforce-node-group-min-size`.
    pub enforce_min: bool,
    /// How groups that share new nodes are told; `None` without `--balance-similar-node-groups`.
    pub balance: Option<Comparator>,
}

/// A group that is looked at.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The group.
    pub group: NodeGroup,
    /// What a new node of it would look like.
    pub template: Template,
    /// Why it may not grow now, in Cluster Autoscaler's words.
    pub barred: Option<String>,
}

/// Pods that fit nowhere, identical to the scheduler.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Their class.
    pub class: ClassId,
    /// They, in order of name.
    pub pods: Vec<Arc<Pod>>,
}

/// What one group could do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpansionOption {
    /// The group, as an index into the candidates.
    pub candidate: usize,
    /// Nodes that it would get.
    pub nodes: u32,
    /// How many of the waiting pods would run there, by index.
    pub scheduled: Vec<u32>,
    /// How that was found: the waiting pods by index, and their estimate. Kept of the only option alone.
    found: Option<(Vec<usize>, Estimate)>,
}

impl ExpansionOption {
    /// How many pods would run there.
    pub fn pods(&self) -> u32 {
        self.scheduled.iter().sum()
    }
}

/// The plan in the making.
pub struct ScaleUp<'a> {
    snapshot: &'a mut Snapshot,
    /// Groups, in order of name.
    pub candidates: Vec<Candidate>,
    /// What waits.
    pub waiting: Vec<Waiting>,
    /// How many of each still wait.
    left: Vec<u32>,
    /// How many more nodes each group may get.
    room: Vec<u32>,
    added: BTreeMap<usize, u32>,
    splits: Vec<Vec<Arc<str>>>,
    /// Why a group cannot help a class: by waiting and candidate.
    refused: BTreeMap<(usize, usize), String>,
    /// The groups that help a class.
    helped_by: BTreeMap<usize, Vec<usize>>,
    now: Timestamp,
}

/// What is to be done for the pods that fit nowhere.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ScaleUpPlan {
    /// Groups that grow, in order of name.
    pub increases: Vec<Increase>,
    /// Groups among which new nodes were split, because they are alike.
    pub splits: Vec<Vec<Arc<str>>>,
    /// Pods that will find a place, with the groups that were grown for them.
    pub helped: Vec<(Arc<Pod>, Vec<Arc<str>>)>,
    /// Pods that no group can help, with each group's reason.
    pub refused: Vec<(Arc<Pod>, Arc<[Refusal]>)>,
}

/// A group that cannot help pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The group; empty where none is the reason.
    pub group: Arc<str>,
    /// Why.
    pub reason: String,
}

impl<'a> ScaleUp<'a> {
    /// Begins a plan. `snapshot` holds every node that there is or that is on its way, with the pods it will run.
    pub fn new(
        snapshot: &'a mut Snapshot,
        candidates: Vec<Candidate>,
        waiting: Vec<Waiting>,
        now: Timestamp,
    ) -> Self {
        let left = waiting.iter().map(|waiting| u32::try_from(waiting.pods.len()).unwrap_or(u32::MAX));
        let room = |candidate: &Candidate| {
            let open = candidate.barred.is_none();
            if open { candidate.group.max.saturating_sub(candidate.group.target) } else { 0 }
        };
        Self {
            left: left.collect(),
            room: candidates.iter().map(room).collect(),
            snapshot,
            candidates,
            waiting,
            added: BTreeMap::new(),
            splits: Vec::new(),
            refused: BTreeMap::new(),
            helped_by: BTreeMap::new(),
            now,
        }
    }

    /// Leaves what only stands for room out until everybody else is helped. Returns which, and how many of each.
    fn hold_back(&mut self) -> Vec<(usize, u32)> {
        let waiting = self.waiting.iter().zip(&mut self.left).enumerate();
        let spare =
            waiting.filter(|(_, (waiting, _))| waiting.pods.first().is_some_and(|pod| is_virtual(pod)));
        spare.map(|(at, (_, left))| (at, std::mem::take(left))).collect()
    }

    /// Takes it in again: what fits on the new nodes is there, the others wait.
    fn release(&mut self, spare: &[(usize, u32)]) {
        for (at, count) in spare {
            self.left[*at] = place(self.snapshot, self.waiting[*at].class, *count, None, |_, _| {});
        }
    }

    /// What each group could do for the pods that still wait; `most` nodes a group at once.
    pub fn options(&mut self, most: u32) -> Vec<ExpansionOption> {
        let mut options: Vec<ExpansionOption> = Vec::new();
        for candidate in 0..self.candidates.len() {
            if let Some(option) = self.option(candidate, most) {
                options.push(option);
                // Placements are large, and those of all options but one are for nothing.
                if options.len() > 1 {
                    for option in &mut options {
                        option.found = None;
                    }
                }
            }
        }
        options
    }

    fn option(&mut self, candidate: usize, most: u32) -> Option<ExpansionOption> {
        let fitting = self.fitting(candidate);
        let room = self.room[candidate].min(if self.is_whole(candidate) { u32::MAX } else { most });
        if room == 0 || fitting.is_empty() {
            return None;
        }
        let groups = self.groups(&fitting);
        let clock = || self.now;
        let mut limiter = Limiter::start(nodes(room), &clock);
        let template = &self.candidates[candidate].template;
        let estimate = estimate(self.snapshot, template, &groups, &mut limiter);
        let mut scheduled = vec![0; self.waiting.len()];
        for (waiting, count) in fitting.iter().zip(&estimate.scheduled) {
            scheduled[*waiting] = *count;
        }
        let nodes = self.as_whole(candidate, estimate.nodes);
        let found = Some((fitting, estimate));
        (nodes > 0).then_some(ExpansionOption { candidate, nodes, scheduled, found })
    }

    /// The classes that still wait and that a fresh node of the group takes; of the others the reason is kept.
    fn fitting(&mut self, candidate: usize) -> Vec<usize> {
        let checkpoint = self.snapshot.checkpoint();
        let Candidate { template, barred, .. } = &self.candidates[candidate];
        let node = self.snapshot.add_node(&template.node);
        for pod in &template.pods {
            let class = self.snapshot.class(pod);
            self.snapshot.bind(class, node);
        }
        let mut fitting = Vec::new();
        for (waiting, Waiting { class, .. }) in self.waiting.iter().enumerate() {
            if self.left[waiting] == 0 {
                continue;
            }
            let reason = match self.snapshot.check(*class, node) {
                Err(reason) => reason.to_string(),
                Ok(()) => match barred {
                    Some(why) => why.clone(),
                    None if self.room[candidate] == 0 => MAX_SIZE_REACHED.to_owned(),
                    None => {
                        fitting.push(waiting);
                        continue;
                    }
                },
            };
            self.refused.entry((waiting, candidate)).or_insert(reason);
        }
        self.snapshot.rollback(checkpoint);
        fitting
    }

    /// Takes an option, as far as `allowed` nodes; the nodes are part of the snapshot from now on. Returns how many nodes
    /// the group gets.
    pub fn take(&mut self, option: &ExpansionOption, allowed: u32) -> u32 {
        let candidate = option.candidate;
        let allowed = allowed.min(self.room[candidate]).min(option.nodes);
        if allowed == 0 || (allowed < option.nodes && self.is_whole(candidate)) {
            self.room[candidate] = 0;
            return 0;
        }
        let (nodes, scheduled) = match &option.found {
            Some((fitting, estimate)) if allowed == option.nodes => {
                let template = &self.candidates[candidate].template;
                keep(self.snapshot, template, &self.groups(fitting), estimate);
                (estimate.nodes, option.scheduled.clone())
            }
            _ => self.estimate_again(option, allowed),
        };
        let nodes = self.fill(candidate, nodes);
        for (waiting, count) in scheduled.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            self.left[waiting] -= count.min(self.left[waiting]);
            self.helped_by.entry(waiting).or_default().push(candidate);
        }
        // An option that comes to nothing would be chosen for ever.
        self.room[candidate] = if nodes == 0 { 0 } else { self.room[candidate] - nodes };
        *self.added.entry(candidate).or_default() += nodes;
        nodes
    }

    /// Grows an option's group by no more than `allowed` nodes. Returns the nodes, and the waiting pods that they take.
    fn estimate_again(&mut self, option: &ExpansionOption, allowed: u32) -> (u32, Vec<u32>) {
        let waiting = 0..self.waiting.len();
        let fitting: Vec<usize> = waiting.filter(|waiting| option.scheduled[*waiting] > 0).collect();
        let groups = self.groups(&fitting);
        let clock = || self.now;
        let mut limiter = Limiter::start(nodes(allowed), &clock);
        let template = &self.candidates[option.candidate].template;
        let kept = estimate_and_keep(self.snapshot, template, &groups, &mut limiter);
        let mut scheduled = vec![0; self.waiting.len()];
        for (waiting, count) in fitting.into_iter().zip(&kept.scheduled) {
            scheduled[waiting] = *count;
        }
        (kept.nodes, scheduled)
    }

    /// Classes that wait, and how many pods of each still do.
    fn groups(&self, waiting: &[usize]) -> Vec<(ClassId, u32)> {
        waiting.iter().map(|waiting| (self.waiting[*waiting].class, self.left[*waiting])).collect()
    }

    /// An option, for expanders to choose from.
    pub fn choice(&self, option: &ExpansionOption, pricing: Pricing) -> Choice {
        let candidate = &self.candidates[option.candidate];
        Choice {
            group: candidate.group.id.clone(),
            nodes: option.nodes,
            pods: option.pods(),
            requested: self.requested(option),
            capacity: candidate.template.node.capacity.clone(),
            pricing,
        }
    }

    /// What the pods of an option request together.
    pub fn requested(&self, option: &ExpansionOption) -> Resources {
        let mut requested = Resources::default();
        for (Waiting { class, .. }, count) in self.waiting.iter().zip(&option.scheduled) {
            requested.add(&self.snapshot.requests(*class).times(i64::from(*count)));
        }
        requested
    }

    /// The pods of an option, those that wait first.
    pub fn pods_of<'s>(&'s self, option: &'s ExpansionOption) -> impl Iterator<Item = &'s Arc<Pod>> {
        self.waiting.iter().zip(&self.left).zip(&option.scheduled).flat_map(|((waiting, left), count)| {
            let helped = waiting.pods.len().saturating_sub(*left as usize);
            waiting.pods[helped..].iter().take(*count as usize)
        })
    }

    /// Lets a group grow no further, for this reason.
    fn bar(&mut self, candidate: usize, reason: String) {
        self.room[candidate] = 0;
        let short = (0..self.left.len()).filter(|waiting| self.left[*waiting] > 0);
        for waiting in short {
            self.refused.entry((waiting, candidate)).or_insert_with(|| reason.clone());
        }
        self.candidates[candidate].barred.get_or_insert(reason);
    }

    /// Spreads the `nodes` that an option's group has just been given over it and those that are like it and take the
    /// same pods (`--balance-similar-node-groups`), as far as limits of the others allow.
    fn spread(&mut self, option: &ExpansionOption, nodes: u32, comparator: &Comparator, room: &mut Room) {
        let chosen = option.candidate;
        let mut sharing = self.similar(option, comparator);
        sharing.push(chosen);
        let sized = sharing.iter().map(|candidate| {
            let given = if *candidate == chosen { nodes } else { 0 };
            let group = &self.candidates[*candidate].group;
            let target = group.target + self.added.get(candidate).copied().unwrap_or(0) - given;
            NodeGroup { target, max: target + given + self.room[*candidate], ..group.clone() }
        });
        let shares = balance(&sized.collect::<Vec<_>>(), nodes);
        for share in shares {
            let other = sharing.iter().find(|candidate| self.candidates[**candidate].group.id == share.group);
            let Some(other) = other.copied().filter(|other| *other != chosen) else { continue };
            if self.shift(chosen, other, share.to - share.from, room) == 0 {
                sharing.retain(|candidate| *candidate != other);
                continue;
            }
            for (waiting, _) in option.scheduled.iter().enumerate().filter(|(_, count)| **count > 0) {
                self.helped_by.entry(waiting).or_default().push(other);
            }
        }
        if sharing.len() > 1 {
            let mut names: Vec<_> =
                sharing.iter().map(|candidate| self.candidates[*candidate].group.id.clone()).collect();
            names.sort();
            self.splits.push(names);
        }
    }

    /// The other candidates that may grow, are like an option's and take all of its pods.
    fn similar(&self, option: &ExpansionOption, comparator: &Comparator) -> Vec<usize> {
        let template = &self.candidates[option.candidate].template;
        let takes = |candidate: usize| {
            let pods = option.scheduled.iter().enumerate().filter(|(_, count)| **count > 0);
            pods.into_iter().all(|(waiting, _)| !self.refused.contains_key(&(waiting, candidate)))
        };
        let others = (0..self.candidates.len()).filter(|candidate| *candidate != option.candidate);
        others
            .filter(|candidate| self.room[*candidate] > 0 && !self.is_whole(*candidate) && takes(*candidate))
            .filter(|candidate| comparator.similar(template, &self.candidates[*candidate].template))
            .collect()
    }

    /// Gives nodes of one group to another that is like it, one by one: a little more each, they may exceed a limit that the
    /// former kept. Returns how many.
    fn shift(&mut self, from: usize, to: usize, nodes: u32, room: &mut Room) -> u32 {
        let given = self.added.get(&from).copied().unwrap_or(0);
        let nodes = nodes.min(given).min(self.room[to]);
        let (here, there) = (&self.candidates[from].template.node, &self.candidates[to].template.node);
        let mut shifted = 0;
        while shifted < nodes {
            room.give_back(here, 1);
            if room.allowed(there, 1).0 == 0 {
                room.take(here, 1);
                break;
            }
            room.take(there, 1);
            shifted += 1;
        }
        *self.added.entry(from).or_default() -= shifted;
        *self.added.entry(to).or_default() += shifted;
        self.room[from] += shifted;
        self.room[to] -= shifted;
        shifted
    }

    /// The plan.
    pub fn finish(self) -> ScaleUpPlan {
        let mut plan = ScaleUpPlan { splits: self.splits, ..ScaleUpPlan::default() };
        for (candidate, nodes) in self.added.iter().filter(|(_, nodes)| **nodes > 0) {
            let group = &self.candidates[*candidate].group;
            plan.increases.push(Increase {
                group: group.id.clone(),
                from: group.target,
                to: group.target + nodes,
                max: group.max,
            });
        }
        for (waiting, Waiting { pods, .. }) in self.waiting.iter().enumerate() {
            let helped = pods.len() - (self.left[waiting] as usize).min(pods.len());
            let helpers = self.helped_by.get(&waiting).into_iter().flatten();
            let groups: BTreeSet<_> =
                helpers.map(|candidate| self.candidates[*candidate].group.id.clone()).collect();
            let groups: Vec<_> = groups.into_iter().collect();
            plan.helped.extend(pods[..helped].iter().map(|pod| (pod.clone(), groups.clone())));
            let reasons: Arc<[_]> = (0..self.candidates.len())
                .filter_map(|candidate| {
                    let reason = self.refused.get(&(waiting, candidate))?;
                    let group = self.candidates[candidate].group.id.clone();
                    Some(Refusal { group, reason: reason.clone() })
                })
                .collect();
            plan.refused.extend(pods[helped..].iter().map(|pod| (pod.clone(), reasons.clone())));
        }
        plan
    }
}

/// Why a group that is as large as it may be does not grow.
pub const MAX_SIZE_REACHED: &str = "max node group size reached";
/// Why a group does not grow that failed of late.
pub const BACKED_OFF: &str = "in backoff after failed scale-up";

fn nodes(nodes: u32) -> Limits {
    Limits { nodes: i64::from(nodes), ..Limits::default() }
}

/// Decides what grows, and puts it into the outcome.
pub(super) fn plan(
    memory: &mut Memory,
    world: &mut World,
    (waiting, wanting): (Vec<Waiting>, Vec<Wanting>),
    input: &Input,
    settings: &PassSettings,
    choose: &mut Choose<'_>,
    outcome: &mut Outcome,
) {
    let mut room = Room::new(input, outcome, settings);
    let short = buffers::short_of(&waiting);
    let is_short = !(waiting.is_empty() && wanting.is_empty());
    if is_short && (settings.scale_up.from_zero || outcome.found.total.ready > 0) {
        outcome.max_nodes_reached = settings.scale_up.max_nodes.filter(|_| room.nodes == Some(0));
        let candidates = candidates(memory, input, outcome);
        let mut scale_up = ScaleUp::new(&mut world.snapshot, candidates, waiting, input.now);
        let spare = scale_up.hold_back();
        grow(&mut scale_up, &mut room, &settings.scale_up, choose);
        for wanting in &wanting {
            let answered = wanting.grow(&mut scale_up, &mut room, &settings.scale_up, choose);
            outcome.requests.push(answered);
        }
        if !spare.is_empty() {
            scale_up.release(&spare);
            grow(&mut scale_up, &mut room, &settings.scale_up, choose);
        }
        outcome.plan = scale_up.finish();
    } else {
        outcome.requests.extend(wanting.iter().map(Wanting::refuse));
    }
    outcome.buffers = buffers::settle(input, &settings.pending, &short, &outcome.plan);
    // Nobody has heard of pods that do not exist yet, or again.
    let known: BTreeSet<_> = outcome.unschedulable.iter().map(Arc::as_ptr).collect();
    let real = |pod: &Arc<Pod>| known.contains(&Arc::as_ptr(pod));
    outcome.plan.helped.retain(|(pod, _)| real(pod));
    outcome.plan.refused.retain(|(pod, _)| real(pod));
    let mut refusals = outcome.plan.refused.iter().flat_map(|(_, refusals)| refusals.iter());
    if refusals.any(|refusal| refusal.reason == MAX_NODES_REACHED) {
        // Or what grows is cut short by it.
        outcome.max_nodes_reached = settings.scale_up.max_nodes;
    }
    let mut increases = outcome.plan.increases.clone();
    if settings.scale_up.enforce_min {
        increases.extend(up_to_minimum(input, &increases, &mut room));
    }
    for increase in increases {
        memory.note(Change::Grown, &increase.group, input.now);
        outcome.actions.push(Action::Increase(increase));
    }
}

/// Chooses one group after another, until none is chosen.
pub(super) fn grow(
    scale_up: &mut ScaleUp<'_>,
    room: &mut Room,
    settings: &ScaleUpSettings,
    choose: &mut Choose<'_>,
) {
    loop {
        let options = scale_up.options(settings.most_at_once);
        let Some(option) = choose(scale_up, &options).and_then(|chosen| options.get(chosen)) else {
            break;
        };
        let node = scale_up.candidates[option.candidate].template.node.clone();
        if let Some(limit) = scale_up.barred_by(option.candidate, option.nodes, room) {
            scale_up.bar(option.candidate, limit);
            continue;
        }
        let added = scale_up.take(option, room.allowed(&node, option.nodes).0);
        room.take(&node, added);
        let is_shared = added > 0 && !scale_up.is_whole(option.candidate);
        if let Some(comparator) = settings.balance.as_ref().filter(|_| is_shared) {
            scale_up.spread(option, added, comparator, room);
        }
    }
}

/// Groups with what they would bring, and why they may not grow.
pub(super) fn candidates(memory: &Memory, input: &Input, outcome: &Outcome) -> Vec<Candidate> {
    let of = |group: &NodeGroup| {
        let template = input.templates.get(&group.id)?.clone();
        let unhealthy = outcome.found.groups.get(&group.id).is_some_and(|state| !state.healthy);
        let backoff = memory.cluster.backoffs.of(&group.id, input.now);
        let barred = match backoff {
            Some(_) => Some(BACKED_OFF),
            None if unhealthy => Some("not ready for scale-up"),
            None => None,
        };
        Some(Candidate { group: group.clone(), template, barred: barred.map(str::to_owned) })
    };
    input.groups.iter().filter_map(of).collect()
}

/// Groups below their minimum that do not grow anyway, as far as the cluster may grow.
fn up_to_minimum(input: &Input, increases: &[Increase], room: &mut Room) -> Vec<Increase> {
    let grows = |group: &NodeGroup| increases.iter().any(|increase| increase.group == group.id);
    let mut more = Vec::new();
    for group in input.groups.iter().filter(|group| group.target < group.min && !grows(group)) {
        let template = input.templates.get(&group.id);
        let node = template.map(|template| template.node.clone()).unwrap_or_default();
        let (allowed, _) = room.allowed(&node, group.min - group.target);
        room.take(&node, allowed);
        if allowed > 0 {
            let (id, from) = (group.id.clone(), group.target);
            more.push(Increase { group: id, from, to: from + allowed, max: group.max });
        }
    }
    more
}
