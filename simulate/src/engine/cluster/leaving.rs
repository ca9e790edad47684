//! Nodes of pools that go although nobody chose them to: spot capacity is taken back, claims expire. What is done then is what
//! `src/controllers/nodes/pools/` does: the claim goes, its pods count as waiting from then on, and leave under their budgets.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::SignedDuration;
use kube::ResourceExt as _;
use tandem_core::{
    api::karpenter::NodeClaim,
    nodes::{
        drain::Budget,
        interruption::{Home, Kind, Notice, Settings, Verdict, decide, reasons::noticed},
        pools::{
            node_claim::expires,
            requirements::labels::{CAPACITY_TYPE, SPOT},
            sold_out::OfferingKey,
        },
    },
    pods::reasons::Event,
    scheduling::Pod,
};

use super::{Cluster, Due, Instant, pools::BATCH};
use tandem_core::draws::Draws;

/// Between two tries to evict pods that budgets hold back (Cluster Autoscaler's `EvictionRetryTime`, as the live drain).
const AGAIN: Duration = Duration::from_secs(10);
/// Seconds of a day.
const DAY: f64 = 86_400.0;

/// Why a claim goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// Its spot capacity is taken back.
    Interrupted,
    /// It has lived long enough.
    Expired,
}

/// How often spot capacity is taken back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Interruptions {
    /// Of each node, on average.
    pub(crate) per_day: f64,
    /// The same seed takes the same nodes at the same times.
    pub(crate) seed: u64,
}

impl Interruptions {
    /// How long a node lives, drawn from its name: the time between two events that do not know of each other.
    fn lifetime(self, name: &str) -> Option<Duration> {
        // FNV-1a: the same everywhere.
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325 ^ self.seed, hash);
        let days = -(1.0 - Draws(seed).unit()).ln() / self.per_day;
        Duration::try_from_secs_f64((days * DAY).round()).ok()
    }
}

impl Cluster<'_> {
    /// When a claim that was launched will have lived long enough.
    pub(super) fn expect_expiry(&mut self, claim: &NodeClaim, name: &Arc<str>, now: Instant) {
        if let Some(at) = expires(claim) {
            let ahead = at.duration_since(self.clock.time(now)).unsigned_abs();
            self.due.insert((now.saturating_add(ahead), Due::End(name.clone(), End::Expired)));
        }
    }

    /// When the capacity of a spot machine that has become a node will be taken back.
    pub(super) fn expect_interruption(&mut self, name: &Arc<str>, now: Instant) {
        let Some(interruptions) = self.world.nodes.interruptions else { return };
        let is_spot = |claim: &NodeClaim| claim.labels().get(CAPACITY_TYPE).is_some_and(|it| it == SPOT);
        if self.machines.claim(name).is_some_and(|claim| is_spot(&claim))
            && let Some(lifetime) = interruptions.lifetime(name)
        {
            self.due.insert((now.saturating_add(lifetime), Due::End(name.clone(), End::Interrupted)));
        }
    }

    /// A claim goes, and its node is emptied.
    pub(super) fn end(&mut self, name: &Arc<str>, why: End, now: Instant) {
        let Some(claim) = self.machines.claim(name).filter(|_| !self.pools.is_leaving(name)) else { return };
        let time = self.clock.time(now);
        let (event, deadline) = match why {
            End::Interrupted => {
                let kind = Kind::SpotInterruption;
                if !matches!(decide(&kind, Home::Pool, &Settings::default()), Verdict::DeleteClaim) {
                    return;
                }
                self.pools.sold_out.note(OfferingKey::of(&claim), time);
                let event = noticed(&kind, Home::Pool);
                let notice =
                    Notice { id: String::new(), kind, machines: Vec::new(), sent: Some(time), begins: None };
                (event, notice.deadline().map(|at| at.duration_since(time)))
            }
            End::Expired => {
                let grace = claim.spec.termination_grace_period.as_deref();
                let grace = grace.and_then(|text| text.parse::<SignedDuration>().ok());
                let message = "it has lived as long as its pool lets it".to_owned();
                (Event { type_: "Normal", reason: "Expired", message }, grace)
            }
        };
        self.tell(time, format!("NodeClaim {name}"), event);
        if !self.machines.is_node(name) {
            return self.remove(name, now);
        }
        self.pools.leave(name);
        self.machines.cordon(name, &mut self.snapshot);
        self.want_provision(now + BATCH);
        self.due.insert((now, Due::Drain(name.clone())));
        if let Some(ahead) = deadline {
            self.due.insert((now.saturating_add(ahead.unsigned_abs()), Due::Gone(name.clone())));
        }
    }

    /// Evicts the pods of a node that goes, as far as their budgets allow it now; without any the machine goes.
    pub(super) fn drain(&mut self, name: &Arc<str>, now: Instant) {
        if !self.pools.is_leaving(name) || !self.machines.is_node(name) {
            return;
        }
        let time = self.clock.time(now);
        let mut budgets = self.budgets();
        let mut is_held = false;
        for index in 0..self.workloads.len() {
            let mut evicted: BTreeSet<Arc<str>> = BTreeSet::new();
            let is_here = |pod: &Arc<Pod>| pod.node.as_ref() == Some(name);
            for pod in self.workloads[index].pods().filter(is_here) {
                let allows =
                    |budget: &Budget| budget.allowed > 0 || (budget.always_allows_unhealthy && !pod.ready);
                let is_allowed = budgets.of(&pod).all(allows);
                if is_allowed {
                    budgets.evict(std::slice::from_ref(&pod));
                    evicted.insert(pod.uid.clone());
                } else {
                    is_held = true;
                }
            }
            if self.workloads[index].evict(time, |pod| evicted.contains(&pod.uid)) {
                self.changed.insert(index);
                for _ in &evicted {
                    self.machines.unbind(&mut self.snapshot, name, self.workloads[index].class);
                }
            }
        }
        self.due.insert((now, Due::Place));
        if is_held {
            self.due.insert((now + AGAIN, Due::Drain(name.clone())));
        } else {
            self.remove(name, now);
        }
    }

    /// The time of a machine is up.
    pub(super) fn gone(&mut self, name: &Arc<str>, now: Instant) {
        if self.machines.is_node(name) {
            self.remove(name, now);
        }
    }
}
