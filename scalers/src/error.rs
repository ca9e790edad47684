//! Why a source gave no value.

use std::time::Duration;

/// Why a read, a watch or a client failed. No variant carries a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing listens, the name does not resolve, the connection broke.
    #[error("cannot reach {address}: {problem}")]
    Unreachable {
        /// Scheme, host and port, or host and port.
        address: String,
        /// What the network said.
        problem: String,
    },
    /// No answer in time.
    #[error("{address} did not answer within {}", crate::values::format_duration(*timeout))]
    Timeout {
        /// Scheme, host and port, or host and port.
        address: String,
        /// The deadline that passed.
        timeout: Duration,
    },
    /// The handshake or the certificates.
    #[error("TLS with {address} failed: {problem}")]
    Tls {
        /// Scheme, host and port, or host and port.
        address: String,
        /// What is wrong, and what to do about it.
        problem: String,
    },
    /// The source answered, and refused. The text is the scaler's, since users know KEDA's.
    #[error("{0}")]
    Refused(String),
    /// The source answered something that holds no usable value. The text is the scaler's.
    #[error("{0}")]
    Answer(String),
    /// The Kubernetes API did not give what the trigger names.
    #[error("{0}")]
    Cluster(String),
    /// A metric was asked of a trigger that does not offer it.
    #[error("no matching metrics found for {0}")]
    UnknownMetric(String),
    /// The configuration could not be turned into a client.
    #[error("{0}")]
    Configuration(String),
}

impl Error {
    /// One word for the `reason` label of counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Timeout { .. } => "timeout",
            Self::Tls { .. } => "tls",
            Self::Refused(_) => "refused",
            Self::Answer(_) => "answer",
            Self::Cluster(_) => "cluster",
            Self::UnknownMetric(_) => "unknown_metric",
            Self::Configuration(_) => "configuration",
        }
    }
}
