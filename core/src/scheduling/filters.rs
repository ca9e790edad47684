//! Verdicts about nodes that no pod on them changes, kept as a bit a node.

use k8s_openapi::api::core::v1::Toleration;

use super::{
    declared::{Demand, Presumed},
    fleet::{Fleet, NodeInfo},
    ids::{BitSet, Interned, Strings, Symbol, ones},
    selector::NodeSelector,
    taints::{self, Tolerance},
};

/// A toleration, interned.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct TolerationKey {
    key: Symbol,
    operator: Symbol,
    value: Symbol,
    effect: Symbol,
}

/// What pods ask of a node itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Filter {
    /// That every taint that repels is tolerated; sorted.
    Tolerations(Box<[TolerationKey]>),
    /// Its labels and its name.
    Selector(NodeSelector),
    /// Its kubelet and its drivers.
    Demand(Demand),
}

impl Filter {
    pub(super) fn tolerations(strings: &mut Strings, tolerations: &[Toleration]) -> Self {
        let mut text = |text: &Option<String>| strings.intern(text.as_deref().unwrap_or_default());
        let mut keys: Vec<_> = tolerations
            .iter()
            .map(|toleration| TolerationKey {
                key: text(&toleration.key),
                operator: text(&toleration.operator),
                value: text(&toleration.value),
                effect: text(&toleration.effect),
            })
            .collect();
        keys.sort_unstable();
        keys.dedup();
        Self::Tolerations(keys.into())
    }

    fn accepts(&self, node: &NodeInfo, strings: &Strings) -> bool {
        match self {
            Self::Tolerations(keys) => {
                node.taints.iter().filter(|taint| taints::repels(taint)).all(|taint| {
                    let value = taint.value.as_deref().unwrap_or_default();
                    keys.iter().any(|key| key.tolerance(strings).covers(&taint.key, value, &taint.effect))
                })
            }
            Self::Selector(selector) => selector.matches(&node.labels, strings),
            Self::Demand(demand) => demand.accepts(&node.declared, &node.labels, strings),
        }
    }
}

impl TolerationKey {
    fn tolerance<'a>(&self, strings: &'a Strings) -> Tolerance<'a> {
        Tolerance {
            key: strings.name(self.key),
            operator: strings.name(self.operator),
            value: strings.name(self.value),
            effect: strings.name(self.effect),
        }
    }
}

/// The verdicts of one filter: on which nodes it is known, and which it accepts.
#[derive(Debug, Clone, Default)]
struct Verdicts {
    known: BitSet,
    accepted: BitSet,
    /// [`Fleet::changes`] when all nodes there were known.
    learned: u64,
}

/// An interned filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FilterId(u32);

/// All filters.
#[derive(Debug, Clone, Default)]
pub(super) struct Filters {
    interned: Interned<Filter>,
    verdicts: Vec<Verdicts>,
}

impl Filters {
    pub(super) fn intern(&mut self, filter: Filter) -> FilterId {
        let (id, new) = self.interned.intern(filter);
        if new {
            self.verdicts.push(Verdicts::default());
        }
        FilterId(id)
    }

    /// Whether a filter accepts a node; looked up if it has been learned.
    pub(super) fn accepts(&self, id: FilterId, at: usize, node: &NodeInfo, strings: &Strings) -> bool {
        let verdicts = &self.verdicts[id.0 as usize];
        if verdicts.known.contains(at) {
            return verdicts.accepted.contains(at);
        }
        self.interned.get(id.0).accepts(node, strings)
    }

    /// Whether a filter accepts a node that need not be in the fleet.
    pub(super) fn judge(&self, id: FilterId, node: &NodeInfo, strings: &Strings) -> bool {
        self.interned.get(id.0).accepts(node, strings)
    }

    /// What a filter takes for granted of a node.
    pub(super) fn presumes(&self, id: FilterId, node: &NodeInfo, strings: &Strings) -> Option<Presumed> {
        let Filter::Demand(demand) = &**self.interned.get(id.0) else { return None };
        demand.presumes(&node.declared, &node.labels, strings)
    }

    /// Sets a verdict before the node comes.
    pub(super) fn set(&mut self, id: FilterId, at: usize, accepted: bool) {
        let verdicts = &mut self.verdicts[id.0 as usize];
        verdicts.known.set(at, true);
        verdicts.accepted.set(at, accepted);
    }

    /// Learns the verdicts on all nodes that are there.
    pub(super) fn learn(&mut self, id: FilterId, fleet: &Fleet, strings: &Strings) {
        let filter = self.interned.get(id.0);
        let verdicts = &mut self.verdicts[id.0 as usize];
        if verdicts.learned == fleet.changes {
            return;
        }
        verdicts.learned = fleet.changes;
        for word in 0..fleet.present.words() {
            for bit in ones(fleet.present.word(word) & !verdicts.known.word(word)) {
                let at = word * super::ids::WORD_BITS + bit;
                verdicts.known.set(at, true);
                verdicts.accepted.set(at, filter.accepts(&fleet.nodes[at], strings));
            }
        }
    }

    /// The accepted among 64 nodes, once learned.
    pub(super) fn word(&self, id: FilterId, word: usize) -> u64 {
        self.verdicts[id.0 as usize].accepted.word(word)
    }

    /// Forgets a node that leaves.
    pub(super) fn forget(&mut self, at: usize) {
        for verdicts in &mut self.verdicts {
            verdicts.known.set(at, false);
            verdicts.accepted.set(at, false);
        }
    }
}
