//! Values of parameters: how each type is written in a manifest.
//!
//! The forms are KEDA's (`pkg/scalers/scalersconfig/typed_config.go`). No error quotes the value: the caller does, when
//! everybody may read it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::input::Secret;
use crate::metadata::Param;

/// A type that a parameter can have.
pub(crate) trait FromParam: Sized {
    /// The kind of value, for the documentation.
    const KIND: &'static str;
    /// The only values allowed; empty means any.
    const CHOICES: &'static [&'static str] = &[];

    /// Reads a trimmed, non-empty value. The error says what was expected, without the value.
    fn from_param(raw: &str, param: &Param) -> Result<Self, String>;

    /// Reads the elements that `start-end` stands for in a list; only whole numbers have such.
    fn from_range(_start: &str, _end: &str, _param: &Param) -> Result<Vec<Self>, String> {
        Err("a range needs whole numbers".to_owned())
    }
}

impl FromParam for String {
    const KIND: &'static str = "string";

    fn from_param(raw: &str, _: &Param) -> Result<Self, String> {
        Ok(raw.to_owned())
    }
}

impl FromParam for Secret {
    const KIND: &'static str = "secret";

    fn from_param(raw: &str, _: &Param) -> Result<Self, String> {
        Ok(Self::from(raw))
    }
}

impl FromParam for bool {
    const KIND: &'static str = "boolean";

    /// The spellings of Go's `strconv.ParseBool`.
    fn from_param(raw: &str, _: &Param) -> Result<Self, String> {
        match raw {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
            _ => Err("expected true or false".to_owned()),
        }
    }
}

impl FromParam for i64 {
    const KIND: &'static str = "integer";

    fn from_param(raw: &str, _: &Param) -> Result<Self, String> {
        serde_json::from_str(raw).map_err(|_| "expected a whole number".to_owned())
    }

    fn from_range(start: &str, end: &str, param: &Param) -> Result<Vec<Self>, String> {
        /// More elements than anything countable in a trigger (partitions, say) has.
        const LIMIT: i64 = 100_000;
        let (start, end) = (Self::from_param(start, param)?, Self::from_param(end, param)?);
        match end.checked_sub(start) {
            Some(length) if length < LIMIT => Ok((start..=end).collect()),
            _ => Err(format!("a range holds at most {LIMIT} elements")),
        }
    }
}

impl FromParam for f64 {
    const KIND: &'static str = "number";

    fn from_param(raw: &str, _: &Param) -> Result<Self, String> {
        serde_json::from_str(raw).map_err(|_| "expected a number".to_owned())
    }
}

impl FromParam for Duration {
    const KIND: &'static str = "duration";

    /// A Go duration, or whole milliseconds.
    fn from_param(raw: &str, _: &Param) -> Result<Self, String> {
        let nanos = go_duration(raw)
            .or_else(|| raw.parse::<i64>().ok().map(|millis| i128::from(millis) * 1_000_000))
            .ok_or("must be either a duration string (e.g. '30s', '5m') or a number of milliseconds")?;
        if nanos < 0 {
            return Err("duration cannot be negative".to_owned());
        }
        u64::try_from(nanos).map(Self::from_nanos).map_err(|_| "the duration is too long".to_owned())
    }
}

impl<T: FromParam> FromParam for Vec<T> {
    const KIND: &'static str = "list";
    const CHOICES: &'static [&'static str] = T::CHOICES;

    fn from_param(raw: &str, param: &Param) -> Result<Self, String> {
        let mut list = Self::new();
        for (i, element) in raw.split(param.separator).map(str::trim).enumerate() {
            let at = |why| format!("slice element {i}: {why}");
            match param.range.and_then(|separator| element.split_once(separator)) {
                Some((start, end)) => list.extend(T::from_range(start, end, param).map_err(at)?),
                None => list.push(T::from_param(element, param).map_err(at)?),
            }
        }
        Ok(list)
    }
}

impl FromParam for BTreeMap<String, String> {
    const KIND: &'static str = "map (`key=value,…`)";

    fn from_param(raw: &str, param: &Param) -> Result<Self, String> {
        raw.split(param.separator)
            .map(|pair| match pair.split_once('=') {
                Some((key, value)) if !value.contains('=') => {
                    Ok((key.trim().to_owned(), value.trim().to_owned()))
                }
                _ => Err("expected format key=value".to_owned()),
            })
            .collect()
    }
}

