//! Nodes that have been broken for too long are replaced, whatever runs on them (gate `NodeRepair`).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::json;
use tandem_core::nodes::pools::repair::{Broken, repairs};
use tokio::time::Instant;

use super::{Pools, claim::is_deleting, claims::StepError, names::TERMINATION_TIME, observe::present, write};

/// What comes within this time is looked at together.
const CALM: Duration = Duration::from_secs(5);
/// The longest time between two looks.
const PERIOD: Duration = Duration::from_mins(5);
/// That a node stays broken is told again after so long.
const TOLD_AGAIN: Duration = Duration::from_mins(15);
/// The gate.
const GATE: &str = "NodeRepair";

/// Claims that were told of, and when.
type Told = BTreeMap<Arc<str>, Instant>;

/// Replaces broken nodes, for ever, if that is wanted.
pub(super) async fn run(pools: Arc<Pools>) {
    if !pools.settings.feature_gates.is_on(GATE) {
        return;
    }
    let mut changes = pools.world.changes.subscribe();
    let mut told = Told::new();
    loop {
        let due = if pools.leads() { pass(&pools, &mut told, Timestamp::now()).await } else { None };
        let until =
            due.map(|due| Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default());
        pools.changed(&mut changes, CALM, until.map_or(PERIOD, |until| until.min(PERIOD))).await;
    }
}

/// Returns when the next node is due.
async fn pass(pools: &Pools, told: &mut Told, now: Timestamp) -> Option<Timestamp> {
    let found = repairs(&present(pools), now);
    for broken in &found.due {
        if let Err(error) = replace(pools, broken, now).await {
            tracing::warn!(claim = &*broken.claim, %error, "a broken node could not be replaced, tried again");
        }
    }
    told.retain(|_, at| at.elapsed() < TOLD_AGAIN);
    for broken in &found.blocked {
        if !told.contains_key(&broken.claim)
            && let Some(claim) = pools.claims.get("", &broken.claim)
        {
            told.insert(broken.claim.clone(), Instant::now());
            let message = "more than 20% nodes are unhealthy in the nodepool".to_owned();
            pools.tell(&*claim, "Warning", "NodeRepairBlocked", message).await;
        }
    }
    found.next
}

/// Ends a claim at once: pods on a broken node cannot be asked.
async fn replace(pools: &Pools, broken: &Broken, now: Timestamp) -> Result<(), StepError> {
    let Some(claim) = pools.claims.get("", &broken.claim).filter(|claim| !is_deleting(claim)) else {
        return Ok(());
    };
    tracing::warn!(claim = &*broken.claim, condition = broken.condition, "a broken node is replaced");
    let annotations = json!({ "annotations": { TERMINATION_TIME: now.to_string() } });
    write::metadata(&pools.claim_api(), &*claim, annotations).await?;
    pools.metrics.broken(&claim, broken.condition);
    pools.delete_claim(&claim, "unhealthy").await?;
    Ok(())
}
