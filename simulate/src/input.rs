//! What a simulation is made of: manifests, the history of each metric, and options.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tandem_core::nodes::demand::MOST;

use crate::{
    history::History,
    problem::{Place, Problem},
    shape::Shape,
};

/// Group of the kinds that only a simulation knows.
pub const GROUP: &str = "simulate.tandem.dev";
/// Where `kubectl apply` puts what names no namespace.
const DEFAULT_NAMESPACE: &str = "default";
/// Minor version of the control plane that is played, unless the input says.
const KUBERNETES_MINOR: u32 = 37;
/// Seconds between two looks of the HPA controller (`--horizontal-pod-autoscaler-sync-period`).
const HPA_SYNC_PERIOD: u32 = 15;
/// Seconds from the binding of a pod to its readiness, where neither probes nor options say.
const POD_START: u32 = 10;
/// A spot node that is taken back more often than this never gets to do anything.
const MOST_PER_DAY: f64 = 1440.0;
/// Seconds from the request of a node to its readiness: a usual cloud instance with its kubelet.
const NODE_START: u32 = 90;

/// One object as it was written.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The file that it is from.
    pub file: Arc<str>,
    /// The line that it begins on, from 1.
    pub line: u64,
    /// The object.
    pub value: Arc<Value>,
}

impl Manifest {
    /// `apiVersion`.
    pub fn api_version(&self) -> &str {
        self.text("/apiVersion")
    }

    /// `kind`.
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// `metadata.namespace`, `default` if absent.
    pub fn namespace(&self) -> &str {
        match self.text("/metadata/namespace") {
            "" => DEFAULT_NAMESPACE,
            namespace => namespace,
        }
    }

    /// `NAMESPACE/NAME`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace(), self.name())
    }

    fn text(&self, pointer: &str) -> &str {
        self.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// A field of it, for problems.
    pub fn place(&self, path: &str) -> Place {
        Place {
            file: self.file.clone(),
            line: self.line,
            object: format!("{} {}", self.kind(), self.key()),
            path: path.to_owned(),
        }
    }
}

/// Everything that is simulated. Cloning copies no manifest and no history.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// What the user calls it.
    pub name: String,
    /// The objects, in the order of their files.
    pub manifests: Vec<Manifest>,
    /// The histories by object (`NAMESPACE/NAME`) and trigger: its name, its place, or its metric's name
    /// (`s0-prometheus`, `cpu`).
    pub histories: BTreeMap<(String, String), Arc<History>>,
    /// What reading it left out, in sentences.
    pub notes: Vec<String>,
}

impl Input {
    /// Sets a field of the objects of a kind and name; `name` is `NAMESPACE/NAME` or `NAME`, `kind` may be empty. Missing
    /// maps on the way are made, missing list elements are not.
    ///
    /// # Errors
    /// There is no such object, or the path leads through something that is neither map nor list.
    pub fn set(&mut self, kind: &str, name: &str, path: &str, value: &Value) -> Result<(), Problem> {
        let mut found = false;
        for manifest in &mut self.manifests {
            let is_kind = kind.is_empty() || manifest.kind() == kind;
            if is_kind && (manifest.name() == name || manifest.key() == name) {
                found = true;
                let place = manifest.place(path);
                let target = reach(Arc::make_mut(&mut manifest.value), path)
                    .map_err(|problem| Problem::at(place, problem))?;
                *target = value.clone();
            }
        }
        let what = if kind.is_empty() { "object" } else { kind };
        if found { Ok(()) } else { Err(Problem::new(format!("the manifests hold no {what} {name}"))) }
    }
}

/// The value at a path such as `spec.triggers[0].metadata.threshold`.
fn reach<'a>(mut value: &'a mut Value, path: &str) -> Result<&'a mut Value, String> {
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let mut pieces = part.split(['[', ']']).filter(|piece| !piece.is_empty());
        if let Some(field) = pieces.next() {
            if value.is_null() {
                *value = Value::Object(serde_json::Map::new());
            }
            let map = value.as_object_mut().ok_or_else(|| format!("{field:?} is asked of what is no map"))?;
            value = map.entry(field).or_insert(Value::Null);
        }
        for piece in pieces {
            let index: usize = piece.parse().map_err(|_| format!("{piece:?} is no position in a list"))?;
            value = value.get_mut(index).ok_or_else(|| format!("there is no element {index} of {part:?}"))?;
        }
    }
    Ok(value)
}

