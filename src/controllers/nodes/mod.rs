//! Act: nodes. What the decisions of `tandem_core::nodes` ask for, done on the cluster and at the provider.

pub mod buffer;
pub mod capacity_quota;
pub mod demand;
pub mod drain;
pub mod groups;
pub mod interruption;
pub mod pools;
pub mod provisioning_request;
pub mod taint;
