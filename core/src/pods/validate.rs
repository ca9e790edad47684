//! The rules for objects of keda.sh, as KEDA's admission webhook has them (`apis/keda/v1alpha1/*_webhook.go`).
//!
//! KEDA stops at the first violation of a random one of its checks; here all of them come, in one order. Reasons are
//! the `reason` label of KEDA's validation metrics. Reading trigger metadata is the scalers' part.

use std::collections::BTreeSet;

use kube::ResourceExt;

use super::hpa::{advanced_hpa_name, hpa_name};
use crate::api::keda::{ScaleTrigger, ScaledJob, ScaledObject};

mod authentication;
mod existing;
mod modifiers;

pub use authentication::trigger_authentication;
pub use existing::{Existing, Serves, other_hpa, validate_against};

/// Longest name of an object or an HPA, characters: both become values of labels.
const NAME_LIMIT: usize = 63;
/// Types whose value is not polled, so that there is nothing to cache.
const UNCACHED: [&str; 3] = ["cpu", "memory", "cron"];

/// The reasons of violations, labels of the webhook's metrics.
pub mod reason {
    /// The object's name is no label value.
    pub const NAME_TOO_LONG: &str = "name-too-long";
    /// The HPA's name is no label value.
    pub const HPA_NAME_TOO_LONG: &str = "hpa-name-too-long";
    /// idle, min and max are not in order.
    pub const INCORRECT_REPLICAS: &str = "incorrect-replicas";
    /// The fallback cannot work.
    pub const INCORRECT_FALLBACK: &str = "incorrect-fallback";
    /// The triggers contradict each other.
    pub const INCORRECT_TRIGGERS: &str = "incorrect-triggers";
    /// Nothing could wake the object from zero.
    pub const SCALE_TO_ZERO: &str = "scale-to-zero-requirements-not-met";
    /// The formula, its target or its metric type do not work.
    pub const SCALING_MODIFIERS: &str = "scaling-modifiers";
    /// The fallback needs a formula.
    pub const SCALING_MODIFIERS_FALLBACK: &str = "scaling-modifiers-fallback";
    /// Another HPA scales the target.
    pub const OTHER_HPA: &str = "other-hpa";
    /// The HPA to take over is not named.
    pub const TRANSFER_OWNERSHIP: &str = "transfer-ownership-missing-hpa-name";
    /// Another ScaledObject scales the target.
    pub const OTHER_SCALED_OBJECT: &str = "other-scaled-object";
    /// Another ScaledObject has an HPA of this name.
    pub const OTHER_SCALED_OBJECT_HPA: &str = "other-scaled-object-hpa";
    /// A container of the target requests none of the resource that is scaled on.
    pub const MISSING_REQUESTS: &str = "missing-requests";
    /// The target, or its kind, does not exist; KEDA refuses and counts no reason.
    pub const UNKNOWN_TARGET: &str = "unknown-target";
    /// A TriggerAuthentication contradicts itself; KEDA refuses and counts no reason.
    pub const INCORRECT_AUTHENTICATION: &str = "incorrect-authentication";
}

/// A rule that an object breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule, one of [`reason`].
    pub reason: &'static str,
    /// Where in the object, such as `spec.minReplicaCount`.
    pub field: Option<String>,
    /// What is wrong, as KEDA words it.
    pub message: String,
}

impl Violation {
    fn at(reason: &'static str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason, field: Some(field.into()), message: message.into() }
    }
}

/// Every rule that a ScaledObject breaks by itself.
pub fn validate(object: &ScaledObject) -> Vec<Violation> {
    let mut violations: Vec<_> = names(object).into_iter().collect();
    violations.extend(replica_bounds(object));
    violations.extend(fallback(object));
    violations.extend(triggers(&object.spec.triggers));
    violations.extend(scale_to_zero(object));
    violations.extend(modifiers::check_formula(object));
    violations.extend(modifiers::check_fallback(object));
    violations
}

/// The rules among [`validate`]'s without which a ScaledObject that is already stored cannot be scaled; the others
/// are for admission alone (KEDA's controller checks as much).
pub fn reconcilable(object: &ScaledObject) -> Vec<Violation> {
    let mut violations = replica_bounds(object);
    violations.extend(triggers(&object.spec.triggers));
    violations.extend(modifiers::check_formula(object));
    violations
}

