//! The cluster to try removals on, with the pods that wait where they will be.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use super::{
    Input,
    candidate::{Candidate, worths},
    is_calm,
};
use crate::{
    api::karpenter::ConsolidationPolicy,
    nodes::pools::{
        balanced::{self, TOLERANCE},
        budgets::Reason,
        cluster::{Cluster, Layout},
        consolidate, fixed,
        node_claim::pool_of,
        provision::with_daemons,
        requirements::labels::{CAPACITY_TYPE, INSTANCE_TYPE},
        solver::{Claim, Options, Place, Refusal, Solver},
    },
    scheduling::{NodeId, Pod, Resources, pod::Shape},
};

/// The cluster to try removals on.
pub(super) struct Scene<'a> {
    cluster: &'a Cluster,
    options: Options,
    layout: Layout,
    /// Nodes by the names of their claims.
    nodes: BTreeMap<Arc<str>, NodeId>,
    /// Nodes that pods that wait will be on.
    expecting: BTreeSet<NodeId>,
    /// The room of buffers that nodes have.
    spare: BTreeMap<NodeId, Vec<Arc<Pod>>>,
    daemons: Vec<Pod>,
}

impl<'a> Scene<'a> {
    /// Pods that wait are put where they will be, then those that stand for room; those that need a new node are left out,
    /// since nothing that is there helps them.
    pub(super) fn new(input: &Input<'a>) -> Self {
        let cluster = input.cluster;
        let needy = cluster.needy();
        let moving: HashSet<Arc<str>> = needy.iter().map(|pod| pod.uid.clone()).collect();
        let mut layout = cluster.lay_out(&moving);
        let daemons: Vec<Pod> = cluster.daemon_sets.iter().map(|pod| (**pod).clone()).collect();
        let (mut expecting, mut spare) = (BTreeSet::new(), BTreeMap::<_, Vec<_>>::new());
        let all: Vec<Arc<Pod>> = needy.iter().chain(&cluster.buffers).cloned().collect();
        if !all.is_empty() {
            let pods: Vec<Pod> = all.iter().map(|pod| (**pod).clone()).collect();
            let offers = cluster.offers(&daemons);
            let solution = Solver::new(&mut layout.snapshot, &offers, input.options.clone())
                .solve(&mut layout.snapshot, &pods);
            for (pod, place) in solution.placements {
                let Place::Node(node) = place else { continue };
                let class = layout.snapshot.class(&pods[pod]);
                layout.snapshot.bind(class, node);
                if pod < needy.len() {
                    expecting.insert(node);
                } else {
                    spare.entry(node).or_default().push(all[pod].clone());
                }
            }
        }
        // What moves goes where it is known to run.
        layout.snapshot.presume_no_devices();
        let named = layout.targets.iter().filter_map(|(node, target)| Some((target.claim.clone()?, *node)));
        let nodes = named.collect();
        Self { cluster, options: input.options.clone(), layout, nodes, expecting, spare, daemons }
    }

    /// Whether pods that wait will be on the node of a claim.
    pub(super) fn expects(&self, claim: &str) -> bool {
        self.nodes.get(claim).is_some_and(|node| self.expecting.contains(node))
    }

    /// The pods that stand for room on the node of a claim.
    fn spare_on(&self, claim: &str) -> &[Arc<Pod>] {
        self.nodes.get(claim).and_then(|node| self.spare.get(node)).map_or(&[], |pods| pods)
    }

