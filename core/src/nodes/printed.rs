//! Numbers and times as Go prints them, in which Cluster Autoscaler's events and log lines have them.

use jiff::{SignedDuration, Timestamp};

/// A time that never was (`time.Time{}`).
const NEVER: &str = "0001-01-01 00:00:00 +0000 UTC";

/// A time as Go's default format has it, such as `2023-11-24 04:28:19.54675 +0000 UTC`.
pub fn timestamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string()
}

/// The same of a time that may not have been yet.
pub fn timestamp_or_never(time: Option<Timestamp>) -> String {
    time.map_or_else(|| NEVER.to_owned(), timestamp)
}

/// A duration: `10s`, `15m0s`, `1h0m5.25s`, `1.5ms`.
pub fn duration(duration: SignedDuration) -> String {
    let sign = if duration.is_negative() { "-" } else { "" };
    let (seconds, nanos) = (duration.as_secs().unsigned_abs(), duration.subsec_nanos().unsigned_abs());
    let text = match (seconds, nanos) {
        (0, 0) => "0s".to_owned(),
        (0, ..1_000) => format!("{nanos}ns"),
        (0, ..1_000_000) => format!("{}µs", decimal(nanos.into(), 1_000)),
        (0, _) => format!("{}ms", decimal(nanos.into(), 1_000_000)),
        _ => {
            let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            let rest = decimal(rest * 1_000_000_000 + u64::from(nanos), 1_000_000_000);
            match (hours, minutes) {
                (0, 0) => format!("{rest}s"),
                (0, _) => format!("{minutes}m{rest}s"),
                _ => format!("{hours}h{minutes}m{rest}s"),
            }
        }
    };
    format!("{sign}{text}")
}

/// A number of parts, `unit` of them to one, without zeros at its end. A unit is a power of ten.
fn decimal(parts: u64, unit: u64) -> String {
    let digits = unit.ilog10() as usize;
    let text = format!("{}.{:0digits$}", parts / unit, parts % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A share of one in percent, six digits of it (`%.6g`): `62.5`, `33.3333`, `100`.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let before: usize = match percent.abs() {
        ..10.0 => 1,
        ..100.0 => 2,
        ..1_000.0 => 3,
        ..10_000.0 => 4,
        ..100_000.0 => 5,
        _ => 6,
    };
    let text = format!("{percent:.0$}", 6 - before);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_was_has_gos_zero_time() {
        assert_eq!(timestamp_or_never(None), "0001-01-01 00:00:00 +0000 UTC");
        assert_eq!(timestamp_or_never(Some(Timestamp::UNIX_EPOCH)), "1970-01-01 00:00:00 +0000 UTC");
    }

    #[test]
    fn durations_are_gos() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (2_000_000, "2ms"),
            (10_000_000_000, "10s"),
            (65_250_000_000, "1m5.25s"),
            (900_000_000_000, "15m0s"),
            (3_605_000_000_000, "1h0m5s"),
            (-900_000_000_000, "-15m0s"),
        ] {
            assert_eq!(duration(SignedDuration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn shares_have_six_digits() {
        for (share, text) in [
            (0.0, "0"),
            (0.625, "62.5"),
            (1.0 / 3.0, "33.3333"),
            (0.05, "5"),
            (0.012_345_678, "1.23457"),
            (1.0, "100"),
            (12.5, "1250"),
        ] {
            assert_eq!(percent(share), text);
        }
    }
}
