//! Gangs: no node is asked for a part of one that would not run.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    cluster::Cluster,
    solver::{Failure, Options, Pool, Refusal, Solution, Solver},
};
use crate::scheduling::{Gangs, LeftOut, Pod, Snapshot};

/// Finds places for pods. Where fewer pods of a gang find one than have to, everything is tried again without it.
pub(super) fn solve(
    cluster: &Cluster,
    snapshot: &mut Snapshot,
    pools: &[Pool<'_>],
    pods: &[Arc<Pod>],
    options: &Options,
) -> Solution {
    let gangs = Gangs::of(&cluster.pods, &cluster.surroundings);
    let mut solver = Solver::new(snapshot, pools, options.clone());
    let mut left_out = LeftOut::default();
    let mut why: BTreeMap<usize, Vec<(Arc<str>, Refusal)>> = BTreeMap::new();
    let mut zones = None;
    loop {
        let chosen: Vec<usize> = (0..pods.len()).filter(|at| !left_out.has(&pods[*at])).collect();
        let of_chosen: Vec<Pod> = chosen.iter().map(|at| (*pods[*at]).clone()).collect();
        let mut solution = solver.solve(snapshot, &of_chosen);
        translate(&mut solution, &chosen);
        // Of all pods, those that are left out later included.
        solution.zones = zones.get_or_insert(solution.zones).clone();
        if gangs.is_empty() {
            return solution;
        }
        let tried: Vec<Arc<Pod>> = chosen.iter().map(|at| pods[*at].clone()).collect();
        let mut placed = vec![false; pods.len()];
        solution.placements.iter().for_each(|(pod, _)| placed[*pod] = true);
        let unmet = gangs.unmet(&tried, |at| placed[chosen[at]]);
        if unmet.is_empty() {
            let waiting = (0..pods.len()).filter_map(|pod| Some((pod, left_out.of(&pods[pod])?)));
            solution.failures.extend(waiting.map(|(pod, gang)| Failure {
                pod,
                reasons: why.remove(&pod).unwrap_or_default(),
                gang: Some(gang.clone()),
            }));
            solution.failures.sort_by_key(|failure| failure.pod);
            return solution;
        }
        why.extend(solution.failures.into_iter().map(|failure| (failure.pod, failure.reasons)));
        left_out.add(unmet);
    }
}

/// Makes places among the pods that were chosen places among all.
fn translate(solution: &mut Solution, chosen: &[usize]) {
    solution.placements.iter_mut().for_each(|(pod, _)| *pod = chosen[*pod]);
    solution.failures.iter_mut().for_each(|failure| failure.pod = chosen[failure.pod]);
    solution.claims.iter_mut().flat_map(|claim| &mut claim.pods).for_each(|pod| *pod = chosen[*pod]);
}
