//! Packing pods on new nodes of one pool, without topology (core, `pkg/controllers/provisioning/scheduling`).
//!
//! Pods go in the order of what they ask for, greatest first; each to the claim with the fewest pods that can take it, else to a
//! new one. A claim keeps every instance type that would do for all of its pods.

use std::{cmp::Reverse, fmt, sync::Arc};

use thiserror::Error;

use super::{
    instance_type::{InstanceType, Offering},
    launch::{MinValuesPolicy, MinValuesUnmet, needed_for_min_values, truncate},
    requirements::{Incompatible, Requirements, WellKnownLabels},
};
use crate::scheduling::{Pod, Resources};

/// Requests from here on are a typing error, thousandths of a core: a million cores.
const TYPED_WRONG: i64 = 1_000_000_000;

/// What new nodes of a pool may be.
#[derive(Debug, Clone)]
pub struct Pool<'a> {
    /// What it requires of their labels.
    pub requirements: Requirements,
    /// Instance types that may be had.
    pub types: &'a [Arc<InstanceType>],
    /// What DaemonSets take of each node.
    pub daemons: Resources,
    /// What becomes of pods if there is less choice than the pool asks for.
    pub min_values: MinValuesPolicy,
    /// Most instance types that a claim names.
    pub most_types: usize,
    /// Labels that a node will have although nobody asks for them.
    pub well_known: &'a WellKnownLabels,
}

/// A node to be asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// What its labels have to be.
    pub requirements: Requirements,
    /// Instance types that do, cheapest first.
    pub types: Vec<Arc<InstanceType>>,
    /// The pods, as places in the list that was packed, in the order in which they came.
    pub pods: Vec<usize>,
    /// What they and the DaemonSets ask for.
    pub requests: Resources,
}

impl Claim {
    /// The cheapest way to have it.
    pub fn cheapest<'a>(
        &'a self,
        well_known: &'a WellKnownLabels,
    ) -> Option<(&'a InstanceType, &'a Offering)> {
        let offered = |instance_type: &'a Arc<InstanceType>| {
            Some((&**instance_type, instance_type.cheapest(&self.requirements, well_known)?))
        };
        self.types
            .iter()
            .filter_map(offered)
            .min_by(|(_, left), (_, right)| left.price.total_cmp(&right.price))
    }
}

/// Where pods went.
#[derive(Debug, Clone, PartialEq)]
pub struct Packing {
    /// New nodes.
    pub claims: Vec<Claim>,
    /// Pods that no new node can take, as places in the list that was packed, and why.
    pub unschedulable: Vec<(usize, Unschedulable)>,
}

/// Why no new node of a pool can take a pod.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Unschedulable {
    /// The pool and the pod want different labels.
    #[error("incompatible requirements, {0}")]
    Requirements(#[from] Incompatible),
    /// No instance type does.
    #[error(transparent)]
    NoInstanceType(#[from] Box<NoInstanceType>),
    /// Among those that a claim can name there is not the choice that the pool asks for.
    #[error("pod didn't schedule because NodePool couldn't meet minValues requirements, {0}")]
    MinValues(MinValuesUnmet),
}

/// What instance types lacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lacking {
    met: [bool; 8],
}

impl Lacking {
    const REQUIREMENTS: usize = 1;
    const FITS: usize = 2;
    const OFFERING: usize = 4;

    /// Notes an instance type: whether its labels do, whether the pods fit, and whether it can be had.
    fn note(&mut self, requirements: bool, fits: bool, offering: bool) -> bool {
        let holds = usize::from(requirements) * Self::REQUIREMENTS
            + usize::from(fits) * Self::FITS
            + usize::from(offering) * Self::OFFERING;
        self.met[holds] = true;
        holds == Self::REQUIREMENTS + Self::FITS + Self::OFFERING
    }

    /// Whether one instance type had all of these.
    fn any(self, of: usize) -> bool {
        (0..self.met.len()).any(|holds| self.met[holds] && holds & of == of)
    }
}

