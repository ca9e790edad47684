//! Selectors of labels and of nodes, over interned strings.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, TopologySelectorTerm},
    apimachinery::pkg::apis::meta::v1 as meta,
};

use super::ids::{Label, Strings, Symbol, value_of};

/// The key that a node's name is kept under among its labels. No label is called so, since names of labels have no colon.
pub(super) const NAME_FIELD: &str = "field:metadata.name";

/// What is asked of the value of a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Operator {
    /// One of these, sorted.
    In(Box<[Symbol]>),
    /// Absent, or none of these, sorted.
    NotIn(Box<[Symbol]>),
    Exists,
    DoesNotExist,
    /// An integer above.
    Above(i64),
    /// An integer below.
    Below(i64),
    /// Nothing matches: no selector at all, or one that is not valid.
    Never,
}

/// What is asked of a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Requirement {
    pub(super) key: Symbol,
    pub(super) operator: Operator,
}

impl Requirement {
    pub(super) fn matches(&self, labels: &[Label], strings: &Strings) -> bool {
        let value = value_of(labels, self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.binary_search(&value).is_ok()),
            Operator::NotIn(values) => value.is_none_or(|value| values.binary_search(&value).is_err()),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Above(bound) => {
                value.and_then(|value| strings.integer(value)).is_some_and(|it| it > *bound)
            }
            Operator::Below(bound) => {
                value.and_then(|value| strings.integer(value)).is_some_and(|it| it < *bound)
            }
            Operator::Never => false,
        }
    }
}

/// Requirements that all must hold, sorted; none at all select everything.
pub(super) type Conjunction = Box<[Requirement]>;

/// Whether labels meet all requirements.
pub(super) fn all_match(requirements: &[Requirement], labels: &[Label], strings: &Strings) -> bool {
    requirements.iter().all(|requirement| requirement.matches(labels, strings))
}

fn sorted(mut requirements: Vec<Requirement>) -> Conjunction {
    requirements.sort_unstable();
    requirements.dedup();
    requirements.into()
}

fn values(strings: &mut Strings, values: &[String]) -> Box<[Symbol]> {
    let mut values: Vec<_> = values.iter().map(|value| strings.intern(value)).collect();
    values.sort_unstable();
    values.dedup();
    values.into()
}

/// The label selector of a pod rule; `None` selects nothing, the empty one everything.
///
/// `more` are requirements beside it: what `matchLabelKeys` and `mismatchLabelKeys` add.
pub(super) fn label_selector(
    strings: &mut Strings,
    selector: Option<&meta::LabelSelector>,
    more: impl IntoIterator<Item = Requirement>,
) -> Conjunction {
    let Some(selector) = selector else {
        return [Requirement { key: strings.intern(""), operator: Operator::Never }].into();
    };
    let mut all: Vec<Requirement> = more.into_iter().collect();
    for (key, value) in selector.match_labels.iter().flatten() {
        all.push(equals(strings, key, value));
    }
    for expression in selector.match_expressions.iter().flatten() {
        let list = expression.values.as_deref().unwrap_or_default();
        all.push(requirement(strings, &expression.key, &expression.operator, list));
    }
    sorted(all)
}

fn equals(strings: &mut Strings, key: &str, value: &str) -> Requirement {
    Requirement { key: strings.intern(key), operator: Operator::In([strings.intern(value)].into()) }
}

fn requirement(strings: &mut Strings, key: &str, operator: &str, list: &[String]) -> Requirement {
    let integer = || match list {
        [one] => one.parse::<i64>().ok(),
        _ => None,
    };
    let operator = match operator {
        "In" if !list.is_empty() => Operator::In(values(strings, list)),
        "NotIn" if !list.is_empty() => Operator::NotIn(values(strings, list)),
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => integer().map_or(Operator::Never, Operator::Above),
        "Lt" => integer().map_or(Operator::Never, Operator::Below),
        _ => Operator::Never,
    };
    Requirement { key: strings.intern(key), operator }
}

/// What is asked of a node: all of one list, and all of any of the terms, if there are terms.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct NodeSelector {
    pub(super) all: Conjunction,
    pub(super) any: Option<Box<[Conjunction]>>,
}

impl NodeSelector {
    pub(super) fn matches(&self, labels: &[Label], strings: &Strings) -> bool {
        all_match(&self.all, labels, strings)
            && self
                .any
                .as_deref()
                .is_none_or(|terms| terms.iter().any(|term| all_match(term, labels, strings)))
    }

    /// `nodeSelector` and the terms of a required node affinity.
    pub(super) fn read(
        strings: &mut Strings,
        labels: &BTreeMap<String, String>,
        terms: Option<&[NodeSelectorTerm]>,
    ) -> Self {
        let all = labels.iter().map(|(key, value)| equals(strings, key, value)).collect();
        let any = terms.map(|terms| terms.iter().map(|term| node_term(strings, term)).collect());
        Self { all: sorted(all), any }
    }

    /// What `allowedTopologies` of a storage class ask.
    pub(super) fn of_topologies(strings: &mut Strings, terms: &[TopologySelectorTerm]) -> Box<[Conjunction]> {
        let mut read = |term: &TopologySelectorTerm| {
            let expressions = term.match_label_expressions.iter().flatten();
            sorted(expressions.map(|one| requirement(strings, &one.key, "In", &one.values)).collect())
        };
        terms.iter().map(&mut read).collect()
    }
}

/// A term of a node selector; the empty one matches nothing.
pub(super) fn node_term(strings: &mut Strings, term: &NodeSelectorTerm) -> Conjunction {
    let mut read = |one: &NodeSelectorRequirement, key: &str| {
        requirement(strings, key, &one.operator, one.values.as_deref().unwrap_or_default())
    };
    let mut all = Vec::new();
    for expression in term.match_expressions.iter().flatten() {
        all.push(read(expression, &expression.key));
    }
    for field in term.match_fields.iter().flatten() {
        let key = if field.key == "metadata.name" { NAME_FIELD } else { &field.key };
        all.push(read(field, key));
    }
    if all.is_empty() {
        all.push(Requirement { key: strings.intern(""), operator: Operator::Never });
    }
    sorted(all)
}
