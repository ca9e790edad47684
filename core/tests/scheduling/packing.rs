//! The estimator against Cluster Autoscaler's algorithm, a pod at a time over the reference.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use proptest::{collection::vec, prelude::*};
use tandem_core::{
    nodes::{
        estimator::{Limiter, Limits, decreasing, estimate, estimate_and_keep, keep},
        group::Template,
    },
    scheduling::{HOSTNAME, Node, Pod, Reason, Resources, Snapshot},
};

use crate::{
    random::{self, Change},
    reference::World,
};

/// An estimate a pod at a time.
struct Packing {
    world: World,
    template: Node,
    limit: usize,
    added: Vec<usize>,
    used: BTreeSet<usize>,
    limited: bool,
}

impl Packing {
    /// How many pods of a group find a place.
    fn group(&mut self, pod: &Pod, count: u32) -> u32 {
        let mut placed = 0;
        while placed < count && self.bind_first(pod, &self.added.clone()) {
            placed += 1;
        }
        while placed < count && !self.limited && self.grow(pod) {
            placed += 1;
        }
        placed
    }

    /// Puts a pod on the last new node or on another.
    fn grow(&mut self, pod: &Pod) -> bool {
        if let Some(last) = self.added.last().copied() {
            let Err(reason) = self.world.check(pod, last) else { return self.bind_first(pod, &[last]) };
            let over_nodes = pod.shape.spread.iter().any(|rule| rule.topology_key == HOSTNAME);
            let mut others = self.world.present();
            others.retain(|node| *node != last);
            if over_nodes && reason == Reason::Spread && self.bind_first(pod, &others) {
                return true;
            }
            if !self.used.contains(&last) {
                return false;
            }
        }
        if self.added.len() == self.limit {
            self.limited = true;
            return false;
        }
        let mut node = self.template.clone();
        node.name = format!("new-{}", self.added.len()).into();
        node.labels.insert(HOSTNAME.to_owned(), node.name.to_string());
        let node = self.world.add_new(node);
        self.added.push(node);
        self.bind_first(pod, &[node])
    }

    fn bind_first(&mut self, pod: &Pod, nodes: &[usize]) -> bool {
        let first = nodes.iter().copied().find(|node| self.world.check(pod, *node).is_ok());
        if let Some(node) = first {
            self.world.bound.push((pod.clone(), node));
            self.used.insert(node);
        }
        first.is_some()
    }
}

/// What is used of each node and how many pods are on it, in order.
fn contents(snapshot: &Snapshot) -> Vec<(Resources, u32)> {
    snapshot.nodes().map(|(id, node)| (snapshot.used(id), node.pod_count())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn packing_classes_is_packing_pods(
        story in random::story(),
        template in random::node(9),
        counts in vec(0..6_u32, 5),
        limit in 1..6_usize,
    ) {
        let surroundings = Arc::new(random::surroundings());
        let mut snapshot = Snapshot::new(surroundings.clone());
        let mut world = World::new(story.nodes.clone(), &surroundings);
        for (at, node) in story.nodes.iter().enumerate() {
            let id = snapshot.add_node(node);
            world.add(at);
            for change in &story.changes {
                if let Change::Bind(pod, on) = *change && on == at {
                    let class = snapshot.class(&story.pods[pod]);
                    snapshot.bind(class, id);
                    world.bound.push((story.pods[pod].clone(), at));
                }
            }
        }
        let groups: Vec<_> =
            story.pods.iter().zip(&counts).map(|(pod, count)| (snapshot.class(pod), *count)).collect();
        let order = decreasing(&snapshot, &template, &groups);

        let mut packing =
            Packing { world, template: template.clone(), limit, added: vec![], used: BTreeSet::new(), limited: false };
        let mut wanted = vec![0; groups.len()];
        for group in order {
            wanted[group] = packing.group(&story.pods[group], counts[group]);
        }
        let new = packing.used.iter().filter(|node| packing.added.contains(node)).count();

        let limits = Limits { nodes: i64::try_from(limit).expect("small"), ..Limits::default() };
        let clock = || Timestamp::UNIX_EPOCH;
        let template = Template { node: template, pods: Vec::new() };
        let got = estimate(&mut snapshot, &template, &groups, &mut Limiter::start(limits, &clock));
        prop_assert_eq!(&got.scheduled, &wanted);
        prop_assert_eq!(got.nodes as usize, new);
        prop_assert_eq!(got.existing_nodes as usize, packing.used.len() - new);
        prop_assert_eq!(got.limited, packing.limited);

        let mut twin = snapshot.clone();
        keep(&mut snapshot, &template, &groups, &got);
        estimate_and_keep(&mut twin, &template, &groups, &mut Limiter::start(limits, &clock));
        prop_assert_eq!(contents(&snapshot), contents(&twin));
    }
}
