//! Percent-encoding of paths, queries and header names (RFC 3986 section 2.1).

use std::borrow::Cow;

/// Decodes `%41` to `A`; borrows when nothing is encoded. None on a broken escape or on bytes that are not UTF-8.
pub(super) fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            bytes.push(hex(digits[0])? << 4 | hex(digits[1])?);
            rest = after;
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// A query value with a broken escape, or with bytes that are not UTF-8.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Undecodable;

/// The first value of a query parameter, decoded, with `+` for a space.
pub(super) fn query_value<'a>(query: &'a str, name: &str) -> Result<Option<Cow<'a, str>>, Undecodable> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let Some((_, value)) = pairs.into_iter().find(|(key, _)| *key == name) else { return Ok(None) };
    let decoded = if value.contains('+') {
        decode(&value.replace('+', " ")).map(|value| Cow::Owned(value.into_owned()))
    } else {
        decode(value)
    };
    decoded.map(Some).ok_or(Undecodable)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes() {
        for (text, want) in [
            ("s0-prometheus", Some("s0-prometheus")),
            ("", Some("")),
            ("a%2Fb%2fc", Some("a/b/c")),
            ("%C3%A9", Some("é")),
            ("a+b", Some("a+b")),
            ("%", None),
            ("%4", None),
            ("%zz", None),
            ("%+4", None),
            ("%FF", None),
        ] {
            assert_eq!(decode(text).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn finds_a_query_value() {
        for (query, want) in [
            ("labelSelector=a%3Db", Ok(Some("a=b"))),
            ("limit=5&labelSelector=a+in+%28b%29&labelSelector=c", Ok(Some("a in (b)"))),
            ("labelSelector", Ok(Some(""))),
            ("labelSelector=%G0", Err(&Undecodable)),
            ("labelSelector=+%", Err(&Undecodable)),
            ("xlabelSelector=a", Ok(None)),
            ("", Ok(None)),
        ] {
            let found = query_value(query, "labelSelector");
            assert_eq!(found.as_ref().map(Option::as_deref), want, "{query}");
        }
    }
}
