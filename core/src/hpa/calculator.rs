//! From a metric's values to a count of replicas.
//!
//! Formulas, integer divisions and order are those of Kubernetes (`pkg/controller/podautoscaler/replica_calculator.go`
//! and `metrics/utilization.go`). Values and targets are in milli-units, ratios are floats as there. One difference:
//! a count beyond an i32 is the greatest i32 everywhere; the controller wraps around for some metrics.

use std::cmp::Ordering;

use thiserror::Error;

use super::pods::Tally;

/// How far usage may be from its target without consequence, as fractions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerances {
    /// Below the target.
    pub down: f64,
    /// Above the target.
    pub up: f64,
    /// Compare the distance as Kubernetes did before 1.33, which decides ratios at the very edge differently.
    pub by_distance: bool,
}

impl Tolerances {
    fn within(self, ratio: f64) -> bool {
        if self.by_distance {
            (1.0 - ratio).abs() <= self.up
        } else {
            1.0 - self.down <= ratio && ratio <= 1.0 + self.up
        }
    }
}

/// What one metric comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposal {
    /// Replicas that it asks for.
    pub replicas: i32,
    /// What it was at, for the HPA's status.
    pub current: Current,
}

/// What a metric was at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Current {
    /// Milli-units in total.
    Value(i64),
    /// Milli-units a pod.
    AverageValue(i64),
    /// Usage of what pods request.
    Utilization {
        /// In percent.
        percent: i32,
        /// Milli-units a pod.
        average: i64,
    },
}

/// Why values give no count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CalculatorError {
    /// A ratio has nothing to be applied to.
    #[error("unable to calculate ready pods: no pods returned by selector while calculating replica count")]
    NoPods,
    /// All pods with values are unready or on their way out.
    #[error("did not receive metrics for targeted pods (pods might be unready)")]
    NoMeasuredPods,
    /// The values are of other pods.
    #[error("no metrics returned matched known pods")]
    NoKnownPods,
}

/// The sum of an external metric's series for a `Value` target; capped at the greatest i64.
pub fn external_sum(values: &[i64]) -> i64 {
    let mut sum = 0_i64;
    for &value in values {
        match sum.checked_add(value) {
            Some(next) => sum = next,
            None if value > 0 => return i64::MAX,
            None => sum = sum.wrapping_add(value),
        }
    }
    sum
}

/// The sum of an external metric's series for an `AverageValue` target: a sum below zero counts as an overflow there.
pub fn external_average_sum(values: &[i64]) -> i64 {
    let mut sum = 0_i64;
    for value in values {
        sum = sum.wrapping_add(*value);
        if sum < 0 {
            return i64::MAX;
        }
    }
    sum
}

/// Replicas for a total with a `Value` target: external and object metrics.
///
/// `ready_pods` are those running and ready, of the pods that the target selects; `None` when it selects none.
pub fn by_value(
    spec_replicas: i32,
    usage: i64,
    target: i64,
    tolerances: Tolerances,
    ready_pods: Option<u32>,
) -> Result<Proposal, CalculatorError> {
    let ratio = ratio(usage, target);
    let replicas = if spec_replicas == 0 {
        ceil(ratio)
    } else if tolerances.within(ratio) {
        spec_replicas
    } else {
        ceil(ratio * f64::from(ready_pods.ok_or(CalculatorError::NoPods)?))
    };
    Ok(Proposal { replicas, current: Current::Value(usage) })
}

/// Replicas for a total with an `AverageValue` target: external and object metrics.
///
/// Within tolerance the count is that of the target's *status*, so a surge can raise its spec.
pub fn by_average_of_total(
    status_replicas: i32,
    usage: i64,
    target: i64,
    tolerances: Tolerances,
) -> Proposal {
    let ratio = float(usage) / (float(target) * f64::from(status_replicas));
    let replicas =
        if tolerances.within(ratio) { status_replicas } else { ceil(float(usage) / float(target)) };
    Proposal { replicas, current: Current::AverageValue(per_pod(usage, status_replicas)) }
}

/// Milli-units a pod, rounded up; 0 without pods, and an overflown total stays one.
#[allow(clippy::cast_possible_truncation, reason = "`as` saturates, and so does the total")]
fn per_pod(usage: i64, replicas: i32) -> i64 {
    if float(usage) >= float(i64::MAX) {
        i64::MAX
    } else if replicas == 0 {
        0
    } else {
        (float(usage) / f64::from(replicas)).ceil() as i64
    }
}

