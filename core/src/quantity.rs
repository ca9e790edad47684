//! Kubernetes quantities as integers: thousandths of a unit, rounded up.
//!
//! Grammar and rounding are those of `k8s.io/apimachinery/pkg/api/resource/quantity.go`, the way from floats is
//! that of KEDA's scalers (`GenerateMetricInMili`, `%.3f`).

use std::cmp::Ordering;

use thiserror::Error;

/// Fraction digits that are read: with 18 of them the greatest binary suffix still fits a u128.
const FRACTION_DIGITS: usize = 18;
/// Decimal digits that any u128 can hold.
const MANTISSA_DIGITS: usize = 38;

/// Why a text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// Nothing to read.
    #[error("quantity is empty, expected a number with an optional suffix such as 100m or 1Gi")]
    Empty,
    /// Not a number followed by a suffix.
    #[error("quantity {0:?} does not read as a number with an optional suffix such as 100m or 1Gi")]
    Malformed(String),
}

/// A quantity in thousandths of its unit; what is finer rounds away from zero, what is greater than an i64 holds
/// saturates, as the API server's own reading does.
pub fn parse_milli(text: &str) -> Result<i64, QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::Empty);
    }
    let malformed = || QuantityError::Malformed(text.to_owned());
    let (negative, unsigned) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err(malformed());
    }
    let unit = Unit::of(suffix).ok_or_else(malformed)?;
    let magnitude = magnitude(whole, fraction, unit);
    let milli = i64::try_from(magnitude).unwrap_or(i64::MAX);
    Ok(if negative { -milli } else { milli })
}

/// What a suffix multiplies by.
#[derive(Clone, Copy)]
enum Unit {
    /// A power of ten.
    Decimal(i32),
    /// A power of two.
    Binary(u32),
}

impl Unit {
    fn of(suffix: &str) -> Option<Self> {
        Some(match suffix {
            "n" => Self::Decimal(-9),
            "u" => Self::Decimal(-6),
            "m" => Self::Decimal(-3),
            "" => Self::Decimal(0),
            "k" => Self::Decimal(3),
            "M" => Self::Decimal(6),
            "G" => Self::Decimal(9),
            "T" => Self::Decimal(12),
            "P" => Self::Decimal(15),
            "E" => Self::Decimal(18),
            "Ki" => Self::Binary(10),
            "Mi" => Self::Binary(20),
            "Gi" => Self::Binary(30),
            "Ti" => Self::Binary(40),
            "Pi" => Self::Binary(50),
            "Ei" => Self::Binary(60),
            _ => Self::Decimal(suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?),
        })
    }
}

/// `whole.fraction` times the unit, in thousandths, rounded up.
fn magnitude(whole: &str, fraction: &str, unit: Unit) -> u128 {
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    if whole.is_empty() && fraction.bytes().all(|digit| digit == b'0') {
        return 0;
    }
    // Digits beyond the limit are below a thousandth of any unit that a sane quantity has: they only round up.
    let kept = fraction.len().min(FRACTION_DIGITS).min(MANTISSA_DIGITS.saturating_sub(whole.len()));
    let digits = format!("{whole}{}", &fraction[..kept]);
    let Ok(mantissa) = digits.parse::<u128>() else {
        return u128::MAX;
    };
    let (factor, power) = match unit {
        Unit::Decimal(power) => (1, power.saturating_add(3)),
        Unit::Binary(shift) => (1_u128 << shift, 3),
    };
    let Some(scaled) = mantissa.checked_mul(factor) else {
        return u128::MAX;
    };
    let power = power.saturating_sub(i32::try_from(kept).unwrap_or(i32::MAX));
    let (product, rest) = times_power_of_ten(scaled, power);
    product.saturating_add(u128::from(rest || kept < fraction.len()))
}

/// `value * 10^power` rounded down, and whether something was cut off.
fn times_power_of_ten(value: u128, power: i32) -> (u128, bool) {
    match power.cmp(&0) {
        Ordering::Equal => (value, false),
        Ordering::Greater => {
            let factor = 10_u128.checked_pow(power.unsigned_abs());
            (factor.and_then(|factor| value.checked_mul(factor)).unwrap_or(u128::MAX), false)
        }
        Ordering::Less => match 10_u128.checked_pow(power.unsigned_abs()) {
            Some(divisor) => (value / divisor, !value.is_multiple_of(divisor)),
            None => (0, true),
        },
    }
}

/// The canonical decimal text of thousandths, as the API server writes it: `8667m`, `10`, `5k`.
pub fn format_milli(milli: i64) -> String {
    if milli == 0 {
        return "0".to_owned();
    }
    let (mut value, mut step) = (milli, 0);
    while value % 1000 == 0 && step < SUFFIXES.len() - 1 {
        value /= 1000;
        step += 1;
    }
    format!("{value}{}", SUFFIXES[step])
}

