//! A record as values over time.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::dry_run::record::{Entry, Intent, Line, NodeKind, Nodes, Observed, Sample, Told};

/// A state is written once a minute at least; one that is older is not known any more.
const HOLDS: SignedDuration = SignedDuration::from_secs(150);

/// Everything of a record, by what it is about.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// The first and the last line of each run.
    pub(super) runs: Vec<(Timestamp, Timestamp)>,
    /// Versions of Tandem and Kubernetes of the last run.
    pub(super) versions: (String, String),
    pub(super) objects: BTreeMap<(String, String), Vec<(Timestamp, Sample)>>,
    pub(super) nodes: BTreeMap<(NodeKind, String), Vec<(Timestamp, Nodes)>>,
    pub(super) pending: Vec<(Timestamp, u32)>,
    pub(super) intents: Vec<(Timestamp, Intent)>,
    pub(super) events: Vec<(Timestamp, Told)>,
    pub(super) observed: Vec<(Timestamp, Observed)>,
}

impl Timeline {
    /// Sorts lines, of one file or several, into it.
    pub(super) fn of(mut lines: Vec<Line>) -> Self {
        lines.sort_by_key(|line| line.at);
        let mut timeline = Self::default();
        for Line { at, entry } in lines {
            if matches!(entry, Entry::Start(_)) || timeline.runs.is_empty() {
                timeline.runs.push((at, at));
            }
            if let Some((_, end)) = timeline.runs.last_mut() {
                *end = at;
            }
            match entry {
                Entry::Start(start) => timeline.versions = (start.tandem, start.kubernetes),
                Entry::Sample(sample) => {
                    let key = (sample.namespace.clone(), sample.name.clone());
                    timeline.objects.entry(key).or_default().push((at, sample));
                }
                Entry::Nodes(nodes) => {
                    timeline.nodes.entry((nodes.kind, nodes.name.clone())).or_default().push((at, nodes));
                }
                Entry::Pending { pods } => timeline.pending.push((at, pods)),
                Entry::Intent(intent) => timeline.intents.push((at, intent)),
                Entry::Event(event) => timeline.events.push((at, event)),
                Entry::Observed(observed) => timeline.observed.push((at, observed)),
                Entry::Stop => {}
            }
        }
        timeline
    }

    /// The first and the last moment.
    pub(super) fn bounds(&self) -> Option<(Timestamp, Timestamp)> {
        Some((self.runs.first()?.0, self.runs.iter().map(|(_, end)| *end).max()?))
    }

    /// From when to when each value held, as far as the record knows.
    pub(super) fn spans<'a, T>(&self, points: &'a [(Timestamp, T)]) -> Vec<Span<&'a T>> {
        let spans = points.iter().enumerate().map(|(place, (from, value))| {
            let next = points.get(place + 1).map_or(Timestamp::MAX, |(next, _)| *next);
            let run = self.runs.partition_point(|(start, _)| start <= from);
            let end = run.checked_sub(1).and_then(|run| self.runs.get(run)).map_or(*from, |(_, end)| *end);
            let known = from.checked_add(HOLDS).unwrap_or(Timestamp::MAX);
            Span { from: *from, to: next.min(end).min(known), value }
        });
        spans.collect()
    }
}

/// A value that held for some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span<T> {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) value: T,
}

impl<T> Span<T> {
    /// The same time with another value.
    pub(super) fn map<U>(&self, value: impl FnOnce(&T) -> U) -> Span<U> {
        Span { from: self.from, to: self.to, value: value(&self.value) }
    }

    /// How long it held, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.to.duration_since(self.from).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dry_run::record::{Start, VERSION};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn start(second: i64) -> Line {
        let (tandem, kubernetes) = ("0.1.0".to_owned(), "v1.37.0".to_owned());
        Line { at: at(second), entry: Entry::Start(Start { version: VERSION, tandem, kubernetes }) }
    }

    fn pending(second: i64, pods: u32) -> Line {
        Line { at: at(second), entry: Entry::Pending { pods } }
    }

    #[test]
    fn a_value_holds_until_the_next_and_no_longer_than_is_known() {
        let stop = |second| Line { at: at(second), entry: Entry::Stop };
        // The second file was begun before the first one ended in time: the order of lines is that of time.
        let lines = vec![
            start(1000),
            pending(1000, 7),
            stop(1030),
            start(0),
            pending(0, 1),
            pending(10, 2),
            pending(400, 3),
            stop(430),
        ];
        let timeline = Timeline::of(lines);
        assert_eq!(timeline.runs, [(at(0), at(430)), (at(1000), at(1030))]);
        assert_eq!(timeline.bounds(), Some((at(0), at(1030))));
        let spans: Vec<_> = timeline.spans(&timeline.pending);
        let spans: Vec<_> =
            spans.iter().map(|span| (span.from.as_second(), span.to.as_second(), *span.value)).collect();
        assert_eq!(
            spans,
            [(0, 10, 1), (10, 160, 2), (400, 430, 3), (1000, 1030, 7)],
            "neither beyond two missed minutes nor beyond the end of its run"
        );
    }
}
