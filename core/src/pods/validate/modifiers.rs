//! The rules for `scalingModifiers`.

use super::{Violation, reason};
use crate::{
    api::keda::{FallbackBehavior, ScaledObject},
    pods::formula::{self, FormulaError},
};

/// What is wrong with the formula, or with what hangs on it.
pub(super) fn check_formula(object: &ScaledObject) -> Option<Violation> {
    let error = formula::compile(object).err()?;
    let field = match error {
        FormulaError::MissingTarget | FormulaError::Target(_) => "target",
        FormulaError::Utilization => "metricType",
        FormulaError::ActivationTarget(_) => "activationTarget",
        _ => "formula",
    };
    let field = format!("spec.advanced.scalingModifiers.{field}");
    Some(Violation::at(reason::SCALING_MODIFIERS, field, error.to_string()))
}

/// Whether a fallback that a formula is to evaluate has one.
pub(super) fn check_fallback(object: &ScaledObject) -> Option<Violation> {
    let fallback = object.spec.fallback.as_ref()?;
    let formula = object.spec.scaling_modifiers().and_then(|modifiers| modifiers.formula.as_deref());
    let missing =
        fallback.behavior == FallbackBehavior::ScalingModifiers && formula.is_none_or(str::is_empty);
    missing.then(|| {
        let message = "scalingModifiers fallback behavior requires scalingModifiers.formula to be defined";
        Violation::at(reason::SCALING_MODIFIERS_FALLBACK, "spec.fallback.behavior", message)
    })
}
