//! Which nodes go although nothing forces them to, and what has to be there first (core, `pkg/controllers/disruption`).
//!
//! [`decide`] asks one method after the other; the first that finds something to do ends the round. What it finds is a
//! [`Command`], to be held against a later state of the cluster by [`validate`] before anybody acts on it.

mod candidate;
mod scene;
mod validate;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    balanced::Score,
    budgets::Reason,
    cluster::Cluster,
    consolidate::{self, Refused, multi_node, single_node},
    names::condition,
    node_claim::{changed, holds},
    provision::with_daemons,
    solver::{Claim, Options},
};
use crate::{api::karpenter::ConsolidationPolicy, nodes::drain::Budgets, scheduling::Pod};
use candidate::{Budgeted, Candidate, Found};
use scene::Scene;

pub use candidate::Blocked;
pub use validate::{Invalid, validate};

/// What is decided by.
#[derive(Clone)]
pub struct Input<'a> {
    /// The cluster as it is.
    pub cluster: &'a Cluster,
    /// PodDisruptionBudgets.
    pub budgets: &'a Budgets,
    /// Claims and nodes, by name, that pods are expected on.
    pub nominated: &'a BTreeSet<String>,
    /// How places are found for pods.
    pub options: Options,
    /// Whether spot nodes are replaced by spot nodes (gate `SpotToSpotConsolidation`).
    pub spot_to_spot: bool,
    /// Now.
    pub now: Timestamp,
}

/// A way to find nodes that can go, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Nodes without pods that would have to move.
    Emptiness,
    /// A node that is not what its pool or node class asks for any more.
    Drift,
    /// Many nodes at once, for one cheaper node at most.
    MultiNode,
    /// One node, for a cheaper one at most.
    SingleNode,
}

impl Method {
    /// Why its nodes are disrupted.
    pub fn reason(self) -> Reason {
        match self {
            Self::Emptiness => Reason::Empty,
            Self::Drift => Reason::Drifted,
            Self::MultiNode | Self::SingleNode => Reason::Underutilized,
        }
    }

    /// Its name in metrics (label `consolidation_type`).
    pub fn consolidation_type(self) -> &'static str {
        match self {
            Self::Emptiness => "empty",
            Self::Drift => "",
            Self::MultiNode => "multi",
            Self::SingleNode => "single",
        }
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// What found it.
    pub method: Method,
    /// Claims to delete, by name.
    pub claims: Vec<Arc<str>>,
    /// Nodes to have first.
    pub replacements: Vec<Claim>,
    /// What that saves, dollars an hour.
    pub savings: f64,
    /// What it is worth to each pool whose policy is Balanced.
    pub scores: BTreeMap<Arc<str>, Score>,
}

impl Command {
    /// Its name in metrics and logs.
    pub fn decision(&self) -> &'static str {
        if self.replacements.is_empty() { "delete" } else { "replace" }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.method.reason().name(), self.decision(), self.claims.join(", "))?;
        for claim in &self.replacements {
            let types: Vec<&str> = claim.types.iter().take(5).map(|it| &*it.name).collect();
            let more = if claim.types.len() > types.len() { ", ..." } else { "" };
            write!(f, " for one of {}{more}", types.join(", "))?;
        }
        Ok(())
    }
}

/// What a move of consolidation, whether it is done or not, was found to be worth to one of the pools that it takes nodes of.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    /// The pool.
    pub pool: Arc<str>,
    /// Its policy.
    pub policy: ConsolidationPolicy,
    /// Whether the move is worth it to all pools.
    pub is_approved: bool,
    /// What it is worth to this one, if its policy is Balanced.
    pub score: Option<Score>,
}

/// What of the budgets of a pool is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetUse {
    /// Nodes that may be disrupted at once; [`UNLIMITED`](super::budgets::UNLIMITED) if no budget applies.
    pub allowed: i32,
    /// Nodes that are disrupted already, by whatever.
    pub disrupting: u32,
}

/// What was decided, and why not more.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Decision {
    /// What to do.
    pub command: Option<Command>,
    /// Claims that would go, and what keeps them.
    pub blocked: Vec<(Arc<str>, Blocked)>,
    /// Claims that stay since nothing would be saved, and why.
    pub unconsolidatable: Vec<(Arc<str>, String)>,
    /// Pods whose protection cannot be read, so that it keeps no node, on those that were looked at.
    pub unread: Vec<Arc<Pod>>,
    /// Nodes that each method could take.
    pub eligible: BTreeMap<Reason, usize>,
    /// How many nodes of each pool may go now, by reason.
    pub allowed: BTreeMap<(Arc<str>, Reason), usize>,
    /// What the budgets of each pool allow, and what is taken of that, by reason.
    pub budgets: BTreeMap<(Arc<str>, Reason), BudgetUse>,
    /// Moves of consolidation that could be done.
    pub moves: Vec<Move>,
    /// Budgets that cannot be read and therefore allow nothing, with their pools.
    pub problems: Vec<(Arc<str>, String)>,
    /// Whether something other than the cluster kept it from doing more, such as budgets or what is expected: then the same
    /// cluster may have another answer later.
    pub is_held: bool,
}

