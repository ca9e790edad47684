//! Texts as Go's `text/template` and Masterminds/sprig change them.

use std::fmt::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::value::{Value, quoted};

/// The longest text that is made by repeating another, in bytes: a message of a webhook is no longer.
const LONGEST: usize = 65_536;

/// Words begin with a capital (`strings.Title`).
pub(super) fn title(text: &str) -> String {
    let mut is_first = true;
    let letter = |char: char| {
        let capital = is_first;
        is_first = match char {
            '_' => false,
            char if char.is_ascii() => !char.is_ascii_alphanumeric(),
            char => !char.is_alphanumeric() && char.is_whitespace(),
        };
        if capital { char.to_uppercase().collect() } else { vec![char] }
    };
    text.chars().flat_map(letter).collect()
}

/// Words begin with a small letter.
pub(super) fn untitle(text: &str) -> String {
    let mut is_first = true;
    let letter = |char: char| {
        let is_small = is_first;
        is_first = char.is_whitespace();
        if is_small { char.to_lowercase().collect() } else { vec![char] }
    };
    text.chars().flat_map(letter).collect()
}

pub(super) fn swapcase(text: &str) -> String {
    let letter = |char: char| -> Vec<char> {
        if char.is_uppercase() { char.to_lowercase().collect() } else { char.to_uppercase().collect() }
    };
    text.chars().flat_map(letter).collect()
}

pub(super) fn initials(text: &str) -> String {
    text.split_whitespace().filter_map(|word| word.chars().next()).collect()
}

/// The first `length` bytes, or the last of a length below zero; no character is cut.
pub(super) fn trunc(length: i64, text: &str) -> String {
    let bytes = usize::try_from(length.unsigned_abs()).unwrap_or(usize::MAX);
    if bytes >= text.len() {
        return text.to_owned();
    }
    if length < 0 {
        let from = (text.len() - bytes..=text.len()).find(|&at| text.is_char_boundary(at));
        return text[from.unwrap_or(text.len())..].to_owned();
    }
    text[..boundary(text, bytes)].to_owned()
}

/// The last end of a character that is not beyond.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

pub(super) fn abbrev(width: i64, text: &str) -> String {
    match usize::try_from(width) {
        Ok(width) if width >= 4 && text.len() > width => {
            format!("{}...", &text[..boundary(text, width - 3)])
        }
        _ => text.to_owned(),
    }
}

pub(super) fn substr(start: i64, end: i64, text: &str) -> String {
    let at = |index: i64| usize::try_from(index).ok().map(|index| boundary(text, index));
    let end = at(end).unwrap_or(text.len());
    let start = at(start).unwrap_or(0);
    text.get(start..end).unwrap_or_default().to_owned()
}

pub(super) fn repeat(count: i64, text: &str) -> Result<String, String> {
    let count = usize::try_from(count).map_err(|_| "negative Repeat count".to_owned())?;
    if text.len().saturating_mul(count) > LONGEST {
        return Err(format!("a repeated text is longer than {LONGEST} bytes"));
    }
    Ok(text.repeat(count))
}

pub(super) fn indent(spaces: i64, text: &str) -> Result<String, String> {
    let pad = repeat(spaces, " ")?;
    Ok(format!("{pad}{}", text.replace('\n', &format!("\n{pad}"))))
}

pub(super) fn quote(values: &[Value]) -> String {
    joined(values, |value| quoted(&value.printed()))
}

pub(super) fn squote(values: &[Value]) -> String {
    joined(values, |value| format!("'{}'", value.printed()))
}

pub(super) fn cat(values: &[Value]) -> String {
    joined(values, Value::printed)
}

fn joined(values: &[Value], print: impl Fn(&Value) -> String) -> String {
    let values: Vec<_> = values.iter().filter(|value| **value != Value::Nil).map(print).collect();
    values.join(" ")
}

/// As sprig makes a list of texts of anything.
pub(super) fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::List(items) => items.iter().filter(|item| **item != Value::Nil).map(Value::printed).collect(),
        Value::Nil => Vec::new(),
        other => vec![other.printed()],
    }
}

/// Go gives each character of a text that is split by nothing.
fn parts<'a>(separator: &str, text: &'a str) -> Vec<&'a str> {
    if separator.is_empty() {
        let mut parts: Vec<_> = text.split("").collect();
        parts.retain(|part| !part.is_empty());
        return parts;
    }
    text.split(separator).collect()
}

pub(super) fn split_list(separator: &str, text: &str) -> Value {
    Value::List(parts(separator, text).into_iter().map(Value::from).collect())
}

/// The parts by the names `_0`, `_1` and so on.
pub(super) fn split(separator: &str, text: &str) -> Value {
    let parts = parts(separator, text).into_iter().enumerate();
    Value::Map(parts.map(|(at, part)| (format!("_{at}"), part.into())).collect())
}

pub(super) fn base64(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}

pub(super) fn html(text: &str) -> String {
    let escape = |char: char| match char {
        '"' => "&#34;".to_owned(),
        '\'' => "&#39;".to_owned(),
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '\0' => char::REPLACEMENT_CHARACTER.to_string(),
        _ => char.to_string(),
    };
    text.chars().map(escape).collect()
}

pub(super) fn js(text: &str) -> String {
    let escape = |char: char| match char {
        '\\' => "\\\\".to_owned(),
        '\'' => "\\'".to_owned(),
        '"' => "\\\"".to_owned(),
        '<' | '>' | '&' | '=' | '\0'..='\u{1f}' => format!("\\u{:04X}", u32::from(char)),
        _ => char.to_string(),
    };
    text.chars().map(escape).collect()
}

pub(super) fn urlquery(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'-' | b'_' | b'.' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => out.push(char::from(byte)),
            // Writing to text cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}
