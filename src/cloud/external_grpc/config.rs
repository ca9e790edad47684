//! The file that `--cloud-config` names, and the channel that it describes.

use std::{fs, path::Path, time::Duration};

use serde::Deserialize;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::cloud::{CloudError, spec::duration};

/// How long a call may take when the file does not say (Cluster Autoscaler, `externalgrpc_cloud_provider.go`).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// Notices a server that vanished without a word.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// The file's content; what is left out or empty is not used.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    address: String,
    key: String,
    cert: String,
    cacert: String,
    grpc_timeout: Option<String>,
}

/// A server, how to reach it, and how long to wait for it.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    /// `host:port`.
    pub(super) address: String,
    /// Connects when it is used, and again when it broke.
    pub(super) channel: Channel,
    /// How long a call may take.
    pub(super) timeout: Duration,
}

impl Connection {
    /// Reads the file and those that it names: PEM of an authority, a client certificate and its key.
    ///
    /// Unlike with Cluster Autoscaler, `cacert` alone is enough for TLS: who names an authority wants no plain text.
    ///
    /// # Errors
    /// [`CloudError::Configuration`].
    pub(super) fn read(path: &Path) -> Result<Self, CloudError> {
        let wrong = |problem: String| {
            CloudError::configuration(format!("--cloud-config {}", path.display()), problem)
        };
        let text = fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        let file: File = serde_saphyr::from_str(&text)
            .map_err(|error| wrong(format!("is no YAML of its kind: {error}")))?;
        let timeout = file.timeout().map_err(wrong)?;
        let endpoint = file.endpoint().map_err(wrong)?;
        Ok(Self { channel: endpoint.connect_timeout(timeout).connect_lazy(), address: file.address, timeout })
    }
}

impl File {
    fn timeout(&self) -> Result<Duration, String> {
        let Some(text) = &self.grpc_timeout else { return Ok(DEFAULT_TIMEOUT) };
        let timeout = duration(text).and_then(|duration| Duration::try_from(duration).ok());
        timeout.filter(|timeout| !timeout.is_zero()).ok_or_else(|| {
            format!(
                "grpc_timeout {text:?} is no duration above zero; it should look like \"5s\" or \"1m30s\""
            )
        })
    }

    fn endpoint(&self) -> Result<Endpoint, String> {
        let address = &self.address;
        let is_address = address.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok()
        });
        if !is_address {
            return Err(format!("address {address:?} should be HOST:PORT, such as \"provider.infra:8086\""));
        }
        let tls = self.tls()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let wrong = |error: tonic::transport::Error| format!("{address} cannot be used: {}", root(&error));
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .and_then(|endpoint| endpoint.user_agent(concat!("tandem/", env!("CARGO_PKG_VERSION"))))
            .map_err(wrong)?
            .tcp_keepalive(Some(TCP_KEEPALIVE));
        match tls {
            Some(tls) => endpoint.tls_config(tls).map_err(wrong),
            None => Ok(endpoint),
        }
    }

    fn tls(&self) -> Result<Option<ClientTlsConfig>, String> {
        if self.cert.is_empty() != self.key.is_empty() {
            return Err("cert and key belong together, only one is given".to_owned());
        }
        if self.cert.is_empty() && self.cacert.is_empty() {
            return Ok(None);
        }
        let mut config = ClientTlsConfig::new();
        if !self.cert.is_empty() {
            config = config.identity(Identity::from_pem(pem("cert", &self.cert)?, pem("key", &self.key)?));
        }
        Ok(Some(if self.cacert.is_empty() {
            config.with_native_roots()
        } else {
            config.ca_certificate(Certificate::from_pem(pem("cacert", &self.cacert)?))
        }))
    }
}

fn pem(field: &str, path: &str) -> Result<Vec<u8>, String> {
    let bytes = fs::read(path).map_err(|error| format!("{field} {path} cannot be read: {error}"))?;
    if bytes.windows(11).any(|window| window == b"-----BEGIN ") {
        Ok(bytes)
    } else {
        Err(format!("{field} {path} is no PEM"))
    }
}

/// The innermost cause, which is the one that says something.
pub(super) fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
