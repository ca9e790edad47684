//! A fake external scaler on loopback.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::externalscaler::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec, MetricValue,
    ScaledObjectRef,
};

/// The server, and what it is told to say.
pub(crate) struct Fake {
    pub(crate) address: String,
    /// PEM of the authority that signed its certificate, when it speaks TLS.
    pub(crate) ca: Option<String>,
    state: Arc<State>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    said: Mutex<Said>,
    asked: Mutex<Option<GetMetricsRequest>>,
    opened: watch::Sender<Vec<(String, Instant)>>,
    active: Pipe<IsActiveResponse>,
    specs: Pipe<GetMetricSpecResponse>,
}

#[derive(Default)]
struct Said {
    specs: GetMetricSpecResponse,
    values: GetMetricsResponse,
    active: bool,
    refusal: Option<Status>,
    without: Vec<String>,
    streams_break: bool,
}

/// Messages on their way into a stream.
struct Pipe<A> {
    sender: mpsc::Sender<A>,
    receiver: Arc<tokio::sync::Mutex<mpsc::Receiver<A>>>,
}

impl<A: Send + 'static> Pipe<A> {
    fn new() -> Self {
        let (sender, receiver) = mpsc::channel(8);
        Self { sender, receiver: Arc::new(tokio::sync::Mutex::new(receiver)) }
    }

    fn stream(&self) -> BoxStream<'static, Result<A, Status>> {
        futures::stream::unfold(self.receiver.clone(), |receiver| async move {
            let message = receiver.lock().await.recv().await?;
            Some((Ok(message), receiver))
        })
        .boxed()
    }
}

fn specs(specs: &[(&str, i64, f64)]) -> GetMetricSpecResponse {
    let spec = |(name, target_size, target_size_float): &(&str, i64, f64)| MetricSpec {
        metric_name: (*name).to_owned(),
        target_size: *target_size,
        target_size_float: *target_size_float,
    };
    GetMetricSpecResponse { metric_specs: specs.iter().map(spec).collect() }
}

impl Fake {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    pub(crate) async fn start_at(address: &str) -> Self {
        Self::serve(address, Server::builder(), None).await
    }

    pub(crate) async fn start_tls() -> Self {
        let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let pem = signed.cert.pem();
        let identity = Identity::from_pem(&pem, signed.signing_key.serialize_pem());
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
        Self::serve("127.0.0.1:0", server, Some(pem)).await
    }

    async fn serve(address: &str, mut server: Server, ca: Option<String>) -> Self {
        let state = Arc::new(State {
            said: Mutex::default(),
            asked: Mutex::default(),
            opened: watch::Sender::default(),
            active: Pipe::new(),
            specs: Pipe::new(),
        });
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = server.add_service(Handler(state.clone()));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            router.serve_with_incoming_shutdown(TcpIncoming::from(listener), stopped).await.unwrap();
        });
        Self { address, ca, state, stop: Some(stop), task }
    }

    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        let _ = (&mut self.task).await;
    }

    fn say(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.state.said.lock().unwrap());
    }

    pub(crate) fn specs(&self, all: &[(&str, i64, f64)]) {
        self.say(|said| said.specs = specs(all));
    }

    pub(crate) fn values(&self, values: &[(i64, f64)]) {
        let value = |(metric_value, metric_value_float): &(i64, f64)| MetricValue {
            metric_name: "any".to_owned(),
            metric_value: *metric_value,
            metric_value_float: *metric_value_float,
        };
        self.say(|said| said.values.metric_values = values.iter().map(value).collect());
    }

    pub(crate) fn active(&self, active: bool) {
        self.say(|said| said.active = active);
    }

    pub(crate) fn refuse(&self, status: Status) {
        self.say(|said| said.refusal = Some(status));
    }

    pub(crate) fn without(&self, method: &str) {
        self.say(|said| said.without.push(method.to_owned()));
    }

    pub(crate) fn break_streams(&self) {
        self.say(|said| said.streams_break = true);
    }

    pub(crate) fn asked(&self) -> GetMetricsRequest {
        self.state.asked.lock().unwrap().clone().unwrap()
    }

    pub(crate) async fn push_active(&self, result: bool) {
        self.state.active.sender.send(IsActiveResponse { result }).await.unwrap();
    }

    pub(crate) async fn push_specs(&self, all: &[(&str, i64, f64)]) {
        self.state.specs.sender.send(specs(all)).await.unwrap();
    }

    /// When the first `count` calls of a method came.
    pub(crate) async fn opened(&self, method: &str, count: usize) -> Vec<Instant> {
        let of = |calls: &Vec<(String, Instant)>| -> Vec<Instant> {
            calls.iter().filter(|(name, _)| name == method).map(|(_, at)| *at).collect()
        };
        let mut opened = self.state.opened.subscribe();
        let calls = opened.wait_for(|calls| of(calls).len() >= count).await.unwrap();
        of(&calls).into_iter().take(count).collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Handler(Arc<State>);

impl NamedService for Handler {
    const NAME: &'static str = "externalscaler.ExternalScaler";
}

impl Service<http::Request<Body>> for Handler {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let state = self.0.clone();
        Box::pin(async move { Ok(state.answer(request).await) })
    }
}

