//! Label selectors in a query: the whole grammar is checked, one label is read.

use thiserror::Error;

/// The label that names the `ScaledObject` in the HPA's metric selector.
pub(super) const SCALED_OBJECT_LABEL: &str = "scaledobject.keda.sh/name";

/// A selector that cannot be read, or that names no single object.
#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum SelectorError {
    #[error("unable to parse labelSelector {selector:?}: {problem}")]
    Syntax { selector: String, problem: String },
    #[error("labelSelector {selector:?} must give {SCALED_OBJECT_LABEL} exactly one value")]
    NotOneObject { selector: String },
}

/// The name of the `ScaledObject` that a selector asks for: `label=name`, `label==name` or `label in (name)`; None if
/// the selector does not speak of the label. Further requirements are checked for their syntax and then ignored, as
/// KEDA does (`pkg/provider/provider.go`, `GetExternalMetric`).
pub(super) fn scaled_object(selector: &str) -> Result<Option<String>, SelectorError> {
    let requirements = parse(selector)
        .map_err(|problem| SelectorError::Syntax { selector: selector.to_owned(), problem })?;
    let mut found: Option<&str> = None;
    for requirement in requirements.iter().filter(|requirement| requirement.key == SCALED_OBJECT_LABEL) {
        match (requirement.operator, requirement.values.as_slice()) {
            (Operator::In, [name]) if found.is_none_or(|found| found == *name) => found = Some(name),
            _ => return Err(SelectorError::NotOneObject { selector: selector.to_owned() }),
        }
    }
    Ok(found.filter(|name| !name.is_empty()).map(str::to_owned))
}

struct Requirement<'a> {
    key: &'a str,
    operator: Operator,
    values: Vec<&'a str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    /// `=`, `==` and `in`.
    In,
    /// `!=`, `notin`, `>`, `<`, and the bare key with or without `!`.
    Other,
}

/// The grammar of `k8s.io/apimachinery/pkg/labels.Parse`.
fn parse(selector: &str) -> Result<Vec<Requirement<'_>>, String> {
    let mut tokens = Tokens { rest: selector };
    let mut requirements = Vec::new();
    if tokens.peek().is_none() {
        return Ok(requirements);
    }
    loop {
        requirements.push(requirement(&mut tokens)?);
        match tokens.next() {
            None => return Ok(requirements),
            Some(",") => {}
            Some(token) => return Err(format!("found {token:?}, expected ',' or the end")),
        }
    }
}

fn requirement<'a>(tokens: &mut Tokens<'a>) -> Result<Requirement<'a>, String> {
    let negated = tokens.peek() == Some("!");
    if negated {
        tokens.next();
    }
    let key = tokens.next().ok_or("found the end, expected a key")?;
    check_key(key)?;
    if negated || matches!(tokens.peek(), None | Some(",")) {
        return Ok(Requirement { key, operator: Operator::Other, values: Vec::new() });
    }
    let (operator, values) = match tokens.next() {
        Some("=" | "==") => (Operator::In, vec![value(tokens)?]),
        Some("in") => (Operator::In, set(tokens)?),
        Some("!=" | ">" | "<") => (Operator::Other, vec![value(tokens)?]),
        Some("notin") => (Operator::Other, set(tokens)?),
        token => return Err(format!("found {:?}, expected an operator", token.unwrap_or_default())),
    };
    Ok(Requirement { key, operator, values })
}

/// `(a, b)`; elements may be empty.
fn set<'a>(tokens: &mut Tokens<'a>) -> Result<Vec<&'a str>, String> {
    match tokens.next() {
        Some("(") => {}
        token => return Err(format!("found {:?}, expected '('", token.unwrap_or_default())),
    }
    let mut values = Vec::new();
    loop {
        values.push(value(tokens)?);
        match tokens.next() {
            Some(")") => return Ok(values),
            Some(",") => {}
            token => return Err(format!("found {:?}, expected ',' or ')'", token.unwrap_or_default())),
        }
    }
}

