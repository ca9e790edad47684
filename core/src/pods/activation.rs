//! One pass of the scale loop: from zero or idle when something is active, back when nothing was for long enough.
//!
//! The HPA does the rest. Cases, their order and their texts are those of KEDA's `RequestScale`
//! (`pkg/scaling/executor/scale_scaledobjects.go`), with two differences for safety: no error ever scales a target
//! in (KEDA does with `fallback.replicas: 0`), and no count passes `maxReplicaCount`.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::ResourceExt;

pub use super::reasons::Event;
use super::{
    annotations::{self, Pause},
    reasons::{
        self,
        event::{self, ScaleTarget},
    },
};
use crate::api::keda::{Condition, ScaledObject, ScaledObjectSpec};

/// What a pass looks at.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The object.
    pub object: &'a ScaledObject,
    /// The kind of its target, `apps/v1.Deployment`, for the texts of events.
    pub target_kind: &'a str,
    /// Replicas that the target asks for now.
    pub current: i32,
    /// Whether the object asks for replicas.
    pub active: bool,
    /// Whether a source fails that nothing stands in for.
    pub error: bool,
    /// Names of the metrics that are active.
    pub active_triggers: &'a [String],
    /// When the object was last active, as far as memory goes back; the status may know an earlier time only.
    pub last_active: Option<Timestamp>,
    /// Its HPA, if it can be read.
    pub hpa: Option<&'a HorizontalPodAutoscaler>,
    /// Now.
    pub now: Timestamp,
}

/// What a pass comes to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Replicas to set on the target.
    pub scale_to: Option<i32>,
    /// Conditions to put into the status, in order.
    pub conditions: Vec<Condition>,
    /// The event when the target was scaled.
    pub event: Option<Event>,
    /// The event when it could not be: to be completed with the error.
    pub failed_event: Option<FailedScale>,
    /// Whether the object was active now. Together with `scale_to`: only if that succeeds.
    pub set_last_active: bool,
}

/// The event of a scale that failed, without its error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedScale {
    out: bool,
    target: [String; 3],
    from: i32,
    to: i32,
}

impl FailedScale {
    /// The event.
    pub fn event(&self, error: &str) -> Event {
        let [kind, namespace, name] = &self.target;
        let target = ScaleTarget { kind, namespace, name };
        if self.out {
            event::scale_target_activation_failed(target, self.from, self.to, error)
        } else {
            event::scale_target_deactivation_failed(target, self.from, self.to, error)
        }
    }
}

/// One pass.
pub fn pass(input: &Input<'_>) -> Outcome {
    let annotations = input.object.annotations();
    let pause = Pause::of(annotations);
    let mut outcome =
        Outcome { conditions: vec![reasons::ready(reasons::READY_MESSAGE)], ..Outcome::default() };
    if pause.full {
        outcome.conditions.push(reasons::paused());
        return outcome;
    }
    let forced = annotations::force_activation(annotations);
    if input.active || forced {
        outcome.conditions.push(reasons::scaler_active(forced));
        outcome.active(input, pause, forced);
    } else {
        outcome.conditions.push(reasons::scaler_not_active());
        outcome.inactive(input, pause);
    }
    outcome.conditions.extend(input.hpa.and_then(reasons::hpa_active));
    outcome
}

impl Outcome {
    fn active(&mut self, input: &Input<'_>, pause: Pause, forced: bool) {
        let spec = &input.object.spec;
        let is_idle = spec.idle_replica_count.is_some() && input.current < spec.min_replicas();
        // With a minimum beyond the maximum, a way out must not lead down.
        let leads_up = bounded(spec, spec.hpa_min_replicas()) > input.current;
        if (is_idle || input.current == 0) && leads_up {
            if !pause.scale_out {
                self.scale_out(input, forced);
            }
        } else if input.error {
            reasons::set(&mut self.conditions, reasons::partial_trigger_error());
        } else {
            self.set_last_active = true;
        }
    }

