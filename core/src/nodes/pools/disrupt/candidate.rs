//! Which nodes may go at all (core, `pkg/controllers/disruption/types.go`, `pkg/controllers/state/statenode.go`).

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use kube::ResourceExt as _;
use thiserror::Error;

use super::{BudgetUse, Input, is_calm};
use crate::{
    api::karpenter::{ConsolidationPolicy, NodeClaim},
    nodes::pools::{
        budgets::{NodeFacts, PoolCount, Reason, allowed_by_reason},
        cluster::{Cluster, Member, Pool},
        costs::{self, COST_OF_NODE, disruption_cost},
        names::{DO_NOT_DISRUPT, condition, disrupted},
        node_claim::{holds, is_deleting, pool_of},
        pods::{is_protected, moves, unread_protection},
        requirements::{
            Requirements,
            labels::{CAPACITY_TYPE, INSTANCE_TYPE, ZONE},
        },
    },
    scheduling::{Node, Pod, gang, gang::Held, taints::tolerates},
};

/// What keeps a node that would go.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Blocked {
    /// Pods are expected there.
    #[error("node is nominated for a pending pod")]
    Nominated,
    /// The node or its claim says so.
    #[error("disruption is blocked through the {DO_NOT_DISRUPT:?} annotation")]
    Annotation,
    /// A pod says so.
    #[error("pod has {DO_NOT_DISRUPT:?} annotation (Pod={0})")]
    Pod(String),
    /// A PodDisruptionBudget allows no eviction of a pod.
    #[error("pdb prevents pod evictions (PodDisruptionBudget=[{0}])")]
    Pdb(String),
    /// The API evicts no pod that several budgets cover.
    #[error("eviction does not support multiple PDBs (PodDisruptionBudget=[{0}])")]
    Pdbs(String),
    /// A gang is disrupted as a whole or not at all.
    #[error(transparent)]
    Gang(Held),
    /// Nothing can take its place, in words.
    #[error("{0}")]
    Irreplaceable(String),
}

/// A node that may go.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) claim: Arc<NodeClaim>,
    /// The claim's name.
    pub(super) name: Arc<str>,
    pub(super) node: Arc<Node>,
    pub(super) pool: Arc<str>,
    /// Pods that have to move.
    pub(super) pods: Vec<Arc<Pod>>,
    /// Dollars an hour; 0 if nobody knows.
    pub(super) price: f64,
    pub(super) disruption_cost: f64,
    /// Whether its pool keeps a number of nodes, whatever pods there are.
    pub(super) is_static: bool,
    /// Reasons for which it may go.
    reasons: Vec<Reason>,
}

impl Candidate {
    /// Whether it may go for this reason.
    pub(super) fn suits(&self, reason: Reason) -> bool {
        self.reasons.contains(&reason)
    }

    pub(super) fn has_reason(&self) -> bool {
        !self.reasons.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.disruption_cost <= COST_OF_NODE
    }

    /// An empty node whose room is needed counts as one that is used too little, if its pool lets such nodes go. Returns
    /// whether it may.
    pub(super) fn count_as_used(&mut self, cluster: &Cluster) -> bool {
        self.reasons.retain(|reason| *reason != Reason::Empty);
        let pool = cluster.pool(&self.pool);
        let may_go = pool.is_some_and(|pool| judge_used(pool, &self.node).is_ok());
        if may_go {
            self.reasons.push(Reason::Underutilized);
        }
        may_go
    }

    /// What saves most for its cost first, ties by name.
    pub(super) fn by_savings(left: &Self, right: &Self) -> Ordering {
        let ratio = |it: &Self| it.worth().savings_ratio();
        ratio(right).total_cmp(&ratio(left)).then_with(|| left.name.cmp(&right.name))
    }

    pub(super) fn worth(&self) -> costs::Candidate {
        costs::Candidate {
            name: self.name.clone(),
            pool: self.pool.clone(),
            price: self.price,
            disruption_cost: self.disruption_cost,
        }
    }
}

/// Nodes that may go, those that save most for their cost first, and why others may not.
#[derive(Default)]
pub(super) struct Found {
    pub(super) candidates: Vec<Candidate>,
    pub(super) blocked: Vec<(Arc<str>, Blocked)>,
    pub(super) unconsolidatable: Vec<(Arc<str>, String)>,
    /// Pods on nodes that may or might go whose protection cannot be read.
    pub(super) unread: Vec<Arc<Pod>>,
}

