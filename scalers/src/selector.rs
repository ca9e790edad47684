//! Label selectors: whether Kubernetes would read one (`apimachinery/pkg/labels`).

/// Why a selector is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SelectorError {
    #[error("a requirement is empty")]
    Empty,
    #[error("unbalanced parentheses")]
    Parentheses,
    #[error("{0:?} is not a label key")]
    Key(String),
    #[error("{0:?} is not a label value")]
    Value(String),
    #[error(
        "{0:?} is not a requirement: write key=value, key!=value, key in (a, b), key notin (a, b), key or !key"
    )]
    Requirement(String),
}

/// Checks every requirement of a selector.
pub(crate) fn check(selector: &str) -> Result<(), SelectorError> {
    requirements(selector)?.into_iter().try_for_each(requirement)
}

/// Splits at the commas outside parentheses.
fn requirements(selector: &str) -> Result<Vec<&str>, SelectorError> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_u8);
    for (at, letter) in selector.char_indices() {
        match letter {
            '(' if depth == 0 => depth = 1,
            ')' if depth == 1 => depth = 0,
            '(' | ')' => return Err(SelectorError::Parentheses),
            ',' if depth == 0 => {
                parts.push(&selector[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&selector[start..]);
    if depth == 0 { Ok(parts) } else { Err(SelectorError::Parentheses) }
}

fn requirement(text: &str) -> Result<(), SelectorError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(SelectorError::Empty);
    }
    if let Some(absent) = text.strip_prefix('!') {
        return key(absent.trim());
    }
    if let Some(list) = text.strip_suffix(')') {
        let set = list.split_once('(').and_then(|(head, values)| {
            let (name, operator) = head.trim_end().rsplit_once(char::is_whitespace)?;
            matches!(operator, "in" | "notin").then_some((name.trim(), values))
        });
        let (name, values) = set.ok_or_else(|| SelectorError::Requirement(text.to_owned()))?;
        return key(name).and_then(|()| values.split(',').map(str::trim).try_for_each(value));
    }
    for operator in ["!=", "==", "="] {
        if let Some((name, wanted)) = text.split_once(operator) {
            return key(name.trim()).and_then(|()| value(wanted.trim()));
        }
    }
    if let Some((name, bound)) = text.split_once(['>', '<']) {
        key(name.trim())?;
        // A bound is a label's value first: none begins with a sign.
        value(bound.trim())?;
        return match bound.trim().parse::<i64>() {
            Ok(_) => Ok(()),
            Err(_) => Err(SelectorError::Value(bound.trim().to_owned())),
        };
    }
    key(text)
}

/// `name` or `prefix/name`.
fn key(text: &str) -> Result<(), SelectorError> {
    let (prefix, name) = match text.rsplit_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let dns = |prefix: &str| {
        prefix.len() <= 253
            && prefix.split('.').all(|part| {
                word(part) && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            })
    };
    if word(name) && prefix.is_none_or(dns) { Ok(()) } else { Err(SelectorError::Key(text.to_owned())) }
}

fn value(text: &str) -> Result<(), SelectorError> {
    if text.is_empty() || word(text) { Ok(()) } else { Err(SelectorError::Value(text.to_owned())) }
}

/// At most 63 letters, digits, `-`, `_` and `.`, a letter or digit at both ends.
fn word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    ends.is_some_and(|(first, last)| first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric())
        && bytes.len() <= 63
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn reads_what_kubernetes_reads() {
        for selector in [
            "app=demo",
            "app==demo",
            "app != demo",
            "app in (demo1, demo2),deploy in (deploy1, deploy2)",
            "app notin (a)",
            "app.kubernetes.io/name=x,!canary",
            "tier",
            "! tier",
            "a=",
            "gen > 3",
        ] {
            assert_eq!(check(selector), Ok(()), "{selector}");
        }
        for (selector, wanted) in [
            ("app=demo,", "a requirement is empty"),
            ("app in (a", "unbalanced parentheses"),
            ("app in a)", "unbalanced parentheses"),
            ("app at (a)", "\"app at (a)\" is not a requirement"),
            ("app=de mo", "\"de mo\" is not a label value"),
            ("-app=demo", "\"-app\" is not a label key"),
            ("a/b/c=d", "\"a/b/c\" is not a label key"),
            ("A.b/c=d", "\"A.b/c\" is not a label key"),
            ("gen > x", "\"x\" is not a label value"),
            ("gen > -1", "\"-1\" is not a label value"),
        ] {
            let problem = check(selector).expect_err(selector).to_string();
            assert!(problem.starts_with(wanted), "{selector}: {problem}");
        }
    }
}
