//! The text of a formula, made safe for the parser.
//!
//! Triggers are named freely, and a name such as `notifications` begins with an operator: variables are replaced by
//! numbered ones. Names that no trigger has are found here, because evaluation sees only the branch it takes. What
//! `??` joins is put in parentheses, because the parser would give it everything to its right.

use std::collections::HashMap;

use thiserror::Error;

/// Most tokens of a formula: the parser and the evaluator recurse, and a chain of this many operators fits a thread's
/// stack with room to spare.
const MAX_TOKENS: usize = 600;
/// Deepest nesting of brackets, for the same reason.
const MAX_DEPTH: usize = 24;
/// Longest range, `1..1000`: a range is an array in memory.
const MAX_RANGE: u64 = 1_000;

/// Words of the language that name no variable.
const KEYWORDS: [&str; 14] = [
    "true",
    "false",
    "nil",
    "not",
    "and",
    "or",
    "in",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "let",
    "if",
    "else",
];
/// Operators, longer ones first.
const OPERATORS: [&str; 26] = [
    "??", "?.", "..", "**", "<=", ">=", "==", "!=", "&&", "||", "+", "-", "*", "/", "%", "^", "<", ">", "!",
    "?", ":", ",", ".", ";", "|", "=",
];
/// Operators between two operands, which `??` does not mix with.
const BINARY: [&str; 24] = [
    "..",
    "**",
    "<=",
    ">=",
    "==",
    "!=",
    "&&",
    "||",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "<",
    ">",
    "and",
    "or",
    "in",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "not",
];

/// What keeps a text from being a formula.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum SyntaxError {
    /// A name that no named trigger has.
    #[error("unknown name {name}")]
    UnknownName {
        /// The name.
        name: String,
        /// Where it begins, in characters from 0.
        at: usize,
    },
    /// A character that begins no token.
    #[error("unrecognized character: {0:?}")]
    Character(char),
    /// A string or comment without its end.
    #[error("literal not terminated")]
    Unterminated,
    /// A bracket without its other half.
    #[error("unbalanced bracket {0:?}")]
    Bracket(char),
    /// `??` beside another operator.
    #[error("Operator ({0}) and coalesce expressions (??) cannot be mixed. Wrap either by parentheses.")]
    MixedCoalesce(String),
    /// A range that is not spelled out or is too long.
    #[error("a range needs two whole numbers at most {MAX_RANGE} apart")]
    Range,
    /// More than the evaluator takes.
    #[error(
        "formula is too long: more than {MAX_TOKENS} names, numbers and operators, or more than {MAX_DEPTH} nested brackets"
    )]
    TooLong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Name,
    Number,
    Text,
    /// A bracket that opens, and the index of the one that closes it.
    Open(usize),
    Close,
    Operator,
}

#[derive(Debug, Clone, Copy)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    at: usize,
}

impl Token<'_> {
    fn is(&self, operator: &str) -> bool {
        matches!(self.kind, Kind::Operator | Kind::Name | Kind::Open(_)) && self.text == operator
    }
}

/// The formula with each variable replaced by what `variable` says of its index in `names`, ready to be parsed;
/// and the names it calls as functions.
pub(super) fn prepare<'a>(
    formula: &'a str,
    names: &[&str],
    variable: impl Fn(usize) -> String,
) -> Result<(String, Vec<&'a str>), SyntaxError> {
    let tokens = tokens(formula)?;
    let mut names: HashMap<&str, String> =
        names.iter().enumerate().map(|(index, name)| (*name, variable(index))).collect();
    for (index, pair) in tokens.windows(2).filter(|pair| pair[0].is("let")).enumerate() {
        names.insert(pair[1].text, format!("let{index}"));
    }
    let rewriter = Rewriter { tokens: &tokens, names };
    let mut text = String::with_capacity(formula.len() * 2);
    rewriter.group(0, tokens.len(), &mut text)?;
    let functions =
        (0..tokens.len()).filter(|index| rewriter.is_function(*index)).map(|index| tokens[index].text);
    Ok((text, functions.collect()))
}

/// Writes tokens out again.
struct Rewriter<'a> {
    tokens: &'a [Token<'a>],
    names: HashMap<&'a str, String>,
}

impl<'a> Rewriter<'a> {
    /// Tokens `start..end`, of one bracket or of the whole formula.
    fn group(&self, start: usize, end: usize, text: &mut String) -> Result<(), SyntaxError> {
        let mut index = start;
        while index < end {
            index = match self.operand_end(index) {
                Some(operand) if self.at(operand, "??") => self.coalesce(index, text)?,
                Some(operand) => {
                    self.operand(index, operand, text)?;
                    operand
                }
                None => {
                    self.operator(index, text)?;
                    index + 1
                }
            };
        }
        Ok(())
    }

