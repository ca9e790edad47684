//! PodGroups (scheduling.k8s.io): how many pods of a gang have to run together. A beta API, off unless the cluster says otherwise.

use std::collections::BTreeMap;

use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// What is read of a PodGroup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "scheduling.k8s.io",
    version = "v1beta1",
    kind = "PodGroup",
    plural = "podgroups",
    namespaced,
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct PodGroupSpec {
    /// How its pods are scheduled.
    #[serde(default)]
    pub scheduling_policy: SchedulingPolicy,
    /// Whether its pods may be disrupted one by one; absent means that they may.
    #[serde(default)]
    pub disruption_mode: DisruptionMode,
}

/// How the pods of a group are scheduled: each for itself, or as a gang.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulingPolicy {
    /// As a gang.
    #[serde(default)]
    pub gang: Option<Gang>,
}

/// How the pods of a group are disrupted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisruptionMode {
    /// All at once; has no fields.
    #[serde(default)]
    pub all: Option<BTreeMap<String, String>>,
}

/// Pods that run together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gang {
    /// How many have to.
    #[serde(default)]
    pub min_count: i32,
}

impl PodGroup {
    /// How many of its pods have to run for any to run; `None` if it is no gang.
    pub fn needed(&self) -> Option<u32> {
        let gang = self.spec.scheduling_policy.gang.as_ref()?;
        u32::try_from(gang.min_count).ok()
    }

    /// Whether its pods are only disrupted all at once.
    pub fn is_undivided(&self) -> bool {
        self.spec.disruption_mode.all.is_some()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_gang_says_how_many_have_to_run() {
        for (policy, mode, wanted) in [
            (json!({"gang": {"minCount": 4}}), json!({"single": {}}), (Some(4), false)),
            (json!({"gang": {"minCount": 4}}), json!({"all": {}}), (Some(4), true)),
            (json!({"basic": {}}), json!({}), (None, false)),
            (json!({"gang": {"minCount": -1}}), json!({}), (None, false)),
        ] {
            let group = json!({"apiVersion": "scheduling.k8s.io/v1beta1", "kind": "PodGroup",
                "metadata": {"name": "train"}, "spec": {"schedulingPolicy": policy, "disruptionMode": mode}});
            let group: PodGroup = serde_json::from_value(group).unwrap();
            assert_eq!((group.needed(), group.is_undivided()), wanted, "{policy}");
        }
    }
}
