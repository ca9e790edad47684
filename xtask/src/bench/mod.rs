//! `cargo xtask bench`: figures, of the whole system on the real control plane and of decisions alone.

mod cluster;
mod failover;
mod latency;
mod nodes;
mod pods;
mod process;
mod simulate;

use std::net::SocketAddr;

use anyhow::Result;
use clap::Subcommand;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// 1,000 ScaledObjects on a source that answers in 1 ms, their HPAs at 15 s, and 100 further reads a second.
    Pods(pods::PodsArgs),
    /// A large cluster of one node group: what the whole process takes, and how soon it acts.
    Cluster(cluster::ClusterArgs),
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
        Bench::Cluster(args) => cluster::run(&args),
        Bench::Nodes(args) => nodes::run(&args),
        Bench::Simulate => simulate::run(),
    }
}

/// What `/metrics` shows.
async fn scrape(address: SocketAddr) -> Result<String> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    Ok(http.get(format!("http://{address}/metrics")).send().await?.error_for_status()?.text().await?)
}

fn row(name: &str, value: impl std::fmt::Display) {
    println!("| {name:<42} | {value} |");
}

/// What a process holds now.
fn resident(name: &str, pid: u32) -> Result<()> {
    let process::Resident { own, files } = process::resident(pid)?;
    let (all, own, files) = (mebibytes(own + files), mebibytes(own), mebibytes(files));
    row(name, format!("{all:.1} MiB ({own:.1} of its own, {files:.1} of its files)"));
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn float(count: u64) -> f64 {
    count as f64
}

fn mebibytes(bytes: u64) -> f64 {
    float(bytes) / (1024.0 * 1024.0)
}
