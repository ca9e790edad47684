//! ScaledObject (`so`): scales a workload on the values of its triggers.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::autoscaling::v2::HorizontalPodAutoscalerBehavior, apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::{condition::Condition, trigger::ScaleTrigger};
use crate::api::numbers::with_quantities;

/// KEDA's default polling interval, seconds.
pub const DEFAULT_POLLING_INTERVAL: i32 = 30;
/// KEDA's default cooldown period, seconds.
pub const DEFAULT_COOLDOWN_PERIOD: i32 = 300;
/// KEDA's default maximum of replicas.
pub const DEFAULT_MAX_REPLICAS: i32 = 100;

/// Scales a workload on the values of its triggers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "keda.sh",
    version = "v1alpha1",
    kind = "ScaledObject",
    namespaced,
    shortname = "so",
    status = "ScaledObjectStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "ScaleTargetKind", type_ = "string", json_path = ".status.scaleTargetKind"),
    printcolumn(name = "ScaleTargetName", type_ = "string", json_path = ".spec.scaleTargetRef.name"),
    printcolumn(name = "Min", type_ = "integer", json_path = ".spec.minReplicaCount"),
    printcolumn(name = "Max", type_ = "integer", json_path = ".spec.maxReplicaCount"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Active",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Active\")].status"
    ),
    printcolumn(
        name = "Fallback",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Fallback\")].status"
    ),
    printcolumn(
        name = "Paused",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Paused\")].status"
    ),
    printcolumn(name = "Triggers", type_ = "string", json_path = ".status.triggersTypes"),
    printcolumn(name = "Authentications", type_ = "string", json_path = ".status.authenticationsTypes"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("!has(self.minReplicaCount) || self.minReplicaCount <= (has(self.maxReplicaCount) ? self.maxReplicaCount : 100)").message("minReplicaCount must be less than or equal to maxReplicaCount"))]
#[serde(rename_all = "camelCase")]
pub struct ScaledObjectSpec {
    /// The workload that is scaled: any kind with a scale subresource.
    #[serde(default)]
    #[schemars(!default)]
    pub scale_target_ref: ScaleTargetRef,
    /// Seconds between polls of the triggers (30).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub polling_interval: Option<i32>,
    /// Seconds after creation before the first scale to zero (0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub initial_cooldown_period: Option<i32>,
    /// Seconds after the last activity before the scale to zero or idle (300).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cooldown_period: Option<i32>,
    /// Replicas while inactive, less than minReplicaCount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub idle_replica_count: Option<i32>,
    /// Least replicas while active (0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub min_replica_count: Option<i32>,
    /// Most replicas (100).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_replica_count: Option<i32>,
    /// The HPA, the formula, the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advanced: Option<Advanced>,
    /// What is scaled on.
    #[serde(default)]
    #[schemars(!default, length(min = 1))]
    pub triggers: Vec<ScaleTrigger>,
    /// What is served while a source fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

impl ScaledObjectSpec {
    /// Seconds between polls.
    pub fn polling_interval(&self) -> i32 {
        self.polling_interval.unwrap_or(DEFAULT_POLLING_INTERVAL).max(1)
    }

    /// Seconds from the last activity to zero.
    pub fn cooldown_period(&self) -> i32 {
        self.cooldown_period.unwrap_or(DEFAULT_COOLDOWN_PERIOD)
    }

    /// Seconds from creation to the first zero.
    pub fn initial_cooldown_period(&self) -> i32 {
        self.initial_cooldown_period.unwrap_or(0)
    }

    /// `minReplicaCount`, 0 by default.
    pub fn min_replicas(&self) -> i32 {
        self.min_replica_count.unwrap_or(0)
    }

    /// The HPA's minimum: `minReplicaCount` if above zero, else 1.
    pub fn hpa_min_replicas(&self) -> i32 {
        self.min_replica_count.filter(|min| *min > 0).unwrap_or(1)
    }

    /// The HPA's maximum: `maxReplicaCount`, 100 by default.
    pub fn max_replicas(&self) -> i32 {
        self.max_replica_count.unwrap_or(DEFAULT_MAX_REPLICAS)
    }

    /// `advanced.scalingModifiers`, where any of its fields is set.
    pub fn scaling_modifiers(&self) -> Option<&ScalingModifiers> {
        self.advanced
            .as_ref()?
            .scaling_modifiers
            .as_ref()
            .filter(|modifiers| **modifiers != ScalingModifiers::default())
    }

    /// Whether the target gets its original count back when the object goes.
    pub fn restores_replicas(&self) -> bool {
        self.advanced
            .as_ref()
            .and_then(|advanced| advanced.restore_to_original_replica_count)
            .unwrap_or(false)
    }
}

/// The workload that is scaled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaleTargetRef {
    /// Its name.
    #[serde(default)]
    #[schemars(!default, length(min = 1))]
    pub name: String,
    /// apps/v1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Deployment by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The container whose environment `…FromEnv` parameters name; the first by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_source_container_name: Option<String>,
}

