//! Nodes for pods that wait: which of them the nodes that are there or on their way will take, and which new nodes the others
//! need (core, `pkg/controllers/provisioning`).

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::{
    cluster::{Cluster, Layout, Target},
    gangs,
    requirements::{Requirements, WellKnownLabels},
    solver::{Claim, Failure, Options, Place, Zones},
};
use crate::scheduling::{Pod, Resources, taints::untolerated};

/// What is asked.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    /// The cluster as it is.
    pub cluster: &'a Cluster,
    /// Pods that need nodes: [`Cluster::needy`], and others that are expected, which need not be in the cluster.
    pub pods: &'a [Arc<Pod>],
    /// How to solve.
    pub options: Options,
}

/// What is to be done. Pods are places in [`Input::pods`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Pods that nodes will take which are there or on their way.
    pub nominations: Vec<(usize, Target)>,
    /// New nodes, their pods among them. What they ask for includes what DaemonSets do.
    pub claims: Vec<Claim>,
    /// Pods that run nowhere, and why.
    pub unschedulable: Vec<Failure>,
    /// How many pods that wait are bound to which zones, if that is asked for.
    pub zones: BTreeMap<Zones, usize>,
}

/// Finds nodes for pods.
///
/// Pods go on nodes that are there, then on those on their way, then on new ones of the pool of the greatest weight that has
/// one for them; a pod gives its preferences up one by one. New nodes stay within the limits of their pools.
pub fn provision(input: &Input<'_>) -> Plan {
    let Input { cluster, pods, options } = input;
    let moving: HashSet<Arc<str>> = pods.iter().map(|pod| pod.uid.clone()).collect();
    let Layout { mut snapshot, targets, .. } = cluster.lay_out(&moving);
    let daemons: Vec<Pod> = cluster.daemon_sets.iter().map(|pod| (**pod).clone()).collect();
    let solution = gangs::solve(cluster, &mut snapshot, &cluster.offers(&daemons), pods, options);
    let nominations = solution.placements.iter().filter_map(|(pod, place)| match place {
        Place::Node(node) => Some((*pod, targets.get(node)?.clone())),
        Place::Claim(_) => None,
    });
    let mut plan = Plan {
        nominations: nominations.collect(),
        claims: solution.claims,
        unschedulable: solution.failures,
        zones: solution.zones,
    };
    for claim in &mut plan.claims {
        with_daemons(claim, cluster, &options.well_known);
    }
    plan
}

/// Adds what DaemonSets will ask of a new node: those that may run on it.
pub(super) fn with_daemons(claim: &mut Claim, cluster: &Cluster, well_known: &WellKnownLabels) {
    let template = cluster.pool(&claim.pool).map(|pool| &pool.spec.template.spec);
    let taints = template.and_then(|template| template.taints.as_deref()).unwrap_or_default();
    let mut total = Resources::default();
    for pod in &cluster.daemon_sets {
        let shape = cluster.surroundings.as_asked(&pod.shape);
        let affinity = shape.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let asked = Requirements::of_pod(&shape.node_selector, affinity, false);
        let fits = asked.iter().any(|asked| claim.requirements.is_compatible(asked, well_known));
        if fits && untolerated(taints, &shape.tolerations).is_none() {
            total.add(&pod.shape.requests);
        }
    }
    claim.requests.add(&total);
}

#[cfg(test)]
mod tests;
