//! Which instance types a launch is asked for, of all that would do: cheapest first, and as many as were asked for.
//!
//! Sources: core, `pkg/cloudprovider/types.go`; aws, `pkg/providers/instance/filter/filter.go`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use thiserror::Error;

use super::{
    instance_type::InstanceType,
    requirements::{
        Requirements, WellKnownLabels,
        labels::{CAPACITY_TYPE, ON_DEMAND, RESERVED, SPOT},
    },
};

/// Most instance types that a NodeClaim names (core, `nodeclaimtemplate.go`).
pub const MOST_INSTANCE_TYPES: usize = 600;
/// The label of an instance type's size on EC2.
const INSTANCE_SIZE: &str = "karpenter.k8s.aws/instance-size";
/// Devices that make an instance type one to be asked for by name.
const DEVICES: [&str; 5] = [
    "aws.amazon.com/neuron",
    "aws.amazon.com/neuroncore",
    "amd.com/gpu",
    "nvidia.com/gpu",
    "habana.ai/gaudi",
];

/// What becomes of a pod when there is less choice of instance types than its pool asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MinValuesPolicy {
    /// It waits.
    #[default]
    Strict,
    /// It gets what choice there is.
    BestEffort,
}

/// There is less choice of instance types than is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("minValues requirement is not met for label(s) (label(s)=[{}])", found.keys().map(|key| &**key).collect::<Vec<_>>().join(" "))]
pub struct MinValuesUnmet {
    /// How many distinct values there are, of each label of which there are too few.
    pub found: BTreeMap<Arc<str>, u32>,
}

/// How many of the instance types, from the first, it takes until there are as many distinct values of labels as is asked for.
pub fn needed_for_min_values(
    types: &[Arc<InstanceType>],
    requirements: &Requirements,
) -> Result<usize, MinValuesUnmet> {
    let mut unmet: Vec<_> = requirements
        .iter()
        .filter_map(|requirement| Some((requirement.key(), requirement.min_values()?, BTreeSet::new())))
        .collect();
    if unmet.is_empty() {
        return Ok(0);
    }
    for (count, instance_type) in types.iter().enumerate() {
        unmet.retain_mut(|(key, least, values)| {
            if let Some(requirement) = instance_type.requirements.get(key) {
                values.extend(requirement.values().iter().map(|value| &**value));
            }
            values.len() < *least as usize
        });
        if unmet.is_empty() {
            return Ok(count + 1);
        }
    }
    let found = |(key, _, values): (&Arc<str>, u32, BTreeSet<&str>)| {
        (key.clone(), u32::try_from(values.len()).unwrap_or(u32::MAX))
    };
    Err(MinValuesUnmet { found: unmet.into_iter().map(found).collect() })
}

/// Puts what can be had cheapest first, ties by name; what cannot be had comes last.
pub fn order_by_price(
    types: &mut Vec<Arc<InstanceType>>,
    requirements: &Requirements,
    well_known: &WellKnownLabels,
) {
    let price = |instance_type: &InstanceType| {
        instance_type.cheapest(requirements, well_known).map_or(f64::INFINITY, |offering| offering.price)
    };
    let mut priced: Vec<_> =
        types.drain(..).map(|instance_type| (price(&instance_type), instance_type)).collect();
    priced.sort_by(|(left, left_type), (right, right_type)| {
        left.total_cmp(right).then_with(|| left_type.name.cmp(&right_type.name))
    });
    types.extend(priced.into_iter().map(|(_, instance_type)| instance_type));
}

/// The cheapest `most` instance types.
///
/// # Errors
/// With [`MinValuesPolicy::Strict`], there is less choice among them than is asked for.
pub fn truncate(
    mut types: Vec<Arc<InstanceType>>,
    requirements: &Requirements,
    most: usize,
    policy: MinValuesPolicy,
    well_known: &WellKnownLabels,
) -> Result<Vec<Arc<InstanceType>>, MinValuesUnmet> {
    order_by_price(&mut types, requirements, well_known);
    types.truncate(most);
    if policy == MinValuesPolicy::Strict {
        needed_for_min_values(&types, requirements)?;
    }
    Ok(types)
}

