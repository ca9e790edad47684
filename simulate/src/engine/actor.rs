//! One object in the world: its triggers are polled, its pods scaled to and from zero, its HPA looks every sync period.
//!
//! The steps and their order are those of the live path (`src/controllers/scaled_object/`, `src/samples/`); every decision
//! is made by the same function of `tandem-core`.

use std::{sync::Arc, time::Duration};

use tandem_core::{
    api::keda::HealthStatus,
    hpa::{self, Reading, Settings, State as HpaState, pods::Tally},
    pods::{
        activation,
        fallback::{self, Replicas, Resolved},
        hpa::{COMPOSITE, TargetKind},
        polling::{self, Needs, Rhythm},
        reasons::event,
        status::{self, Evaluation, MetricState},
    },
};

use super::{
    Clock, Instant,
    pods::{Cohorts, Counts},
    record::{Record, State},
};
use crate::{
    compile::{Feed, Object, Origin, Scaled, Slot, World, units},
    history::Cursor,
    outcome::{Event, MetricSeries, ObjectOutcome},
};

/// What the HPA controller puts before an error of the external metrics API.
const EXTERNAL: &str = "unable to fetch metrics from external metrics API: ";
/// What it puts before one of the resource metrics API, and of the custom one.
const RESOURCE: &str = "unable to fetch metrics from resource metrics API: ";

/// What a source said, and when.
#[derive(Debug, Clone)]
struct Sample {
    taken: Instant,
    result: Result<(i64, bool), Arc<str>>,
}

/// One slot as it runs.
#[derive(Debug, Default)]
struct SlotState {
    latest: Option<Sample>,
    health: HealthStatus,
    cursor: Cursor,
    /// Until when the reading of a calendar holds.
    planned: Option<(scalers::Reading, Instant)>,
}

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

