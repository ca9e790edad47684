//! The node that a gRPC server sends in bytes is the node that kube-apiserver has: its own protobuf encoding is what
//! the server answers.

use std::{
    convert::Infallible,
    fs,
    task::{Context as Cx, Poll},
};

use anyhow::{Context, Result, ensure};
use bytes::{Buf, BufMut};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Node as ApiNode;
use kube::Api;
use prost::Message;
use tandem::cloud::{CloudProvider, external_grpc::ExternalGrpc};
use tandem_core::{nodes::group::GroupOptions, scheduling::Node};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{Service, http},
    server::{Grpc, NamedService},
    transport::{Server, server::TcpIncoming},
};

use crate::case::Case;

/// Before every object that kube-apiserver encodes.
const MAGIC: &[u8] = b"k8s\0";

/// The envelope of such an object.
#[derive(Clone, PartialEq, Message)]
struct Unknown {
    #[prost(bytes = "vec", tag = "2")]
    raw: Vec<u8>,
}

/// `NodeGroupTemplateNodeInfoResponse`.
#[derive(Clone, PartialEq, Message)]
struct Template {
    #[prost(bytes = "vec", tag = "2")]
    node_bytes: Vec<u8>,
}

/// A template reads as kube-apiserver wrote it.
pub(crate) async fn node_bytes(case: &Case<'_>) -> Result<()> {
    let request = http::Request::get("/api/v1/nodes/node-0")
        .header("accept", "application/vnd.kubernetes.protobuf")
        .body(kube::client::Body::empty())?;
    let answer = case.client().send(request).await?;
    let bytes = answer.into_body().collect_bytes().await?;
    let envelope = bytes.strip_prefix(MAGIC).context("kube-apiserver answered no protobuf")?;
    let address = serve(Unknown::decode(envelope)?.raw).await?;

    let folder = tempfile::tempdir()?;
    let file = folder.path().join("cloud.yaml");
    fs::write(&file, format!("address: {address}\n"))?;
    let provider = ExternalGrpc::connect(&file, GroupOptions::default())?;
    let template = provider.template("any").await?.context("no template")?;

    let nodes: Api<ApiNode> = Api::all(case.client());
    let wanted = Node::describe(&nodes.get("node-0").await?);
    ensure!(!wanted.conditions.is_empty() && wanted.ready && wanted.allocatable.cpu > 0, "{wanted:?}");
    // The protocol's subset leaves out when it was created.
    ensure!(Node { created: wanted.created, ..template.node } == wanted, "not {wanted:?}");
    Ok(())
}

/// A server that answers every call with a template of these bytes.
async fn serve(node_bytes: Vec<u8>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let answer = Handler(Template { node_bytes }.encode_to_vec());
    tokio::spawn(Server::builder().add_service(answer).serve_with_incoming(TcpIncoming::from(listener)));
    Ok(address)
}

#[derive(Clone)]
struct Handler(Vec<u8>);

impl NamedService for Handler {
    const NAME: &'static str = "clusterautoscaler.cloudprovider.v1.externalgrpc.CloudProvider";
}

impl Service<http::Request<Body>> for Handler {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Cx<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.0.clone();
        let service = tower::service_fn(move |_: Request<Vec<u8>>| {
            let answer = answer.clone();
            async move { Ok::<_, Status>(Response::new(answer)) }
        });
        Box::pin(async move { Ok(Grpc::new(Raw).unary(service, request).await) })
    }
}

/// Messages as they stand on the wire.
#[derive(Clone, Copy)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}
