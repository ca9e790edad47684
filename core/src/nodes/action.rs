//! What a pass over node groups asks to be done.

use std::sync::Arc;

use jiff::Timestamp;

use crate::scheduling::Pod;

/// The taint that keeps pods off a node which is about to go; its value is the time in Unix seconds.
pub const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";
/// The taint that keeps pods off a node which is not needed, as far as they fit elsewhere.
pub const DELETION_CANDIDATE: &str = "DeletionCandidateOfClusterAutoscaler";

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Raise a group's target.
    Increase(Increase),
    /// Lower a group's target by nodes that never came.
    Decrease {
        /// The group.
        group: Arc<str>,
        /// Its target when this was decided.
        target: u32,
        /// By how many nodes.
        delta: u32,
    },
    /// Terminate instances that failed or never registered.
    DeleteInstances {
        /// The group.
        group: Arc<str>,
        /// Their ids.
        instances: Vec<Arc<str>>,
        /// Why, for the log and the event.
        cause: InstanceFault,
    },
    /// Take a node away.
    Remove(Removal),
    /// Say on the node that it is not needed, and since when.
    MarkCandidate {
        /// The node.
        node: Arc<str>,
        /// Not needed since.
        since: Timestamp,
    },
    /// Take that back.
    UnmarkCandidate {
        /// The node.
        node: Arc<str>,
    },
    /// Take back what a removal that nobody finishes left on a node: taint and cordon.
    CleanUp {
        /// The node.
        node: Arc<str>,
    },
}

/// A group that is to grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Increase {
    /// The group.
    pub group: Arc<str>,
    /// Its target now.
    pub from: u32,
    /// Its target then.
    pub to: u32,
    /// Its maximum.
    pub max: u32,
}

/// What is wrong with instances that are to be terminated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceFault {
    /// The provider could not make them.
    Failed,
    /// No node ever came of them.
    NeverRegistered,
}

/// A node that is to go.
#[derive(Debug, Clone, PartialEq)]
pub struct Removal {
    /// Its group.
    pub group: Arc<str>,
    /// The node.
    pub node: Arc<str>,
    /// Its id at the provider.
    pub provider_id: Arc<str>,
    /// Pods that move to other nodes.
    pub pods: Vec<Arc<Pod>>,
    /// Pods of DaemonSets, which end with the node.
    pub daemon_pods: Vec<Arc<Pod>>,
    /// Why.
    pub cause: RemovalCause,
    /// How much of the node is requested, a share of one.
    pub utilization: f64,
}

/// Why a node goes, as the metric `scaled_down_nodes_total` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovalCause {
    /// It runs nothing that would have to move.
    Empty,
    /// What it runs fits elsewhere.
    Underutilized,
    /// It does not work.
    Unready,
}

impl RemovalCause {
    /// The label's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Underutilized => "underutilized",
            Self::Unready => "unready",
        }
    }
}
