//! `keda_fallback`: what is served while a source fails.

use std::collections::BTreeMap;

use serde_json::Value;
use tandem_core::{
    api::keda::{Condition, HealthStatus, ScaledObject},
    pods::{
        fallback::{self, Replicas, Resolved},
        hpa::{COMPOSITE, Target, TargetKind},
        reasons,
    },
    quantity::parse_milli,
};

use super::{Differences, Verdict, object, read, unknown_kind};

pub(super) fn judge(case: &Value) -> Verdict {
    match case["kind"].as_str() {
        Some("getMetrics") => get_metrics(case),
        _ => unknown_kind(case),
    }
}

fn get_metrics(case: &Value) -> Verdict {
    let object: ScaledObject = object(&case["scaledObject"]);
    let status = object.status.clone().unwrap_or_default();
    let name: String = read(&case["metricName"]);
    let error: Option<String> = read(&case["scalerError"]);
    let result =
        error.as_deref().map_or_else(|| Ok(milli(&case["scalerMetric"]["value"]).expect("a value")), Err);

    let mut health = status.health.clone();
    let entry = health.entry(name.clone()).or_default();
    let changed = fallback::record(entry, error.is_none(), &object.spec);
    let resolved =
        fallback::resolve(&object.spec, target(&case["metricSpec"]), result, entry, replicas(case));
    if *entry == HealthStatus::default() {
        health.remove(&name);
    }
    let mut conditions: Vec<Condition> = status.conditions.clone();
    let condition = fallback::condition(&object.spec, health.values());
    let patched = condition.is_some_and(|condition| reasons::set(&mut conditions, condition)) || changed;

    let mut differences = Differences::default();
    let composite = object.spec.scaling_modifiers().is_some();
    compare(case, &resolved, if composite { COMPOSITE } else { &name }, &mut differences);
    differences.same("health", health, read::<BTreeMap<String, HealthStatus>>(&case["expectedHealth"]));
    let fallback = conditions.iter().find(|condition| condition.type_ == reasons::FALLBACK);
    let status = fallback.map(|condition| condition.status.clone());
    differences.same("Fallback condition", status, read(&case["expectedFallbackCondition"]));
    differences.same("patched", patched, read(&case["expectedStatusPatched"]));
    differences.verdict()
}

/// The metric, the error and the flag of one fetch.
fn compare(case: &Value, resolved: &Resolved, fallback_name: &str, differences: &mut Differences) {
    let (metric, error) = match resolved {
        Resolved::Value(milli) => (Some((read(&case["metricName"]), *milli)), None),
        Resolved::Fallback { milli } => (Some((fallback_name.to_owned(), *milli)), None),
        // The peer has no nil: a placeholder of -1 stands for it until the formula runs.
        Resolved::Nil => (Some((read(&case["metricName"]), -1000)), None),
        Resolved::Error(error) => (None, Some(error.as_str())),
    };
    let wanted = &case["expectedMetric"];
    let wanted = milli(&wanted["value"]).map(|value| (read::<String>(&wanted["metricName"]), value));
    differences.same("metric", metric, wanted);
    let wanted = case["expectedErrorContains"].as_str();
    let said = match (error, wanted) {
        (Some(error), Some(wanted)) => error.contains(wanted),
        (error, wanted) => error.is_none() && wanted.is_none(),
    };
    differences.holds(said, || format!("error: got {error:?}, wanted {wanted:?}"));
    let active = matches!(resolved, Resolved::Fallback { .. });
    differences.same("fallback active", active, read(&case["expectedFallbackActive"]));
}

fn milli(quantity: &Value) -> Option<i64> {
    read::<Option<String>>(quantity).map(|text| parse_milli(&text).expect("a quantity"))
}

fn target(spec: &Value) -> Target {
    let target = &spec["external"]["target"];
    if target["type"] == "Value" {
        Target { kind: TargetKind::Value, milli: milli(&target["value"]).unwrap_or(0) }
    } else {
        Target { kind: TargetKind::AverageValue, milli: milli(&target["averageValue"]).unwrap_or(0) }
    }
}

fn replicas(case: &Value) -> Replicas {
    let ready = ["readyReplicas", "readyPods", "currentReadyReplicas"];
    let ready_pods = ready.iter().find_map(|name| case.get(name)).and_then(read);
    Replicas { current: read(&case["currentReplicas"]), ready_pods }
}
