//! Where drivers have room for volumes that are made when their pod is scheduled.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    declared::Room,
    ids::{Strings, Symbol},
    node::Node,
    selector::{Conjunction, NodeSelector, Operator, Requirement, all_match, label_selector},
    surroundings::{Claim, Surroundings},
};

impl Room {
    /// What a claim asks of a class whose driver tells its room; `there` are the places of volumes that exist already.
    ///
    /// Source: kube-scheduler 1.37, `hasEnoughCapacity` of its plugin `VolumeBinding`.
    pub(super) fn read(
        strings: &mut Strings,
        class: &Arc<str>,
        claim: &Claim,
        there: Vec<Conjunction>,
        surroundings: &Surroundings,
    ) -> Self {
        let (mut enough, mut short) = (there, Vec::new());
        for capacity in surroundings.capacities.get(class).into_iter().flatten() {
            let Some(topology) = &capacity.topology else { continue };
            let place = label_selector(strings, Some(topology), []);
            let suffices = capacity.bytes.is_some_and(|bytes| bytes >= claim.bytes);
            if suffices { enough.push(place) } else { short.push(place) }
        }
        Self { class: class.clone(), bytes: claim.bytes, enough: merged(enough), short: merged(short) }
    }
}

/// Places that are told by one value of one label become one: a driver that keeps volumes on their node has one a node.
fn merged(places: Vec<Conjunction>) -> Box<[Conjunction]> {
    let mut by_key: BTreeMap<Symbol, Vec<Symbol>> = BTreeMap::new();
    let mut merged = Vec::new();
    for place in places {
        match &*place {
            [Requirement { key, operator: Operator::In(values) }] => {
                by_key.entry(*key).or_default().extend(values.iter().copied());
            }
            _ => merged.push(place),
        }
    }
    merged.extend(by_key.into_iter().map(|(key, mut values)| {
        values.sort_unstable();
        values.dedup();
        [Requirement { key, operator: Operator::In(values.into()) }].into()
    }));
    merged.sort_unstable();
    merged.dedup();
    merged.into()
}

/// The greatest volume, by storage class, that drivers could make on a node that comes after this one, of what they keep on
/// the node itself: what is left there, and what volumes took of it. `fresh` is the node to come.
///
/// Of classes that share a disk the volumes of one are not counted for the other, so that no node is asked for in vain.
pub fn room_after(node: &Node, fresh: &Node, surroundings: &Surroundings) -> BTreeMap<Arc<str>, i64> {
    if surroundings.capacities.is_empty() {
        return BTreeMap::new();
    }
    let mut strings = Strings::default();
    let labels = |strings: &mut Strings, node: &Node| {
        let mut labels = strings.labels(&node.labels);
        labels.sort_unstable();
        labels
    };
    let (old, new) = (labels(&mut strings, node), labels(&mut strings, fresh));
    let mut room: BTreeMap<Arc<str>, i64> = BTreeMap::new();
    for (class, capacities) in &surroundings.capacities {
        for capacity in capacities {
            let (Some(topology), Some(bytes)) = (&capacity.topology, capacity.bytes) else { continue };
            let place = label_selector(&mut strings, Some(topology), []);
            if all_match(&place, &old, &strings) && !all_match(&place, &new, &strings) {
                let most = room.entry(class.clone()).or_default();
                *most = (*most).max(bytes);
            }
        }
    }
    for volume in surroundings.volumes.values() {
        let room = volume.class.as_ref().and_then(|class| room.get_mut(class));
        let (Some(room), Some(affinity)) = (room, &volume.node_affinity) else { continue };
        let terms = Some(affinity.node_selector_terms.as_slice());
        let place = NodeSelector::read(&mut strings, &BTreeMap::new(), terms);
        if place.matches(&old, &strings) && !place.matches(&new, &strings) {
            *room = room.saturating_add(volume.bytes);
        }
    }
    room
}
