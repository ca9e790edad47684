//! Nodes that go although nothing forces them to: those that are empty, have drifted, or whose pods fit elsewhere for less
//! (core, `pkg/controllers/disruption`).
//!
//! [`decide`] finds a command; one that time could still prove wrong is held against the cluster again after a while
//! ([`validate`]), others go on meanwhile. What is being done ([`queue`]) is known in memory only: after a restart
//! replacements are empty and go, and their nodes are given back and looked at again.

mod queue;
mod say;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tandem_core::{
    api::karpenter::NodeClaim,
    nodes::{
        drain::Budgets,
        pools::{
            cluster::Cluster,
            disrupt::{Blocked, Command, Decision, Input, Method, Watch, decide, validate},
            solver::Options,
        },
    },
};
use tokio::time::Instant;

use super::{
    Pools,
    lifecycle::initialized,
    metrics::Disruption as Counted,
    observe::{observe, options},
};
use queue::Queue;
use say::Told;

/// What comes within this time is looked at together.
const CALM: Duration = Duration::from_secs(1);
/// The longest time between two looks (core, `pollingPeriod`).
const PERIOD: Duration = Duration::from_secs(10);
/// What was found is looked at again after so long before it is done (core, `commandValidationDelay`).
const VALIDATED_AFTER: Duration = Duration::from_secs(15);
/// A cluster that has not changed is looked at again after so long (core, `ConsolidationState`).
const SETTLED_FOR: Duration = Duration::from_mins(5);
/// How long the search for many nodes at once may take (core, `MultiNodeConsolidationTimeoutDuration`).
const MULTI_NODE_WITHIN: Duration = Duration::from_mins(1);
/// How long the search for one node may take (core, `SingleNodeConsolidationTimeoutDuration`).
const SINGLE_NODE_WITHIN: Duration = Duration::from_mins(3);

/// A command that is to be looked at again.
struct Waiting {
    command: Command,
    due: Instant,
}

/// What is known from pass to pass.
#[derive(Default)]
struct Disruption {
    queue: Queue,
    waiting: Vec<Waiting>,
    told: Told,
    /// The version of the world in which there was nothing to do, and since when.
    settled: Option<(u64, Instant)>,
    /// When a node that only a nomination keeps is free again.
    released: Option<Instant>,
}

/// Takes nodes away, for ever.
pub(super) async fn run(pools: Arc<Pools>) {
    let mut changes = pools.world.changes.subscribe();
    let mut disruption = Disruption::default();
    let mut is_new = true;
    loop {
        if pools.leads() {
            if std::mem::take(&mut is_new) && pools.rehearsal.is_none() {
                queue::release(&pools).await;
            }
            disruption.pass(&pools).await;
        } else {
            // What another leader does, this one will not know.
            (is_new, disruption) = (true, Disruption::default());
            pools.leaving.lock().clear();
        }
        pools.changed(&mut changes, CALM, disruption.next()).await;
    }
}

/// What a decision reads, owned, so that it can be made beside the other tasks.
struct Seen {
    cluster: Cluster,
    budgets: Budgets,
    nominated: BTreeSet<String>,
    options: Options,
    spot_to_spot: bool,
    now: Timestamp,
}

impl Seen {
    /// The cluster without what is waiting to be done.
    async fn look(pools: &Pools, waiting: &[Waiting]) -> Self {
        let now = Timestamp::now();
        let mut cluster = observe(pools, now).await;
        cluster.leaving.extend(waiting.iter().flat_map(|waiting| waiting.command.claims.iter().cloned()));
        Self {
            cluster,
            budgets: pools.world.budgets(),
            nominated: pools.nominations.names(Instant::now()),
            options: options(pools),
            spot_to_spot: pools.settings.feature_gates.is_on("SpotToSpotConsolidation"),
            now,
        }
    }

    fn input(&self) -> Input<'_> {
        Input {
            cluster: &self.cluster,
            budgets: &self.budgets,
            nominated: &self.nominated,
            options: self.options.clone(),
            spot_to_spot: self.spot_to_spot,
            now: self.now,
        }
    }
}

/// Runs what takes long on a thread of its own.
async fn beside<T: Send + 'static>(think: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let thought = tokio::task::spawn_blocking(think).await;
    thought.inspect_err(|error| tracing::error!(%error, "nothing could be decided about nodes")).ok()
}

/// Times the methods of a decision, and ends those that take too long.
struct Timed<'m> {
    metrics: &'m Counted,
    started: Instant,
    method: Option<Method>,
    since: Instant,
}

impl Timed<'_> {
    /// The method ends that was asked last: if none was, the first, which had no nodes to look at.
    fn ended(&mut self) {
        self.metrics.evaluated(self.method.unwrap_or(Method::Emptiness), self.since.elapsed());
    }
}

impl Watch for &mut Timed<'_> {
    fn begins(&mut self, method: Method) {
        if self.method.is_some() {
            self.ended();
            self.since = Instant::now();
        }
        self.method = Some(method);
    }

    fn goes_on(&mut self, method: Method) -> bool {
        let within = if method == Method::MultiNode { MULTI_NODE_WITHIN } else { SINGLE_NODE_WITHIN };
        let goes_on = self.started.elapsed() < within;
        if !goes_on {
            self.metrics.timed_out(method);
        }
        goes_on
    }
}