/// Every rule that a ScaledJob breaks by itself.
pub fn scaled_job(job: &ScaledJob) -> Vec<Violation> {
    triggers(&job.spec.triggers)
}

/// Whether an update only takes finalizers off, which no rule may hinder.
pub fn removes_finalizer<K: ResourceExt, S: PartialEq>(old: &K, new: &K, spec: impl Fn(&K) -> &S) -> bool {
    new.finalizers().len() < old.finalizers().len() && spec(new) == spec(old)
}

fn names(object: &ScaledObject) -> Option<Violation> {
    let name = object.name_any();
    if name.len() > NAME_LIMIT {
        let message = format!(
            "scaledobject name {name:?} is {} characters long; must be no more than {NAME_LIMIT} characters because \
             it is used as the {:?} label value",
            name.len(),
            super::annotations::SCALED_OBJECT_LABEL
        );
        return Some(Violation::at(reason::NAME_TOO_LONG, "metadata.name", message));
    }
    let hpa = hpa_name(object);
    (hpa.len() > NAME_LIMIT).then(|| {
        let field = match advanced_hpa_name(object) {
            Some(_) => "spec.advanced.horizontalPodAutoscalerConfig.name",
            None => "metadata.name",
        };
        let message = format!(
            "HPA name {hpa:?} derived from scaledobject is {} characters long; must be no more than {NAME_LIMIT} \
             characters; set spec.advanced.horizontalPodAutoscalerConfig.name to a shorter name or shorten the \
             scaledobject name",
            hpa.len()
        );
        Violation::at(reason::HPA_NAME_TOO_LONG, field, message)
    })
}

/// idle < min <= max.
///
/// KEDA compares with the HPA's minimum, 1, where `minReplicaCount: 0` is written out, and with 0 where it is not:
/// idle 0 beside an explicit min 0 is let through, since such objects exist.
pub fn replica_bounds(object: &ScaledObject) -> Vec<Violation> {
    let spec = &object.spec;
    let min = spec.min_replica_count.map_or(0, |_| spec.hpa_min_replicas());
    let max = spec.max_replicas();
    let above_max = (min > max).then(|| {
        let message = format!("MinReplicaCount={min} must be less than MaxReplicaCount={max}");
        Violation::at(reason::INCORRECT_REPLICAS, "spec.minReplicaCount", message)
    });
    let idle = spec.idle_replica_count.filter(|idle| *idle >= min).map(|idle| {
        let message = format!("IdleReplicaCount={idle} must be less than MinReplicaCount={min}");
        Violation::at(reason::INCORRECT_REPLICAS, "spec.idleReplicaCount", message)
    });
    above_max.into_iter().chain(idle).collect()
}

/// Whether a fallback, where there is one, can ever stand in for a source.
pub fn fallback(object: &ScaledObject) -> Vec<Violation> {
    let Some(fallback) = &object.spec.fallback else { return Vec::new() };
    let (threshold, replicas) = (fallback.failure_threshold, fallback.replicas);
    let mut violations = Vec::new();
    if threshold < 0 || replicas < 0 {
        let field = if threshold < 0 { "spec.fallback.failureThreshold" } else { "spec.fallback.replicas" };
        let message = format!(
            "FailureThreshold={threshold} & Replicas={replicas} must both be greater than or equal to 0"
        );
        violations.push(Violation::at(reason::INCORRECT_FALLBACK, field, message));
    }
    if object.spec.scaling_modifiers().is_none() && object.spec.triggers.iter().all(ScaleTrigger::is_resource)
    {
        let message = "at least one trigger (that is not cpu or memory) has to have the `AverageValue` type for the \
                       fallback to be enabled";
        violations.push(Violation::at(reason::INCORRECT_FALLBACK, "spec.fallback", message));
    }
    violations
}

/// Whether triggers go together: there is one, names are unique, nothing is cached that is not polled.
pub fn triggers(triggers: &[ScaleTrigger]) -> Vec<Violation> {
    if triggers.is_empty() {
        let message = "no triggers defined in the ScaledObject/ScaledJob";
        return vec![Violation::at(reason::INCORRECT_TRIGGERS, "spec.triggers", message)];
    }
    let mut names = BTreeSet::new();
    let mut violations = Vec::new();
    for (index, trigger) in triggers.iter().enumerate() {
        let mut violation = |field: &str, message: String| {
            let field = format!("spec.triggers[{index}].{field}");
            violations.push(Violation::at(reason::INCORRECT_TRIGGERS, field, message));
        };
        let type_ = trigger.type_.as_str();
        if trigger.use_cached_metrics == Some(true) && UNCACHED.contains(&type_) {
            let message = format!("property \"useCachedMetrics\" is not supported for {type_:?} scaler");
            violation("useCachedMetrics", message);
        }
        if let Some(name) = trigger.name.as_deref().filter(|name| !name.is_empty())
            && !names.insert(name)
        {
            let message = format!(
                "triggerName {name:?} is defined multiple times in the ScaledObject/ScaledJob, but it must be unique"
            );
            violation("name", message);
        }
    }
    violations
}

