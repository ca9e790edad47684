//! From an [`Input`] to a world that can be played: everything is read and checked before the clock starts.

mod nodes;
mod object;
mod scaled_object;
mod workload;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::autoscaling::v2::HorizontalPodAutoscaler, apimachinery::pkg::apis::meta::v1::Time};
use serde::de::DeserializeOwned;
use tandem_core::{api::keda::ScaledObject, hpa::Settings};

pub(crate) use nodes::{Disruption, Group, Nodes};
pub(crate) use object::{Feed, Object, Origin, Primary, Scaled, Slot, units};
pub(crate) use workload::Workload;

use crate::{
    history::History,
    input::{GROUP, Input, Manifest, Options},
    problem::Problem,
};

/// Where time starts when nothing but a built-in shape tells: the midnight of a Monday.
const SHAPES_START: i64 = 1_767_571_200;
/// The most points of a series, unless the step is given: a page stays quick with them.
const MOST_POINTS: i64 = 6000;
/// Seconds between two points at least: the rhythm of the HPA.
const STEP: i64 = 15;

/// Kinds that another manifest refers to or that say nothing about scaling, which is no news to their author.
const SILENT: &[&str] = &[
    "Simulation",
    "Namespace",
    "PriorityClass",
    "Deployment",
    "StatefulSet",
    "PodDisruptionBudget",
    "TriggerAuthentication",
    "Secret",
    "ConfigMap",
    "ClusterTriggerAuthentication",
    "NodeGroup",
    "NodePool",
    "NodeOverlay",
    "Provisioner",
    "AWSNodeTemplate",
    "DaemonSet",
];

/// Everything that is played.
pub(crate) struct World {
    /// The first moment.
    pub start: Timestamp,
    /// Seconds from it to the last.
    pub length: i64,
    /// Seconds between points.
    pub step: u32,
    pub settings: Settings,
    /// In order of namespace, name and kind.
    pub objects: Vec<Object>,
    /// Workloads that nothing scales.
    pub still: Vec<Workload>,
    pub nodes: Nodes,
    /// The most pods that nodes are asked for before they exist; 0 for none.
    pub max_expected_pods: u32,
    pub notes: Vec<String>,
}

/// What compiling looks at and collects.
pub(crate) struct Compiler<'a> {
    pub input: &'a Input,
    pub options: &'a Options,
    pub settings: Settings,
    /// Deployments and StatefulSets by kind, namespace and name.
    pub workloads: BTreeMap<(String, String, String), Workload>,
    /// Of those, the ones that something scales.
    pub scaled: BTreeSet<(String, String, String)>,
    /// By the name of the class.
    pub priorities: BTreeMap<String, i32>,
    pub problems: Vec<Problem>,
    pub notes: Vec<String>,
    /// The histories that are in use.
    used: BTreeMap<(String, String), Arc<History>>,
}

/// Reads an input.
pub(crate) fn compile(input: &Input, options: &Options) -> Result<World, Vec<Problem>> {
    let mut compiler = Compiler {
        input,
        options,
        settings: Settings {
            sync_period: SignedDuration::from_secs(options.hpa_sync_period.into()),
            ..Settings::of(options.kubernetes_minor)
        },
        workloads: BTreeMap::new(),
        scaled: BTreeSet::new(),
        priorities: BTreeMap::new(),
        problems: Vec::new(),
        notes: input.notes.clone(),
        used: BTreeMap::new(),
    };
    compiler.refuse_twins();
    compiler.priorities = compiler.priorities();
    compiler.read_workloads();
    let mut objects = compiler.read_objects();
    objects.sort_by(|one, other| {
        (&one.namespace, &one.name, one.kind).cmp(&(&other.namespace, &other.name, other.kind))
    });
    let nodes = compiler.nodes();
    for object in &mut objects {
        compiler.hold_capacity(object);
    }
    compiler.note_unused();
    if objects.is_empty() && compiler.problems.is_empty() {
        let message =
            "the manifests hold no ScaledObject and no HorizontalPodAutoscaler that could be simulated";
        compiler.problems.push(Problem::new(message));
    }
    let span = compiler.span();
    if let (Err(problem), true) = (&span, compiler.problems.is_empty()) {
        compiler.problems.push(problem.clone());
    }
    let (Ok((start, end)), true) = (span, compiler.problems.is_empty()) else {
        return Err(compiler.problems);
    };
    for history in compiler.used.values() {
        compiler.notes.extend(history.notes(start, end));
    }
    for scaled in objects.iter_mut().filter_map(|object| object.scaled.as_mut()) {
        // The world begins with everything in it.
        scaled.object.metadata.creation_timestamp = Some(Time(start));
    }
    let length = end.as_second() - start.as_second();
    Ok(World {
        start,
        length,
        step: options.step.unwrap_or_else(|| step(length)),
        settings: compiler.settings,
        objects,
        still: compiler.still(),
        nodes,
        max_expected_pods: options.max_expected_pods,
        notes: compiler.notes,
    })
}

/// Seconds between points for a length, a multiple of [`STEP`].
fn step(length: i64) -> u32 {
    let steps = length / (MOST_POINTS * STEP) + 1;
    u32::try_from(steps * STEP).unwrap_or(u32::MAX)
}

