//! The HorizontalPodAutoscaler of a ScaledObject, as KEDA builds it (`controllers/keda/hpa.go`).
//!
//! One difference: beside a formula KEDA keeps `Resource` metrics and drops `ContainerResource` ones without a word;
//! here both stay, since both were asked for.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::autoscaling::v2::{
        ContainerResourceMetricSource, CrossVersionObjectReference, ExternalMetricSource, HPAScalingRules,
        HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec,
        MetricIdentifier, MetricSpec, MetricTarget, ResourceMetricSource,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
    },
};
use kube::{Resource, ResourceExt};
use thiserror::Error;

use super::{
    annotations::{HPA_EXCLUDED_LABELS, Pause, SCALED_OBJECT_LABEL},
    formula::target_kind,
};
use crate::{
    api::keda::{ScaledObject, ScalingModifiers},
    quantity::{format_milli, parse_milli},
};

mod update;

pub use update::needs_update;

/// The metric that a formula computes.
pub const COMPOSITE: &str = "composite-metric";
/// Longest value of a label, characters (`validation.LabelValueMaxLength` of apimachinery).
const LABEL_VALUE_LIMIT: usize = 63;
/// KEDA's name in `app.kubernetes.io/managed-by`, which dashboards and policies select by.
const MANAGED_BY: &str = "keda-operator";
/// Select policy that stops scaling in a direction.
const DISABLED: &str = "Disabled";

/// Why an HPA cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HpaError {
    /// Two triggers give a metric of one name.
    #[error(
        "metricName {metric} defined multiple times in ScaledObject {object}, give the triggers different metric names"
    )]
    DuplicateMetric {
        /// Name of the metric.
        metric: String,
        /// Name of the ScaledObject.
        object: String,
    },
    /// No trigger gives a metric.
    #[error("no metric specs returned from scalers for ScaledObject {namespace}/{name}")]
    NoMetrics {
        /// Namespace of the ScaledObject.
        namespace: String,
        /// Name of the ScaledObject.
        name: String,
    },
    /// The formula has no target.
    #[error("spec.advanced.scalingModifiers.target is {0:?}, expected a number above zero such as \"2.5\"")]
    Target(String),
}

/// Group, version, kind and plural of a scale target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ScaleTargetGvk {
    /// API group, empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Plural, in lower case.
    pub resource: String,
}

impl ScaleTargetGvk {
    /// `group/version`, or the version alone in the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// How the HPA compares a value with its target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum TargetKind {
    /// Divided by the number of pods first.
    #[default]
    AverageValue,
    /// As it is.
    Value,
}

/// Target of an external metric.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Target {
    /// How it is compared.
    pub kind: TargetKind,
    /// Thousandths.
    pub milli: i64,
}

/// Target of a resource metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResourceTarget {
    /// Percent of the request.
    Utilization(i32),
    /// A quantity a pod.
    AverageValue(String),
}

/// One metric of the HPA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricKind {
    /// Served by us.
    External {
        /// Name, with the `s<index>-` prefix.
        name: String,
        /// Its target.
        target: Target,
    },
    /// Read by the HPA itself from metrics-server.
    Resource {
        /// cpu or memory.
        resource: String,
        /// One container only, where given.
        container: Option<String>,
        /// Its target.
        target: ResourceTarget,
    },
}

/// A metric and the trigger that gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriggerMetric {
    /// Place of the trigger in the object.
    pub trigger_index: usize,
    /// Its type.
    pub trigger_type: String,
    /// Its name, where it has one.
    pub trigger_name: Option<String>,
    /// The metric.
    pub metric: MetricKind,
}

/// Name of the object's HPA: the one its `advanced` section gives, or `keda-hpa-NAME`.
pub fn hpa_name(object: &ScaledObject) -> String {
    advanced_hpa_name(object).map_or_else(|| format!("keda-hpa-{}", object.name_any()), str::to_owned)
}

/// The HPA's name as the object's `advanced` section gives it.
pub(super) fn advanced_hpa_name(object: &ScaledObject) -> Option<&str> {
    let config = object.spec.advanced.as_ref()?.horizontal_pod_autoscaler_config.as_ref()?;
    config.name.as_deref().filter(|name| !name.is_empty())
}

