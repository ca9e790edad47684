//! Claims that are not what their pool or node class asks for any more (core, `pkg/controllers/nodeclaim/disruption/drift.go`).

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::json;
use tandem_core::{
    api::karpenter::{NodeClaim, RequirementWithMinValues},
    nodes::pools::requirements::{Requirement, Requirements, WellKnownLabels},
};

use super::{
    Pools,
    claim::{holds, is_deleting},
    claims::StepError,
    conditions::{self, Status},
    names::{HASH, HASH_VERSION, condition},
    view::{self, Pool},
    write,
};

/// The shortest time between two looks: drift is no hurry.
const CALM: Duration = Duration::from_secs(10);
/// Between two looks at what no event tells.
const PERIOD: Duration = Duration::from_mins(5);

/// Keeps `Drifted` of claims right, for ever.
pub(super) async fn run(pools: Arc<Pools>) {
    let mut changes = pools.world.changes.subscribe();
    loop {
        if pools.leads() {
            for pool in pools.pools() {
                for claim in pools.claims_of(Some(&pool.name)) {
                    match look(&pools, &pool, &claim).await {
                        Err(StepError::Api(error))
                            if write::is_outdated(&error) || write::is_gone(&error) => {}
                        Err(error) => {
                            tracing::warn!(claim = claim.name_any(), %error, "drift cannot be told");
                        }
                        Ok(()) => {}
                    }
                }
            }
        }
        pools.changed(&mut changes, CALM, PERIOD).await;
    }
}

async fn look(pools: &Pools, pool: &Pool, claim: &NodeClaim) -> Result<(), StepError> {
    if is_deleting(claim) || !holds(claim, condition::LAUNCHED) {
        return Ok(());
    }
    if claim.annotations().get(HASH_VERSION).map(String::as_str) != Some(view::HASH_VERSION) {
        // Made by another version, whose digest says nothing to this one.
        let annotations = json!({ "annotations": { HASH: pool.hash, HASH_VERSION: view::HASH_VERSION } });
        write::metadata(&pools.claim_api(), claim, annotations).await?;
        return Ok(());
    }
    let reason = match drifted_from(pool, claim) {
        Some(reason) => Some(reason),
        None => pools.provider.drifted(claim, &pool.class).await?,
    };
    if holds(claim, condition::DRIFTED) == reason.is_some() {
        return Ok(());
    }
    let mut status = claim.status.clone().unwrap_or_default();
    match reason {
        Some(reason) => {
            tracing::info!(claim = claim.name_any(), reason, "NodeClaim has drifted");
            let now = Timestamp::now();
            conditions::set(&mut status.conditions, condition::DRIFTED, Status::True, (reason, reason), now);
        }
        None => conditions::clear(&mut status.conditions, condition::DRIFTED),
    }
    write::status(&pools.claim_api(), claim, &status).await?;
    Ok(())
}

/// Why a claim is not what its pool says now.
fn drifted_from(pool: &Pool, claim: &NodeClaim) -> Option<&'static str> {
    if claim.annotations().get(HASH) != Some(&pool.hash) {
        return Some("NodePoolDrifted");
    }
    let labels: Requirements =
        claim.labels().iter().map(|(key, value)| Requirement::is(key, value)).collect();
    let required = RequirementWithMinValues::read_all(&pool.spec.template.spec.requirements);
    let fits = labels.is_compatible(&required, &WellKnownLabels::none());
    (!fits).then_some("RequirementsDrifted")
}

#[cfg(test)]
mod tests {
    use tandem_core::{
        api::karpenter::NodePool,
        nodes::pools::requirements::{Operator, labels::ZONE},
    };

    use super::*;

    #[test]
    fn drift_is_told_from_the_digest_and_the_labels() {
        let mut object = NodePool::default();
        let zones = RequirementWithMinValues::new(ZONE, Operator::In, &["a", "b"]);
        object.spec.template.spec.requirements = vec![zones];
        let pool = Pool::of_node_pool(&object);
        let mut claim = NodeClaim::default();
        claim.annotations_mut().insert(HASH.to_owned(), pool.hash.clone());
        claim.labels_mut().insert(ZONE.to_owned(), "b".to_owned());
        assert_eq!(drifted_from(&pool, &claim), None);
        claim.labels_mut().insert(ZONE.to_owned(), "c".to_owned());
        assert_eq!(drifted_from(&pool, &claim), Some("RequirementsDrifted"));
        claim.annotations_mut().insert(HASH.to_owned(), "0".to_owned());
        assert_eq!(drifted_from(&pool, &claim), Some("NodePoolDrifted"));
    }
}