    /// Lets candidates answer for the room that they have: it has to be found elsewhere as if its pods were there. One that is
    /// empty otherwise may go as such if the nodes that stay have that room. Also returns those that stay, and why.
    pub(super) fn keep_room(
        &mut self,
        mut candidates: Vec<Candidate>,
    ) -> (Vec<Candidate>, Vec<(Arc<str>, String)>) {
        if self.spare.is_empty() {
            return (candidates, Vec::new());
        }
        let needed = self.needed_for_room(&candidates);
        let mut stay = Vec::new();
        for candidate in &mut candidates {
            let spare = self.spare_on(&candidate.name).to_vec();
            if needed.contains(&candidate.name) && !candidate.count_as_used(self.cluster) {
                let why = format!("Node {:?} has buffer pods", candidate.node.name);
                stay.push((candidate.name.clone(), why));
            }
            if !candidate.suits(Reason::Empty) {
                candidate.pods.extend(spare);
            }
        }
        candidates.retain(Candidate::has_reason);
        (candidates, stay)
    }

    /// Empty candidates whose room the nodes that stay have not. Those without any go first.
    fn needed_for_room(&mut self, candidates: &[Candidate]) -> BTreeSet<Arc<str>> {
        let empty = candidates.iter().filter(|candidate| candidate.suits(Reason::Empty));
        let (idle, keeping): (Vec<_>, Vec<_>) =
            empty.partition(|candidate| self.spare_on(&candidate.name).is_empty());
        let Self { layout: Layout { snapshot, uninitialized, .. }, nodes, spare, .. } = self;
        let before = snapshot.checkpoint();
        let of = |candidate: &Candidate| nodes.get(&candidate.name).copied();
        idle.into_iter().filter_map(of).for_each(|node| snapshot.remove_node(node));
        let mut needed = BTreeSet::new();
        for candidate in keeping {
            let Some(node) = of(candidate) else { continue };
            let checkpoint = snapshot.checkpoint();
            snapshot.remove_node(node);
            let fits = spare[&node].iter().all(|pod| {
                let class = snapshot.class(pod);
                let place = snapshot.find(class, None).filter(|node| !uninitialized.contains(node));
                place.map(|place| snapshot.bind(class, place)).is_some()
            });
            if fits {
                snapshot.keep(checkpoint);
            } else {
                snapshot.rollback(checkpoint);
                needed.insert(candidate.name.clone());
            }
        }
        snapshot.rollback(before);
        needed
    }

    /// New nodes that it takes to be without a candidate, however many.
    ///
    /// # Errors
    /// A pod would have no place, or none that is ready.
    pub(super) fn replace(&mut self, candidate: &Candidate) -> Result<Vec<Claim>, String> {
        let pods: Vec<Pod> = candidate.pods.iter().map(|pod| (**pod).clone()).collect();
        let offers = self.cluster.offers(&self.daemons);
        let Layout { snapshot, uninitialized, targets } = &mut self.layout;
        let mut solver = Solver::new(snapshot, &offers, self.options.clone());
        let checkpoint = snapshot.checkpoint();
        if let Some(node) = self.nodes.get(&candidate.name) {
            snapshot.remove_node(*node);
        }
        let solution = solver.solve(snapshot, &pods);
        snapshot.rollback(checkpoint);
        if let Some(failure) = solution.failures.first() {
            return Err(format!("not all pods would schedule, {} => {failure}", pods[failure.pod].key()));
        }
        for (pod, place) in &solution.placements {
            if let Place::Node(node) = place
                && uninitialized.contains(node)
            {
                let target = targets.get(node).map(ToString::to_string).unwrap_or_default();
                let pod = pods[*pod].key();
                return Err(format!(
                    "not all pods would schedule, {pod} => would schedule against uninitialized {target}"
                ));
            }
        }
        let mut claims = solution.claims;
        for claim in &mut claims {
            with_daemons(claim, self.cluster, &self.options.well_known);
        }
        Ok(claims)
    }

    /// The node that stands for one of a static pool, within the limits of the pool.
    ///
    /// # Errors
    /// There is none to be had.
    pub(super) fn replace_static(&self, candidate: &Candidate) -> Result<Vec<Claim>, String> {
        let pool = self.cluster.pool(&candidate.pool).filter(|pool| pool.is_usable);
        let pool = pool.ok_or_else(|| format!("nodepool {:?} is not ready", candidate.pool))?;
        if fixed::nodes_left(self.cluster, pool) == 0 {
            return Err(Refusal::NodeLimit.to_string());
        }
        let claim = fixed::claim(self.cluster, pool, &self.options);
        claim.map(|claim| vec![claim]).ok_or_else(|| Refusal::NoTypes.to_string())
    }

