//! What kube-scheduler is configured to do otherwise, as far as it changes where a pod may run.
//!
//! Nothing of it is written on the pods: the scheduler adds it while it looks at them, and so does the simulation.

mod plugins;
mod read;
mod selector;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::{
    Affinity, NodeSelector, NodeSelectorTerm, Toleration, TopologySpreadConstraint,
};

pub use plugins::{Plugin, PluginSet};
pub use read::{Configuration, Invalid, Problem};
pub use selector::{Controller, Workloads};

use super::{
    devices::is_foreign,
    pod::{Pod, Shape, Traits},
    resources::Resources,
    surroundings::Surroundings,
};
use plugins::Points;

/// What kube-scheduler does otherwise with some pods.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Profile {
    /// Whose pods (`spec.schedulerName`); `None` means all.
    scheduler: Option<Box<str>>,
    /// Terms of node affinity of which one has to hold, beside those of the pod; none means any node.
    added: Box<[NodeSelectorTerm]>,
    /// For pods that have no topology spread constraints of their own; without a selector.
    spread: Box<[TopologySpreadConstraint]>,
    /// Resources that need not be free, by name, or by what stands before the slash.
    ignored: BTreeSet<Box<str>>,
    ignored_groups: BTreeSet<Box<str>>,
    points: Points,
}

impl Profile {
    /// Whether it needs to know [`Workloads`].
    pub fn reads_workloads(&self) -> bool {
        !self.spread.is_empty()
    }

    fn is_of(&self, traits: &Traits) -> bool {
        self.scheduler.as_ref().is_none_or(|scheduler| **scheduler == *traits.scheduler)
    }

    /// Whether a filter refuses nobody.
    pub(super) fn lacks(&self, plugin: Plugin) -> bool {
        self.points.without.has(plugin)
    }

    /// Whether a plugin does not even refuse a pod before it looks at nodes.
    pub(super) fn lacks_pre(&self, plugin: Plugin) -> bool {
        self.lacks(plugin) && self.points.without_pre.has(plugin)
    }

    /// Filters that refuse nobody.
    pub(super) fn without(&self) -> PluginSet {
        self.points.without
    }

    /// Whether a resource may be asked for where there is none.
    ///
    /// Source: kubernetes, `fitsRequest` in `pkg/scheduler/framework/plugins/noderesources/fit.go`.
    pub(super) fn ignores(&self, resource: &str) -> bool {
        let listed = || {
            let group = resource.split('/').next().unwrap_or_default();
            self.ignored.contains(resource) || self.ignored_groups.contains(group)
        };
        self.lacks(Plugin::NodeResourcesFit) || (is_foreign(resource) && listed())
    }

    /// The constraints that a pod without any gets.
    fn default_spread(&self, traits: &Traits, workloads: &Workloads) -> Vec<TopologySpreadConstraint> {
        if self.spread.is_empty() || !traits.spread.is_empty() {
            return Vec::new();
        }
        let Some(selector) = workloads.selector(traits) else { return Vec::new() };
        let of_pod = |rule: &TopologySpreadConstraint| TopologySpreadConstraint {
            label_selector: Some(selector.clone()),
            ..rule.clone()
        };
        self.spread.iter().map(of_pod).collect()
    }
}

impl Surroundings {
    /// What the scheduler does otherwise with pods of these traits, if anything.
    pub(super) fn profile_of(&self, traits: &Traits) -> Option<&Arc<Profile>> {
        self.profile.as_ref().filter(|profile| profile.is_of(traits))
    }

    /// What the scheduler's configuration does with a pod, and nothing on the pod tells.
    pub fn unwritten(&self, pod: &Pod) -> Vec<String> {
        let Some(profile) = self.profile_of(&pod.shape) else { return Vec::new() };
        let mut told = Vec::new();
        for rule in profile.default_spread(&pod.shape, &self.workloads) {
            let (key, skew, unless) = (&rule.topology_key, rule.max_skew, &rule.when_unsatisfiable);
            told.push(format!("topology spread by default over {key}, maxSkew {skew}, {unless}"));
        }
        if !profile.added.is_empty() {
            told.push(format!("required node affinity is added, {} terms", profile.added.len()));
        }
        let ignored = pod.shape.requests.other.keys().filter(|name| profile.ignores(name));
        told.extend(ignored.map(|name| format!("{name} need not be free")));
        told.extend(profile.points.without.iter().map(|filter| format!("the filter {filter:?} is disabled")));
        told
    }

