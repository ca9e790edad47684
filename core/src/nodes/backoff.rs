//! Groups that failed to grow are left alone for a while, each time longer; so are requests that found no room.
//!
//! Source: Cluster Autoscaler, `utils/backoff/exponential_backoff.go`.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How long groups are left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffSettings {
    /// After the first failure (`--initial-node-group-backoff-duration`).
    pub first: SignedDuration,
    /// At most (`--max-node-group-backoff-duration`).
    pub longest: SignedDuration,
    /// After so long without a failure the next one is the first again (`--node-group-backoff-reset-timeout`).
    pub forgotten: SignedDuration,
}

/// What became of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// Left alone until then.
    pub until: Timestamp,
    /// How long this time, seconds.
    pub seconds: i64,
    /// When it failed last.
    pub failed: Timestamp,
    /// The provider's code, or `timeout`.
    pub code: String,
    /// The provider's words.
    pub message: String,
}

/// The groups that failed. Serialised so that a restart does not try a group again that failed a minute ago.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoffs(BTreeMap<String, Backoff>);

impl Backoffs {
    /// Whether no group has failed lately.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A group failed to grow.
    pub fn fail(
        &mut self,
        group: &str,
        code: &str,
        message: &str,
        now: Timestamp,
        settings: BackoffSettings,
    ) -> &Backoff {
        let first = settings.first.as_secs();
        let seconds = match self.0.get(group) {
            // A failure that is told again while the group is left alone is the same failure.
            Some(old) if now < old.until => old.seconds,
            Some(old) if now.duration_since(old.failed) < settings.forgotten => {
                old.seconds.saturating_mul(2).min(settings.longest.as_secs())
            }
            _ => first,
        };
        let until = now + SignedDuration::from_secs(seconds);
        let backoff =
            Backoff { until, seconds, failed: now, code: code.to_owned(), message: message.to_owned() };
        self.0.entry(group.to_owned()).insert_entry(backoff).into_mut()
    }

    /// Why and until when a group is left alone now.
    pub fn of(&self, group: &str, now: Timestamp) -> Option<&Backoff> {
        self.0.get(group).filter(|backoff| now < backoff.until)
    }

    /// A group grew: it is trusted again.
    pub fn succeed(&mut self, group: &str) {
        self.0.remove(group);
    }

    /// Drops those of whom nobody knows any more.
    pub fn keep(&mut self, is_known: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| is_known(name));
    }

    /// Drops what no longer counts.
    pub fn forget(&mut self, now: Timestamp, settings: BackoffSettings) {
        self.0.retain(|_, backoff| now.duration_since(backoff.failed) < settings.forgotten);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: BackoffSettings = BackoffSettings {
        first: SignedDuration::from_mins(5),
        longest: SignedDuration::from_mins(30),
        forgotten: SignedDuration::from_hours(3),
    };

    fn at(minutes: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes)
    }

    #[test]
    fn each_failure_doubles_it_up_to_a_bound() {
        let mut backoffs = Backoffs::default();
        let mut now = 0;
        for minutes in [5, 10, 20, 30, 30] {
            backoffs.fail("a", "x", "y", at(now), SETTINGS);
            assert!(backoffs.of("a", at(now + minutes - 1)).is_some());
            assert!(backoffs.of("a", at(now + minutes)).is_none());
            now += minutes;
        }
        backoffs.fail("a", "x", "y", at(now + 181), SETTINGS);
        assert!(backoffs.of("a", at(now + 181 + 5)).is_none(), "three hours without a failure are forgiven");
    }

    #[test]
    fn one_failure_told_twice_counts_once() {
        let mut backoffs = Backoffs::default();
        backoffs.fail("a", "x", "y", at(0), SETTINGS);
        backoffs.fail("a", "x", "y", at(1), SETTINGS);
        assert!(backoffs.of("a", at(6)).is_none());
        backoffs.succeed("a");
        assert_eq!(backoffs, Backoffs::default());
    }

    proptest::proptest! {
        #[test]
        fn stays_within_its_bounds_and_survives_a_restart(gaps in proptest::collection::vec(0i64..400, 1..12)) {
            let (mut backoffs, mut minute) = (Backoffs::default(), 0);
            for gap in gaps {
                minute += gap;
                let backoff = backoffs.fail("a", "x", "y", at(minute), SETTINGS).clone();
                let span = backoff.until.duration_since(at(minute));
                proptest::prop_assert!(SETTINGS.first <= span && span <= SETTINGS.longest, "{span:?}");
                let written = serde_json::to_string(&backoffs).unwrap();
                proptest::prop_assert_eq!(&serde_json::from_str::<Backoffs>(&written).unwrap(), &backoffs);
            }
        }
    }
}
