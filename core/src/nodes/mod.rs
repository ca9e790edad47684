//! Decisions about nodes: which to add, which to take away, and why.

pub mod action;
pub mod backoff;
pub mod buffer;
pub mod capacity_quota;
pub mod cluster_state;
pub mod demand;
pub mod drain;
pub mod estimator;
pub mod expander;
pub mod group;
pub mod interruption;
pub mod pass;
pub mod pools;
pub mod printed;
pub mod provisioning_request;
pub mod reasons;
pub mod similar;
pub mod status;
pub mod template;
pub mod told;
pub mod utilization;
