use std::{convert::Infallible, fs};

use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Node, ObjectReference, Pod, Secret},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams},
};
use parking_lot::Mutex;
use tandem_core::pods::reasons;
use tower::service_fn;

use super::*;
use crate::{dry_run::record, telemetry::events::Events};

/// An API server that has one Deployment, and knows what it was asked for.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Vec<String>>>);

impl Server {
    fn answer(&self, request: &Request<Body>) -> Response<Body> {
        self.0.lock().push(format!("{} {}", request.method(), request.uri().path()));
        let path = request.uri().path();
        let status = |code| {
            let message =
                json!({"kind": "Status", "status": "Failure", "message": "no", "reason": "no", "code": code});
            answered(StatusCode::from_u16(code).unwrap(), &message)
        };
        if path.ends_with("/scale") {
            answered(
                StatusCode::OK,
                &json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"replicas": 2}}),
            )
        } else if path.ends_with("/deployments/web") {
            answered(StatusCode::OK, &web())
        } else if path.ends_with("/deployments") {
            answered(StatusCode::OK, &json!({"metadata": {}, "items": [web()]}))
        } else if path.contains("/secret") {
            status(403)
        } else {
            status(404)
        }
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = service_fn(move |request: Request<Body>| {
            let answer = server.answer(&request);
            async move { Ok::<_, Infallible>(answer) }
        });
        Client::new(service, "shop")
    }
}

fn web() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7", "labels": {"a": "b"}},
        "spec": {"replicas": 2, "selector": {}, "template": {}},
        "status": {"replicas": 2},
    })
}

/// A guarded client of a server, and what it has recorded when it is done.
struct Bed {
    server: Server,
    client: Client,
    folder: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let (server, folder) = (Server::default(), tempfile::tempdir().unwrap());
        let recorder = Recorder::open(&folder.path().join("record"), "v1.37.0").unwrap();
        Self { client: guard(server.client(), recorder), server, folder }
    }

    fn recorded(&self) -> Vec<String> {
        let text = fs::read(self.folder.path().join("record")).unwrap();
        let lines = record::read(text.as_slice()).unwrap().0.into_iter();
        lines
            .filter_map(|line| match line.entry {
                record::Entry::Intent(it) => {
                    Some(format!("{} {} {}/{} {}", it.verb, it.resource, it.namespace, it.name, it.change))
                }
                record::Entry::Event(it) => {
                    Some(format!("{} {} {}: {}", it.kind, it.object, it.reason, it.message))
                }
                _ => None,
            })
            .collect()
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.server.0.lock())
    }
}

#[tokio::test]
async fn nothing_but_reads_reaches_the_server_whatever_is_asked() {
    let bed = Bed::new();
    let paths = [
        "/apis/apps/v1/namespaces/shop/deployments",
        "/apis/apps/v1/namespaces/shop/deployments/web",
        "/apis/apps/v1/namespaces/shop/deployments/web/scale",
        "/apis/apps/v1/namespaces/shop/deployments/web/status",
        "/api/v1/namespaces/shop/pods/p/eviction",
        "/api/v1/namespaces/shop/pods/p/exec",
        "/api/v1/namespaces/shop/serviceaccounts/a/token",
        "/apis/coordination.k8s.io/v1/namespaces/shop/leases/l",
        "/apis/events.k8s.io/v1/namespaces/shop/events",
        "/api/v1/nodes/n",
        "/somewhere/else",
        "/",
    ];
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "PURGE"] {
        for path in paths {
            for kind in ["application/json", "application/merge-patch+json", "application/apply-patch+yaml"] {
                let body = br#"{"metadata":{"name":"x"},"spec":{"replicas":9}}"#.to_vec();
                let request = Request::builder()
                    .method(method)
                    .uri(path)
                    .header(header::CONTENT_TYPE, kind)
                    .body(Body::from(body))
                    .unwrap();
                bed.client.send(request).await.unwrap();
            }
        }
    }
    let asked = bed.asked();
    assert!(!asked.is_empty());
    for request in asked {
        let is_read = request.starts_with("GET ") || request.starts_with("HEAD ");
        assert!(is_read && !request.ends_with("/exec"), "{request}");
    }
}

#[tokio::test]
async fn reviews_reach_the_server() {
    let bed = Bed::new();
    let request = Request::post("/apis/authorization.k8s.io/v1/subjectaccessreviews").body(Body::empty());
    bed.client.send(request.unwrap()).await.unwrap();
    assert_eq!(bed.asked(), ["POST /apis/authorization.k8s.io/v1/subjectaccessreviews"]);
}