    /// Decides about consolidation: pods that move go on no node that is not calm yet, and pools whose policy is Balanced agree
    /// only to what is worth the disruption.
    pub(super) fn consolidate<T>(
        &mut self,
        input: &Input<'_>,
        candidates: &[Candidate],
        decide: impl FnOnce(&mut consolidate::Cluster<'_, '_>, &[consolidate::Candidate]) -> T,
    ) -> T {
        let balanced: BTreeSet<&str> = self
            .cluster
            .pools
            .iter()
            .filter(|pool| pool.spec.disruption.policy() == ConsolidationPolicy::Balanced)
            .map(|pool| &*pool.name)
            .collect();
        let totals = if balanced.is_empty() { BTreeMap::new() } else { balanced::totals(&worths(input)) };
        let scores = |command: &consolidate::Command| {
            let moved: Vec<_> = command.remove.iter().map(|at| candidates[*at].worth()).collect();
            let price = command.replacement.as_ref().map_or(0.0, |claim| claim.price);
            let is_balanced = |pool: &str| balanced.contains(pool);
            balanced::evaluate(&moved, price, is_balanced, &totals, TOLERANCE).scores
        };
        let nodes: Vec<_> = candidates.iter().filter_map(|candidate| self.as_node(candidate)).collect();
        let offers = self.cluster.offers(&self.daemons);
        let restless = self.restless();
        let snapshot = &mut self.layout.snapshot;
        let mut solver = Solver::new(snapshot, &offers, self.options.clone());
        let checkpoint = snapshot.checkpoint();
        let requests = Resources { pods: 1, ..Resources::default() };
        let filler = Pod { shape: Arc::new(Shape { requests, ..Shape::default() }), ..Pod::default() };
        let filler = snapshot.class(&filler);
        for node in restless {
            let free = u32::try_from(snapshot.free(node).pods).unwrap_or(0);
            snapshot.bind_many(filler, node, free);
        }
        let mut cluster = consolidate::Cluster {
            snapshot,
            solver: &mut solver,
            pending: &[],
            uninitialized: &self.layout.uninitialized,
            spot_to_spot: input.spot_to_spot,
            well_known: &self.cluster.well_known,
            scores: &scores,
        };
        let decided = decide(&mut cluster, &nodes);
        self.layout.snapshot.rollback(checkpoint);
        decided
    }

    /// Nodes within the time that their pool gives them to fill up or calm down.
    fn restless(&self) -> Vec<NodeId> {
        let is_restless = |claim: &&Arc<crate::api::karpenter::NodeClaim>| {
            let pool = pool_of(claim).and_then(|pool| self.cluster.pool(pool));
            let waits =
                pool.is_some_and(|pool| matches!(pool.spec.disruption.consolidate_after(), Ok(Some(_))));
            waits && !is_calm(claim)
        };
        let restless = self.cluster.claims.iter().filter(is_restless);
        let nodes = restless.filter_map(|claim| self.nodes.get(claim.metadata.name.as_deref()?).copied());
        nodes.filter(|node| !self.layout.uninitialized.contains(node)).collect()
    }

    fn as_node(&self, candidate: &Candidate) -> Option<consolidate::Candidate> {
        let label = |key: &str| candidate.node.labels.get(key).map(String::as_str).unwrap_or_default();
        Some(consolidate::Candidate {
            node: *self.nodes.get(&candidate.name)?,
            pool: candidate.pool.clone(),
            instance_type: label(INSTANCE_TYPE).into(),
            capacity_type: label(CAPACITY_TYPE).into(),
            price: candidate.price,
            pods: candidate.pods.iter().map(|pod| (**pod).clone()).collect(),
        })
    }
}