/// The nodes of pools with their pods: initialized ones that do not go yet, whatever keeps them.
fn nodes(input: &Input<'_>) -> Vec<(Candidate, Vec<Arc<Pod>>)> {
    let mut pods_on: HashMap<&str, Vec<Arc<Pod>>> = HashMap::new();
    for pod in input.cluster.pods.iter().filter(|pod| !pod.is_terminal()) {
        if let Some(node) = &pod.node {
            pods_on.entry(node).or_default().push(pod.clone());
        }
    }
    let mut nodes = Vec::new();
    for Member { claim, name, node } in input.cluster.members() {
        let Some(node) = node.filter(|node| node.deleting.is_none()) else { continue };
        let Some(pool) = pool_of(&claim).and_then(|pool| input.cluster.pool(pool)) else { continue };
        if input.cluster.is_leaving(&claim) || !holds(&claim, condition::INITIALIZED) {
            continue;
        }
        let all = pods_on.remove(&*node.name).unwrap_or_default();
        let pods: Vec<_> = all.iter().filter(|pod| moves(pod)).cloned().collect();
        let candidate = Candidate {
            disruption_cost: disruption_cost(pods.iter().map(|pod| &*pod.shape)),
            price: price(input, pool, &node),
            pool: pool.name.clone(),
            is_static: pool.spec.is_static(),
            reasons: Vec::new(),
            claim,
            name,
            node,
            pods,
        };
        nodes.push((candidate, all));
    }
    nodes
}

fn price(input: &Input<'_>, pool: &Pool, node: &Node) -> f64 {
    let name = node.labels.get(INSTANCE_TYPE);
    let of = name.and_then(|name| pool.types.iter().find(|it| *it.name == **name));
    of.map_or(0.0, |of| of.price_of_node(&Requirements::of_labels(&node.labels), &input.cluster.well_known))
}

/// What the nodes of all pools are worth.
pub(super) fn worths(input: &Input<'_>) -> Vec<costs::Candidate> {
    nodes(input).iter().map(|(candidate, _)| candidate.worth()).collect()
}

pub(super) fn find(input: &Input<'_>) -> Found {
    let mut found = Found::default();
    for (mut candidate, pods) in nodes(input) {
        let Some(pool) = input.cluster.pool(&candidate.pool) else { continue };
        let has_drifted = holds(&candidate.claim, condition::DRIFTED);
        let calm = is_calm(&candidate.claim) && !candidate.is_static;
        if !(calm || has_drifted) {
            continue;
        }
        found.unread.extend(pods.iter().filter(|pod| unread_protection(pod).is_some()).cloned());
        let blocked = blocked(input, &candidate, &pods);
        // Where its end has a time, drift waits for nobody.
        let bounded = candidate.claim.spec.termination_grace_period.is_some();
        let by_pods =
            matches!(blocked, Some(Blocked::Pod(_) | Blocked::Pdb(_) | Blocked::Pdbs(_) | Blocked::Gang(_)));
        if has_drifted && (blocked.is_none() || (bounded && by_pods)) {
            candidate.reasons.push(Reason::Drifted);
        }
        if let Some(blocked) = blocked {
            found.blocked.push((candidate.name.clone(), blocked));
        } else if calm {
            match consolidates(pool, &candidate) {
                Ok(reason) => candidate.reasons.push(reason),
                Err(why) => found.unconsolidatable.push((candidate.name.clone(), why)),
            }
        }
        if !candidate.reasons.is_empty() {
            found.candidates.push(candidate);
        }
    }
    found.candidates.sort_by(Candidate::by_savings);
    found
}

/// For which reason a calm node is consolidated, if its pool and what is known of it let it be.
fn consolidates(pool: &Pool, candidate: &Candidate) -> Result<Reason, String> {
    let disruption = &pool.spec.disruption;
    if !matches!(disruption.consolidate_after(), Ok(Some(_))) {
        return Err(format!("NodePool {:?} has consolidation disabled", pool.name));
    }
    if candidate.is_empty() {
        return Ok(Reason::Empty);
    }
    judge_used(pool, &candidate.node)
}

