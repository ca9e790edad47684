//! derive(Metadata).
