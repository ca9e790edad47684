//! The NodeClaim that a pool makes for pods.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use kube::{ResourceExt, api::ObjectMeta};
use tandem_core::{
    api::karpenter::{ClaimResources, NodeClaim, NodeClaimSpec, RequirementWithMinValues},
    nodes::pools::{
        instance_type::InstanceType,
        requirements::{
            Operator, Requirement, Requirements, WellKnownLabels,
            labels::{CAPACITY_TYPE, HOSTNAME, INSTANCE_TYPE, ZONE},
        },
        select,
    },
    scheduling::{Node, Resources, taints::is_ephemeral},
};

use super::{
    conditions::{self, find},
    names::{FINALIZER, HASH, HASH_VERSION, condition},
    view::{self, Pool},
};
use crate::cloud::pools::quantities;

/// The claim for a node that was decided upon.
pub(super) fn build(pool: &Pool, node: &select::Claim) -> NodeClaim {
    let template = &pool.spec.template;
    let mut requirements = node.requirements.clone();
    let types: Vec<&str> = node.types.iter().map(|instance_type| &*instance_type.name).collect();
    let min_values = requirements.get(INSTANCE_TYPE).and_then(Requirement::min_values);
    let named = Requirement::new(INSTANCE_TYPE, Operator::In, types).with_min_values(min_values);
    requirements.add(named);

    let mut labels = single_values(&requirements);
    labels.extend(pool.labels());
    let metadata = template.metadata.as_ref();
    let mut annotations = metadata.and_then(|it| it.annotations.clone()).unwrap_or_default();
    annotations.insert(HASH.to_owned(), pool.hash.clone());
    annotations.insert(HASH_VERSION.to_owned(), view::HASH_VERSION.to_owned());

    let mut requirements = RequirementWithMinValues::list(&requirements);
    requirements.retain(|requirement| may_be_required(&requirement.key));
    NodeClaim {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", pool.name)),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![pool.owner.clone()]),
            finalizers: Some(vec![FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: NodeClaimSpec {
            taints: template.spec.taints.clone(),
            startup_taints: template.spec.startup_taints.clone(),
            requirements,
            resources: Some(ClaimResources { requests: Some(quantities(&node.requests)) }),
            node_class_ref: pool.class.reference.clone(),
            termination_grace_period: template.spec.termination_grace_period.clone(),
            expire_after: template.spec.expire_after.clone(),
        },
        status: None,
    }
}

/// Whether a claim may require a label: those below karpenter.sh are its own labels, the hostname nobody knows yet.
fn may_be_required(key: &str) -> bool {
    let domain = key.split('/').next().unwrap_or_default();
    key == CAPACITY_TYPE || (!domain.ends_with("karpenter.sh") && key != HOSTNAME)
}

/// Labels of which only one value is left.
fn single_values(requirements: &Requirements) -> BTreeMap<String, String> {
    let single = requirements.iter().filter(|one| one.len() == 1 && one.operator() == Operator::In);
    single
        .filter(|one| one.key().as_ref() != HOSTNAME)
        .filter_map(|one| Some((one.key().to_string(), one.any()?)))
        .collect()
}

/// What a claim says of the labels of its node: its own, and its requirements.
pub(super) fn requirements(claim: &NodeClaim) -> Requirements {
    let mut requirements = RequirementWithMinValues::read_all(&claim.spec.requirements);
    requirements.extend(claim.labels().iter().map(|(key, value)| Requirement::is(key, value)));
    requirements
}

/// Whether a condition of a claim holds.
pub(super) fn holds(claim: &NodeClaim, kind: &str) -> bool {
    conditions::holds(claim_conditions(claim), kind)
}

/// Since when a condition of a claim holds.
pub(super) fn since(claim: &NodeClaim, kind: &str) -> Option<Timestamp> {
    conditions::since(claim_conditions(claim), kind)
}

/// Since when a condition of a claim says what it says.
pub(super) fn changed(claim: &NodeClaim, kind: &str) -> Option<Timestamp> {
    find(claim_conditions(claim), kind).map(|condition| condition.last_transition_time.0)
}

fn claim_conditions(claim: &NodeClaim) -> &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition] {
    claim.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
}

/// Whether a claim is being deleted.
pub(super) fn is_deleting(claim: &NodeClaim) -> bool {
    claim.metadata.deletion_timestamp.is_some()
}

/// Made then.
pub(super) fn created(claim: &NodeClaim) -> Timestamp {
    claim.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// What the node of a claim will be like that has not come yet: as its machine is, or, before the launch, as the cheapest
/// machine would be that it may become. Taints that go while a node starts keep no pod from being expected there.
pub(super) fn expected_node(
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
        become_of(&mut node, of, offering.zone(), offering.capacity_type());
    }
    node.labels.insert(HOSTNAME.to_owned(), name);
    node.taints = claim.spec.taints.clone().unwrap_or_default();
    node.taints.retain(|taint| !is_ephemeral(taint));
    node.ready = true;
    Some(node)
}

/// The node that a pool would get of an instance type.
pub(super) fn imagined_node(
    pool: &Pool,
    claim: &select::Claim,
    name: &str,
    well_known: &WellKnownLabels,
) -> Option<Node> {
    let (of, offering) = claim.cheapest(well_known)?;
    let mut node = Node { name: name.into(), labels: pool.labels(), ..Node::default() };
    node.labels.extend(single_values(&claim.requirements));
    become_of(&mut node, of, offering.zone(), offering.capacity_type());
    node.labels.insert(HOSTNAME.to_owned(), name.to_owned());
    node.taints = pool.spec.template.spec.taints.clone().unwrap_or_default();
    node.ready = true;
    Some(node)
}

fn become_of(node: &mut Node, of: &InstanceType, zone: Option<&str>, capacity_type: Option<&str>) {
    node.allocatable = of.allocatable().clone();
    node.capacity = of.capacity.clone();
    node.labels.extend(single_values(&of.requirements));
    for (key, value) in [(ZONE, zone), (CAPACITY_TYPE, capacity_type)] {
        node.labels.extend(value.map(|value| (key.to_owned(), value.to_owned())));
    }
}
