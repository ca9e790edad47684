//! What NodeOverlays make of the instance types of pools: other prices, and resources that nobody else knows of.
//!
//! Overlays count in the order of their weights, the greatest first; among equals the name that comes last in the alphabet goes
//! first. The first overlay that reaches an offering decides its price, the first that reaches an instance type how much it has
//! of each resource. Two of one weight that decide the same contradict each other: the later one does not hold at all.
//!
//! Source: core, `pkg/controllers/nodeoverlay`, `pkg/apis/v1alpha1`. There an overlay is compared with the last of its weight
//! only; here with all of them.

mod price;
#[cfg(test)]
mod tests;

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use kube::ResourceExt as _;
use thiserror::Error;

use super::{
    cluster::labels_of,
    instance_type::InstanceType,
    requirements::{
        Operator, Requirements, WellKnownLabels,
        labels::{CAPACITY_TYPE, ON_DEMAND, RESERVED, SPOT},
    },
};
use crate::{
    api::karpenter::{NodeOverlay, NodePoolSpec, OverlayRequirement},
    scheduling::Resources,
};
use price::PriceChange;

/// Resources that an overlay may not change: whoever schedules reads them off the machine.
const STANDARD: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "pods"];

/// What a pool offers before any overlay.
#[derive(Debug, Clone, Copy)]
pub struct Offers<'a> {
    /// Its name.
    pub pool: &'a str,
    /// What it says.
    pub spec: &'a NodePoolSpec,
    /// All instance types of its node class.
    pub types: &'a [Arc<InstanceType>],
}

/// What becomes of overlays and of what pools offer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evaluation {
    /// Overlays, by name, that do not hold, and why.
    pub problems: BTreeMap<String, Problem>,
    /// The instance types of each pool, in the order in which they came.
    pub types: BTreeMap<String, Arc<[Arc<InstanceType>]>>,
}

/// Why an overlay does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// It says two things of the price.
    #[error("spec.price and spec.priceAdjustment are both set; leave one out")]
    TwoPrices,
    /// Its price is none.
    #[error("spec.price {0:?} is no price; write dollars an hour, such as 0.25")]
    Price(String),
    /// What it adds to the price is no amount.
    #[error(
        "spec.priceAdjustment {0:?} is no change of a price; write dollars an hour such as +0.05 or -0.05, or a percentage \
         such as +10% or -10%, at least -100%"
    )]
    PriceAdjustment(String),
    /// It changes what only the machine can tell.
    #[error("spec.capacity {0:?} is what the machine has; only other resources can be added")]
    Capacity(String),
    /// An operator that there is not.
    #[error(
        "requirement {key:?}: {operator:?} is no operator; write In, NotIn, Exists, DoesNotExist, Gt, Lt, Gte or Lte"
    )]
    Operator {
        /// The label.
        key: String,
        /// What is written there.
        operator: String,
    },
    /// An operator without what it compares with.
    #[error("requirement {key:?}: operator {operator} needs {}", if operator.ends_with("In") { "a value" } else { "one integer, not below zero" })]
    Values {
        /// The label.
        key: String,
        /// The operator.
        operator: String,
    },
    /// Capacity types of which none is one.
    #[error("requirement \"{CAPACITY_TYPE}\": none of {0:?} is on-demand, reserved or spot")]
    CapacityTypes(Vec<String>),
    /// Another overlay decides the same.
    #[error(
        "conflict with another overlay: {with:?} has the same weight, {weight}, and says {what} of {instance_type} in NodePool \
         {pool:?} too; give one of them another weight"
    )]
    Conflict {
        /// The other overlay, which holds.
        with: String,
        /// The weight of both.
        weight: i32,
        /// What both decide: the price or a resource.
        what: String,
        /// An instance type that both reach.
        instance_type: String,
        /// A pool that offers it.
        pool: String,
    },
}

/// An overlay as it is applied.
#[derive(Debug)]
struct Overlay {
    name: String,
    weight: i32,
    requirements: Requirements,
    price: Option<PriceChange>,
    /// Amounts of resources, in the units of [`Resources`].
    capacity: BTreeMap<Box<str>, i64>,
}

