//! karpenter.sh, karpenter.k8s.aws and karpenter.kwok.sh, field for field as Karpenter has them (core, `pkg/apis/crds` after
//! `hack/validation`; aws, `pkg/apis/crds`; v0.31.0 of both for the kinds before v1).
//!
//! What the API server fills in by default, methods fill in too, for objects that no API server has seen. Reading is lenient:
//! the schema refuses what is wrong, the types take it.
#![allow(clippy::duplicated_attributes, reason = "columns of one type look like an attribute given twice")]

mod aws_node_template;
mod duration;
mod ec2_node_class;
mod kubelet;
mod kwok_node_class;
mod node_claim;
mod node_overlay;
mod node_pool;
mod provisioner;
mod requirement;
mod schema;
mod selector_terms;

pub use aws_node_template::*;
pub use duration::*;
pub use ec2_node_class::*;
pub use kubelet::*;
pub use kwok_node_class::*;
pub use node_claim::*;
pub use node_overlay::*;
pub use node_pool::*;
pub use provisioner::*;
pub use requirement::*;
pub use selector_terms::*;
