//! Flags of node pools: Karpenter's names and defaults.
//!
//! Source of names and defaults: kubernetes-sigs/karpenter 1.14, `pkg/operator/options/options.go`; for AWS
//! karpenter-provider-aws 1.14, `pkg/operator/options/options.go`. A flag is named as its variable, in small letters.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use clap::{ArgAction::Set, Args, ValueEnum};
use tandem_core::nodes::pools::launch;

use super::{
    nodes::duration,
    without_effect::{
        Flag,
        Takes::{Switch, Value},
    },
};
use crate::{cloud::pools::Settings, cluster::world::World};

/// Features that may be turned on or off, and what they are without.
const FEATURES: [(&str, bool); 6] = [
    ("NodeRepair", false),
    ("ReservedCapacity", true),
    ("SpotToSpotConsolidation", false),
    ("NodeOverlay", false),
    ("StaticCapacity", false),
    ("CapacityBuffer", false),
];

/// What becomes of what pods prefer but do not require.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PreferencePolicy {
    /// It is required, until that cannot be had.
    #[value(name = "Respect")]
    Respect,
    /// It does not count.
    #[value(name = "Ignore")]
    Ignore,
}

/// What becomes of pods when there is less choice of instance types than their pool asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MinValuesPolicy {
    /// They wait.
    #[value(name = "Strict")]
    Strict,
    /// They get what choice there is.
    #[value(name = "BestEffort")]
    BestEffort,
}

impl From<MinValuesPolicy> for launch::MinValuesPolicy {
    fn from(policy: MinValuesPolicy) -> Self {
        match policy {
            MinValuesPolicy::Strict => Self::Strict,
            MinValuesPolicy::BestEffort => Self::BestEffort,
        }
    }
}

/// Features, each on or off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureGates(BTreeMap<&'static str, bool>);

impl FeatureGates {
    /// Whether a feature is on; one that is not known is off.
    pub fn is_on(&self, feature: &str) -> bool {
        self.0.get(feature).copied().unwrap_or(false)
    }
}

impl FromStr for FeatureGates {
    type Err = String;

    /// Reads `Name=true,Name=false`; what it does not name stays as it is without.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut gates = BTreeMap::from(FEATURES);
        for gate in text.split(',').map(str::trim).filter(|gate| !gate.is_empty()) {
            let wrong = || {
                let known: Vec<_> = FEATURES.iter().map(|(name, _)| *name).collect();
                format!(
                    "{gate:?} is no feature, write NAME=true or NAME=false; there are {}",
                    known.join(", ")
                )
            };
            let (name, value) = gate.split_once('=').ok_or_else(wrong)?;
            let (known, _) = FEATURES.iter().find(|(known, _)| *known == name).ok_or_else(wrong)?;
            gates.insert(known, value.parse().map_err(|_| wrong())?);
        }
        Ok(Self(gates))
    }
}

/// What node pools are told.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Node pools")]
pub struct PoolArgs {
    /// Provider of the machines of node pools: aws or kwok; without it node pools are left alone.
    #[arg(long)]
    pub node_pools_provider: Option<String>,
    /// Pods that come within so long of each other get nodes together.
    #[arg(long, env = "BATCH_IDLE_DURATION", default_value = "1s", value_parser = duration)]
    pub batch_idle_duration: Duration,
    /// The longest time that pods wait for others.
    #[arg(long, env = "BATCH_MAX_DURATION", default_value = "10s", value_parser = duration)]
    pub batch_max_duration: Duration,
    /// What becomes of what pods prefer but do not require.
    #[arg(long, env = "PREFERENCE_POLICY", default_value = "Respect")]
    pub preference_policy: PreferencePolicy,
    /// What becomes of pods when there is less choice of instance types than their pool asks for.
    #[arg(long, env = "MIN_VALUES_POLICY", default_value = "Strict")]
    pub min_values_policy: MinValuesPolicy,
    /// Whether claims of devices (DRA) get no new nodes of node pools.
    #[arg(long, env = "IGNORE_DRA_REQUESTS", action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub ignore_dra_requests: bool,
    /// Topology spread constraints that kube-scheduler has for pods without any, as YAML:
    /// podTopologySpread.defaultConstraints. See also --scheduler-config-file.
    #[arg(long, env = "SCHEDULER_CONFIG", default_value = "")]
    pub scheduler_config: String,
    /// Features to turn on or off, as NAME=true,NAME=false.
    #[arg(long, env = "FEATURE_GATES", default_value = "")]
    pub feature_gates: FeatureGates,
    /// Name of the cluster, as machines are tagged with it.
    #[arg(
        long = "node-pools-cluster-name",
        alias = "cluster-name",
        env = "CLUSTER_NAME",
        default_value = ""
    )]
    pub pools_cluster_name: String,
    /// Address of the API server, as new machines are told it; asked of EKS if empty.
    #[arg(long, env = "CLUSTER_ENDPOINT", default_value = "")]
    pub cluster_endpoint: String,
    /// Certificates of the API server, base64, as new machines are told them.
    #[arg(long, env = "CLUSTER_CA_BUNDLE", default_value = "")]
    pub cluster_ca_bundle: String,
    /// The SQS queue of interruptions; none if empty.
    #[arg(long, env = "INTERRUPTION_QUEUE", default_value = "")]
    pub interruption_queue: String,
    /// Whether there is no way out of the network, so that prices cannot be asked.
    #[arg(long, env = "ISOLATED_VPC", action = Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub isolated_vpc: bool,
    /// The share of a machine's memory that its hypervisor keeps.
    #[arg(long, env = "VM_MEMORY_OVERHEAD_PERCENT", default_value = "0.075")]
    pub vm_memory_overhead_percent: f64,
    /// Network interfaces that pods cannot use.
    #[arg(long, env = "RESERVED_ENIS", default_value = "0")]
    pub reserved_enis: u32,
}

