//! `keda_modifiers`: formulas.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tandem_core::{
    api::keda::{HealthStatus, ScaledObject},
    pods::{
        fallback::{self, Replicas},
        formula,
        hpa::{Target, TargetKind},
        status::{self, MetricState},
    },
    quantity::{format_milli, parse_milli},
};

use super::{Differences, Verdict, object, read, unknown_kind};

pub(super) fn judge(case: &Value) -> Verdict {
    match case["kind"].as_str() {
        Some("formula") => formula(case),
        Some("compile") => compile(case),
        Some("triggerValue") => trigger_value(case),
        Some("triggerMetricPair") => pair(case),
        Some("containsFold") => contains_fold(case),
        Some("isUsingModifiers") => is_using_modifiers(case),
        _ => unknown_kind(case),
    }
}

/// The object that a case describes in parts.
fn assembled(case: &Value, modifiers: &Value, triggers: &Value) -> ScaledObject {
    let mut spec = json!({
        "scaleTargetRef": {"name": "x"},
        "triggers": triggers,
        "advanced": {"scalingModifiers": without_nulls(modifiers)},
    });
    if case["fallback"].is_object() {
        spec["fallback"] = case["fallback"].clone();
    }
    object(
        &json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "x"}, "spec": spec}),
    )
}

fn without_nulls(value: &Value) -> Value {
    let fields = value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    fields.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A formula over the metrics, through the evaluation of the whole object.
fn formula(case: &Value) -> Verdict {
    let pairs: BTreeMap<String, String> = read(&case["triggers"]);
    let triggers: Value =
        pairs.values().map(|name| json!({"type": "external", "name": name, "metadata": {}})).collect();
    // Only admission asks for a target; the peer computes without one.
    let target = if case["target"].is_null() { &json!("1") } else { &case["target"] };
    let object = assembled(case, &json!({"formula": case["formula"], "target": target}), &triggers);
    let compiled = formula::compile(&object).ok().flatten();
    let health: BTreeMap<String, HealthStatus> = read(&case["health"]);
    let metrics: Vec<(String, i64)> = case["metrics"].as_array().into_iter().flatten().map(metric).collect();
    let unknown = HealthStatus::default();
    let states: Vec<MetricState<'_>> = metrics
        .iter()
        .map(|(name, milli)| {
            let health = health.get(name).unwrap_or(&unknown);
            let failed = fallback::is_due(&object.spec, health);
            MetricState {
                name,
                trigger: pairs.get(name).map(String::as_str),
                target: Target { kind: TargetKind::AverageValue, milli: 1000 },
                sample: Some(if failed { Err("source fails") } else { Ok((*milli, false)) }),
                health,
            }
        })
        .collect();
    let evaluation = status::evaluate(&object.spec, &states, compiled.as_ref(), false, Replicas::default());
    let composite = evaluation.composite.unwrap_or_else(|| Err("no composite metric".to_owned()));
    let mut differences = Differences::default();
    let wanted = &case["expectedMetric"];
    let wanted = wanted.get("value").unwrap_or(wanted);
    let wanted = read::<Option<String>>(wanted).map(|text| parse_milli(&text).expect("a quantity"));
    differences.same(
        "composite",
        composite.as_ref().ok().copied().map(format_milli),
        wanted.map(format_milli),
    );
    error_contains(composite.as_ref().err(), &case["expectedErrorContains"], &mut differences);
    differences.verdict()
}

fn metric(metric: &Value) -> (String, i64) {
    let name = metric.get("metricName").or(metric.get("name")).unwrap_or(&Value::Null);
    (read(name), parse_milli(&read::<String>(&metric["value"])).expect("a quantity"))
}

fn error_contains(error: Option<&String>, wanted: &Value, differences: &mut Differences) {
    let wanted = wanted.as_str();
    let said = match (error, wanted) {
        (Some(error), Some(wanted)) => error.contains(wanted),
        (error, wanted) => error.is_none() && wanted.is_none(),
    };
    differences.holds(said, || format!("error: got {error:?}, wanted {wanted:?}"));
}

fn compile(case: &Value) -> Verdict {
    let triggers = case["triggers"].as_array().into_iter().flatten().map(|trigger| {
        let mut trigger = without_nulls(trigger);
        trigger["metadata"] = json!({});
        trigger
    });
    let object = assembled(case, &case["scalingModifiers"], &triggers.collect());
    let compiled = formula::compile(&object).map_err(|error| error.to_string());
    let mut differences = Differences::default();
    differences.same("valid", compiled.is_ok(), read(&case["expectedValid"]));
    if !case["expectedErrorContains"].is_null() {
        error_contains(compiled.as_ref().err(), &case["expectedErrorContains"], &mut differences);
    }
    differences.verdict()
}

fn trigger_value(case: &Value) -> Verdict {
    let object = assembled(case, &json!({"formula": "x", "target": "1"}), &json!([]));
    let value = case
        .get("metric")
        .map_or_else(|| metric(&json!({"metricName": case["metricName"], "value": case["value"]})), metric);
    let map: BTreeMap<String, HealthStatus> = read::<Option<_>>(&case["health"]).unwrap_or_default();
    let health = map.get(&value.0).cloned().unwrap_or_default();
    let got = (!fallback::is_nil(&object.spec, &health)).then(|| in_units(value.1));
    let wanted = case.get("expectedValue").or(case.get("expected")).unwrap_or(&Value::Null);
    let mut differences = Differences::default();
    differences.same("value", got, number(wanted));
    differences.verdict()
}

/// A number or a quantity.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| Some(in_units(parse_milli(value.as_str()?).expect("a quantity"))))
}

