//! Summaries: quantiles of what was seen lately, as Karpenter's dashboards read them.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};
use tokio::time::Instant;

/// What is told of each series, with the label that tells it (core, `pkg/metrics/constants.go`, `SummaryObjectives`).
const QUANTILES: [(&str, f64); 5] = [("0", 0.0), ("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99), ("1", 1.0)];
/// Quantiles are of what was seen within this time (`client_golang`, `DefMaxAge`).
const LATELY: Duration = Duration::from_mins(10);
/// Of more observations within that time the oldest do not count, so that a series stays small.
const MOST: usize = 4_096;

/// What was observed under one set of labels.
#[derive(Debug, Default)]
struct Series {
    sum: f64,
    count: u64,
    lately: VecDeque<(Instant, f64)>,
}

/// A summary by labels; cheap to clone.
#[derive(Debug)]
pub(super) struct Summary<L>(Arc<Mutex<Vec<(L, Series)>>>);

impl<L> Default for Summary<L> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<L> Clone for Summary<L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<L: PartialEq> Summary<L> {
    pub(super) fn observe(&self, labels: L, value: f64) {
        let mut all = self.0.lock();
        let at = all.iter().position(|(known, _)| *known == labels).unwrap_or_else(|| {
            all.push((labels, Series::default()));
            all.len() - 1
        });
        let series = &mut all[at].1;
        series.sum += value;
        series.count += 1;
        if series.lately.len() == MOST {
            series.lately.pop_front();
        }
        series.lately.push_back((Instant::now(), value));
    }
}

impl Series {
    /// Each quantile; none is a number if nothing was seen lately.
    fn quantiles(&self, now: Instant) -> impl Iterator<Item = (&'static str, f64)> {
        let lately = self.lately.iter().filter(|(at, _)| now.duration_since(*at) <= LATELY);
        let mut values: Vec<f64> = lately.map(|(_, value)| *value).collect();
        values.sort_by(f64::total_cmp);
        QUANTILES.into_iter().map(move |(label, quantile)| {
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a place among a few thousand"
            )]
            let rank = (values.len() as f64 * quantile).ceil() as usize;
            (label, values.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN))
        })
    }
}

/// The labels of a series, and that of a quantile.
struct AtQuantile<'a, L>(&'a L, &'static str);

impl<L: EncodeLabelSet> EncodeLabelSet for AtQuantile<'_, L> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)?;
        [("quantile", self.1)].encode(encoder)
    }
}

impl<L: EncodeLabelSet> EncodeMetric for Summary<L> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let now = Instant::now();
        for (labels, series) in &*self.0.lock() {
            for (label, value) in series.quantiles(now) {
                encoder.encode_family(&AtQuantile(labels, label))?.encode_gauge(&value)?;
            }
            // Without buckets that is the sum and the count.
            encoder.encode_family(labels)?.encode_histogram::<NoLabelSet>(
                series.sum,
                series.count,
                &[],
                None,
            )?;
        }
        Ok(())
    }

    /// The library knows no summaries; who scrapes goes by the names of the samples.
    fn metric_type(&self) -> MetricType {
        MetricType::Unknown
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::telemetry::metrics::text;

    #[derive(Clone, Debug, PartialEq, EncodeLabelSet)]
    struct Of {
        pool: &'static str,
    }

    fn lines(summary: &Summary<Of>) -> Vec<String> {
        let mut registry = Registry::default();
        registry.register("seconds", "How long", summary.clone());
        let text = text(&registry).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn quantiles_are_of_the_last_minutes_and_sums_of_all_time() {
        let summary = Summary::default();
        summary.observe(Of { pool: "a" }, 1000.0);
        tokio::time::advance(LATELY + Duration::from_secs(1)).await;
        for value in 1..=100 {
            summary.observe(Of { pool: "a" }, f64::from(value));
        }
        let wanted = [
            r#"seconds{pool="a",quantile="0"} 1.0"#,
            r#"seconds{pool="a",quantile="0.5"} 50.0"#,
            r#"seconds{pool="a",quantile="0.9"} 90.0"#,
            r#"seconds{pool="a",quantile="0.99"} 99.0"#,
            r#"seconds{pool="a",quantile="1"} 100.0"#,
            r#"seconds_sum{pool="a"} 6050.0"#,
            r#"seconds_count{pool="a"} 101"#,
        ];
        assert_eq!(lines(&summary), wanted);
        tokio::time::advance(LATELY + Duration::from_secs(1)).await;
        assert_eq!(lines(&summary)[1], r#"seconds{pool="a",quantile="0.5"} NaN"#);
    }

    #[tokio::test(start_paused = true)]
    async fn a_series_keeps_the_newest() {
        let summary = Summary::default();
        for value in 0..2 * MOST {
            summary.observe(Of { pool: "a" }, if value < MOST { 0.0 } else { 1.0 });
        }
        assert_eq!(lines(&summary)[0], r#"seconds{pool="a",quantile="0"} 1.0"#);
    }
}
