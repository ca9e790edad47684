//! How many nodes of each kind there were, and what they cost: series, and sums over time.

use std::time::Duration;

use super::Instant;
use crate::outcome::{NodeSeries, NodesOutcome, Summary};

/// Series and sums.
pub(super) struct Bill {
    step: Duration,
    points: usize,
    since: Instant,
    kinds: Vec<Kind>,
    cost_per_hour: Vec<f64>,
    node_seconds: f64,
    dollars: f64,
    added: u64,
    removed: u64,
}

/// Nodes that cost the same.
struct Kind {
    ready: u32,
    starting: u32,
    series: NodeSeries,
}

/// The nodes' part of the result: series, and the summary's fields of nodes.
pub(crate) struct Total {
    pub(crate) nodes: NodesOutcome,
    pub(crate) summary: Summary,
}

impl Bill {
    pub(super) fn new(step: u32, points: usize) -> Self {
        Self {
            step: Duration::from_secs(step.into()),
            points,
            since: Instant::ZERO,
            kinds: Vec::new(),
            cost_per_hour: Vec::with_capacity(points),
            node_seconds: 0.0,
            dollars: 0.0,
            added: 0,
            removed: 0,
        }
    }

    /// The kind of that name; it has been there from the first point on.
    pub(super) fn kind(&mut self, name: &str, price: Option<f64>) -> usize {
        if let Some(known) = self.kinds.iter().position(|kind| kind.series.name == name) {
            return known;
        }
        let none = vec![0; self.cost_per_hour.len()];
        let series =
            NodeSeries { name: name.to_owned(), price_per_hour: price, ready: none.clone(), starting: none };
        self.kinds.push(Kind { ready: 0, starting: 0, series });
        self.kinds.len() - 1
    }

    /// A machine is asked for.
    pub(super) fn ask(&mut self, kind: usize, now: Instant) {
        self.advance(now);
        self.kinds[kind].starting += 1;
    }

    /// Machines were added to those of the beginning.
    pub(super) fn count_added(&mut self, machines: u32) {
        self.added += u64::from(machines);
    }

    /// A machine has become a node.
    pub(super) fn join(&mut self, kind: usize, now: Instant) {
        self.advance(now);
        self.kinds[kind].starting -= 1;
        self.kinds[kind].ready += 1;
    }

    /// A machine goes.
    pub(super) fn leave(&mut self, kind: usize, was_node: bool, now: Instant) {
        self.advance(now);
        let count = if was_node { &mut self.kinds[kind].ready } else { &mut self.kinds[kind].starting };
        *count -= 1;
        self.removed += 1;
    }

    /// Machines that are no nodes yet.
    pub(super) fn starting(&self) -> u32 {
        self.kinds.iter().map(|kind| kind.starting).sum()
    }

    /// Brings sums and points up to date with what held until now.
    fn advance(&mut self, now: Instant) {
        self.fill(now);
        let seconds = now.saturating_sub(self.since).as_secs_f64();
        let machines: u32 = self.kinds.iter().map(|kind| kind.ready + kind.starting).sum();
        self.node_seconds += seconds * f64::from(machines);
        self.dollars += seconds / 3600.0 * self.price();
        self.since = now;
    }

    /// Dollars an hour. A machine costs from when it is asked for.
    fn price(&self) -> f64 {
        let of = |kind: &Kind| {
            kind.series.price_per_hour.unwrap_or_default() * f64::from(kind.ready + kind.starting)
        };
        self.kinds.iter().map(of).sum()
    }

    fn fill(&mut self, now: Instant) {
        while self.cost_per_hour.len() < self.points {
            let at = self.step * u32::try_from(self.cost_per_hour.len()).unwrap_or(u32::MAX);
            if at >= now {
                break;
            }
            self.cost_per_hour.push(self.price());
            for kind in &mut self.kinds {
                kind.series.ready.push(kind.ready);
                kind.series.starting.push(kind.starting);
            }
        }
    }

    pub(super) fn total(mut self, end: Instant) -> Total {
        self.advance(end);
        // The last point is the last moment itself.
        self.fill(end + Duration::from_nanos(1));
        let has_prices = self.kinds.iter().any(|kind| kind.series.price_per_hour.is_some());
        let summary = Summary {
            node_hours: self.node_seconds / 3600.0,
            cost: has_prices.then_some(self.dollars),
            nodes_added: self.added,
            nodes_removed: self.removed,
            ..Summary::default()
        };
        let types = self.kinds.into_iter().map(|kind| kind.series).collect();
        Total { nodes: NodesOutcome { types, cost_per_hour: self.cost_per_hour }, summary }
    }
}