#[allow(clippy::cast_precision_loss, reason = "cases have small numbers")]
fn in_units(milli: i64) -> f64 {
    milli as f64 / 1000.0
}

fn pair(case: &Value) -> Verdict {
    let field = |name: &str| read::<Option<String>>(&case[name]).unwrap_or_default();
    let (metric, trigger) =
        (field("metric") + &field("metricName"), field("trigger") + &field("triggerName"));
    let modifiers = match case.get("scalingModifiers") {
        Some(modifiers) => without_nulls(modifiers),
        None => without_nulls(&json!({"formula": case["formula"]})),
    };
    let object = case.get("scaledObject").map_or_else(|| assembled(case, &modifiers, &json!([])), object);
    let got = formula::variable(object.spec.scaling_modifiers(), &metric, Some(&trigger));
    let mut differences = Differences::default();
    let wanted =
        case.get("expectedError").cloned().unwrap_or(json!(!case["expectedErrorContains"].is_null()));
    differences.same("error", got.is_err(), read(&wanted));
    let got: BTreeMap<String, String> =
        got.ok().flatten().map(|name| (metric, name.to_owned())).into_iter().collect();
    let wanted = case
        .get("expectedPair")
        .or(case.get("expectedPairs"))
        .or(case.get("expected"))
        .unwrap_or(&Value::Null);
    differences.same("pair", got, read::<Option<_>>(wanted).unwrap_or_default());
    differences.verdict()
}

fn contains_fold(case: &Value) -> Verdict {
    let field = |names: [&str; 2]| names.iter().find_map(|name| case.get(name)).unwrap_or(&Value::Null);
    let list: Vec<String> = read(field(["array", "list"]));
    let element: String = read(field(["element", "value"]));
    let mut differences = Differences::default();
    differences.same(
        "contains",
        status::contains_fold(list.iter().map(String::as_str), &element),
        read(&case["expected"]),
    );
    differences.verdict()
}

fn is_using_modifiers(case: &Value) -> Verdict {
    let object: ScaledObject = match case.get("scaledObject").or(case.get("object")) {
        Some(whole) => object(whole),
        None => assembled(case, &case["scalingModifiers"], &json!([])),
    };
    let mut differences = Differences::default();
    differences.same("uses modifiers", object.spec.scaling_modifiers().is_some(), read(&case["expected"]));
    differences.verdict()
}
