//! All metrics of an HPA together: the greatest of their counts, and what failures do to it.
//!
//! Order, ties and the layers of error texts are those of `computeReplicasForMetrics` in Kubernetes
//! (`pkg/controller/podautoscaler/horizontal.go`).

use std::sync::Arc;

use thiserror::Error;

use super::{
    Autoscaler, Observation, Reading, Scale, Selector, Settings,
    calculator::{self, Proposal},
    conditions::{Event, MetricFailure, Reason},
    spec::{Metric, Source, Target},
    state::Status,
};

/// Why metrics give no count, or give one in spite of failures.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MetricsError {
    /// The target's scale selects no pods that can be told apart.
    #[error("{0}")]
    Selector(String),
    /// Some metrics failed.
    #[error("invalid metrics ({invalid} invalid out of {of}), first error is: {first}")]
    Invalid {
        /// How many failed.
        invalid: usize,
        /// Of how many.
        of: usize,
        /// The chain of the first failure.
        first: String,
    },
}

/// What all metrics come to.
#[derive(Debug)]
pub(super) struct Computed {
    /// Replicas, and the metric that asks for them; `None` when no count can be trusted.
    pub(super) replicas: Option<(i32, Arc<str>)>,
    /// What failed.
    pub(super) error: Option<MetricsError>,
}

/// Asks every metric. Failures let a count rise or stay, never fall.
pub(super) fn compute(
    hpa: &Autoscaler,
    settings: &Settings,
    seen: &Observation<'_>,
    scale: &Scale<'_>,
    status: &mut Status,
    events: &mut Vec<Event>,
) -> Computed {
    if let Some((reason, event)) = refuse(scale.selector) {
        let error = Some(MetricsError::Selector(event.to_string()));
        status.set(reason, seen.now);
        events.push(event);
        return Computed { replicas: None, error };
    }
    let mut best: Option<(i32, &Metric)> = None;
    let mut first_failure = None;
    let mut invalid = 0;
    for (index, metric) in hpa.metrics.iter().enumerate() {
        let reading = seen.readings.get(index).unwrap_or(&Reading::Failed(NOT_READ));
        let proposal = propose(hpa, settings, metric, reading, scale, seen.ready_pods);
        status.current_metrics.push(proposal.as_ref().ok().map(|proposal| proposal.current));
        match proposal {
            Ok(proposal) => {
                // Among counts of zero the last wins, among others the first.
                if best.is_none_or(|(replicas, _)| replicas == 0 || proposal.replicas > replicas) {
                    best = Some((proposal.replicas, metric));
                }
            }
            Err(failure) => {
                invalid += 1;
                events.push(Event::Metric(failure.clone()));
                first_failure.get_or_insert(failure);
            }
        }
    }
    let error = first_failure.as_ref().map(|failure| MetricsError::Invalid {
        invalid,
        of: hpa.metrics.len(),
        first: failure.chain.clone(),
    });
    let trusted = best.filter(|(replicas, _)| invalid == 0 || *replicas >= scale.spec_replicas);
    match (trusted, first_failure) {
        (None, Some(failure)) => {
            status.set(Reason::Metric(failure), seen.now);
            Computed { replicas: None, error }
        }
        (trusted, _) => {
            let (replicas, text) = trusted
                .map_or_else(|| (0, Arc::default()), |(replicas, metric)| (replicas, metric.text.clone()));
            status.set(Reason::ValidMetricFound(text.clone()), seen.now);
            Computed { replicas: Some((replicas, text)), error }
        }
    }
}

/// Error of a metric that nobody read.
const NOT_READ: &str = "the metric was not read";
/// Error of a metric whose values are of another kind than its source gives.
const OTHER_KIND: &str = "the values are not of the metric's kind";
/// The controller's error for a metric without series.
const NO_EXTERNAL_VALUES: &str = "no metrics returned from external metrics API";
const NO_RESOURCE_TARGET: &str = "invalid resource metric source: neither an average utilization target nor an \
                                  average value (usage) target was set";

/// The condition and the event for a selector that does not do.
fn refuse(selector: Selector<'_>) -> Option<(Reason, Event)> {
    match selector {
        Selector::Valid => None,
        Selector::Missing => Some((Reason::MissingSelector, Event::SelectorRequired)),
        Selector::Invalid(problem) => {
            let text =
                format!("couldn't convert selector into a corresponding internal selector object: {problem}");
            Some((Reason::InvalidSelector(text.clone()), Event::InvalidSelector(text)))
        }
        Selector::Ambiguous { selector, autoscalers } => {
            let text = format!(
                "pods by selector {selector} are controlled by more than one HPA (e.g. {autoscalers})"
            );
            Some((Reason::AmbiguousSelector(text.clone()), Event::AmbiguousSelector(text)))
        }
    }
}

