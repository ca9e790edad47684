//! The horizontal pod autoscaler's algorithm as kube-controller-manager runs it, without a cluster.
//!
//! [`Autoscaler::compile`] reads an HPA once; [`step`] is one sync of the controller over what somebody observed.
//! A step allocates nothing while nothing happens, so that weeks of them can be replayed. To learn what the HPA will
//! ask for without having asked, step a clone of the [`State`]; to learn what one metric asks for before any limit,
//! [`propose`].
//!
//! The rules are those of Kubernetes 1.37 (`pkg/controller/podautoscaler`); [`Gates::of`] gives those of older
//! controllers where they differ.

pub mod behavior;
pub mod calculator;
pub mod conditions;
mod metrics;
pub mod pods;
mod printing;
mod requests;
pub mod spec;
pub mod stabilization;
pub mod state;
#[cfg(test)]
mod tests;

use std::{cmp::Ordering, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

pub use metrics::{MetricsError, propose};
pub use spec::{Autoscaler, SpecError};
pub use state::State;

use behavior::Behavior;
use calculator::Tolerances;
use conditions::{ConditionType, Event, Reason, Rescale, RescaleReason};
use pods::{Tally, TallyError};
use state::Recommendation;

/// The controller's settings: its flags, its feature gates and its constant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// `--horizontal-pod-autoscaler-sync-period`: time between two steps.
    pub sync_period: SignedDuration,
    /// `--horizontal-pod-autoscaler-downscale-stabilization`.
    pub downscale_stabilization: SignedDuration,
    /// `--horizontal-pod-autoscaler-tolerance`, a fraction.
    pub tolerance: f64,
    /// `--horizontal-pod-autoscaler-cpu-initialization-period`.
    pub cpu_initialization_period: SignedDuration,
    /// `--horizontal-pod-autoscaler-initial-readiness-delay`.
    pub initial_readiness_delay: SignedDuration,
    /// By how much an HPA without a `behavior` may multiply its replicas in a step; fixed in the controller.
    pub scale_up_limit_factor: i32,
    /// What this version of the controller does.
    pub gates: Gates,
}

impl Settings {
    /// The defaults of the controller of Kubernetes 1.`minor`.
    pub fn of(minor: u32) -> Self {
        Self {
            sync_period: SignedDuration::from_secs(15),
            downscale_stabilization: SignedDuration::from_mins(5),
            tolerance: 0.1,
            cpu_initialization_period: SignedDuration::from_mins(5),
            initial_readiness_delay: SignedDuration::from_secs(30),
            scale_up_limit_factor: 2,
            gates: Gates::of(minor),
        }
    }

    /// The tolerances that an HPA's behavior leaves.
    pub fn tolerances(&self, behavior: Option<&Behavior>) -> Tolerances {
        let behavior = behavior.filter(|_| self.gates.configurable_tolerance);
        Tolerances {
            down: behavior.and_then(|behavior| behavior.down.tolerance).unwrap_or(self.tolerance),
            up: behavior.and_then(|behavior| behavior.up.tolerance).unwrap_or(self.tolerance),
            by_distance: self.gates.minor < 33,
        }
    }
}

/// What differs between versions of the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gates {
    /// The version's minor number.
    pub minor: u32,
    /// `HPAScaleToZero`: on from 1.37.
    pub scale_to_zero: bool,
    /// `HPAConfigurableTolerance`: on from 1.35.
    pub configurable_tolerance: bool,
    /// `PodLevelResources`: on from 1.34.
    pub pod_level_resources: bool,
}

impl Gates {
    /// The defaults of Kubernetes 1.`minor`.
    pub fn of(minor: u32) -> Self {
        Self {
            minor,
            scale_to_zero: minor >= 37,
            configurable_tolerance: minor >= 35,
            pod_level_resources: minor >= 34,
        }
    }

    /// Pods that ended well do not count; before 1.38 they did.
    pub fn ignores_succeeded_pods(self) -> bool {
        self.minor >= 38
    }

    /// A new HPA is looked at right away; before 1.37 after one sync period, as a changed one still is by default.
    pub fn looks_at_new_at_once(self) -> bool {
        self.minor >= 37
    }

    /// Scaling from zero hangs on the condition `ScaledToZero`; before 1.36 on the minimum alone.
    fn remembers_zero(self) -> bool {
        self.minor >= 36
    }
}

/// What a step looks at.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// Now.
    pub now: Timestamp,
    /// The target's scale, or why it cannot be read.
    pub scale: Result<Scale<'a>, &'a str>,
    /// What each metric of the HPA is at, in order.
    pub readings: &'a [Reading<'a>],
    /// The target's pods that are running and ready ([`pods::ready_pods`]); `None` when it has none at all.
    pub ready_pods: Option<u32>,
    /// Why the target cannot be scaled, if it cannot.
    pub update_error: Option<&'a str>,
}