/// No instance type does for a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct NoInstanceType {
    /// What all of them lack, alone or together.
    pub lacking: Lacking,
    /// There are some, but not the choice that is asked for.
    pub min_values: Option<MinValuesUnmet>,
    /// What labels had to be.
    pub requirements: Requirements,
    /// What was asked for.
    pub requests: Resources,
}

impl std::error::Error for NoInstanceType {}

impl fmt::Display for NoInstanceType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const R: usize = Lacking::REQUIREMENTS;
        const F: usize = Lacking::FITS;
        const O: usize = Lacking::OFFERING;
        let any = |of| self.lacking.any(of);
        let too_large = self.min_values.is_none() && any(R) && !any(F) && any(O);
        match (any(R), any(F), any(O)) {
            _ if self.min_values.is_some() => {
                self.min_values.iter().try_for_each(|unmet| write!(formatter, "{unmet}"))?;
            }
            (false, false, false) => formatter.write_str(
                "no instance type met the scheduling requirements or had enough resources or had a required offering",
            )?,
            (false, false, true) => formatter
                .write_str("no instance type met the scheduling requirements or had enough resources")?,
            (false, true, false) => formatter
                .write_str("no instance type met the scheduling requirements or had a required offering")?,
            (true, false, false) => {
                formatter.write_str("no instance type had enough resources or had a required offering")?;
            }
            (false, true, true) => formatter.write_str("no instance type met all requirements")?,
            (true, false, true) => formatter.write_str("no instance type has enough resources")?,
            (true, true, false) => formatter.write_str("no instance type has the required offering")?,
            (true, true, true) => formatter.write_str(match (any(R + F), any(F + O), any(R + O)) {
                (true, _, _) => {
                    "no instance type which met the scheduling requirements and had enough resources, had a required offering"
                }
                (_, true, _) => {
                    "no instance type which had enough resources and the required offering met the scheduling requirements"
                }
                (_, _, true) => {
                    "no instance type which met the scheduling requirements and the required offering had the required resources"
                }
                _ => "no instance type met the requirements/resources/offering tuple",
            })?,
        }
        let amount = |(name, amount)| match (name, amount % 1000) {
            ("cpu", 0) => format!("\"cpu\":\"{}\"", amount / 1000),
            ("cpu", _) => format!("\"cpu\":\"{amount}m\""),
            _ => format!("\"{name}\":\"{amount}\""),
        };
        let requests: Vec<_> = self.requests.iter().map(amount).collect();
        write!(formatter, ", requirements={}, resources={{{}}}", self.requirements, requests.join(","))?;
        if too_large && self.requests.cpu >= TYPED_WRONG {
            formatter.write_str(" (CPU request >= 1 Million, m vs M typo?)")?;
        }
        Ok(())
    }
}

/// Packs pods on new nodes of a pool. An instance type that the pool's own requirements leave out stays out, even where a pod
/// would do without the label.
pub fn pack(pool: &Pool<'_>, pods: &[Pod]) -> Packing {
    let suits = |it: &&Arc<InstanceType>| it.requirements.intersects(&pool.requirements);
    let types: Vec<_> = pool.types.iter().filter(suits).cloned().collect();
    let pool = &Pool { types: &types, ..pool.clone() };
    let mut order: Vec<usize> = (0..pods.len()).collect();
    order.sort_by_key(|&place| {
        let pod = &pods[place];
        let requests = &pod.shape.requests;
        (Reverse(requests.cpu), Reverse(requests.memory), pod.created, &pod.uid)
    });
    let mut packing = Packing { claims: Vec::new(), unschedulable: Vec::new() };
    for place in order {
        if let Err(why) = add(pool, &mut packing.claims, place, &pods[place]) {
            packing.unschedulable.push((place, why));
        }
    }
    finish(pool, packing)
}

