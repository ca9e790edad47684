//! Typed metadata: how a struct's fields are found in a trigger, and what is said when they are not.
//!
//! The rules are KEDA's (`pkg/scalers/scalersconfig/typed_config.go`): a field has names, places to look in and an
//! order among them; values are trimmed, an empty value is none, the first hit wins; all errors are reported together.
//! What differs: a value that came from the environment or from a `TriggerAuthentication` is never quoted.

use std::fmt;

use crate::input::{Input, Secret};
use crate::values::FromParam;

/// Where a parameter may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `metadata` of the trigger.
    Metadata,
    /// The environment of the target's container, named by `<parameter>FromEnv` in `metadata`.
    Env,
    /// A parameter of the `TriggerAuthentication`.
    Auth,
}

impl fmt::Display for Source {
    /// KEDA's names of the places.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metadata => "triggerMetadata",
            Self::Env => "resolvedEnv",
            Self::Auth => "authParams",
        })
    }
}

/// One parameter of a trigger type: the schema, from which the parser, the checks and the documentation work.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// The name, then its aliases.
    pub names: &'static [&'static str],
    /// Places to look in, in order.
    pub from: &'static [Source],
    /// Neither optional nor with a default.
    pub required: bool,
    /// Used when the parameter is nowhere.
    pub default: Option<&'static str>,
    /// What kind of value it is, e.g. `number`.
    pub kind: &'static str,
    /// The only values allowed; empty means any.
    pub choices: &'static [&'static str],
    /// At most one of these in a list.
    pub exclusive: &'static [&'static str],
    /// Between the elements of a list or map.
    pub separator: char,
    /// Between the ends of a range of integers in a list, when ranges are allowed.
    pub range: Option<char>,
    /// An error when set; the text says why.
    pub deprecated: Option<&'static str>,
    /// Accepted without effect, or soon to go; the text says so.
    pub announce: Option<&'static str>,
    /// The field's doc comment.
    pub docs: &'static str,
}

impl Param {
    /// The name to show.
    pub fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or_default()
    }

    /// Whether a key of `metadata` sets this parameter.
    fn takes(&self, key: &str) -> bool {
        let named = |name: &str| self.names.contains(&name);
        (self.from.contains(&Source::Metadata) && named(key))
            || (self.from.contains(&Source::Env) && key.strip_suffix("FromEnv").is_some_and(named))
    }
}

/// One thing that is wrong, or looks wrong, with a trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The parameter, when it is about one.
    pub param: Option<String>,
    /// What was seen, complete without the other fields.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

/// A [`Finding`] that keeps a trigger from being built.
pub type ParamError = Finding;

impl Finding {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { param: None, message: message.into(), hint: None }
    }

    pub(crate) fn of(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), ..Self::new(message) }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.hint.iter().try_for_each(|hint| write!(f, " ({hint})"))
    }
}

/// Everything that keeps a trigger from being built, together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors {
    trigger_type: String,
    errors: Vec<ParamError>,
}

impl Errors {
    pub(crate) fn new(trigger_type: &str, errors: Vec<ParamError>) -> Self {
        Self { trigger_type: trigger_type.to_owned(), errors }
    }

