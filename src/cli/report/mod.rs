//! `tandem report`: what a dry run would have done, beside what the others did.

mod compare;
mod page;
mod text;
mod timeline;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufReader, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;

use crate::dry_run::record::{self, Line, NodeKind, Nodes, Sample};
use compare::{Comparison, Counts};
use timeline::{Span, Timeline};

/// Arguments of `tandem report`.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// Records of dry runs of one cluster, in any order.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Write a page for a browser here, too; `-` prints it instead of the report.
    #[arg(long)]
    pub html: Option<PathBuf>,
    /// How the report is printed.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// How the report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// All differences.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// The first line of the record.
    from: Timestamp,
    /// The last one.
    to: Timestamp,
    /// How often the dry run was started.
    runs: usize,
    /// The version of Tandem that ran last.
    tandem: String,
    /// The version of Kubernetes that it ran beside.
    kubernetes: String,
    /// Replicas, a ScaledObject each.
    objects: Vec<OfObject>,
    /// Nodes, a group or a pool each.
    nodes: Vec<OfNodes>,
    /// What was not done, and how often it would have been.
    not_done: Vec<NotDone>,
    /// What is to be known about the record.
    notes: Vec<String>,
}

/// The replicas of one ScaledObject.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct OfObject {
    namespace: String,
    name: String,
    #[serde(flatten)]
    comparison: Comparison,
}

/// The nodes of one group or pool.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct OfNodes {
    kind: NodeKind,
    name: String,
    #[serde(flatten)]
    comparison: Comparison,
}

/// Writes of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct NotDone {
    verb: String,
    resource: String,
    count: u64,
}

/// Reads the records, and shows the differences.
pub fn run(args: &ReportArgs) -> ExitCode {
    match report(args) {
        Ok(text) => {
            // A reader that went away (`| head`) has seen what it wanted.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn report(args: &ReportArgs) -> anyhow::Result<String> {
    let (mut lines, mut notes) = (Vec::new(), Vec::new());
    for path in &args.files {
        let (read, truncated) = read(path).with_context(|| path.display().to_string())?;
        if truncated {
            notes.push(format!("the last line of {} was cut off and is left out", path.display()));
        }
        lines.extend(read);
    }
    let timeline = Timeline::of(lines);
    let report = Report::of(&timeline, notes).context("there is nothing in the record")?;
    if args.html.as_deref() == Some(Path::new("-")) {
        return Ok(page::page(&timeline, &report));
    }
    if let Some(path) = &args.html {
        fs::write(path, page::page(&timeline, &report))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(match args.output {
        Output::Text => text::text(&report),
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&report)?),
    })
}

fn read(path: &Path) -> Result<(Vec<Line>, bool), record::RecordError> {
    record::read(BufReader::new(File::open(path)?))
}

impl Report {
    fn of(timeline: &Timeline, notes: Vec<String>) -> Option<Self> {
        let (from, to) = timeline.bounds()?;
        let objects = timeline.objects.iter().map(|((namespace, name), samples)| OfObject {
            namespace: namespace.clone(),
            name: name.clone(),
            comparison: Comparison::of(&replicas(timeline, samples)),
        });
        let nodes = timeline.nodes.iter().map(|((kind, name), nodes)| OfNodes {
            kind: *kind,
            name: name.clone(),
            comparison: Comparison::of(&counts(timeline, nodes)),
        });
        let mut not_done: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for (_, intent) in &timeline.intents {
            *not_done.entry((&intent.resource, &intent.verb)).or_default() += 1;
        }
        let not_done = not_done.into_iter().map(|((resource, verb), count)| NotDone {
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            count,
        });
        let (tandem, kubernetes) = timeline.versions.clone();
        Some(Self {
            from,
            to,
            runs: timeline.runs.len(),
            tandem,
            kubernetes,
            objects: objects.collect(),
            nodes: nodes.collect(),
            not_done: not_done.collect(),
            notes,
        })
    }
}

/// Replicas over time.
fn replicas(timeline: &Timeline, samples: &[(Timestamp, Sample)]) -> Vec<Span<Counts>> {
    let counts = |sample: &&Sample| Counts { wanted: sample.wanted.into(), actual: sample.actual.into() };
    timeline.spans(samples).iter().map(|span| span.map(counts)).collect()
}

/// Nodes over time.
fn counts(timeline: &Timeline, nodes: &[(Timestamp, Nodes)]) -> Vec<Span<Counts>> {
    let counts = |nodes: &&Nodes| Counts { wanted: nodes.wanted.into(), actual: nodes.actual.into() };
    timeline.spans(nodes).iter().map(|span| span.map(counts)).collect()
}
