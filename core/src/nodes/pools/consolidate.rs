//! Consolidation: whether the pods of some nodes fit elsewhere, with at most one new node that is cheaper than those
//! (core, `pkg/controllers/disruption/{consolidation,multinodeconsolidation,singlenodeconsolidation}.go`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use thiserror::Error;

use super::{
    balanced::Score,
    launch::needed_for_min_values,
    requirements::{
        Requirement, WellKnownLabels,
        labels::{CAPACITY_TYPE, ON_DEMAND, SPOT},
    },
    solver::{Claim, Place, Solver},
};
use crate::scheduling::{NodeId, Pod, Snapshot};

/// Most nodes that are consolidated at once.
const MOST_NODES: usize = 100;
/// Cheaper instance types that it takes to replace a single spot node by another: with fewer, the replacement would be of
/// whatever is cheapest and soonest taken away.
const TYPES_FOR_SPOT_TO_SPOT: usize = 15;

/// A node that may be consolidated.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// Its pool.
    pub pool: Arc<str>,
    /// Its instance type.
    pub instance_type: Arc<str>,
    /// What it is paid by.
    pub capacity_type: Arc<str>,
    /// What it costs, dollars an hour; 0 if nobody knows.
    pub price: f64,
    /// Its pods that have to run elsewhere.
    pub pods: Vec<Pod>,
}

/// What consolidation is decided by, beside the candidates.
pub struct Cluster<'c, 'a> {
    /// The nodes, the candidates among them, with their pods.
    pub snapshot: &'c mut Snapshot,
    /// The pools.
    pub solver: &'c mut Solver<'a>,
    /// Pods that wait for a node anyway, those of nodes that are being deleted included.
    pub pending: &'c [Pod],
    /// Nodes that are not initialized: nobody knows yet that pods can run there.
    pub uninitialized: &'c BTreeSet<NodeId>,
    /// Whether spot nodes are replaced by spot nodes (gate `SpotToSpotConsolidation`).
    pub spot_to_spot: bool,
    /// Labels that a node will have although nobody asks for them.
    pub well_known: &'c WellKnownLabels,
    /// What a command that can be done is worth.
    pub scores: &'c Scores<'c>,
}

/// What a command that can be done is worth to each pool that asks; it is done if that is enough to all of them.
pub type Scores<'c> = dyn Fn(&Command) -> BTreeMap<Arc<str>, Score> + 'c;

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// Nodes to remove, as places in the list of candidates.
    pub remove: Vec<usize>,
    /// The node to have first, if there is no room elsewhere.
    pub replacement: Option<Claim>,
    /// What it is worth to each pool that asks.
    pub scores: BTreeMap<Arc<str>, Score>,
}

impl Command {
    /// The first pool to which it is not worth it.
    fn unbalanced(&self) -> Option<(&Arc<str>, &Score)> {
        self.scores.iter().find(|(_, score)| !score.is_approved())
    }
}

/// What a search for many nodes came to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Search {
    /// What to do.
    pub command: Option<Command>,
    /// Where there is nothing to do: what could be done and was not worth it, of such moves the last that was tried.
    pub rejected: Option<Command>,
}

/// Why nodes cannot be consolidated.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Refused {
    /// A pod would have no place.
    #[error("not all pods would schedule, {pod} => {why}")]
    Unschedulable {
        /// `NAMESPACE/NAME` of the pod.
        pod: String,
        /// Why no pool has a node for it.
        why: String,
    },
    /// A pod would go to a node that is not initialized.
    #[error("would schedule against uninitialized {0}")]
    Uninitialized(Arc<str>),
    /// More than one new node would be needed.
    #[error("Can't remove without creating more than one candidate")]
    ManyNew,
    /// The price of a candidate is not known.
    #[error("the price of node {0} is not known")]
    Price(Arc<str>),
    /// No instance type that does is cheaper.
    #[error("Can't replace with a cheaper node")]
    NotCheaper,
    /// Cheaper instance types are less of a choice than the pool asks for.
    #[error("Filtering by price: minValues requirement is not met")]
    MinValues,
    /// Spot nodes are not replaced by spot nodes.
    #[error("SpotToSpotConsolidation is disabled, can't replace a spot node with a spot node")]
    SpotToSpotDisabled,
    /// Too few cheaper instance types.
    #[error(
        "SpotToSpotConsolidation requires {TYPES_FOR_SPOT_TO_SPOT} cheaper instance type options than the current candidate to consolidate, got {0}"
    )]
    FewForSpotToSpot(usize),
    /// A pool whose policy is Balanced would be disrupted more than it saves.
    #[error("nodepool {pool:?}: {score}")]
    Unbalanced {
        /// The first such pool.
        pool: Arc<str>,
        /// What it is worth to it.
        score: Score,
    },
}

