//! The step `grpc` of `--expander`: a server of the user's says which groups may grow.
//!
//! Source of the protocol: Cluster Autoscaler, `expander/grpcplugin/protos/expander.proto`.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use http::uri::PathAndQuery;
use prost::Message;
use tandem_core::nodes::pass::{ExpansionOption, ScaleUp};
use thiserror::Error;
use tonic::{
    Request, Status,
    client::Grpc,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::cloud::external_grpc::objects::{node_bytes, pod_bytes};

/// How long the server may think (Cluster Autoscaler, `grpc_client.go`).
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer: it may hold every pod that was sent, 128 MiB as with Cluster Autoscaler.
const LONGEST_ANSWER: usize = 128 << 20;
/// The one method.
const BEST_OPTIONS: &str = "/grpcplugin.Expander/BestOptions";

/// Why the server of `--expander=grpc` cannot be asked.
#[derive(Debug, Error)]
pub enum ServerError {
    /// It is not said where it is.
    #[error("--expander=grpc needs --grpc-expander-url, the server as HOST:PORT")]
    NoUrl,
    /// It is not said whom to trust: plain text is not spoken.
    #[error("--expander=grpc needs --grpc-expander-cert, a PEM file with the authority of the server")]
    NoCertificate,
    /// The file cannot be read.
    #[error("--grpc-expander-cert {path} cannot be read: {error}")]
    Certificate {
        /// The file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// Address or certificate cannot be used.
    #[error("--grpc-expander-url {url:?} cannot be used, it should be HOST:PORT: {error}")]
    Address {
        /// What is written.
        url: String,
        /// Why not.
        error: tonic::transport::Error,
    },
}

/// The server.
#[derive(Clone)]
pub(super) struct ExpanderServer {
    channel: Channel,
}

#[derive(Clone, PartialEq, Message)]
struct BestOptionsRequest {
    #[prost(message, repeated, tag = "1")]
    options: Vec<WireOption>,
    #[prost(btree_map = "string, bytes", tag = "3")]
    nodes: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct BestOptionsResponse {
    #[prost(message, repeated, tag = "1")]
    options: Vec<WireOption>,
}

#[derive(Clone, PartialEq, Message)]
struct WireOption {
    #[prost(string, tag = "1")]
    group: String,
    #[prost(int32, tag = "2")]
    nodes: i32,
    #[prost(string, tag = "3")]
    debug: String,
    #[prost(bytes = "vec", repeated, tag = "5")]
    pods: Vec<Vec<u8>>,
}

impl ExpanderServer {
    /// Reads the certificate; the server is spoken to when it is needed.
    pub(super) fn new(url: &str, certificate: Option<&Path>) -> Result<Self, ServerError> {
        if url.is_empty() {
            return Err(ServerError::NoUrl);
        }
        let path = certificate.ok_or(ServerError::NoCertificate)?;
        let pem = fs::read(path)
            .map_err(|error| ServerError::Certificate { path: path.display().to_string(), error })?;
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
        let endpoint = Endpoint::from_shared(format!("https://{url}"))
            .and_then(|endpoint| endpoint.tls_config(tls))
            .map_err(|error| ServerError::Address { url: url.to_owned(), error })?;
        Ok(Self { channel: endpoint.connect_timeout(TIMEOUT).connect_lazy() })
    }

    /// The names of the groups that the server keeps of those of `asked`, which are indices into `options`.
    pub(super) async fn best(
        &self,
        scale_up: &ScaleUp<'_>,
        options: &[ExpansionOption],
        asked: &[usize],
    ) -> Result<Vec<String>, Status> {
        let request = request(scale_up, asked.iter().map(|option| &options[*option]));
        let call = async {
            let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(LONGEST_ANSWER);
            grpc.ready().await.map_err(|problem| Status::from_error(problem.into()))?;
            let mut request = Request::new(request);
            request.set_timeout(TIMEOUT);
            let path = PathAndQuery::from_static(BEST_OPTIONS);
            let codec = ProstCodec::<BestOptionsRequest, BestOptionsResponse>::default();
            grpc.unary(request, path, codec).await
        };
        let answer = tokio::time::timeout(TIMEOUT, call).await;
        let answer = answer.map_err(|_| Status::deadline_exceeded(format!("silent for {TIMEOUT:?}")))??;
        Ok(answer.into_inner().options.into_iter().map(|option| option.group).collect())
    }
}

fn request<'a>(
    scale_up: &ScaleUp<'_>,
    options: impl Iterator<Item = &'a ExpansionOption>,
) -> BestOptionsRequest {
    let mut request = BestOptionsRequest::default();
    for option in options {
        let candidate = &scale_up.candidates[option.candidate];
        let group = candidate.group.id.to_string();
        request.options.push(WireOption {
            group: group.clone(),
            nodes: i32::try_from(option.nodes).unwrap_or(i32::MAX),
            debug: group.clone(),
            pods: scale_up.pods_of(option).map(|pod| pod_bytes(pod)).collect(),
        });
        request.nodes.insert(group, node_bytes(&candidate.template.node));
    }
    request
}