/// Decimal suffixes from a thousandth up, a thousand apart.
const SUFFIXES: [&str; 7] = ["m", "", "k", "M", "G", "T", "P"];

/// Thousandths of a value that a source gave: half-even to three decimals as `%.3f` prints them; 0 for a
/// negative value, an infinity and what is not a number; saturating.
#[allow(clippy::cast_possible_truncation, reason = "the value is below i64::MAX there")]
pub fn milli_from_f64(value: f64) -> i64 {
    if !value.is_finite() || value <= 0.0 {
        return 0;
    }
    // From 2^53 on a float has no fraction, and its thousandths are exact in i128.
    if value >= EXACT_INTEGERS {
        return i64::try_from((value as i128).saturating_mul(1000)).unwrap_or(i64::MAX);
    }
    // The decimal text is the exact value rounded once; multiplying by 1000 would round twice.
    parse_milli(&format!("{value:.3}")).unwrap_or(0)
}

/// 2^53, from where on every float is an integer.
const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_suffix_reads_in_thousandths() {
        for (text, milli) in [
            ("0", 0),
            ("1", 1000),
            ("+1.5", 1500),
            ("-1.5", -1500),
            (".5", 500),
            ("5.", 5000),
            ("0012", 12_000),
            ("100m", 100),
            ("1k", 1_000_000),
            ("1M", 1_000_000_000),
            ("1G", 1_000_000_000_000),
            ("1T", 1_000_000_000_000_000),
            ("1P", 1_000_000_000_000_000_000),
            ("1Ki", 1_024_000),
            ("0.5Mi", 524_288_000),
            ("1Gi", 1_073_741_824_000),
            ("1Ti", 1_099_511_627_776_000),
            ("1Pi", 1_125_899_906_842_624_000),
            ("1e3", 1_000_000),
            ("1E3", 1_000_000),
            ("12e-1", 1200),
            ("1e+2", 100_000),
        ] {
            assert_eq!(parse_milli(text), Ok(milli), "{text}");
        }
    }

    #[test]
    fn what_is_finer_rounds_away_from_zero() {
        for (text, milli) in [
            ("1n", 1),
            ("1u", 1),
            ("999n", 1),
            ("1500u", 2),
            ("0.0001", 1),
            ("-0.0001", -1),
            ("1.0000000000000000000000001", 1001),
            ("1e-30", 1),
            ("0.00000000000000000000000000000000000000000001", 1),
        ] {
            assert_eq!(parse_milli(text), Ok(milli), "{text}");
        }
    }

    #[test]
    fn what_is_greater_saturates() {
        for text in
            ["1E", "8Ei", "9223372036854775807", "1e99", "123456789012345678901234567890123456789012345"]
        {
            assert_eq!(parse_milli(text), Ok(i64::MAX), "{text}");
        }
        assert_eq!(parse_milli("0e99"), Ok(0));
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        assert_eq!(parse_milli(""), Err(QuantityError::Empty));
        for text in [" 1", "1 ", "m", ".", "-", "1.2.3", "1mi", "1KI", "1e", "1e2.5", "0x1", "one", "١"] {
            assert_eq!(parse_milli(text), Err(QuantityError::Malformed(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn texts_are_canonical() {
        for (milli, text) in [
            (0, "0"),
            (1, "1m"),
            (8667, "8667m"),
            (10_000, "10"),
            (-1500, "-1500m"),
            (10_000_000, "10k"),
            (12_345_000, "12345"),
            (1_000_000_000_000_000_000, "1P"),
            (i64::MAX, "9223372036854775807m"),
            (i64::MIN, "-9223372036854775808m"),
        ] {
            assert_eq!(format_milli(milli), text);
        }
    }

    #[test]
    fn floats_round_to_three_decimals() {
        for (value, milli) in [
            (f64::NAN, 0),
            (f64::INFINITY, 0),
            (f64::NEG_INFINITY, 0),
            (-3.0, 0),
            (-0.0, 0),
            (0.0004, 0),
            (0.0005, 1),  // the float is a little above the half
            (0.0625, 62), // exactly a half: to the even digit
            (0.1875, 188),
            (8.666_666_7, 8667),
            (1.0005, 1000), // the float is a little below the half
            (1e18, i64::MAX),
            (9_007_199_254_740_993.0, 9_007_199_254_740_992_000),
        ] {
            assert_eq!(milli_from_f64(value), milli, "{value}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(milli: i64) {
            prop_assume!(milli != i64::MIN);
            prop_assert_eq!(parse_milli(&format_milli(milli)), Ok(milli));
        }

        #[test]
        fn reading_never_panics(text in "[-+]?[0-9.]{0,50}[a-zA-Z0-9+-]{0,12}") {
            let _ = parse_milli(&text);
        }

        #[test]
        fn a_greater_float_is_no_less(one in 0.0..1e19_f64, other in 0.0..1e19_f64) {
            prop_assert!(milli_from_f64(one.min(other)) <= milli_from_f64(one.max(other)));
        }
    }
}
