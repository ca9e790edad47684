//! Cron lines: five fields as robfig/cron reads them, put into the words of the `cron` crate.
//!
//! The crate speaks Quartz: seconds first, Sunday is 1, day of month AND day of week. Users of KEDA and Karpenter write Vixie lines as
//! robfig/cron v3 reads them (`parser.go`, `spec.go`): no seconds, Sunday is 0, `N/s` means `N-max/s`, and when neither
//! day field starts with a plain `*` or `?` either of the two suffices. So a line becomes one or two `cron::Schedule`s,
//! and the earlier of their times counts.
//!
//! Times are matched on the wall clock of a zone: what a change of the clock skips does not occur, what it repeats
//! occurs twice.

use std::str::FromStr;

use chrono::{DateTime, Datelike, Utc};
use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

/// A parsed line.
#[derive(Debug)]
pub struct Schedule {
    /// All must be asked; the earliest answer counts.
    alternatives: Vec<cron::Schedule>,
    /// From a `TZ=` or `CRON_TZ=` prefix; goes before the zone that is asked for.
    zone: Option<TimeZone>,
}

/// Why a line is none. The texts up to the hints are robfig/cron's, which KEDA and Karpenter hand on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Not five fields.
    #[error("expected exactly 5 fields, found {found}: [{line}]")]
    FieldCount {
        /// How many there are.
        found: usize,
        /// The line.
        line: String,
    },
    /// `@daily` and the like, where they are not read.
    #[error("parser does not accept descriptors: {0}, write the five fields")]
    Descriptor(String),
    /// An `@` word that nothing stands for.
    #[error(
        "unrecognized descriptor: {0}, write @yearly, @monthly, @weekly, @daily, @hourly or the five fields"
    )]
    UnknownDescriptor(String),
    /// A time zone that the database does not have.
    #[error("provided bad location {0}: unknown time zone")]
    Zone(String),
    /// Neither a number nor a name.
    #[error("failed to parse int from {value:?} in the {field} field")]
    Number {
        /// What it is.
        value: String,
        /// The field.
        field: &'static str,
    },
    /// Too many hyphens or slashes.
    #[error("too many {what}: {expression}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The part of the field.
        expression: String,
    },
    /// A range that begins too low.
    #[error("beginning of range ({start}) below minimum ({min}) of the {field} field: {expression}")]
    Below {
        /// Where it begins.
        start: u32,
        /// Where it may begin.
        min: u32,
        /// The field.
        field: &'static str,
        /// The part of the field.
        expression: String,
    },
    /// A range that ends too high.
    #[error("end of range ({end}) above maximum ({max}) of the {field} field: {expression}{hint}")]
    Above {
        /// Where it ends.
        end: u32,
        /// Where it may end.
        max: u32,
        /// The field.
        field: &'static str,
        /// The part of the field.
        expression: String,
        /// What may have been meant.
        hint: &'static str,
    },
    /// A range that ends before it begins.
    #[error("beginning of range ({start}) beyond end of range ({end}): {expression}")]
    Backwards {
        /// Where it begins.
        start: u32,
        /// Where it ends.
        end: u32,
        /// The part of the field.
        expression: String,
    },
    /// A step of zero.
    #[error("step of range should be a positive number: {0}")]
    Step(String),
    /// Nothing but commas.
    #[error("the {0} field is empty")]
    Empty(&'static str),
    /// The thirtieth of February.
    #[error("[{0}] names a day that no month has, it never occurs")]
    Never(String),
    /// What the cron crate says of the translation.
    #[error("{0}")]
    Crate(String),
}

/// Words for lines (robfig/cron, `parseDescriptor`).
const DESCRIPTORS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// One of the five fields: its limits and the names of its values.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", min: 0, max: 59, names: &[] },
    Field { name: "hour", min: 0, max: 23, names: &[] },
    Field { name: "day-of-month", min: 1, max: 31, names: &[] },
    Field {
        name: "month",
        min: 1,
        max: 12,
        names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    },
    Field { name: "day-of-week", min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];

