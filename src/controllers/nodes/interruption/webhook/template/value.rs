//! Values of templates, as Go has them.

use std::{cmp::Ordering, collections::BTreeMap, fmt::Write as _};

use jiff::{Timestamp, Zoned, tz::TimeZone};

/// Go's time that was never set, the beginning of the year 1.
pub(crate) const ZERO_TIME: Timestamp = Timestamp::constant(-62_135_596_800, 0);

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// `nil`.
    Nil,
    /// `bool`.
    Bool(bool),
    /// `int`.
    Int(i64),
    /// `float64`.
    Float(f64),
    /// `string`.
    Text(String),
    /// `time.Time`.
    Time(Zoned),
    /// A list.
    List(Vec<Value>),
    /// A map with strings as keys.
    Map(BTreeMap<String, Value>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Timestamp> for Value {
    fn from(time: Timestamp) -> Self {
        Self::Time(time.to_zoned(TimeZone::UTC))
    }
}

impl Value {
    /// As Go names the type in what it complains of.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Time(_) => "time.Time",
            Self::List(_) => "[]string",
            Self::Map(_) => "map[string]string",
        }
    }

    /// Whether a condition holds (`text/template`, `IsTrue`): a time always does.
    pub(super) fn is_true(&self) -> bool {
        matches!(self, Self::Time(_)) || !self.is_empty()
    }

    /// Whether it is what sprig takes for empty.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Nil => true,
            Self::Bool(value) => !value,
            Self::Int(value) => *value == 0,
            Self::Float(value) => *value == 0.0,
            Self::Text(text) => text.is_empty(),
            Self::Time(_) => false,
            Self::List(items) => items.is_empty(),
            Self::Map(entries) => entries.is_empty(),
        }
    }

    /// Whether it is the time that was never set.
    pub(super) fn is_zero_time(&self) -> bool {
        matches!(self, Self::Time(time) if time.timestamp() == ZERO_TIME)
    }

    /// As `%v` and an action print it.
    pub(crate) fn printed(&self) -> String {
        match self {
            Self::Nil => "<nil>".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => float(*value),
            Self::Text(text) => text.clone(),
            Self::Time(time) => time.strftime("%Y-%m-%d %H:%M:%S%.f %z %Z").to_string(),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(Self::printed).collect();
                format!("[{}]", items.join(" "))
            }
            Self::Map(entries) => {
                let entries: Vec<_> =
                    entries.iter().map(|(key, value)| format!("{key}:{}", value.printed())).collect();
                format!("map[{}]", entries.join(" "))
            }
        }
    }

    /// Of two values which Go compares.
    pub(super) fn compare(&self, other: &Self) -> Result<Ordering, String> {
        match (self, other) {
            (Self::Int(one), Self::Int(other)) => Ok(one.cmp(other)),
            (Self::Float(one), Self::Float(other)) => {
                one.partial_cmp(other).ok_or_else(|| "NaN has no order".to_owned())
            }
            (Self::Text(one), Self::Text(other)) => Ok(one.cmp(other)),
            (Self::Nil | Self::Bool(_) | Self::Time(_) | Self::List(_) | Self::Map(_), _) => {
                Err("invalid type for comparison".to_owned())
            }
            _ => Err("incompatible types for comparison".to_owned()),
        }
    }

    /// Whether two values are the same, if Go compares them.
    pub(super) fn equals(&self, other: &Self) -> Result<bool, String> {
        match (self, other) {
            (Self::Nil, other) | (other, Self::Nil) => Ok(*other == Self::Nil),
            (Self::Bool(_), Self::Bool(_)) | (Self::Time(_), Self::Time(_)) => Ok(self == other),
            (Self::List(_) | Self::Map(_), _) | (_, Self::List(_) | Self::Map(_)) => {
                Err(format!("non-comparable type {}: {}", self.type_name(), other.type_name()))
            }
            (Self::Bool(_) | Self::Time(_), _) | (_, Self::Bool(_) | Self::Time(_)) => {
                Err("incompatible types for comparison".to_owned())
            }
            _ => self.compare(other).map(Ordering::is_eq),
        }
    }

    /// As `encoding/json` writes it, with keys in their order; what HTML has a meaning for is escaped unless it is to be raw.
    pub(super) fn json(&self, raw: bool) -> String {
        let mut text = String::new();
        self.write_json(raw, None, &mut text);
        text
    }

    /// As [`Self::json`], on lines of their own, two spaces deeper with each level.
    pub(super) fn pretty_json(&self) -> String {
        let mut text = String::new();
        self.write_json(false, Some(0), &mut text);
        text
    }

    fn write_json(&self, raw: bool, depth: Option<usize>, out: &mut String) {
        match self {
            Self::Nil => out.push_str("null"),
            Self::Bool(_) | Self::Int(_) => out.push_str(&self.printed()),
            Self::Float(value) => out.push_str(&value.to_string()),
            Self::Text(text) => write_json_text(text, raw, out),
            Self::Time(time) => write_json_text(&rfc3339(time), raw, out),
            Self::List(items) => {
                let items = items.iter().map(|item| (None, item));
                write_json_items(('[', ']'), items, raw, depth, out);
            }
            Self::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| (Some(key.as_str()), value));
                write_json_items(('{', '}'), entries, raw, depth, out);
            }
        }
    }
}

fn write_json_items<'a>(
    (open, close): (char, char),
    items: impl ExactSizeIterator<Item = (Option<&'a str>, &'a Value)>,
    raw: bool,
    depth: Option<usize>,
    out: &mut String,
) {
    let is_empty = items.len() == 0;
    let newline = |depth: Option<usize>, out: &mut String| {
        if let Some(depth) = depth.filter(|_| !is_empty) {
            out.push('\n');
            out.push_str(&"  ".repeat(depth));
        }
    };
    let inner = depth.map(|depth| depth + 1);
    out.push(open);
    for (at, (key, value)) in items.enumerate() {
        if at > 0 {
            out.push(',');
        }
        newline(inner, out);
        if let Some(key) = key {
            write_json_text(key, raw, out);
            out.push_str(if depth.is_some() { ": " } else { ":" });
        }
        value.write_json(raw, inner, out);
    }
    newline(depth, out);
    out.push(close);
}

fn write_json_text(text: &str, raw: bool, out: &mut String) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' if !raw => write_escape(char, out),
            '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => write_escape(char, out),
            _ => out.push(char),
        }
    }
    out.push('"');
}

fn write_escape(char: char, out: &mut String) {
    // Writing to text cannot fail.
    let _ = write!(out, "\\u{:04x}", u32::from(char));
}

/// As `strconv.FormatFloat` with the format `g` and the shortest precision.
pub(super) fn float(value: f64) -> String {
    let text = format!("{value:e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text.replace("inf", "+Inf") };
    match exponent.parse::<i32>() {
        Ok(-4..=5) => value.to_string(),
        Ok(exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        Err(_) => text,
    }
}

fn rfc3339(time: &Zoned) -> String {
    let text = time.strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string();
    match text.strip_suffix("+00:00") {
        Some(text) => format!("{text}Z"),
        None => text,
    }
}

/// As `strconv.Quote`.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            // Writing to text cannot fail.
            '\0'..='\u{1f}' | '\u{7f}' => drop(write!(out, "\\x{:02x}", u32::from(char))),
            _ if is_printable(char) => out.push(char),
            '\0'..='\u{ffff}' => write_escape(char, &mut out),
            _ => drop(write!(out, "\\U{:08x}", u32::from(char))),
        }
    }
    out.push('"');
    out
}

fn is_printable(char: char) -> bool {
    char == '\'' || char.escape_debug().count() == 1
}