/// The HPA, the formula, the end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Advanced {
    /// Details of the HPA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub horizontal_pod_autoscaler_config: Option<HorizontalPodAutoscalerConfig>,
    /// Give the target its original count back when the object goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_to_original_replica_count: Option<bool>,
    /// One metric computed from all triggers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling_modifiers: Option<ScalingModifiers>,
}

/// Details of the HPA.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HorizontalPodAutoscalerConfig {
    /// Its behavior, copied as it is.
    #[serde(default, deserialize_with = "with_quantities", skip_serializing_if = "Option::is_none")]
    #[schemars(transform = limit_stabilization)]
    pub behavior: Option<HorizontalPodAutoscalerBehavior>,
    /// Its name; keda-hpa-NAME by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Longest stabilization window, seconds (autoscaling/v2; `config/crd/patches` of KEDA).
const MAX_STABILIZATION: i32 = 3600;

/// Refuses at once what the HPA would be refused for.
fn limit_stabilization(schema: &mut Schema) {
    for direction in ["scaleUp", "scaleDown"] {
        let path = format!("/properties/{direction}/properties/stabilizationWindowSeconds");
        if let Some(window) = schema.pointer_mut(&path).and_then(|value| value.as_object_mut()) {
            window.insert("minimum".to_owned(), 0.into());
            window.insert("maximum".to_owned(), MAX_STABILIZATION.into());
        }
    }
}

/// One metric computed from all triggers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingModifiers {
    /// The expression, over the triggers' names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formula: Option<String>,
    /// The target of its value, a number above zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The object is active while the value is above this (0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_target: Option<String>,
    /// AverageValue (the default) or Value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["AverageValue", "Value"]))]
    pub metric_type: Option<String>,
}

/// What is served while a source fails.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// Fallback begins when more failures than this follow each other.
    #[serde(default)]
    #[schemars(!default, range(min = 0))]
    pub failure_threshold: i32,
    /// The replicas to ask for.
    #[serde(default)]
    #[schemars(!default, range(min = 0))]
    pub replicas: i32,
    /// How the current count enters.
    #[serde(default)]
    pub behavior: FallbackBehavior,
}

/// How the current count enters the fallback.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub enum FallbackBehavior {
    /// Always `replicas`.
    #[default]
    Static,
    /// The current count.
    CurrentReplicas,
    /// The higher of the two.
    CurrentReplicasIfHigher,
    /// The lower of the two.
    CurrentReplicasIfLower,
    /// The formula sees nil in the place of the failing trigger.
    ScalingModifiers,
}

/// What Tandem says of a ScaledObject.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaledObjectStatus {
    /// `group/version.Kind` of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_target_kind: Option<String>,
    /// Group, version, kind and resource of the target.
    #[serde(default, rename = "scaleTargetGVKR", skip_serializing_if = "Option::is_none")]
    pub scale_target_gvkr: Option<GroupVersionKindResource>,
    /// The target's count when the object first saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_replica_count: Option<i32>,
    /// When a trigger was last active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_active_time: Option<Time>,
    /// Names of the external metrics.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external_metric_names: Vec<String>,
    /// Names of the resource metrics.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource_metric_names: Vec<String>,
    /// Name of the metric that the formula computes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub composite_scaler_name: Option<String>,
    /// Ready, Active, Fallback, Paused, HPAActive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Failures by metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub health: BTreeMap<String, HealthStatus>,
    /// Activity by metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub triggers_activity: BTreeMap<String, TriggerActivity>,
    /// The count that a pause asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_replica_count: Option<i32>,
    /// Name of the HPA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hpa_name: Option<String>,
    /// Types of the triggers, joined by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub triggers_types: Option<String>,
    /// Types of the authentications, joined by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentications_types: Option<String>,
}

/// Group, version, kind and resource of a target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupVersionKindResource {
    /// API group.
    #[serde(default)]
    #[schemars(!default)]
    pub group: String,
    /// API version.
    #[serde(default)]
    #[schemars(!default)]
    pub version: String,
    /// Kind.
    #[serde(default)]
    #[schemars(!default)]
    pub kind: String,
    /// Plural.
    #[serde(default)]
    #[schemars(!default)]
    pub resource: String,
}

/// Failures of one metric.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthStatus {
    /// Failures that followed each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number_of_failures: Option<i32>,
    /// Happy or Failing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Happy", "Failing"]))]
    pub status: Option<String>,
}

/// Activity of one metric.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TriggerActivity {
    /// Whether it is active.
    #[serde(default)]
    #[schemars(!default)]
    pub is_active: bool,
}
