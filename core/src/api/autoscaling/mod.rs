//! autoscaling.x-k8s.io, the kinds that Cluster Autoscaler and Karpenter share (Cluster Autoscaler, `apis/capacitybuffer`).

mod capacity_buffer;

pub use capacity_buffer::*;
