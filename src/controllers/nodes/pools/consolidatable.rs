//! Which nodes have been calm for as long as their pool asks: no pod came, ended or left.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use tandem_core::{api::karpenter::NodeClaim, scheduling::Pod};

use super::{
    Pools,
    claim::{holds, is_deleting},
    claims::StepError,
    conditions::{self, Status},
    lifecycle::initialized,
    names::condition,
    pool_of, write,
};

/// What comes within this time is looked at together.
const CALM: Duration = Duration::from_millis(500);
/// The longest time between two looks.
const PERIOD: Duration = Duration::from_secs(10);
/// `lastPodEventTime` is written again after so long at the earliest (core, `pkg/controllers/nodeclaim/podevents`).
const DEDUPED: SignedDuration = SignedDuration::from_secs(10);

/// Events of nodes without pods are forgotten after so long; by then they are written.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(24);

/// Pods on a node: their uid, and whether they are leaving.
type Present = BTreeSet<(Arc<str>, bool)>;

/// What was seen of nodes.
#[derive(Default)]
struct Seen {
    present: Option<HashMap<Arc<str>, Present>>,
    /// When a pod last came, ended or left.
    events: HashMap<Arc<str>, Timestamp>,
}

/// Keeps `Consolidatable` and `lastPodEventTime` of claims right, for ever.
pub(super) async fn run(pools: Arc<Pools>) {
    let mut changes = pools.world.changes.subscribe();
    let mut seen = Seen::default();
    loop {
        let now = Timestamp::now();
        seen.look(&pools.world.pods.all(), now);
        let due = if pools.leads() { write_all(&pools, &seen, now).await } else { None };
        let until = due.map_or(PERIOD, |due| {
            Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO).min(PERIOD)
        });
        pools.changed(&mut changes, CALM, until).await;
    }
}

impl Seen {
    /// Notes what has changed since the last look.
    fn look(&mut self, pods: &[Arc<Pod>], now: Timestamp) {
        let mut present: HashMap<Arc<str>, Present> = HashMap::new();
        for pod in pods.iter().filter(|pod| !pod.is_terminal() && !pod.is_of_daemon_set()) {
            if let Some(node) = &pod.node {
                present.entry(node.clone()).or_default().insert((pod.uid.clone(), pod.deleting.is_some()));
            }
        }
        // What the first look after a start finds is no event: those before it are written on the claims.
        if let Some(before) = &self.present {
            for node in present.keys().chain(before.keys()) {
                if present.get(node) != before.get(node) {
                    self.events.insert(node.clone(), now);
                }
            }
        }
        self.events.retain(|node, at| present.contains_key(node) || *at + REMEMBERED > now);
        self.present = Some(present);
    }
}

/// Writes what has changed; returns when the next claim becomes consolidatable.
async fn write_all(pools: &Pools, seen: &Seen, now: Timestamp) -> Option<Timestamp> {
    let periods: BTreeMap<String, Option<SignedDuration>> = pools
        .pools()
        .iter()
        .map(|pool| (pool.name.clone(), pool.spec.disruption.consolidate_after().ok().flatten()))
        .collect();
    let mut next: Option<Timestamp> = None;
    for claim in pools.claims_of(None).into_iter().filter(|claim| !is_deleting(claim)) {
        let after = pool_of(&claim).and_then(|pool| periods.get(pool).copied().flatten());
        let calm_from = calm_at(&claim, seen, after);
        let is_calm = calm_from.is_some_and(|from| from <= now);
        if let Some(from) = calm_from.filter(|from| *from > now) {
            next = Some(next.map_or(from, |next| next.min(from)));
        }
        match write_one(pools, &claim, seen, is_calm, now).await {
            Err(StepError::Api(error)) if write::is_outdated(&error) || write::is_gone(&error) => {}
            Err(error) => {
                tracing::warn!(claim = claim.name_any(), %error, "whether it is calm could not be written");
            }
            Ok(()) => {}
        }
    }
    next
}

/// The last event on a claim's node: as seen, or, before a restart, as written.
fn last_event(claim: &NodeClaim, seen: &Seen) -> Option<Timestamp> {
    let status = claim.status.as_ref()?;
    let written = status.last_pod_event_time.as_ref().map(|time| time.0);
    let node = status.node_name.as_deref()?;
    seen.events.get(node).copied().max(written)
}

/// When a claim becomes consolidatable; never without an initialized node or where its pool says so.
fn calm_at(claim: &NodeClaim, seen: &Seen, after: Option<SignedDuration>) -> Option<Timestamp> {
    let since = initialized(claim)?;
    let last = last_event(claim, seen).map_or(since, |last| last.max(since));
    last.checked_add(after?).ok()
}

async fn write_one(
    pools: &Pools,
    claim: &NodeClaim,
    seen: &Seen,
    is_calm: bool,
    now: Timestamp,
) -> Result<(), StepError> {
    let Some(mut status) = claim.status.clone() else { return Ok(()) };
    let written = status.last_pod_event_time.as_ref().map(|time| time.0);
    let last = last_event(claim, seen);
    let is_new = match (last, written) {
        (Some(last), Some(written)) => last >= written + DEDUPED,
        (last, None) => last.is_some(),
        (None, Some(_)) => false,
    };
    let said = holds(claim, condition::CONSOLIDATABLE);
    if !is_new && said == is_calm {
        return Ok(());
    }
    if is_new {
        status.last_pod_event_time = last.map(Time);
    }
    if is_calm {
        conditions::set(&mut status.conditions, condition::CONSOLIDATABLE, Status::True, ("", ""), now);
    } else {
        conditions::clear(&mut status.conditions, condition::CONSOLIDATABLE);
    }
    write::status(&pools.claim_api(), claim, &status).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tandem_core::api::karpenter::NodeClaimStatus;

    use super::*;

    fn pod(uid: &str, deleting: Option<Timestamp>) -> Arc<Pod> {
        Arc::new(Pod { uid: uid.into(), node: Some("n".into()), deleting, ..Pod::default() })
    }

    #[test]
    fn a_node_is_calm_so_long_after_its_last_event() {
        let at = |seconds| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
        let mut status = NodeClaimStatus { node_name: Some("n".to_owned()), ..NodeClaimStatus::default() };
        conditions::set(&mut status.conditions, condition::INITIALIZED, Status::True, ("", ""), at(10));
        let claim = NodeClaim { status: Some(status), ..NodeClaim::default() };
        let after = Some(SignedDuration::from_secs(30));
        let mut seen = Seen::default();
        seen.look(&[], at(0));
        assert_eq!(calm_at(&claim, &seen, after), Some(at(40)), "it counts from when it was initialized");
        seen.look(&[pod("a", None)], at(20));
        seen.look(&[pod("a", None)], at(25));
        assert_eq!(calm_at(&claim, &seen, after), Some(at(50)), "a pod came");
        seen.look(&[pod("a", Some(at(90)))], at(60));
        seen.look(&[], at(65));
        assert_eq!(calm_at(&claim, &seen, after), Some(at(95)), "it left");
        assert_eq!(calm_at(&claim, &seen, None), None);
    }
}
