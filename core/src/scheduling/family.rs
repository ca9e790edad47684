//! Families: pods that the scheduler treats alike but for what they request, with their rules compiled.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{PodAffinityTerm, Toleration, TopologySpreadConstraint};

use super::{
    class::HOSTNAME,
    declared::Demand,
    devices::DemandId,
    filters::{Filter, FilterId},
    holds::Hold,
    ids::{ClassId, FamilyId, Label, OrdinalMap, Symbol, value_of},
    pod::Traits,
    profile::{Plugin, PluginSet, Profile},
    reason::Reason,
    selector::{Conjunction, NodeSelector, Operator, Requirement, label_selector},
    snapshot::Snapshot,
    taints,
    topology::{Anchors, CounterId, Eligibility, Namespaces, Selection, SelectionId, Subject, World},
};

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

/// What the scheduler reads of a pod but for what it requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Family {
    pub(super) namespace: Symbol,
    pub(super) labels: Box<[Label]>,
    pub(super) priority: i32,
    /// Being deleted: topology spread does not count it.
    pub(super) terminating: bool,
    pub(super) tolerations: FilterId,
    pub(super) tolerates_cordon: bool,
    pub(super) affinity: Option<FilterId>,
    /// Node affinity that the scheduler adds.
    pub(super) added: Option<FilterId>,
    /// What the kubelet has to declare, if anything.
    pub(super) features: Option<FilterId>,
    pub(super) holds: Box<[Hold]>,
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
    /// What its claims of devices ask for.
    pub(super) devices: Option<DemandId>,
    /// Filters of the scheduler that refuse it nothing.
    pub(super) without: PluginSet,
}

impl Family {
    /// Whether a copy on one node can make room for another on a node that took none before.
    pub(super) fn gains_by_its_like(&self) -> bool {
        !self.spread.is_empty() || !self.near.is_empty()
    }

    /// Filters that no pod on a node changes.
    pub(super) fn static_filters(&self) -> impl Iterator<Item = FilterId> {
        let storage = self.storage.filters.iter().map(|(filter, _)| *filter);
        let of_node = std::iter::once(self.tolerations).chain(self.affinity).chain(self.added);
        of_node.chain(self.features).chain(storage)
    }
}

impl Snapshot {
    /// The family of pods with these traits and claims. Without claims, traits that are shared are compiled once.
    pub(super) fn family(
        &mut self,
        traits: &Arc<Traits>,
        claims: &[Arc<str>],
        devices: Option<DemandId>,
        terminating: bool,
    ) -> FamilyId {
        if !claims.is_empty() || devices.is_some() {
            return self.compile(traits, claims, devices, terminating);
        }
        let key = (Arc::as_ptr(traits).addr(), terminating);
        if let Some((_, family)) = self.by_traits.get(&key) {
            return *family;
        }
        let family = self.compile(traits, claims, None, terminating);
        self.by_traits.insert(key, (traits.clone(), family));
        family
    }

    fn intern_family(&mut self, family: Family) -> FamilyId {
        let (id, new) = self.families.intern(family);
        let id = FamilyId(id);
        if new {
            let family = self.families.get(id.0).clone();
            self.namespace_labels(family.namespace);
            let subject = subject(&self.namespaces, &family);
            self.counters_of.push(self.topology.enlist(id, subject, &self.strings));
            self.bound.push(0);
        }
        id
    }

    fn compile(
        &mut self,
        traits: &Arc<Traits>,
        claims: &[Arc<str>],
        devices: Option<DemandId>,
        terminating: bool,
    ) -> FamilyId {
        let surroundings = self.surroundings.clone();
        let profile = surroundings.profile_of(traits).map(|profile| &**profile);
        let traits = surroundings.with_defaults(traits);
        let namespace = self.strings.intern(&traits.namespace);
        self.namespace_labels(namespace);
        let labels = self.strings.labels(&traits.labels);
        let tolerations = Filter::tolerations(&mut self.strings, &traits.tolerations);
        let tolerations = self.filters.intern(tolerations);
        let affinity = self.affinity_filter(&traits);
        let subject = OwnSubject { namespace, labels: &labels, terminating };
        let (near, near_itself) = self.affinity(&traits, &subject);
        let family = Family {
            namespace,
            priority: traits.priority.unwrap_or(0),
            terminating,
            tolerations,
            tolerates_cordon: tolerates_cordon(&traits),
            affinity,
            added: self.added_filter(&traits),
            features: self.features_filter(&traits),
            holds: Hold::of(&mut self.strings, &traits),
            spread: self.spread_rules(&traits, &subject, tolerations, affinity),
            spread_over: SpreadOver::read(&traits.spread),
            near,
            near_itself,
            apart: self.anti_affinity(&traits, &subject),
            storage: self.storage(&traits.namespace, claims),
            devices,
            without: PluginSet::default(),
            labels: labels.into(),
        };
        let family = match profile {
            Some(profile) => self.without_filters(family, profile),
            None => family,
        };
        self.intern_family(family)
    }

