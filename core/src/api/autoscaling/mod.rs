//! autoscaling.x-k8s.io, the kinds that Cluster Autoscaler and Karpenter share (Cluster Autoscaler, `apis/capacitybuffer`,
//! `apis/provisioningrequest`, `apis/capacityquota`).
#![allow(clippy::duplicated_attributes, reason = "columns of one type look like an attribute given twice")]

mod capacity_buffer;
mod capacity_quota;
mod provisioning_request;

pub use capacity_buffer::*;
pub use capacity_quota::*;
pub use provisioning_request::*;
