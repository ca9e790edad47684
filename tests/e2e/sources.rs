//! Sources that answer late or wrongly disturb nobody else, and never the replicas that run.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::http::{self, Server};
use harness::install::pod_address;
use harness::wait;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::case::{Case, SOON, prometheus};

/// What an instant query answers.
fn vector(values: &[&str]) -> String {
    let series = |(index, value): (usize, &&str)| json!({ "metric": { "pod": index }, "value": [0, value] });
    let result: Vec<Value> = values.iter().enumerate().map(series).collect();
    json!({ "status": "success", "data": { "resultType": "vector", "result": result } }).to_string()
}

/// A source whose answer, and the time it takes, can be changed.
struct Source {
    server: Server,
    answer: Arc<Mutex<(String, Duration)>>,
}

impl Source {
    async fn start() -> Result<Self> {
        let answer = Arc::new(Mutex::new((vector(&["30"]), Duration::ZERO)));
        let given = Arc::clone(&answer);
        let server = Server::start((Ipv4Addr::LOCALHOST, 0).into(), move |_| {
            let (body, delay) = given.lock().unwrap_or_else(PoisonError::into_inner).clone();
            async move {
                tokio::time::sleep(delay).await;
                http::answer(200, "application/json", body)
            }
        })
        .await?;
        Ok(Self { server, answer })
    }

    fn set(&self, body: String, delay: Duration) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = (body, delay);
    }
}

/// Every pod behind a Service is asked at its own address, and their numbers are added up.
pub(crate) async fn service_endpoints(case: &Case<'_>) -> Result<()> {
    case.deployment("queue", 2).await?;
    let ports = json!([{ "name": "http", "port": QUEUE_PORT }]);
    let spec = json!({ "selector": { "app": "queue" }, "ports": ports });
    case.apply(
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "queue" }, "spec": spec }),
    )
    .await?;
    let mut servers = Vec::new();
    for (address, length) in pod_addresses(case, "queue", 2).await?.into_iter().zip([12, 18]) {
        let answer = move |_| async move {
            http::answer(200, "application/json", json!({ "length": length }).to_string())
        };
        servers.push(Server::start((address, QUEUE_PORT).into(), answer).await?);
    }

    case.deployment("workers", 1).await?;
    let url = format!("http://queue.{}.svc.cluster.local:{QUEUE_PORT}/", case.namespace);
    let trigger = json!({ "type": "metrics-api", "metadata": {
        "url": url, "valueLocation": "length", "targetValue": "10",
        "aggregateFromKubeServiceEndpoints": "true", "aggregationType": "sum",
    } });
    case.scaled_object("workers", json!({ "triggers": [trigger] })).await?;
    case.wait_replicas("workers", 3).await
}

/// Where the pods of [`service_endpoints`] answer.
const QUEUE_PORT: u16 = 8080;

async fn pod_addresses(case: &Case<'_>, app: &str, count: usize) -> Result<Vec<IpAddr>> {
    let pods: Api<Pod> = Api::namespaced(case.client(), &case.namespace);
    let selector = ListParams::default().labels(&format!("app={app}"));
    wait::until("addresses of the pods", SOON, || async {
        let addresses: Vec<IpAddr> =
            pods.list(&selector).await?.items.iter().filter_map(|pod| pod_address(pod).ok()).collect();
        ensure!(addresses.len() == count, "{addresses:?}");
        Ok(addresses)
    })
    .await
}

async fn at_three(case: &Case<'_>, source: &Source, extra: Value) -> Result<()> {
    case.deployment("shop", 1).await?;
    let mut trigger = prometheus(&source.server.url(), "up", "10");
    if let (Some(metadata), Value::Object(extra)) = (trigger["metadata"].as_object_mut(), extra) {
        metadata.extend(extra);
    }
    case.scaled_object("shop", json!({ "minReplicaCount": 1, "triggers": [trigger] })).await?;
    case.wait_replicas("shop", 3).await
}

