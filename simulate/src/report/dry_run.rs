//! The page of a dry run: two worlds over each other, the cluster as it was and what Tandem wanted of it.
//!
//! Unlike a simulation it knows no pods, only counts that were asked for, and neither at every time.

use serde::Serialize;
use serde_json::{Value, json};

use super::{events, pack, render};
use crate::outcome::{Axis, Event, MetricSeries};

/// What the page of a dry run draws.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DryRun {
    /// The time axis of all series.
    pub axis: Axis,
    /// The cluster as it was, and as Tandem wanted it, with their names.
    pub worlds: [World; 2],
    /// Pods that waited for a node, at each point.
    pub pending: Vec<Option<u32>>,
    /// How the worlds differ, an object or a group of nodes each.
    pub differences: Vec<Difference>,
    /// What is to be known of the record.
    pub notes: Vec<String>,
}

/// One of the two.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct World {
    /// What it is called.
    pub name: String,
    /// ScaledObjects, the same in both.
    pub objects: Vec<Object>,
    /// Node groups and node pools, the same in both.
    pub nodes: Vec<Nodes>,
    /// What happened, or would have.
    pub events: Vec<Event>,
}

/// One ScaledObject.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The least and the most replicas that it allows.
    pub replica_bounds: (i32, i32),
    /// Its metrics.
    pub metrics: Vec<MetricSeries>,
    /// Replicas that were asked for, at each point.
    pub replicas: Vec<Option<u32>>,
}

/// One node group or node pool.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Nodes {
    /// Its name.
    pub name: String,
    /// Nodes that were ready, at each point.
    pub ready: Vec<Option<u32>>,
    /// Nodes that were asked for beyond those.
    pub starting: Vec<Option<u32>>,
}

/// How the worlds differ in one count.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// `shop/web`, `node group workers`.
    pub name: String,
    /// Whether it is an object with charts of its own.
    pub is_object: bool,
    /// Seconds in which the counts were not the same.
    pub differs_seconds: f64,
    /// Seconds in which both were known.
    pub known_seconds: f64,
    /// The greatest difference, above zero where Tandem wanted more.
    pub most: i64,
    /// Changes in each world.
    pub changes: [u64; 2],
    /// Changes of the others that Tandem had wanted before.
    pub tandem_first: u64,
    /// Changes of the others that Tandem agreed to later.
    pub others_first: u64,
    /// By how long Tandem was first, the median.
    pub lead_seconds: Option<f64>,
}

/// The page of a dry run.
pub fn page_of_dry_run(run: &DryRun) -> String {
    let mut outcomes: Vec<_> = run.worlds.iter().map(|world| embedded(world, run)).collect();
    outcomes[0]["nodes"]["pending"] = pack::packed(json!(run.pending));
    let data = json!({ "outcomes": outcomes, "sweep": null, "differences": run.differences });
    render("Dry run", "dry run", &data)
}

/// A world in the shape of a simulation's, without the series that only a simulation knows.
fn embedded(world: &World, run: &DryRun) -> Value {
    let hours = |counts: &[Option<u32>]| hours(counts, run.axis.step_seconds);
    let objects = world.objects.iter().map(|object| {
        pack::packed(json!({
            "namespace": object.namespace,
            "name": object.name,
            "kind": "ScaledObject",
            "replicaBounds": object.replica_bounds,
            "metrics": object.metrics,
            "wanted": object.replicas,
            "running": [], "ready": [], "pending": [], "unserved": [],
        }))
    });
    let nodes: Vec<Vec<Option<u32>>> = world.nodes.iter().map(Nodes::all).collect();
    let added: i64 = nodes.iter().flat_map(|nodes| steps(nodes)).filter(|step| *step > 0).sum();
    let removed: i64 = nodes.iter().flat_map(|nodes| steps(nodes)).filter(|step| *step < 0).sum();
    let types = world.nodes.iter().map(|nodes| {
        pack::packed(json!({ "name": nodes.name, "ready": nodes.ready, "starting": nodes.starting }))
    });
    json!({
        "name": world.name,
        "axis": run.axis,
        "objects": objects.collect::<Vec<_>>(),
        "nodes": { "types": types.collect::<Vec<_>>(), "costPerHour": [] },
        "events": events(&world.events, run.axis.start),
        "summary": {
            "podHours": world.objects.iter().map(|object| hours(&object.replicas)).sum::<f64>(),
            "nodeHours": nodes.iter().map(|nodes| hours(nodes)).sum::<f64>(),
            "cost": null,
            "unservedShare": null,
            "scaleEvents": world.objects.iter().map(|object| steps(&object.replicas).count()).sum::<usize>(),
            "nodesAdded": added,
            "nodesRemoved": -removed,
        },
        "notes": run.notes,
    })
}

impl Nodes {
    fn all(&self) -> Vec<Option<u32>> {
        self.ready
            .iter()
            .zip(&self.starting)
            .map(|(ready, starting)| Some((*ready)? + (*starting)?))
            .collect()
    }
}

/// Changes from one point to the next where both are known.
fn steps(counts: &[Option<u32>]) -> impl Iterator<Item = i64> + '_ {
    let known = counts.windows(2).filter_map(|pair| Some(i64::from(pair[1]?) - i64::from(pair[0]?)));
    known.filter(|step| *step != 0)
}

fn hours(counts: &[Option<u32>], step_seconds: u32) -> f64 {
    let sum: f64 = counts.iter().flatten().map(|count| f64::from(*count)).sum();
    sum * f64::from(step_seconds) / 3600.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_count_what_is_known() {
        let replicas = [Some(1), Some(3), None, Some(3), Some(2)].to_vec();
        let object = Object { name: "web".to_owned(), replica_bounds: (0, 3), replicas, ..Object::default() };
        let nodes = Nodes {
            name: "workers".to_owned(),
            ready: vec![Some(1), Some(1), Some(2), Some(1), None],
            starting: vec![Some(0), Some(2), Some(1), Some(0), None],
        };
        let world = World { objects: vec![object], nodes: vec![nodes], ..World::default() };
        let axis = Axis { step_seconds: 900, points: 5, ..Axis::default() };
        let run = DryRun { axis, ..DryRun::default() };
        let embedded = embedded(&world, &run);
        let summary = &embedded["summary"];
        for (figure, wanted) in [
            ("podHours", json!(2.25)),
            ("nodeHours", json!(2.0)),
            ("scaleEvents", json!(2)),
            ("nodesAdded", json!(2)),
            ("nodesRemoved", json!(2)),
            ("cost", Value::Null),
        ] {
            assert_eq!(summary[figure], wanted, "{figure}");
        }
    }
}
