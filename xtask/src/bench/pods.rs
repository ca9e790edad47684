//! The pods loop under load: the setting in which the figures of the README are taken.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use futures::{StreamExt, stream};
use harness::{
    Components, ControlPlane, Install, Network, Options, Tandem,
    http::{Request, Response, Server, answer},
    network, source_tree, wait,
};
use k8s_openapi::api::{apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Namespace};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use serde_json::{Value, json};
use tandem_core::api::keda::ScaledObject;

use super::{
    failover, float,
    latency::{self, read_beside},
    process, resident, row, scrape,
};
use harness::tandem::Addresses;

const NAMESPACE: &str = "bench";
/// Requests of ours that are under way at once while objects are created.
const WRITERS: usize = 16;
/// Reads a second beside the HPAs', as in the measurement of KEDA.
const READS_PER_SECOND: u32 = 100;
/// How long the HPAs run before anything is measured: each has come three times, so every rhythm is known.
const SETTLE: Duration = Duration::from_mins(1);
/// Longer than any run.
const NEVER: Duration = Duration::from_hours(24);
/// What a source of metrics in the same cluster takes.
const SOURCE_LATENCY: Duration = Duration::from_millis(1);

/// Flags of `bench pods`.
#[derive(Debug, Args)]
pub(crate) struct PodsArgs {
    /// ScaledObjects.
    #[arg(long, default_value_t = 1000)]
    objects: usize,
    /// Length of the measured window, seconds.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// The HPA controller does not read: polls come at their 30 s, as they do where HPAs are few or slow.
    #[arg(long)]
    without_hpas: bool,
    /// A built `tandem`; without it the release build of this checkout.
    #[arg(long)]
    program: Option<PathBuf>,
}

/// Measures and prints the table.
pub(super) fn run(args: &PodsArgs) -> Result<()> {
    let program = match &args.program {
        Some(program) => program.clone(),
        None => build_release()?,
    };
    network::enter_namespace()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(args, &program))
}

pub(super) fn build_release() -> Result<PathBuf> {
    let status = Command::new(env!("CARGO")).args(["build", "--release", "--bin", "tandem"]).status()?;
    ensure!(status.success(), "cargo build --release failed");
    Ok(source_tree().join("target/release/tandem"))
}

async fn measure(args: &PodsArgs, program: &std::path::Path) -> Result<()> {
    let components = Components::find_or_build()?;
    let options = Options {
        // The controller first reads a period after an HPA is made.
        hpa_sync_period: if args.without_hpas { NEVER } else { Duration::from_secs(15) },
        controller_qps: 200,
        ..Options::new(Network::Namespace)
    };
    let control_plane = ControlPlane::start(&components, options).await?;
    let client = control_plane.client();
    let source = Source::start().await?;
    let install = Install::apply(&control_plane).await?;
    let addresses = Addresses::of_services(&install)?;
    let pod = install.pods.first().context("no pod of Tandem")?;
    let mut tandem = Tandem::start(&control_plane, program, pod, addresses, &[]).await?;
    resident("resident memory without an object", tandem.id())?;

    let started = Instant::now();
    create_objects(&client, &source, args.objects).await?;
    await_hpas(&client, args).await?;
    row("objects created and their HPAs there", format!("{:.1} s", started.elapsed().as_secs_f64()));
    eprintln!("settling for {} s", SETTLE.as_secs());
    tokio::time::sleep(SETTLE).await;

    window(args, &client, &source, &tandem).await?;
    from_zero(&client, &source).await?;

    tandem.stop().await?;
    let started = Instant::now();
    tandem = Tandem::spawn(&control_plane, program, pod, addresses, &[]).await?;
    restart(&client, args.objects, started).await?;
    tandem.stop().await?;

    let load = (args.objects, READS_PER_SECOND);
    let mut seen = failover::measure(&control_plane, &install, program, NAMESPACE, load).await?;
    let (failed, all) = (seen.reads.failed, seen.reads.failed + seen.reads.metric.len());
    row("leader killed: reads that failed", format!("{failed} of {all}"));
    row("leader killed: read p99", millis(seen.reads.metric.percentile(99)));
    row("leader killed: another one acts after", format!("{:.1} s", seen.acted_after.as_secs_f64()));
    Ok(())
}

