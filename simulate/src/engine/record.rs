//! What is kept of an object while it plays: points of its series, sums over time, and events.

use tandem_core::hpa;

use super::{Clock, Instant, pods::Counts};
use crate::{
    compile::Primary,
    outcome::{Event, MetricSeries, ObjectSummary},
};

/// Load beyond capacity by less than the HPA's tolerance starts no spike: nothing would ever end it.
const SPIKE: f64 = 1.1;

/// What an object is at, from one moment to the next.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct State {
    /// Replicas that the last decision asked for.
    pub wanted: u32,
    /// Its pods.
    pub pods: Counts,
    /// The load, in the unit of the first metric; none where it is not known.
    pub load: Option<f64>,
}

/// Collects.
pub(crate) struct Record<'a> {
    primary: Option<&'a Primary>,
    clock: Clock,
    step: Instant,
    points: usize,
    max: u32,
    /// Since when `state` holds.
    since: Instant,
    state: State,
    pub(crate) wanted: Vec<u32>,
    pub(crate) running: Vec<u32>,
    pub(crate) ready: Vec<u32>,
    pub(crate) pending: Vec<u32>,
    pub(crate) unserved: Vec<f64>,
    pub(crate) metrics: Vec<MetricSeries>,
    pub(crate) events: Vec<Event>,
    /// Warnings that hold, by reason: each is told once.
    warned: Vec<(String, String)>,
    sums: Sums,
    summary: ObjectSummary,
    spike: Option<Instant>,
}

/// Integrals over time, in seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    wanted: f64,
    running: f64,
    pending: f64,
    at_max: f64,
    unserved: f64,
    load: f64,
}

impl<'a> Record<'a> {
    pub(crate) fn new(
        clock: Clock,
        (step, points): (u32, usize),
        max: i32,
        primary: Option<&'a Primary>,
        metrics: Vec<MetricSeries>,
        state: State,
    ) -> Self {
        let summary = ObjectSummary {
            replicas_min: state.wanted,
            replicas_max: state.wanted,
            ..ObjectSummary::default()
        };
        Self {
            primary,
            clock,
            step: Instant::from_secs(step.into()),
            points,
            max: u32::try_from(max).unwrap_or_default(),
            since: Instant::ZERO,
            state,
            wanted: Vec::with_capacity(points),
            running: Vec::with_capacity(points),
            ready: Vec::with_capacity(points),
            pending: Vec::with_capacity(points),
            unserved: Vec::with_capacity(points),
            metrics,
            events: Vec::new(),
            warned: Vec::new(),
            sums: Sums::default(),
            summary,
            spike: None,
        }
    }

    /// Brings the sums and the points before `now` up to date; `metric` gives the value of a series at a time.
    pub(crate) fn advance(&mut self, now: Instant, metric: impl FnMut(usize, Instant) -> Option<f64>) {
        self.fill(now, metric);
        let seconds = now.saturating_sub(self.since).as_secs_f64();
        let State { wanted, pods, load } = self.state;
        self.sums.wanted += seconds * f64::from(wanted);
        self.sums.running += seconds * f64::from(pods.running);
        self.sums.pending += seconds * f64::from(pods.pending);
        self.sums.at_max += if wanted >= self.max { seconds } else { 0.0 };
        self.sums.unserved += seconds * self.unserved();
        self.sums.load += seconds * load.unwrap_or_default();
        self.since = now;
    }

    fn fill(&mut self, now: Instant, mut metric: impl FnMut(usize, Instant) -> Option<f64>) {
        while self.wanted.len() < self.points {
            let at = self.step * u32::try_from(self.wanted.len()).unwrap_or(u32::MAX);
            if at >= now {
                break;
            }
            self.wanted.push(self.state.wanted);
            self.running.push(self.state.pods.running);
            self.ready.push(self.state.pods.ready);
            self.pending.push(self.state.pods.pending);
            self.unserved.push(self.unserved());
            for (index, series) in self.metrics.iter_mut().enumerate() {
                series.values.push(metric(index, at));
            }
        }
    }

    /// What holds from now on.
    pub(crate) fn enter(&mut self, state: State) {
        if state == self.state {
            return;
        }
        if state.wanted != self.state.wanted {
            self.summary.scale_events += 1;
            self.summary.replicas_min = self.summary.replicas_min.min(state.wanted);
            self.summary.replicas_max = self.summary.replicas_max.max(state.wanted);
        }
        self.state = state;
        let capacity = self.capacity();
        let over = state.load.zip(capacity).is_some_and(|(load, capacity)| load > capacity * SPIKE);
        match (over, self.spike) {
            (true, None) => self.spike = Some(self.since),
            (false, Some(since)) => {
                self.end_spike(since);
                self.spike = None;
            }
            _ => {}
        }
    }

    fn end_spike(&mut self, since: Instant) {
        let lasted = self.since.saturating_sub(since).as_secs();
        self.summary.spike_to_capacity_seconds = self.summary.spike_to_capacity_seconds.max(lasted);
    }

    /// What the ready pods are meant for; a target for the whole is met whatever their number.
    fn capacity(&self) -> Option<f64> {
        let primary = self.primary?;
        Some(primary.target * if primary.per_replica { f64::from(self.state.pods.ready) } else { 1.0 })
    }

    fn unserved(&self) -> f64 {
        let (Some(load), Some(capacity)) = (self.state.load, self.capacity()) else { return 0.0 };
        (load - capacity).max(0.0)
    }

    /// Keeps an event.
    pub(crate) fn tell(&mut self, now: Instant, object: &str, event: (&str, &str, String)) {
        let (kind, reason, message) = event;
        self.events.push(Event {
            at: self.clock.time(now),
            object: object.to_owned(),
            reason: reason.to_owned(),
            message,
            kind: kind.to_owned(),
        });
    }

    /// Keeps the events of a step of the HPA. A warning that comes with every step is told once, as the API server would
    /// count it.
    pub(crate) fn tell_hpa(&mut self, now: Instant, object: &str, events: &[hpa::conditions::Event]) {
        if events.is_empty() && self.warned.is_empty() {
            return;
        }
        let mut warned = Vec::new();
        for event in events {
            let (kind, reason, message) = (event.type_(), event.reason(), event.to_string());
            if kind == "Warning" {
                let known = (reason.to_owned(), message.clone());
                let is_new = !self.warned.contains(&known);
                warned.push(known);
                if !is_new {
                    continue;
                }
            }
            self.tell(now, object, (kind, reason, message));
        }
        self.warned = warned;
    }

    /// The figures, when everything is over.
    pub(crate) fn summary(&mut self, end: Instant) -> ObjectSummary {
        if let Some(since) = self.spike.take() {
            self.end_spike(since);
        }
        let seconds = end.as_secs_f64();
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        ObjectSummary {
            replicas_mean: share(self.sums.wanted, seconds),
            pod_hours: self.sums.running / 3600.0,
            at_max_seconds: whole(self.sums.at_max),
            unserved_share: share(self.sums.unserved, self.sums.load),
            pending_pod_seconds: whole(self.sums.pending),
            ..self.summary.clone()
        }
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sums of seconds, never below zero"
)]
fn whole(seconds: f64) -> u64 {
    seconds.round() as u64
}
