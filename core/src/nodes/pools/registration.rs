//! Whether the machines of a pool become nodes, by its last launches.
//!
//! Source: core, `pkg/state/nodepoolhealth`, `pkg/controllers/nodepool/registrationhealth`.

use std::collections::VecDeque;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// So many launches of a pool are remembered.
const REMEMBERED: usize = 4;
/// So many failures among them are too many: one alone may be chance.
const TOO_MANY: usize = REMEMBERED / 2;

/// Why a machine became no node: a reason in one word, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The reason of a condition.
    pub reason: String,
    /// Its message.
    pub message: String,
}

/// What the last launches of a pool say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health<'a> {
    /// There was none since the pool or its node class changed.
    Unknown,
    /// Most became nodes.
    Healthy,
    /// Half of them or more did not; the last such failure.
    Unhealthy(&'a Failure),
}

/// The last launches of a pool, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Launches(VecDeque<Result<(), Failure>>);

impl Launches {
    /// What a pool's `NodeRegistrationHealthy` stands for after a restart: the least number of launches that says as much.
    pub fn read(written: Option<&Condition>) -> Self {
        let Some(condition) = written else { return Self::default() };
        let failure = || Failure { reason: condition.reason.clone(), message: condition.message.clone() };
        Self(match condition.status.as_str() {
            "True" => VecDeque::from([Ok(())]),
            "False" => (0..TOO_MANY).map(|_| Err(failure())).collect(),
            _ => VecDeque::new(),
        })
    }

    /// Notes how a launch ended; the oldest is forgotten for it.
    pub fn note(&mut self, outcome: Result<(), Failure>) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(outcome);
    }

    /// What they say.
    pub fn health(&self) -> Health<'_> {
        let failures = || self.0.iter().rev().filter_map(|outcome| outcome.as_ref().err());
        match failures().next() {
            Some(last) if failures().count() >= TOO_MANY => Health::Unhealthy(last),
            _ if self.0.is_empty() => Health::Unknown,
            _ => Health::Healthy,
        }
    }
}

/// Whether a pool's condition was written for another pool or node class than there is now: then it says nothing, and what
/// was launched before is forgotten. Generations are those of the objects; `None` of a class that is no object.
pub fn is_outdated(
    written: Option<&Condition>,
    pool_generation: Option<i64>,
    (class_then, class_now): (Option<i64>, Option<i64>),
) -> bool {
    class_then != class_now || written.is_none_or(|written| written.observed_generation != pool_generation)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn failure(number: usize) -> Failure {
        Failure { reason: "RegistrationFailed".to_owned(), message: number.to_string() }
    }

    /// Launches as letters: `y` became a node, `n` did not.
    fn launches(letters: &str) -> Launches {
        let mut launches = Launches::default();
        for (number, letter) in letters.chars().enumerate() {
            launches.note(if letter == 'y' { Ok(()) } else { Err(failure(number)) });
        }
        launches
    }

    #[test]
    fn half_of_the_last_four_launches_may_not_fail() {
        for (letters, wanted) in [
            ("", "unknown"),
            ("y", "healthy"),
            ("n", "healthy"),
            ("ny", "healthy"),
            ("nn", "unhealthy by 1"),
            ("nyn", "unhealthy by 2"),
            ("nyyn", "unhealthy by 3"),
            ("nyyyn", "healthy"),
            ("nnyyy", "healthy"),
            ("nnnny", "unhealthy by 3"),
        ] {
            let launches = launches(letters);
            let said = match launches.health() {
                Health::Unknown => "unknown".to_owned(),
                Health::Healthy => "healthy".to_owned(),
                Health::Unhealthy(last) => format!("unhealthy by {}", last.message),
            };
            assert_eq!(said, wanted, "{letters:?}");
        }
    }

    fn condition(status: &str, observed_generation: Option<i64>) -> Condition {
        Condition {
            type_: "NodeRegistrationHealthy".to_owned(),
            status: status.to_owned(),
            reason: "RegistrationFailed".to_owned(),
            message: "7".to_owned(),
            observed_generation,
            last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
        }
    }

    #[test]
    fn a_restart_forgets_no_health() {
        assert_eq!(Launches::read(None).health(), Health::Unknown);
        assert_eq!(Launches::read(Some(&condition("Unknown", None))).health(), Health::Unknown);
        assert_eq!(Launches::read(Some(&condition("True", None))).health(), Health::Healthy);
        let unhealthy = Launches::read(Some(&condition("False", None)));
        assert_eq!(unhealthy.health(), Health::Unhealthy(&failure(7)));
    }

    #[test]
    fn a_change_of_the_pool_or_its_class_starts_anew() {
        let written = condition("False", Some(2));
        for (written, pool, classes, wanted) in [
            (None, Some(2), (Some(5), Some(5)), true),
            (Some(&written), Some(2), (Some(5), Some(5)), false),
            (Some(&written), Some(2), (None, None), false),
            (Some(&written), Some(3), (Some(5), Some(5)), true),
            (Some(&written), Some(2), (Some(5), Some(6)), true),
        ] {
            assert_eq!(is_outdated(written, pool, classes), wanted, "{written:?} {pool:?} {classes:?}");
        }
    }
}
