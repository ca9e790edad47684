//! Which nodes pods are expected on: those are not taken away before the scheduler has had its turn.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// The least time that a nomination holds (core, `pkg/controllers/state/statenode.go`).
const LEAST: Duration = Duration::from_secs(10);

/// Nodes, by the name of their claim or their own, with the end of the nomination.
#[derive(Debug, Default)]
pub(super) struct Nominations(Mutex<HashMap<String, Instant>>);

impl Nominations {
    /// Expects pods on a node: for two batches of pods, since the next batch finds them still waiting.
    pub(super) fn note(&self, name: &str, batch: Duration, now: Instant) {
        let until = now + LEAST.max(batch * 2);
        self.0.lock().insert(name.to_owned(), until);
    }

    /// Nodes that pods are expected on.
    pub(super) fn names(&self, now: Instant) -> BTreeSet<String> {
        let mut nominations = self.0.lock();
        nominations.retain(|_, until| *until > now);
        nominations.keys().cloned().collect()
    }

    /// When the next nomination ends.
    pub(super) fn next_end(&self, now: Instant) -> Option<Instant> {
        self.0.lock().values().copied().filter(|until| *until > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nomination_ends() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let nominations = Nominations::default();
        nominations.note("a", Duration::from_secs(10), start);
        assert_eq!(nominations.names(at(19)), BTreeSet::from(["a".to_owned()]));
        nominations.note("b", Duration::from_secs(10), at(5));
        assert_eq!(
            (nominations.next_end(at(19)), nominations.next_end(at(20))),
            (Some(at(20)), Some(at(25)))
        );
        assert_eq!(nominations.names(at(25)), BTreeSet::new());
        assert_eq!(nominations.next_end(at(25)), None);
    }
}
