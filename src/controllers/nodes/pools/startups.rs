//! How long pods take from their creation, and from the time at which there was a place for them, to a node and to their
//! readiness (core, `pkg/controllers/metrics/pod`, `pkg/controllers/state/cluster.go`).
//!
//! What is known here is known since this replica leads, and no longer than it does.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use tandem_core::scheduling::{Pod, pod::Phase};

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

/// A stage that a pod has reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reached {
    pub(super) stage: Stage,
    /// Seconds since its creation.
    pub(super) seconds: f64,
    /// Seconds since there was first a place for it, if this replica found one.
    pub(super) since_placed: Option<f64>,
}

/// What the search for nodes knows of a pod.
#[derive(Debug, Clone, Copy)]
struct Search {
    /// When it was first seen to need a node.
    seen: Timestamp,
    /// When it was first thought about.
    decided: Option<Timestamp>,
    /// Since when there is a place for it.
    placed: Option<Timestamp>,
}

#[derive(Default)]
struct Known {
    /// How far pods, by uid, had come at the last look; `None` before the first.
    stages: Option<HashMap<Arc<str>, Stage>>,
    /// Pods, by uid, that need nodes, or did until they started.
    searches: HashMap<Arc<str>, Search>,
}

/// The starts of pods.
#[derive(Default)]
pub(super) struct Startups(Mutex<Known>);

/// A pod that has yet to start.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfPod {
    name: String,
    namespace: String,
}

/// Seconds by pod.
type Seconds = Vec<(OfPod, f64)>;

/// What pods that have yet to start wait for, and how long.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// Since their creation, for their readiness.
    pub(super) unstarted: Seconds,
    /// Since their creation, for a node.
    pub(super) unbound: Seconds,
    /// Since there was a place for them, for their readiness.
    pub(super) placed_unstarted: Seconds,
    /// Since there was a place for them, for a node.
    pub(super) placed_unbound: Seconds,
    /// Since they were first seen, for somebody to think about them.
    pub(super) undecided: Seconds,
}

