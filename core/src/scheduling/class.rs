//! Classes: pods that the scheduler cannot tell apart, with their rules compiled.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PodAffinityTerm, TopologySpreadConstraint};

use super::{
    filters::{Filter, FilterId},
    fleet::{Amounts, FIXED},
    ids::{ClassId, Label, Symbol, value_of},
    pod::{Pod, Shape},
    ports::Port,
    reason::Reason,
    selector::{NodeSelector, Operator, Requirement, label_selector},
    snapshot::Snapshot,
    taints,
    topology::{Anchors, CounterId, Eligibility, Namespaces, Selection, SelectionId, Subject, World},
};

/// The topology key of a single node.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// A hard topology spread constraint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SpreadRule {
    pub(super) counter: CounterId,
    pub(super) max_skew: u32,
    pub(super) min_domains: u32,
    /// Whether the pod itself is counted.
    pub(super) counts_itself: bool,
}

/// What topology spread constraints name, be they hard or soft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum SpreadOver {
    Nothing,
    /// Domains larger than a node only.
    Domains,
    /// Nodes, perhaps among others.
    Nodes,
}

impl SpreadOver {
    fn read(constraints: &[TopologySpreadConstraint]) -> Self {
        match constraints {
            [] => Self::Nothing,
            some if some.iter().any(|rule| rule.topology_key == HOSTNAME) => Self::Nodes,
            _ => Self::Domains,
        }
    }
}

/// What claims ask of a node, and take of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Storage {
    /// Why no node will do.
    pub(super) impossible: Option<Reason>,
    /// Where the volumes can be reached or made, with the reason where they cannot.
    pub(super) filters: Box<[(FilterId, Reason)]>,
    /// Drivers and volumes that are attached, sorted.
    pub(super) attached: Box<[(Symbol, Symbol)]>,
    /// Claims that one pod alone may use.
    pub(super) exclusive: Box<[Symbol]>,
}

/// What makes pods of one class: everything that the scheduler reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Class {
    pub(super) namespace: Symbol,
    pub(super) labels: Box<[Label]>,
    pub(super) priority: i32,
    /// Being deleted: topology spread does not count it.
    pub(super) terminating: bool,
    pub(super) requests: Amounts,
    /// Other resources by ordinal, above zero.
    pub(super) others: Box<[(u32, i64)]>,
    pub(super) tolerations: FilterId,
    pub(super) tolerates_cordon: bool,
    pub(super) affinity: Option<FilterId>,
    pub(super) ports: Box<[Port]>,
    pub(super) spread: Box<[SpreadRule]>,
    /// What it is spread over, softly or not.
    pub(super) spread_over: SpreadOver,
    /// A counter a term of required affinity; all count the pods that match every term.
    pub(super) near: Box<[CounterId]>,
    /// Whether the pod matches its own affinity.
    pub(super) near_itself: bool,
    /// A counter a term of required anti-affinity.
    pub(super) apart: Box<[CounterId]>,
    pub(super) storage: Storage,
}

impl Class {
    /// Whether a copy on one node can make room for another on a node that took none before.
    pub(super) fn gains_by_its_like(&self) -> bool {
        !self.spread.is_empty() || !self.near.is_empty()
    }

    /// Filters that no pod on a node changes.
    pub(super) fn static_filters(&self) -> impl Iterator<Item = FilterId> {
        let storage = self.storage.filters.iter().map(|(filter, _)| *filter);
        std::iter::once(self.tolerations).chain(self.affinity).chain(storage)
    }
}

impl Snapshot {
    /// The class of a pod.
    ///
    /// Pods are of one class if the scheduler cannot tell them apart, whatever their names. A shape that is shared is read
    /// once. What [`Surroundings`](super::Surroundings) say of its claims is read here.
    pub fn class(&mut self, pod: &Pod) -> ClassId {
        let terminating = pod.deleting.is_some();
        let address = Arc::as_ptr(&pod.shape).addr();
        if pod.claims.is_empty()
            && let Some((_, class)) = self.by_shape.get(&(address, terminating))
        {
            return *class;
        }
        let class = self.compile(&pod.shape, &pod.claims, terminating);
        let class = self.intern_class(class);
        if pod.claims.is_empty() {
            self.by_shape.insert((address, terminating), (pod.shape.clone(), class));
        }
        class
    }

    /// What a pod of a class asks for: cpu in thousandths, memory in bytes.
    pub(crate) fn cpu_and_memory(&self, class: ClassId) -> [i64; 2] {
        let [cpu, memory, ..] = self.classes.get(class.0).requests;
        [cpu, memory]
    }

