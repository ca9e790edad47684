//! Commands that are being done: nodes take no more pods, their replacements come up, and only then do they go (core,
//! `pkg/controllers/disruption/queue.go`).

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kube::ResourceExt as _;
use tandem_core::{
    api::karpenter::NodeClaim,
    nodes::pools::{budgets::Reason, disrupt::Command, node_claim::pool_of},
};
use tokio::time::Instant;

use super::{
    super::{
        Pools,
        claim::{holds, is_deleting},
        conditions::{self, Status},
        names::{DISRUPTED, condition, disrupted},
        provision::create,
        write,
    },
    say,
};
use crate::controllers::nodes::taint::{Marking, mark};

/// How long a command may take for each node that is being replaced, and at least and at most (core, `queue.go`).
const FOR_EACH: Duration = Duration::from_millis(80);
const AT_LEAST: Duration = Duration::from_mins(10);
const AT_MOST: Duration = Duration::from_hours(1);
/// Others write the status of a claim too; so often is it tried again.
const TRIES: usize = 3;

/// Commands that are being done.
#[derive(Default)]
pub(super) struct Queue(Vec<Running>);

/// A command that is being done.
struct Running {
    command: Command,
    /// Claims that have to be ready first.
    made: Vec<String>,
    since: Instant,
}

/// How it stands with a command.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// Its replacements are not ready yet.
    Waits,
    /// They are.
    Ready,
    /// One of them is gone, or they take too long.
    Failed(&'static str),
}

impl Queue {
    /// Keeps new pods off, and asks for replacements; without any, the nodes go at once.
    pub(super) async fn begin(&mut self, pools: &Arc<Pools>, command: Command) {
        if let Some(rehearsal) = &pools.rehearsal {
            return rehearsal.would_disrupt(pools, &command);
        }
        tracing::info!(%command, savings = command.savings, "nodes are taken away");
        let reason = command.method.reason();
        let _uncounted = pools.replacing.lock().await;
        for name in &command.claims {
            close(pools, name, reason).await;
        }
        let made: Vec<String> =
            create(pools, &command.replacements, reason.label()).await.into_iter().flatten().collect();
        if made.len() < command.replacements.len() {
            // Those that were made are empty, and go by themselves.
            return give_back(pools, &command, "a replacement could not be asked for").await;
        }
        pools.metrics.disruption.begun(&command, pools_of(pools, &command));
        if made.is_empty() {
            return remove(pools, &command).await;
        }
        pools.leaving.lock().extend(command.claims.iter().cloned());
        say::launching(pools, &command, &made).await;
        self.0.push(Running { command, made, since: Instant::now() });
    }

    /// Removes nodes whose replacements are ready, and gives those back whose replacements failed.
    pub(super) async fn advance(&mut self, pools: &Arc<Pools>) {
        let count: usize = self.0.iter().map(|running| running.command.claims.len()).sum();
        let within = FOR_EACH.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        let within = within.clamp(AT_LEAST, AT_MOST);
        let mut left = Vec::new();
        for running in std::mem::take(&mut self.0) {
            if running.is_done(pools) {
                stay(pools, &running.command);
                continue;
            }
            // Nobody takes them away while they wait for the pods.
            for name in &running.made {
                pools.nominations.note(name, pools.settings.batch_max_duration, Instant::now());
            }
            match running.progress(pools, within) {
                Progress::Waits => left.push(running),
                Progress::Ready => {
                    remove(pools, &running.command).await;
                    left.push(running);
                }
                Progress::Failed(why) => {
                    let is_ready = |name: &&String| {
                        let claim = pools.claims.get("", name);
                        claim.is_some_and(|claim| holds(&claim, condition::INITIALIZED))
                    };
                    let missing = running.made.len() - running.made.iter().filter(is_ready).count();
                    pools.metrics.disruption.failed(&running.command, missing);
                    give_back(pools, &running.command, why).await;
                }
            }
        }
        self.0 = left;
    }
}

impl Running {
    /// Whether the claims are on their way out, or gone.
    fn is_done(&self, pools: &Pools) -> bool {
        let is_going = |name: &Arc<str>| pools.claims.get("", name).is_none_or(|claim| is_deleting(&claim));
        self.command.claims.iter().all(is_going)
    }

    fn progress(&self, pools: &Pools, within: Duration) -> Progress {
        let found: Vec<_> = self.made.iter().map(|name| pools.claims.get("", name)).collect();
        progress(&found, self.since.elapsed() > within)
    }
}

fn progress(replacements: &[Option<Arc<NodeClaim>>], is_late: bool) -> Progress {
    let is_lost = |claim: &Option<Arc<NodeClaim>>| claim.as_ref().is_none_or(|claim| is_deleting(claim));
    if replacements.iter().any(is_lost) {
        Progress::Failed("a replacement is gone")
    } else if replacements.iter().flatten().all(|claim| holds(claim, condition::INITIALIZED)) {
        Progress::Ready
    } else if is_late {
        Progress::Failed("the replacements take too long")
    } else {
        Progress::Waits
    }
}

