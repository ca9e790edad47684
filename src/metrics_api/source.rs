//! Where values come from: the sample store implements [`MetricSource`], this server only asks.

use async_trait::async_trait;
use jiff::Timestamp;
use thiserror::Error;

/// One read of one metric.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MetricRequest {
    /// Namespace of the `ScaledObject`.
    pub namespace: String,
    /// Metric name as the HPA has it, with its trigger prefix: `s0-prometheus`.
    pub metric: String,
    /// Name of the `ScaledObject`, from the selector `scaledobject.keda.sh/name`.
    pub scaled_object: String,
    /// Name of the authenticated user who reads, so that its rhythm can be learned.
    pub reader: String,
}

/// A value and when it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricValue {
    /// The value in thousandths.
    pub milli: i64,
    /// When the source was asked.
    pub taken_at: Timestamp,
}

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MetricError {
    /// There is no such object, or it has no such metric.
    #[error("{0}")]
    NotFound(String),
    /// The object is ours and its source gave no value.
    #[error("{0}")]
    Failed(String),
}

/// Answers metric reads, from memory wherever possible. It bounds its own waiting.
#[async_trait]
pub trait MetricSource: Send + Sync + 'static {
    /// The value of one metric now.
    async fn get(&self, request: MetricRequest) -> Result<MetricValue, MetricError>;
}
