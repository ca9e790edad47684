//! What `tandem check` prints.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::manifests::{Located, Outcome, Severity};

/// Lines as compilers write them, which editors and CI systems know: `file:line: error: …`, a hint below, a summary at
/// the end.
pub fn text(outcome: &Outcome) -> String {
    let mut text = String::new();
    for located in &outcome.findings {
        let finding = &located.finding;
        let position = match located.line {
            0 => located.file.clone(),
            line => format!("{}:{line}", located.file),
        };
        // Writing to a String cannot fail. A message of several lines goes on below the first.
        let message = subject(located) + &finding.message.replace('\n', "\n  ");
        let _ = writeln!(text, "{position}: {}: {message}", word(located.severity));
        if let Some(hint) = &finding.hint {
            let _ = writeln!(text, "  hint: {}", hint.replace('\n', "\n  "));
        }
    }
    text + &summary(outcome) + "\n"
}

/// `ScaledObject web/nginx: spec.pollingInterval: `, as far as it is known.
fn subject(located: &Located) -> String {
    let path = located.finding.path.to_string();
    let parts = [located.object.as_str(), path.as_str()];
    parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .fold(String::new(), |subject, part| subject + part + ": ")
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn summary(outcome: &Outcome) -> String {
    let counted = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    format!(
        "{} in {}: {}, {}",
        counted(outcome.objects, "object"),
        counted(outcome.files, "file"),
        counted(outcome.count(Severity::Error), "error"),
        counted(outcome.count(Severity::Warning), "warning"),
    )
}

/// One object: `findings`, and `summary` with the counts. A field that is not known is null.
pub fn json(outcome: &Outcome) -> String {
    let findings: Vec<Value> = outcome.findings.iter().map(finding).collect();
    let value = json!({
        "findings": findings,
        "summary": {
            "files": outcome.files,
            "objects": outcome.objects,
            "errors": outcome.count(Severity::Error),
            "warnings": outcome.count(Severity::Warning),
        },
    });
    format!("{value:#}\n")
}

fn finding(located: &Located) -> Value {
    let finding = &located.finding;
    let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "file": located.file,
        "document": located.document,
        "line": (located.line > 0).then_some(located.line),
        "object": known(&located.object),
        "severity": word(located.severity),
        "rule": finding.rule.reason(),
        "path": known(&finding.path.to_string()),
        "message": finding.message,
        "hint": finding.hint,
    })
}
