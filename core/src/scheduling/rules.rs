//! What a packing of nodes that do not exist yet reads of classes and counters.

use std::sync::Arc;

use super::{
    declared::Presumed,
    filters::FilterId,
    holds::Hold,
    ids::{ClassId, NodeId, Symbol, ordinal},
    node::Node,
    profile::Plugin,
    reason::Reason,
    snapshot::Snapshot,
    topology::CounterId,
};

/// Counts of pods by topology domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Counter(CounterId);

/// A value of a label, interned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Value(Symbol);

/// The node selector and required node affinity of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Selector(FilterId);

/// A hard topology spread constraint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) counter: Counter,
    pub(crate) max_skew: u32,
    pub(crate) min_domains: u32,
    /// Whether the pod itself is counted.
    pub(crate) counts_itself: bool,
}

/// The topology rules of a class.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    pub(crate) spread: Vec<Spread>,
    /// Counters of required affinity.
    pub(crate) near: Vec<Counter>,
    /// Whether the pod matches its own affinity.
    pub(crate) near_itself: bool,
    /// Counters of required anti-affinity.
    pub(crate) apart: Vec<Counter>,
    /// Counters that count the pod: it may not go where one has owners.
    pub(crate) counted: Vec<Counter>,
}

impl Snapshot {
    /// The topology rules of a class, as far as classes are known: later ones may count it too.
    pub(crate) fn rules(&self, class: ClassId) -> Rules {
        let spec = self.classes.get(class.0);
        let spread = spec.family.spread.iter().map(|rule| Spread {
            counter: Counter(rule.counter),
            max_skew: rule.max_skew,
            min_domains: rule.min_domains,
            counts_itself: rule.counts_itself,
        });
        let rules = Rules { spread: spread.collect(), ..Rules::default() };
        if spec.family.without.has(Plugin::InterPodAffinity) {
            return rules;
        }
        let counted = &self.counters_of[self.classes.get(class.0).id.index()];
        Rules {
            near: spec.family.near.iter().copied().map(Counter).collect(),
            near_itself: spec.family.near_itself,
            apart: spec.family.apart.iter().copied().map(Counter).collect(),
            counted: counted.iter().copied().map(Counter).collect(),
            ..rules
        }
    }

    /// The topology key that a counter counts by.
    pub(crate) fn key_of(&self, counter: Counter) -> Arc<str> {
        self.strings.name(self.topology.key(counter.0)).clone()
    }

    /// Interns a value of a label.
    pub(crate) fn value(&mut self, text: &str) -> Value {
        Value(self.strings.intern(text))
    }

    /// Pods counted in a domain.
    pub(crate) fn count_in(&self, counter: Counter, value: Value) -> u32 {
        self.topology
            .domain_of(counter.0, value.0)
            .map_or(0, |domain| self.topology.matched(counter.0, domain))
    }

    /// Whether pods of a domain want those that are counted kept away.
    pub(crate) fn is_repelled_in(&self, counter: Counter, value: Value) -> bool {
        let domain = self.topology.domain_of(counter.0, value.0);
        domain.is_some_and(|domain| self.topology.is_repelled(counter.0, domain))
    }

    /// Whether any pod wants those that are counted kept away.
    pub(crate) fn has_owners(&self, counter: Counter) -> bool {
        self.topology.has_owners(counter.0)
    }

    /// Pods counted anywhere.
    pub(crate) fn total(&self, counter: Counter) -> u64 {
        self.topology.total(counter.0)
    }

    /// When a count last changed.
    pub(crate) fn changed(&self, counter: Counter) -> u64 {
        self.topology.changed(counter.0)
    }

    /// The lowest count of a domain that has nodes which count, and how many such domains there are.
    pub(crate) fn least(&self, counter: Counter) -> (u32, usize) {
        self.topology.least(counter.0)
    }

    /// Whether a domain has nodes that count.
    pub(crate) fn has_domain(&self, counter: Counter, value: Value) -> bool {
        let domain = self.topology.domain_of(counter.0, value.0);
        domain.is_some_and(|domain| self.topology.has_nodes(counter.0, domain))
    }

    /// Pods counted on one node, by a counter of nodes, whether the node counts yet or not.
    pub(crate) fn count_on(&self, counter: Counter, node: NodeId) -> u32 {
        if !self.topology.counts_on(counter.0, node.index()) {
            let matching = self.node(node).pods().filter(|(class, _)| {
                self.counters_of[self.classes.get(class.0).id.index()].contains(&counter.0)
            });
            return matching.map(|(_, count)| count).sum();
        }
        let domain = self.topology.domain(counter.0, node.index());
        domain.map_or(0, |domain| self.topology.matched(counter.0, domain))
    }

