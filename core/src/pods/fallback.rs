//! Fallback: what is served in the place of a metric whose source fails.
//!
//! Counting, thresholds and numbers are KEDA's (`pkg/fallback/fallback.go`).

use super::{
    formula::target_kind,
    hpa::{Target, TargetKind},
    reasons,
};
use crate::api::keda::{Condition, Fallback, FallbackBehavior, HealthStatus, ScaledObject, ScaledObjectSpec};

/// The status of a metric whose source answers.
pub const HAPPY: &str = "Happy";
/// The status of a metric whose source fails.
pub const FAILING: &str = "Failing";

/// What the target runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replicas {
    /// Its count, if that is known.
    pub current: Option<i32>,
    /// Its pods that run and are ready, if somebody counted them; only targets of type Value ask.
    pub ready_pods: Option<i32>,
}

/// What a metric is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// The source's own value, thousandths.
    Value(i64),
    /// The fallback's value. With a formula it is that of the composite metric.
    Fallback {
        /// Thousandths.
        milli: i64,
    },
    /// Nothing, for the formula to deal with (`??`).
    Nil,
    /// The source's error.
    Error(String),
}

/// Whether the object has a fallback that can be served.
pub fn is_valid(object: &ScaledObject) -> bool {
    configured(&object.spec).is_some()
}

/// The fallback, if its numbers are not negative and the formula's target is a whole number above zero.
fn configured(spec: &ScaledObjectSpec) -> Option<&Fallback> {
    let fallback = spec.fallback.as_ref()?;
    let target = spec.scaling_modifiers().map(|modifiers| modifiers.target.as_deref().unwrap_or_default());
    let is_whole = |text: &str| text.parse::<i64>().is_ok_and(|number| number > 0);
    (fallback.failure_threshold >= 0 && fallback.replicas >= 0 && target.is_none_or(is_whole))
        .then_some(fallback)
}

/// Counts the result of one query; whether the status changed. Without a valid fallback nothing is counted.
pub fn record(health: &mut HealthStatus, ok: bool, spec: &ScaledObjectSpec) -> bool {
    if configured(spec).is_none() {
        return false;
    }
    let failures = health.number_of_failures.unwrap_or(0);
    let (status, count) = if ok { (HAPPY, 0) } else { (FAILING, failures.saturating_add(1)) };
    let changed = health.status.as_deref() != Some(status) || health.number_of_failures != Some(count);
    if changed {
        *health = HealthStatus { number_of_failures: Some(count), status: Some(status.to_owned()) };
    }
    changed
}

/// Whether more failures followed each other than the object accepts.
pub fn is_due(spec: &ScaledObjectSpec, health: &HealthStatus) -> bool {
    configured(spec)
        .is_some_and(|fallback| health.number_of_failures.unwrap_or(0) > fallback.failure_threshold)
}

/// Whether the formula sees nil in the place of a metric of this health.
pub fn is_nil(spec: &ScaledObjectSpec, health: &HealthStatus) -> bool {
    let behavior = spec.fallback.as_ref().map(|fallback| fallback.behavior);
    behavior == Some(FallbackBehavior::ScalingModifiers) && is_due(spec, health)
}

/// The Fallback condition for the health of all metrics; `None`, leave it alone, without a valid fallback.
pub fn condition<'a>(
    spec: &ScaledObjectSpec,
    health: impl IntoIterator<Item = &'a HealthStatus>,
) -> Option<Condition> {
    configured(spec)?;
    let falls_back =
        |health: &HealthStatus| health.status.as_deref() == Some(FAILING) && is_due(spec, health);
    let any = health.into_iter().any(falls_back);
    Some(if any { reasons::fallback_exists() } else { reasons::no_fallback() })
}

/// What a metric is worth, given its last result (thousandths) and its health with that result recorded.
pub fn resolve(
    spec: &ScaledObjectSpec,
    target: Target,
    result: Result<i64, &str>,
    health: &HealthStatus,
    replicas: Replicas,
) -> Resolved {
    let error = match result {
        Ok(milli) => return Resolved::Value(milli),
        Err(error) => error,
    };
    let Some(fallback) = configured(spec).filter(|_| is_due(spec, health)) else {
        return Resolved::Error(error.to_owned());
    };
    if fallback.behavior == FallbackBehavior::ScalingModifiers {
        // Without a formula nobody could deal with nil; admission refuses that.
        return spec.scaling_modifiers().map_or_else(|| Resolved::Error(error.to_owned()), |_| Resolved::Nil);
    }
    let Some(count) = count(fallback, replicas.current) else {
        return Resolved::Error(error.to_owned());
    };
    match value(spec, target, count, replicas.ready_pods) {
        Some(milli) => Resolved::Fallback { milli },
        None => Resolved::Error(format!(
            "error performing fallback: no ready pods to divide the value among: {error}"
        )),
    }
}

/// The replicas that the fallback asks for; `None` if the current count is needed and not known.
fn count(fallback: &Fallback, current: Option<i32>) -> Option<i32> {
    let replicas = fallback.replicas;
    Some(match fallback.behavior {
        FallbackBehavior::Static | FallbackBehavior::ScalingModifiers => replicas,
        FallbackBehavior::CurrentReplicas => current?,
        FallbackBehavior::CurrentReplicasIfHigher => current?.max(replicas),
        FallbackBehavior::CurrentReplicasIfLower => current?.min(replicas),
    })
}

