//! What `tandem simulate` prints.

use std::fmt::Write;

use simulate::{
    Outcome,
    outcome::{ObjectOutcome, Summary},
};

/// The most notes that the summary shows; `--output json` has all.
const NOTES: usize = 20;

/// Everything, as one JSON object.
pub(super) fn json(outcome: &Outcome) -> String {
    // Numbers and texts are all there is: nothing of it can fail to be written.
    serde_json::to_string_pretty(outcome).unwrap_or_default() + "\n"
}

/// Columns of the CSV.
const COLUMNS: &str = "time,namespace,name,kind,metric,wanted,running,ready,pending,unserved";

/// A line for each object and point.
pub(super) fn csv(outcome: &Outcome) -> String {
    format!("{COLUMNS}\n{}", lines(outcome, ""))
}

/// The same of several worlds, each line with its world.
pub(super) fn csv_of_worlds(outcomes: &[Outcome]) -> String {
    let lines = outcomes.iter().map(|outcome| lines(outcome, &format!("{},", quoted(&outcome.name))));
    format!("world,{COLUMNS}\n{}", lines.collect::<String>())
}

/// A field of a CSV, in quotes where it needs them.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn lines(outcome: &Outcome, world: &str) -> String {
    let mut text = String::new();
    for object in &outcome.objects {
        let ObjectOutcome { namespace, name, kind, .. } = object;
        for point in 0..object.wanted.len() {
            let offset = u64::from(outcome.axis.step_seconds) * point as u64;
            let time = outcome.axis.start.as_second().saturating_add_unsigned(offset);
            let time = jiff::Timestamp::from_second(time).unwrap_or_default();
            let metric = object.metrics.first().and_then(|metric| *metric.values.get(point)?);
            let metric = metric.map(|value| value.to_string()).unwrap_or_default();
            let (wanted, running) = (object.wanted[point], object.running[point]);
            let (ready, pending, unserved) =
                (object.ready[point], object.pending[point], object.unserved[point]);
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{world}{time},{namespace},{name},{kind},{metric},{wanted},{running},{ready},{pending},{unserved}"
            );
        }
    }
    text
}

/// The figures, for people.
pub(super) fn text(outcome: &Outcome) -> String {
    let seconds = u64::from(outcome.axis.step_seconds) * outcome.axis.points.saturating_sub(1) as u64;
    let mut text = format!("{}: {} from {}\n\n", outcome.name, time(seconds), outcome.axis.start);
    let heading =
        ["OBJECT", "REPLICAS", "POD-HOURS", "AT MAX", "UNSERVED", "TO CAPACITY", "SCALED", "PENDING"];
    let rows = outcome.objects.iter().map(row);
    text += &table(std::iter::once(heading.map(str::to_owned)).chain(rows).collect());
    text.push('\n');
    for kind in &outcome.nodes.types {
        let most = kind.ready.iter().zip(&kind.starting).map(|(ready, starting)| ready + starting).max();
        let price = kind.price_per_hour.map(|price| format!(", ${price}/h each")).unwrap_or_default();
        let _ = writeln!(text, "nodes {}: up to {}{price}", kind.name, most.unwrap_or_default());
    }
    text += &totals(&outcome.summary, !outcome.nodes.types.is_empty());
    for note in outcome.notes.iter().take(NOTES) {
        let _ = writeln!(text, "note: {note}");
    }
    if outcome.notes.len() > NOTES {
        let _ = writeln!(text, "note: {} more with --output json", outcome.notes.len() - NOTES);
    }
    text
}

fn row(object: &ObjectOutcome) -> [String; 8] {
    let summary = &object.summary;
    let replicas =
        format!("{} / {:.1} / {}", summary.replicas_min, summary.replicas_mean, summary.replicas_max);
    [
        format!("{}/{}", object.namespace, object.name),
        replicas,
        format!("{:.1}", summary.pod_hours),
        time(summary.at_max_seconds),
        format!("{:.2}%", summary.unserved_share * 100.0),
        time(summary.spike_to_capacity_seconds),
        summary.scale_events.to_string(),
        time(summary.pending_pod_seconds),
    ]
}

fn totals(summary: &Summary, nodes: bool) -> String {
    let mut text = format!(
        "total: {:.1} pod-hours, {:.2}% unserved at worst, scaled {} times\n",
        summary.pod_hours,
        summary.unserved_share * 100.0,
        summary.scale_events
    );
    if nodes {
        let cost = summary.cost.map(|cost| format!(", ${cost:.2}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "nodes: {:.1} node-hours{cost}, {} added, {} removed",
            summary.node_hours, summary.nodes_added, summary.nodes_removed
        );
    }
    text
}

/// Columns as wide as their widest cell.
fn table(rows: Vec<[String; 8]>) -> String {
    let mut widths = [0; 8];
    for row in &rows {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.len()));
    }
    let line = |row: [String; 8]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}  "));
        cells.collect::<String>().trim_end().to_owned() + "\n"
    };
    rows.into_iter().map(line).collect()
}

/// Seconds in the two largest units that say something.
fn time(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_have_two_units() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (61, "1m1s"), (7260, "2h1m"), (180_000, "2d2h")] {
            assert_eq!(time(seconds), text);
        }
    }
}
