//! The pods of a workload where nothing is known of nodes: every pod is bound at once and ready after its start.

use std::collections::VecDeque;

use super::Instant;

/// How many pods are where in their life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Bound to a node.
    pub running: u32,
    /// Ready to serve.
    pub ready: u32,
    /// Without a node.
    pub pending: u32,
}

/// Pods in the order in which they become ready.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cohorts {
    ready: u32,
    /// When so many become ready, the earliest first.
    starting: VecDeque<(Instant, u32)>,
    in_start: u32,
}

impl Cohorts {
    /// So many pods that have long been ready.
    pub(crate) fn ready(count: u32) -> Self {
        Self { ready: count, ..Self::default() }
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts { running: self.ready + self.in_start, ready: self.ready, pending: 0 }
    }

    /// When the next pod becomes ready.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.starting.front().map(|(at, _)| *at)
    }

    /// Those whose start is over are ready.
    pub(crate) fn advance(&mut self, now: Instant) {
        while let Some((_, count)) = self.starting.pop_front_if(|(at, _)| *at <= now) {
            self.ready += count;
            self.in_start -= count;
        }
    }

    /// Makes or removes pods; the youngest that are not ready go first, as a ReplicaSet does it.
    pub(crate) fn set(&mut self, count: u32, ready_at: Instant) {
        let there = self.ready + self.in_start;
        if count > there {
            self.starting.push_back((ready_at, count - there));
            self.in_start += count - there;
            return;
        }
        let mut surplus = there - count;
        while let Some((_, youngest)) = self.starting.back_mut().filter(|_| surplus > 0) {
            let gone = surplus.min(*youngest);
            *youngest -= gone;
            self.in_start -= gone;
            surplus -= gone;
            if *youngest == 0 {
                self.starting.pop_back();
            }
        }
        self.ready -= surplus;
    }
}
