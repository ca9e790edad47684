//! The NodeClaim that a pool makes for pods.

use kube::api::ObjectMeta;
use tandem_core::{
    api::karpenter::{ClaimResources, NodeClaim, NodeClaimSpec, RequirementWithMinValues},
    nodes::pools::{
        node_claim::single_values,
        requirements::{
            Operator, Requirement,
            labels::{CAPACITY_TYPE, HOSTNAME, INSTANCE_TYPE},
        },
        solver,
    },
};

pub(super) use tandem_core::nodes::pools::node_claim::{
    changed, created, expires, holds, is_deleting, since,
};

use super::{
    names::{
        CAPACITY_OVERLAY_APPLIED, FINALIZER, HASH, HASH_VERSION, MIN_VALUES_RELAXED, PRICE_OVERLAY_APPLIED,
    },
    view::{self, Pool},
};
use crate::cloud::pools::quantities;

/// The claim for a node that was decided upon.
pub(super) fn build(pool: &Pool, node: &solver::Claim) -> NodeClaim {
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
    annotations.insert(MIN_VALUES_RELAXED.to_owned(), is_relaxed(pool, node).to_string());
    for (key, is_applied) in [
        (PRICE_OVERLAY_APPLIED, node.types.iter().any(|one| one.overlaid.price)),
        (CAPACITY_OVERLAY_APPLIED, node.types.iter().any(|one| one.overlaid.capacity)),
    ] {
        annotations.extend(is_applied.then(|| (key.to_owned(), "true".to_owned())));
    }

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

/// Whether there is less choice than the pool asks for.
fn is_relaxed(pool: &Pool, node: &solver::Claim) -> bool {
    let asked = pool.spec.template.spec.requirements.iter();
    asked.filter_map(|asked| Some((&asked.key, u32::try_from(asked.min_values?).ok()?))).any(
        |(key, asked)| {
            let left = node.requirements.get(key).and_then(Requirement::min_values);
            left.is_some_and(|left| left < asked)
        },
    )
}

/// Whether a claim may require a label: those below karpenter.sh are its own labels, the hostname nobody knows yet.
fn may_be_required(key: &str) -> bool {
    let domain = key.split('/').next().unwrap_or_default();
    key == CAPACITY_TYPE || (!domain.ends_with("karpenter.sh") && key != HOSTNAME)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use tandem_core::{
        api::karpenter::NodePool, nodes::pools::requirements::Requirements, scheduling::Resources,
    };

    use super::*;

    #[test]
    fn a_claim_says_whether_it_has_less_choice_than_its_pool_asks_for() {
        let object = json!({"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "general"},
            "spec": {"template": {"spec": {
                "nodeClassRef": {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default"},
                "requirements": [{"key": INSTANCE_TYPE, "operator": "Exists", "minValues": 3}]}}}});
        let object: NodePool = serde_json::from_value(object).unwrap();
        let pool = Pool::of_node_pool(&object);
        for (left, wanted) in [(3, "false"), (2, "true")] {
            let asked = Requirement::new(INSTANCE_TYPE, Operator::In, ["a", "b"]).with_min_values(Some(left));
            let node = solver::Claim {
                pool: Arc::from("general"),
                requirements: Requirements::from_iter([asked]),
                types: Vec::new(),
                pods: Vec::new(),
                requests: Resources::default(),
                price: 0.0,
                presumes_devices: false,
            };
            let annotations = build(&pool, &node).metadata.annotations.unwrap();
            assert_eq!(annotations[MIN_VALUES_RELAXED], wanted, "{left} of 3");
        }
    }
}
