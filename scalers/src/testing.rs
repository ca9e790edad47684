//! What the tests of the scalers share: inputs, a world, an HTTP server on loopback.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::context::{Cluster, Context};
use crate::error::Error;
use crate::input::{Input, Secret};

/// A trigger of type `kind` with that metadata.
pub(crate) fn input(kind: &str, metadata: &[(&str, &str)]) -> Input {
    Input {
        trigger_type: kind.to_owned(),
        metadata: metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        object_kind: "ScaledObject".to_owned(),
        object_name: "web".to_owned(),
        namespace: "shop".to_owned(),
        ..Input::default()
    }
}

impl Input {
    /// The same with parameters of a `TriggerAuthentication`.
    pub(crate) fn with_auth(mut self, auth: &[(&str, &str)]) -> Self {
        self.auth_params =
            auth.iter().map(|(key, value)| ((*key).to_owned(), Secret::from(*value))).collect();
        self
    }
}

/// A cluster held in maps.
#[derive(Default)]
pub(crate) struct World {
    /// By namespace, selector, by-node.
    pub(crate) pods: BTreeMap<(String, String, bool), i64>,
    /// By kind, namespace, name; `None` at a key is an object without it.
    pub(crate) values: BTreeMap<(&'static str, String, String), BTreeMap<String, String>>,
    /// By namespace and service.
    pub(crate) endpoints: BTreeMap<(String, String), Vec<String>>,
}

impl World {
    fn value(
        &self,
        kind: &'static str,
        namespace: &str,
        name: &str,
        key: &str,
    ) -> Result<Option<String>, Error> {
        self.values
            .get(&(kind, namespace.to_owned(), name.to_owned()))
            .map(|data| data.get(key).cloned())
            .ok_or_else(|| Error::Cluster(format!("{kind} {namespace}/{name} not found")))
    }
}

#[async_trait]
impl Cluster for World {
    async fn count_pods(&self, namespace: &str, selector: &str, by_node: bool) -> Result<i64, Error> {
        Ok(self.pods.get(&(namespace.to_owned(), selector.to_owned(), by_node)).copied().unwrap_or_default())
    }

    async fn config_map_value(
        &self,
        namespace: &str,
        name: &str,
        key: &str,
    ) -> Result<Option<String>, Error> {
        self.value("ConfigMap", namespace, name, key)
    }

    async fn secret_value(&self, namespace: &str, name: &str, key: &str) -> Result<Option<String>, Error> {
        self.value("Secret", namespace, name, key)
    }

    async fn service_endpoints(&self, namespace: &str, service: &str) -> Result<Vec<String>, Error> {
        Ok(self.endpoints.get(&(namespace.to_owned(), service.to_owned())).cloned().unwrap_or_default())
    }
}

/// A context for one test.
pub(crate) struct Fixture {
    pub(crate) context: Context,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::of(World::default())
    }

    pub(crate) fn of(world: World) -> Self {
        Self { context: Context::new(Arc::new(world)).unwrap() }
    }

    /// With the clock stopped.
    pub(crate) fn at(now: &str) -> Self {
        let mut fixture = Self::new();
        // `Context::now` is a plain function, so each instant needs its own; a thread's tests share none.
        thread_local!(static NOW: std::cell::Cell<Timestamp> = const { std::cell::Cell::new(Timestamp::UNIX_EPOCH) });
        NOW.set(now.parse().unwrap());
        fixture.context.now = || NOW.get();
        fixture
    }
}

/// One request that the [`Server`] saw.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// An HTTP/1.1 server on loopback that answers each request by a function and remembers all.
pub(crate) struct Server {
    pub(crate) address: String,
    requests: Arc<Mutex<Vec<Request>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Answers everything the same.
    pub(crate) async fn answering(status: u16, body: &str) -> Self {
        let body = body.to_owned();
        Self::start(move |_| (status, body.clone())).await
    }

    pub(crate) async fn start(answer: impl Fn(&Request) -> (u16, String) + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", answer).await
    }

    pub(crate) async fn start_at(
        address: &str,
        answer: impl Fn(&Request) -> (u16, String) + Send + Sync + 'static,
    ) -> Self {
        Self::serve(address, None, answer).await
    }

    /// Speaks TLS, with an empty answer to everything.
    pub(crate) async fn start_tls(tls: rustls::ServerConfig) -> Self {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        Self::serve("127.0.0.1:0", Some(acceptor), |_| (200, String::new())).await
    }

    async fn serve(
        address: &str,
        tls: Option<tokio_rustls::TlsAcceptor>,
        answer: impl Fn(&Request) -> (u16, String) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (requests.clone(), Arc::new(answer));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, answer, tls) = (seen.clone(), answer.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => converse(stream, &seen, &*answer).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                converse(stream, &seen, &*answer).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, requests, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request, one answer.
async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: &Mutex<Vec<Request>>,
    answer: &(impl Fn(&Request) -> (u16, String) + Send + Sync),
) {
    let Some(request) = read_request(&mut stream).await else {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        return;
    };
    let (status, body) = answer(&request);
    seen.lock().unwrap().push(request);
    let length = body.len();
    let head = format!("HTTP/1.1 {status} -\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    let _ = stream.write_all((head + &body).as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        let read = stream.read_buf(&mut bytes).await.ok()?;
        // A TLS handshake starts with a byte that no method has.
        if read == 0 || !bytes[0].is_ascii_uppercase() {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while bytes.len() < head + 4 + length {
        stream.read_buf(&mut bytes).await.ok()?;
    }
    let body = String::from_utf8_lossy(&bytes[head + 4..]).into_owned();
    Some(Request { method, target, headers, body })
}

impl Request {
    /// The query's fields, decoded.
    pub(crate) fn query(&self) -> BTreeMap<String, String> {
        let url = reqwest::Url::parse(&format!("http://host{}", self.target)).unwrap();
        url.query_pairs().into_owned().collect()
    }
}
