//! The rules for a ScaledObject among what exists in its namespace.

use std::sync::Arc;

use k8s_openapi::api::{
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{LimitRange, LimitRangeItem},
};
use kube::ResourceExt;

use super::{Violation, reason};
use crate::{
    api::keda::{ScaleTargetRef, ScaleTrigger, ScaledObject},
    pods::{
        annotations::{TRANSFER_HPA_OWNERSHIP, VALIDATE_HPA_OWNERSHIP},
        hpa::{advanced_hpa_name, hpa_name},
        workload::{Requests, Template, Workload},
    },
};

/// Answers whether the API server knows an `apiVersion` and `kind`.
pub type Serves = dyn Fn(&str, &str) -> bool;

/// What exists in the namespace of the object that is looked at.
#[derive(Clone, Copy, Default)]
pub struct Existing<'a> {
    /// HPAs.
    pub hpas: &'a [Arc<HorizontalPodAutoscaler>],
    /// ScaledObjects; the object itself may be among them.
    pub scaled_objects: &'a [Arc<ScaledObject>],
    /// Deployments; the target alone is enough.
    pub deployments: &'a [Arc<Workload>],
    /// StatefulSets; the target alone is enough.
    pub stateful_sets: &'a [Arc<Workload>],
    /// LimitRanges.
    pub limit_ranges: &'a [Arc<LimitRange>],
    /// What is not listed does not exist. A file of manifests does not know that: the cluster may hold more.
    pub complete: bool,
    /// The object will not be stored: its target need not exist nor request anything.
    pub dry_run: bool,
    /// The kinds that the API server knows, where it was asked.
    pub serves: Option<&'a Serves>,
}

/// The kinds of target whose pods are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkloadKind {
    Deployment,
    StatefulSet,
}

impl WorkloadKind {
    /// The kind that a reference names, `None` for any but the two.
    pub(super) fn of(target: &ScaleTargetRef) -> Option<Self> {
        match type_of(target.api_version.as_deref(), target.kind.as_deref()) {
            ("apps/v1", "Deployment") => Some(Self::Deployment),
            ("apps/v1", "StatefulSet") => Some(Self::StatefulSet),
            _ => None,
        }
    }
}

/// `apiVersion` and `kind` of a target, defaults filled in.
fn type_of<'a>(api_version: Option<&'a str>, kind: Option<&'a str>) -> (&'a str, &'a str) {
    let given = |text: Option<&'a str>| text.filter(|text| !text.is_empty());
    (given(api_version).unwrap_or("apps/v1"), given(kind).unwrap_or("Deployment"))
}

fn target_type(object: &ScaledObject) -> (&str, &str) {
    let target = &object.spec.scale_target_ref;
    type_of(target.api_version.as_deref(), target.kind.as_deref())
}

/// `group/version.Kind` as KEDA writes it, the core group being empty.
fn gvk((api_version, kind): (&str, &str)) -> String {
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}.{kind}")
}

/// Every rule that a ScaledObject breaks among what exists.
pub fn validate_against(object: &ScaledObject, existing: &Existing<'_>) -> Vec<Violation> {
    if let Some(unknown) = unknown_kind(object, existing) {
        return vec![unknown];
    }
    let mut violations: Vec<_> = existing.hpas.iter().filter_map(|hpa| other_hpa(object, hpa)).collect();
    let others = existing.scaled_objects.iter().filter(|other| other.name_any() != object.name_any());
    violations.extend(others.filter_map(|other| other_scaled_object(object, other)));
    if !existing.dry_run {
        violations.extend(missing_requests(object, existing));
    }
    violations
}

/// StatefulSets are never asked for, as in KEDA.
fn unknown_kind(object: &ScaledObject, existing: &Existing<'_>) -> Option<Violation> {
    let serves = existing.serves?;
    let (api_version, kind) = target_type(object);
    (kind != "StatefulSet" && !serves(api_version, kind)).then(|| {
        let message = format!("no matches for kind {kind:?} in version {api_version:?}");
        Violation::at(reason::UNKNOWN_TARGET, "spec.scaleTargetRef.kind", message)
    })
}

