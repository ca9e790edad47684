//! Whether an HPA that exists still is what its ScaledObject asks for.
//!
//! The API server fills in defaults and rewrites quantities, so both sides are brought to one form first. What others
//! add to labels and annotations is no difference.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::autoscaling::v2::{
        HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior,
        HorizontalPodAutoscalerSpec, MetricSpec, MetricTarget,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::OwnerReference},
};

use crate::quantity::parse_milli;

/// Period of the default policies, seconds (`pkg/apis/autoscaling/v2/defaults.go` of Kubernetes, as all below).
const DEFAULT_PERIOD: i32 = 15;
/// Pods that a default scale-up may add in a period.
const DEFAULT_UP_PODS: i32 = 4;
/// Percent that a default policy may add or remove in a period.
const DEFAULT_PERCENT: i32 = 100;

/// Whether `existing` has to be written anew to be `desired`.
pub fn needs_update(existing: &HorizontalPodAutoscaler, desired: &HorizontalPodAutoscaler) -> bool {
    !(contains(existing.metadata.labels.as_ref(), desired.metadata.labels.as_ref())
        && contains(existing.metadata.annotations.as_ref(), desired.metadata.annotations.as_ref())
        && owned(existing.metadata.owner_references.as_ref(), desired.metadata.owner_references.as_ref())
        && canonical(&existing.spec) == canonical(&desired.spec))
}

/// Whether every wanted pair is there.
fn contains(existing: Option<&BTreeMap<String, String>>, desired: Option<&BTreeMap<String, String>>) -> bool {
    let mut desired = desired.into_iter().flatten();
    desired.all(|(name, value)| existing.and_then(|existing| existing.get(name)) == Some(value))
}

/// Whether every wanted owner is there: an object made anew under its old name is another owner.
fn owned(existing: Option<&Vec<OwnerReference>>, desired: Option<&Vec<OwnerReference>>) -> bool {
    let mut desired = desired.into_iter().flatten();
    desired.all(|owner| existing.into_iter().flatten().any(|found| found.uid == owner.uid))
}

/// The spec with defaults filled in and quantities written one way.
fn canonical(spec: &HorizontalPodAutoscalerSpec) -> HorizontalPodAutoscalerSpec {
    let mut spec = spec.clone();
    spec.min_replicas.get_or_insert(1);
    spec.metrics.iter_mut().flatten().filter_map(target).for_each(canonicalise_target);
    spec.behavior = spec.behavior.map(default_behavior);
    spec
}

fn target(metric: &mut MetricSpec) -> Option<&mut MetricTarget> {
    let MetricSpec { external, resource, container_resource, .. } = metric;
    external
        .as_mut()
        .map(|source| &mut source.target)
        .or(resource.as_mut().map(|source| &mut source.target))
        .or(container_resource.as_mut().map(|source| &mut source.target))
}

fn canonicalise_target(target: &mut MetricTarget) {
    target.average_value.iter_mut().chain(&mut target.value).for_each(canonicalise);
}

/// Thousandths in the place of the text; a text that does not read stays.
fn canonicalise(quantity: &mut Quantity) {
    if let Ok(milli) = parse_milli(&quantity.0) {
        quantity.0 = format!("{milli}m");
    }
}

fn default_behavior(behavior: HorizontalPodAutoscalerBehavior) -> HorizontalPodAutoscalerBehavior {
    let percent = || policy("Percent", DEFAULT_PERCENT);
    let mut up = default_rules(behavior.scale_up, || vec![policy("Pods", DEFAULT_UP_PODS), percent()]);
    up.stabilization_window_seconds.get_or_insert(0);
    let down = default_rules(behavior.scale_down, || vec![percent()]);
    HorizontalPodAutoscalerBehavior { scale_up: Some(up), scale_down: Some(down) }
}

fn default_rules(
    rules: Option<HPAScalingRules>,
    policies: impl FnOnce() -> Vec<HPAScalingPolicy>,
) -> HPAScalingRules {
    let mut rules = rules.unwrap_or_default();
    rules.select_policy.get_or_insert_with(|| "Max".to_owned());
    rules.policies.get_or_insert_with(policies);
    rules.tolerance.iter_mut().for_each(canonicalise);
    rules
}

fn policy(type_: &str, value: i32) -> HPAScalingPolicy {
    HPAScalingPolicy { type_: type_.to_owned(), value, period_seconds: DEFAULT_PERIOD }
}
