//! Instance types, and the terms on which each can be had (core, `pkg/cloudprovider/types.go`).

use std::{collections::BTreeMap, sync::Arc};

use super::requirements::{
    Requirements, WellKnownLabels,
    labels::{CAPACITY_TYPE, ON_DEMAND, RESERVED, SPOT, ZONE},
};
use crate::scheduling::Resources;

/// Capacity types in the order in which they are preferred.
pub const CAPACITY_TYPES: [&str; 3] = [RESERVED, SPOT, ON_DEMAND];

/// A type of machine.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceType {
    /// Its name.
    pub name: Arc<str>,
    /// What the labels of a node of it are, or may be.
    pub requirements: Requirements,
    /// What a machine has.
    pub capacity: Resources,
    /// What the kubelet, the system and the eviction threshold keep of it.
    pub overhead: Resources,
    /// The terms on which it can be had, those that are sold out included.
    pub offerings: Vec<Offering>,
    /// What of it overlays have changed.
    pub overlaid: Overlaid,
    allocatable: Resources,
}

/// What overlays have changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overlaid {
    /// The price of an offering.
    pub price: bool,
    /// What a machine has.
    pub capacity: bool,
}

/// The terms on which an instance type can be had.
#[derive(Debug, Clone, PartialEq)]
pub struct Offering {
    /// The zone, the capacity type, and what else the provider tells apart.
    pub requirements: Requirements,
    /// Dollars an hour.
    pub price: f64,
    /// Whether it can be had now, as far as anybody knows.
    pub available: bool,
    /// The reservation that it is of, and how many instances that has left.
    pub reservation: Option<Reservation>,
}

/// Machines that are paid for already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The provider's id.
    pub id: Arc<str>,
    /// Instances that it has left.
    pub remaining: u32,
}

impl Offering {
    /// The zone, if there is only one.
    pub fn zone(&self) -> Option<&str> {
        self.label(ZONE)
    }

    /// What it is paid by, if there is only one way.
    pub fn capacity_type(&self) -> Option<&str> {
        self.label(CAPACITY_TYPE)
    }

    /// What a label of its machines is, if there is only one thing.
    pub fn label(&self, key: &str) -> Option<&str> {
        let requirement = self.requirements.get(key)?;
        requirement.values().first().filter(|_| requirement.len() == 1).map(|value| &**value)
    }
}

/// What the overhead leaves of a capacity, and of the memory what huge pages leave.
fn left(capacity: &Resources, overhead: &Resources) -> Resources {
    let mut left = capacity.clone();
    left.subtract(overhead);
    let pages = capacity.other.iter().filter(|(name, _)| name.starts_with("hugepages-"));
    left.memory = pages.fold(left.memory, |memory, (_, pages)| memory - pages).max(0);
    left
}

impl InstanceType {
    /// An instance type. Pods may use what the overhead leaves, and of the memory what huge pages leave.
    pub fn new(
        name: &str,
        requirements: Requirements,
        capacity: Resources,
        overhead: Resources,
        offerings: Vec<Offering>,
    ) -> Self {
        let allocatable = left(&capacity, &overhead);
        let overlaid = Overlaid::default();
        Self { name: name.into(), requirements, capacity, overhead, offerings, overlaid, allocatable }
    }

    /// Says how much a machine has of these resources.
    pub fn set_resources(&mut self, amounts: BTreeMap<Box<str>, i64>) {
        for (name, amount) in amounts {
            self.capacity.set(&name, amount);
        }
        self.allocatable = left(&self.capacity, &self.overhead);
    }

    /// What pods may use of a node of it.
    pub fn allocatable(&self) -> &Resources {
        &self.allocatable
    }

    /// Offerings that can be had now and satisfy the requirements.
    pub fn available<'a>(
        &'a self,
        requirements: &'a Requirements,
        well_known: &'a WellKnownLabels,
    ) -> impl Iterator<Item = &'a Offering> {
        compatible(&self.offerings, requirements, well_known).filter(|offering| offering.available)
    }

    /// The cheapest of [`InstanceType::available`], the first of several.
    pub fn cheapest<'a>(
        &'a self,
        requirements: &'a Requirements,
        well_known: &'a WellKnownLabels,
    ) -> Option<&'a Offering> {
        cheapest(self.available(requirements, well_known))
    }

    /// What a running node of these labels costs, dollars an hour, whether or not another could be had; 0 if nobody knows.
    pub fn price_of_node(&self, labels: &Requirements, well_known: &WellKnownLabels) -> f64 {
        let offering = cheapest(compatible(&self.offerings, labels, well_known));
        offering.map(|offering| offering.price).filter(|price| !price.is_nan()).unwrap_or(0.0)
    }

    /// The most that a launch may cost, dollars an hour: the dearest of [`InstanceType::available`] of the capacity type that is
    /// preferred among them.
    pub fn worst_launch_price(
        &self,
        requirements: &Requirements,
        well_known: &WellKnownLabels,
    ) -> Option<f64> {
        CAPACITY_TYPES.into_iter().find_map(|capacity_type| {
            self.available(requirements, well_known)
                .filter(|offering| offering.requirements.allows(CAPACITY_TYPE, capacity_type))
                .map(|offering| offering.price)
                .max_by(f64::total_cmp)
        })
    }
}

/// Offerings that satisfy the requirements.
pub fn compatible<'a>(
    offerings: &'a [Offering],
    requirements: &'a Requirements,
    well_known: &'a WellKnownLabels,
) -> impl Iterator<Item = &'a Offering> {
    offerings.iter().filter(|offering| requirements.is_compatible(&offering.requirements, well_known))
}

/// The cheapest offering, the first of several.
pub fn cheapest<'a>(offerings: impl Iterator<Item = &'a Offering>) -> Option<&'a Offering> {
    offerings.min_by(|left, right| left.price.total_cmp(&right.price))
}
