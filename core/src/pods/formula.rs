//! `advanced.scalingModifiers`: one metric computed from all triggers by an expression of expr-lang.
//!
//! What is admitted, how results become numbers and the texts of errors are KEDA's
//! (`apis/keda/v1alpha1/scaledobject_webhook.go`, `pkg/scaling/modifiers/formula.go`).

use std::collections::BTreeMap;

use expr::{Context, ContextProvider, Program, Value};
use thiserror::Error;

use self::source::SyntaxError;
use super::hpa::TargetKind;
use crate::api::keda::{ScaledObject, ScalingModifiers};

mod source;

/// Name of the metric that a formula computes.
pub const COMPOSITE_METRIC: &str = "composite-metric";
/// Value of every variable in the trial run at admission.
const TRIAL_VALUE: f64 = -1.0;
/// How the error of a function that does not exist begins.
const UNKNOWN_FUNCTION: &str = "Unknown function";

/// What is wrong with `scalingModifiers`, or with the value of its formula.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FormulaError {
    /// Some field is set, the formula is not.
    #[error("error ScalingModifiers.Formula is mandatory")]
    MissingFormula,
    /// The formula has no target.
    #[error("error validating formula in ScalingModifiers\nformula is given but target is empty")]
    MissingTarget,
    /// The formula does not read, or names what no trigger is named.
    #[error("error validating formula in ScalingModifiers\n{0}")]
    Syntax(String),
    /// The target is no number above zero.
    #[error(
        "error validating target in ScalingModifiers\nerror converting target for scalingModifiers (string->float) \
         to valid target: {0:?} is not a number above zero"
    )]
    Target(String),
    /// The target's type is one of resource metrics.
    #[error(
        "error validating target in ScalingModifiers\nerror trigger type is Utilization, but it needs to be \
         AverageValue or Value for external metrics"
    )]
    Utilization,
    /// The activation target is no number.
    #[error("scalingModifiers.ActivationTarget parsing error: {0:?} is not a number")]
    ActivationTarget(String),
    /// The formula cannot be computed with these values.
    #[error("error trying to run custom formula: {0}")]
    Run(String),
    /// The result is of another kind.
    #[error("error trying to run custom formula: result {0} is not a number")]
    Result(String),
    /// The result has no end, as that of a division by zero.
    #[error("error trying to run custom formula: result is infinite")]
    Infinite,
    /// The object has modifiers and no formula was compiled for it.
    #[error("cached compiled formula is nil during its calculation")]
    NotCompiled,
    /// A formula cannot see a trigger without a name.
    #[error("trigger name not given with compositeScaler for metric {0}")]
    UnnamedTrigger(String),
}

/// A formula that is ready to be computed, with its target.
#[derive(Debug, Clone)]
pub struct Formula {
    program: Program,
    /// Names of the triggers, at the number of their variable.
    names: Vec<String>,
    /// Whether the result may be nil, which a formula with `??` provides for.
    nilable: bool,
    /// What the HPA holds the value to, thousandths.
    pub target_milli: i64,
    /// The object is active while the value is above this.
    pub activation: f64,
    /// How the HPA compares it.
    pub target_kind: TargetKind,
}

/// The formula of an object, tried once with every trigger at −1; `None` if it has no `scalingModifiers`.
pub fn compile(object: &ScaledObject) -> Result<Option<Formula>, FormulaError> {
    let Some(modifiers) = object.spec.scaling_modifiers() else {
        return Ok(None);
    };
    let text =
        modifiers.formula.as_deref().filter(|text| !text.is_empty()).ok_or(FormulaError::MissingFormula)?;
    if modifiers.target.as_deref().is_none_or(str::is_empty) {
        return Err(FormulaError::MissingTarget);
    }
    let external = object.spec.triggers.iter().filter(|trigger| !trigger.is_resource());
    let names: Vec<&str> =
        external.filter_map(|trigger| trigger.name.as_deref()).filter(|name| !name.is_empty()).collect();
    let program = parse(text, &names)?;
    let (target, activation) = thresholds(modifiers)?;
    let formula = Formula {
        program,
        names: names.into_iter().map(str::to_owned).collect(),
        nilable: text.contains("??"),
        target_milli: truncated_milli(target),
        activation,
        target_kind: target_kind(modifiers),
    };
    match formula.run(vec![Value::Float(TRIAL_VALUE); formula.names.len()]) {
        // −1 may well divide by zero: what matters is the value of the day.
        Err(FormulaError::Infinite) | Ok(_) => Ok(Some(formula)),
        Err(error) => Err(FormulaError::Syntax(error.to_string())),
    }
}

/// How the HPA compares the value: AverageValue unless the object says Value.
pub fn target_kind(modifiers: &ScalingModifiers) -> TargetKind {
    match modifiers.metric_type.as_deref() {
        Some("Value") => TargetKind::Value,
        _ => TargetKind::AverageValue,
    }
}