/// The metric's value, thousandths, at which the HPA asks for `count` replicas: the target times the count, and for a
/// target of type Value divided by the ready pods, which the HPA multiplies by.
fn value(spec: &ScaledObjectSpec, target: Target, count: i32, ready_pods: Option<i32>) -> Option<i64> {
    let (kind, target) = match spec.scaling_modifiers() {
        Some(modifiers) => (target_kind(modifiers), composite_target(spec)),
        None => (target.kind, milli_to_f64(target.milli)),
    };
    let share = match kind {
        TargetKind::AverageValue => f64::from(count),
        TargetKind::Value => f64::from(count) / f64::from(ready_pods.filter(|pods| *pods > 0)?),
    };
    Some(truncated_product(target, share))
}

/// The value of a composite metric whose formula gave nil: the fallback's replicas times the target; `None` without a
/// valid fallback.
pub fn composite(spec: &ScaledObjectSpec) -> Option<i64> {
    let fallback = configured(spec)?;
    Some(truncated_product(composite_target(spec), f64::from(fallback.replicas)))
}

fn composite_target(spec: &ScaledObjectSpec) -> f64 {
    let target = spec.scaling_modifiers().and_then(|modifiers| modifiers.target.as_deref());
    target.and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

/// A target times a share in thousandths, what is finer cut off; saturating.
#[allow(clippy::cast_possible_truncation, reason = "cutting off is KEDA's rounding, and the cast saturates")]
fn truncated_product(target: f64, share: f64) -> i64 {
    (target * 1000.0 * share) as i64
}

#[allow(clippy::cast_precision_loss, reason = "a target beyond 2^53 thousandths may lose its last digits")]
fn milli_to_f64(milli: i64) -> f64 {
    // Kubernetes multiplies (`Quantity.AsApproximateFloat64`), which may differ in the last bit from a division.
    milli as f64 * 0.001
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(failure_threshold: i32, replicas: i32, behavior: FallbackBehavior) -> ScaledObjectSpec {
        let fallback = Some(Fallback { failure_threshold, replicas, behavior });
        ScaledObjectSpec { fallback, ..ScaledObjectSpec::default() }
    }

    fn behaviors() -> impl Strategy<Value = FallbackBehavior> {
        prop::sample::select(vec![
            FallbackBehavior::Static,
            FallbackBehavior::CurrentReplicas,
            FallbackBehavior::CurrentReplicasIfHigher,
            FallbackBehavior::CurrentReplicasIfLower,
            FallbackBehavior::ScalingModifiers,
        ])
    }

    proptest! {
        /// Failures count up one by one, the first success takes them back to zero, and a result that changes nothing
        /// says so.
        #[test]
        fn failures_count_until_the_first_success(
            threshold in 0..5_i32,
            results in prop::collection::vec(any::<bool>(), 0..20),
        ) {
            let spec = spec(threshold, 1, FallbackBehavior::Static);
            let mut health = HealthStatus::default();
            let mut failures = 0;
            for ok in results {
                let before = health.clone();
                let changed = record(&mut health, ok, &spec);
                failures = if ok { 0 } else { failures + 1 };
                prop_assert_eq!(health.number_of_failures, Some(failures));
                prop_assert_eq!(changed, health != before);
                prop_assert_eq!(is_due(&spec, &health), failures > threshold);
            }
        }

        /// A value of the source is served as it is, whatever the health.
        #[test]
        fn no_error_no_fallback(
            milli in any::<i64>(),
            failures in 0..10_i32,
            behavior in behaviors(),
        ) {
            let health = HealthStatus { number_of_failures: Some(failures), status: None };
            let resolved = resolve(&spec(1, 5, behavior), Target::default(), Ok(milli), &health, Replicas::default());
            prop_assert_eq!(resolved, Resolved::Value(milli));
        }

        /// The value served makes the HPA's division come out at the replicas asked for.
        #[test]
        fn the_value_asks_for_the_replicas(
            target in 1..1_000_000_i64,
            replicas in 0..500_i32,
            current in 0..500_i32,
            ready in 1..500_i32,
            kind in prop::sample::select(vec![TargetKind::AverageValue, TargetKind::Value]),
            behavior in behaviors(),
        ) {
            let health = HealthStatus { number_of_failures: Some(9), status: None };
            let counts = Replicas { current: Some(current), ready_pods: Some(ready) };
            let target = Target { kind, milli: target * 1000 };
            let wanted = match behavior {
                FallbackBehavior::Static => replicas,
                FallbackBehavior::CurrentReplicas => current,
                FallbackBehavior::CurrentReplicasIfHigher => replicas.max(current),
                FallbackBehavior::CurrentReplicasIfLower => replicas.min(current),
                FallbackBehavior::ScalingModifiers => return Ok(()),
            };
            let resolved = resolve(&spec(1, replicas, behavior), target, Err("down"), &health, counts);
            let Resolved::Fallback { milli } = resolved else { panic!("{resolved:?}") };
            let pods = if kind == TargetKind::Value { i64::from(ready) } else { 1 };
            let exact = i64::from(wanted) * target.milli;
            prop_assert!((exact - milli * pods).abs() <= pods, "{} for {}", milli * pods, exact);
        }
    }

    #[test]
    fn nil_needs_a_formula() {
        let health = HealthStatus { number_of_failures: Some(9), status: None };
        let spec = spec(1, 5, FallbackBehavior::ScalingModifiers);
        let resolved = resolve(&spec, Target::default(), Err("down"), &health, Replicas::default());
        assert_eq!(resolved, Resolved::Error("down".to_owned()));
    }
}
