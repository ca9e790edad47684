//! The nodes of a snapshot: what is free on each, and what is there.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;

use super::{
    declared::Declared,
    devices::NodeDevices,
    holds::Hold,
    ids::{BitSet, ClassId, Label, Symbol, WORD_BITS, ones},
};

/// Resources that every node has: cpu, memory, ephemeral storage, pods.
pub(super) const FIXED: usize = 4;

/// Amounts of cpu (thousandths), memory (bytes), ephemeral storage (bytes) and pods.
pub(super) type Amounts = [i64; FIXED];

/// A node of a snapshot.
#[derive(Debug, Clone, Default)]
pub struct NodeInfo {
    pub(super) name: Arc<str>,
    pub(super) labels: Arc<[Label]>,
    pub(super) taints: Arc<[Taint]>,
    pub(super) declared: Arc<Declared>,
    pub(super) unschedulable: bool,
    pub(super) allocatable: Amounts,
    /// Other resources by ordinal.
    pub(super) others_allocatable: Arc<[i64]>,
    pub(super) others_free: Vec<i64>,
    /// Whether it stands for a node to come that has whatever its pods ask for.
    pub(super) is_closed: bool,
    /// Volumes that may be attached, by driver.
    pub(super) limits: Arc<[(Symbol, i64)]>,
    pub(super) pods: Vec<(ClassId, u32)>,
    pub(super) nominated: Vec<(ClassId, u32)>,
    pub(super) holds: Vec<(Hold, u32)>,
    /// Driver and volume, and how many pods use it.
    pub(super) attached: Vec<((Symbol, Symbol), u32)>,
    /// Its devices, and what its pods have of any.
    pub(super) devices: Option<Box<NodeDevices>>,
}

impl NodeInfo {
    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The classes of the pods on it, and how many there are of each.
    pub fn pods(&self) -> impl Iterator<Item = (ClassId, u32)> {
        self.pods.iter().copied()
    }

    /// The classes of the pods expected on it, and how many there are of each.
    pub fn nominated(&self) -> impl Iterator<Item = (ClassId, u32)> {
        self.nominated.iter().copied()
    }

    /// Whether it has any of a resource that not every node has.
    pub(super) fn offers(&self, resource: u32) -> bool {
        self.is_closed || self.others_allocatable.get(resource as usize).is_some_and(|amount| *amount > 0)
    }

    /// How many pods are on it.
    pub fn pod_count(&self) -> u32 {
        self.pods.iter().map(|(_, count)| count).sum()
    }

    /// Whether it is cordoned.
    pub fn is_unschedulable(&self) -> bool {
        self.unschedulable
    }
}

/// Adds to or takes from a small list of counts; an entry that comes to zero is dropped.
pub(super) fn shift<T: PartialEq + Copy>(counts: &mut Vec<(T, u32)>, key: T, delta: i64) {
    let at = counts.iter().position(|(entry, _)| *entry == key);
    match at {
        Some(at) => {
            let count = moved(counts[at].1, delta);
            counts[at].1 = count;
            if count == 0 {
                counts.swap_remove(at);
            }
        }
        None if delta > 0 => counts.push((key, moved(0, delta))),
        None => {}
    }
}

/// A count after a change, never below zero.
pub(super) fn moved(count: u32, delta: i64) -> u32 {
    u32::try_from((i64::from(count) + delta).max(0)).unwrap_or(u32::MAX)
}

/// Nodes in a block, of which the most that is free is kept. A word of nodes has as many blocks.
const BLOCK: usize = 8;

/// The nodes, and the most that is free in each word and each block of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Fleet {
    pub(super) nodes: Vec<NodeInfo>,
    /// Free on each node; below zero where more is bound than fits.
    pub(super) free: Vec<Amounts>,
    pub(super) present: BitSet,
    pub(super) cordoned: BitSet,
    /// Ordinals of nodes that left.
    pub(super) vacant: Vec<u32>,
    /// How often nodes came or went.
    pub(super) changes: u64,
    /// At least the most of each resource that is free on one of 64 nodes.
    peaks: Vec<Amounts>,
    /// The same of the blocks of a word.
    block_peaks: Vec<[Amounts; BLOCK]>,
    /// Blocks of a word, as bits, whose peak may be too high.
    loose: Vec<u8>,
}

