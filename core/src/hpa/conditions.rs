//! Every condition and event of the HPA controller: types, reasons and texts, which users filter and alert on.
//!
//! They are those of Kubernetes (`pkg/controller/podautoscaler/horizontal.go`), kept as data: texts are written
//! when somebody reads them.

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerCondition;

use super::spec::Source;

/// Type of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionType {
    /// Whether the target can be read and written, and whether stabilization holds it back.
    AbleToScale,
    /// Whether metrics give a count.
    ScalingActive,
    /// Whether a limit cut the count.
    ScalingLimited,
    /// Whether the HPA itself took the target to zero.
    ScaledToZero,
}

impl ConditionType {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::AbleToScale => "AbleToScale",
            Self::ScalingActive => "ScalingActive",
            Self::ScalingLimited => "ScalingLimited",
            Self::ScaledToZero => "ScaledToZero",
        }
    }

    fn of(name: &str) -> Option<Self> {
        [Self::AbleToScale, Self::ScalingActive, Self::ScalingLimited, Self::ScaledToZero]
            .into_iter()
            .find(|type_| type_.name() == name)
    }
}

/// A condition of the HPA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Type, status and message follow from the reason.
    pub reason: Reason,
    /// When the status last changed.
    pub since: Timestamp,
}

impl Condition {
    /// A condition that a live HPA carries; `None` for a type that the controller does not write.
    pub(super) fn earlier(condition: &HorizontalPodAutoscalerCondition) -> Option<Self> {
        let reason = Reason::Earlier {
            type_: ConditionType::of(&condition.type_)?,
            status: condition.status == "True",
            reason: condition.reason.clone().unwrap_or_default(),
            message: condition.message.clone().unwrap_or_default(),
        };
        let since = condition.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        Some(Self { reason, since })
    }
}

/// Why a condition is what it is; written out, it is the condition's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The target's scale was read.
    SucceededGetScale,
    /// It could not be read; the problem.
    FailedGetScale(String),
    /// The target was scaled to so many replicas.
    SucceededRescale(i32),
    /// It could not be scaled; the problem.
    FailedUpdateScale(String),
    /// Stabilization changed nothing.
    ReadyForNewScale,
    /// A lower count of late holds the scale-up back.
    ScaleUpStabilized,
    /// A higher count of late holds the scale-down back.
    ScaleDownStabilized,
    /// The metric of this name gave the count.
    ValidMetricFound(Arc<str>),
    /// Somebody else scaled the target to zero.
    ScalingDisabled,
    /// The target's scale has no selector.
    MissingSelector,
    /// It has one that does not parse; the event's text.
    InvalidSelector(String),
    /// It selects pods of another HPA, too; the event's text.
    AmbiguousSelector(String),
    /// Metrics give no count; the first failure.
    Metric(MetricFailure),
    /// The count was raised to the minimum.
    TooFewReplicas,
    /// The count was cut to the maximum.
    TooManyReplicas,
    /// The count was cut to what policies add.
    ScaleUpLimit,
    /// The count was raised to what policies leave.
    ScaleDownLimit,
    /// No limit was met.
    DesiredWithinRange,
    /// The HPA took the target to zero.
    ScaledToZero,
    /// The HPA's last change was another.
    NotScaledToZero,
    /// As the HPA's status had it before the first step.
    Earlier {
        /// Type.
        type_: ConditionType,
        /// Whether the status is True.
        status: bool,
        /// Reason.
        reason: String,
        /// Message.
        message: String,
    },
}

impl Reason {
    /// The type of its condition.
    pub fn type_(&self) -> ConditionType {
        match self {
            Self::SucceededGetScale
            | Self::FailedGetScale(_)
            | Self::SucceededRescale(_)
            | Self::FailedUpdateScale(_)
            | Self::ReadyForNewScale
            | Self::ScaleUpStabilized
            | Self::ScaleDownStabilized => ConditionType::AbleToScale,
            Self::ValidMetricFound(_)
            | Self::ScalingDisabled
            | Self::MissingSelector
            | Self::InvalidSelector(_)
            | Self::AmbiguousSelector(_)
            | Self::Metric(_) => ConditionType::ScalingActive,
            Self::TooFewReplicas
            | Self::TooManyReplicas
            | Self::ScaleUpLimit
            | Self::ScaleDownLimit
            | Self::DesiredWithinRange => ConditionType::ScalingLimited,
            Self::ScaledToZero | Self::NotScaledToZero => ConditionType::ScaledToZero,
            Self::Earlier { type_, .. } => *type_,
        }
    }