/// The steady state: memory, processor, queries, writes, latencies.
async fn window(args: &PodsArgs, client: &Client, source: &Source, tandem: &Tandem) -> Result<()> {
    let duration = Duration::from_secs(args.seconds);
    let minutes = duration.as_secs_f64() / 60.0;
    #[expect(clippy::cast_precision_loss, reason = "a few thousand objects")]
    let objects = args.objects as f64;
    let (cpu, queries) = (process::processor_time(tandem.id())?, source.queries());
    let (patches, reviews) = (status_writes(client).await?, access_reviews(client).await?);
    let before = scrape(tandem.addresses().metrics).await?;
    let mut reads = read_beside(client, NAMESPACE, args.objects, READS_PER_SECOND, duration).await?;
    let cpu = process::processor_time(tandem.id())?.saturating_sub(cpu);
    let queries = source.queries() - queries;
    let patches = status_writes(client).await? - patches;
    let reviews = access_reviews(client).await? - reviews;

    row("reads that failed", format!("{} of {}", reads.failed, reads.failed + reads.metric.len()));
    for percent in [50, 90, 99] {
        let (metric, control) = (reads.metric.percentile(percent), reads.control.percentile(percent));
        let over = metric.as_secs_f64() - control.as_secs_f64();
        row(
            &format!("metric GET through the aggregator p{percent}"),
            format!("{} (namespace {}, {:+.1} ms)", millis(metric), millis(control), over * 1000.0),
        );
    }
    resident("resident memory", tandem.id())?;
    row("processor time a minute", format!("{:.2} s", cpu.as_secs_f64() / minutes));
    row("source queries an object-minute", format!("{:.2}", float(queries) / objects / minutes));
    row("status writes an object-hour", format!("{:.2}", patches / objects / minutes * 60.0));
    row("SubjectAccessReviews an object-hour", format!("{:.2}", reviews / objects / minutes * 60.0));
    let after = scrape(tandem.addresses().metrics).await?;
    for (what, name) in [
        ("server-side read p99", "tandem_metrics_api_read_duration_seconds"),
        ("age of the samples that HPAs read p99", "tandem_hpa_sample_age_seconds"),
        ("start delay of polls p99", "tandem_poll_start_delay_seconds"),
    ] {
        row(what, bucket_percentile(&before, &after, name, 0.99));
    }
    Ok(())
}

/// 0 → 1: from the answer that said so to the replica that is asked for.
async fn from_zero(client: &Client, source: &Source) -> Result<()> {
    let name = "from-zero";
    create(client, &deployment(name, 0)).await?;
    let mut object = scaled_object(name, source);
    object["spec"]["minReplicaCount"] = json!(0);
    object["spec"]["pollingInterval"] = json!(1);
    source.silence(name);
    create(client, &object).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    source.speak(name);
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let replicas = || async {
        let found = deployments.get(name).await?;
        ensure!(found.spec.replicas == Some(1), "still at 0");
        Ok(Instant::now())
    };
    let scaled = wait::until("0 to 1", Duration::from_secs(20), replicas).await?;
    let seen = source.seen().context("the source was not asked")?;
    row("0 to 1 after the poll that saw it", millis(scaled.saturating_duration_since(seen)));
    Ok(())
}

/// From the start of the process to the first metric served, and to all of them.
async fn restart(client: &Client, objects: usize, started: Instant) -> Result<()> {
    let first = || async { latency::get(client, &latency::metric_path(NAMESPACE, 0)).await };
    wait::until("the first metric", Duration::from_mins(1), first).await?;
    row("restart to the first metric", format!("{:.1} s", started.elapsed().as_secs_f64()));
    let mut missing: Vec<usize> = (0..objects).collect();
    while !missing.is_empty() {
        ensure!(started.elapsed() < Duration::from_mins(2), "{} metrics are not served", missing.len());
        missing = stream::iter(missing)
            .map(|index| async move {
                let read = latency::get(client, &latency::metric_path(NAMESPACE, index)).await;
                read.is_err().then_some(index)
            })
            .buffer_unordered(WRITERS)
            .filter_map(std::future::ready)
            .collect()
            .await;
    }
    row("restart to all metrics", format!("{:.1} s", started.elapsed().as_secs_f64()));
    Ok(())
}

async fn create_objects(client: &Client, source: &Source, objects: usize) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
    namespaces.create(&PostParams::default(), &namespace).await?;
    let written: Vec<Result<()>> = stream::iter(0..objects)
        .map(|index| async move {
            let name = format!("object-{index}");
            create(client, &deployment(&name, 1)).await?;
            create(client, &scaled_object(&name, source)).await
        })
        .buffer_unordered(WRITERS)
        .collect()
        .await;
    written.into_iter().collect()
}

/// Until every object has an HPA, and the controller has read its metric.
async fn await_hpas(client: &Client, args: &PodsArgs) -> Result<()> {
    let hpas: Api<HorizontalPodAutoscaler> = Api::namespaced(client.clone(), NAMESPACE);
    wait::until("all HPAs", Duration::from_mins(10), || async {
        let found = hpas.list(&ListParams::default()).await?;
        let there = found.iter().filter(|hpa| args.without_hpas || is_active(hpa)).count();
        ensure!(there >= args.objects, "{there} of {}", args.objects);
        Ok(())
    })
    .await
}

fn is_active(hpa: &HorizontalPodAutoscaler) -> bool {
    let conditions = hpa.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "ScalingActive" && condition.status == "True")
}