    /// See [`Class::gains_by_its_like`].
    pub(crate) fn gains_by_its_like(&self, class: ClassId) -> bool {
        self.classes.get(class.0).gains_by_its_like()
    }

    /// Whether pods of a class are spread, softly or not, over single nodes.
    pub(crate) fn is_spread_over_nodes(&self, class: ClassId) -> bool {
        self.classes.get(class.0).spread_over == SpreadOver::Nodes
    }

    /// Whether no two pods of a class may be on one node.
    pub(crate) fn is_apart_on_nodes(&self, class: ClassId) -> bool {
        let own = &self.counters_of[class.index()];
        let apart = &self.classes.get(class.0).apart;
        apart.iter().any(|counter| own.contains(counter) && self.is_of_nodes(*counter))
    }

    /// Whether as many pods of a class fit on one empty node as on the next: no spread, and no anti-affinity in larger
    /// domains than a node.
    pub(crate) fn is_alike_on_every_node(&self, class: ClassId) -> bool {
        let class = self.classes.get(class.0);
        class.spread_over == SpreadOver::Nothing
            && class.apart.iter().all(|counter| self.is_of_nodes(*counter))
    }

    fn is_of_nodes(&self, counter: CounterId) -> bool {
        &**self.strings.name(self.topology.key(counter)) == HOSTNAME
    }

    fn intern_class(&mut self, class: Class) -> ClassId {
        let (id, new) = self.classes.intern(class);
        let id = ClassId(id);
        if new {
            let class = self.classes.get(id.0).clone();
            self.namespace_labels(class.namespace);
            let subject = subject(&self.namespaces, &class);
            self.counters_of.push(self.topology.enlist(id, subject, &self.strings));
            self.bound.push(0);
            self.memos.push(super::find::Memo::default());
        }
        id
    }

    fn compile(&mut self, shape: &Shape, claims: &[Arc<str>], terminating: bool) -> Class {
        let namespace = self.strings.intern(&shape.namespace);
        self.namespace_labels(namespace);
        let labels = self.strings.labels(&shape.labels);
        let tolerations = Filter::tolerations(&mut self.strings, &shape.tolerations);
        let tolerations = self.filters.intern(tolerations);
        let affinity = self.affinity_filter(shape);
        let mut requests = Amounts::default();
        requests.copy_from_slice(&amounts(&shape.requests));
        let others = shape.requests.other.iter().filter(|(_, amount)| **amount > 0);
        let others = others.map(|(name, amount)| (self.resource(name), *amount)).collect();
        let subject = OwnSubject { namespace, labels: &labels, terminating };
        let (near, near_itself) = self.affinity(shape, &subject);
        Class {
            namespace,
            priority: shape.priority.unwrap_or(0),
            terminating,
            requests,
            others,
            tolerations,
            tolerates_cordon: tolerates_cordon(shape),
            affinity,
            ports: shape.ports.iter().map(|port| Port::read(&mut self.strings, port)).collect(),
            spread: self.spread_rules(shape, &subject, tolerations, affinity),
            spread_over: SpreadOver::read(&shape.spread),
            near,
            near_itself,
            apart: self.anti_affinity(shape, &subject),
            storage: self.storage(&shape.namespace, claims),
            labels: labels.into(),
        }
    }

    fn affinity_filter(&mut self, shape: &Shape) -> Option<FilterId> {
        let node = shape.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required =
            node.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
        if shape.node_selector.is_empty() && required.is_none() {
            return None;
        }
        let terms = required.map(|required| required.node_selector_terms.as_slice());
        let selector = NodeSelector::read(&mut self.strings, &shape.node_selector, terms);
        Some(self.filters.intern(Filter::Selector(selector)))
    }

    fn spread_rules(
        &mut self,
        shape: &Shape,
        own: &OwnSubject<'_>,
        tolerations: FilterId,
        affinity: Option<FilterId>,
    ) -> Box<[SpreadRule]> {
        let hard: Vec<_> =
            shape.spread.iter().filter(|rule| rule.when_unsatisfiable == "DoNotSchedule").collect();
        let mut keys: Vec<_> = hard.iter().map(|rule| self.strings.intern(&rule.topology_key)).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut rules = Vec::with_capacity(hard.len());
        for rule in hard {
            let honors = |policy: &Option<String>, default| {
                policy.as_deref().map_or(default, |policy| policy == "Honor")
            };
            let affinity = affinity.filter(|_| honors(&rule.node_affinity_policy, true));
            let taints = honors(&rule.node_taints_policy, false).then_some(tolerations);
            let eligibility = Eligibility {
                keys: keys.clone().into(),
                filters: affinity.into_iter().chain(taints).collect(),
            };
            rules.push(self.spread_rule(rule, own, eligibility));
        }
        rules.into()
    }