/// The same for a node that is used.
fn judge_used(pool: &Pool, node: &Node) -> Result<Reason, String> {
    if pool.spec.disruption.policy() == ConsolidationPolicy::WhenEmpty {
        return Err(format!("NodePool {:?} has non-empty consolidation disabled", pool.name));
    }
    let labels = &node.labels;
    for label in [INSTANCE_TYPE, CAPACITY_TYPE, ZONE] {
        if !labels.contains_key(label) {
            return Err(format!("Node does not have label {label:?}"));
        }
    }
    let name = &labels[INSTANCE_TYPE];
    if !pool.types.iter().any(|it| *it.name == **name) {
        return Err(format!("Instance Type {name:?} not found"));
    }
    Ok(Reason::Underutilized)
}

/// What keeps a node, whatever the reason.
fn blocked(input: &Input<'_>, candidate: &Candidate, pods: &[Arc<Pod>]) -> Option<Blocked> {
    if input.nominated.contains(&*candidate.name) || input.nominated.contains(&*candidate.node.name) {
        return Some(Blocked::Nominated);
    }
    let says = |value: Option<&String>| value.is_some_and(|value| value == "true");
    let annotations = [&candidate.node.annotations, candidate.claim.annotations()];
    if annotations.iter().any(|annotations| says(annotations.get(DO_NOT_DISRUPT))) {
        return Some(Blocked::Annotation);
    }
    let active = || pods.iter().filter(|pod| pod.deleting.is_none() && !pod.is_mirror());
    if let Some(pod) = active().find(|pod| is_protected(pod, input.now)) {
        return Some(Blocked::Pod(pod.key()));
    }
    let cluster = input.cluster;
    if let Some(held) = gang::held(&candidate.pods, &cluster.pods, &cluster.surroundings) {
        return Some(Blocked::Gang(held));
    }
    let taint = disrupted();
    let stays = |pod: &Pod| pod.shape.tolerations.iter().any(|toleration| tolerates(toleration, &taint));
    active().filter(|pod| !stays(pod)).find_map(|pod| blocked_by_budget(input, pod))
}

fn blocked_by_budget(input: &Input<'_>, pod: &Pod) -> Option<Blocked> {
    let budgets: Vec<_> = input.budgets.of(pod).collect();
    let names = || {
        let names = budgets.iter().map(|budget| format!("{}/{}", budget.namespace, budget.name));
        names.collect::<Vec<_>>().join(", ")
    };
    match budgets.as_slice() {
        [] => None,
        [budget] if budget.allowed > 0 || (budget.always_allows_unhealthy && !pod.ready) => None,
        [_] => Some(Blocked::Pdb(names())),
        _ => Some(Blocked::Pdbs(names())),
    }
}

/// What the budgets of pools come to, by pool and reason.
#[derive(Default)]
pub(super) struct Budgeted {
    /// How many nodes may go now.
    pub(super) left: BTreeMap<(Arc<str>, Reason), usize>,
    /// What allows them.
    pub(super) budgets: BTreeMap<(Arc<str>, Reason), BudgetUse>,
    /// Budgets that cannot be read, with their pools.
    pub(super) problems: Vec<(Arc<str>, String)>,
}

/// How many nodes of each pool may go now, by reason, and which budgets cannot be read.
pub(super) fn budgeted(input: &Input<'_>) -> Budgeted {
    let members = input.cluster.members();
    let mut found = Budgeted::default();
    for pool in &input.cluster.pools {
        let of_pool = members.iter().filter(|member| pool_of(&member.claim) == Some(&*pool.name));
        let count = PoolCount::of(of_pool.map(|member| NodeFacts {
            managed: true,
            initialized: holds(&member.claim, condition::INITIALIZED),
            instance_terminating: holds(&member.claim, condition::INSTANCE_TERMINATING),
            ready: member.node.as_ref().is_some_and(|node| node.ready),
            marked_for_deletion: is_deleting(&member.claim) || input.cluster.is_leaving(&member.claim),
        }));
        for reason in [Reason::Empty, Reason::Drifted, Reason::Underutilized] {
            let key = (pool.name.clone(), reason);
            let budgets = pool.spec.disruption.budgets();
            let at_once = allowed_by_reason(&budgets, count.nodes, reason, input.now);
            let left = count.allowed(&budgets, reason, input.now).nodes;
            found.left.insert(key.clone(), usize::try_from(left).unwrap_or(0));
            found.budgets.insert(key, BudgetUse { allowed: at_once.nodes, disrupting: count.disrupting });
            found.problems.extend(at_once.problems.iter().map(|it| (pool.name.clone(), it.to_string())));
        }
    }
    found.problems.sort();
    found.problems.dedup();
    found
}
