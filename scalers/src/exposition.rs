//! Prometheus' text format: finds one sample by a selector.

use promql_parser::label::Matcher;
use promql_parser::parser::{Expr, VectorSelector};

/// A selector such as `queue_size{queue="orders"}`, with a name.
#[derive(Debug)]
pub(crate) struct Selector {
    name: String,
    matchers: Vec<Matcher>,
}

/// Why there is no sample.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExpositionError {
    #[error("{0:?} is not a metric selector: {1}")]
    Selector(String, String),
    #[error("prometheus format parsing error: line {0} is no sample")]
    Line(usize),
    #[error("metric '{0}' not found")]
    Metric(String),
    #[error("value {0} not found")]
    Sample(String),
}

impl Selector {
    pub(crate) fn parse(text: &str) -> Result<Self, ExpositionError> {
        let wrong = |why: &str| ExpositionError::Selector(text.to_owned(), why.to_owned());
        match promql_parser::parser::parse(text).map_err(|problem| wrong(&problem))? {
            Expr::VectorSelector(VectorSelector { name: Some(name), matchers, offset: None, at: None }) => {
                Ok(Self { name, matchers: matchers.matchers })
            }
            _ => Err(wrong("write name{label=\"value\"}")),
        }
    }

    /// The first sample of a document that fits.
    pub(crate) fn find(&self, document: &str) -> Result<f64, ExpositionError> {
        let mut named = false;
        for (number, line) in document.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let sample = Sample::parse(line).ok_or(ExpositionError::Line(number + 1))?;
            if sample.name != self.name {
                continue;
            }
            named = true;
            if self.matchers.iter().all(|matcher| sample.fits(matcher)) {
                return Ok(sample.value);
            }
        }
        Err(if named {
            let matchers: Vec<_> = self.matchers.iter().map(ToString::to_string).collect();
            ExpositionError::Sample(format!("{}{{{}}}", self.name, matchers.join(",")))
        } else {
            ExpositionError::Metric(self.name.clone())
        })
    }
}

/// One line: `name{label="value",…} value [time]`.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
        let (name, rest) = line.split_at(end);
        let (labels, rest) = match rest.trim_start().strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (Vec::new(), rest),
        };
        let mut words = rest.split_whitespace();
        let value = words.next()?.parse().ok()?;
        let time = words.next().is_none_or(|time| time.parse::<i64>().is_ok());
        let name_fits =
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_:.".contains(c));
        (time && words.next().is_none() && name_fits).then_some(Self { name, labels, value })
    }

    /// A label that is absent is empty.
    fn fits(&self, matcher: &Matcher) -> bool {
        let label = self.labels.iter().find(|(name, _)| *name == matcher.name);
        matcher.is_match(label.map_or("", |(_, value)| value))
    }
}

type Labels<'a> = Vec<(&'a str, String)>;

/// Reads up to the closing brace; gives what follows it.
fn labels(text: &str) -> Option<(Labels<'_>, &str)> {
    let mut labels = Vec::new();
    let mut rest = text.trim_start();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once('=')?;
        let (value, after) = quoted(after.trim_start().strip_prefix('"')?)?;
        labels.push((name.trim(), value));
        rest = after.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
}

/// Reads up to the closing quote, undoing `\\`, `\"` and `\n`.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match letters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "# HELP queue_size Jobs that wait\n\t# TYPE queue_size gauge\n\
        \tqueue_size{queue=\"zero\"} 0\r\n\tqueue_size{queue=\"two\", instance=\"a\",} 2\n\
        queue_size { queue = \"t\\\"w\\\\o\\n\" } 3 1395066363000\n\nload 1.5e1\nempty{} +Inf";

    #[test]
    fn the_first_sample_that_fits_counts() {
        for (selector, wanted) in [
            ("load", Ok(15.0)),
            ("queue_size", Ok(0.0)),
            (r#"queue_size{queue="two"}"#, Ok(2.0)),
            (r#"queue_size{queue="two", instance="a"}"#, Ok(2.0)),
            (
                r#"queue_size{queue=~"t.*",instance=""}"#,
                Err(r#"value queue_size{queue=~"t.*",instance=""} not found"#),
            ),
            (r#"queue_size{queue="t\"w\\o\n"}"#, Ok(3.0)),
            (r#"queue_size{queue!="zero"}"#, Ok(2.0)),
            ("empty", Ok(f64::INFINITY)),
            ("nothing", Err("metric 'nothing' not found")),
        ] {
            let got = Selector::parse(selector).unwrap().find(DOCUMENT);
            assert_eq!(
                got.map_err(|problem| problem.to_string()),
                wanted.map_err(str::to_owned),
                "{selector}"
            );
        }
    }

    #[test]
    fn what_is_neither_selector_nor_document_is_said() {
        for selector in
            ["queue_size{invalid=test}", "sum(queue_size)", "{queue=\"a\"}", "x[5m]", "x offset 5m"]
        {
            assert!(Selector::parse(selector).is_err(), "{selector}");
        }
        for document in ["<html>", "load", "load x", "load 1 2 3", "load{a=\"b} 1", "load{a} 1", "{\"a\": 1}"]
        {
            let problem = Selector::parse("load").unwrap().find(document).unwrap_err();
            assert_eq!(
                problem.to_string(),
                "prometheus format parsing error: line 1 is no sample",
                "{document}"
            );
        }
    }
}
