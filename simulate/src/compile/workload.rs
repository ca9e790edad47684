//! What is scaled: its first count, its pods and how long they take to start.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, StatefulSet},
        core::v1::{self as core, PodTemplateSpec},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use super::Compiler;
use crate::input::{Manifest, duration};

/// Annotation of a Deployment or StatefulSet: the time from a pod's binding to its readiness.
const POD_START: &str = "simulate.tandem.dev/pod-start";

/// A Deployment or StatefulSet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Workload {
    /// Replicas at the start.
    pub replicas: u32,
    /// Seconds from a pod's binding to its readiness.
    pub starts_in: u32,
    /// A pod of it.
    pub pod: core::Pod,
}

impl Compiler<'_> {
    pub(super) fn read_workloads(&mut self) {
        for manifest in &self.input.manifests {
            let (spec, kind) = match (manifest.api_version(), manifest.kind()) {
                ("apps/v1", "Deployment") => {
                    let Some(object) = self.typed::<Deployment>(manifest) else { continue };
                    ((object.spec.replicas, object.spec.template), "ReplicaSet")
                }
                ("apps/v1", "StatefulSet") => {
                    let Some(object) = self.typed::<StatefulSet>(manifest) else { continue };
                    ((object.spec.replicas, object.spec.template), "StatefulSet")
                }
                _ => continue,
            };
            let starts_in = self.starts_in(manifest, &spec.1);
            let workload = Workload {
                replicas: u32::try_from(spec.0.unwrap_or(1)).unwrap_or_default(),
                starts_in,
                pod: pod(manifest, kind, spec.1, &self.priorities),
            };
            let key =
                (manifest.kind().to_owned(), manifest.namespace().to_owned(), manifest.name().to_owned());
            self.workloads.insert(key, workload);
        }
    }

    /// The annotation, else what probes wait for, else the option.
    fn starts_in(&mut self, manifest: &Manifest, template: &PodTemplateSpec) -> u32 {
        let annotated =
            manifest.value.pointer("/metadata/annotations").and_then(|all| all.get(POD_START)?.as_str());
        if let Some(text) = annotated {
            match duration(text) {
                Ok(seconds) => return seconds,
                Err(problem) => {
                    let place = manifest.place(&format!("metadata.annotations[{POD_START}]"));
                    self.problems.push(crate::Problem::at(place, problem));
                }
            }
        }
        let containers = template.spec.iter().flat_map(|spec| &spec.containers);
        containers.filter_map(probed).max().unwrap_or(self.options.pod_start)
    }

    /// The workload of that name; one pod without requests stands in for what is not among the manifests.
    pub(super) fn workload(&mut self, manifest: &Manifest, kind: &str, name: &str) -> Workload {
        let key = (kind.to_owned(), manifest.namespace().to_owned(), name.to_owned());
        if let Some(workload) = self.workloads.get(&key) {
            let workload = workload.clone();
            self.scaled.insert(key);
            return workload;
        }
        self.notes.push(format!(
            "{kind} {}/{name} is not among the manifests: it starts with one replica, and its pods request nothing",
            manifest.namespace()
        ));
        let template = PodTemplateSpec::default();
        Workload {
            replicas: 1,
            starts_in: self.options.pod_start,
            pod: pod(manifest, "ReplicaSet", template, &self.priorities),
        }
    }
}

/// Seconds that a container's probes wait before it can be ready: a readiness probe begins when the startup probe is
/// through. `None` without probes that wait.
fn probed(container: &core::Container) -> Option<u32> {
    let delay = |probe: &Option<core::Probe>| probe.as_ref().and_then(|probe| probe.initial_delay_seconds);
    let (startup, readiness) = (delay(&container.startup_probe), delay(&container.readiness_probe));
    let sum = startup.unwrap_or(0).saturating_add(readiness.unwrap_or(0));
    startup.or(readiness)?;
    u32::try_from(sum).ok()
}

/// A pod of a template, as its controller makes it.
pub(super) fn pod(
    manifest: &Manifest,
    owner: &str,
    template: PodTemplateSpec,
    priorities: &BTreeMap<String, i32>,
) -> core::Pod {
    let metadata = template.metadata.unwrap_or_default();
    let mut spec = template.spec;
    if let Some(spec) = &mut spec
        && let Some(class) = &spec.priority_class_name
    {
        spec.priority = spec.priority.or(priorities.get(class).copied());
    }
    let owner = OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: owner.to_owned(),
        name: manifest.name().to_owned(),
        uid: manifest.key(),
        controller: Some(true),
        ..OwnerReference::default()
    };
    let metadata = ObjectMeta {
        name: Some(manifest.name().to_owned()),
        namespace: Some(manifest.namespace().to_owned()),
        labels: metadata.labels,
        annotations: metadata.annotations,
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    core::Pod { metadata, spec, status: None }
}
