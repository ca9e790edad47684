//! Parameters from Secrets.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use harness::http::{self, Request, Response, Server};
use serde_json::{Value, json};

use crate::case::{Case, prometheus};

/// A source that speaks Prometheus' API to whoever knows the password of the moment.
struct GuardedSource {
    server: Server,
    /// The password, and what is answered to it.
    state: Arc<Mutex<(&'static str, u32)>>,
}

impl GuardedSource {
    async fn start(password: &'static str, value: u32) -> Result<Self> {
        let state = Arc::new(Mutex::new((password, value)));
        let seen = Arc::clone(&state);
        let server = Server::start((Ipv4Addr::LOCALHOST, 0).into(), move |request| {
            let (password, value) = *seen.lock().unwrap_or_else(PoisonError::into_inner);
            let answer = answer(&request, password, value);
            async move { answer }
        })
        .await?;
        Ok(Self { server, state })
    }

    fn set(&self, password: &'static str, value: u32) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = (password, value);
    }
}

fn answer(request: &Request, password: &str, value: u32) -> Response {
    let given =
        request.headers().get("authorization").and_then(|header| header.to_str().ok()).unwrap_or_default();
    if given != basic("reader", password) {
        return http::answer(401, "text/plain", "who are you");
    }
    let vector = json!({
        "status": "success",
        "data": { "resultType": "vector", "result": [{ "metric": {}, "value": [0, value.to_string()] }] },
    });
    http::answer(200, "application/json", vector.to_string())
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// The install grants Secrets by namespace: `manifests/secrets-namespace.yaml`, for this namespace.
async fn allow_secrets(case: &Case<'_>) -> Result<()> {
    let grant = harness::source_tree().join("manifests/secrets-namespace.yaml");
    let mut grant: Value = serde_saphyr::from_str(&std::fs::read_to_string(grant)?)?;
    grant["metadata"]["namespace"] = json!(case.namespace);
    case.apply(grant).await
}

fn secret(password: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "source" },
        "stringData": { "user": "reader", "password": password },
    })
}

/// A `ScaledObject` that authenticates by the Secret.
async fn guarded_object(case: &Case<'_>, url: &str, mut spec: Value) -> Result<()> {
    case.apply(json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": { "name": "source" },
        "spec": { "secretTargetRef": [
            { "parameter": "username", "name": "source", "key": "user" },
            { "parameter": "password", "name": "source", "key": "password" },
        ] },
    }))
    .await?;
    let mut trigger = prometheus(url, "up", "10");
    trigger["metadata"]["authModes"] = json!("basic");
    trigger["authenticationRef"] = json!({ "name": "source" });
    spec["triggers"] = json!([trigger]);
    case.scaled_object("shop", spec).await
}

/// A rotated Secret is used without anything being restarted or edited.
pub(crate) async fn secret_rotated(case: &Case<'_>) -> Result<()> {
    let source = GuardedSource::start("old", 20).await?;
    allow_secrets(case).await?;
    case.deployment("shop", 1).await?;
    case.apply(secret("old")).await?;
    guarded_object(case, &source.server.url(), json!({ "minReplicaCount": 1 })).await?;
    case.wait_replicas("shop", 2).await?;
    let authentications = case.get("shop").await?["status"]["authenticationsTypes"].clone();
    ensure!(authentications == "source", "authenticationsTypes is {authentications}");

    source.set("new", 50);
    case.wait_condition("shop", "Ready", "False", "TriggerError").await?;
    case.apply(secret("new")).await?;
    case.wait_condition("shop", "Ready", "True", "").await?;
    case.wait_replicas("shop", 5).await
}

/// A Secret that is not there is named in the condition; when it comes, the object works.
pub(crate) async fn secret_missing(case: &Case<'_>) -> Result<()> {
    let source = GuardedSource::start("s3cr3t-word", 30).await?;
    allow_secrets(case).await?;
    case.deployment("shop", 1).await?;
    guarded_object(case, &source.server.url(), json!({ "minReplicaCount": 1 })).await?;
    let message = case.wait_condition("shop", "Ready", "False", "").await?;
    ensure!(message.contains("source"), "the message does not name the Secret: {message}");
    case.apply(secret("s3cr3t-word")).await?;
    case.wait_condition("shop", "Ready", "True", "").await?;
    case.wait_replicas("shop", 3).await?;
    let leaked = case.world.log_lines("s3cr3t-word", 5).await;
    ensure!(!leaked.contains("s3cr3t-word"), "the password is in a log: {leaked}");
    Ok(())
}

/// A trigger whose Secret is missing has a target all the same, on which its fallback stands.
pub(crate) async fn secret_missing_with_fallback(case: &Case<'_>) -> Result<()> {
    let source = GuardedSource::start("word", 30).await?;
    allow_secrets(case).await?;
    case.deployment("shop", 1).await?;
    let fallback = json!({ "failureThreshold": 1, "replicas": 4 });
    guarded_object(case, &source.server.url(), json!({ "minReplicaCount": 1, "fallback": fallback })).await?;
    case.wait_replicas("shop", 4).await?;
    case.wait_condition("shop", "Fallback", "True", "FallbackExists").await?;
    let message = case.wait_condition("shop", "Ready", "False", "ScaledObjectCheckFailed").await?;
    ensure!(message.contains("source"), "the message does not name the Secret: {message}");
    case.apply(secret("word")).await?;
    case.wait_condition("shop", "Ready", "True", "").await?;
    case.wait_condition("shop", "Fallback", "False", "NoFallbackFound").await?;
    case.wait_replicas("shop", 3).await
}
