//! Triggers, as ScaledObjects and ScaledJobs have them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One source of events or metrics.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaleTrigger {
    /// Which scaler reads the source.
    #[serde(rename = "type", default)]
    #[schemars(length(min = 1))]
    #[schemars(!default)]
    pub type_: String,
    /// A name that is unique in the object; the scaling formula uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The HPA reads the value of the last poll instead of asking the source. Not for cpu, memory and cron.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_cached_metrics: Option<bool>,
    /// Parameters of the scaler.
    #[serde(default)]
    #[schemars(!default)]
    pub metadata: BTreeMap<String, String>,
    /// Where further, secret parameters come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication_ref: Option<AuthenticationRef>,
    /// AverageValue, Value, or (cpu and memory) Utilization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric_type: Option<String>,
}

impl ScaleTrigger {
    /// Whether the trigger's metric is a resource metric, which the HPA reads itself.
    pub fn is_resource(&self) -> bool {
        matches!(self.type_.as_str(), "cpu" | "memory")
    }
}

/// A reference to a TriggerAuthentication or ClusterTriggerAuthentication.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuthenticationRef {
    /// Its name.
    #[serde(default)]
    #[schemars(!default)]
    pub name: String,
    /// TriggerAuthentication (the default) or ClusterTriggerAuthentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["TriggerAuthentication", "ClusterTriggerAuthentication"]))]
    pub kind: Option<String>,
}

impl AuthenticationRef {
    /// Whether it names a ClusterTriggerAuthentication.
    pub fn is_cluster(&self) -> bool {
        self.kind.as_deref() == Some("ClusterTriggerAuthentication")
    }
}
