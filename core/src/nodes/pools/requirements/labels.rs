//! Labels that Karpenter knows by name, and the older names of some.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The NodePool that a node is of.
pub const NODE_POOL: &str = "karpenter.sh/nodepool";
/// What a node is paid by: `spot`, `on-demand` or `reserved`.
pub const CAPACITY_TYPE: &str = "karpenter.sh/capacity-type";
/// The type of a node's machine.
pub const INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";
/// The zone of a node.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// The region of a node.
pub const REGION: &str = "topology.kubernetes.io/region";
/// The architecture of a node's processor, as Go names it.
pub const ARCH: &str = "kubernetes.io/arch";
/// The operating system of a node.
pub const OS: &str = "kubernetes.io/os";
/// The name of a node.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// The build of a Windows node.
pub const WINDOWS_BUILD: &str = "node.kubernetes.io/windows-build";
/// The placement group that a machine is in (aws, `pkg/apis/v1/labels.go`).
pub const PLACEMENT_GROUP: &str = "karpenter.k8s.aws/placement-group-id";

/// The one value of [`CAPACITY_TYPE`] that stands for paid reservations.
pub const RESERVED: &str = "reserved";
/// The one value of [`CAPACITY_TYPE`] that stands for machines that may be taken away.
pub const SPOT: &str = "spot";
/// The one value of [`CAPACITY_TYPE`] that stands for machines at the list price.
pub const ON_DEMAND: &str = "on-demand";

/// Karpenter's own well-known labels (core, `pkg/apis/v1/labels.go`).
const OF_KARPENTER: [&str; 8] =
    [NODE_POOL, ZONE, REGION, INSTANCE_TYPE, ARCH, OS, CAPACITY_TYPE, WINDOWS_BUILD];

/// Other names, with the name that they are read as (core, `pkg/apis/v1/labels.go`; aws, `pkg/apis/v1/labels.go`).
const ALIASES: [(&str, &str); 6] = [
    ("failure-domain.beta.kubernetes.io/zone", ZONE),
    ("failure-domain.beta.kubernetes.io/region", REGION),
    ("beta.kubernetes.io/arch", ARCH),
    ("beta.kubernetes.io/os", OS),
    ("beta.kubernetes.io/instance-type", INSTANCE_TYPE),
    // What the EBS driver adds to its nodes; its volumes name no other.
    ("topology.ebs.csi.aws.com/zone", ZONE),
];

/// The name that a label is read as.
pub fn normalize(key: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == key).map_or(key, |(_, name)| name)
}

/// Adds the other names of the labels that a node to come will have: its volumes and pods may know it by those.
pub fn add_aliases(labels: &mut BTreeMap<String, String>) {
    for (alias, name) in ALIASES {
        if let Some(value) = labels.get(name).cloned() {
            labels.entry(alias.to_owned()).or_insert(value);
        }
    }
}

/// Whether no message and no node names the label: its value is known only when the node is there.
pub fn is_restricted(key: &str) -> bool {
    key == HOSTNAME
}

/// Labels that a node will have although nobody asked for them: an instance type or the provider sets them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WellKnownLabels(BTreeSet<Arc<str>>);

impl Default for WellKnownLabels {
    /// Karpenter's own; providers add theirs by [`WellKnownLabels::with`].
    fn default() -> Self {
        Self(OF_KARPENTER.into_iter().map(Arc::from).collect())
    }
}

impl WellKnownLabels {
    /// No label: what is not required is not there.
    pub const fn none() -> Self {
        Self(BTreeSet::new())
    }

    /// These, and those of a provider.
    #[must_use]
    pub fn with<'a>(mut self, keys: impl IntoIterator<Item = &'a str>) -> Self {
        self.0.extend(keys.into_iter().map(Arc::from));
        self
    }

    /// Whether the label is one of them.
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains(key)
    }

    /// All, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|key| &**key)
    }
}
