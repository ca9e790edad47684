//! Latencies, and the read loop that takes them.

use std::time::{Duration, Instant};

use anyhow::Result;
use http::Request;
use kube::Client;

/// Durations, for percentiles.
#[derive(Debug, Default)]
pub(super) struct Latencies(Vec<Duration>);

impl Latencies {
    /// Takes one.
    pub(super) fn push(&mut self, duration: Duration) {
        self.0.push(duration);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The duration that `percent` of them do not exceed.
    pub(super) fn percentile(&mut self, percent: usize) -> Duration {
        self.0.sort_unstable();
        let index = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(index).copied().unwrap_or_default()
    }
}

/// Results of [`read_beside`].
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Metric reads through the aggregator.
    pub metric: Latencies,
    /// Reads of a namespace from the same kube-apiserver, taken in turn with them.
    pub control: Latencies,
    /// Metric reads that failed.
    pub failed: usize,
}

/// Reads metrics at `rate` a second for `duration`, each beside a read of a namespace, so that both see the same
/// machine.
pub(super) async fn read_beside(
    client: &Client,
    namespace: &str,
    objects: usize,
    rate: u32,
    duration: Duration,
) -> Result<Reads> {
    let mut reads = Reads::default();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    let (results, mut finished) = tokio::sync::mpsc::unbounded_channel();
    let end = Instant::now() + duration;
    let mut next = 0;
    while Instant::now() < end {
        tick.tick().await;
        let (client, results) = (client.clone(), results.clone());
        let metric = metric_path(namespace, next % objects);
        let control = format!("/api/v1/namespaces/{namespace}");
        next += 7919; // a prime: every object in turn, neighbours far apart
        tokio::spawn(async move {
            let (metric, control) = (get(&client, &metric).await, get(&client, &control).await);
            // The receiver is read below until every sender is gone.
            let _ = results.send((metric, control));
        });
    }
    drop(results);
    while let Some((metric, control)) = finished.recv().await {
        match metric {
            Ok(latency) => reads.metric.push(latency),
            Err(_) => reads.failed += 1,
        }
        reads.control.push(control?);
    }
    Ok(reads)
}

/// The path under which an HPA reads the metric of the `index`th object.
pub(super) fn metric_path(namespace: &str, index: usize) -> String {
    format!(
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/s0-prometheus\
         ?labelSelector=scaledobject.keda.sh%2Fname%3Dobject-{index}"
    )
}

/// One GET, timed.
pub(super) async fn get(client: &Client, path: &str) -> Result<Duration> {
    let request = Request::get(path).body(Vec::new())?;
    let started = Instant::now();
    client.request_text(request).await?;
    Ok(started.elapsed())
}
