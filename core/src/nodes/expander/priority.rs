//! The priority expander: groups in the order that the user wrote into a ConfigMap.
//!
//! Source: Cluster Autoscaler, `expander/priority`.

use std::{collections::BTreeMap, sync::Arc};

use regex::Regex;
use serde_saphyr::DuplicateKeyPolicy;
use thiserror::Error;

use super::Choice;

/// The ConfigMap that is read, in the autoscaler's namespace.
pub const CONFIG_MAP: &str = "cluster-autoscaler-priority-expander";
/// Its key.
pub const CONFIG_MAP_KEY: &str = "priorities";

/// Patterns of names of groups by priority, of which the highest goes first.
#[derive(Debug, Clone, Default)]
pub struct Priorities(BTreeMap<i64, Vec<Regex>>);

/// Why a ConfigMap says nothing about priorities.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PriorityError {
    /// The key is not there.
    #[error(
        "ConfigMap {CONFIG_MAP} has no key {CONFIG_MAP_KEY}: expected a YAML mapping of numbers to lists of patterns"
    )]
    NoKey,
    /// Nothing is written there.
    #[error(
        "key {CONFIG_MAP_KEY} of ConfigMap {CONFIG_MAP} is empty: expected a YAML mapping of numbers to lists of patterns"
    )]
    Empty,
    /// It is not such a mapping.
    #[error(
        "key {CONFIG_MAP_KEY} of ConfigMap {CONFIG_MAP} is no YAML mapping of numbers to lists of patterns: {0}"
    )]
    Yaml(String),
    /// A pattern is no regular expression.
    #[error("pattern {pattern:?} of priority {priority} is no regular expression: {problem}")]
    Pattern {
        /// Its priority.
        priority: i64,
        /// It.
        pattern: String,
        /// What is wrong.
        problem: String,
    },
}

/// What the priority expander tells the user, on the ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PriorityEvent {
    /// The ConfigMap cannot be read.
    Invalid(PriorityError),
    /// No pattern matches a group, which is therefore not used.
    NotMatchedGroup(Arc<str>),
    /// No pattern matches any group, so that all are used.
    NoGroupMatched,
}

impl PriorityEvent {
    /// The reason of the event.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "PriorityConfigMapInvalid",
            Self::NotMatchedGroup(_) => "PriorityConfigMapNotMatchedGroup",
            Self::NoGroupMatched => "PriorityConfigMapNoGroupMatched",
        }
    }

    /// The words of the event.
    pub fn message(&self) -> String {
        match self {
            Self::Invalid(error) => {
                format!("Wrong configuration for priority expander: {error}. Ignoring update.")
            }
            Self::NotMatchedGroup(group) => format!(
                "Priority expander: node group {group} not found in priority expander configuration. The group won't be \
                 used."
            ),
            Self::NoGroupMatched => {
                "Priority expander: no priorities info found for any of the expansion options. No \
                                     options filtered."
                    .to_owned()
            }
        }
    }
}

impl Priorities {
    /// Reads the data of the ConfigMap.
    pub fn of_config_map(data: &BTreeMap<String, String>) -> Result<Self, PriorityError> {
        Self::parse(data.get(CONFIG_MAP_KEY).ok_or(PriorityError::NoKey)?)
    }

    /// Reads the YAML of the key.
    pub fn parse(text: &str) -> Result<Self, PriorityError> {
        if text.trim().is_empty() {
            return Err(PriorityError::Empty);
        }
        // Of a priority that comes twice the peer takes the last list.
        let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::LastWins };
        let lists: BTreeMap<i64, Option<Vec<String>>> = serde_saphyr::from_str_with_options(text, options)
            .map_err(|problem| PriorityError::Yaml(problem.to_string()))?;
        let mut priorities = BTreeMap::new();
        for (priority, patterns) in lists {
            let compile = |pattern: String| {
                compile(&pattern).map_err(|problem| PriorityError::Pattern {
                    priority,
                    pattern,
                    problem: problem.to_string(),
                })
            };
            let patterns: Result<Vec<_>, _> = patterns.into_iter().flatten().map(compile).collect();
            priorities.insert(priority, patterns?);
        }
        Ok(Self(priorities))
    }

    /// The highest priority that a pattern gives a group.
    pub fn of(&self, group: &str) -> Option<i64> {
        let mut from_highest = self.0.iter().rev();
        let matches = |patterns: &[Regex]| patterns.iter().any(|pattern| pattern.is_match(group));
        from_highest.find(|(_, patterns)| matches(patterns)).map(|(priority, _)| *priority)
    }

    /// Those of the highest priority; all if none has any.
    pub(super) fn keep(
        &self,
        left: Vec<usize>,
        choices: &[Choice],
        events: &mut Vec<PriorityEvent>,
    ) -> Vec<usize> {
        let of: Vec<Option<i64>> = left.iter().map(|choice| self.of(&choices[*choice].group)).collect();
        let Some(highest) = of.iter().flatten().max() else {
            events.push(PriorityEvent::NoGroupMatched);
            return left;
        };
        let unmatched = left.iter().zip(&of).filter(|(_, priority)| priority.is_none());
        events.extend(
            unmatched.map(|(choice, _)| PriorityEvent::NotMatchedGroup(choices[*choice].group.clone())),
        );
        let kept = left.iter().zip(&of).filter(|(_, priority)| priority.as_ref() == Some(highest));
        kept.map(|(choice, _)| *choice).collect()
    }
}

/// A pattern of Go's `regexp`, which also knows text that is meant to the letter: `\Q...\E`.
fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    Regex::new(pattern).or_else(|problem| {
        let Some((before, quoted)) = pattern.split_once(r"\Q") else { return Err(problem) };
        let mut plain = before.to_owned();
        for part in quoted.split(r"\Q") {
            let (letters, rest) = part.split_once(r"\E").unwrap_or((part, ""));
            plain += &regex::escape(letters);
            plain += rest;
        }
        Regex::new(&plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_where_and_what() {
        let said = |text: &str| Priorities::parse(text).unwrap_err().to_string();
        assert!(said(" ").contains("is empty"));
        assert!(said("high: [a]").contains("no YAML mapping of numbers"));
        assert!(said("5: ['a(']").starts_with("pattern \"a(\" of priority 5 is no regular expression"));
        assert_eq!(Priorities::of_config_map(&BTreeMap::new()).unwrap_err(), PriorityError::NoKey);
    }

    #[test]
    fn a_group_has_the_highest_priority_that_matches_anywhere_in_its_name() {
        let priorities = Priorities::parse("1: [\".*\"]\n20: [spot, \"^on-demand$\"]\n9:").unwrap();
        assert_eq!(priorities.of("my-spot-group"), Some(20));
        assert_eq!(priorities.of("my-on-demand"), Some(1));
    }

    #[test]
    fn who_matches_nothing_is_named() {
        let priorities = Priorities::parse("1: [a]").unwrap();
        let choices = ["a", "b"].map(|group| Choice { group: group.into(), ..Choice::default() });
        let mut events = Vec::new();
        assert_eq!(priorities.keep(vec![0, 1], &choices, &mut events), [0]);
        assert_eq!(events, [PriorityEvent::NotMatchedGroup("b".into())]);
        assert_eq!(priorities.keep(vec![1], &choices, &mut events), [1]);
        assert_eq!(events[1], PriorityEvent::NoGroupMatched);
    }
}
