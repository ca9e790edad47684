//! Types and pure decisions.
