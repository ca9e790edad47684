//! Decisions about nodes: which to add, which to take away, and why.

pub mod action;
pub mod backoff;
pub mod cluster_state;
pub mod drain;
pub mod estimator;
pub mod expander;
pub mod group;
pub mod pools;
pub mod similar;
pub mod utilization;
