//! Content negotiation: JSON or protobuf, as the `Accept` header prefers.

use http::{HeaderMap, HeaderValue, header::ACCEPT};

/// Media type of Kubernetes' protobuf envelope.
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// An encoding of metric values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Json,
    Protobuf,
}

impl Encoding {
    /// The `Content-Type` of an answer. It is never left out: client-go takes an answer without one for protobuf.
    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => "application/json",
            Self::Protobuf => PROTOBUF,
        })
    }
}

/// The best encoding that the client takes; JSON without an `Accept` header, None if it takes neither.
///
/// kube-controller-manager sends `application/vnd.kubernetes.protobuf, */*`, kubectl JSON with table parameters,
/// which are ignored: external metrics have no table form in any server.
pub(super) fn negotiate(headers: &HeaderMap) -> Option<Encoding> {
    let mut best: Option<(Encoding, f32)> = None;
    let mut asked = false;
    for range in
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','))
    {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        if media_type.is_empty() {
            continue;
        }
        asked = true;
        let encoding = match media_type {
            PROTOBUF => Encoding::Protobuf,
            "application/json" | "application/*" | "*/*" => Encoding::Json,
            _ => continue,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
        // Among equals the first one named wins.
        if weight > 0.0 && best.is_none_or(|(_, best)| weight > best) {
            best = Some((encoding, weight));
        }
    }
    if asked { best.map(|(encoding, _)| encoding) } else { Some(Encoding::Json) }
}

/// Whether the client takes aggregated discovery v2: `application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList`,
/// parameters in any order, possibly with others.
pub(super) fn takes_aggregated_discovery(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(',')).any(
        |range| {
            let mut parts = range.split(';').map(str::trim);
            parts.next() == Some("application/json")
                && ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"]
                    .iter()
                    .all(|wanted| parts.clone().any(|part| part == *wanted))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (ACCEPT, HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn encodings() {
        use Encoding::{Json, Protobuf};
        for (values, want) in [
            (&[][..], Some(Json)),
            (&[""], Some(Json)),
            (&["*/*"], Some(Json)),
            (&["application/*"], Some(Json)),
            (&["application/json"], Some(Json)),
            (&["application/vnd.kubernetes.protobuf"], Some(Protobuf)),
            (&["application/vnd.kubernetes.protobuf, */*"], Some(Protobuf)),
            (&["application/vnd.kubernetes.protobuf,application/json"], Some(Protobuf)),
            (&["application/json,application/vnd.kubernetes.protobuf"], Some(Json)),
            (&["application/json;q=0.5,application/vnd.kubernetes.protobuf;q=0.9"], Some(Protobuf)),
            (&["application/json;q=0.5", "application/vnd.kubernetes.protobuf"], Some(Protobuf)),
            (&["application/json;as=Table;v=v1;g=meta.k8s.io,application/json"], Some(Json)),
            (&["application/yaml, application/json"], Some(Json)),
            (&["text/html"], None),
            (&["application/json;q=0"], None),
            (&["application/json;q=x"], None),
        ] {
            assert_eq!(negotiate(&headers(values)), want, "{values:?}");
        }
    }

    #[test]
    fn aggregated_discovery() {
        for (value, want) in [
            ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", true),
            ("application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io", true),
            ("application/json; g=apidiscovery.k8s.io; v=v2; as=APIGroupDiscoveryList; profile=nopeer", true),
            ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json", true),
            ("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList", false),
            ("application/json,x/y;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", false),
            ("application/json", false),
            ("*/*", false),
        ] {
            assert_eq!(takes_aggregated_discovery(&headers(&[value])), want, "{value}");
        }
    }
}
