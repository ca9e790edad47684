//! `printf` and its kin, as Go's `fmt` writes what templates have.

use super::value::{Value, float, quoted};

/// The longest width and precision; Go's own bound is a million.
const WIDEST: usize = 1000;

/// One `%…` of a format.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
struct Verb {
    minus: bool,
    plus: bool,
    zero: bool,
    space: bool,
    sharp: bool,
    width: Option<usize>,
    precision: Option<usize>,
    letter: char,
}

/// `fmt.Sprintf`.
pub(super) fn sprintf(format: &str, values: &[Value]) -> String {
    let (mut out, mut rest, mut values) = (String::new(), format, values.iter());
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let Some((verb, after)) = verb(after) else {
            out.push_str("%!(NOVERB)");
            rest = "";
            break;
        };
        rest = after;
        match (verb.letter, values.len()) {
            ('%', _) => out.push('%'),
            (letter, 0) => out.extend(["%!", letter.encode_utf8(&mut [0; 4]), "(MISSING)"]),
            _ => out.extend(values.next().map(|value| written(value, verb))),
        }
    }
    out.push_str(rest);
    let extra: Vec<_> = values
        .map(|value| match value {
            Value::Nil => value.printed(),
            _ => format!("{}={}", value.type_name(), value.printed()),
        })
        .collect();
    if !extra.is_empty() {
        out.extend(["%!(EXTRA ", &extra.join(", "), ")"]);
    }
    out
}

fn verb(text: &str) -> Option<(Verb, &str)> {
    let mut verb = Verb::default();
    let mut rest = text;
    while let Some(flag) = rest.chars().next().filter(|flag| "-+0 #".contains(*flag)) {
        match flag {
            '-' => verb.minus = true,
            '+' => verb.plus = true,
            '0' => verb.zero = true,
            ' ' => verb.space = true,
            _ => verb.sharp = true,
        }
        rest = &rest[1..];
    }
    (verb.width, rest) = number(rest);
    if let Some(after) = rest.strip_prefix('.') {
        let (precision, after) = number(after);
        (verb.precision, rest) = (Some(precision.unwrap_or(0)), after);
    }
    verb.letter = rest.chars().next()?;
    Some((verb, &rest[verb.letter.len_utf8()..]))
}

fn number(text: &str) -> (Option<usize>, &str) {
    let after = text.trim_start_matches(|char: char| char.is_ascii_digit());
    let digits = &text[..text.len() - after.len()];
    (digits.parse().ok().map(|number: usize| number.min(WIDEST)), after)
}

fn written(value: &Value, verb: Verb) -> String {
    match (value, verb.letter) {
        (Value::Nil, letter) if letter != 'v' => format!("%!{letter}(<nil>)"),
        (Value::List(items), _) => {
            let items: Vec<_> = items.iter().map(|item| written(item, verb)).collect();
            format!("[{}]", items.join(" "))
        }
        (Value::Map(entries), _) => {
            let entry = |(key, value): (&String, &Value)| {
                format!("{}:{}", written(&Value::Text(key.clone()), verb), written(value, verb))
            };
            let entries: Vec<_> = entries.iter().map(entry).collect();
            format!("map[{}]", entries.join(" "))
        }
        (Value::Nil, _) | (Value::Bool(_), 'v' | 't') => padded(value.printed(), verb),
        (Value::Int(number), 'v' | 'd' | 'x' | 'X' | 'o' | 'b') => integer(*number, verb),
        (Value::Int(number), 'q') => {
            let char =
                u32::try_from(*number).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
            padded(format!("'{char}'"), verb)
        }
        (Value::Int(number), 'c') => {
            let char =
                u32::try_from(*number).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
            padded(char.to_string(), verb)
        }
        (Value::Float(number), 'v' | 'g' | 'f' | 'F' | 'e') => real(*number, verb),
        (Value::Text(_) | Value::Time(_), 'v' | 's' | 'q' | 'x' | 'X') => text(&value.printed(), verb),
        (_, letter) => format!("%!{letter}({}={})", value.type_name(), value.printed()),
    }
}

