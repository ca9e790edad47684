//! Long series as short text: a week of 15 s points is 40,000 numbers, most of them what the one before was.
//!
//! A series is `{"exponent": e, "text": "…"}`: whole multiples of 10^e, each as a number in base 32 (digits of the base 64
//! alphabet, the least first, a digit of 32 and more is followed by another one):
//!
//! | number | is |
//! |---|---|
//! | 0 | the last point again, as often as the number after it says |
//! | 1 | a point without a value |
//! | n | the last value plus the zigzag number n - 2 (0, -1, 1, -2, 2, …) |

use serde_json::{Value, json};

/// Digits that are kept of the largest value; the page shows five.
const DIGITS: i32 = 7;
/// Shorter arrays are left as they are: bounds, and short histories that a person may want to read.
const SHORTEST: usize = 32;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// `tree` with every long array of numbers and nulls packed.
pub(super) fn packed(tree: Value) -> Value {
    match tree {
        Value::Array(items) => match numbers(&items) {
            Some(points) => series(&points),
            None => Value::Array(items.into_iter().map(packed).collect()),
        },
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(key, value)| (key, packed(value))).collect())
        }
        other => other,
    }
}

/// The points of a long array that holds nothing but numbers and nulls.
fn numbers(items: &[Value]) -> Option<Vec<Option<f64>>> {
    if items.len() < SHORTEST {
        return None;
    }
    items
        .iter()
        .map(|item| match item {
            Value::Null => Some(None),
            Value::Number(number) => number.as_f64().map(Some),
            _ => None,
        })
        .collect()
}

/// One series, packed.
pub(super) fn series(points: &[Option<f64>]) -> Value {
    let exponent = exponent(points);
    let mut text = String::new();
    let (mut last, mut value) = (Some(0), 0);
    let mut repeats = 0;
    for point in points {
        let multiple = point.map(|point| in_units(point, exponent));
        if multiple == last {
            repeats += 1;
            continue;
        }
        flush(&mut repeats, &mut text);
        match multiple {
            None => number(1, &mut text),
            Some(multiple) => {
                number(zigzag(multiple - value) + 2, &mut text);
                value = multiple;
            }
        }
        last = multiple;
    }
    flush(&mut repeats, &mut text);
    json!({ "exponent": exponent, "text": text })
}

/// The largest power of ten that every point is a multiple of, or the one that keeps [`DIGITS`] of the largest.
#[expect(clippy::cast_possible_truncation, reason = "a logarithm of a finite number is within ±400")]
fn exponent(points: &[Option<f64>]) -> i32 {
    let largest = points.iter().flatten().fold(0.0_f64, |most, point| most.max(point.abs()));
    if largest == 0.0 {
        return 0;
    }
    let top = largest.log10().floor() as i32;
    let least = top - DIGITS + 1;
    let exact = |exponent: &i32| {
        points.iter().flatten().all(|point| {
            let multiple = multiple(*point, *exponent);
            (multiple - multiple.round()).abs() < 1e-9 * multiple.abs().max(1.0)
        })
    };
    (least..=top).rev().find(exact).unwrap_or(least)
}

/// `point` in units of 10^`exponent`; powers below one divide, so that 0.1 stays 0.1.
fn multiple(point: f64, exponent: i32) -> f64 {
    if exponent < 0 { point * 10_f64.powi(-exponent) } else { point / 10_f64.powi(exponent) }
}

#[expect(clippy::cast_possible_truncation, reason = "at most DIGITS digits")]
fn in_units(point: f64, exponent: i32) -> i64 {
    multiple(point, exponent).round() as i64
}

fn zigzag(difference: i64) -> u64 {
    if difference < 0 { difference.unsigned_abs() * 2 - 1 } else { difference.unsigned_abs() * 2 }
}

/// Writes how often the last point came again.
fn flush(repeats: &mut u64, text: &mut String) {
    if *repeats > 0 {
        number(0, text);
        number(*repeats, text);
        *repeats = 0;
    }
}

