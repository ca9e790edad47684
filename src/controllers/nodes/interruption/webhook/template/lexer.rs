//! Pieces of a template: text, and the words of actions.

use super::{TemplateError, value::Value};

/// What Go's templates trim beside `{{-` and `-}}`.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    /// Stands as it is.
    Text(String),
    /// An action: how it is written, and its words.
    Action(String, Vec<Word>),
}

/// A word of an action.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Word {
    /// A function or a keyword.
    Name(String),
    /// `.Name`; whether it begins an operand, or goes on with the one before.
    Field(String, bool),
    /// `.`
    Dot,
    /// `$name`; of `$` the name is empty.
    Variable(String),
    /// A constant.
    Literal(Value),
    /// `|`
    Pipe,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `,`
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

/// Takes a template apart; comments are left out.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let (mut pieces, mut rest, mut trims) = (Vec::new(), text, false);
    while let Some((before, action)) = rest.split_once("{{") {
        let opened = action.strip_prefix('-').filter(|inner| inner.starts_with(SPACE));
        let before = if trims { before.trim_start_matches(SPACE) } else { before };
        let before = if opened.is_some() { before.trim_end_matches(SPACE) } else { before };
        pieces.push(Piece::Text(before.to_owned()));
        let inner = opened.unwrap_or(action);
        let found = if inner.trim_start_matches(SPACE).starts_with("/*") {
            comment(inner).map(|end| (end, None))
        } else {
            words(inner)?.map(|(words, end)| (end, Some(words)))
        };
        let Some(((after, is_trimmed), words)) = found else {
            return Err(TemplateError::Open(format!("{{{{{action}")));
        };
        if let Some(words) = words {
            let written = &action[..action.len() - after.len()];
            pieces.push(Piece::Action(format!("{{{{{written}"), words));
        }
        (rest, trims) = (after, is_trimmed);
    }
    let rest = if trims { rest.trim_start_matches(SPACE) } else { rest };
    pieces.push(Piece::Text(rest.to_owned()));
    Ok(pieces)
}

/// What follows an action, and whether space before that is trimmed.
type End<'a> = (&'a str, bool);

fn end(text: &str) -> Option<End<'_>> {
    let trims = text.strip_prefix(SPACE).map(|text| text.trim_start_matches(SPACE));
    let trims = trims.and_then(|text| text.strip_prefix("-}}"));
    trims.map(|after| (after, true)).or_else(|| text.strip_prefix("}}").map(|after| (after, false)))
}

fn comment(inner: &str) -> Option<End<'_>> {
    let (_, after) = inner.split_once("/*")?.1.split_once("*/")?;
    end(after)
}

/// The words of an action and what follows it; `None` if it has no end.
fn words(inner: &str) -> Result<Option<(Vec<Word>, End<'_>)>, TemplateError> {
    let (mut words, mut rest, mut is_apart) = (Vec::new(), inner, true);
    loop {
        if let Some(end) = end(rest) {
            return Ok(Some((words, end)));
        }
        let Some(first) = rest.chars().next() else { return Ok(None) };
        if SPACE.contains(&first) {
            (rest, is_apart) = (&rest[1..], true);
            continue;
        }
        let Some((word, after)) = word(rest, first, is_apart)? else { return Ok(None) };
        words.push(word);
        (rest, is_apart) = (after, matches!(first, '(' | '|' | ',' | '='));
    }
}