/// An HPA that scales the same target and is neither ours nor handed over.
pub fn other_hpa(object: &ScaledObject, hpa: &HorizontalPodAutoscaler) -> Option<Violation> {
    let reference = &hpa.spec.scale_target_ref;
    let target = target_type(object);
    let same = type_of(reference.api_version.as_deref(), Some(&reference.kind)) == target
        && reference.name == object.spec.scale_target_ref.name;
    let ours = |owner: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference| {
        owner.kind == "ScaledObject" && owner.name == object.name_any()
    };
    let unchecked = hpa.annotations().get(VALIDATE_HPA_OWNERSHIP).is_some_and(|value| value == "false");
    if !same || unchecked || hpa.owner_references().iter().any(ours) {
        return None;
    }
    let (workload, name, gvk) = (&reference.name, hpa.name_any(), gvk(target));
    if object.annotations().get(TRANSFER_HPA_OWNERSHIP).is_none_or(|value| value != "true") {
        let message =
            format!("the workload '{workload}' of type '{gvk}' is already managed by the hpa '{name}'");
        return Some(Violation::at(reason::OTHER_HPA, "spec.scaleTargetRef", message));
    }
    (advanced_hpa_name(object) != Some(name.as_str())).then(|| {
        let message = format!(
            "the existing hpa '{name}' for workload '{workload}' of type '{gvk}' must be specified by name in \
             advanced settings to enable ownership transfer"
        );
        let field = "spec.advanced.horizontalPodAutoscalerConfig.name";
        Violation::at(reason::TRANSFER_OWNERSHIP, field, message)
    })
}

/// Another ScaledObject with the same target, or with an HPA of the same name.
fn other_scaled_object(object: &ScaledObject, other: &ScaledObject) -> Option<Violation> {
    let name = other.name_any();
    let workload = &object.spec.scale_target_ref.name;
    if target_type(other) == target_type(object) && other.spec.scale_target_ref.name == *workload {
        let gvk = gvk(target_type(object));
        let message = format!(
            "the workload '{workload}' of type '{gvk}' is already managed by the ScaledObject '{name}'"
        );
        return Some(Violation::at(reason::OTHER_SCALED_OBJECT, "spec.scaleTargetRef", message));
    }
    let hpa = hpa_name(object);
    (hpa_name(other) == hpa).then(|| {
        let message = format!("the HPA '{hpa}' is already managed by the ScaledObject '{name}'");
        let field = "spec.advanced.horizontalPodAutoscalerConfig.name";
        Violation::at(reason::OTHER_SCALED_OBJECT_HPA, field, message)
    })
}

/// Containers of the target that do not request a resource that is scaled on, so that its utilization is unknown.
fn missing_requests(object: &ScaledObject, existing: &Existing<'_>) -> Vec<Violation> {
    let target = &object.spec.scale_target_ref;
    let Some(kind) = WorkloadKind::of(target) else { return Vec::new() };
    let mut resources =
        object.spec.triggers.iter().enumerate().filter(|(_, trigger)| trigger.is_resource()).peekable();
    if resources.peek().is_none() {
        return Vec::new();
    }
    match template(kind, &target.name, existing) {
        Some(pod) => resources
            .flat_map(|(index, trigger)| unrequested(index, trigger, pod, existing.limit_ranges))
            .collect(),
        None if existing.complete => {
            let message = format!("{kind:?}.apps {:?} not found", target.name);
            vec![Violation::at(reason::UNKNOWN_TARGET, "spec.scaleTargetRef.name", message)]
        }
        None => Vec::new(),
    }
}

/// The pod template of the target.
fn template<'a>(kind: WorkloadKind, name: &str, existing: &Existing<'a>) -> Option<&'a Template> {
    let workloads = match kind {
        WorkloadKind::Deployment => existing.deployments,
        WorkloadKind::StatefulSet => existing.stateful_sets,
    };
    workloads.iter().find(|workload| *workload.name == *name).map(|workload| &workload.template)
}

/// The containers that a resource trigger measures and that do not request its resource. A request of the whole pod
/// serves a trigger that measures the whole pod.
fn unrequested<'a>(
    index: usize,
    trigger: &'a ScaleTrigger,
    pod: &'a Template,
    limits: &[Arc<LimitRange>],
) -> impl Iterator<Item = Violation> {
    let resource = trigger.type_.as_str();
    let selected = trigger.metadata.get("containerName").filter(|name| !name.is_empty());
    let defaulted = limits
        .iter()
        .filter_map(|range| range.spec.as_ref())
        .flat_map(|spec| &spec.limits)
        .any(|limit| defaults(limit, resource));
    let of_pod = selected.is_none() && pod.requests.has(resource);
    pod.containers
        .iter()
        .filter(move |container| selected.is_none_or(|name| *container.name == **name))
        .filter(move |container| !defaulted && !of_pod && !container.requests.has(resource))
        .map(move |container| {
            let message = format!(
                "the scaledobject has a {resource} trigger but the container {} doesn't have the {resource} request \
                 defined",
                container.name
            );
            Violation::at(reason::MISSING_REQUESTS, format!("spec.triggers[{index}]"), message)
        })
}

/// Whether a LimitRange gives containers a request or limit of a resource.
fn defaults(limit: &LimitRangeItem, resource: &str) -> bool {
    let lists = [limit.default_request.as_ref(), limit.default.as_ref()];
    limit.type_ == "Container" && Requests::of(&lists).has(resource)
}