fn number(mut rest: u64, text: &mut String) {
    loop {
        let more = if rest >= 32 { 32 } else { 0 };
        text.push(char::from(ALPHABET[usize::from((rest % 32) as u8 | more)]));
        rest /= 32;
        if more == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the page does, in Rust.
    fn unpack(packed: &Value, points: usize) -> Vec<Option<f64>> {
        let exponent = i32::try_from(packed["exponent"].as_i64().unwrap()).unwrap();
        let mut digits = packed["text"]
            .as_str()
            .unwrap()
            .bytes()
            .map(|digit| ALPHABET.iter().position(|known| *known == digit).unwrap() as u64);
        let mut next = move || {
            let (mut number, mut place) = (0, 1);
            loop {
                let digit = digits.next()?;
                number += digit % 32 * place;
                place *= 32;
                if digit < 32 {
                    return Some(number);
                }
            }
        };
        let (mut out, mut last, mut value) = (Vec::new(), Some(0_i64), 0);
        while let Some(code) = next() {
            match code {
                0 => out.extend((0..next().unwrap()).map(|_| last)),
                1 => {
                    last = None;
                    out.push(last);
                }
                code => {
                    let zigzag = i64::try_from(code - 2).unwrap();
                    value += if zigzag % 2 == 1 { -(zigzag + 1) / 2 } else { zigzag / 2 };
                    last = Some(value);
                    out.push(last);
                }
            }
        }
        assert_eq!(out.len(), points);
        #[expect(clippy::cast_precision_loss, reason = "at most DIGITS digits")]
        let real = |value: i64| {
            if exponent < 0 {
                value as f64 / 10_f64.powi(-exponent)
            } else {
                value as f64 * 10_f64.powi(exponent)
            }
        };
        out.into_iter().map(|value| value.map(real)).collect()
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back_to_seven_digits_of_the_largest(
            points in prop::collection::vec(prop::option::weighted(0.9, -1e9..1e9_f64), 0..200),
            scale in -12..6,
        ) {
            let points: Vec<_> = points.iter().map(|point| point.map(|point| point * 10_f64.powi(scale))).collect();
            let largest = points.iter().flatten().fold(0.0_f64, |most, point| most.max(point.abs()));
            for (back, point) in unpack(&series(&points), points.len()).iter().zip(&points) {
                prop_assert_eq!(back.is_some(), point.is_some());
                if let (Some(back), Some(point)) = (back, point) {
                    prop_assert!((back - point).abs() <= largest * 1e-6, "{} came back as {}", point, back);
                }
            }
        }

        #[test]
        fn counts_and_decimals_come_back_exactly(counts in prop::collection::vec(0..5000_i32, 1..300)) {
            for divisor in [1.0, 10.0, 100.0] {
                let points: Vec<_> = counts.iter().map(|count| Some(f64::from(*count) / divisor)).collect();
                prop_assert_eq!(unpack(&series(&points), points.len()), points);
            }
        }
    }

    #[test]
    fn a_week_that_stays_the_same_is_a_few_characters() {
        let packed = series(&vec![Some(3.0); 40_321]);
        assert_eq!(packed, json!({ "exponent": 0, "text": "IAgsnB" }));
    }

    #[test]
    fn only_long_arrays_of_numbers_are_packed() {
        let tree = json!({ "bounds": [1, 10], "names": vec!["a"; 40], "mixed": vec![Value::Null; 40], "deep": [{ "values": vec![7; 40] }] });
        let packed = packed(tree);
        assert_eq!(packed["bounds"], json!([1, 10]));
        assert_eq!(packed["names"], json!(vec!["a"; 40]));
        assert_eq!(packed["mixed"], json!({ "exponent": 0, "text": "BAnB" }));
        assert_eq!(packed["deep"][0]["values"], json!({ "exponent": 0, "text": "QAnB" }));
    }
}
