//! Chains against authorities, and broken `ConfigMaps`.

use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::ExtendedKeyUsagePurpose;
use serde_json::json;

use super::*;
use crate::{
    certs::testing::FakeKubernetes,
    metrics_api::testing::{config_map, trust},
    serve::testing::{Authority, Subject},
};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn certificates_mean_what_their_authority_says() {
    let (proxies, clients, strangers) =
        (Authority::new("front-proxy"), Authority::new("clients"), Authority::new("strangers"));
    let one = r#"["front-proxy-client"]"#;
    let proxy = Subject::default();
    let jane = Subject { common_name: "jane", organization: Some("devs"), ..Subject::default() };
    let expired = Subject { expires_in: -60, ..Subject::default() };
    let server = Subject { usage: ExtendedKeyUsagePurpose::ServerAuth, ..Subject::default() };
    // name, allowed names, authority, subject, is the front proxy, is a client
    for (name, allowed, authority, subject, is_proxy, is_client) in [
        ("right name", one, &proxies, &proxy, true, false),
        ("wrong name", one, &proxies, &jane, false, false),
        ("any name: empty list", "[]", &proxies, &jane, true, false),
        ("any name: no list", "", &proxies, &jane, true, false),
        ("one of two names", r#"["aggregator","jane"]"#, &proxies, &jane, true, false),
        ("expired", one, &proxies, &expired, false, false),
        ("not for clients", one, &proxies, &server, false, false),
        ("signed by the client authority", one, &clients, &proxy, false, true),
        ("a client", one, &clients, &jane, false, true),
        ("an expired client", one, &clients, &expired, false, false),
        ("signed by a stranger", one, &strangers, &proxy, false, false),
    ] {
        let trust = trust(Some(&proxies), allowed, Some(&clients));
        let identity = authority.client(subject);
        for attempt in ["first", "remembered"] {
            let verified = trust.verify(&identity.peer(), now());
            let (proxy, client) = verified
                .as_ref()
                .map_or((false, false), |peer| (peer.front_proxy.is_some(), peer.client.is_some()));
            assert_eq!((proxy, client), (is_proxy, is_client), "{name}, {attempt}");
        }
    }
    let trust = trust(Some(&proxies), one, Some(&clients));
    let client = trust.verify(&clients.client(&jane).peer(), now()).unwrap().client.clone().unwrap();
    assert_eq!(client, ("jane".to_owned(), vec!["devs".to_owned()]));
    assert!(trust.verify(&PeerCertificates::default(), now()).is_none());
}

#[test]
fn a_remembered_certificate_expires_on_a_living_connection() {
    let proxies = Authority::new("front-proxy");
    let trust = trust(Some(&proxies), "[]", None);
    let peer = proxies.client(&Subject { expires_in: 100, ..Subject::default() }).peer();
    assert!(trust.verify(&peer, now()).is_some());
    assert!(trust.verify(&peer, now() + 99).is_some());
    assert!(trust.verify(&peer, now() + 101).is_none());
    assert!(trust.verify(&peer, 0).is_none(), "before it begins");
}

#[test]
fn memory_is_bounded() {
    let proxies = Authority::new("front-proxy");
    let trust = trust(Some(&proxies), "[]", None);
    for _ in 0..REMEMBERED + 10 {
        assert!(trust.verify(&proxies.client(&Subject::default()).peer(), now()).is_some());
    }
    assert!(trust.verified.read().len() <= REMEMBERED);
}

#[test]
fn authorities_may_rotate() {
    let (old, new) = (Authority::new("front-proxy"), Authority::new("front-proxy"));
    let store = TrustStore::default();
    let (before, after) = (old.client(&Subject::default()).peer(), new.client(&Subject::default()).peer());
    assert!(!store.is_loaded());
    store.set(trust(Some(&old), "[]", None));
    assert!(store.is_loaded());
    assert!(store.verify(&before, now()).is_some());
    assert!(store.verify(&after, now()).is_none());

    let mut both = config_map(Some(&old), "[]", None);
    both.insert("requestheader-client-ca-file".to_owned(), old.pem() + &new.pem());
    store.set(Trust::from_config_map(&both).unwrap());
    assert!(store.verify(&before, now()).is_some() && store.verify(&after, now()).is_some());

    store.set(trust(Some(&new), "[]", None));
    assert!(store.verify(&before, now()).is_none(), "what the old trust remembered is gone with it");
    assert!(store.verify(&after, now()).is_some());
}

#[tokio::test]
async fn the_config_map_is_followed() {
    const PATH: &str = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let (old, new) = (Authority::new("front-proxy"), Authority::new("front-proxy"));
    let (before, after) = (old.client(&Subject::default()).peer(), new.client(&Subject::default()).peer());
    let kubernetes = FakeKubernetes::default();
    let object =
        |authority| json!({"metadata": {"name": NAME}, "data": config_map(Some(authority), "[]", None)});
    let (store, shutdown) = (Arc::new(TrustStore::default()), CancellationToken::new());
    let task = tokio::spawn(watch(kubernetes.client(), store.clone(), shutdown.clone()));
    let until = async |peer: &PeerCertificates| {
        while store.verify(peer, now()).is_none() {
            tokio::task::yield_now().await;
        }
    };
    kubernetes.put(PATH, object(&old));
    until(&before).await;
    kubernetes.put(PATH, object(&new));
    until(&after).await;
    assert!(store.verify(&before, now()).is_none());
    kubernetes.delete(PATH);
    shutdown.cancel();
    task.await.unwrap();
    assert!(store.verify(&after, now()).is_some(), "what was known still holds");
}

#[test]
fn what_cannot_be_read_changes_nothing() {
    let proxies = Authority::new("front-proxy");
    let peer = proxies.client(&Subject::default()).peer();
    for (key, value) in [
        ("requestheader-allowed-names", "front-proxy-client"),
        ("requestheader-allowed-names", r#"{"a":1}"#),
        ("requestheader-username-headers", r#"["X Remote User"]"#),
        ("requestheader-client-ca-file", "garbage"),
        ("client-ca-file", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    ] {
        let store = TrustStore::default();
        apply(&store, Some(&config_map(Some(&proxies), r#"["front-proxy-client"]"#, None)));
        let mut broken = config_map(Some(&proxies), "[]", None);
        broken.insert(key.to_owned(), value.to_owned());
        let error = Trust::from_config_map(&broken).err().unwrap().to_string();
        assert!(error.contains(key), "{error}");
        apply(&store, Some(&broken));
        assert!(store.verify(&peer, now()).is_some(), "{key}");
    }
}
