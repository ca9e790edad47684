//! Every condition and event of the pods side: types, reasons and texts, which users filter and alert on.
//!
//! They are KEDA's (`apis/keda/v1alpha1/condition_types.go`, `pkg/eventreason`, `pkg/scaling/executor`).

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;

use crate::api::keda::Condition;

pub mod event;

pub use event::Event;

/// The object is well defined and its triggers work.
pub const READY: &str = "Ready";
/// A trigger asks for replicas.
pub const ACTIVE: &str = "Active";
/// A fallback stands in for a source that fails.
pub const FALLBACK: &str = "Fallback";
/// An annotation pauses the object, wholly or one way.
pub const PAUSED: &str = "Paused";
/// The HPA reads its metrics.
pub const HPA_ACTIVE: &str = "HPAActive";

/// Message of [`ready`] while the object works.
pub const READY_MESSAGE: &str = "ScaledObject is defined correctly and is ready for scaling";
/// Message of [`paused`], and of [`ready`] while the object is paused.
pub const PAUSED_MESSAGE: &str = "ScaledObject is paused";

/// The HPA's own reason while its target has no replicas: nothing is wrong.
const SCALING_DISABLED: &str = "ScalingDisabled";

/// Ready, with [`READY_MESSAGE`] or [`PAUSED_MESSAGE`].
pub fn ready(message: &str) -> Condition {
    condition(READY, "True", "ScaledObjectReady", message)
}

/// Not ready: the object cannot be reconciled.
pub fn check_failed(message: &str) -> Condition {
    condition(READY, "False", "ScaledObjectCheckFailed", message)
}

/// Not ready: no trigger works.
pub fn trigger_error() -> Condition {
    let message = "Triggers defined in ScaledObject are not working correctly";
    condition(READY, "False", "TriggerError", message)
}

/// Half ready: some triggers fail, others are active.
pub fn partial_trigger_error() -> Condition {
    let message = "Some triggers defined in ScaledObject are not working correctly";
    condition(READY, "Unknown", "PartialTriggerError", message)
}

/// Activity is unknown while the object cannot be reconciled.
pub fn active_unknown() -> Condition {
    condition(ACTIVE, "Unknown", "UnknownState", "ScaledObject check failed")
}

/// Active, by a trigger or (`forced`) by annotation.
pub fn scaler_active(forced: bool) -> Condition {
    let message = if forced {
        "Scaling is performed because activation is being forced by annotation"
    } else {
        "Scaling is performed because triggers are active"
    };
    condition(ACTIVE, "True", "ScalerActive", message)
}

/// Not active.
pub fn scaler_not_active() -> Condition {
    condition(ACTIVE, "False", "ScalerNotActive", "Scaling is not performed because triggers are not active")
}

/// Not active, but not long enough for zero.
pub fn scaler_cooldown() -> Condition {
    condition(ACTIVE, "False", "ScalerCooldown", "Scaler cooling down because triggers are not active")
}

/// A fallback stands in.
pub fn fallback_exists() -> Condition {
    let message = "At least one trigger is falling back on this scaled object";
    condition(FALLBACK, "True", "FallbackExists", message)
}

/// No fallback stands in.
pub fn no_fallback() -> Condition {
    condition(FALLBACK, "False", "NoFallbackFound", "No fallbacks are active on this scaled object")
}

/// Paused.
pub fn paused() -> Condition {
    condition(PAUSED, "True", "ScaledObjectPaused", PAUSED_MESSAGE)
}

/// Paused no longer.
pub fn unpaused() -> Condition {
    condition(PAUSED, "False", "ScaledObjectUnpaused", "pause annotation removed for ScaledObject")
}

