//! `proto/externalscaler.proto` as Rust: its messages, and calls of its methods.
//!
//! Written by hand, since it is smaller than what a generator makes of it and needs no generator.

use std::collections::BTreeMap;

use prost::Message;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// Which object asks, and what its trigger says.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ScaledObjectRef {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) namespace: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(crate) scaler_metadata: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct IsActiveResponse {
    #[prost(bool, tag = "1")]
    pub(crate) result: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GetMetricSpecResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) metric_specs: Vec<MetricSpec>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetricSpec {
    #[prost(string, tag = "1")]
    pub(crate) metric_name: String,
    #[prost(int64, tag = "2")]
    pub(crate) target_size: i64,
    #[prost(double, tag = "3")]
    pub(crate) target_size_float: f64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GetMetricsRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) scaled_object_ref: Option<ScaledObjectRef>,
    #[prost(string, tag = "2")]
    pub(crate) metric_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GetMetricsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) metric_values: Vec<MetricValue>,
}

#[expect(clippy::struct_field_names, reason = "the names of the proto")]
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetricValue {
    #[prost(string, tag = "1")]
    pub(crate) metric_name: String,
    #[prost(int64, tag = "2")]
    pub(crate) metric_value: i64,
    #[prost(double, tag = "3")]
    pub(crate) metric_value_float: f64,
}

/// A method: its path, what it takes and what it answers.
pub(crate) struct Method<Q, A> {
    pub(crate) name: &'static str,
    path: &'static str,
    types: std::marker::PhantomData<fn(Q) -> A>,
}

macro_rules! methods {
    ($($constant:ident = $name:literal: $takes:ty => $answers:ty),+ $(,)?) => {
        $(pub(crate) const $constant: Method<$takes, $answers> = Method {
            name: $name,
            path: concat!("/externalscaler.ExternalScaler/", $name),
            types: std::marker::PhantomData,
        };)+
    };
}

methods! {
    IS_ACTIVE = "IsActive": ScaledObjectRef => IsActiveResponse,
    STREAM_IS_ACTIVE = "StreamIsActive": ScaledObjectRef => IsActiveResponse,
    GET_METRIC_SPEC = "GetMetricSpec": ScaledObjectRef => GetMetricSpecResponse,
    STREAM_METRIC_SPEC = "StreamMetricSpec": ScaledObjectRef => GetMetricSpecResponse,
    GET_METRICS = "GetMetrics": GetMetricsRequest => GetMetricsResponse,
}

impl<Q, A> Method<Q, A>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    /// Calls a method that answers once.
    pub(crate) async fn call(&self, channel: Channel, message: Q) -> Result<A, Status> {
        let (mut grpc, path) = self.ready(channel).await?;
        let answer = grpc.unary(Request::new(message), path, ProstCodec::<Q, A>::default()).await?;
        Ok(answer.into_inner())
    }

    /// Calls a method that goes on answering.
    pub(crate) async fn stream(&self, channel: Channel, message: Q) -> Result<Streaming<A>, Status> {
        let (mut grpc, path) = self.ready(channel).await?;
        let answer =
            grpc.server_streaming(Request::new(message), path, ProstCodec::<Q, A>::default()).await?;
        Ok(answer.into_inner())
    }

    async fn ready(&self, channel: Channel) -> Result<(Grpc<Channel>, http::uri::PathAndQuery), Status> {
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.map_err(|problem| Status::from_error(problem.into()))?;
        Ok((grpc, http::uri::PathAndQuery::from_static(self.path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What protoc's encoders make of the same values, by the wire format's rules.
    #[test]
    fn the_wire_is_that_of_the_proto() {
        let object = ScaledObjectRef {
            name: "n".to_owned(),
            namespace: "ns".to_owned(),
            scaler_metadata: [("k".to_owned(), "v".to_owned())].into(),
        };
        let bytes = b"\x0a\x01n\x12\x02ns\x1a\x06\x0a\x01k\x12\x01v";
        assert_eq!(object.encode_to_vec(), bytes);
        let request = GetMetricsRequest { scaled_object_ref: Some(object), metric_name: "m".to_owned() };
        assert_eq!(request.encode_to_vec(), [b"\x0a\x0f", &bytes[..], b"\x12\x01m"].concat());
        let spec = b"\x0a\x0e\x0a\x01m\x10\x05\x19\x00\x00\x00\x00\x00\x00\xf8\x3f";
        assert_eq!(
            GetMetricSpecResponse::decode(&spec[..]).unwrap().metric_specs,
            [MetricSpec { metric_name: "m".to_owned(), target_size: 5, target_size_float: 1.5 }]
        );
        assert_eq!(
            GetMetricsResponse::decode(&spec[..]).unwrap().metric_values,
            [MetricValue { metric_name: "m".to_owned(), metric_value: 5, metric_value_float: 1.5 }]
        );
        assert!(IsActiveResponse::decode(&b"\x08\x01"[..]).unwrap().result);
    }
}
