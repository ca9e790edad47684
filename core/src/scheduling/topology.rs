//! Counts of pods by topology domain, kept up to date with every pod that comes or goes.
//!
//! A counter belongs to a topology key, the nodes that count, and a selection of pods. Spread reads its counts and their
//! minimum; affinity and anti-affinity read the counts; the anti-affinity of pods that are there is the count of owners.

use super::{
    filters::{FilterId, Filters},
    fleet::{Fleet, moved},
    ids::{BitSet, ClassId, FamilyId, Interned, Label, OrdinalMap, Strings, Symbol, ordinal, value_of},
    selector::{Conjunction, Operator, all_match},
};

/// No domain: the node lacks the key.
pub(super) const NO_DOMAIN: u32 = u32::MAX;

macro_rules! ordinals {
    ($($(#[$doc:meta])* $name:ident),*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(super) struct $name(pub(super) u32);
    )*};
}
ordinals!(
    /// A topology key.
    KeyId,
    /// A set of nodes that count.
    EligibilityId,
    /// The domains of a key over nodes that count.
    DomainsId,
    /// A selection of pods.
    SelectionId,
    /// A counter.
    CounterId
);

/// The namespaces a selection looks in: some by name, and those that a selector matches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Namespaces {
    pub(super) names: Box<[Symbol]>,
    pub(super) selector: Option<Conjunction>,
}

/// Pods that match every one of some terms.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Selection {
    pub(super) terms: Box<[(Namespaces, Conjunction)]>,
    /// Whether pods that are being deleted are left out, as topology spread does.
    pub(super) living: bool,
}

/// What a selection is asked about.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) namespace: Symbol,
    pub(super) namespace_labels: &'a [Label],
    pub(super) labels: &'a [Label],
    pub(super) terminating: bool,
}

impl Selection {
    pub(super) fn matches(&self, subject: Subject<'_>, strings: &Strings) -> bool {
        let in_namespaces = |namespaces: &Namespaces| {
            namespaces.names.contains(&subject.namespace)
                || namespaces
                    .selector
                    .as_deref()
                    .is_some_and(|selector| all_match(selector, subject.namespace_labels, strings))
        };
        !(self.living && subject.terminating)
            && self.terms.iter().all(|(namespaces, selector)| {
                all_match(selector, subject.labels, strings) && in_namespaces(namespaces)
            })
    }

    /// Labels of which a pod must have one to match; `None` if it can match without any.
    fn anchors(&self) -> Option<Vec<Label>> {
        self.terms.iter().flat_map(|(_, selector)| selector).find_map(|requirement| {
            match &requirement.operator {
                Operator::In(values) => Some(values.iter().map(|value| (requirement.key, *value)).collect()),
                Operator::Never => Some(Vec::new()),
                _ => None,
            }
        })
    }
}

/// Labels of which every pod of a selection has one; `None` if it may have none of any.
pub(super) struct Anchors(pub(super) Option<Vec<Label>>);

/// Which nodes count: those with all of some labels that some filters accept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Eligibility {
    pub(super) keys: Box<[Symbol]>,
    pub(super) filters: Box<[FilterId]>,
}

/// A topology key: the domain of each node, as an ordinal of its value.
#[derive(Debug, Clone, Default)]
struct Key {
    domain_of: Vec<u32>,
    ordinals: OrdinalMap<Symbol, u32>,
}

impl Key {
    fn enter(&mut self, at: usize, value: Option<Symbol>) {
        if at >= self.domain_of.len() {
            self.domain_of.resize(at + 1, NO_DOMAIN);
        }
        let next = ordinal(self.ordinals.len());
        self.domain_of[at] = value.map_or(NO_DOMAIN, |value| *self.ordinals.entry(value).or_insert(next));
    }
}

/// The domains of a key over the nodes that count.
#[derive(Debug, Clone)]
struct Domains {
    key: KeyId,
    eligibility: EligibilityId,
    /// Nodes by domain.
    nodes: OrdinalMap<u32, u32>,
}

/// Counts by domain, those that are zero left out, with the lowest at hand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Tally {
    counts: OrdinalMap<u32, u32>,
    /// How many domains have each count above zero.
    levels: Vec<u32>,
    /// No level below it has a domain.
    lowest: usize,
    total: u64,
}

impl Tally {
    fn get(&self, domain: u32) -> u32 {
        self.counts.get(&domain).copied().unwrap_or(0)
    }

