//! Kubernetes API types, a folder a group.

pub mod keda;
mod numbers;