impl State {
    async fn answer(self: Arc<Self>, request: http::Request<Body>) -> http::Response<Body> {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        self.opened.send_modify(|calls| calls.push((method.clone(), Instant::now())));
        let (refusal, streams_break) = {
            let said = self.said.lock().unwrap();
            let missing = said.without.contains(&method).then(|| Status::unimplemented(""));
            (missing.or_else(|| said.refusal.clone()), said.streams_break)
        };
        if let Some(status) = refusal {
            return status.into_http();
        }
        if streams_break && method.starts_with("Stream") {
            return Status::internal("broken").into_http();
        }
        match method.as_str() {
            "IsActive" => {
                let result = self.said.lock().unwrap().active;
                unary::<ScaledObjectRef, _>(request, move |_| IsActiveResponse { result }).await
            }
            "GetMetricSpec" => {
                let specs = self.said.lock().unwrap().specs.clone();
                unary::<ScaledObjectRef, _>(request, move |_| specs.clone()).await
            }
            "GetMetrics" => {
                let values = self.said.lock().unwrap().values.clone();
                let state = self.clone();
                unary(request, move |asked| {
                    *state.asked.lock().unwrap() = Some(asked);
                    values.clone()
                })
                .await
            }
            "StreamIsActive" => stream(request, self.active.stream()).await,
            "StreamMetricSpec" => stream(request, self.specs.stream()).await,
            _ => Status::unimplemented("").into_http(),
        }
    }
}

async fn unary<Q, A>(
    request: http::Request<Body>,
    answer: impl Fn(Q) -> A + Clone + Send + 'static,
) -> http::Response<Body>
where
    Q: prost::Message + Default + 'static,
    A: prost::Message + 'static,
{
    let service = tower::service_fn(move |request: Request<Q>| {
        let answer = answer(request.into_inner());
        async move { Ok::<_, Status>(Response::new(answer)) }
    });
    Grpc::new(ProstCodec::<A, Q>::default()).unary(service, request).await
}

async fn stream<A>(
    request: http::Request<Body>,
    answers: BoxStream<'static, Result<A, Status>>,
) -> http::Response<Body>
where
    A: prost::Message + 'static,
{
    let answers = Mutex::new(Some(answers));
    let service = tower::service_fn(move |_: Request<ScaledObjectRef>| {
        let answers = answers.lock().unwrap().take();
        async move { answers.map(Response::new).ok_or_else(|| Status::internal("called twice")) }
    });
    Grpc::new(ProstCodec::<A, ScaledObjectRef>::default()).server_streaming(service, request).await
}
