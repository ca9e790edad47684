//! The test bed: a real control plane, a real Prometheus and a Tandem process, for the end-to-end tests, the demo
//! and the benchmarks.
//!
//! [`Components`] finds or builds the binaries, [`ControlPlane`] starts etcd, kube-apiserver,
//! kube-controller-manager, kube-scheduler and kwok in a temporary folder, [`Install`] applies the manifests that
//! users install, and [`Tandem`] runs the binary as the pod that kwok pretends to run. Everything listens on
//! loopback or inside a network namespace ([`Network`]), and everything stops when its value is dropped or when this
//! process dies.

pub mod aws_nodes;
pub mod certificates;
pub mod components;
pub mod control_plane;
pub mod forward;
pub mod http;
pub mod install;
pub mod istio;
pub mod kubectl;
pub mod kwok_pool;
pub mod moto;
pub mod network;
pub mod process;
pub mod prometheus;
pub mod tandem;
pub mod wait;
pub mod xml;

pub use aws_nodes::AwsNodes;
pub use components::Components;
pub use control_plane::{ControlPlane, Options};
pub use install::Install;
pub use istio::IstioExporter;
pub use kubectl::Kubectl;
pub use kwok_pool::kwok_pool;
pub use moto::Moto;
pub use network::Network;
pub use prometheus::Prometheus;
pub use tandem::Tandem;

use std::path::{Path, PathBuf};

/// The root of the source tree.
///
/// Known at compile time: the harness is only ever built and run from a checkout.
pub fn source_tree() -> PathBuf {
    let harness = Path::new(env!("CARGO_MANIFEST_DIR"));
    harness.ancestors().nth(2).unwrap_or(harness).to_path_buf()
}
