//! Worlds to draw: shapes that are told by arithmetic, so that a test knows each value.

use std::f64::consts::TAU;

use jiff::{SignedDuration, Timestamp};
use simulate::outcome::{
    Axis, Event, MetricSeries, NodeSeries, NodesOutcome, ObjectOutcome, ObjectSummary, Outcome, Summary,
};

/// Seconds between two points.
pub(crate) const STEP: u32 = 15;
const TARGET: f64 = 100.0;

/// Requests per second at point `i`: a day's wave, some noise, and a sale on the third day.
fn load(i: usize) -> f64 {
    let hours = i as f64 * f64::from(STEP) / 3600.0;
    let wave = 900.0 - 700.0 * (hours / 24.0 * TAU).cos();
    let noise = ((i * 7919) % 101) as f64 - 50.0;
    let sale = if (58.0..61.0).contains(&hours) { 2200.0 } else { 0.0 };
    wave + noise + sale
}

/// A world of `points` points in which replicas follow the load `lag` points later, at most `max` of them.
pub(crate) fn world(name: &str, points: usize, lag: usize, max: u32) -> Outcome {
    let start: Timestamp = "2024-05-06T00:00:00Z".parse().unwrap();
    let wanted: Vec<u32> =
        (0..points).map(|i| ((load(i / 8 * 8) / TARGET).ceil() as u32).clamp(2, max)).collect();
    let late = |by: usize| -> Vec<u32> { (0..points).map(|i| wanted[i.saturating_sub(by)]).collect() };
    let ready = late(lag);
    let running: Vec<u32> = late(lag / 2);
    let pending = (0..points).map(|i| wanted[i].saturating_sub(running[i])).collect();
    let outage = |i: usize| (20_000..20_240).contains(&i);
    let values: Vec<_> = (0..points).map(|i| (!outage(i)).then(|| load(i))).collect();
    let unserved: Vec<f64> = (0..points)
        .map(|i| values[i].map_or(0.0, |load| (load - f64::from(ready[i]) * TARGET).max(0.0)))
        .collect();
    let total: f64 = values.iter().flatten().sum();
    let events = events(&wanted, start);
    let nodes = nodes(&wanted, &ready);
    let cost = nodes.cost_per_hour.iter().sum();
    let counted: u32 = nodes.types.iter().flat_map(|kind| &kind.ready).sum();
    let hours = |sum: f64| sum * f64::from(STEP) / 3600.0;
    Outcome {
        name: name.to_owned(),
        axis: Axis { start, step_seconds: STEP, points },
        objects: vec![ObjectOutcome {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            kind: "ScaledObject".to_owned(),
            replica_bounds: (2, max.cast_signed()),
            metrics: vec![MetricSeries {
                name: "s0-prometheus".to_owned(),
                target: TARGET,
                per_replica: true,
                values,
            }],
            summary: ObjectSummary {
                replicas_min: wanted.iter().copied().min().unwrap_or(0),
                replicas_mean: f64::from(wanted.iter().sum::<u32>()) / points as f64,
                replicas_max: wanted.iter().copied().max().unwrap_or(0),
                pod_hours: hours(running.iter().sum::<u32>().into()),
                at_max_seconds: 5400,
                unserved_share: unserved.iter().sum::<f64>() / total,
                scale_events: events.len() as u64,
                pending_pod_seconds: 86_000,
                spike_to_capacity_seconds: 195,
            },
            wanted,
            running,
            ready,
            pending,
            unserved: unserved.clone(),
        }],
        nodes,
        summary: Summary {
            pod_hours: 2_318.4,
            node_hours: hours(counted.into()),
            cost: Some(hours(cost)),
            unserved_share: unserved.iter().sum::<f64>() / total,
            scale_events: events.len() as u64,
            nodes_added: 31,
            nodes_removed: 28,
        },
        events,
        notes: vec!["the history has no samples from 2024-05-09T11:20:00Z to 2024-05-09T12:20:00Z: the source is taken to fail then".to_owned()],
    }
}

/// A rescale with every change, and a warning where the source is away.
fn events(wanted: &[u32], start: Timestamp) -> Vec<Event> {
    let at = |i: usize| start + SignedDuration::from_secs((i * STEP as usize) as i64);
    let mut events: Vec<_> = (1..wanted.len())
        .filter(|i| wanted[*i] != wanted[*i - 1])
        .map(|i| Event {
            at: at(i),
            object: "HorizontalPodAutoscaler shop/keda-hpa-web".to_owned(),
            reason: "SuccessfulRescale".to_owned(),
            message: format!(
                "New size: {}; reason: external metric s0-prometheus(nil) {} target",
                wanted[i],
                if wanted[i] > wanted[i - 1] { "above" } else { "below" }
            ),
            kind: "Normal".to_owned(),
        })
        .collect();
    if wanted.len() > 20_000 {
        events.push(Event {
            at: at(20_000),
            object: "ScaledObject shop/web".to_owned(),
            reason: "KEDAScalerFailed".to_owned(),
            message: "prometheus query failed: no data for 1 h".to_owned(),
            kind: "Warning".to_owned(),
        });
    }
    events
}

/// Two nodes on demand at most, and what is needed beyond them on spot.
fn nodes(wanted: &[u32], ready: &[u32]) -> NodesOutcome {
    let points = wanted.len();
    let small: Vec<u32> = ready.iter().map(|ready| ready.div_ceil(8).min(2)).collect();
    let large: Vec<u32> = ready.iter().map(|ready| ready.saturating_sub(16).div_ceil(8)).collect();
    let starting = (0..points).map(|i| pending_nodes(wanted, ready, i)).collect();
    let cost: Vec<f64> =
        (0..points).map(|i| f64::from(small[i]) * 0.192 + f64::from(large[i]) * 0.077).collect();
    NodesOutcome {
        types: vec![
            NodeSeries {
                name: "m5.xlarge".to_owned(),
                price_per_hour: Some(0.192),
                ready: small.clone(),
                starting,
            },
            NodeSeries {
                name: "m5.xlarge spot".to_owned(),
                price_per_hour: Some(0.077),
                starting: vec![0; points],
                ready: large.clone(),
            },
        ],
        cost_per_hour: cost.clone(),
    }
}

fn pending_nodes(wanted: &[u32], ready: &[u32], i: usize) -> u32 {
    wanted[i].saturating_sub(ready[i]).div_ceil(8)
}