/// Where a series comes from.
enum Series<'a> {
    Feed(&'a Feed),
    /// A slot that follows the calendar.
    Planned(usize),
    Composite,
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

    /// When the sources are asked next.
    fn schedule(&mut self, now: Instant) {
        let Some(scaled) = self.spec.scaled.as_ref().filter(|scaled| !scaled.slots.is_empty()) else {
            return;
        };
        if self.poll_at.is_none() {
            return;
        }
        let follows = scaled.slots.iter().any(|slot| !slot.use_cached);
        let visit = self.rhythm.next(now).filter(|_| follows);
        self.poll_at = polling::next_due(Needs {
            last: self.slots.iter().filter_map(|slot| Some(slot.latest.as_ref()?.taken)).min(),
            polling: Some(interval(scaled)),
            first_poll: Duration::ZERO,
            visit,
            visit_after: visit.and_then(|visit| self.rhythm.next(visit)),
            latency: Duration::ZERO,
        });
    }

    /// Asks the source of a slot.
    fn refresh(&mut self, scaled: &Scaled, index: usize, now: Instant) {
        let (slot, state) = (&scaled.slots[index], &mut self.slots[index]);
        let result = match &slot.feed {
            Some(feed) => ask(slot, feed, self.clock.seconds(now), &mut state.cursor),
            None => Ok(state.calendar(slot, self.clock, now)),
        };
        fallback::record(&mut state.health, result.is_ok(), &scaled.object.spec);
        state.latest = Some(Sample { taken: now, result });
    }

    /// What the latest samples mean together.
    fn evaluate(&self, scaled: &Scaled) -> Evaluation {
        let metrics: Vec<_> = scaled
            .slots
            .iter()
            .zip(&self.slots)
            .map(|(slot, state)| MetricState {
                name: &slot.metric,
                trigger: slot.trigger.as_deref(),
                target: slot.target,
                sample: state
                    .latest
                    .as_ref()
                    .map(|sample| sample.result.as_ref().copied().map_err(|error| &**error)),
                health: &state.health,
            })
            .collect();
        let ready = i32::try_from(self.pods.counts().ready).unwrap_or(i32::MAX);
        let replicas = Replicas { current: Some(self.current()), ready_pods: Some(ready) };
        let spec = &scaled.object.spec;
        status::evaluate(spec, &metrics, scaled.formula.as_ref(), scaled.resource_triggers, replicas)
    }

    fn current(&self) -> i32 {
        i32::try_from(self.replicas).unwrap_or(i32::MAX)
    }

    /// Which triggers are active, a bit each, while nothing fails and there is no formula: then no value matters but these.
    fn activity(&self, scaled: &Scaled) -> Option<u64> {
        if scaled.formula.is_some() || self.slots.len() > u64::BITS as usize {
            return None;
        }
        self.slots.iter().try_fold(0, |bits, slot| match slot.latest.as_ref()?.result {
            Ok((_, active)) => Some(bits << 1 | u64::from(active)),
            Err(_) => None,
        })
    }

    /// One pass between zero and one.
    fn scale(&mut self, scaled: &Scaled, now: Instant) {
        let steady = self.activity(scaled).map(|activity| (activity, self.replicas));
        if steady.is_some() && self.steady == steady {
            self.last_active = Some(self.clock.time(now));
            return;
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

    /// One step of the HPA controller.
    fn look(&mut self, now: Instant) {
        let Some(autoscaler) = &self.spec.autoscaler else { return };
        let current = self.current();
        // Without replicas the controller reads no metric of an HPA whose minimum is above zero.
        let reads = current > 0 || autoscaler.min == 0;
        if let Some(scaled) = self.spec.scaled.as_ref().filter(|_| reads) {
            self.rhythm.observe(now);
            self.freshen(scaled, now);
        }
        let values: Vec<Value> = if reads {
            (0..self.spec.origins.len()).map(|metric| self.read(metric, now)).collect()
        } else {
            Vec::new()
        };
        let readings: Vec<Reading<'_>> = values.iter().map(Value::reading).collect();
        let Counts { ready, .. } = self.pods.counts();
        let outcome = hpa::step(
            autoscaler,
            self.settings,
            &mut self.hpa,
            &hpa::Observation {
                now: self.clock.time(now),
                scale: Ok(hpa::Scale {
                    spec_replicas: current,
                    status_replicas: current,
                    selector: hpa::Selector::Valid,
                }),
                readings: &readings,
                ready_pods: (self.replicas > 0).then_some(ready),
                update_error: None,
            },
        );
        self.record.tell_hpa(now, &self.names[1], &outcome.events);
        if outcome.rescale.is_some() {
            self.set_replicas(outcome.desired, now);
        }
    }

    /// Asks sources whose samples are too old for the HPA, which waits for them.
    fn freshen(&mut self, scaled: &Scaled, now: Instant) {
        // History answers at once.
        let fresh_for = polling::fresh_for_reader(interval(scaled), Duration::ZERO);
        for (index, slot) in scaled.slots.iter().enumerate() {
            let latest = self.slots[index].latest.as_ref();
            if !latest.is_some_and(|sample| slot.use_cached || now.saturating_sub(sample.taken) <= fresh_for)
            {
                self.refresh(scaled, index, now);
            }
        }
    }

    /// What the HPA controller gets for one of its metrics.
    fn read(&mut self, metric: usize, now: Instant) -> Value {
        match (&self.spec.origins[metric], &self.spec.scaled) {
            (Origin::Slot(index), Some(scaled)) => self.served(scaled, *index),
            (Origin::Composite, Some(scaled)) => match self.evaluate(scaled).composite {
                Some(Ok(milli)) => Value::Milli([milli]),
                Some(Err(error)) => {
                    Value::failed(EXTERNAL, &format!("metric:{COMPOSITE} encountered error: {error}"))
                }
                None => Value::failed(EXTERNAL, "there is no composite metric"),
            },
            (Origin::Slot(_) | Origin::Composite, None) => Value::failed(EXTERNAL, "there is no such metric"),
            (Origin::Value(feed), _) => match feed.0.at(self.clock.seconds(now), &mut self.cursors[metric]) {
                Some(value) => Value::Milli([scalers::milli(value)]),
                None => Value::failed(EXTERNAL, &missing(feed)),
            },
            (Origin::Usage(feed, requests), _) => {
                match (feed.0.at(self.clock.seconds(now), &mut self.cursors[metric]), requests) {
                    (None, _) => Value::failed(RESOURCE, &missing(feed)),
                    (Some(_), Err(error)) => Value::Pods(Err(error.clone())),
                    (Some(usage), Ok(requests)) => {
                        Value::Pods(Ok(self.tally(scalers::milli(usage), *requests)))
                    }
                }
            }
        }
    }

    /// An external metric as Tandem serves it.
    fn served(&self, scaled: &Scaled, index: usize) -> Value {
        if let Some(Sample { result: Ok((milli, _)), .. }) = &self.slots[index].latest {
            return Value::Milli([*milli]);
        }
        let metric = &scaled.slots[index].metric;
        let about =
            |error: &str| Value::failed(EXTERNAL, &format!("metric:{metric} encountered error: {error}"));
        match self.evaluate(scaled).metrics.swap_remove(index) {
            Some(Resolved::Value(milli) | Resolved::Fallback { milli }) => Value::Milli([milli]),
            Some(Resolved::Error(error)) => about(&error),
            Some(Resolved::Nil) | None => about("no value"),
        }
    }

    /// All pods share the load; those that start have no usage yet.
    fn tally(&self, usage: i64, requests: i64) -> Tally {
        let Counts { ready, running, pending } = self.pods.counts();
        let each = usage.checked_div(i64::from(ready)).unwrap_or_default();
        let unready = running - ready + pending;
        let unready_requests = requests.saturating_mul(i64::from(unready));
        Tally { unready, unready_requests, ..Tally::alike(ready, each, requests) }
    }
}

impl SlotState {
    /// The reading of a calendar, which is worked out when it changes.
    fn calendar(&mut self, slot: &Slot, clock: Clock, now: Instant) -> (i64, bool) {
        let reading = match self.planned {
            Some((reading, until)) if now < until => reading,
            _ => match slot.scaler.planned(clock.time(now)) {
                Some((reading, until)) => {
                    let ahead = until.duration_since(clock.time(now)).unsigned_abs();
                    self.planned = Some((reading, now.saturating_add(ahead)));
                    reading
                }
                None => return (0, false),
            },
        };
        (reading.milli, reading.active)
    }
}

/// What an HPA gets.
enum Value {
    Milli([i64; 1]),
    Pods(Result<Tally, hpa::pods::TallyError>),
    Failed(String),
}

impl Value {
    fn failed(api: &str, error: &str) -> Self {
        Self::Failed(format!("{api}{error}"))
    }

    fn reading(&self) -> Reading<'_> {
        match self {
            Self::Milli(values) => Reading::Values(values),
            Self::Pods(tally) => Reading::Pods(tally.clone()),
            Self::Failed(error) => Reading::Failed(error),
        }
    }
}

fn ask(slot: &Slot, feed: &Feed, seconds: i64, cursor: &mut Cursor) -> Result<(i64, bool), Arc<str>> {
    let value = feed.0.at(seconds, cursor).ok_or_else(|| missing(feed))?;
    let reading = slot.scaler.judge(value).map_err(|error| error.to_string())?;
    Ok((reading.milli, reading.active))
}

fn missing(feed: &Feed) -> String {
    format!("{} has no sample", feed.0.name)
}

fn interval(scaled: &Scaled) -> Duration {
    Duration::from_secs(u64::try_from(scaled.object.spec.polling_interval()).unwrap_or(1))
}

/// The series of an object: its slots, what its HPA reads itself, the composite.
fn series(spec: &Object) -> (Vec<Series<'_>>, Vec<MetricSeries>) {
    let (mut series, mut metrics) = (Vec::new(), Vec::new());
    let mut add = |from, name: &str, target: f64, per_replica: bool| {
        series.push(from);
        metrics.push(MetricSeries { name: name.to_owned(), target, per_replica, values: Vec::new() });
    };
    for (index, slot) in spec.scaled.iter().flat_map(|scaled| &scaled.slots).enumerate() {
        let from = slot.feed.as_ref().map_or(Series::Planned(index), Series::Feed);
        add(from, &slot.metric, units(slot.target.milli), slot.target.kind == TargetKind::AverageValue);
    }
    let own = spec.autoscaler.iter().flat_map(|autoscaler| &autoscaler.metrics).zip(&spec.origins);
    for (metric, origin) in own {
        let (Origin::Usage(feed, _) | Origin::Value(feed)) = origin else { continue };
        let target = match (metric.target, origin) {
            (hpa::spec::Target::Utilization(percent), Origin::Usage(_, Ok(requests))) => {
                units(*requests) * f64::from(percent) / 100.0
            }
            (hpa::spec::Target::AverageValue(milli) | hpa::spec::Target::Value(milli), _) => units(milli),
            _ => 0.0,
        };
        let per_replica = !matches!(metric.target, hpa::spec::Target::Value(_));
        add(Series::Feed(feed), name(&metric.source), target, per_replica);
    }
    if let Some(formula) = spec.scaled.as_ref().and_then(|scaled| scaled.formula.as_ref()) {
        let per_replica = formula.target_kind == TargetKind::AverageValue;
        add(Series::Composite, COMPOSITE, units(formula.target_milli), per_replica);
    }
    (series, metrics)
}

fn name(source: &hpa::spec::Source) -> &str {
    use hpa::spec::Source;
    match source {
        Source::Resource { resource } | Source::ContainerResource { resource, .. } => resource,
        Source::Pods { name } | Source::Object { name, .. } | Source::External { name, .. } => name,
        Source::Unknown(kind) => kind,
    }
}
