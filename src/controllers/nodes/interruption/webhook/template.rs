//! Templates of what a webhook is told: Go's `text/template` with the functions of Masterminds/sprig that are about texts,
//! lists, numbers and times.
//!
//! What has no meaning is refused when a template is read, before there is any notice. The crates that read such templates
//! know neither the names of fields nor sprig's functions, and bring a dozen more crates or are no longer kept.

mod evaluate;
mod functions;
mod lexer;
mod parse;
mod printf;
mod text;
mod value;
mod when;

use jiff::Timestamp;
use scalers::nearest;
use thiserror::Error;

use super::announcement::{Announcement, FIELDS};
use evaluate::{Data, evaluate};
use parse::Node;
pub(crate) use value::{Value, ZERO_TIME};

/// Why a template is refused, or could not be filled in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// An action has no end.
    #[error("the action {0:?} is not closed by \"}}}}\"")]
    Open(String),
    /// There is no such field.
    #[error("the field {name:?} is unknown{near}; there are {known}", known = fields())]
    Field {
        /// Its name.
        name: String,
        /// A hint.
        near: String,
    },
    /// A value has no such field.
    #[error("can't evaluate field {name} in type {of}")]
    NoField {
        /// The value's type.
        of: &'static str,
        /// The field.
        name: String,
    },
    /// There is no such function.
    #[error("the function {name:?} is not defined{near}")]
    Function {
        /// Its name.
        name: String,
        /// A hint.
        near: String,
    },
    /// A function is given too few or too many arguments.
    #[error("the function {function:?} takes {}, not {given}", count(*least, *most))]
    Arguments {
        /// The function.
        function: &'static str,
        /// The fewest.
        least: usize,
        /// The most.
        most: usize,
        /// How many there are.
        given: usize,
    },
    /// There is no such variable.
    #[error("the variable {0:?} is not declared")]
    Variable(String),
    /// A constant reads as none.
    #[error("{0:?} is no constant")]
    Constant(String),
    /// A character has no meaning in an action.
    #[error("{0:?} has no meaning in an action")]
    Sign(char),
    /// An action has no meaning where it is.
    #[error("the action {0:?}: {1}")]
    Action(String, &'static str),
    /// What it does cannot be done.
    #[error("{0}")]
    Run(String),
}

impl TemplateError {
    fn field(name: &str) -> Self {
        let near = near(name, FIELDS.iter().map(|(known, _)| *known));
        Self::Field { name: format!(".{name}"), near }
    }
}

/// A hint at the known name that is nearest.
fn near<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(name, known).first().map_or_else(String::new, |near| format!(", did you mean {near:?}?"))
}

fn fields() -> String {
    let names: Vec<_> = FIELDS.iter().map(|(name, _)| format!(".{name}")).collect();
    names.join(", ")
}

fn count(least: usize, most: usize) -> String {
    match (least, most) {
        (least, usize::MAX) => format!("{least} or more"),
        (least, most) if least == most => least.to_string(),
        (least, most) => format!("{least} to {most}"),
    }
}

/// A template that was read.
#[derive(Debug, Clone)]
pub struct Template(Vec<Node>);

impl Template {
    /// Reads a template, and tries it: without anything to tell, as the handler does, and with something of each.
    ///
    /// # Errors
    /// The first thing in it that has no meaning, or cannot be done.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let nodes = parse::parse(text)?;
        evaluate(&nodes, &Sample { is_blank: true })?;
        match evaluate(&nodes, &Sample { is_blank: false }) {
            // What else fails may do so with this sample only.
            Err(error @ (TemplateError::Field { .. } | TemplateError::NoField { .. })) => Err(error),
            _ => Ok(Self(nodes)),
        }
    }

    /// The text for a notice. As in Go, nothing in it is escaped.
    ///
    /// # Errors
    /// What cannot be done with this notice.
    pub(super) fn render(&self, announcement: &Announcement<'_>) -> Result<String, TemplateError> {
        evaluate(&self.0, announcement)
    }
}

impl Data for Announcement<'_> {
    fn field(&self, name: &str) -> Option<Value> {
        FIELDS.iter().find(|(known, _)| *known == name).map(|(_, read)| read(self))
    }

    fn now(&self) -> Timestamp {
        self.now
    }
}

/// A notice of nothing, or of anything.
struct Sample {
    is_blank: bool,
}

impl Data for Sample {
    fn field(&self, name: &str) -> Option<Value> {
        FIELDS.iter().find(|(known, _)| *known == name)?;
        let text = if self.is_blank { "" } else { "x" };
        let some = |value: Value| if self.is_blank { None } else { Some(value) };
        Some(match name {
            "Pods" => Value::List(some(text.into()).into_iter().collect()),
            "NodeLabels" => {
                Value::Map(some(text.into()).map(|value| ("x".to_owned(), value)).into_iter().collect())
            }
            "StartTime" | "EndTime" => ZERO_TIME.into(),
            "IsManaged" | "NodeProcessed" | "InProgress" => Value::Bool(!self.is_blank),
            _ => text.into(),
        })
    }

    fn now(&self) -> Timestamp {
        ZERO_TIME
    }
}

#[cfg(test)]
mod tests;
