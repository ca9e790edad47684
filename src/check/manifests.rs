//! A set of manifests, checked as if they were applied one after another to a cluster of which nothing else is known.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::LimitRange,
};
use scalers::nearest;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tandem_core::{
    api::keda::{ClusterTriggerAuthentication, ScaledObject, TriggerAuthentication},
    pods::workload::Workload,
};

use super::{
    Finding, Kind, Lookup, Report, Rule, Schemas, World,
    files::Text,
    object,
    path::Path,
    yaml::{self, Node, YamlError},
};

const API_VERSION: &str = "keda.sh/v1alpha1";
/// Where `kubectl apply` puts what names no namespace.
const DEFAULT_NAMESPACE: &str = "default";

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The object cannot work.
    Error,
    /// The object may not do what is wanted.
    Warning,
}

/// A finding and where it stands.
#[derive(Clone, Debug)]
pub struct Located {
    /// Name of the file.
    pub file: String,
    /// Which document of the file, from 1; documents without content do not count.
    pub document: usize,
    /// The line, from 1; 0 if unknown.
    pub line: u64,
    /// The object, such as `ScaledObject web/nginx`; empty if the text could not be read.
    pub object: String,
    /// How much it weighs.
    pub severity: Severity,
    /// What was found.
    pub finding: Finding,
}

/// What became of a set of manifests.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// In the order of files, documents and lines.
    pub findings: Vec<Located>,
    /// Texts that were read.
    pub files: usize,
    /// Objects that have rules.
    pub objects: usize,
}

impl Outcome {
    /// How many findings there are of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|located| located.severity == severity).count()
    }
}

/// Checks every ScaledObject, ScaledJob, TriggerAuthentication and ClusterTriggerAuthentication among `texts`. The
/// TriggerAuthentications, Deployments, StatefulSets, HPAs and LimitRanges of the set are what exists beside them, and of
/// the ScaledObjects those that come before: of two that want the same target, the second is the one refused.
pub fn check(texts: &[Text]) -> Outcome {
    let mut set = Set::default();
    let mut entries = Vec::new();
    for text in texts {
        for (index, document) in yaml::documents(&text.content).into_iter().enumerate() {
            match document {
                Ok(node) => read_objects(&text.name, index + 1, node, &mut set, &mut entries),
                Err(error) => entries.push(Entry::Unreadable(unreadable(text, index + 1, &error))),
            }
        }
    }
    let schemas = Schemas::default();
    let mut outcome = Outcome { files: texts.len(), ..Outcome::default() };
    for entry in entries {
        match entry {
            Entry::Unreadable(located) => outcome.findings.push(located),
            Entry::Object(manifest) => {
                outcome.objects += usize::from(manifest.kind.is_ok());
                let report = judge(&manifest, &schemas, &mut set);
                outcome.findings.extend(manifest.locate(report));
            }
        }
    }
    outcome
}

/// One object of the set, or a text that holds none.
enum Entry {
    Object(Manifest),
    Unreadable(Located),
}

struct Manifest {
    file: String,
    document: usize,
    node: Node,
    value: Value,
    /// Its kind, or why it has none although it is meant for us.
    kind: Result<Kind, Finding>,
}

impl Manifest {
    /// The findings with their lines, from the first line down.
    fn locate(&self, report: Report) -> Vec<Located> {
        let errors = report.errors.into_iter().map(|finding| (Severity::Error, finding));
        let warnings = report.warnings.into_iter().map(|finding| (Severity::Warning, finding));
        let locate = |(severity, finding): (Severity, Finding)| Located {
            file: self.file.clone(),
            document: self.document,
            line: self.node.line_of(&finding.path),
            object: describe(&self.value),
            severity,
            finding,
        };
        let mut located: Vec<_> = errors.chain(warnings).map(locate).collect();
        located.sort_by_key(|located| located.line);
        located
    }
}