/// An instance type of a pool, as overlays select it: with the labels that the pool gives its nodes.
struct Candidate<'a> {
    pool: &'a str,
    of: &'a Arc<InstanceType>,
    labels: Requirements,
}

/// Overlays, by their place in the order, that decide the same, with what it is.
type Conflicts = BTreeMap<(usize, usize), Problem>;

/// Reads overlays, finds those that hold, and applies them to what each pool offers. An overlay that contradicts one before it
/// holds nowhere. Neither the order of the overlays nor that of the pools matters.
pub fn evaluate(
    overlays: &[Arc<NodeOverlay>],
    pools: &[Offers<'_>],
    well_known: &WellKnownLabels,
) -> Evaluation {
    let mut problems = BTreeMap::new();
    let mut readable = Vec::new();
    for overlay in overlays {
        match Overlay::read(overlay) {
            Ok(read) => readable.push(read),
            Err(problem) => drop(problems.insert(overlay.name_any(), problem)),
        }
    }
    readable.sort_by(|left, right| {
        (Reverse(left.weight), Reverse(&left.name)).cmp(&(Reverse(right.weight), Reverse(&right.name)))
    });
    let mut conflicts = conflicts(&readable, pools, well_known);
    let mut held: Vec<usize> = Vec::new();
    for (at, overlay) in readable.iter().enumerate() {
        match held.iter().find_map(|before| conflicts.remove(&(*before, at))) {
            Some(conflict) => drop(problems.insert(overlay.name.clone(), conflict)),
            None => held.push(at),
        }
    }
    let held: Vec<&Overlay> = held.into_iter().map(|at| &readable[at]).collect();
    let apply = |candidate: Candidate<'_>| candidate.overlaid(&held, well_known);
    let types = pools.iter().map(|offers| (offers.pool.to_owned(), candidates(offers).map(apply).collect()));
    Evaluation { problems, types: types.collect() }
}

/// What contradicts what. Of the places where two do, the first by the names of pool and instance type is told.
fn conflicts(overlays: &[Overlay], pools: &[Offers<'_>], well_known: &WellKnownLabels) -> Conflicts {
    let mut conflicts = Conflicts::new();
    let rivals: Vec<_> = (0..overlays.len())
        .flat_map(|second| (0..second).map(move |first| (first, second)))
        .filter(|(first, second)| overlays[*first].may_contradict(&overlays[*second]))
        .collect();
    if rivals.is_empty() {
        return conflicts;
    }
    let mut pools: Vec<_> = pools.iter().collect();
    pools.sort_by_key(|offers| offers.pool);
    for offers in pools {
        let mut candidates: Vec<_> = candidates(offers).collect();
        candidates.sort_by(|left, right| left.of.name.cmp(&right.of.name));
        for candidate in candidates {
            let reached: Vec<_> =
                overlays.iter().map(|overlay| candidate.reached(overlay, well_known)).collect();
            for &(first, second) in &rivals {
                let what = overlays[first].contradicts(&overlays[second], &reached[first], &reached[second]);
                let conflict = |what| Problem::Conflict {
                    with: overlays[first].name.clone(),
                    weight: overlays[first].weight,
                    what,
                    instance_type: candidate.of.name.to_string(),
                    pool: candidate.pool.to_owned(),
                };
                if let Some(what) = what {
                    conflicts.entry((first, second)).or_insert_with(|| conflict(what));
                }
            }
        }
    }
    conflicts
}

fn candidates<'a>(offers: &Offers<'a>) -> impl Iterator<Item = Candidate<'a>> {
    let pool = offers.pool;
    let of_pool = labels_of(pool, offers.spec);
    let of_pool = Requirements::of_labels(&of_pool);
    offers.types.iter().map(move |of| {
        let labels = of_pool.clone().and(of.requirements.clone());
        Candidate { pool, of, labels }
    })
}

