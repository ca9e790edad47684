//! Node groups: what a pass asks for, done.

pub mod remove;
