//! Functions of templates: those of Go's `text/template`, and of Masterminds/sprig what is about texts, lists, numbers, times.

use std::cmp::Ordering;

use jiff::Timestamp;

use super::{TemplateError, printf, text, value::Value, when};

/// What a function comes to.
pub(super) type Answer = Result<Value, String>;

/// A function.
pub(super) struct Function {
    pub(super) name: &'static str,
    /// The fewest and the most arguments.
    takes: (usize, usize),
    /// With the time that it is.
    pub(super) call: fn(&[Value], Timestamp) -> Answer,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Function {
    /// Refuses a call with so many arguments.
    pub(super) fn check(&self, given: usize) -> Result<(), TemplateError> {
        let (least, most) = self.takes;
        if (least..=most).contains(&given) {
            return Ok(());
        }
        Err(TemplateError::Arguments { function: self.name, least, most, given })
    }
}

/// As many as are given.
const ANY: usize = usize::MAX;

const fn of(
    name: &'static str,
    least: usize,
    most: usize,
    call: fn(&[Value], Timestamp) -> Answer,
) -> Function {
    Function { name, takes: (least, most), call }
}

/// The function of this name.
pub(super) fn function(name: &str) -> Result<&'static Function, TemplateError> {
    FUNCTIONS.iter().find(|function| function.name == name).ok_or_else(|| {
        let known = FUNCTIONS.iter().map(|function| function.name);
        TemplateError::Function { name: name.to_owned(), near: super::near(name, known) }
    })
}

