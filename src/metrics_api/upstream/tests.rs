//! Against a TLS server on loopback that plays the other adapter.

use std::{io::Write, net::SocketAddr, sync::Arc};

use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::serve::{CertificateResolver, PeerCertificates, serve, server_config, testing::Authority};

/// Answers by path; /echo says what it was sent.
async fn adapter(request: Request<Incoming>, _: PeerCertificates) -> Response<Full<Bytes>> {
    let header = |name: &str| {
        let values = request.headers().get_all(name).iter().map(|value| value.to_str().unwrap());
        values.collect::<Vec<_>>().join("|")
    };
    let path = request.uri().path();
    let builder = Response::builder();
    let (builder, body) = match path.strip_prefix("/prefix").unwrap_or(path) {
        "/echo" => (
            builder.header("content-type", "application/vnd.kubernetes.protobuf").header("set-cookie", "x"),
            format!(
                "{} {} auth={} accept={} via={} user={}",
                request.method(),
                request.uri().path_and_query().unwrap(),
                header("authorization"),
                header("accept"),
                header("via"),
                header("x-remote-user"),
            ),
        ),
        "/busy" => (builder.status(429).header("retry-after", "2"), "busy".to_owned()),
        "/missing" => (builder.status(404).header("content-type", "application/json"), "{}".to_owned()),
        "/forbidden" => (builder.status(403), String::new()),
        "/large" => (builder, "x".repeat(LARGEST + 1)),
        "/redirect" => (builder.status(302).header("location", "https://elsewhere.invalid/"), String::new()),
        path => panic!("unexpected {path}"),
    };
    builder.body(Full::from(body)).unwrap()
}

struct Bed {
    authority: Authority,
    address: SocketAddr,
    /// Stops the server when the bed is dropped.
    _stop: tokio_util::sync::DropGuard,
}

async fn bed() -> Bed {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let authority = Authority::new("adapter");
    let certificates = Arc::new(CertificateResolver::default());
    let (chain, key) = authority.server_at("127.0.0.1").pem();
    certificates.set(chain.as_bytes(), key.as_bytes()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    tokio::spawn(serve(
        listener,
        server_config(certificates, scalers::TlsVersion::Tls12).unwrap(),
        adapter,
        shutdown.clone(),
    ));
    Bed { authority, address, _stop: shutdown.drop_guard() }
}

fn file(content: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

fn config(url: String, ca: Option<&NamedTempFile>, token: Option<&NamedTempFile>) -> UpstreamConfig {
    UpstreamConfig {
        url,
        ca_file: ca.map(|file| file.path().to_owned()),
        insecure_skip_tls_verify: false,
        token_file: token.map(|file| file.path().to_owned()),
    }
}

async fn body(answer: Response<Full<Bytes>>) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn relays() {
    let bed = bed().await;
    let (ca, token) = (file(&bed.authority.pem()), file("secret\n"));
    let url = format!("https://{}/prefix/", bed.address);
    let upstream = Upstream::new(config(url, Some(&ca), Some(&token))).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/vnd.kubernetes.protobuf, */*"));
    headers.insert("x-remote-user", HeaderValue::from_static("system:admin"));
    headers.insert("authorization", HeaderValue::from_static("Bearer readers-own"));

    let answer = upstream.get("/echo?labelSelector=a%3Db", &headers).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/vnd.kubernetes.protobuf");
    assert!(!answer.headers().contains_key("set-cookie"));
    assert_eq!(
        body(answer).await,
        "GET /prefix/echo?labelSelector=a%3Db auth=Bearer secret \
         accept=application/vnd.kubernetes.protobuf, */* via=1.1 tandem user="
    );

    let busy = upstream.get("/busy", &headers).await.unwrap();
    assert_eq!((busy.status().as_u16(), &busy.headers()["retry-after"]), (429, &HeaderValue::from(2)));
    assert_eq!(busy.headers()["content-type"], "application/json", "never without");
    assert_eq!(upstream.get("/missing", &headers).await.unwrap().status(), 404);
    assert_eq!(upstream.get("/redirect", &headers).await.unwrap().status(), 302, "not followed");
}

#[tokio::test]
async fn failures_say_what_to_do() {
    let bed = bed().await;
    let (ca, token) = (file(&bed.authority.pem()), file("secret"));
    let other_ca = file(&Authority::new("other").pem());
    let (garbage, two_lines) = (file("garbage"), file("a\nb"));
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("https://{}", bed.address);
    for (config, path, want) in [
        (config(url.clone(), Some(&ca), Some(&token)), "/forbidden", "does it have list"),
        (config(url.clone(), Some(&ca), Some(&token)), "/large", "more than 1048576 bytes"),
        (config(url.clone(), Some(&other_ca), None), "/echo", "certificate"),
        (config(url.clone(), Some(&garbage), None), "/echo", "upstream https://"),
        (config(url.clone(), Some(&ca), Some(&two_lines)), "/echo", "not a bearer token"),
        (config(format!("https://{closed}"), Some(&ca), None), "/echo", "refused"),
    ] {
        let error = Upstream::new(config).unwrap().get(path, &HeaderMap::new()).await.unwrap_err();
        assert!(error.to_string().contains(want), "{want}: {error}");
    }
    let gone = UpstreamConfig { ca_file: Some("/nonexistent/ca.crt".into()), ..config(url, None, None) };
    let error = Upstream::new(gone).unwrap().get("/echo", &HeaderMap::new()).await.unwrap_err();
    assert!(error.to_string().contains("/nonexistent/ca.crt"), "{error}");
}

#[tokio::test]
async fn insecure_takes_any_certificate() {
    let bed = bed().await;
    let insecure = UpstreamConfig {
        insecure_skip_tls_verify: true,
        ..config(format!("https://{}", bed.address), None, None)
    };
    let answer = Upstream::new(insecure).unwrap().get("/echo", &HeaderMap::new()).await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn the_token_is_not_sent_in_clear_text() {
    let token = file("secret");
    let upstream = Upstream::new(config("http://127.0.0.1:1".to_owned(), None, Some(&token))).unwrap();
    assert_eq!(upstream.authorization().await.unwrap(), None);
}

#[test]
fn urls() {
    for (url, works) in [
        ("https://adapter.datadog.svc", true),
        ("https://adapter.datadog.svc:8443/", true),
        ("http://127.0.0.1:9/prefix", true),
        ("adapter.datadog.svc", false),
        ("/apis", false),
        ("ftp://adapter", false),
        ("https://adapter?x=y", false),
        ("https://", false),
        ("", false),
    ] {
        let made = Upstream::new(config(url.to_owned(), None, None));
        assert_eq!(made.is_ok(), works, "{url}");
    }
}

#[test]
fn loops_are_noticed() {
    for (values, want) in [
        (&["1.1 tandem"][..], true),
        (&["1.1 proxy", "1.1 tandem"], true),
        (&["1.1 proxy"], false),
        (&[], false),
    ] {
        let headers: HeaderMap =
            values.iter().map(|value| (VIA, HeaderValue::from_str(value).unwrap())).collect();
        assert_eq!(Upstream::is_loop(&headers), want, "{values:?}");
    }
}
