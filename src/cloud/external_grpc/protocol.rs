//! `proto/externalgrpc.proto` as Rust: its messages, and calls of its methods.
//!
//! Written by hand, since it is smaller than what a generator makes of it and needs no generator.

use std::{collections::BTreeMap, marker::PhantomData, time::Duration};

use http::uri::PathAndQuery;
use prost::Message;
use tonic::{Request, Status, client::Grpc, transport::Channel};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeGroup {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(int32, tag = "2")]
    pub(super) min_size: i32,
    #[prost(int32, tag = "3")]
    pub(super) max_size: i32,
    #[prost(string, tag = "4")]
    pub(super) debug: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExternalGrpcNode {
    #[prost(string, tag = "1")]
    pub(super) provider_id: String,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(super) labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "4")]
    pub(super) annotations: BTreeMap<String, String>,
}

/// Every request and response without a field.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Empty {}

/// Every request that names a group and nothing else.
#[derive(Clone, PartialEq, Message)]
pub(super) struct GroupId {
    #[prost(string, tag = "1")]
    pub(super) id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeGroupsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) node_groups: Vec<NodeGroup>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeGroupForNodeRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) node: Option<ExternalGrpcNode>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeGroupForNodeResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) node_group: Option<NodeGroup>,
}

/// `google.protobuf.Timestamp`, and `meta.v1.Time`.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct WireTimestamp {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PricingNodePriceRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) node: Option<ExternalGrpcNode>,
    #[prost(message, optional, tag = "2")]
    pub(super) start_time: Option<WireTimestamp>,
    #[prost(message, optional, tag = "3")]
    pub(super) end_time: Option<WireTimestamp>,
    #[prost(message, optional, tag = "4")]
    pub(super) start_timestamp: Option<WireTimestamp>,
    #[prost(message, optional, tag = "5")]
    pub(super) end_timestamp: Option<WireTimestamp>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PricingPodPriceRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) pod: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    pub(super) start_time: Option<WireTimestamp>,
    #[prost(message, optional, tag = "3")]
    pub(super) end_time: Option<WireTimestamp>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) pod_bytes: Vec<u8>,
    #[prost(message, optional, tag = "5")]
    pub(super) start_timestamp: Option<WireTimestamp>,
    #[prost(message, optional, tag = "6")]
    pub(super) end_timestamp: Option<WireTimestamp>,
}