/// Consolidates as many nodes as it can at once: the longest prefix of the candidates that a search by halves finds, of two at
/// least and of a hundred at most. `goes_on` is asked before each simulation; once it says no, what was found last counts.
pub fn multi_node(
    cluster: &mut Cluster<'_, '_>,
    candidates: &[Candidate],
    mut goes_on: impl FnMut() -> bool,
) -> Search {
    let mut search = Search::default();
    let (mut shortest, mut longest) = (2, candidates.len().min(MOST_NODES));
    while shortest <= longest && goes_on() {
        let length = shortest.midpoint(longest);
        let remove: Vec<usize> = (0..length).collect();
        let command = possible(cluster, candidates, remove)
            .ok()
            .and_then(|command| without_same_type(command, candidates, cluster.well_known))
            .map(|command| scored(cluster, command));
        match command {
            Some(command) if command.unbalanced().is_none() => {
                shortest = length + 1;
                search.command = Some(command);
            }
            rejected => {
                longest = length - 1;
                search.rejected = rejected.or(search.rejected);
            }
        }
    }
    search.rejected = search.rejected.filter(|_| search.command.is_none());
    search
}

/// Consolidates the first node that can be. Also returns why those before it cannot, and in `goes_on` may stop.
pub fn single_node(
    cluster: &mut Cluster<'_, '_>,
    candidates: &[Candidate],
    mut goes_on: impl FnMut() -> bool,
) -> (Option<Command>, Vec<(usize, Refused)>) {
    let mut refused = Vec::new();
    for at in 0..candidates.len() {
        if !goes_on() {
            break;
        }
        match consolidate(cluster, candidates, vec![at]) {
            Ok(command) => return (Some(command), refused),
            Err(why) => refused.push((at, why)),
        }
    }
    (None, refused)
}

/// Whether some candidates can be removed together, and what has to replace them.
///
/// # Errors
/// Their pods would not all have a place, or not at a lower price.
pub fn consolidate(
    cluster: &mut Cluster<'_, '_>,
    candidates: &[Candidate],
    remove: Vec<usize>,
) -> Result<Command, Refused> {
    let command = possible(cluster, candidates, remove)?;
    let command = scored(cluster, command);
    match command.unbalanced() {
        Some((pool, score)) => Err(Refused::Unbalanced { pool: pool.clone(), score: *score }),
        None => Ok(command),
    }
}

fn scored(cluster: &Cluster<'_, '_>, command: Command) -> Command {
    Command { scores: (cluster.scores)(&command), ..command }
}

/// The same, whatever it is worth.
fn possible(
    cluster: &mut Cluster<'_, '_>,
    candidates: &[Candidate],
    remove: Vec<usize>,
) -> Result<Command, Refused> {
    let moving = remove.iter().flat_map(|at| &candidates[*at].pods);
    let pods: Vec<Pod> = cluster.pending.iter().chain(moving).cloned().collect();
    let checkpoint = cluster.snapshot.checkpoint();
    for at in &remove {
        cluster.snapshot.remove_node(candidates[*at].node);
    }
    let solution = cluster.solver.solve_within(cluster.snapshot, &pods, 1);
    cluster.snapshot.rollback(checkpoint);
    if solution.gave_up {
        return Err(Refused::ManyNew);
    }
    let moved = |pod: &usize| *pod >= cluster.pending.len();
    if let Some(failure) = solution.failures.iter().find(|failure| moved(&failure.pod)) {
        let why = failure.reasons.iter().map(|(pool, why)| format!("nodepool {pool:?}: {why}"));
        let why = why.collect::<Vec<_>>().join("; ");
        return Err(Refused::Unschedulable { pod: pods[failure.pod].key(), why });
    }
    for (pod, place) in &solution.placements {
        if let Place::Node(node) = place
            && moved(pod)
            && cluster.uninitialized.contains(node)
        {
            return Err(Refused::Uninitialized(cluster.snapshot.node(*node).name().clone()));
        }
    }
    let claim = solution.claims.into_iter().next();
    let replacement = claim.map(|claim| cheaper(cluster, candidates, &remove, claim)).transpose()?;
    Ok(Command { remove, replacement, scores: BTreeMap::new() })
}