/// Times the starts of pods, for ever.
pub(super) async fn run(pools: Arc<Pools>) {
    let mut changes = pools.world.changes.subscribe();
    let mut looked_at = None;
    loop {
        let version = Some(pools.world.pods.version());
        if !pools.leads() {
            looked_at = None;
            *pools.startups.0.lock() = Known::default();
        } else if looked_at != version {
            looked_at = version;
            for reached in pools.startups.look(&pools.world.pods.all(), Timestamp::now()) {
                pools.metrics.scheduling.reached(reached);
            }
        }
        pools.changed(&mut changes, CALM, PERIOD).await;
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
}

impl Startups {
    /// These pods need nodes; those that have one, which goes, were timed when they got it.
    pub(super) fn seen(&self, pods: &[Arc<Pod>], now: Timestamp) {
        let mut known = self.0.lock();
        for pod in pods.iter().filter(|pod| pod.node.is_none()) {
            let search = Search { seen: now, decided: None, placed: None };
            known.searches.entry(pod.uid.clone()).or_insert(search);
        }
    }

    /// These pods were thought about, and for some there is no place. Returns how many seconds after they were seen those
    /// were thought about that were not before.
    pub(super) fn decided(
        &self,
        pods: &[Arc<Pod>],
        without_place: &HashSet<usize>,
        now: Timestamp,
    ) -> Vec<f64> {
        let mut known = self.0.lock();
        let mut first = Vec::new();
        for (at, pod) in pods.iter().enumerate() {
            let Some(search) = known.searches.get_mut(&pod.uid) else { continue };
            search.placed = if without_place.contains(&at) { None } else { search.placed.or(Some(now)) };
            if search.decided.is_none() {
                search.decided = Some(now);
                first.push(seconds(search.seen, now));
            }
        }
        first
    }

    /// Stages that pods have reached since the last look. What runs at the first look may have done so for long, and what has
    /// ended without being seen ready says nothing.
    fn look(&self, pods: &[Arc<Pod>], now: Timestamp) -> Vec<Reached> {
        let mut known = self.0.lock();
        let before = known.stages.take();
        let mut reached = Vec::new();
        let mut stages = HashMap::with_capacity(pods.len());
        for pod in pods {
            let is = Stage::of(pod);
            let was = match &before {
                Some(before) => before.get(&pod.uid).copied().unwrap_or(Stage::Waiting),
                None if pod.phase == Phase::Pending => is,
                None => Stage::Started,
            };
            if let Some(created) = pod.created.filter(|_| !pod.is_terminal()) {
                let placed = known.searches.get(&pod.uid).and_then(|search| search.placed);
                let since_placed = placed.map(|placed| seconds(placed, now));
                let new =
                    [Stage::Bound, Stage::Started].into_iter().filter(|stage| was < *stage && *stage <= is);
                reached.extend(new.map(|stage| Reached {
                    stage,
                    seconds: seconds(created, now),
                    since_placed,
                }));
            }
            stages.insert(pod.uid.clone(), is.max(was));
        }
        known.searches.retain(|uid, _| stages.get(uid).is_some_and(|stage| *stage < Stage::Started));
        known.stages = Some(stages);
        reached
    }

    /// What pods have yet to wait for.
    pub(super) fn waits(&self, pods: &[Arc<Pod>], now: Timestamp) -> Waits {
        let known = self.0.lock();
        let mut waits = Waits::default();
        for pod in pods.iter().filter(|pod| !pod.is_terminal()) {
            let stage = known.stages.as_ref().and_then(|stages| stages.get(&pod.uid));
            if !stage.map_or(pod.phase == Phase::Pending, |stage| *stage < Stage::Started) {
                continue;
            }
            let labels = || OfPod { name: pod.name.to_string(), namespace: pod.shape.namespace.to_string() };
            let since = |series: &mut Seconds, time: Option<Timestamp>| {
                series.extend(time.map(|time| (labels(), seconds(time, now))));
            };
            let search = known.searches.get(&pod.uid);
            let placed = search.and_then(|search| search.placed);
            since(&mut waits.unstarted, pod.created);
            since(&mut waits.placed_unstarted, placed);
            if pod.node.is_none() {
                since(&mut waits.unbound, pod.created);
                since(&mut waits.placed_unbound, placed);
                let undecided = search.filter(|search| search.decided.is_none());
                since(&mut waits.undecided, undecided.map(|search| search.seen));
            }
        }
        waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pod(uid: &str, node: Option<&str>, ready: bool, phase: Phase) -> Arc<Pod> {
        let (node, created) = (node.map(Arc::from), Some(Timestamp::UNIX_EPOCH));
        Arc::new(Pod { name: uid.into(), uid: uid.into(), node, ready, phase, created, ..Pod::default() })
    }

    fn reached(stage: Stage, seconds: f64) -> Reached {
        Reached { stage, seconds, since_placed: None }
    }

    #[test]
    fn each_stage_of_a_pod_is_timed_once() {
        let old = pod("old", Some("n"), true, Phase::Running);
        let crashing = pod("crashing", Some("n"), false, Phase::Running);
        let startups = Startups::default();
        let look = |pods: &[Arc<Pod>], time| {
            let pods: Vec<_> = pods.iter().chain([&old, &crashing]).cloned().collect();
            startups.look(&pods, at(time))
        };
        let waits = pod("a", None, false, Phase::Pending);
        let bound = pod("a", Some("n"), false, Phase::Pending);
        let ready = pod("a", Some("n"), true, Phase::Running);
        let fast = pod("b", Some("n"), true, Phase::Running);
        let ended = pod("c", Some("n"), false, Phase::Succeeded);
        assert_eq!(look(&[], 0), [], "what was there before is not timed");
        assert_eq!(look(&[waits], 1), []);
        assert_eq!(look(std::slice::from_ref(&bound), 3), [reached(Stage::Bound, 3.0)]);
        assert_eq!(look(std::slice::from_ref(&ready), 5), [reached(Stage::Started, 5.0)]);
        assert_eq!(look(&[bound], 7), [], "it was ready before");
        assert_eq!(look(std::slice::from_ref(&ready), 8), []);
        let both = [reached(Stage::Bound, 9.0), reached(Stage::Started, 9.0)];
        assert_eq!(look(&[ready, fast], 9), both, "it came and was ready between two looks");
        assert_eq!(look(&[ended], 9), []);
        assert!(
            startups.waits(std::slice::from_ref(&crashing), at(9)).unstarted.is_empty(),
            "it ran at the first look"
        );
    }

    #[test]
    fn what_pods_wait_for_is_told_as_long_as_they_do() {
        let startups = Startups::default();
        let waiting = [pod("a", None, false, Phase::Pending), pod("b", None, false, Phase::Pending)];
        startups.look(&waiting, at(5));
        startups.seen(&waiting, at(10));
        let told = |pods: &[Arc<Pod>], time| {
            let Waits { unstarted, unbound, placed_unstarted, placed_unbound, undecided } =
                startups.waits(pods, at(time));
            [unstarted, unbound, placed_unstarted, placed_unbound, undecided].map(|series| {
                series
                    .iter()
                    .map(|(pod, seconds)| format!("{}: {seconds}", pod.name))
                    .collect::<Vec<_>>()
                    .join(" ")
            })
        };
        assert_eq!(told(&waiting, 14), ["a: 14 b: 14", "a: 14 b: 14", "", "", "a: 4 b: 4"]);
        assert_eq!(startups.decided(&waiting, &HashSet::from([1]), at(16)), [6.0, 6.0]);
        assert_eq!(startups.decided(&waiting, &HashSet::from([1]), at(18)), Vec::<f64>::new());
        assert_eq!(told(&waiting, 20), ["a: 20 b: 20", "a: 20 b: 20", "a: 4", "a: 4", ""]);
        let bound = [pod("a", Some("n"), false, Phase::Pending), waiting[1].clone()];
        let first = Reached { stage: Stage::Bound, seconds: 24.0, since_placed: Some(8.0) };
        assert_eq!(startups.look(&bound, at(24)), [first]);
        assert_eq!(told(&bound, 26), ["a: 26 b: 26", "b: 26", "a: 10", "", ""]);
        let ready = [pod("a", Some("n"), true, Phase::Running)];
        let second = Reached { stage: Stage::Started, seconds: 28.0, since_placed: Some(12.0) };
        assert_eq!(startups.look(&ready, at(28)), [second]);
        assert_eq!(told(&ready, 30), [""; 5]);
    }
}
