//! How many nodes of one kind pods need: first fit, largest first, on copies of a template.
//!
//! Decides as Cluster Autoscaler does (`estimator/binpacking_estimator.go`), but packs a class of identical pods at once.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::group::Template;
use crate::scheduling::{ClassId, HOSTNAME, Node, NodeId, Reason, Snapshot, snapshot::Mold};

/// Limits of one estimate. Of each: zero means none, below zero that nothing is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Nodes that may be added.
    pub nodes: i64,
    /// How long it may go on adding nodes.
    pub duration: SignedDuration,
}

impl Limits {
    /// The stricter of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let duration = stricter(self.duration.as_nanos(), other.duration.as_nanos());
        Self {
            nodes: stricter(self.nodes, other.nodes),
            duration: SignedDuration::from_nanos(i64::try_from(duration).unwrap_or(i64::MAX)),
        }
    }
}

/// The stricter of two limits, of which zero means none; below zero wins, as -1.
pub fn stricter<T: Copy + Ord + Default + From<i8>>(one: T, other: T) -> T {
    let none = T::default();
    if one < none || other < none {
        T::from(-1)
    } else if one == none || other == none {
        one.max(other)
    } else {
        one.min(other)
    }
}

/// How many nodes a group and those like it may grow by; -1 if not at all. Each is its maximum and its target, in nodes.
pub fn similar_groups_limit(groups: impl IntoIterator<Item = (i64, i64)>) -> i64 {
    let room: i64 = groups.into_iter().map(|(max, target)| (max - target).max(0)).sum();
    if room == 0 { -1 } else { room }
}

/// How many nodes the whole cluster may grow by under `--max-nodes-total`: 0 if that sets no limit, -1 if not at all.
pub fn cluster_limit(max_nodes_total: i64, current: i64) -> i64 {
    match max_nodes_total {
        0 => 0,
        max if max < 0 || max <= current => -1,
        max => max - current,
    }
}

/// Says whether an estimate may add one more node.
pub struct Limiter<'a> {
    limits: Limits,
    clock: &'a dyn Fn() -> Timestamp,
    started: Timestamp,
    added: i64,
}

impl<'a> Limiter<'a> {
    /// Begins with an estimate; `clock` tells the time.
    pub fn start(limits: Limits, clock: &'a dyn Fn() -> Timestamp) -> Self {
        Self { limits, clock, started: clock(), added: 0 }
    }

    /// Whether one more node may be added; if so, it counts as added.
    pub fn permit(&mut self) -> bool {
        let Limits { nodes, duration } = self.limits;
        let too_many = nodes < 0 || (nodes > 0 && self.added >= nodes);
        let too_late = duration.is_negative()
            || (duration.is_positive() && (self.clock)().duration_since(self.started) > duration);
        let permitted = !too_many && !too_late;
        self.added += i64::from(permitted);
        permitted
    }

    /// Nodes added.
    pub fn added(&self) -> i64 {
        self.added
    }
}

/// What nodes of one kind would do for pods.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Estimate {
    /// New nodes that got a pod.
    pub nodes: u32,
    /// Nodes of the cluster that got a pod: where topology spread over nodes was satisfied only so.
    pub existing_nodes: u32,
    /// Pods that found a place, a group.
    pub scheduled: Vec<u32>,
    /// Where they went: group, node, pods. New nodes that were not kept on the snapshot have the ordinals after its last.
    pub placements: Vec<(usize, NodeId, u32)>,
    /// Whether a limit ended it.
    pub limited: bool,
}

/// How many nodes like the template groups of identical pods need; leaves the snapshot as it was.
///
/// Largest first; a group goes to the new nodes that are there, then to further ones, as far as the limiter lets it.
/// Pods for which a fresh node is no better are left out.
pub fn estimate(
    snapshot: &mut Snapshot,
    template: &Template,
    groups: &[(ClassId, u32)],
    limiter: &mut Limiter<'_>,
) -> Estimate {
    let order = decreasing(snapshot, &template.node, groups);
    estimate_in_order(snapshot, template, groups, &order, limiter)
}

/// As [`estimate`], in an order of one's own (such as [`fastpath`]): indices into `groups`.
pub fn estimate_in_order(
    snapshot: &mut Snapshot,
    template: &Template,
    groups: &[(ClassId, u32)],
    order: &[usize],
    limiter: &mut Limiter<'_>,
) -> Estimate {
    let checkpoint = snapshot.checkpoint();
    let mut packing = Packing::new(snapshot, template, groups.len(), limiter);
    packing.pack(groups, order);
    let (estimate, _) = packing.finish();
    snapshot.rollback(checkpoint);
    estimate
}

