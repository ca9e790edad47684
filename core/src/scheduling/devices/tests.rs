//! Devices on nodes, through the snapshot.
