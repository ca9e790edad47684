//! One object in the world: its triggers are polled, its pods scaled to and from zero, its HPA looks every sync period.
//!
//! The steps and their order are those of the live path (`src/controllers/scaled_object/`, `src/samples/`); every decision
//! is made by the same function of `tandem-core`.

mod demand;
mod hpa;
mod series;
mod slots;

use std::time::Duration;

use tandem_core::{
    hpa::{Settings, State as HpaState},
    nodes::demand::History,
    pods::{activation, polling::Rhythm, reasons::event},
};

use super::{
    Clock, Instant,
    pods::{Cohorts, Counts},
    record::{Record, State},
};
use crate::{
    compile::{Object, Scaled, World, units},
    history::Cursor,
    outcome::{Event, ObjectOutcome},
};
pub(crate) use demand::Outlook;
use series::{Series, series};
use slots::{SlotState, interval};

/// One object as it runs.
pub(crate) struct Actor<'a> {
    spec: &'a Object,
    settings: &'a Settings,
    clock: Clock,
    /// Next poll of the sources; `None` without a ScaledObject, or while it is paused.
    poll_at: Option<Instant>,
    /// Next step of the HPA.
    hpa_at: Option<Instant>,
    slots: Vec<SlotState>,
    /// Places in the histories that the HPA reads itself, by metric.
    cursors: Vec<Cursor>,
    /// Places in the histories for the series, and for the load.
    series_cursors: Vec<Cursor>,
    load_cursor: Cursor,
    series: Vec<Series<'a>>,
    /// The last value of the formula.
    composite: Option<i64>,
    rhythm: Rhythm<Instant>,
    hpa: HpaState,
    last_active: Option<jiff::Timestamp>,
    /// Activity and count of a pass that will come out the same until one of them changes.
    steady: Option<(u64, u32)>,
    fallback: bool,
    /// Whether there are node loops that want to know what the HPA is about to ask for.
    looks_ahead: bool,
    /// What the HPA controller remembers, as far as can be told from outside.
    history: Option<History>,
    outlook: Option<Outlook>,
    replicas: u32,
    pods: Pods,
    record: Record<'a>,
    names: [String; 2],
}

/// The pods of an object.
enum Pods {
    /// Nothing is known of nodes: every pod runs at once.
    Free(Cohorts),
    /// The cluster has them, and says where they are.
    Placed(Counts),
}

impl Pods {
    fn counts(&self) -> Counts {
        match self {
            Self::Free(cohorts) => cohorts.counts(),
            Self::Placed(counts) => *counts,
        }
    }

    fn next(&self) -> Option<Instant> {
        match self {
            Self::Free(cohorts) => cohorts.next(),
            Self::Placed(_) => None,
        }
    }
}

impl<'a> Actor<'a> {
    /// `placed`: where its pods are, if there are nodes.
    pub(crate) fn new(
        spec: &'a Object,
        world: &'a World,
        clock: Clock,
        points: usize,
        placed: Option<Counts>,
    ) -> Self {
        let replicas = spec.workload.replicas;
        let (series, metrics) = series(spec);
        let pods = placed.map_or_else(|| Pods::Free(Cohorts::ready(replicas)), Pods::Placed);
        let state = State { wanted: replicas, pods: pods.counts(), load: None };
        let sync = world.settings.sync_period.unsigned_abs();
        let first_look = if world.settings.gates.looks_at_new_at_once() { Duration::ZERO } else { sync };
        let scaled = spec.scaled.as_ref().filter(|scaled| !scaled.pause.full);
        let key = format!("{}/{}", spec.namespace, spec.name);
        Self {
            spec,
            settings: &world.settings,
            clock,
            poll_at: scaled.map(|_| Duration::ZERO),
            hpa_at: spec.autoscaler.as_ref().map(|_| first_look),
            slots: spec
                .scaled
                .iter()
                .flat_map(|scaled| &scaled.slots)
                .map(|_| SlotState::default())
                .collect(),
            cursors: spec.origins.iter().map(|_| Cursor::default()).collect(),
            series_cursors: series.iter().map(|_| Cursor::default()).collect(),
            load_cursor: Cursor::default(),
            composite: None,
            rhythm: Rhythm::default(),
            hpa: HpaState::default(),
            last_active: None,
            steady: None,
            fallback: false,
            looks_ahead: placed.is_some() && world.max_expected_pods > 0,
            history: None,
            outlook: None,
            replicas,
            pods,
            record: Record::new(
                clock,
                (world.step, points),
                spec.bounds.1,
                spec.primary.as_ref(),
                metrics,
                state,
            ),
            series,
            names: [
                format!("{} {key}", spec.kind),
                format!("HorizontalPodAutoscaler {}/{}", spec.namespace, spec.hpa_name),
            ],
        }
    }

    /// When something is due next.
    pub(crate) fn next(&self) -> Option<Instant> {
        [self.poll_at, self.hpa_at, self.pods.next()].into_iter().flatten().min()
    }

    /// Does what is due at `now`.
    pub(crate) fn act(&mut self, now: Instant) {
        self.bring_up(now);
        if let Pods::Free(cohorts) = &mut self.pods {
            cohorts.advance(now);
        }
        if self.poll_at.is_some_and(|at| at <= now) {
            self.poll(now);
        }
        if self.hpa_at.is_some_and(|at| at <= now) {
            self.look(now);
            self.hpa_at = Some(now + self.settings.sync_period.unsigned_abs());
        }
        self.schedule(now);
        self.enter(now);
    }

