//! `cargo xtask bench`: figures, of the whole system on the real control plane and of decisions alone.

mod failover;
mod latency;
mod nodes;
mod pods;
mod process;
mod simulate;

use anyhow::Result;
use clap::Subcommand;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// 1,000 ScaledObjects on a source that answers in 1 ms, their HPAs at 15 s, and 100 further reads a second.
    Pods(pods::PodsArgs),
    /// The peers' benchmarks of nodes, each row in processes of its own.
    Nodes(nodes::NodesArgs),
    /// Weeks of one and of a hundred objects on the virtual clock.
    Simulate,
}

/// Measures and prints a table.
///
/// # Errors
/// The system under test did not start, or did not do what is measured.
pub(crate) fn run(bench: Bench) -> Result<()> {
    match bench {
        Bench::Pods(args) => pods::run(&args),
        Bench::Nodes(args) => nodes::run(&args),
        Bench::Simulate => simulate::run(),
    }
}