/// Form fields: `a=1&b=2`, percent-encoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Form(pub Vec<(String, Secret)>);

impl FromParam for Form {
    const KIND: &'static str = "form (`key=value&…`)";

    /// As Go's `url.ParseQuery`: a semicolon separates nothing, a percent sign wants two hexadecimal digits.
    fn from_param(raw: &str, _: &Param) -> Result<Self, String> {
        let escaped = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit());
        if raw.contains(';') || !raw.split('%').skip(1).all(escaped) {
            return Err("expected key=value&…, percent-encoded".to_owned());
        }
        let mut url = reqwest::Url::parse("form:").map_err(|problem| problem.to_string())?;
        url.set_query(Some(raw));
        Ok(Self(url.query_pairs().map(|(key, value)| (key.into_owned(), Secret::from(&*value))).collect()))
    }
}

/// A parameter that is accepted and has no effect any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ignored;

impl FromParam for Ignored {
    const KIND: &'static str = "string";

    fn from_param(_: &str, _: &Param) -> Result<Self, String> {
        Ok(Self)
    }
}

/// Nanoseconds of a Go duration such as `1h30m`, `-1.5s` or `300ms` (`time.ParseDuration`); `None` when it is none.
pub(crate) fn go_duration(text: &str) -> Option<i128> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let (unit, after) = [
            ("ns", 1),
            ("us", 1_000),
            ("µs", 1_000),
            ("μs", 1_000),
            ("ms", 1_000_000),
            ("s", 1_000_000_000),
            ("m", 60_000_000_000),
            ("h", 3_600_000_000_000),
        ]
        .into_iter()
        .find_map(|(name, nanos)| Some((nanos, after.strip_prefix(name)?)))?;
        // 15 digits either side keep the products far from the limits of an i128.
        let number = |digits: &str| digits.get(..digits.len().min(15)).unwrap_or_default().parse::<i128>();
        if whole.len() > 15 {
            return None;
        }
        nanos += number(whole).unwrap_or(0) * unit;
        if !fraction.is_empty() {
            let places = u32::try_from(fraction.len().min(15)).ok()?;
            nanos += number(fraction).unwrap_or(0) * unit / 10_i128.pow(places);
        }
        rest = after;
    }
    Some(sign * nanos)
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// A duration as people write it: `3s`, `1.5s`, `250ms`.
pub(crate) fn format_duration(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{}ms", duration.as_millis())
    } else {
        format!("{}s", duration.as_secs_f64())
    }
}

/// Declares an enum whose variants are the only values of a parameter.
macro_rules! choices {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$variant_meta])* $variant),+ }

        impl $crate::values::FromParam for $name {
            const KIND: &'static str = "string";
            const CHOICES: &'static [&'static str] = &[$($text),+];

            fn from_param(raw: &str, _: &$crate::metadata::Param) -> Result<Self, String> {
                match raw {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(format!("must be one of [{}]", Self::CHOICES.join(" "))),
                }
            }
        }
    };
}
pub(crate) use choices;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("300ms", Some(300_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("-1.5s", Some(-1_500_000_000)),
            ("+5s", Some(5_000_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("3µs", Some(3_000)),
            ("1ns", Some(1)),
            ("10", None),
            ("", None),
            ("-", None),
            (".s", None),
            ("1 s", None),
            ("1d", None),
            ("s", None),
            ("1s2", None),
        ] {
            assert_eq!(go_duration(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn durations_are_shown_as_people_write_them() {
        for (millis, wanted) in [(0, "0ms"), (250, "250ms"), (3_000, "3s"), (1_500, "1.5s")] {
            assert_eq!(format_duration(Duration::from_millis(millis)), wanted);
        }
    }

    proptest! {
        /// Nothing that users write makes the parsers panic.
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = go_duration(&text);
            let _ = crate::quantity::parse(&text);
            let _ = text.parse::<schedule::Schedule>();
            let _ = crate::selector::check(&text);
            let _ = crate::document::json(text.as_bytes(), &text);
            let _ = crate::document::yaml(text.as_bytes(), &text);
            let _ = crate::document::xml(text.as_bytes(), &text);
            if let Ok(selector) = crate::exposition::Selector::parse(&text) {
                let _ = selector.find(&text);
            }
        }
    }
}
