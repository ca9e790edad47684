//! What the samples of all triggers say of an object: activity, errors, the values of its metrics.
//!
//! The rule is that of KEDA's `getScaledObjectState` (`pkg/scaling/scale_handler.go`), with two differences, both so
//! that nothing scales in on what is not known: a formula that cannot be computed is an error, and a metric that was
//! never sampled leaves the evaluation incomplete.

use std::collections::BTreeMap;

use super::{
    fallback::{self, Replicas, Resolved},
    formula::{self, Formula, FormulaError},
    hpa::Target,
};
use crate::api::keda::{HealthStatus, ScaledObjectSpec, TriggerActivity};

/// One external metric and what is known of it.
#[derive(Debug, Clone, Copy)]
pub struct MetricState<'a> {
    /// Its name as the HPA has it, `s0-prometheus`.
    pub name: &'a str,
    /// The name of its trigger.
    pub trigger: Option<&'a str>,
    /// Its target.
    pub target: Target,
    /// The latest sample, thousandths and activity, or the error; `None` before the first.
    pub sample: Option<Result<(i64, bool), &'a str>>,
    /// Its health with that sample recorded.
    pub health: &'a HealthStatus,
}

/// What the samples say.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "four answers that do not exclude each other")]
pub struct Evaluation {
    /// Whether the object asks for replicas.
    pub active: bool,
    /// Whether a source fails that nothing stands in for, or the formula does.
    pub error: bool,
    /// Whether every metric was sampled. Before that, an inactive object is only one that is not known.
    pub complete: bool,
    /// Whether a fallback stands in for a metric.
    pub fallback_active: bool,
    /// Names of the metrics that are active.
    pub active_triggers: Vec<String>,
    /// What each metric is worth, in the order given; `None` before its first sample.
    pub metrics: Vec<Option<Resolved>>,
    /// The value of the composite metric, thousandths, if the object has one.
    pub composite: Option<Result<i64, String>>,
    /// Activity by metric, for the status.
    pub triggers_activity: BTreeMap<String, TriggerActivity>,
}

/// Evaluates an object. `formula` is the compiled one of its `scalingModifiers`; `resource_triggers` says whether it
/// has cpu or memory triggers, which the HPA reads and which make an object without other triggers active.
pub fn evaluate(
    spec: &ScaledObjectSpec,
    metrics: &[MetricState<'_>],
    formula: Option<&Formula>,
    resource_triggers: bool,
    replicas: Replicas,
) -> Evaluation {
    let resolved: Vec<Option<Resolved>> =
        metrics.iter().map(|metric| resolve(spec, metric, replicas)).collect();
    let is_active = |(metric, resolved): &(&MetricState<'_>, &Option<Resolved>)| {
        let own = matches!(metric.sample, Some(Ok((_, true))));
        own || matches!(resolved, Some(Resolved::Fallback { .. }))
    };
    let active_triggers: Vec<String> =
        metrics.iter().zip(&resolved).filter(is_active).map(|(metric, _)| metric.name.to_owned()).collect();
    let mut evaluation = Evaluation {
        active: !active_triggers.is_empty(),
        error: resolved.iter().flatten().any(|resolved| matches!(resolved, Resolved::Error(_))),
        complete: resolved.iter().all(Option::is_some),
        fallback_active: resolved
            .iter()
            .flatten()
            .any(|resolved| matches!(resolved, Resolved::Fallback { .. } | Resolved::Nil)),
        triggers_activity: triggers_activity(metrics.iter().map(|metric| metric.name), &active_triggers),
        active_triggers,
        metrics: resolved,
        composite: None,
    };
    if spec.scaling_modifiers().is_some() {
        evaluation.compose(spec, metrics, formula);
    }
    evaluation.active |= metrics.is_empty() && resource_triggers && !evaluation.error;
    evaluation
}

/// Activity of the metrics by name.
pub fn triggers_activity<'a>(
    metrics: impl IntoIterator<Item = &'a str>,
    active: &[String],
) -> BTreeMap<String, TriggerActivity> {
    let activity = |name: &str| TriggerActivity { is_active: active.iter().any(|active| active == name) };
    metrics.into_iter().map(|name| (name.to_owned(), activity(name))).collect()
}

/// Whether a name is among those of the metrics, in whatever case the HPA asks for it.
pub fn contains_fold<'a>(metrics: impl IntoIterator<Item = &'a str>, name: &str) -> bool {
    let name = name.to_lowercase();
    metrics.into_iter().any(|metric| metric.to_lowercase() == name)
}

fn resolve(spec: &ScaledObjectSpec, metric: &MetricState<'_>, replicas: Replicas) -> Option<Resolved> {
    let result = metric.sample?.map(|(milli, _)| milli);
    Some(fallback::resolve(spec, metric.target, result, metric.health, replicas))
}

