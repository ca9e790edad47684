//! What of all that is seen and decided makes a new line: a loop decides the same again and again while nobody does it.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};

use super::record::{Metric, NodeKind, Nodes, Sample};

/// What was not wanted for so long is told again when it is: longer than every loop's period.
const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_mins(10);
/// Texts that are remembered at most, some 20 MB of them; beyond that the record repeats itself.
const MOST_TEXTS: usize = 50_000;
/// A state that stays is written again after so long, so that the end of a record tells a calm from a stop.
const AGAIN: SignedDuration = SignedDuration::from_mins(1);
/// A metric is another when it moved by this share of its target: half of what moves an HPA.
const MOVED: f64 = 0.05;

/// What was written already.
#[derive(Debug, Default)]
pub struct Fold {
    texts: HashMap<String, Timestamp>,
    samples: BTreeMap<(String, String), (Sample, Timestamp)>,
    nodes: BTreeMap<(NodeKind, String), (Nodes, Timestamp)>,
    pending: Option<(u32, Timestamp)>,
}

impl Fold {
    /// Whether an intent or an event, as text, is a new one.
    pub fn is_new(&mut self, text: &str, now: Timestamp) -> bool {
        let fresh = |seen: &Timestamp| now.duration_since(*seen) < FORGOTTEN_AFTER;
        if let Some(seen) = self.texts.get_mut(text) {
            let known = fresh(seen);
            *seen = now;
            return !known;
        }
        if self.texts.len() >= MOST_TEXTS {
            self.texts.retain(|_, seen| fresh(seen));
        }
        if self.texts.len() < MOST_TEXTS {
            self.texts.insert(text.to_owned(), now);
        }
        true
    }

    /// Whether an object's state is worth a line.
    pub fn is_new_sample(&mut self, sample: &Sample, now: Timestamp) -> bool {
        let key = (sample.namespace.clone(), sample.name.clone());
        let same =
            |(last, at): &(Sample, Timestamp)| now.duration_since(*at) < AGAIN && is_alike(last, sample);
        if self.samples.get(&key).is_some_and(same) {
            return false;
        }
        self.samples.insert(key, (sample.clone(), now));
        true
    }

    /// Whether the state of a group or a pool is worth a line.
    pub fn is_new_nodes(&mut self, nodes: &Nodes, now: Timestamp) -> bool {
        let key = (nodes.kind, nodes.name.clone());
        let same = |(last, at): &(Nodes, Timestamp)| now.duration_since(*at) < AGAIN && last == nodes;
        if self.nodes.get(&key).is_some_and(same) {
            return false;
        }
        self.nodes.insert(key, (nodes.clone(), now));
        true
    }

    /// Whether the number of pods that wait is worth a line.
    pub fn is_new_pending(&mut self, pods: u32, now: Timestamp) -> bool {
        if self.pending.is_some_and(|(last, at)| last == pods && now.duration_since(at) < AGAIN) {
            return false;
        }
        self.pending = Some((pods, now));
        true
    }

    /// Forgets an object that is gone.
    pub fn forget(&mut self, namespace: &str, name: &str) {
        self.samples.remove(&(namespace.to_owned(), name.to_owned()));
    }
}

/// Whether nothing changed but metrics by very little.
fn is_alike(last: &Sample, next: &Sample) -> bool {
    last.metrics.len() == next.metrics.len()
        && last.metrics.iter().zip(&next.metrics).all(|(last, next)| is_close(last, next))
        && (last.min, last.max, last.wanted, last.actual) == (next.min, next.max, next.wanted, next.actual)
        && last.limits == next.limits
}

fn is_close(last: &Metric, next: &Metric) -> bool {
    let close = match (last.value, next.value) {
        (Some(before), Some(now)) => (before - now).abs() <= MOVED * before.abs().max(next.target),
        (None, None) => true,
        _ => false,
    };
    close && *next == Metric { value: next.value, ..last.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
    }

    fn sample(value: Option<f64>, wanted: i32, actual: i32) -> Sample {
        let metric = Metric { name: "s0-prometheus".to_owned(), value, target: 10.0, per_replica: true };
        Sample {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            min: 0,
            max: 10,
            metrics: vec![metric],
            wanted,
            actual,
            limits: Vec::new(),
        }
    }

    #[test]
    fn what_is_wanted_in_every_pass_is_told_once() {
        let mut fold = Fold::default();
        let told = |fold: &mut Fold, seconds, text: &str| fold.is_new(text, at(seconds));
        assert!(told(&mut fold, 0, "a"));
        assert!((1..200).all(|pass| !told(&mut fold, pass * 10, "a")), "also after long");
        assert!(told(&mut fold, 2000, "b"), "another content");
        assert!(!told(&mut fold, 2001, "a") && !told(&mut fold, 2002, "b"), "two that alternate");
        assert!(told(&mut fold, 2001 + 600, "a"), "it was not wanted for a while");
    }

    #[test]
    fn texts_are_forgotten_before_memory_is_full() {
        let mut fold = Fold::default();
        for number in 0..MOST_TEXTS + 10 {
            assert!(fold.is_new(&number.to_string(), at(0)));
        }
        assert_eq!(fold.texts.len(), MOST_TEXTS);
        assert!(fold.is_new("later", at(3600)));
        assert_eq!(fold.texts.len(), 1);
    }

    #[test]
    fn a_state_is_written_when_it_changes_and_once_a_minute() {
        for (name, next, seconds, wanted) in [
            ("the same", sample(Some(100.0), 3, 1), 15, false),
            ("a minute later", sample(Some(100.0), 3, 1), 60, true),
            ("the metric by little", sample(Some(104.9), 3, 1), 15, false),
            ("the metric", sample(Some(106.0), 3, 1), 15, true),
            ("no metric", sample(None, 3, 1), 15, true),
            ("wanted", sample(Some(100.0), 4, 1), 1, true),
            ("actual", sample(Some(100.0), 3, 3), 1, true),
            ("the bounds", Sample { max: 20, ..sample(Some(100.0), 3, 1) }, 1, true),
        ] {
            let mut fold = Fold::default();
            assert!(fold.is_new_sample(&sample(Some(100.0), 3, 1), at(0)));
            assert_eq!(fold.is_new_sample(&next, at(seconds)), wanted, "{name}");
        }
    }

    #[test]
    fn small_steps_add_up() {
        let mut fold = Fold::default();
        let written = (0..20).filter(|step| {
            fold.is_new_sample(&sample(Some(100.0 + f64::from(*step) * 2.0), 3, 1), at(i64::from(*step)))
        });
        assert_eq!(written.count(), 6);
    }

    #[test]
    fn nodes_and_pending_pods_are_written_so_too() {
        let mut fold = Fold::default();
        let nodes =
            |wanted| Nodes { kind: NodeKind::Group, name: "a".to_owned(), wanted, actual: 1, ready: 1 };
        assert!(fold.is_new_nodes(&nodes(1), at(0)) && fold.is_new_pending(0, at(0)));
        assert!(!fold.is_new_nodes(&nodes(1), at(10)) && !fold.is_new_pending(0, at(10)));
        assert!(fold.is_new_nodes(&nodes(2), at(20)) && fold.is_new_pending(3, at(20)));
        assert!(fold.is_new_nodes(&nodes(2), at(80)) && fold.is_new_pending(3, at(80)));
    }
}
