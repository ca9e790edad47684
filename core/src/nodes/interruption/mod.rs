//! Notices that a machine is about to be taken away: what they say, and what is to be done with its node.
//!
//! Sources: aws-node-termination-handler (queue processor), `pkg/monitor/sqsevent`; karpenter-provider-aws,
//! `pkg/controllers/interruption`; EventBridge's events of EC2, Auto Scaling and Health.

mod message;
pub mod reasons;

use jiff::{SignedDuration, Timestamp};

use super::group::GroupOptions;
pub use message::{Message, Unread, parse};

/// From the notice to the end of a spot machine (EC2, spot instance interruption notices).
const SPOT_NOTICE: SignedDuration = SignedDuration::from_mins(2);

/// What happens to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// EC2 takes its spot capacity back in two minutes.
    SpotInterruption,
    /// EC2 is likely to take its spot capacity back.
    RebalanceRecommendation,
    /// Maintenance of what it runs on.
    ScheduledChange,
    /// Somebody stops or ends it, or has.
    StateChange(State),
    /// Its group ends it, and a hook holds it until it is told to go on.
    TerminateHook(Hook),
    /// The capacity reservation that it is of is taken back.
    ReservationInterruption,
}

/// What a machine is becoming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It stops.
    Stopping,
    /// It has stopped.
    Stopped,
    /// It ends.
    ShuttingDown,
    /// It has ended.
    Terminated,
}

/// A hook that holds a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The Auto Scaling group.
    pub group: String,
    /// Its name.
    pub name: String,
    /// What the answer is to.
    pub token: String,
}

/// A notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The event's id; that of a hook is its token.
    pub id: String,
    /// What happens.
    pub kind: Kind,
    /// To these, `i-…`.
    pub machines: Vec<String>,
    /// When it was sent.
    pub sent: Option<Timestamp>,
    /// When it begins.
    pub begins: Option<Timestamp>,
}

impl Notice {
    /// When the machine is gone whatever still runs there; `None` if nobody knows.
    pub fn deadline(&self) -> Option<Timestamp> {
        match self.kind {
            Kind::SpotInterruption => self.sent.map(|sent| sent + SPOT_NOTICE),
            Kind::ScheduledChange => self.begins,
            _ => None,
        }
    }
}

/// Whose a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// A node pool's: its NodeClaim goes, and takes care of the rest.
    Pool,
    /// An Auto Scaling group's, or nobody's.
    Other,
}

/// What is wanted of notices, by the names that aws-node-termination-handler has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
pub struct Settings {
    /// `ENABLE_SPOT_INTERRUPTION_DRAINING`.
    pub spot: bool,
    /// `ENABLE_SCHEDULED_EVENT_DRAINING`.
    pub scheduled: bool,
    /// `ENABLE_REBALANCE_DRAINING`; without it, nodes of pools stay, as Karpenter has it, and others go, as the queue
    /// processor has it.
    pub rebalance: Option<bool>,
    /// `ENABLE_ASG_LIFECYCLE_DRAINING`.
    pub hooks: bool,
    /// `CORDON_ONLY`.
    pub cordon_only: bool,
    /// `TAINT_NODE`.
    pub taint: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { spot: true, scheduled: true, rebalance: None, hooks: true, cordon_only: false, taint: true }
    }
}

/// What is to be done with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing, for this reason.
    Leave(&'static str),
    /// Its NodeClaim is deleted.
    DeleteClaim,
    /// It is marked, and emptied if its pods are to go.
    Empty {
        /// The key of the taint that says why.
        taint: Option<&'static str>,
        /// Whether its pods are evicted.
        evict: bool,
    },
}

/// What is to be done with a node because of a notice.
pub fn decide(kind: &Kind, home: Home, settings: &Settings) -> Verdict {
    let off = match kind {
        Kind::SpotInterruption if !settings.spot => Some("ENABLE_SPOT_INTERRUPTION_DRAINING is false"),
        Kind::ScheduledChange if !settings.scheduled => Some("ENABLE_SCHEDULED_EVENT_DRAINING is false"),
        Kind::TerminateHook(_) if !settings.hooks => Some("ENABLE_ASG_LIFECYCLE_DRAINING is false"),
        Kind::RebalanceRecommendation => match (settings.rebalance, home) {
            (Some(false), _) => Some("ENABLE_REBALANCE_DRAINING is false"),
            (None, Home::Pool) => Some("a recommendation alone does not end nodes of pools"),
            _ => None,
        },
        _ => None,
    };
    match (off, home) {
        (Some(why), _) => Verdict::Leave(why),
        (None, Home::Pool) => Verdict::DeleteClaim,
        (None, Home::Other) => {
            Verdict::Empty { taint: taint(kind).filter(|_| settings.taint), evict: !settings.cordon_only }
        }
    }
}

/// Where the keys of taints begin that say why a node goes (aws-node-termination-handler, `pkg/node`).
pub const TAINT_PREFIX: &str = "aws-node-termination-handler/";
/// A spot machine is taken back.
const SPOT_TAINT: &str = "aws-node-termination-handler/spot-itn";
/// A spot machine is likely to be taken back.
const REBALANCE_TAINT: &str = "aws-node-termination-handler/rebalance-recommendation";
/// Its group ends a machine.
const HOOK_TAINT: &str = "aws-node-termination-handler/asg-lifecycle-termination";

fn taint(kind: &Kind) -> Option<&'static str> {
    match kind {
        Kind::SpotInterruption => Some(SPOT_TAINT),
        Kind::RebalanceRecommendation => Some(REBALANCE_TAINT),
        Kind::ScheduledChange => Some("aws-node-termination-handler/scheduled-maintenance"),
        Kind::TerminateHook(_) => Some(HOOK_TAINT),
        Kind::StateChange(_) | Kind::ReservationInterruption => None,
    }
}

/// Whether a taint says that a node's group puts another in its place without being asked: pods of it wait for that one.
/// One that is likely to be taken back is replaced if the group does that ([`GroupOptions::rebalances`]).
pub fn is_replaced(taint: &str, group: &GroupOptions) -> bool {
    [SPOT_TAINT, HOOK_TAINT].contains(&taint) || (group.rebalances && taint == REBALANCE_TAINT)
}

impl Kind {
    /// Its name in labels of metrics (Karpenter, `interruption_received_messages_total`).
    pub fn name(&self) -> &'static str {
        match self {
            Self::SpotInterruption => "spot_interrupted",
            Self::RebalanceRecommendation => "rebalance_recommendation",
            Self::ScheduledChange => "scheduled_change",
            Self::StateChange(State::Stopping | State::Stopped) => "instance_stopped",
            Self::StateChange(State::ShuttingDown | State::Terminated) => "instance_terminated",
            Self::TerminateHook(_) => "asg_lifecycle",
            Self::ReservationInterruption => "capacity_reservation_interrupted",
        }
    }
}

#[cfg(test)]
mod tests;
