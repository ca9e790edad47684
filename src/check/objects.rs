//! The rules of each kind, after its schema.

use kube::ResourceExt;
use serde_json::Value;
use tandem_core::{
    api::keda::{ScaleTrigger, ScaledObject, TriggerAuthenticationSpec},
    pods::validate::{self, Existing, Violation},
};

use super::{
    Finding, Report, Rule, World,
    path::Path,
    triggers::{self, Owner},
};

pub(super) fn scaled_object(value: &Value, world: &World<'_>, report: &mut Report) {
    let Some(object) = read::<ScaledObject>(value, &Path::default(), report) else { return };
    let namespace = object.namespace().unwrap_or_default();
    add(validate::validate(&object), report);
    add(among_others(&object, &namespace, world, report), report);
    let warnings = validate::warnings(&object).into_iter();
    report
        .warnings
        .extend(warnings.map(|message| Finding::new(Rule::Keda("irrelevant"), &about(&message), message)));
    let owner = Owner {
        kind: "ScaledObject",
        namespace: &namespace,
        name: &object.name_any(),
        has_formula: object.spec.scaling_modifiers().is_some(),
    };
    triggers::check(&object.spec.triggers, &owner, world, report);
}

/// The rules that need to see the target and the namespace. An absent target is no violation: it may come a moment later
/// in the same apply, and a watch that is that moment behind must not refuse.
fn among_others(
    object: &ScaledObject,
    namespace: &str,
    world: &World<'_>,
    report: &mut Report,
) -> Vec<Violation> {
    let target = &object.spec.scale_target_ref;
    let (deployments, stateful_sets) = match target.kind.as_deref() {
        None | Some("" | "Deployment") => (world.lookup.deployment(namespace, &target.name), None),
        Some("StatefulSet") => (None, world.lookup.stateful_set(namespace, &target.name)),
        Some(_) => (None, None),
    };
    let is_measured = object.spec.triggers.iter().any(ScaleTrigger::is_resource);
    let is_workload = matches!(target.api_version.as_deref(), None | Some("" | "apps/v1"))
        && matches!(target.kind.as_deref(), None | Some("" | "Deployment" | "StatefulSet"));
    if world.complete && is_workload && is_measured && deployments.is_none() && stateful_sets.is_none() {
        let kind = target.kind.as_deref().filter(|kind| !kind.is_empty()).unwrap_or("Deployment");
        let message =
            format!("{kind} {:?} does not exist yet: its resource requests were not checked", target.name);
        report.warnings.push(Finding::new(Rule::Reference, &Path::of("spec.scaleTargetRef.name"), message));
    }
    let (hpas, scaled_objects) = (world.lookup.hpas(namespace), world.lookup.scaled_objects(namespace));
    let limit_ranges = if is_measured { world.lookup.limit_ranges(namespace) } else { Vec::new() };
    validate::validate_against(
        object,
        &Existing {
            hpas: &hpas,
            scaled_objects: &scaled_objects,
            deployments: deployments.as_slice(),
            stateful_sets: stateful_sets.as_slice(),
            limit_ranges: &limit_ranges,
            complete: false,
            dry_run: world.dry_run,
            // Only the API server knows its kinds, and asking it would make admission wait.
            serves: None,
        },
    )
}

/// KEDA looks at the triggers of a ScaledJob and nothing else. The template of its Jobs is the API server's to check, and
/// it may hold what a Rust type does not take (a quantity written as a number).
pub(super) fn scaled_job(value: &Value, world: &World<'_>, report: &mut Report) {
    let path = Path::of("spec.triggers");
    let Some(found) = read::<Vec<ScaleTrigger>>(&value["spec"]["triggers"], &path, report) else { return };
    add(validate::triggers(&found), report);
    let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
    let owner =
        Owner { kind: "ScaledJob", namespace: text("namespace"), name: text("name"), has_formula: false };
    triggers::check(&found, &owner, world, report);
}

/// TriggerAuthentications and ClusterTriggerAuthentications have the same spec and the same rules.
pub(super) fn authentication(value: &Value, report: &mut Report) {
    if let Some(spec) = read::<TriggerAuthenticationSpec>(&value["spec"], &Path::of("spec"), report) {
        add(validate::trigger_authentication(&spec), report);
    }
}

/// The typed object. The schema has named every fault of form already, each with its place; what is left is a fault that
/// the schema does not know.
fn read<T: serde::de::DeserializeOwned>(value: &Value, path: &Path, report: &mut Report) -> Option<T> {
    match T::deserialize(value) {
        Ok(object) => Some(object),
        Err(error) => {
            if report.errors.is_empty() {
                report.errors.push(Finding::new(Rule::Schema, path, format!("cannot be read: {error}")));
            }
            None
        }
    }
}

fn add(violations: Vec<Violation>, report: &mut Report) {
    // The schema says the same of a list without elements.
    let doubled = |violation: &Violation| {
        violation.field.as_deref() == Some("spec.triggers")
            && report.errors.iter().any(|finding| finding.path.to_string() == "spec.triggers")
    };
    let fresh: Vec<_> = violations.into_iter().filter(|violation| !doubled(violation)).collect();
    report.errors.extend(fresh.into_iter().map(explained));
}

/// A violation with its place, and with what to write instead.
pub(crate) fn explained(violation: Violation) -> Finding {
    let path = violation.field.as_deref().map(Path::parse).unwrap_or_default();
    let finding = Finding::new(Rule::Keda(violation.reason), &path, violation.message);
    match hint(violation.reason) {
        Some(hint) => finding.hint(hint),
        None => finding,
    }
}

/// What to write instead, where KEDA's text does not say it.
fn hint(reason: &str) -> Option<&'static str> {
    use validate::reason;
    Some(match reason {
        reason::INCORRECT_FALLBACK => {
            "cpu and memory triggers have no source that could fail: remove the fallback"
        }
        reason::OTHER_HPA => {
            "delete that HPA, or hand it over: annotation scaledobject.keda.sh/transfer-hpa-ownership: \"true\" and its \
             name in spec.advanced.horizontalPodAutoscalerConfig.name"
        }
        reason::OTHER_SCALED_OBJECT => "put the triggers of both into one ScaledObject",
        reason::OTHER_SCALED_OBJECT_HPA => "choose another spec.advanced.horizontalPodAutoscalerConfig.name",
        reason::MISSING_REQUESTS => "utilization is measured against the request: set resources.requests",
        reason::SCALE_TO_ZERO => {
            "set minReplicaCount to 1, or add a trigger that can see work while no pod runs"
        }
        _ => return None,
    })
}

/// The field that one of KEDA's warnings begins with.
fn about(warning: &str) -> Path {
    if warning.starts_with("PollingInterval") {
        Path::of("spec.pollingInterval")
    } else if warning.starts_with("CooldownPeriod") {
        Path::of("spec.cooldownPeriod")
    } else {
        Path::of("spec")
    }
}