/// The scale subresource of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale<'a> {
    /// Replicas that it asks for.
    pub spec_replicas: i32,
    /// Replicas that it has.
    pub status_replicas: i32,
    /// Its selector.
    pub selector: Selector<'a>,
}

/// What became of a target's selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selector<'a> {
    /// It selects pods that no other HPA scales.
    Valid,
    /// There is none.
    Missing,
    /// It does not parse; the problem.
    Invalid(&'a str),
    /// It selects pods that another HPA scales, too.
    Ambiguous {
        /// The selector.
        selector: &'a str,
        /// The HPAs, as the controller prints their keys.
        autoscalers: &'a str,
    },
}

/// What a metric is at.
#[derive(Debug, Clone)]
pub enum Reading<'a> {
    /// The series of an external metric, or the one value of an object's, in milli-units.
    Values(&'a [i64]),
    /// A metric of pods, summed up by [`pods::tally`].
    Pods(Result<Tally, TallyError>),
    /// It could not be read; the problem, from `unable to fetch metrics from ... API: ` on.
    Failed(&'a str),
}

/// What a step comes to. Conditions and the metrics' values are in [`state::Status`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Replicas that the target asks for after the step.
    pub desired: i32,
    /// How and why the count changed.
    pub rescale: Option<Rescale>,
    /// Events, in order.
    pub events: Vec<Event>,
    /// What went wrong; the count may have changed all the same.
    pub error: Option<StepError>,
}

/// What goes wrong in a step.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StepError {
    /// The target's scale cannot be read.
    #[error("failed to query scale subresource: {0}")]
    Scale(String),
    /// Metrics failed.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The target cannot be scaled.
    #[error("failed to rescale: {0}")]
    Rescale(String),
}

/// One sync of the controller (`reconcileAutoscaler`).
pub fn step(hpa: &Autoscaler, settings: &Settings, state: &mut State, seen: &Observation<'_>) -> Outcome {
    let scale = match seen.scale {
        Ok(scale) => scale,
        Err(problem) => {
            state.status.set(Reason::FailedGetScale(problem.to_owned()), seen.now);
            return Outcome {
                desired: state.status.desired_replicas,
                events: vec![Event::FailedGetScale(problem.to_owned())],
                error: Some(StepError::Scale(problem.to_owned())),
                ..Outcome::default()
            };
        }
    };
    state.status.set(Reason::SucceededGetScale, seen.now);
    state.status.current_replicas = scale.spec_replicas;
    state.status.current_metrics.clear();
    let initial = || vec![Recommendation { replicas: scale.spec_replicas, at: seen.now }];
    state.memory.recommendations.get_or_insert_with(initial);

    let mut sync = Sync { hpa, settings, seen, scale, outcome: Outcome::default() };
    match sync.decide(state) {
        Decision::Unknown => sync.outcome.desired = scale.spec_replicas,
        Decision::Stay => {
            sync.outcome.desired = scale.spec_replicas;
            state.status.desired_replicas = scale.spec_replicas;
        }
        Decision::Rescale(rescale) => sync.rescale(state, rescale),
    }
    sync.outcome
}

/// What to do about a target.
enum Decision {
    /// Nothing, and what would be right is not known.
    Unknown,
    /// Nothing.
    Stay,
    /// Scale it.
    Rescale(Rescale),
}

/// One step on its way.
struct Sync<'a> {
    hpa: &'a Autoscaler,
    settings: &'a Settings,
    seen: &'a Observation<'a>,
    scale: Scale<'a>,
    outcome: Outcome,
}