/// As [`estimate`], but the new nodes stay on the snapshot with their pods, so that the next estimate in the same pass sees
/// them. Nodes that got no pod do not stay.
pub fn estimate_and_keep(
    snapshot: &mut Snapshot,
    template: &Template,
    groups: &[(ClassId, u32)],
    limiter: &mut Limiter<'_>,
) -> Estimate {
    let order = decreasing(snapshot, &template.node, groups);
    let checkpoint = snapshot.checkpoint();
    let mut packing = Packing::new(snapshot, template, groups.len(), limiter);
    packing.pack(groups, &order);
    let (estimate, empty) = packing.finish();
    for node in empty {
        snapshot.remove_node(node);
    }
    snapshot.keep(checkpoint);
    estimate
}

/// Puts the new nodes of an estimate on the snapshot that it was made on, with their pods.
pub fn keep(snapshot: &mut Snapshot, template: &Template, groups: &[(ClassId, u32)], estimate: &Estimate) {
    let checkpoint = snapshot.checkpoint();
    let mut limiter = Limiter::start(Limits::default(), &|| Timestamp::UNIX_EPOCH);
    let mut packing = Packing::new(snapshot, template, groups.len(), &mut limiter);
    let first = NodeId::at(packing.first);
    let new: BTreeSet<_> =
        estimate.placements.iter().map(|(_, node, _)| *node).filter(|node| *node >= first).collect();
    let kept: BTreeMap<_, _> = new.into_iter().map(|node| (node, packing.add_node())).collect();
    for (group, node, count) in &estimate.placements {
        packing.snapshot.bind_many(groups[*group].0, kept.get(node).copied().unwrap_or(*node), *count);
    }
    snapshot.keep(checkpoint);
}

/// Groups by what one pod takes of the node, the most first: its share of the cpu plus its share of the memory.
///
/// Source: Cluster Autoscaler, `estimator/decreasing_pod_orderer.go`.
#[allow(clippy::cast_precision_loss, reason = "a share")]
pub fn decreasing(snapshot: &Snapshot, node: &Node, groups: &[(ClassId, u32)]) -> Vec<usize> {
    let share = |request: i64, of: i64| if of > 0 { request as f64 / of as f64 } else { 0.0 };
    let score = |(class, _): &(ClassId, u32)| {
        let [cpu, memory] = snapshot.cpu_and_memory(*class);
        share(cpu, node.allocatable.cpu) + share(memory, node.allocatable.memory)
    };
    let mut scored: Vec<_> = groups.iter().map(score).enumerate().collect();
    scored.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    scored.into_iter().map(|(group, _)| group).collect()
}

/// The group that Cluster Autoscaler's `--fastpath-binpacking-enabled` would pack last and by arithmetic, if any may be: the
/// one that saves it most simulations (pods less pods a node), of equals the last.
///
/// Source: Cluster Autoscaler, `determineBestPEGToFastpath`.
pub fn fastpath_group(snapshot: &Snapshot, node: &Node, groups: &[(ClassId, u32)]) -> Option<usize> {
    let mut best = None;
    let mut most = 0;
    for (at, (class, count)) in groups.iter().enumerate() {
        let pods = i64::from(*count);
        let [cpu, memory] = snapshot.cpu_and_memory(*class);
        let by = |request: i64, capacity: i64| {
            let needed = i128::from(pods) * i128::from(request);
            let capacity = i128::from(capacity.max(1));
            i64::try_from((needed + capacity - 1) / capacity).unwrap_or(i64::MAX)
        };
        let apart = if snapshot.is_apart_on_nodes(*class) { pods } else { 0 };
        let nodes = apart.max(by(cpu, node.capacity.cpu)).max(by(memory, node.capacity.memory));
        let saved = if nodes > 0 { pods - pods / nodes } else { 0 };
        if saved >= most && snapshot.is_alike_on_every_node(*class) {
            best = Some(at);
            most = saved;
        }
    }
    best
}

/// The order of [`decreasing`] with the group of [`fastpath_group`] moved to the end.
pub fn fastpath(snapshot: &Snapshot, node: &Node, groups: &[(ClassId, u32)]) -> Vec<usize> {
    let mut order = decreasing(snapshot, node, groups);
    let ordered: Vec<_> = order.iter().map(|group| groups[*group]).collect();
    if let Some(best) = fastpath_group(snapshot, node, &ordered) {
        let group = order.remove(best);
        order.push(group);
    }
    order
}

