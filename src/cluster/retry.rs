//! How long a watch waits before it tries again.

use std::time::Duration;

use kube::runtime::{utils::Backoff, watcher::DefaultBackoff};

/// The longest pause. kube's own grows to 30 s, and is taken twice after an outage: once since the API server is away, and once
/// since what was watched is too old when it is back. That long nobody may be blind to pods that wait.
const LONGEST: Duration = Duration::from_secs(5);

/// The pauses of kube, which grow and vary, none longer than five seconds.
#[derive(Default)]
pub(super) struct Pauses(DefaultBackoff);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|pause| pause.min(LONGEST))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_end_at_five_seconds() {
        let mut pauses = Pauses::default();
        assert!(pauses.next().is_some_and(|first| first < LONGEST));
        assert!(pauses.take(20).last().is_some_and(|late| late == LONGEST));
    }
}
