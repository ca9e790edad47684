//! Who a request is taken for.

use http::{HeaderMap, HeaderValue};

use super::*;
use crate::{
    metrics_api::{
        Observer,
        testing::{FakeKubernetes, ManualClock, trust},
    },
    serve::testing::{Authority, Subject},
};

struct Bed {
    proxies: Authority,
    clients: Authority,
    kubernetes: FakeKubernetes,
    clock: ManualClock,
    authenticator: Authenticator,
}

fn bed() -> Bed {
    let (proxies, clients) = (Authority::new("front-proxy"), Authority::new("clients"));
    let store = TrustStore::default();
    store.set(trust(Some(&proxies), r#"["front-proxy-client"]"#, Some(&clients)));
    let kubernetes = FakeKubernetes::default();
    kubernetes.tokens.lock().insert("good", ("system:serviceaccount:a:b", &["system:serviceaccounts"]));
    let clock = ManualClock::new();
    let reviewer = Reviewer::new(kubernetes.client(), Observer::default());
    let authenticator = Authenticator::new(Arc::new(store), reviewer, clock.clock());
    Bed { proxies, clients, kubernetes, clock, authenticator }
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let parse = |(name, value): &(&'static str, &str)| {
        (HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    pairs.iter().map(parse).collect()
}

/// Name and groups in one line; "" is anonymous.
async fn who(bed: &Bed, peer: &PeerCertificates, pairs: &[(&'static str, &str)]) -> String {
    let user = bed.authenticator.authenticate(&headers(pairs), peer).await.unwrap();
    user.map(|user| format!("{} {}", user.name, user.groups.join(","))).unwrap_or_default()
}

#[tokio::test]
async fn identities() {
    let bed = bed();
    let proxy = bed.proxies.client(&Subject::default()).peer();
    let wrong_name = bed.proxies.client(&Subject { common_name: "mallory", ..Subject::default() }).peer();
    let expired = bed.proxies.client(&Subject { expires_in: -1, ..Subject::default() }).peer();
    let jane = Subject { common_name: "jane", organization: Some("devs"), ..Subject::default() };
    let jane = bed.clients.client(&jane).peer();
    let client_called_proxy = bed.clients.client(&Subject::default()).peer();
    let nobody = PeerCertificates::default();
    let forged: &[_] = &[("x-remote-user", "root"), ("x-remote-group", "system:masters")];
    let token: &[_] = &[("authorization", "Bearer good")];

    for (name, peer, pairs, want) in [
        ("proxied", &proxy, forged, "root system:masters,system:authenticated"),
        (
            "proxied without groups",
            &proxy,
            &[("x-remote-user", "system:kube-aggregator")],
            "system:kube-aggregator system:authenticated",
        ),
        (
            "proxied with all headers",
            &proxy,
            &[("x-remote-user", "é"), ("x-remote-group", "a"), ("x-remote-group", "system:authenticated")],
            "é a,system:authenticated",
        ),
        (
            "proxied anonymous",
            &proxy,
            &[("x-remote-user", "system:anonymous"), ("x-remote-group", "system:unauthenticated")],
            "system:anonymous system:unauthenticated",
        ),
        ("proxied without a user", &proxy, &[("x-remote-group", "system:masters")], ""),
        ("proxied with an empty user", &proxy, &[("x-remote-user", "")], ""),
        ("wrong common name", &wrong_name, forged, ""),
        ("expired", &expired, forged, ""),
        ("forged without a certificate", &nobody, forged, ""),
        ("forged with a client certificate", &jane, forged, "jane devs,system:authenticated"),
        (
            "forged with the proxy's name",
            &client_called_proxy,
            forged,
            "front-proxy-client system:authenticated",
        ),
        ("client certificate", &jane, &[], "jane devs,system:authenticated"),
        ("token", &nobody, token, "system:serviceaccount:a:b system:serviceaccounts,system:authenticated"),
        (
            "token, scheme in capitals",
            &nobody,
            &[("authorization", "BEARER  good ")],
            "system:serviceaccount:a:b system:serviceaccounts,system:authenticated",
        ),
        (
            "token and forged headers",
            &nobody,
            &[("authorization", "Bearer good"), ("x-remote-user", "root")],
            "system:serviceaccount:a:b system:serviceaccounts,system:authenticated",
        ),
        ("certificate before token", &jane, token, "jane devs,system:authenticated"),
        (
            "token behind a useless certificate",
            &wrong_name,
            token,
            "system:serviceaccount:a:b system:serviceaccounts,system:authenticated",
        ),
        ("bad token", &nobody, &[("authorization", "Bearer bad")], ""),
        ("empty token", &nobody, &[("authorization", "Bearer ")], ""),
        ("basic", &nobody, &[("authorization", "Basic Z29vZA==")], ""),
        ("nothing", &nobody, &[], ""),
    ] {
        assert_eq!(who(&bed, peer, pairs).await, want, "{name}");
    }
}

#[tokio::test]
async fn endless_tokens_are_not_reviewed() {
    let bed = bed();
    for (length, reviews) in [(LONGEST_TOKEN, 1), (LONGEST_TOKEN + 1, 1)] {
        let token = format!("Bearer {}", "x".repeat(length));
        assert_eq!(who(&bed, &PeerCertificates::default(), &[("authorization", &token)]).await, "");
        let asked = bed.kubernetes.token_reviews.load(std::sync::atomic::Ordering::SeqCst);
        assert_eq!(asked, reviews, "{length}");
    }
}

#[tokio::test]
async fn uid_and_extra_come_along() {
    let bed = bed();
    let proxy = bed.proxies.client(&Subject::default()).peer();
    let headers = headers(&[
        ("x-remote-user", "jane"),
        ("x-remote-uid", "42"),
        ("x-remote-extra-scopes", "a"),
        ("x-remote-extra-scopes", "b"),
        ("x-remote-extra-acme.com%2fproject", "x"),
        ("x-remote-extra-bad%zz", "y"),
        ("x-other-extra-scopes", "c"),
    ]);
    let user = bed.authenticator.authenticate(&headers, &proxy).await.unwrap().unwrap();
    assert_eq!(user.uid, "42");
    let extra: Vec<_> =
        user.extra.iter().map(|(key, values)| format!("{key}={}", values.join("+"))).collect();
    assert_eq!(extra, ["acme.com/project=x", "bad%zz=y", "scopes=a+b"]);
}

#[tokio::test]
async fn tokens_are_reviewed_once_in_ten_seconds() {
    let bed = bed();
    let nobody = PeerCertificates::default();
    for (second, token, reviews) in
        [(0, "good", 1), (9, "good", 1), (9, "bad", 2), (10, "good", 3), (18, "bad", 3), (19, "bad", 4)]
    {
        bed.clock.set(second);
        let named = who(&bed, &nobody, &[("authorization", &format!("Bearer {token}"))]).await;
        assert_eq!(named.is_empty(), token == "bad", "{token} at {second}");
        let asked = bed.kubernetes.token_reviews.load(std::sync::atomic::Ordering::SeqCst);
        assert_eq!(asked, reviews, "{token} at {second}");
    }
}

#[tokio::test]
async fn a_review_that_fails_authenticates_nobody() {
    let bed = bed();
    let nobody = PeerCertificates::default();
    let good = headers(&[("authorization", "Bearer good")]);
    assert!(bed.authenticator.authenticate(&good, &nobody).await.unwrap().is_some());
    bed.kubernetes.down.store(true, std::sync::atomic::Ordering::SeqCst);
    bed.clock.set(59);
    assert!(bed.authenticator.authenticate(&good, &nobody).await.unwrap().is_some(), "known for 59 s");
    bed.clock.set(60);
    assert!(bed.authenticator.authenticate(&good, &nobody).await.is_err());
    let unknown = headers(&[("authorization", "Bearer other")]);
    assert!(bed.authenticator.authenticate(&unknown, &nobody).await.is_err());
}