/// An estimate under way.
struct Packing<'a, 'c> {
    snapshot: &'a mut Snapshot,
    limiter: &'a mut Limiter<'c>,
    mold: Mold,
    name: &'a str,
    /// Pods of the template, that every new node starts with.
    base: Vec<ClassId>,
    /// The ordinal of the first new node; all after it are new.
    first: u32,
    added: Vec<NodeId>,
    used: BTreeSet<NodeId>,
    estimate: Estimate,
}

impl<'a, 'c> Packing<'a, 'c> {
    fn new(
        snapshot: &'a mut Snapshot,
        template: &'a Template,
        groups: usize,
        limiter: &'a mut Limiter<'c>,
    ) -> Self {
        let mut node = template.node.clone();
        node.labels.entry(HOSTNAME.to_owned()).or_insert_with(|| template.node.name.to_string());
        Self {
            mold: snapshot.mold(&node),
            base: template.pods.iter().map(|pod| snapshot.class(pod)).collect(),
            first: snapshot.end(),
            name: &template.node.name,
            added: Vec::new(),
            used: BTreeSet::new(),
            estimate: Estimate { scheduled: vec![0; groups], ..Estimate::default() },
            snapshot,
            limiter,
        }
    }

    fn pack(&mut self, groups: &[(ClassId, u32)], order: &[usize]) {
        for group in order {
            let (class, count) = groups[*group];
            let left = self.fill(*group, class, count);
            if left > 0 && !self.estimate.limited {
                self.grow(*group, class, left);
            }
        }
    }

    /// The estimate, and the new nodes that got no pod.
    fn finish(mut self) -> (Estimate, Vec<NodeId>) {
        let new = self.used.range(NodeId::at(self.first)..).count();
        self.estimate.nodes = u32::try_from(new).unwrap_or(u32::MAX);
        self.estimate.existing_nodes = u32::try_from(self.used.len() - new).unwrap_or(u32::MAX);
        let empty = self.added.into_iter().filter(|node| !self.used.contains(node)).collect();
        (self.estimate, empty)
    }

    /// Puts pods on the new nodes that are there, until one fits nowhere. Returns how many are left.
    fn fill(&mut self, group: usize, class: ClassId, mut left: u32) -> u32 {
        let mut from = self.first;
        while left > 0 && !self.added.is_empty() {
            let Some(node) = self.snapshot.scan(class, from, None) else { break };
            left -= self.put(group, class, node, left);
            if !self.snapshot.gains_by_its_like(class) {
                from = node.ordinal();
            }
        }
        left
    }

    /// Puts pods on the last node, and adds nodes, until that helps no more.
    fn grow(&mut self, group: usize, class: ClassId, mut left: u32) {
        while left > 0 {
            if let Some(last) = self.added.last().copied() {
                let refused = self.snapshot.check(class, last).err();
                if refused.is_none() {
                    left -= self.put(group, class, last, left);
                    continue;
                }
                if let Some(other) = self.elsewhere(class, last, refused.as_ref()) {
                    left -= self.put(group, class, other, 1);
                    continue;
                }
                if !self.used.contains(&last) {
                    return;
                }
            }
            if !self.limiter.permit() {
                self.estimate.limited = true;
                return;
            }
            let node = self.add_node();
            if self.snapshot.check(class, node).is_err() {
                return;
            }
            left -= self.put(group, class, node, left);
        }
    }

    /// A pod that is spread over nodes and may not go to the last one may go to another, even of the cluster: with each that
    /// does, the last may take one more.
    fn elsewhere(&mut self, class: ClassId, last: NodeId, refused: Option<&Reason>) -> Option<NodeId> {
        let spread = refused == Some(&Reason::Spread) && self.snapshot.is_spread_over_nodes(class);
        if spread { self.snapshot.scan(class, 0, Some(last)) } else { None }
    }

    /// Puts as many pods as fit, and at most `most`, on a node that takes one.
    fn put(&mut self, group: usize, class: ClassId, node: NodeId, most: u32) -> u32 {
        let count = self.snapshot.how_many_more(class, node).min(most);
        self.snapshot.bind_many(class, node, count);
        self.used.insert(node);
        self.estimate.scheduled[group] += count;
        self.estimate.placements.push((group, node, count));
        count
    }

    fn add_node(&mut self) -> NodeId {
        let node = self.snapshot.add_copy(&self.mold, &format!("{}-e-{}", self.name, self.snapshot.end()));
        for class in &self.base {
            self.snapshot.bind(*class, node);
        }
        self.added.push(node);
        node
    }
}
