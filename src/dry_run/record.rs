//! The record: one JSON object a line, in the order of time, appended to by each run.
//!
//! What a dry run would have done and what the others did. A program that reads it needs this module only; a field that is
//! added does not change [`VERSION`], one that changes its meaning does.

use std::io::{self, BufRead};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version of the format, in the first line of each run.
pub const VERSION: u32 = 1;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What a line tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Entry {
    /// A run begins.
    Start(Start),
    /// How it stands with an object: when that changes, and at least once a minute.
    Sample(Sample),
    /// How it stands with a node group or a node pool: likewise.
    Nodes(Nodes),
    /// Pods that the scheduler has no node for: likewise.
    Pending {
        /// How many.
        pods: u32,
    },
    /// What would have been written, once while it stays the same.
    Intent(Intent),
    /// What would have been told by an event, likewise.
    Event(Told),
    /// What somebody else did.
    Observed(Observed),
    /// The run ends in an orderly way.
    Stop,
}

/// The beginning of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Start {
    /// [`VERSION`] of whoever wrote it.
    pub version: u32,
    /// The version of Tandem.
    pub tandem: String,
    /// The version of Kubernetes.
    pub kubernetes: String,
}

/// One ScaledObject at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The least replicas that it allows.
    pub min: i32,
    /// The most replicas that it allows.
    pub max: i32,
    /// One a metric of its HPA.
    pub metrics: Vec<Metric>,
    /// Replicas that Tandem, and the HPA controller with Tandem's metrics, would have asked for.
    pub wanted: i32,
    /// Replicas that the target really asks for.
    pub actual: i32,
    /// What kept `wanted` from what metrics ask for, in the words of the HPA's conditions.
    pub limits: Vec<String>,
}

/// One metric at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    /// As the HPA has it: `s0-prometheus`, `cpu`.
    pub name: String,
    /// What it is at, in its own unit; of a resource the average of a pod, or its percentage; none where it is not known.
    pub value: Option<f64>,
    /// What it is held at, in the same unit.
    pub target: f64,
    /// Whether the target is for each replica, and the value for all together.
    pub per_replica: bool,
}

/// What scales nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NodeKind {
    /// A node group, as Cluster Autoscaler knows it.
    Group,
    /// A node pool, as Karpenter knows it.
    Pool,
}

impl NodeKind {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Group => "node group",
            Self::Pool => "node pool",
        }
    }
}

/// A node group or a node pool at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Nodes {
    /// Which of the two.
    pub kind: NodeKind,
    /// Its name.
    pub name: String,
    /// Nodes that Tandem would have asked for.
    pub wanted: u32,
    /// Nodes that are asked for: the target of a group, the NodeClaims of a pool.
    pub actual: u32,
    /// Nodes that are ready.
    pub ready: u32,
}

/// A write that was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Intent {
    /// `create`, `update`, `patch`, `delete`, `evict`; of nodes `increase`, `decrease`, `remove`, ….
    pub verb: String,
    /// What, as rights name it: `horizontalpodautoscalers`, `deployments/scale`; `nodegroup`, `nodepool`, `node`.
    pub resource: String,
    /// Its namespace; empty for what has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What would have become of it, or why, in short.
    pub change: String,
}

/// An event that was not told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// `ScaledObject shop/web`.
    pub object: String,
    /// `SuccessfulRescale`.
    pub reason: String,
    /// As the live event has it.
    pub message: String,
    /// `Normal` or `Warning`.
    pub kind: String,
}

/// Something that somebody else did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// `Deployment shop/web`, `node ip-10-0-3-7`, `node group workers`.
    pub object: String,
    /// `Scaled`, `NodeJoined`, `NodeGone`, `Resized`.
    pub reason: String,
    /// From what to what.
    pub message: String,
}

/// Why a record cannot be read.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The file.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A line in the middle.
    #[error("line {line} is no line of a dry run's record: {source}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It was written by a later version.
    #[error("line {line} begins a run of format {version}; this version reads format {VERSION}")]
    Version {
        /// Which, from 1.
        line: usize,
        /// Its version.
        version: u32,
    },
    /// There is nothing in it.
    #[error("there is no run in it")]
    Empty,
}

