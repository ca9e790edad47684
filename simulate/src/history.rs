//! The history of a metric: what its source would have answered, and when it would have failed.

use std::sync::Arc;

use jiff::Timestamp;

use crate::problem::{Place, Problem};

/// A sample holds until the next one, but no longer than this many of the history's usual intervals; beyond lies a gap.
const HOLDS_INTERVALS: u32 = 3;
/// However often samples come, one holds for this long, in seconds: Prometheus' own look-back.
const HOLDS_AT_LEAST: u32 = 300;
/// A history that only ever rises between falls to nearly nothing looks like a counter; fewer samples tell nothing.
const COUNTER_FROM: usize = 50;
/// The most notes of one kind about a history; the rest are counted.
const NOTES: usize = 3;

/// Samples by time, and the spans in which the source failed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    /// Where it is from, for messages.
    pub name: Arc<str>,
    first: i64,
    /// Seconds since the first sample, ascending.
    times: Vec<u32>,
    values: Vec<f64>,
    /// From and to (exclusive), in seconds since the first sample.
    gaps: Vec<(u32, u32)>,
    notes: Vec<String>,
}

/// A place in a history, for whoever reads it forward in time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cursor {
    sample: usize,
    gap: usize,
}

/// One line of a history: a time in seconds since 1970 and the value, `None` where the source failed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Seconds since 1970.
    pub at: i64,
    /// The value; `None` where the source failed.
    pub value: Option<f64>,
}

