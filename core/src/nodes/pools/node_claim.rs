//! What a NodeClaim says of its machine, before and after there is one.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;

use super::{
    instance_type::InstanceType,
    names::condition,
    requirements::{
        Operator, Requirement, Requirements, WellKnownLabels,
        labels::{CAPACITY_TYPE, HOSTNAME, INSTANCE_TYPE, NODE_POOL, ZONE, add_aliases},
    },
};
use crate::{
    api::karpenter::{NEVER, NodeClaim, RequirementWithMinValues},
    scheduling::{Node, Resources, taints::is_ephemeral},
};

/// The pool that a claim is of.
pub fn pool_of(claim: &NodeClaim) -> Option<&str> {
    claim.labels().get(NODE_POOL).map(String::as_str)
}

/// What a claim says of the labels of its node: its own, and its requirements.
pub fn requirements(claim: &NodeClaim) -> Requirements {
    let mut requirements = RequirementWithMinValues::read_all(&claim.spec.requirements);
    requirements.extend(claim.labels().iter().map(|(key, value)| Requirement::is(key, value)));
    requirements
}

/// The condition of a claim of this type.
pub fn find<'a>(claim: &'a NodeClaim, kind: &str) -> Option<&'a Condition> {
    claim.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether a condition of a claim holds.
pub fn holds(claim: &NodeClaim, kind: &str) -> bool {
    since(claim, kind).is_some()
}

/// Since when a condition of a claim holds.
pub fn since(claim: &NodeClaim, kind: &str) -> Option<Timestamp> {
    find(claim, kind)
        .filter(|condition| condition.status == "True")
        .map(|condition| condition.last_transition_time.0)
}

/// Since when a condition of a claim says what it says.
pub fn changed(claim: &NodeClaim, kind: &str) -> Option<Timestamp> {
    find(claim, kind).map(|condition| condition.last_transition_time.0)
}

/// Whether a claim is being deleted.
pub fn is_deleting(claim: &NodeClaim) -> bool {
    claim.metadata.deletion_timestamp.is_some()
}

/// Made then.
pub fn created(claim: &NodeClaim) -> Timestamp {
    claim.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// When a claim has lived long enough: its end asks no budget, though pods still leave under theirs. Never if it does not say
/// when, or what it says is no duration.
pub fn expires(claim: &NodeClaim) -> Option<Timestamp> {
    let after = claim.spec.expire_after.as_deref().filter(|after| *after != NEVER)?;
    let after: SignedDuration = after.parse().ok()?;
    created(claim).checked_add(after).ok()
}

/// Labels of which only one value is left.
pub fn single_values(requirements: &Requirements) -> BTreeMap<String, String> {
    let single = requirements.iter().filter(|one| one.len() == 1 && one.operator() == Operator::In);
    single
        .filter(|one| one.key().as_ref() != HOSTNAME)
        .filter_map(|one| Some((one.key().to_string(), one.any()?)))
        .collect()
}

/// What the machine of a claim has, or, before the launch, the most that it may have.
pub fn capacity(claim: &NodeClaim, types: &[Arc<InstanceType>]) -> Resources {
    let written = claim.status.as_ref().and_then(|status| status.capacity.as_ref());
    if let Some(capacity) = written {
        return Resources::from_list(capacity);
    }
    let required = requirements(claim);
    let mut most = Resources::default();
    for one in types.iter().filter(|one| required.allows(INSTANCE_TYPE, &one.name)) {
        most.raise_to(&one.capacity);
    }
    most
}

/// What the node of a claim will be like that has not come yet: as its machine is, or, before the launch, as the cheapest
/// machine would be that it may become; `None` if it may become none. Taints that go while a node starts keep no pod from
/// being expected there.
pub fn expected_node(
    claim: &NodeClaim,
    types: &[Arc<InstanceType>],
    well_known: &WellKnownLabels,
) -> Option<Node> {
    let name = claim.name_any();
    let mut node = Node { name: name.as_str().into(), labels: claim.labels().clone(), ..Node::default() };
    let status = claim.status.as_ref();
    if let Some(status) = status.filter(|_| holds(claim, condition::LAUNCHED)) {
        node.allocatable = Resources::from_optional(status.allocatable.as_ref());
        node.capacity = Resources::from_optional(status.capacity.as_ref());
    } else {
        let required = RequirementWithMinValues::read_all(&claim.spec.requirements);
        let named = types.iter().filter(|one| required.allows(INSTANCE_TYPE, &one.name));
        let offered = named.filter_map(|one| Some((one, one.cheapest(&required, well_known)?)));
        let (of, offering) = offered.min_by(|(_, left), (_, right)| left.price.total_cmp(&right.price))?;
        node.allocatable = of.allocatable().clone();
        node.capacity = of.capacity.clone();
        node.labels.extend(single_values(&of.requirements));
        for (key, value) in [(ZONE, offering.zone()), (CAPACITY_TYPE, offering.capacity_type())] {
            node.labels.extend(value.map(|value| (key.to_owned(), value.to_owned())));
        }
    }
    node.labels.insert(HOSTNAME.to_owned(), name);
    add_aliases(&mut node.labels);
    node.taints = claim.spec.taints.clone().unwrap_or_default();
    node.taints.retain(|taint| !is_ephemeral(taint));
    node.ready = true;
    Some(node)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn a_claim_ends_so_long_after_it_was_made() {
        let mut claim = NodeClaim::default();
        claim.metadata.creation_timestamp = Some(Time("2024-01-01T00:00:00Z".parse().unwrap()));
        for (after, wanted) in [
            (Some("720h"), Some("2024-01-31T00:00:00Z")),
            (Some("2592000s"), Some("2024-01-31T00:00:00Z")),
            (Some("Never"), None),
            (Some("soon"), None),
            (None, None),
        ] {
            claim.spec.expire_after = after.map(str::to_owned);
            assert_eq!(expires(&claim), wanted.map(|time| time.parse().unwrap()), "{after:?}");
        }
    }
}