    fn spread_rule(
        &mut self,
        rule: &TopologySpreadConstraint,
        own: &OwnSubject<'_>,
        eligibility: Eligibility,
    ) -> SpreadRule {
        let more = self.own_labels(own, rule.match_label_keys.as_deref(), false);
        let selector = label_selector(&mut self.strings, rule.label_selector.as_ref(), more);
        // The empty selector means every pod, but kube-scheduler counts none by it, except the one that it places
        // (`countPodsMatchSelector` in its PodTopologySpread).
        let itself_alone = selector.is_empty();
        let selector = if itself_alone { label_selector(&mut self.strings, None, []) } else { selector };
        let namespaces = Namespaces { names: [own.namespace].into(), selector: None };
        let selection = self.selection(Selection { terms: [(namespaces, selector)].into(), living: true });
        let counts_itself = itself_alone || {
            // Whether a pod counts itself does not depend on its being deleted.
            let alive = OwnSubject { terminating: false, ..*own };
            self.matches_itself(selection, &alive)
        };
        let key = self.strings.intern(&rule.topology_key);
        SpreadRule {
            counter: self.counter(key, eligibility, selection),
            max_skew: u32::try_from(rule.max_skew).unwrap_or(0),
            min_domains: rule.min_domains.and_then(|domains| u32::try_from(domains).ok()).unwrap_or(1),
            counts_itself,
        }
    }