/// How a world is played. The fields are those of `spec` of a manifest `kind: Simulation`, where each may be absent.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The first moment; the first sample of any history, if absent.
    pub start: Option<Timestamp>,
    /// The last moment; the end of the longest history, if absent.
    pub end: Option<Timestamp>,
    /// The minor version of the control plane.
    pub kubernetes_minor: u32,
    /// Seconds between two looks of the HPA controller.
    pub hpa_sync_period: u32,
    /// Seconds from the binding of a pod to its readiness, where its probes do not say.
    pub pod_start: u32,
    /// Seconds from the request of a node to its readiness.
    pub node_start: u32,
    /// The same by instance type or group.
    pub node_starts: BTreeMap<String, u32>,
    /// Dollars an hour by instance type or group, over those of the groups and types themselves.
    pub prices: BTreeMap<String, f64>,
    /// What a replica can take, by object (`NAMESPACE/NAME`) and in the unit of its first metric; what it is meant to take,
    /// if absent. Unserved load is what lies beyond.
    pub capacities: BTreeMap<String, f64>,
    /// What a replica is meant to take, of triggers of which only a server knows it: by `NAMESPACE/NAME:TRIGGER`, where TRIGGER
    /// is its name or its place.
    pub targets: BTreeMap<String, f64>,
    /// The most pods that nodes are asked for before they exist (`--max-expected-pods`); 0 for none.
    pub max_expected_pods: u32,
    /// How often the capacity of a spot node of a pool is taken back, on average; 0 for never.
    pub spot_interruptions_per_day: f64,
    /// The same seed takes the same nodes at the same times.
    pub seed: u64,
    /// Seconds between two points of the series; chosen by length, if absent.
    pub step: Option<u32>,
    /// What stands in for histories that are missing.
    pub shape: Option<Shape>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            start: None,
            end: None,
            kubernetes_minor: KUBERNETES_MINOR,
            hpa_sync_period: HPA_SYNC_PERIOD,
            pod_start: POD_START,
            node_start: NODE_START,
            node_starts: BTreeMap::new(),
            prices: BTreeMap::new(),
            capacities: BTreeMap::new(),
            targets: BTreeMap::new(),
            max_expected_pods: MOST,
            spot_interruptions_per_day: 0.0,
            seed: 1,
            step: None,
            shape: None,
        }
    }
}

/// `spec` of a manifest `kind: Simulation`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct SimulationSpec {
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    kubernetes_version: Option<String>,
    hpa_sync_period: Option<String>,
    pod_start: Option<String>,
    node_start: Option<String>,
    node_starts: BTreeMap<String, String>,
    prices: BTreeMap<String, f64>,
    capacities: BTreeMap<String, f64>,
    targets: BTreeMap<String, f64>,
    max_expected_pods: Option<u32>,
    spot_interruptions_per_day: Option<f64>,
    seed: Option<u64>,
    step: Option<String>,
    shape: Option<Shape>,
}

impl Options {
    /// The defaults with what the input's manifest `kind: Simulation` says.
    pub fn of(input: &Input) -> Result<Self, Vec<Problem>> {
        let mut options = Self::default();
        let is_ours = |manifest: &&Manifest| {
            manifest.kind() == "Simulation" && manifest.api_version().starts_with(GROUP)
        };
        for manifest in input.manifests.iter().filter(is_ours) {
            let wrong = |problem: String| vec![Problem::at(manifest.place("spec"), problem)];
            let spec = manifest.value.get("spec").cloned().unwrap_or_default();
            let spec: SimulationSpec =
                serde_json::from_value(spec).map_err(|problem| wrong(problem.to_string()))?;
            options.take(spec).map_err(wrong)?;
        }
        Ok(options)
    }

    fn take(&mut self, spec: SimulationSpec) -> Result<(), String> {
        self.start = spec.start.or(self.start);
        self.end = spec.end.or(self.end);
        if let Some(text) = &spec.kubernetes_version {
            self.kubernetes_minor = minor(text)?;
        }
        if let Some(text) = &spec.hpa_sync_period {
            self.hpa_sync_period = duration(text)?.max(1);
        }
        if let Some(text) = &spec.pod_start {
            self.pod_start = duration(text)?;
        }
        if let Some(text) = &spec.node_start {
            self.node_start = duration(text)?;
        }
        for (name, text) in &spec.node_starts {
            self.node_starts.insert(name.clone(), duration(text)?);
        }
        self.prices.extend(spec.prices);
        self.capacities.extend(spec.capacities);
        self.targets.extend(spec.targets);
        self.max_expected_pods = spec.max_expected_pods.unwrap_or(self.max_expected_pods);
        if let Some(rate) = spec.spot_interruptions_per_day {
            self.spot_interruptions_per_day = per_day(rate)?;
        }
        self.seed = spec.seed.unwrap_or(self.seed);
        if let Some(text) = &spec.step {
            self.step = Some(duration(text)?.max(1));
        }
        self.shape = spec.shape.or(self.shape.take());
        Ok(())
    }
}

/// A rate that can be.
fn per_day(rate: f64) -> Result<f64, String> {
    if (0.0..=MOST_PER_DAY).contains(&rate) {
        return Ok(rate);
    }
    Err(format!("spotInterruptionsPerDay {rate} is not between 0 and {MOST_PER_DAY}"))
}

/// [`Options::spot_interruptions_per_day`] as a flag has it.
pub fn interruptions(text: &str) -> Result<f64, String> {
    per_day(text.parse().map_err(|_| format!("{text:?} is no number such as 0.5"))?)
}

/// The minor number of a version such as `1.36` or `v1.36.2`.
pub fn minor(text: &str) -> Result<u32, String> {
    let numbers = text.trim_start_matches('v').split('.').collect::<Vec<_>>();
    match numbers.as_slice() {
        ["1", minor, ..] => minor.parse().ok(),
        _ => None,
    }
    .ok_or_else(|| format!("{text:?} is no version of Kubernetes such as 1.36"))
}

/// Whole seconds of a duration such as `90s` or `2m30s`.
pub fn duration(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is no duration such as 90s or 2m30s");
    let span: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    u32::try_from(span.as_secs()).map_err(|_| wrong())
}
