//! How long pods take from their creation to a node and to their readiness (core, `pkg/controllers/metrics/pod`).

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use tandem_core::scheduling::Pod;

use super::Pools;

/// What comes within this time is looked at together; durations are longer by as much at most.
const CALM: Duration = Duration::from_millis(500);
/// The longest time between two looks.
const PERIOD: Duration = Duration::from_mins(1);

/// How far a pod has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// It has no node.
    Waiting,
    /// It has one.
    Bound,
    /// It was ready once, or has ended.
    Started,
}

impl Stage {
    fn of(pod: &Pod) -> Self {
        if pod.node.is_none() {
            Self::Waiting
        } else if pod.ready || pod.is_terminal() {
            Self::Started
        } else {
            Self::Bound
        }
    }
}

/// How far pods, by uid, had come.
#[derive(Default)]
struct Seen {
    /// At the last look; `None` before the first.
    stages: Option<HashMap<Arc<str>, Stage>>,
}

/// Times the starts of pods, for ever.
pub(super) async fn run(pools: Arc<Pools>) {
    let mut changes = pools.world.changes.subscribe();
    let (mut seen, mut looked_at) = (Seen::default(), None);
    loop {
        let version = Some(pools.world.pods.version());
        if !pools.leads() {
            (seen, looked_at) = (Seen::default(), None);
        } else if looked_at != version {
            looked_at = version;
            for (stage, seconds) in seen.look(&pools.world.pods.all(), Timestamp::now()) {
                pools.metrics.reached(stage, seconds);
            }
        }
        pools.changed(&mut changes, CALM, PERIOD).await;
    }
}

impl Seen {
    /// Stages that pods have reached since the last look, and how many seconds after their creation. What the first look finds
    /// may have been so for long, and what has ended without being seen ready says nothing.
    fn look(&mut self, pods: &[Arc<Pod>], now: Timestamp) -> Vec<(Stage, f64)> {
        let before = self.stages.take();
        let mut reached = Vec::new();
        let mut stages = HashMap::with_capacity(pods.len());
        for pod in pods {
            let is = Stage::of(pod);
            let was = match &before {
                Some(before) => before.get(&pod.uid).copied().unwrap_or(Stage::Waiting),
                None => is,
            };
            if let Some(created) = pod.created.filter(|_| !pod.is_terminal()) {
                let seconds = now.duration_since(created).as_secs_f64().max(0.0);
                let new =
                    [Stage::Bound, Stage::Started].into_iter().filter(|stage| was < *stage && *stage <= is);
                reached.extend(new.map(|stage| (stage, seconds)));
            }
            stages.insert(pod.uid.clone(), is.max(was));
        }
        self.stages = Some(stages);
        reached
    }
}

#[cfg(test)]
mod tests {
    use tandem_core::scheduling::pod::Phase;

    use super::*;

    fn pod(uid: &str, node: Option<&str>, ready: bool, phase: Phase) -> Arc<Pod> {
        let (node, created) = (node.map(Arc::from), Some(Timestamp::UNIX_EPOCH));
        Arc::new(Pod { uid: uid.into(), node, ready, phase, created, ..Pod::default() })
    }

    #[test]
    fn each_stage_of_a_pod_is_timed_once() {
        let old = pod("old", Some("n"), true, Phase::Running);
        let mut seen = Seen::default();
        let mut look = |pods: &[Arc<Pod>], at| {
            let pods: Vec<_> = pods.iter().chain([&old]).cloned().collect();
            seen.look(&pods, Timestamp::from_second(at).unwrap())
        };
        let waits = pod("a", None, false, Phase::Pending);
        let bound = pod("a", Some("n"), false, Phase::Pending);
        let ready = pod("a", Some("n"), true, Phase::Running);
        let fast = pod("b", Some("n"), true, Phase::Running);
        let ended = pod("c", Some("n"), false, Phase::Succeeded);
        assert_eq!(look(&[], 0), [], "what was there before is not timed");
        assert_eq!(look(&[waits], 1), []);
        assert_eq!(look(std::slice::from_ref(&bound), 3), [(Stage::Bound, 3.0)]);
        assert_eq!(look(std::slice::from_ref(&ready), 5), [(Stage::Started, 5.0)]);
        assert_eq!(look(&[bound], 7), [], "it was ready before");
        assert_eq!(look(std::slice::from_ref(&ready), 8), []);
        let both = [(Stage::Bound, 9.0), (Stage::Started, 9.0)];
        assert_eq!(look(&[ready, fast], 9), both, "it came and was ready between two looks");
        assert_eq!(look(&[ended], 9), []);
    }
}
