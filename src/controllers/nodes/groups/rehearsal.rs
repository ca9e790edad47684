//! A pass of which nothing is done: what it would have done goes to the record of the dry run.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use tandem_core::{
    nodes::{
        action::{Action, TO_BE_DELETED},
        group::NodeGroup,
        pass::{Change, Input, Memory, Outcome},
    },
    scheduling::Node,
};

use super::{NodeGroups, look::by_group};
use crate::dry_run::{
    Recorder,
    record::{Intent, NodeKind, Nodes},
};

/// What a dry run remembers of groups.
pub(super) struct Rehearsal {
    recorder: Arc<Recorder>,
    /// The targets that were last seen.
    targets: BTreeMap<Arc<str>, u32>,
}

impl Rehearsal {
    pub(super) fn new(recorder: Arc<Recorder>) -> Self {
        Self { recorder, targets: BTreeMap::new() }
    }

    /// Timers run from what the groups really did, whoever did it.
    fn see(&mut self, groups: &[NodeGroup], memory: &mut Memory, now: Timestamp) {
        let targets: BTreeMap<_, _> = groups.iter().map(|group| (group.id.clone(), group.target)).collect();
        for (group, target) in &targets {
            let Some(before) = self.targets.get(group).filter(|before| *before != target) else { continue };
            memory.note(if target > before { Change::Grown } else { Change::Shrunk }, group, now);
            let message = format!("from {before} to {target} nodes");
            self.recorder.observed(format!("node group {group}"), "Resized", message);
        }
        self.targets = targets;
    }

    /// What a pass came to.
    fn record(&self, groups: &[NodeGroup], ready: &BTreeMap<Arc<str>, u32>, actions: &[Action]) {
        for intent in actions.iter().filter_map(intent) {
            self.recorder.intent(intent);
        }
        let mut wanted = wanted(groups, actions);
        for group in groups {
            self.recorder.nodes(Nodes {
                kind: NodeKind::Group,
                name: group.id.to_string(),
                wanted: wanted.remove(&group.id).unwrap_or(group.target),
                actual: group.target,
                ready: ready.get(&group.id).copied().unwrap_or_default(),
            });
        }
    }
}

impl NodeGroups {
    /// Decides upon what the others made of the cluster, and does nothing.
    pub(super) async fn rehearse(
        &mut self,
        mut rehearsal: Rehearsal,
        (nodes, groups): (Vec<Arc<Node>>, &[NodeGroup]),
        memory: &mut Memory,
    ) -> (Outcome, Rehearsal) {
        let (mut input, _) = self.input((nodes, groups.to_vec())).await;
        // Whoever removes a node has put its taint on first.
        let leaves = |node: &&Arc<Node>| node.taint(TO_BE_DELETED).is_some();
        input.removing = input.nodes.iter().filter(leaves).map(|node| (node.name.clone(), true)).collect();
        rehearsal.see(groups, memory, input.now);
        let ready = ready(&input);
        let (outcome, after) = self.decide(input, memory.clone(), Duration::ZERO).await;
        *memory = after.with_changes_of(memory);
        self.tell(&outcome, groups, memory).await;
        rehearsal.record(groups, &ready, &outcome.actions);
        (outcome, rehearsal)
    }
}

/// Ready nodes of each group.
fn ready(input: &Input) -> BTreeMap<Arc<str>, u32> {
    let by_group = by_group(&input.nodes, &input.groups);
    let count = |group: &NodeGroup| {
        let own = by_group.get(&group.id).into_iter().flatten();
        u32::try_from(own.filter(|place| input.nodes[**place].ready).count()).unwrap_or(u32::MAX)
    };
    input.groups.iter().map(|group| (group.id.clone(), count(group))).collect()
}

/// The size that each group would have been given.
fn wanted(groups: &[NodeGroup], actions: &[Action]) -> BTreeMap<Arc<str>, u32> {
    let mut wanted: BTreeMap<_, _> = groups.iter().map(|group| (group.id.clone(), group.target)).collect();
    let mut less = |group: &Arc<str>, nodes: u32| {
        if let Some(wanted) = wanted.get_mut(group) {
            *wanted = wanted.saturating_sub(nodes);
        }
    };
    let mut more = Vec::new();
    for action in actions {
        match action {
            Action::Increase(increase) => more.push((&increase.group, increase.to - increase.from)),
            Action::Decrease { group, delta, .. } => less(group, *delta),
            Action::DeleteInstances { group, instances, .. } => {
                less(group, u32::try_from(instances.len()).unwrap_or(u32::MAX));
            }
            Action::Remove(removal) => less(&removal.group, 1),
            Action::MarkCandidate { .. } | Action::UnmarkCandidate { .. } | Action::CleanUp { .. } => {}
        }
    }
    for (group, nodes) in more {
        if let Some(wanted) = wanted.get_mut(group) {
            *wanted = wanted.saturating_add(nodes);
        }
    }
    wanted
}