/// The variable of a metric: the name of its trigger, if the object has a formula.
pub fn variable<'a>(
    modifiers: Option<&ScalingModifiers>,
    metric: &str,
    trigger: Option<&'a str>,
) -> Result<Option<&'a str>, FormulaError> {
    if modifiers.and_then(|modifiers| modifiers.formula.as_deref()).is_none_or(str::is_empty) {
        return Ok(None);
    }
    let named = trigger.filter(|name| !name.is_empty());
    named.map(Some).ok_or_else(|| FormulaError::UnnamedTrigger(metric.to_owned()))
}

impl Formula {
    /// The value, thousandths cut off behind the third decimal and not below zero, for the values of the triggers by
    /// name; a trigger that is not there is nil. `None`: the result is nil.
    pub fn evaluate(&self, variables: &BTreeMap<String, Option<f64>>) -> Result<Option<i64>, FormulaError> {
        let value = |name: &String| variables.get(name).copied().flatten().map_or(Value::Nil, Value::Float);
        Ok(self.run(self.names.iter().map(value).collect())?.map(|value| truncated_milli(value).max(0)))
    }

    fn run(&self, values: Vec<Value>) -> Result<Option<f64>, FormulaError> {
        let variables = Variables { names: &self.names, values };
        let result =
            expr::run(&self.program, &variables).map_err(|error| FormulaError::Run(error.to_string()))?;
        match result {
            Value::Nil if self.nilable => Ok(None),
            result => number(&result).map(Some),
        }
    }
}

/// The variables of one run, numbered.
struct Variables<'a> {
    names: &'a [String],
    values: Vec<Value>,
}

impl ContextProvider for Variables<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key.strip_prefix(VARIABLE)?.parse::<usize>().ok()?)
    }

    fn to_context(&self) -> Context {
        self.names.iter().zip(self.values.iter().cloned()).collect()
    }
}

/// What a variable's number follows.
const VARIABLE: &str = "trigger";

/// A parsed formula, all of whose names are known.
fn parse(text: &str, names: &[&str]) -> Result<Program, FormulaError> {
    let (prepared, functions) = source::prepare(text, names, |index| format!("{VARIABLE}{index}"))
        .map_err(|error| located(text, &error))?;
    for function in functions {
        let call = expr::eval(&format!("{function}()"), &Context::default());
        if call.is_err_and(|error| error.to_string().starts_with(UNKNOWN_FUNCTION)) {
            return Err(FormulaError::Syntax(format!("unknown name {function}")));
        }
    }
    expr::compile(&prepared)
        .map_err(|error| FormulaError::Syntax(format!("formula {text:?} does not parse: {error}")))
}

/// An error of the text, shown in it if it has a place.
fn located(text: &str, error: &SyntaxError) -> FormulaError {
    let SyntaxError::UnknownName { at, .. } = error else {
        return FormulaError::Syntax(error.to_string());
    };
    let before: Vec<char> = text.chars().take(*at).collect();
    let line = before.iter().filter(|c| **c == '\n').count();
    let column = before.iter().rev().take_while(|c| **c != '\n').count();
    let shown = text.lines().nth(line).unwrap_or_default();
    let dots = ".".repeat(column);
    FormulaError::Syntax(format!("{error} ({}:{})\n | {shown}\n | {dots}^", line + 1, column + 1))
}

/// Target and activation target.
fn thresholds(modifiers: &ScalingModifiers) -> Result<(f64, f64), FormulaError> {
    let finite = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    let target = modifiers.target.as_deref().unwrap_or_default();
    let above_zero = finite(target).filter(|number| *number > 0.0);
    let number = above_zero.ok_or_else(|| FormulaError::Target(target.to_owned()))?;
    if modifiers.metric_type.as_deref() == Some("Utilization") {
        return Err(FormulaError::Utilization);
    }
    let activation = match modifiers.activation_target.as_deref() {
        None | Some("") => 0.0,
        Some(text) => finite(text).ok_or_else(|| FormulaError::ActivationTarget(text.to_owned()))?,
    };
    Ok((number, activation))
}

/// The number that a result stands for, as expr-lang's `float` reads it; 0 for what is not a number (0/0).
fn number(value: &Value) -> Result<f64, FormulaError> {
    let no_number = || FormulaError::Result(value.to_string());
    #[allow(clippy::cast_precision_loss, reason = "a metric beyond 2^53 may lose its last digits")]
    let number = match value {
        Value::Float(number) => *number,
        Value::Integer(number) => *number as f64,
        Value::String(text) => text.parse().map_err(|_| no_number())?,
        _ => return Err(no_number()),
    };
    if number.is_infinite() {
        return Err(FormulaError::Infinite);
    }
    Ok(if number.is_nan() { 0.0 } else { number })
}

/// Thousandths, what is finer cut off; saturating.
#[allow(clippy::cast_possible_truncation, reason = "cutting off is KEDA's rounding, and the cast saturates")]
fn truncated_milli(value: f64) -> i64 {
    (value * 1000.0) as i64
}