    /// Required pod affinity: one selection for all terms, since only a pod that matches every term counts for any.
    fn affinity(&mut self, shape: &Shape, own: &OwnSubject<'_>) -> (Box<[CounterId]>, bool) {
        let affinity = shape.affinity.as_ref().and_then(|affinity| affinity.pod_affinity.as_ref());
        let required = affinity
            .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_deref())
            .unwrap_or_default();
        if required.is_empty() {
            return (Box::default(), false);
        }
        let terms = required.iter().map(|term| self.term(term, own)).collect();
        let selection = self.selection(Selection { terms, living: false });
        let itself = self.matches_itself(selection, own);
        let mut counters = Vec::with_capacity(required.len());
        for term in required {
            let key = self.strings.intern(&term.topology_key);
            counters.push(self.counter(key, Eligibility::default(), selection));
        }
        (counters.into(), itself)
    }

    fn anti_affinity(&mut self, shape: &Shape, own: &OwnSubject<'_>) -> Box<[CounterId]> {
        let anti = shape.affinity.as_ref().and_then(|affinity| affinity.pod_anti_affinity.as_ref());
        let required = anti
            .and_then(|anti| anti.required_during_scheduling_ignored_during_execution.as_deref())
            .unwrap_or_default();
        let mut counters = Vec::with_capacity(required.len());
        for term in required {
            let terms = [self.term(term, own)].into();
            let selection = self.selection(Selection { terms, living: false });
            let key = self.strings.intern(&term.topology_key);
            counters.push(self.counter(key, Eligibility::default(), selection));
        }
        counters.sort_unstable();
        counters.dedup();
        counters.into()
    }

    /// The pods that a term of pod affinity means.
    fn term(
        &mut self,
        term: &PodAffinityTerm,
        own: &OwnSubject<'_>,
    ) -> (Namespaces, super::selector::Conjunction) {
        let mut more = self.own_labels(own, term.match_label_keys.as_deref(), false);
        more.extend(self.own_labels(own, term.mismatch_label_keys.as_deref(), true));
        let selector = label_selector(&mut self.strings, term.label_selector.as_ref(), more);
        let listed = term.namespaces.as_deref().unwrap_or_default();
        let mut names: Vec<_> = listed.iter().map(|name| self.strings.intern(name)).collect();
        if names.is_empty() && term.namespace_selector.is_none() {
            names.push(own.namespace);
        }
        names.sort_unstable();
        names.dedup();
        let selector_of_namespaces = term
            .namespace_selector
            .as_ref()
            .map(|selector| label_selector(&mut self.strings, Some(selector), []));
        (Namespaces { names: names.into(), selector: selector_of_namespaces }, selector)
    }

    /// What `matchLabelKeys` (or, if `differ`, `mismatchLabelKeys`) add: the pod's own values of these keys.
    fn own_labels(
        &mut self,
        own: &OwnSubject<'_>,
        keys: Option<&[String]>,
        differ: bool,
    ) -> Vec<Requirement> {
        let mut requirements = Vec::new();
        for key in keys.unwrap_or_default() {
            let key = self.strings.intern(key);
            if let Some(value) = value_of(own.labels, key) {
                let values = [value].into();
                let operator = if differ { Operator::NotIn(values) } else { Operator::In(values) };
                requirements.push(Requirement { key, operator });
            }
        }
        requirements
    }

    fn matches_itself(&self, selection: SelectionId, own: &OwnSubject<'_>) -> bool {
        let namespace_labels =
            self.namespaces.get(&own.namespace).map(|labels| &**labels).unwrap_or_default();
        let subject = Subject {
            namespace: own.namespace,
            namespace_labels,
            labels: own.labels,
            terminating: own.terminating,
        };
        self.topology.selection(selection).matches(subject, &self.strings)
    }

    /// Notes the labels of the classes that came since the last time: only a new selection asks for them.
    fn index_labels(&mut self) {
        for id in self.indexed..self.classes.len() {
            for label in &self.classes.get(id).labels {
                self.classes_with.entry(*label).or_default().push(ClassId(id));
            }
        }
        self.indexed = self.classes.len();
    }

    fn selection(&mut self, selection: Selection) -> SelectionId {
        let (id, new) = self.topology.intern_selection(selection);
        if let Some(Anchors(anchors)) = new {
            self.index_labels();
            let selection = self.topology.selection(id);
            let matches = |class: &ClassId| {
                selection.matches(subject(&self.namespaces, self.classes.get(class.0)), &self.strings)
            };
            let found = match anchors {
                None => (0..self.classes.len()).map(ClassId).filter(matches).collect(),
                Some(labels) => {
                    let found = labels.iter().filter_map(|label| self.classes_with.get(label)).flatten();
                    found.copied().filter(matches).collect()
                }
            };
            self.topology.found(id, found);
        }
        id
    }

    fn counter(&mut self, key: Symbol, eligibility: Eligibility, selection: SelectionId) -> CounterId {
        let Self { topology, fleet, filters, strings, bound, .. } = self;
        let world = World { fleet, filters, strings };
        let (id, counted) =
            topology.intern_counter(key, eligibility, selection, &world, |class| bound[class.index()] > 0);
        for class in counted.into_iter().flatten() {
            self.counters_of[class.index()].push(id);
        }
        id
    }

    /// Interns the labels of a namespace.
    fn namespace_labels(&mut self, namespace: Symbol) {
        if self.namespaces.contains_key(&namespace) {
            return;
        }
        let name = self.strings.name(namespace).clone();
        let mut labels = self.surroundings.namespaces.get(&name).cloned().unwrap_or_default();
        // The API server sets this one on every namespace.
        labels.entry("kubernetes.io/metadata.name".to_owned()).or_insert_with(|| name.to_string());
        let labels = self.strings.labels(&labels);
        self.namespaces.insert(namespace, labels.into());
    }

    /// The ordinal of a resource other than the four that every node has.
    pub(super) fn resource(&mut self, name: &str) -> u32 {
        let name = self.strings.intern(name);
        self.resources.intern(name).0
    }
}

/// A pod that is being compiled, as selections see it.
struct OwnSubject<'a> {
    namespace: Symbol,
    labels: &'a [Label],
    terminating: bool,
}

fn subject<'a>(
    namespaces: &'a super::ids::OrdinalMap<Symbol, Box<[Label]>>,
    class: &'a Class,
) -> Subject<'a> {
    Subject {
        namespace: class.namespace,
        namespace_labels: namespaces.get(&class.namespace).map(|labels| &**labels).unwrap_or_default(),
        labels: &class.labels,
        terminating: class.terminating,
    }
}

/// Cpu, memory, ephemeral storage and pods.
pub(super) fn amounts(resources: &super::Resources) -> [i64; FIXED] {
    [resources.cpu, resources.memory, resources.storage, resources.pods]
}

fn tolerates_cordon(shape: &Shape) -> bool {
    shape.tolerations.iter().any(|toleration| {
        taints::Tolerance {
            key: toleration.key.as_deref().unwrap_or_default(),
            operator: toleration.operator.as_deref().unwrap_or_default(),
            value: toleration.value.as_deref().unwrap_or_default(),
            effect: toleration.effect.as_deref().unwrap_or_default(),
        }
        .covers(taints::UNSCHEDULABLE, "", "NoSchedule")
    })
}
