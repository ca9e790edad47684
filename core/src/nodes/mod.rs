//! Decisions about nodes: which to add, which to take away, and why.

pub mod group;
pub mod pools;