fn word(rest: &str, first: char, is_apart: bool) -> Result<Option<(Word, &str)>, TemplateError> {
    let sign = [
        ("|", Word::Pipe),
        ("(", Word::Open),
        (")", Word::Close),
        (",", Word::Comma),
        (":=", Word::Declare),
        ("=", Word::Assign),
    ];
    if let Some((sign, word)) = sign.into_iter().find(|(sign, _)| rest.starts_with(sign)) {
        return Ok(Some((word, &rest[sign.len()..])));
    }
    let read = match first {
        '"' => quoted(rest),
        '\'' => character(rest),
        '`' => rest[1..].split_once('`').map(|(text, after)| (Word::Literal(text.into()), after)),
        '.' => match name(&rest[1..]) {
            ("", after) if !after.starts_with(|char: char| char.is_ascii_digit()) => Some((Word::Dot, after)),
            ("", _) => number(rest),
            (name, after) => Some((Word::Field(name.to_owned(), is_apart), after)),
        },
        '$' => {
            let (name, after) = name(&rest[1..]);
            Some((Word::Variable(name.to_owned()), after))
        }
        _ if first.is_ascii_digit() || matches!(first, '-' | '+') => number(rest),
        _ => match name(rest) {
            ("", _) => return Err(TemplateError::Sign(first)),
            (name, after) => Some((named(name), after)),
        },
    };
    match (read, first) {
        (None, '"' | '`') => Ok(None),
        (None, _) => {
            let end = rest.find(|char: char| SPACE.contains(&char) || "|()}".contains(char));
            Err(TemplateError::Constant(rest[..end.unwrap_or(rest.len())].to_owned()))
        }
        (read, _) => Ok(read),
    }
}

fn named(name: &str) -> Word {
    match name {
        "true" => Word::Literal(Value::Bool(true)),
        "false" => Word::Literal(Value::Bool(false)),
        "nil" => Word::Literal(Value::Nil),
        _ => Word::Name(name.to_owned()),
    }
}

/// A name, which does not begin with a digit, and what follows it.
fn name(text: &str) -> (&str, &str) {
    if text.starts_with(|char: char| char.is_ascii_digit()) {
        return ("", text);
    }
    let end = text.find(|char: char| !char.is_alphanumeric() && char != '_');
    text.split_at(end.unwrap_or(text.len()))
}

fn number(text: &str) -> Option<(Word, &str)> {
    let is_part = |(at, char): &(usize, char)| {
        char.is_ascii_alphanumeric()
            || matches!(char, '.' | '_')
            || matches!(char, '+' | '-') && (*at == 0 || text[..*at].ends_with(['e', 'E']))
    };
    let end = text.char_indices().find(|at| !is_part(at)).map_or(text.len(), |(at, _)| at);
    let digits = text[..end].replace('_', "");
    let bare = digits.trim_start_matches(['+', '-']);
    let value = match bare.strip_prefix("0x").or_else(|| bare.strip_prefix("0X")) {
        Some(hexadecimal) => {
            let size = i64::from_str_radix(hexadecimal, 16).ok()?;
            Value::Int(if digits.starts_with('-') { -size } else { size })
        }
        None => match digits.parse() {
            Ok(number) => Value::Int(number),
            Err(_) => Value::Float(digits.parse().ok()?),
        },
    };
    Some((Word::Literal(value), &text[end..]))
}

fn character(text: &str) -> Option<(Word, &str)> {
    let (char, after) = escaped(&text[1..], '\'')?;
    let after = after.strip_prefix('\'')?;
    Some((Word::Literal(Value::Int(u32::from(char).into())), after))
}

fn quoted(text: &str) -> Option<(Word, &str)> {
    let (mut out, mut rest) = (String::new(), &text[1..]);
    loop {
        if let Some(after) = rest.strip_prefix('"') {
            return Some((Word::Literal(out.into()), after));
        }
        let (char, after) = escaped(rest, '"').filter(|(char, _)| *char != '\n' || rest.starts_with('\\'))?;
        out.push(char);
        rest = after;
    }
}

/// The first character of a constant, escaped as Go has it or not.
fn escaped(text: &str, quote: char) -> Option<(char, &str)> {
    let Some(code) = text.strip_prefix('\\') else {
        let char = text.chars().next()?;
        return Some((char, &text[char.len_utf8()..]));
    };
    let letter = code.chars().next()?;
    let after = &code[letter.len_utf8()..];
    let of_digits = |count: usize| -> Option<(char, &str)> {
        let digits = after.get(..count)?;
        let char = char::from_u32(u32::from_str_radix(digits, 16).ok()?)?;
        Some((char, &after[count..]))
    };
    let char = match letter {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        '\\' => '\\',
        'x' => return of_digits(2),
        'u' => return of_digits(4),
        'U' => return of_digits(8),
        letter if letter == quote => quote,
        _ => return None,
    };
    Some((char, after))
}
