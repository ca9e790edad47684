//! gRPC channels, shared by the triggers that name the same server in the same way.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

use crate::error::Error;
use crate::http::{causes, describe_tls, root, tls_error};
use crate::input::Secret;

/// Notices a peer that vanished while a stream waits. Pings of HTTP/2 would do so too, but many gRPC servers take them
/// for abuse.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Shared gRPC channels; cloning shares them. A channel ends with the last trigger that uses it.
#[derive(Clone, Default)]
pub struct Channels {
    open: Arc<Mutex<HashMap<Target, Weak<Channel>>>>,
}

/// A server, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    /// `host:port`.
    pub(crate) authority: String,
    /// `None` for plain text.
    pub(crate) tls: Option<Tls>,
}

/// TLS settings of a [`Target`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tls {
    /// `unsafeSsl`.
    pub(crate) unverified: bool,
    /// PEM bundle, trusted instead of the system's authorities.
    pub(crate) ca: Option<Secret>,
    /// PEM certificate chain and private key to show.
    pub(crate) identity: Option<(Secret, Secret)>,
}

impl Channels {
    /// The channel to a server; it connects when it is used, and again when it broke.
    pub(crate) fn get(&self, target: &Target, timeout: Duration) -> Result<Arc<Channel>, Error> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = open.get(target).and_then(Weak::upgrade) {
            return Ok(channel);
        }
        let channel = Arc::new(target.connect(timeout)?);
        open.retain(|_, channel| channel.strong_count() > 0);
        open.insert(target.clone(), Arc::downgrade(&channel));
        Ok(channel)
    }
}

impl Target {
    /// Reads a gRPC target: `host`, `host:port`, with `dns:///` or a scheme before it or not. Without a port it is
    /// 443, as for every gRPC client.
    pub(crate) fn parse(address: &str, tls: Option<Tls>) -> Option<Self> {
        let schemes = ["dns:///", "dns:", "passthrough:///", "http://", "https://"];
        let bare = schemes.iter().find_map(|scheme| address.strip_prefix(scheme)).unwrap_or(address);
        let authority: http::uri::Authority = bare.trim_end_matches('/').parse().ok()?;
        let authority = match (authority.port_u16(), authority.as_str().rsplit_once(':')) {
            (Some(_), _) => authority.to_string(),
            // An IPv6 address in brackets, or no colon at all.
            (None, Some((_, rest))) if !rest.ends_with(']') => return None,
            (None, _) => format!("{authority}:443"),
        };
        (!authority.contains('@')).then_some(Self { authority, tls })
    }

    /// The address, to show.
    pub(crate) fn address(&self) -> String {
        self.authority.clone()
    }

    fn connect(&self, timeout: Duration) -> Result<Channel, Error> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let wrong = |problem: &tonic::transport::Error| {
            let message = format!("cannot make a gRPC client for {}: {}", self.authority, root(problem));
            Error::Configuration(message)
        };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{}", self.authority))
            .map_err(|problem| wrong(&problem))?
            .user_agent(concat!("tandem/", env!("CARGO_PKG_VERSION")))
            .map_err(|problem| wrong(&problem))?
            .connect_timeout(timeout)
            .tcp_keepalive(Some(TCP_KEEPALIVE));
        let endpoint = match &self.tls {
            Some(tls) => tls.configure(endpoint).map_err(|problem| wrong(&problem))?,
            None => endpoint,
        };
        Ok(endpoint.connect_lazy())
    }
}

impl Tls {
    fn configure(&self, endpoint: Endpoint) -> Result<Endpoint, tonic::transport::Error> {
        let mut config = ClientTlsConfig::new();
        if let Some((cert, key)) = &self.identity {
            config = config.identity(Identity::from_pem(cert.expose(), key.expose()));
        }
        if self.unverified {
            return endpoint.tls_config_with_verifier(config, Arc::new(Unverified));
        }
        endpoint.tls_config(match &self.ca {
            Some(ca) => config.ca_certificate(Certificate::from_pem(ca.expose())),
            None => config.with_native_roots(),
        })
    }
}

/// Accepts every certificate (`unsafeSsl`).
#[derive(Debug)]
struct Unverified;

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = CryptoProvider::get_default();
        provider
            .map(|provider| provider.signature_verification_algorithms.supported_schemes())
            .unwrap_or_default()
    }
}

/// What a failed call means.
pub(crate) fn classify(status: &Status, target: &Target, method: &str) -> Error {
    let address = target.address();
    if let Some(tls) = causes(status).find_map(tls_error) {
        return Error::Tls { address, problem: describe_tls(tls) };
    }
    // A status with a cause was made here, not by the server.
    if status.source().is_some() {
        return Error::Unreachable { address, problem: root(status) };
    }
    if status.code() == Code::Unimplemented {
        return Error::Refused(format!("the external scaler at {address} does not implement {method}"));
    }
    Error::Refused(format!(
        "{method} of the external scaler at {address} answered {:?}: {}",
        status.code(),
        status.message()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_grpc_reads_them() {
        for (address, wanted) in [
            ("scaler.shop:6000", Some("scaler.shop:6000")),
            ("scaler", Some("scaler:443")),
            ("dns:///scaler.shop:6000", Some("scaler.shop:6000")),
            ("dns:scaler:1", Some("scaler:1")),
            ("http://scaler:80/", Some("scaler:80")),
            ("[fd00::1]:6000", Some("[fd00::1]:6000")),
            ("[fd00::1]", Some("[fd00::1]:443")),
            ("unix:///run/x.sock", None),
            ("scaler:port", None),
            ("scaler/path", None),
            ("user@scaler:1", None),
            ("a b", None),
        ] {
            let target = Target::parse(address, None).map(|target| target.authority);
            assert_eq!(target.as_deref(), wanted, "{address}");
        }
    }

    #[tokio::test]
    async fn a_channel_is_shared_while_it_is_used() {
        let channels = Channels::default();
        let target = Target::parse("127.0.0.1:1", None).unwrap();
        let get = || channels.get(&target, Duration::from_secs(3)).unwrap();
        let (first, second) = (get(), get());
        assert!(Arc::ptr_eq(&first, &second));
        drop((first, second));
        let other = Target::parse("127.0.0.1:2", None).unwrap();
        let _held = channels.get(&other, Duration::from_secs(3)).unwrap();
        assert_eq!(channels.open.lock().unwrap().len(), 1);
    }
}
