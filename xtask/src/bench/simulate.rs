//! How long the virtual world takes, and how much memory.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::source_tree;
use serde_json::Value;

/// What the example `figures` of `simulate` plays, and what it may take.
struct Row {
    what: &'static str,
    /// Objects, days and nodes; or a sweep and its threads.
    arguments: &'static [&'static str],
    /// Seconds of processor time.
    within: f64,
}

/// Peak memory of the largest world, MiB.
const MEMORY: u64 = 500;

const ROWS: &[Row] = &[
    Row { what: "7 days of one object", arguments: &["1", "7", "0"], within: 0.05 },
    Row { what: "7 days of 100 objects", arguments: &["100", "7", "0"], within: 20.0 },
    Row { what: "7 days of 100 objects on 200 nodes", arguments: &["100", "7", "200"], within: 20.0 },
    Row { what: "100 settings of one object over a day", arguments: &["sweep", "1"], within: 1.0 },
    Row { what: "the same with 2 threads", arguments: &["sweep", "2"], within: 1.0 },
];

/// Runs every row and prints a table; fails where a figure is not reached.
pub(super) fn run() -> Result<()> {
    let example = ["--release", "-p", "simulate", "--example", "figures"];
    let built = Command::new(env!("CARGO")).arg("build").args(example).current_dir(source_tree()).status()?;
    ensure!(built.success(), "the example figures of simulate was not built");
    println!("| world | processor time | at most | peak memory | scale events | nodes added |");
    println!("|---|---|---|---|---|---|");
    let (mut missed, mut digests) = (Vec::new(), Vec::new());
    for Row { what, arguments, within } in ROWS {
        let output = Command::new(env!("CARGO"))
            .args(["run", "--quiet"])
            .args(example)
            .arg("--")
            .args(*arguments)
            .current_dir(source_tree())
            .output()?;
        ensure!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
        let figures: Value = serde_json::from_slice(&output.stdout)?;
        let seconds = figures["seconds"].as_f64().context("no seconds")?;
        let memory = figures["peakMiB"].as_u64().context("no peakMiB")?;
        let events = &figures["scaleEvents"];
        let nodes = figures["nodesAdded"].as_u64().map(|nodes| nodes.to_string()).unwrap_or_default();
        println!("| {what} | {seconds:.3} s | {within} s | {memory} MiB | {events} | {nodes} |");
        if seconds > *within || memory > MEMORY {
            missed.push(*what);
        }
        digests.extend(figures["digest"].as_str().map(str::to_owned));
    }
    let same = digests.windows(2).all(|pair| pair[0] == pair[1]);
    println!("\nsame bytes with 1 and with 2 threads: {}", if same { "yes" } else { "no" });
    ensure!(same, "the sweep differs with the number of its threads");
    ensure!(missed.is_empty(), "not reached: {}", missed.join(", "));
    Ok(())
}
