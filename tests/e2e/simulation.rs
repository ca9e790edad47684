//! The simulation against the real thing: one ScaledObject and one trace of its metric, on the real kube-controller-manager
//! and on the virtual clock, compared replica by replica; and the history that a real Prometheus tells.

use std::{process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use simulate::{
    Input, Manifest, Options,
    history::{History, Sample},
};

use tokio::{io::AsyncWriteExt, process::Command};

use crate::case::{Case, scaled_object, workload};
use crate::world::{HPA_SYNC_PERIOD, program};

/// What the metric is set to, and for how long, in seconds. 150 asks for more than a policy gives at once.
const TRACE: &[(u32, u64)] = &[(5, 6), (45, 24), (150, 40), (95, 24), (20, 24), (5, 24)];
/// How often the target is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// The HPA controller comes at its own times, and the machine may be busy.
const LATE: Duration = Duration::from_secs(8);

/// How long Prometheus scrapes each value, once a second.
const SCRAPED: Duration = Duration::from_secs(8);

/// Counts, each with the time since the beginning at which it was first seen.
type Changes = Vec<(Duration, u32)>;

pub(crate) async fn replica_by_replica(case: &Case<'_>) -> Result<()> {
    case.set_requests(5).await?;
    case.deployment("shop", 1).await?;
    let trigger = case.prometheus(&case.requests(), "10");
    let spec = json!({ "minReplicaCount": 1, "maxReplicaCount": 20, "triggers": [trigger] });
    case.scaled_object("shop", spec).await?;
    case.wait_condition("shop", "Active", "True", "ScalerActive").await?;
    case.wait_condition("shop", "HPAActive", "True", "HPAActive").await?;

    let begun = Timestamp::now();
    let mut samples = vec![Sample { at: begun.as_second(), value: Some(5.0) }];
    let mut real: Changes = vec![(Duration::ZERO, 1)];
    for (value, seconds) in TRACE {
        case.set_requests(*value).await?;
        let set = Timestamp::now();
        // The value before holds until this one was there to be read.
        let last = *samples.last().context("no sample")?;
        samples.extend((last.at + 1..set.as_second()).map(|at| Sample { at, ..last }));
        // Of two in one second the later counts.
        samples.retain(|sample| sample.at < set.as_second());
        samples.push(Sample { at: set.as_second(), value: Some(f64::from(*value)) });
        while set.duration_until(Timestamp::now()) < SignedDuration::from_secs(seconds.cast_signed()) {
            let count = u32::try_from(case.replicas("shop").await?)?;
            if real.last().is_none_or(|(_, known)| *known != count) {
                real.push((begun.duration_until(Timestamp::now()).unsigned_abs(), count));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    let end = Timestamp::now();
    let last = *samples.last().context("no sample")?;
    samples.extend((last.at + 1..=end.as_second()).map(|at| Sample { at, ..last }));

    let minor = case.client().apiserver_version().await?.minor;
    let minor = minor.trim_end_matches('+').parse()?;
    let simulated = simulated(case, &samples, (begun, end), minor).await?;
    let counts = |changes: &Changes| changes.iter().map(|(_, count)| *count).collect::<Vec<_>>();
    ensure!(
        counts(&real) == counts(&simulated),
        "the controller went {real:?}, the simulation {simulated:?} on {samples:?}"
    );
    for ((real, count), (simulated, _)) in real.iter().zip(&simulated) {
        ensure!(
            real.abs_diff(*simulated) <= LATE,
            "{count} replicas after {real:?}, in the simulation after {simulated:?}"
        );
    }
    Ok(())
}

/// The same objects on the virtual clock.
async fn simulated(
    case: &Case<'_>,
    samples: &[Sample],
    (start, end): (Timestamp, Timestamp),
    kubernetes_minor: u32,
) -> Result<Changes> {
    let manifest = |mut value: Value| {
        value["metadata"]["namespace"] = json!(case.namespace);
        Manifest { file: "e2e".into(), line: 1, value: Arc::new(value) }
    };
    let history = Arc::new(History::new("trace", samples)?);
    let input = Input {
        name: case.namespace.clone(),
        manifests: vec![manifest(workload("Deployment", "shop", 1)), manifest(case.get("shop").await?)],
        histories: [((format!("{}/shop", case.namespace), "0".to_owned()), history)].into(),
        notes: Vec::new(),
    };
    let options = Options {
        start: Some(Timestamp::from_second(start.as_second())?),
        end: Some(end),
        kubernetes_minor,
        hpa_sync_period: u32::try_from(HPA_SYNC_PERIOD.as_secs())?,
        pod_start: 1,
        step: Some(1),
        ..Options::default()
    };
    let outcome = simulate::run(&input, &options).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    let mut changes = Changes::new();
    for (second, count) in outcome.objects[0].wanted.iter().enumerate() {
        if changes.last().is_none_or(|(_, known)| known != count) {
            changes.push((Duration::from_secs(second as u64), *count));
        }
    }
    Ok(changes)
}

/// A file of manifests, and the server that scraped: what was scraped is what is played.
pub(crate) async fn from_prometheus(case: &Case<'_>) -> Result<()> {
    case.set_requests(5).await?;
    // The first whole second at which it was scraped.
    let begun = Timestamp::now() + SignedDuration::from_secs(1);
    tokio::time::sleep(SCRAPED).await;
    case.set_requests(45).await?;
    let risen = Timestamp::now();
    tokio::time::sleep(SCRAPED).await;

    // The address is that of the cluster's Prometheus, which only the flag replaces.
    let mut trigger = case.prometheus(&case.requests(), "10");
    trigger["metadata"]["serverAddress"] = json!("http://prometheus.monitoring:9090");
    let mut object = scaled_object("shop", json!({ "minReplicaCount": 1, "triggers": [trigger] }));
    object["metadata"]["namespace"] = json!(case.namespace);
    let sync = json!({
        "apiVersion": "simulate.tandem.dev/v1", "kind": "Simulation", "metadata": { "name": "quick" },
        "spec": { "hpaSyncPeriod": "1s", "step": "1s" },
    });
    let manifests = format!("{object}\n---\n{sync}\n");
    let time = |time: Timestamp| format!("{time:.0}");
    let url = case.world.prometheus.url();
    let arguments =
        ["simulate", "-f", "-", "--prometheus", &url, "--step", "1s", "--output", "json", "--from"];
    let times = [&time(begun), "--to", &time(Timestamp::now())].map(ToString::to_string);
    let mut process = Command::new(program())
        .args(arguments)
        .args(times)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    process.stdin.take().context("no standard input")?.write_all(manifests.as_bytes()).await?;
    let output = process.wait_with_output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let outcome: simulate::Outcome = serde_json::from_slice(&output.stdout)?;

    let object = &outcome.objects[0];
    let values = &object.metrics[0].values;
    let last = i64::try_from(values.len())?;
    for (second, value) in (0..last).zip(values) {
        let at = outcome.axis.start + SignedDuration::from_secs(second);
        let away = at.duration_until(risen).as_secs();
        let expected = if away > 0 { 5.0 } else { 45.0 };
        // A scrape is a second old at most, and the rise is seen when Prometheus tells of it.
        let near = away.abs() <= 2;
        ensure!(near || *value == Some(expected), "{value:?} {away} s before the rise: {values:?}");
    }
    ensure!(object.wanted.first() == Some(&1) && object.wanted.last() == Some(&5), "{:?}", object.wanted);
    Ok(())
}