async fn create(client: &Client, object: &Value) -> Result<()> {
    let params = PostParams::default();
    if object["kind"] == "Deployment" {
        let api: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
        api.create(&params, &serde_json::from_value(object.clone())?).await?;
    } else {
        let api: Api<ScaledObject> = Api::namespaced(client.clone(), NAMESPACE);
        api.create(&params, &serde_json::from_value(object.clone())?).await?;
    }
    Ok(())
}

/// A target without pods of its own (paused), so that what is measured is the autoscaling.
fn deployment(name: &str, replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "paused": true, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "app", "image": "app"}]}
            }
        }
    })
}

fn scaled_object(name: &str, source: &Source) -> Value {
    json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"name": name}, "pollingInterval": 30, "minReplicaCount": 1, "maxReplicaCount": 10,
            "triggers": [{"type": "prometheus", "metadata": {
                "serverAddress": source.server.url(), "threshold": "10",
                "query": format!("sum(rate(requests_total{{app=\"{name}\"}}[1m]))")
            }}]
        }
    })
}

/// A Prometheus that answers 5 to every query, after 1 ms.
struct Source {
    server: Server,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    queries: AtomicU64,
    /// Queries that hold this text are answered with 0 while `quiet`.
    probe: Mutex<Option<String>>,
    quiet: AtomicBool,
    seen: Mutex<Option<Instant>>,
}

impl Source {
    async fn start() -> Result<Self> {
        let state = Arc::new(State::default());
        let shared = state.clone();
        let handler = move |request: Request| {
            let state = shared.clone();
            async move { state.answer(&request).await }
        };
        let server = Server::start(SocketAddr::from(([127, 0, 0, 1], 0)), handler).await?;
        Ok(Self { server, state })
    }

    fn queries(&self) -> u64 {
        self.state.queries.load(Ordering::Relaxed)
    }

    fn silence(&self, name: &str) {
        if let Ok(mut probe) = self.state.probe.lock() {
            *probe = Some(name.to_owned());
        }
        self.state.quiet.store(true, Ordering::SeqCst);
    }

    fn speak(&self, _name: &str) {
        self.state.quiet.store(false, Ordering::SeqCst);
    }

    /// When the probe was first answered with a value.
    fn seen(&self) -> Option<Instant> {
        self.state.seen.lock().ok().and_then(|seen| *seen)
    }
}

impl State {
    async fn answer(&self, request: &Request) -> Response {
        self.queries.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(SOURCE_LATENCY).await;
        let query = request.uri().query().unwrap_or_default();
        let probe =
            self.probe.lock().is_ok_and(|probe| probe.as_ref().is_some_and(|name| query.contains(name)));
        let value = if probe && self.quiet.load(Ordering::SeqCst) { "0" } else { "5" };
        if probe
            && value == "5"
            && let Ok(mut seen) = self.seen.lock()
        {
            seen.get_or_insert_with(Instant::now);
        }
        let body = json!({"status": "success", "data": {"resultType": "vector", "result": [
            {"metric": {}, "value": [0, value]}
        ]}});
        answer(200, "application/json", body.to_string())
    }
}

/// Writes of ScaledObjects' status so far, as kube-apiserver counts them.
async fn status_writes(client: &Client) -> Result<f64> {
    let wanted = ["resource=\"scaledobjects\"", "subresource=\"status\"", "verb=\"PATCH\""];
    count(client, &wanted).await
}

/// `SubjectAccessReviews` so far, as kube-apiserver counts them.
async fn access_reviews(client: &Client) -> Result<f64> {
    count(client, &["resource=\"subjectaccessreviews\"", "verb=\"POST\""]).await
}

async fn count(client: &Client, labels: &[&str]) -> Result<f64> {
    let text = client.request_text(http::Request::get("/metrics").body(Vec::new())?).await?;
    let lines = text.lines().filter(|line| line.starts_with("apiserver_request_total{"));
    let lines = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
    Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
}

/// The least bucket bound that `share` of the observations between two scrapes do not exceed.
fn bucket_percentile(before: &str, after: &str, name: &str, share: f64) -> String {
    let (before, after) = (buckets(before, name), buckets(after, name));
    let counts: Vec<(f64, f64)> = after
        .iter()
        .map(|(bound, count)| {
            let former = before.iter().find(|(other, _)| other.total_cmp(bound).is_eq());
            (*bound, count - former.map_or(0.0, |(_, count)| *count))
        })
        .collect();
    let total = counts.iter().map(|(_, count)| *count).fold(0.0, f64::max);
    let bound = counts.iter().find(|(_, count)| total > 0.0 && *count >= total * share);
    bound.map_or_else(
        || "no observation".to_owned(),
        |(bound, _)| format!("≤ {:.1} ms of {total}", bound * 1000.0),
    )
}

/// Bounds and cumulative counts of a histogram.
fn buckets(metrics: &str, name: &str) -> Vec<(f64, f64)> {
    let prefix = format!("{name}_bucket{{le=\"");
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(&prefix)?.split_once("\"} "));
    lines
        .filter_map(|(bound, count)| {
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            Some((bound, count.trim().parse().ok()?))
        })
        .collect()
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