    /// Whether a pod on a node wants those that are counted kept away, by a counter of nodes.
    pub(crate) fn is_repelled_on(&self, counter: Counter, node: NodeId) -> bool {
        let domain = self.topology.domain(counter.0, node.index());
        domain.is_some_and(|domain| self.topology.is_repelled(counter.0, domain))
    }

    /// The node selector of a class, if it has any.
    pub(crate) fn selector_of(&self, class: ClassId) -> Option<Selector> {
        self.classes.get(class.0).family.affinity.map(Selector)
    }

    /// Why a node does not do for a class: what its volumes ask of a node, or what its kubelet has to declare.
    pub(crate) fn lacks(&self, class: ClassId, node: &super::fleet::NodeInfo) -> Option<Reason> {
        let family = &self.classes.get(class.0).family;
        let features = family.features.map(|filter| (filter, Reason::Features));
        let mut asked = family.storage.filters.iter().cloned().chain(features);
        asked.find(|(filter, _)| !self.filters.judge(*filter, node, &self.strings)).map(|(_, reason)| reason)
    }

    /// Whether there is anything that [`Snapshot::lacks`] could say of a class.
    pub(crate) fn asks_of_nodes(&self, class: ClassId) -> bool {
        let family = &self.classes.get(class.0).family;
        !family.storage.filters.is_empty() || family.features.is_some()
    }

    /// What is taken for granted if a pod of a class is sent to a node that nobody has seen yet.
    pub(crate) fn presumes(&self, class: ClassId, node: NodeId) -> impl Iterator<Item = Presumed> {
        let (family, node) = (&self.classes.get(class.0).family, self.node(node));
        family.static_filters().filter_map(|filter| self.filters.presumes(filter, node, &self.strings))
    }

    /// Whether the volumes of a class tie it to places.
    pub(crate) fn has_placed_volumes(&self, class: ClassId) -> bool {
        !self.classes.get(class.0).family.storage.filters.is_empty()
    }

    /// Why no node whatever takes a class.
    pub(crate) fn impossible(&self, class: ClassId) -> Option<&Reason> {
        let family = &self.classes.get(class.0).family;
        let devices = || family.devices.and_then(|demand| self.devices.impossible(demand));
        family.storage.impossible.as_ref().or_else(devices)
    }

    /// Whether pods of two classes take the same port or disk of a node.
    pub(crate) fn holds_conflict(&self, one: ClassId, other: ClassId) -> bool {
        let (one, other) = (self.classes.get(one.0), self.classes.get(other.0));
        one.family.holds.iter().any(|hold| other.family.holds.iter().any(|taken| hold.conflicts(taken)))
    }

    /// Whether a class takes ports or disks of its node.
    pub(crate) fn has_holds(&self, class: ClassId) -> bool {
        !self.classes.get(class.0).family.holds.is_empty()
    }

    /// Whether the ports and disks of a class are free on a node.
    pub(crate) fn holds_free_on(&self, class: ClassId, node: NodeId) -> bool {
        let taken =
            |hold: &Hold| self.fleet.nodes[node.index()].holds.iter().any(|(taken, _)| hold.conflicts(taken));
        !self.classes.get(class.0).family.holds.iter().any(taken)
    }

    /// Adds a node that stands for one to come: pods can be bound to it, but no search finds it, since it has no room.
    ///
    /// `verdicts` say of selectors whether the node will satisfy them, whatever its labels say yet.
    pub(crate) fn add_closed(&mut self, node: &Node, verdicts: &[(Selector, bool)]) -> NodeId {
        let freed = self.freed;
        let mut node = self.mold(node);
        node.close();
        let next = ordinal(self.fleet.nodes.len());
        for (selector, accepted) in verdicts {
            self.filters.set(selector.0, next as usize, *accepted);
        }
        let id = self.append(node);
        self.freed = freed;
        id
    }

    /// Replaces a node that was added by [`Snapshot::add_closed`], with its pods.
    pub(crate) fn replace_closed(
        &mut self,
        old: NodeId,
        node: &Node,
        verdicts: &[(Selector, bool)],
    ) -> NodeId {
        let freed = self.freed;
        let pods: Vec<_> = self.node(old).pods().collect();
        self.remove_node(old);
        let new = self.add_closed(node, verdicts);
        for (class, count) in pods {
            self.bind_many(class, new, count);
        }
        self.freed = freed;
        new
    }
}