    fn shift(&mut self, domain: u32, delta: i64) {
        let old = self.get(domain);
        let new = moved(old, delta);
        self.total = self.total + u64::from(new) - u64::from(old);
        if new == 0 {
            self.counts.remove(&domain);
        } else {
            self.counts.insert(domain, new);
        }
        let (old, new) = (old as usize, new as usize);
        if new >= self.levels.len() {
            self.levels.resize(new + 1, 0);
        }
        if old > 0 {
            self.levels[old] -= 1;
        }
        if new > 0 {
            self.levels[new] += 1;
            if self.lowest == 0 || new < self.lowest {
                self.lowest = new;
            }
        }
        self.lowest = self.next_level(self.lowest).unwrap_or(0);
    }

    /// The first level from this one on that has a domain.
    fn next_level(&self, from: usize) -> Option<usize> {
        self.levels.iter().skip(from).position(|domains| *domains > 0).map(|at| at + from)
    }

    /// The lowest count over so many domains, with `beside` more pods in one of them.
    fn minimum(&self, domains: usize, domain: u32, beside: u32) -> u32 {
        let zeros = domains.saturating_sub(self.counts.len());
        let own = self.get(domain);
        if beside == 0 {
            return if zeros > 0 || domains == 0 { 0 } else { ordinal(self.lowest) };
        }
        let zeros = if own == 0 { zeros.saturating_sub(1) } else { zeros };
        if zeros > 0 || domains == 0 {
            return 0;
        }
        let alone = own as usize == self.lowest && self.levels.get(self.lowest) == Some(&1);
        let others = if alone { self.next_level(self.lowest + 1) } else { Some(self.lowest) };
        let others = others.filter(|level| *level > 0).map_or(u32::MAX, ordinal);
        others.min(own.saturating_add(beside))
    }
}

/// Pods that match a selection, by domain.
#[derive(Debug, Clone)]
struct Counter {
    domains: DomainsId,
    matched: Tally,
    /// Pods whose anti-affinity this is, by domain.
    owners: OrdinalMap<u32, u32>,
    /// When `matched` last changed.
    changed: u64,
}

#[derive(Debug, Clone, Default)]
struct SelectionState {
    /// The families that match.
    families: Vec<FamilyId>,
    counters: Vec<CounterId>,
}

/// All counters.
#[derive(Debug, Clone, Default)]
pub(super) struct Topology {
    key_ids: Interned<Symbol>,
    keys: Vec<Key>,
    eligibility_ids: Interned<Eligibility>,
    eligible: Vec<BitSet>,
    domains_ids: Interned<(KeyId, EligibilityId)>,
    domains: Vec<Domains>,
    selection_ids: Interned<Selection>,
    selections: Vec<SelectionState>,
    /// Selections by a label that their pods have, and those without.
    anchored: OrdinalMap<Label, Vec<SelectionId>>,
    unanchored: Vec<SelectionId>,
    counter_ids: Interned<(DomainsId, SelectionId)>,
    counters: Vec<Counter>,
}

/// What a new counter is filled from.
pub(super) struct World<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) filters: &'a Filters,
    pub(super) strings: &'a Strings,
}

impl Topology {
    pub(super) fn selection(&self, id: SelectionId) -> &Selection {
        self.selection_ids.get(id.0)
    }

    /// Interns a selection. If it is new, [`Topology::found`] is to be called with the families that it matches; they are among
    /// those with one of the labels (among all, if there are none to go by).
    pub(super) fn intern_selection(&mut self, selection: Selection) -> (SelectionId, Option<Anchors>) {
        let (id, new) = self.selection_ids.intern(selection);
        let id = SelectionId(id);
        if !new {
            return (id, None);
        }
        let anchors = self.selection_ids.get(id.0).anchors();
        self.selections.push(SelectionState::default());
        match &anchors {
            Some(labels) => {
                for label in labels {
                    self.anchored.entry(*label).or_default().push(id);
                }
            }
            None => self.unanchored.push(id),
        }
        (id, Some(Anchors(anchors)))
    }

    /// Notes the families that a new selection matches.
    pub(super) fn found(&mut self, selection: SelectionId, families: Vec<FamilyId>) {
        self.selections[selection.0 as usize].families = families;
    }

    /// Notes a new family, and returns the counters that count its pods, sorted.
    pub(super) fn enlist(
        &mut self,
        family: FamilyId,
        subject: Subject<'_>,
        strings: &Strings,
    ) -> Vec<CounterId> {
        let anchored = subject.labels.iter().filter_map(|label| self.anchored.get(label)).flatten();
        let candidates = anchored.chain(&self.unanchored);
        let matching: Vec<_> =
            candidates.copied().filter(|id| self.selection_ids.get(id.0).matches(subject, strings)).collect();
        let mut counters = Vec::new();
        for id in matching {
            let state = &mut self.selections[id.0 as usize];
            state.families.push(family);
            counters.extend_from_slice(&state.counters);
        }
        counters.sort_unstable();
        counters
    }