    /// The errors in the order of the parameters.
    pub fn iter(&self) -> std::slice::Iter<'_, ParamError> {
        self.errors.iter()
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error parsing {} metadata: ", self.trigger_type)?;
        for (i, error) in self.errors.iter().enumerate() {
            write!(f, "{}{error}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

impl IntoIterator for Errors {
    type Item = ParamError;
    type IntoIter = std::vec::IntoIter<ParamError>;

    fn into_iter(self) -> Self::IntoIter {
        self.errors.into_iter()
    }
}

impl<'a> IntoIterator for &'a Errors {
    type Item = &'a ParamError;
    type IntoIter = std::slice::Iter<'a, ParamError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// What cannot be seen when a manifest is checked without the cluster it will run in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offline {
    /// The trigger has an `authenticationRef` that is not resolved.
    pub auth: bool,
    /// The environment of the target's container is not known.
    pub env: bool,
}

/// A struct that is read from a trigger; derived.
pub(crate) trait Metadata: Sized {
    /// The parameters, in the order of the fields, those of nested groups in place.
    const PARAMS: &'static [Param];

    /// Reads every field; all errors go to `view`. `None` when a field is missing, wrong, or out of sight.
    fn read(view: &mut View<'_>) -> Option<Self>;
}

/// A trigger being read: finds values, collects errors and warnings.
pub(crate) struct View<'a> {
    /// The trigger.
    pub input: &'a Input,
    /// What cannot be seen.
    pub offline: Offline,
    /// A person reads the result: look for doubtful things too.
    pub checking: bool,
    pub errors: Vec<Finding>,
    pub warnings: Vec<Finding>,
}

/// Where a value was found.
enum Lookup<'a> {
    Found(&'a str, Source),
    /// It may be in a place that cannot be seen.
    Unseen,
    Absent,
}

impl<'a> View<'a> {
    /// To build the trigger.
    pub(crate) fn building(input: &'a Input) -> Self {
        Self { input, offline: Offline::default(), checking: false, errors: Vec::new(), warnings: Vec::new() }
    }

    /// To tell a person about the trigger.
    pub(crate) fn checking(input: &'a Input, offline: Offline) -> Self {
        Self { offline, checking: true, ..Self::building(input) }
    }

    pub(crate) fn error(&mut self, finding: Finding) {
        self.errors.push(finding);
    }

    pub(crate) fn warn(&mut self, finding: Finding) {
        self.warnings.push(finding);
    }

    /// The value of a field that must be there.
    pub(crate) fn required<T: FromParam>(&mut self, param: &Param) -> Option<T> {
        match self.find(param) {
            Lookup::Found(raw, source) => self.parse(param, raw, source),
            Lookup::Unseen | Lookup::Absent if param.default.is_some() => {
                self.parse(param, param.default.unwrap_or_default(), Source::Metadata)
            }
            Lookup::Unseen => None,
            Lookup::Absent => {
                let places: Vec<_> = param.from.iter().map(Source::to_string).collect();
                let names = param.names.join(",");
                let message = format!("missing required parameter {names:?} in [{}]", places.join(" "));
                self.error(Finding::of(param.name(), message));
                None
            }
        }
    }

    /// The value of a field that may be absent; the outer `None` means that it is there and wrong.
    #[expect(clippy::option_option, reason = "the outer one ends the reading, the inner one is the field's")]
    pub(crate) fn optional<T: FromParam>(&mut self, param: &Param) -> Option<Option<T>> {
        match self.find(param) {
            Lookup::Found(raw, source) => self.parse(param, raw, source).map(Some),
            Lookup::Unseen | Lookup::Absent => Some(None),
        }
    }

    fn find(&self, param: &Param) -> Lookup<'a> {
        let mut unseen = false;
        for source in param.from {
            for name in param.names {
                let value = match source {
                    Source::Metadata => self.input.metadata.get(*name).map(String::as_str),
                    Source::Auth => {
                        unseen |= self.offline.auth;
                        self.input.auth_params.get(*name).map(Secret::expose)
                    }
                    Source::Env => self.input.metadata.get(&format!("{name}FromEnv")).and_then(|variable| {
                        unseen |= self.offline.env;
                        self.input.resolved_env.get(variable).map(String::as_str)
                    }),
                };
                if let Some(value) = value.map(str::trim).filter(|value| !value.is_empty()) {
                    return Lookup::Found(value, *source);
                }
            }
        }
        if unseen { Lookup::Unseen } else { Lookup::Absent }
    }

    fn parse<T: FromParam>(&mut self, param: &Param, raw: &str, source: Source) -> Option<T> {
        if let Some(why) = param.deprecated {
            let message = format!("scaler {} info: {why}", self.input.trigger_type);
            self.error(Finding::of(param.name(), message));
            return None;
        }
        if let Some(what) = param.announce {
            let message = format!("scaler {} info: {what}", self.input.trigger_type);
            self.warn(Finding::of(param.name(), message));
        }
        match check_choices(param, raw).and_then(|()| T::from_param(raw, param).map_err(Problem::Unparsable))
        {
            Ok(value) => Some(value),
            Err(problem) => {
                self.error(problem.finding(param, raw, source));
                None
            }
        }
    }

    /// Warns of keys that no parameter takes.
    pub(crate) fn warn_unknown(&mut self, params: &[Param]) {
        let known: Vec<&str> = params.iter().flat_map(|param| param.names).copied().collect();
        for key in self.input.metadata.keys() {
            if params.iter().any(|param| param.takes(key)) {
                continue;
            }
            let finding =
                Finding::of(key, format!("unknown parameter {key:?} in trigger {}", self.input.trigger_type));
            let name = key.strip_suffix("FromEnv").unwrap_or(key);
            let finding = match crate::nearest::nearest(name, known.iter().copied()).first() {
                Some(near) if *near == name => finding.hint(format!("{name:?} is not read from there")),
                Some(near) => finding.hint(format!("did you mean {near:?}?")),
                None => finding,
            };
            self.warnings.push(finding);
        }
    }
}

enum Problem {
    NotAChoice,
    Exclusive,
    Unparsable(String),
}

impl Problem {
    /// KEDA's words; the value only where everybody may read it.
    fn finding(self, param: &Param, raw: &str, source: Source) -> Finding {
        let name = param.names.join(",");
        let value = match source {
            Source::Metadata => format!("value {raw:?}"),
            Source::Env | Source::Auth => format!("value from {source}"),
        };
        let message = match self {
            Self::NotAChoice => {
                format!("parameter {name:?} {value} must be one of [{}]", param.choices.join(" "))
            }
            Self::Exclusive => {
                format!("parameter {name:?} {value} must contain only one of [{}]", param.exclusive.join(" "))
            }
            Self::Unparsable(why) => format!("unable to set param {name:?} {value}: {why}"),
        };
        let near = crate::nearest::nearest(raw, param.choices.iter().copied());
        let finding = Finding::of(param.name(), message);
        match near.first() {
            Some(near) if source == Source::Metadata => finding.hint(format!("did you mean {near:?}?")),
            _ => finding,
        }
    }
}

fn check_choices(param: &Param, raw: &str) -> Result<(), Problem> {
    let elements = || raw.split(param.separator).map(str::trim);
    if !param.choices.is_empty() && elements().any(|element| !param.choices.contains(&element)) {
        return Err(Problem::NotAChoice);
    }
    if elements().filter(|element| param.exclusive.contains(element)).count() > 1 {
        return Err(Problem::Exclusive);
    }
    Ok(())
}

/// Joins the parameters of a struct and of its groups; the derive calls it in a constant.
pub(crate) const fn concat<const N: usize>(parts: &[&[Param]]) -> [Param; N] {
    const NONE: Param = Param {
        names: &[],
        from: &[],
        required: false,
        default: None,
        kind: "",
        choices: &[],
        exclusive: &[],
        separator: ',',
        range: None,
        deprecated: None,
        announce: None,
        docs: "",
    };
    let mut all = [NONE; N];
    let (mut part, mut at) = (0, 0);
    while part < parts.len() {
        let mut i = 0;
        while i < parts[part].len() {
            all[at] = parts[part][i];
            at += 1;
            i += 1;
        }
        part += 1;
    }
    all
}

/// The length of what [`concat`] makes.
pub(crate) const fn count(parts: &[&[Param]]) -> usize {
    let (mut part, mut total) = (0, 0);
    while part < parts.len() {
        total += parts[part].len();
        part += 1;
    }
    total
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use scalers_derive::Metadata;

    use super::*;
    use crate::testing::input;
    use crate::values::choices;

    choices! {
        /// A colour.
        Colour { Red = "red", Green = "green", Blue = "blue" }
    }

    #[derive(Debug, Metadata)]
    struct Everything {
        /// A text from everywhere.
        #[param(from = "auth,env,meta")]
        text: String,
        /// Aliases.
        #[param(name = "first;second")]
        alias: Option<String>,
        /// A flag.
        #[param(default = "true")]
        flag: bool,
        /// Numbers and ranges.
        #[param(range = "-", separator = ";")]
        numbers: Option<Vec<i64>>,
        /// A time.
        wait: Option<Duration>,
        /// A map.
        map: Option<BTreeMap<String, String>>,
        /// Colours.
        #[param(exclusive = "red;green")]
        colours: Option<Vec<Colour>>,
        /// Gone.
        #[param(deprecated = "use text instead")]
        #[expect(dead_code, reason = "nothing reads what is gone")]
        old: Option<String>,
        #[param(group)]
        more: More,
    }

    #[derive(Debug, Metadata)]
    struct More {
        /// A secret.
        #[param(from = "auth")]
        password: Secret,
    }

    fn read(input: &Input, offline: Offline) -> (Option<Everything>, Vec<String>) {
        let mut view = View::checking(input, offline);
        let read = Everything::read(&mut view);
        (read, view.errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_first_place_that_has_a_value_wins() {
        let base = [("text", "from-meta"), ("textFromEnv", "TEXT")];
        for (env, auth, wanted) in
            [("from-env", "from-auth", "from-auth"), ("from-env", "  ", "from-env"), (" ", "", "from-meta")]
        {
            let mut input = input("x", &base).with_auth(&[("text", auth), ("password", "p")]);
            input.resolved_env = [("TEXT".to_owned(), env.to_owned())].into();
            let (read, errors) = read(&input, Offline::default());
            assert_eq!(errors, Vec::<String>::new());
            assert_eq!(read.unwrap().text, wanted);
        }
    }

    #[test]
    fn values_are_read_by_their_types() {
        let input = input(
            "x",
            &[
                ("text", " trimmed "),
                ("second", "alias"),
                ("flag", "f"),
                ("numbers", "1-3; 7 ;9-9"),
                ("wait", "1m30.5s"),
                ("map", "a=1, b = 2 "),
                ("colours", "red, blue"),
            ],
        )
        .with_auth(&[("password", "p\n")]);
        let (read, errors) = read(&input, Offline::default());
        assert_eq!(errors, Vec::<String>::new());
        let all = read.unwrap();
        assert_eq!(all.text, "trimmed");
        assert_eq!(all.alias.as_deref(), Some("alias"));
        assert!(!all.flag);
        assert_eq!(all.numbers, Some(vec![1, 2, 3, 7, 9]));
        assert_eq!(all.wait, Some(Duration::from_millis(90_500)));
        assert_eq!(
            all.map,
            Some([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())].into())
        );
        assert_eq!(all.colours, Some(vec![Colour::Red, Colour::Blue]));
        assert_eq!(all.more.password.expose(), "p");
    }

    #[test]
    fn all_errors_come_together() {
        let input = input(
            "x",
            &[
                ("flag", "yes"),
                ("numbers", "1;x"),
                ("wait", "-5s"),
                ("map", "a=b=c"),
                ("colours", "red,green"),
                ("old", "x"),
            ],
        );
        let (read, errors) = read(&input, Offline::default());
        assert!(read.is_none());
        assert_eq!(
            errors,
            [
                "missing required parameter \"text\" in [authParams resolvedEnv triggerMetadata]",
                "unable to set param \"flag\" value \"yes\": expected true or false",
                "unable to set param \"numbers\" value \"1;x\": slice element 1: expected a whole number",
                "unable to set param \"wait\" value \"-5s\": duration cannot be negative",
                "unable to set param \"map\" value \"a=b=c\": expected format key=value",
                "parameter \"colours\" value \"red,green\" must contain only one of [red green]",
                "scaler x info: use text instead",
                "missing required parameter \"password\" in [authParams]",
            ]
        );
    }

    #[test]
    fn a_wrong_choice_names_the_nearest() {
        let input = input("x", &[("text", "t"), ("colours", "gren")]).with_auth(&[("password", "p")]);
        let (_, errors) = read(&input, Offline::default());
        assert_eq!(
            errors,
            [
                "parameter \"colours\" value \"gren\" must be one of [red green blue] (did you mean \"green\"?)"
            ]
        );
    }

    #[test]
    fn the_unseen_is_neither_missing_nor_there() {
        let input = input("x", &[("textFromEnv", "TEXT")]);
        for (auth, env, missing) in [(true, true, 0), (false, true, 1), (true, false, 0), (false, false, 2)] {
            let (read, errors) = read(&input, Offline { auth, env });
            assert!(read.is_none());
            assert_eq!(errors.len(), missing, "{auth} {env}: {errors:?}");
        }
    }
}
