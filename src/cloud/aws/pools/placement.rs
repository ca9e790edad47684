//! Placement groups: all machines of a class that names one are in it.
//!
//! Source: karpenter-provider-aws, `designs/placement-groups.md`, `pkg/providers/placementgroup`.

use tandem_core::{
    api::karpenter::EC2NodeClassSpec,
    nodes::pools::{
        instance_type::Offering,
        requirements::{Requirement, Requirements, labels::PLACEMENT_GROUP},
    },
};

use super::{digest, labels::PARTITION};
use crate::cloud::{
    CloudError,
    aws::{
        client::Client,
        fleet::selectors::{self, PlacementGroup},
        instance_types::InstanceTypeInfo,
    },
};

/// The group that a class names, if it names one.
pub(super) async fn find(
    client: &Client,
    spec: &EC2NodeClassSpec,
) -> Result<Option<PlacementGroup>, CloudError> {
    let Some(selector) = &spec.placement_group_selector else { return Ok(None) };
    selectors::placement_group(client, selector.id.as_deref(), selector.name.as_deref()).await.map(Some)
}

/// Whether machines of a type can be in a group; what EC2 does not say, it refuses.
pub(super) fn takes(group: &PlacementGroup, info: &InstanceTypeInfo) -> bool {
    let strategies = &info.placement_group_info.supported_strategies;
    strategies.is_empty() || strategies.contains(&group.strategy)
}

/// Terms of machines in a group: where it has partitions, on each of them, so that pods can be spread over those.
pub(super) fn within(group: &PlacementGroup, offerings: &[Offering]) -> Vec<Offering> {
    let partitions: Vec<Option<u32>> = match group.partition_count {
        0 => vec![None],
        count => (1..=count).map(Some).collect(),
    };
    let placed = |offering: &Offering, partition: Option<u32>| {
        let mut offering = offering.clone();
        offering.requirements.add(Requirement::is(PLACEMENT_GROUP, &group.group_id));
        if let Some(partition) = partition {
            offering.requirements.add(Requirement::is(PARTITION, &partition.to_string()));
        }
        offering
    };
    offerings
        .iter()
        .flat_map(|offering| partitions.iter().map(move |partition| placed(offering, *partition)))
        .collect()
}

/// The partition of a claim's machine, of those that it may be in; asked again, the same. EC2 would choose one itself, but
/// say only later which: its node would be there without the label that pods are spread by.
pub(super) fn partition(group: &PlacementGroup, requirements: &Requirements, uid: &str) -> Option<u32> {
    let may = |partition: &u32| requirements.allows(PARTITION, &partition.to_string());
    let allowed: Vec<u32> = (1..=group.partition_count).filter(may).collect();
    let lot = u64::from_str_radix(&digest(&uid), 16).unwrap_or_default();
    let at = usize::try_from(lot % u64::try_from(allowed.len().max(1)).unwrap_or(1)).unwrap_or_default();
    allowed.get(at).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tandem_core::nodes::pools::requirements::{Operator, labels::ZONE};

    use super::*;

    fn group(strategy: &str, partition_count: u32) -> PlacementGroup {
        PlacementGroup { group_id: "pg-1".to_owned(), strategy: strategy.to_owned(), partition_count }
    }

    #[test]
    fn a_partition_is_a_place_of_its_own() {
        let requirements = [Requirement::is(ZONE, "a")].into_iter().collect();
        let offerings = [Offering { requirements, price: 1.0, available: true, reservation: None }];
        let places = |group: &PlacementGroup| {
            let within = within(group, &offerings);
            let place = |one: &Offering| {
                (one.label(PLACEMENT_GROUP).map(str::to_owned), one.label(PARTITION).map(str::to_owned))
            };
            within.iter().map(place).collect::<Vec<_>>()
        };
        let id = || Some("pg-1".to_owned());
        assert_eq!(places(&group("cluster", 0)), [(id(), None)]);
        let partitions = places(&group("partition", 2));
        assert_eq!(partitions, [(id(), Some("1".to_owned())), (id(), Some("2".to_owned()))]);
    }

    #[test]
    fn a_claim_keeps_its_partition_and_claims_are_in_all() {
        let of = group("partition", 3);
        let free = Requirements::new();
        let seen: BTreeSet<_> = (0..50).map(|uid| partition(&of, &free, &uid.to_string())).collect();
        assert_eq!(seen, BTreeSet::from([Some(1), Some(2), Some(3)]));
        assert_eq!(partition(&of, &free, "u"), partition(&of, &free, "u"));
        let bound = |value: &str| [Requirement::new(PARTITION, Operator::In, [value])].into_iter().collect();
        assert_eq!(partition(&of, &bound("2"), "u"), Some(2));
        assert_eq!(partition(&of, &bound("4"), "u"), None, "it has no such");
        assert_eq!(partition(&group("spread", 0), &free, "u"), None);
    }
}