impl Fleet {
    /// Takes a node in under this ordinal, which is vacant or the next.
    pub(super) fn enter(&mut self, at: usize, node: NodeInfo) {
        self.changes += 1;
        self.present.set(at, true);
        self.cordoned.set(at, node.unschedulable);
        let free = node.allocatable;
        if at == self.nodes.len() {
            self.nodes.push(node);
            self.free.push(free);
        } else {
            self.nodes[at] = node;
            self.free[at] = free;
        }
        if at / WORD_BITS >= self.peaks.len() {
            self.peaks.push([i64::MIN; FIXED]);
            self.block_peaks.push([[i64::MIN; FIXED]; BLOCK]);
            self.loose.push(0);
        }
        self.raise_peak(at);
    }

    /// Takes a node out.
    pub(super) fn leave(&mut self, at: usize) -> NodeInfo {
        self.changes += 1;
        self.present.set(at, false);
        self.cordoned.set(at, false);
        self.free[at] = [i64::MIN; FIXED];
        self.loosen(at);
        std::mem::take(&mut self.nodes[at])
    }

    /// Takes the last ordinal back.
    pub(super) fn shrink(&mut self) {
        self.nodes.pop();
        self.free.pop();
        let words = self.nodes.len().div_ceil(WORD_BITS);
        self.peaks.truncate(words);
        self.block_peaks.truncate(words);
        self.loose.truncate(words);
    }

    /// Takes from what is free on a node (or gives back, if `times` is below zero).
    pub(super) fn take(&mut self, at: usize, requests: &Amounts, others: &[(u32, i64)], times: i64) {
        for (free, request) in self.free[at].iter_mut().zip(requests) {
            *free = free.saturating_sub(request.saturating_mul(times));
        }
        let node = &mut self.nodes[at];
        for (resource, request) in others {
            let resource = *resource as usize;
            if resource >= node.others_free.len() {
                node.others_free.resize(resource + 1, 0);
            }
            node.others_free[resource] =
                node.others_free[resource].saturating_sub(request.saturating_mul(times));
        }
        if times < 0 {
            self.raise_peak(at);
        } else {
            self.loosen(at);
        }
    }

    fn raise_peak(&mut self, at: usize) {
        let (word, block) = (at / WORD_BITS, at % WORD_BITS / BLOCK);
        raise(&mut self.peaks[word], &self.free[at]);
        raise(&mut self.block_peaks[word][block], &self.free[at]);
    }

    fn loosen(&mut self, at: usize) {
        self.loose[at / WORD_BITS] |= 1 << (at % WORD_BITS / BLOCK);
    }

    /// Whether any of 64 nodes could have room; `true` may be wrong.
    pub(super) fn may_have_room(&self, word: usize, requests: &Amounts) -> bool {
        fits(requests, &self.peaks[word])
    }

    /// Those of 64 nodes that have room for what every node has some of.
    pub(super) fn with_room(&self, nodes: u64, word: usize, requests: &Amounts) -> u64 {
        let first = word * WORD_BITS;
        let has_room = |bit: &usize| fits(requests, &self.free[first + bit]);
        let mut room = 0;
        for (block, peak) in self.block_peaks[word].iter().enumerate() {
            let here = nodes & (0xff << (block * BLOCK));
            if here != 0 && fits(requests, peak) {
                room |= ones(here).filter(has_room).fold(0, |room, bit| room | 1 << bit);
            }
        }
        room
    }

    /// Makes [`Fleet::may_have_room`] exact for these 64 nodes.
    pub(super) fn refresh_peak(&mut self, word: usize) {
        let loose = std::mem::take(&mut self.loose[word]);
        if loose == 0 {
            return;
        }
        for block in ones(loose.into()) {
            let first = word * WORD_BITS + block * BLOCK;
            let end = (first + BLOCK).min(self.free.len());
            self.block_peaks[word][block] = peak(self.free.get(first..end).unwrap_or_default());
        }
        self.peaks[word] = peak(&self.block_peaks[word]);
    }
}

/// The most of each resource.
fn peak(of: &[Amounts]) -> Amounts {
    let mut peak = [i64::MIN; FIXED];
    for amounts in of {
        raise(&mut peak, amounts);
    }
    peak
}

fn raise(peak: &mut Amounts, to: &Amounts) {
    for (peak, amount) in peak.iter_mut().zip(to) {
        *peak = (*peak).max(*amount);
    }
}

/// Whether requests fit into what is free; nothing asked always fits.
pub(super) fn fits(requests: &Amounts, free: &Amounts) -> bool {
    requests.iter().zip(free).all(|(request, free)| *request <= 0 || request <= free)
}
