//! A gRPC server of the user's, as the HTTP add-on of KEDA is one: `externalscaler.ExternalScaler` on the wire.

use std::{
    convert::Infallible,
    task::{Context as Cx, Poll},
    time::Duration,
};

use anyhow::{Result, ensure};
use futures::{StreamExt, future::BoxFuture, stream};
use prost::Message;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{Service, http},
    server::{Grpc, NamedService},
    transport::{Server, server::TcpIncoming},
};

use crate::case::Case;
use crate::providers_external_grpc::Raw;

/// `IsActiveResponse`
#[derive(Clone, PartialEq, Message)]
struct Activity {
    #[prost(bool, tag = "1")]
    result: bool,
}

/// `GetMetricSpecResponse` with its one `MetricSpec`, and `GetMetricsResponse` with its one `MetricValue`: both are a name
/// and two numbers.
#[derive(Clone, PartialEq, Message)]
struct Metrics {
    #[prost(message, repeated, tag = "1")]
    metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "2")]
    whole: i64,
}

/// What the server says, and how often it was asked for its metrics.
#[derive(Clone, Copy, Default)]
struct Said {
    active: bool,
    target: i64,
    value: i64,
    asked_for_specs: u32,
}

/// A push wakes the workload long before the next poll; another target reaches the HPA; and a server that says its metrics
/// with every stream, as the protocol has it, is not asked for them over and over.
pub(crate) async fn wakes_and_changes_its_metrics(case: &Case<'_>) -> Result<()> {
    let said = watch::Sender::new(Said { target: 10, ..Said::default() });
    let address = serve(said.clone()).await?;
    case.deployment("shop", 1).await?;
    let trigger =
        json!({ "type": "external-push", "metadata": { "scalerAddress": address, "queue": "orders" } });
    case.scaled_object("shop", json!({ "pollingInterval": 300, "triggers": [trigger] })).await?;
    case.wait_replicas("shop", 0).await?;

    said.send_modify(|said| (said.active, said.value) = (true, 30));
    case.wait_event("shop", "KEDAScaleTargetActivated", "from 0 to 1, triggered by s0-orders").await?;
    case.wait_replicas("shop", 3).await?;

    said.send_modify(|said| said.target = 15);
    case.wait_replicas("shop", 2).await?;
    case.replicas_stay("shop", 2, Duration::from_secs(3)).await?;
    let asked = said.borrow().asked_for_specs;
    ensure!((4..=8).contains(&asked), "two replicas asked {asked} times for the metrics, which changed once");
    Ok(())
}

async fn serve(said: watch::Sender<Said>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let server = Server::builder().add_service(Handler(said));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    Ok(address)
}

#[derive(Clone)]
struct Handler(watch::Sender<Said>);

impl NamedService for Handler {
    const NAME: &'static str = "externalscaler.ExternalScaler";
}

impl Service<http::Request<Body>> for Handler {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Cx<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let said = self.0.clone();
        Box::pin(async move { Ok(answer(&said, request).await) })
    }
}

async fn answer(said: &watch::Sender<Said>, request: http::Request<Body>) -> http::Response<Body> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let now = *said.borrow();
    match method.as_str() {
        "IsActive" => unary(request, activity(now)).await,
        "GetMetrics" => unary(request, metrics(now.value)).await,
        "GetMetricSpec" => {
            said.send_modify(|said| said.asked_for_specs += 1);
            unary(request, metrics(now.target)).await
        }
        "StreamIsActive" => streaming(request, said.subscribe(), |said| said.active, activity).await,
        "StreamMetricSpec" => {
            streaming(request, said.subscribe(), |said| said.target, |said| metrics(said.target)).await
        }
        _ => Status::unimplemented(method).into_http(),
    }
}

fn activity(said: Said) -> Vec<u8> {
    Activity { result: said.active }.encode_to_vec()
}

fn metrics(whole: i64) -> Vec<u8> {
    Metrics { metrics: vec![Metric { name: "orders".to_owned(), whole }] }.encode_to_vec()
}

async fn unary(request: http::Request<Body>, answer: Vec<u8>) -> http::Response<Body> {
    let service = tower::service_fn(move |_: Request<Vec<u8>>| {
        let answer = answer.clone();
        async move { Ok::<_, Status>(Response::new(answer)) }
    });
    Grpc::new(Raw).unary(service, request).await
}

/// The present message at once, and another whenever what `of` gives has changed.
async fn streaming<T: PartialEq + Send + Sync + 'static>(
    request: http::Request<Body>,
    said: watch::Receiver<Said>,
    of: fn(&Said) -> T,
    message: fn(Said) -> Vec<u8>,
) -> http::Response<Body> {
    let service = tower::service_fn(move |_: Request<Vec<u8>>| {
        let messages = stream::unfold((said.clone(), None), move |(mut said, before)| async move {
            let now = *said.wait_for(|now| before.as_ref() != Some(&of(now))).await.ok()?;
            Some((Ok::<_, Status>(message(now)), (said, Some(of(&now)))))
        });
        async move { Ok::<_, Status>(Response::new(messages.boxed())) }
    });
    Grpc::new(Raw).server_streaming(service, request).await
}
