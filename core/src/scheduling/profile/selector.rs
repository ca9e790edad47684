//! Whose like a pod is: the selector of default constraints, which nobody writes down.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::scheduling::pod::{Owner, Traits};

/// A controller whose pods are its like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Controller {
    /// Of `v1`.
    ReplicationController,
    /// Of `apps/v1`.
    ReplicaSet,
    /// Of `apps/v1`.
    StatefulSet,
}

impl Controller {
    /// Its kind.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReplicationController => "ReplicationController",
            Self::ReplicaSet => "ReplicaSet",
            Self::StatefulSet => "StatefulSet",
        }
    }

    /// The kind of a pod's owner, if it is one of these.
    pub fn of(owner: &Owner) -> Option<Self> {
        match (&*owner.api_version, &*owner.kind) {
            ("v1", "ReplicationController") => Some(Self::ReplicationController),
            ("apps/v1", "ReplicaSet") => Some(Self::ReplicaSet),
            ("apps/v1", "StatefulSet") => Some(Self::StatefulSet),
            _ => None,
        }
    }
}

/// The selectors of Services and controllers. The same `Arc` is known to be equal to itself without a look.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Workloads {
    /// `spec.selector` of the Services of a namespace; those without one are left out.
    pub services: BTreeMap<Arc<str>, Vec<Arc<BTreeMap<String, String>>>>,
    /// `spec.selector` of controllers, by kind, namespace and name; that of a `ReplicationController` as `matchLabels`.
    pub controllers: BTreeMap<(Controller, Arc<str>, Arc<str>), Arc<LabelSelector>>,
}

impl Eq for Workloads {}

impl Workloads {
    /// What selects the like of a pod: the labels by which Services find it, and what its controller selects by; `None` if
    /// that is nothing.
    ///
    /// Source: kubernetes, `DefaultSelector` in `pkg/scheduler/framework/plugins/helper/spread.go`.
    pub fn selector(&self, traits: &Traits) -> Option<LabelSelector> {
        let mut labels = BTreeMap::new();
        let services = self.services.get(&traits.namespace).into_iter().flatten();
        for service in services {
            if service.iter().all(|(key, value)| traits.labels.get(key) == Some(value)) {
                labels.extend((**service).clone());
            }
        }
        let mut expressions = Vec::new();
        let owner = traits.owner.as_ref();
        if let Some((owner, kind)) = owner.and_then(|owner| Some((owner, Controller::of(owner)?)))
            && let Some(selector) =
                self.controllers.get(&(kind, traits.namespace.clone(), owner.name.clone()))
        {
            let equal = selector.match_labels.iter().flatten();
            if kind == Controller::ReplicationController {
                labels.extend(equal.map(|(key, value)| (key.clone(), value.clone())));
            } else {
                // Both hold, even if a Service's label says otherwise.
                expressions.extend(equal.map(|(key, value)| is(key, value)));
                expressions.extend(selector.match_expressions.iter().flatten().cloned());
            }
        }
        let found = !labels.is_empty() || !expressions.is_empty();
        found.then(|| LabelSelector {
            match_labels: (!labels.is_empty()).then_some(labels),
            match_expressions: (!expressions.is_empty()).then_some(expressions),
        })
    }
}

fn is(key: &str, value: &str) -> LabelSelectorRequirement {
    let values = Some(vec![value.to_owned()]);
    LabelSelectorRequirement { key: key.to_owned(), operator: "In".to_owned(), values }
}
