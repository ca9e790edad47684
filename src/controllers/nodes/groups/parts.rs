//! How long the parts of a pass take, under Cluster Autoscaler's names (`metrics/metrics.go`, `FunctionLabel`).

use std::time::{Duration, Instant};

use tandem_core::nodes::{
    action::Action,
    pass::{Outcome, Part},
};

/// The parts of one pass, as they end.
#[derive(Debug, Default)]
pub(super) struct Parts {
    began: Option<Instant>,
    took: Vec<(Part, Duration)>,
}

impl Parts {
    /// The first begins now; what it is about took so long to be read, which is a part of it.
    pub(super) fn after(read: Duration) -> Self {
        let now = Instant::now();
        Self { began: Some(now.checked_sub(read).unwrap_or(now)), took: Vec::new() }
    }

    /// One is over, and the next begins.
    pub(super) fn ended(&mut self, part: Part) {
        let now = Instant::now();
        if let Some(began) = self.began.replace(now) {
            self.took.push((part, now.duration_since(began)));
        }
    }

    /// How long each took; that nothing has to grow is not told.
    pub(super) fn took(&self, outcome: &Outcome) -> impl Iterator<Item = (&'static str, Duration)> {
        let grows = !outcome.unschedulable.is_empty() || !outcome.plan.increases.is_empty();
        let told = self.took.iter().filter(move |(part, _)| *part != Part::ScaleUp || grows);
        told.map(|(part, took)| {
            let function = match part {
                Part::State => "updateClusterState",
                Part::ScaleUp => "scaleUp",
                Part::ScaleDown => "findUnneeded",
            };
            (function, *took)
        })
    }
}

/// The function that an action is a part of.
pub(super) fn function(action: &Action) -> Option<&'static str> {
    match action {
        Action::Remove(_) => Some("scaleDown"),
        Action::MarkCandidate { .. } | Action::UnmarkCandidate { .. } => Some("scaleDown:softTaintUnneeded"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn reading_is_the_first_part_and_growing_is_told_where_something_waits() {
        let mut parts = Parts::after(Duration::from_secs(3));
        for part in [Part::State, Part::ScaleUp, Part::ScaleDown] {
            parts.ended(part);
        }
        let mut outcome = Outcome::default();
        let (names, took): (Vec<_>, Vec<_>) = parts.took(&outcome).unzip();
        assert_eq!(names, ["updateClusterState", "findUnneeded"]);
        assert!(took[0] >= Duration::from_secs(3) && took[1] < Duration::from_secs(3), "{took:?}");
        outcome.unschedulable.push(Arc::default());
        assert_eq!(parts.took(&outcome).count(), 3);
    }
}
