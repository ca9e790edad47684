//! GJSON paths (<https://github.com/tidwall/gjson/blob/master/SYNTAX.md>) over what sources call JSON.
//!
//! The gjson crate takes its input for valid and lacks some modifiers; both are seen to here.

use serde::de::IgnoredAny;
use serde_json::Value;

use super::{DocumentError, Found, syntax, yaml_document};

/// The value at a GJSON path; a path that leads nowhere finds `Null`, as in KEDA. Of several values in the body the first
/// counts, unless the path begins with `..`, which makes them a list.
pub(crate) fn json(body: &[u8], path: &str) -> Result<Found, DocumentError> {
    let text = std::str::from_utf8(body).map_err(|problem| syntax("JSON", &problem))?;
    if let Some(path) = path.strip_prefix("..") {
        let all = values(text).collect::<Result<Vec<_>, _>>()?;
        return Ok(find(&format!("[{}]", all.join(",")), path));
    }
    match values(text).next() {
        Some(Ok(first)) => Ok(find(first, path)),
        Some(Err(problem)) => almost_json(text, path).ok_or(problem),
        None => Err(syntax("JSON", &"there is nothing")),
    }
}

/// The values of a text, one after the other.
fn values(text: &str) -> impl Iterator<Item = Result<&str, DocumentError>> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let mut start = 0;
    std::iter::from_fn(move || {
        let value = values.next()?;
        let slice = text.get(start..values.byte_offset()).unwrap_or_default();
        start = values.byte_offset();
        Some(value.map(|_| slice.trim()).map_err(|problem| syntax("JSON", &problem)))
    })
}

/// What KEDA's parser passes over, YAML has words for: `NaN` as Python writes it, and a comma too many.
fn almost_json(text: &str, path: &str) -> Option<Found> {
    let document =
        yaml_document(text.as_bytes()).ok().filter(|document| document.is_object() || document.is_array())?;
    match find(&document.to_string(), path) {
        Found::Other(_) => None,
        found => Some(found),
    }
}

fn find(text: &str, path: &str) -> Found {
    let Some((before, modifier, after)) = modifier(path) else { return found(&gjson::get(text, path)) };
    let value = if before.is_empty() { gjson::parse(text) } else { gjson::get(text, before) };
    match modifier.apply(value.json()) {
        Some(value) if after.is_empty() => found(&gjson::parse(&value)),
        Some(value) => find(&value, after),
        None => Found::Other("Null"),
    }
}

fn found(value: &gjson::Value<'_>) -> Found {
    match value.kind() {
        gjson::Kind::Number => Found::Number(value.f64()),
        gjson::Kind::String => Found::Text(value.str().to_owned()),
        gjson::Kind::Null => Found::Other("Null"),
        gjson::Kind::True => Found::Other("True"),
        gjson::Kind::False => Found::Other("False"),
        gjson::Kind::Array | gjson::Kind::Object => Found::Other("JSON"),
    }
}

/// A modifier that the crate does not know.
#[derive(Clone, Copy)]
enum Modifier {
    Values,
    Keys,
    ToText,
    FromText,
}

const MODIFIERS: [(&str, Modifier); 4] = [
    ("@values", Modifier::Values),
    ("@keys", Modifier::Keys),
    ("@tostr", Modifier::ToText),
    ("@fromstr", Modifier::FromText),
];