    /// Traits with what the scheduler adds to them: constraints by default, and terms of node affinity.
    ///
    /// Twice makes no difference.
    pub(crate) fn with_defaults<'a>(&self, traits: &'a Arc<Traits>) -> Cow<'a, Arc<Traits>> {
        let Some(profile) = self.profile_of(traits) else { return Cow::Borrowed(traits) };
        let spread = profile.default_spread(traits, &self.workloads);
        let adds = traits.added.is_empty() && !profile.added.is_empty();
        if spread.is_empty() && !adds {
            return Cow::Borrowed(traits);
        }
        let mut judged = (**traits).clone();
        judged.spread.extend(spread);
        if adds {
            judged.added.clone_from(&profile.added);
        }
        Cow::Owned(Arc::new(judged))
    }

    /// What a pod asks of nodes, as a pod would that says itself what the scheduler does otherwise with it.
    ///
    /// Of topology nothing is said: which nodes count for a spread constraint is for the pod's own affinity and tolerations to
    /// say.
    pub(crate) fn as_asked<'a>(&self, shape: &'a Arc<Shape>) -> Cow<'a, Arc<Shape>> {
        let Some(profile) = self.profile_of(shape) else { return Cow::Borrowed(shape) };
        let traits = self.with_defaults(&shape.traits);
        let mut asked = Shape { traits: traits.into_owned(), ..(**shape).clone() };
        if profile.lacks(Plugin::NodeResourcesFit) {
            asked.requests = Resources::default();
        } else {
            asked.requests.other.retain(|name, _| !profile.ignores(name));
        }
        if profile.lacks(Plugin::NodeAffinity) {
            asked.node_selector.clear();
            set_required(&mut asked, None);
        } else if !asked.added.is_empty() {
            let both = both(required(&asked), &asked.added);
            set_required(&mut asked, Some(both));
        }
        if profile.lacks(Plugin::TaintToleration) {
            let any = Toleration { operator: Some("Exists".to_owned()), ..Toleration::default() };
            asked.tolerations.push(any);
        }
        Cow::Owned(Arc::new(asked))
    }
}

fn required(traits: &Traits) -> Option<&[NodeSelectorTerm]> {
    let node = traits.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = node.required_during_scheduling_ignored_during_execution.as_ref()?;
    Some(&required.node_selector_terms)
}

fn set_required(traits: &mut Traits, terms: Option<Vec<NodeSelectorTerm>>) {
    if terms.is_none() && required(traits).is_none() {
        return;
    }
    let affinity: &mut Affinity = traits.affinity.get_or_insert_default();
    let node = affinity.node_affinity.get_or_insert_default();
    node.required_during_scheduling_ignored_during_execution =
        terms.map(|node_selector_terms| NodeSelector { node_selector_terms });
}

/// Terms of which one holds where one of either does.
fn both(own: Option<&[NodeSelectorTerm]>, added: &[NodeSelectorTerm]) -> Vec<NodeSelectorTerm> {
    let Some(own) = own else { return added.to_vec() };
    let join = |one: &NodeSelectorTerm, other: &NodeSelectorTerm| NodeSelectorTerm {
        match_expressions: concat(one.match_expressions.as_ref(), other.match_expressions.as_ref()),
        match_fields: concat(one.match_fields.as_ref(), other.match_fields.as_ref()),
    };
    own.iter().flat_map(|one| added.iter().map(move |other| join(one, other))).collect()
}

fn concat<T: Clone>(one: Option<&Vec<T>>, other: Option<&Vec<T>>) -> Option<Vec<T>> {
    let all: Vec<T> = one.into_iter().chain(other).flatten().cloned().collect();
    (!all.is_empty()).then_some(all)
}