/// Values of a field, and whether it began with a star or question mark without a step.
struct Values {
    bits: u64,
    star: bool,
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let (zone, line) = split_zone(line)?;
        if line.starts_with('@') {
            return Err(ScheduleError::Descriptor(line.to_owned()));
        }
        let fields: Vec<_> = line.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(ScheduleError::FieldCount { found: fields.len(), line: line.to_owned() });
        };
        let [minutes, hours, days, months, weekdays] = &FIELDS;
        let minutes = minutes.list(minutes.parse(minute)?.bits, 0);
        let hours = hours.list(hours.parse(hour)?.bits, 0);
        let month_bits = months.parse(month)?.bits;
        let (day, weekday) = (days.parse(day)?, weekdays.parse(weekday)?);
        let (day_list, weekday_list) = (days.list(day.bits, 0), weekdays.list(weekday.bits, 1));
        // A star on either side makes it "and"; with the star being everything, that is what the crate does.
        let both = day.star || weekday.star;
        let pairs = if both {
            vec![(day_list.as_str(), weekday_list.as_str())]
        } else {
            vec![(day_list.as_str(), "*"), ("*", weekday_list.as_str())]
        };
        if both && !any_day(day.bits, month_bits) {
            return Err(ScheduleError::Never(line.to_owned()));
        }
        let months = months.list(month_bits, 0);
        let alternatives = pairs
            .into_iter()
            .map(|(days, weekdays)| format!("0 {minutes} {hours} {days} {months} {weekdays}").parse())
            .collect::<Result<_, cron::error::Error>>()
            .map_err(|problem| ScheduleError::Crate(problem.to_string()))?;
        Ok(Self { alternatives, zone })
    }
}

/// Whether any of the months has any of the days.
fn any_day(days: u64, months: u64) -> bool {
    const LONGEST: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    (1_u32..)
        .zip(LONGEST)
        .any(|(month, length)| months & (1 << month) != 0 && days.trailing_zeros() <= length)
}

fn split_zone(line: &str) -> Result<(Option<TimeZone>, &str), ScheduleError> {
    let Some(rest) = line.strip_prefix("CRON_TZ=").or_else(|| line.strip_prefix("TZ=")) else {
        return Ok((None, line));
    };
    let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let zone = TimeZone::get(name).map_err(|_| ScheduleError::Zone(name.to_owned()))?;
    Ok((Some(zone), rest.trim()))
}

impl Field {
    fn parse(&self, text: &str) -> Result<Values, ScheduleError> {
        let parts: Vec<_> = text.split(',').filter(|part| !part.is_empty()).collect();
        if parts.is_empty() {
            return Err(ScheduleError::Empty(self.name));
        }
        parts.into_iter().try_fold(Values { bits: 0, star: false }, |all, part| {
            let values = self.part(part)?;
            Ok(Values { bits: all.bits | values.bits, star: all.star || values.star })
        })
    }

    /// `*`, `?`, `N` or `N-M`, each with an optional `/step`.
    fn part(&self, expression: &str) -> Result<Values, ScheduleError> {
        let too_many = |what| ScheduleError::TooMany { what, expression: expression.to_owned() };
        let mut halves = expression.split('/');
        let (range, step) = (halves.next().unwrap_or_default(), halves.next());
        if halves.next().is_some() {
            return Err(too_many("slashes"));
        }
        let mut ends = range.split('-');
        let (low, high) = (ends.next().unwrap_or_default(), ends.next());
        let star = matches!(low, "*" | "?");
        let (start, mut end) = if star {
            (self.min, self.max)
        } else if ends.next().is_some() {
            return Err(too_many("hyphens"));
        } else {
            let start = self.value(low)?;
            (start, high.map_or(Ok(start), |high| self.value(high))?)
        };
        let step = match step {
            Some(step) => self.number(step)?,
            None => 1,
        };
        if expression.contains('/') && high.is_none() {
            end = self.max;
        }
        self.check(start, end, step, expression)?;
        let bits = (start..=end).step_by(step as usize).fold(0, |bits, value| bits | 1 << value);
        Ok(Values { bits, star: star && step == 1 })
    }

    fn check(&self, start: u32, end: u32, step: u32, expression: &str) -> Result<(), ScheduleError> {
        let (min, max, field, expression) = (self.min, self.max, self.name, expression.to_owned());
        if start < min {
            return Err(ScheduleError::Below { start, min, field, expression });
        }
        if end > max {
            let hint = if max == 6 && end == 7 { ", Sunday is 0" } else { "" };
            return Err(ScheduleError::Above { end, max, field, expression, hint });
        }
        if start > end {
            return Err(ScheduleError::Backwards { start, end, expression });
        }
        if step == 0 {
            return Err(ScheduleError::Step(expression));
        }
        Ok(())
    }

