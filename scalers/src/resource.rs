//! What `cpu` and `memory` have in common: a target that the HPA controller compares by itself.

use async_trait::async_trait;
use scalers_derive::Metadata;

use crate::context::Context;
use crate::error::Error;
use crate::metadata::{Finding, View};
use crate::scaler::{Metric, MetricType, Reading, ResourceTarget, Scaler};
use crate::values::Ignored;

/// Parameters of `cpu` and `memory`.
#[derive(Debug, Metadata)]
pub(crate) struct Parameters {
    /// Removed: `metricType` of the trigger says it.
    #[param(
        name = "type",
        deprecated = "The 'type' setting is DEPRECATED and is removed in v2.18 - Use 'metricType' instead."
    )]
    #[expect(dead_code, reason = "nothing reads what has no effect")]
    target_type: Option<Ignored>,
    /// Target: percent of the requests with `metricType: Utilization`, a quantity a pod with `AverageValue`.
    value: String,
    /// One container of the pod; unset means all together.
    container_name: Option<String>,
}

/// A resource metric.
struct Resource {
    metric: Metric,
}

impl Parameters {
    /// The scaler of `resource`.
    pub(crate) fn scaler(self, resource: &'static str, view: &mut View<'_>) -> Option<Box<dyn Scaler>> {
        match self.target(view.input.metric_type) {
            Ok(target) => {
                let metric = Metric::Resource { resource, container: self.container_name, target };
                Some(Box::new(Resource { metric }))
            }
            Err(finding) => {
                view.error(finding);
                None
            }
        }
    }

    fn target(&self, metric_type: Option<MetricType>) -> Result<ResourceTarget, Finding> {
        let value = &self.value;
        match metric_type {
            Some(MetricType::Utilization) => {
                let percent = value.parse().ok().filter(|percent| *percent > 0);
                percent.map(ResourceTarget::Utilization).ok_or_else(|| {
                    let message = format!("value {value:?} is not a whole number of percent above 0");
                    Finding::of("value", message)
                        .hint("e.g. \"80\", or metricType: AverageValue for a quantity")
                })
            }
            Some(MetricType::AverageValue) => {
                let positive = crate::quantity::parse(value).is_some_and(|quantity| quantity > 0.0);
                positive.then(|| ResourceTarget::AverageValue(value.clone())).ok_or_else(|| {
                    Finding::of("value", format!("value {value:?} is not a quantity above 0"))
                        .hint("e.g. \"500m\" or \"1Gi\"")
                })
            }
            other => {
                let seen = other.map_or("", MetricType::as_str);
                let message = format!(
                    "unknown metric type: {seen}, allowed values are 'Utilization' or 'AverageValue'"
                );
                Err(Finding::of("metricType", message))
            }
        }
    }
}

#[async_trait]
impl Scaler for Resource {
    async fn metrics(&self, _: &Context) -> Result<Vec<Metric>, Error> {
        Ok(vec![self.metric.clone()])
    }

    /// The HPA controller reads these itself; nothing asks us.
    async fn read(&self, _: &Context, metric: &str) -> Result<Reading, Error> {
        Err(Error::UnknownMetric(metric.to_owned()))
    }
}
