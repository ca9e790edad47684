//! YAML (and so JSON) with line numbers.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};
use serde_saphyr::{NonFiniteFloatPolicy, Spanned};

use super::path::{Path, Segment};

/// A value, and the line it stands on, from 1.
#[derive(Clone, Debug)]
pub struct Node {
    line: u64,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
struct Entry {
    key: String,
    line: u64,
    node: Node,
}

/// A text that is no YAML.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct YamlError {
    /// The line, from 1; 0 if unknown.
    pub line: u64,
    /// What is wrong there.
    pub message: String,
}

/// The documents of `text` that are not empty. After a syntax error the rest of the text is not read.
pub fn documents(text: &str) -> Vec<Result<Node, YamlError>> {
    // kubectl's reader knows the booleans of YAML 1.1 (yes, no, on, off), which is the default here too. An infinity is
    // no JSON: it becomes a string, which no number field takes.
    let options = serde_saphyr::options! {
        with_snippet: false,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
    };
    let mut bytes = text.as_bytes();
    serde_saphyr::read_with_options::<_, Node>(&mut bytes, options)
        .map(|document| document.map_err(|error| YamlError::from(&error)))
        .collect()
}

impl From<&serde_saphyr::Error> for YamlError {
    fn from(error: &serde_saphyr::Error) -> Self {
        let message = error.to_string();
        let Some(location) = error.location() else { return Self { line: 0, message } };
        let place = format!(" at line {}, column {}", location.line(), location.column());
        Self { line: location.line(), message: message.replace(&place, "") }
    }
}

impl Node {
    /// The line it stands on, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The value without its lines.
    pub fn to_value(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(nodes) => nodes.iter().map(Self::to_value).collect(),
            Content::Map(entries) => {
                let pairs = entries.iter().map(|entry| (entry.key.clone(), entry.node.to_value()));
                Value::Object(pairs.collect::<Map<_, _>>())
            }
        }
    }

    /// The line of what `path` names, or of the nearest thing around it that is there.
    pub fn line_of(&self, path: &Path) -> u64 {
        let (mut node, mut line) = (self, self.line);
        for segment in path.segments() {
            match (segment, &node.content) {
                (Segment::Key(key), Content::Map(entries)) => {
                    let Some(entry) = entries.iter().find(|entry| entry.key == *key) else { break };
                    (node, line) = (&entry.node, entry.line);
                }
                (Segment::Index(index), Content::List(nodes)) => {
                    let Some(element) = nodes.get(*index) else { break };
                    (node, line) = (element, element.line);
                }
                _ => break,
            }
        }
        line
    }

    /// The elements of the list under `key`, when this is a map and that is a list.
    pub fn elements(&self, key: &str) -> Option<&[Node]> {
        let Content::Map(entries) = &self.content else { return None };
        match &entries.iter().find(|entry| entry.key == key)?.node.content {
            Content::List(nodes) => Some(nodes),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Content>::deserialize(deserializer)?;
        Ok(Self { line: spanned.referenced.line(), content: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map, a list or a scalar")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Content, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = elements.next_element()? {
            nodes.push(node);
        }
        Ok(Content::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = pairs.next_key::<Spanned<String>>()? {
            let line = key.referenced.line();
            entries.push(Entry { key: key.value, line, node: pairs.next_value()? });
        }
        Ok(Content::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn values(text: &str) -> Vec<Value> {
        documents(text).into_iter().map(|document| document.unwrap().to_value()).collect()
    }

    #[test]
    fn values_as_kubectl_reads_them() {
        for (text, want) in [
            (
                "a: 1\nb: \"1\"\nc: 1.5\nd: true\ne: yes\nf: null\ng:",
                json!({"a": 1, "b": "1", "c": 1.5, "d": true, "e": true, "f": null, "g": null}),
            ),
            ("q: |\n  sum(\n  x)\n", json!({"q": "sum(\nx)\n"})),
            (
                "base: &base {a: 1}\nnext: {<<: *base, b: 2}\n",
                json!({"base": {"a": 1}, "next": {"a": 1, "b": 2}}),
            ),
            ("{\"kind\": \"List\", \"items\": [1, {}]}", json!({"kind": "List", "items": [1, {}]})),
            ("80: http", json!({"80": "http"})),
            (
                "a: y\nb: n\nc: on\nd: Off\ne: TRUE",
                json!({"a": true, "b": false, "c": true, "d": false, "e": true}),
            ),
            ("f: 0x10\ng: 1e3", json!({"f": 16, "g": 1000.0})),
            (
                "h: 2024-01-01\ni: .inf\nj: ~\nk: 12:30",
                json!({"h": "2024-01-01", "i": ".inf", "j": null, "k": "12:30"}),
            ),
            ("start: 0 8 * * *\nname: a-b", json!({"start": "0 8 * * *", "name": "a-b"})),
        ] {
            assert_eq!(values(text), [want], "{text}");
        }
    }

    #[test]
    fn every_document_and_no_empty_one() {
        assert_eq!(
            values("# head\n---\na: 1\n---\n# nothing\n---\na: 2\n---\n"),
            [json!({"a": 1}), json!({"a": 2})]
        );
        assert!(values("").is_empty());
    }

    #[test]
    fn lines() {
        let text = "---\nx: 1\n---\nspec:\n  triggers:\n    - type: cron\n      metadata:\n        start: a\n    - type: cpu\n";
        let node = documents(text).remove(1).unwrap();
        let triggers = Path::of("spec.triggers");
        for (path, want) in [
            (Path::default(), 4),
            (Path::of("spec"), 4),
            (triggers.clone(), 5),
            (triggers.index(0).key("metadata").key("start"), 8),
            (triggers.index(0).key("metadata").key("end"), 7),
            (triggers.index(1), 9),
            (triggers.index(2), 5),
            (Path::of("status.x"), 4),
        ] {
            assert_eq!(node.line_of(&path), want, "{path}");
        }
    }

    #[test]
    fn broken_text_names_its_line() {
        for (text, line) in [("a: 1\nb: [1, 2\nc: 3\n", 2), ("a: {{ .Values.x }}\n", 1), ("a: 1\na: 2\n", 2)]
        {
            let error = documents(text).into_iter().find_map(Result::err).unwrap();
            assert!(error.line.abs_diff(line) <= 1, "{text}: {error:?}");
        }
    }
}