    /// Replicas that the last decision asked for.
    pub(crate) fn replicas(&self) -> u32 {
        self.replicas
    }

    /// The cluster moved its pods.
    pub(crate) fn moved(&mut self, now: Instant, counts: Counts) {
        self.bring_up(now);
        self.pods = Pods::Placed(counts);
        self.enter(now);
    }

    fn enter(&mut self, now: Instant) {
        let load = self.load(now);
        self.record.enter(State { wanted: self.replicas, pods: self.pods.counts(), load });
    }

    /// The object's part of the result.
    pub(crate) fn finish(mut self, end: Instant) -> (ObjectOutcome, Vec<Event>) {
        self.bring_up(end);
        // The last point is the last moment itself.
        self.bring_up(end + Duration::from_nanos(1));
        let summary = self.record.summary(end);
        let record = self.record;
        let object = ObjectOutcome {
            namespace: self.spec.namespace.clone(),
            name: self.spec.name.clone(),
            kind: self.spec.kind.to_owned(),
            replica_bounds: self.spec.bounds,
            metrics: record.metrics,
            wanted: record.wanted,
            running: record.running,
            ready: record.ready,
            pending: record.pending,
            unserved: record.unserved,
            summary,
        };
        (object, record.events)
    }

    fn bring_up(&mut self, now: Instant) {
        let Self { record, series, series_cursors, clock, slots, composite, .. } = self;
        record.advance(now, |index, at| match (series.get(index)?, series_cursors.get_mut(index)?) {
            (Series::Feed(feed), cursor) => {
                feed.0.at(clock.seconds(at), cursor).filter(|value| value.is_finite())
            }
            (Series::Planned(slot), _) => {
                let sample = slots.get(*slot)?.latest.as_ref()?;
                sample.result.as_ref().ok().map(|(milli, _)| units(*milli))
            }
            (Series::Composite, _) => composite.map(units),
        });
    }

    /// The value of the metric that load is measured by.
    fn load(&mut self, now: Instant) -> Option<f64> {
        let series = self.series.get(self.spec.primary.as_ref()?.series)?;
        match series {
            Series::Feed(feed) => {
                feed.0.at(self.clock.seconds(now), &mut self.load_cursor).filter(|value| value.is_finite())
            }
            Series::Composite => self.composite.map(units),
            Series::Planned(_) => None,
        }
    }

    /// Asks all sources, then scales to or from zero.
    fn poll(&mut self, now: Instant) {
        let Some(scaled) = &self.spec.scaled else { return };
        for slot in 0..scaled.slots.len() {
            self.refresh(scaled, slot, now);
        }
        if scaled.slots.is_empty() {
            // Nothing but cpu and memory: no sample says when the next pass is due.
            self.poll_at = Some(now + interval(scaled));
        }
        self.scale(scaled, now);
    }

    fn current(&self) -> i32 {
        i32::try_from(self.replicas).unwrap_or(i32::MAX)
    }

    /// One pass between zero and one.
    fn scale(&mut self, scaled: &Scaled, now: Instant) {
        let steady = self.activity(scaled).map(|activity| (activity, self.replicas));
        if steady.is_some() && self.steady == steady {
            // It is active, and stays as it is.
            self.last_active = Some(self.clock.time(now));
            return self.foresee(scaled, true, now);
        }
        self.steady = None;
        let evaluation = self.evaluate(scaled);
        self.composite = evaluation.composite.as_ref().and_then(|value| value.as_ref().ok().copied());
        if !evaluation.complete {
            return;
        }
        let time = self.clock.time(now);
        let outcome = activation::pass(&activation::Input {
            object: &scaled.object,
            target_kind: &scaled.target_kind,
            current: self.current(),
            active: evaluation.active,
            error: evaluation.error,
            active_triggers: &evaluation.active_triggers,
            last_active: self.last_active,
            hpa: None,
            now: time,
        });
        if evaluation.fallback_active != self.fallback {
            self.fallback = evaluation.fallback_active;
            let event =
                if self.fallback { event::fallback_activated() } else { event::fallback_deactivated() };
            self.record.tell(now, &self.names[0], (event.type_, event.reason, event.message));
        }
        // A pass that left an active object alone looked at nothing but its count, and not at the time.
        if outcome.scale_to.is_none() && outcome.set_last_active {
            self.steady = steady;
        }
        if let Some(to) = outcome.scale_to {
            if let Some(event) = outcome.event {
                self.record.tell(now, &self.names[0], (event.type_, event.reason, event.message));
            }
            self.set_replicas(to, now);
        }
        self.foresee(scaled, evaluation.active, now);
        if outcome.set_last_active {
            self.last_active = Some(time);
        }
    }

    fn set_replicas(&mut self, to: i32, now: Instant) {
        self.replicas = u32::try_from(to).unwrap_or_default();
        if let Pods::Free(cohorts) = &mut self.pods {
            cohorts.set(self.replicas, now + Duration::from_secs(self.spec.workload.starts_in.into()));
        }
    }
}