/// Deletes the claims; what evicts their pods is their finalizer.
async fn remove(pools: &Arc<Pools>, command: &Command) {
    let reason = command.method.reason().label();
    for name in &command.claims {
        let Some(claim) = pools.claims.get("", name).filter(|claim| !is_deleting(claim)) else { continue };
        say::terminating(pools, &claim, command).await;
        if let Err(error) = pools.delete_claim(&claim, reason).await {
            tracing::warn!(claim = &**name, %error, "a NodeClaim could not be deleted, tried again");
            // Whoever is not deleted now is so in the next pass.
            if command.replacements.is_empty() {
                open(pools, name).await;
            }
        }
    }
}

/// The pools of its nodes.
fn pools_of(pools: &Pools, command: &Command) -> BTreeSet<String> {
    let claims = command.claims.iter().filter_map(|name| pools.claims.get("", name));
    claims.filter_map(|claim| pool_of(&claim).map(str::to_owned)).collect()
}

async fn give_back(pools: &Arc<Pools>, command: &Command, why: &'static str) {
    tracing::warn!(%command, why, "nodes that were to go stay");
    stay(pools, command);
    for name in &command.claims {
        open(pools, name).await;
    }
}

/// Their pods need no room elsewhere any more.
fn stay(pools: &Pools, command: &Command) {
    let mut leaving = pools.leaving.lock();
    for name in &command.claims {
        leaving.remove(name);
    }
}

/// Keeps new pods off the node of a claim, and says why.
async fn close(pools: &Pools, claim: &str, reason: Reason) {
    let marking = Marking { add: vec![disrupted()], ..Marking::default() };
    taint(pools, claim, &marking).await;
    say_reason(pools, claim, Some(reason)).await;
}

/// Gives the node of a claim back to the scheduler.
async fn open(pools: &Pools, claim: &str) {
    let marking = Marking { remove: vec![DISRUPTED.to_owned()], ..Marking::default() };
    taint(pools, claim, &marking).await;
    say_reason(pools, claim, None).await;
}

async fn taint(pools: &Pools, claim: &str, marking: &Marking) {
    let Some(node) = pools.claims.get("", claim).and_then(|claim| pools.node_of(&claim)) else { return };
    if let Err(error) = mark(&pools.client, &node.name, marking).await {
        tracing::warn!(node = &*node.name, %error, "the taint of a node could not be written");
    }
}

/// Writes the condition `DisruptionReason` of a claim, or clears it.
async fn say_reason(pools: &Pools, name: &str, reason: Option<Reason>) {
    let api = pools.claim_api();
    for _ in 0..TRIES {
        let written = match api.get(name).await {
            Ok(claim) => {
                let mut status = claim.status.clone().unwrap_or_default();
                match reason {
                    Some(reason) => {
                        let said = (reason.name(), reason.name());
                        let kind = condition::DISRUPTION_REASON;
                        conditions::set(&mut status.conditions, kind, Status::True, said, Timestamp::now());
                    }
                    None => conditions::clear(&mut status.conditions, condition::DISRUPTION_REASON),
                }
                if claim.status.as_ref() == Some(&status) {
                    return;
                }
                write::status(&api, &claim, &status).await.map(drop)
            }
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => return,
            Err(error) if write::is_gone(&error) => return,
            Err(error) if write::is_outdated(&error) => {}
            Err(error) => {
                tracing::warn!(claim = name, %error, "why a NodeClaim goes could not be written");
                return;
            }
        }
    }
}

/// Gives nodes back that an earlier leader was about to take away.
pub(super) async fn release(pools: &Pools) {
    let mut deleting: HashSet<Arc<str>> = HashSet::new();
    for claim in pools.claims_of(None) {
        if is_deleting(&claim) {
            deleting.extend(pools.node_of(&claim).map(|node| node.name.clone()));
        } else if holds(&claim, condition::DISRUPTION_REASON) {
            open(pools, &claim.name_any()).await;
        }
    }
    for node in pools.world.nodes.all() {
        if node.taint(DISRUPTED).is_some() && node.deleting.is_none() && !deleting.contains(&node.name) {
            let marking = Marking { remove: vec![DISRUPTED.to_owned()], ..Marking::default() };
            if let Err(error) = mark(&pools.client, &node.name, &marking).await {
                tracing::warn!(node = &*node.name, %error, "a node that stays could not be given back");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tandem_core::api::karpenter::NodeClaimStatus;

    use super::*;

    #[test]
    fn nothing_goes_before_all_its_replacements_are_ready() {
        let claim = |is_ready: bool| {
            let mut status = NodeClaimStatus::default();
            let said = if is_ready { Status::True } else { Status::Unknown };
            conditions::set(
                &mut status.conditions,
                condition::INITIALIZED,
                said,
                ("", ""),
                Timestamp::UNIX_EPOCH,
            );
            Some(Arc::new(NodeClaim { status: Some(status), ..NodeClaim::default() }))
        };
        assert_eq!(progress(&[claim(true), claim(true)], true), Progress::Ready);
        assert_eq!(progress(&[claim(true), claim(false)], false), Progress::Waits);
        assert_eq!(
            progress(&[claim(true), claim(false)], true),
            Progress::Failed("the replacements take too long")
        );
        assert_eq!(progress(&[claim(true), None], false), Progress::Failed("a replacement is gone"));
    }
}
