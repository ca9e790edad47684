//! From the triggers of a ScaledObject to what scalers are built from, and from their metrics to those of an HPA: the words
//! that `tandem-core` and `scalers`, which do not know each other, have for the same things. The live path and the
//! simulation both speak through here.

use kube::ResourceExt;
use scalers::{Input, Metric, MetricType, UnknownMetricType};
use tandem_core::{
    api::keda::{ScaleTrigger, ScaledObject},
    pods::hpa::{MetricKind, ResourceTarget, Target, TargetKind},
};

/// The `metricType` of a trigger, where it has one.
pub fn metric_type(trigger: &ScaleTrigger) -> Result<Option<MetricType>, UnknownMetricType> {
    trigger.metric_type.as_deref().filter(|text| !text.is_empty()).map(str::parse).transpose()
}

/// A trigger as its manifest has it: without a metric type, authentication and environment, which the caller resolves.
pub fn input(object: &ScaledObject, index: usize, trigger: &ScaleTrigger) -> Input {
    Input {
        trigger_type: trigger.type_.clone(),
        trigger_index: index,
        trigger_name: trigger.name.clone(),
        metadata: trigger.metadata.clone(),
        as_metric_source: object.spec.scaling_modifiers().is_some(),
        object_kind: "ScaledObject".to_owned(),
        object_name: object.name_any(),
        namespace: object.namespace().unwrap_or_default(),
        ..Input::default()
    }
}

/// How the HPA compares the external metrics of a trigger.
pub fn target_kind(value_target: bool) -> TargetKind {
    if value_target { TargetKind::Value } else { TargetKind::AverageValue }
}

/// A metric of the trigger at a place, as the HPA has it. `value_target`: its target is for the whole workload.
pub fn hpa_metric(index: usize, value_target: bool, metric: &Metric) -> MetricKind {
    match metric {
        Metric::External { name, target_milli } => MetricKind::External {
            name: scalers::metric_name(index, name),
            target: Target { kind: target_kind(value_target), milli: *target_milli },
        },
        Metric::Resource { resource, container, target } => MetricKind::Resource {
            resource: (*resource).into(),
            container: container.clone(),
            target: match target {
                scalers::ResourceTarget::Utilization(percent) => ResourceTarget::Utilization(*percent),
                scalers::ResourceTarget::AverageValue(quantity) => {
                    ResourceTarget::AverageValue(quantity.clone())
                }
            },
        },
    }
}
