//! What Tandem wanted beside what was, in figures.

use jiff::Timestamp;
use serde::Serialize;

use super::timeline::Span;

/// A count of replicas or nodes: what Tandem wanted, and what was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) wanted: i64,
    pub(super) actual: i64,
}

/// How two courses of one count differ.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Comparison {
    /// Seconds of which both are known.
    pub(super) known_seconds: f64,
    /// Seconds of these in which they were not the same.
    pub(super) differs_seconds: f64,
    /// The greatest difference, above zero where Tandem wanted more; the first of several.
    pub(super) most: i64,
    /// When that began.
    pub(super) most_at: Option<Timestamp>,
    /// Changes of what Tandem wanted.
    pub(super) changes_of_tandem: u64,
    /// Changes that the others made.
    pub(super) changes_of_others: u64,
    /// Changes of the others that Tandem had wanted before.
    pub(super) tandem_first: u64,
    /// Changes of the others that Tandem agreed to later.
    pub(super) others_first: u64,
    /// Changes of the others that Tandem never wanted while they lasted.
    pub(super) others_only: u64,
    /// By how long Tandem was first, the median of those changes that both wanted; below zero where the others were.
    pub(super) lead_seconds: Option<f64>,
}

impl Comparison {
    /// Compares, over spans in the order of time.
    pub(super) fn of(spans: &[Span<Counts>]) -> Self {
        let mut it = Self::default();
        for span in spans {
            let difference = span.value.wanted - span.value.actual;
            it.known_seconds += span.seconds();
            if difference != 0 && span.to > span.from {
                it.differs_seconds += span.seconds();
                if difference.abs() > it.most.abs() {
                    (it.most, it.most_at) = (difference, Some(span.from));
                }
            }
        }
        let mut leads = Vec::new();
        for place in 1..spans.len() {
            let (before, after) = (&spans[place - 1], &spans[place]);
            if before.to != after.from {
                continue;
            }
            it.changes_of_tandem += u64::from(before.value.wanted != after.value.wanted);
            if before.value.actual == after.value.actual {
                continue;
            }
            it.changes_of_others += 1;
            match lead(spans, place) {
                None => it.others_only += 1,
                Some(lead) => {
                    it.tandem_first += u64::from(lead > 0.0);
                    it.others_first += u64::from(lead < 0.0);
                    leads.push(lead);
                }
            }
        }
        it.lead_seconds = median(leads);
        it
    }
}

/// By how long Tandem wanted a change of the others, to `spans[place]`, before they made it; below zero if it did after. `None`
/// if it did neither.
fn lead(spans: &[Span<Counts>], place: usize) -> Option<f64> {
    let (from, to) = (spans[place - 1].value.actual, spans[place].value.actual);
    let made = spans[place].from;
    let wants = |span: &Span<Counts>| (span.value.wanted - from).signum() == (to - from).signum();
    let is_next = |one: &Span<Counts>, other: &Span<Counts>| one.to == other.from;
    if wants(&spans[place - 1]) {
        let mut first = place - 1;
        while first > 0
            && is_next(&spans[first - 1], &spans[first])
            && spans[first - 1].value.actual == from
            && wants(&spans[first - 1])
        {
            first -= 1;
        }
        return Some(made.duration_since(spans[first].from).as_secs_f64());
    }
    let mut after = place;
    loop {
        if wants(&spans[after]) {
            return Some(made.duration_since(spans[after].from).as_secs_f64());
        }
        let next = spans.get(after + 1)?;
        if !is_next(&spans[after], next) || next.value.actual != to {
            return None;
        }
        after += 1;
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(values[middle - 1], upper) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spans from `(second, wanted, actual)`, each to the next; the last one to the end.
    fn spans(points: &[(i64, i64, i64)], end: i64) -> Vec<Span<Counts>> {
        let at = |second| Timestamp::from_second(second).unwrap();
        let ends = points.iter().skip(1).map(|point| point.0).chain([end]);
        let span = |((from, wanted, actual), to): (&(i64, i64, i64), i64)| Span {
            from: at(*from),
            to: at(to),
            value: Counts { wanted: *wanted, actual: *actual },
        };
        points.iter().zip(ends).map(span).collect()
    }

    #[test]
    fn courses_are_compared() {
        // Differs, most, changes of Tandem and of the others, first of both, only the others, lead.
        type Wanted = (f64, i64, [u64; 2], [u64; 2], u64, Option<f64>);
        type Case = (&'static str, &'static [(i64, i64, i64)], Wanted);
        let cases: [Case; 8] = [
            ("the same", &[(0, 2, 2)], (0.0, 0, [0, 0], [0, 0], 0, None)),
            ("Tandem alone", &[(0, 2, 2), (10, 3, 2)], (90.0, 1, [1, 0], [0, 0], 0, None)),
            ("Tandem first", &[(0, 1, 1), (10, 3, 1), (17, 3, 3)], (7.0, 2, [1, 1], [1, 0], 0, Some(7.0))),
            (
                "in two steps",
                &[(0, 1, 1), (10, 2, 1), (12, 3, 1), (17, 3, 3)],
                (7.0, 2, [2, 1], [1, 0], 0, Some(7.0)),
            ),
            (
                "the others first",
                &[(0, 1, 1), (10, 1, 3), (14, 3, 3)],
                (4.0, -2, [1, 1], [0, 1], 0, Some(-4.0)),
            ),
            ("down", &[(0, 5, 5), (10, 2, 5), (40, 2, 2)], (30.0, -3, [1, 1], [1, 0], 0, Some(30.0))),
            (
                "the others alone, and back",
                &[(0, 1, 1), (10, 1, 3), (50, 1, 1)],
                (40.0, -2, [0, 2], [1, 0], 1, Some(40.0)),
            ),
            ("together", &[(0, 1, 1), (10, 3, 3)], (0.0, 0, [1, 1], [0, 0], 0, Some(0.0))),
        ];
        for (name, points, (differs, most, changes, first, only, lead)) in cases {
            let it = Comparison::of(&spans(points, 100));
            assert_eq!((it.known_seconds, it.differs_seconds, it.most), (100.0, differs, most), "{name}");
            assert_eq!([it.changes_of_tandem, it.changes_of_others], changes, "{name}");
            assert_eq!(([it.tandem_first, it.others_first], it.others_only), (first, only), "{name}");
            assert_eq!(it.lead_seconds, lead, "{name}");
        }
    }

    #[test]
    fn what_lies_in_a_gap_is_no_change() {
        let mut gap = spans(&[(0, 1, 1), (50, 4, 4)], 100);
        gap[0].to = gap[0].from;
        let it = Comparison::of(&gap);
        assert_eq!((it.known_seconds, it.changes_of_tandem, it.changes_of_others), (50.0, 0, 0));
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![5.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(vec![1.0, 2.0]), Some(1.5));
    }
}
