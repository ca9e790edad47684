//! keda.sh/v1alpha1, field for field as KEDA has it (`apis/keda/v1alpha1`).
//!
//! Defaults live in methods and not in the schema, so that an object reads back as its author wrote it; the one
//! exception, `fallback.behavior`, is KEDA's own. Reading is lenient: the schema refuses what is missing, the types
//! take what an older CRD let through.
#![allow(clippy::duplicated_attributes, reason = "columns of one type look like an attribute given twice")]
#![allow(unreachable_pub, reason = "the derive with rules makes a private twin of the struct, `pub` and all")]

mod condition;
mod scaled_job;
mod scaled_object;
mod trigger;
mod trigger_authentication;

pub use condition::*;
pub use scaled_job::*;
pub use scaled_object::*;
pub use trigger::*;
pub use trigger_authentication::*;
