//! Node pools, Karpenter's model of capacity: nodes of any instance type that satisfies requirements.

pub mod balanced;
pub mod budgets;
pub mod catalogue;
pub mod cluster;
pub mod consistency;
pub mod consolidate;
pub mod costs;
pub mod devices;
pub mod disrupt;
pub mod fixed;
mod gangs;
pub mod instance_type;
pub mod launch;
pub mod names;
pub mod node_claim;
pub mod overlay;
pub mod pods;
pub mod provision;
pub mod provisioner;
pub mod reasons;
pub mod registration;
pub mod repair;
pub mod requirements;
pub mod select;
pub mod sold_out;
pub mod solver;

#[cfg(test)]
pub(super) mod testing;

#[cfg(test)]
mod properties;
