//! The peers' benchmarks of nodes on our decisions, beside what the peers reach.

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::{Context, Result, ensure};
use clap::Args;
use harness::source_tree;
use serde_json::{Value, json};

/// Flags of `bench nodes`.
#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    /// Processes a row; the median counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Only rows whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

/// What a row of the example `nodes` of `tandem-core` is measured against.
struct Row {
    /// Its name there.
    name: &'static str,
    /// What is measured.
    what: &'static str,
    /// What the peer reaches, see `peers`.
    peer: &'static str,
    targets: &'static [Target],
}

/// What is to be reached.
#[derive(Clone, Copy)]
enum Target {
    /// Time, milliseconds.
    Within(f64),
    /// Pods a second.
    Rate(f64),
    /// Peak memory of the whole process, its inputs included, mebibytes.
    Memory(f64),
    /// Sum of the cheapest prices.
    Price(f64),
    /// A field of the answer is this, or more.
    AtLeast(&'static str, f64),
    /// A field of the answer is just this.
    Exactly(&'static str, f64),
    /// Times the time of another row, at most.
    Times(f64, &'static str),
}

use Target::{AtLeast, Exactly, Memory, Price, Rate, Times, Within};

/// Pods that all differ take at most so many times what uniform ones take.
const DIFFERENT: f64 = 20.0;

/// Karpenter and Cluster Autoscaler of August 2026 on a machine of two cores; medians of processes of their own.
const ROWS: &[Row] = &[
    Row {
        name: "diverse 500",
        what: "500 diverse pods, empty cluster",
        peer: "2.3-2.6 s, price 165-171",
        targets: &[Rate(25_000.0), Price(168.0)],
    },
    Row {
        name: "diverse 1000",
        what: "1,000 diverse pods",
        peer: "4.7-5.5 s, price 338-352",
        targets: &[Rate(25_000.0), Price(345.0)],
    },
    Row {
        name: "diverse 2000",
        what: "2,000 diverse pods",
        peer: "10.0 s, price 708-716",
        targets: &[Rate(25_000.0), Price(712.0)],
    },
    Row {
        name: "diverse 5000",
        what: "5,000 diverse pods",
        peer: "31.5 s",
        targets: &[Rate(25_000.0), AtLeast("pods", 5_000.0)],
    },
    Row {
        name: "diverse 10000",
        what: "10,000 diverse pods",
        peer: "61-66 s",
        targets: &[Rate(25_000.0), AtLeast("pods", 10_000.0)],
    },
    Row {
        name: "diverse 20000",
        what: "20,000 diverse pods",
        peer: "-",
        targets: &[Rate(25_000.0), AtLeast("pods", 20_000.0)],
    },
    Row {
        name: "diverse 2000, every order",
        what: "2,000 diverse pods, the cheapest of all orders",
        peer: "price 708-716",
        targets: &[Within(1_000.0), Price(712.0 * 0.95)],
    },
    Row {
        name: "preferences respected",
        what: "4,000 pods with preferences, respected",
        peer: "133 s",
        targets: &[Rate(25_000.0)],
    },
    Row {
        name: "preferences ignored",
        what: "4,000 pods with preferences, ignored",
        peer: "2.3-2.4 s",
        targets: &[Rate(100_000.0)],
    },
    Row {
        name: "pools beside 150000 pods",
        what: "20,000 diverse pods beside 5,000 nodes and 150,000 pods, pools",
        peer: "-",
        targets: &[Within(1_000.0), Memory(500.0)],
    },
    Row {
        name: "groups beside 150000 pods",
        what: "the same, a pass over node groups",
        peer: "-",
        targets: &[Within(1_000.0), Memory(500.0)],
    },
    Row {
        name: "binpacking",
        what: "BinpackingEstimate, 51,000 pods",
        peer: "7.5-8.3 s",
        targets: &[Within(10.0), Exactly("nodes", 2_595.0)],
    },
    Row {
        name: "binpacking, different",
        what: "  every pod different",
        peer: "-",
        targets: &[Times(DIFFERENT, "binpacking")],
    },
    Row {
        name: "scale up",
        what: "RunOnceScaleUp, 50,000 pods",
        peer: "19.5-22 s, 1.16 GiB",
        targets: &[Within(100.0), Memory(150.0), Exactly("nodes", 1_000.0)],
    },
    Row {
        name: "scale up, different",
        what: "  every pod different",
        peer: "-",
        targets: &[Times(DIFFERENT, "scale up")],
    },
    Row {
        name: "scale up, devices",
        what: "RunOnceScaleUpDRA, 4,000 pods",
        peer: "32 s, 206 MiB",
        targets: &[Within(250.0), Memory(50.0), Exactly("nodes", 500.0)],
    },
    Row {
        name: "scale down",
        what: "RunOnceScaleDown, 2,000 nodes, 80,000 pods",
        peer: "23 s, 2.1 GiB",
        targets: &[Within(200.0), Memory(200.0), Exactly("nodes", 1_200.0)],
    },
    Row {
        name: "scale down, different",
        what: "  every pod different",
        peer: "-",
        targets: &[Times(DIFFERENT, "scale down")],
    },
    Row {
        name: "filter 200",
        what: "FilterOutSchedulable, 200 nodes, 60,000 pods",
        peer: "10.0 s",
        targets: &[Within(20.0), Exactly("pods", 0.0)],
    },
    Row {
        name: "filter 200, different",
        what: "  every pod different",
        peer: "-",
        targets: &[Times(DIFFERENT, "filter 200")],
    },
    Row {
        name: "filter 1000",
        what: "FilterOutSchedulable, 1,000 nodes, 12,000 pods",
        peer: "12.6 s",
        targets: &[Within(20.0), Exactly("pods", 0.0)],
    },
    Row {
        name: "filter 1000, different",
        what: "  every pod different",
        peer: "-",
        targets: &[Times(DIFFERENT, "filter 1000")],
    },
    Row {
        name: "passing node",
        what: "RunFiltersUntilPassingNode, 5,000 nodes",
        peer: "4.0-5.8 ms",
        targets: &[Within(4.0), Exactly("node", 4_999.0)],
    },
    Row {
        name: "passing node, different",
        what: "  every pod different",
        peer: "-",
        targets: &[Times(DIFFERENT, "passing node")],
    },
    Row {
        name: "efficiency",
        what: "ScaledownEfficiency, processor requested after 3 passes",
        peer: "100 %",
        targets: &[AtLeast("percent", 100.0)],
    },
    Row { name: "apart by zone", what: "2,000 pods apart by zone", peer: "-", targets: &[Within(500.0)] },
    Row {
        name: "apart by zone, different",
        what: "  every pod different",
        peer: "-",
        targets: &[Within(500.0), Times(DIFFERENT, "apart by zone")],
    },
    Row {
        name: "apart by hostname",
        what: "2,000 pods apart by hostname",
        peer: "-",
        targets: &[Within(500.0)],
    },
    Row {
        name: "apart by hostname, different",
        what: "  every pod different",
        peer: "-",
        targets: &[Within(500.0), Times(DIFFERENT, "apart by hostname")],
    },
    Row {
        name: "consolidation, many at once",
        what: "Consolidation over 2,000 nodes, many at once",
        peer: "-",
        targets: &[Within(2_000.0)],
    },
    Row {
        name: "consolidation, one by one",
        what: "Consolidation, 1,000 full nodes one by one",
        peer: "-",
        targets: &[Within(2_000.0)],
    },
    Row {
        name: "one pod later",
        what: "A pass after one pod changed, 5,000 nodes, 150,000 pods",
        peer: "-",
        targets: &[],
    },
    Row { name: "idle", what: "An idle pass, 5,000 nodes, 150,000 pods", peer: "-", targets: &[Within(1.0)] },
];

/// The median of some runs of a row.
struct Median {
    ms: f64,
    processor_ms: f64,
    peak_mib: f64,
    answer: Value,
}

/// Builds the benchmarks, runs each row in processes of its own and prints a table.
pub(crate) fn run(args: &NodesArgs) -> Result<()> {
    let build = ["build", "--release", "-p", "tandem-core", "--example", "nodes"];
    let built = Command::new("cargo").args(build).current_dir(source_tree()).status()?;
    ensure!(built.success(), "the benchmarks cannot be built");
    println!("load before: {}", load());
    println!("| {:<64} | {:<24} | {:<36} | {:<44} | met |", "benchmark", "peer", "target", "tandem");
    println!("|{:-<66}|{:-<26}|{:-<38}|{:-<46}|-----|", "", "", "", "");
    let mut medians = BTreeMap::new();
    for row in ROWS.iter().filter(|row| row.name.contains(&args.only)) {
        let median = median(row.name, args.runs)?;
        let met = row.targets.iter().all(|target| target.is_met(&median, &medians));
        let targets: Vec<_> = row.targets.iter().map(Target::text).collect();
        println!(
            "| {:<64} | {:<24} | {:<36} | {:<44} | {:<3} |",
            row.what,
            row.peer,
            targets.join(", "),
            median.text(row.targets, &medians),
            if met { "yes" } else { "NO" },
        );
        medians.insert(row.name, median);
    }
    println!("load after: {}", load());
    Ok(())
}

/// Averages over 1, 5 and 15 minutes.
fn load() -> String {
    fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}

fn median(row: &str, runs: usize) -> Result<Median> {
    let program = source_tree().join("target/release/examples/nodes");
    let mut measured = Vec::new();
    for _ in 0..runs.max(1) {
        let output = Command::new(&program).arg(row).output()?;
        ensure!(output.status.success(), "{row}: {}", String::from_utf8_lossy(&output.stderr));
        let line: Value =
            serde_json::from_slice(&output.stdout).with_context(|| format!("{row}: no JSON"))?;
        measured.push(line);
    }
    let middle = |field: &str| {
        let mut values: Vec<f64> = measured.iter().filter_map(|line| line[field].as_f64()).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().with_context(|| format!("{row} says no {field}"))
    };
    Ok(Median {
        ms: middle("ms")?,
        processor_ms: middle("processor_ms")?,
        peak_mib: middle("peak_mib")?,
        answer: measured.first().map_or(json!({}), |line| line["answer"].clone()),
    })
}

impl Target {
    fn is_met(&self, median: &Median, others: &BTreeMap<&str, Median>) -> bool {
        let field = |name: &str| median.answer[name].as_f64().unwrap_or(f64::NAN);
        match *self {
            Within(ms) => median.ms <= ms,
            Rate(rate) => median.rate() >= rate,
            Memory(mib) => median.peak_mib <= mib,
            Price(price) => field("price") <= price && field("pods") >= field("of"),
            AtLeast(name, least) => field(name) >= least,
            Exactly(name, value) => (field(name) - value).abs() < f64::EPSILON,
            // A row that is not there was not asked for.
            Times(times, other) => others.get(other).is_none_or(|other| median.ms <= times * other.ms),
        }
    }

    fn text(&self) -> String {
        match self {
            Within(ms) => format!("≤ {ms:.0} ms"),
            Rate(rate) => format!("≥ {rate:.0} pods/s"),
            Memory(mib) => format!("≤ {mib:.0} MiB"),
            Price(price) => format!("price ≤ {price:.0}"),
            AtLeast(name, least) => format!("{name} ≥ {least:.0}"),
            Exactly(name, value) => format!("{value:.0} {name}"),
            Times(times, _) => format!("≤ {times:.0} × uniform"),
        }
    }
}

impl Median {
    fn rate(&self) -> f64 {
        self.answer["of"].as_f64().unwrap_or(f64::NAN) / (self.ms / 1e3)
    }

    fn text(&self, targets: &[Target], others: &BTreeMap<&str, Median>) -> String {
        let mut parts = vec![format!("{:.2} ms ({:.0} cpu)", self.ms, self.processor_ms)];
        for target in targets {
            let field = |name: &str| self.answer[name].as_f64().unwrap_or(f64::NAN);
            match *target {
                Within(_) => {}
                Rate(_) => parts.push(format!("{:.0}/s", self.rate())),
                Memory(_) => parts.push(format!("{:.0} MiB", self.peak_mib)),
                Price(_) => parts.push(format!("price {:.1}", field("price"))),
                AtLeast(name, _) | Exactly(name, _) => parts.push(format!("{:.0} {name}", field(name))),
                Times(_, other) => {
                    parts.extend(others.get(other).map(|other| format!("{:.1} ×", self.ms / other.ms)));
                }
            }
        }
        parts.join(", ")
    }
}
