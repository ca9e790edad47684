//! Karpenter's algebra of requirements: what a pool, a pod, an instance type and an offering say of labels, and whether they
//! can all be had at once (core, `pkg/scheduling/requirement{,s}.go`).

mod hint;
pub mod labels;
mod requirement;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    sync::Arc,
};

use k8s_openapi::api::core::v1::{NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm};
use thiserror::Error;

pub use labels::WellKnownLabels;
pub use requirement::{Operator, Requirement, Selector};

/// Names of fields begin so among those of labels, of which none has a colon.
const FIELD: &str = "field:";

/// Requirements by label; a label that is absent may have any value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requirements(BTreeMap<Arc<str>, Requirement>);

/// Why two sets of requirements cannot be had at once: everything that stands against it, in the order of the labels.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Incompatible(pub Vec<Conflict>);

/// What stands against two sets of requirements at once.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Conflict {
    /// Nothing sets a label that is asked for.
    #[error("label {key:?} does not have known values{}", hint.as_ref().map(|hint| format!(" (typo of {hint:?}?)")).unwrap_or_default())]
    Unknown {
        /// The label.
        key: Arc<str>,
        /// A label that it may be a misspelling of.
        hint: Option<Arc<str>>,
    },
    /// No value satisfies both.
    #[error("key {}, {incoming} not in {existing}", existing.key())]
    Disjoint {
        /// What is asked for.
        incoming: Requirement,
        /// What there is.
        existing: Requirement,
    },
}

impl Requirements {
    /// No requirement.
    pub fn new() -> Self {
        Self::default()
    }

