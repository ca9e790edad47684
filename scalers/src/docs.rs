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
    let metric_type =
        kind.example.metric_type.map(|name| format!("  metricType: {name}\n")).unwrap_or_default();
    let metadata: String = kind
        .example
        .metadata
        .iter()
        .map(|(key, value)| format!("    {key}: '{}'\n", value.replace('\'', "''")))
        .collect();
    let rows: String = kind.params.iter().map(row).collect();
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "\n## {names}\n\n{docs}\n\n```yaml\n- type: {name}\n{metric_type}  metadata:\n{metadata}```\n\n\
         | parameter | from | value | default | meaning |\n|---|---|---|---|---|\n{rows}",
        names = kind.names.join(", "),
        docs = kind.docs,
        name = kind.name(),
    );
}

fn row(param: &Param) -> String {
    let names: Vec<_> = param.names.iter().map(|name| format!("`{name}`")).collect();
    let from: Vec<_> = param
        .from
        .iter()
        .map(|source| match source {
            Source::Metadata => "metadata".to_owned(),
            Source::Env => format!("`{}FromEnv`", param.name()),
            Source::Auth => "authentication".to_owned(),
        })
        .collect();
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
