//! The discovery documents: fixed at start, answered from memory, the same for every reader.
//!
//! They list one placeholder resource and never the metrics. An empty list breaks client-go's cached discovery
//! ("received empty response for"), and thousands of entries slow every kubectl (kubernetes/kubernetes#98801).

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY},
};
use http_body_util::Full;
use serde_json::{Value, json};

use super::{
    accept::takes_aggregated_discovery,
    route::{Document, GROUP, VERSION},
};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The aggregator compares this text parameter by parameter (kube-aggregator, `handler_discovery.go`).
const AGGREGATED: HeaderValue =
    HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");

/// The one resource that is listed, as KEDA's adapter lists it (custom-metrics-apiserver,
/// `DefaultExternalMetricsProvider`).
const RESOURCE: &str = "externalmetrics";

/// All discovery documents, serialised once.
pub(super) struct Discovery {
    groups: Bytes,
    group: Bytes,
    resources: Bytes,
    version: Bytes,
    aggregated: Bytes,
    /// Changes with the aggregated document.
    etag: HeaderValue,
}

impl Default for Discovery {
    fn default() -> Self {
        let aggregated = bytes(&aggregated());
        let mut hasher = DefaultHasher::new();
        aggregated.hash(&mut hasher);
        let etag = format!("\"{:016X}\"", hasher.finish());
        Self {
            groups: bytes(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]})),
            group: bytes(&group()),
            resources: bytes(&resources()),
            version: bytes(&version()),
            aggregated,
            etag: HeaderValue::from_str(&etag).unwrap_or(HeaderValue::from_static("\"1\"")),
        }
    }
}

impl Discovery {
    /// Always 200, or 304 for an aggregator that has the document already.
    pub(super) fn answer(&self, document: Document, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let body = match document {
            Document::Groups if takes_aggregated_discovery(headers) => {
                return self.answer_aggregated(headers);
            }
            Document::Groups => &self.groups,
            Document::Group => &self.group,
            Document::Resources => &self.resources,
            Document::Version => &self.version,
        };
        let mut response = Response::new(Full::new(body.clone()));
        response.headers_mut().insert(CONTENT_TYPE, JSON);
        response
    }

    fn answer_aggregated(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let known = headers.get(IF_NONE_MATCH) == Some(&self.etag);
        let mut response =
            Response::new(Full::new(if known { Bytes::new() } else { self.aggregated.clone() }));
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        response.headers_mut().insert(CONTENT_TYPE, AGGREGATED);
        response.headers_mut().insert(ETAG, self.etag.clone());
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
        response
    }
}

fn bytes(document: &Value) -> Bytes {
    document.to_string().into()
}

/// `metav1.APIGroup`; inside a list kind and version are redundant, and harmless.
fn group() -> Value {
    let version = json!({"groupVersion": format!("{GROUP}/{VERSION}"), "version": VERSION});
    json!({
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": GROUP,
        "versions": [version],
        "preferredVersion": version,
    })
}

fn resources() -> Value {
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": [{
            "name": RESOURCE,
            "singularName": "",
            "namespaced": true,
            "kind": "ExternalMetricValueList",
            "verbs": ["get"],
        }],
    })
}

/// `responseKind` is never null: older clients dereference it unasked.
fn aggregated() -> Value {
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": [{
            "metadata": {"name": GROUP},
            "versions": [{
                "version": VERSION,
                "resources": [{
                    "resource": RESOURCE,
                    "responseKind": {"group": GROUP, "version": VERSION, "kind": "ExternalMetricValueList"},
                    "scope": "Namespaced",
                    "singularResource": "",
                    "verbs": ["get"],
                }],
                "freshness": "Current",
            }],
        }],
    })
}

/// `k8s.io/apimachinery/pkg/version.Info`.
fn version() -> Value {
    json!({
        "major": env!("CARGO_PKG_VERSION_MAJOR"),
        "minor": env!("CARGO_PKG_VERSION_MINOR"),
        "gitVersion": concat!("v", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents() {
        let discovery = Discovery::default();
        for (name, body) in [
            ("groups", &discovery.groups),
            ("group", &discovery.group),
            ("resources", &discovery.resources),
            ("aggregated", &discovery.aggregated),
        ] {
            let document: Value = serde_json::from_slice(body).unwrap();
            insta::assert_json_snapshot!(name, document);
        }
    }
}
