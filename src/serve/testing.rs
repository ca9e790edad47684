//! For tests: authorities made on the spot, and a client that speaks HTTP over TLS to a loopback server.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::PeerCertificates;

/// The name that [`Authority::server`] certificates carry and that [`connect`] asks for.
pub(crate) const SERVER_NAME: &str = "tandem.tandem.svc";

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

/// A certificate with its key.
pub(crate) struct Identity {
    pub(crate) certificate: Certificate,
    pub(crate) key: KeyPair,
}

/// What a client certificate says.
pub(crate) struct Subject<'a> {
    pub(crate) common_name: &'a str,
    /// One: rcgen writes no second.
    pub(crate) organization: Option<&'a str>,
    pub(crate) usage: ExtendedKeyUsagePurpose,
    /// Seconds from now to its end; negative is in the past.
    pub(crate) expires_in: i64,
}

impl Default for Subject<'_> {
    fn default() -> Self {
        Self {
            common_name: "front-proxy-client",
            organization: None,
            usage: ExtendedKeyUsagePurpose::ClientAuth,
            expires_in: 3600,
        }
    }
}

impl Authority {
    pub(crate) fn new(common_name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    pub(crate) fn server(&self) -> Identity {
        self.server_at(SERVER_NAME)
    }

    pub(crate) fn server_at(&self, name: &str) -> Identity {
        self.sign(&CertificateParams::new(vec![name.to_owned()]).unwrap())
    }

    pub(crate) fn client(&self, subject: &Subject) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, subject.common_name);
        if let Some(organization) = subject.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.extended_key_usages = vec![subject.usage.clone()];
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
        params.not_before = date_time_ymd(2000, 1, 1);
        let end = u64::try_from(now + subject.expires_in).unwrap();
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(end);
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        Identity { certificate: params.signed_by(&key, &self.issuer).unwrap(), key }
    }
}

impl Identity {
    pub(crate) fn pem(&self) -> (String, String) {
        (self.certificate.pem(), self.key.serialize_pem())
    }

    pub(crate) fn peer(&self) -> PeerCertificates {
        PeerCertificates::new(Some(&[self.certificate.der().clone()]))
    }
}

/// A client's HTTP connection.
pub(crate) enum Connection {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Connection {
    /// Sends a request without a body and reads the whole answer.
    pub(crate) async fn send(&mut self, request: Request<()>) -> hyper::Result<Response<Bytes>> {
        let request = request.map(|()| Empty::new());
        let response = match self {
            Self::Http1(sender) => sender.send_request(request).await?,
            Self::Http2(sender) => sender.send_request(request).await?,
        };
        let (parts, body) = response.into_parts();
        Ok(Response::from_parts(parts, body.collect().await?.to_bytes()))
    }

    /// GET of a path.
    pub(crate) async fn get(&mut self, path: &str) -> hyper::Result<Response<Bytes>> {
        let uri = match self {
            Self::Http1(_) => path.to_owned(),
            Self::Http2(_) => format!("https://{SERVER_NAME}{path}"),
        };
        self.send(Request::get(uri).header("host", SERVER_NAME).body(()).unwrap()).await
    }
}

/// Connects with the given protocol ("h2" or "http/1.1"), trusting one authority, presenting `identity`.
pub(crate) async fn connect(
    address: SocketAddr,
    protocol: &str,
    trusted: &Authority,
    identity: Option<&Identity>,
) -> std::io::Result<Connection> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder
            .with_client_auth_cert(
                vec![identity.certificate.der().clone()],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.key.serialize_der())),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let io = TokioIo::new(stream);
    Ok(if protocol == "h2" {
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), io).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Connection::Http2(sender)
    } else {
        let (sender, connection) = http1::handshake(io).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Connection::Http1(sender)
    })
}
