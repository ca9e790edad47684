//! A HorizontalPodAutoscaler, read once for many steps.

use std::{fmt::Write, sync::Arc};

use k8s_openapi::{
    api::autoscaling::v2::{HorizontalPodAutoscaler, MetricSpec, MetricTarget},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::LabelSelector},
};
use thiserror::Error;

use super::behavior::Behavior;
use crate::quantity::{QuantityError, parse_milli};

/// Utilization in percent that the API server fills in for an HPA without metrics
/// (Kubernetes, `pkg/apis/autoscaling/v2/defaults.go`).
const DEFAULT_CPU_UTILIZATION: i32 = 80;

/// Why an HPA cannot be stepped; the API server admits none of these.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpecError {
    /// A quantity that is none.
    #[error("{field} of the HPA: {source}")]
    Quantity {
        /// Where.
        field: String,
        /// What is wrong with it.
        source: QuantityError,
    },
    /// The part that a metric's type names is missing.
    #[error(
        "metrics[{index}] of the HPA has the type {type_:?} but no such source, set the field of that type"
    )]
    NoSource {
        /// Place of the metric.
        index: usize,
        /// Its type.
        type_: String,
    },
    /// A policy or a select policy that does not exist.
    #[error("{field} of the HPA is {value:?}, expected {expected}")]
    Choice {
        /// Where.
        field: String,
        /// What stands there.
        value: String,
        /// What may stand there.
        expected: &'static str,
    },
}

/// An HPA in the form that steps read.
#[derive(Debug, Clone, PartialEq)]
pub struct Autoscaler {
    /// Namespace, for the texts of failures.
    pub namespace: String,
    /// Fewest replicas; 0 only with scale to zero.
    pub min: i32,
    /// Most replicas.
    pub max: i32,
    /// Its metrics, in order; never empty.
    pub metrics: Vec<Metric>,
    /// Rules of scaling, defaults filled in; without any, the controller's older limits hold.
    pub behavior: Option<Behavior>,
}

/// One metric of an HPA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// How conditions and events name it.
    pub text: Arc<str>,
    /// Where its values come from.
    pub source: Source,
    /// What it is compared with.
    pub target: Target,
}

/// Where the values of a metric come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A resource of the pods.
    Resource {
        /// `cpu`, `memory`.
        resource: String,
    },
    /// A resource of one container of each pod.
    ContainerResource {
        /// `cpu`, `memory`.
        resource: String,
        /// The container.
        container: String,
    },
    /// A custom metric of the pods.
    Pods {
        /// The metric.
        name: String,
    },
    /// A custom metric of one object.
    Object {
        /// The metric.
        name: String,
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        object: String,
    },
    /// A metric from outside the cluster.
    External {
        /// The metric.
        name: String,
        /// Its selector as Go prints it.
        selector: String,
    },
    /// A type that no controller knows.
    Unknown(String),
}

/// What a metric is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Percent of the pods' requests.
    Utilization(i32),
    /// Milli-units a pod.
    AverageValue(i64),
    /// Milli-units in total.
    Value(i64),
    /// Nothing that the source can use.
    Missing,
}

impl Autoscaler {
    /// Reads an HPA, with the defaults of the API server.
    pub fn compile(hpa: &HorizontalPodAutoscaler) -> Result<Self, SpecError> {
        let spec = &hpa.spec;
        let metrics = spec.metrics.as_deref().unwrap_or_default();
        let metrics = if metrics.is_empty() {
            vec![default_metric()]
        } else {
            metrics
                .iter()
                .enumerate()
                .map(|(index, metric)| Metric::compile(index, metric))
                .collect::<Result<_, _>>()?
        };
        Ok(Self {
            namespace: hpa.metadata.namespace.clone().unwrap_or_default(),
            min: spec.min_replicas.unwrap_or(1),
            max: spec.max_replicas,
            metrics,
            behavior: spec.behavior.as_ref().map(Behavior::compile).transpose()?,
        })
    }

    /// Whether a metric does not need pods to have a value, which scaling from zero takes.
    pub fn can_see_from_zero(&self) -> bool {
        self.metrics
            .iter()
            .any(|metric| matches!(metric.source, Source::Object { .. } | Source::External { .. }))
    }
}

fn default_metric() -> Metric {
    let source = Source::Resource { resource: "cpu".to_owned() };
    let target = Target::Utilization(DEFAULT_CPU_UTILIZATION);
    Metric { text: source.text(target).into(), source, target }
}

