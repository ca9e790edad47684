//! The world on its clock: every object does what is due, one after the other, and each decision is the live one's.

mod actor;
mod cluster;
mod pods;
mod record;

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use jiff::Timestamp;

use crate::{
    compile::World,
    outcome::{Axis, Event, NodesOutcome, ObjectOutcome, Outcome, Summary},
};
use actor::Actor;
use cluster::Cluster;
pub(crate) use cluster::Interruptions;

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

/// How far a world is to be played.
#[derive(Debug, Clone, Copy)]
struct Span {
    clock: Clock,
    end: Instant,
    points: usize,
}

/// What was played.
#[derive(Default)]
struct Played {
    objects: Vec<ObjectOutcome>,
    nodes: NodesOutcome,
    /// Of it only what nodes add.
    summary: Summary,
    events: Vec<Event>,
}

/// Plays a world to its end. `progress` hears from 0 to 1 how far it is.
pub(crate) fn play(name: &str, world: &World, progress: &mut dyn FnMut(f64)) -> Outcome {
    let span = Span {
        clock: Clock { start: world.start },
        end: Duration::from_secs(u64::try_from(world.length).unwrap_or_default()),
        points: usize::try_from(world.length / i64::from(world.step)).unwrap_or_default() + 1,
    };
    let mut played =
        if world.nodes.matter() { together(world, span, progress) } else { apart(world, span, progress) };
    progress(1.0);
    // By time, and for one time in the order of the objects.
    played.events.sort_by_key(|event| event.at);
    let figures = || played.objects.iter().map(|object| &object.summary);
    let summary = Summary {
        pod_hours: figures().map(|summary| summary.pod_hours).sum(),
        unserved_share: figures().map(|summary| summary.unserved_share).fold(0.0, f64::max),
        scale_events: figures().map(|summary| summary.scale_events).sum(),
        ..played.summary
    };
    Outcome {
        name: name.to_owned(),
        axis: Axis { start: world.start, step_seconds: world.step, points: span.points },
        objects: played.objects,
        nodes: played.nodes,
        events: played.events,
        summary,
        notes: world.notes.clone(),
    }
}

/// Without nodes no object minds another: each is played to its end by itself.
fn apart(world: &World, span: Span, progress: &mut dyn FnMut(f64)) -> Played {
    let mut played = Played::default();
    #[allow(clippy::cast_precision_loss, reason = "a share for a progress bar")]
    let share = |done: usize| done as f64 / world.objects.len() as f64;
    for (done, object) in world.objects.iter().enumerate() {
        progress(share(done));
        let mut actor = Actor::new(object, world, span.clock, span.points, None);
        while let Some(now) = actor.next().filter(|now| *now < span.end) {
            actor.act(now);
        }
        let (object, events) = actor.finish(span.end);
        played.objects.push(object);
        played.events.extend(events);
    }
    played
}

/// Objects that share nodes, in the order of time; at one time the objects in their order, then the cluster.
fn together(world: &World, span: Span, progress: &mut dyn FnMut(f64)) -> Played {
    let mut cluster = Cluster::new(world, span.clock, span.points);
    let new =
        |(index, object)| Actor::new(object, world, span.clock, span.points, Some(cluster.counts(index)));
    let mut actors: Vec<Actor<'_>> = world.objects.iter().enumerate().map(new).collect();
    let (nodes, mut told) = (actors.len(), Duration::ZERO);
    let first = |(index, actor): (usize, &Actor<'_>)| Some(Reverse((actor.next()?, index)));
    let mut queue: BinaryHeap<_> = actors.iter().enumerate().filter_map(first).collect();
    // When the cluster is next in the queue.
    let mut queued = cluster.next();
    queue.extend(queued.map(|at| Reverse((at, nodes))));
    while let Some(Reverse((now, index))) = queue.pop().filter(|Reverse((now, _))| *now < span.end) {
        if now.saturating_sub(told) > span.end / 100 {
            told = now;
            progress(now.as_secs_f64() / span.end.as_secs_f64());
        }
        // What is due may have moved since it was queued.
        if let Some(actor) = actors.get_mut(index) {
            if actor.next() == Some(now) {
                actor.act(now);
                cluster.resize(index, actor.replicas(), now);
                if let Some(outlook) = actor.take_outlook() {
                    cluster.hear(index, outlook, now);
                }
                queue.extend(actor.next().map(|at| Reverse((at, index))));
            }
        } else {
            cluster.act(now);
        }
        for changed in cluster.take_changed() {
            if let Some(actor) = actors.get_mut(changed) {
                actor.moved(now, cluster.counts(changed));
            }
        }
        if let Some(at) = cluster.next().filter(|at| queued != Some(*at) || index == nodes) {
            queued = Some(at);
            queue.push(Reverse((at, nodes)));
        }
    }
    let (result, events) = cluster.finish(span.end);
    let mut played = Played { nodes: result.nodes, summary: result.summary, ..Played::default() };
    for actor in actors {
        let (object, events) = actor.finish(span.end);
        played.objects.push(object);
        played.events.extend(events);
    }
    played.events.extend(events);
    played
}
