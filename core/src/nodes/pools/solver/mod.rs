//! Which nodes to have for pods that wait: existing nodes first, then new ones of one pool or another.
//!
//! What Karpenter's scheduler decides (core, `pkg/controllers/provisioning/scheduling`), with other means: offerings are bits,
//! a claim is the set of offers that are still possible, pods are placed a class at a time, and of the places that a pod may
//! go it gets the one that costs least.

mod claim;
mod devices;
mod domains;
mod failure;
mod finish;
mod kind;
mod market;
mod mask;
mod places;
mod relax;
mod run;
mod zones;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Taint;

pub use failure::{Failure, Refusal};
pub use zones::Zones;

use super::{
    devices::Outfits,
    instance_type::InstanceType,
    launch::{MOST_INSTANCE_TYPES, MinValuesPolicy},
    requirements::{Requirements, WellKnownLabels},
};
use crate::{
    nodes::told::Told,
    scheduling::{NodeId, Pod, Resources, Snapshot},
};

/// The limit of a pool that counts nodes.
pub const NODES: &str = "nodes";

/// A pool that new nodes may be of.
#[derive(Debug, Clone)]
pub struct Pool<'a> {
    /// Its name.
    pub name: Arc<str>,
    /// Pools of greater weight are tried first; of those of one weight the one whose name comes last.
    pub weight: i32,
    /// What it requires of nodes, their labels included.
    pub requirements: Requirements,
    /// Taints that its nodes keep; those that they only start with are left out.
    pub taints: Vec<Taint>,
    /// Instance types that may be had.
    pub types: &'a [Arc<InstanceType>],
    /// A pod of each DaemonSet.
    pub daemons: &'a [Pod],
    /// What its nodes told of themselves.
    pub told: Told,
    /// Which devices its nodes have; `None` if claims of devices get none.
    pub outfits: Option<Outfits>,
    /// What its limits leave, by resource, in the units of [`Resources`]; [`NODES`] counts nodes. What is absent has no limit.
    pub remaining: BTreeMap<Box<str>, i64>,
}

/// What becomes of preferences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Preferences {
    /// They are demands, given up one by one where they cannot be met.
    #[default]
    Respect,
    /// They count for nothing.
    Ignore,
}

/// How to solve.
#[derive(Debug, Clone)]
pub struct Options {
    /// What becomes of preferences.
    pub preferences: Preferences,
    /// What becomes of pods if there is less choice of instance types than a pool asks for.
    pub min_values: MinValuesPolicy,
    /// Most instance types that a claim names.
    pub most_types: usize,
    /// Most new nodes; with one more the solver gives up.
    pub most_claims: Option<usize>,
    /// Further attempts at a cheaper packing, each in another order; there are [`MOST_ATTEMPTS`].
    pub attempts: usize,
    /// Labels that a node will have although nobody asks for them.
    pub well_known: WellKnownLabels,
    /// Whether to tell which zones pods are bound to.
    pub tells_zones: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            preferences: Preferences::default(),
            min_values: MinValuesPolicy::default(),
            most_types: MOST_INSTANCE_TYPES,
            most_claims: None,
            attempts: 0,
            well_known: WellKnownLabels::default(),
            tells_zones: false,
        }
    }
}

/// How many orders there are beside Karpenter's.
pub const MOST_ATTEMPTS: usize = Order::OTHERS.len();

/// In which order pods are placed; where all else is equal, in Karpenter's: by cpu, then by memory.
#[derive(Debug, Clone, Copy, Default)]
struct Order {
    /// Those first that rules keep apart on nodes: the nodes that they need are there for the others then.
    apart_first: bool,
    /// By cpu and memory taken together.
    by_size: bool,
    /// By cpu or memory, of which a pod asks for more.
    by_larger: bool,
}

