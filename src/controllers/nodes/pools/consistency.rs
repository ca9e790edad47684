//! Whether nodes are what their claims were launched for: said when a node is initialized, and looked at again from time to
//! time (core, `pkg/controllers/nodeclaim/consistency`).

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use tandem_core::{
    api::karpenter::NodeClaim,
    nodes::pools::consistency::{Shortfall, shortfalls},
};

use super::{
    Pools,
    claims::StepError,
    conditions::{self, Status},
    lifecycle::initialized,
    names::condition::CONSISTENT_STATE_FOUND,
    write,
};

/// Between two looks (core, `scanPeriod`).
const PERIOD: Duration = Duration::from_mins(10);

/// Looks at nodes, for ever.
pub(super) async fn run(pools: Arc<Pools>) {
    loop {
        if pools.leads() {
            for claim in pools.claims_of(None).iter().filter(|claim| initialized(claim).is_some()) {
                match look(&pools, claim, Timestamp::now()).await {
                    Err(StepError::Api(error)) if write::is_outdated(&error) || write::is_gone(&error) => {}
                    Err(error) => {
                        tracing::warn!(claim = claim.name_any(), %error, "its consistency could not be written");
                    }
                    Ok(()) => {}
                }
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn look(pools: &Pools, claim: &NodeClaim, now: Timestamp) -> Result<(), StepError> {
    let (Some(node), Some(mut status)) = (pools.node_of(claim), claim.status.clone()) else { return Ok(()) };
    let short = shortfalls(claim, &node);
    judge(&mut status.conditions, &short, now);
    if claim.status.as_ref() != Some(&status) {
        write::status(&pools.claim_api(), claim, &status).await?;
        tell(pools, claim, &short).await;
    }
    Ok(())
}

/// Says whether a node is what was expected.
pub(super) fn judge(conditions: &mut Vec<Condition>, short: &[Shortfall], now: Timestamp) {
    let (is, said) = if short.is_empty() {
        (Status::True, ("", ""))
    } else {
        (Status::False, ("ConsistencyCheckFailed", "Consistency Check Failed"))
    };
    conditions::set(conditions, CONSISTENT_STATE_FOUND, is, said, now);
}

/// Tells what a node has too little of.
pub(super) async fn tell(pools: &Pools, claim: &NodeClaim, short: &[Shortfall]) {
    for one in short {
        tracing::warn!(claim = claim.name_any(), "the node has less than its machine promised: {one}");
        pools.tell(claim, "Warning", "FailedConsistencyCheck", one.to_string()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_again_changes_nothing() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let short = [Shortfall { resource: "cpu".to_owned(), expected: 4000, found: 2000 }];
        let mut conditions = Vec::new();
        judge(&mut conditions, &short, at(0));
        let failed = conditions.clone();
        assert_eq!(
            (failed[0].status.as_str(), failed[0].reason.as_str()),
            ("False", "ConsistencyCheckFailed")
        );
        judge(&mut conditions, &short, at(600));
        assert_eq!(conditions, failed);
        judge(&mut conditions, &[], at(1200));
        assert!(conditions::holds(&conditions, CONSISTENT_STATE_FOUND));
        assert_eq!(conditions[0].last_transition_time.0, at(1200));
    }
}
