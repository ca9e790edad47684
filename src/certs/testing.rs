//! For tests: a Kubernetes API with the verbs that are used here, over objects in memory.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
};

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use kube::{Client, client::Body};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Objects by path, `/api/v1/namespaces/tandem/secrets/kedaorg-certs` for one.
#[derive(Clone)]
pub(crate) struct FakeKubernetes {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    /// Every event so far, by path. The version of an event is its place, counted from one.
    log: Arc<Mutex<Vec<(String, Value)>>>,
    length: watch::Sender<usize>,
    /// Patches are refused.
    pub(crate) read_only: Arc<AtomicBool>,
    pub(crate) writes: Arc<Mutex<Vec<String>>>,
}

impl Default for FakeKubernetes {
    fn default() -> Self {
        Self {
            objects: Arc::default(),
            log: Arc::default(),
            length: watch::channel(0).0,
            read_only: Arc::default(),
            writes: Arc::default(),
        }
    }
}

impl FakeKubernetes {
    pub(crate) fn client(&self) -> Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let fake = fake.clone();
            async move { Ok::<_, Infallible>(fake.answer(request).await) }
        });
        Client::new(service, "default")
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.objects.lock().get(path).cloned()
    }

    pub(crate) fn put(&self, path: &str, mut object: Value) -> Value {
        let mut objects = self.objects.lock();
        object["metadata"]["resourceVersion"] = json!((self.log.lock().len() + 1).to_string());
        let event = if objects.contains_key(path) { "MODIFIED" } else { "ADDED" };
        objects.insert(path.to_owned(), object.clone());
        self.record(path, json!({"type": event, "object": object}));
        object
    }

    pub(crate) fn delete(&self, path: &str) {
        let mut objects = self.objects.lock();
        if let Some(mut object) = objects.remove(path) {
            object["metadata"]["resourceVersion"] = json!((self.log.lock().len() + 1).to_string());
            self.record(path, json!({"type": "DELETED", "object": object}));
        }
    }

    fn record(&self, path: &str, event: Value) {
        let mut log = self.log.lock();
        log.push((path.to_owned(), event));
        self.length.send_replace(log.len());
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let query = head.uri.query().unwrap_or_default().to_owned();
        let body = body.collect().await.unwrap().to_bytes();
        if head.method != Method::GET {
            // As over a network: another's request may come in between.
            tokio::task::yield_now().await;
            self.writes.lock().push(format!("{} {path}", head.method));
        }
        match head.method {
            Method::GET if query.contains("watch=true") => self.watch(selected(&path, &query), &query),
            Method::GET if query.contains("fieldSelector") => self.list(&selected(&path, &query)),
            Method::GET => {
                self.get(&path).map_or_else(|| failure(404, "NotFound"), |object| json_answer(200, &object))
            }
            Method::POST => {
                let object: Value = serde_json::from_slice(&body).unwrap();
                let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
                if self.get(&path).is_some() {
                    return failure(409, "AlreadyExists");
                }
                json_answer(201, &self.put(&path, object))
            }
            Method::PUT => {
                let object: Value = serde_json::from_slice(&body).unwrap();
                let Some(stored) = self.get(&path) else { return failure(404, "NotFound") };
                if stored["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
                    return failure(409, "Conflict");
                }
                json_answer(200, &self.put(&path, object))
            }
            Method::PATCH => self.patch(&path, &serde_json::from_slice(&body).unwrap()),
            method => panic!("unexpected {method} {path}"),
        }
    }

    /// "test" and "add" of members.
    fn patch(&self, path: &str, operations: &Value) -> Answer {
        if self.read_only.load(Ordering::SeqCst) {
            return failure(403, "Forbidden");
        }
        let Some(mut object) = self.get(path) else { return failure(404, "NotFound") };
        for operation in operations.as_array().unwrap() {
            let (pointer, value) = (operation["path"].as_str().unwrap(), operation["value"].clone());
            if operation["op"] == "test" {
                if object.pointer(pointer) != Some(&value) {
                    return failure(422, "Invalid");
                }
            } else {
                let (parent, member) = pointer.rsplit_once('/').unwrap();
                object.pointer_mut(parent).unwrap()[member] = value;
            }
        }
        json_answer(200, &self.put(path, object))
    }

    fn list(&self, path: &str) -> Answer {
        let items: Vec<_> = self.get(path).into_iter().collect();
        let version = self.log.lock().len().to_string();
        json_answer(
            200,
            &json!({"kind": "List", "apiVersion": "v1",
                                 "metadata": {"resourceVersion": version}, "items": items}),
        )
    }

    /// Every event of one object after the version that the query states.
    fn watch(&self, path: String, query: &str) -> Answer {
        let since = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")).unwrap();
        let (log, length) = (self.log.clone(), self.length.subscribe());
        let events =
            stream::unfold((since.parse::<usize>().unwrap(), length), move |(mut next, mut length)| {
                let (log, path) = (log.clone(), path.clone());
                async move {
                    loop {
                        let event = log.lock().get(next).cloned();
                        match event {
                            None => length.changed().await.ok()?,
                            Some((changed, event)) => {
                                next += 1;
                                if changed == path {
                                    let line = Frame::data(Bytes::from(format!("{event}\n")));
                                    return Some((Ok(line), (next, length)));
                                }
                            }
                        }
                    }
                }
            });
        Response::new(StreamBody::new(events).boxed_unsync())
    }
}

/// `fieldSelector=metadata.name=x` picks one object of a collection.
fn selected(path: &str, query: &str) -> String {
    let name = query.split('&').find_map(|pair| pair.strip_prefix("fieldSelector=metadata.name%3D")).unwrap();
    format!("{path}/{name}")
}

fn json_answer(code: u16, document: &Value) -> Answer {
    let mut answer = Response::new(Full::from(document.to_string()).boxed_unsync());
    *answer.status_mut() = StatusCode::from_u16(code).unwrap();
    answer
}

fn failure(code: u16, reason: &str) -> Answer {
    json_answer(
        code,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                                 "message": reason, "reason": reason, "code": code}),
    )
}