/// An action in words; `None` for what only tidies up after a running process.
fn intent(action: &Action) -> Option<Intent> {
    let (verb, resource, name, change) = match action {
        Action::Increase(increase) => {
            let change =
                format!("from {} to {} nodes, of at most {}", increase.from, increase.to, increase.max);
            ("increase", "nodegroup", &increase.group, change)
        }
        Action::Decrease { group, target, delta } => {
            let change = format!("from {target} to {} nodes: some never came", target.saturating_sub(*delta));
            ("decrease", "nodegroup", group, change)
        }
        Action::DeleteInstances { group, instances, cause } => {
            ("delete", "nodegroup", group, format!("its instances {} ({cause:?})", instances.join(", ")))
        }
        Action::Remove(removal) => {
            let (group, cause, pods) = (&removal.group, removal.cause.name(), removal.pods.len());
            let change = format!("of node group {group}: {cause}, {pods} of its pods would move");
            ("remove", "node", &removal.node, change)
        }
        Action::MarkCandidate { node, .. } => ("taint", "node", node, "it is not needed".to_owned()),
        Action::UnmarkCandidate { node } => ("untaint", "node", node, "it is needed".to_owned()),
        Action::CleanUp { .. } => return None,
    };
    Some(Intent {
        verb: verb.to_owned(),
        resource: resource.to_owned(),
        namespace: String::new(),
        name: name.to_string(),
        change,
    })
}

#[cfg(test)]
mod tests {
    use tandem_core::nodes::{
        action::{Increase, InstanceFault, Removal, RemovalCause},
        group::GroupOptions,
    };

    use super::*;

    fn group(name: &str, target: u32) -> NodeGroup {
        let (instances, options) = (Vec::new(), GroupOptions::default());
        NodeGroup { id: name.into(), min: 0, max: 10, target, instances, options }
    }

    fn removal(node: &str) -> Action {
        Action::Remove(Removal {
            group: "b".into(),
            node: node.into(),
            provider_id: node.into(),
            pods: Vec::new(),
            daemon_pods: Vec::new(),
            cause: RemovalCause::Empty,
            utilization: 0.0,
        })
    }

    #[test]
    fn actions_are_the_sizes_that_groups_would_have() {
        let groups = [group("a", 2), group("b", 5)];
        let increase =
            |group: &str, from, to| Action::Increase(Increase { group: group.into(), from, to, max: 10 });
        let failed = Action::DeleteInstances {
            group: "b".into(),
            instances: vec!["i".into()],
            cause: InstanceFault::Failed,
        };
        for (actions, sizes) in [
            (vec![], [2, 5]),
            (vec![increase("a", 2, 4)], [4, 5]),
            (vec![removal("x"), removal("y")], [2, 3]),
            (vec![failed, increase("b", 5, 6)], [2, 5]),
            (vec![Action::Decrease { group: "a".into(), target: 2, delta: 1 }], [1, 5]),
            (vec![increase("gone", 1, 9), Action::UnmarkCandidate { node: "x".into() }], [2, 5]),
        ] {
            assert_eq!(wanted(&groups, &actions).into_values().collect::<Vec<_>>(), sizes, "{actions:?}");
        }
    }

    #[test]
    fn timers_run_from_what_others_did() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = Recorder::open(&folder.path().join("record"), "v1.37.0").unwrap();
        let mut rehearsal = Rehearsal::new(recorder);
        let mut memory = Memory::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        for (second, size, grown, shrunk) in [
            (1, 2, None, None),
            (2, 2, None, None),
            (3, 4, Some(at(3)), None),
            (4, 3, Some(at(3)), Some(at(4))),
            (5, 3, Some(at(3)), Some(at(4))),
        ] {
            rehearsal.see(&[group("a", size)], &mut memory, at(second));
            assert_eq!((memory.grown, memory.shrunk), (grown, shrunk), "{second}");
        }
    }
}
