//! Pods: what a ScaledObject or ScaledJob makes of its triggers.

pub mod activation;
pub mod annotations;
pub mod explain;
pub mod fallback;
pub mod formula;
pub mod hpa;
pub mod polling;
pub mod reasons;
pub mod status;
pub mod validate;
pub mod workload;
