//! The TLS side: server configuration, the hot-swapped serving certificate, the peer's certificates.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::{
    DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme, SupportedProtocolVersion,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{
        ClientHello, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use scalers::TlsVersion;
use thiserror::Error;

/// ALPN name of HTTP/2.
pub(super) const ALPN_HTTP2: &[u8] = b"h2";

/// A certificate or key that cannot be served.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// The PEM text holds no certificate, or one that does not parse.
    #[error("certificate is not PEM: {0}")]
    Certificate(String),
    /// The PEM text holds no private key, or one that does not parse.
    #[error("private key is not PEM: {0}")]
    Key(String),
    /// Key and certificate do not belong together, or the key's kind is not supported.
    #[error("certificate and key do not fit: {0}")]
    Pair(#[from] rustls::Error),
}

/// Reads every certificate of a PEM bundle, in order.
///
/// Errors: not PEM, or no certificate in it.
pub fn parse_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| CertificateError::Certificate(error.to_string()))?;
    if certificates.is_empty() {
        return Err(CertificateError::Certificate("no certificate in it".to_owned()));
    }
    Ok(certificates)
}

/// The certificate that is served now; replacing it affects the handshakes that follow, and no connection.
#[derive(Debug, Default)]
pub struct CertificateResolver {
    current: ArcSwapOption<CertifiedKey>,
}

impl CertificateResolver {
    /// Serves this PEM chain and key from now on. On error the former certificate stays.
    pub fn set(&self, chain: &[u8], key: &[u8]) -> Result<(), CertificateError> {
        let chain = parse_certificates(chain)?;
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|error| CertificateError::Key(error.to_string()))?;
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider())?;
        self.current.store(Some(Arc::new(certified)));
        Ok(())
    }

    /// Whether there is a certificate to serve; without one every handshake fails.
    pub fn is_ready(&self) -> bool {
        self.current.load().is_some()
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }
}

/// TLS from `oldest` on, HTTP/2 before HTTP/1.1, and a client certificate asked for but not required, whoever signed it:
/// kubelet's probes and holders of tokens connect without one.
///
/// Errors: none that a caller can cause; the provider is built in.
pub fn server_config(
    certificates: Arc<CertificateResolver>,
    oldest: TlsVersion,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let versions: &[&SupportedProtocolVersion] = match oldest {
        TlsVersion::Tls12 => rustls::ALL_VERSIONS,
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(AnyClientCertificate { algorithms: provider.signature_verification_algorithms });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The certificates that a peer presented, its own first; none if it presented none. Cheap to clone.
///
/// The peer holds the key of its own certificate. Nothing else about them has been verified.
#[derive(Clone, Debug, Default)]
pub struct PeerCertificates(Option<Arc<[CertificateDer<'static>]>>);

impl PeerCertificates {
    /// Takes the chain as the TLS session gives it.
    pub fn new(chain: Option<&[CertificateDer<'_>]>) -> Self {
        Self(chain.map(|chain| chain.iter().map(|certificate| certificate.clone().into_owned()).collect()))
    }

    /// The peer's own certificate and the intermediates it sent along.
    pub fn split(&self) -> Option<(&CertificateDer<'static>, &[CertificateDer<'static>])> {
        self.0.as_ref()?.split_first()
    }
}

/// Takes any certificate whose key the peer holds. Kubernetes has several client authorities, each with a meaning of
/// its own, and they change while we run: which one signed is asked per request, not here.
#[derive(Debug)]
struct AnyClientCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyClientCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// Empty means any: a hint could go stale while an authority rotates.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
