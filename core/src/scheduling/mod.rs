//! The scheduling simulation: where a pod may run, as kube-scheduler decides it.

pub mod node;
pub mod pod;
pub mod resources;

pub use node::Node;
pub use pod::Pod;
pub use resources::Resources;
