//! The scheduling simulation: where a pod may run, as kube-scheduler decides it.
//!
//! A [`Snapshot`] holds nodes and pods as ordinals, interned labels and counters. Pods that the scheduler cannot tell apart
//! are one class, and everything is worked out a class at a time: rules are compiled once, verdicts that no pod changes are
//! bits, and counts by topology domain are kept up to date by each pod that comes or goes.

mod capacity;
mod check;
mod class;
pub mod declared;
pub mod devices;
mod family;
mod filters;
mod find;
mod fleet;
pub mod gang;
mod holds;
mod ids;
pub mod node;
pub mod pod;
pub mod preempt;
pub mod profile;
pub mod reason;
pub mod resources;
pub(crate) mod rules;
mod selector;
pub(crate) mod snapshot;
mod storage;
pub mod surroundings;
pub mod taints;
mod topology;

pub use capacity::room_after;
pub use class::HOSTNAME;
pub use declared::{Declared, Presumed};
pub use fleet::NodeInfo;
pub use gang::{Gangs, LeftOut, Unmet};
pub use ids::{ClassId, NodeId};
pub use node::Node;
pub use pod::Pod;
pub use reason::Reason;
pub use resources::Resources;
pub use snapshot::{Checkpoint, Snapshot};
pub use surroundings::Surroundings;
