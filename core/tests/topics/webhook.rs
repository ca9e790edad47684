//! `keda_webhook`: what is let in.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::{Resource, ResourceExt, core::CustomResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tandem_core::{
    api::keda::{ClusterTriggerAuthentication, ScaledJob, ScaledObject, TriggerAuthentication},
    pods::{
        validate::{self, Existing, Violation},
        workload::Workload,
    },
};

use super::{Differences, Verdict, object, read, schema, unknown_kind};

pub(super) fn judge(case: &Value) -> Verdict {
    match case["kind"].as_str() {
        Some("admission") => admission(case),
        Some("triggers") => {
            let triggers: Vec<_> = read(&case["triggers"]);
            rule(case, &validate::triggers(&triggers))
        }
        Some("fallbackValid") => rule(case, &validate::fallback(&object(&case["object"]))),
        Some("replicaBounds") => rule(case, &validate::replica_bounds(&object(&case["object"]))),
        _ => unknown_kind(case),
    }
}

/// A case of one rule.
fn rule(case: &Value, violations: &[Violation]) -> Verdict {
    let mut differences = Differences::default();
    differences.same("allowed", violations.is_empty(), case["expectedAllowed"] == true);
    expect_message(&mut differences, &case["expectedErrorContains"], violations);
    if let Some(full) = case["expectedErrorFull"].as_str() {
        differences.same(
            "message",
            violations.first().map(|violation| violation.message.as_str()),
            Some(full),
        );
    }
    differences.verdict()
}

fn expect_message(differences: &mut Differences, wanted: &Value, violations: &[Violation]) {
    let Some(wanted) = wanted.as_str() else { return };
    let said = violations.iter().any(|violation| violation.message.contains(wanted));
    differences.holds(said, || format!("got {violations:?}, wanted the message {wanted:?}"));
}

/// What is said about an object.
struct Admission {
    refused_fields: Vec<String>,
    violations: Vec<Violation>,
    warnings: Vec<String>,
}

fn admission(case: &Value) -> Verdict {
    match case["object"]["kind"].as_str() {
        Some("ScaledObject") => verdict(case, &admit(case, |object| &object.spec, scaled_object)),
        Some("ScaledJob") => verdict(
            case,
            &admit(case, |job: &ScaledJob| &job.spec, |job, _| (validate::scaled_job(job), Vec::new())),
        ),
        Some("TriggerAuthentication") => {
            let rules = |object: &TriggerAuthentication, _: &Value| {
                (validate::trigger_authentication(&object.spec), Vec::new())
            };
            verdict(case, &admit(case, |object| &object.spec, rules))
        }
        Some("ClusterTriggerAuthentication") => {
            let rules = |object: &ClusterTriggerAuthentication, _: &Value| {
                (validate::trigger_authentication(&object.spec.spec), Vec::new())
            };
            verdict(case, &admit(case, |object| &object.spec, rules))
        }
        Some("CloudEventSource" | "ClusterCloudEventSource") => Verdict::LeftOut("CloudEventSources"),
        _ => unknown_kind(&case["object"]),
    }
}

/// Runs the rules of a kind, unless the update only takes finalizers off.
fn admit<K, S: PartialEq>(
    case: &Value,
    spec: impl Fn(&K) -> &S,
    rules: impl Fn(&K, &Value) -> (Vec<Violation>, Vec<String>),
) -> Admission
where
    K: Resource<DynamicType = ()> + CustomResourceExt + DeserializeOwned + Default,
{
    let refused_fields = schema::refused::<K>(&case["object"]);
    if !refused_fields.is_empty() && !is_readable::<K>(&case["object"]) {
        return Admission { refused_fields, violations: Vec::new(), warnings: Vec::new() };
    }
    let new: K = object(&case["object"]);
    let old = Some(&case["oldObject"]).filter(|old| !old.is_null()).map(object);
    let (violations, warnings) = match old {
        Some(old) if validate::removes_finalizer(&old, &new, spec) => (Vec::new(), Vec::new()),
        _ => rules(&new, case),
    };
    Admission { refused_fields, violations, warnings }
}

