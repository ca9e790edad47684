//! Takes one value out of a JSON, YAML or XML document.

use quick_xml::events::attributes::Attribute;
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};
use serde_json::{Map, Value};

mod json;

pub(crate) use json::json;

/// What stands at a location.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    Number(f64),
    Text(String),
    /// Neither; what it is, for a message.
    Other(&'static str),
}

/// Why nothing could be looked up.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error("not {format}: {problem}")]
    Syntax { format: &'static str, problem: String },
    #[error("key '{key}' not found in path '{path}'")]
    Missing { key: String, path: String },
    #[error("path '{0}' does not lead to a value")]
    NoValue(String),
}

fn syntax(format: &'static str, problem: &impl ToString) -> DocumentError {
    DocumentError::Syntax { format, problem: problem.to_string() }
}

/// The value at a dotted path of a YAML document, the first of a stream; it must be a map, as in KEDA.
pub(crate) fn yaml(body: &[u8], path: &str) -> Result<Found, DocumentError> {
    let document = yaml_document(body)?;
    if !document.is_object() {
        return Err(syntax("YAML", &"the document is not a map"));
    }
    by_path(&document, path).map(found)
}

/// The first document; what has no end, or is no number, is null, and so are old octal numbers read as KEDA reads them.
fn yaml_document(mut body: &[u8]) -> Result<Value, DocumentError> {
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::PassThrough,
    };
    let mut documents = serde_saphyr::read_with_options(&mut body, options);
    documents.next().unwrap_or(Ok(Value::Null)).map_err(|problem| syntax("YAML", &problem))
}

/// The value at a dotted path of an XML document. The path may begin with the root element's name or below it;
/// attributes are `@name`, the text of an element that has attributes or children is `#text`.
pub(crate) fn xml(body: &[u8], path: &str) -> Result<Found, DocumentError> {
    let text = std::str::from_utf8(body).map_err(|problem| syntax("XML", &problem))?;
    let document = xml_document(text).map_err(|problem| syntax("XML", &problem))?;
    let below_root = || document.as_object()?.values().next().and_then(|root| by_path(root, path).ok());
    match by_path(&document, path) {
        Ok(value) => Ok(found(value)),
        Err(problem) => below_root().map(found).ok_or(problem),
    }
}

/// Follows keys and indices. A value that is reached before the end of the path counts, as in KEDA
/// (`pkg/util/value_by_path.go`).
fn by_path<'a>(document: &'a Value, path: &str) -> Result<&'a Value, DocumentError> {
    let mut at = document;
    for key in path.split('.') {
        let next = match at {
            Value::Object(map) => map.get(key),
            Value::Array(list) => key.parse::<usize>().ok().and_then(|index| list.get(index)),
            _ => return Ok(at),
        };
        let missing = || DocumentError::Missing { key: key.to_owned(), path: path.to_owned() };
        at = next.ok_or_else(missing)?;
    }
    match at {
        Value::Object(_) | Value::Array(_) => Err(DocumentError::NoValue(path.to_owned())),
        value => Ok(value),
    }
}

fn found(value: &Value) -> Found {
    match value {
        Value::Number(number) => Found::Number(number.as_f64().unwrap_or_default()),
        Value::String(text) => Found::Text(text.clone()),
        Value::Bool(true) => Found::Other("true"),
        Value::Bool(false) => Found::Other("false"),
        Value::Null => Found::Other("null"),
        Value::Array(_) | Value::Object(_) => Found::Other("map"),
    }
}

/// Elements deeper than this are an attack or a mistake.
const MAX_DEPTH: usize = 128;

/// The text of an element among its attributes and children.
const TEXT: &str = "#text";

/// An element being read: its name and what is in it so far.
type Element = (String, Map<String, Value>);

/// An XML document as nested maps: `{"root": …}`.
fn xml_document(text: &str) -> Result<Value, String> {
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Element> = vec![(String::new(), Map::new())];
    loop {
        match reader.read_event().map_err(|problem| problem.to_string())? {
            Event::Start(start) if open.len() > MAX_DEPTH => {
                return Err(format!("elements are nested too deeply, at {:?}", name(&start)));
            }
            Event::Start(start) => open.push((name(&start), attributes(&start)?)),
            Event::Empty(start) => {
                let element = (name(&start), attributes(&start)?);
                close(&mut open, element);
            }
            Event::Text(text) => append(&mut open, &text.xml10_content()),
            Event::CData(text) => append(&mut open, &text.xml10_content()),
            Event::GeneralRef(reference) => {
                let reference = format!("&{};", reference.into_inner());
                let text = quick_xml::escape::unescape(&reference).map_err(|problem| problem.to_string())?;
                append(&mut open, &text);
            }
            Event::End(_) => {
                if let Some(element) = open.pop() {
                    close(&mut open, element);
                }
            }
            Event::Eof if open.len() > 1 => return Err("the document ends inside an element".to_owned()),
            Event::Eof => break,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
    let (_, mut document) = open.pop().unwrap_or_default();
    document.shift_remove(TEXT);
    if document.is_empty() { Err("there is no element".to_owned()) } else { Ok(Value::Object(document)) }
}

fn name(start: &BytesStart<'_>) -> String {
    start.name().as_ref().to_owned()
}

fn attributes(start: &BytesStart<'_>) -> Result<Map<String, Value>, String> {
    let attribute = |attribute: Attribute<'_>| {
        let value =
            attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|problem| problem.to_string())?;
        Ok((format!("@{}", attribute.key.as_ref()), Value::String(value.into_owned())))
    };
    start.attributes().map(|pair| pair.map_err(|problem| problem.to_string()).and_then(attribute)).collect()
}