/// The first of them in a path, with what is before and after it; none inside of parentheses or behind `#.`, where a
/// modifier is for each element.
fn modifier(path: &str) -> Option<(&str, Modifier, &str)> {
    let (mut start, mut depth) = (0, 0_u32);
    for (at, letter) in path.char_indices().chain([(path.len(), '|')]) {
        match letter {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '.' | '|' if depth == 0 => {
                let known = MODIFIERS.iter().find(|(name, _)| *name == &path[start..at]);
                if let Some((_, modifier)) = known {
                    let before = path.get(..start.saturating_sub(1)).unwrap_or_default();
                    return Some((before, *modifier, path.get(at + 1..).unwrap_or_default()));
                }
                if letter == '.' && path[start..at].ends_with('#') {
                    return None;
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    None
}

impl Modifier {
    /// JSON of JSON; `None` where there is nothing.
    fn apply(self, json: &str) -> Option<String> {
        if json.is_empty() {
            return None;
        }
        let mut list = Vec::new();
        let whole = gjson::parse(json);
        match (self, whole.kind()) {
            (Self::ToText, _) => return Some(Value::from(json).to_string()),
            (Self::FromText, _) => return Some(whole.str().to_owned()).filter(|text| gjson::valid(text)),
            (Self::Values, gjson::Kind::Array) => return Some(json.to_owned()),
            (Self::Values, gjson::Kind::Object) => whole.each(|_, value| {
                list.push(value.json().to_owned());
                true
            }),
            (Self::Keys, gjson::Kind::Object) => whole.each(|key, _| {
                list.push(key.json().to_owned());
                true
            }),
            (Self::Values, _) => list.push(json.to_owned()),
            (Self::Keys, gjson::Kind::Array) => whole.each(|_, _| {
                list.push("null".to_owned());
                true
            }),
            (Self::Keys, _) => {}
        }
        Some(format!("[{}]", list.join(",")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Found {
        Found::Text(value.to_owned())
    }

    #[test]
    fn json_is_read_by_gjson_paths() {
        let body = br#"{"components":[{"id":"82328e93e","tasks":32,"str":"64"},{"id":"b","tasks":8}],"count":2.43,"no":null}"#;
        for (path, wanted) in [
            ("count", Ok(Found::Number(2.43))),
            ("components.0.tasks", Ok(Found::Number(32.0))),
            ("components.0.str", Ok(text("64"))),
            ("components.#", Ok(Found::Number(2.0))),
            (r#"components.#(id=="b").tasks"#, Ok(Found::Number(8.0))),
            ("components", Ok(Found::Other("JSON"))),
            ("no", Ok(Found::Other("Null"))),
            ("nothing.there", Ok(Found::Other("Null"))),
        ] {
            assert_eq!(json(body, path).map_err(|problem| problem.to_string()), wanted, "{path}");
        }
        for body in [&b"<html>"[..], b"", b"{\"a\":", b"\"\xff\""] {
            assert!(matches!(json(body, "a"), Err(DocumentError::Syntax { format: "JSON", .. })), "{body:?}");
        }
    }

    #[test]
    fn what_is_almost_json_is_read_as_far_as_it_goes() {
        for (body, path, wanted) in [
            (r#"{"a":1} x"#, "a", Found::Number(1.0)),
            ("{\"a\":1}\n{\"a\":2}\n", "a", Found::Number(1.0)),
            ("{\"a\":1}\n{\"a\":2}\n", "..1.a", Found::Number(2.0)),
            ("{\"a\":1}\n{\"a\":2}\n", "..#", Found::Number(2.0)),
            (r#"{"mean":NaN,"a":3}"#, "a", Found::Number(3.0)),
            (r#"{"a":[1,2,],}"#, "a.1", Found::Number(2.0)),
        ] {
            assert_eq!(json(body.as_bytes(), path), Ok(wanted), "{body} {path}");
        }
        assert_eq!(json(br#"{"a":NaN}"#, "a"), Ok(text("NaN")), "which is no quantity");
        assert!(json(b"a: 5", "b").is_err());
    }

    #[test]
    fn modifiers_that_the_crate_lacks_are_there() {
        let body = br#"{"a":{"x":5,"y":"6k"},"list":[7],"text":"{\"b\":8}"}"#;
        for (path, wanted) in [
            ("a.@values.0", Found::Number(5.0)),
            ("a|@values|1", text("6k")),
            ("a.@values.#", Found::Number(2.0)),
            ("@keys.#", Found::Number(3.0)),
            ("a.@keys.1", text("y")),
            ("list.@values.0", Found::Number(7.0)),
            ("a.x.@tostr", text("5")),
            ("text.@fromstr.b", Found::Number(8.0)),
            ("gone.@values.#", Found::Other("Null")),
            ("list.0.@fromstr", Found::Number(7.0)),
        ] {
            assert_eq!(json(body, path), Ok(wanted), "{path}");
        }
    }
}
