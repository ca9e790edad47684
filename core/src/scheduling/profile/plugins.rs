//! The filters of kube-scheduler that the simulation has, and which of them a configuration leaves.

use std::collections::BTreeSet;

use super::read::{Plugins, Set};

macro_rules! plugins {
    ($($name:ident),*) => {
        /// A filter of kube-scheduler that the simulation has, by its plugin's name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "the names are kube-scheduler's")]
        pub enum Plugin { $($name),* }

        impl Plugin {
            /// All of them.
            const ALL: &[Self] = &[$(Self::$name),*];

            fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }
        }
    };
}
plugins!(
    NodeUnschedulable,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeRestrictions,
    NodeVolumeLimits,
    VolumeBinding,
    VolumeZone,
    PodTopologySpread,
    InterPodAffinity,
    DynamicResources,
    NodeDeclaredFeatures
);

/// Plugins that come with kube-scheduler and refuse no pod a node for good, or none that could be bound elsewhere.
///
/// Source: kubernetes 1.36, `pkg/scheduler/framework/plugins/names/names.go`; those that older versions had too.
const OTHERS: &[&str] = &[
    "AzureDiskLimits",
    "DefaultBinder",
    "DefaultPreemption",
    "EBSLimits",
    "GCEPDLimits",
    "GangScheduling",
    "ImageLocality",
    "NodeName",
    "NodeResourcesBalancedAllocation",
    "PrioritySort",
    "SchedulingGates",
    "TopologyPlacementGenerator",
];

/// Some plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct PluginSet(u16);

impl PluginSet {
    /// Whether a plugin is among them.
    pub const fn has(self, plugin: Plugin) -> bool {
        self.0 & (1 << plugin as u16) != 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Plugin> {
        Plugin::ALL.iter().copied().filter(move |plugin| self.has(*plugin))
    }

    /// These and one more.
    #[must_use]
    pub const fn with(self, plugin: Plugin) -> Self {
        Self(self.0 | (1 << plugin as u16))
    }
}

/// What runs at the extension points that say where a pod may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Points {
    /// Filters that do not run.
    pub(super) without: PluginSet,
    /// Of these, the ones that do not even look at the pod beforehand.
    pub(super) without_pre: PluginSet,
}

/// Which filters do not run, and the names of plugins of which nothing is known.
///
/// A plugin is at every point that it has code for if `multiPoint` has it, unless the point itself says otherwise; what is
/// enabled by name stays, whatever is disabled.
///
/// Source: kubernetes, `mergePlugins` in `pkg/scheduler/apis/config/v1/default_plugins.go`, `expandMultiPointPlugins` in
/// `pkg/scheduler/framework/runtime/framework.go`.
pub(super) fn points(plugins: &Plugins) -> (Points, BTreeSet<String>) {
    let runs_at = |point: &Set, plugin: Plugin| {
        let of_default = !plugins.multi_point.disables(plugin) || plugins.multi_point.enables(plugin);
        point.enables(plugin) || (of_default && !point.disables(plugin))
    };
    let missing = |point: &Set| {
        let missing = Plugin::ALL.iter().filter(|plugin| !runs_at(point, **plugin));
        missing.fold(PluginSet::default(), |set, plugin| set.with(*plugin))
    };
    let points = Points { without: missing(&plugins.filter), without_pre: missing(&plugins.pre_filter) };
    let named = [&plugins.multi_point, &plugins.pre_filter, &plugins.filter];
    let enabled = named.into_iter().flat_map(|set| &set.enabled).map(|plugin| &plugin.name);
    let is_known = |name: &&String| {
        Plugin::ALL.iter().any(|plugin| plugin.name() == **name) || OTHERS.contains(&name.as_str())
    };
    (points, enabled.filter(|name| !is_known(name)).cloned().collect())
}

impl Set {
    fn enables(&self, plugin: Plugin) -> bool {
        self.enabled.iter().any(|it| it.name == plugin.name())
    }

    fn disables(&self, plugin: Plugin) -> bool {
        self.disabled.iter().any(|it| it.name == "*" || it.name == plugin.name())
    }
}
