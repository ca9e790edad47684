//! What a simulation found: series over one time axis, events, and the summary that the terminal prints.
//!
//! `--output json` is this, as serde writes it; the report page reads the same text.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One simulated world, from `start` to `start + step × (points - 1)`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// What the user calls this world: a file's name, or a setting of a sweep.
    pub name: String,
    /// The time axis that all series share.
    pub axis: Axis,
    /// One a scaled workload, by namespace and name.
    pub objects: Vec<ObjectOutcome>,
    /// The nodes, empty if the input names no groups and no pools (every pod runs then).
    pub nodes: NodesOutcome,
    /// What happened and why, by time.
    pub events: Vec<Event>,
    /// The whole world in figures.
    pub summary: Summary,
    /// What the input left out or what was read otherwise than written, in sentences.
    pub notes: Vec<String>,
}

/// The times of the points of every series.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Axis {
    /// The first point.
    pub start: Timestamp,
    /// Seconds between two points.
    pub step_seconds: u32,
    /// How many points each series has.
    pub points: usize,
}

/// One workload and what scales it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectOutcome {
    /// Its namespace.
    pub namespace: String,
    /// The ScaledObject's or the HPA's name.
    pub name: String,
    /// `ScaledObject` or `HorizontalPodAutoscaler`.
    pub kind: String,
    /// The least and the most replicas that it allows.
    pub replica_bounds: (i32, i32),
    /// One a trigger or metric of the HPA.
    pub metrics: Vec<MetricSeries>,
    /// Replicas that the last decision asked for.
    pub wanted: Vec<u32>,
    /// Pods that are bound to a node.
    pub running: Vec<u32>,
    /// Pods that are ready to serve.
    pub ready: Vec<u32>,
    /// Pods that no node has room for.
    pub pending: Vec<u32>,
    /// Load beyond what the ready pods are meant for, in the first metric's unit.
    pub unserved: Vec<f64>,
    /// In figures.
    pub summary: ObjectSummary,
}

/// What one trigger said.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricSeries {
    /// The external metric's name (`s0-prometheus`), or the resource's.
    pub name: String,
    /// What one replica is meant to take (`AverageValue`), or what the whole is held at (`Value`).
    pub target: f64,
    /// Whether `target` is for each replica.
    pub per_replica: bool,
    /// The value at each point; none where the history has none or the source failed.
    pub values: Vec<Option<f64>>,
}

/// One object in figures.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectSummary {
    /// Fewest wanted replicas.
    pub replicas_min: u32,
    /// Mean over time of wanted replicas.
    pub replicas_mean: f64,
    /// Most wanted replicas.
    pub replicas_max: u32,
    /// Running pods × hours.
    pub pod_hours: f64,
    /// Seconds at the maximum of the object.
    pub at_max_seconds: u64,
    /// Unserved load as a share of all load, 0 to 1.
    pub unserved_share: f64,
    /// Changes of the replica count.
    pub scale_events: u64,
    /// Seconds that pods were pending, summed over pods.
    pub pending_pod_seconds: u64,
    /// The longest time from load beyond capacity to capacity for it, in seconds.
    pub spike_to_capacity_seconds: u64,
}

/// The nodes over time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodesOutcome {
    /// One a kind of node: an instance type of a pool, or a group.
    pub types: Vec<NodeSeries>,
    /// What the nodes cost, in dollars an hour, at each point.
    pub cost_per_hour: Vec<f64>,
}

/// The nodes of one kind.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSeries {
    /// The instance type's or the group's name.
    pub name: String,
    /// Of one, in dollars; none if the input names no price.
    pub price_per_hour: Option<f64>,
    /// Nodes that are ready, at each point.
    pub ready: Vec<u32>,
    /// Nodes that were asked for and are not ready, at each point.
    pub starting: Vec<u32>,
}

/// Something that a user could have seen with `kubectl get events`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// `ScaledObject web/nginx`, `HorizontalPodAutoscaler web/keda-hpa-nginx`, `Node name`.
    pub object: String,
    /// As the live event has it: `SuccessfulRescale`.
    pub reason: String,
    /// As the live event has it.
    pub message: String,
    /// `Normal` or `Warning`.
    pub kind: String,
}

/// The whole world in figures.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Running pods × hours, of all objects.
    pub pod_hours: f64,
    /// Nodes × hours, from the request to the end.
    pub node_hours: f64,
    /// In dollars; none without prices.
    pub cost: Option<f64>,
    /// The worst of the objects.
    pub unserved_share: f64,
    /// Of all objects.
    pub scale_events: u64,
    /// Nodes that were asked for.
    pub nodes_added: u64,
    /// Nodes that were removed.
    pub nodes_removed: u64,
}
