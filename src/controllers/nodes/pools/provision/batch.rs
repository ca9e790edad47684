//! When a batch of pods is complete: nothing new for a while, or long enough since the first.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tandem_core::scheduling::Pod;
use tokio::time::Instant;

use super::AGAIN;

/// Pods that need nodes, as they come.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Pods that were thought about, or wait to be.
    seen: HashSet<Arc<str>>,
    claims: HashSet<String>,
    pools: HashSet<String>,
    first: Option<Instant>,
    last: Option<Instant>,
    /// When pods were last thought about while some needed it.
    thought: Option<Instant>,
}

impl Batch {
    /// Looks at pods that need nodes, at claims and at pools that are ready. A pod or a pool that is new, or a claim that is
    /// gone, begins a batch or prolongs it, and so does a pod that needs something for too long. Returns since when the batch
    /// gathers.
    pub(super) fn look(
        &mut self,
        pods: &[Arc<Pod>],
        claims: HashSet<String>,
        pools: HashSet<String>,
        now: Instant,
    ) -> Option<Instant> {
        let is_other = self.claims.iter().any(|claim| !claims.contains(claim))
            || pools.iter().any(|pool| !self.pools.contains(pool));
        (self.claims, self.pools) = (claims, pools);
        let uids: HashSet<Arc<str>> = pods.iter().map(|pod| pod.uid.clone()).collect();
        let is_new = uids.iter().any(|uid| !self.seen.contains(uid));
        self.seen = uids;
        if self.seen.is_empty() {
            (self.first, self.last, self.thought) = (None, None, None);
        } else if is_new || is_other {
            self.first.get_or_insert(now);
            self.last = Some(now);
        } else if self.first.is_none() && self.thought.is_none_or(|thought| now >= thought + AGAIN) {
            (self.first, self.last) = (Some(now), Some(now));
        }
        self.first
    }

    /// Whether the batch is complete.
    pub(super) fn is_due(&self, (idle, most): (Duration, Duration), now: Instant) -> bool {
        let (Some(first), Some(last)) = (self.first, self.last) else { return false };
        now >= last + idle || now >= first + most
    }

    /// The batch was thought about.
    pub(super) fn done(&mut self, now: Instant) {
        (self.first, self.last, self.thought) = (None, None, Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

    fn none() -> HashSet<String> {
        HashSet::new()
    }

    fn pods(count: usize) -> Vec<Arc<Pod>> {
        (0..count).map(|number| Arc::new(Pod { uid: number.to_string().into(), ..Pod::default() })).collect()
    }

    #[test]
    fn a_batch_waits_for_more_but_not_for_ever() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut batch = Batch::default();
        assert_eq!(batch.look(&[], none(), none(), start), None);
        batch.look(&pods(1), none(), none(), start);
        assert!(!batch.is_due(TIMES, at(0.9)) && batch.is_due(TIMES, at(1.0)));
        for step in 1..=12 {
            batch.look(&pods(step + 1), none(), none(), at(0.8 * f64::from(u32::try_from(step).unwrap())));
        }
        assert!(!batch.is_due(TIMES, at(9.9)));
        assert!(batch.is_due(TIMES, at(10.0)));
    }

    #[test]
    fn who_still_waits_is_thought_about_again() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let claims: HashSet<String> = ["c".to_owned()].into();
        let mut batch = Batch::default();
        batch.look(&pods(1), claims.clone(), none(), start);
        batch.done(at(1));
        batch.look(&pods(1), claims.clone(), none(), at(2));
        assert!(!batch.is_due(TIMES, at(10)));
        batch.look(&pods(1), claims.clone(), none(), at(11));
        assert!(batch.is_due(TIMES, at(12)));
        batch.done(at(12));
        batch.look(&pods(1), none(), none(), at(13));
        assert!(batch.is_due(TIMES, at(14)), "its claim is gone");
        batch.done(at(14));
        batch.look(&pods(1), none(), ["p".to_owned()].into(), at(15));
        assert!(batch.is_due(TIMES, at(16)), "there is a pool");
    }
}