    fn inactive(&mut self, input: &Input<'_>, pause: Pause) {
        let spec = &input.object.spec;
        let min = spec.min_replicas();
        let is_above_idle = spec.idle_replica_count.is_some_and(|idle| input.current > idle);
        if input.error {
            // With a fallback the object works as its author wants it to, threshold or not.
            if spec.fallback.is_none() {
                reasons::set(&mut self.conditions, reasons::trigger_error());
            }
        } else if is_above_idle || (input.current > 0 && min == 0) {
            if !pause.scale_in {
                self.scale_in(input);
            }
        } else if spec.idle_replica_count.is_none() && input.current < bounded(spec, min) {
            self.scale_to = Some(bounded(spec, min));
        }
    }

    fn scale_out(&mut self, input: &Input<'_>, forced: bool) {
        let to = bounded(&input.object.spec, input.object.spec.hpa_min_replicas());
        let triggers = input.active_triggers.join(";");
        let cause = (!forced).then_some(triggers.as_str());
        with_target(input, |target| {
            self.event = Some(event::scale_target_activated(target, input.current, to, cause));
        });
        self.failed_event = Some(failed(input, to, true));
        self.scale_to = Some(to);
        self.set_last_active = true;
    }

    fn scale_in(&mut self, input: &Input<'_>) {
        if !is_cooled_down(input) {
            reasons::set(&mut self.conditions, reasons::scaler_cooldown());
            return;
        }
        let to = bounded(&input.object.spec, idle_or_min(&input.object.spec).1);
        with_target(input, |target| {
            self.event = Some(event::scale_target_deactivated(target, input.current, to));
        });
        self.failed_event = Some(failed(input, to, false));
        self.scale_to = Some(to);
    }
}

/// The count of an inactive object, and whether it is that of `idleReplicaCount`.
pub fn idle_or_min(spec: &ScaledObjectSpec) -> (bool, i32) {
    match spec.idle_replica_count {
        Some(idle) => (true, idle),
        None => (false, spec.min_replicas()),
    }
}

/// Whether the object has an annotation of the full pause, on or off.
pub fn has_pause_annotation(annotations: &BTreeMap<String, String>) -> bool {
    [annotations::PAUSED, annotations::PAUSED_REPLICAS].iter().any(|name| annotations.contains_key(*name))
}

/// Whether the cooldown is over: counted from the last activity, or from the creation of an object that never was
/// active.
fn is_cooled_down(input: &Input<'_>) -> bool {
    let spec = &input.object.spec;
    let status = input.object.status.as_ref();
    let noted = status.and_then(|status| status.last_active_time.as_ref()).map(|time| time.0);
    let (since, seconds) = if let Some(active) = input.last_active.max(noted) {
        (Some(active), spec.cooldown_period())
    } else {
        let created = input.object.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, spec.initial_cooldown_period())
    };
    let period = SignedDuration::from_secs(seconds.into());
    since.is_none_or(|since| since.saturating_add(period).is_ok_and(|end| end < input.now))
}

fn bounded(spec: &ScaledObjectSpec, count: i32) -> i32 {
    count.min(spec.max_replicas()).max(0)
}

fn with_target(input: &Input<'_>, give: impl FnOnce(ScaleTarget<'_>)) {
    let namespace = input.object.namespace().unwrap_or_default();
    let name = &input.object.spec.scale_target_ref.name;
    give(ScaleTarget { kind: input.target_kind, namespace: &namespace, name });
}