    /// Whether the condition is True.
    pub fn status(&self) -> bool {
        match self {
            Self::Earlier { status, .. } => *status,
            Self::SucceededGetScale
            | Self::SucceededRescale(_)
            | Self::ReadyForNewScale
            | Self::ScaleUpStabilized
            | Self::ScaleDownStabilized
            | Self::ValidMetricFound(_)
            | Self::TooFewReplicas
            | Self::TooManyReplicas
            | Self::ScaleUpLimit
            | Self::ScaleDownLimit
            | Self::ScaledToZero => true,
            Self::FailedGetScale(_)
            | Self::FailedUpdateScale(_)
            | Self::ScalingDisabled
            | Self::MissingSelector
            | Self::InvalidSelector(_)
            | Self::AmbiguousSelector(_)
            | Self::Metric(_)
            | Self::DesiredWithinRange
            | Self::NotScaledToZero => false,
        }
    }

    /// The reason in one word.
    pub fn name(&self) -> &str {
        match self {
            Self::SucceededGetScale => "SucceededGetScale",
            Self::FailedGetScale(_) => "FailedGetScale",
            Self::SucceededRescale(_) => "SucceededRescale",
            Self::FailedUpdateScale(_) => "FailedUpdateScale",
            Self::ReadyForNewScale => "ReadyForNewScale",
            Self::ScaleUpStabilized => "ScaleUpStabilized",
            Self::ScaleDownStabilized => "ScaleDownStabilized",
            Self::ValidMetricFound(_) => "ValidMetricFound",
            Self::ScalingDisabled => "ScalingDisabled",
            Self::MissingSelector | Self::InvalidSelector(_) => "InvalidSelector",
            Self::AmbiguousSelector(_) => "AmbiguousSelector",
            Self::Metric(failure) => failure.reason,
            Self::TooFewReplicas => "TooFewReplicas",
            Self::TooManyReplicas => "TooManyReplicas",
            Self::ScaleUpLimit => "ScaleUpLimit",
            Self::ScaleDownLimit => "ScaleDownLimit",
            Self::DesiredWithinRange => "DesiredWithinRange",
            Self::ScaledToZero => "ScaledToZero",
            Self::NotScaledToZero => "NotScaledToZero",
            Self::Earlier { reason, .. } => reason,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FailedGetScale(problem) => {
                return write!(f, "the HPA controller was unable to get the target's current scale: {problem}");
            }
            Self::SucceededRescale(to) => {
                return write!(f, "the HPA controller was able to update the target scale to {to}");
            }
            Self::FailedUpdateScale(problem) => {
                return write!(f, "the HPA controller was unable to update the target scale: {problem}");
            }
            Self::ValidMetricFound(metric) => {
                return write!(f, "the HPA was able to successfully calculate a replica count from {metric}");
            }
            Self::Metric(failure) => {
                return write!(f, "the HPA was unable to compute the replica count: {}", failure.message);
            }
            Self::InvalidSelector(text) | Self::AmbiguousSelector(text) => text,
            Self::Earlier { message, .. } => message,
            Self::SucceededGetScale => "the HPA controller was able to get the target's current scale",
            Self::ReadyForNewScale => "recommended size matches current size",
            Self::ScaleUpStabilized => {
                "recent recommendations were lower than current one, applying the lowest recent recommendation"
            }
            Self::ScaleDownStabilized => {
                "recent recommendations were higher than current one, applying the highest recent recommendation"
            }
            Self::ScalingDisabled => "scaling is disabled since the replica count of the target is zero",
            Self::MissingSelector => "the HPA target's scale is missing a selector",
            Self::TooFewReplicas => "the desired replica count is less than the minimum replica count",
            Self::TooManyReplicas => "the desired replica count is more than the maximum replica count",
            Self::ScaleUpLimit => "the desired replica count is increasing faster than the maximum scale rate",
            Self::ScaleDownLimit => "the desired replica count is decreasing faster than the maximum scale rate",
            Self::DesiredWithinRange => "the desired count is within the acceptable range",
            Self::ScaledToZero => "the HPA controller scaled the workload to zero",
            Self::NotScaledToZero => "the HPA controller did not scale the workload to zero",
        })
    }
}

