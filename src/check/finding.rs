//! What a check says.

use std::fmt;

use super::path::Path;

/// Which rule spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A rule of KEDA's admission webhook, by the `reason` label of its error counter. Its text is KEDA's and says by
    /// itself what it is about.
    Keda(&'static str),
    /// The schema of the CRD.
    Schema,
    /// A field that the schema does not have.
    UnknownField,
    /// The parameters of a trigger.
    Trigger,
    /// Something that is named and not there.
    Reference,
    /// The text is no YAML, or the document no Kubernetes object.
    Document,
}

impl Rule {
    /// A word for counters and programs.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Keda(reason) => reason,
            Self::Schema => "schema",
            Self::UnknownField => "unknown-field",
            Self::Trigger => "incorrect-trigger-metadata",
            Self::Reference => "missing-reference",
            Self::Document => "document",
        }
    }
}

/// One thing that is wrong, or looks wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// Where in the object.
    pub path: Path,
    /// What was seen.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Finding {
    pub(super) fn new(rule: Rule, path: &Path, message: impl Into<String>) -> Self {
        Self { rule, path: path.clone(), message: message.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !matches!(self.rule, Rule::Keda(_)) {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        self.hint.iter().try_for_each(|hint| write!(f, " ({hint})"))
    }
}

/// Everything that was found in one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The object cannot work: KEDA's rules first, then the triggers in order.
    pub errors: Vec<Finding>,
    /// The object may not do what is wanted.
    pub warnings: Vec<Finding>,
}

impl Report {
    /// Turns the errors that KEDA would not have raised into warnings: for an update that leaves the spec as it is, since
    /// an object that KEDA took must stay open to an annotation, to pause it for example.
    pub fn soften(&mut self) {
        let softened = self.errors.extract_if(.., |finding| finding.rule == Rule::Trigger);
        self.warnings.extend(softened);
    }
}
