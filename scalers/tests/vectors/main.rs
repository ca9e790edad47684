//! The vector test: what KEDA decides about triggers, as data.
//!
//! Reads `tests/vectors/*.json` beside this file, then every folder named in `TANDEM_VECTORS` (separated by colons), runs
//! each case through the public functions that the program itself uses, and fails when one disagrees.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod cases;
mod values;
mod world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::Value;

/// A file of cases.
#[derive(Deserialize)]
struct File {
    cases: Vec<Value>,
}

/// What became of a case.
enum Verdict {
    Agrees,
    Disagrees(String),
    /// Its part of the product is not built; the reason.
    LeftOut(&'static str),
}

/// Topics of the crate `core`, whose own test reads them.
const TOPICS_OF_CORE: &[&str] = &[
    "balanced",
    "budgets",
    "drain",
    "estimator",
    "expanders",
    "hpa",
    "instance_selection",
    "keda_fallback",
    "keda_hpa",
    "keda_modifiers",
    "keda_scale",
    "keda_webhook",
    "requirements",
    "similar_groups",
    "taints_hostports_volume",
    "utilization",
];

#[derive(Default)]
struct Count {
    agree: usize,
    all: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let named = std::env::var("TANDEM_VECTORS").unwrap_or_default();
    let folders =
        std::iter::once(own).chain(named.split(':').filter(|name| !name.is_empty()).map(PathBuf::from));
    let mut topics: BTreeMap<String, Count> = BTreeMap::new();
    let mut left_out: BTreeMap<&str, usize> = BTreeMap::new();
    for path in folders.flat_map(|folder| files(&folder)) {
        let topic = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if TOPICS_OF_CORE.contains(&topic.as_str()) {
            continue;
        }
        let count = topics.entry(topic.clone()).or_default();
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
        let file: File =
            serde_json::from_str(&text).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
        for case in file.cases {
            match cases::judge(&topic, &case).await {
                Verdict::Agrees => count.agree += 1,
                Verdict::Disagrees(how) => println!("{topic} {}: {how}", case["id"]),
                Verdict::LeftOut(why) => {
                    *left_out.entry(why).or_default() += 1;
                    continue;
                }
            }
            count.all += 1;
        }
    }
    for (topic, Count { agree, all }) in &topics {
        println!("{topic}: {agree} of {all} agree");
    }
    for (why, cases) in left_out {
        println!("left out: {cases} ({why})");
    }
    let agree: usize = topics.values().map(|count| count.agree).sum();
    let all: usize = topics.values().map(|count| count.all).sum();
    println!("{agree} of {all} vectors agree");
    if agree == all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The JSON files of a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|problem| panic!("{}: {problem}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap_or_else(|problem| panic!("{}: {problem}", folder.display())).path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    files
}