/// Takes the objects of a document, those of a List one by one.
fn read_objects(file: &str, document: usize, node: Node, set: &mut Set, entries: &mut Vec<Entry>) {
    let value = node.to_value();
    if text(&value, "/kind").ends_with("List")
        && let Some(items) = node.elements("items")
    {
        for item in items {
            read_objects(file, document, item.clone(), set, entries);
        }
        return;
    }
    match kind_of(&value) {
        Some(kind) => {
            set.add_authentication(kind.as_ref().ok().copied(), &value);
            entries.push(Entry::Object(Manifest { file: file.to_owned(), document, node, value, kind }));
        }
        None => set.add_neighbour(&value),
    }
}

/// The kind of an object that is ours or is meant to be; nothing for another's.
fn kind_of(value: &Value) -> Option<Result<Kind, Finding>> {
    let (api_version, kind) = (text(value, "/apiVersion"), text(value, "/kind"));
    let group = api_version.split('/').next().unwrap_or_default();
    let known = Kind::ALL.into_iter().find(|known| known.name() == kind);
    let wrong = |field: &str, message: String| Finding::new(Rule::Document, &Path::of(field), message);
    match (group, known) {
        ("keda.sh", Some(kind)) if api_version == API_VERSION => Some(Ok(kind)),
        ("keda.sh" | "keda.k8s.io" | "", Some(_)) => {
            let message = match api_version {
                "" => "is missing".to_owned(),
                other => format!("{other:?} is not served"),
            };
            Some(Err(wrong("apiVersion", message).hint(format!("write apiVersion: {API_VERSION}"))))
        }
        ("keda.sh", None) => {
            let finding = wrong("kind", format!("keda.sh has no kind {kind:?}"));
            let near = nearest(kind, Kind::ALL.iter().map(|kind| kind.name())).first().copied();
            Some(Err(match near {
                Some(near) => finding.hint(format!("did you mean {near:?}?")),
                None => finding,
            }))
        }
        _ => None,
    }
}

fn judge(manifest: &Manifest, schemas: &Schemas, set: &mut Set) -> Report {
    let kind = match &manifest.kind {
        Ok(kind) => *kind,
        Err(finding) => return Report { errors: vec![finding.clone()], ..Report::default() },
    };
    let mut value = manifest.value.clone();
    if kind.is_namespaced() && value["metadata"].is_object() {
        value["metadata"]["namespace"] = namespace_of(&value).into();
    }
    let world = World { lookup: set, dry_run: false, complete: false };
    let mut report = object(kind, &value, schemas, &world);
    if text(&value, "/metadata/name").is_empty() && text(&value, "/metadata/generateName").is_empty() {
        report.errors.insert(0, Finding::new(Rule::Schema, &Path::of("metadata.name"), "is missing"));
    }
    if kind == Kind::ScaledObject {
        set.add_scaled_object(&value);
    }
    report
}

