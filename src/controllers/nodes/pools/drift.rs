//! Claims that are not what their pool or node class asks for any more (core, `pkg/controllers/nodeclaim/disruption/drift.go`).

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use serde_json::json;
use tandem_core::{
    api::karpenter::{NodeClaim, RequirementWithMinValues},
    nodes::pools::{
        instance_type::{InstanceType, compatible},
        requirements::{Requirement, Requirements, WellKnownLabels, labels::INSTANCE_TYPE},
    },
};

use super::{
    Pools,
    claim::{created, holds, is_deleting},
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

/// A machine's type is missed at this age at the earliest (core, `drift.go`).
const TYPES_SETTLE: SignedDuration = SignedDuration::from_hours(1);

/// Keeps `Drifted` of claims right, for ever.
pub(super) async fn run(pools: Arc<Pools>) {
    let mut changes = pools.world.changes.subscribe();
    loop {
        if pools.leads() {
            for pool in pools.pools() {
                let types = pools.provider.instance_types(&pool.class).await.unwrap_or_else(|error| {
                    tracing::warn!(pool = pool.name, %error, "its instance types cannot be told");
                    Arc::default()
                });
                for claim in pools.claims_of(Some(&pool.name)) {
                    match look(&pools, &pool, &types, &claim).await {
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

async fn look(
    pools: &Pools,
    pool: &Pool,
    types: &[Arc<InstanceType>],
    claim: &NodeClaim,
) -> Result<(), StepError> {
    if is_deleting(claim) || !holds(claim, condition::LAUNCHED) {
        return Ok(());
    }
    if claim.annotations().get(HASH_VERSION).map(String::as_str) != Some(view::HASH_VERSION) {
        // Made by another version, whose digest says nothing to this one.
        let annotations = json!({ "annotations": { HASH: pool.hash, HASH_VERSION: view::HASH_VERSION } });
        write::metadata(&pools.claim_api(), claim, annotations).await?;
        return Ok(());
    }
    let is_gone = || is_type_gone(types, claim, pools.provider.well_known(), Timestamp::now());
    let reason = match drifted_from(pool, claim) {
        Some(reason) => Some(reason),
        None if is_gone() => Some("InstanceTypeNotFound"),
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

/// Whether a machine of a claim's type could not be had any more where it is, sold out or not. Nobody can tell while no types are
/// known at all.
fn is_type_gone(
    types: &[Arc<InstanceType>],
    claim: &NodeClaim,
    well_known: &WellKnownLabels,
    now: Timestamp,
) -> bool {
    let Some(name) = claim.labels().get(INSTANCE_TYPE).filter(|_| !types.is_empty()) else { return false };
    let labels = Requirements::of_labels(claim.labels());
    let own = types.iter().find(|one| *one.name == **name);
    let is_offered = own.is_some_and(|own| compatible(&own.offerings, &labels, well_known).next().is_some());
    !is_offered && now.duration_since(created(claim)) >= TYPES_SETTLE
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use tandem_core::{
        api::karpenter::NodePool,
        nodes::pools::{
            catalogue::built_in,
            requirements::{
                Operator,
                labels::{CAPACITY_TYPE, SPOT, ZONE},
            },
        },
    };

    use super::*;

    #[test]
    fn a_type_that_cannot_be_had_any_more_is_missed_after_an_hour() {
        let mut claim = NodeClaim::default();
        claim.metadata.creation_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let labels = [(INSTANCE_TYPE, "c-4x-amd64-linux"), (ZONE, "test-zone-a"), (CAPACITY_TYPE, SPOT)];
        claim.labels_mut().extend(labels.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let gone = |types: &[Arc<InstanceType>], claim: &NodeClaim, minutes| {
            let now = Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
            is_type_gone(types, claim, &WellKnownLabels::default(), now)
        };
        let types = built_in();
        let others: Vec<_> = types.iter().filter(|one| !one.name.starts_with("c-4x")).cloned().collect();
        assert!(!gone(&types, &claim, 60));
        assert!(!gone(&others, &claim, 59), "a provider may take its time");
        assert!(gone(&others, &claim, 60));
        assert!(!gone(&[], &claim, 60), "nobody knows");
        claim.labels_mut().insert(ZONE.to_owned(), "closed".to_owned());
        assert!(gone(&types, &claim, 60), "not in this zone");
        claim.labels_mut().remove(INSTANCE_TYPE);
        assert!(!gone(&types, &claim, 60));
    }

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
