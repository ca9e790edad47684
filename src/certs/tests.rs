//! Replicas at work against one API, on a clock that the test moves.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use jiff::ToSpan;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{testing::FakeKubernetes, *};

const SECRET: &str = "/api/v1/namespaces/tandem/secrets/kedaorg-certs";
const API_SERVICE: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.external.metrics.k8s.io";
const WEBHOOKS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/keda-admission";

struct Bed {
    kubernetes: FakeKubernetes,
    seconds: Arc<AtomicI64>,
}

struct Replica {
    certificates: Arc<CertificateResolver>,
    leads: watch::Sender<bool>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), NameError>>,
}

impl Bed {
    fn new() -> Self {
        let kubernetes = FakeKubernetes::default();
        kubernetes.put(
            API_SERVICE,
            json!({
                "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
                "spec": {"group": "external.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100,
                         "versionPriority": 100, "service": {"namespace": "tandem", "name": "tandem"}},
            }),
        );
        kubernetes.put(
            WEBHOOKS,
            json!({
                "metadata": {"name": "keda-admission"},
                "webhooks": [{"name": "w.keda.sh", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                    "clientConfig": {"service": {"namespace": "tandem", "name": "tandem-webhooks"}}}],
            }),
        );
        let start: Timestamp = "2026-11-20T00:00:00Z".parse().unwrap();
        Self { kubernetes, seconds: Arc::new(AtomicI64::new(start.as_second())) }
    }

    fn start(&self, leads: bool) -> Replica {
        let certificates = Arc::new(CertificateResolver::default());
        let (leads, leading) = watch::channel(leads);
        let shutdown = CancellationToken::new();
        let seconds = self.seconds.clone();
        let clock: Clock = Arc::new(move || Timestamp::from_second(seconds.load(Ordering::SeqCst)).unwrap());
        let task = tokio::spawn(run_with_clock(
            CertsConfig::new("tandem"),
            self.kubernetes.client(),
            certificates.clone(),
            leading,
            clock,
            shutdown.clone(),
        ));
        Replica { certificates, leads, shutdown, task }
    }

    fn advance(&self, by: jiff::Span, replica: &Replica) {
        let now = Timestamp::from_second(self.seconds.load(Ordering::SeqCst)).unwrap();
        self.seconds.store((now + by).as_second(), Ordering::SeqCst);
        // A word about leadership wakes the replica, as its timer would in ten minutes.
        replica.leads.send_modify(|_| {});
    }

    fn secret(&self, key: &str) -> String {
        decode(&self.kubernetes.get(SECRET).unwrap()["data"][key])
    }

    /// The bundles that clients use: of the `APIService` and of the webhook.
    fn bundles(&self) -> [String; 2] {
        let api_service = self.kubernetes.get(API_SERVICE).unwrap();
        let webhooks = self.kubernetes.get(WEBHOOKS).unwrap();
        [&api_service["spec"]["caBundle"], &webhooks["webhooks"][0]["clientConfig"]["caBundle"]].map(decode)
    }

    fn authorities(&self) -> usize {
        self.secret("ca.crt").matches("BEGIN CERTIFICATE").count()
    }
}

fn decode(value: &Value) -> String {
    let bytes: k8s_openapi::ByteString = serde_json::from_value(value.clone()).unwrap_or_default();
    String::from_utf8(bytes.0).unwrap()
}

