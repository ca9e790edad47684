//! Scopes of ResourceQuotas: which pods one is about (Kubernetes, `pkg/quota/v1/evaluator/core/pods.go`).

use k8s_openapi::api::core::v1::{
    Affinity, Container, PodAffinityTerm, PodSpec, ResourceQuota, ScopedResourceSelectorRequirement,
};

use crate::scheduling::Resources;

/// What scopes look at of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traits {
    /// Its quality of service: nothing is requested, and nothing limited.
    pub best_effort: bool,
    /// It has a deadline (`activeDeadlineSeconds`).
    pub terminating: bool,
    /// Its `priorityClassName`.
    pub priority_class: Option<String>,
    /// Its affinity to pods, or from them, names other namespaces.
    pub across_namespaces: bool,
}

impl Traits {
    /// Reads a pod, or a template.
    pub fn read(spec: &PodSpec) -> Self {
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        Self {
            best_effort: spec.resources.is_none() && containers.into_iter().all(asks_for_nothing),
            terminating: spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0),
            priority_class: spec.priority_class_name.clone().filter(|name| !name.is_empty()),
            across_namespaces: spec.affinity.as_ref().is_some_and(names_namespaces),
        }
    }
}

fn asks_for_nothing(container: &Container) -> bool {
    let Some(resources) = &container.resources else { return true };
    [&resources.requests, &resources.limits].into_iter().flatten().all(|list| {
        let amounts = Resources::from_list(list);
        (amounts.cpu, amounts.memory) == (0, 0)
    })
}

fn names_namespaces(affinity: &Affinity) -> bool {
    let to = affinity.pod_affinity.as_ref().map(|affinity| {
        (
            &affinity.required_during_scheduling_ignored_during_execution,
            &affinity.preferred_during_scheduling_ignored_during_execution,
        )
    });
    let from = affinity.pod_anti_affinity.as_ref().map(|affinity| {
        (
            &affinity.required_during_scheduling_ignored_during_execution,
            &affinity.preferred_during_scheduling_ignored_during_execution,
        )
    });
    to.into_iter().chain(from).any(|(required, preferred)| {
        let preferred = preferred.iter().flatten().map(|weighted| &weighted.pod_affinity_term);
        required.iter().flatten().chain(preferred).any(is_across)
    })
}

fn is_across(term: &PodAffinityTerm) -> bool {
    term.namespace_selector.is_some() || term.namespaces.as_ref().is_some_and(|names| !names.is_empty())
}

/// Which pods a quota is about: those that all of these take.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Scopes(Vec<Scope>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    BestEffort(bool),
    Terminating(bool),
    /// The operator, and the classes that it is about.
    PriorityClass(String, Vec<String>),
    AcrossNamespaces,
    /// Of volumes, or of a kind that is not known: no pod.
    NoPod,
}

impl Scopes {
    pub(super) fn of(quota: &ResourceQuota) -> Self {
        let spec = quota.spec.as_ref();
        let named = spec.and_then(|spec| spec.scopes.as_ref()).into_iter().flatten();
        let selector = spec.and_then(|spec| spec.scope_selector.as_ref());
        let selected =
            selector.and_then(|selector| selector.match_expressions.as_ref()).into_iter().flatten();
        let named = named.map(|name| Scope::read(name, "Exists", None));
        let selected = selected.map(|ScopedResourceSelectorRequirement { scope_name, operator, values }| {
            Scope::read(scope_name, operator, values.as_ref())
        });
        Self(named.chain(selected).collect())
    }

    pub(super) fn take(&self, pod: &Traits) -> bool {
        self.0.iter().all(|scope| scope.takes(pod))
    }
}

impl Scope {
    fn read(name: &str, operator: &str, values: Option<&Vec<String>>) -> Self {
        match name {
            "BestEffort" => Self::BestEffort(true),
            "NotBestEffort" => Self::BestEffort(false),
            "Terminating" => Self::Terminating(true),
            "NotTerminating" => Self::Terminating(false),
            "CrossNamespacePodAffinity" => Self::AcrossNamespaces,
            "PriorityClass" => Self::PriorityClass(operator.to_owned(), values.cloned().unwrap_or_default()),
            _ => Self::NoPod,
        }
    }

