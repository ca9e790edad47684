//! `keda_scale`: passes of the scale loop, and what they are made of.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::Value;
use tandem_core::{
    api::keda::{Condition, ScaledObject},
    pods::{
        activation::{self, Input},
        annotations::{self, Pause},
        reasons,
        status::triggers_activity,
    },
};

use super::{Differences, Verdict, object, read, unknown_kind};

/// The clock of the cases.
const NOW: &str = "2026-01-01T00:00:00Z";

pub(super) fn judge(case: &Value) -> Verdict {
    match case["kind"].as_str() {
        Some("requestScale") => request_scale(case),
        Some("idleOrMin") => idle_or_min(case),
        Some("hasPausedAnnotation") => has_paused_annotation(case),
        Some("needToBePaused") => need_to_be_paused(case),
        Some("pausedReplicaCount") => paused_replica_count(case),
        Some("hpaHealth" | "hpaCondition") => hpa_condition(case),
        Some("triggersActivity") => activity(case),
        _ => unknown_kind(case),
    }
}

fn request_scale(case: &Value) -> Verdict {
    let object: ScaledObject = object(&case["scaledObject"]);
    let hpa: Option<HorizontalPodAutoscaler> = read(&case["hpa"]);
    let active_triggers: Vec<String> = read(&case["activeTriggers"]);
    let target_kind =
        object.status.as_ref().and_then(|status| status.scale_target_kind.clone()).unwrap_or_default();
    let outcome = activation::pass(&Input {
        object: &object,
        target_kind: &target_kind,
        current: read(&case["currentReplicas"]),
        active: read(&case["isActive"]),
        error: read(&case["isError"]),
        active_triggers: &active_triggers,
        last_active: None,
        hpa: hpa.as_ref(),
        now: NOW.parse::<Timestamp>().expect("a time"),
    });
    let mut differences = Differences::default();
    differences.same("scale to", outcome.scale_to, read(&case["expectedScaleTo"]));
    differences.same("conditions", outcome.conditions, read(&case["expectedConditions"]));
    differences.same("last active", outcome.set_last_active, read(&case["expectedLastActiveTimeSet"]));
    let events: Vec<String> = outcome.event.iter().map(ToString::to_string).collect();
    differences.same("events", events, read(&case["expectedEvents"]));
    differences.verdict()
}

fn idle_or_min(case: &Value) -> Verdict {
    let object: ScaledObject = object(&case["scaledObject"]);
    let mut differences = Differences::default();
    let wanted = (read(&case["expectedIsIdle"]), read(&case["expectedReplicas"]));
    differences.same("idle, replicas", activation::idle_or_min(&object.spec), wanted);
    differences.verdict()
}

fn annotations(case: &Value) -> BTreeMap<String, String> {
    read::<Option<_>>(&case["annotations"]).unwrap_or_default()
}

fn has_paused_annotation(case: &Value) -> Verdict {
    let mut differences = Differences::default();
    differences.same("has", activation::has_pause_annotation(&annotations(case)), read(&case["expected"]));
    differences.verdict()
}

fn need_to_be_paused(case: &Value) -> Verdict {
    let mut differences = Differences::default();
    differences.same("paused", Pause::of(&annotations(case)).full, read(&case["expected"]));
    differences.verdict()
}

fn paused_replica_count(case: &Value) -> Verdict {
    let count = annotations::paused_replicas(&annotations(case));
    let mut differences = Differences::default();
    differences.same("error", count.is_err(), read(&case["expectedError"]));
    differences.same("count", count.ok().flatten(), read(&case["expectedCount"]));
    differences.verdict()
}

/// The condition that the HPA gives rise to, or none and the old one stays.
fn hpa_condition(case: &Value) -> Verdict {
    let hpa: Option<HorizontalPodAutoscaler> = read(&case["hpa"]);
    let got = hpa.as_ref().and_then(reasons::hpa_active);
    let mut differences = Differences::default();
    if let Some(wanted) = case.get("expectedConditions").or(case.get("expectedCondition")) {
        let before = case.get("conditions").or(case.get("existingConditions")).unwrap_or(&Value::Null);
        let mut conditions: Vec<Condition> = read::<Option<_>>(before).unwrap_or_default();
        if let Some(condition) = got {
            reasons::set(&mut conditions, condition);
        }
        let wanted: Vec<Condition> =
            if wanted.is_array() { read(wanted) } else { read::<Option<_>>(wanted).into_iter().collect() };
        differences.same("conditions", conditions, wanted);
        return differences.verdict();
    }
    let field = |name: &str| read::<Option<String>>(case.get(name).unwrap_or(&Value::Null));
    let got = got.map(|condition| (condition.status, condition.reason, condition.message));
    let wanted = field("expectedStatus").map(|status| {
        (status, field("expectedReason").unwrap_or_default(), field("expectedMessage").unwrap_or_default())
    });
    differences.same("condition", got, wanted);
    differences.verdict()
}

fn activity(case: &Value) -> Verdict {
    let object: Option<ScaledObject> = case.get("scaledObject").map(object);
    let listed = object.and_then(|object| object.status).map(|status| status.external_metric_names);
    let metrics = listed.unwrap_or_else(|| read(&case["externalMetricNames"]));
    let active: Vec<String> = read(&case["activeTriggers"]);
    let got = triggers_activity(metrics.iter().map(String::as_str), &active);
    let wanted =
        case.get("expectedTriggersActivity").or(case.get("expectedActivity")).or(case.get("expected"));
    let mut differences = Differences::default();
    differences.same("activity", Some(serde_json::to_value(got).expect("JSON")), wanted.cloned());
    differences.verdict()
}