/// Leaves out machines with accelerators and bare metal, unless that is all there is, or a choice is asked for.
pub fn without_exotic(types: &mut Vec<Arc<InstanceType>>, requirements: &Requirements) {
    if !requirements.has_min_values() && types.iter().any(|instance_type| !is_exotic(instance_type)) {
        types.retain(|instance_type| !is_exotic(instance_type));
    }
}

fn is_exotic(instance_type: &InstanceType) -> bool {
    let size = instance_type.requirements.get(INSTANCE_SIZE);
    size.is_some_and(|size| size.values().iter().any(|value| value.contains("metal")))
        || DEVICES.iter().any(|device| instance_type.capacity.get(device) > 0)
}

/// Leaves out what on spot would cost more than the cheapest on demand, unless a choice is asked for. Types with a reservation
/// stay: they are paid for.
pub fn without_dear_spot(
    types: &mut Vec<Arc<InstanceType>>,
    requirements: &Requirements,
    well_known: &WellKnownLabels,
) {
    let both =
        [SPOT, ON_DEMAND].iter().all(|capacity_type| requirements.allows(CAPACITY_TYPE, capacity_type));
    if requirements.has_min_values() || !both {
        return;
    }
    let prices = |instance_type: &InstanceType, capacity_type: &str| {
        instance_type
            .available(requirements, well_known)
            .filter(|offering| offering.capacity_type() == Some(capacity_type))
            .map(|offering| offering.price)
            .min_by(f64::total_cmp)
    };
    let on_demand = types.iter().filter_map(|instance_type| prices(instance_type, ON_DEMAND));
    let Some(on_demand) = on_demand.min_by(f64::total_cmp) else { return };
    types.retain(|instance_type| {
        prices(instance_type, RESERVED).is_some()
            || prices(instance_type, SPOT).is_none_or(|spot| spot <= on_demand)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        nodes::pools::{
            instance_type::Offering,
            requirements::{Operator, Requirement, labels::ZONE},
        },
        scheduling::Resources,
    };

    fn offering(capacity_type: &str, price: f64, available: bool) -> Offering {
        let requirements = [Requirement::is(CAPACITY_TYPE, capacity_type), Requirement::is(ZONE, "z")];
        Offering { requirements: requirements.into_iter().collect(), price, available, reservation: None }
    }

    fn instance_type(name: &str, offerings: Vec<Offering>) -> Arc<InstanceType> {
        let family = Requirement::is("family", &name[..1]);
        let none = Resources::default();
        let one = InstanceType::new(name, Requirements::from_iter([family]), none.clone(), none, offerings);
        Arc::new(one)
    }

    fn names(types: &[Arc<InstanceType>]) -> Vec<&str> {
        types.iter().map(|instance_type| &*instance_type.name).collect()
    }

    fn families(least: u32) -> Requirements {
        let family = Requirement::new("family", Operator::Exists, Vec::<&str>::new());
        Requirements::from_iter([family.with_min_values(Some(least))])
    }

    #[test]
    fn the_cheapest_come_first_and_a_choice_is_kept() {
        let well_known = WellKnownLabels::default();
        let types = || {
            vec![
                instance_type("c1", vec![offering(ON_DEMAND, 1.0, false)]),
                instance_type("b1", vec![offering(ON_DEMAND, 5.0, true)]),
                instance_type("a2", vec![offering(SPOT, 2.0, true), offering(ON_DEMAND, 9.0, true)]),
                instance_type("a1", vec![offering(ON_DEMAND, 2.0, true)]),
            ]
        };
        let cut = |most, least, policy| truncate(types(), &families(least), most, policy, &well_known);
        assert_eq!(names(&cut(9, 1, MinValuesPolicy::Strict).unwrap()), ["a1", "a2", "b1", "c1"]);
        assert_eq!(names(&cut(3, 2, MinValuesPolicy::Strict).unwrap()), ["a1", "a2", "b1"]);
        assert_eq!(names(&cut(2, 2, MinValuesPolicy::BestEffort).unwrap()), ["a1", "a2"]);
        let unmet = cut(2, 2, MinValuesPolicy::Strict).unwrap_err();
        assert_eq!(unmet.found, BTreeMap::from([(Arc::from("family"), 1)]));
        assert_eq!(unmet.to_string(), "minValues requirement is not met for label(s) (label(s)=[family])");
        assert_eq!(needed_for_min_values(&types(), &families(2)), Ok(2));
        assert_eq!(needed_for_min_values(&types(), &Requirements::new()), Ok(0));
        assert!(needed_for_min_values(&[], &families(1)).is_err());
    }

    #[test]
    fn spot_that_costs_more_than_on_demand_is_left_out() {
        let well_known = WellKnownLabels::default();
        let mut types = vec![
            instance_type("dear", vec![offering(SPOT, 3.0, true), offering(ON_DEMAND, 9.0, true)]),
            instance_type("cheap", vec![offering(SPOT, 1.0, true), offering(ON_DEMAND, 2.0, true)]),
            instance_type("plain", vec![offering(ON_DEMAND, 5.0, true)]),
            instance_type("paid", vec![offering(RESERVED, 0.0, true), offering(SPOT, 4.0, true)]),
        ];
        let all = types.clone();
        without_dear_spot(&mut types, &families(2), &well_known);
        assert_eq!(types, all, "a choice is asked for");
        without_dear_spot(&mut types, &Requirements::new(), &well_known);
        assert_eq!(names(&types), ["cheap", "plain", "paid"]);
        let worst = |index: usize, requirements: &Requirements| {
            all[index].worst_launch_price(requirements, &well_known)
        };
        assert_eq!(worst(0, &Requirements::new()), Some(3.0));
        assert_eq!(worst(3, &Requirements::new()), Some(0.0));
        assert_eq!(
            worst(0, &Requirements::from_iter([Requirement::is(CAPACITY_TYPE, ON_DEMAND)])),
            Some(9.0)
        );
        assert_eq!(worst(2, &Requirements::from_iter([Requirement::is(CAPACITY_TYPE, SPOT)])), None);
    }

    #[test]
    fn exotic_machines_are_for_those_who_have_no_other() {
        let metal = Requirements::from_iter([Requirement::is(INSTANCE_SIZE, "metal-24xl")]);
        let none = Resources::default();
        let metal = Arc::new(InstanceType::new("metal", metal, none.clone(), none.clone(), Vec::new()));
        let mut gpus = none.clone();
        gpus.set("nvidia.com/gpu", 1);
        let gpu = Arc::new(InstanceType::new("gpu", Requirements::new(), gpus, none, Vec::new()));
        let mut types = vec![metal, gpu, instance_type("plain", Vec::new())];
        let mut exotic = types[..2].to_vec();
        without_exotic(&mut types, &Requirements::new());
        assert_eq!(names(&types), ["plain"]);
        without_exotic(&mut exotic, &Requirements::new());
        assert_eq!(names(&exotic), ["metal", "gpu"]);
    }

    #[test]
    fn huge_pages_are_memory_that_pods_cannot_use_otherwise() {
        let mut capacity = Resources { cpu: 4000, memory: 1000, ..Resources::default() };
        capacity.set("hugepages-2Mi", 300);
        let overhead = Resources { cpu: 100, memory: 50, ..Resources::default() };
        let one = InstanceType::new("one", Requirements::new(), capacity, overhead, Vec::new());
        assert_eq!((one.allocatable().cpu, one.allocatable().memory), (3900, 650));
    }
}
