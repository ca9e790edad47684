//! The zones that pods which wait are bound to (core, `computeEffectiveZoneFromPod` of
//! `pkg/controllers/provisioning/scheduling/scheduler.go`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::run::Run;
use crate::{
    nodes::{
        buffer::is_virtual,
        pools::requirements::{Operator, Requirements, labels::ZONE},
    },
    scheduling::{
        Pod,
        pod::{Phase, Scheduled},
        surroundings::{Claim, Surroundings},
    },
};

/// Where a pod could go as far as its own rules, its volumes and topology rules say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Zones {
    /// To this one alone.
    One(Arc<str>),
    /// To several.
    Flexible,
    /// Nowhere: what it asks for and what its volumes and topology rules allow have no zone in common.
    None,
}

impl Zones {
    /// Its name in metrics.
    pub fn label(&self) -> &str {
        match self {
            Self::One(zone) => zone,
            Self::Flexible => "flexible",
            Self::None => "none",
        }
    }
}

type Names = BTreeSet<Arc<str>>;

impl Run<'_, '_> {
    /// How many pods that wait are bound to which zones. It is asked before pods are placed.
    pub(super) fn zones(&self) -> BTreeMap<Zones, usize> {
        let mut counts = BTreeMap::new();
        for group in &self.groups {
            let waiting = group.pods.iter().filter(|pod| waits(&self.pods[**pod])).count();
            if let (1.., Some(plan)) = (waiting, group.levels.last()) {
                let zones = self.zones_of(*plan, &self.pods[group.pods[0]]);
                *counts.entry(zones).or_default() += waiting;
            }
        }
        counts
    }

    /// The zones of a pod without its preferences.
    fn zones_of(&self, plan: usize, pod: &Pod) -> Zones {
        let asked = self.catalog.kinds[self.plans[plan].kind].requirements.get(ZONE);
        let by_rules = self.zones_by_rules(plan);
        let by_volumes = zones_of_volumes(pod, self.snapshot.surroundings());
        let named =
            asked.filter(|asked| asked.operator() == Operator::In).map(|asked| asked.values().clone());
        let Some(zones) = named.or_else(|| by_volumes.clone()).or_else(|| by_rules.clone()) else {
            return Zones::Flexible;
        };
        let by_others = [by_volumes, by_rules];
        let mut left = zones.into_iter().filter(|zone| {
            asked.is_none_or(|asked| asked.has(zone))
                && by_others.iter().flatten().all(|names| names.contains(zone))
        });
        match (left.next(), left.next()) {
            (None, _) => Zones::None,
            (Some(zone), None) => Zones::One(zone),
            _ => Zones::Flexible,
        }
    }

    /// The zones that topology rules of a pod allow; `None` if it has none about zones.
    fn zones_by_rules(&self, plan: usize) -> Option<Names> {
        let keys = &self.catalog.keys;
        let rules = &self.plans[plan].rules;
        let at =
            rules.by_key.iter().position(|rules| &*keys[rules.key].name == ZONE && rules.rules.is_own())?;
        let allowed = &rules.allowed(self.snapshot, keys)[at];
        let zones = keys[rules.by_key[at].key].values.iter().enumerate();
        Some(zones.filter(|(at, _)| allowed.values.has(*at)).map(|(_, zone)| zone.name.clone()).collect())
    }
}

/// Whether a pod has yet to run, and is there rather than expected or kept room for.
fn waits(pod: &Pod) -> bool {
    let is_there = pod.node.is_some() || matches!(pod.scheduled, Scheduled::Unschedulable(_));
    pod.phase == Phase::Pending && is_there && !is_virtual(pod)
}

/// The zones where all volumes of a pod are, or can be made; `None` if they name none.
fn zones_of_volumes(pod: &Pod, surroundings: &Surroundings) -> Option<Names> {
    let claims = pod.claims.iter().filter_map(|name| {
        let claim = surroundings.claims.get(&(pod.shape.namespace.clone(), name.clone()))?;
        zones_of_claim(claim, surroundings)
    });
    claims.reduce(|all, one| &all & &one)
}

fn zones_of_claim(claim: &Claim, surroundings: &Surroundings) -> Option<Names> {
    if let Some(name) = &claim.volume {
        let affinity = surroundings.volumes.get(name)?.node_affinity.as_ref()?;
        return affinity
            .node_selector_terms
            .iter()
            .map(|term| named(&Requirements::of_term(term)))
            .collect::<Option<Vec<_>>>()
            .map(join);
    }
    let class = surroundings.classes.get(claim.class.as_ref()?)?;
    let terms = class.allowed_topologies.iter().map(|term| {
        let labels = term.match_label_expressions.iter().flatten();
        let zones: Vec<_> =
            labels.filter(|label| label.key == ZONE).flat_map(|label| &label.values).collect();
        (!zones.is_empty()).then(|| zones.into_iter().map(|zone| zone.as_str().into()).collect())
    });
    terms.collect::<Option<Vec<_>>>().filter(|terms| !terms.is_empty()).map(join)
}

/// The zones that requirements name.
fn named(requirements: &Requirements) -> Option<Names> {
    let zone = requirements.get(ZONE).filter(|zone| zone.operator() == Operator::In)?;
    Some(zone.values().clone())
}

/// What any of them names.
fn join(names: Vec<Names>) -> Names {
    names.into_iter().flatten().collect()
}
