//! How long the virtual world takes, and how much memory.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::source_tree;
use serde_json::Value;

/// A world of the example `figures` of `simulate`, and what it may take.
struct Row {
    what: &'static str,
    /// Objects, days, nodes.
    arguments: [&'static str; 3],
    /// Seconds of processor time.
    within: f64,
}

/// Peak memory of the largest world, MiB.
const MEMORY: u64 = 500;

const ROWS: &[Row] = &[
    Row { what: "7 days of one object", arguments: ["1", "7", "0"], within: 0.05 },
    Row { what: "7 days of 100 objects", arguments: ["100", "7", "0"], within: 20.0 },
    Row { what: "7 days of 100 objects on 200 nodes", arguments: ["100", "7", "200"], within: 20.0 },
];

/// Runs every row and prints a table; fails where a figure is not reached.
pub(super) fn run() -> Result<()> {
    let example = ["--release", "-p", "simulate", "--example", "figures"];
    let built = Command::new(env!("CARGO")).arg("build").args(example).current_dir(source_tree()).status()?;
    ensure!(built.success(), "the example figures of simulate was not built");
    println!("| world | processor time | at most | peak memory | scale events | nodes added |");
    println!("|---|---|---|---|---|---|");
    let mut missed = Vec::new();
    for Row { what, arguments, within } in ROWS {
        let output = Command::new(env!("CARGO"))
            .args(["run", "--quiet"])
            .args(example)
            .arg("--")
            .args(arguments)
            .current_dir(source_tree())
            .output()?;
        ensure!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
        let figures: Value = serde_json::from_slice(&output.stdout)?;
        let seconds = figures["seconds"].as_f64().context("no seconds")?;
        let memory = figures["peakMiB"].as_u64().context("no peakMiB")?;
        let (events, nodes) = (&figures["scaleEvents"], &figures["nodesAdded"]);
        println!("| {what} | {seconds:.3} s | {within} s | {memory} MiB | {events} | {nodes} |");
        if seconds > *within || memory > MEMORY {
            missed.push(*what);
        }
    }
    ensure!(missed.is_empty(), "not reached: {}", missed.join(", "));
    Ok(())
}
