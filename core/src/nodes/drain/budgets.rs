//! PodDisruptionBudgets, and what is left of them while nodes are chosen.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{api::policy::v1::PodDisruptionBudget, apimachinery::pkg::apis::meta::v1::LabelSelector};

use crate::scheduling::Pod;

/// A PodDisruptionBudget as decisions see it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Budget {
    /// Its namespace; it covers pods of this one alone.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// The pods that it covers; absent covers none, empty covers all.
    pub selector: Option<LabelSelector>,
    /// Evictions that it allows now.
    pub allowed: i32,
    /// Whether pods that are not ready may always be evicted (`unhealthyPodEvictionPolicy: AlwaysAllow`).
    pub always_allows_unhealthy: bool,
}

impl Budget {
    /// Reads a budget of the API. Before its controller has counted, it allows nothing.
    pub fn read(budget: &PodDisruptionBudget) -> Self {
        let spec = budget.spec.as_ref();
        let policy = spec.and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref());
        Self {
            namespace: budget.metadata.namespace.as_deref().unwrap_or_default().into(),
            name: budget.metadata.name.as_deref().unwrap_or_default().into(),
            selector: spec.and_then(|spec| spec.selector.clone()),
            allowed: budget.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or(0),
            always_allows_unhealthy: policy == Some("AlwaysAllow"),
        }
    }

    /// Whether it covers a pod.
    pub fn covers(&self, pod: &Pod) -> bool {
        let labels = &pod.shape.labels;
        *self.namespace == *pod.shape.namespace
            && self.selector.as_ref().is_some_and(|selector| selects(selector, labels))
    }
}

/// Whether a selector selects these labels; one with an unknown operator selects nothing.
pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|expression| {
            let value = labels.get(&expression.key);
            let listed = |value: &String| expression.values.iter().flatten().any(|other| other == value);
            match expression.operator.as_str() {
                "In" => value.is_some_and(listed),
                "NotIn" => !value.is_some_and(listed),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// Budgets, less the evictions that have been decided upon in a pass.
#[derive(Debug, Clone, Default)]
pub struct Budgets(BTreeMap<Arc<str>, Vec<Budget>>);

/// Whether pods can be evicted under their budgets.
#[derive(Debug, Clone, PartialEq)]
pub enum Evictable {
    /// All at once.
    InParallel,
    /// All, but some only after others are back.
    InTurn,
    /// Not this one.
    Not(Arc<Pod>),
}

impl Budgets {
    /// Budgets as they are now.
    pub fn new(budgets: impl IntoIterator<Item = Budget>) -> Self {
        let mut by_namespace: BTreeMap<Arc<str>, Vec<Budget>> = BTreeMap::new();
        for budget in budgets {
            by_namespace.entry(budget.namespace.clone()).or_default().push(budget);
        }
        Self(by_namespace)
    }

    /// The budgets that cover a pod.
    pub fn of<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = &'a Budget> {
        self.0.get(&pod.shape.namespace).into_iter().flatten().filter(|budget| budget.covers(pod))
    }

    /// Whether these pods can be evicted.
    pub fn can_evict(&self, pods: &[Arc<Pod>]) -> Evictable {
        let mut needed: BTreeMap<(&str, &str), i32> = BTreeMap::new();
        let mut in_turn = false;
        for pod in pods {
            for budget in self.of(pod) {
                let count = needed.entry((&budget.namespace, &budget.name)).or_default();
                *count += 1;
                if budget.allowed < 1 {
                    return Evictable::Not(pod.clone());
                }
                in_turn |= budget.allowed < *count;
            }
        }
        if in_turn { Evictable::InTurn } else { Evictable::InParallel }
    }

    /// Takes these pods' evictions off; a budget that falls below zero allows nothing, as at zero.
    pub fn evict(&mut self, pods: &[Arc<Pod>]) {
        for pod in pods {
            let budgets = self.0.get_mut(&pod.shape.namespace).into_iter().flatten();
            for budget in budgets.filter(|budget| budget.covers(pod)) {
                budget.allowed = budget.allowed.saturating_sub(1);
            }
        }
    }

    /// What each budget still allows, in order of namespace.
    pub fn allowed(&self) -> impl Iterator<Item = &Budget> {
        self.0.values().flatten()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scheduling::pod::{Shape, Traits};

    fn labels(app: u8) -> BTreeMap<String, String> {
        BTreeMap::from([("app".to_owned(), app.to_string())])
    }

    fn pod(app: u8) -> Arc<Pod> {
        let shape = Shape::from(Traits { labels: labels(app), ..Traits::default() });
        Arc::new(Pod { shape: Arc::new(shape), ..Pod::default() })
    }

    fn budget(app: u8, allowed: i32) -> Budget {
        let selector = LabelSelector { match_labels: Some(labels(app)), ..LabelSelector::default() };
        Budget { name: app.to_string().into(), selector: Some(selector), allowed, ..Budget::default() }
    }

    proptest! {
        #[test]
        fn bookkeeping_counts_every_eviction_and_tells_what_goes_at_once(
            allowed in prop::collection::vec(0i32..4, 1..4),
            apps in prop::collection::vec(0u8..4, 0..8),
        ) {
            let before: Vec<Budget> = (0..).zip(&allowed).map(|(app, allowed)| budget(app, *allowed)).collect();
            let mut budgets = Budgets::new(before.clone());
            let pods: Vec<_> = apps.iter().copied().map(pod).collect();
            let evictable = budgets.can_evict(&pods);
            budgets.evict(&pods);
            let needed = |app: usize| apps.iter().filter(|other| usize::from(**other) == app).count();
            let mut enough = true;
            for (app, (budget, before)) in budgets.allowed().zip(&before).enumerate() {
                let needed = i32::try_from(needed(app)).unwrap();
                prop_assert_eq!(budget.allowed, before.allowed - needed);
                enough &= needed <= before.allowed;
            }
            prop_assert_eq!(evictable == Evictable::InParallel, enough);
        }
    }

    #[test]
    fn a_budget_without_a_selector_covers_nothing_and_an_empty_one_all() {
        let selects = |selector| Budget { selector, ..Budget::default() }.covers(&pod(1));
        assert!(!selects(None));
        assert!(selects(Some(LabelSelector::default())));
    }
}