/// `and` and `or` are here for their names: what they need not know is not asked for (`evaluate`).
static FUNCTIONS: &[Function] = &[
    // text/template
    of("and", 1, ANY, |values, _| Ok(last(values))),
    of("or", 1, ANY, |values, _| Ok(last(values))),
    of("not", 1, 1, |values, _| Ok(Value::Bool(!values[0].is_true()))),
    of("eq", 2, ANY, |values, _| equal(values)),
    of("ne", 2, 2, |values, _| Ok(Value::Bool(!values[0].equals(&values[1])?))),
    of("lt", 2, 2, |values, _| ordered(values, Ordering::is_lt)),
    of("le", 2, 2, |values, _| ordered(values, Ordering::is_le)),
    of("gt", 2, 2, |values, _| ordered(values, Ordering::is_gt)),
    of("ge", 2, 2, |values, _| ordered(values, Ordering::is_ge)),
    of("len", 1, 1, |values, _| length(&values[0])),
    of("index", 1, ANY, |values, _| index(values)),
    of("slice", 1, 3, |values, _| slice(values)),
    of("print", 0, ANY, |values, _| Ok(printf::sprint(values).into())),
    of("println", 0, ANY, |values, _| Ok(printf::sprintln(values).into())),
    of("printf", 1, ANY, |values, _| Ok(printf::sprintf(str(&values[0])?, &values[1..]).into())),
    of("html", 1, ANY, |values, _| Ok(text::html(&printf::sprint(values)).into())),
    of("js", 1, ANY, |values, _| Ok(text::js(&printf::sprint(values)).into())),
    of("urlquery", 1, ANY, |values, _| Ok(text::urlquery(&printf::sprint(values)).into())),
    // sprig: texts
    of("lower", 1, 1, |values, _| Ok(str(&values[0])?.to_lowercase().into())),
    of("upper", 1, 1, |values, _| Ok(str(&values[0])?.to_uppercase().into())),
    of("title", 1, 1, |values, _| Ok(text::title(str(&values[0])?).into())),
    of("untitle", 1, 1, |values, _| Ok(text::untitle(str(&values[0])?).into())),
    of("swapcase", 1, 1, |values, _| Ok(text::swapcase(str(&values[0])?).into())),
    of("trim", 1, 1, |values, _| Ok(str(&values[0])?.trim().into())),
    of("trimAll", 2, 2, |values, _| trim_all(values)),
    of("trimall", 2, 2, |values, _| trim_all(values)),
    of("trimPrefix", 2, 2, |values, _| {
        let (prefix, text) = (str(&values[0])?, str(&values[1])?);
        Ok(text.strip_prefix(prefix).unwrap_or(text).into())
    }),
    of("trimSuffix", 2, 2, |values, _| {
        let (suffix, text) = (str(&values[0])?, str(&values[1])?);
        Ok(text.strip_suffix(suffix).unwrap_or(text).into())
    }),
    of("nospace", 1, 1, |values, _| Ok(str(&values[0])?.split_whitespace().collect::<String>().into())),
    of("initials", 1, 1, |values, _| Ok(text::initials(str(&values[0])?).into())),
    of("trunc", 2, 2, |values, _| Ok(text::trunc(int(&values[0])?, str(&values[1])?).into())),
    of("abbrev", 2, 2, |values, _| Ok(text::abbrev(int(&values[0])?, str(&values[1])?).into())),
    of("substr", 3, 3, |values, _| {
        Ok(text::substr(int(&values[0])?, int(&values[1])?, str(&values[2])?).into())
    }),
    of("repeat", 2, 2, |values, _| text::repeat(int(&values[0])?, str(&values[1])?).map(Value::from)),
    of("indent", 2, 2, |values, _| text::indent(int(&values[0])?, str(&values[1])?).map(Value::from)),
    of("nindent", 2, 2, |values, _| {
        Ok(format!("\n{}", text::indent(int(&values[0])?, str(&values[1])?)?).into())
    }),
    of("replace", 3, 3, |values, _| Ok(str(&values[2])?.replace(str(&values[0])?, str(&values[1])?).into())),
    of("contains", 2, 2, |values, _| Ok(Value::Bool(str(&values[1])?.contains(str(&values[0])?)))),
    of("hasPrefix", 2, 2, |values, _| Ok(Value::Bool(str(&values[1])?.starts_with(str(&values[0])?)))),
    of("hasSuffix", 2, 2, |values, _| Ok(Value::Bool(str(&values[1])?.ends_with(str(&values[0])?)))),
    of("plural", 3, 3, |values, _| {
        let word = if int(&values[2])? == 1 { &values[0] } else { &values[1] };
        Ok(str(word)?.into())
    }),
    of("quote", 0, ANY, |values, _| Ok(text::quote(values).into())),
    of("squote", 0, ANY, |values, _| Ok(text::squote(values).into())),
    of("cat", 0, ANY, |values, _| Ok(text::cat(values).into())),
    of("toString", 1, 1, |values, _| Ok(values[0].printed().into())),
    of("b64enc", 1, 1, |values, _| Ok(text::base64(str(&values[0])?).into())),
    of("join", 2, 2, |values, _| Ok(text::strings(&values[1]).join(str(&values[0])?).into())),
    of("splitList", 2, 2, |values, _| Ok(text::split_list(str(&values[0])?, str(&values[1])?))),
    of("split", 2, 2, |values, _| Ok(text::split(str(&values[0])?, str(&values[1])?))),
    of("sortAlpha", 1, 1, |values, _| {
        let mut strings = text::strings(&values[0]);
        strings.sort();
        Ok(Value::List(strings.into_iter().map(Value::from).collect()))
    }),
    // sprig: defaults and conditions
    of("default", 1, 2, |values, _| {
        Ok(values.get(1).filter(|value| !value.is_empty()).unwrap_or(&values[0]).clone())
    }),
    of("empty", 1, 1, |values, _| Ok(Value::Bool(values[0].is_empty()))),
    of("coalesce", 0, ANY, |values, _| {
        Ok(values.iter().find(|value| !value.is_empty()).cloned().unwrap_or(Value::Nil))
    }),
    of("ternary", 3, 3, |values, _| match &values[2] {
        Value::Bool(holds) => Ok(values[usize::from(!holds)].clone()),
        other => Err(wrong("bool", other)),
    }),
    // sprig: JSON
    of("toJson", 1, 1, |values, _| Ok(values[0].json(false).into())),
    of("toRawJson", 1, 1, |values, _| Ok(values[0].json(true).into())),
    of("toPrettyJson", 1, 1, |values, _| Ok(values[0].pretty_json().into())),
    // sprig: lists and maps
    of("list", 0, ANY, |values, _| Ok(Value::List(values.to_vec()))),
    of("tuple", 0, ANY, |values, _| Ok(Value::List(values.to_vec()))),
    of("first", 1, 1, |values, _| Ok(list(&values[0])?.first().cloned().unwrap_or(Value::Nil))),
    of("last", 1, 1, |values, _| Ok(list(&values[0])?.last().cloned().unwrap_or(Value::Nil))),
    of("rest", 1, 1, |values, _| Ok(Value::List(list(&values[0])?.iter().skip(1).cloned().collect()))),
    of("initial", 1, 1, |values, _| {
        let items = list(&values[0])?;
        Ok(Value::List(items[..items.len().saturating_sub(1)].to_vec()))
    }),
    of("reverse", 1, 1, |values, _| Ok(Value::List(list(&values[0])?.iter().rev().cloned().collect()))),
    of("uniq", 1, 1, |values, _| {
        let mut once: Vec<Value> = Vec::new();
        for item in list(&values[0])? {
            if !once.contains(item) {
                once.push(item.clone());
            }
        }
        Ok(Value::List(once))
    }),
    of("has", 2, 2, |values, _| Ok(Value::Bool(list(&values[1])?.contains(&values[0])))),
    of("without", 1, ANY, |values, _| {
        let items = list(&values[0])?.iter().filter(|item| !values[1..].contains(item));
        Ok(Value::List(items.cloned().collect()))
    }),
    of("dict", 0, ANY, |values, _| {
        let pairs = values.chunks(2);
        let entry = |pair: &[Value]| {
            (pair[0].printed(), pair.get(1).cloned().unwrap_or_else(|| Value::Text(String::new())))
        };
        Ok(Value::Map(pairs.map(entry).collect()))
    }),
    of("get", 2, 2, |values, _| {
        Ok(map(&values[0])?.get(str(&values[1])?).cloned().unwrap_or_else(|| "".into()))
    }),
    of("hasKey", 2, 2, |values, _| Ok(Value::Bool(map(&values[0])?.contains_key(str(&values[1])?)))),
    // sprig: numbers
    of("int", 1, 1, |values, _| Ok(Value::Int(to_int(&values[0])))),
    of("int64", 1, 1, |values, _| Ok(Value::Int(to_int(&values[0])))),
    of("atoi", 1, 1, |values, _| Ok(Value::Int(str(&values[0])?.parse().unwrap_or(0)))),
    of("add", 0, ANY, |values, _| folded(values, Some(0), i64::checked_add)),
    of("add1", 1, 1, |values, _| folded(values, Some(1), i64::checked_add)),
    of("sub", 2, 2, |values, _| folded(values, None, i64::checked_sub)),
    of("mul", 1, ANY, |values, _| folded(values, None, i64::checked_mul)),
    of("div", 2, 2, |values, _| folded(values, None, i64::checked_div)),
    of("mod", 2, 2, |values, _| folded(values, None, i64::checked_rem)),
    of("max", 1, ANY, |values, _| folded(values, None, |one, other| Some(one.max(other)))),
    of("min", 1, ANY, |values, _| folded(values, None, |one, other| Some(one.min(other)))),
    // sprig: times
    of("now", 0, 0, |_, now| Ok(now.into())),
    of("date", 2, 2, when::date),
    of("dateInZone", 3, 3, when::date),
    of("date_in_zone", 3, 3, when::date),
    of("htmlDate", 1, 1, |values, now| when::date(&["2006-01-02".into(), values[0].clone()], now)),
    of("dateModify", 2, 2, |values, _| when::modified(values)),
    of("date_modify", 2, 2, |values, _| when::modified(values)),
    of("unixEpoch", 1, 1, |values, _| Ok(when::time(&values[0])?.timestamp().as_second().to_string().into())),
    of("ago", 1, 1, |values, now| when::ago(&values[0], now)),
    // sprig knows texts and `int64` here, and makes 0s of an `int`.
    of("duration", 1, 1, |values, _| Ok(when::printed(to_int(&values[0])).into())),
];

