//! What users are told of disruption, under Karpenter's names (core, `pkg/controllers/disruption/events`).

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource as _;
use tandem_core::{
    api::karpenter::NodeClaim,
    nodes::pools::{
        budgets::Reason,
        disrupt::{Command, Decision, Invalid, Method},
        names::DO_NOT_DISRUPT,
        node_claim::pool_of,
        pods::unread_protection,
    },
    pods::reasons::Event,
};
use tokio::time::Instant;

use super::super::Pools;

/// The same is told again after so long (core, `pkg/events`: 2 minutes; `Unconsolidatable`: 15 minutes).
const TOLD_AGAIN: Duration = Duration::from_mins(2);
const STAYS_TOLD_AGAIN: Duration = Duration::from_mins(15);
/// Events of one kind in one pass at most.
const MOST_EVENTS: usize = 10;

/// What was told of which object, and when.
#[derive(Default)]
pub(super) struct Told(HashMap<(String, String), Instant>);

impl Told {
    /// Tells why nodes stay, each thing once in a while.
    pub(super) async fn tell(&mut self, pools: &Pools, decision: &Decision) {
        self.0.retain(|_, at| at.elapsed() < STAYS_TOLD_AGAIN);
        let blocked = decision.blocked.iter().map(|(claim, why)| (claim, why.to_string()));
        self.tell_of(pools, "DisruptionBlocked", TOLD_AGAIN, blocked).await;
        let stay = decision.unconsolidatable.iter().map(|(claim, why)| (claim, why.clone()));
        self.tell_of(pools, "Unconsolidatable", STAYS_TOLD_AGAIN, stay).await;
        self.tell_pods(pools, decision).await;
        for (pool, problem) in &decision.problems {
            if self.is_news(pool, problem, STAYS_TOLD_AGAIN) {
                tracing::warn!(pool = &**pool, problem, "a budget cannot be read and allows nothing");
            }
        }
        for ((pool, reason), allowed) in &decision.allowed {
            self.tell_of_budget(pools, decision, pool, *reason, *allowed).await;
        }
    }

    async fn tell_of(
        &mut self,
        pools: &Pools,
        reason: &'static str,
        again: Duration,
        news: impl Iterator<Item = (&Arc<str>, String)>,
    ) {
        let mut count = 0;
        for (claim, message) in news {
            if count < MOST_EVENTS
                && self.is_news(claim, &message, again)
                && let Some(claim) = pools.claims.get("", claim)
            {
                tell(pools, &claim, reason, &message, &message).await;
                count += 1;
            }
        }
    }

    /// Pods that are less protected than who wrote their annotation thinks.
    async fn tell_pods(&mut self, pools: &Pools, decision: &Decision) {
        let mut count = 0;
        for pod in &decision.unread {
            let Some(said) = unread_protection(pod).filter(|_| count < MOST_EVENTS) else { continue };
            if self.is_news(&pod.uid, said, STAYS_TOLD_AGAIN) {
                let message = format!(
                    "Invalid {DO_NOT_DISRUPT} annotation: {said:?} is neither \"true\" nor a duration such as \"5m\", \
                     ignoring annotation"
                );
                pools.tell_pod(pod, "Warning", "InvalidDoNotDisruptAnnotation", message).await;
                count += 1;
            }
        }
    }

    async fn tell_of_budget(
        &mut self,
        pools: &Pools,
        decision: &Decision,
        pool: &str,
        reason: Reason,
        allowed: usize,
    ) {
        let is_asked = decision.eligible.get(&reason).is_some_and(|eligible| *eligible > 0);
        let name = reason.name();
        let message = format!("No allowed disruptions for disruption reason {name} due to blocking budget");
        if allowed == 0
            && is_asked
            && let Some(object) = pools.node_pools.get("", pool)
            && self.is_news(pool, &message, TOLD_AGAIN)
        {
            pools.tell(&*object, "Normal", "DisruptionBlocked", message).await;
        }
    }

    fn is_news(&mut self, about: &str, message: &str, again: Duration) -> bool {
        let key = (about.to_owned(), message.to_owned());
        let is_old = self.0.get(&key).is_some_and(|at| at.elapsed() < again);
        if !is_old {
            self.0.insert(key, Instant::now());
        }
        !is_old
    }
}

/// Tells of a claim, and of its node.
async fn tell(pools: &Pools, claim: &NodeClaim, reason: &'static str, of_claim: &str, of_node: &str) {
    let event = |message: &str| Event { type_: "Normal", reason, message: message.to_owned() };
    pools.events.tell(&claim.object_ref(&()), &event(of_claim)).await;
    if let Some(node) = pools.node_of(claim) {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.name.to_string()),
            // `kubectl describe node` looks for events by the name.
            uid: Some(node.name.to_string()),
            ..ObjectReference::default()
        };
        pools.events.tell(&about, &event(of_node)).await;
    }
}

pub(super) async fn launching(pools: &Pools, command: &Command, made: &[String]) {
    for name in made {
        if let Some(claim) = pools.claims.get("", name) {
            let launching = format!("Launching NodeClaim: {}", command.method.reason().name());
            pools.tell(&*claim, "Normal", "DisruptionLaunching", launching).await;
            let waiting = "Waiting on readiness to continue disruption".to_owned();
            pools.tell(&*claim, "Normal", "DisruptionWaitingReadiness", waiting).await;
        }
    }
}

pub(super) async fn terminating(pools: &Pools, claim: &NodeClaim, command: &Command) {
    let reason = command.method.reason().name();
    let of_claim = format!("Disrupting NodeClaim: {reason}");
    tell(pools, claim, "DisruptionTerminating", &of_claim, &format!("Disrupting Node: {reason}")).await;
}

/// Tells of nodes that go if that is still right a while later.
pub(super) async fn candidate(pools: &Pools, command: &Command) {
    if matches!(command.method, Method::MultiNode | Method::SingleNode) {
        let message = format!("Consolidation candidate: {command} (savings: ${:.2})", command.savings);
        for claim in command.claims.iter().filter_map(|name| pools.claims.get("", name)) {
            tell(pools, &claim, "ConsolidationCandidate", &message, &message).await;
        }
    }
}

/// Tells why nodes of pools whose policy is Balanced go.
pub(super) async fn approved(pools: &Pools, command: &Command) {
    for claim in command.claims.iter().filter_map(|name| pools.claims.get("", name)) {
        if let Some(score) = pool_of(&claim).and_then(|pool| command.scores.get(pool)) {
            let message = score.to_string();
            tell(pools, &claim, "ConsolidationApproved", &message, &message).await;
        }
    }
}

pub(super) async fn rejected(pools: &Pools, command: &Command, why: &Invalid) {
    let saved = command.savings;
    let message = format!("Consolidation rejected: {command}, reason: {why} (savings: ${saved:.2})");
    for claim in command.claims.iter().filter_map(|name| pools.claims.get("", name)) {
        tell(pools, &claim, "ConsolidationRejected", &message, &message).await;
    }
}
