//! HTTP: clients shared by all scalers, bounded answers, errors that say what is wrong.

use std::error::Error as StdError;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::{Certificate, Client, ClientBuilder, Identity, RequestBuilder, StatusCode, Url, tls};
use rustls::CertificateError;

use crate::context::Context;
use crate::error::Error;
use crate::input::Secret;

/// More than any source of one number needs; a larger answer is a wrong address.
const MAX_BODY: usize = 10 * 1024 * 1024;

/// Idle connections kept a host. Reads of one source are spread over time, so that more are rarely open at once.
const IDLE_PER_HOST: usize = 32;

/// KEDA's default of `--http-idle-conn-timeout`.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// How sources are connected to.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpSettings {
    /// The oldest TLS spoken (`KEDA_HTTP_MIN_TLS_VERSION`).
    pub min_tls: TlsVersion,
    /// A connection a request (`KEDA_HTTP_DISABLE_KEEP_ALIVE`).
    pub no_keep_alive: bool,
}

/// The oldest TLS that is spoken, as KEDA writes it. rustls speaks nothing older than 1.2, so `TLS10` and `TLS11` mean that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// `TLS12`
    #[default]
    Tls12,
    /// `TLS13`
    Tls13,
}

impl FromStr for TlsVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "TLS10" | "TLS11" | "TLS12" => Ok(Self::Tls12),
            "TLS13" => Ok(Self::Tls13),
            _ => Err("write TLS12 or TLS13".to_owned()),
        }
    }
}

/// Connection pools; cloning shares them.
#[derive(Clone)]
pub struct HttpClients {
    verified: Client,
    unverified: Client,
    base: Arc<Base>,
}

/// What all clients share.
struct Base {
    /// Trusted beside the system's.
    authorities: Vec<Certificate>,
    settings: HttpSettings,
}

impl HttpClients {
    /// Fresh pools that trust the system's authorities.
    pub fn new() -> Result<Self, Error> {
        Self::with(&[], HttpSettings::default())
    }

    /// Fresh pools that trust the authorities of these PEM bundles beside the system's. Makes ring the process's crypto
    /// provider for TLS, unless it has one.
    pub fn with(bundles: &[String], settings: HttpSettings) -> Result<Self, Error> {
        // An error means that the process has a provider, which is all we want.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let read = |bundle: &String| Certificate::from_pem_bundle(bundle.as_bytes());
        let authorities: reqwest::Result<Vec<_>> = bundles.iter().map(read).collect();
        let authorities = authorities.map_err(|problem| {
            Error::Configuration(format!("an authority is no PEM certificate: {}", chain(&problem)))
        })?;
        let base = Base { authorities: authorities.concat(), settings };
        let verified = base.builder().build().or_else(|problem| {
            // An image without CA certificates; plain HTTP and triggers with their own CA still work there.
            tracing::warn!(problem = %chain(&problem), "no system CA certificates: https needs a trigger's own ca");
            base.plain().tls_certs_only(base.authorities.clone()).build()
        });
        let unverified = base.plain().tls_danger_accept_invalid_certs(true).build();
        let made = |client: reqwest::Result<Client>| {
            client.map_err(|problem| {
                Error::Configuration(format!("cannot make an HTTP client: {}", chain(&problem)))
            })
        };
        Ok(Self { verified: made(verified)?, unverified: made(unverified)?, base: Arc::new(base) })
    }
}

impl Base {
    fn builder(&self) -> ClientBuilder {
        self.plain().tls_certs_merge(self.authorities.clone())
    }

    /// A builder that trusts nobody beside the system's authorities.
    fn plain(&self) -> ClientBuilder {
        Client::builder()
            .user_agent(concat!("tandem/", env!("CARGO_PKG_VERSION")))
            .tls_version_min(match self.settings.min_tls {
                TlsVersion::Tls12 => tls::Version::TLS_1_2,
                TlsVersion::Tls13 => tls::Version::TLS_1_3,
            })
            .pool_max_idle_per_host(if self.settings.no_keep_alive { 0 } else { IDLE_PER_HOST })
            .pool_idle_timeout(IDLE_TIMEOUT)
    }
}