/// Names of the external metrics and of the resource metrics, in the triggers' order, for the status.
pub fn metric_names(metrics: &[TriggerMetric]) -> (Vec<String>, Vec<String>) {
    let (mut external, mut resources) = (Vec::new(), Vec::new());
    for metric in metrics {
        match &metric.metric {
            MetricKind::External { name, .. } => external.push(name.clone()),
            MetricKind::Resource { resource, container: None, .. } => resources.push(resource.clone()),
            MetricKind::Resource { .. } => {}
        }
    }
    (external, resources)
}

/// The external metrics that an HPA asks for, with their targets.
pub fn external_metrics(hpa: &HorizontalPodAutoscaler) -> Vec<(String, Target)> {
    let sources = hpa.spec.metrics.iter().flatten().filter_map(|metric| metric.external.as_ref());
    let metric = |source: &ExternalMetricSource| {
        let (kind, quantity) = match (&source.target.average_value, &source.target.value) {
            (Some(quantity), _) => (TargetKind::AverageValue, quantity),
            (None, value) => (TargetKind::Value, value.as_ref()?),
        };
        let milli = parse_milli(&quantity.0).ok()?;
        Some((source.metric.name.clone(), Target { kind, milli }))
    };
    sources.filter_map(metric).collect()
}

/// The HPA that scales the object's target between 1 and its maximum; `version` is the value of its version label.
pub fn generate(
    object: &ScaledObject,
    gvk: &ScaleTargetGvk,
    metrics: &[TriggerMetric],
    version: &str,
) -> Result<HorizontalPodAutoscaler, HpaError> {
    let spec = HorizontalPodAutoscalerSpec {
        scale_target_ref: CrossVersionObjectReference {
            api_version: Some(gvk.api_version()),
            kind: gvk.kind.clone(),
            name: object.spec.scale_target_ref.name.clone(),
        },
        min_replicas: Some(object.spec.hpa_min_replicas()),
        max_replicas: object.spec.max_replicas(),
        metrics: Some(metric_specs(object, metrics)?),
        behavior: behavior(object),
    };
    let annotations = object.annotations();
    let metadata = ObjectMeta {
        name: Some(hpa_name(object)),
        namespace: object.namespace(),
        labels: Some(labels(object, version)),
        annotations: (!annotations.is_empty()).then(|| annotations.clone()),
        owner_references: object.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    Ok(HorizontalPodAutoscaler { metadata, spec, status: None })
}

fn labels(object: &ScaledObject, version: &str) -> BTreeMap<String, String> {
    let own = [
        ("name", label_value(&hpa_name(object))),
        ("version", version.to_owned()),
        ("part-of", label_value(&object.name_any())),
        ("managed-by", MANAGED_BY.to_owned()),
    ];
    let excluded = object.annotations().get(HPA_EXCLUDED_LABELS).map_or("", String::as_str);
    let inherited = object.labels().iter().filter(|(name, _)| !excluded.split(',').any(|out| out == *name));
    own.into_iter()
        .map(|(name, value)| (format!("app.kubernetes.io/{name}"), value))
        .chain(inherited.map(|(name, value)| (name.clone(), value.clone())))
        .collect()
}

/// A name cut to what a label may hold, ending in a letter or digit.
fn label_value(name: &str) -> String {
    let cut: String = name.chars().take(LABEL_VALUE_LIMIT).collect();
    cut.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

fn behavior(object: &ScaledObject) -> Option<HorizontalPodAutoscalerBehavior> {
    let config =
        object.spec.advanced.as_ref().and_then(|advanced| advanced.horizontal_pod_autoscaler_config.as_ref());
    let mut behavior = config.and_then(|config| config.behavior.clone());
    let disable = |rules: &mut Option<HPAScalingRules>| {
        rules.get_or_insert_default().select_policy = Some(DISABLED.to_owned());
    };
    let pause = Pause::of(object.annotations());
    if pause.scale_in {
        disable(&mut behavior.get_or_insert_default().scale_down);
    }
    if pause.scale_out {
        disable(&mut behavior.get_or_insert_default().scale_up);
    }
    behavior
}

/// Metrics of the HPA, ordered by type and then as the triggers are.
fn metric_specs(object: &ScaledObject, metrics: &[TriggerMetric]) -> Result<Vec<MetricSpec>, HpaError> {
    check_names(object, metrics)?;
    let composite = object.spec.scaling_modifiers().map(composite_target).transpose()?;
    let mut specs: Vec<_> = metrics
        .iter()
        .filter(|metric| composite.is_none() || matches!(metric.metric, MetricKind::Resource { .. }))
        .map(|metric| match &metric.metric {
            MetricKind::External { name, target } => external(object, name, *target),
            MetricKind::Resource { resource, container, target } => {
                resource_spec(resource, container.as_deref(), target)
            }
        })
        .collect();
    specs.extend(composite.map(|target| external(object, COMPOSITE, target)));
    specs.sort_by(|one, other| one.type_.cmp(&other.type_));
    Ok(specs)
}

fn check_names(object: &ScaledObject, metrics: &[TriggerMetric]) -> Result<(), HpaError> {
    if metrics.is_empty() {
        let namespace = object.namespace().unwrap_or_default();
        return Err(HpaError::NoMetrics { namespace, name: object.name_any() });
    }
    let (names, _) = metric_names(metrics);
    match names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)) {
        Some((_, name)) => Err(HpaError::DuplicateMetric { metric: name.clone(), object: object.name_any() }),
        None => Ok(()),
    }
}

