//! The server for real, on loopback.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::{io::AsyncReadExt, net::TcpListener, sync::oneshot, task::JoinHandle};

use super::{
    testing::{Authority, Connection, Subject, connect},
    *,
};

struct Server {
    address: SocketAddr,
    authority: Authority,
    certificates: Arc<CertificateResolver>,
    shutdown: CancellationToken,
    ended: JoinHandle<()>,
}

async fn start<H, F>(handler: H) -> Server
where
    H: Fn(Request<Incoming>, PeerCertificates) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let authority = Authority::new("serving");
    let certificates = Arc::new(CertificateResolver::default());
    let (chain, key) = authority.server().pem();
    certificates.set(chain.as_bytes(), key.as_bytes()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let tls = server_config(certificates.clone(), scalers::TlsVersion::Tls12).unwrap();
    let ended = tokio::spawn(serve(listener, tls, handler, shutdown.clone()));
    Server { address, authority, certificates, shutdown, ended }
}

impl Server {
    async fn connect(&self, protocol: &str) -> Connection {
        connect(self.address, protocol, &self.authority, None).await.unwrap()
    }
}

/// Says how many certificates the peer presented; panics on /panic.
async fn count_certificates(request: Request<Incoming>, peer: PeerCertificates) -> Response<Full<Bytes>> {
    assert_ne!(request.uri().path(), "/panic");
    let count = peer.split().map_or(0, |(_, intermediates)| 1 + intermediates.len());
    Response::new(Full::from(count.to_string()))
}

#[tokio::test]
async fn hands_the_peers_certificates_to_the_handler() {
    let server = start(count_certificates).await;
    let strangers = Authority::new("nobody knows it");
    let expired = strangers.client(&Subject { expires_in: -60, ..Subject::default() });
    for protocol in ["h2", "http/1.1"] {
        for (identity, want) in [(None, "0"), (Some(&expired), "1")] {
            let mut connection =
                connect(server.address, protocol, &server.authority, identity).await.unwrap();
            let response = connection.get("/").await.unwrap();
            assert_eq!(response.body(), want, "{protocol}");
        }
    }
}

#[tokio::test]
async fn a_panic_ends_neither_its_connection_nor_the_server() {
    let server = start(count_certificates).await;
    for protocol in ["h2", "http/1.1"] {
        let mut connection = server.connect(protocol).await;
        let status = connection.get("/panic").await.unwrap().status();
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{protocol}");
        assert_eq!(connection.get("/").await.unwrap().status(), StatusCode::OK, "{protocol}");
    }
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_disturbs_nobody() {
    let server = start(count_certificates).await;
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    assert_eq!(server.connect("h2").await.get("/").await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_new_certificate_serves_new_handshakes_and_spares_open_connections() {
    let server = start(count_certificates).await;
    let mut open = server.connect("h2").await;
    let successor = Authority::new("successor");
    let (chain, key) = successor.server().pem();
    server.certificates.set(chain.as_bytes(), key.as_bytes()).unwrap();

    assert_eq!(open.get("/").await.unwrap().status(), StatusCode::OK);
    assert!(connect(server.address, "h2", &server.authority, None).await.is_err());
    assert!(connect(server.address, "h2", &successor, None).await.is_ok());
}

#[tokio::test]
async fn tls_older_than_the_oldest_is_refused() {
    use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
    let authority = Authority::new("serving");
    let mut roots = RootCertStore::empty();
    roots.add(authority.der()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let (chain, key) = authority.server().pem();
    for (oldest, taken) in [(scalers::TlsVersion::Tls12, true), (scalers::TlsVersion::Tls13, false)] {
        let certificates = Arc::new(CertificateResolver::default());
        certificates.set(chain.as_bytes(), key.as_bytes()).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(server_config(certificates, oldest).unwrap());
        let (near, far) = tokio::io::duplex(4096);
        let name = ServerName::try_from(super::testing::SERVER_NAME).unwrap();
        let (client, server) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
        assert_eq!((client.is_ok(), server.is_ok()), (taken, taken), "{oldest:?}");
    }
}

#[test]
fn a_bad_pair_leaves_the_former_certificate() {
    let authority = Authority::new("serving");
    let (chain, key) = authority.server().pem();
    let (_, other_key) = authority.server().pem();
    let certificates = CertificateResolver::default();
    assert!(!certificates.is_ready());
    certificates.set(chain.as_bytes(), key.as_bytes()).unwrap();
    for (name, chain, key) in [
        ("empty chain", "", key.as_str()),
        ("garbage chain", "garbage", key.as_str()),
        ("empty key", chain.as_str(), ""),
        ("another's key", chain.as_str(), other_key.as_str()),
    ] {
        assert!(certificates.set(chain.as_bytes(), key.as_bytes()).is_err(), "{name}");
        assert!(certificates.is_ready(), "{name}");
    }
}

#[tokio::test]
async fn shutdown_lets_open_requests_finish() {
    let (entered, has_entered) = oneshot::channel();
    let (release, released) = oneshot::channel::<()>();
    let once = Arc::new(parking_lot::Mutex::new(Some((entered, released))));
    let server = start(move |_, _| {
        let once = once.clone();
        async move {
            let Some((entered, released)) = once.lock().take() else { panic!("one request expected") };
            entered.send(()).unwrap();
            released.await.unwrap();
            Response::new(Full::from("finished"))
        }
    })
    .await;
    let mut connection = server.connect("h2").await;
    let request = tokio::spawn(async move { connection.get("/").await });
    has_entered.await.unwrap();
    server.shutdown.cancel();
    // The listener is gone before the last answer is out.
    while tokio::net::TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!server.ended.is_finished());
    release.send(()).unwrap();
    assert_eq!(request.await.unwrap().unwrap().body(), "finished");
    server.ended.await.unwrap();
}
