//! Claims whose machine is gone, and machines whose claim is.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::{
    Pools,
    claim::{holds, is_deleting},
    claims::StepError,
    names::condition,
};
use crate::cloud::{CloudError, pools::Machine};

/// Between two looks (core and aws, `garbagecollection`).
const PERIOD: Duration = Duration::from_mins(2);
/// A machine this young may be one whose claim has not been heard of.
const YOUNG: SignedDuration = SignedDuration::from_secs(30);

/// Looks for what nobody needs, for ever.
pub(super) async fn run(pools: Arc<Pools>) {
    loop {
        if pools.leads()
            && let Err(error) = pass(&pools, Timestamp::now()).await
        {
            tracing::warn!(%error, "machines and NodeClaims could not be compared, tried again later");
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn pass(pools: &Pools, now: Timestamp) -> Result<(), StepError> {
    // Claims first: what is launched after this look is in the list of machines.
    let claims = pools.claims_of(None);
    let machines = pools.provider.list().await?;
    let known: HashSet<&str> = machines.iter().map(|machine| machine.provider_id.as_str()).collect();
    for claim in &claims {
        let id = claim.status.as_ref().and_then(|status| status.provider_id.as_deref());
        let is_lost = id.is_some_and(|id| !known.contains(id)) && holds(claim, condition::REGISTERED);
        if is_lost && !is_deleting(claim) && pools.node_of(claim).is_none_or(|node| !node.ready) {
            pools.delete_claim(claim, "garbage_collected").await?;
        }
    }
    let of_claims: HashMap<String, _> = claims.iter().map(|claim| (claim.name_any(), claim)).collect();
    let old = |machine: &&Machine| machine.created.is_some_and(|created| created + YOUNG < now);
    for machine in machines.iter().filter(old).filter(|machine| !of_claims.contains_key(&machine.claim)) {
        terminate(pools, machine).await?;
    }
    Ok(())
}

/// Terminates a machine without a claim, if the API server agrees that there is none.
async fn terminate(pools: &Pools, machine: &Machine) -> Result<(), StepError> {
    if pools.claim_api().get_opt(&machine.claim).await?.is_some() {
        return Ok(());
    }
    tracing::warn!(
        provider_id = machine.provider_id,
        claim = machine.claim,
        "a machine without a NodeClaim is terminated"
    );
    match pools.provider.delete(&machine.provider_id).await {
        Err(error) if !matches!(error, CloudError::NotFound(_)) => Err(error.into()),
        _ => Ok(()),
    }
}