fn unreadable(text: &Text, document: usize, error: &YamlError) -> Located {
    let finding = Finding::new(Rule::Document, &Path::default(), format!("not YAML: {}", error.message));
    let is_template = text.content.contains("{{");
    Located {
        file: text.name.clone(),
        document,
        line: error.line,
        object: String::new(),
        severity: Severity::Error,
        finding: if is_template {
            finding.hint("render the template first, e.g. helm template … | tandem check -")
        } else {
            finding
        },
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn namespace_of(value: &Value) -> &str {
    match text(value, "/metadata/namespace") {
        "" => DEFAULT_NAMESPACE,
        namespace => namespace,
    }
}

/// `ScaledObject web/nginx`, the namespace only where it is written.
fn describe(value: &Value) -> String {
    let name = match text(value, "/metadata/name") {
        "" => text(value, "/metadata/generateName"),
        name => name,
    };
    match text(value, "/metadata/namespace") {
        "" => format!("{} {name}", text(value, "/kind")),
        namespace => format!("{} {namespace}/{name}", text(value, "/kind")),
    }
}

/// Objects of one kind by namespace and name, in the order in which they came.
type Objects<K> = HashMap<String, Vec<(String, Arc<K>)>>;

/// What the set holds beside the object that is looked at.
#[derive(Default)]
pub(crate) struct Set {
    scaled_objects: Objects<ScaledObject>,
    authentications: Objects<TriggerAuthentication>,
    cluster_authentications: Objects<ClusterTriggerAuthentication>,
    hpas: Objects<HorizontalPodAutoscaler>,
    deployments: Objects<Workload>,
    stateful_sets: Objects<Workload>,
    limit_ranges: Objects<LimitRange>,
}

impl Set {
    #[cfg(test)]
    pub(crate) fn of(objects: &[Value]) -> Self {
        let mut set = Self::default();
        for value in objects {
            set.add_neighbour(value);
            match kind_of(value) {
                Some(Ok(Kind::ScaledObject)) => set.add_scaled_object(value),
                Some(Ok(kind)) => set.add_authentication(Some(kind), value),
                _ => {}
            }
        }
        set
    }

    fn add_scaled_object(&mut self, value: &Value) {
        add(&mut self.scaled_objects, value);
    }

    fn add_authentication(&mut self, kind: Option<Kind>, value: &Value) {
        match kind {
            Some(Kind::TriggerAuthentication) => add(&mut self.authentications, value),
            Some(Kind::ClusterTriggerAuthentication) => add(&mut self.cluster_authentications, value),
            _ => {}
        }
    }

    fn add_neighbour(&mut self, value: &Value) {
        match (text(value, "/apiVersion"), text(value, "/kind")) {
            ("apps/v1", "Deployment") => add_workload::<Deployment>(&mut self.deployments, value),
            ("apps/v1", "StatefulSet") => add_workload::<StatefulSet>(&mut self.stateful_sets, value),
            ("autoscaling/v2", "HorizontalPodAutoscaler") => add(&mut self.hpas, value),
            ("v1", "LimitRange") => add(&mut self.limit_ranges, value),
            _ => {}
        }
    }
}

/// Puts an object among its kind. One that cannot be read is not ours to complain of.
fn add<K: DeserializeOwned>(objects: &mut Objects<K>, value: &Value) {
    if let Ok(object) = K::deserialize(value) {
        insert(objects, value, object);
    }
}

fn add_workload<K: DeserializeOwned + Into<Workload>>(objects: &mut Objects<Workload>, value: &Value) {
    if let Ok(object) = K::deserialize(value) {
        insert(objects, value, object.into());
    }
}

fn insert<K>(objects: &mut Objects<K>, value: &Value, object: K) {
    let of_namespace = objects.entry(namespace_of(value).to_owned()).or_default();
    let name = text(value, "/metadata/name").to_owned();
    of_namespace.retain(|(known, _)| *known != name);
    of_namespace.push((name, Arc::new(object)));
}

fn all<K>(objects: &Objects<K>, namespace: &str) -> Vec<Arc<K>> {
    objects.get(namespace).into_iter().flatten().map(|(_, object)| object.clone()).collect()
}

fn one<K>(objects: &Objects<K>, namespace: &str, name: &str) -> Option<Arc<K>> {
    objects.get(namespace)?.iter().find(|(known, _)| known == name).map(|(_, object)| object.clone())
}

impl Lookup for Set {
    fn scaled_objects(&self, namespace: &str) -> Vec<Arc<ScaledObject>> {
        all(&self.scaled_objects, namespace)
    }

    fn hpas(&self, namespace: &str) -> Vec<Arc<HorizontalPodAutoscaler>> {
        all(&self.hpas, namespace)
    }

    fn limit_ranges(&self, namespace: &str) -> Vec<Arc<LimitRange>> {
        all(&self.limit_ranges, namespace)
    }

    fn deployment(&self, namespace: &str, name: &str) -> Option<Arc<Workload>> {
        one(&self.deployments, namespace, name)
    }

    fn stateful_set(&self, namespace: &str, name: &str) -> Option<Arc<Workload>> {
        one(&self.stateful_sets, namespace, name)
    }

    fn trigger_authentication(&self, namespace: &str, name: &str) -> Option<Arc<TriggerAuthentication>> {
        one(&self.authentications, namespace, name)
    }

    fn cluster_trigger_authentication(&self, name: &str) -> Option<Arc<ClusterTriggerAuthentication>> {
        // Whatever namespace its manifest names: it has none.
        self.cluster_authentications
            .values()
            .flatten()
            .find(|(known, _)| known == name)
            .map(|(_, o)| o.clone())
    }
}