impl PoolArgs {
    /// The provider of node pools, if there is one.
    pub fn provider(&self) -> Option<&str> {
        self.node_pools_provider.as_deref().filter(|name| !name.is_empty())
    }

    /// What the flags say to providers; what changes there counts as a change of the world.
    pub fn provider_settings(&self, world: &World) -> Settings {
        Settings {
            cluster_name: self.pools_cluster_name.clone(),
            cluster_endpoint: self.cluster_endpoint.clone(),
            cluster_authority: self.cluster_ca_bundle.clone(),
            isolated: self.isolated_vpc,
            memory_overhead: self.vm_memory_overhead_percent,
            reserved_interfaces: self.reserved_enis,
            changes: world.changes.clone(),
            ..Settings::default()
        }
    }
}

const ALL_CORES: &str = "decisions take the cores that there are; nothing is sized by it";
const EACH_MINUTE: &str = "what a node class finds is looked at once a minute";
const LEASE: &str = "see the flags --leader-election-*";
const LOGS: &str = "the log goes to standard error";

/// Flags of Karpenter that change nothing here, with the reason; each is a variable, too.
pub(super) const WITHOUT_EFFECT: &[Flag] = &[
    ("ami-refresh-interval", Value, EACH_MINUTE),
    ("aws-feature-gates", Value, "kubelet.maxPods is a number"),
    ("cpu-requests", Value, ALL_CORES),
    ("disable-cluster-state-observability", Switch, "it costs nothing between scrapes"),
    ("disable-controller-warmup", Switch, "every replica watches; only the leader acts"),
    ("disable-dry-run", Switch, "no dry runs are made: what EC2 refuses is said when a machine is asked for"),
    ("disable-leader-election", Switch, "see --leader-elect"),
    ("eks-control-plane", Switch, "the cluster's address is asked of EKS only if it is not given"),
    ("enable-profiling", Switch, "there is no profiling endpoint"),
    ("enable-zonal-shift", Switch, "zonal shifts are not read by this version"),
    ("health-probe-port", Value, "see --health-probe-bind-address"),
    ("leader-election-name", Value, LEASE),
    ("leader-election-namespace", Value, LEASE),
    ("log-error-output-paths", Value, LOGS),
    ("log-output-paths", Value, LOGS),
    ("memory-limit", Value, "memory is given back as soon as it is free; nothing is sized by it"),
    ("metrics-port", Value, "see --metrics-bind-address"),
    ("subnet-refresh-interval", Value, EACH_MINUTE),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_named() {
        let gates: FeatureGates = "NodeRepair=true, ReservedCapacity=false".parse().unwrap();
        assert!(gates.is_on("NodeRepair") && !gates.is_on("ReservedCapacity") && !gates.is_on("NodeOverlay"));
        assert!("".parse::<FeatureGates>().unwrap().is_on("ReservedCapacity"));
        for wrong in ["NodeRepairs=true", "NodeRepair", "NodeRepair=maybe"] {
            assert!(wrong.parse::<FeatureGates>().is_err(), "{wrong}");
        }
    }
}