/// Lets the replicas work until the condition holds.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), wait).await.is_ok(), "never: {what}");
    // Nothing here waits for a socket: whoever has something to do has done it after some rounds.
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_first_replica_makes_it_and_all_serve_it() {
    let bed = Bed::new();
    let replicas = [bed.start(false), bed.start(false), bed.start(false)];
    until("served", || replicas.iter().all(|replica| replica.certificates.is_ready())).await;
    let writes = bed.kubernetes.writes.lock().clone();
    assert!(writes.iter().all(|write| write.starts_with("POST")), "followers only create: {writes:?}");
    assert_eq!(bed.bundles(), ["", ""], "followers do not register");

    replicas[1].leads.send_replace(true);
    until("registered", || bed.bundles() == [bed.secret("ca.crt"), bed.secret("ca.crt")]).await;
    for replica in replicas {
        replica.shutdown.cancel();
        replica.task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn drift_is_repaired() {
    let bed = Bed::new();
    let leader = bed.start(true);
    until("registered", || bed.bundles() == [bed.secret_or_empty(), bed.secret_or_empty()]).await;
    for path in [API_SERVICE, WEBHOOKS] {
        let mut object = bed.kubernetes.get(path).unwrap();
        for pointer in ["/spec/caBundle", "/webhooks/0/clientConfig/caBundle"] {
            if let Some(bundle) = object.pointer_mut(pointer) {
                *bundle = json!("AAAA");
            }
        }
        bed.kubernetes.put(path, object);
    }
    until("repaired", || bed.bundles() == [bed.secret("ca.crt"), bed.secret("ca.crt")]).await;
    leader.shutdown.cancel();
}

impl Bed {
    fn secret_or_empty(&self) -> String {
        // Not equal to an unset bundle.
        self.kubernetes.get(SECRET).map_or("none yet".to_owned(), |secret| decode(&secret["data"]["ca.crt"]))
    }
}

#[tokio::test]
async fn another_adapters_registration_is_not_touched() {
    let bed = Bed::new();
    let mut foreign = bed.kubernetes.get(API_SERVICE).unwrap();
    foreign["spec"]["service"] = json!({"namespace": "datadog", "name": "cluster-agent"});
    bed.kubernetes.put(API_SERVICE, foreign);
    let leader = bed.start(true);
    until("webhooks registered", || bed.bundles()[1] == bed.secret_or_empty()).await;
    assert_eq!(bed.bundles()[0], "");
    assert!(!bed.kubernetes.writes.lock().iter().any(|write| write.contains("apiservices")));
    leader.shutdown.cancel();
}

#[tokio::test]
async fn an_authority_is_replaced_in_three_steps() {
    let bed = Bed::new();
    let leader = bed.start(true);
    let follower = bed.start(false);
    until("registered", || bed.bundles() == [bed.secret_or_empty(), bed.secret_or_empty()]).await;
    // Serving certificates come and go while the authority grows old.
    for _ in 0..3 {
        let before = bed.secret("tls.crt");
        bed.advance((61 * 24).hours(), &leader);
        until("serving renewed", || bed.secret("tls.crt") != before).await;
        assert_eq!(bed.authorities(), 1);
    }
    let authority = bed.secret("ca.crt");
    // Day 244 of 365, and time for another serving certificate, which the old authority still signs.
    bed.advance((61 * 24).hours(), &leader);
    until("authority added and published", || {
        bed.authorities() == 2 && bed.bundles() == [bed.secret("ca.crt"), bed.secret("ca.crt")]
    })
    .await;
    assert!(bed.secret("ca.crt").ends_with(&authority));
    let before = bed.secret("tls.crt");
    bed.advance(3.minutes(), &leader);
    until("swapped", || bed.secret("tls.crt") != before).await;
    assert_eq!(bed.authorities(), 2);
    bed.advance(25.hours(), &leader);
    until("dropped", || bed.authorities() == 1 && bed.bundles()[0] == bed.secret("ca.crt")).await;
    for replica in [leader, follower] {
        replica.shutdown.cancel();
    }
}

#[tokio::test]
async fn without_the_right_to_register_the_authority_stays() {
    let bed = Bed::new();
    bed.kubernetes.read_only.store(true, Ordering::SeqCst);
    let leader = bed.start(true);
    until("served", || leader.certificates.is_ready()).await;
    let authority = bed.secret("ca.crt");
    for _ in 0..5 {
        let before = bed.secret("tls.crt");
        bed.advance(1464.hours(), &leader);
        until("serving renewed", || bed.secret("tls.crt") != before).await;
        assert_eq!(bed.secret("ca.crt"), authority);
    }
    leader.shutdown.cancel();
}

#[tokio::test]
async fn a_deleted_secret_means_new_certificates_without_a_gap() {
    let bed = Bed::new();
    let leader = bed.start(true);
    until("registered", || bed.bundles() == [bed.secret_or_empty(), bed.secret_or_empty()]).await;
    let (authority, serving) = (bed.secret("ca.crt"), bed.secret("tls.crt"));
    bed.kubernetes.delete(SECRET);
    until("made anew", || bed.kubernetes.get(SECRET).is_some() && bed.authorities() == 2).await;
    assert!(bed.secret("ca.crt").ends_with(&authority), "the old authority is still trusted");
    assert_eq!(bed.secret("tls.crt"), serving, "and its certificate still served");
    until("published", || bed.bundles()[0] == bed.secret("ca.crt")).await;
    bed.advance(3.minutes(), &leader);
    until("swapped", || bed.secret("tls.crt") != serving).await;
    leader.shutdown.cancel();
}

#[tokio::test]
async fn a_broken_or_empty_secret_is_filled() {
    for data in [json!(null), json!({}), json!({"ca.crt": "AAAA", "tls.crt": "AAAA"})] {
        let bed = Bed::new();
        let metadata = json!({"name": "kedaorg-certs", "namespace": "tandem", "labels": {"a": "b"}});
        bed.kubernetes.put(SECRET, json!({"metadata": metadata, "data": data}));
        let replicas = [bed.start(false), bed.start(false)];
        until("served", || replicas.iter().all(|replica| replica.certificates.is_ready())).await;
        assert_eq!(bed.kubernetes.get(SECRET).unwrap()["metadata"]["labels"]["a"], "b");
    }
}

#[tokio::test]
async fn names_that_no_certificate_carries() {
    let bed = Bed::new();
    let config = CertsConfig { cluster_domain: "cluster local".to_owned(), ..CertsConfig::new("tandem") };
    let (_leads, leading) = watch::channel(true);
    let ended = run(config, bed.kubernetes.client(), Arc::default(), leading, CancellationToken::new()).await;
    assert!(ended.unwrap_err().to_string().contains("cluster local"));
}