impl Sync<'_> {
    fn decide(&mut self, state: &mut State) -> Decision {
        let (hpa, current) = (self.hpa, self.scale.spec_replicas);
        if current == 0 {
            if self.may_leave_zero(state) {
                return self.by_metrics(state);
            }
            state.status.set(Reason::ScalingDisabled, self.seen.now);
            if !self.settings.gates.scale_to_zero {
                state.status.remove(ConditionType::ScaledToZero);
            }
            Decision::Stay
        } else if current > hpa.max {
            Decision::Rescale(Rescale { from: current, to: hpa.max, reason: RescaleReason::AboveMax })
        } else if current < hpa.min {
            Decision::Rescale(Rescale { from: current, to: hpa.min, reason: RescaleReason::BelowMin })
        } else {
            self.by_metrics(state)
        }
    }

    /// Whether a target without replicas may get some: a zero that somebody else made is left alone.
    fn may_leave_zero(&self, state: &State) -> bool {
        if self.settings.gates.remembers_zero() {
            self.scaled_to_zero(state) && (self.hpa.min != 0 || self.hpa.can_see_from_zero())
        } else {
            self.hpa.min == 0
        }
    }

    /// Whether it was this HPA that took the target to zero.
    fn scaled_to_zero(&self, state: &State) -> bool {
        let condition = state.status.condition(ConditionType::ScaledToZero);
        self.settings.gates.scale_to_zero && condition.is_some_and(|condition| condition.reason.status())
    }

    fn by_metrics(&mut self, state: &mut State) -> Decision {
        let computed = metrics::compute(
            self.hpa,
            self.settings,
            self.seen,
            &self.scale,
            &mut state.status,
            &mut self.outcome.events,
        );
        let Some((proposed, metric)) = computed.replicas else {
            if let Some(error) = computed.error {
                self.outcome.events.push(Event::FailedComputeMetricsReplicas(error.to_string()));
                self.outcome.error = Some(error.into());
            }
            return Decision::Unknown;
        };
        self.outcome.error = computed.error.map(StepError::Metrics);
        let current = self.scale.spec_replicas;
        let proposed = proposed.max(0);
        let mut reason = self.reason(proposed, metric);
        let mut desired = self.normalize(state, proposed);
        if current == 0 && desired < self.hpa.min && self.scaled_to_zero(state) {
            desired = self.hpa.min;
            reason = reason.or(Some(RescaleReason::BelowMin));
        }
        if desired == current {
            Decision::Stay
        } else {
            let reason = reason.unwrap_or(RescaleReason::Limit);
            Decision::Rescale(Rescale { from: current, to: desired, reason })
        }
    }

    fn reason(&self, proposed: i32, metric: Arc<str>) -> Option<RescaleReason> {
        match proposed.cmp(&self.scale.spec_replicas) {
            Ordering::Greater => Some(RescaleReason::MetricAboveTarget(metric)),
            Ordering::Less => Some(RescaleReason::AllMetricsBelowTarget),
            Ordering::Equal => None,
        }
    }

    /// Stabilizes and limits what metrics ask for.
    fn normalize(&self, state: &mut State, proposed: i32) -> i32 {
        let (hpa, settings, now) = (self.hpa, self.settings, self.seen.now);
        let current = self.scale.spec_replicas;
        let window = settings.downscale_stabilization;
        let recommendations = state.memory.recommendations.get_or_insert_default();
        let (stabilized, limited) = match &hpa.behavior {
            None => {
                let stabilized = stabilization::highest_of_window(recommendations, window, proposed, now);
                let factor = settings.scale_up_limit_factor;
                let desired = stabilized.replicas;
                let limited = behavior::limit_without_behavior(current, desired, hpa.min, hpa.max, factor);
                (stabilized, limited)
            }
            Some(behavior) => {
                let change = (current, proposed);
                let stabilized =
                    stabilization::between_windows(recommendations, behavior, window, change, now);
                let change = (current, stabilized.replicas);
                let limited = behavior::limit(behavior, &state.memory, change, (hpa.min, hpa.max), now);
                (stabilized, limited)
            }
        };
        state.status.set(stabilized.reason, now);
        state.status.set(limited.reason, now);
        limited.replicas
    }

    fn rescale(&mut self, state: &mut State, rescale: Rescale) {
        let (now, from, to) = (self.seen.now, rescale.from, rescale.to);
        if let Some(problem) = self.seen.update_error {
            state.status.set(Reason::FailedUpdateScale(problem.to_owned()), now);
            self.outcome.desired = from;
            self.outcome.events.push(Event::FailedRescale(rescale, problem.to_owned()));
            self.outcome.error = Some(StepError::Rescale(problem.to_owned()));
            return;
        }
        state.status.set(Reason::SucceededRescale(to), now);
        if let Some(behavior) = &self.hpa.behavior {
            behavior::store_scale_event(behavior, &mut state.memory, from, to, now);
        }
        if self.settings.gates.remembers_zero() && self.settings.gates.scale_to_zero {
            let to_zero = from > 0 && to == 0 && self.hpa.min == 0 && self.hpa.can_see_from_zero();
            state.status.set(if to_zero { Reason::ScaledToZero } else { Reason::NotScaledToZero }, now);
        } else {
            state.status.remove(ConditionType::ScaledToZero);
        }
        state.status.desired_replicas = to;
        state.status.last_scale = Some(now);
        self.outcome.desired = to;
        self.outcome.events.push(Event::SuccessfulRescale(rescale.clone()));
        self.outcome.rescale = Some(rescale);
    }
}

/// The moment that was `age` ago.
fn cutoff(now: Timestamp, age: SignedDuration) -> Timestamp {
    now.checked_sub(age).unwrap_or(Timestamp::MIN)
}
