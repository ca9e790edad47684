//! What a trigger is once it is built: metrics for the HPA, readings for everybody.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::context::Context;
use crate::error::Error;

/// One built trigger.
///
/// Timeouts around a whole read, caching, fallback and error counting live in the caller, once; a scaler asks its
/// source and says what it saw.
#[async_trait]
pub trait Scaler: Send + Sync {
    /// The metrics this trigger offers to the HPA. Only scalers whose metrics live in a remote process
    /// (`external`, `external-push`) do I/O here.
    async fn metrics(&self, cx: &Context) -> Result<Vec<Metric>, Error>;

    /// The value of `metric` now, and whether it means activity. `metric` is a name as [`Metric::External`] gave it,
    /// without the `s<i>-` prefix.
    async fn read(&self, cx: &Context, metric: &str) -> Result<Reading, Error>;

    /// What the source had in a range, by time in seconds since 1970; steps at which it had nothing are left out.
    async fn history(&self, cx: &Context, range: Range) -> Result<Vec<(i64, f64)>, Error> {
        let _ = (cx, range);
        Err(Error::Configuration("the source of this trigger cannot be asked for its history".to_owned()))
    }

    /// What [`Scaler::read`] makes of a value that its source once had, for whoever replays history. Most scalers are
    /// active above their activation threshold.
    fn judge(&self, value: f64) -> Result<Reading, Error> {
        Ok(Reading::above(value, self.activation()))
    }

    /// The source's value above which the trigger is active.
    fn activation(&self) -> f64 {
        0.0
    }

    /// The reading of a scaler that follows the calendar and asks nobody, and until when it holds; `None` for others.
    fn planned(&self, now: Timestamp) -> Option<(Reading, Timestamp)> {
        let _ = now;
        None
    }

    /// The longest that [`Scaler::read`] may take by the deadlines of the requests it consists of; whatever takes longer
    /// hangs. Zero where the caller's own idea of that will do.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// True for scalers that report by themselves, through [`Scaler::watch`].
    fn pushes(&self) -> bool {
        false
    }

    /// Runs until the receiver of `events` is dropped, sending each push; reconnects by itself. Scalers that do not
    /// push return at once.
    async fn watch(&self, cx: &Context, events: mpsc::Sender<Push>) -> Result<(), Error> {
        let _ = (cx, events);
        Ok(())
    }
}

/// A range of time, its last moment included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first moment.
    pub start: Timestamp,
    /// The last.
    pub end: Timestamp,
    /// Seconds between values.
    pub step: u32,
}

/// A metric of an HPA.
#[derive(Clone, Debug, PartialEq)]
pub enum Metric {
    /// Served by external.metrics.k8s.io.
    External {
        /// Normalised, without the `s<i>-` prefix; see [`crate::metric_name`].
        name: String,
        /// Target in thousandths.
        target_milli: i64,
    },
    /// Read by the HPA controller itself, from metrics.k8s.io.
    Resource {
        /// `cpu` or `memory`.
        resource: &'static str,
        /// One container of the pod, or the sum over all.
        container: Option<String>,
        /// What the HPA compares the usage with.
        target: ResourceTarget,
    },
}

/// Target of a [`Metric::Resource`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceTarget {
    /// Percent of the pods' requests.
    Utilization(i32),
    /// Quantity a pod, as the user wrote it.
    AverageValue(String),
}

/// What a source said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Value in thousandths; never negative.
    pub milli: i64,
    /// Whether the trigger counts as active (0 → 1).
    pub active: bool,
}

impl Reading {
    /// A value, active when it is above the activation threshold (both in the unit of the source).
    pub(crate) fn above(value: f64, activation: f64) -> Self {
        Self { milli: milli(value), active: value > activation }
    }
}

/// What a pushing scaler sends.
#[derive(Clone, Debug, PartialEq)]
pub enum Push {
    /// The source says that the trigger is (not) active.
    Active(bool),
    /// The source changed its metrics or targets.
    Metrics(Vec<Metric>),
}

/// `metricType` of a trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MetricType {
    /// Target a pod (the default).
    #[default]
    AverageValue,
    /// Target for the whole workload.
    Value,
    /// Percent of the pods' requests; `cpu` and `memory` only.
    Utilization,
}

impl MetricType {
    /// The target type of an external metric: `AverageValue` unless set (KEDA, `pkg/scalers/scaler.go`).
    pub fn for_external(set: Option<Self>) -> Result<Self, UnsupportedMetricType> {
        match set.unwrap_or_default() {
            Self::Utilization => Err(UnsupportedMetricType),
            supported => Ok(supported),
        }
    }

    /// The name in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AverageValue => "AverageValue",
            Self::Value => "Value",
            Self::Utilization => "Utilization",
        }
    }
}

/// `Utilization` was asked of an external metric. The text is KEDA's (`pkg/scalers/scaler.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'Utilization' metric type is unsupported for external metrics, allowed values are 'Value' or 'AverageValue'"
)]
pub struct UnsupportedMetricType;

/// A `metricType` that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown metricType {0:?}, allowed values are 'AverageValue', 'Value' or 'Utilization'")]
pub struct UnknownMetricType(String);

impl FromStr for MetricType {
    type Err = UnknownMetricType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::AverageValue, Self::Value, Self::Utilization]
            .into_iter()
            .find(|known| known.as_str() == text)
            .ok_or_else(|| UnknownMetricType(text.to_owned()))
    }
}

impl fmt::Display for MetricType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The spacing of numbers up to here is less than a thousandth.
const EXACT: f64 = 8_796_093_022_208.0;
/// A product that is no further from a whole number than this is on the same side of the half as the value itself.
const CLEAR: f64 = 0.499;

/// A value in thousandths: rounded to three decimals as `%.3f` does; NaN, infinite and negative values are 0, since a
/// quantity below zero would make the HPA refuse the metric (KEDA, `pkg/scalers/scaler.go`). What exceeds an `i64` is
/// its greatest, which is also the most that the HPA's arithmetic holds.
pub fn milli(value: f64) -> i64 {
    if !value.is_finite() || value <= 0.0 {
        return 0;
    }
    let scaled = value * 1000.0;
    let rounded = scaled.round();
    // Below this a product is off by less than what is left to a half.
    if scaled < EXACT && (scaled - rounded).abs() < CLEAR {
        #[allow(clippy::cast_possible_truncation, reason = "a whole number below 2^43")]
        return rounded as i64;
    }
    // Multiplying first would round twice: 1.0005 is a little less than that.
    format!("{value:.3}").replace('.', "").parse().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::milli;

    proptest! {
        #[test]
        fn thousandths_are_those_that_printing_rounds_to(value in prop_oneof![
            0.0..10.0_f64, 0.0..1e6_f64, 0.0..1e12_f64, 0.0..1e15_f64,
            (0..20_000_000_u32).prop_map(|tenths| f64::from(tenths) / 10_000.0),
        ]) {
            let printed: i64 = format!("{value:.3}").replace('.', "").parse().unwrap();
            prop_assert_eq!(milli(value), printed);
        }
    }

    #[test]
    fn thousandths_are_those_of_the_decimal_text() {
        for (value, wanted) in [
            (0.0, 0),
            (1.0005, 1_000),
            (0.0015, 2),
            (26.0, 26_000),
            (8.666_666, 8_667),
            (0.0004, 0),
            (1e15, 1_000_000_000_000_000_000),
            (9.3e15, i64::MAX),
            (1e18, i64::MAX),
            (-1.0, 0),
            (f64::NAN, 0),
            (f64::INFINITY, 0),
        ] {
            assert_eq!(milli(value), wanted, "{value}");
        }
    }
}
