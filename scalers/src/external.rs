//! gRPC channels.

/// Shared gRPC channels; cloning shares them.
#[derive(Clone, Default)]
pub struct Channels {}