/// The replacement with those of its instance types that are cheaper than what it replaces, however the launch goes.
fn cheaper(
    cluster: &Cluster<'_, '_>,
    candidates: &[Candidate],
    remove: &[usize],
    mut claim: Claim,
) -> Result<Claim, Refused> {
    let removed = || remove.iter().map(|at| &candidates[*at]);
    if let Some(unknown) = removed().find(|candidate| candidate.price <= 0.0) {
        return Err(Refused::Price(cluster.snapshot.node(unknown.node).name().clone()));
    }
    let price: f64 = removed().map(|candidate| candidate.price).sum();
    let may_be_spot = claim.requirements.allows(CAPACITY_TYPE, SPOT);
    let from_spot_to_spot = may_be_spot && removed().all(|candidate| &*candidate.capacity_type == SPOT);
    if from_spot_to_spot {
        if !cluster.spot_to_spot {
            return Err(Refused::SpotToSpotDisabled);
        }
        claim.requirements.add(Requirement::is(CAPACITY_TYPE, SPOT));
    }
    keep_below(&mut claim, price, cluster.well_known)?;
    if from_spot_to_spot && remove.len() == 1 {
        if claim.types.len() < TYPES_FOR_SPOT_TO_SPOT {
            return Err(Refused::FewForSpotToSpot(claim.types.len()));
        }
        let needed = needed_for_min_values(&claim.types, &claim.requirements).unwrap_or(0);
        claim.types.truncate(needed.max(TYPES_FOR_SPOT_TO_SPOT));
    }
    // The types were chosen by what they cost on spot; on demand they could cost more than what is there.
    if may_be_spot && claim.requirements.allows(CAPACITY_TYPE, ON_DEMAND) {
        claim.requirements.add(Requirement::is(CAPACITY_TYPE, SPOT));
    }
    Ok(claim)
}

/// Keeps instance types whose launch costs less for certain.
fn keep_below(claim: &mut Claim, price: f64, well_known: &WellKnownLabels) -> Result<(), Refused> {
    let requirements = &claim.requirements;
    claim
        .types
        .retain(|it| it.worst_launch_price(requirements, well_known).is_some_and(|worst| worst < price));
    if claim.types.is_empty() {
        return Err(Refused::NotCheaper);
    }
    needed_for_min_values(&claim.types, requirements).map_err(|_| Refused::MinValues)?;
    Ok(())
}

/// Keeps a command from removing nodes only to have one of them again: where the replacement may be of a type that is removed,
/// it has to be cheaper than the cheapest such node.
fn without_same_type(
    mut command: Command,
    candidates: &[Candidate],
    well_known: &WellKnownLabels,
) -> Option<Command> {
    let Some(claim) = &mut command.replacement else { return Some(command) };
    let mut cheapest: BTreeMap<&str, f64> = BTreeMap::new();
    for candidate in command.remove.iter().map(|at| &candidates[*at]) {
        let price = cheapest.entry(&candidate.instance_type).or_insert(f64::INFINITY);
        *price = price.min(candidate.price);
    }
    let same = claim.types.iter().filter_map(|it| cheapest.get(&*it.name));
    let bound = same.copied().fold(f64::INFINITY, f64::min);
    keep_below(claim, bound, well_known).ok()?;
    Some(command)
}

#[cfg(test)]
mod tests;