/// Who looks on while it is decided. A function alone only says whether the search goes on.
pub trait Watch {
    /// A method is about to be asked.
    fn begins(&mut self, _: Method) {}

    /// Asked before each simulation of a method that needs many; once it says no, what was found last counts.
    fn goes_on(&mut self, method: Method) -> bool;
}

impl<F: FnMut(Method) -> bool> Watch for F {
    fn goes_on(&mut self, method: Method) -> bool {
        self(method)
    }
}

/// Finds what to do next.
pub fn decide(input: &Input<'_>, mut watch: impl Watch) -> Decision {
    let Found { candidates, blocked, unconsolidatable, unread } = candidate::find(input);
    let Budgeted { left: allowed, budgets, problems } = candidate::budgeted(input);
    let mut decision =
        Decision { blocked, unconsolidatable, unread, allowed, budgets, problems, ..Decision::default() };
    for reason in [Reason::Empty, Reason::Drifted, Reason::Underutilized] {
        let eligible = candidates.iter().filter(|it| it.suits(reason)).count();
        decision.eligible.insert(reason, eligible);
    }
    decision.is_held = !decision.blocked.is_empty();
    if decision.eligible.values().all(|eligible| *eligible == 0) {
        return decision;
    }
    let mut round = Round { input, candidates, scene: Scene::new(input), decision };
    round.drop_expected();
    round.keep_room();
    round.decision.command = [Method::Emptiness, Method::Drift, Method::MultiNode, Method::SingleNode]
        .into_iter()
        .find_map(|method| {
            watch.begins(method);
            match method {
                Method::Emptiness => round.empty(),
                Method::Drift => round.drifted(),
                Method::MultiNode => round.multi_node(&mut watch),
                Method::SingleNode => round.single_node(&mut watch),
            }
        });
    round.decision
}

/// One decision in the making.
struct Round<'r, 'a> {
    input: &'r Input<'a>,
    candidates: Vec<Candidate>,
    scene: Scene<'a>,
    decision: Decision,
}

impl Round<'_, '_> {
    /// Nodes that take pods that wait are needed.
    fn drop_expected(&mut self) {
        let Self { candidates, scene, decision, .. } = self;
        candidates.retain(|candidate| {
            let is_free = !scene.expects(&candidate.name);
            if !is_free {
                decision.blocked.push((candidate.name.clone(), Blocked::Nominated));
                decision.is_held = true;
            }
            is_free
        });
    }

    /// Nodes answer for the room of buffers that they have.
    fn keep_room(&mut self) {
        let (candidates, stay) = self.scene.keep_room(std::mem::take(&mut self.candidates));
        self.candidates = candidates;
        self.decision.unconsolidatable.extend(stay);
    }

