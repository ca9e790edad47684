//! A server of the protocol on loopback, that says what it is told to.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use prost::Message;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::{
    Request, Response, Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{Service, http},
    server::{Grpc, NamedService},
    transport::{Certificate, Identity, Server, ServerTlsConfig, server::TcpIncoming},
};

/// What a method does.
#[derive(Clone)]
pub(super) enum Does {
    /// It answers this message, as bytes.
    Answers(Vec<u8>),
    /// It fails.
    Fails(Status),
    /// It never answers.
    Hangs,
}

/// The server, the file of `--cloud-config` that names it, and what it was asked.
pub(super) struct Fake {
    pub(super) folder: TempDir,
    pub(super) address: String,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    does: Mutex<BTreeMap<String, Does>>,
    asked: Mutex<Vec<(String, Vec<u8>)>>,
}

/// Messages as they stand on the wire.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

impl Fake {
    pub(super) async fn start() -> Self {
        Self::serve("127.0.0.1:0", Server::builder(), tempfile::tempdir().unwrap(), "").await
    }

    /// On an address that is known before, without TLS.
    pub(super) async fn start_at(address: &str) -> Self {
        Self::serve(address, Server::builder(), tempfile::tempdir().unwrap(), "").await
    }

    /// With TLS, for clients whose certificate its authority signed.
    pub(super) async fn start_mutual_tls() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let authority = harness::certificates::Authority::new(folder.path(), "ca").unwrap();
        let server = authority.server("server", &["127.0.0.1"]).unwrap();
        authority.client("client", "tandem", &[]).unwrap();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(server.certificate, server.key))
            .client_ca_root(Certificate::from_pem(&authority.certificate));
        let file = |name: &str| folder.path().join(name).display().to_string();
        let files = format!(
            "cacert: {}\ncert: {}\nkey: {}\n",
            file("ca.crt"),
            file("client.crt"),
            file("client.key")
        );
        Self::serve("127.0.0.1:0", Server::builder().tls_config(tls).unwrap(), folder, &files).await
    }

    async fn serve(address: &str, mut server: Server, folder: TempDir, files: &str) -> Self {
        let state = Arc::new(State::default());
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        fs::write(folder.path().join("cloud.yaml"), format!("address: {address}\n{files}")).unwrap();
        let router = server.add_service(Handler(state.clone()));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            router.serve_with_incoming_shutdown(TcpIncoming::from(listener), stopped).await.unwrap();
        });
        Self { folder, address, state, stop: Some(stop), task }
    }

    /// Returns when nothing listens any more and no connection is left.
    pub(super) async fn stop(mut self) {
        drop(self.stop.take());
        let _ = (&mut self.task).await;
    }

    pub(super) fn does(&self, method: &str, does: Does) {
        self.state.does.lock().insert(method.to_owned(), does);
    }

    pub(super) fn answers(&self, method: &str, message: &impl Message) {
        self.does(method, Does::Answers(message.encode_to_vec()));
    }

    /// The messages that a method was asked with.
    pub(super) fn asked<M: Message + Default>(&self, method: &str) -> Vec<M> {
        let asked = self.state.asked.lock();
        let of_method = asked.iter().filter(|(name, _)| name == method);
        of_method.map(|(_, bytes)| M::decode(&bytes[..]).unwrap()).collect()
    }

    pub(super) fn methods_asked(&self) -> Vec<String> {
        self.state.asked.lock().iter().map(|(name, _)| name.clone()).collect()
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
    const NAME: &'static str = "clusterautoscaler.cloudprovider.v1.externalgrpc.CloudProvider";
}

impl Service<http::Request<Body>> for Handler {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let state = self.0.clone();
        Box::pin(async move { Ok(state.answer(request).await) })
    }
}

impl State {
    /// What was not told answers Unimplemented.
    async fn answer(self: Arc<Self>, request: http::Request<Body>) -> http::Response<Body> {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let service = tower::service_fn(move |request: Request<Vec<u8>>| {
            let does = self.does.lock().get(&method).cloned();
            self.asked.lock().push((method.clone(), request.into_inner()));
            async move {
                match does {
                    Some(Does::Answers(bytes)) => Ok(Response::new(bytes)),
                    Some(Does::Fails(status)) => Err(status),
                    Some(Does::Hangs) => std::future::pending().await,
                    None => Err(Status::unimplemented("")),
                }
            }
        });
        Grpc::new(Raw).unary(service, request).await
    }
}
