//! What the process says about itself: logs, metrics, events, probes.

pub mod aws;
pub mod events;
pub mod http;
pub mod logs;
pub mod metrics;
pub mod summary;
