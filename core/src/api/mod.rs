//! Kubernetes API types, a folder a group.

pub mod autoscaling;
pub mod karpenter;
pub mod keda;
mod numbers;
mod rules;
