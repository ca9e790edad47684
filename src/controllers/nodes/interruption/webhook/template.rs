//! Templates of what a webhook is told: Go's `text/template` as far as a message needs it, `{{ .Field }}` with pipes.

use thiserror::Error;

use super::announcement::{Announcement, FIELDS, Read};

/// What a field goes through on its way into the text.
type Function = fn(&str) -> String;

/// Functions of templates (Masterminds/sprig, `TxtFuncMap`).
const FUNCTIONS: &[(&str, Function)] = &[
    ("lower", str::to_lowercase),
    ("quote", |text| serde_json::Value::from(text).to_string()),
    ("trim", |text| text.trim().to_owned()),
    ("upper", str::to_uppercase),
];

/// What Go's templates trim beside `{{-` and `-}}`.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// Why a template is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// An action has no end.
    #[error("the action {0:?} is not closed by \"}}}}\"")]
    Open(String),
    /// There is no such field.
    #[error("the field {0:?} is unknown; there are {known}", known = names(FIELDS, "."))]
    Field(String),
    /// There is no such function.
    #[error("the function {0:?} is unknown; there are {known}", known = names(FUNCTIONS, ""))]
    Function(String),
    /// It is something else that Go's templates have.
    #[error(
        "the action {0:?} is not supported; a field is, as {{{{ .NodeName }}}} or {{{{ .Kind | lower }}}}"
    )]
    Action(String),
}

fn names<T>(table: &[(&str, T)], before: &str) -> String {
    let names: Vec<_> = table.iter().map(|(name, _)| format!("{before}{name}")).collect();
    names.join(", ")
}

/// A piece of a template.
#[derive(Debug, Clone)]
enum Piece {
    /// Stands as it is.
    Text(String),
    /// Stands for a field.
    Field { read: Read, functions: Vec<Function> },
}

/// A template that was read.
#[derive(Debug, Clone)]
pub struct Template(Vec<Piece>);

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// The first thing in it that has no meaning here.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let (mut pieces, mut rest, mut trims) = (Vec::new(), text, false);
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((action, after)) = after.split_once("}}") else {
                return Err(TemplateError::Open(format!("{{{{{after}")));
            };
            let before = if trims { before.trim_start_matches(SPACE) } else { before };
            let opened = action.strip_prefix('-').filter(|inner| inner.starts_with(SPACE));
            let before = if opened.is_some() { before.trim_end_matches(SPACE) } else { before };
            let inner = opened.unwrap_or(action);
            let closed = inner.strip_suffix('-').filter(|inner| inner.ends_with(SPACE));
            trims = closed.is_some();
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(field(closed.unwrap_or(inner), action)?);
            rest = after;
        }
        let rest = if trims { rest.trim_start_matches(SPACE) } else { rest };
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self(pieces))
    }

    /// The text for a notice. As in Go, nothing in it is escaped.
    pub(super) fn render(&self, announcement: &Announcement<'_>) -> String {
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Field { read, functions } => {
                functions.iter().fold(read(announcement), |text, function| function(&text))
            }
        };
        self.0.iter().map(text).collect()
    }
}

/// `.Field`, `function .Field`, and either with ` | function` behind it.
fn field(inner: &str, action: &str) -> Result<Piece, TemplateError> {
    let unsupported = || TemplateError::Action(format!("{{{{{action}}}}}"));
    let mut commands = inner.split('|').map(|command| command.split_whitespace().collect::<Vec<_>>());
    let first = commands.next().unwrap_or_default();
    let (called, named) = match first[..] {
        [named] => (None, named),
        [function, named] => (Some(function), named),
        _ => return Err(unsupported()),
    };
    let name = named.strip_prefix('.').filter(|name| is_name(name)).ok_or_else(unsupported)?;
    let read = find(FIELDS, name).ok_or_else(|| TemplateError::Field(named.to_owned()))?;
    let mut functions = Vec::new();
    let piped = commands.map(|command| match command[..] {
        [function] => Ok(function),
        _ => Err(unsupported()),
    });
    for function in called.map(Ok).into_iter().chain(piped) {
        let name = function?;
        if !is_name(name) {
            return Err(unsupported());
        }
        functions.push(find(FUNCTIONS, name).ok_or_else(|| TemplateError::Function(name.to_owned()))?);
    }
    Ok(Piece::Field { read, functions })
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(char::is_alphanumeric)
}

fn find<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::{super::announcement::tests::spot, *};

    fn rendered(template: &str) -> Result<String, TemplateError> {
        Ok(Template::parse(template)?.render(&spot().announcement()))
    }

    #[test]
    fn fields_go_through_functions_and_space_is_trimmed_as_in_go() {
        let table = [
            ("plain", "plain"),
            ("{{.Kind}}", "SPOT_ITN"),
            ("a {{ .Kind }} b {{ .NodeName }}", "a SPOT_ITN b web-1"),
            ("{{ .Kind | lower }}", "spot_itn"),
            ("{{ .NodeName | upper | lower | upper }}", "WEB-1"),
            ("{{ lower .Kind | quote }}", "\"spot_itn\""),
            ("a {{- .Kind -}} b", "aSPOT_ITNb"),
            ("a\n {{- .Kind }}\n {{ .Kind -}} \n", "aSPOT_ITN\n SPOT_ITN"),
            ("{{ .Kind -}} {{ .Kind }}", "SPOT_ITNSPOT_ITN"),
        ];
        for (template, text) in table {
            assert_eq!(rendered(template).as_deref(), Ok(text), "{template}");
        }
    }

    #[test]
    fn what_has_no_meaning_here_is_refused_by_name() {
        use TemplateError::{Action, Field, Function, Open};
        let action = |text: &str| Action(text.to_owned());
        let table = [
            ("a {{ .Kind", Open("{{ .Kind".to_owned())),
            ("{{ .Nodes }}", Field(".Nodes".to_owned())),
            ("{{ .Kind | title }}", Function("title".to_owned())),
            ("{{ indent .Kind }}", Function("indent".to_owned())),
            ("{{ if .Kind }}a{{ end }}", Function("if".to_owned())),
            ("{{ range .Pods }}", Function("range".to_owned())),
            ("{{ . }}", action("{{ . }}")),
            ("{{ }}", action("{{ }}")),
            ("{{/* why */}}", action("{{/* why */}}")),
            ("{{-.Kind}}", action("{{-.Kind}}")),
            ("{{ .NodeLabels.zone }}", action("{{ .NodeLabels.zone }}")),
            ("{{ .Kind | default \"none\" }}", action("{{ .Kind | default \"none\" }}")),
            ("{{ .Kind | }}", action("{{ .Kind | }}")),
        ];
        for (template, error) in table {
            assert_eq!(rendered(template), Err(error), "{template}");
        }
        let text = Field(".Nodes".to_owned()).to_string();
        assert!(text.contains(".NodeName, .NodeLabels"), "{text}");
    }
}
