//! Keeps static pools at as many nodes as they say (gate `StaticCapacity`).

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tandem_core::nodes::pools::fixed::difference;

use super::{
    Pools,
    observe::{observe, options},
    provision::create,
};

/// What comes within this time is looked at together.
const CALM: Duration = Duration::from_secs(1);
/// The longest time between two looks (core, `pkg/controllers/static`).
const PERIOD: Duration = Duration::from_mins(1);
/// The gate.
pub(super) const GATE: &str = "StaticCapacity";

/// Makes and deletes claims of static pools, for ever, if that is wanted.
pub(super) async fn run(pools: Arc<Pools>) {
    if !pools.settings.feature_gates.is_on(GATE) {
        return;
    }
    let mut changes = pools.world.changes.subscribe();
    loop {
        if pools.leads() && pools.pools().iter().any(|pool| pool.spec.is_static()) {
            pass(&pools).await;
        }
        pools.changed(&mut changes, CALM, PERIOD).await;
    }
}

async fn pass(pools: &Pools) {
    let _unreplaced = pools.replacing.lock().await;
    let cluster = observe(pools, Timestamp::now()).await;
    let difference = difference(&cluster, &options(pools));
    if let Some(rehearsal) = &pools.rehearsal {
        return rehearsal.would_level(pools, &difference);
    }
    create(pools, &difference.create, "provisioned").await;
    for name in &difference.delete {
        let Some(claim) = pools.claims.get("", name) else { continue };
        if let Err(error) = pools.delete_claim(&claim, "deprovisioned").await {
            tracing::warn!(claim = &**name, %error, "a NodeClaim too many could not be deleted, tried again");
        }
    }
}
