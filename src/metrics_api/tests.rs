//! The whole server on loopback: a real TLS listener, a fake kube-apiserver for reviews, a fake metric source.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use http::header::{ACCEPT, ETAG, IF_NONE_MATCH};
use tokio_util::sync::DropGuard;

use super::{
    observe::{Review, Verdict},
    testing::{FakeKubernetes, FakeSource, ManualClock, trust},
    *,
};
use crate::serve::{
    CertificateResolver, server_config,
    testing::{Authority, Connection, Identity, SERVER_NAME, Subject, connect},
};

const METRIC: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/web/s0-prometheus?labelSelector=scaledobject.keda.sh%2Fname%3Dnginx";
const HPA: &str = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

struct Bed {
    address: SocketAddr,
    serving: Authority,
    proxies: Authority,
    kubernetes: FakeKubernetes,
    clock: ManualClock,
    observer: Observer,
    ready: Arc<AtomicBool>,
    _stop: DropGuard,
}

async fn bed() -> Bed {
    bed_with(None).await
}

async fn bed_with(upstream: Option<Upstream>) -> Bed {
    let (serving, proxies) = (Authority::new("serving"), Authority::new("front-proxy"));
    let store = TrustStore::default();
    store.set(trust(Some(&proxies), r#"["front-proxy-client"]"#, None));
    let kubernetes = FakeKubernetes::default();
    kubernetes.rights.lock().push((HPA, "", "*"));
    let (observer, clock, ready) = (Observer::default(), ManualClock::new(), Arc::new(AtomicBool::new(true)));
    let is_ready = ready.clone();
    let config = MetricsApiConfig {
        source: Arc::new(FakeSource),
        client: kubernetes.client(),
        trust: Arc::new(store),
        upstream,
        ready: Box::new(move || is_ready.load(Ordering::SeqCst)),
        observer: observer.clone(),
    };
    let api = Arc::new(MetricsApi::with_clock(config, clock.clock()));
    let certificates = Arc::new(CertificateResolver::default());
    let (chain, key) = serving.server().pem();
    certificates.set(chain.as_bytes(), key.as_bytes()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    tokio::spawn(api.run(
        listener,
        server_config(certificates, scalers::TlsVersion::Tls12).unwrap(),
        shutdown.clone(),
    ));
    Bed { address, serving, proxies, kubernetes, clock, observer, ready, _stop: shutdown.drop_guard() }
}

impl Bed {
    async fn connect(&self, identity: Option<&Identity>) -> Connection {
        connect(self.address, "h2", &self.serving, identity).await.unwrap()
    }

    /// A connection of the front proxy.
    async fn proxied(&self) -> Connection {
        self.connect(Some(&self.proxies.client(&Subject::default()))).await
    }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(format!("https://{SERVER_NAME}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

/// As the aggregator asks on behalf of a user.
async fn ask(connection: &mut Connection, user: &str, path: &str) -> Response<Bytes> {
    connection.send(request("GET", path, &[("x-remote-user", user)])).await.unwrap()
}

#[tokio::test]
async fn the_hpa_reads_a_value() {
    let bed = bed().await;
    let mut connection = bed.proxied().await;
    let json = ask(&mut connection, HPA, METRIC).await;
    assert_eq!(json.status(), 200);
    assert_eq!(json.headers()[CONTENT_TYPE], "application/json");
    let document: serde_json::Value = serde_json::from_slice(json.body()).unwrap();
    assert_eq!(document["items"][0]["value"], "8500m");

    let headers = [("x-remote-user", HPA), ("accept", "application/vnd.kubernetes.protobuf, */*")];
    let protobuf = connection.send(request("GET", METRIC, &headers)).await.unwrap();
    assert_eq!(protobuf.headers()[CONTENT_TYPE], "application/vnd.kubernetes.protobuf");
    assert!(protobuf.body().starts_with(b"k8s\0"));
    assert_eq!(bed.observer.reviews(Review::SubjectAccess, Verdict::Yes), 1);
}

#[tokio::test]
async fn answers_by_path() {
    const V: &str = "/apis/external.metrics.k8s.io/v1beta1";
    let bed = bed().await;
    let mut connection = bed.proxied().await;
    let nginx = "labelSelector=scaledobject.keda.sh%2Fname%3Dnginx";
    for (path, code, reason) in [
        (format!("{V}/namespaces/web/s1-broken?{nginx}"), 500, "InternalError"),
        (format!("{V}/namespaces/web/s9-unknown?{nginx}"), 404, "NotFound"),
        (format!("{V}/namespaces/shop/s0-prometheus?{nginx}"), 404, "NotFound"),
        (format!("{V}/namespaces/web/s0-prometheus"), 400, "BadRequest"),
        (format!("{V}/namespaces/web/s0-prometheus?labelSelector=a%3D%3D%3D"), 400, "BadRequest"),
        (format!("{V}/namespaces/web/s0-prometheus?labelSelector=%zz"), 400, "BadRequest"),
        (format!("{V}/namespaces/web/s0-prometheus?labelSelector=a%3Db"), 400, "BadRequest"),
        (format!("{V}/s0-prometheus"), 404, "NotFound"),
        (format!("{V}/namespaces/web"), 404, "NotFound"),
        (format!("{V}/namespaces/web/group/metric"), 404, "NotFound"),
        ("/openapi/v2".to_owned(), 404, "NotFound"),
        ("/openapi/v3".to_owned(), 404, "NotFound"),
        ("/metrics".to_owned(), 404, "NotFound"),
    ] {
        let headers = [("x-remote-user", HPA), ("x-remote-group", "system:masters")];
        let answer = connection.send(request("GET", &path, &headers)).await.unwrap();
        assert_eq!(answer.status().as_u16(), code, "{path}");
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/json", "{path}");
        let status: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!((&status["kind"], &status["reason"]), (&"Status".into(), &reason.into()), "{path}");
        assert_eq!(status["code"], code, "{path}");
    }
    // No 404 or 403 but what the schema aggregator takes for "none", whoever asks.
    assert_eq!(ask(&mut connection, "system:aggregator", "/openapi/v2").await.status(), 404);
    let no_encoding = [("x-remote-user", HPA), ("accept", "text/html")];
    assert_eq!(connection.send(request("GET", METRIC, &no_encoding)).await.unwrap().status(), 406);
}

#[tokio::test]
async fn only_get() {
    let bed = bed().await;
    let mut connection = bed.proxied().await;
    for method in ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        for path in [METRIC, "/apis", "/healthz"] {
            let answer = connection.send(request(method, path, &[("x-remote-user", HPA)])).await.unwrap();
            assert_eq!(answer.status(), 405, "{method} {path}");
            assert_eq!(answer.headers()[ALLOW], "GET");
        }
    }
}

#[tokio::test]
async fn strangers_are_refused() {
    let bed = bed().await;
    let wrong_name = bed.proxies.client(&Subject { common_name: "mallory", ..Subject::default() });
    let stranger = Authority::new("front-proxy").client(&Subject::default());
    let expired = bed.proxies.client(&Subject { expires_in: -60, ..Subject::default() });
    let forged = [("x-remote-user", HPA), ("x-remote-group", "system:masters")];
    for (name, identity) in [
        ("no certificate", None),
        ("wrong name", Some(&wrong_name)),
        ("unknown authority", Some(&stranger)),
        ("expired", Some(&expired)),
    ] {
        let mut connection = bed.connect(identity).await;
        for path in [METRIC, "/apis", "/version", "/openapi/v2", "/metrics"] {
            let answer = connection.send(request("GET", path, &forged)).await.unwrap();
            assert_eq!(answer.status(), 401, "{name} {path}");
        }
        for path in ["/healthz", "/livez", "/readyz"] {
            assert_eq!(connection.get(path).await.unwrap().status(), 200, "{name} {path}");
        }
    }
    assert!(bed.kubernetes.asked.lock().is_empty(), "nobody was asked about them");
}

#[tokio::test]
async fn users_may_be_in_many_groups() {
    let bed = bed().await;
    let mut connection = bed.proxied().await;
    let groups: Vec<_> =
        (0..1000).map(|group| format!("oidc:a-group-with-a-long-name-{group:030}")).collect();
    let mut headers = vec![("x-remote-user", HPA)];
    headers.extend(groups.iter().map(|group| ("x-remote-group", group.as_str())));
    assert_eq!(connection.send(request("GET", METRIC, &headers)).await.unwrap().status(), 200);
    assert_eq!(bed.kubernetes.asked.lock()[0].groups.as_ref().map(Vec::len), Some(1001));
}

#[tokio::test]
async fn who_may_not_is_told_so() {
    let bed = bed().await;
    let mut connection = bed.proxied().await;
    let answer = ask(&mut connection, "jane", METRIC).await;
    assert_eq!(answer.status(), 403);
    let status: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(
        status["message"],
        "s0-prometheus.external.metrics.k8s.io is forbidden: User \"jane\" cannot list resource \
         \"s0-prometheus\" in API group \"external.metrics.k8s.io\" in the namespace \"web\""
    );
    assert_eq!(ask(&mut connection, "jane", "/metrics").await.status(), 403);
    bed.kubernetes.rights.lock().push(("jane", "web", "s0-prometheus"));
    bed.clock.set(11);
    assert_eq!(ask(&mut connection, "jane", METRIC).await.status(), 200);
}

#[tokio::test]
async fn discovery_needs_nobody() {
    let bed = bed().await;
    bed.kubernetes.down.store(true, Ordering::SeqCst);
    bed.ready.store(false, Ordering::SeqCst);
    let mut connection = bed.proxied().await;
    for path in
        ["/apis", "/apis/external.metrics.k8s.io", "/apis/external.metrics.k8s.io/v1beta1", "/version"]
    {
        let answer = ask(&mut connection, "system:kube-aggregator", path).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/json", "{path}");
    }
    assert_eq!(connection.get("/healthz").await.unwrap().status(), 200);
    assert_eq!(connection.get("/readyz").await.unwrap().status(), 500);
    // A metric needs a review, and without one is refused, but never with 503.
    assert_eq!(ask(&mut connection, HPA, METRIC).await.status(), 500);
}

#[tokio::test]
async fn aggregated_discovery_has_an_etag() {
    let bed = bed().await;
    let mut connection = bed.proxied().await;
    let headers = [("x-remote-user", "system:kube-aggregator"), (ACCEPT.as_str(), AGGREGATED)];
    let answer = connection.send(request("GET", "/apis", &headers)).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()[CONTENT_TYPE], AGGREGATED);
    let document: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(document["kind"], "APIGroupDiscoveryList");
    let etag = answer.headers()[ETAG].to_str().unwrap();

    let known = [headers[0], headers[1], (IF_NONE_MATCH.as_str(), etag)];
    let again = connection.send(request("GET", "/apis", &known)).await.unwrap();
    assert_eq!((again.status().as_u16(), again.body().len()), (304, 0));
    let other = [headers[0], headers[1], (IF_NONE_MATCH.as_str(), "\"other\"")];
    assert_eq!(connection.send(request("GET", "/apis", &other)).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_scalers_panic_fails_its_own_read_only() {
    let bed = bed().await;
    let mut connection = bed.proxied().await;
    let broken = METRIC.replace("s0-prometheus", "s2-panics");
    assert_eq!(ask(&mut connection, HPA, &broken).await.status(), 500);
    assert_eq!(ask(&mut connection, HPA, METRIC).await.status(), 200);
}

#[tokio::test]
async fn unknown_metrics_go_upstream() {
    const V: &str = "/apis/external.metrics.k8s.io/v1beta1";
    let _ = rustls::crypto::ring::default_provider().install_default();
    // The other adapter is a second server of this kind, which knows web/nginx, reached with a token.
    let other = bed().await;
    other.kubernetes.tokens.lock().insert("ours", (HPA, &[]));
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("ca"), other.serving.pem()).unwrap();
    std::fs::write(directory.path().join("token"), "ours").unwrap();
    let upstream = |url: String| {
        Upstream::new(UpstreamConfig {
            url,
            ca_file: Some(directory.path().join("ca")),
            insecure_skip_tls_verify: true,
            token_file: Some(directory.path().join("token")),
        })
    };
    let first = bed_with(Some(upstream(format!("https://{}", other.address)).unwrap())).await;
    let mut connection = first.proxied().await;
    // Known here: not asked there.
    assert_eq!(ask(&mut connection, HPA, METRIC).await.status(), 200);
    assert_eq!(other.kubernetes.token_reviews.load(Ordering::SeqCst), 0);
    // Unknown here, unknown there: the upstream's own 404.
    let unknown = format!("{V}/namespaces/shop/x?labelSelector=queue%3Dorders");
    let answer = ask(&mut connection, HPA, &unknown).await;
    assert_eq!(answer.status(), 400, "the upstream is a Tandem, which wants a ScaledObject");
    assert_eq!(other.kubernetes.token_reviews.load(Ordering::SeqCst), 1);
    let missing = METRIC.replace("s0-prometheus", "s9-unknown");
    assert_eq!(ask(&mut connection, HPA, &missing).await.status(), 404);
    // Who may not read here reaches nobody there.
    assert_eq!(ask(&mut connection, "jane", &unknown).await.status(), 403);
    // A broken source of ours is no reason to ask elsewhere.
    let broken = METRIC.replace("s0-prometheus", "s1-broken");
    assert_eq!(ask(&mut connection, HPA, &broken).await.status(), 500);
    // Not sent round in circles.
    let headers = [("x-remote-user", HPA), ("via", "1.1 tandem")];
    let answer = connection.send(request("GET", &missing, &headers)).await.unwrap();
    assert_eq!(answer.status(), 404);
    assert_eq!(other.kubernetes.token_reviews.load(Ordering::SeqCst), 1);
}
