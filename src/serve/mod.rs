//! The TLS server that the metrics API and the admission webhooks share: one accept loop, HTTP/1.1 and HTTP/2,
//! client certificates asked for but not required, certificates swapped without a restart.
//!
//! Why not a web framework: authentication by front proxy needs the peer's certificates beside each request, and
//! three routes need no router.

mod tls;

use std::{convert::Infallible, io, panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

pub use self::tls::{
    CertificateError, CertificateResolver, PeerCertificates, parse_certificates, server_config,
};

/// A peer that has not finished its TLS handshake by then is dropped: it holds memory and asks for nothing.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for a request's headers on HTTP/1.1. It also closes idle connections, so it stands above the 15 s
/// at which an HPA comes back.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// HTTP/2 ping interval, and how long its answer may take: finds peers that vanished without closing.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Requests that one HTTP/2 connection may have open. kube-apiserver multiplexes all its clients on one connection;
/// 250 is the value of its own server (k8s.io/apiserver, `SecureServingOptions.HTTP2MaxStreamsPerConnection`).
const STREAMS_PER_CONNECTION: u32 = 250;

/// Bytes of headers that an HTTP/2 request may have. The front proxy names each of a user's groups in one, and users
/// of large identity providers are in hundreds.
const HEADER_LIST_SIZE: u32 = 256 * 1024;

/// Requests in flight get this long to finish after shutdown was asked for; shorter than the 30 s that a pod has.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a failed accept (out of file descriptors, say), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `handler` on `listener` until `shutdown`, then lets open requests finish (at most 10 s).
///
/// `handler` gets each request with the certificates its peer presented. The peer proved that it holds the key of
/// the first one; who signed it, whether it has expired and what it may be used for is for the handler to verify.
/// A panic of the handler is answered 500; an error on a connection ends that connection only.
pub async fn serve<H, F>(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    handler: H,
    shutdown: CancellationToken,
) where
    H: Fn(Request<Incoming>, PeerCertificates) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(tls);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(
                        stream,
                        acceptor.clone(),
                        handler.clone(),
                        shutdown.clone(),
                    ));
                }
                Err(error) if is_of_one_connection(&error) => debug!(%error, "connection lost before accept"),
                Err(error) => {
                    warn!(%error, "cannot accept connections");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let drained = timeout(DRAIN_TIMEOUT, async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    });
    if drained.await.is_err() {
        warn!(open = connections.len(), "connections cut: their requests did not finish in time");
    }
}

async fn serve_connection<H, F>(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    handler: H,
    shutdown: CancellationToken,
) where
    H: Fn(Request<Incoming>, PeerCertificates) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    // Answers are small and waited for: never hold one back for more to send.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot set TCP_NODELAY");
    }
    let stream = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%error, "TLS handshake failed"),
        Err(_) => return debug!("TLS handshake timed out"),
    };
    let (_, session) = stream.get_ref();
    let http2 = session.alpn_protocol() == Some(tls::ALPN_HTTP2);
    let peer = PeerCertificates::new(session.peer_certificates());

    let service = service_fn(move |request: Request<Incoming>| {
        let (handler, peer) = (handler.clone(), peer.clone());
        let without_body = request.method() == Method::HEAD;
        async move {
            let answer = AssertUnwindSafe(async { handler(request, peer).await }).catch_unwind().await;
            let answer = answer.unwrap_or_else(|_| panicked());
            Ok::<_, Infallible>(if without_body { answer.map(|_| Full::default()) } else { answer })
        }
    });
    let builder = connection_builder(http2);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}

/// The protocol was agreed on in the handshake, so it is not guessed from the first bytes: guessing has no deadline.
fn connection_builder(http2: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL)
        .max_header_list_size(HEADER_LIST_SIZE)
        .max_concurrent_streams(STREAMS_PER_CONNECTION);
    if http2 { builder.http2_only() } else { builder.http1_only() }
}

/// Errors that concern the connection at hand, not the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// The panic hook has logged where and why; here the connection lives on.
fn panicked() -> Response<Full<Bytes>> {
    error!("request handler panicked");
    let mut response = Response::new(Full::from("internal error"));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        error!(%error, "connection task failed");
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
