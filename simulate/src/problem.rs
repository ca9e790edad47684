//! What is wrong with an input, said with its place.

use std::{fmt, sync::Arc};

/// Why there is no result. Its text has the place in front, as compilers write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong, and what to write instead.
    pub message: String,
}

/// Where something is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The file, as it was named; empty if none is to blame.
    pub file: Arc<str>,
    /// The line, from 1; 0 if unknown.
    pub line: u64,
    /// The object, `ScaledObject shop/web`; empty outside manifests.
    pub object: String,
    /// The field, `spec.triggers[0].metadata.threshold`; empty if the whole is meant.
    pub path: String,
}

impl Problem {
    /// A problem of nothing that has a place.
    pub fn new(message: impl Into<String>) -> Self {
        Self { place: Place::default(), message: message.into() }
    }

    /// A problem at a place.
    pub fn at(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into() }
    }
}

impl std::error::Error for Problem {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { file, line, object, path } = &self.place;
        match (&**file, line) {
            ("", _) => {}
            (file, 0) => write!(f, "{file}: ")?,
            (file, line) => write!(f, "{file}:{line}: ")?,
        }
        if !object.is_empty() {
            write!(f, "{object}: ")?;
        }
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        f.write_str(&self.message)
    }
}
