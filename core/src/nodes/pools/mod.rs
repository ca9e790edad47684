//! Node pools, Karpenter's model of capacity: nodes of any instance type that satisfies requirements.

pub mod requirements;