fn last(values: &[Value]) -> Value {
    values.last().cloned().unwrap_or(Value::Nil)
}

/// What Go says of an argument of another type.
pub(super) fn wrong(expected: &str, value: &Value) -> String {
    format!("wrong type for value; expected {expected}; got {}", value.type_name())
}

pub(super) fn str(value: &Value) -> Result<&str, String> {
    match value {
        Value::Text(text) => Ok(text),
        other => Err(wrong("string", other)),
    }
}

fn int(value: &Value) -> Result<i64, String> {
    match value {
        Value::Int(number) => Ok(*number),
        other => Err(wrong("int", other)),
    }
}

fn list(value: &Value) -> Result<&[Value], String> {
    match value {
        Value::List(items) => Ok(items),
        other => Err(wrong("a list", other)),
    }
}

fn map(value: &Value) -> Result<&std::collections::BTreeMap<String, Value>, String> {
    match value {
        Value::Map(entries) => Ok(entries),
        other => Err(wrong("a map", other)),
    }
}

/// As sprig makes a number of anything; what is none is 0.
#[expect(clippy::cast_possible_truncation, reason = "Go cuts what is behind the point off, too")]
fn to_int(value: &Value) -> i64 {
    match value {
        Value::Int(number) => *number,
        Value::Float(number) => *number as i64,
        Value::Bool(value) => i64::from(*value),
        Value::Text(text) => text.parse().unwrap_or(0),
        Value::Nil | Value::Time(_) | Value::List(_) | Value::Map(_) => 0,
    }
}

