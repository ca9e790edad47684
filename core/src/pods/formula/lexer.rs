//! The tokens of a formula.

use thiserror::Error;

/// Most tokens of a formula. The parser, the evaluator and the tree's end recurse; a formula of this many tokens, of
/// whatever shape, fits a thread's stack with room to spare.
const MAX_TOKENS: usize = 500;

/// Operators and punctuation, longer ones first.
const OPERATORS: [&str; 32] = [
    "??", "?.", "..", "**", "<=", ">=", "==", "!=", "&&", "||", "+", "-", "*", "/", "%", "^", "<", ">", "!",
    "?", ":", ",", ".", ";", "|", "(", ")", "[", "]", "{", "}", "=",
];
/// Words that are operators.
const WORDS: [&str; 4] = ["not", "and", "or", "in"];

/// What keeps a text from being a formula, and where, in characters from 0.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub(super) struct SyntaxError {
    pub(super) message: String,
    pub(super) at: usize,
}

impl SyntaxError {
    pub(super) fn new(message: impl Into<String>, at: usize) -> Self {
        Self { message: message.into(), at }
    }

    /// The message with its place shown in a text, as expr-lang shows it; what was read begins at a character of the text.
    pub(super) fn shown_in(&self, text: &str, begin: usize) -> String {
        let before: Vec<char> = text.chars().take(begin + self.at).collect();
        let line = before.iter().filter(|c| **c == '\n').count();
        let column = before.iter().rev().take_while(|c| **c != '\n').count();
        let shown = text.lines().nth(line).unwrap_or_default();
        let dots = ".".repeat(column);
        format!("{self} ({}:{})\n | {shown}\n | {dots}^", line + 1, column + 1)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind<'a> {
    Name(&'a str),
    /// `#`, `#acc` or `#index`, without the sign.
    Element(&'a str),
    Integer(i64),
    Float(f64),
    Text(String),
    Operator(&'a str),
    End,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind<'a>,
    /// Where it begins, in characters.
    pub(super) at: usize,
}

/// The tokens of a text, with one of kind End behind the last.
pub(super) fn tokens(formula: &str) -> Result<Vec<Token<'_>>, SyntaxError> {
    let mut tokens = Vec::new();
    let mut rest = formula;
    let mut at = 0;
    loop {
        let begin = skip_blanks(rest).ok_or_else(|| SyntaxError::new("comment not terminated", at))?;
        at += rest[..rest.len() - begin.len()].chars().count();
        if tokens.len() == MAX_TOKENS {
            let message = format!("formula is too long: more than {MAX_TOKENS} names, numbers and operators");
            return Err(SyntaxError::new(message, at));
        }
        if begin.is_empty() {
            tokens.push(Token { kind: Kind::End, at });
            return Ok(tokens);
        }
        let (kind, length) = token(begin).map_err(|message| SyntaxError::new(message, at))?;
        tokens.push(Token { kind, at });
        let (token, after) = begin.split_at(length);
        at += token.chars().count();
        rest = after;
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// The token that a text begins with, and its length in bytes.
fn token(rest: &str) -> Result<(Kind<'_>, usize), String> {
    let mut chars = rest.chars();
    let first = chars.next().unwrap_or_default();
    let second = chars.next().unwrap_or_default();
    let word = |text: &str| text.find(|c| !is_word(c)).unwrap_or(text.len());
    if first.is_ascii_digit() || (first == '.' && second.is_ascii_digit()) {
        return number(rest);
    }
    if matches!(first, '"' | '\'' | '`') {
        return text(rest, first);
    }
    if first == '#' {
        let length = 1 + word(&rest[1..]);
        return Ok((Kind::Element(&rest[1..length]), length));
    }
    if is_word(first) {
        let length = word(rest);
        let name = &rest[..length];
        return Ok((if WORDS.contains(&name) { Kind::Operator(name) } else { Kind::Name(name) }, length));
    }
    // `a ?.5 : 1` is a condition.
    if rest.starts_with("?.") && rest[2..].starts_with(|c: char| c.is_ascii_digit()) {
        return Ok((Kind::Operator("?"), 1));
    }
    let operator = OPERATORS.iter().find(|operator| rest.starts_with(**operator));
    operator
        .map(|operator| (Kind::Operator(operator), operator.len()))
        .ok_or_else(|| format!("unrecognized character: {first:?}"))
}

/// What follows blanks and comments; `None` if a comment has no end.
fn skip_blanks(mut rest: &str) -> Option<&str> {
    loop {
        rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.find('\n').map_or("", |end| &comment[end..]);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = &comment[comment.find("*/")? + 2..];
        } else {
            return Some(rest);
        }
    }
}

/// A string in quotes; between backquotes nothing is special.
fn text(rest: &str, quote: char) -> Result<(Kind<'_>, usize), String> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((index, c)) = chars.next() {
        match c {
            _ if c == quote => return Ok((Kind::Text(text), index + 1)),
            '\\' if quote != '`' => text.push(match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, 't')) => '\t',
                Some((_, c @ ('\\' | '"' | '\'' | '/'))) => c,
                _ => return Err("invalid char escape".to_owned()),
            }),
            _ => text.push(c),
        }
    }
    Err("literal not terminated".to_owned())
}

/// A number: `1_000`, `0x1f`, `1.5e-3`; `1..3` begins with `1`.
fn number(rest: &str) -> Result<(Kind<'_>, usize), String> {
    let bytes = rest.as_bytes();
    let radix = match rest.get(..2) {
        Some("0x" | "0X") => 16,
        Some("0b" | "0B") => 2,
        Some("0o" | "0O") => 8,
        _ => 10,
    };
    let mut length = 0;
    while let Some(byte) = bytes.get(length) {
        let after_exponent = radix == 10 && length > 0 && matches!(bytes[length - 1], b'e' | b'E');
        length += match byte {
            b'.' if bytes.get(length + 1) == Some(&b'.') || rest[..length].contains('.') => break,
            b'+' | b'-' if after_exponent => 1,
            b'.' | b'_' => 1,
            _ if byte.is_ascii_alphanumeric() => 1,
            _ => break,
        };
    }
    let digits = rest[..length].replace('_', "");
    let bad = || format!("bad number syntax: {:?}", &rest[..length]);
    let kind = if radix != 10 {
        Kind::Integer(i64::from_str_radix(&digits[2..], radix).map_err(|_| bad())?)
    } else if digits.contains(['.', 'e', 'E']) {
        Kind::Float(digits.parse().map_err(|_| bad())?)
    } else {
        Kind::Integer(digits.parse().map_err(|_| bad())?)
    };
    Ok((kind, length))
}