/// Which client a trigger's requests go through.
#[derive(Debug)]
pub(crate) enum Transport {
    /// The shared pool that verifies certificates by the system's authorities.
    Verified,
    /// The shared pool that verifies nothing (`unsafeSsl`).
    Unverified,
    /// A client of the trigger's own.
    Own(Box<OwnTransport>),
}

/// TLS settings of one trigger, and the client that is made of them when it is first used.
#[derive(Debug)]
pub(crate) struct OwnTransport {
    /// PEM bundle, trusted beside the system's authorities.
    pub(crate) ca: Option<Secret>,
    /// PEM certificate chain and private key to show.
    pub(crate) identity: Option<(Secret, Secret)>,
    /// `unsafeSsl`.
    pub(crate) unverified: bool,
    pub(crate) client: OnceLock<Result<Client, String>>,
}

impl Transport {
    pub(crate) fn shared(unverified: bool) -> Self {
        if unverified { Self::Unverified } else { Self::Verified }
    }

    pub(crate) fn client<'a>(&'a self, clients: &'a HttpClients) -> Result<&'a Client, Error> {
        match self {
            Self::Verified => Ok(&clients.verified),
            Self::Unverified => Ok(&clients.unverified),
            Self::Own(own) => own
                .client
                .get_or_init(|| own.build(&clients.base))
                .as_ref()
                .map_err(|problem| Error::Configuration(problem.clone())),
        }
    }
}

impl OwnTransport {
    fn build(&self, base: &Base) -> Result<Client, String> {
        let mut builder = base.builder().tls_danger_accept_invalid_certs(self.unverified);
        if let Some(ca) = &self.ca {
            let certificates = Certificate::from_pem_bundle(ca.expose().as_bytes()).unwrap_or_default();
            if certificates.is_empty() {
                return Err("the parameter ca holds no PEM certificate".to_owned());
            }
            builder = builder.tls_certs_merge(certificates);
        }
        if let Some((cert, key)) = &self.identity {
            let pem = Secret::from(format!("{}\n{}", cert.expose(), key.expose()));
            let identity = Identity::from_pem(pem.expose().as_bytes())
                .map_err(|_| "the parameters cert and key hold no PEM certificate and private key")?;
            builder = builder.identity(identity);
        }
        builder
            .build()
            .map_err(|problem| format!("cannot make a TLS client of ca, cert and key: {}", chain(&problem)))
    }
}

/// An answer, whatever its status.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// Sends a request and reads the whole answer within `timeout`.
pub(crate) async fn send(cx: &Context, request: RequestBuilder, timeout: Duration) -> Result<Answer, Error> {
    let started = Instant::now();
    let answer = exchange(request, timeout).await;
    cx.observer.request(answer.as_ref().ok().map(|answer| answer.status.as_u16()), started.elapsed());
    answer
}

async fn exchange(request: RequestBuilder, timeout: Duration) -> Result<Answer, Error> {
    let (client, request) = request.timeout(timeout).build_split();
    let request = request.map_err(|problem| Error::Configuration(chain(&problem.without_url())))?;
    let address = address(request.url());
    let failed = |problem| classify(problem, &address, timeout);
    let mut response = client.execute(request).await.map_err(failed)?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > MAX_BODY {
            let message = format!("{address} answered more than {} MiB", MAX_BODY / 1024 / 1024);
            return Err(Error::Answer(message));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, body: body.into() })
}

