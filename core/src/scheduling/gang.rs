//! Gangs: pods that run together or not at all.

use super::{
    ids::{ClassId, NodeId},
    snapshot::Snapshot,
};

/// Places the pods of a gang, each where it fits first; keeps them on the snapshot if at least `minimum` found a place, else
/// leaves the snapshot as it was and returns `None`.
///
/// `pods` are classes and how many pods there are of each. Returns the places, in the order of `pods`.
pub fn place_gang(
    snapshot: &mut Snapshot,
    pods: &[(ClassId, u32)],
    minimum: u32,
) -> Option<Vec<(ClassId, NodeId)>> {
    let checkpoint = snapshot.checkpoint();
    let mut places = Vec::new();
    for (class, count) in pods {
        for _ in 0..*count {
            let Some(node) = snapshot.find(*class, None) else { break };
            snapshot.bind(*class, node);
            places.push((*class, node));
        }
    }
    if places.len() < minimum as usize {
        snapshot.rollback(checkpoint);
        return None;
    }
    snapshot.keep(checkpoint);
    Some(places)
}
