//! Settings of the kubelet.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::rules::{Rule, rules};

const RESERVED: &[Rule] = &[
    (
        "valid keys are ['cpu','memory','ephemeral-storage','pid']",
        "self.all(x, x in ['cpu', 'memory', 'ephemeral-storage', 'pid'])",
    ),
    ("value cannot be a negative resource quantity", "self.all(x, !self[x].startsWith('-'))"),
];
const SIGNALS: &[Rule] = &[(
    "valid keys are ['memory.available','nodefs.available','nodefs.inodesFree','imagefs.available','imagefs.inodesFree','pid.available']",
    "self.all(x, x in ['memory.available', 'nodefs.available', 'nodefs.inodesFree', 'imagefs.available', 'imagefs.inodesFree', 'pid.available'])",
)];
const KUBELET: &[Rule] = &[
    (
        "imageGCHighThresholdPercent must be greater than imageGCLowThresholdPercent",
        "has(self.imageGCHighThresholdPercent) && has(self.imageGCLowThresholdPercent) ? \
         self.imageGCHighThresholdPercent > self.imageGCLowThresholdPercent : true",
    ),
    (
        "evictionSoft OwnerKey does not have a matching evictionSoftGracePeriod",
        "has(self.evictionSoft) ? has(self.evictionSoftGracePeriod) && \
         self.evictionSoft.all(e, (e in self.evictionSoftGracePeriod)) : true",
    ),
    (
        "evictionSoftGracePeriod OwnerKey does not have a matching evictionSoft",
        "has(self.evictionSoftGracePeriod) ? has(self.evictionSoft) && \
         self.evictionSoftGracePeriod.all(e, (e in self.evictionSoft)) : true",
    ),
];

/// Settings of the kubelet, as KubeletConfiguration names them; what is not read here is handed on as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rules(KUBELET), transform = open)]
pub struct KubeletConfiguration {
    /// Addresses of the cluster's DNS.
    #[serde(default, rename = "clusterDNS", skip_serializing_if = "Option::is_none")]
    pub cluster_dns: Option<Vec<String>>,
    /// Most pods of a node: a number, or an expression over the instance type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pods: Option<IntOrString>,
    /// Most pods by core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub pods_per_core: Option<i32>,
    /// Kept for the operating system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = rules(RESERVED))]
    pub system_reserved: Option<BTreeMap<String, String>>,
    /// Kept for the kubelet and the container runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = rules(RESERVED))]
    pub kube_reserved: Option<BTreeMap<String, String>>,
    /// Below these amounts pods are evicted at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = rules(SIGNALS))]
    pub eviction_hard: Option<BTreeMap<String, String>>,
    /// Below these amounts pods are evicted after a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = rules(SIGNALS))]
    pub eviction_soft: Option<BTreeMap<String, String>>,
    /// After how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = rules(SIGNALS))]
    pub eviction_soft_grace_period: Option<BTreeMap<String, String>>,
    /// Most seconds that a pod gets to stop when it is evicted softly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eviction_max_pod_grace_period: Option<i32>,
    /// Disk usage, percent, above which images are removed.
    #[serde(default, rename = "imageGCHighThresholdPercent", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub image_gc_high_threshold_percent: Option<i32>,
    /// Disk usage, percent, down to which images are removed.
    #[serde(default, rename = "imageGCLowThresholdPercent", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub image_gc_low_threshold_percent: Option<i32>,
    /// Whether limits on processor time are enforced.
    #[serde(default, rename = "cpuCFSQuota", skip_serializing_if = "Option::is_none")]
    pub cpu_cfs_quota: Option<bool>,
    /// Every other setting.
    #[serde(flatten)]
    #[schemars(skip)]
    pub others: BTreeMap<String, Value>,
}

/// Keeps what the schema does not name.
fn open(schema: &mut schemars::Schema) {
    schema.remove("additionalProperties");
    schema.insert("x-kubernetes-preserve-unknown-fields".to_owned(), true.into());
}