impl<'a> Compiler<'a> {
    /// Of two objects of one name a cluster would have the later; whoever wrote both meant neither.
    fn refuse_twins(&mut self) {
        let mut seen: BTreeMap<(&str, &str, &str, &str), &Manifest> = BTreeMap::new();
        for manifest in &self.input.manifests {
            let group = manifest.api_version().rsplit_once('/').map_or("", |(group, _)| group);
            let key = (group, manifest.kind(), manifest.namespace(), manifest.name());
            if let Some(first) = seen.insert(key, manifest) {
                let message = format!("is in {}:{} already: keep one", first.file, first.line);
                self.problems.push(Problem::at(manifest.place(""), message));
            }
        }
    }

    /// Reads an object into its type.
    pub(crate) fn typed<T: DeserializeOwned>(&mut self, manifest: &Manifest) -> Option<T> {
        match T::deserialize(&*manifest.value) {
            Ok(object) => Some(object),
            Err(problem) => {
                self.problems.push(Problem::at(manifest.place(""), format!("cannot be read: {problem}")));
                None
            }
        }
    }

    /// The manifests of a kind.
    pub(crate) fn of_kind(&self, kind: &'static str) -> impl Iterator<Item = &'a Manifest> + use<'a> {
        let manifests = &self.input.manifests;
        manifests.iter().filter(move |manifest| manifest.kind() == kind)
    }

    /// Workloads that nothing scales, in order.
    fn still(&mut self) -> Vec<Workload> {
        let scaled = &self.scaled;
        let still = self.workloads.iter().filter(|(key, _)| !scaled.contains(*key));
        still.map(|(_, workload)| workload.clone()).collect()
    }

    fn read_objects(&mut self) -> Vec<Object> {
        let mut objects = Vec::new();
        for manifest in &self.input.manifests {
            let group = manifest.api_version().split('/').next().unwrap_or_default();
            let object = match (group, manifest.kind()) {
                ("keda.sh", "ScaledObject") => self
                    .typed::<ScaledObject>(manifest)
                    .and_then(|object| scaled_object::compile(self, manifest, object)),
                ("autoscaling", "HorizontalPodAutoscaler") => self
                    .typed::<HorizontalPodAutoscaler>(manifest)
                    .and_then(|hpa| object::of_hpa(self, manifest, hpa)),
                _ => None,
            };
            objects.extend(object);
        }
        objects
    }

    /// The history of a metric, by the first of the names that it may go by; with a target, for a shape in its stead.
    pub(crate) fn history(
        &mut self,
        manifest: &Manifest,
        path: &str,
        names: &[&str],
        target: f64,
    ) -> Option<Arc<History>> {
        let key = manifest.key();
        let found = names.iter().find_map(|name| {
            let known = (key.clone(), (*name).to_owned());
            self.input.histories.get(&known).map(|history| (known, history.clone()))
        });
        if let Some((known, history)) = found {
            self.used.insert(known, history.clone());
            return Some(history);
        }
        let name = names.first().copied().unwrap_or_default();
        let Some(shape) = &self.options.shape else {
            let file = format!("history/{}.{}.{name}.csv", manifest.namespace(), manifest.name());
            self.problems.push(Problem::at(
                manifest.place(path),
                format!("has no history: write it into {file} (lines \"time,value\"), name a file with --metric, or try --shape daily"),
            ));
            return None;
        };
        let start = self.options.start.map_or(SHAPES_START, Timestamp::as_second);
        match shape.history(&format!("shape of {key} {name}"), start, target) {
            Ok(history) => {
                let history = Arc::new(history);
                self.used.insert((key, name.to_owned()), history.clone());
                Some(history)
            }
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    /// The first and the last moment.
    fn span(&self) -> Result<(Timestamp, Timestamp), Problem> {
        let start = self.options.start.or_else(|| self.used.values().map(|history| history.start()).min());
        let end = self.options.end.or_else(|| self.used.values().map(|history| history.end()).max());
        let (Some(start), Some(end)) = (start, end) else {
            return Err(Problem::new("no history tells from when to when: give --start and --end"));
        };
        if end <= start {
            return Err(Problem::new(format!("the end, {end}, is not after the start, {start}")));
        }
        for history in self.used.values() {
            if history.end() <= start || history.start() >= end {
                return Err(Problem::new(format!(
                    "{} covers {} to {}: nothing of it lies between {start} and {end}",
                    history.name,
                    history.start(),
                    history.end()
                )));
            }
        }
        Ok((start, end))
    }

    /// Takes over what a replica can take, where the options say.
    fn hold_capacity(&mut self, object: &mut Object) {
        let key = object.key();
        let Some((primary, capacity)) = object.primary.as_mut().zip(self.options.capacities.get(&key)) else {
            return;
        };
        if (primary.target - capacity).abs() > f64::EPSILON {
            let each = if primary.per_replica { " a replica" } else { "" };
            let target = primary.target;
            self.notes.push(format!(
                "{key}: unserved load is what lies beyond {capacity}{each}, rather than beyond the target of {target}"
            ));
            primary.target = *capacity;
        }
    }

    fn note_unused(&mut self) {
        for ((object, metric), history) in &self.input.histories {
            if !self.used.contains_key(&(object.clone(), metric.clone())) {
                self.notes.push(format!("{}: {object} has no metric {metric} that reads it", history.name));
            }
        }
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for manifest in &self.input.manifests {
            let known = SILENT.contains(&manifest.kind())
                || matches!(manifest.kind(), "ScaledObject" | "HorizontalPodAutoscaler")
                || manifest.api_version().starts_with(GROUP);
            if !known {
                *kinds.entry(manifest.kind()).or_default() += 1;
            }
        }
        for (kind, count) in kinds {
            let s = if count == 1 { "" } else { "s" };
            self.notes.push(format!("{count} object{s} of kind {kind}: without effect in a simulation"));
        }
    }
}
