//! Where topology rules let a pod go: which values a label may have, and which claims.

use super::{
    claim::Open,
    kind::{Catalog, Key, Kind},
    mask::Mask,
};
use crate::scheduling::{
    NodeId, Snapshot,
    rules::{self, Counter, Spread},
};

/// The rules of one kind over one topology key.
#[derive(Debug, Clone, Default)]
pub(super) struct RulesOf {
    pub(super) spread: Vec<Spread>,
    pub(super) near: Vec<Counter>,
    pub(super) apart: Vec<Counter>,
    /// Counters that count the pod.
    pub(super) counted: Vec<Counter>,
}

impl RulesOf {
    /// Whether the pod itself has a rule, and so has to know where it goes.
    pub(super) fn is_own(&self) -> bool {
        !(self.spread.is_empty() && self.near.is_empty() && self.apart.is_empty())
    }
}

/// Rules over a key with domains larger than a node.
#[derive(Debug, Clone)]
pub(super) struct KeyRules {
    pub(super) key: usize,
    pub(super) rules: RulesOf,
    /// Values that some pool has for the kind.
    reach: Mask,
    /// Whether the pod's domain has to be known once it is placed.
    pub(super) decides: bool,
}

/// The topology rules of one kind.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    pub(super) by_key: Vec<KeyRules>,
    pub(super) on_node: RulesOf,
    /// All counters of required affinity.
    near: Vec<Counter>,
    near_itself: bool,
}

/// Values of a key that a pod may have, or may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) values: Mask,
    /// Whether a node without any value will do too.
    pub(super) or_none: bool,
}

impl Rules {
    /// Reads the rules of a kind; `attracts` says whether a pending pod has affinity or anti-affinity to what is counted.
    pub(super) fn read(
        catalog: &mut Catalog<'_>,
        snapshot: &mut Snapshot,
        kind: usize,
        attracts: impl Fn(Counter) -> bool,
    ) -> Self {
        let rules::Rules { spread, near, near_itself, apart, counted } =
            snapshot.rules(catalog.kinds[kind].class);
        let mut all = Self { near: near.clone(), near_itself, ..Self::default() };
        for rule in spread {
            all.of(catalog, snapshot, kind, rule.counter).spread.push(rule);
        }
        for counter in near {
            all.of(catalog, snapshot, kind, counter).near.push(counter);
        }
        for counter in apart {
            all.of(catalog, snapshot, kind, counter).apart.push(counter);
        }
        for counter in counted
            .into_iter()
            .filter(|counter| attracts(*counter) || snapshot.has_owners(*counter))
            .collect::<Vec<_>>()
        {
            all.of(catalog, snapshot, kind, counter).counted.push(counter);
        }
        for rules in &mut all.by_key {
            rules.decides = rules.rules.is_own() || rules.rules.counted.iter().any(|it| attracts(*it));
        }
        all
    }

    /// The rules over the key of a counter.
    fn of(
        &mut self,
        catalog: &mut Catalog<'_>,
        snapshot: &mut Snapshot,
        kind: usize,
        counter: Counter,
    ) -> &mut RulesOf {
        let name = snapshot.key_of(counter);
        let Some(key) = catalog.key(snapshot, &name) else { return &mut self.on_node };
        let place = self.by_key.iter().position(|rules| rules.key == key).unwrap_or_else(|| {
            let reach = reach(&catalog.keys[key], &catalog.kinds[kind]);
            self.by_key.push(KeyRules { key, rules: RulesOf::default(), reach, decides: false });
            self.by_key.len() - 1
        });
        &mut self.by_key[place].rules
    }

    /// Whether what did not fit may fit once counts change.
    pub(super) fn may_be_helped(&self) -> bool {
        !self.near.is_empty() || self.by_key.iter().any(|rules| !rules.rules.spread.is_empty())
    }

    /// Whether there are spread rules, whatever they spread over.
    pub(super) fn spreads(&self) -> bool {
        !self.on_node.spread.is_empty() || self.by_key.iter().any(|rules| !rules.rules.spread.is_empty())
    }

    /// When a count last changed that could help.
    pub(super) fn changed(&self, snapshot: &Snapshot) -> u64 {
        let spread = self.by_key.iter().flat_map(|rules| &rules.rules.spread).map(|rule| rule.counter);
        spread.chain(self.near.iter().copied()).map(|it| snapshot.changed(it)).max().unwrap_or(0)
    }

    /// Whether the pod may be the first of those that it wants to be near to.
    fn is_first(&self, snapshot: &Snapshot) -> bool {
        self.near_itself && self.near.iter().all(|counter| snapshot.total(*counter) == 0)
    }

