//! The first node that takes a pod.

use super::{
    class::Class,
    ids::{ClassId, NodeId, WORD_BITS, ones, ordinal},
    snapshot::{Change, Snapshot},
};

/// What the last search for a class found out: no node before `from` takes it, as long as nothing that could help it has
/// changed since `at`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Memo {
    at: u64,
    from: u32,
}

impl Snapshot {
    /// The first node, in order, that takes a pod of a class; `hint` is tried before all others.
    ///
    /// A class that fitted nowhere is not tried again on the same nodes until something that could help it has changed:
    /// a node came, a pod went, or the pods it wants to be near or spread with changed.
    pub fn find(&mut self, class: ClassId, hint: Option<NodeId>) -> Option<NodeId> {
        if let Some(node) = hint.filter(|node| self.fleet.present.contains(node.index()))
            && self.check(class, node).is_ok()
        {
            return Some(node);
        }
        let spec = self.classes.get(class.0).clone();
        let last_change = self.last_help(&spec);
        let memo = self.memos[class.index()];
        // A volume or a device that another pod brings to a node can help, and nothing notes that.
        let shares = |demand| self.devices.shares(demand);
        let remembers = spec.family.storage.attached.is_empty() && !spec.family.devices.is_some_and(shares);
        let from = if remembers && memo.at == last_change { memo.from } else { 0 };
        let found = self.scan(class, from, None);
        if remembers {
            self.record(Change::Remembered(class, memo));
            let from = found.map_or(ordinal(self.fleet.nodes.len()), |node| node.0);
            self.memos[class.index()] = Memo { at: last_change, from };
        }
        found
    }

    /// The ordinal after that of the last node.
    pub(crate) fn end(&self) -> u32 {
        ordinal(self.fleet.nodes.len())
    }

    /// When something last changed that could make a class fit where it did not.
    fn last_help(&self, spec: &Class) -> u64 {
        let counters =
            spec.family.spread.iter().map(|rule| rule.counter).chain(spec.family.near.iter().copied());
        counters.map(|counter| self.topology.changed(counter)).fold(self.freed, u64::max)
    }

    /// The first node from this ordinal on that takes a pod of a class.
    pub(crate) fn scan(&mut self, class: ClassId, from: u32, except: Option<NodeId>) -> Option<NodeId> {
        let spec = self.classes.get(class.0).clone();
        if self.impossible(class).is_some() {
            return None;
        }
        for filter in spec.family.static_filters() {
            self.filters.learn(filter, &self.fleet, &self.strings);
        }
        let asked = spec.asked();
        let first = from as usize / WORD_BITS;
        for word in first..self.fleet.nodes.len().div_ceil(WORD_BITS) {
            if !self.fleet.may_have_room(word, asked) {
                continue;
            }
            let mut candidates = self.fleet.with_room(self.candidates(&spec, word), word, asked);
            if word == first {
                candidates &= u64::MAX << (from as usize % WORD_BITS);
            }
            for bit in ones(candidates) {
                let at = word * WORD_BITS + bit;
                let node = NodeId(ordinal(at));
                if except != Some(node) && self.takes(class, &spec, at) {
                    return Some(node);
                }
            }
            self.fleet.refresh_peak(word);
        }
        None
    }

    /// Those of 64 nodes that the static filters accept.
    fn candidates(&self, spec: &Class, word: usize) -> u64 {
        let mut candidates = self.fleet.present.word(word);
        if !spec.family.tolerates_cordon {
            candidates &= !self.fleet.cordoned.word(word);
        }
        spec.family
            .static_filters()
            .fold(candidates, |candidates, filter| candidates & self.filters.word(filter, word))
    }
}
