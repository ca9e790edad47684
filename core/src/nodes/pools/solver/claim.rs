//! A node that is to be asked for, while pods are still put on it.

use std::collections::BTreeMap;

use super::{
    devices::Trials,
    kind::Kind,
    market::{Amounts, Market},
    mask::{Mask, first_common, place},
};
use crate::{nodes::pools::requirements::Requirements, scheduling::NodeId};

/// A node that is to be asked for.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) market: usize,
    /// Offers that are still possible.
    pub(super) offers: Mask,
    /// The cheapest of them.
    pub(super) cheapest: usize,
    /// What the pods ask for.
    pub(super) sum: Amounts,
    /// The most room for cpu, and for memory, that one of the offers has.
    pub(super) ceiling: [i64; 2],
    pub(super) others: BTreeMap<Box<str>, i64>,
    /// Requirements that offers alone do not keep.
    pub(super) kept: Requirements,
    /// What stands for it in the snapshot.
    pub(super) node: NodeId,
    pub(super) pods: Vec<Held>,
    /// The values of topology keys that are known.
    pub(super) known: Vec<Option<usize>>,
    /// Selectors that every possible offer satisfies.
    pub(super) satisfied: Vec<bool>,
    /// What its pods would have of devices.
    pub(super) trials: Trials,
    /// Counts changes.
    pub(super) version: u32,
}

/// A pod on a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) pod: usize,
    pub(super) plan: usize,
}

pub(super) fn plus(sum: &Amounts, more: &Amounts) -> Amounts {
    std::array::from_fn(|resource| sum[resource].saturating_add(more[resource]))
}

fn fits(sum: &Amounts, room: &Amounts) -> bool {
    sum.iter().zip(room).all(|(sum, room)| *sum <= 0 || sum <= room)
}

/// Whether the cheapest offer of a claim has no room for one more pod of a kind, or none that `mask` has.
pub(super) fn needs_dearer(market: &Market<'_>, claim: &Open, kind: &Kind, mask: &Mask) -> bool {
    let sum = plus(&claim.sum, &kind.requests);
    !mask.has(claim.cheapest) || !fits(&sum, &market.room[claim.cheapest])
}

/// The cheapest offer that a claim would have with one more pod of a kind, of the offers that `mask` has.
pub(super) fn cheapest_with(
    market: &mut Market<'_>,
    claim: &Open,
    kind: &Kind,
    mask: &Mask,
) -> Option<usize> {
    let sum = plus(&claim.sum, &kind.requests);
    let simple = kind.shape.requests.other.is_empty() && market.choices.is_empty();
    let kept = kind.fits[claim.market].as_ref().map(|fit| &fit.kept).filter(|kept| !kept.is_empty());
    if simple && kept.is_none() {
        if mask.has(claim.cheapest) && fits(&sum, &market.room[claim.cheapest]) {
            return Some(claim.cheapest);
        }
        // Most claims are full.
        if sum[0] > claim.ceiling[0] || sum[1] > claim.ceiling[1] {
            return None;
        }
        let [cpu, memory, storage, pods] = market.roomy(&sum)?;
        return first_common(place(claim.cheapest), [&claim.offers, mask, cpu, memory, pods, storage]);
    }
    narrowed(market, claim, kind, mask)?.iter().next()
}

/// The offers of a claim with one more pod, of those that `mask` has; none if there are none, or not the choice that is asked for.
pub(super) fn narrowed(market: &mut Market<'_>, claim: &Open, kind: &Kind, mask: &Mask) -> Option<Mask> {
    let mut offers = claim.offers.clone();
    offers.keep(mask);
    let sum = plus(&claim.sum, &kind.requests);
    for roomy in market.roomy(&sum)? {
        offers.keep(roomy);
    }
    for (name, amount) in &kind.shape.requests.other {
        let there = claim.others.get(name).copied().unwrap_or(0);
        offers.keep(&market.roomy_or_devices(name, there.saturating_add(*amount), &kind.as_devices));
    }
    if let Some(fit) = kind.fits[claim.market].as_ref().filter(|fit| !fit.kept.is_empty()) {
        if !claim.kept.intersects(&fit.kept) {
            return None;
        }
        let both = claim.kept.clone().and(fit.kept.clone());
        offers.keep(&market.admit(&both).0);
    }
    (!offers.is_empty() && market.is_choice(&offers)).then_some(offers)
}
