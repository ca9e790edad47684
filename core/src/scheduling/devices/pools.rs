//! The pools of devices that a node can use.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ledger::{Home, Known, SliceId, Stock},
    slice::Amounts,
};
use crate::scheduling::{
    fleet::NodeInfo,
    ids::{NodeId, Strings},
};

/// A pool as a node sees it.
#[derive(Debug)]
pub(super) struct Pool<'a> {
    pub(super) home: Home,
    pub(super) number: u32,
    /// Why nothing is allocated from it.
    pub(super) unusable: Option<Unusable>,
    /// Slices of which the node can use something, in order of name.
    pub(super) slices: Vec<&'a Known>,
    /// The others, whose devices may take from the same counters.
    pub(super) elsewhere: Vec<&'a Known>,
    /// What its devices share, by set of counters.
    pub(super) counters: BTreeMap<&'a str, &'a Amounts>,
}

/// Why nothing is allocated from a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    /// Slices are missing.
    Incomplete,
    /// Slices contradict each other.
    Invalid,
}

/// The pools that a node can use something of: of those one after the other devices are tried.
pub(super) fn of_node<'a>(
    stock: &'a Stock,
    (at, node): (NodeId, &NodeInfo),
    (published, imagined): (&[SliceId], &[SliceId]),
    strings: &Strings,
) -> Vec<Pool<'a>> {
    let mut by_pool: BTreeMap<u32, (Home, Vec<SliceId>)> = BTreeMap::new();
    for id in published {
        enter(stock, &mut by_pool, *id, None);
    }
    for id in imagined {
        enter(stock, &mut by_pool, *id, Some(at));
    }
    for id in &stock.common {
        if reaches(&stock.slices[*id as usize], at, node, strings) {
            enter(stock, &mut by_pool, *id, None);
        }
    }
    let pools = by_pool.into_iter().filter_map(|(pool, (home, ids))| build(stock, pool, home, &ids));
    let mut pools: Vec<_> = pools.collect();
    pools.sort_by_cached_key(|pool| {
        let name = pool.slices.first().map(|known| &known.slice.pool);
        (binds_later(pool), name)
    });
    pools
}

fn enter(stock: &Stock, by_pool: &mut BTreeMap<u32, (Home, Vec<SliceId>)>, id: SliceId, home: Home) {
    let known = &stock.slices[id as usize];
    let (of_pool, ids) = by_pool.entry(known.pool).or_default();
    *of_pool = of_pool.or(home);
    let generation = ids.first().map(|first| stock.slices[*first as usize].slice.generation);
    match generation {
        Some(newer) if known.slice.generation < newer => {}
        Some(older) if known.slice.generation > older => *ids = vec![id],
        _ => ids.push(id),
    }
}

fn reaches(known: &Known, at: NodeId, node: &NodeInfo, strings: &Strings) -> bool {
    match &known.reach {
        Some(reach) => reach.includes(at, node, strings),
        None => known.reaches.iter().any(|reach| reach.includes(at, node, strings)),
    }
}

/// `None` if a newer generation of the pool has nothing for the node.
fn build<'a>(stock: &'a Stock, number: u32, home: Home, ids: &[SliceId]) -> Option<Pool<'a>> {
    let slices: Vec<&Known> = ids.iter().map(|id| &stock.slices[*id as usize]).collect();
    let (generation, wanted) = slices.first().map(|first| (first.slice.generation, first.slice.slices))?;
    let mut elsewhere = Vec::new();
    if !is_count(ids.len(), wanted) {
        for id in &stock.by_pool[number as usize] {
            let other = &stock.slices[*id as usize];
            if other.slice.generation > generation {
                return None;
            }
            if other.slice.generation == generation && !ids.contains(id) {
                elsewhere.push(other);
            }
        }
    }
    let mut pool = Pool { home, number, unusable: None, slices, elsewhere, counters: BTreeMap::new() };
    if !is_count(pool.slices.len() + pool.elsewhere.len(), wanted) {
        pool.unusable = Some(Unusable::Incomplete);
        return Some(pool);
    }
    pool.slices.sort_by(|one, other| one.slice.name.cmp(&other.slice.name));
    for known in pool.slices.iter().chain(&pool.elsewhere) {
        for (set, counters) in &known.slice.counters {
            if pool.counters.insert(set, counters).is_some() {
                pool.unusable = Some(Unusable::Invalid);
            }
        }
    }
    if !is_sound(&pool) {
        pool.unusable = Some(Unusable::Invalid);
    }
    Some(pool)
}

fn is_count(count: usize, wanted: i64) -> bool {
    i64::try_from(count) == Ok(wanted)
}

/// Whether no two devices have the same name, and all counters are there that devices take from.
fn is_sound(pool: &Pool<'_>) -> bool {
    let mut names = BTreeSet::new();
    let mut named = pool.slices.iter().flat_map(|known| known.names.iter());
    let all = pool.slices.iter().chain(&pool.elsewhere).flat_map(|known| &known.slice.devices);
    named.all(|name| names.insert(*name))
        && all.flat_map(|device| &device.consumes).all(|(set, consumed)| {
            let counters = pool.counters.get(&**set);
            counters.is_some_and(|counters| consumed.keys().all(|name| counters.contains_key(name)))
        })
}

fn binds_later(pool: &Pool<'_>) -> bool {
    pool.slices.iter().flat_map(|known| &known.slice.devices).any(|device| device.binds_later)
}