/// A value, which may be empty.
fn value<'a>(tokens: &mut Tokens<'a>) -> Result<&'a str, String> {
    match tokens.peek() {
        None | Some("," | ")") => Ok(""),
        Some(value) => {
            tokens.next();
            check_value(value)?;
            Ok(value)
        }
    }
}

fn check_key(key: &str) -> Result<(), String> {
    let valid = !key.is_empty() && key.chars().all(|c| is_name_character(c) || c == '/');
    if valid { Ok(()) } else { Err(format!("{key:?} is not a label key")) }
}

fn check_value(value: &str) -> Result<(), String> {
    if value.chars().all(is_name_character) { Ok(()) } else { Err(format!("{value:?} is not a label value")) }
}

fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn peek(&self) -> Option<&'a str> {
        Tokens { rest: self.rest }.next()
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        const SYMBOLS: &[char] = &['=', '!', '(', ')', ',', '<', '>'];
        let rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let length = if rest.starts_with("==") || rest.starts_with("!=") {
            2
        } else if rest.starts_with(SYMBOLS) {
            1
        } else {
            rest.find(|c: char| c.is_ascii_whitespace() || SYMBOLS.contains(&c)).unwrap_or(rest.len())
        };
        let (token, rest) = rest.split_at(length);
        self.rest = rest;
        (!token.is_empty()).then_some(token)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names() {
        for (selector, want) in [
            ("scaledobject.keda.sh/name=nginx", Some("nginx")),
            ("scaledobject.keda.sh/name==nginx", Some("nginx")),
            ("scaledobject.keda.sh/name = nginx ", Some("nginx")),
            ("scaledobject.keda.sh/name in (nginx)", Some("nginx")),
            ("scaledobject.keda.sh/name in ( nginx )", Some("nginx")),
            ("a=b,scaledobject.keda.sh/name=nginx,c!=d,e in (f,g),h notin (i),j,!k,l>1,m<2", Some("nginx")),
            ("scaledobject.keda.sh/name=nginx,scaledobject.keda.sh/name in (nginx)", Some("nginx")),
            ("in=notin,scaledobject.keda.sh/name=in", Some("in")),
            ("scaledobject.keda.sh/name=a.b-c_D", Some("a.b-c_D")),
            ("scaledobject.keda.sh/name=", None),
            ("scaledobject.keda.sh/name in ()", None),
            ("queue=orders", None),
            ("", None),
            (" ", None),
        ] {
            assert_eq!(scaled_object(selector), Ok(want.map(str::to_owned)), "{selector}");
        }
    }

    #[test]
    fn refusals() {
        for (selector, want) in [
            ("scaledobject.keda.sh/name in (a,b)", "exactly one"),
            ("scaledobject.keda.sh/name=a,scaledobject.keda.sh/name=b", "exactly one"),
            ("scaledobject.keda.sh/name!=a", "exactly one"),
            ("scaledobject.keda.sh/name", "exactly one"),
            ("!scaledobject.keda.sh/name", "exactly one"),
            ("scaledobject.keda.sh/name notin (a)", "exactly one"),
            ("a=b,", "expected a key"),
            (",", "not a label key"),
            ("a b", "expected an operator"),
            ("a in (b", "expected ',' or ')'"),
            ("a in b", "expected '('"),
            ("a notin", "expected '('"),
            ("a=(b)", "not a label value"),
            ("a=b=c", "expected ',' or the end"),
            ("a=b/c", "not a label value"),
            ("a=é", "not a label value"),
            ("é=a", "not a label key"),
            ("!", "expected a key"),
            ("=a", "not a label key"),
        ] {
            let error = scaled_object(selector).expect_err(selector).to_string();
            assert!(error.contains(want), "{selector}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(selector in "[a-c=!(), <>\\-./é]{0,24}") {
            let _ = scaled_object(&selector);
        }

        #[test]
        fn every_valid_name_comes_back(name in "[a-z0-9]([-a-z0-9.]{0,40}[a-z0-9])?") {
            for form in [format!("{SCALED_OBJECT_LABEL}={name}"), format!("x,{SCALED_OBJECT_LABEL} in ({name}),!y")] {
                prop_assert_eq!(scaled_object(&form), Ok(Some(name.clone())));
            }
        }
    }
}
