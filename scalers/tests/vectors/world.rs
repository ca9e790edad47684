//! The world of a case: a clock, a Service, an HTTP server on loopback.

use std::cell::Cell;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use scalers::{Cluster, Context, Error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

thread_local!(static NOW: Cell<Option<Timestamp>> = const { Cell::new(None) });

/// A cluster with one Service at most.
struct World {
    endpoints: Vec<String>,
}

/// A context whose clock stands still when `now` is given.
pub(crate) fn context(now: Option<Timestamp>, endpoints: Vec<String>) -> Context {
    NOW.set(now);
    let mut context = Context::new(Arc::new(World { endpoints })).unwrap();
    context.now = || NOW.get().unwrap_or_else(Timestamp::now);
    context
}

#[async_trait]
impl Cluster for World {
    async fn count_pods(&self, _: &str, _: &str, _: bool) -> Result<i64, Error> {
        Err(Error::Cluster("no pods here".to_owned()))
    }

    async fn config_map_value(&self, _: &str, _: &str, _: &str) -> Result<Option<String>, Error> {
        Err(Error::Cluster("no ConfigMaps here".to_owned()))
    }

    async fn secret_value(&self, _: &str, _: &str, _: &str) -> Result<Option<String>, Error> {
        Err(Error::Cluster("no Secrets here".to_owned()))
    }

    async fn service_endpoints(&self, _: &str, _: &str) -> Result<Vec<String>, Error> {
        Ok(self.endpoints.clone())
    }
}

/// Answers every request the same; remembers the head of each.
pub(crate) struct Server {
    pub(crate) address: String,
    heads: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(address: &str, status: u64, body: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status} -\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = Vec::new();
                while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
                    if stream.read_buf(&mut bytes).await.unwrap_or_default() == 0 {
                        break;
                    }
                }
                seen.lock().unwrap().push(String::from_utf8_lossy(&bytes).into_owned());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { address, heads, task }
    }

    /// The head of the first request.
    pub(crate) fn head(&self) -> String {
        self.heads.lock().unwrap().first().cloned().unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
