//! `advanced.scalingModifiers`: one metric computed from all triggers by an expression of expr-lang.
//!
//! What is admitted, how results become numbers and the texts of errors are KEDA's
//! (`apis/keda/v1alpha1/scaledobject_webhook.go`, `pkg/scaling/modifiers/formula.go`).
//!
//! Of the language there is what makes numbers of numbers: arithmetic, comparison, conditions, `??`, `let`, pipes,
//! arrays of values with predicates (`all any one none map filter find findIndex findLast findLastIndex count sum
//! reduce`), and `abs ceil floor round int float max min mean median len first last take get sort reverse uniq concat
//! bitand bitor bitxor bitnand bitnot bitshl bitshr bitushr`. There are no maps and members, no operators of strings,
//! no nested arrays and no clock. A formula has bounds on its length, its depth and its steps, because whoever may
//! write a ScaledObject may not stop the control plane with it.

use std::collections::BTreeMap;

use thiserror::Error;

use self::{lexer::SyntaxError, parser::Node, value::Value};
use super::hpa::TargetKind;
use crate::api::keda::{ScaledObject, ScalingModifiers};

mod evaluator;
mod functions;
mod lexer;
mod parser;
mod value;

/// Value of every variable in the trial run at admission.
const TRIAL_VALUE: f64 = -1.0;

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
    tree: Node,
    slots: usize,
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
    let (tree, slots) = parse(text, &names).map_err(|error| {
        let (cast, begin) = cast(text);
        FormulaError::Syntax(error.shown_in(&cast, begin))
    })?;
    let (target, activation) = thresholds(modifiers)?;
    let formula = Formula {
        tree,
        slots,
        names: names.into_iter().map(str::to_owned).collect(),
        nilable: text.contains("??"),
        target_milli: truncated_milli(target),
        activation,
        target_kind: target_kind(modifiers),
    };
    match formula.run(&vec![Value::Float(TRIAL_VALUE); formula.names.len()]) {
        // −1 may well divide by zero: what matters is the value of the day.
        Err(FormulaError::Infinite) | Ok(_) => Ok(Some(formula)),
        Err(error) => Err(FormulaError::Syntax(error.to_string())),
    }
}

/// The formula as KEDA hands it to expr-lang and shows it in errors, and the character at which the user's begins
/// (`castToFloatIfNecessary`).
fn cast(text: &str) -> (String, usize) {
    let (before, after) = if text.contains("??") {
        ("let _kedaCompositeResult = (", "); _kedaCompositeResult == nil ? nil : float(_kedaCompositeResult)")
    } else if text.starts_with("float(") {
        ("", "")
    } else {
        ("float(", ")")
    };
    (format!("{before}{text}{after}"), before.len())
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
        let values: Vec<Value> = self.names.iter().map(value).collect();
        Ok(self.run(&values)?.map(|value| truncated_milli(value).max(0)))
    }

    fn run(&self, values: &[Value]) -> Result<Option<f64>, FormulaError> {
        let result = evaluator::evaluate(&self.tree, values, self.slots);
        match result.map_err(|error| FormulaError::Run(error.to_string()))? {
            Value::Nil if self.nilable => Ok(None),
            result => number(&result).map(Some),
        }
    }
}

