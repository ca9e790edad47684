//! The scheduling simulation against a reference that is as plain as can be, over random small worlds.

mod declared;
mod packing;
mod random;
mod reference;
mod storage;
mod together;

use std::sync::Arc;

use proptest::prelude::*;
use tandem_core::scheduling::{NodeId, Snapshot};

use random::{Change, Story};
use reference::World;

/// The same world twice: as the simulation has it, and as the reference has it.
struct Twins {
    snapshot: Snapshot,
    world: World,
    /// The ordinal that each node of the story has, while it is there.
    ids: Vec<Option<NodeId>>,
}

impl Twins {
    fn new(story: &Story) -> Self {
        let surroundings = Arc::new(random::surroundings());
        Self {
            snapshot: Snapshot::new(surroundings.clone()),
            world: World::new(story.nodes.clone(), &surroundings),
            ids: vec![None; story.nodes.len()],
        }
    }

    fn apply_all(&mut self, story: &Story, changes: &[Change]) {
        for change in changes {
            self.apply(story, change);
        }
    }

    fn apply(&mut self, story: &Story, change: &Change) {
        match *change {
            Change::Add(node) if self.ids[node].is_none() => {
                self.ids[node] = Some(self.snapshot.add_node(&story.nodes[node]));
                self.world.add(node);
            }
            Change::Remove(node) => {
                if let Some(id) = self.ids[node].take() {
                    self.snapshot.remove_node(id);
                    self.world.remove(node);
                }
            }
            Change::Bind(pod, node) => {
                if let Some(id) = self.ids[node] {
                    let class = self.snapshot.class(&story.pods[pod]);
                    self.snapshot.bind(class, id);
                    self.world.bound.push((story.pods[pod].clone(), node));
                }
            }
            Change::Unbind(pod, node) => {
                let there =
                    self.world.bound.iter().position(|(other, at)| *other == story.pods[pod] && *at == node);
                if let (Some(at), Some(id)) = (there, self.ids[node]) {
                    let class = self.snapshot.class(&story.pods[pod]);
                    self.snapshot.unbind(class, id);
                    self.world.bound.remove(at);
                }
            }
            Change::Nominate(pod, node) => {
                if let Some(id) = self.ids[node] {
                    let class = self.snapshot.class(&story.pods[pod]);
                    self.snapshot.nominate(class, id);
                    self.world.nominated.push((story.pods[pod].clone(), node));
                }
            }
            Change::Find(pod) => self.agree_on_first(story, pod),
            Change::Add(_) => {}
        }
    }

    /// Both name the same first node for a pod.
    fn agree_on_first(&mut self, story: &Story, pod: usize) {
        let class = self.snapshot.class(&story.pods[pod]);
        let mut fitting: Vec<_> = (0..self.ids.len())
            .filter_map(|node| self.ids[node].map(|id| (id, node)))
            .filter(|(_, node)| self.world.check(&story.pods[pod], *node).is_ok())
            .map(|(id, _)| id)
            .collect();
        fitting.sort_unstable();
        assert_eq!(self.snapshot.find(class, None), fitting.first().copied(), "{:?}", story.pods[pod]);
    }

    /// Both give the same verdict, with the same reason, on every pod and node, and the same use of every node.
    fn agree(&mut self, story: &Story) {
        for node in 0..self.ids.len() {
            let Some(id) = self.ids[node] else { continue };
            assert_eq!(self.snapshot.used(id), self.world.used(node));
            for pod in &story.pods {
                let class = self.snapshot.class(pod);
                let (got, wanted) = (self.snapshot.check(class, id), self.world.check(pod, node));
                assert_eq!(got, wanted, "{pod:?} on {:?}", story.nodes[node]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_verdict_is_that_of_the_reference(story in random::story()) {
        let mut twins = Twins::new(&story);
        twins.apply_all(&story, &story.changes);
        twins.agree(&story);
        for pod in 0..story.pods.len() {
            twins.agree_on_first(&story, pod);
        }
    }

    #[test]
    fn rollback_restores_everything(story in random::story(), at in 0..40_usize, inner in 0..40_usize) {
        let mut twins = Twins::new(&story);
        let at = at.min(story.changes.len());
        let (before, after) = story.changes.split_at(at);
        twins.apply_all(&story, before);
        let (world, ids) = (twins.world.clone(), twins.ids.clone());
        let outer = twins.snapshot.checkpoint();
        let (first, second) = after.split_at(inner.min(after.len()));
        twins.apply_all(&story, first);
        let nested = twins.snapshot.checkpoint();
        twins.apply_all(&story, second);
        twins.agree(&story);
        if inner % 2 == 0 { twins.snapshot.keep(nested) } else { twins.snapshot.rollback(nested) }
        twins.snapshot.rollback(outer);
        (twins.world, twins.ids) = (world, ids);
        twins.agree(&story);
        // What was remembered of searches before and since must not mislead either.
        for pod in 0..story.pods.len() {
            twins.agree_on_first(&story, pod);
        }
    }

    #[test]
    fn as_many_fit_as_is_said(story in random::story()) {
        let mut twins = Twins::new(&story);
        twins.apply_all(&story, &story.changes);
        for (pod, node) in (0..story.pods.len()).flat_map(|pod| (0..story.nodes.len()).map(move |node| (pod, node))) {
            let Some(id) = twins.ids[node] else { continue };
            let class = twins.snapshot.class(&story.pods[pod]);
            let said = twins.snapshot.how_many(class, id);
            let checkpoint = twins.snapshot.checkpoint();
            for _ in 0..said {
                prop_assert_eq!(twins.snapshot.check(class, id), Ok(()));
                twins.snapshot.bind(class, id);
            }
            let rules = &story.pods[pod].shape;
            if rules.spread.is_empty() && rules.affinity.as_ref().is_none_or(|all| all.pod_affinity.is_none()) {
                prop_assert!(twins.snapshot.check(class, id).is_err(), "{} fit, and one more", said);
            }
            twins.snapshot.rollback(checkpoint);
        }
    }
}
