//! How long the parts of a pass take, as a histogram and as quantiles of the last hour.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, histogram::Histogram},
};

use super::encode::PREFIX;

/// From a millisecond to half an hour; a pass takes milliseconds, a provider may take minutes.
const BUCKETS: [f64; 14] =
    [0.001, 0.01, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0];

/// Quantiles are those of so long (`metrics/metrics.go`, `MaxAge`).
const LATELY: Duration = Duration::from_hours(1);
/// And of so many at most, three times as many as there are passes at the scan interval's default: 16 KiB a function.
const KEPT: usize = 1024;
/// The quantiles that are told (k8s.io/component-base, `defObjectives`).
const QUANTILES: [(f64, &str); 3] = [(0.5, "0.5"), (0.9, "0.9"), (0.99, "0.99")];

/// By function.
#[derive(Debug, Default)]
pub(super) struct Durations(BTreeMap<&'static str, Function>);

#[derive(Debug)]
struct Function {
    histogram: Histogram,
    sum: f64,
    count: u64,
    lately: VecDeque<(Instant, f64)>,
}

impl Function {
    /// The value below which this share of the last hour's lies.
    fn quantiles(&self, now: Instant) -> Option<[(&'static str, f64); 3]> {
        let lately = self.lately.iter().filter(|(at, _)| now.duration_since(*at) < LATELY);
        let mut sorted: Vec<f64> = lately.map(|(_, seconds)| *seconds).collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place among a thousand"
        )]
        let place = |share: f64| ((share * sorted.len() as f64) as usize).min(last);
        Some(QUANTILES.map(|(share, name)| (name, sorted[place(share)])))
    }
}

impl Durations {
    /// A function took so long.
    pub(super) fn observe(&mut self, function: &'static str, took: Duration, now: Instant) {
        let seconds = took.as_secs_f64();
        let new =
            || Function { histogram: Histogram::new(BUCKETS), sum: 0.0, count: 0, lately: VecDeque::new() };
        let function = self.0.entry(function).or_insert_with(new);
        function.histogram.observe(seconds);
        function.sum += seconds;
        function.count += 1;
        while function.lately.len() >= KEPT
            || function.lately.front().is_some_and(|(at, _)| now.duration_since(*at) >= LATELY)
        {
            function.lately.pop_front();
        }
        function.lately.push_back((now, seconds));
    }

    /// `function_duration_seconds` and `function_duration_quantile_seconds`. The client knows no summaries: the parts of one are
    /// told one by one, with the names and labels that it has.
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>, now: Instant) -> fmt::Result {
        let name = format!("{PREFIX}function_duration_seconds");
        let help = "How long the parts of a pass took";
        let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Histogram)?;
        for (function, it) in &self.0 {
            it.histogram.encode(metric.encode_family(&[("function", *function)])?)?;
        }
        let name = format!("{PREFIX}function_duration_quantile_seconds");
        let help = "How long the parts of a pass took in the last hour";
        let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Unknown)?;
        for (function, it) in &self.0 {
            for (quantile, value) in it.quantiles(now).into_iter().flatten() {
                metric
                    .encode_family(&[("function", *function), ("quantile", quantile)])?
                    .encode_gauge(&value)?;
            }
        }
        let help = "How long the parts of a pass took, all together";
        let sum = format!("{name}_sum");
        let mut metric = encoder.encode_descriptor(&sum, help, None, MetricType::Unknown)?;
        for (function, it) in &self.0 {
            metric.encode_family(&[("function", *function)])?.encode_gauge(&it.sum)?;
        }
        let help = "How often";
        let count = format!("{name}_count");
        let mut metric = encoder.encode_descriptor(&count, help, None, MetricType::Unknown)?;
        for (function, it) in &self.0 {
            metric.encode_family(&[("function", *function)])?.encode_gauge(&it.count)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_last_hour() {
        let (mut durations, start) = (Durations::default(), Instant::now());
        let mut took = |seconds, after| {
            durations.observe("main", Duration::from_secs(seconds), start + after);
            durations.0["main"].quantiles(start + after).map(|it| it.map(|(_, value)| value))
        };
        assert_eq!(took(100, Duration::ZERO), Some([100.0, 100.0, 100.0]));
        let hour = Duration::from_hours(1);
        for seconds in 1..100 {
            took(seconds, hour);
        }
        assert_eq!(took(100, hour), Some([51.0, 91.0, 100.0]), "the first is an hour ago");
        for _ in 0..2 * KEPT {
            took(7, hour);
        }
        assert_eq!(took(7, hour), Some([7.0, 7.0, 7.0]), "those before are too many");
        let main = &durations.0["main"];
        assert_eq!((main.lately.len(), main.count), (KEPT, 102 + 2 * KEPT as u64));
        assert_eq!(main.quantiles(start + 3 * hour), None);
    }
}