    /// Interns a counter; if it is new, also returns the families that it counts.
    pub(super) fn intern_counter(
        &mut self,
        key: Symbol,
        eligibility: Eligibility,
        selection: SelectionId,
        world: &World<'_>,
        bound: impl Fn(FamilyId) -> bool,
        family: impl Fn(ClassId) -> FamilyId,
    ) -> (CounterId, Option<Vec<FamilyId>>) {
        let domains = self.intern_domains(key, eligibility, world);
        let (id, new) = self.counter_ids.intern((domains, selection));
        let id = CounterId(id);
        if !new {
            return (id, None);
        }
        self.selections[selection.0 as usize].counters.push(id);
        let families = self.selections[selection.0 as usize].families.clone();
        let mut counter =
            Counter { domains, matched: Tally::default(), owners: OrdinalMap::default(), changed: 0 };
        if families.iter().any(|family| bound(*family)) {
            let mut matching = BitSet::default();
            for family in &families {
                matching.set(family.index(), true);
            }
            for at in world.fleet.present.iter() {
                let count: u32 = world.fleet.nodes[at]
                    .pods
                    .iter()
                    .filter(|(class, _)| matching.contains(family(*class).index()))
                    .map(|(_, count)| count)
                    .sum();
                if let Some(domain) = self.counted_domain(domains, at).filter(|_| count > 0) {
                    counter.matched.shift(domain, i64::from(count));
                }
            }
        }
        self.counters.push(counter);
        (id, Some(families))
    }

    fn intern_domains(&mut self, key: Symbol, eligibility: Eligibility, world: &World<'_>) -> DomainsId {
        let (key_id, new) = self.key_ids.intern(key);
        if new {
            let mut fresh = Key::default();
            for at in world.fleet.present.iter() {
                fresh.enter(at, value_of(&world.fleet.nodes[at].labels, key));
            }
            self.keys.push(fresh);
        }
        let (eligibility, new) = self.eligibility_ids.intern(eligibility);
        if new {
            let rule = self.eligibility_ids.get(eligibility);
            let mut eligible = BitSet::default();
            for at in world.fleet.present.iter() {
                eligible.set(at, is_eligible(rule, at, world));
            }
            self.eligible.push(eligible);
        }
        let (key, eligibility) = (KeyId(key_id), EligibilityId(eligibility));
        let (id, new) = self.domains_ids.intern((key, eligibility));
        let id = DomainsId(id);
        if new {
            self.domains.push(Domains { key, eligibility, nodes: OrdinalMap::default() });
            for at in world.fleet.present.iter() {
                self.shift_domain(id, at, 1);
            }
        }
        id
    }

    /// Takes a node in, without pods.
    pub(super) fn enter(&mut self, at: usize, world: &World<'_>) {
        let labels = &world.fleet.nodes[at].labels;
        for (id, key) in self.keys.iter_mut().enumerate() {
            key.enter(at, value_of(labels, **self.key_ids.get(ordinal(id))));
        }
        for (id, eligible) in self.eligible.iter_mut().enumerate() {
            eligible.set(at, is_eligible(self.eligibility_ids.get(ordinal(id)), at, world));
        }
        for id in 0..self.domains.len() {
            self.shift_domain(DomainsId(ordinal(id)), at, 1);
        }
    }

    /// Takes a node out whose pods are gone.
    pub(super) fn leave(&mut self, at: usize) {
        for id in 0..self.domains.len() {
            self.shift_domain(DomainsId(ordinal(id)), at, -1);
        }
        for eligible in &mut self.eligible {
            eligible.set(at, false);
        }
        for key in &mut self.keys {
            key.domain_of[at] = NO_DOMAIN;
        }
    }

    fn shift_domain(&mut self, id: DomainsId, at: usize, delta: i64) {
        let Some(domain) = self.counted_domain(id, at) else { return };
        let nodes = &mut self.domains[id.0 as usize].nodes;
        let count = moved(nodes.get(&domain).copied().unwrap_or(0), delta);
        if count == 0 {
            nodes.remove(&domain);
        } else {
            nodes.insert(domain, count);
        }
    }