impl History {
    /// Reads `time,value` lines: times in RFC 3339 with an offset or in Unix seconds, ascending; a value that is missing
    /// means that the source failed then. A first line without a time is a heading; `#` begins a comment.
    pub fn parse(name: &str, text: &str) -> Result<Self, Vec<Problem>> {
        let mut samples: Vec<Sample> = Vec::new();
        let mut problems = Vec::new();
        let mut last_line = 0;
        let mut is_first = true;
        for (index, line) in text.lines().enumerate() {
            let number = index as u64 + 1;
            let line = line.trim().trim_start_matches('\u{feff}');
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let heading = std::mem::take(&mut is_first);
            match sample(line) {
                Ok(sample) => {
                    if let Some(problem) = order(samples.last(), sample, last_line) {
                        problems.push(Problem::at(place(name, number), problem));
                        continue;
                    }
                    samples.push(sample);
                    last_line = number;
                }
                Err(_) if heading && is_heading(line) => {}
                Err(problem) => problems.push(Problem::at(place(name, number), problem)),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Self::new(name, &samples).map_err(|problem| vec![problem])
    }

    /// A history of samples that ascend in time.
    pub fn new(name: &str, samples: &[Sample]) -> Result<Self, Problem> {
        let Some(first) = samples.iter().find(|sample| sample.value.is_some()).map(|sample| sample.at) else {
            return Err(Problem::at(place(name, 0), "has no samples"));
        };
        let mut history = Self { name: name.into(), first, ..Self::default() };
        let too_long = || Problem::at(place(name, 0), "spans more than 136 years: are the times in seconds?");
        let mut failed: Option<u32> = None;
        for sample in samples.iter().filter(|sample| sample.at >= first) {
            let at = u32::try_from(sample.at - first).map_err(|_| too_long())?;
            if let Some(since) = failed.take() {
                history.gaps.push((since, at));
            }
            match sample.value {
                Some(value) => {
                    history.times.push(at);
                    history.values.push(value);
                }
                None => failed = Some(at),
            }
        }
        if let Some(since) = failed {
            history.gaps.push((since, u32::MAX));
        }
        history.find_gaps();
        history.look_closer();
        Ok(history)
    }

    /// The usual seconds between samples.
    fn interval(&self) -> u32 {
        let mut intervals: Vec<u32> = self.times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        intervals.sort_unstable();
        intervals.get(intervals.len() / 2).copied().unwrap_or(HOLDS_AT_LEAST).max(1)
    }

    /// Adds the spans that no sample reaches into, the one after the last sample among them.
    fn find_gaps(&mut self) {
        let holds = self.interval().saturating_mul(HOLDS_INTERVALS).max(HOLDS_AT_LEAST);
        let next = self.times.iter().skip(1).copied().chain([u32::MAX]);
        let silent = self.times.iter().zip(next).filter(|(at, next)| next - **at > holds);
        let silent: Vec<_> = silent.map(|(at, next)| (at + holds, next)).collect();
        self.gaps.extend(silent);
        self.gaps.sort_unstable();
        // A failure that was written down may lie in a silence.
        let mut joined: Vec<(u32, u32)> = Vec::new();
        for (from, to) in std::mem::take(&mut self.gaps) {
            match joined.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => joined.push((from, to)),
            }
        }
        self.gaps = joined;
    }

    fn look_closer(&mut self) {
        let odd = self.times.iter().zip(&self.values).filter(|(_, value)| !value.is_finite());
        let count = odd.clone().count();
        if let Some((at, value)) = odd.clone().next() {
            self.notes.push(format!(
                "{}: {count} values are {value}, the first at {}: read as the trigger reads such an answer",
                self.name,
                self.time(*at)
            ));
        }
        let falls: Vec<_> = (1..self.values.len()).filter(|i| self.values[*i] < self.values[i - 1]).collect();
        let resets = falls.iter().all(|i| self.values[*i] < self.values[i - 1] / 10.0);
        let rises = self.values.windows(2).filter(|pair| pair[1] > pair[0]).count();
        if !falls.is_empty() && resets && rises > COUNTER_FROM && self.values.len() > COUNTER_FROM {
            let first = self.time(self.times[falls[0]]);
            self.notes.push(format!(
                "{}: looks like a raw counter with {} resets, the first at {first}: a trigger wants its rate()",
                self.name,
                falls.len()
            ));
        }
    }

    fn time(&self, offset: u32) -> Timestamp {
        Timestamp::from_second(self.first + i64::from(offset)).unwrap_or(Timestamp::MAX)
    }

    /// The time of the first sample.
    pub fn start(&self) -> Timestamp {
        self.time(0)
    }

    /// When the last sample has had its usual interval.
    pub fn end(&self) -> Timestamp {
        let last = self.times.last().copied().unwrap_or_default();
        self.time(last.saturating_add(self.interval()))
    }

    /// The value at a time, in seconds since 1970; `None` where the source failed. Times must not fall between calls with
    /// one cursor.
    pub fn at(&self, seconds: i64, cursor: &mut Cursor) -> Option<f64> {
        let offset = u32::try_from(seconds - self.first).ok()?;
        while self.times.get(cursor.sample + 1).is_some_and(|next| *next <= offset) {
            cursor.sample += 1;
        }
        while self.gaps.get(cursor.gap).is_some_and(|(_, to)| *to <= offset) {
            cursor.gap += 1;
        }
        let failed = self.gaps.get(cursor.gap).is_some_and(|(from, _)| *from <= offset);
        if failed { None } else { self.values.get(cursor.sample).copied() }
    }

    /// What is to be said about it when it is replayed between two times.
    pub fn notes(&self, start: Timestamp, end: Timestamp) -> Vec<String> {
        let mut notes = self.notes.clone();
        let (from, to) = (start.as_second() - self.first, end.as_second() - self.first);
        let mut gaps: Vec<(i64, i64)> =
            self.gaps.iter().map(|(from, to)| (i64::from(*from), i64::from(*to))).collect();
        if from < 0 {
            gaps.insert(0, (from, 0));
        }
        let clipped = gaps.iter().map(|gap| (gap.0.max(from), gap.1.min(to)));
        let seen: Vec<_> = clipped.filter(|(from, to)| from < to).collect();
        for (from, to) in seen.iter().take(NOTES) {
            let at = |offset: i64| Timestamp::from_second(self.first + offset).unwrap_or(Timestamp::MAX);
            let length = to - from;
            notes.push(format!(
                "{}: no samples from {} to {} ({length} s): the source counts as failed then",
                self.name,
                at(*from),
                at(*to)
            ));
        }
        if seen.len() > NOTES {
            notes.push(format!("{}: {} more such gaps", self.name, seen.len() - NOTES));
        }
        notes
    }
}

fn place(name: &str, line: u64) -> Place {
    Place { file: name.into(), line, ..Place::default() }
}

/// What is wrong with a sample that follows another.
fn order(last: Option<&Sample>, next: Sample, last_line: u64) -> Option<String> {
    let last = last?;
    let time = |seconds| Timestamp::from_second(seconds).unwrap_or_default();
    if next.at < last.at {
        let (next, last) = (time(next.at), time(last.at));
        return Some(format!("time {next} is before {last} of line {last_line}: sort the lines by time"));
    }
    (next.at == last.at)
        .then(|| format!("time {} is that of line {last_line} already: keep one", time(next.at)))
}

fn is_heading(line: &str) -> bool {
    !line.starts_with(|first: char| first.is_ascii_digit() || first == '-')
}

fn sample(line: &str) -> Result<Sample, String> {
    let (time, value) = line.split_once(',').ok_or_else(|| format!("{line:?} is no \"time,value\""))?;
    let value =
        match value.trim().trim_matches('"') {
            "" | "null" => None,
            text => Some(text.parse::<f64>().map_err(|_| {
                format!("value {text:?} is no number, leave it empty where the source failed")
            })?),
        };
    Ok(Sample { at: seconds(time.trim().trim_matches('"'))?, value })
}

/// A time in RFC 3339 with an offset, or in Unix seconds.
fn seconds(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        // Milliseconds would lie tens of thousands of years ahead.
        const LATEST: f64 = 253_402_207_200.0;
        if !(0.0..LATEST).contains(&seconds) {
            return Err(format!("time {text} is not in Unix seconds; milliseconds must be divided by 1000"));
        }
        #[allow(
            clippy::cast_possible_truncation,
            reason = "whole seconds are meant, and the range is checked"
        )]
        return Ok(seconds.floor() as i64);
    }
    text.parse::<Timestamp>().map(Timestamp::as_second).map_err(|_| {
        let local = text.replace(' ', "T").parse::<jiff::civil::DateTime>().is_ok();
        if local {
            format!("time {text:?} has no time zone, add Z or an offset such as +02:00")
        } else {
            format!("time {text:?} is neither RFC 3339 such as 2026-01-31T08:00:00Z nor Unix seconds")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values at seconds after the first sample.
    fn values<const N: usize>(text: &str, at: [i64; N]) -> [Option<f64>; N] {
        let history = History::parse("h.csv", text).unwrap();
        let mut cursor = Cursor::default();
        at.map(|second| history.at(history.start().as_second() + second, &mut cursor))
    }

    #[test]
    fn a_sample_holds_until_the_next_and_not_for_ever() {
        let text = "time,value\n100,1\n\n# from here on more\n160,2\n220,\n280,4\n1000,5\n";
        assert_eq!(
            values(text, [-1, 0, 59, 60, 120, 179, 180, 539, 540, 899, 900]),
            [None, Some(1.0), Some(1.0), Some(2.0), None, None, Some(4.0), Some(4.0), None, None, Some(5.0)]
        );
    }

    #[test]
    fn times_are_absolute_in_whatever_form() {
        let texts =
            ["1767571200,1", "1767571200.4,1", "2026-01-05T00:00:00Z,1", "\"2026-01-05T01:00:00+01:00\", 1"];
        for text in texts {
            let history = History::parse("h.csv", text).unwrap();
            assert_eq!(history.start().as_second(), 1_767_571_200, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, wanted) in [
            ("", "h.csv: has no samples"),
            ("time,value\n", "h.csv: has no samples"),
            ("1,\n2,\n", "h.csv: has no samples"),
            ("1,1\n2\n", "h.csv:2: \"2\" is no \"time,value\""),
            ("1,1\n2,x\n", "h.csv:2: value \"x\" is no number, leave it empty where the source failed"),
            (
                "20,1\n\n10,2\n",
                "h.csv:3: time 1970-01-01T00:00:10Z is before 1970-01-01T00:00:20Z of line 1: sort the lines by time",
            ),
            ("20,1\n20,1\n", "h.csv:2: time 1970-01-01T00:00:20Z is that of line 1 already: keep one"),
            (
                "2026-01-05 08:00:00,1\n",
                "h.csv:1: time \"2026-01-05 08:00:00\" has no time zone, add Z or an offset such as +02:00",
            ),
            (
                "1767571200000,1\n",
                "h.csv:1: time 1767571200000 is not in Unix seconds; milliseconds must be divided by 1000",
            ),
            (
                "1,1\nnoon,2\n",
                "h.csv:2: time \"noon\" is neither RFC 3339 such as 2026-01-31T08:00:00Z nor Unix seconds",
            ),
        ] {
            let problems = History::parse("h.csv", text).unwrap_err();
            assert_eq!(problems[0].to_string(), wanted, "{text:?}");
        }
        let all = History::parse("h.csv", "1,1\nx,1\n3,y\n").unwrap_err();
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn gaps_nans_and_counters_are_told() {
        let notes = |samples: &[(i64, f64)], length: i64| {
            let samples: Vec<_> =
                samples.iter().map(|(at, value)| Sample { at: *at, value: Some(*value) }).collect();
            let at = |second| Timestamp::from_second(second).unwrap();
            History::new("h", &samples).unwrap().notes(at(0), at(length))
        };
        let told = notes(&[(0, 1.0), (15, f64::NAN), (1015, 1.0), (1030, 1.0)], 1040);
        assert!(told[0].starts_with("h: 1 values are NaN, the first at 1970-01-01T00:00:15Z"), "{told:?}");
        assert!(
            told[1].starts_with("h: no samples from 1970-01-01T00:05:15Z to 1970-01-01T00:16:55Z"),
            "{told:?}"
        );
        let counter: Vec<_> = (0..100).map(|i| (i * 15, f64::from(u8::try_from(i % 60).unwrap()))).collect();
        let told = notes(&counter, 1500);
        assert!(told[0].contains("looks like a raw counter with 1 resets"), "{told:?}");
        let wave: Vec<_> =
            (0..100).map(|i| (i * 15, f64::from(u8::try_from(i % 7).unwrap()) + 5.0)).collect();
        assert_eq!(notes(&wave, 1500), Vec::<String>::new());
    }
}
