//! From a path to what it asks for.

use std::borrow::Cow;

use super::percent;

/// The API group that is served.
pub(super) const GROUP: &str = "external.metrics.k8s.io";
/// The version that is served.
pub(super) const VERSION: &str = "v1beta1";

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// `/healthz` and `/livez`: the process answers.
    Alive,
    /// `/readyz`: it should get traffic.
    Ready,
    /// A document that is the same for everybody.
    Discovery(Document),
    /// `/openapi/v2`, `/openapi/v3`: not offered. The aggregator takes 404 for "no schema" and anything else for a
    /// failure to be retried and logged (kube-aggregator, `pkg/controllers/openapi`).
    OpenApi,
    /// A metric of a namespace.
    Metric {
        /// Decoded namespace.
        namespace: Cow<'a, str>,
        /// Decoded metric name.
        metric: Cow<'a, str>,
    },
    /// Nothing.
    Unknown,
    /// Nothing, and not worth a question.
    Nowhere,
}

/// The discovery documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Document {
    /// `/apis`
    Groups,
    /// `/apis/external.metrics.k8s.io`
    Group,
    /// `/apis/external.metrics.k8s.io/v1beta1`
    Resources,
    /// `/version`
    Version,
}

/// Longer paths, in bytes, lead nowhere: what is asked for is remembered, so it must not be endless.
const LONGEST: usize = 2048;

/// Reads a path. Discovery paths may end in a slash, as with kube-apiserver; a metric's may not.
pub(super) fn parse(path: &str) -> Route<'_> {
    let Some(path) = path.strip_prefix('/').filter(|path| path.len() < LONGEST) else {
        return Route::Nowhere;
    };
    match path.strip_suffix('/').unwrap_or(path) {
        "healthz" | "livez" => return Route::Alive,
        "readyz" => return Route::Ready,
        "version" => return Route::Discovery(Document::Version),
        "apis" => return Route::Discovery(Document::Groups),
        "openapi/v2" | "openapi/v3" => return Route::OpenApi,
        _ => {}
    }
    let Some(rest) = path.strip_prefix("apis/").and_then(|rest| rest.strip_prefix(GROUP)) else {
        return Route::Unknown;
    };
    match rest {
        "" | "/" => return Route::Discovery(Document::Group),
        "/v1beta1" | "/v1beta1/" => return Route::Discovery(Document::Resources),
        _ => {}
    }
    parse_metric(rest).unwrap_or(Route::Unknown)
}

/// `/v1beta1/namespaces/{namespace}/{metric}`. A root-scoped metric or a longer path is nothing.
fn parse_metric(rest: &str) -> Option<Route<'_>> {
    let rest = rest.strip_prefix('/')?.strip_prefix(VERSION)?.strip_prefix("/namespaces/")?;
    let (namespace, metric) = rest.split_once('/')?;
    let (namespace, metric) = (segment(namespace)?, segment(metric)?);
    Some(Route::Metric { namespace, metric })
}

/// One path segment as client-go accepts it: not empty, no slash or percent sign once decoded, not a dot or two
/// (`k8s.io/apimachinery/pkg/api/validation/path`).
fn segment(text: &str) -> Option<Cow<'_, str>> {
    if text.contains('/') {
        return None;
    }
    let decoded = percent::decode(text)?;
    let refused = decoded.is_empty() || decoded.contains(['/', '%']) || decoded == "." || decoded == "..";
    (!refused).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V: &str = "/apis/external.metrics.k8s.io/v1beta1";

    #[test]
    fn paths() {
        let metric = |namespace, metric| Route::Metric {
            namespace: Cow::Borrowed(namespace),
            metric: Cow::Borrowed(metric),
        };
        for (path, want) in [
            ("/healthz", Route::Alive),
            ("/livez", Route::Alive),
            ("/readyz", Route::Ready),
            ("/version", Route::Discovery(Document::Version)),
            ("/apis", Route::Discovery(Document::Groups)),
            ("/apis/", Route::Discovery(Document::Groups)),
            ("/apis/external.metrics.k8s.io", Route::Discovery(Document::Group)),
            (V, Route::Discovery(Document::Resources)),
            ("/apis/external.metrics.k8s.io/v1beta1/", Route::Discovery(Document::Resources)),
            ("/openapi/v2", Route::OpenApi),
            ("/openapi/v3", Route::OpenApi),
            ("/openapi/v3/apis/external.metrics.k8s.io/v1beta1", Route::Unknown),
            ("/", Route::Unknown),
            ("", Route::Nowhere),
            ("*", Route::Nowhere),
            ("/apis/external.metrics.k8s.io/v1", Route::Unknown),
            ("/apis/external.metrics.k8s.iox", Route::Unknown),
            ("/apis/custom.metrics.k8s.io/v1beta1", Route::Unknown),
        ] {
            assert_eq!(parse(path), want, "{path}");
        }
        for (rest, want) in [
            ("/namespaces/web/s0-prometheus", metric("web", "s0-prometheus")),
            ("/namespaces/web/datadogmetric%40web%3Aqueue", metric("web", "datadogmetric@web:queue")),
            ("/namespaces/web/UPPER", metric("web", "UPPER")),
            ("/s0-prometheus", Route::Unknown),
            ("/namespaces/web", Route::Unknown),
            ("/namespaces/web/", Route::Unknown),
            ("/namespaces//s0-prometheus", Route::Unknown),
            ("/namespaces/web/group/s0-prometheus", Route::Unknown),
            ("/namespaces/web/s0-prometheus/", Route::Unknown),
            ("/namespaces/web/a%2Fb", Route::Unknown),
            ("/namespaces/web/..", Route::Unknown),
            ("/namespaces/web/%2e%2E", Route::Unknown),
            ("/namespaces/web/%zz", Route::Unknown),
        ] {
            let path = format!("{V}{rest}");
            assert_eq!(parse(&path), want, "{path}");
        }
        let path = |length| format!("{V}/namespaces/web/{}", "x".repeat(length));
        assert!(matches!(parse(&path(1900)), Route::Metric { .. }));
        assert_eq!(parse(&path(2048)), Route::Nowhere);
    }
}
