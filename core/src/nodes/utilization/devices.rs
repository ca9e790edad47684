//! Devices of dynamic resource allocation: how full the pools of a node are.
//!
//! Source: Cluster Autoscaler, `simulator/dynamicresources/utils/utilization.go`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use thiserror::Error;

use crate::scheduling::devices::{Allocated, Allocation, Device, Slice};

/// The devices of a node, and who has them.
#[derive(Debug, Clone, Copy, Default)]
pub struct DevicePools<'a> {
    /// The node's own slices.
    pub slices: &'a [Arc<Slice>],
    /// What the claims of its pods have; `None` for a claim that has nothing yet.
    pub claims: &'a [Option<Arc<Allocation>>],
}

/// How full a pool is.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolShare {
    /// The driver.
    pub driver: String,
    /// The pool.
    pub pool: String,
    /// A share of one.
    pub share: f64,
}

impl PoolShare {
    /// `DRIVER/POOL`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.driver, self.pool)
    }
}

/// Why it is not known how full pools are.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// A claim of a pod on the node has no devices.
    #[error("a claim of a pod that is on the node has no devices allocated")]
    NotAllocated,
    /// Slices are missing.
    #[error(
        "pool {pool} has {found} of {wanted} slices of generation {generation}; its driver may not be done yet"
    )]
    Incomplete {
        /// The pool, `DRIVER/POOL`.
        pool: String,
        /// Its newest generation.
        generation: i64,
        /// Slices that there are.
        found: usize,
        /// Slices that there should be.
        wanted: i64,
    },
}

/// How full each pool is, in order of driver and pool.
pub fn device_pools(pools: &DevicePools<'_>) -> Result<Vec<PoolShare>, DeviceError> {
    let mut allocated: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for claim in pools.claims {
        let devices = &claim.as_ref().ok_or(DeviceError::NotAllocated)?.devices;
        for Allocated { pool: (driver, pool), device, .. } in devices.iter().filter(|it| !it.is_admin) {
            allocated.entry((driver, pool)).or_default().insert(device);
        }
    }
    let mut slices: BTreeMap<(&str, &str), Vec<&Slice>> = BTreeMap::new();
    for slice in pools.slices {
        slices.entry((&slice.pool.0, &slice.pool.1)).or_default().push(slice);
    }
    let none = BTreeSet::new();
    slices
        .into_iter()
        .map(|((driver, pool), slices)| {
            let slices = newest(slices)?;
            let share = pool_share(&slices, allocated.get(&(driver, pool)).unwrap_or(&none));
            Ok(PoolShare { driver: driver.to_owned(), pool: pool.to_owned(), share })
        })
        .collect()
}

/// The fullest pool, the first of them if several are.
pub(super) fn fullest(shares: &[PoolShare]) -> Option<&PoolShare> {
    shares.iter().reduce(|fullest, other| if other.share > fullest.share { other } else { fullest })
}

/// The slices of the newest generation, if all are there.
fn newest(mut slices: Vec<&Slice>) -> Result<Vec<&Slice>, DeviceError> {
    let generation = slices.iter().map(|slice| slice.generation).max().unwrap_or(0);
    slices.retain(|slice| slice.generation == generation);
    let (found, wanted) = (slices.len(), slices.first().map_or(0, |slice| slice.slices));
    if usize::try_from(wanted) != Ok(found) {
        let pool =
            slices.first().map(|slice| format!("{}/{}", slice.pool.0, slice.pool.1)).unwrap_or_default();
        return Err(DeviceError::Incomplete { pool, generation, found, wanted });
    }
    Ok(slices)
}

/// How full a pool is: if its devices share counters, by the fullest counter of each set, else the part of them that is taken.
#[allow(clippy::cast_precision_loss, reason = "a share of counts")]
fn pool_share(slices: &[&Slice], allocated: &BTreeSet<&str>) -> f64 {
    let all = || slices.iter().flat_map(|slice| &slice.devices);
    let taken: Vec<&Device> = all().filter(|device| allocated.contains(&*device.name)).collect();
    if slices.iter().any(|slice| !slice.counters.is_empty()) {
        let sets: BTreeSet<&str> = all().flat_map(|device| &device.consumes).map(|(set, _)| &**set).collect();
        return counters_share(slices, &taken, sets.len());
    }
    match all().count() {
        0 => 0.0,
        all => taken.len() as f64 / all as f64,
    }
}

/// The fullest counter of each set, averaged over the sets that devices consume.
#[allow(clippy::cast_precision_loss, reason = "a ratio of amounts: 53 bits are plenty")]
fn counters_share(slices: &[&Slice], taken: &[&Device], sets: usize) -> f64 {
    if sets == 0 {
        return 0.0;
    }
    let mut consumed: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for (set, counters) in taken.iter().flat_map(|device| &device.consumes) {
        for (counter, amount) in counters {
            let total = consumed.entry((set, counter)).or_default();
            *total = total.saturating_add(*amount);
        }
    }
    let shared = slices.iter().flat_map(|slice| &slice.counters);
    shared
        .map(|(set, counters)| {
            let counters = counters.iter().filter(|(_, total)| **total != 0);
            let fullest = counters
                .map(|(name, total)| {
                    let used = consumed.get(&(&**set, &**name)).copied().unwrap_or(0);
                    used as f64 / *total as f64
                })
                .fold(0.0, f64::max);
            fullest / sets as f64
        })
        .sum()
}
