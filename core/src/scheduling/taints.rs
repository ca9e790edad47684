//! Taints, and what tolerates them.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// The taint that stands for `spec.unschedulable`: who tolerates it may be scheduled there all the same.
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Taints that a node carries only while it starts, by key and effect (Karpenter, pkg/scheduling/taints.go).
const EPHEMERAL: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoSchedule"),
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoSchedule"),
    ("node.cloudprovider.kubernetes.io/uninitialized", "NoSchedule"),
    ("karpenter.sh/unregistered", "NoExecute"),
];

/// Taints of the node readiness controller: their keys begin so.
const READINESS_PREFIX: &str = "readiness.k8s.io/";

/// Whether a node carries this taint only while it starts.
pub fn is_ephemeral(taint: &Taint) -> bool {
    EPHEMERAL.contains(&(taint.key.as_str(), taint.effect.as_str()))
        || taint.key.starts_with(READINESS_PREFIX)
}

/// Whether a taint keeps pods away that do not tolerate it; `PreferNoSchedule` only makes a node less liked.
pub fn repels(taint: &Taint) -> bool {
    taint.effect == "NoSchedule" || taint.effect == "NoExecute"
}

/// The first taint that keeps a pod with these tolerations away.
///
/// Source: component-helpers `FindMatchingUntoleratedTaint`.
pub fn untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration]) -> Option<&'a Taint> {
    let tolerated = |taint: &Taint| tolerations.iter().any(|toleration| tolerates(toleration, taint));
    taints.iter().find(|taint| repels(taint) && !tolerated(taint))
}

/// Whether one toleration tolerates one taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    Tolerance {
        key: toleration.key.as_deref().unwrap_or_default(),
        operator: toleration.operator.as_deref().unwrap_or_default(),
        value: toleration.value.as_deref().unwrap_or_default(),
        effect: toleration.effect.as_deref().unwrap_or_default(),
    }
    .covers(&taint.key, taint.value.as_deref().unwrap_or_default(), &taint.effect)
}

/// A toleration; empty strings are what is left out.
pub(super) struct Tolerance<'a> {
    pub(super) key: &'a str,
    pub(super) operator: &'a str,
    pub(super) value: &'a str,
    pub(super) effect: &'a str,
}

impl Tolerance<'_> {
    /// Whether it tolerates a taint. `Lt` and `Gt` compare the taint's integer with the toleration's (KEP-5471), both written
    /// without plus signs and leading zeros.
    pub(super) fn covers(&self, key: &str, value: &str, effect: &str) -> bool {
        let integers = || Some((decimal(value)?, decimal(self.value)?));
        (self.effect.is_empty() || self.effect == effect)
            && (self.key.is_empty() || self.key == key)
            && match self.operator {
                "" | "Equal" => !self.key.is_empty() && self.value == value,
                "Exists" => true,
                "Lt" => integers().is_some_and(|(taint, bound)| taint < bound),
                "Gt" => integers().is_some_and(|(taint, bound)| taint > bound),
                _ => false,
            }
    }
}

/// An integer as it is written out.
fn decimal(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().filter(|integer| integer.to_string() == text)
}