/// Target of the formula's value; what is finer than a thousandth is cut off.
#[allow(clippy::cast_possible_truncation, reason = "cutting off is KEDA's rounding, and the cast saturates")]
fn composite_target(modifiers: &ScalingModifiers) -> Result<Target, HpaError> {
    let text = modifiers.target.as_deref().unwrap_or_default();
    let target = text.parse::<f64>().ok().filter(|target| *target > 0.0 && target.is_finite());
    let target = target.ok_or_else(|| HpaError::Target(text.to_owned()))?;
    Ok(Target { kind: target_kind(modifiers), milli: (target * 1000.0) as i64 })
}

fn external(object: &ScaledObject, name: &str, target: Target) -> MetricSpec {
    let quantity = Some(Quantity(format_milli(target.milli)));
    let target = match target.kind {
        TargetKind::AverageValue => {
            MetricTarget { type_: "AverageValue".into(), average_value: quantity, ..MetricTarget::default() }
        }
        TargetKind::Value => {
            MetricTarget { type_: "Value".into(), value: quantity, ..MetricTarget::default() }
        }
    };
    let selector = LabelSelector {
        match_labels: Some([(SCALED_OBJECT_LABEL.to_owned(), label_value(&object.name_any()))].into()),
        ..LabelSelector::default()
    };
    let metric = MetricIdentifier { name: name.to_owned(), selector: Some(selector) };
    MetricSpec {
        type_: "External".into(),
        external: Some(ExternalMetricSource { metric, target }),
        ..MetricSpec::default()
    }
}

fn resource_spec(resource: &str, container: Option<&str>, target: &ResourceTarget) -> MetricSpec {
    let name = resource.to_owned();
    let target = match target {
        ResourceTarget::Utilization(percent) => MetricTarget {
            type_: "Utilization".into(),
            average_utilization: Some(*percent),
            ..MetricTarget::default()
        },
        ResourceTarget::AverageValue(quantity) => MetricTarget {
            type_: "AverageValue".into(),
            average_value: Some(Quantity(quantity.clone())),
            ..MetricTarget::default()
        },
    };
    match container {
        Some(container) => MetricSpec {
            type_: "ContainerResource".into(),
            container_resource: Some(ContainerResourceMetricSource {
                container: container.to_owned(),
                name,
                target,
            }),
            ..MetricSpec::default()
        },
        None => MetricSpec {
            type_: "Resource".into(),
            resource: Some(ResourceMetricSource { name, target }),
            ..MetricSpec::default()
        },
    }
}
