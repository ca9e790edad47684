//! The functions of formulas: those of expr-lang that deal with numbers and arrays of them.

use std::{ops::RangeInclusive, sync::Arc};

use super::value::{Failure, Value};

/// A function of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Abs,
    Ceil,
    Floor,
    Round,
    Integer,
    Float,
    Max,
    Min,
    Mean,
    Median,
    Length,
    First,
    Last,
    Take,
    Get,
    Sort,
    Reverse,
    Unique,
    Concat,
    And,
    Or,
    Xor,
    Nand,
    Complement,
    ShiftLeft,
    ShiftRight,
    ShiftRightUnsigned,
}

/// A function of the elements of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loop {
    All,
    Any,
    One,
    None,
    Map,
    Filter,
    Find,
    FindIndex,
    FindLast,
    FindLastIndex,
    Count,
    Sum,
    Reduce,
}

impl Loop {
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "all" => Self::All,
            "any" => Self::Any,
            "one" => Self::One,
            "none" => Self::None,
            "map" => Self::Map,
            "filter" => Self::Filter,
            "find" => Self::Find,
            "findIndex" => Self::FindIndex,
            "findLast" => Self::FindLast,
            "findLastIndex" => Self::FindLastIndex,
            "count" => Self::Count,
            "sum" => Self::Sum,
            "reduce" => Self::Reduce,
            _ => return None,
        })
    }

    /// Whether it works on the elements themselves without a predicate.
    pub(super) fn takes_elements(self) -> bool {
        matches!(self, Self::Count | Self::Sum)
    }
}