    fn value(&self, text: &str) -> Result<u32, ScheduleError> {
        match self.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            Some(position) => Ok(self.min + u32::try_from(position).unwrap_or_default()),
            None => self.number(text),
        }
    }

    fn number(&self, text: &str) -> Result<u32, ScheduleError> {
        text.parse().map_err(|_| ScheduleError::Number { value: text.to_owned(), field: self.name })
    }

    /// The values in the crate's words, each moved up by `shift`.
    fn list(&self, bits: u64, shift: u32) -> String {
        let values: Vec<_> = (self.min..=self.max).filter(|value| bits & (1 << value) != 0).collect();
        if values.len() == (self.max - self.min + 1) as usize {
            return "*".to_owned();
        }
        let values: Vec<_> = values.into_iter().map(|value| (value + shift).to_string()).collect();
        values.join(",")
    }
}

impl Schedule {
    /// Reads five fields, or a word such as `@daily` for them (`ParseStandard`, without `@every`).
    pub fn standard(line: &str) -> Result<Self, ScheduleError> {
        let (zone, fields) = split_zone(line)?;
        if !fields.starts_with('@') {
            return line.parse();
        }
        let fields = DESCRIPTORS
            .iter()
            .find(|(word, _)| *word == fields)
            .map(|(_, line)| *line)
            .ok_or_else(|| ScheduleError::UnknownDescriptor(fields.to_owned()))?;
        Ok(Self { zone, ..fields.parse()? })
    }

    /// The first occurrence after `now` on the wall clock of `zone`; `None` when there is none within five years,
    /// robfig/cron's horizon.
    pub fn next(&self, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let zone = self.zone.as_ref().unwrap_or(zone);
        self.alternatives.iter().filter_map(|schedule| next(schedule, now, zone)).min()
    }
}

/// Between two changes of the clock, wall time is time plus a constant: there the crate may count as if in UTC. At each
/// change the count starts afresh, so skipped times are never met and repeated ones are met again.
fn next(schedule: &cron::Schedule, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let horizon = wall(now, zone.to_offset(now))?.year() + 5;
    let mut changes = zone.following(now);
    let (mut after, mut offset) = (now, zone.to_offset(now));
    loop {
        let change = changes.next();
        let wall_time = schedule.after(&wall(after, offset)?).next()?;
        let time = Timestamp::from_second(wall_time.timestamp() - i64::from(offset.seconds())).ok()?;
        match change {
            Some(change) if change.timestamp() <= time => {
                // The crate answers with later times only, and the change itself may be an occurrence.
                after = Timestamp::from_second(change.timestamp().as_second() - 1).ok()?;
                offset = change.offset();
                if wall(after, offset)?.year() > horizon {
                    return None;
                }
            }
            _ => return (wall_time.year() <= horizon).then_some(time),
        }
    }
}