fn folded(values: &[Value], first: Option<i64>, fold: fn(i64, i64) -> Option<i64>) -> Answer {
    let mut numbers = first.into_iter().chain(values.iter().map(to_int));
    let first = numbers.next().unwrap_or(0);
    let number = numbers.try_fold(first, fold).ok_or("the result is no number of 64 bits")?;
    Ok(Value::Int(number))
}

fn equal(values: &[Value]) -> Answer {
    for other in &values[1..] {
        if values[0].equals(other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn ordered(values: &[Value], is_so: fn(Ordering) -> bool) -> Answer {
    values[0].compare(&values[1]).map(|order| Value::Bool(is_so(order)))
}

fn trim_all(values: &[Value]) -> Answer {
    let (set, text) = (str(&values[0])?, str(&values[1])?);
    Ok(text.trim_matches(|char| set.contains(char)).into())
}

fn length(value: &Value) -> Answer {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        Value::Map(entries) => entries.len(),
        other => return Err(format!("len of type {}", other.type_name())),
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn index(values: &[Value]) -> Answer {
    let mut value = values[0].clone();
    for key in &values[1..] {
        value = match (&value, key) {
            (Value::Map(entries), Value::Text(key)) => entries.get(key).cloned().unwrap_or_else(|| "".into()),
            (Value::List(items), Value::Int(at)) => {
                let item = usize::try_from(*at).ok().and_then(|at| items.get(at));
                item.cloned().ok_or_else(|| format!("index out of range: {at}"))?
            }
            (value, key) => {
                return Err(format!("cannot index {} with {}", value.type_name(), key.type_name()));
            }
        };
    }
    Ok(value)
}

/// Of lists only, as sprig has it.
fn slice(values: &[Value]) -> Answer {
    let at = |position: usize, otherwise: usize| match values.get(position) {
        None => Ok(otherwise),
        Some(value) => usize::try_from(int(value)?).map_err(|_| "index out of range".to_owned()),
    };
    let cut = |length: usize| -> Result<std::ops::Range<usize>, String> {
        let (from, to) = (at(1, 0)?, at(2, length)?);
        if from <= to && to <= length { Ok(from..to) } else { Err(format!("index out of range: {to}")) }
    };
    match &values[0] {
        Value::List(items) => Ok(Value::List(items[cut(items.len())?].to_vec())),
        other => Err(format!("list should be type of slice or array but {}", other.type_name())),
    }
}