    fn takes(&self, pod: &Traits) -> bool {
        match self {
            Self::BestEffort(wanted) => pod.best_effort == *wanted,
            Self::Terminating(wanted) => pod.terminating == *wanted,
            Self::AcrossNamespaces => pod.across_namespaces,
            Self::NoPod => false,
            Self::PriorityClass(operator, classes) => {
                let class = pod.priority_class.as_ref();
                let is_named = class.is_some_and(|class| classes.contains(class));
                match operator.as_str() {
                    "In" => is_named,
                    "NotIn" => !is_named,
                    "Exists" => class.is_some(),
                    "DoesNotExist" => class.is_none(),
                    _ => false,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn traits(spec: &Value) -> Traits {
        Traits::read(&serde_json::from_value(spec.clone()).unwrap())
    }

    #[test]
    fn pods_are_told_apart_as_the_api_server_does() {
        let container = |resources: Value| json!({"name": "c", "resources": resources});
        let of = |container: Value| json!({"containers": [container]});
        for (spec, best_effort) in [
            (of(json!({"name": "c"})), true),
            (of(container(json!({"requests": {"cpu": "0", "nvidia.com/gpu": "1"}}))), true),
            (of(container(json!({"requests": {"cpu": "1m"}}))), false),
            (of(container(json!({"limits": {"memory": "1Mi"}}))), false),
            (
                json!({"containers": [], "initContainers": [container(json!({"requests": {"cpu": "1"}}))]}),
                false,
            ),
            (json!({"containers": [], "resources": {"requests": {"cpu": "1"}}}), false),
        ] {
            assert_eq!(traits(&spec).best_effort, best_effort, "{spec}");
        }
        let term = |more: Value| {
            let mut term = json!({"topologyKey": "zone"});
            term.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            term
        };
        let required = |term: Value| json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]});
        let preferred = |term: Value| json!({"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term}]});
        for (affinity, across) in [
            (json!({"podAffinity": required(term(json!({})))}), false),
            (json!({"podAffinity": required(term(json!({"namespaces": ["a"]})))}), true),
            (json!({"podAntiAffinity": preferred(term(json!({"namespaceSelector": {}})))}), true),
            (json!({"podAntiAffinity": preferred(term(json!({"namespaces": []})))}), false),
        ] {
            assert_eq!(
                traits(&json!({"containers": [], "affinity": affinity})).across_namespaces,
                across,
                "{affinity}"
            );
        }
        let rest =
            traits(&json!({"containers": [], "activeDeadlineSeconds": 60, "priorityClassName": "high"}));
        assert_eq!((rest.terminating, rest.priority_class.as_deref()), (true, Some("high")));
    }

    #[test]
    fn a_quota_is_about_the_pods_that_all_of_its_scopes_take() {
        let plain = || Traits::default();
        let high = || Traits { priority_class: Some("high".to_owned()), ..plain() };
        let class = |operator: &str, values: &[&str]| {
            json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
        };
        for (spec, pod, takes) in [
            (json!({}), plain(), true),
            (json!({"scopes": ["BestEffort"]}), plain(), false),
            (json!({"scopes": ["BestEffort"]}), Traits { best_effort: true, ..plain() }, true),
            (json!({"scopes": ["NotBestEffort"]}), plain(), true),
            (json!({"scopes": ["Terminating"]}), plain(), false),
            (json!({"scopes": ["Terminating"]}), Traits { terminating: true, ..plain() }, true),
            (json!({"scopes": ["NotTerminating", "BestEffort"]}), plain(), false),
            (json!({"scopes": ["CrossNamespacePodAffinity"]}), plain(), false),
            (
                json!({"scopes": ["CrossNamespacePodAffinity"]}),
                Traits { across_namespaces: true, ..plain() },
                true,
            ),
            (json!({"scopes": ["VolumeAttributesClass"]}), plain(), false),
            (json!({"scopes": ["PriorityClass"]}), plain(), false),
            (json!({"scopes": ["PriorityClass"]}), high(), true),
            (class("In", &["high", "low"]), high(), true),
            (class("In", &["low"]), high(), false),
            (class("NotIn", &["low"]), high(), true),
            (class("NotIn", &["low"]), plain(), true),
            (class("Exists", &[]), plain(), false),
            (class("DoesNotExist", &[]), plain(), true),
        ] {
            let quota = serde_json::from_value(json!({"spec": spec})).unwrap();
            assert_eq!(Scopes::of(&quota).take(&pod), takes, "{spec} {pod:?}");
        }
    }
}
