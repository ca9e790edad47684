//! `tandem_expected_pods*`: what is expected, and how often in vain.

use std::{collections::BTreeMap, fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use tandem_core::nodes::demand::{Expectation, Held};

use super::Demand;
use crate::cluster::Key;

/// What is expected of each object, and what was in vain.
#[derive(Debug, Default)]
pub(super) struct Counts {
    expected: BTreeMap<Key, u32>,
    missed: u64,
}

impl Counts {
    /// Takes in what is expected of objects now.
    pub(super) fn settled<'a>(
        &mut self,
        expectations: &[Expectation],
        objects: impl Iterator<Item = &'a Key>,
    ) {
        let of = |key: &Key| {
            let name = key.to_string();
            expectations.iter().find(|expectation| *expectation.object == *name)
        };
        self.expected = objects.filter_map(|key| Some((key.clone(), of(key)?.pods))).collect();
        let in_vain =
            |expectation: &&Expectation| matches!(expectation.held, Some(Held::CoolOff { begins: true, .. }));
        self.missed += expectations
            .iter()
            .filter(in_vain)
            .map(|expectation| u64::from(expectation.missing))
            .sum::<u64>();
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(non_snake_case, reason = "the label as KEDA's metrics have it")]
struct ObjectLabels {
    namespace: String,
    scaledObject: String,
}

/// [`Demand`] as a collector.
pub struct MetricsCollector(pub Arc<Demand>);

impl fmt::Debug for MetricsCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Demand")
    }
}

impl Collector for MetricsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counts = self.0.counts.lock();
        let mut metric = encoder.encode_descriptor(
            "tandem_expected_pods",
            "Pods that nodes are asked for before they exist",
            None,
            MetricType::Gauge,
        )?;
        for (key, pods) in &counts.expected {
            let labels = ObjectLabels { namespace: key.namespace.clone(), scaledObject: key.name.clone() };
            ConstGauge::new(f64::from(*pods)).encode(metric.encode_family(&labels)?)?;
        }
        let limit = encoder.encode_descriptor(
            "tandem_expected_pods_limit",
            "The most of them (--max-expected-pods)",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(f64::from(self.0.most)).encode(limit)?;
        let missed = encoder.encode_descriptor(
            "tandem_expected_pods_missed",
            "Expected pods that did not come",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(counts.missed).encode(missed)
    }
}