/// An object that its schema refuses may not even be one of its type.
fn is_readable<K: DeserializeOwned>(object: &Value) -> bool {
    serde_json::from_value::<K>(object.clone()).is_ok()
}

fn scaled_object(object: &ScaledObject, case: &Value) -> (Vec<Violation>, Vec<String>) {
    let existing = Existing {
        hpas: &listed(case, "HorizontalPodAutoscaler"),
        scaled_objects: &listed(case, "ScaledObject"),
        deployments: &workloads::<Deployment>(case, "Deployment"),
        stateful_sets: &workloads::<StatefulSet>(case, "StatefulSet"),
        limit_ranges: &listed(case, "LimitRange"),
        complete: true,
        dry_run: case["dryRun"] == true,
        serves: Some(&is_served),
    };
    let mut violations = validate::validate(object);
    violations.extend(validate::validate_against(object, &existing));
    (violations, validate::warnings(object))
}

/// The objects of one kind in the namespace.
fn listed<K: DeserializeOwned + ResourceExt>(case: &Value, kind: &str) -> Vec<Arc<K>> {
    let namespace = case["object"]["metadata"]["namespace"].as_str();
    let existing = case["existing"].as_array().into_iter().flatten().filter(|object| object["kind"] == kind);
    existing
        .map(|object| {
            serde_json::from_value::<K>(object.clone()).unwrap_or_else(|e| panic!("{e} in {object}"))
        })
        .filter(|object| object.namespace().as_deref() == namespace)
        .map(Arc::new)
        .collect()
}

fn workloads<K>(case: &Value, kind: &str) -> Vec<Arc<Workload>>
where
    K: DeserializeOwned + ResourceExt + Clone + Into<Workload>,
{
    listed::<K>(case, kind).into_iter().map(|object| Arc::new(K::clone(&object).into())).collect()
}

/// The API server of the cases knows Kubernetes' own kinds.
fn is_served(api_version: &str, kind: &str) -> bool {
    let workloads = ["Deployment", "StatefulSet", "ReplicaSet", "DaemonSet"];
    (api_version == "apps/v1" && workloads.contains(&kind))
        || (api_version == "v1" && kind == "ReplicationController")
}

fn verdict(case: &Value, got: &Admission) -> Verdict {
    let mut differences = Differences::default();
    let admitted = got.violations.is_empty();
    differences.same("webhook allowed", admitted, case["expectedWebhookAllowed"] == true);
    let allowed = admitted && got.refused_fields.is_empty();
    differences.same("allowed", allowed, case["expectedAllowed"] == true);
    if !admitted {
        expect_message(&mut differences, &case["expectedErrorContains"], &got.violations);
    }
    if let Some(reason) = case["expectedReason"].as_str() {
        let counted = got.violations.iter().any(|violation| violation.reason == reason);
        differences.holds(counted, || format!("got {:?}, wanted the reason {reason}", got.violations));
    }
    match case["expectedSchemaErrorField"].as_str() {
        Some(field) => differences.holds(got.refused_fields.iter().any(|refused| refused == field), || {
            format!("the schema refuses {:?}, not {field}", got.refused_fields)
        }),
        None => differences.same("fields refused by the schema", &got.refused_fields, &Vec::new()),
    }
    warnings(&mut differences, case, &got.warnings);
    differences.verdict()
}

fn warnings(differences: &mut Differences, case: &Value, warnings: &[String]) {
    let listed = |field: &str| -> Vec<String> { read(&case[field]) };
    let warned = |text: &String| warnings.iter().any(|warning| warning.contains(text));
    for text in listed("expectedWarningsContain") {
        differences.holds(warned(&text), || format!("warnings {warnings:?} lack {text:?}"));
    }
    for text in listed("expectedWarningsNotContain") {
        differences.holds(!warned(&text), || format!("warnings {warnings:?} contain {text:?}"));
    }
    if case["expectedNoWarnings"] == true {
        differences.same("warnings", warnings, &[]);
    }
}
