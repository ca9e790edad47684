//! The world on its clock: every object does what is due, one after the other, and each decision is the live one's.

mod actor;
mod pods;
mod record;

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    compile::World,
    outcome::{Axis, Event, NodesOutcome, Outcome, Summary},
};
use actor::Actor;

/// Time since the start of the world.
pub(crate) type Instant = Duration;

/// The clock that all of a world share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Timestamp,
}

impl Clock {
    /// The time that it is in the world.
    pub(crate) fn time(self, now: Instant) -> Timestamp {
        self.start.saturating_add(now).unwrap_or(Timestamp::MAX)
    }

    /// The same in seconds since 1970.
    pub(crate) fn seconds(self, now: Instant) -> i64 {
        self.start.as_second().saturating_add_unsigned(now.as_secs())
    }
}

/// Plays a world to its end. `progress` hears from 0 to 1 how far it is.
pub(crate) fn play(name: &str, world: &World, progress: &mut dyn FnMut(f64)) -> Outcome {
    let clock = Clock { start: world.start };
    let end = Duration::from_secs(u64::try_from(world.length).unwrap_or_default());
    let points = usize::try_from(world.length / i64::from(world.step)).unwrap_or_default() + 1;
    let mut objects = Vec::new();
    let mut events = Vec::new();
    #[allow(clippy::cast_precision_loss, reason = "a share for a progress bar")]
    let share = |done: usize| done as f64 / world.objects.len() as f64;
    for (done, object) in world.objects.iter().enumerate() {
        progress(share(done));
        let mut actor = Actor::new(object, world, clock, points);
        while let Some(now) = actor.next().filter(|now| *now < end) {
            actor.act(now);
        }
        let (object, own) = actor.finish(end);
        objects.push(object);
        events.extend(own);
    }
    progress(1.0);
    // By time, and for one time in the order of the objects.
    events.sort_by_key(|event: &Event| event.at);
    let summary = Summary {
        pod_hours: objects.iter().map(|object| object.summary.pod_hours).sum(),
        unserved_share: objects.iter().map(|object| object.summary.unserved_share).fold(0.0, f64::max),
        scale_events: objects.iter().map(|object| object.summary.scale_events).sum(),
        ..Summary::default()
    };
    Outcome {
        name: name.to_owned(),
        axis: Axis { start: world.start, step_seconds: world.step, points },
        objects,
        nodes: NodesOutcome::default(),
        events,
        summary,
        notes: world.notes.clone(),
    }
}
