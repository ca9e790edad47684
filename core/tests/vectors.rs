//! The vector test: what the peers decide, as data.
//!
//! Reads `tests/vectors/*.json` beside this file, then every folder named in `TANDEM_VECTORS` (separated by colons), runs
//! each case through the public functions that the program itself uses, and fails when one disagrees.

mod topics;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::Deserialize;
use serde_json::Value;

use topics::Verdict;

/// Topics of the crate `scalers`, whose own test reads them.
const TOPICS_OF_SCALERS: &[&str] = &["keda_cron", "keda_metadata", "keda_metric_names", "keda_values"];

/// Topics whose part of the product is not built yet, with the part.
const NOT_BUILT: &[(&str, &str)] = &[];

/// A file of cases.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    meta: Value,
    cases: Vec<Value>,
}

#[derive(Default)]
struct Count {
    agree: usize,
    all: usize,
}

fn main() -> ExitCode {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let named = std::env::var("TANDEM_VECTORS").unwrap_or_default();
    let folders =
        std::iter::once(own).chain(named.split(':').filter(|name| !name.is_empty()).map(PathBuf::from));
    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    let mut left_out: BTreeMap<String, usize> = BTreeMap::new();
    for path in folders.flat_map(|folder| files(&folder)) {
        let topic = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if TOPICS_OF_SCALERS.contains(&topic.as_str()) {
            continue;
        }
        let File { meta, cases } = read(&path);
        if let Some((_, part)) = NOT_BUILT.iter().find(|(name, _)| *name == topic) {
            *left_out.entry(format!("{topic}: {part}")).or_default() += cases.len();
            continue;
        }
        let count = counts.entry(topic.clone()).or_default();
        for case in cases {
            match topics::judge(&topic, &case, &meta) {
                Verdict::Agrees => count.agree += 1,
                Verdict::Disagrees(how) => println!("{topic} {}: {how}", case["id"]),
                Verdict::LeftOut(why) => {
                    *left_out.entry(format!("{topic}: {why}")).or_default() += 1;
                    continue;
                }
            }
            count.all += 1;
        }
    }
    report(&counts, &left_out)
}

fn report(counts: &BTreeMap<String, Count>, left_out: &BTreeMap<String, usize>) -> ExitCode {
    for (topic, Count { agree, all }) in counts {
        println!("{topic}: {agree} of {all} agree");
    }
    for (why, cases) in left_out {
        println!("left out, not built yet: {cases} of {why}");
    }
    let agree: usize = counts.values().map(|count| count.agree).sum();
    let all: usize = counts.values().map(|count| count.all).sum();
    println!("{agree} of {all} vectors agree");
    if agree == all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read(path: &Path) -> File {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()))
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
