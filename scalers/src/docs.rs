//! The documentation of all trigger types, from the table.

use std::fmt::Write;

use crate::kind::Kind;
use crate::metadata::{Param, Source};

/// A page with each trigger type, its parameters and an example, in Markdown.
pub fn docs_markdown() -> String {
    let mut page = "# Trigger types\n".to_owned();
    for kind in crate::KINDS {
        section(&mut page, kind);
    }
    page
}

fn section(page: &mut String, kind: &Kind) {
    // Writing to a String cannot fail.
    let _ = writeln!(page, "\n## {}\n\n{}\n", kind.names.join(", "), kind.docs);
    let _ = writeln!(page, "```yaml\n- type: {}", kind.name());
    if let Some(metric_type) = kind.example.metric_type {
        let _ = writeln!(page, "  metricType: {metric_type}");
    }
    page.push_str("  metadata:\n");
    for (key, value) in kind.example.metadata {
        let _ = writeln!(page, "    {key}: '{}'", value.replace('\'', "''"));
    }
    page.push_str("```\n\n| parameter | from | value | default | meaning |\n|---|---|---|---|---|\n");
    for param in kind.params {
        page.push_str(&row(param));
    }
}

fn row(param: &Param) -> String {
    let names: Vec<_> = param.names.iter().map(|name| format!("`{name}`")).collect();
    let place = |source: &Source| match source {
        Source::Metadata => "metadata".to_owned(),
        Source::Env => format!("`{}FromEnv`", param.name()),
        Source::Auth => "authentication".to_owned(),
    };
    let from: Vec<_> = param.from.iter().map(place).collect();
    let value = match param.choices {
        [] => param.kind.to_owned(),
        choices => format!("{} of {}", if param.kind == "list" { "any" } else { "one" }, choices.join(", ")),
    };
    let default = match param.default {
        Some(default) => format!("`{default}`"),
        None if param.required => "required".to_owned(),
        None => String::new(),
    };
    format!("| {} | {} | {value} | {default} | {} |\n", names.join(", "), from.join(", "), param.docs)
}

#[cfg(test)]
mod tests {
    use super::docs_markdown;

    #[test]
    fn the_page_shows_every_kind_and_parameter() {
        let page = docs_markdown();
        for kind in crate::KINDS {
            assert!(page.contains(&format!("\n## {}", kind.name())), "{}", kind.name());
            for param in kind.params {
                assert!(page.contains(&format!("`{}`", param.name())), "{} {}", kind.name(), param.name());
            }
        }
        for row in [
            "| `threshold` | metadata | number |  | Target; may be absent where a scaling formula uses the trigger. |",
            "| `desiredReplicas` | metadata | integer | required | Replicas inside the window. |",
            "| `authModes`, `authMode` | metadata, authentication | any of apiKey, basic, tls, bearer, custom, oauth |",
        ] {
            assert!(page.contains(row), "{row}");
        }
    }
}
