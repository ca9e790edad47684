//! Trigger types.