fn failed(input: &Input<'_>, to: i32, out: bool) -> FailedScale {
    let namespace = input.object.namespace().unwrap_or_default();
    let target = [input.target_kind.to_owned(), namespace, input.object.spec.scale_target_ref.name.clone()];
    FailedScale { out, target, from: input.current, to }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;

    use super::*;
    use crate::api::keda::{Fallback, ScaledObjectStatus};

    fn time(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn input(object: &ScaledObject, current: i32) -> Input<'_> {
        Input {
            object,
            target_kind: "apps/v1.Deployment",
            current,
            active: false,
            error: false,
            active_triggers: &[],
            last_active: None,
            hpa: None,
            now: time(0),
        }
    }

    fn objects() -> impl Strategy<Value = ScaledObject> {
        let counts = (prop::option::of(0..5_i32), prop::option::of(0..6_i32), prop::option::of(1..6_i32));
        let pauses = prop::sample::subsequence(
            vec![annotations::PAUSED_SCALE_IN, annotations::PAUSED_SCALE_OUT, annotations::FORCE_ACTIVATION],
            0..=3,
        );
        let last_active = prop::option::of(-1000..0_i64);
        (counts, pauses, prop::option::of(0..5_i32), last_active).prop_map(
            |((idle, min, max), pauses, fallback, last_active)| {
                let spec = ScaledObjectSpec {
                    idle_replica_count: idle,
                    min_replica_count: min,
                    max_replica_count: max,
                    fallback: fallback.map(|replicas| Fallback { replicas, ..Fallback::default() }),
                    ..ScaledObjectSpec::default()
                };
                let mut object = ScaledObject::new("x", spec);
                let annotations = pauses.into_iter().map(|name| (name.to_owned(), "true".to_owned()));
                object.metadata.annotations = Some(annotations.collect());
                let last_active_time = last_active.map(|seconds| Time(time(seconds)));
                object.status =
                    Some(ScaledObjectStatus { last_active_time, ..ScaledObjectStatus::default() });
                object
            },
        )
    }

    proptest! {
        /// No error scales in, no pass leaves the bounds, pauses hold, and what is not scaled gets no event.
        #[test]
        fn passes_are_safe(object in objects(), current in 0..8_i32, active: bool, error: bool) {
            let outcome = pass(&Input { active, error, ..input(&object, current) });
            let pause = Pause::of(object.annotations());
            if let Some(to) = outcome.scale_to {
                prop_assert!((0..=object.spec.max_replicas()).contains(&to));
                let out = active || pause_forces(&object);
                prop_assert!(to >= current || !(out || error));
                prop_assert!(to >= current || !pause.scale_in || active || pause_forces(&object));
            }
            prop_assert!(outcome.event.is_none() || outcome.scale_to.is_some());
            prop_assert_eq!(outcome.event.is_some(), outcome.failed_event.is_some());
            let types: Vec<&str> = outcome.conditions.iter().map(|condition| condition.type_.as_str()).collect();
            prop_assert_eq!(types, [reasons::READY, reasons::ACTIVE]);
        }
    }

    fn pause_forces(object: &ScaledObject) -> bool {
        annotations::force_activation(object.annotations())
    }

    #[test]
    fn memory_is_fresher_than_the_status() {
        let mut object = ScaledObject::new("x", ScaledObjectSpec::default());
        object.status = Some(ScaledObjectStatus {
            last_active_time: Some(Time(time(-1000))),
            ..ScaledObjectStatus::default()
        });
        assert_eq!(pass(&input(&object, 1)).scale_to, Some(0));
        assert_eq!(pass(&Input { last_active: Some(time(-10)), ..input(&object, 1) }).scale_to, None);
        // A restart forgets, the status does not.
        object.status.as_mut().unwrap().last_active_time = Some(Time(time(-10)));
        assert_eq!(pass(&Input { last_active: Some(time(-1000)), ..input(&object, 1) }).scale_to, None);
    }

    #[test]
    fn a_failed_scale_has_its_event() {
        let object = ScaledObject::new("x", ScaledObjectSpec::default());
        let failed = |input| pass(&input).failed_event.unwrap().event("no").to_string();
        let out =
            "Warning KEDAScaleTargetActivationFailed Failed to scale apps/v1.Deployment / from 0 to 1: no";
        assert_eq!(failed(Input { active: true, ..input(&object, 0) }), out);
        let down = "Warning KEDAScaleTargetDeactivationFailed Failed to deactivate apps/v1.Deployment / from 2 to 0: no";
        assert_eq!(failed(input(&object, 2)), down);
    }
}
