//! The plain-HTTP endpoints: probes (`/healthz`, `/readyz`) and `/metrics`.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A peer that has not sent its request line by then is dropped: a probe needs milliseconds.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers a path with a status, a content type and a body; `None` is 404.
pub type Answer = Arc<dyn Fn(&str) -> Option<(StatusCode, &'static str, String)> + Send + Sync>;

/// Binds `address`.
///
/// # Errors
/// The address is in use or not ours.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves `answer` until `shutdown`.
pub async fn serve(listener: TcpListener, answer: Answer, shutdown: CancellationToken) {
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let response = respond(&answer, request.uri().path());
                async move { Ok::<_, Infallible>(response) }
            });
            let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "probe connection ended");
            }
        });
    }
}

fn respond(answer: &Answer, path: &str) -> Response<Full<Bytes>> {
    let (status, content_type, body) =
        answer(path).unwrap_or((StatusCode::NOT_FOUND, "text/plain", "not found\n".to_owned()));
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}