    /// A family that a scheduler judges which leaves filters out. What its pods are to others stays.
    fn without_filters(&mut self, mut family: Family, profile: &Profile) -> Family {
        let lacks = |plugin| profile.lacks(plugin);
        family.without = profile.without();
        family.tolerates_cordon |= lacks(Plugin::NodeUnschedulable);
        if lacks(Plugin::TaintToleration) {
            let any = Toleration { operator: Some("Exists".to_owned()), ..Toleration::default() };
            let any = Filter::tolerations(&mut self.strings, &[any]);
            family.tolerations = self.filters.intern(any);
        }
        if lacks(Plugin::NodeAffinity) {
            (family.affinity, family.added) = (None, None);
        }
        if lacks(Plugin::NodeDeclaredFeatures) {
            family.features = None;
        }
        if lacks(Plugin::PodTopologySpread) {
            (family.spread, family.spread_over) = (Box::default(), SpreadOver::Nothing);
        }
        if lacks(Plugin::InterPodAffinity) {
            (family.near, family.near_itself) = (Box::default(), false);
        }
        if lacks(Plugin::DynamicResources) {
            family.devices = None;
        }
        family.storage.leave_out(profile);
        family
    }

    fn added_filter(&mut self, traits: &Traits) -> Option<FilterId> {
        if traits.added.is_empty() {
            return None;
        }
        let selector = NodeSelector::read(&mut self.strings, &BTreeMap::new(), Some(&traits.added));
        Some(self.filters.intern(Filter::Selector(selector)))
    }

    fn affinity_filter(&mut self, traits: &Traits) -> Option<FilterId> {
        let node = traits.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required =
            node.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
        if traits.node_selector.is_empty() && required.is_none() {
            return None;
        }
        let terms = required.map(|required| required.node_selector_terms.as_slice());
        let selector = NodeSelector::read(&mut self.strings, &traits.node_selector, terms);
        Some(self.filters.intern(Filter::Selector(selector)))
    }

    fn features_filter(&mut self, traits: &Traits) -> Option<FilterId> {
        let needed = (!traits.features.is_empty()).then(|| traits.features.clone());
        needed.map(|needed| self.filters.intern(Filter::Demand(Demand::Features(needed))))
    }

    fn spread_rules(
        &mut self,
        traits: &Traits,
        own: &OwnSubject<'_>,
        tolerations: FilterId,
        affinity: Option<FilterId>,
    ) -> Box<[SpreadRule]> {
        let hard: Vec<_> =
            traits.spread.iter().filter(|rule| rule.when_unsatisfiable == "DoNotSchedule").collect();
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
    fn affinity(&mut self, traits: &Traits, own: &OwnSubject<'_>) -> (Box<[CounterId]>, bool) {
        let affinity = traits.affinity.as_ref().and_then(|affinity| affinity.pod_affinity.as_ref());
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

    fn anti_affinity(&mut self, traits: &Traits, own: &OwnSubject<'_>) -> Box<[CounterId]> {
        let anti = traits.affinity.as_ref().and_then(|affinity| affinity.pod_anti_affinity.as_ref());
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
    fn term(&mut self, term: &PodAffinityTerm, own: &OwnSubject<'_>) -> (Namespaces, Conjunction) {
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

    /// Notes the labels of the families that came since the last time: only a new selection asks for them.
    fn index_labels(&mut self) {
        for id in self.indexed..self.families.len() {
            for label in &self.families.get(id).labels {
                self.families_with.entry(*label).or_default().push(FamilyId(id));
            }
        }
        self.indexed = self.families.len();
    }

    fn selection(&mut self, selection: Selection) -> SelectionId {
        let (id, new) = self.topology.intern_selection(selection);
        if let Some(Anchors(anchors)) = new {
            self.index_labels();
            let selection = self.topology.selection(id);
            let matches = |family: &FamilyId| {
                selection.matches(subject(&self.namespaces, self.families.get(family.0)), &self.strings)
            };
            let found = match anchors {
                None => (0..self.families.len()).map(FamilyId).filter(matches).collect(),
                Some(labels) => {
                    let found = labels.iter().filter_map(|label| self.families_with.get(label)).flatten();
                    found.copied().filter(matches).collect()
                }
            };
            self.topology.found(id, found);
        }
        id
    }

    fn counter(&mut self, key: Symbol, eligibility: Eligibility, selection: SelectionId) -> CounterId {
        let Self { topology, fleet, filters, strings, bound, classes, .. } = self;
        let world = World { fleet, filters, strings };
        let is_bound = |family: FamilyId| bound[family.index()] > 0;
        let family_of = |class: ClassId| classes.get(class.0).id;
        let (id, counted) = topology.intern_counter(key, eligibility, selection, &world, is_bound, family_of);
        for family in counted.into_iter().flatten() {
            self.counters_of[family.index()].push(id);
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
}

/// A pod that is being compiled, as selections see it.
struct OwnSubject<'a> {
    namespace: Symbol,
    labels: &'a [Label],
    terminating: bool,
}

fn subject<'a>(namespaces: &'a OrdinalMap<Symbol, Box<[Label]>>, family: &'a Family) -> Subject<'a> {
    Subject {
        namespace: family.namespace,
        namespace_labels: namespaces.get(&family.namespace).map(|labels| &**labels).unwrap_or_default(),
        labels: &family.labels,
        terminating: family.terminating,
    }
}

fn tolerates_cordon(traits: &Traits) -> bool {
    traits.tolerations.iter().any(|toleration| {
        taints::Tolerance {
            key: toleration.key.as_deref().unwrap_or_default(),
            operator: toleration.operator.as_deref().unwrap_or_default(),
            value: toleration.value.as_deref().unwrap_or_default(),
            effect: toleration.effect.as_deref().unwrap_or_default(),
        }
        .covers(taints::UNSCHEDULABLE, "", "NoSchedule")
    })
}