/// The lines of a record, and whether its last one was cut off by the end of the process.
///
/// # Errors
/// See [`RecordError`].
pub fn read(mut from: impl BufRead) -> Result<(Vec<Line>, bool), RecordError> {
    let (mut lines, mut text, mut number) = (Vec::new(), Vec::new(), 0);
    loop {
        text.clear();
        if from.read_until(b'\n', &mut text)? == 0 {
            break;
        }
        number += 1;
        if text.trim_ascii().is_empty() {
            continue;
        }
        let line: Line = match serde_json::from_slice(&text) {
            Ok(line) => line,
            // Only a process that was killed leaves a line without its end.
            Err(_) if !text.ends_with(b"\n") && !lines.is_empty() => return Ok((lines, true)),
            Err(source) => return Err(RecordError::Line { line: number, source }),
        };
        if let Entry::Start(Start { version, .. }) = &line.entry
            && *version != VERSION
        {
            return Err(RecordError::Version { line: number, version: *version });
        }
        lines.push(line);
    }
    if lines.is_empty() { Err(RecordError::Empty) } else { Ok((lines, false)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Vec<Line> {
        let text = |text: &str| text.to_owned();
        let entries = [
            Entry::Start(Start { version: VERSION, tandem: text("0.1.0"), kubernetes: text("v1.37.0") }),
            Entry::Sample(Sample {
                namespace: text("shop"),
                name: text("web"),
                min: 0,
                max: 10,
                metrics: vec![Metric {
                    name: text("s0-prometheus"),
                    value: Some(12.5),
                    target: 5.0,
                    per_replica: true,
                }],
                wanted: 3,
                actual: 1,
                limits: vec![text("ScaleUpLimit")],
            }),
            Entry::Nodes(Nodes {
                kind: NodeKind::Group,
                name: text("workers"),
                wanted: 3,
                actual: 2,
                ready: 2,
            }),
            Entry::Pending { pods: 4 },
            Entry::Intent(Intent {
                verb: text("patch"),
                resource: text("deployments/scale"),
                namespace: text("shop"),
                name: text("web"),
                change: text(r#"{"spec":{"replicas":1}}"#),
            }),
            Entry::Event(Told {
                object: text("ScaledObject shop/web"),
                reason: text("ScaledObjectReady"),
                message: text("it is"),
                kind: text("Normal"),
            }),
            Entry::Observed(Observed {
                object: text("node n"),
                reason: text("NodeJoined"),
                message: String::new(),
            }),
            Entry::Stop,
        ];
        entries.into_iter().map(|entry| Line { at: Timestamp::UNIX_EPOCH, entry }).collect()
    }

    fn written(lines: &[Line]) -> String {
        lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let text = written(&lines());
        assert_eq!(read(text.as_bytes()).unwrap(), (lines(), false));
        assert!(text.starts_with(r#"{"at":"1970-01-01T00:00:00Z","type":"start","version":1,"#), "{text}");
    }

    #[test]
    fn a_last_line_that_was_cut_off_is_left_out() {
        let text = written(&lines()[..3]);
        for cut in 1..20 {
            let (read, truncated) = read(&text.as_bytes()[..text.len() - cut - 1]).unwrap();
            assert_eq!((read.as_slice(), truncated), (&lines()[..2], true), "{cut}");
        }
        // Without its line feed it is whole.
        assert_eq!(read(text.trim_end().as_bytes()).unwrap(), (lines()[..3].to_vec(), false));
    }

    #[test]
    fn what_is_no_record_is_said_with_its_line() {
        let start = written(&lines()[..1]);
        for (text, wanted) in [
            (String::new(), "there is no run in it"),
            ("\n\n".to_owned(), "there is no run in it"),
            ("hello\n".to_owned(), "line 1 is no line of a dry run's record"),
            (format!("{start}{{}}\n{start}"), "line 2 is no line"),
            (start.replace(r#""version":1"#, r#""version":7"#), "line 1 begins a run of format 7"),
        ] {
            let error = read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{text:?}: {error}");
        }
    }
}
