//! The report for a browser: the page of a simulation, over what was recorded.

use jiff::{SignedDuration, Timestamp};
use simulate::{
    outcome::{Axis, Event, MetricSeries},
    report::{self, Difference, DryRun, World, page_of_dry_run},
};

use super::{
    Report,
    compare::Comparison,
    timeline::{Span, Timeline},
};
use crate::dry_run::record::{Nodes, Sample};

/// Points of a series at most: three times what a screen has.
const POINTS: i64 = 6000;
/// Seconds between two points, the first that needs no more than [`POINTS`].
const STEPS: [u32; 10] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 900];
/// The worlds, in the order of [`DryRun::worlds`].
const NAMES: [&str; 2] = ["The others", "Tandem"];

/// The whole page.
pub(super) fn page(timeline: &Timeline, report: &Report) -> String {
    page_of_dry_run(&dry_run(timeline, report))
}

fn dry_run(timeline: &Timeline, report: &Report) -> DryRun {
    let axis = axis(report.from, report.to);
    let mut worlds = NAMES.map(|name| World { name: name.to_owned(), ..World::default() });
    for samples in timeline.objects.values() {
        for (world, object) in worlds.iter_mut().zip(objects(&axis, &timeline.spans(samples))) {
            world.objects.push(object);
        }
    }
    for ((kind, name), states) in &timeline.nodes {
        let name = format!("{} {name}", kind.name());
        for (world, nodes) in worlds.iter_mut().zip(nodes(&axis, &name, &timeline.spans(states))) {
            world.nodes.push(nodes);
        }
    }
    let [others, tandem] = &mut worlds;
    others.events = observed(timeline);
    tandem.events = not_done(timeline);
    let pending = timeline.spans(&timeline.pending);
    DryRun {
        pending: on(&axis, &pending, |pods| **pods),
        differences: differences(report),
        notes: report.notes.clone(),
        axis,
        worlds,
    }
}

/// A time axis that a browser can draw.
fn axis(from: Timestamp, to: Timestamp) -> Axis {
    let start = Timestamp::from_second(from.as_second()).unwrap_or(from);
    let seconds = to.as_second() - start.as_second();
    let fits = |step: &u32| seconds / i64::from(*step) < POINTS;
    let step_seconds = STEPS.into_iter().find(fits).unwrap_or(3600);
    let points = usize::try_from(seconds / i64::from(step_seconds) + 1).unwrap_or(1);
    Axis { start, step_seconds, points }
}

/// What held at each point; none where that is not known.
fn on<T, U>(axis: &Axis, spans: &[Span<T>], value: impl Fn(&T) -> U) -> Vec<Option<U>> {
    let mut place = 0;
    let at = |point: usize| {
        let seconds = i64::try_from(point).unwrap_or(i64::MAX).saturating_mul(i64::from(axis.step_seconds));
        axis.start.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
    };
    let points = (0..axis.points).map(|point| {
        let time = at(point);
        while spans.get(place + 1).is_some_and(|next| next.from <= time) {
            place += 1;
        }
        let holds = spans.get(place).filter(|span| span.from <= time && time <= span.to)?;
        Some(value(&holds.value))
    });
    points.collect()
}

/// An object in both worlds.
fn objects(axis: &Axis, spans: &[Span<&Sample>]) -> [report::Object; 2] {
    let Some(last) = spans.last().map(|span| span.value) else { return Default::default() };
    let mut names: Vec<&str> = Vec::new();
    for metric in spans.iter().flat_map(|span| &span.value.metrics) {
        if !names.contains(&metric.name.as_str()) {
            names.push(&metric.name);
        }
    }
    let series = |name: &&str| {
        let of = |sample: &&Sample| sample.metrics.iter().find(|metric| metric.name == **name).cloned();
        let latest = spans.iter().rev().find_map(|span| of(&span.value));
        MetricSeries {
            name: (*name).to_owned(),
            target: latest.as_ref().map_or(0.0, |metric| metric.target),
            per_replica: latest.is_some_and(|metric| metric.per_replica),
            values: on(axis, spans, |sample| of(sample)?.value).into_iter().map(Option::flatten).collect(),
        }
    };
    let metrics: Vec<_> = names.iter().map(series).collect();
    let counts: [fn(&Sample) -> i32; 2] = [|sample| sample.actual, |sample| sample.wanted];
    counts.map(|count| report::Object {
        namespace: last.namespace.clone(),
        name: last.name.clone(),
        replica_bounds: (last.min, last.max),
        metrics: metrics.clone(),
        replicas: on(axis, spans, |sample| u32::try_from(count(sample)).unwrap_or_default()),
    })
}

/// A group or a pool in both worlds: what is asked for beyond the nodes that are ready is on its way.
fn nodes(axis: &Axis, name: &str, spans: &[Span<&Nodes>]) -> [report::Nodes; 2] {
    let counts: [fn(&Nodes) -> u32; 2] = [|nodes| nodes.actual, |nodes| nodes.wanted];
    counts.map(|count| report::Nodes {
        name: name.to_owned(),
        ready: on(axis, spans, |nodes| nodes.ready.min(count(nodes))),
        starting: on(axis, spans, |nodes| count(nodes).saturating_sub(nodes.ready)),
    })
}

fn observed(timeline: &Timeline) -> Vec<Event> {
    let event = |(at, it): &(Timestamp, crate::dry_run::record::Observed)| Event {
        at: *at,
        object: it.object.clone(),
        reason: it.reason.clone(),
        message: it.message.clone(),
        kind: "Normal".to_owned(),
    };
    timeline.observed.iter().map(event).collect()
}

