//! The API client that writes nothing.
//!
//! Reads pass. Anything else is recorded and answered as the API server would have answered, so that whoever asked goes on:
//! with the object as it is and what was sent merged into it.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode, header};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tower::Service;

use super::{
    Recorder,
    place::{Place, is_read},
    record::{Intent, Told},
};
use crate::controllers::merge;

/// What is quoted of a change at most, in bytes.
const QUOTED: usize = 400;
/// Subresources of a pod that are posted to; they answer with a Status.
const ACTIONS: [&str; 2] = ["eviction", "binding"];

/// A client that sends nothing on but what [`is_read`] allows.
pub fn guard(client: Client, recorder: Arc<Recorder>) -> Client {
    let namespace = client.default_namespace().to_owned();
    Client::new(Guard { client, recorder }, namespace)
}

#[derive(Clone)]
struct Guard {
    client: Client,
    recorder: Arc<Recorder>,
}

impl Service<Request<Body>> for Guard {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, kube::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let guard = self.clone();
        Box::pin(async move {
            let place = Place::of(request.uri().path());
            if is_read(request.method(), place.as_ref()) {
                guard.client.send(request).await
            } else {
                guard.answer(request, place).await
            }
        })
    }
}

impl Guard {
    /// The answer to what is not sent.
    async fn answer(
        &self,
        request: Request<Body>,
        place: Option<Place>,
    ) -> Result<Response<Body>, kube::Error> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let applies = is_apply(&request);
        let sent = request.into_body().collect_bytes().await?;
        let sent: Value = serde_json::from_slice(&sent).unwrap_or_default();
        // What cannot even be read without a change is not looked at for an answer.
        let Some(place) = place.filter(|place| is_read(&Method::GET, Some(place))) else {
            return Ok(refused(&method, &path));
        };
        if place.is_event() {
            self.tell(&method, &sent);
            return Ok(answered(StatusCode::OK, &sent));
        }
        match method {
            Method::POST if place.name.is_empty() => {
                let made = made(sent, &place);
                let name = made["metadata"]["name"].as_str().unwrap_or_default();
                self.record("create", &Place { name: name.to_owned(), ..place }, &told(&made));
                Ok(answered(StatusCode::CREATED, &made))
            }
            Method::POST if ACTIONS.contains(&place.subresource.as_str()) => {
                self.record("create", &place, &told(&sent));
                Ok(success(StatusCode::CREATED))
            }
            Method::PUT | Method::PATCH => self.change(&method, &place, &path, sent, applies).await,
            Method::DELETE => {
                self.record("delete", &place, "");
                Ok(success(StatusCode::OK))
            }
            _ => Ok(refused(&method, &path)),
        }
    }

    /// What would have become of an object.
    async fn change(
        &self,
        method: &Method,
        place: &Place,
        path: &str,
        sent: Value,
        applies: bool,
    ) -> Result<Response<Body>, kube::Error> {
        let live = match self.read(place, path).await {
            Ok(live) => live,
            Err(kube::Error::Api(status)) if status.code == 404 && !applies => {
                return Ok(answered(StatusCode::NOT_FOUND, &json!(status)));
            }
            // What may not be read is answered with what was sent.
            Err(_) => Value::Null,
        };
        let merged = merge::merged(&live, &sent);
        if let Some(change) = difference(&live, &merged) {
            let verb = if method == Method::PUT { "update" } else { "patch" };
            self.record(verb, place, &shortened(&change.to_string()));
        }
        Ok(answered(StatusCode::OK, &merged))
    }

    /// The object that a request is about. Of its status the right to read the object tells, too.
    async fn read(&self, place: &Place, path: &str) -> Result<Value, kube::Error> {
        let path = if place.subresource == "status" { path.trim_end_matches("/status") } else { path };
        let request = Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }

    fn record(&self, verb: &str, place: &Place, change: &str) {
        self.recorder.intent(Intent {
            verb: verb.to_owned(),
            resource: place.written(),
            namespace: place.namespace.clone(),
            name: place.name.clone(),
            change: change.to_owned(),
        });
    }

    /// An event; one that is counted up was told before.
    fn tell(&self, method: &Method, event: &Value) {
        if method != Method::POST {
            return;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let about = [&event["regarding"], &event["involvedObject"]].into_iter().find(|it| it.is_object());
        let about = about.unwrap_or(&Value::Null);
        let (kind, namespace, name) = (text(&about["kind"]), text(&about["namespace"]), text(&about["name"]));
        let separator = if namespace.is_empty() { "" } else { "/" };
        self.recorder.event(Told {
            object: format!("{kind} {namespace}{separator}{name}"),
            reason: text(&event["reason"]),
            message: text(if event["note"].is_string() { &event["note"] } else { &event["message"] }),
            kind: text(&event["type"]),
        });
    }
}

fn is_apply(request: &Request<Body>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply-patch"))
}

/// What was posted, with the name that the server would have made.
fn made(mut sent: Value, place: &Place) -> Value {
    if let Some(metadata) = sent.get_mut("metadata").and_then(Value::as_object_mut) {
        let prefix = metadata.get("generateName").and_then(Value::as_str);
        if let Some(name) = prefix.map(|prefix| format!("{prefix}dry-run")) {
            metadata.entry("name").or_insert(json!(name));
        }
        if !place.namespace.is_empty() {
            metadata.entry("namespace").or_insert(json!(place.namespace));
        }
    }
    sent
}

/// What is told of a new object: its spec, or what it has in its place.
fn told(made: &Value) -> String {
    let part = ["spec", "data"].into_iter().find_map(|name| made.get(name));
    // What is in a Secret is nobody's business.
    if made["kind"] == "Secret" {
        String::new()
    } else {
        shortened(&part.map(Value::to_string).unwrap_or_default())
    }
}

/// What changes, without what the server counts.
fn difference(live: &Value, merged: &Value) -> Option<Value> {
    let mut change = merge::diff(live, merged)?;
    if let Some(metadata) = change.get_mut("metadata").and_then(Value::as_object_mut) {
        for counted in ["resourceVersion", "managedFields"] {
            metadata.remove(counted);
        }
        if metadata.is_empty() {
            change.as_object_mut()?.remove("metadata");
        }
    }
    if merged["kind"] == "Secret" {
        return Some(json!({}));
    }
    (change != json!({})).then_some(change)
}

fn shortened(text: &str) -> String {
    if text.len() <= QUOTED {
        return text.to_owned();
    }
    let end = (0..=QUOTED).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    format!("{}…", &text[..end])
}

fn answered(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string().into_bytes()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn success(status: StatusCode) -> Response<Body> {
    answered(status, &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
}

fn refused(method: &Method, path: &str) -> Response<Body> {
    let message = format!("a dry run does not send {method} {path}");
    tracing::warn!("{message}");
    answered(
        StatusCode::FORBIDDEN,
        &json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": "Forbidden", "code": 403,
        }),
    )
}

#[cfg(test)]
mod tests;
