//! Types and pure decisions of Tandem: no I/O, no clock, no randomness, no async.
//!
//! Time comes in as an argument, ties break by name, and no iteration over a hash map reaches a decision.

pub mod api;
pub mod draws;
pub mod hpa;
pub mod nodes;
pub mod pods;
pub mod quantity;
pub mod scheduling;