/// A metric that gives no count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricFailure {
    /// Reason of its event and of the condition.
    pub reason: &'static str,
    /// Message of its event.
    pub message: String,
    /// The whole chain of errors, for the step's error.
    pub chain: String,
}

impl MetricFailure {
    pub(super) fn new(source: &Source, message: String, chain: String) -> Self {
        let reason = match source {
            Source::Resource { .. } => "FailedGetResourceMetric",
            Source::ContainerResource { .. } => "FailedGetContainerResourceMetric",
            Source::Pods { .. } => "FailedGetPodsMetric",
            Source::Object { .. } => "FailedGetObjectMetric",
            Source::External { .. } => "FailedGetExternalMetric",
            Source::Unknown(_) => "InvalidMetricSourceType",
        };
        Self { reason, message, chain }
    }
}

/// A change of the count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rescale {
    /// Replicas before.
    pub from: i32,
    /// Replicas after.
    pub to: i32,
    /// Why.
    pub reason: RescaleReason,
}

/// Why the count changes; written out, the text in the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RescaleReason {
    /// There are more than the maximum.
    AboveMax,
    /// There are fewer than the minimum.
    BelowMin,
    /// The metric of this name asks for more.
    MetricAboveTarget(Arc<str>),
    /// No metric asks for as many.
    AllMetricsBelowTarget,
    /// A limit moved a count that metrics would have left.
    Limit,
}

impl fmt::Display for RescaleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AboveMax => f.write_str("Current number of replicas above Spec.MaxReplicas"),
            Self::BelowMin => f.write_str("Current number of replicas below Spec.MinReplicas"),
            Self::MetricAboveTarget(metric) => write!(f, "{metric} above target"),
            Self::AllMetricsBelowTarget => f.write_str("All metrics below target"),
            Self::Limit => Ok(()),
        }
    }
}

/// An event of a step; written out, its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The target was scaled.
    SuccessfulRescale(Rescale),
    /// The target could not be scaled; the problem.
    FailedRescale(Rescale, String),
    /// The target's scale could not be read; the problem.
    FailedGetScale(String),
    /// A metric gives no count.
    Metric(MetricFailure),
    /// No count can be trusted; the problem.
    FailedComputeMetricsReplicas(String),
    /// The target's scale has no selector.
    SelectorRequired,
    /// Its selector does not parse.
    InvalidSelector(String),
    /// Its selector selects pods of another HPA, too.
    AmbiguousSelector(String),
}

impl Event {
    /// Normal or Warning.
    pub fn type_(&self) -> &'static str {
        if matches!(self, Self::SuccessfulRescale(_)) { "Normal" } else { "Warning" }
    }

    /// The reason in one word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::SuccessfulRescale(_) => "SuccessfulRescale",
            Self::FailedRescale(..) => "FailedRescale",
            Self::FailedGetScale(_) => "FailedGetScale",
            Self::Metric(failure) => failure.reason,
            Self::FailedComputeMetricsReplicas(_) => "FailedComputeMetricsReplicas",
            Self::SelectorRequired => "SelectorRequired",
            Self::InvalidSelector(_) => "InvalidSelector",
            Self::AmbiguousSelector(_) => "AmbiguousSelector",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SuccessfulRescale(Rescale { to, reason, .. }) => {
                write!(f, "New size: {to}; reason: {reason}")
            }
            Self::FailedRescale(Rescale { to, reason, .. }, problem) => {
                write!(f, "New size: {to}; reason: {reason}; error: {problem}")
            }
            Self::Metric(failure) => f.write_str(&failure.message),
            Self::SelectorRequired => f.write_str("selector is required"),
            Self::FailedGetScale(text)
            | Self::FailedComputeMetricsReplicas(text)
            | Self::InvalidSelector(text)
            | Self::AmbiguousSelector(text) => f.write_str(text),
        }
    }
}