fn parse(text: &str, names: &[&str]) -> Result<(Node, usize), SyntaxError> {
    parser::parse(&lexer::tokens(text)?, names)
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
    let number = value.to_float().map_err(|_| FormulaError::Result(value.to_string()))?;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::keda::{Advanced, ScaleTrigger, ScaledObjectSpec};

    fn object(formula: &str, triggers: &[&str]) -> ScaledObject {
        let modifiers = ScalingModifiers {
            formula: Some(formula.to_owned()),
            target: Some("2".to_owned()),
            ..ScalingModifiers::default()
        };
        let trigger = |name: &&str| ScaleTrigger {
            type_: "kafka".to_owned(),
            name: Some((*name).to_owned()),
            ..ScaleTrigger::default()
        };
        let spec = ScaledObjectSpec {
            advanced: Some(Advanced { scaling_modifiers: Some(modifiers), ..Advanced::default() }),
            triggers: triggers.iter().map(trigger).collect(),
            ..ScaledObjectSpec::default()
        };
        ScaledObject::new("x", spec)
    }

    fn compiled(formula: &str, triggers: &[&str]) -> Result<Formula, FormulaError> {
        compile(&object(formula, triggers)).map(Option::unwrap)
    }

    /// The value of a formula over a = 3, b = 0.5, none = nil, and a trigger whose name begins with an operator.
    fn value(formula: &str) -> Result<Option<i64>, FormulaError> {
        let triggers = [
            ("a", Some(3.0)),
            ("b", Some(0.5)),
            ("none", None),
            ("notifications", Some(7.0)),
            ("my-trigger", Some(4.0)),
        ];
        let formula = compiled(formula, &triggers.map(|(name, _)| name))?;
        formula.evaluate(&triggers.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect())
    }

    #[test]
    fn values() {
        for (formula, milli) in [
            ("a + b", 3500),
            ("a / 7", 428),
            ("b - a", 0),
            ("(a - a) / 0", 0),
            ("a > 1 ? 5 : 0", 5000),
            ("float(a > 1 ? a : 5)", 3000),
            ("count([a, b], {#>1}) > 1 ? 5 : 0", 0),
            ("count([a, b], # > 0.2)", 2000),
            ("reduce([a, b, 1], #acc + #, 0)", 4500),
            ("max(a, b, notifications)", 7000),
            ("notifications + 1", 8000),
            ("a > 1 and not (b > 1) ? 2 : 1", 2000),
            ("any([a], {# in [1, 3]}) ? 1 : 2", 1000),
            ("let x = a * 2; let note = b; x + note", 6500),
            ("if a > 1 { notifications } else { b }", 7000),
            ("$env[\"notifications\"] + $env['my-trigger']", 11_000),
            ("a | max(4) | min(10, 3.5)", 3500),
            ("0.1 < b < a ? 1 : 2", 1000),
            ("0.1 < b < a < 2 ? 1 : 2", 2000),
            ("not (a < b) && a not in [1, 2] ? 1 : 2", 1000),
            ("[1, a, b][-1] + [1, a, b][1:][0] + get([a], 5) ?? 1", 4500),
            ("(findIndex([1, a, b], # == 3) ?? 9) + findLast([1, a, b], # < 2)", 1500),
            ("map([a, b], # * 2 + #index) | sum()", 8000),
            ("sum([a, b], {let double = # * 2; double})", 7000),
            ("len(filter(1..10, any([a, #], # > 4 and # < 6)))", 1000),
            ("count(1..10, {let n = #; any([a, 5], # == n)})", 2000),
            ("median(a, b, 9) + mean([a, 1])", 5000),
            ("sort([a, b, 1], 'desc')[0] + first(reverse([a, b]))", 3500),
            ("int(a / 2) % 2 + bitand(6, 3) + int('40')", 43_000),
            ("round(2.5) + ceil(0.2) + floor(0.9) + abs(-a)", 7000),
            ("1.5e3 - -a ** 2", 1_509_000),
            ("a | max(4)", 4000),
            ("a > 1 ?.5 : 1", 500),
            ("\"1.5\"", 1500),
            ("7 % 4 + 2 ** 3", 11_000),
            ("sum(1..3)", 6000),
            ("1e3 + .5 + 1_000 + 0x10 // four numbers", 2_016_500),
            ("a /* of the\nday */ + b", 3500),
            ("none ?? a", 3000),
            ("none ?? none ?? -b", 0),
            ("(none ?? 0) + a", 3000),
            ("1 + none ?? 2", 3000),
            ("max(none ?? 1, a)", 3000),
            ("a ?? 9", 3000),
            ("(none ?? a) > 1 ? 5 : 0", 5000),
            ("get([none], 0) ?? [none, b][1]", 500),
        ] {
            assert_eq!(value(formula), Ok(Some(milli)), "{formula}");
        }
    }

    #[test]
    fn a_nil_result_is_nil_with_coalescing_only() {
        assert_eq!(value("none ?? none"), Ok(None));
        assert!(matches!(value("none"), Err(FormulaError::Result(_))));
        assert!(matches!(value("none + a"), Err(FormulaError::Run(_))));
    }

    #[test]
    fn no_end_is_no_number() {
        assert_eq!(value("a / 0"), Err(FormulaError::Infinite));
    }

    #[test]
    fn errors() {
        for (formula, message) in [
            ("a + c", "unknown name c (1:11)\n | float(a + c)\n | ..........^"),
            ("a > 1 ? a : c", "unknown name c (1:19)"),
            ("a +\n  c", "unknown name c (2:3)\n |   c)\n | ..^"),
            ("mxa(a, b)", "unknown name mxa (1:7)"),
            ("a > 1 ? a : mxa(b)", "unknown name mxa (1:19)"),
            ("a > 1", "not a number"),
            ("a +", "unexpected end of formula (1:10)"),
            ("a + * b", "unexpected \"*\" (1:11)"),
            ("(a", "unexpected end of formula"),
            ("a]", "unexpected \"]\" (1:8)"),
            ("a b", "unexpected \"b\" (1:9)"),
            ("", "error ScalingModifiers.Formula is mandatory"),
            ("'a", "literal not terminated"),
            ("a /* b", "comment not terminated"),
            ("a ~ b", "unrecognized character: '~' (1:9)"),
            ("1__x + a", "bad number syntax"),
            ("none ?? 0 + a", "Operator (+) and coalesce expressions (??) cannot be mixed"),
            ("# + 1", "cannot use pointer # outside of a predicate"),
            ("let a = 1; a", "cannot redeclare variable a"),
            ("abs(a, b)", "wrong number of arguments to call abs: 2"),
            ("a % 2", "% (mismatched types)"),
            ("1 % 0", "integer divide by zero"),
            ("[a][3]", "index out of range: 3"),
            ("a ? 1 : 2", "expected true or false, got -1"),
            ("sum(1..100000000)", "more than 100000 steps"),
            ("count(1..1000, {any(1..1000, {# > 1000})})", "more than 100000 steps"),
            ("reduce(1..90000, concat(#acc, #acc), [1]) | len()", "more than 100000 steps"),
            ("[[a]] | len()", "expected an element that is no array"),
        ] {
            let error = value(formula).unwrap_err().to_string();
            assert!(error.contains(message), "{formula}: {error}");
        }
    }

    #[test]
    fn resource_and_unnamed_triggers_are_no_variables() {
        let mut object = object("a + cpu", &["a", "cpu"]);
        assert!(compile(&object).is_ok());
        object.spec.triggers[1].type_ = "cpu".to_owned();
        assert!(compile(&object).unwrap_err().to_string().contains("unknown name cpu"));
    }

    #[test]
    fn modifiers_need_a_formula_and_a_target() {
        let with = |change: fn(&mut ScalingModifiers)| {
            let mut object = object("a", &["a"]);
            change(object.spec.advanced.as_mut().unwrap().scaling_modifiers.as_mut().unwrap());
            compile(&object).map(|formula| formula.map(|formula| (formula.target_milli, formula.activation)))
        };
        assert_eq!(with(|_| ()), Ok(Some((2000, 0.0))));
        assert_eq!(with(|modifiers| *modifiers = ScalingModifiers::default()), Ok(None));
        assert_eq!(with(|modifiers| modifiers.formula = None), Err(FormulaError::MissingFormula));
        assert_eq!(with(|modifiers| modifiers.target = None), Err(FormulaError::MissingTarget));
        assert_eq!(with(|modifiers| modifiers.target = Some("0.5".to_owned())), Ok(Some((500, 0.0))));
        assert_eq!(
            with(|modifiers| modifiers.activation_target = Some("1.5".to_owned())),
            Ok(Some((2000, 1.5)))
        );
        for target in ["0", "-1", "two", "inf", "NaN"] {
            let mut object = object("a", &["a"]);
            let modifiers = object.spec.advanced.as_mut().unwrap().scaling_modifiers.as_mut().unwrap();
            modifiers.target = Some(target.to_owned());
            assert_eq!(compile(&object).unwrap_err(), FormulaError::Target(target.to_owned()));
        }
        let utilization = with(|modifiers| modifiers.metric_type = Some("Utilization".to_owned()));
        assert_eq!(utilization, Err(FormulaError::Utilization));
        let activation = with(|modifiers| modifiers.activation_target = Some("x".to_owned()));
        assert_eq!(activation, Err(FormulaError::ActivationTarget("x".to_owned())));
    }

    proptest! {
        /// Whatever is written, it is a formula or an error.
        #[test]
        fn no_text_panics(text in "\\PC{0,40}", words in prop::collection::vec(prop::sample::select(WORDS.to_vec()), 0..25)) {
            let _ = value(&text);
            let _ = value(&words.join(" "));
            let _ = value(&words.concat());
        }
    }

    const WORDS: [&str; 44] = [
        "a", "b", "none", "1", "2.5", "0x", "1e", "'t'", "'", "#", "#acc", "#index", "$env", "let", "x", "=",
        ";", "if", "else", "not", "in", "and", "or", "+", "-", "*", "/", "%", "**", "<", "==", "??", "?",
        ":", "..", "|", "(", ")", "[", "]", "{", "}", ",", "count(",
    ];

    /// The longest formulas of every shape that recurses fit half a worker's stack of 2 MiB.
    #[test]
    fn long_formulas_do_not_exhaust_the_stack() {
        let shapes: [fn(usize) -> String; 9] = [
            |n| vec!["a"; n].join("+"),
            |n| vec!["a"; n].join("**"),
            |n| vec!["a"; n].join("??"),
            |n| vec!["a"; n].join("<") + "? 1 : 2",
            |n| "a>1?a:".repeat(n) + "a",
            |n| "-".repeat(n) + "a",
            |n| "(".repeat(n) + "a" + &")".repeat(n),
            |n| "count([a],{".repeat(n) + "true" + &"})".repeat(n),
            |n| "let x = a; ".repeat(n) + "a",
        ];
        let run = move || {
            for (shape, n) in
                shapes.iter().flat_map(|shape| [10, 20, 45, 60, 120, 166, 249, 5000].map(|n| (shape, n)))
            {
                if let Ok(formula) = compiled(&shape(n), &["a"]) {
                    let _ = formula.clone().evaluate(&BTreeMap::from([("a".to_owned(), Some(1.5))]));
                }
            }
            assert!(compiled(&shapes[0](249), &["a"]).is_ok());
            assert!(compiled(&shapes[4](40), &["a"]).is_ok());
        };
        std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap().join().unwrap();
    }
}