fn append(open: &mut [Element], text: &str) {
    let Some((_, element)) = open.last_mut() else { return };
    match element.get_mut(TEXT) {
        Some(Value::String(all)) => all.push_str(text),
        _ => drop(element.insert(TEXT.to_owned(), Value::String(text.to_owned()))),
    }
}

/// Puts a finished element into the one around it: text alone as a string, a second one of the same name as a list.
fn close(open: &mut [Element], (name, mut element): Element) {
    let text = element.shift_remove(TEXT);
    let text = text.as_ref().and_then(Value::as_str).unwrap_or_default().trim().to_owned();
    let value = if element.is_empty() {
        Value::String(text)
    } else {
        if !text.is_empty() {
            element.insert(TEXT.to_owned(), Value::String(text));
        }
        Value::Object(element)
    };
    let Some((_, parent)) = open.last_mut() else { return };
    match parent.get_mut(&name) {
        Some(Value::Array(list)) => list.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
        None => drop(parent.insert(name, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Found {
        Found::Text(value.to_owned())
    }

    #[test]
    fn yaml_is_read_by_dotted_paths() {
        let body = b"{components: [{id: 82328e93e, tasks: 32, str: '64', k: 1k, wrong: NaN}], count: 2.43, 1: {2: 5}, up: true}";
        for (path, wanted) in [
            ("count", Ok(Found::Number(2.43))),
            ("components.0.str", Ok(text("64"))),
            ("components.0.tasks", Ok(Found::Number(32.0))),
            ("components.0.k", Ok(text("1k"))),
            ("components.0.wrong", Ok(text("NaN"))),
            ("count.beyond", Ok(Found::Number(2.43))),
            ("1.2", Ok(Found::Number(5.0))),
            ("up", Ok(Found::Other("true"))),
            ("components.1.tasks", Err("key '1' not found in path 'components.1.tasks'".to_owned())),
            ("components.0", Err("path 'components.0' does not lead to a value".to_owned())),
        ] {
            assert_eq!(yaml(body, path).map_err(|problem| problem.to_string()), wanted, "{path}");
        }
        for body in ["a: [", "5", "- 5", "", "a: 1\n b: 2"] {
            assert!(
                matches!(yaml(body.as_bytes(), "0"), Err(DocumentError::Syntax { format: "YAML", .. })),
                "{body}"
            );
        }
    }

    #[test]
    fn yaml_is_as_kedas_parser_has_it() {
        for (body, wanted) in [
            ("---\na: 1\n---\na: 2\n", Found::Number(1.0)),
            ("a: 1\n...\nb: [\n", Found::Number(1.0)),
            ("a: 017", Found::Number(15.0)),
            ("a: 0x10", Found::Number(16.0)),
            ("a: 1_000", Found::Number(1000.0)),
            ("a: 5\nb: .inf", Found::Number(5.0)),
            ("a: .nan", Found::Other("null")),
        ] {
            assert_eq!(yaml(body.as_bytes(), "a"), Ok(wanted), "{body}");
        }
    }

    #[test]
    fn xml_is_read_by_dotted_paths() {
        let body = br#"<?xml version="1.0"?><!-- x --><queues count="2">
            <queue name="a"><size>5</size></queue><queue name="b"><size> 7 </size></queue>
            <total unit="jobs">12</total><empty/><text>1&lt;2 <![CDATA[&]]></text></queues>"#;
        for (path, wanted) in [
            ("queues.queue.1.size", Ok(text("7"))),
            ("queue.0.size", Ok(text("5"))),
            ("queue.0.@name", Ok(text("a"))),
            ("@count", Ok(text("2"))),
            ("total.#text", Ok(text("12"))),
            ("empty", Ok(text(""))),
            ("text", Ok(text("1<2 &"))),
            ("nothing", Err("key 'nothing' not found in path 'nothing'".to_owned())),
        ] {
            assert_eq!(xml(body, path).map_err(|problem| problem.to_string()), wanted, "{path}");
        }
        let deep = "<a>".repeat(MAX_DEPTH + 1);
        for body in ["", "no element", "<a><b></a>", "<a>", deep.as_str()] {
            assert!(
                matches!(xml(body.as_bytes(), "a"), Err(DocumentError::Syntax { format: "XML", .. })),
                "{body}"
            );
        }
    }
}
