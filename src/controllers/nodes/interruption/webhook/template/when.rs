//! Times in Go's layouts, Go's durations (`time`), and what sprig does with them.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp, Zoned, tz::TimeZone};

use super::{
    functions::{Answer, str, wrong},
    value::Value,
};

/// The elements of a layout, each with the format of `strftime` that is the same; longer ones go before what they begin
/// with. A word is none where a small letter follows.
const ELEMENTS: &[(&str, &str)] = &[
    ("January", "%B"),
    ("Jan", "%b"),
    ("Monday", "%A"),
    ("Mon", "%a"),
    ("MST", "%Z"),
    ("2006", "%Y"),
    ("__2", "%_j"),
    ("002", "%j"),
    ("01", "%m"),
    ("02", "%d"),
    ("03", "%I"),
    ("04", "%M"),
    ("05", "%S"),
    ("06", "%y"),
    ("15", "%H"),
    ("_2006", "_%Y"),
    ("_2", "%e"),
    ("1", "%-m"),
    ("2", "%-d"),
    ("3", "%-I"),
    ("4", "%-M"),
    ("5", "%-S"),
    ("PM", "%p"),
    ("pm", "%P"),
    ("-07:00:00", "%::z"),
    ("-070000", "%::z"),
    ("-07:00", "%:z"),
    ("-0700", "%z"),
    ("-07", "%:z"),
    ("Z07:00:00", "Z%::z"),
    ("Z070000", "Z%::z"),
    ("Z07:00", "Z%:z"),
    ("Z0700", "Z%z"),
    ("Z07", "Z%:z"),
];

/// A time in one of Go's layouts.
pub(super) fn formatted(time: &Zoned, layout: &str) -> String {
    let (mut out, mut rest) = (String::new(), layout);
    while let Some(first) = rest.chars().next() {
        if let Some((fraction, after)) = fraction(rest) {
            out.push_str(&written_fraction(time, fraction));
            rest = after;
        } else if let Some((element, format)) = element(rest) {
            out.push_str(&written(time, element, format));
            rest = &rest[element.len()..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

fn element(rest: &str) -> Option<(&'static str, &'static str)> {
    let is_next = |(element, _): &&(&str, &str)| {
        let after = rest.strip_prefix(element);
        let is_word = matches!(*element, "Jan" | "Mon");
        after.is_some_and(|after| !(is_word && after.starts_with(|char: char| char.is_ascii_lowercase())))
    };
    // `_2006` is an underscore and a year.
    let year = ELEMENTS.iter().filter(|(element, _)| *element == "_2006");
    year.chain(ELEMENTS).find(is_next).copied()
}

fn written(time: &Zoned, element: &str, format: &str) -> String {
    if let Some(format) = format.strip_prefix('Z') {
        return if time.offset().is_zero() { "Z".to_owned() } else { written(time, &element[1..], format) };
    }
    let text = time.strftime(format).to_string();
    match element {
        "-07" | "07" => text.split(':').next().unwrap_or_default().to_owned(),
        "-070000" | "070000" => text.replace(':', ""),
        _ => text,
    }
}

/// Digits of a second behind a point or a comma: the element, and what follows.
fn fraction(rest: &str) -> Option<(&str, &str)> {
    let digits = rest.strip_prefix(['.', ','])?;
    let digit = digits.chars().next().filter(|digit| matches!(digit, '0' | '9'))?;
    let after = digits.trim_start_matches(digit);
    let ends = !after.starts_with(|char: char| char.is_ascii_digit());
    ends.then(|| rest.split_at(rest.len() - after.len()))
}

/// Nines leave zeros at the end out, and the point with them.
fn written_fraction(time: &Zoned, element: &str) -> String {
    let digits = format!("{:09}", time.subsec_nanosecond());
    let wanted = element.len() - 1;
    let digits: String = digits.chars().chain(std::iter::repeat('0')).take(wanted).collect();
    let (point, is_trimmed) = (&element[..1], element.ends_with('9'));
    let digits = if is_trimmed { digits.trim_end_matches('0') } else { &digits };
    if digits.is_empty() { String::new() } else { format!("{point}{digits}") }
}

/// A zone by its name; UTC where there is no such zone, as sprig has it.
pub(super) fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap_or(TimeZone::UTC)
}

/// A duration as Go reads it (`-1.5h`, `2h45m`); `None` of another text.
pub(super) fn duration(text: &str) -> Option<SignedDuration> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("μs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    let mut seconds = 0.0;
    loop {
        let end = rest.find(|char: char| !char.is_ascii_digit() && char != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit = rest[end..].find(|char: char| char.is_ascii_digit() || char == '.');
        let unit = unit.map_or(&rest[end..], |length| &rest[end..end + length]);
        let (_, factor) = UNITS.iter().find(|(known, _)| *known == unit)?;
        seconds += number * factor;
        rest = &rest[end + unit.len()..];
        if rest.is_empty() {
            return SignedDuration::try_from_secs_f64(sign * seconds).ok();
        }
    }
}

/// Whole seconds as Go prints a duration: `1h0m5s`.
pub(super) fn printed(seconds: i64) -> String {
    let (sign, seconds) = (if seconds < 0 { "-" } else { "" }, seconds.unsigned_abs());
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = sign.to_owned();
    // Writing to text cannot fail.
    if hours > 0 {
        let _ = write!(text, "{hours}h");
    }
    if hours > 0 || minutes > 0 {
        let _ = write!(text, "{minutes}m");
    }
    let _ = write!(text, "{seconds}s");
    text
}

/// The layout, the time, and the zone, which is UTC where none is named: that of the handler's image.
pub(super) fn date(values: &[Value], now: Timestamp) -> Answer {
    let zone = values.get(2).map_or(Ok(TimeZone::UTC), |name| str(name).map(zone))?;
    // What is no time is now, as sprig has it.
    let time = match &values[1] {
        Value::Time(time) => time.timestamp(),
        Value::Int(seconds) => Timestamp::from_second(*seconds).map_err(|error| error.to_string())?,
        _ => now,
    };
    Ok(formatted(&time.to_zoned(zone), str(&values[0])?).into())
}

pub(super) fn time(value: &Value) -> Result<&Zoned, String> {
    match value {
        Value::Time(time) => Ok(time),
        other => Err(wrong("time.Time", other)),
    }
}

/// A time so much later; the same where the duration is none, as sprig has it.
pub(super) fn modified(values: &[Value]) -> Answer {
    let time = time(&values[1])?;
    let Some(duration) = duration(str(&values[0])?) else { return Ok(values[1].clone()) };
    time.checked_add(duration).map(Value::Time).map_err(|error| error.to_string())
}

/// How long ago a time was, in whole seconds.
pub(super) fn ago(value: &Value, now: Timestamp) -> Answer {
    let past = match value {
        Value::Int(seconds) => Timestamp::from_second(*seconds).map_err(|error| error.to_string())?,
        Value::Time(time) => time.timestamp(),
        _ => now,
    };
    let since = now.duration_since(past);
    let half = since.subsec_nanos().abs() >= 500_000_000;
    let seconds = since.as_secs() + if half { i64::from(since.subsec_nanos().signum()) } else { 0 };
    Ok(printed(seconds).into())
}