/// Pods are needed to measure their cpu and memory: at zero nothing would wake the object.
fn scale_to_zero(object: &ScaledObject) -> Option<Violation> {
    let spec = &object.spec;
    let asleep = spec.min_replicas() == 0
        && existing::WorkloadKind::of(&spec.scale_target_ref).is_some()
        && !spec.triggers.is_empty()
        && spec.triggers.iter().all(ScaleTrigger::is_resource);
    asleep.then(|| {
        let message = "scaledobject has only cpu/memory triggers AND minReplica is 0 (scale to zero doesn't work in \
                       this case)";
        Violation::at(reason::SCALE_TO_ZERO, "spec.minReplicaCount", message)
    })
}

/// What is written in a way that has no effect.
pub fn warnings(object: &ScaledObject) -> Vec<String> {
    let spec = &object.spec;
    let sleeps = spec.min_replicas() == 0 || spec.idle_replica_count.is_some();
    let cached = spec.triggers.iter().any(|trigger| trigger.use_cached_metrics == Some(true));
    // KEDA says nothing of the interval beside a formula.
    let composed = spec.scaling_modifiers().is_some();
    let mut warnings = Vec::new();
    if spec.polling_interval.is_some() && !sleeps && !cached && !composed {
        warnings.push(
            "PollingInterval is configured but is not relevant. PollingInterval is only relevant when \
             minReplicaCount = 0, idleReplicaCount is set, or useCachedMetrics is enabled"
                .to_owned(),
        );
    }
    if spec.cooldown_period.is_some() && !sleeps {
        warnings.push(
            "CooldownPeriod is configured but is not relevant. CooldownPeriod is only relevant when \
             minReplicaCount = 0 or idleReplicaCount is set"
                .to_owned(),
        );
    }
    warnings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_violation_comes_with_its_place_in_one_order() {
        let object: ScaledObject = serde_json::from_value(json!({
            "metadata": {"name": "a".repeat(60)},
            "spec": {
                "scaleTargetRef": {"name": "web"},
                "minReplicaCount": 5,
                "maxReplicaCount": 2,
                "idleReplicaCount": 7,
                "fallback": {"failureThreshold": 3, "replicas": -1, "behavior": "scalingModifiers"},
                "triggers": [
                    {"type": "cpu", "name": "one", "useCachedMetrics": true, "metadata": {}},
                    {"type": "memory", "name": "one", "metadata": {}},
                ],
            },
        }))
        .unwrap();
        let violations = validate(&object);
        let found: Vec<_> = violations
            .iter()
            .map(|found| (found.reason, found.field.as_deref().unwrap_or_default()))
            .collect();
        let wanted = [
            (reason::HPA_NAME_TOO_LONG, "metadata.name"),
            (reason::INCORRECT_REPLICAS, "spec.minReplicaCount"),
            (reason::INCORRECT_REPLICAS, "spec.idleReplicaCount"),
            (reason::INCORRECT_FALLBACK, "spec.fallback.replicas"),
            (reason::INCORRECT_FALLBACK, "spec.fallback"),
            (reason::INCORRECT_TRIGGERS, "spec.triggers[0].useCachedMetrics"),
            (reason::INCORRECT_TRIGGERS, "spec.triggers[1].name"),
            (reason::SCALING_MODIFIERS_FALLBACK, "spec.fallback.behavior"),
        ];
        assert_eq!(found, wanted);
        let reasons = |violations: Vec<Violation>| -> BTreeSet<_> {
            violations.into_iter().map(|violation| violation.reason).collect()
        };
        let blocking = [reason::INCORRECT_REPLICAS, reason::INCORRECT_TRIGGERS];
        assert_eq!(reasons(reconcilable(&object)), blocking.into());
    }
}
