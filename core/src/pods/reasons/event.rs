//! Kubernetes Events that decisions give rise to, as data.

use std::fmt;

/// A Kubernetes Event about the object that was decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Normal or Warning.
    pub type_: &'static str,
    /// What happened, in one word that users filter on.
    pub reason: &'static str,
    /// What happened, in a sentence.
    pub message: String,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.type_, self.reason, self.message)
    }
}

const NORMAL: &str = "Normal";
const WARNING: &str = "Warning";

/// A ScaledObject became ready.
pub const SCALED_OBJECT_READY: &str = "ScaledObjectReady";
/// A ScaledObject cannot be reconciled.
pub const SCALED_OBJECT_CHECK_FAILED: &str = "ScaledObjectCheckFailed";
/// A ScaledObject is gone.
pub const SCALED_OBJECT_DELETED: &str = "ScaledObjectDeleted";
/// A ScaledObject was paused.
pub const SCALED_OBJECT_PAUSED: &str = "ScaledObjectPaused";
/// A ScaledObject is paused no longer.
pub const SCALED_OBJECT_UNPAUSED: &str = "ScaledObjectUnpaused";
/// A fallback began to stand in for a source.
pub const FALLBACK_ACTIVATED: &str = "ScaledObjectFallbackActivated";
/// No fallback stands in any more.
pub const FALLBACK_DEACTIVATED: &str = "ScaledObjectFallbackDeactivated";
/// The triggers of an object are polled from now on.
pub const SCALERS_STARTED: &str = "KEDAScalersStarted";
/// The triggers of an object are polled no longer.
pub const SCALERS_STOPPED: &str = "KEDAScalersStopped";
/// A trigger cannot be built or read.
pub const SCALER_FAILED: &str = "KEDAScalerFailed";
/// A trigger that a formula uses cannot be read.
pub const METRIC_SOURCE_FAILED: &str = "KEDAMetricSourceFailed";
/// A warning about how a trigger is written.
pub const SCALER_INFO: &str = "KEDAScalerInfo";
/// The target was scaled up from zero or idle.
pub const SCALE_TARGET_ACTIVATED: &str = "KEDAScaleTargetActivated";
/// The target was scaled down to zero or idle.
pub const SCALE_TARGET_DEACTIVATED: &str = "KEDAScaleTargetDeactivated";
/// The target could not be scaled up from zero or idle.
pub const SCALE_TARGET_ACTIVATION_FAILED: &str = "KEDAScaleTargetActivationFailed";
/// The target could not be scaled down to zero or idle.
pub const SCALE_TARGET_DEACTIVATION_FAILED: &str = "KEDAScaleTargetDeactivationFailed";

/// Every event reason: its types and when it is given. The documentation is written from this table.
pub const EVENTS: &[(&str, &str, &str)] = &[
    (SCALED_OBJECT_READY, NORMAL, "a ScaledObject became ready, or was paused"),
    (SCALED_OBJECT_CHECK_FAILED, WARNING, "a ScaledObject cannot be reconciled"),
    (SCALED_OBJECT_DELETED, WARNING, "a ScaledObject was deleted"),
    (SCALED_OBJECT_PAUSED, NORMAL, "a ScaledObject was paused by annotation"),
    (SCALED_OBJECT_UNPAUSED, NORMAL, "the pause of a ScaledObject was taken off"),
    (FALLBACK_ACTIVATED, NORMAL, "a fallback began to stand in for a source that fails"),
    (FALLBACK_DEACTIVATED, NORMAL, "no fallback stands in any more"),
    (SCALERS_STARTED, NORMAL, "the triggers of an object are polled from now on"),
    (SCALERS_STOPPED, NORMAL, "the triggers of an object are polled no longer, since it is paused"),
    (SCALER_FAILED, WARNING, "a trigger cannot be built or read"),
    (METRIC_SOURCE_FAILED, WARNING, "a trigger that a formula uses cannot be built or read"),
    (SCALER_INFO, NORMAL, "a trigger or an object is written in a way that has no effect"),
    (SCALE_TARGET_ACTIVATED, NORMAL, "the target was scaled up from zero or from idleReplicaCount"),
    (SCALE_TARGET_DEACTIVATED, NORMAL, "the target was scaled down to zero or to idleReplicaCount"),
    (SCALE_TARGET_ACTIVATION_FAILED, WARNING, "the target could not be scaled up from zero or idle"),
    (SCALE_TARGET_DEACTIVATION_FAILED, WARNING, "the target could not be scaled down to zero or idle"),
];

/// A ScaledObject became ready, with the Ready condition's message.
pub fn scaled_object_ready(message: &str) -> Event {
    normal(SCALED_OBJECT_READY, message)
}

/// A ScaledObject cannot be reconciled.
pub fn scaled_object_check_failed(message: &str) -> Event {
    warning(SCALED_OBJECT_CHECK_FAILED, message)
}

/// A ScaledObject was paused.
pub fn scaled_object_paused() -> Event {
    normal(SCALED_OBJECT_PAUSED, super::PAUSED_MESSAGE)
}

/// A ScaledObject is paused no longer.
pub fn scaled_object_unpaused() -> Event {
    normal(SCALED_OBJECT_UNPAUSED, "pause annotation removed for ScaledObject")
}

/// A ScaledObject is gone.
pub fn scaled_object_deleted() -> Event {
    warning(SCALED_OBJECT_DELETED, "ScaledObject was deleted")
}

