//! What is served without TLS: `/metrics`, and the probes.

use std::sync::Arc;

use hyper::StatusCode;
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Ready, bind};
use crate::{
    cli::run::RunArgs,
    controllers::nodes::groups::liveness::Liveness,
    telemetry::{http, http::Answer, metrics},
};

/// `/metrics`, `/health-check`, `/healthz`, `/livez` and `/readyz`, where the flags have them.
pub(super) async fn serve(
    args: &RunArgs,
    (ready, liveness): (Ready, Option<Arc<Liveness>>),
    registry: Registry,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let own = args.metrics_bind_address.0.filter(|_| args.enable_prometheus_metrics);
    let other = args.nodes.address.and_then(|address| address.0).filter(|other| own != Some(*other));
    if own.is_some() || other.is_some() {
        let liveness = liveness.clone();
        let answer: Answer = Arc::new(move |path: &str| match path {
            "/health-check" => Some(alive(liveness.as_deref().and_then(Liveness::problem))),
            "/metrics" => Some(match metrics::text(&registry) {
                Ok(text) => (StatusCode::OK, metrics::CONTENT_TYPE, text),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string()),
            }),
            _ => None,
        });
        for address in own.into_iter().chain(other) {
            let listener = bind(address, "/metrics").await?;
            tasks.spawn(http::serve(listener, answer.clone(), shutdown.clone()));
        }
    }
    if let Some(address) = args.health_probe_bind_address.0 {
        let listener = bind(address, "probes").await?;
        let answer = Arc::new(move |path: &str| match path {
            "/healthz" | "/livez" => Some(alive(liveness.as_deref().and_then(Liveness::hangs))),
            "/readyz" => Some(match ready() {
                Some(why) => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", why.to_owned()),
                None => (StatusCode::OK, "text/plain", "ok".to_owned()),
            }),
            _ => None,
        });
        tasks.spawn(http::serve(listener, answer, shutdown.clone()));
    }
    Ok(())
}

/// The answer to who asks whether the process is to go on.
fn alive(problem: Option<String>) -> (StatusCode, &'static str, String) {
    match problem {
        Some(why) => {
            // Of a probe that fails the kubelet tells the code alone.
            tracing::error!("not alive: {why}");
            (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", why)
        }
        None => (StatusCode::OK, "text/plain", "ok".to_owned()),
    }
}