/// Events that were not told, and writes that were not done.
fn not_done(timeline: &Timeline) -> Vec<Event> {
    let told = timeline.events.iter().map(|(at, it)| Event {
        at: *at,
        object: it.object.clone(),
        reason: it.reason.clone(),
        message: it.message.clone(),
        kind: it.kind.clone(),
    });
    let intents = timeline.intents.iter().map(|(at, it)| {
        let separator = if it.namespace.is_empty() { "" } else { "/" };
        Event {
            at: *at,
            object: format!("{} {}{separator}{}", it.resource, it.namespace, it.name),
            reason: format!("not done: {}", it.verb),
            message: it.change.clone(),
            kind: "Normal".to_owned(),
        }
    });
    told.chain(intents).collect()
}

fn differences(report: &Report) -> Vec<Difference> {
    let difference = |name: String, is_object: bool, it: &Comparison| Difference {
        name,
        is_object,
        differs_seconds: it.differs_seconds,
        known_seconds: it.known_seconds,
        most: it.most,
        changes: [it.changes_of_others, it.changes_of_tandem],
        tandem_first: it.tandem_first,
        others_first: it.others_first,
        lead_seconds: it.lead_seconds,
    };
    let objects = report.objects.iter();
    let objects = objects.map(|it| difference(format!("{}/{}", it.namespace, it.name), true, &it.comparison));
    let nodes = report.nodes.iter();
    let nodes = nodes.map(|it| difference(format!("{} {}", it.kind.name(), it.name), false, &it.comparison));
    objects.chain(nodes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dry_run::record::{Entry, Line, Metric, NodeKind, Observed, Start, Told, VERSION};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn timeline() -> Timeline {
        let sample = |value, wanted, actual| {
            Entry::Sample(Sample {
                namespace: "shop".to_owned(),
                name: "web".to_owned(),
                min: 0,
                max: 10,
                metrics: vec![Metric {
                    name: "s0-prometheus".to_owned(),
                    value,
                    target: 10.0,
                    per_replica: true,
                }],
                wanted,
                actual,
                limits: Vec::new(),
            })
        };
        let nodes = |wanted, actual, ready| {
            Entry::Nodes(Nodes { kind: NodeKind::Group, name: "a".to_owned(), wanted, actual, ready })
        };
        let told = |reason: &str| {
            Entry::Event(Told {
                object: "ScaledObject shop/web".to_owned(),
                reason: reason.to_owned(),
                message: "</script>".to_owned(),
                kind: "Normal".to_owned(),
            })
        };
        let scaled = Entry::Observed(Observed {
            object: "Deployment shop/web".to_owned(),
            reason: "Scaled".to_owned(),
            message: "from 1 to 3 replicas".to_owned(),
        });
        let (tandem, kubernetes) = ("0.1.0".to_owned(), "v1.37.0".to_owned());
        let lines = [
            (0, Entry::Start(Start { version: VERSION, tandem, kubernetes })),
            (0, Entry::Pending { pods: 0 }),
            (1, sample(Some(5.0), 1, 1)),
            (1, nodes(1, 1, 1)),
            (2, sample(Some(25.0), 3, 1)),
            (2, told("KEDAScaleTargetActivated")),
            (3, nodes(3, 1, 1)),
            (3, Entry::Pending { pods: 2 }),
            (4, scaled),
            (4, sample(None, 3, 3)),
            (5, nodes(3, 3, 1)),
            (6, Entry::Stop),
        ];
        Timeline::of(lines.into_iter().map(|(second, entry)| Line { at: at(second), entry }).collect())
    }

    #[test]
    fn both_worlds_have_one_axis() {
        let timeline = timeline();
        let report = Report::of(&timeline, Vec::new()).unwrap();
        let run = dry_run(&timeline, &report);
        assert_eq!((run.axis.step_seconds, run.axis.points), (1, 7));
        let [others, tandem] = &run.worlds;
        let some = |counts: [u32; 6]| [None].into_iter().chain(counts.map(Some)).collect::<Vec<_>>();
        assert_eq!(others.objects[0].replicas, some([1, 1, 1, 3, 3, 3]));
        assert_eq!(tandem.objects[0].replicas, some([1, 3, 3, 3, 3, 3]));
        assert_eq!(
            tandem.objects[0].metrics[0].values,
            [None, Some(5.0), Some(25.0), Some(25.0), None, None, None]
        );
        assert_eq!(others.nodes[0].starting, some([0, 0, 0, 0, 2, 2]));
        assert_eq!(tandem.nodes[0].starting, some([0, 0, 2, 2, 2, 2]));
        assert_eq!(run.pending, [0, 0, 0, 2, 2, 2, 2].map(Some));
        assert_eq!(run.differences[0].lead_seconds, Some(2.0));
        assert_eq!(run.differences[1].name, "node group a");
        let page = page(&timeline, &report);
        assert!(page.contains("KEDAScaleTargetActivated") && !page.contains("\"</script>\""));
    }

    #[test]
    fn a_week_has_a_point_every_two_minutes() {
        for (seconds, step) in
            [(0, 1), (5999, 1), (6000, 2), (86_400, 15), (604_800, 120), (90_000_000, 3600)]
        {
            let axis = axis(at(10), at(10 + seconds));
            assert_eq!(axis.step_seconds, step, "{seconds}");
            assert_eq!(axis.points, usize::try_from(seconds / i64::from(step) + 1).unwrap());
        }
    }
}
