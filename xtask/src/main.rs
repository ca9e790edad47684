//! `cargo xtask demo | test | generate | bench`.

mod bench;
mod demo;
mod generate;
mod test;

use anyhow::Result;
use clap::Parser;

/// Tasks of the source tree.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Shows Tandem at work on a real control plane on this machine, or on a cluster of yours.
    Demo(demo::DemoArgs),
    /// Runs every test: format, lints, generated files, dependencies, units, vectors, end to end.
    Test(test::TestArgs),
    /// Writes what is generated: CRDs, the install manifest, the pages of the documentation.
    Generate {
        /// Write nothing; fail if something is out of date.
        #[arg(long)]
        check: bool,
    },
    /// Measures the whole system on a real control plane.
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Generate { check } => generate::run(check),
        Task::Bench(bench) => bench::run(bench),
    }
}