    /// A requirement for each label: exactly its value.
    pub fn of_labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        labels.into_iter().map(|(key, value)| Requirement::is(key, value)).collect()
    }

    /// What one term of a node affinity asks for. An expression whose operator is not known allows no value.
    ///
    /// A field counts as a label that no node to come has: of the only one, the name, nobody knows what it will be.
    pub fn of_term(term: &NodeSelectorTerm) -> Self {
        let field = |field: &NodeSelectorRequirement| {
            of_expression(&NodeSelectorRequirement { key: format!("{FIELD}{}", field.key), ..field.clone() })
        };
        let fields = term.match_fields.iter().flatten().map(field);
        term.match_expressions.iter().flatten().map(of_expression).chain(fields).collect()
    }

    /// The requirements of a pod in the order in which they are tried: its node selector with each term of its required
    /// node affinity, of which one has to hold; with `respect_preferred` the heaviest preferred term is required too.
    ///
    /// Source: core, `NewPodRequirements` and `preferences.go` (terms are dropped from the front).
    pub fn of_pod(
        node_selector: &BTreeMap<String, String>,
        affinity: Option<&NodeAffinity>,
        respect_preferred: bool,
    ) -> Vec<Self> {
        let mut always = Self::of_labels(node_selector);
        let preferred = affinity
            .and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_ref())
            .filter(|_| respect_preferred);
        let heaviest = preferred.into_iter().flatten().rev().max_by_key(|preferred| preferred.weight);
        if let Some(heaviest) = heaviest {
            always.extend(Self::of_term(&heaviest.preference));
        }
        let required = affinity
            .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref())
            .map(|required| required.node_selector_terms.as_slice())
            .unwrap_or_default();
        if required.is_empty() {
            return vec![always];
        }
        required.iter().map(|term| always.clone().and(Self::of_term(term))).collect()
    }

    /// Adds a requirement: with one of the same label, both have to hold.
    pub fn add(&mut self, requirement: Requirement) {
        match self.0.entry(requirement.key().clone()) {
            Entry::Vacant(entry) => {
                entry.insert(requirement);
            }
            Entry::Occupied(mut entry) => {
                let both = requirement.intersection(entry.get());
                entry.insert(both);
            }
        }
    }

    /// These and the others.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.extend(others);
        self
    }

    /// The requirement of a label, if there is one.
    pub fn get(&self, key: &str) -> Option<&Requirement> {
        self.0.get(key)
    }

    /// Whether the label may have the value.
    pub fn allows(&self, key: &str, value: &str) -> bool {
        self.get(key).is_none_or(|requirement| requirement.has(value))
    }

    /// Requirements in the order of their labels.
    pub fn iter(&self) -> impl Iterator<Item = &Requirement> {
        self.0.values()
    }

    /// Whether nothing is required.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether any asks for a number of distinct values.
    pub fn has_min_values(&self) -> bool {
        self.iter().any(|requirement| requirement.min_values().is_some())
    }

    /// Asks for at most so many distinct values of a label; 0 asks for none.
    pub fn relax_min_values(&mut self, key: &str, at_most: u32) {
        if let Some(requirement) = self.0.get_mut(key) {
            let relaxed = requirement.min_values().map(|least| least.min(at_most)).filter(|least| *least > 0);
            *requirement = requirement.clone().with_min_values(relaxed);
        }
    }

    /// Whether what is asked for can be had here: a label that nothing here sets must be one of `may_be_absent`, or be
    /// asked for by an operator that allows its absence; all labels of both must intersect.
    pub fn compatible(&self, incoming: &Self, may_be_absent: &WellKnownLabels) -> Result<(), Incompatible> {
        let mut conflicts: Vec<_> = self
            .unknown(incoming, may_be_absent)
            .map(|requirement| {
                let present = self.0.keys().map(|key| &**key);
                let hint = hint::typo_of(requirement.key(), may_be_absent, present).map(Arc::from);
                Conflict::Unknown { key: requirement.key().clone(), hint }
            })
            .collect();
        conflicts.extend(self.disjoint(incoming).map(|(existing, incoming)| Conflict::Disjoint {
            incoming: incoming.clone(),
            existing: existing.clone(),
        }));
        if conflicts.is_empty() { Ok(()) } else { Err(Incompatible(conflicts)) }
    }

    /// Whether [`Requirements::compatible`] finds nothing against it; builds nothing.
    pub fn is_compatible(&self, incoming: &Self, may_be_absent: &WellKnownLabels) -> bool {
        self.intersects(incoming) && self.unknown(incoming, may_be_absent).next().is_none()
    }

    /// Whether all labels of both intersect; a label that one of them lacks may have any value.
    pub fn intersects(&self, incoming: &Self) -> bool {
        self.disjoint(incoming).next().is_none()
    }

    fn unknown<'a>(
        &'a self,
        incoming: &'a Self,
        may_be_absent: &'a WellKnownLabels,
    ) -> impl Iterator<Item = &'a Requirement> {
        incoming.iter().filter(|requirement| {
            !requirement.operator().allows_absence()
                && !self.0.contains_key(requirement.key())
                && !may_be_absent.contains(requirement.key())
        })
    }

    /// Pairs, ours first, that no value satisfies. Both may still hold where both allow the label to be absent.
    fn disjoint<'a>(
        &'a self,
        incoming: &'a Self,
    ) -> impl Iterator<Item = (&'a Requirement, &'a Requirement)> {
        let swapped = incoming.0.len() > self.0.len();
        let (fewer, more) = if swapped { (self, incoming) } else { (incoming, self) };
        fewer
            .iter()
            .filter_map(move |one| {
                let other = more.0.get(one.key())?;
                Some(if swapped { (one, other) } else { (other, one) })
            })
            .filter(|(existing, incoming)| {
                let both_absent =
                    existing.operator().allows_absence() && incoming.operator().allows_absence();
                !(both_absent || existing.intersects(incoming))
            })
    }

    /// As the entries of a node selector, in the order of the labels.
    pub fn selectors(&self) -> Vec<Selector> {
        self.iter().flat_map(Requirement::selectors).collect()
    }

    /// A value for each label that a node may be given: not for those that it has anyway.
    pub fn labels(&self, well_known: &WellKnownLabels) -> BTreeMap<String, String> {
        self.iter()
            .filter(|requirement| {
                !well_known.contains(requirement.key()) && !labels::is_restricted(requirement.key())
            })
            .filter_map(|requirement| Some((requirement.key().to_string(), requirement.any()?)))
            .collect()
    }
}

fn of_expression(expression: &NodeSelectorRequirement) -> Requirement {
    let operator = Operator::parse(&expression.operator).unwrap_or(Operator::DoesNotExist);
    Requirement::new(&expression.key, operator, expression.values.iter().flatten())
}

impl FromIterator<Requirement> for Requirements {
    fn from_iter<I: IntoIterator<Item = Requirement>>(requirements: I) -> Self {
        let mut all = Self::new();
        all.extend(requirements);
        all
    }
}

impl Extend<Requirement> for Requirements {
    fn extend<I: IntoIterator<Item = Requirement>>(&mut self, requirements: I) {
        requirements.into_iter().for_each(|requirement| self.add(requirement));
    }
}

impl IntoIterator for Requirements {
    type Item = Requirement;
    type IntoIter = std::collections::btree_map::IntoValues<Arc<str>, Requirement>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_values()
    }
}

impl fmt::Display for Requirements {
    /// Sorted texts, without labels that no message names.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().filter(|requirement| !labels::is_restricted(requirement.key()));
        let mut texts: Vec<_> = shown.map(ToString::to_string).collect();
        texts.sort_unstable();
        formatter.write_str(&texts.join(", "))
    }
}

#[cfg(test)]
mod tests;