impl Evaluation {
    /// Computes the composite metric, which alone decides on activity where there is one.
    fn compose(&mut self, spec: &ScaledObjectSpec, metrics: &[MetricState<'_>], formula: Option<&Formula>) {
        let composite = if self.complete {
            self.composite(spec, metrics, formula)
        } else {
            Err("not every trigger was read yet".to_owned())
        };
        let activation = formula.map_or(0.0, |formula| formula.activation);
        self.error |= self.complete && composite.is_err();
        self.active = !self.error && composite.as_ref().is_ok_and(|milli| to_f64(*milli) > activation);
        self.composite = Some(composite);
    }

    /// The first error that nothing stands in for, else the first fallback, else the formula's value.
    fn composite(
        &self,
        spec: &ScaledObjectSpec,
        metrics: &[MetricState<'_>],
        formula: Option<&Formula>,
    ) -> Result<i64, String> {
        let resolved = || metrics.iter().zip(self.metrics.iter().flatten());
        let error = |(metric, resolved): (&MetricState<'_>, &Resolved)| match resolved {
            Resolved::Error(error) => Some(format!("metric:{} encountered error: {error}", metric.name)),
            _ => None,
        };
        if let Some(error) = resolved().find_map(error) {
            return Err(error);
        }
        let fallback = |(_, resolved): (_, &Resolved)| match resolved {
            Resolved::Fallback { milli } => Some(*milli),
            _ => None,
        };
        if let Some(milli) = resolved().find_map(fallback) {
            return Ok(milli);
        }
        let value = formula.ok_or(FormulaError::NotCompiled).and_then(|formula| {
            let modifiers = spec.scaling_modifiers();
            // KEDA only logs a trigger without a name; a formula cannot use it.
            let variable = |(metric, resolved): (&MetricState<'_>, &Resolved)| {
                let name = formula::variable(modifiers, metric.name, metric.trigger).ok().flatten()?;
                Some((name.to_owned(), own_value(resolved)))
            };
            formula.evaluate(&resolved().filter_map(variable).collect())
        });
        match value {
            Ok(Some(milli)) => Ok(milli),
            Ok(None) => fallback::composite(spec)
                .ok_or_else(|| "formula gave nil and there is no fallback".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn own_value(resolved: &Resolved) -> Option<f64> {
    match resolved {
        Resolved::Value(milli) => Some(to_f64(*milli)),
        _ => None,
    }
}

#[allow(clippy::cast_precision_loss, reason = "a value beyond 2^53 thousandths may lose its last digits")]
fn to_f64(milli: i64) -> f64 {
    // Kubernetes multiplies (`Quantity.AsApproximateFloat64`), which may differ in the last bit from a division.
    milli as f64 * 0.001
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        api::keda::{Advanced, Fallback, FallbackBehavior, ScaleTrigger, ScaledObject, ScalingModifiers},
        pods::fallback::FAILING,
    };

    type Sample = Option<Result<(i64, bool), &'static str>>;

    fn spec(formula: Option<&str>, behavior: Option<FallbackBehavior>) -> ScaledObjectSpec {
        let modifiers = formula.map(|formula| ScalingModifiers {
            formula: Some(formula.to_owned()),
            target: Some("2".to_owned()),
            activation_target: Some("5".to_owned()),
            ..ScalingModifiers::default()
        });
        let trigger = |name: &str| ScaleTrigger { name: Some(name.to_owned()), ..ScaleTrigger::default() };
        ScaledObjectSpec {
            advanced: Some(Advanced { scaling_modifiers: modifiers, ..Advanced::default() }),
            triggers: vec![trigger("a"), trigger("b")],
            fallback: behavior.map(|behavior| Fallback { failure_threshold: 3, replicas: 4, behavior }),
            ..ScaledObjectSpec::default()
        }
    }

    /// Evaluates triggers a and b, of target 10, with as many failures.
    fn evaluated(spec: &ScaledObjectSpec, samples: [Sample; 2], failures: i32) -> Evaluation {
        let formula = formula::compile(&ScaledObject::new("x", spec.clone())).unwrap();
        let failing = HealthStatus { number_of_failures: Some(failures), status: Some(FAILING.to_owned()) };
        let healthy = HealthStatus::default();
        let metrics =
            ["a", "b"].into_iter().zip(["s0-a", "s1-b"]).zip(samples).map(|((trigger, name), sample)| {
                let health = if matches!(sample, Some(Err(_))) { &failing } else { &healthy };
                let target = Target { milli: 10_000, ..Target::default() };
                MetricState { name, trigger: Some(trigger), target, sample, health }
            });
        let metrics: Vec<MetricState<'_>> = metrics.collect();
        evaluate(spec, &metrics, formula.as_ref(), false, Replicas { current: Some(7), ready_pods: None })
    }

    const ACTIVE: Sample = Some(Ok((8000, true)));
    const IDLE: Sample = Some(Ok((1000, false)));
    const DOWN: Sample = Some(Err("down"));

    /// Activity, error, fallback.
    fn flags(evaluation: &Evaluation) -> (bool, bool, bool) {
        (evaluation.active, evaluation.error, evaluation.fallback_active)
    }

    #[test]
    fn activity_is_that_of_any_trigger() {
        let plain = spec(None, None);
        for (samples, wanted) in [
            ([ACTIVE, IDLE], (true, false, false)),
            ([IDLE, IDLE], (false, false, false)),
            ([ACTIVE, DOWN], (true, true, false)),
            ([IDLE, DOWN], (false, true, false)),
        ] {
            assert_eq!(flags(&evaluated(&plain, samples, 9)), wanted, "{samples:?}");
        }
        let evaluation = evaluated(&plain, [ACTIVE, IDLE], 0);
        assert_eq!(evaluation.active_triggers, ["s0-a"]);
        let activity: Vec<_> =
            evaluation.triggers_activity.values().map(|activity| activity.is_active).collect();
        assert_eq!((activity, evaluation.composite), (vec![true, false], None));
    }

    #[test]
    fn a_fallback_is_active_once_it_is_due() {
        let spec = spec(None, Some(FallbackBehavior::Static));
        assert_eq!(flags(&evaluated(&spec, [IDLE, DOWN], 3)), (false, true, false));
        let due = evaluated(&spec, [IDLE, DOWN], 4);
        assert_eq!(flags(&due), (true, false, true));
        assert_eq!(due.metrics, [Some(Resolved::Value(1000)), Some(Resolved::Fallback { milli: 40_000 })]);
        assert_eq!(due.active_triggers, ["s1-b"]);
    }

    #[test]
    fn the_formula_alone_decides() {
        let plain = spec(Some("a + b"), None);
        let evaluation = evaluated(&plain, [ACTIVE, IDLE], 0);
        assert_eq!((flags(&evaluation), evaluation.composite), ((true, false, false), Some(Ok(9000))));
        let at_the_target = evaluated(&plain, [Some(Ok((4000, true))), IDLE], 0);
        assert_eq!((flags(&at_the_target), at_the_target.composite), ((false, false, false), Some(Ok(5000))));
        let evaluation = evaluated(&plain, [ACTIVE, DOWN], 9);
        assert_eq!(flags(&evaluation), (false, true, false));
        assert_eq!(evaluation.composite, Some(Err("metric:s1-b encountered error: down".to_owned())));
    }

    #[test]
    fn a_formula_that_fails_is_an_error_and_not_inactivity() {
        let evaluation = evaluated(&spec(Some("a / (b - 1)"), None), [ACTIVE, IDLE], 0);
        assert_eq!(flags(&evaluation), (false, true, false));
    }

    #[test]
    fn fallbacks_of_a_formula() {
        let fixed = spec(Some("a + b"), Some(FallbackBehavior::Static));
        let evaluation = evaluated(&fixed, [DOWN, ACTIVE], 4);
        assert_eq!((flags(&evaluation), evaluation.composite), ((true, false, true), Some(Ok(8000))));
        let nil = spec(Some("a ?? b"), Some(FallbackBehavior::ScalingModifiers));
        let evaluation = evaluated(&nil, [DOWN, ACTIVE], 4);
        assert_eq!((flags(&evaluation), evaluation.composite), ((true, false, true), Some(Ok(8000))));
        let evaluation = evaluated(&nil, [DOWN, DOWN], 4);
        assert_eq!((flags(&evaluation), evaluation.composite), ((true, false, true), Some(Ok(8000))));
        let evaluation = evaluated(&nil, [DOWN, ACTIVE], 3);
        assert_eq!(flags(&evaluation), (false, true, false));
    }

    #[test]
    fn what_was_never_sampled_is_neither_active_nor_wrong() {
        for formula in [None, Some("a + b")] {
            let evaluation = evaluated(&spec(formula, None), [IDLE, None], 0);
            assert_eq!(flags(&evaluation), (false, false, false));
            assert!(!evaluation.complete);
        }
    }

    #[test]
    fn an_object_of_resource_triggers_is_active() {
        let evaluation = evaluate(&spec(None, None), &[], None, true, Replicas::default());
        assert!(evaluation.active && evaluation.complete && !evaluation.error);
        assert!(!evaluate(&spec(None, None), &[], None, false, Replicas::default()).active);
    }

    #[test]
    fn names_compare_without_case() {
        assert!(contains_fold(["s0-A", "b"], "S0-a"));
        assert!(!contains_fold(["s0-A"], "s0"));
    }

    proptest! {
        /// Without an error there is no fallback and no error, and every value is the source's own.
        #[test]
        fn without_errors_never_falls_back(
            values in prop::array::uniform2((0..1_000_000_i64, any::<bool>())),
            failures in 0..10_i32,
        ) {
            let samples = values.map(|value| Some(Ok(value)));
            for formula in [None, Some("max(a, b)")] {
                let evaluation = evaluated(&spec(formula, Some(FallbackBehavior::Static)), samples, failures);
                prop_assert!(!evaluation.fallback_active && !evaluation.error);
                let own: Vec<_> = values.iter().map(|(milli, _)| Some(Resolved::Value(*milli))).collect();
                prop_assert_eq!(evaluation.metrics, own);
                let greatest = values[0].0.max(values[1].0);
                // 521.593 is a little less as a float, and KEDA cuts off.
                let composite = evaluation.composite.map(|composite| (greatest - composite.unwrap()) / 2);
                prop_assert_eq!(composite, formula.map(|_| 0));
            }
        }
    }
}
