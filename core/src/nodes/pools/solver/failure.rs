//! Why pods go nowhere, pool by pool, in Karpenter's words.

use std::{fmt, sync::Arc};

use k8s_openapi::api::core::v1::Taint;
use thiserror::Error;

use super::{mask::first_common, run::Run};
use crate::{
    nodes::pools::{
        launch::MinValuesUnmet,
        select::{self, Unschedulable},
    },
    scheduling::{Reason, Resources, Unmet, taints::tolerates},
};

/// A pod that goes nowhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The pod, as a place in the list that was solved.
    pub pod: usize,
    /// Pools, and why each has no node for it.
    pub reasons: Vec<(Arc<str>, Refusal)>,
    /// Its gang, if it waits for the rest of it.
    pub gang: Option<Unmet>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(gang) = &self.gang {
            let separator = if self.reasons.is_empty() { "" } else { "; " };
            write!(f, "{gang}{separator}")?;
        } else if self.reasons.is_empty() {
            return f.write_str("there is no NodePool that is ready");
        }
        for (at, (pool, why)) in self.reasons.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}incompatible with nodepool {pool:?}, {why}")?;
        }
        Ok(())
    }
}

/// Why a pool has no node for a pod.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Refusal {
    /// The pod does not tolerate the pool's taint.
    #[error("did not tolerate taint (taint={}={}:{})", .0.key, .0.value.as_deref().unwrap_or_default(), .0.effect)]
    Taint(Box<Taint>),
    /// Requirements, resources or offerings.
    #[error(transparent)]
    Unschedulable(Box<Unschedulable>),
    /// The claims of its volumes.
    #[error("{0}")]
    Volume(Reason),
    /// Its claims of devices.
    #[error("claims of devices: {0}")]
    Devices(Reason),
    /// No instance type is left below the limits.
    #[error("all available instance types exceed limits for nodepool")]
    Limits,
    /// No node is left below the limits.
    #[error("node limits have been exhausted for nodepool")]
    NodeLimit,
    /// The pool has no instance types at all.
    #[error("nodepool requirements filtered out all available instance types")]
    NoTypes,
    /// Topology rules leave no domain.
    #[error("unsatisfiable topology constraint, key={keys}")]
    Topology {
        /// The topology keys, separated by commas.
        keys: String,
    },
}

impl Refusal {
    pub(super) fn min_values(unmet: MinValuesUnmet) -> Self {
        Self::Unschedulable(Box::new(Unschedulable::MinValues(unmet)))
    }
}

impl Run<'_, '_> {
    /// Why pools have no node for the pods of a plan.
    pub(super) fn refusals(&self, plan: usize) -> Vec<(Arc<str>, Refusal)> {
        let markets = 0..self.catalog.markets.len();
        let pool = |market: usize| self.catalog.markets[market].pool.name.clone();
        markets.map(|market| (pool(market), self.refusal(plan, market))).collect()
    }

    fn refusal(&self, plan: usize, market: usize) -> Refusal {
        let plan = &self.plans[plan];
        let kind = &self.catalog.kinds[plan.kind];
        let pool = self.catalog.markets[market].pool;
        let tolerated =
            |taint: &&Taint| kind.shape.tolerations.iter().any(|toleration| tolerates(toleration, taint));
        if let Some(taint) = pool.taints.iter().find(|taint| !tolerated(taint)) {
            return Refusal::Taint(Box::new(taint.clone()));
        }
        if let Some(reason) = self.snapshot.impossible(kind.class) {
            return Refusal::Volume(reason.clone());
        }
        if let Some(refusal) = self.catalog.lacking.get(&(kind.class, market)) {
            return refusal.clone();
        }
        if self.tried[market] && self.catalog.presuming.contains(&(kind.class, market)) {
            return Refusal::Devices(Reason::DevicesOfNewNode);
        }
        if self.catalog.markets[market].all.is_empty() {
            return Refusal::NoTypes;
        }
        if self.is_exhausted(market) {
            return Refusal::NodeLimit;
        }
        if let Some(why) = self.alone(kind, market) {
            return why;
        }
        let keys = plan.rules.by_key.iter().map(|rules| &*self.catalog.keys[rules.key].name);
        let keys: Vec<&str> = keys.collect();
        if keys.is_empty() { Refusal::Limits } else { Refusal::Topology { keys: keys.join(",") } }
    }

    /// Why a pool would have no node for a pod even if it were the only one.
    fn alone(&self, kind: &super::kind::Kind, market: usize) -> Option<Refusal> {
        let options = &self.catalog.options;
        let (pool, fit) = (self.catalog.markets[market].pool, kind.fits[market].as_ref());
        let fits = fit.zip(self.catalog.markets[market].roomy(&kind.requests));
        let fits = fits.and_then(|(fit, [cpu, memory, storage, pods])| {
            first_common(0, [&fit.offers, cpu, memory, storage, pods])
        });
        if fits.is_some() && !pool.requirements.has_min_values() {
            return None;
        }
        let pool = select::Pool {
            requirements: pool.requirements.clone(),
            types: pool.types,
            daemons: Resources::default(),
            min_values: options.min_values,
            most_types: options.most_types,
            well_known: &options.well_known,
        };
        let pod = crate::scheduling::Pod { shape: kind.shape.clone(), ..Default::default() };
        let (_, why) = select::pack(&pool, &[pod]).unschedulable.pop()?;
        Some(Refusal::Unschedulable(Box::new(why)))
    }
}