    /// The domain that pods on a node count in, if the node counts.
    fn counted_domain(&self, id: DomainsId, at: usize) -> Option<u32> {
        let domains = &self.domains[id.0 as usize];
        let domain = self.keys[domains.key.0 as usize].domain_of[at];
        (domain != NO_DOMAIN && self.eligible[domains.eligibility.0 as usize].contains(at)).then_some(domain)
    }

    /// Counts pods of a class in or out.
    pub(super) fn shift(
        &mut self,
        at: usize,
        matched: &[CounterId],
        owned: &[CounterId],
        delta: i64,
        now: u64,
    ) {
        for id in matched {
            if let Some(domain) = self.counted_domain(self.counters[id.0 as usize].domains, at) {
                let counter = &mut self.counters[id.0 as usize];
                counter.matched.shift(domain, delta);
                counter.changed = now;
            }
        }
        for id in owned {
            if let Some(domain) = self.counted_domain(self.counters[id.0 as usize].domains, at) {
                let owners = &mut self.counters[id.0 as usize].owners;
                let count = moved(owners.get(&domain).copied().unwrap_or(0), delta);
                if count == 0 {
                    owners.remove(&domain);
                } else {
                    owners.insert(domain, count);
                }
            }
        }
    }

    /// The topology key that a counter counts by.
    pub(super) fn key(&self, counter: CounterId) -> Symbol {
        let domains = &self.domains[self.counters[counter.0 as usize].domains.0 as usize];
        **self.key_ids.get(domains.key.0)
    }

    /// The domain of a node, whether it counts or not.
    pub(super) fn domain(&self, counter: CounterId, at: usize) -> Option<u32> {
        let domains = &self.domains[self.counters[counter.0 as usize].domains.0 as usize];
        Some(self.keys[domains.key.0 as usize].domain_of[at]).filter(|domain| *domain != NO_DOMAIN)
    }

    /// Whether pods on a node count.
    pub(super) fn counts_on(&self, counter: CounterId, at: usize) -> bool {
        self.counted_domain(self.counters[counter.0 as usize].domains, at).is_some()
    }

    pub(super) fn matched(&self, counter: CounterId, domain: u32) -> u32 {
        self.counters[counter.0 as usize].matched.get(domain)
    }

    /// Pods counted anywhere.
    pub(super) fn total(&self, counter: CounterId) -> u64 {
        self.counters[counter.0 as usize].matched.total
    }

    /// Whether a pod in this domain has this anti-affinity.
    pub(super) fn is_repelled(&self, counter: CounterId, domain: u32) -> bool {
        self.counters[counter.0 as usize].owners.contains_key(&domain)
    }

    /// Whether any pod has this anti-affinity.
    pub(super) fn has_owners(&self, counter: CounterId) -> bool {
        !self.counters[counter.0 as usize].owners.is_empty()
    }

    /// The lowest count of a domain, with `beside` more pods in one; 0 if there are fewer domains than `at_least`.
    pub(super) fn minimum(&self, counter: CounterId, at_least: u32, domain: u32, beside: u32) -> u32 {
        let counter = &self.counters[counter.0 as usize];
        let domains = self.domains[counter.domains.0 as usize].nodes.len();
        if domains < at_least as usize { 0 } else { counter.matched.minimum(domains, domain, beside) }
    }

    /// The domain of a value of a counter's key, if a node ever had it.
    pub(super) fn domain_of(&self, counter: CounterId, value: Symbol) -> Option<u32> {
        let domains = &self.domains[self.counters[counter.0 as usize].domains.0 as usize];
        self.keys[domains.key.0 as usize].ordinals.get(&value).copied()
    }

    /// Whether a domain has nodes that count.
    pub(super) fn has_nodes(&self, counter: CounterId, domain: u32) -> bool {
        let domains = &self.domains[self.counters[counter.0 as usize].domains.0 as usize];
        domains.nodes.contains_key(&domain)
    }

    /// The lowest count of a domain with nodes that count, and how many there are of these.
    pub(super) fn least(&self, counter: CounterId) -> (u32, usize) {
        let counter = &self.counters[counter.0 as usize];
        let domains = self.domains[counter.domains.0 as usize].nodes.len();
        (counter.matched.minimum(domains, 0, 0), domains)
    }

    pub(super) fn changed(&self, counter: CounterId) -> u64 {
        self.counters[counter.0 as usize].changed
    }
}

fn is_eligible(rule: &Eligibility, at: usize, world: &World<'_>) -> bool {
    let node = &world.fleet.nodes[at];
    rule.keys.iter().all(|key| value_of(&node.labels, *key).is_some())
        && rule.filters.iter().all(|filter| world.filters.accepts(*filter, at, node, world.strings))
}
