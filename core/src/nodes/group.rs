//! Node groups as a provider tells of them: a size between two bounds, and instances.

use std::{collections::BTreeMap, sync::Arc};

use jiff::SignedDuration;

use crate::scheduling::{Node, Pod};

/// A group of like nodes that a provider keeps at a size.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeGroup {
    /// What the provider calls it, such as the name of the Auto Scaling group.
    pub id: Arc<str>,
    /// It never gets smaller, in nodes.
    pub min: u32,
    /// It never gets larger, in nodes.
    pub max: u32,
    /// The size that the provider has been asked for, in nodes.
    pub target: u32,
    /// Its instances, those under way included.
    pub instances: Vec<Instance>,
    /// What of the flags is different for this group.
    pub options: GroupOptions,
}

/// What a new node of a group would look like.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// The node, with a name that is made up.
    pub node: Node,
    /// Pods that the provider knows to run on each (kube-proxy, say).
    pub pods: Vec<Pod>,
}

/// A machine of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The provider's id, equal to the node's `spec.providerID` once that has registered.
    pub id: Arc<str>,
    /// Where it is in its life.
    pub state: InstanceState,
}

/// Where an instance is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceState {
    /// It runs.
    Running,
    /// It is being made; with the reason if that failed.
    Creating(Option<InstanceError>),
    /// It is being terminated.
    Deleting,
}

/// Why an instance could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceError {
    /// Whether the provider has no more of this kind (as against any other fault).
    pub out_of_resources: bool,
    /// The provider's code.
    pub code: String,
    /// The provider's words.
    pub message: String,
}

impl InstanceError {
    /// What class of errors it is of, as Cluster Autoscaler prints it (`cloudprovider.InstanceErrorClass`).
    pub fn class(&self) -> &'static str {
        if self.out_of_resources { "OutOfResource" } else { OTHER_CLASS }
    }
}

/// The class of errors that more room at the provider would not mend.
pub const OTHER_CLASS: &str = "Other";

/// What of the flags a group says otherwise (tags, annotations or options of the provider).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GroupOptions {
    /// `--scale-down-utilization-threshold`, a share of one.
    pub utilization_threshold: Option<f64>,
    /// `--scale-down-gpu-utilization-threshold`, a share of one.
    pub gpu_utilization_threshold: Option<f64>,
    /// `--scale-down-unneeded-time`.
    pub unneeded_time: Option<SignedDuration>,
    /// `--scale-down-unready-time`.
    pub unready_time: Option<SignedDuration>,
    /// `--max-node-provision-time`.
    pub max_provision_time: Option<SignedDuration>,
    /// `--max-node-startup-time`.
    pub max_startup_time: Option<SignedDuration>,
    /// `--ignore-daemonsets-utilization`.
    pub ignore_daemon_sets: Option<bool>,
    /// Whether its nodes come and go all at once.
    pub zero_or_max: bool,
    /// Whether it gets another machine by itself for one that is likely to be taken back (AWS: Capacity Rebalancing).
    pub rebalances: bool,
    /// Resources that its nodes have beside those of the instance (tags `node-template/resources/`).
    pub extra_resources: BTreeMap<String, String>,
}