fn text(text: &str, verb: Verb) -> String {
    let cut: String = match verb.precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text.to_owned(),
    };
    let hexadecimal = |upper: bool| -> String {
        cut.bytes().map(|byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }).collect()
    };
    let cut = match verb.letter {
        'q' if verb.sharp && !cut.contains('`') => format!("`{cut}`"),
        'q' => quoted(&cut),
        'x' => hexadecimal(false),
        'X' => hexadecimal(true),
        'v' if verb.sharp => quoted(&cut),
        _ => cut,
    };
    padded(cut, verb)
}

fn integer(number: i64, verb: Verb) -> String {
    let size = number.unsigned_abs();
    let digits = match verb.letter {
        'x' => format!("{size:x}"),
        'X' => format!("{size:X}"),
        'o' => format!("{size:o}"),
        'b' => format!("{size:b}"),
        _ => size.to_string(),
    };
    let prefix = match verb.letter {
        'x' if verb.sharp => "0x",
        'X' if verb.sharp => "0X",
        'o' if verb.sharp => "0",
        'b' if verb.sharp => "0b",
        _ => "",
    };
    let digits = format!("{prefix}{digits:0>width$}", width = verb.precision.unwrap_or(0));
    let zero = verb.zero && verb.precision.is_none();
    signed(number < 0, &digits, Verb { zero, ..verb })
}

fn real(number: f64, verb: Verb) -> String {
    let size = number.abs();
    let digits = match (verb.letter, verb.precision) {
        ('f' | 'F', precision) => format!("{size:.*}", precision.unwrap_or(6)),
        ('e', precision) => exponent(&format!("{size:.*e}", precision.unwrap_or(6))),
        (_, Some(precision)) => general(size, precision),
        (_, None) => float(size),
    };
    signed(number.is_sign_negative(), &digits, verb)
}

/// Go's exponents have a sign and two digits.
fn exponent(text: &str) -> String {
    let Some((digits, exponent)) = text.split_once('e') else { return text.to_owned() };
    let (sign, size) = match exponent.strip_prefix('-') {
        Some(size) => ('-', size),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{size:0>2}")
}

/// `%.Ng`: so many digits that count, without zeros behind them.
fn general(size: f64, precision: usize) -> String {
    let precision = precision.max(1);
    let text = format!("{size:.*e}", precision - 1);
    let Some((digits, power)) = text.split_once('e') else { return text };
    let power: i32 = power.parse().unwrap_or(0);
    let trim = |text: &str| {
        let bare = text.trim_end_matches('0').trim_end_matches('.');
        if text.contains('.') { bare.to_owned() } else { text.to_owned() }
    };
    if power < -4 || usize::try_from(power).is_ok_and(|power| power >= precision) {
        return exponent(&format!("{}e{power}", trim(digits)));
    }
    let places = i32::try_from(precision).unwrap_or(i32::MAX).saturating_sub(1).saturating_sub(power);
    trim(&format!("{size:.*}", usize::try_from(places).unwrap_or(0)))
}

fn signed(is_negative: bool, digits: &str, verb: Verb) -> String {
    let sign = match () {
        () if is_negative => "-",
        () if verb.plus => "+",
        () if verb.space => " ",
        () => "",
    };
    match verb.width {
        Some(width) if verb.zero && !verb.minus => {
            format!("{sign}{digits:0>width$}", width = width.saturating_sub(sign.len()))
        }
        _ => padded(format!("{sign}{digits}"), Verb { zero: false, ..verb }),
    }
}

fn padded(text: String, verb: Verb) -> String {
    match verb.width {
        Some(width) if verb.minus => format!("{text:<width$}"),
        Some(width) if verb.zero => format!("{text:0>width$}"),
        Some(width) => format!("{text:>width$}"),
        None => text,
    }
}

/// `fmt.Sprint`: a space between two of which neither is text.
pub(super) fn sprint(values: &[Value]) -> String {
    let mut out = String::new();
    let mut after_text = true;
    for value in values {
        let is_text = matches!(value, Value::Text(_));
        if !after_text && !is_text {
            out.push(' ');
        }
        out.push_str(&value.printed());
        after_text = is_text;
    }
    out
}

/// `fmt.Sprintln`.
pub(super) fn sprintln(values: &[Value]) -> String {
    let values: Vec<_> = values.iter().map(Value::printed).collect();
    values.join(" ") + "\n"
}