    /// A chain of operands with `??` between them, in parentheses; where it ends.
    fn coalesce(&self, start: usize, text: &mut String) -> Result<usize, SyntaxError> {
        let mut index = start;
        text.push_str(" (");
        loop {
            while self.tokens.get(index).is_some_and(|token| ["-", "+", "!", "not"].contains(&token.text)) {
                self.operator(index, text)?;
                index += 1;
            }
            let end = self.operand_end(index).unwrap_or(index);
            self.operand(index, end, text)?;
            index = end;
            if !self.at(index, "??") {
                break;
            }
            text.push_str(" ??");
            index += 1;
        }
        text.push(')');
        let leads = start == 0 || !BINARY.contains(&self.tokens[start - 1].text);
        match self.tokens.get(index) {
            Some(next) if leads && BINARY.contains(&next.text) => {
                Err(SyntaxError::MixedCoalesce(next.text.to_owned()))
            }
            _ => Ok(index),
        }
    }

    /// Where the operand ends that begins here: a name, a literal or a bracket with what is called, indexed and
    /// selected of it.
    fn operand_end(&self, start: usize) -> Option<usize> {
        let first = self.tokens.get(start)?;
        let mut end = match first.kind {
            Kind::Open(close) => close + 1,
            Kind::Number | Kind::Text => start + 1,
            Kind::Name
                if !KEYWORDS.contains(&first.text) || ["true", "false", "nil"].contains(&first.text) =>
            {
                start + 1
            }
            _ => return None,
        };
        loop {
            end = match self.tokens.get(end).map(|token| (token.kind, token.text)) {
                Some((Kind::Open(close), "[")) => close + 1,
                Some((Kind::Open(close), "(")) if self.tokens[end - 1].kind == Kind::Name => close + 1,
                Some((Kind::Operator, "." | "?.")) => {
                    match self.tokens.get(end + 1).map(|token| token.kind) {
                        Some(Kind::Name) => end + 2,
                        Some(Kind::Open(close)) => close + 1,
                        _ => return Some(end),
                    }
                }
                _ => return Some(end),
            };
        }
    }

    /// The tokens of one operand.
    fn operand(&self, start: usize, end: usize, text: &mut String) -> Result<(), SyntaxError> {
        let mut index = start;
        while index < end {
            let token = &self.tokens[index];
            index = match token.kind {
                Kind::Open(close) => {
                    text.push_str(token.text);
                    self.group(index + 1, close, text)?;
                    text.push_str(self.tokens[close].text);
                    close + 1
                }
                Kind::Name => {
                    self.name(index, text)?;
                    index + 1
                }
                _ => {
                    self.operator(index, text)?;
                    index + 1
                }
            };
        }
        Ok(())
    }

    /// A name, replaced if it is a variable.
    fn name(&self, index: usize, text: &mut String) -> Result<(), SyntaxError> {
        let token = &self.tokens[index];
        if !self.at_any(index.wrapping_sub(1), &[".", "?."]) {
            text.push(' ');
        }
        if self.is_variable(index) {
            let unknown = || SyntaxError::UnknownName { name: token.text.to_owned(), at: token.at };
            text.push_str(self.names.get(token.text).ok_or_else(unknown)?);
        } else {
            text.push_str(token.text);
        }
        Ok(())
    }

    /// A token that is itself, kept apart from what is before it.
    fn operator(&self, index: usize, text: &mut String) -> Result<(), SyntaxError> {
        let token = &self.tokens[index];
        if token.text == ".." {
            self.range(index)?;
        }
        if token.kind == Kind::Name {
            return self.name(index, text);
        }
        if !["(", "[", ".", "?."].contains(&token.text) {
            text.push(' ');
        }
        text.push_str(token.text);
        Ok(())
    }

    /// Only ranges between whole numbers that are written out have a known length.
    fn range(&self, index: usize) -> Result<(), SyntaxError> {
        let number = |index: usize| self.tokens.get(index)?.text.parse::<u64>().ok();
        let first = index.checked_sub(1).and_then(number).ok_or(SyntaxError::Range)?;
        let last = number(index + 1).ok_or(SyntaxError::Range)?;
        (last.saturating_sub(first) <= MAX_RANGE).then_some(()).ok_or(SyntaxError::Range)
    }

    fn at(&self, index: usize, operator: &str) -> bool {
        self.tokens.get(index).is_some_and(|token| token.is(operator))
    }

    fn at_any(&self, index: usize, operators: &[&str]) -> bool {
        operators.iter().any(|operator| self.at(index, operator))
    }

    fn is_function(&self, index: usize) -> bool {
        let token = &self.tokens[index];
        token.kind == Kind::Name
            && !KEYWORDS.contains(&token.text)
            && self.at(index + 1, "(")
            && !self.at_any(index.wrapping_sub(1), &[".", "?."])
    }