impl Function {
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "abs" => Self::Abs,
            "ceil" => Self::Ceil,
            "floor" => Self::Floor,
            "round" => Self::Round,
            "int" => Self::Integer,
            "float" => Self::Float,
            "max" => Self::Max,
            "min" => Self::Min,
            "mean" => Self::Mean,
            "median" => Self::Median,
            "len" => Self::Length,
            "first" => Self::First,
            "last" => Self::Last,
            "take" => Self::Take,
            "get" => Self::Get,
            "sort" => Self::Sort,
            "reverse" => Self::Reverse,
            "uniq" => Self::Unique,
            "concat" => Self::Concat,
            "bitand" => Self::And,
            "bitor" => Self::Or,
            "bitxor" => Self::Xor,
            "bitnand" => Self::Nand,
            "bitnot" => Self::Complement,
            "bitshl" => Self::ShiftLeft,
            "bitshr" => Self::ShiftRight,
            "bitushr" => Self::ShiftRightUnsigned,
            _ => return None,
        })
    }

    /// How many arguments it takes.
    pub(super) fn arity(self) -> RangeInclusive<usize> {
        match self {
            Self::Max | Self::Min | Self::Mean | Self::Median | Self::Concat => 1..=usize::MAX,
            Self::Sort => 1..=2,
            Self::Take
            | Self::Get
            | Self::And
            | Self::Or
            | Self::Xor
            | Self::Nand
            | Self::ShiftLeft
            | Self::ShiftRight
            | Self::ShiftRightUnsigned => 2..=2,
            _ => 1..=1,
        }
    }

    /// Its value for as many arguments as it takes.
    pub(super) fn call(self, arguments: &[Value]) -> Result<Value, Failure> {
        let first = &arguments[0];
        match self {
            Self::Abs => match first {
                Value::Integer(number) => Ok(Value::Integer(number.wrapping_abs())),
                other => Ok(Value::Float(other.number()?.abs())),
            },
            Self::Ceil => Ok(Value::Float(first.number()?.ceil())),
            Self::Floor => Ok(Value::Float(first.number()?.floor())),
            Self::Round => Ok(Value::Float(first.number()?.round())),
            Self::Float => first.to_float().map(Value::Float),
            Self::Integer => first.to_integer().map(Value::Integer),
            Self::Max => extreme(arguments, |new, old| new > old),
            Self::Min => extreme(arguments, |new, old| new < old),
            Self::Mean => Ok(Value::Float(mean(&numbers(arguments)?))),
            Self::Median => Ok(Value::Float(median(numbers(arguments)?))),
            Self::Length => Ok(Value::Integer(length(first)?)),
            Self::First => Ok(first.array()?.first().cloned().unwrap_or(Value::Nil)),
            Self::Last => Ok(first.array()?.last().cloned().unwrap_or(Value::Nil)),
            Self::Get => Ok(first.element(arguments[1].integer()?)?.unwrap_or(Value::Nil)),
            Self::Take | Self::Sort | Self::Reverse | Self::Unique | Self::Concat => {
                self.rearrange(arguments)
            }
            Self::Complement => Ok(Value::Integer(!first.integer()?)),
            _ => self.bits(first.integer()?, arguments[1].integer()?),
        }
    }

    fn rearrange(self, arguments: &[Value]) -> Result<Value, Failure> {
        let mut values = arguments[0].array()?.to_vec();
        match self {
            Self::Take => values
                .truncate(usize::try_from(arguments[1].integer()?).map_err(|_| Failure::negative("take"))?),
            Self::Sort => {
                numbers(&arguments[..1])?;
                values.sort_by(|a, b| a.number().unwrap_or(0.0).total_cmp(&b.number().unwrap_or(0.0)));
                match arguments.get(1) {
                    Some(Value::Text(order)) if **order == *"desc" => values.reverse(),
                    None => {}
                    Some(Value::Text(order)) if **order == *"asc" => {}
                    Some(other) => return Err(Failure::kind("sort order", other)),
                }
            }
            Self::Reverse => values.reverse(),
            Self::Unique => {
                let mut unique: Vec<Value> = Vec::new();
                for value in values {
                    if !unique.contains(&value) {
                        unique.push(value);
                    }
                }
                values = unique;
            }
            _ => {
                for other in &arguments[1..] {
                    values.extend_from_slice(other.array()?);
                }
            }
        }
        Ok(Value::Array(Arc::from(values)))
    }

    fn bits(self, left: i64, right: i64) -> Result<Value, Failure> {
        let shift = || u32::try_from(right).map_err(|_| Failure::negative("shift"));
        Ok(Value::Integer(match self {
            Self::Or => left | right,
            Self::Xor => left ^ right,
            Self::Nand => left & !right,
            Self::ShiftLeft => left.checked_shl(shift()?).unwrap_or(0),
            Self::ShiftRight => left >> shift()?.min(63),
            Self::ShiftRightUnsigned => left.cast_unsigned().checked_shr(shift()?).unwrap_or(0).cast_signed(),
            _ => left & right,
        }))
    }
}

/// The arguments with the elements of arrays in their place.
fn flat(arguments: &[Value]) -> impl Iterator<Item = &Value> {
    arguments.iter().flat_map(|argument| match argument {
        Value::Array(values) => values.iter(),
        other => std::slice::from_ref(other).iter(),
    })
}

fn numbers(arguments: &[Value]) -> Result<Vec<f64>, Failure> {
    flat(arguments).map(Value::number).collect()
}

fn extreme(arguments: &[Value], better: fn(f64, f64) -> bool) -> Result<Value, Failure> {
    let mut best: Option<&Value> = None;
    for value in flat(arguments) {
        let number = value.number()?;
        if best.map(Value::number).transpose()?.is_none_or(|best| better(number, best)) {
            best = Some(value);
        }
    }
    best.cloned().ok_or_else(|| Failure::new("max and min need at least one number"))
}

#[allow(clippy::cast_precision_loss, reason = "an array never has 2^53 elements")]
fn mean(numbers: &[f64]) -> f64 {
    if numbers.is_empty() { 0.0 } else { numbers.iter().sum::<f64>() / numbers.len() as f64 }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() {
        0 => 0.0,
        length if length % 2 == 0 => f64::midpoint(numbers[middle - 1], numbers[middle]),
        _ => numbers[middle],
    }
}

fn length(value: &Value) -> Result<i64, Failure> {
    let length = match value {
        Value::Text(text) => text.chars().count(),
        other => other.array()?.len(),
    };
    Ok(i64::try_from(length).unwrap_or(i64::MAX))
}
