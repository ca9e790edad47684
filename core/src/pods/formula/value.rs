//! Values of formulas.

use std::{cmp::Ordering, fmt, sync::Arc};

use thiserror::Error;

/// A value. The elements of an array are no arrays, which bounds what a formula can build.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Nil,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(Arc<str>),
    Array(Arc<[Value]>),
}

/// Why a formula has no value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub(super) struct Failure(String);

impl Failure {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// A value of the wrong kind.
    pub(super) fn kind(wanted: &str, got: &Value) -> Self {
        Self(format!("invalid operation: expected {wanted}, got {got}"))
    }

    pub(super) fn negative(what: &str) -> Self {
        Self(format!("invalid operation: negative {what} count"))
    }
}

impl Value {
    /// The number it is.
    #[allow(clippy::cast_precision_loss, reason = "a whole number beyond 2^53 may lose its last digits")]
    pub(super) fn number(&self) -> Result<f64, Failure> {
        match self {
            Self::Integer(number) => Ok(*number as f64),
            Self::Float(number) => Ok(*number),
            other => Err(Failure::kind("a number", other)),
        }
    }

    pub(super) fn integer(&self) -> Result<i64, Failure> {
        match self {
            Self::Integer(number) => Ok(*number),
            other => Err(Failure::kind("a whole number", other)),
        }
    }

    pub(super) fn bool(&self) -> Result<bool, Failure> {
        match self {
            Self::Bool(value) => Ok(*value),
            other => Err(Failure::kind("true or false", other)),
        }
    }

    pub(super) fn array(&self) -> Result<&Arc<[Value]>, Failure> {
        match self {
            Self::Array(values) => Ok(values),
            other => Err(Failure::kind("an array", other)),
        }
    }

    /// The number that it is or that its text reads as.
    pub(super) fn to_float(&self) -> Result<f64, Failure> {
        match self {
            Self::Text(text) => text.parse().map_err(|_| Failure::kind("a number", self)),
            other => other.number(),
        }
    }

    /// The same without its fraction.
    #[allow(clippy::cast_possible_truncation, reason = "the cast cuts off and saturates")]
    pub(super) fn to_integer(&self) -> Result<i64, Failure> {
        match self {
            Self::Text(text) => text.parse().map_err(|_| Failure::kind("a whole number", self)),
            Self::Float(number) => Ok(*number as i64),
            other => other.integer(),
        }
    }

    /// An element, counted from the end if negative, if there is one.
    pub(super) fn element(&self, index: i64) -> Result<Option<Value>, Failure> {
        let values = self.array()?;
        Ok(position(index, values.len()).and_then(|index| values.get(index)).cloned())
    }

    /// The elements from `start` up to `end`, both counted from the end if negative.
    pub(super) fn slice(&self, start: Option<i64>, end: Option<i64>) -> Result<Value, Failure> {
        let values = self.array()?;
        let bound = |index: i64| position(index, values.len()).unwrap_or(0).min(values.len());
        let (start, end) = (start.map_or(0, bound), end.map_or(values.len(), bound));
        Ok(Value::Array(Arc::from(values.get(start..end).unwrap_or_default())))
    }
}

/// The place that an index means in so many elements; `None` before the first.
fn position(index: i64, length: usize) -> Option<usize> {
    match usize::try_from(index) {
        Ok(index) => Some(index),
        Err(_) => length.checked_sub(usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX)),
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nil, Self::Nil) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Array(a), Self::Array(b)) => a == b,
            (a, b) => {
                matches!((a.number(), b.number()), (Ok(a), Ok(b)) if a.partial_cmp(&b) == Some(Ordering::Equal))
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => write!(f, "nil"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Array(values) => write!(f, "an array of {}", values.len()),
        }
    }
}
