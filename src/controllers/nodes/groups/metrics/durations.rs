//! How long the parts of a pass take, as a histogram and as quantiles of the last hour.

use std::{fmt, time::Duration};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{family::Family, histogram::Histogram},
};

use super::encode::PREFIX;
use crate::telemetry::summary::{Objectives, Summary};

/// From a millisecond to half an hour; a pass takes milliseconds, a provider may take minutes.
const BUCKETS: [f64; 14] =
    [0.001, 0.01, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0];

/// Those of k8s.io/component-base, of an hour (`metrics/metrics.go`, `MaxAge`). At the scan interval's default a third as many
/// passes are in it: 16 KiB a function.
const OBJECTIVES: Objectives = Objectives {
    quantiles: &[("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99)],
    lately: Duration::from_hours(1),
    most: 1024,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFunction {
    function: &'static str,
}

/// By function.
#[derive(Debug)]
pub(super) struct Durations {
    seconds: Family<OfFunction, Histogram>,
    quantiles: Summary<OfFunction>,
}

impl Default for Durations {
    fn default() -> Self {
        Self {
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            quantiles: Summary::new(OBJECTIVES),
        }
    }
}

impl Durations {
    /// A function took so long.
    pub(super) fn observe(&self, function: &'static str, took: Duration) {
        let of = OfFunction { function };
        self.seconds.get_or_create(&of).observe(took.as_secs_f64());
        self.quantiles.observe(of, took.as_secs_f64());
    }

    /// `function_duration_seconds` and `function_duration_quantile_seconds`.
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let name = format!("{PREFIX}function_duration_seconds");
        let help = "How long the parts of a pass took";
        let kind = self.seconds.metric_type();
        self.seconds.encode(encoder.encode_descriptor(&name, help, None, kind)?)?;
        let name = format!("{PREFIX}function_duration_quantile_seconds");
        let help = "How long the parts of a pass took in the last hour";
        let kind = self.quantiles.metric_type();
        self.quantiles.encode(encoder.encode_descriptor(&name, help, None, kind)?)
    }
}
