//! What a step leaves for the next one.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;

use super::{
    calculator::Current,
    conditions::{Condition, ConditionType, Reason},
};

/// What the controller knows of one HPA between steps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// What it holds in memory only: `Memory::default()` is a controller that has just started.
    pub memory: Memory,
    /// What it keeps in the HPA's status.
    pub status: Status,
}

/// What the controller forgets when it restarts or another leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// What metrics asked for, before any limit; `None` until the first step, which records the count it finds.
    pub recommendations: Option<Vec<Recommendation>>,
    /// Scale-ups, while there is a `behavior`.
    pub scale_ups: Vec<ScaleEvent>,
    /// Scale-downs, while there is a `behavior`.
    pub scale_downs: Vec<ScaleEvent>,
}

/// Replicas that metrics asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recommendation {
    /// How many.
    pub replicas: i32,
    /// When.
    pub at: Timestamp,
}

/// A change of the count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScaleEvent {
    /// Replicas added or removed; positive.
    pub change: i32,
    /// When.
    pub at: Timestamp,
    /// Older than every policy looks back: its place is free.
    pub outdated: bool,
}

/// The part of the HPA's status that steps read and write.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    /// Replicas that the target asked for at the start of the step.
    pub current_replicas: i32,
    /// Replicas that the step came to.
    pub desired_replicas: i32,
    /// When the count was last changed.
    pub last_scale: Option<Timestamp>,
    /// What each metric was at, in order; `None` for one that failed, nothing when none was computed.
    pub current_metrics: Vec<Option<Current>>,
    /// Conditions, in the order in which they came up.
    pub conditions: Vec<Condition>,
}

impl State {
    /// Continues from the status of a live HPA; the controller's memory cannot be read.
    pub fn resume(hpa: &HorizontalPodAutoscaler) -> Self {
        let Some(status) = &hpa.status else { return Self::default() };
        let conditions = status.conditions.iter().flatten().filter_map(Condition::earlier).collect();
        Self {
            memory: Memory::default(),
            status: Status {
                current_replicas: status.current_replicas.unwrap_or_default(),
                desired_replicas: status.desired_replicas,
                last_scale: status.last_scale_time.as_ref().map(|time| time.0),
                current_metrics: Vec::new(),
                conditions,
            },
        }
    }
}

impl Status {
    /// The condition of a type.
    pub fn condition(&self, type_: ConditionType) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.reason.type_() == type_)
    }

    /// Sets the condition of the reason's type, in place or at the end.
    pub(super) fn set(&mut self, reason: Reason, now: Timestamp) {
        match self.conditions.iter_mut().find(|condition| condition.reason.type_() == reason.type_()) {
            Some(condition) => {
                if condition.reason.status() != reason.status() {
                    condition.since = now;
                }
                condition.reason = reason;
            }
            None => self.conditions.push(Condition { reason, since: now }),
        }
    }

    /// Removes the condition of a type.
    pub(super) fn remove(&mut self, type_: ConditionType) {
        self.conditions.retain(|condition| condition.reason.type_() != type_);
    }
}