impl Disruption {
    /// How long it may take until the next pass.
    fn next(&self) -> Duration {
        let due = self.waiting.iter().map(|waiting| waiting.due).chain(self.released).min();
        due.map_or(PERIOD, |due| due.saturating_duration_since(Instant::now()).min(PERIOD))
    }

    async fn pass(&mut self, pools: &Arc<Pools>) {
        self.queue.advance(pools).await;
        while let Some(at) = self.waiting.iter().position(|waiting| waiting.due <= Instant::now()) {
            let Waiting { command, .. } = self.waiting.remove(at);
            self.look_again(pools, command, at).await;
        }
        self.released = None;
        let version = *pools.world.changes.borrow();
        let is_settled = |(then, since): (u64, Instant)| then == version && since.elapsed() < SETTLED_FOR;
        if self.settled.is_some_and(is_settled) {
            return;
        }
        let Some(decision) = self.decide(pools).await else { return };
        self.told.tell(pools, &decision).await;
        if decision.blocked.iter().any(|(_, why)| *why == Blocked::Nominated) {
            self.released = pools.nominations.next_end(Instant::now());
        }
        let is_final = decision.command.is_none() && !decision.is_held && self.waiting.is_empty();
        self.settled = is_final.then(|| (version, Instant::now()));
        let Some(command) = decision.command else {
            if let Some(rehearsal) = pools.rehearsal.as_ref().filter(|_| self.waiting.is_empty()) {
                rehearsal.would_disrupt_none();
            }
            return;
        };
        match wait(pools, &command, Timestamp::now()) {
            Duration::ZERO => self.queue.begin(pools, command).await,
            wait => {
                tracing::info!(%command, savings = command.savings, seconds = wait.as_secs_f64(), "nodes could go");
                say::candidate(pools, &command).await;
                self.waiting.push(Waiting { command, due: Instant::now() + wait });
            }
        }
    }

    async fn decide(&self, pools: &Arc<Pools>) -> Option<Decision> {
        let seen = Seen::look(pools, &self.waiting).await;
        let metrics = pools.metrics.disruption.clone();
        let mut unpriced = seen.cluster.unpriced();
        unpriced.retain(|name, _| pools.pool(name).is_some());
        beside(move || {
            metrics.cost(&seen.cluster.costs(), &unpriced);
            let started = Instant::now();
            let mut timed = Timed { metrics: &metrics, started, method: None, since: started };
            let decision = decide(&seen.input(), &mut timed);
            timed.ended();
            metrics.decided(&decision);
            decision
        })
        .await
    }

    /// Does what was found a while ago, if it is still right. Those that were found `before` it go first.
    async fn look_again(&mut self, pools: &Arc<Pools>, command: Command, before: usize) {
        let seen = Seen::look(pools, &self.waiting[..before]).await;
        let wanted = command.clone();
        let Some(valid) = beside(move || validate(&seen.input(), &wanted)).await else { return };
        match valid {
            Ok(command) => {
                say::approved(pools, &command).await;
                self.queue.begin(pools, command).await;
            }
            Err(why) => {
                tracing::info!(%command, %why, "nodes stay after all");
                pools.metrics.disruption.invalid(&command, &why);
                say::rejected(pools, &command, &why).await;
            }
        }
    }
}

/// How long a command waits. Drift is what it is; and who has been empty for a while has waited already.
fn wait(pools: &Pools, command: &Command, now: Timestamp) -> Duration {
    match command.method {
        Method::Drift => Duration::ZERO,
        Method::MultiNode | Method::SingleNode => VALIDATED_AFTER,
        Method::Emptiness => {
            let claims = command.claims.iter().filter_map(|name| pools.claims.get("", name));
            let empty_since = claims.filter_map(|claim| last_event(&claim)).max();
            empty_since.map_or(VALIDATED_AFTER, |since| left_of(VALIDATED_AFTER, now.duration_since(since)))
        }
    }
}

fn left_of(wait: Duration, passed: SignedDuration) -> Duration {
    wait.saturating_sub(Duration::try_from(passed).unwrap_or(Duration::ZERO))
}

/// When a pod last came to the node of a claim or left it; else, when the node became one.
fn last_event(claim: &NodeClaim) -> Option<Timestamp> {
    let event = claim.status.as_ref().and_then(|status| status.last_pod_event_time.as_ref());
    event.map(|time| time.0).max(initialized(claim))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_that_only_a_nomination_keeps_is_looked_at_when_that_ends() {
        let in_seconds = |seconds| Some(Instant::now() + Duration::from_secs(seconds));
        let next = |released| Disruption { released, ..Disruption::default() }.next();
        assert_eq!(next(None), PERIOD);
        assert_eq!(next(in_seconds(3)), Duration::from_secs(3));
        assert_eq!(next(in_seconds(99)), PERIOD);
    }

    #[test]
    fn who_has_been_empty_for_a_while_waits_no_more() {
        let seconds = SignedDuration::from_secs;
        assert_eq!(left_of(VALIDATED_AFTER, seconds(0)), VALIDATED_AFTER);
        assert_eq!(left_of(VALIDATED_AFTER, seconds(-5)), VALIDATED_AFTER);
        assert_eq!(left_of(VALIDATED_AFTER, seconds(10)), Duration::from_secs(5));
        assert_eq!(left_of(VALIDATED_AFTER, seconds(30)), Duration::ZERO);
    }
}