/// A fallback began to stand in.
pub fn fallback_activated() -> Event {
    normal(FALLBACK_ACTIVATED, "ScaledObject fallback is active")
}

/// No fallback stands in any more.
pub fn fallback_deactivated() -> Event {
    normal(FALLBACK_DEACTIVATED, "ScaledObject fallback is no longer active")
}

/// The triggers of an object are polled from now on.
pub fn scalers_started() -> Event {
    normal(SCALERS_STARTED, "Started scalers watch")
}

/// The triggers of an object are polled no longer.
pub fn scalers_stopped() -> Event {
    normal(SCALERS_STOPPED, "Stopped scalers watch")
}

/// A trigger cannot be built or read; `metric` is the name of its metric.
pub fn scaler_failed(metric: &str, message: &str) -> Event {
    warning(SCALER_FAILED, &format!("{metric}: {message}"))
}

/// As [`scaler_failed`], of a trigger that a formula uses.
pub fn metric_source_failed(metric: &str, message: &str) -> Event {
    warning(METRIC_SOURCE_FAILED, &format!("{metric}: {message}"))
}

/// What `validate::warnings` says of an object.
pub fn scaler_info(message: &str) -> Event {
    normal(SCALER_INFO, message)
}

/// The target of an event about scaling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScaleTarget<'a> {
    /// `group/version.Kind`, as the status says it.
    pub kind: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl fmt::Display for ScaleTarget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// The target was scaled up; `triggered_by` are the active triggers, joined by semicolons, `None` for an activation that
/// an annotation forces.
pub fn scale_target_activated(
    target: ScaleTarget<'_>,
    from: i32,
    to: i32,
    triggered_by: Option<&str>,
) -> Event {
    let cause = triggered_by.map_or_else(
        || "caused by forced activation annotation".to_owned(),
        |triggers| format!("triggered by {triggers}"),
    );
    normal(SCALE_TARGET_ACTIVATED, &format!("Scaled {target} from {from} to {to}, {cause}"))
}

/// The target was scaled down.
pub fn scale_target_deactivated(target: ScaleTarget<'_>, from: i32, to: i32) -> Event {
    normal(SCALE_TARGET_DEACTIVATED, &format!("Deactivated {target} from {from} to {to}"))
}

/// The target could not be scaled up.
pub fn scale_target_activation_failed(target: ScaleTarget<'_>, from: i32, to: i32, error: &str) -> Event {
    let message = format!("Failed to scale {target} from {from} to {to}: {error}");
    warning(SCALE_TARGET_ACTIVATION_FAILED, &message)
}

/// The target could not be scaled down.
pub fn scale_target_deactivation_failed(target: ScaleTarget<'_>, from: i32, to: i32, error: &str) -> Event {
    let message = format!("Failed to deactivate {target} from {from} to {to}: {error}");
    warning(SCALE_TARGET_DEACTIVATION_FAILED, &message)
}

fn normal(reason: &'static str, message: &str) -> Event {
    Event { type_: NORMAL, reason, message: message.to_owned() }
}

fn warning(reason: &'static str, message: &str) -> Event {
    Event { type_: WARNING, reason, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: ScaleTarget<'_> =
        ScaleTarget { kind: "apps/v1.Deployment", namespace: "shop", name: "web" };

    #[test]
    fn events_are_worded_as_kedas() {
        for (event, text) in [
            (
                scale_target_activated(TARGET, 0, 2, Some("a;b")),
                "Normal KEDAScaleTargetActivated Scaled apps/v1.Deployment shop/web from 0 to 2, triggered by a;b",
            ),
            (
                scale_target_activated(TARGET, 0, 1, None),
                "Normal KEDAScaleTargetActivated Scaled apps/v1.Deployment shop/web from 0 to 1, caused by forced \
                 activation annotation",
            ),
            (
                scale_target_deactivated(TARGET, 3, 0),
                "Normal KEDAScaleTargetDeactivated Deactivated apps/v1.Deployment shop/web from 3 to 0",
            ),
            (
                scale_target_activation_failed(TARGET, 0, 1, "no"),
                "Warning KEDAScaleTargetActivationFailed Failed to scale apps/v1.Deployment shop/web from 0 to 1: no",
            ),
            (scaled_object_deleted(), "Warning ScaledObjectDeleted ScaledObject was deleted"),
        ] {
            assert_eq!(event.to_string(), text);
        }
    }

    #[test]
    fn the_table_knows_every_event_once_by_its_type() {
        let all = [
            scaled_object_ready(""),
            scaled_object_check_failed(""),
            scaled_object_deleted(),
            scaled_object_paused(),
            scaled_object_unpaused(),
            fallback_activated(),
            fallback_deactivated(),
            scalers_started(),
            scalers_stopped(),
            scaler_failed("", ""),
            metric_source_failed("", ""),
            scaler_info(""),
            scale_target_activated(TARGET, 0, 1, None),
            scale_target_deactivated(TARGET, 1, 0),
            scale_target_activation_failed(TARGET, 0, 1, ""),
            scale_target_deactivation_failed(TARGET, 1, 0, ""),
        ];
        let given: Vec<_> = all.iter().map(|event| (event.reason, event.type_)).collect();
        let listed: Vec<_> = EVENTS.iter().map(|(reason, type_, _)| (*reason, *type_)).collect();
        assert_eq!(given, listed);
    }
}