/// Adds a pod to a claim or a new one; of the terms of its node affinity the first that can be had.
fn add(pool: &Pool<'_>, claims: &mut Vec<Claim>, place: usize, pod: &Pod) -> Result<(), Unschedulable> {
    let affinity = pod.shape.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let mut outcome = Ok(());
    for requirements in Requirements::of_pod(&pod.shape.node_selector, affinity, false) {
        let mut fewest_pods: Vec<usize> = (0..claims.len()).collect();
        fewest_pods.sort_by_key(|&index| claims[index].pods.len());
        let joined = fewest_pods.into_iter().find_map(|index| {
            let grown = grow(pool, &claims[index], place, pod, &requirements).ok()?;
            Some((index, grown))
        });
        if let Some((index, grown)) = joined {
            claims[index] = grown;
            return Ok(());
        }
        let empty = Claim {
            requirements: pool.requirements.clone(),
            types: pool.types.to_vec(),
            pods: Vec::new(),
            requests: pool.daemons.clone(),
        };
        match grow(pool, &empty, place, pod, &requirements) {
            Ok(claim) => {
                claims.push(claim);
                return Ok(());
            }
            Err(why) => outcome = Err(why),
        }
    }
    outcome
}

/// The claim with one more pod, if an instance type is left that does.
fn grow(
    pool: &Pool<'_>,
    claim: &Claim,
    place: usize,
    pod: &Pod,
    requirements: &Requirements,
) -> Result<Claim, Unschedulable> {
    claim.requirements.compatible(requirements, pool.well_known)?;
    let mut grown = Claim {
        requirements: claim.requirements.clone().and(requirements.clone()),
        types: Vec::new(),
        pods: claim.pods.iter().copied().chain([place]).collect(),
        requests: claim.requests.clone(),
    };
    grown.requests.add(&pod.shape.requests);
    grown.types = filter(pool, &claim.types, &mut grown.requirements, &grown.requests)?;
    Ok(grown)
}

/// The instance types that do. With [`MinValuesPolicy::BestEffort`] requirements ask for no more choice than there is.
fn filter(
    pool: &Pool<'_>,
    types: &[Arc<InstanceType>],
    requirements: &mut Requirements,
    requests: &Resources,
) -> Result<Vec<Arc<InstanceType>>, Box<NoInstanceType>> {
    let mut lacking = Lacking::default();
    let does = |instance_type: &&Arc<InstanceType>| {
        lacking.note(
            instance_type.requirements.intersects(requirements),
            requests.fits(instance_type.allocatable()),
            instance_type.available(requirements, pool.well_known).next().is_some(),
        )
    };
    let left: Vec<_> = types.iter().filter(does).cloned().collect();
    let refused = |min_values, requirements: &Requirements| {
        let (requirements, requests) = (requirements.clone(), requests.clone());
        Err(Box::new(NoInstanceType { lacking, min_values, requirements, requests }))
    };
    if left.is_empty() {
        return refused(None, requirements);
    }
    if let Err(unmet) = needed_for_min_values(&left, requirements) {
        if pool.min_values == MinValuesPolicy::Strict {
            return refused(Some(unmet), requirements);
        }
        for (key, found) in &unmet.found {
            requirements.relax_min_values(key, *found);
        }
    }
    Ok(left)
}