/// The answer of both kinds of prices.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct PriceResponse {
    #[prost(double, tag = "1")]
    pub(super) price: f64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GpuLabelResponse {
    #[prost(string, tag = "1")]
    pub(super) label: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetAvailableGpuTypesResponse {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) gpu_types: BTreeMap<String, Any>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct NodeGroupTargetSizeResponse {
    #[prost(int32, tag = "1")]
    pub(super) target_size: i32,
}

/// Of `NodeGroupIncreaseSize` and `NodeGroupDecreaseTargetSize`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SizeRequest {
    #[prost(int32, tag = "1")]
    pub(super) delta: i32,
    #[prost(string, tag = "2")]
    pub(super) id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeGroupDeleteNodesRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) nodes: Vec<ExternalGrpcNode>,
    #[prost(string, tag = "2")]
    pub(super) id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeGroupNodesResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) instances: Vec<Instance>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Instance {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(message, optional, tag = "2")]
    pub(super) status: Option<InstanceStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct InstanceStatus {
    #[prost(enumeration = "InstanceState", tag = "1")]
    pub(super) instance_state: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) error_info: Option<InstanceErrorInfo>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum InstanceState {
    Unspecified = 0,
    Running = 1,
    Creating = 2,
    Deleting = 3,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct InstanceErrorInfo {
    #[prost(string, tag = "1")]
    pub(super) error_code: String,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
    #[prost(int32, tag = "3")]
    pub(super) instance_error_class: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeGroupTemplateNodeInfoResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) node_info: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) node_bytes: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct NodeGroupAutoscalingOptions {
    #[prost(double, tag = "1")]
    pub(super) scale_down_utilization_threshold: f64,
    #[prost(double, tag = "2")]
    pub(super) scale_down_gpu_utilization_threshold: f64,
    #[prost(message, optional, tag = "3")]
    pub(super) scale_down_unneeded_time: Option<MetaDuration>,
    #[prost(message, optional, tag = "4")]
    pub(super) scale_down_unready_time: Option<MetaDuration>,
    #[prost(message, optional, tag = "5")]
    pub(super) max_node_provision_time: Option<MetaDuration>,
    #[prost(bool, tag = "6")]
    pub(super) zero_or_max_node_scaling: bool,
    #[prost(bool, tag = "7")]
    pub(super) ignore_daemon_sets_utilization: bool,
    #[prost(message, optional, tag = "8")]
    pub(super) scale_down_unneeded_duration: Option<WireDuration>,
    #[prost(message, optional, tag = "9")]
    pub(super) scale_down_unready_duration: Option<WireDuration>,
    #[prost(message, optional, tag = "10")]
    pub(super) max_node_provision_duration: Option<WireDuration>,
    #[prost(message, optional, tag = "11")]
    pub(super) max_node_startup_duration: Option<WireDuration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct WireDuration {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct MetaDuration {
    /// Nanoseconds.
    #[prost(int64, tag = "1")]
    pub(super) duration: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeGroupAutoscalingOptionsRequest {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(message, optional, tag = "2")]
    pub(super) defaults: Option<NodeGroupAutoscalingOptions>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct NodeGroupAutoscalingOptionsResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) node_group_autoscaling_options: Option<NodeGroupAutoscalingOptions>,
}

/// A method: its path, what it takes and what it answers.
pub(super) struct Method<Q, A> {
    pub(super) name: &'static str,
    path: &'static str,
    types: PhantomData<fn(Q) -> A>,
}

macro_rules! methods {
    ($($constant:ident = $name:literal: $takes:ty => $answers:ty),+ $(,)?) => {
        $(pub(super) const $constant: Method<$takes, $answers> = Method {
            name: $name,
            path: concat!("/clusterautoscaler.cloudprovider.v1.externalgrpc.CloudProvider/", $name),
            types: PhantomData,
        };)+
    };
}

methods! {
    NODE_GROUPS = "NodeGroups": Empty => NodeGroupsResponse,
    NODE_GROUP_FOR_NODE = "NodeGroupForNode": NodeGroupForNodeRequest => NodeGroupForNodeResponse,
    PRICING_NODE_PRICE = "PricingNodePrice": PricingNodePriceRequest => PriceResponse,
    PRICING_POD_PRICE = "PricingPodPrice": PricingPodPriceRequest => PriceResponse,
    GPU_LABEL = "GPULabel": Empty => GpuLabelResponse,
    GET_AVAILABLE_GPU_TYPES = "GetAvailableGPUTypes": Empty => GetAvailableGpuTypesResponse,
    CLEANUP = "Cleanup": Empty => Empty,
    REFRESH = "Refresh": Empty => Empty,
    TARGET_SIZE = "NodeGroupTargetSize": GroupId => NodeGroupTargetSizeResponse,
    INCREASE_SIZE = "NodeGroupIncreaseSize": SizeRequest => Empty,
    DELETE_NODES = "NodeGroupDeleteNodes": NodeGroupDeleteNodesRequest => Empty,
    DECREASE_TARGET_SIZE = "NodeGroupDecreaseTargetSize": SizeRequest => Empty,
    NODES = "NodeGroupNodes": GroupId => NodeGroupNodesResponse,
    TEMPLATE_NODE_INFO = "NodeGroupTemplateNodeInfo": GroupId => NodeGroupTemplateNodeInfoResponse,
    GET_OPTIONS = "NodeGroupGetOptions":
        NodeGroupAutoscalingOptionsRequest => NodeGroupAutoscalingOptionsResponse,
}

impl<Q, A> Method<Q, A>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    /// Calls it; the server is told the deadline.
    pub(super) async fn call(&self, channel: Channel, message: Q, timeout: Duration) -> Result<A, Status> {
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.map_err(|problem| Status::from_error(problem.into()))?;
        let mut request = Request::new(message);
        request.set_timeout(timeout);
        let path = PathAndQuery::from_static(self.path);
        let answer = grpc.unary(request, path, ProstCodec::<Q, A>::default()).await?;
        Ok(answer.into_inner())
    }
}
