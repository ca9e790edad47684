//! `ExternalMetricValueList` of external.metrics.k8s.io/v1beta1, in JSON and in Kubernetes' protobuf envelope.
//!
//! Field names and numbers: `k8s.io/metrics/pkg/apis/external_metrics/v1beta1/generated.proto` and
//! `k8s.io/apimachinery/pkg/runtime/generated.proto`.

use bytes::Bytes;
use jiff::{Timestamp, tz::TimeZone};
use prost::Message;
use serde::Serialize;
use tandem_core::quantity::format_milli;

use super::{accept::Encoding, source::MetricValue};

/// Group and version as documents state them.
const API_VERSION: &str = "external.metrics.k8s.io/v1beta1";
const KIND: &str = "ExternalMetricValueList";

/// What every protobuf answer of Kubernetes begins with.
const PROTOBUF_MAGIC: &[u8] = b"k8s\0";

/// A list of one value.
pub(super) fn encode(metric: &str, value: MetricValue, encoding: Encoding) -> Bytes {
    match encoding {
        Encoding::Json => json(metric, value),
        Encoding::Protobuf => protobuf(metric, value),
    }
}

fn json(metric: &str, value: MetricValue) -> Bytes {
    let list = JsonList {
        kind: KIND,
        api_version: API_VERSION,
        metadata: JsonMetadata {},
        items: [JsonItem {
            metric_name: metric,
            metric_labels: None,
            timestamp: rfc3339_seconds(value.taken_at),
            value: format_milli(value.milli),
        }],
    };
    // Strings only: serialising cannot fail.
    serde_json::to_vec(&list).unwrap_or_default().into()
}

/// As `metav1.Time` writes itself: UTC, whole seconds.
fn rfc3339_seconds(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonList<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: JsonMetadata,
    items: [JsonItem<'a>; 1],
}

#[derive(Serialize)]
struct JsonMetadata {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonItem<'a> {
    metric_name: &'a str,
    /// Always null: a value is the object's, it has no labels of its own.
    metric_labels: Option<()>,
    timestamp: String,
    value: String,
}

fn protobuf(metric: &str, value: MetricValue) -> Bytes {
    let list = List {
        items: vec![Item {
            metric_name: metric.to_owned(),
            timestamp: Some(Time { seconds: value.taken_at.as_second(), nanos: 0 }),
            value: Some(Quantity { string: format_milli(value.milli) }),
        }],
    };
    let envelope = Unknown {
        type_meta: Some(TypeMeta { api_version: API_VERSION.to_owned(), kind: KIND.to_owned() }),
        raw: list.encode_to_vec(),
    };
    let mut bytes = Vec::with_capacity(PROTOBUF_MAGIC.len() + envelope.encoded_len());
    bytes.extend_from_slice(PROTOBUF_MAGIC);
    envelope.encode_raw(&mut bytes);
    bytes.into()
}

#[derive(Clone, PartialEq, Message)]
struct Unknown {
    #[prost(message, optional, tag = "1")]
    type_meta: Option<TypeMeta>,
    #[prost(bytes = "vec", tag = "2")]
    raw: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeMeta {
    #[prost(string, tag = "1")]
    api_version: String,
    #[prost(string, tag = "2")]
    kind: String,
}

#[derive(Clone, PartialEq, Message)]
struct List {
    #[prost(message, repeated, tag = "2")]
    items: Vec<Item>,
}

#[derive(Clone, PartialEq, Message)]
struct Item {
    #[prost(string, tag = "1")]
    metric_name: String,
    #[prost(message, optional, tag = "3")]
    timestamp: Option<Time>,
    #[prost(message, optional, tag = "5")]
    value: Option<Quantity>,
}

#[derive(Clone, PartialEq, Message)]
struct Time {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Quantity {
    #[prost(string, tag = "1")]
    string: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(milli: i64) -> MetricValue {
        MetricValue { milli, taken_at: "2026-11-20T00:00:00.75Z".parse().unwrap() }
    }

    #[test]
    fn json_document() {
        let body = encode("s0-prometheus", value(8500), Encoding::Json);
        assert_eq!(
            body,
            concat!(
                r#"{"kind":"ExternalMetricValueList","apiVersion":"external.metrics.k8s.io/v1beta1","metadata":{},"#,
                r#""items":[{"metricName":"s0-prometheus","metricLabels":null,"#,
                r#""timestamp":"2026-11-20T00:00:00Z","value":"8500m"}]}"#,
            )
        );
    }

    #[test]
    fn json_escapes_the_name() {
        let body = encode("a\"b\u{1}", value(0), Encoding::Json);
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(document["items"][0]["metricName"], "a\"b\u{1}");
    }

    /// Written out by hand from the field numbers, so that the derive cannot be wrong together with its reader.
    #[test]
    fn protobuf_bytes() {
        let item = [
            &b"\x0a\x04s0-x"[..],                // 1 metricName
            b"\x1a\x06\x08\x80\x9b\xfe\xd7\x06", // 3 timestamp { 1 seconds = 1795132800 }
            b"\x2a\x07\x0a\x058500m",            // 5 value { 1 string }
        ]
        .concat();
        let list = [b"\x12", &[u8::try_from(item.len()).unwrap()][..], &item].concat();
        let api_version = [b"\x0a\x1f", &b"external.metrics.k8s.io/v1beta1"[..]].concat();
        let kind = [b"\x12\x17", &b"ExternalMetricValueList"[..]].concat();
        let type_meta = [api_version, kind].concat();
        let want = [
            &b"k8s\0"[..],
            b"\x0a",
            &[u8::try_from(type_meta.len()).unwrap()],
            &type_meta,
            b"\x12",
            &[u8::try_from(list.len()).unwrap()],
            &list,
        ]
        .concat();
        let got = encode("s0-x", value(8500), Encoding::Protobuf);
        assert_eq!(got.as_ref(), want.as_slice(), "{:02x?}", got.as_ref());
    }

    proptest! {
        #[test]
        fn protobuf_says_what_json_says(metric in "\\PC{0,12}", milli: i64, seconds in 0i64..4_000_000_000) {
            let value = MetricValue { milli, taken_at: Timestamp::from_second(seconds).unwrap() };
            let document: serde_json::Value =
                serde_json::from_slice(&encode(&metric, value, Encoding::Json)).unwrap();
            let bytes = encode(&metric, value, Encoding::Protobuf);
            let envelope = Unknown::decode(&bytes[PROTOBUF_MAGIC.len()..]).unwrap();
            let list = List::decode(envelope.raw.as_slice()).unwrap();
            let item = &list.items[0];
            prop_assert_eq!(&document["items"][0]["metricName"], &item.metric_name);
            prop_assert_eq!(&document["items"][0]["value"], &item.value.as_ref().unwrap().string);
            let written: Timestamp = document["items"][0]["timestamp"].as_str().unwrap().parse().unwrap();
            prop_assert_eq!(written.as_second(), item.timestamp.as_ref().unwrap().seconds);
        }
    }
}