impl Metric {
    /// Reads the metric at a place of the list.
    fn compile(index: usize, spec: &MetricSpec) -> Result<Self, SpecError> {
        let missing = || SpecError::NoSource { index, type_: spec.type_.clone() };
        let (source, target) = match spec.type_.as_str() {
            "Resource" => {
                let metric = spec.resource.as_ref().ok_or_else(missing)?;
                let source = Source::Resource { resource: metric.name.clone() };
                (source, resource_target(index, &metric.target)?)
            }
            "ContainerResource" => {
                let metric = spec.container_resource.as_ref().ok_or_else(missing)?;
                let (resource, container) = (metric.name.clone(), metric.container.clone());
                (Source::ContainerResource { resource, container }, resource_target(index, &metric.target)?)
            }
            "Pods" => {
                let metric = spec.pods.as_ref().ok_or_else(missing)?;
                let target = average_value(index, &metric.target)?.unwrap_or(Target::Missing);
                (Source::Pods { name: metric.metric.name.clone() }, target)
            }
            "Object" => {
                let metric = spec.object.as_ref().ok_or_else(missing)?;
                return Self::of_object(index, metric);
            }
            "External" => {
                let metric = spec.external.as_ref().ok_or_else(missing)?;
                let average = average_value(index, &metric.target)?;
                let target =
                    average.map_or_else(|| value(index, &metric.target), |target| Ok(Some(target)))?;
                let selector = go_text(metric.metric.selector.as_ref());
                let source = Source::External { name: metric.metric.name.clone(), selector };
                (source, target.unwrap_or(Target::Missing))
            }
            other => (Source::Unknown(other.to_owned()), Target::Missing),
        };
        Ok(Self { text: source.text(target).into(), source, target })
    }

    fn of_object(
        index: usize,
        spec: &k8s_openapi::api::autoscaling::v2::ObjectMetricSource,
    ) -> Result<Self, SpecError> {
        let (name, object) = (spec.metric.name.clone(), &spec.described_object);
        let target = match spec.target.type_.as_str() {
            "Value" => value(index, &spec.target)?,
            "AverageValue" => average_value(index, &spec.target)?,
            _ => None,
        }
        .unwrap_or(Target::Missing);
        let source = Source::Object { name, kind: object.kind.clone(), object: object.name.clone() };
        // The controller names an object's average as if it were external.
        let text = match (&source, target) {
            (Source::Object { name, .. }, Target::AverageValue(_)) => {
                external_text(name, &go_text(spec.metric.selector.as_ref()))
            }
            _ => source.text(target),
        };
        Ok(Self { text: text.into(), source, target })
    }
}

impl Source {
    /// How the controller names a metric of this source (Kubernetes, `pkg/controller/podautoscaler/horizontal.go`).
    fn text(&self, target: Target) -> String {
        match (self, target) {
            (Self::Resource { resource }, Target::Utilization(_)) => {
                format!("{resource} resource utilization (percentage of request)")
            }
            (Self::ContainerResource { resource, .. }, Target::Utilization(_)) => {
                format!("{resource} container resource utilization (percentage of request)")
            }
            (Self::Resource { resource } | Self::ContainerResource { resource, .. }, _) => {
                format!("{resource} resource")
            }
            (Self::Pods { name }, _) => format!("pods metric {name}"),
            (Self::Object { name, kind, .. }, _) => format!("{kind} metric {name}"),
            (Self::External { name, selector }, _) => external_text(name, selector),
            (Self::Unknown(_), _) => String::new(),
        }
    }
}

fn external_text(name: &str, selector: &str) -> String {
    format!("external metric {name}({selector})")
}

fn resource_target(index: usize, target: &MetricTarget) -> Result<Target, SpecError> {
    let utilization = || target.average_utilization.map_or(Target::Missing, Target::Utilization);
    Ok(average_value(index, target)?.unwrap_or_else(utilization))
}

fn average_value(index: usize, target: &MetricTarget) -> Result<Option<Target>, SpecError> {
    let read = |quantity| milli(format!("metrics[{index}].target.averageValue"), quantity);
    Ok(target.average_value.as_ref().map(read).transpose()?.map(Target::AverageValue))
}

fn value(index: usize, target: &MetricTarget) -> Result<Option<Target>, SpecError> {
    let read = |quantity| milli(format!("metrics[{index}].target.value"), quantity);
    Ok(target.value.as_ref().map(read).transpose()?.map(Target::Value))
}

fn milli(field: String, quantity: &Quantity) -> Result<i64, SpecError> {
    parse_milli(&quantity.0).map_err(|source| SpecError::Quantity { field, source })
}

/// A selector as Go's `%+v` prints it, which events and conditions carry
/// (apimachinery, `pkg/apis/meta/v1/generated.pb.go`).
fn go_text(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".to_owned() };
    let mut labels = String::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        let _ = write!(labels, "{key}: {value},");
    }
    let mut expressions = String::new();
    for expression in selector.match_expressions.iter().flatten() {
        let values = expression.values.as_deref().unwrap_or_default().join(" ");
        let (key, operator) = (&expression.key, &expression.operator);
        let _ = write!(
            expressions,
            "LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},"
        );
    }
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},\
         MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}
