//! Prometheus' text format: finds one sample by a selector.

use std::borrow::Cow;

use promql_parser::label::{MatchOp, Matcher};
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
            Expr::VectorSelector(VectorSelector { name, matchers, offset: None, at: None }) => {
                let is_name = |matcher: &Matcher| matcher.name == "__name__" && matcher.op == MatchOp::Equal;
                let (names, matchers): (Vec<_>, Vec<_>) = matchers.matchers.into_iter().partition(is_name);
                let name = name.or_else(|| names.into_iter().next_back().map(|matcher| matcher.value));
                name.map(|name| Self { name, matchers }).ok_or_else(|| wrong("it names no metric"))
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

/// One line: `name{label="value",…} value [time]`; a name that is no word is quoted, inside of the braces.
struct Sample<'a> {
    name: Cow<'a, str>,
    labels: Vec<(Cow<'a, str>, String)>,
    value: f64,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
        let (name, rest) = line.split_at(end);
        let (quoted_name, labels, rest) = match rest.trim_start().strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (None, Vec::new(), rest),
        };
        let mut words = rest.split_whitespace();
        let value = words.next()?.parse().ok()?;
        let time = words.next().is_none_or(|time| time.parse::<i64>().is_ok());
        let word = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "_:.".contains(c));
        let name = match quoted_name {
            Some(quoted) => name.is_empty().then_some(Cow::Owned(quoted))?,
            None => Some(Cow::Borrowed(name)).filter(|name| !name.is_empty() && word(name))?,
        };
        (time && words.next().is_none()).then_some(Self { name, labels, value })
    }

    /// A label that is absent is empty.
    fn fits(&self, matcher: &Matcher) -> bool {
        let label = self.labels.iter().find(|(name, _)| *name == matcher.name);
        matcher.is_match(label.map_or("", |(_, value)| value))
    }
}

type Labels<'a> = Vec<(Cow<'a, str>, String)>;

/// Reads up to the closing brace: the metric's name, if it is there, the labels, and what follows the brace.
fn labels(text: &str) -> Option<(Option<String>, Labels<'_>, &str)> {
    let (mut metric, mut labels) = (None, Vec::new());
    let mut rest = text.trim_start();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some((metric, labels, after));
        }
        let (name, after) = match rest.strip_prefix('"') {
            Some(rest) => quoted(rest).map(|(name, after)| (Cow::Owned(name), after.trim_start()))?,
            None => {
                rest.split_at_checked(rest.find('=')?).map(|(name, after)| (name.trim().into(), after))?
            }
        };
        if let Some(after) = after.strip_prefix('=') {
            let (value, after) = quoted(after.trim_start().strip_prefix('"')?)?;
            labels.push((name, value));
            rest = after.trim_start();
        } else {
            metric = Some(name.into_owned());
            rest = after;
        }
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
        queue_size { queue = \"t\\\"w\\\\o\\n\" } 3 1395066363000\n\nload 1.5e1\nempty{} +Inf\n\
        {\"jobs.waiting\", queue=\"a\"} 4\nload{\"host.name\"=\"x\"} 16";

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
            (r#"{__name__="queue_size",queue="two"}"#, Ok(2.0)),
            (r#"{__name__="jobs.waiting",queue="a"}"#, Ok(4.0)),
            (r#"load{"host.name"="x"}"#, Ok(16.0)),
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
        for selector in [
            "queue_size{invalid=test}",
            "sum(queue_size)",
            "{queue=\"a\"}",
            "{__name__=~\"a\"}",
            "x[5m]",
            "x offset 5m",
        ] {
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