    /// The values that rules allow now, key by key.
    pub(super) fn allowed(&self, snapshot: &Snapshot, keys: &[Key]) -> Vec<Allowed> {
        self.by_key.iter().map(|rules| self.allowed_by(snapshot, &keys[rules.key], rules)).collect()
    }

    fn allowed_by(&self, snapshot: &Snapshot, key: &Key, rules: &KeyRules) -> Allowed {
        let RulesOf { spread, near, apart, counted } = &rules.rules;
        let mut values = Mask::of(key.values.len(), |at| {
            let value = key.values[at].value;
            apart.iter().all(|counter| snapshot.count_in(*counter, value) == 0)
                && counted.iter().all(|counter| !snapshot.is_repelled_in(*counter, value))
        });
        if !near.is_empty() && !self.is_first(snapshot) {
            values.keep(&Mask::of(key.values.len(), |at| {
                near.iter().all(|counter| snapshot.count_in(*counter, key.values[at].value) > 0)
            }));
        }
        for rule in spread {
            values.keep(&evened(snapshot, key, rules, rule));
        }
        Allowed { values, or_none: spread.is_empty() && near.is_empty() }
    }

    /// Whether rules about single nodes let the pod on a claim; `None` stands for a new one.
    pub(super) fn admits(&self, snapshot: &Snapshot, node: Option<NodeId>) -> bool {
        let RulesOf { spread, near, apart, counted } = &self.on_node;
        let count = |counter| node.map_or(0, |node| snapshot.count_on(counter, node));
        // Another node can always be had, so that the least count of one is zero.
        spread.iter().all(|rule| count(rule.counter) + u32::from(rule.counts_itself) <= rule.max_skew)
            && apart.iter().all(|counter| count(*counter) == 0)
            && counted.iter().all(|counter| node.is_none_or(|node| !snapshot.is_repelled_on(*counter, node)))
            && (near.is_empty() || near.iter().all(|counter| count(*counter) > 0) || self.is_first(snapshot))
    }

    /// Whether a claim that has no value of some key yet may get the one that an offer has: its pods count there from then on.
    pub(super) fn admits_settling(
        &self,
        snapshot: &Snapshot,
        keys: &[Key],
        claim: &Open,
        offer: usize,
    ) -> bool {
        self.by_key.iter().filter(|rules| claim.known[rules.key].is_none()).all(|rules| {
            let key = &keys[rules.key];
            let value = key.values.iter().find(|value| value.offers[claim.market].has(offer));
            let Some(value) = value else { return true };
            rules.rules.spread.iter().all(|rule| {
                let brought = snapshot.count_on(rule.counter, claim.node);
                brought == 0 || {
                    let there = snapshot.count_in(rule.counter, value.value);
                    let count = brought + there + u32::from(rule.counts_itself);
                    count <= rule.max_skew.saturating_add(least(snapshot, key, rules, rule))
                }
            })
        })
    }

    /// Whether rules keep pods of the kind, or others, from sharing a node.
    pub(super) fn keeps_apart(&self) -> bool {
        !self.on_node.spread.is_empty() || !self.on_node.apart.is_empty()
    }

    /// Whether rules about single nodes could refuse a claim.
    pub(super) fn looks_at_nodes(&self) -> bool {
        self.on_node.is_own() || !self.on_node.counted.is_empty()
    }
}

/// Values of a key that some pool has for a kind.
fn reach(key: &Key, kind: &Kind) -> Mask {
    Mask::of(key.values.len(), |at| {
        let offers = kind.fits.iter().zip(&key.values[at].offers);
        offers.into_iter().any(|(fit, offers)| fit.as_ref().is_some_and(|fit| fit.offers.meets(offers)))
    })
}

/// Values in which one more pod keeps the skew.
fn evened(snapshot: &Snapshot, key: &Key, rules: &KeyRules, rule: &Spread) -> Mask {
    let least = least(snapshot, key, rules, rule);
    Mask::of(key.values.len(), |at| {
        let count = snapshot.count_in(rule.counter, key.values[at].value) + u32::from(rule.counts_itself);
        rules.reach.has(at) && count <= rule.max_skew.saturating_add(least)
    })
}

/// The least count of a domain. Those that pools could open count, with what is there.
fn least(snapshot: &Snapshot, key: &Key, rules: &KeyRules, rule: &Spread) -> u32 {
    let (least, mut domains) = snapshot.least(rule.counter);
    let mut least = if domains == 0 { u32::MAX } else { least };
    for at in rules.reach.iter() {
        let value = key.values[at].value;
        least = least.min(snapshot.count_in(rule.counter, value));
        domains += usize::from(!snapshot.has_domain(rule.counter, value));
    }
    if domains < rule.min_domains as usize { 0 } else { least }
}
