//! Durations as fields of Karpenter's kinds have them: `1h30m`, or `Never`.

use jiff::SignedDuration;
use thiserror::Error;

/// The duration that never ends.
pub const NEVER: &str = "Never";

/// Why a field is no duration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} {text:?} is no duration, write hours, minutes and seconds such as 1h30m{}", if *.or_never { ", or Never" } else { "" })]
pub struct DurationError {
    /// The field.
    pub field: &'static str,
    /// What it says.
    pub text: String,
    /// Whether it may say Never.
    pub or_never: bool,
}

/// Reads a duration.
pub(super) fn duration(field: &'static str, text: &str) -> Result<SignedDuration, DurationError> {
    text.parse().map_err(|_| DurationError { field, text: text.to_owned(), or_never: false })
}

/// Reads a duration that may be [`NEVER`]: none.
pub(super) fn nillable(field: &'static str, text: &str) -> Result<Option<SignedDuration>, DurationError> {
    if text == NEVER {
        return Ok(None);
    }
    duration(field, text).map(Some).map_err(|problem| DurationError { or_never: true, ..problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, seconds) in [("0s", 0), ("720h", 2_592_000), ("1h30m", 5_400), ("8h0m0s", 28_800)] {
            assert_eq!(nillable("after", text), Ok(Some(SignedDuration::from_secs(seconds))), "{text}");
        }
        assert_eq!(nillable("after", "Never"), Ok(None));
        assert_eq!(
            nillable("after", "soon").unwrap_err().to_string(),
            "after \"soon\" is no duration, write hours, minutes and seconds such as 1h30m, or Never"
        );
        assert!(duration("grace", "Never").is_err());
    }
}