/// Answers take 10 s, the deadline is 3 s.
pub(crate) async fn slow(case: &Case<'_>) -> Result<()> {
    let source = Source::start().await?;
    at_three(case, &source, json!({})).await?;
    source.set(vector(&["0"]), Duration::from_secs(10));
    case.wait_condition("shop", "Ready", "False", "TriggerError").await?;

    // A neighbour on a quick source is as quick as ever.
    case.set_requests(0).await?;
    case.deployment("neighbour", 1).await?;
    let trigger = case.prometheus(&case.requests(), "10");
    case.scaled_object("neighbour", json!({ "cooldownPeriod": 0, "triggers": [trigger] })).await?;
    case.wait_replicas("neighbour", 0).await?;
    let asked = Instant::now();
    case.set_requests(10).await?;
    case.wait_replicas("neighbour", 1).await?;
    ensure!(asked.elapsed() < Duration::from_secs(6), "the neighbour took {:?} from 0 to 1", asked.elapsed());

    case.replicas_stay("shop", 3, Duration::from_secs(8)).await?;
    source.set(vector(&["20"]), Duration::ZERO);
    case.wait_replicas("shop", 2).await?;
    case.wait_condition("shop", "Ready", "True", "").await?;
    Ok(())
}

/// An address at which nobody answers, or somebody who speaks something else: the event says what was seen, where, and
/// what to do about it. The pods that run go on.
pub(crate) async fn out_of_reach(case: &Case<'_>) -> Result<()> {
    let nobody = harness::network::free_address()?;
    let mail = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mail_address = mail.local_addr()?;
    let greeting = tokio::spawn(async move {
        while let Ok((mut stream, _)) = mail.accept().await {
            let _ = stream.write_all(b"220 mail ready\r\n").await;
        }
    });
    let plain = Source::start().await?;
    let not_tls = plain.server.url().replace("http://", "https://");
    // Its port is that of https.
    let unknown_authority = format!("https://{}", case.world.install.metrics_api.ip());
    // (the object, its source, what the event must name)
    let cases = [
        ("nobody", format!("http://{nobody}"), "cannot reach http://"),
        ("mail", format!("http://{mail_address}"), "does not speak HTTP"),
        ("plain", not_tls, "the server does not speak TLS on this port"),
        (
            "stranger",
            unknown_authority,
            "signed by an unknown authority; give its CA in a TriggerAuthentication",
        ),
    ];
    for (name, server, _) in &cases {
        case.deployment(name, 2).await?;
        let trigger = prometheus(server, "up", "10");
        case.scaled_object(name, json!({ "minReplicaCount": 1, "triggers": [trigger] })).await?;
    }
    for (name, server, said) in &cases {
        case.wait_condition(name, "Ready", "False", "TriggerError").await?;
        let note = case.wait_event(name, "KEDAScalerFailed", said).await?;
        ensure!(note.starts_with("s0-prometheus: ") && note.contains(server), "{note}");
        case.replicas_stay(name, 2, Duration::from_secs(1)).await?;
    }

    // Another failure is told beside the first one.
    let elsewhere = prometheus(&plain.server.url(), "up", "10");
    plain.set("<html>".to_owned(), Duration::ZERO);
    case.patch("nobody", json!({ "spec": { "triggers": [elsewhere] } })).await?;
    case.wait_event("nobody", "KEDAScalerFailed", "is serverAddress right?").await?;
    greeting.abort();
    Ok(())
}

pub(crate) async fn wrong(case: &Case<'_>) -> Result<()> {
    let source = Source::start().await?;
    at_three(case, &source, json!({ "ignoreNullValues": "false" })).await?;
    let many: Vec<&str> = std::iter::repeat_n("1", 500).collect();
    let answers = [
        ("garbage", "<html>it works</html>".to_owned()),
        ("an error", json!({ "status": "error", "error": "no" }).to_string()),
        ("many series", vector(&many)),
        ("NaN", vector(&["NaN"])),
        ("nothing", vector(&[])),
    ];
    for (what, body) in answers {
        source.set(body, Duration::ZERO);
        case.wait_condition("shop", "Ready", "False", "TriggerError")
            .await
            .map_err(|error| error.context(what))?;
        case.replicas_stay("shop", 3, Duration::from_secs(4)).await.map_err(|error| error.context(what))?;
        source.set(vector(&["30"]), Duration::ZERO);
        case.wait_condition("shop", "Ready", "True", "").await.map_err(|error| error.context(what))?;
    }

    // By default nothing and NaN count as 0.
    let trigger = prometheus(&source.server.url(), "up", "10");
    case.patch("shop", json!({ "spec": { "triggers": [trigger] } })).await?;
    source.set(vector(&["NaN"]), Duration::ZERO);
    case.wait_replicas("shop", 1).await
}
