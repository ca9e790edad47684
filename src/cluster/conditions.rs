//! Conditions of statuses.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// What a condition says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody knows yet.
    Unknown,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// The condition of this type.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether the condition of this type holds.
pub fn holds(conditions: &[Condition], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == Status::True.name())
}

/// Sets a condition. Its time moves with its status only. An empty reason stands for the type.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    status: Status,
    (reason, message): (&str, &str),
    now: Timestamp,
) {
    let reason = if reason.is_empty() { kind } else { reason };
    let wanted = Condition {
        type_: kind.to_owned(),
        status: status.name().to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: None,
        last_transition_time: Time(now),
    };
    match conditions.iter_mut().find(|condition| condition.type_ == kind) {
        None => conditions.push(wanted),
        Some(old) => {
            let since =
                if old.status == wanted.status { old.last_transition_time.clone() } else { Time(now) };
            *old = Condition { last_transition_time: since, ..wanted };
        }
    }
}

/// Takes a condition away.
pub fn clear(conditions: &mut Vec<Condition>, kind: &str) {
    conditions.retain(|condition| condition.type_ != kind);
}

/// Sets `Ready`: true if all of the others hold, else what the first that does not says.
pub fn set_ready(conditions: &mut Vec<Condition>, of: &[&str], now: Timestamp) {
    let missing = of.iter().find(|kind| !holds(conditions, kind));
    match missing.map(|kind| (*kind, find(conditions, kind))) {
        None => set(conditions, "Ready", Status::True, ("", ""), now),
        Some((kind, found)) => {
            let is_false = found.is_some_and(|condition| condition.status == Status::False.name());
            let status = if is_false { Status::False } else { Status::Unknown };
            let message = found.map_or_else(String::new, |condition| condition.message.clone());
            let reason = if is_false { "UnhealthyDependents" } else { "AwaitingReconciliation" };
            set(
                conditions,
                "Ready",
                status,
                (reason, format!("{kind}: {message}").trim_end_matches(": ")),
                now,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn time_moves_with_the_status_only() {
        let start = Timestamp::UNIX_EPOCH;
        let later = start + SignedDuration::from_secs(9);
        let mut conditions = Vec::new();
        set(&mut conditions, "A", Status::Unknown, ("Waiting", "for it"), start);
        set(&mut conditions, "A", Status::Unknown, ("Waiting", "still"), later);
        assert_eq!(conditions[0].last_transition_time.0, start);
        assert_eq!((holds(&conditions, "A"), conditions[0].message.as_str()), (false, "still"));
        set(&mut conditions, "A", Status::True, ("", ""), later);
        assert_eq!((conditions[0].last_transition_time.0, conditions[0].reason.as_str()), (later, "A"));
    }

    #[test]
    fn ready_says_what_is_missing() {
        let now = Timestamp::UNIX_EPOCH;
        let mut conditions = Vec::new();
        set(&mut conditions, "A", Status::True, ("", ""), now);
        set(&mut conditions, "B", Status::False, ("Broken", "no power"), now);
        set_ready(&mut conditions, &["A", "B", "C"], now);
        let ready = find(&conditions, "Ready").unwrap();
        assert_eq!((ready.status.as_str(), ready.message.as_str()), ("False", "B: no power"));
        set_ready(&mut conditions, &["A"], now);
        assert!(holds(&conditions, "Ready"));
    }
}