/// What a clock with this offset from UTC shows, as if it were UTC.
fn wall(time: Timestamp, offset: Offset) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.as_second() + i64::from(offset.seconds()), 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn next(line: &str, now: &str, zone: &str) -> String {
        let schedule: Schedule = line.parse().unwrap_or_else(|problem| panic!("{line}: {problem}"));
        let zone = TimeZone::get(zone).unwrap();
        schedule.next(at(now), &zone).map_or("never".to_owned(), |time| time.to_string())
    }

    #[test]
    fn lines_mean_what_robfig_cron_means() {
        let now = "2026-11-20T00:30:00Z";
        for (line, wanted) in [
            ("0 8 * * 1-5", "2026-11-20T08:00:00Z"),
            ("0 0 13 * 5", "2026-11-27T00:00:00Z"),
            ("0 0 * * 0", "2026-11-22T00:00:00Z"),
            ("*/15 9-17 ? * MON-FRI", "2026-11-20T09:00:00Z"),
            ("0 0 */2 * 1", "2026-11-21T00:00:00Z"),
            ("5/10 * * * *", "2026-11-20T00:35:00Z"),
            ("0 0 * * Sat", "2026-11-21T00:00:00Z"),
            ("0 0 1 Jan *", "2027-01-01T00:00:00Z"),
            ("30 0 * * *", "2026-11-21T00:30:00Z"),
            ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
            (",5 0 * * *", "2026-11-21T00:05:00Z"),
            ("TZ=Asia/Kolkata 30 6 * * *", "2026-11-20T01:00:00Z"),
            ("CRON_TZ=Europe/Berlin 0 2 * * *", "2026-11-20T01:00:00Z"),
        ] {
            assert_eq!(next(line, now, "UTC"), wanted, "{line}");
        }
    }

    #[test]
    fn bad_lines_say_why() {
        for (line, wanted) in [
            ("0 0 * * 7", "end of range (7) above maximum (6) of the day-of-week field: 7, Sunday is 0"),
            ("-50 * * * *", "failed to parse int from \"\" in the minute field"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("0 * * * * *", "expected exactly 5 fields, found 6: [0 * * * * *]"),
            ("@daily", "parser does not accept descriptors: @daily, write the five fields"),
            ("60 * * * *", "end of range (60) above maximum (59) of the minute field: 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1) of the day-of-month field: 0"),
            ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            (", * * * *", "the minute field is empty"),
            ("0 0 * foo *", "failed to parse int from \"foo\" in the month field"),
            ("TZ=Mars/Olympus 0 0 * * *", "provided bad location Mars/Olympus: unknown time zone"),
            ("0 0 30 2 *", "[0 0 30 2 *] names a day that no month has, it never occurs"),
        ] {
            let problem = line.parse::<Schedule>().expect_err(line);
            assert_eq!(problem.to_string(), wanted, "{line}");
        }
    }

    #[test]
    fn words_stand_for_lines() {
        let next = |line: &str, now: &str| {
            let schedule = Schedule::standard(line).unwrap();
            schedule.next(at(now), &TimeZone::UTC).map(|time| time.to_string())
        };
        for (word, wanted) in [
            ("@yearly", "2027-01-01T00:00:00Z"),
            ("@annually", "2027-01-01T00:00:00Z"),
            ("@monthly", "2026-12-01T00:00:00Z"),
            ("@weekly", "2026-11-22T00:00:00Z"),
            ("@daily", "2026-11-21T00:00:00Z"),
            ("@midnight", "2026-11-21T00:00:00Z"),
            ("@hourly", "2026-11-20T01:00:00Z"),
            ("TZ=Asia/Kolkata @daily", "2026-11-20T18:30:00Z"),
            ("30 6 * * *", "2026-11-20T06:30:00Z"),
        ] {
            assert_eq!(next(word, "2026-11-20T00:30:00Z").as_deref(), Some(wanted), "{word}");
        }
        let problem = Schedule::standard("@fortnightly").unwrap_err();
        assert_eq!(problem, ScheduleError::UnknownDescriptor("@fortnightly".to_owned()));
    }

    #[test]
    fn a_skipped_time_does_not_occur_and_a_repeated_one_occurs_twice() {
        // Berlin 2026: 29 March 02:00 → 03:00, 25 October 03:00 → 02:00.
        for (line, now, wanted) in [
            ("30 2 * * *", "2026-03-29T00:00:00Z", "2026-03-30T00:30:00Z"),
            ("0 3 * * *", "2026-03-28T23:00:00Z", "2026-03-29T01:00:00Z"),
            ("30 2 * * *", "2026-10-24T23:00:00Z", "2026-10-25T00:30:00Z"),
            ("30 2 * * *", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"),
            ("30 2 * * *", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"),
            ("*/20 * * * *", "2026-10-25T00:50:00Z", "2026-10-25T01:00:00Z"),
        ] {
            assert_eq!(next(line, now, "Europe/Berlin"), wanted, "{line} after {now}");
        }
    }

    proptest! {
        /// The same answer as trying every minute.
        #[test]
        fn agrees_with_a_walk_over_the_minutes(
            minute in 0_u32..60, hour in 0_u32..24, step in 1_u32..8, weekday in 0_u32..7,
            start in 1_774_000_000_i64..1_794_000_000,
        ) {
            let zone = TimeZone::get("Europe/Berlin").unwrap();
            let now = Timestamp::from_second(start).unwrap();
            let schedule: Schedule = format!("{minute}-59/{step} {hour} * * {weekday}").parse().unwrap();
            // At most two weeks: one weekday, and an hour that the clock skips on it.
            let minutes = (1..=2 * 7 * 24 * 60 + 60).map(|ahead| (start / 60 + ahead) * 60);
            let walked = minutes.map(|second| Timestamp::from_second(second).unwrap()).find(|time| {
                let clock = time.to_zoned(zone.clone());
                let (m, h) = (u32::try_from(clock.minute()).unwrap(), u32::try_from(clock.hour()).unwrap());
                let day = u32::try_from(clock.weekday().to_sunday_zero_offset()).unwrap();
                m >= minute && (m - minute) % step == 0 && h == hour && day == weekday
            });
            prop_assert_eq!(schedule.next(now, &zone), walked);
        }
    }
}