/// What the HPA says of its own scaling; `None` before it said anything.
///
/// A target without replicas disables an HPA: that is the scale to zero at work, and no failure.
pub fn hpa_active(hpa: &HorizontalPodAutoscaler) -> Option<Condition> {
    let conditions = hpa.status.as_ref()?.conditions.as_ref()?;
    let scaling = conditions.iter().find(|condition| condition.type_ == "ScalingActive")?;
    let reason = scaling.reason.as_deref().filter(|reason| !reason.is_empty());
    let message = scaling.message.as_deref().unwrap_or_default();
    Some(match reason {
        _ if scaling.status == "True" => {
            condition(HPA_ACTIVE, "True", "HPAActive", "HPA is actively scaling")
        }
        Some(SCALING_DISABLED) => condition(HPA_ACTIVE, "True", SCALING_DISABLED, message),
        _ => {
            let message = format!("HPA is not actively scaling: {message}");
            condition(HPA_ACTIVE, "False", reason.unwrap_or("HPAMetricsUnavailable"), &message)
        }
    })
}

/// Every condition but the HPA's, which says what the HPA says. The documentation is written from this table.
pub fn conditions() -> Vec<Condition> {
    vec![
        ready(READY_MESSAGE),
        ready(PAUSED_MESSAGE),
        check_failed("what is wrong"),
        trigger_error(),
        partial_trigger_error(),
        scaler_active(false),
        scaler_active(true),
        scaler_not_active(),
        scaler_cooldown(),
        active_unknown(),
        fallback_exists(),
        no_fallback(),
        paused(),
        unpaused(),
    ]
}

/// Puts a condition in the place of the one of its type, or at the end; whether anything changed.
pub fn set(conditions: &mut Vec<Condition>, condition: Condition) -> bool {
    match conditions.iter_mut().find(|old| old.type_ == condition.type_) {
        Some(old) if *old == condition => false,
        Some(old) => {
            *old = condition;
            true
        }
        None => {
            conditions.push(condition);
            true
        }
    }
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::autoscaling::v2::{
        HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus,
    };

    use super::*;

    fn hpa(type_: &str, status: &str, reason: Option<&str>) -> HorizontalPodAutoscaler {
        let condition = HorizontalPodAutoscalerCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.map(str::to_owned),
            message: Some("because".to_owned()),
            ..Default::default()
        };
        let status =
            HorizontalPodAutoscalerStatus { conditions: Some(vec![condition]), ..Default::default() };
        HorizontalPodAutoscaler { status: Some(status), ..Default::default() }
    }

    #[test]
    fn the_hpa_says_whether_it_scales() {
        let scaling = |status, reason| {
            let condition = hpa_active(&hpa("ScalingActive", status, reason))?;
            Some((condition.status, condition.reason, condition.message))
        };
        let said = |status: &str, reason: &str, message: &str| {
            Some((status.to_owned(), reason.to_owned(), message.to_owned()))
        };
        let inactive = "HPA is not actively scaling: because";
        assert_eq!(
            scaling("True", Some("ValidMetricFound")),
            said("True", "HPAActive", "HPA is actively scaling")
        );
        assert_eq!(scaling("False", Some("ScalingDisabled")), said("True", "ScalingDisabled", "because"));
        assert_eq!(scaling("False", Some("FailedGetMetric")), said("False", "FailedGetMetric", inactive));
        assert_eq!(scaling("False", Some("")), said("False", "HPAMetricsUnavailable", inactive));
        assert_eq!(scaling("Unknown", None), said("False", "HPAMetricsUnavailable", inactive));
        assert_eq!(hpa_active(&hpa("AbleToScale", "True", None)), None);
        assert_eq!(hpa_active(&HorizontalPodAutoscaler::default()), None);
    }

    #[test]
    fn every_condition_says_why() {
        for condition in conditions() {
            assert!([READY, ACTIVE, FALLBACK, PAUSED].contains(&condition.type_.as_str()), "{condition:?}");
            assert!(["True", "False", "Unknown"].contains(&condition.status.as_str()), "{condition:?}");
            assert!(!condition.reason.is_empty() && !condition.message.is_empty(), "{condition:?}");
        }
    }

    #[test]
    fn conditions_are_replaced_in_their_place() {
        let mut conditions = vec![ready(READY_MESSAGE), scaler_not_active(), paused()];
        assert!(!set(&mut conditions, scaler_not_active()));
        assert!(set(&mut conditions, scaler_active(true)));
        assert!(set(&mut conditions, no_fallback()));
        assert_eq!(conditions, [ready(READY_MESSAGE), scaler_active(true), paused(), no_fallback()]);
    }
}