    /// Neither a word of the language nor a member, an element of a predicate, a function or a key.
    fn is_variable(&self, index: usize) -> bool {
        let text = self.tokens[index].text;
        let before = index.wrapping_sub(1);
        let is_key = self.at(index + 1, ":") && self.at_any(before, &["{", ","]) && !self.in_ternary(index);
        !(KEYWORDS.contains(&text)
            || text == "$env"
            || text.starts_with('#')
            || self.at_any(before, &[".", "?."])
            || self.at(index + 1, "(")
            || is_key)
    }

    /// Whether a `?` of the same bracket waits for its `:`.
    fn in_ternary(&self, index: usize) -> bool {
        let mut open = 0_usize;
        for token in self.tokens[..index].iter().rev() {
            match token.kind {
                Kind::Close => open += 1,
                Kind::Open(_) if open == 0 => return false,
                Kind::Open(_) => open -= 1,
                Kind::Operator if open == 0 && token.text == "?" => return true,
                _ => {}
            }
        }
        false
    }
}

/// The tokens of a text, brackets paired.
fn tokens(formula: &str) -> Result<Vec<Token<'_>>, SyntaxError> {
    let mut tokens: Vec<Token<'_>> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let mut rest = formula;
    loop {
        rest = skip_blanks(rest)?;
        let Some(first) = rest.chars().next() else { break };
        let (kind, length) = token(rest, first)?;
        let at = formula[..formula.len() - rest.len()].chars().count();
        match kind {
            Kind::Open(_) => open.push(tokens.len()),
            Kind::Close => {
                let opened = open.pop().ok_or(SyntaxError::Bracket(first))?;
                if !matches!((tokens[opened].text, first), ("(", ')') | ("[", ']') | ("{", '}')) {
                    return Err(SyntaxError::Bracket(first));
                }
                tokens[opened].kind = Kind::Open(tokens.len());
            }
            _ => {}
        }
        let (text, after) = rest.split_at(length);
        tokens.push(Token { kind, text, at });
        rest = after;
        if tokens.len() > MAX_TOKENS || open.len() > MAX_DEPTH {
            return Err(SyntaxError::TooLong);
        }
    }
    match open.pop() {
        Some(opened) => Err(SyntaxError::Bracket(tokens[opened].text.chars().next().unwrap_or('('))),
        None => Ok(tokens),
    }
}

/// The kind and length in bytes of the token that a text begins with.
fn token(rest: &str, first: char) -> Result<(Kind, usize), SyntaxError> {
    let second = rest[first.len_utf8()..].chars().next();
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let word_length = |rest: &str| rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    Ok(match first {
        '(' | '[' | '{' => (Kind::Open(0), 1),
        ')' | ']' | '}' => (Kind::Close, 1),
        '"' | '\'' | '`' => (Kind::Text, text_length(rest, first)?),
        'b' | 'B' if matches!(second, Some('"' | '\'')) => {
            (Kind::Text, 1 + text_length(&rest[1..], second.unwrap_or('"'))?)
        }
        '0'..='9' => (Kind::Number, number_length(rest)),
        '.' if second.is_some_and(|c| c.is_ascii_digit()) => (Kind::Number, number_length(rest)),
        // `a ?.5 : 1` is a condition.
        '?' if second == Some('.') && rest[2..].starts_with(|c: char| c.is_ascii_digit()) => {
            (Kind::Operator, 1)
        }
        '#' => (Kind::Name, 1 + word_length(&rest[1..])),
        _ if is_word(first) => (Kind::Name, word_length(rest)),
        _ => {
            let operator = OPERATORS.iter().find(|operator| rest.starts_with(**operator));
            (Kind::Operator, operator.ok_or(SyntaxError::Character(first))?.len())
        }
    })
}

/// What follows blanks and comments.
fn skip_blanks(mut rest: &str) -> Result<&str, SyntaxError> {
    loop {
        rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.find('\n').map_or("", |end| &comment[end..]);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = &comment[comment.find("*/").ok_or(SyntaxError::Unterminated)? + 2..];
        } else {
            return Ok(rest);
        }
    }
}

/// Length in bytes of a string with its quotes.
fn text_length(rest: &str, quote: char) -> Result<usize, SyntaxError> {
    let mut escaped = false;
    for (index, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote != '`' => escaped = true,
            _ if c == quote => return Ok(index + 1),
            _ => {}
        }
    }
    Err(SyntaxError::Unterminated)
}

/// Length in bytes of a number: `1_000`, `0x1f`, `1.5e-3`; `1..3` begins with `1`.
fn number_length(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let is_hex = rest.starts_with("0x") || rest.starts_with("0X");
    let mut length = 0;
    while let Some(byte) = bytes.get(length) {
        let after_exponent = !is_hex && length > 0 && matches!(bytes[length - 1], b'e' | b'E');
        length += match byte {
            b'.' if bytes.get(length + 1) == Some(&b'.') || rest[..length].contains('.') => break,
            b'+' | b'-' if after_exponent => 1,
            b'.' | b'_' => 1,
            _ if byte.is_ascii_alphanumeric() => 1,
            _ => break,
        };
    }
    length
}
