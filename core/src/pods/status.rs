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
    milli as f64 / 1000.0
}
