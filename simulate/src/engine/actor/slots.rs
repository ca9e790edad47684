//! The sources of an object as it runs: when they are asked, and what their samples mean together.

use std::{sync::Arc, time::Duration};

use tandem_core::{
    api::keda::HealthStatus,
    pods::{
        fallback::{self, Replicas},
        polling::{self, Needs},
        status::{self, Evaluation, MetricState},
    },
};

use super::{
    super::{Clock, Instant},
    Actor,
};
use crate::{
    compile::{Feed, Scaled, Slot},
    history::Cursor,
};

/// What a source said, and when.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) taken: Instant,
    pub(super) result: Result<(i64, bool), Arc<str>>,
}

/// One slot as it runs.
#[derive(Debug, Default)]
pub(super) struct SlotState {
    pub(super) latest: Option<Sample>,
    health: HealthStatus,
    cursor: Cursor,
    /// Until when the reading of a calendar holds.
    planned: Option<(scalers::Reading, Instant)>,
}

impl Actor<'_> {
    /// When the sources are asked next.
    pub(super) fn schedule(&mut self, now: Instant) {
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
    pub(super) fn refresh(&mut self, scaled: &Scaled, index: usize, now: Instant) {
        let (slot, state) = (&scaled.slots[index], &mut self.slots[index]);
        let result = match &slot.feed {
            Some(feed) => ask(slot, feed, self.clock.seconds(now), &mut state.cursor),
            None => Ok(state.calendar(slot, self.clock, now)),
        };
        fallback::record(&mut state.health, result.is_ok(), &scaled.object.spec);
        state.latest = Some(Sample { taken: now, result });
    }

    /// What the latest samples mean together.
    pub(super) fn evaluate(&self, scaled: &Scaled) -> Evaluation {
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

    /// Which triggers are active, a bit each, while nothing fails and there is no formula: then no value matters but these.
    pub(super) fn activity(&self, scaled: &Scaled) -> Option<u64> {
        if scaled.formula.is_some() || self.slots.len() > u64::BITS as usize {
            return None;
        }
        self.slots.iter().try_fold(0, |bits, slot| match slot.latest.as_ref()?.result {
            Ok((_, active)) => Some(bits << 1 | u64::from(active)),
            Err(_) => None,
        })
    }

    /// Asks sources whose samples are too old for the HPA, which waits for them.
    pub(super) fn freshen(&mut self, scaled: &Scaled, now: Instant) {
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

fn ask(slot: &Slot, feed: &Feed, seconds: i64, cursor: &mut Cursor) -> Result<(i64, bool), Arc<str>> {
    let value = feed.0.at(seconds, cursor).ok_or_else(|| missing(feed))?;
    let reading = slot.scaler.judge(value).map_err(|error| error.to_string())?;
    Ok((reading.milli, reading.active))
}

pub(super) fn missing(feed: &Feed) -> String {
    format!("{} has no sample", feed.0.name)
}

pub(super) fn interval(scaled: &Scaled) -> Duration {
    Duration::from_secs(u64::try_from(scaled.object.spec.polling_interval()).unwrap_or(1))
}