/// Replicas for usage a pod: pods metrics, and resources with an `AverageValue` target.
pub fn by_pod_average(
    spec_replicas: i32,
    tally: &Tally,
    target: i64,
    tolerances: Tolerances,
) -> Result<Proposal, CalculatorError> {
    let measured = i64::from(tally.measured());
    if measured == 0 {
        return Err(CalculatorError::NoMeasuredPods);
    }
    let usage = tally.usage.saturating_add(tally.stray_usage);
    let average = usage / measured;
    let replicas = with_blanks(spec_replicas, tally, tolerances, ratio(average, target), |blanks| {
        let assumed = if blanks.full { target.saturating_mul(i64::from(tally.missing)) } else { 0 };
        ratio(usage.saturating_add(assumed) / i64::from(blanks.pods), target)
    });
    Ok(Proposal { replicas, current: Current::AverageValue(average) })
}

/// Replicas for usage as a part of what pods request: resources with a `Utilization` target.
pub fn by_utilization(
    spec_replicas: i32,
    tally: &Tally,
    target: i32,
    tolerances: Tolerances,
) -> Result<Proposal, CalculatorError> {
    if tally.measured() == 0 {
        return Err(CalculatorError::NoMeasuredPods);
    }
    if tally.ready == 0 || tally.requests == 0 {
        return Err(CalculatorError::NoKnownPods);
    }
    let percent = percent(tally.usage, tally.requests);
    let first = f64::from(percent) / f64::from(target);
    let replicas = with_blanks(spec_replicas, tally, tolerances, first, |blanks| {
        let assumed = if blanks.full { tally.missing_usage } else { 0 };
        let mut requests = tally.requests;
        if blanks.missing {
            requests = requests.saturating_add(tally.missing_requests);
        }
        if blanks.unready {
            requests = requests.saturating_add(tally.unready_requests);
        }
        f64::from(self::percent(tally.usage.saturating_add(assumed), requests)) / f64::from(target)
    });
    let average = tally.usage / i64::from(tally.ready);
    Ok(Proposal { replicas, current: Current::Utilization { percent, average } })
}

/// What is assumed for pods without a value.
#[derive(Debug, Clone, Copy)]
struct Blanks {
    /// Pods without a sample count.
    missing: bool,
    /// They count with full usage; with none otherwise.
    full: bool,
    /// Unready pods count, with no usage.
    unready: bool,
    /// Pods that count in all.
    pods: u32,
}

/// Pods without values count against the direction that those with values ask for, and never turn it.
fn with_blanks(
    spec_replicas: i32,
    tally: &Tally,
    tolerances: Tolerances,
    ratio: f64,
    refilled: impl FnOnce(Blanks) -> f64,
) -> i32 {
    let unready = tally.unready > 0 && ratio > 1.0;
    if !unready && tally.missing == 0 {
        let within = tolerances.within(ratio);
        return if within { spec_replicas } else { ceil(ratio * f64::from(tally.ready)) };
    }
    let missing = ratio.partial_cmp(&1.0).is_some_and(Ordering::is_ne);
    let pods =
        tally.measured() + if missing { tally.missing } else { 0 } + if unready { tally.unready } else { 0 };
    let filled = refilled(Blanks { missing, full: ratio < 1.0, unready, pods });
    let turned = (ratio < 1.0 && filled > 1.0) || (ratio > 1.0 && filled < 1.0);
    if turned || tolerances.within(filled) {
        return spec_replicas;
    }
    let replicas = ceil(filled * f64::from(pods));
    let overshot = (filled < 1.0 && replicas > spec_replicas) || (filled > 1.0 && replicas < spec_replicas);
    if overshot { spec_replicas } else { replicas }
}

fn percent(usage: i64, requests: i64) -> i32 {
    i32::try_from(usage.saturating_mul(100) / requests).unwrap_or(i32::MAX)
}

fn ratio(usage: i64, target: i64) -> f64 {
    float(usage) / float(target)
}

#[allow(clippy::cast_precision_loss, reason = "the controller computes with floats")]
fn float(milli: i64) -> f64 {
    milli as f64
}

/// Rounded up; saturating, and 0 for what is not a number.
#[allow(clippy::cast_possible_truncation, reason = "`as` saturates")]
fn ceil(replicas: f64) -> i32 {
    replicas.ceil() as i32
}