impl Candidate<'_> {
    /// The offerings that an overlay means, by their places.
    fn reached(&self, overlay: &Overlay, well_known: &WellKnownLabels) -> Vec<usize> {
        if !self.labels.is_compatible(&overlay.requirements, &WellKnownLabels::none()) {
            return Vec::new();
        }
        let offerings = self.of.offerings.iter().enumerate();
        offerings
            .filter(|(_, offering)| overlay.requirements.is_compatible(&offering.requirements, well_known))
            .map(|(at, _)| at)
            .collect()
    }

    /// The instance type after these overlays, of which earlier ones decide.
    fn overlaid(&self, overlays: &[&Overlay], well_known: &WellKnownLabels) -> Arc<InstanceType> {
        let mut prices: BTreeMap<usize, f64> = BTreeMap::new();
        let mut capacity: BTreeMap<Box<str>, i64> = BTreeMap::new();
        for overlay in overlays {
            let reached = self.reached(overlay, well_known);
            if !reached.is_empty() {
                for (resource, amount) in &overlay.capacity {
                    capacity.entry(resource.clone()).or_insert(*amount);
                }
            }
            for (at, change) in reached.into_iter().filter_map(|at| Some((at, overlay.price?))) {
                prices.entry(at).or_insert_with(|| change.apply(self.of.offerings[at].price));
            }
        }
        if prices.is_empty() && capacity.is_empty() {
            return self.of.clone();
        }
        let mut changed = (**self.of).clone();
        changed.overlaid.price = !prices.is_empty();
        for (at, price) in prices {
            changed.offerings[at].price = price;
        }
        if !capacity.is_empty() {
            changed.overlaid.capacity = true;
            changed.set_resources(capacity);
        }
        Arc::new(changed)
    }
}

impl Overlay {
    fn read(overlay: &NodeOverlay) -> Result<Self, Problem> {
        let spec = &overlay.spec;
        spec.requirements.iter().try_for_each(check)?;
        let capacity = spec.capacity.clone().unwrap_or_default();
        if let Some(standard) = STANDARD.into_iter().find(|name| capacity.contains_key(*name)) {
            return Err(Problem::Capacity(standard.to_owned()));
        }
        Ok(Self {
            name: overlay.name_any(),
            weight: spec.weight.unwrap_or(0),
            requirements: spec.requirements.iter().map(OverlayRequirement::read).collect(),
            price: PriceChange::read(spec)?,
            capacity: Resources::from_list(&capacity).other,
        })
    }

    /// Whether two decide the same where both reach.
    fn may_contradict(&self, other: &Self) -> bool {
        let same = self.price.is_some() && other.price.is_some() || self.shared(other).is_some();
        self.weight == other.weight && same
    }

    /// The first resource that both set.
    fn shared(&self, other: &Self) -> Option<&str> {
        self.capacity.keys().find(|name| other.capacity.contains_key(*name)).map(|name| &**name)
    }

    /// What two of one weight both decide of an instance type, of whose offerings they reach these.
    fn contradicts(&self, other: &Self, own: &[usize], others: &[usize]) -> Option<String> {
        let both_price = self.price.is_some() && other.price.is_some();
        if both_price && own.iter().any(|at| others.contains(at)) {
            return Some("the price".to_owned());
        }
        let both_reach = !own.is_empty() && !others.is_empty();
        self.shared(other).filter(|_| both_reach).map(|name| format!("how much {name}"))
    }
}

/// What the schema asks of a requirement, for objects that it has not seen, and what it cannot say (core,
/// `nodeoverlay_validation.go`).
fn check(requirement: &OverlayRequirement) -> Result<(), Problem> {
    let OverlayRequirement { key, operator, values } = requirement;
    let Some(known) = Operator::parse(operator) else {
        return Err(Problem::Operator { key: key.clone(), operator: operator.clone() });
    };
    let is_bound = || matches!(values.as_slice(), [one] if one.parse::<u32>().is_ok());
    let is_complete = match known {
        Operator::In | Operator::NotIn => !values.is_empty(),
        Operator::Gt | Operator::Lt | Operator::Gte | Operator::Lte => is_bound(),
        Operator::Exists | Operator::DoesNotExist => true,
    };
    if !is_complete {
        return Err(Problem::Values { key: key.clone(), operator: operator.clone() });
    }
    let is_type = |value: &String| [ON_DEMAND, RESERVED, SPOT].contains(&value.as_str());
    if key == CAPACITY_TYPE && known == Operator::In && !values.iter().any(is_type) {
        return Err(Problem::CapacityTypes(values.clone()));
    }
    Ok(())
}