/// Puts the cheapest types of each claim first and cuts the rest off.
fn finish(pool: &Pool<'_>, packing: Packing) -> Packing {
    let mut finished = Packing { claims: Vec::new(), unschedulable: packing.unschedulable };
    for mut claim in packing.claims {
        let types = std::mem::take(&mut claim.types);
        match truncate(types, &claim.requirements, pool.most_types, pool.min_values, pool.well_known) {
            Ok(types) => finished.claims.push(Claim { types, ..claim }),
            Err(unmet) => finished
                .unschedulable
                .extend(claim.pods.iter().map(|place| (*place, Unschedulable::MinValues(unmet.clone())))),
        }
    }
    finished.unschedulable.sort_by_key(|(place, _)| *place);
    finished
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        nodes::pools::requirements::{Requirement, labels::ZONE},
        scheduling::pod::{Shape, Traits},
    };

    /// So many cores at a dollar each, in zone `z`.
    fn instance_type(cores: i64, available: bool) -> Arc<InstanceType> {
        let zone = || Requirements::from_iter([Requirement::is(ZONE, "z")]);
        #[allow(clippy::cast_precision_loss, reason = "a few cores")]
        let offering = Offering { requirements: zone(), price: cores as f64, available, reservation: None };
        let capacity = Resources { cpu: cores * 1000, pods: 10, ..Resources::default() };
        let name = format!("cores-{cores}");
        Arc::new(InstanceType::new(&name, zone(), capacity, Resources::default(), vec![offering]))
    }

    fn pod(cpu: i64, zone: Option<&str>) -> Pod {
        let node_selector = zone.map(|zone| (ZONE.to_owned(), zone.to_owned())).into_iter().collect();
        let requests = Resources { cpu, pods: 1, ..Resources::default() };
        Pod {
            shape: Arc::new(Shape::new(requests, Traits { node_selector, ..Traits::default() })),
            ..Pod::default()
        }
    }

    fn pool<'a>(types: &'a [Arc<InstanceType>], well_known: &'a WellKnownLabels) -> Pool<'a> {
        Pool {
            requirements: Requirements::new(),
            types,
            daemons: Resources::default(),
            min_values: MinValuesPolicy::Strict,
            most_types: 60,
            well_known,
        }
    }

    #[test]
    fn who_finds_no_node_is_told_why() {
        let well_known = WellKnownLabels::default();
        let types = [instance_type(1, true), instance_type(8, false)];
        for (pod, wanted) in [
            (
                pod(9_000, Some("y")),
                "no instance type met the scheduling requirements or had enough resources or had a required offering, requirements=topology.kubernetes.io/zone In [y], resources={\"cpu\":\"9\",\"pods\":\"1\"}",
            ),
            (
                pod(500, Some("y")),
                "no instance type met the scheduling requirements or had a required offering, requirements=topology.kubernetes.io/zone In [y], resources={\"cpu\":\"500m\",\"pods\":\"1\"}",
            ),
            (
                pod(2_000_000_000, None),
                "no instance type has enough resources, requirements=, resources={\"cpu\":\"2000000\",\"pods\":\"1\"} (CPU request >= 1 Million, m vs M typo?)",
            ),
            (
                pod(8_000, None),
                "no instance type which met the scheduling requirements and had enough resources, had a required offering, requirements=, resources={\"cpu\":\"8\",\"pods\":\"1\"}",
            ),
        ] {
            let packing = pack(&pool(&types, &well_known), &[pod]);
            assert_eq!(packing.claims, []);
            assert_eq!(packing.unschedulable[0].1.to_string(), wanted);
        }
    }

    proptest! {
        /// Every pod is on one claim or has a reason, and every type of a claim has room for all of it.
        #[test]
        fn pods_fit_where_they_are_put(cpus in prop::collection::vec(1_i64..9_000, 0..20)) {
            let well_known = WellKnownLabels::default();
            let types = [instance_type(2, true), instance_type(4, true), instance_type(8, true)];
            let pods: Vec<_> = cpus.iter().map(|cpu| pod(*cpu, None)).collect();
            let packing = pack(&pool(&types, &well_known), &pods);
            let mut places: Vec<usize> = packing.unschedulable.iter().map(|(place, _)| *place).collect();
            for claim in &packing.claims {
                let asked: i64 = claim.pods.iter().map(|place| cpus[*place]).sum();
                prop_assert_eq!(claim.requests.cpu, asked);
                prop_assert!(claim.types.iter().all(|one| claim.requests.fits(one.allocatable())));
                let (cheapest, _) = claim.cheapest(&well_known).unwrap();
                prop_assert_eq!(&cheapest.name, &claim.types[0].name);
                places.extend(&claim.pods);
            }
            places.sort_unstable();
            prop_assert_eq!(places, (0..pods.len()).collect::<Vec<_>>());
            for (place, _) in packing.unschedulable {
                prop_assert!(cpus[place] > 8_000);
            }
        }
    }
}