    /// Those that suit a reason and that budgets allow, in this order.
    fn within_budgets(&mut self, reason: Reason) -> Vec<Candidate> {
        let mut left = self.decision.allowed.clone();
        let suited = self.candidates.iter().filter(|candidate| candidate.suits(reason));
        let mut chosen = Vec::new();
        for candidate in suited {
            match left.get_mut(&(candidate.pool.clone(), reason)) {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    chosen.push(candidate.clone());
                }
                _ => self.decision.is_held = true,
            }
        }
        chosen
    }

    fn empty(&mut self) -> Option<Command> {
        let chosen = self.within_budgets(Reason::Empty);
        (!chosen.is_empty()).then(|| command(Method::Emptiness, &chosen, Vec::new()))
    }

    /// One that has drifted: of static pools first, then empty ones, then the one that drifted first.
    fn drifted(&mut self) -> Option<Command> {
        let since = |candidate: &Candidate| changed(&candidate.claim, condition::DRIFTED);
        self.candidates.sort_by_key(|it| (!it.is_static, !it.is_empty(), since(it), it.name.clone()));
        let chosen = self.within_budgets(Reason::Drifted);
        self.candidates.sort_by(Candidate::by_savings);
        for candidate in chosen {
            let replaced = if candidate.is_static {
                self.scene.replace_static(&candidate)
            } else {
                self.scene.replace(&candidate)
            };
            match replaced {
                Ok(replacements) => {
                    return Some(command(Method::Drift, std::slice::from_ref(&candidate), replacements));
                }
                Err(why) => self.decision.blocked.push((candidate.name, Blocked::Irreplaceable(why))),
            }
        }
        None
    }

    fn multi_node(&mut self, watch: &mut impl Watch) -> Option<Command> {
        let chosen = self.within_budgets(Reason::Underutilized);
        let found = self.scene.consolidate(self.input, &chosen, |cluster, nodes| {
            multi_node(cluster, nodes, || watch.goes_on(Method::MultiNode))
        });
        if let Some(weighed) = found.command.as_ref().or(found.rejected.as_ref()) {
            let pools = weighed.remove.iter().map(|at| chosen[*at].pool.clone());
            self.weighed(pools.collect(), found.command.is_some(), &weighed.scores);
        }
        Some(self.of_consolidation(Method::MultiNode, &chosen, found.command?))
    }

    fn single_node(&mut self, watch: &mut impl Watch) -> Option<Command> {
        let left = &self.decision.allowed;
        let is_allowed = |it: &&Candidate| {
            left.get(&(it.pool.clone(), Reason::Underutilized)).is_some_and(|left| *left > 0)
        };
        let suited = self.candidates.iter().filter(|it| it.suits(Reason::Underutilized));
        let chosen = in_turn(suited.filter(is_allowed).cloned());
        let (found, refused) = self.scene.consolidate(self.input, &chosen, |cluster, nodes| {
            single_node(cluster, nodes, || watch.goes_on(Method::SingleNode))
        });
        for (at, why) in refused {
            let candidate = &chosen[at];
            if let Refused::Unbalanced { pool, score } = &why {
                let scores = BTreeMap::from([(pool.clone(), *score)]);
                self.weighed(BTreeSet::from([candidate.pool.clone()]), false, &scores);
            }
            self.decision.unconsolidatable.push((candidate.name.clone(), why.to_string()));
        }
        let found = found?;
        let pools = found.remove.iter().map(|at| chosen[*at].pool.clone());
        self.weighed(pools.collect(), true, &found.scores);
        Some(self.of_consolidation(Method::SingleNode, &chosen, found))
    }

    /// Notes what a move that could be done is worth to the pools that it takes nodes of.
    fn weighed(&mut self, pools: BTreeSet<Arc<str>>, is_approved: bool, scores: &BTreeMap<Arc<str>, Score>) {
        for pool in pools {
            let Some(of) = self.input.cluster.pool(&pool) else { continue };
            let (policy, score) = (of.spec.disruption.policy(), scores.get(&pool).copied());
            self.decision.moves.push(Move { pool, policy, is_approved, score });
        }
    }

    fn of_consolidation(
        &self,
        method: Method,
        candidates: &[Candidate],
        found: consolidate::Command,
    ) -> Command {
        let Input { cluster, options, .. } = self.input;
        let removed: Vec<Candidate> = found.remove.iter().map(|at| candidates[*at].clone()).collect();
        let mut replacements = Vec::from_iter(found.replacement);
        for claim in &mut replacements {
            with_daemons(claim, cluster, &options.well_known);
        }
        Command { scores: found.scores, ..command(method, &removed, replacements) }
    }
}

/// One candidate of each pool, then the next of each: a great pool keeps no other waiting.
fn in_turn(candidates: impl Iterator<Item = Candidate>) -> Vec<Candidate> {
    let mut seen: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    let mut turns: Vec<(usize, Candidate)> = candidates
        .map(|candidate| {
            let turn = seen.entry(candidate.pool.clone()).or_default();
            *turn += 1;
            (*turn, candidate)
        })
        .collect();
    turns.sort_by_key(|(turn, _)| *turn);
    turns.into_iter().map(|(_, candidate)| candidate).collect()
}

fn command(method: Method, candidates: &[Candidate], replacements: Vec<Claim>) -> Command {
    let cost: f64 = candidates.iter().map(|candidate| candidate.price).sum();
    let price: f64 = replacements.iter().map(|claim| claim.price).sum();
    let claims = candidates.iter().map(|candidate| candidate.name.clone()).collect();
    Command { method, claims, replacements, savings: cost - price, scores: BTreeMap::new() }
}

/// Whether a claim has been calm for as long as its pool asks.
fn is_calm(claim: &crate::api::karpenter::NodeClaim) -> bool {
    holds(claim, condition::CONSOLIDATABLE)
}

#[cfg(test)]
mod tests;