/// Scheme, host and port: what may be shown of a URL, whose user, path and query may hold secrets.
pub(crate) fn address(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

fn classify(problem: reqwest::Error, address: &str, timeout: Duration) -> Error {
    let address = address.to_owned();
    if problem.is_timeout() {
        return Error::Timeout { address, timeout };
    }
    let problem = problem.without_url();
    if let Some(tls) = causes(&problem).find_map(tls_error) {
        return Error::Tls { problem: describe_tls(tls), address };
    }
    if causes(&problem).filter_map(|cause| cause.downcast_ref::<hyper::Error>()).any(not_http) {
        return Error::Answer(format!("{address} does not speak HTTP ({})", root(&problem)));
    }
    if problem.is_redirect() {
        return Error::Answer(format!("{address} redirects too often"));
    }
    if problem.is_decode() || problem.is_body() {
        return Error::Answer(format!("the answer of {address} broke off: {}", root(&problem)));
    }
    Error::Unreachable { address, problem: root(&problem) }
}

/// The server sent something that is no answer, or spoke first, as mail and database servers do.
fn not_http(error: &hyper::Error) -> bool {
    let broke_off = error.is_closed() || error.is_canceled() || error.is_incomplete_message();
    error.is_parse() || (error.source().is_none() && !broke_off)
}

/// An error and its causes, from the outside in.
pub(crate) fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The texts of an error and its causes.
fn chain(error: &(dyn StdError + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The text of the innermost cause, which is the one that says something.
pub(crate) fn root(error: &(dyn StdError + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

/// The TLS error in a link of a chain; I/O errors hide what they wrap from `source`.
pub(crate) fn tls_error<'a>(link: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let wrapped = || tls_error(link.downcast_ref::<std::io::Error>()?.get_ref()?);
    link.downcast_ref::<rustls::Error>().or_else(wrapped)
}

/// What is wrong with the handshake, and what to do about it.
pub(crate) fn describe_tls(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::UnknownIssuer => {
                "the certificate is signed by an unknown authority; give its CA in a TriggerAuthentication, or set \
                 unsafeSsl"
                    .to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the certificate has expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the certificate is not valid yet".to_owned()
            }
            CertificateError::NotValidForNameContext { expected, presented } => {
                // They come as `DnsName("name")`.
                let names: Vec<_> =
                    presented.iter().map(|name| name.split('"').nth(1).unwrap_or(name)).collect();
                format!("the certificate is for {}, not for {}", names.join(", "), expected.to_str())
            }
            CertificateError::NotValidForName => "the certificate is for another name".to_owned(),
            other => format!("the certificate is not valid: {other}"),
        },
        rustls::Error::InvalidMessage(_) => "the server does not speak TLS on this port".to_owned(),
        rustls::Error::AlertReceived(alert) => {
            format!("the server refused with {alert:?}; it may want another client certificate")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    use super::*;
    use crate::testing::Server;

    async fn get(url: &str, timeout: Duration) -> Result<Answer, Error> {
        let clients = HttpClients::new().unwrap();
        exchange(clients.verified.get(url), timeout).await
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn tls_versions_are_written_as_keda_writes_them() {
        for (text, want) in [
            ("TLS10", Ok(TlsVersion::Tls12)),
            ("TLS12", Ok(TlsVersion::Tls12)),
            ("TLS13", Ok(TlsVersion::Tls13)),
            ("1.3", Err("write TLS12 or TLS13".to_owned())),
        ] {
            assert_eq!(text.parse(), want, "{text}");
        }
    }

    #[tokio::test]
    async fn errors_say_what_is_wrong_and_no_secret() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = listener.local_addr().unwrap().to_string();
        drop(listener);
        let url = format!("http://user:hunter2@{closed}/path?token=hunter2");
        let error = get(&url, LONG).await.err().unwrap();
        assert_eq!(error.reason(), "unreachable");
        let text = error.to_string();
        assert!(text.starts_with(&format!("cannot reach http://{closed}: ")), "{text}");
        assert!(text.contains("refused") && !text.contains("hunter2"), "{text}");

        let server = Server::answering(200, "").await;
        let error = get(&format!("https://{}", server.address), LONG).await.err().unwrap();
        assert_eq!(
            error.to_string(),
            format!("TLS with https://{} failed: the server does not speak TLS on this port", server.address)
        );
    }

    #[tokio::test]
    async fn a_server_that_speaks_something_else_is_named() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ =
                    tokio::io::AsyncWriteExt::write_all(&mut stream, b"220 mail ESMTP ready\r\n\r\n").await;
            }
        });
        let error = get(&format!("http://{address}"), LONG).await.err().unwrap().to_string();
        assert!(error.starts_with(&format!("http://{address} does not speak HTTP")), "{error}");
    }

    #[tokio::test]
    async fn silence_ends_at_the_deadline() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let error = get(&format!("http://{address}"), Duration::from_millis(20)).await.err().unwrap();
        assert_eq!(error.to_string(), format!("http://{address} did not answer within 20ms"));
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut() {
        let server = Server::answering(200, &"x".repeat(MAX_BODY + 1)).await;
        let error = get(&server.url(), LONG).await.err().unwrap();
        assert_eq!(error.to_string(), format!("{} answered more than 10 MiB", server.url()));
        let server = Server::answering(200, &"x".repeat(MAX_BODY)).await;
        assert_eq!(get(&server.url(), LONG).await.unwrap().body.len(), MAX_BODY);
    }

    #[test]
    fn certificates_that_are_none_are_named() {
        let clients = HttpClients::new().unwrap();
        for (ca, identity, wanted) in [
            (Some("caaa"), None, "the parameter ca holds no PEM certificate"),
            (
                None,
                Some(("ceert", "hunter2")),
                "the parameters cert and key hold no PEM certificate and private key",
            ),
        ] {
            let transport = Transport::Own(Box::new(OwnTransport {
                ca: ca.map(Secret::from),
                identity: identity.map(|(cert, key)| (Secret::from(cert), Secret::from(key))),
                unverified: false,
                client: OnceLock::new(),
            }));
            assert_eq!(transport.client(&clients).err().unwrap().to_string(), wanted);
        }
    }

    /// A self-signed certificate with its key, both as PEM.
    fn signed(name: &str, change: impl FnOnce(&mut rcgen::CertificateParams)) -> (String, String) {
        let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        let key = rcgen::KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    /// A server with such a certificate; asks its clients for one that `clients` signed.
    async fn tls_server((cert, key): &(String, String), clients: Option<&str>) -> Server {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let builder = match clients {
            None => rustls::ServerConfig::builder().with_no_client_auth(),
            Some(ca) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
                let verifier = rustls::server::WebPkiClientVerifier::builder(roots.into()).build().unwrap();
                rustls::ServerConfig::builder().with_client_cert_verifier(verifier)
            }
        };
        Server::start_tls(builder.with_single_cert(chain, key).unwrap()).await
    }

    async fn status(server: &Server, transport: &Transport) -> Result<u16, String> {
        let clients = HttpClients::new().unwrap();
        let request = transport.client(&clients).unwrap().get(format!("https://{}", server.address));
        exchange(request, LONG).await.map(|answer| answer.status.as_u16()).map_err(|error| error.to_string())
    }

    fn own(ca: &str, identity: Option<&(String, String)>) -> Transport {
        Transport::Own(Box::new(OwnTransport {
            ca: Some(Secret::from(ca)),
            identity: identity.map(|(cert, key)| (cert.as_str().into(), key.as_str().into())),
            unverified: false,
            client: OnceLock::new(),
        }))
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_certificate_is_said() {
        let good = signed("127.0.0.1", |_| {});
        let expired = signed("127.0.0.1", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
        let other = signed("prometheus.example", |_| {});
        for (certificate, ca, wanted) in [
            (&good, None, "the certificate is signed by an unknown authority; give its CA"),
            (&expired, Some(&expired.0), "the certificate has expired"),
            (&other, Some(&other.0), "the certificate is for prometheus.example, not for 127.0.0.1"),
        ] {
            let server = tls_server(certificate, None).await;
            let transport = ca.map_or(Transport::Verified, |ca| own(ca, None));
            let error = status(&server, &transport).await.unwrap_err();
            let start = format!("TLS with https://{} failed: {wanted}", server.address);
            assert!(error.contains(&start), "{error}");
            assert_eq!(status(&server, &Transport::Unverified).await, Ok(200));
        }
        let server = tls_server(&good, None).await;
        assert_eq!(status(&server, &own(&good.0, None)).await, Ok(200));
    }

    #[tokio::test]
    async fn a_client_certificate_is_shown_where_one_is_wanted() {
        let (server_side, client_side) = (signed("127.0.0.1", |_| {}), signed("me", |_| {}));
        let server = tls_server(&server_side, Some(&client_side.0)).await;
        assert_eq!(status(&server, &own(&server_side.0, Some(&client_side))).await, Ok(200));
        let error = status(&server, &own(&server_side.0, None)).await.unwrap_err();
        assert!(error.contains("it may want another client certificate"), "{error}");
    }
}