/// What one metric asks for, before any limit.
pub fn propose(
    hpa: &Autoscaler,
    settings: &Settings,
    metric: &Metric,
    reading: &Reading<'_>,
    scale: &Scale<'_>,
    ready_pods: Option<u32>,
) -> Result<Proposal, MetricFailure> {
    let tolerances = settings.tolerances(hpa.behavior.as_ref());
    let spec = scale.spec_replicas;
    let proposal = match (&metric.source, metric.target, reading) {
        (Source::Unknown(_), ..) | (_, Target::Missing, _) => Err(Cause::Spec),
        (_, _, Reading::Failed(problem)) => Err(Cause::Source((*problem).to_owned())),
        (Source::External { .. }, _, Reading::Values([])) => {
            Err(Cause::Source(NO_EXTERNAL_VALUES.to_owned()))
        }
        (Source::External { .. }, Target::AverageValue(target), Reading::Values(values)) => {
            let usage = calculator::external_average_sum(values);
            Ok(calculator::by_average_of_total(scale.status_replicas, usage, target, tolerances))
        }
        (Source::External { .. }, Target::Value(target), Reading::Values(values)) => {
            let usage = calculator::external_sum(values);
            calculator::by_value(spec, usage, target, tolerances, ready_pods).map_err(Cause::of)
        }
        (Source::Object { .. }, Target::AverageValue(target), Reading::Values([usage])) => {
            Ok(calculator::by_average_of_total(scale.status_replicas, *usage, target, tolerances))
        }
        (Source::Object { .. }, Target::Value(target), Reading::Values([usage])) => {
            calculator::by_value(spec, *usage, target, tolerances, ready_pods).map_err(Cause::of)
        }
        (_, Target::AverageValue(target), Reading::Pods(Ok(tally))) => {
            calculator::by_pod_average(spec, tally, target, tolerances).map_err(Cause::of)
        }
        (_, Target::Utilization(target), Reading::Pods(Ok(tally))) => {
            calculator::by_utilization(spec, tally, target, tolerances).map_err(Cause::of)
        }
        (_, _, Reading::Pods(Err(error))) => Err(Cause::of(error)),
        (_, _, Reading::Values(_) | Reading::Pods(_)) => Err(Cause::Source(OTHER_KIND.to_owned())),
    };
    proposal.map_err(|cause| failure(hpa, metric, &cause))
}

/// Where a failure is from, which decides what is said around it.
enum Cause {
    /// The HPA itself.
    Spec,
    /// Whoever serves the metric.
    Source(String),
    /// What came did not do.
    Calculation(String),
}

impl Cause {
    #[allow(clippy::needless_pass_by_value, reason = "map_err hands errors over")]
    fn of(error: impl ToString) -> Self {
        Self::Calculation(error.to_string())
    }
}

/// The controller's texts around a cause.
fn failure(hpa: &Autoscaler, metric: &Metric, cause: &Cause) -> MetricFailure {
    let source = &metric.source;
    let message = match (source, cause) {
        (Source::Unknown(type_), _) => format!("unknown metric source type {type_:?}"),
        (Source::Resource { .. } | Source::ContainerResource { .. }, Cause::Spec) => {
            NO_RESOURCE_TARGET.to_owned()
        }
        (Source::Resource { resource } | Source::ContainerResource { resource, .. }, cause) => {
            let what = if matches!(metric.target, Target::Utilization(_)) { "utilization" } else { "usage" };
            let why = around(cause, || format!("unable to get metrics for resource {resource}"));
            format!("failed to get {resource} {what}: {why}")
        }
        (Source::Pods { .. }, Cause::Spec) => no_target("pods"),
        (Source::Object { .. }, Cause::Spec) => no_target("object"),
        (Source::External { .. }, Cause::Spec) => no_target("external"),
        (Source::Pods { name }, cause) => around(cause, || format!("unable to get metric {name}")),
        (Source::Object { name, kind, object }, cause) => {
            around(cause, || format!("unable to get metric {name} on {kind} {}/{object}", hpa.namespace))
        }
        (Source::External { name, selector }, cause) => {
            around(cause, || format!("unable to get external metric {}/{name}/{selector}", hpa.namespace))
        }
    };
    let chain = match (source, metric.target) {
        (Source::Unknown(_), _) => message.clone(),
        (Source::Resource { resource }, _) => {
            format!("failed to get {resource} resource metric value: {message}")
        }
        (Source::ContainerResource { container, .. }, _) => {
            format!("failed to get {container} container metric value: {message}")
        }
        (Source::Pods { .. }, _) => format!("failed to get pods metric value: {message}"),
        (Source::Object { name, .. }, Target::AverageValue(_)) => {
            format!("failed to get object metric value: failed to get {name} object metric: {message}")
        }
        (Source::Object { .. }, _) => format!("failed to get object metric value: {message}"),
        (Source::External { name, .. }, Target::AverageValue(_)) => {
            format!(
                "failed to get {name} external metric value: failed to get {name} external metric: {message}"
            )
        }
        (Source::External { name, .. }, Target::Value(_)) => {
            format!(
                "failed to get {name} external metric value: failed to get external metric {name}: {message}"
            )
        }
        (Source::External { name, .. }, _) => {
            format!("failed to get {name} external metric value: {message}")
        }
    };
    MetricFailure::new(source, message, chain)
}

fn around(cause: &Cause, reading: impl FnOnce() -> String) -> String {
    match cause {
        Cause::Source(problem) => format!("{}: {problem}", reading()),
        Cause::Calculation(problem) => problem.clone(),
        Cause::Spec => String::new(),
    }
}

fn no_target(kind: &str) -> String {
    format!("invalid {kind} metric source: neither a value target nor an average value target was set")
}
