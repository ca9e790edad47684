//! Summaries: quantiles of what was seen lately, which dashboards of the peers read.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};
use tokio::time::Instant;

/// What is told of each series.
#[derive(Debug, Clone, Copy)]
pub struct Objectives {
    /// Quantiles, each with the label that tells it.
    pub quantiles: &'static [(&'static str, f64)],
    /// They are of what was seen within this time.
    pub lately: Duration,
    /// Of more observations within that time the oldest do not count, so that a series stays small.
    pub most: usize,
}

/// What was observed under one set of labels.
#[derive(Debug, Default)]
struct Series {
    sum: f64,
    count: u64,
    lately: VecDeque<(Instant, f64)>,
}

/// A summary by labels; cheap to clone.
#[derive(Debug)]
pub struct Summary<L> {
    objectives: Objectives,
    all: Arc<Mutex<Vec<(L, Series)>>>,
}

impl<L> Clone for Summary<L> {
    fn clone(&self) -> Self {
        Self { objectives: self.objectives, all: self.all.clone() }
    }
}

impl<L> Summary<L> {
    /// One that has seen nothing.
    pub fn new(objectives: Objectives) -> Self {
        Self { objectives, all: Arc::default() }
    }
}

impl<L: PartialEq> Summary<L> {
    /// This was seen now.
    pub fn observe(&self, labels: L, value: f64) {
        let mut all = self.all.lock();
        let at = all.iter().position(|(known, _)| *known == labels).unwrap_or_else(|| {
            all.push((labels, Series::default()));
            all.len() - 1
        });
        let series = &mut all[at].1;
        series.sum += value;
        series.count += 1;
        if series.lately.len() == self.objectives.most {
            series.lately.pop_front();
        }
        series.lately.push_back((Instant::now(), value));
    }
}

impl Series {
    /// Each quantile; none is a number if nothing was seen lately.
    fn quantiles(&self, of: Objectives, now: Instant) -> impl Iterator<Item = (&'static str, f64)> {
        let lately = self.lately.iter().filter(|(at, _)| now.duration_since(*at) <= of.lately);
        let mut values: Vec<f64> = lately.map(|(_, value)| *value).collect();
        values.sort_by(f64::total_cmp);
        of.quantiles.iter().map(move |&(label, quantile)| {
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
        for (labels, series) in &*self.all.lock() {
            for (label, value) in series.quantiles(self.objectives, now) {
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

    const OBJECTIVES: Objectives = Objectives {
        quantiles: &[("0", 0.0), ("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99), ("1", 1.0)],
        lately: Duration::from_mins(10),
        most: 200,
    };

    fn lines(summary: &Summary<Of>) -> Vec<String> {
        let mut registry = Registry::default();
        registry.register("seconds", "How long", summary.clone());
        let text = text(&registry).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn quantiles_are_of_the_last_minutes_and_sums_of_all_time() {
        let summary = Summary::new(OBJECTIVES);
        summary.observe(Of { pool: "a" }, 1000.0);
        tokio::time::advance(OBJECTIVES.lately + Duration::from_secs(1)).await;
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
        tokio::time::advance(OBJECTIVES.lately + Duration::from_secs(1)).await;
        assert_eq!(lines(&summary)[1], r#"seconds{pool="a",quantile="0.5"} NaN"#);
    }

    #[tokio::test(start_paused = true)]
    async fn a_series_keeps_the_newest() {
        let summary = Summary::new(OBJECTIVES);
        for value in 0..2 * OBJECTIVES.most {
            summary.observe(Of { pool: "a" }, if value < OBJECTIVES.most { 0.0 } else { 1.0 });
        }
        assert_eq!(lines(&summary)[0], r#"seconds{pool="a",quantile="0"} 1.0"#);
    }
}
