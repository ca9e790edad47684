//! Whether the machines of pools become nodes: how launches end is noted here, and written with the pool's status
//! (`NodeRegistrationHealthy`; no part of `Ready`, since who keeps trying may succeed).

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::{Resource as _, ResourceExt as _};
use parking_lot::Mutex;
use tandem_core::{
    api::karpenter::{NodeClaim, NodePool, NodePoolStatus},
    nodes::pools::registration::{Failure, Health, Launches, is_outdated},
};

use super::{
    Pools,
    conditions::{self, Status},
    names::NODE_REGISTRATION_HEALTHY as KIND,
    pool_of,
};

/// What is said of a pool without launches, as of any condition that nobody has judged (operatorpkg's `status`).
const UNJUDGED: (&str, &str) = ("AwaitingReconciliation", "object is awaiting reconciliation");

/// The last launches of NodePools, by their uids.
#[derive(Default)]
pub(super) struct Registrations(Mutex<BTreeMap<String, Launches>>);

impl Registrations {
    /// Does something with a pool's launches; after a restart with those that its condition stands for.
    fn with<T>(&self, pool: &NodePool, act: impl FnOnce(&mut Launches) -> T) -> T {
        let written = pool.status.as_ref().and_then(|status| conditions::find(&status.conditions, KIND));
        let mut launches = self.0.lock();
        act(launches.entry(pool.uid().unwrap_or_default()).or_insert_with(|| Launches::read(written)))
    }

    /// Forgets pools that are gone.
    pub(super) fn retain(&self, pools: &[impl AsRef<NodePool>]) {
        let there: Vec<_> = pools.iter().filter_map(|pool| pool.as_ref().uid()).collect();
        self.0.lock().retain(|uid, _| there.contains(uid));
    }

    /// Says in a status that is about to be written how the launches of the pool end. The class's generation is the one of now.
    pub(super) fn judge(
        &self,
        pool: &NodePool,
        status: &mut NodePoolStatus,
        class_generation: Option<i64>,
        now: Timestamp,
    ) {
        let written = conditions::find(&status.conditions, KIND);
        let classes = (status.node_class_observed_generation, class_generation);
        let is_outdated = is_outdated(written, pool.meta().generation, classes);
        let was = written.map(|written| written.status.clone());
        self.with(pool, |launches| {
            if is_outdated {
                *launches = Launches::default();
            }
            let (is, said) = match launches.health() {
                Health::Unknown => (Status::Unknown, UNJUDGED),
                Health::Healthy => (Status::True, ("", "")),
                // The first failure stays what is said: the next ones are no news.
                Health::Unhealthy(_) if was.as_deref() == Some("False") => return,
                Health::Unhealthy(why) => (Status::False, (why.reason.as_str(), why.message.as_str())),
            };
            conditions::set(&mut status.conditions, KIND, is, said, now);
        });
        if let Some(condition) = status.conditions.iter_mut().find(|condition| condition.type_ == KIND) {
            condition.observed_generation = pool.meta().generation;
        }
        status.node_class_observed_generation = class_generation;
    }
}

/// Notes how the launch of a claim ended, if it is one of the NodePool that has its name.
pub(super) fn note(pools: &Pools, claim: &NodeClaim, outcome: Result<(), Failure>) {
    let Some(pool) = pool_of(claim).and_then(|name| pools.node_pools.get("", name)) else { return };
    if claim.owner_references().iter().any(|owner| Some(&owner.uid) == pool.metadata.uid.as_ref()) {
        pools.registrations.with(&pool, |launches| launches.note(outcome));
    }
}

/// A machine that became no node in time (core, `lifecycle/liveness.go`).
pub(super) fn not_registered() -> Failure {
    Failure { reason: "RegistrationFailed".to_owned(), message: "Failed to register node".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> NodePool {
        let mut pool = NodePool::default();
        pool.metadata.uid = Some("u".to_owned());
        pool.metadata.generation = Some(1);
        pool
    }

    /// What is written of a pool, whose class is of this generation, when it is looked at.
    fn look(registrations: &Registrations, pool: &mut NodePool, class: i64) -> (String, String) {
        let mut status = pool.status.clone().unwrap_or_default();
        registrations.judge(pool, &mut status, Some(class), Timestamp::UNIX_EPOCH);
        let said = conditions::find(&status.conditions, KIND).unwrap();
        let said = (said.status.clone(), said.reason.clone());
        pool.status = Some(status);
        said
    }

    fn said(status: &str, reason: &str) -> (String, String) {
        (status.to_owned(), reason.to_owned())
    }

    #[test]
    fn a_pool_says_how_its_launches_end_until_it_or_its_class_changes() {
        let (registrations, mut pool) = (Registrations::default(), pool());
        let awaiting = said("Unknown", "AwaitingReconciliation");
        assert_eq!(look(&registrations, &mut pool, 1), awaiting);
        registrations.with(&pool, |launches| launches.note(Ok(())));
        assert_eq!(look(&registrations, &mut pool, 1), said("True", KIND));
        for _ in 0..2 {
            registrations.with(&pool, |launches| launches.note(Err(not_registered())));
        }
        let failed = said("False", "RegistrationFailed");
        assert_eq!(look(&registrations, &mut pool, 1), failed);
        // A restart, and another failure: what is written stays as it is.
        let registrations = Registrations::default();
        let before = pool.clone();
        let late = Failure { reason: "LaunchFailed".to_owned(), message: String::new() };
        registrations.with(&pool, |launches| launches.note(Err(late)));
        assert_eq!((look(&registrations, &mut pool, 1), &pool), (failed.clone(), &before));

        assert_eq!(look(&registrations, &mut pool, 2), awaiting, "the class changed");
        registrations.with(&pool, |launches| launches.note(Ok(())));
        assert_eq!(look(&registrations, &mut pool, 2), said("True", KIND));
        pool.metadata.generation = Some(2);
        assert_eq!(look(&registrations, &mut pool, 2), awaiting, "the pool changed");
        assert_eq!(look(&registrations, &mut pool, 2), awaiting);
    }
}