impl Order {
    const OTHERS: [Self; 5] = [
        Self { apart_first: true, by_size: false, by_larger: false },
        Self { apart_first: false, by_size: true, by_larger: false },
        Self { apart_first: true, by_size: true, by_larger: false },
        Self { apart_first: false, by_size: false, by_larger: true },
        Self { apart_first: true, by_size: false, by_larger: true },
    ];
}

/// Where a pod goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A node that is there.
    Node(NodeId),
    /// A new node, as a place in [`Solution::claims`].
    Claim(usize),
}

/// A node to be asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The pool that it is of.
    pub pool: Arc<str>,
    /// What its labels have to be.
    pub requirements: Requirements,
    /// Instance types that do, cheapest first.
    pub types: Vec<Arc<InstanceType>>,
    /// The pods, as places in the list that was solved, in the order in which they were placed.
    pub pods: Vec<usize>,
    /// What the pods ask for.
    pub requests: Resources,
    /// The least that it may cost, dollars an hour.
    pub price: f64,
    /// Whether it is taken for granted that the node has the devices that its pods ask for: nobody knows.
    pub presumes_devices: bool,
}

/// Where pods go.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Solution {
    /// New nodes, in the order in which they were opened.
    pub claims: Vec<Claim>,
    /// Pods, as places in the list that was solved, and where they go, in the order in which they were placed.
    pub placements: Vec<(usize, Place)>,
    /// Pods that go nowhere, and why.
    pub failures: Vec<Failure>,
    /// Whether more new nodes were needed than were allowed: then pods are left out that are in no list.
    pub gave_up: bool,
    /// How many pods that wait are bound to which zones, if that is asked for.
    pub zones: BTreeMap<Zones, usize>,
}

impl Solution {
    /// The sum of the least that the claims may cost, dollars an hour.
    pub fn price(&self) -> f64 {
        self.claims.iter().map(|claim| claim.price).sum()
    }
}

/// Solves again and again for the same pools over one snapshot.
pub struct Solver<'a> {
    catalog: kind::Catalog<'a>,
}

impl<'a> Solver<'a> {
    /// A solver for pools; it is to be asked about this snapshot alone.
    pub fn new(snapshot: &mut Snapshot, pools: &'a [Pool<'a>], options: Options) -> Self {
        Self { catalog: kind::Catalog::new(snapshot, pools, options) }
    }

    /// Finds places for pods. The snapshot is left as it was.
    ///
    /// Of several attempts the one counts that leaves the fewest pods out, then the one that costs least, then the first.
    pub fn solve(&mut self, snapshot: &mut Snapshot, pods: &[Pod]) -> Solution {
        let mut best = self.attempt(snapshot, pods, Order::default());
        for order in Order::OTHERS.into_iter().take(self.catalog.options.attempts) {
            let other = self.attempt(snapshot, pods, order);
            let (left_out, before) = (other.failures.len(), best.failures.len());
            let cheaper = left_out == before && other.price() < best.price();
            if !other.gave_up && (best.gave_up || left_out < before || cheaper) {
                best = other;
            }
        }
        best
    }

    fn attempt(&mut self, snapshot: &mut Snapshot, pods: &[Pod], order: Order) -> Solution {
        let checkpoint = snapshot.checkpoint();
        let solution = run::Run::new(&mut self.catalog, snapshot, pods, order).solve();
        snapshot.rollback(checkpoint);
        solution
    }

    /// As [`Solver::solve`], with at most so many new nodes.
    pub fn solve_within(&mut self, snapshot: &mut Snapshot, pods: &[Pod], most_claims: usize) -> Solution {
        let before = self.catalog.options.most_claims.replace(most_claims);
        let solution = self.solve(snapshot, pods);
        self.catalog.options.most_claims = before;
        solution
    }
}

/// Finds places for pods. The snapshot is left as it was.
pub fn solve(snapshot: &mut Snapshot, pools: &[Pool<'_>], pods: &[Pod], options: Options) -> Solution {
    Solver::new(snapshot, pools, options).solve(snapshot, pods)
}

#[cfg(test)]
mod tests;
