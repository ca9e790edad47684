//! `cargo xtask test`: everything that is checked, the cheap things first.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use harness::source_tree;

use crate::generate;

/// Names of crates that no build may contain: TLS is rustls with ring, so that the image is static and small.
const BANNED: [&str; 3] = ["aws-lc-sys", "openssl-sys", "native-tls"];

/// Folders of vectors to run beside the project's own, colon-separated.
const VECTORS: &str = "TANDEM_VECTORS";

/// Flags of `cargo xtask test`.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Only these steps.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Step>,
}

/// What is checked, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// `cargo fmt --check`.
    Format,
    /// `cargo clippy` without a warning.
    Lint,
    /// `cargo xtask generate --check`.
    Generated,
    /// No banned crate in the build; `cargo deny` too where it is installed.
    Dependencies,
    /// Unit tests and vectors of every crate.
    Unit,
    /// The scheduling simulation against the real kube-scheduler.
    Scheduler,
    /// End to end on a real control plane.
    E2e,
    /// Nodes, end to end: AWS by moto, node groups, node pools.
    Nodes,
}

pub(crate) fn run(args: &TestArgs) -> Result<()> {
    let chosen = |step: &&Step| args.only.is_empty() || args.only.contains(step);
    let started = Instant::now();
    for step in Step::value_variants().iter().filter(chosen) {
        eprintln!("=== {step:?}");
        let begun = Instant::now();
        step.run().with_context(|| format!("{step:?} failed"))?;
        eprintln!("=== {step:?} passed in {} s", begun.elapsed().as_secs());
    }
    eprintln!("=== all passed in {} s", started.elapsed().as_secs());
    Ok(())
}

impl Step {
    fn run(self) -> Result<()> {
        match self {
            Self::Format => cargo(&["fmt", "--all", "--check"]),
            // All with the features of the whole workspace: what one step builds, the next one uses. The end-to-end
            // target is asked for by name, since `cargo test` leaves it out.
            Self::Lint => {
                cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
                let targets =
                    ["e2e", "scheduler", "nodes", "pools", "aws"].map(|target| ["--test", target]).concat();
                cargo(&[&["clippy", "--workspace"], &targets[..], &["--", "-D", "warnings"]].concat())
            }
            Self::Generated => generate::run(true),
            Self::Dependencies => dependencies(),
            Self::Unit => cargo(&["test", "--workspace"]),
            Self::Scheduler => cargo(&["test", "--workspace", "--test", "scheduler"]),
            Self::E2e => cargo(&["test", "--workspace", "--test", "e2e"]),
            Self::Nodes => {
                cargo(&["test", "--workspace", "--test", "aws", "--test", "nodes", "--test", "pools"])
            }
        }
    }
}

fn dependencies() -> Result<()> {
    let tree = ["tree", "--workspace", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"];
    let output = Command::new("cargo").args(tree).current_dir(source_tree()).output()?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let crates = String::from_utf8(output.stdout)?;
    for line in crates.lines() {
        let name = line.split(' ').next().unwrap_or_default();
        ensure!(!BANNED.contains(&name), "{line} is in the build: see [bans] in deny.toml");
    }
    // Building cargo-deny takes minutes, so it is used only where it is there already.
    let installed =
        Command::new("cargo").args(["deny", "--version"]).output().is_ok_and(|it| it.status.success());
    if installed { cargo(&["deny", "check", "licenses", "bans", "sources"]) } else { Ok(()) }
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(source_tree());
    if let Some(vectors) = env::var_os(VECTORS) {
        command.env(VECTORS, absolute(&vectors)?);
    }
    let status = command.status()?;
    ensure!(status.success(), "cargo {} ended with {status}", arguments.join(" "));
    Ok(())
}

/// A test runs in its crate's folder, so the folders must be given from the root.
fn absolute(folders: &std::ffi::OsStr) -> Result<std::ffi::OsString> {
    let full = |folder: PathBuf| -> Result<PathBuf> {
        let here = env::current_dir()?;
        match here.join(&folder).canonicalize() {
            Ok(full) if full.is_dir() => Ok(full),
            _ => bail!(
                "{VECTORS} names {}, which is no folder seen from {}",
                folder.display(),
                Path::new(".").join(here).display()
            ),
        }
    };
    let folders: Vec<PathBuf> = env::split_paths(folders).map(full).collect::<Result<_>>()?;
    Ok(env::join_paths(folders)?)
}
