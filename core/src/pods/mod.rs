//! Pods: what a ScaledObject or ScaledJob makes of its triggers.

pub mod annotations;
pub mod hpa;
pub mod reasons;