#[tokio::test]
async fn changes_are_answered_with_what_would_have_become_of_the_object() {
    let bed = Bed::new();
    let api: Api<Deployment> = Api::namespaced(bed.client.clone(), "shop");
    let params = PatchParams::default();

    let patch = Patch::Merge(json!({"metadata": {"labels": {"c": "d"}, "resourceVersion": "7"}}));
    let patched = api.patch("web", &params, &patch).await.unwrap();
    assert_eq!(patched.labels().len(), 2);
    assert_eq!(patched.spec.replicas, Some(2), "the rest is as it is");
    api.patch("web", &params, &patch).await.unwrap();

    let scale = api.patch_scale("web", &params, &Patch::Merge(json!({"spec": {"replicas": 5}}))).await;
    assert_eq!(scale.unwrap().spec.unwrap().replicas, Some(5));
    let same = api.patch_scale("web", &params, &Patch::Merge(json!({"spec": {"replicas": 2}}))).await;
    assert_eq!(same.unwrap().spec.unwrap().replicas, Some(2));

    let status = Patch::Merge(json!({"status": {"replicas": 3}}));
    assert_eq!(api.patch_status("web", &params, &status).await.unwrap().status.unwrap().replicas, Some(3));

    let mut whole: Deployment = serde_json::from_value(web()).unwrap();
    whole.spec.replicas = Some(4);
    assert_eq!(api.replace("web", &PostParams::default(), &whole).await.unwrap().spec, whole.spec);

    assert_eq!(
        bed.recorded(),
        [
            r#"patch deployments shop/web {"metadata":{"labels":{"c":"d"}}}"#,
            r#"patch deployments/scale shop/web {"spec":{"replicas":5}}"#,
            r#"patch deployments/status shop/web {"status":{"replicas":3}}"#,
            r#"update deployments shop/web {"spec":{"replicas":4}}"#,
        ],
        "each once, and no change is none"
    );
    assert!(bed.asked().iter().all(|request| request.starts_with("GET ")));
}

#[tokio::test]
async fn what_is_not_there_is_answered_so() {
    let bed = Bed::new();
    let nodes: Api<Node> = Api::all(bed.client.clone());
    let patch = json!({"spec": {"unschedulable": true}});
    let missing = nodes.patch("n", &PatchParams::default(), &Patch::Merge(&patch)).await;
    assert!(matches!(missing, Err(kube::Error::Api(status)) if status.code == 404));
    // What is applied is made.
    let maps: Api<ConfigMap> = Api::namespaced(bed.client.clone(), "shop");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "b"}});
    let made = maps.patch("m", &PatchParams::apply("tandem").force(), &Patch::Apply(map)).await.unwrap();
    assert_eq!(made.data.unwrap()["a"], "b");
}

#[tokio::test]
async fn objects_and_actions_are_answered_as_made_and_done() {
    let bed = Bed::new();
    let hpas: Api<HorizontalPodAutoscaler> = Api::namespaced(bed.client.clone(), "shop");
    let hpa: HorizontalPodAutoscaler = serde_json::from_value(json!({
        "metadata": {"name": "keda-hpa-web"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 10},
    }))
    .unwrap();
    let made = hpas.create(&PostParams::default(), &hpa).await.unwrap();
    assert_eq!((made.name_any(), made.namespace().as_deref()), ("keda-hpa-web".to_owned(), Some("shop")));
    assert!(hpas.delete("keda-hpa-web", &DeleteParams::default()).await.unwrap().is_right());
    let pods: Api<Pod> = Api::namespaced(bed.client.clone(), "shop");
    pods.evict("p", &EvictParams::default()).await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(bed.client.clone(), "shop");
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "s"}, "stringData": {"token": "hush"}})).unwrap();
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    let patch = Patch::Merge(json!({"kind": "Secret", "stringData": {"token": "hush"}}));
    secrets.patch("secret", &PatchParams::default(), &patch).await.unwrap();

    let recorded = bed.recorded();
    assert!(recorded[0].starts_with("create horizontalpodautoscalers shop/keda-hpa-web {"), "{recorded:?}");
    assert_eq!(recorded[1], "delete horizontalpodautoscalers shop/keda-hpa-web ");
    assert!(recorded[2].starts_with("create pods/eviction shop/p "), "{recorded:?}");
    assert!(recorded.iter().all(|line| !line.contains("hush")), "{recorded:?}");
}

#[tokio::test]
async fn events_are_told_to_the_record() {
    let bed = Bed::new();
    let events = Events::new(bed.client.clone(), "keda-operator", None);
    let about = ObjectReference {
        kind: Some("ScaledObject".to_owned()),
        namespace: Some("shop".to_owned()),
        name: Some("web".to_owned()),
        ..ObjectReference::default()
    };
    for _ in 0..3 {
        events.publish(&about, &reasons::event::scaled_object_ready("all is well")).await;
    }
    assert_eq!(bed.recorded(), ["Normal ScaledObject shop/web ScaledObjectReady: all is well"]);
    assert_eq!(bed.asked(), [""; 0]);
}

#[tokio::test]
async fn lists_and_reads_are_the_servers() {
    let bed = Bed::new();
    let api: Api<Deployment> = Api::namespaced(bed.client.clone(), "shop");
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 1);
    assert_eq!(api.get("web").await.unwrap().name_any(), "web");
    assert_eq!(bed.recorded(), [""; 0]);
}

#[test]
fn what_is_quoted_is_cut_at_a_character() {
    let cut = shortened(&"ä".repeat(300));
    assert!(cut.ends_with("ä…") && cut.len() <= QUOTED + "…".len());
    assert_eq!(shortened("short"), "short");
}
