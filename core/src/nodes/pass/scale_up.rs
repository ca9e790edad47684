//! Which groups grow, and by how much, for the pods that fit nowhere.
//!
//! As Cluster Autoscaler's orchestrator (`core/scaleup/orchestrator`), except that several groups may grow in one pass:
//! after each choice the nodes that it adds are part of the snapshot, and what still fits nowhere is weighed again.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use crate::{
    nodes::{
        action::Increase,
        estimator::{Limiter, Limits, estimate, estimate_and_keep},
        group::{NodeGroup, Template},
    },
    scheduling::{ClassId, Pod, Snapshot},
};

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
    /// Pods that will find a place, with the groups that were grown for them.
    pub helped: Vec<(Arc<Pod>, Vec<Arc<str>>)>,
    /// Pods that no group can help, with each group's reason.
    pub refused: Vec<(Arc<Pod>, Vec<(Arc<str>, String)>)>,
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
            refused: BTreeMap::new(),
            helped_by: BTreeMap::new(),
            now,
        }
    }

    /// What each group could do for the pods that still wait; `most` nodes a group at once.
    pub fn options(&mut self, most: u32) -> Vec<ExpansionOption> {
        (0..self.candidates.len()).filter_map(|candidate| self.option(candidate, most)).collect()
    }

    fn option(&mut self, candidate: usize, most: u32) -> Option<ExpansionOption> {
        let fitting = self.fitting(candidate);
        let room = self.room[candidate].min(most);
        if room == 0 || fitting.is_empty() {
            return None;
        }
        let groups: Vec<_> =
            fitting.iter().map(|waiting| (self.waiting[*waiting].class, self.left[*waiting])).collect();
        let clock = || self.now;
        let mut limiter = Limiter::start(nodes(room), &clock);
        let template = &self.candidates[candidate].template;
        let estimate = estimate(self.snapshot, template, &groups, &mut limiter);
        let mut scheduled = vec![0; self.waiting.len()];
        for (waiting, count) in fitting.into_iter().zip(&estimate.scheduled) {
            scheduled[waiting] = *count;
        }
        (estimate.nodes > 0).then_some(ExpansionOption { candidate, nodes: estimate.nodes, scheduled })
    }

    /// The classes that still wait and that a fresh node of the group takes; of the others the reason is kept.
    fn fitting(&mut self, candidate: usize) -> Vec<usize> {
        let checkpoint = self.snapshot.checkpoint();
        let Candidate { template, barred, group } = &self.candidates[candidate];
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
                    None if group.max <= group.target => MAX_SIZE_REACHED.to_owned(),
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
        if allowed == 0 {
            self.room[candidate] = 0;
            return 0;
        }
        let fitting: Vec<usize> =
            (0..self.waiting.len()).filter(|waiting| option.scheduled[*waiting] > 0).collect();
        let groups: Vec<_> =
            fitting.iter().map(|waiting| (self.waiting[*waiting].class, self.left[*waiting])).collect();
        let clock = || self.now;
        let mut limiter = Limiter::start(nodes(allowed), &clock);
        let template = &self.candidates[candidate].template;
        let kept = estimate_and_keep(self.snapshot, template, &groups, &mut limiter);
        for (waiting, count) in fitting.into_iter().zip(&kept.scheduled) {
            self.left[waiting] -= (*count).min(self.left[waiting]);
            if *count > 0 {
                self.helped_by.entry(waiting).or_default().push(candidate);
            }
        }
        // An option that comes to nothing would be chosen for ever.
        self.room[candidate] = if kept.nodes == 0 { 0 } else { self.room[candidate] - kept.nodes };
        *self.added.entry(candidate).or_default() += kept.nodes;
        kept.nodes
    }

    /// Moves `nodes` of what one group was to get to another that is like it (`--balance-similar-node-groups`).
    pub fn shift(&mut self, from: usize, to: usize, nodes: u32) {
        let given = self.added.entry(from).or_default();
        let nodes = nodes.min(*given).min(self.room[to]);
        *given -= nodes;
        self.room[from] += nodes;
        self.room[to] -= nodes;
        *self.added.entry(to).or_default() += nodes;
    }

    /// The plan.
    pub fn finish(self) -> ScaleUpPlan {
        let mut plan = ScaleUpPlan::default();
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
            let groups: Vec<_> = self.helped_by.get(&waiting).into_iter().flatten();
            let groups: Vec<_> = groups.map(|candidate| self.candidates[*candidate].group.id.clone()).collect();
            plan.helped.extend(pods[..helped].iter().map(|pod| (pod.clone(), groups.clone())));
            let reasons: Vec<_> = (0..self.candidates.len())
                .filter_map(|candidate| {
                    let reason = self.refused.get(&(waiting, candidate))?;
                    Some((self.candidates[candidate].group.id.clone(), reason.clone()))
                })
                .collect();
            plan.refused.extend(pods[helped..].iter().map(|pod| (pod.clone(), reasons.clone())));
        }
        plan
    }
}

/// Why a group that is as large as it may be does not grow.
pub const MAX_SIZE_REACHED: &str = "max node group size reached";

fn nodes(nodes: u32) -> Limits {
    Limits { nodes: i64::from(nodes), ..Limits::default() }
}
