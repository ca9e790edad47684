//! Errors as Kubernetes says them: `metav1.Status` in JSON.

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use super::{authentication::User, route::GROUP};

/// A failure on its way to the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: StatusCode,
    reason: &'static str,
    message: String,
    /// The metric, where the failure is about one.
    kind: Option<String>,
}

impl Failure {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), kind: None }
    }

    /// 400
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 401, with the text that kube-apiserver uses.
    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// 403 for a metric, worded as kube-apiserver does.
    pub(super) fn forbidden_metric(user: &User, namespace: &str, metric: &str, why: &str) -> Self {
        let message = format!(
            "{metric}.{GROUP} is forbidden: User {name:?} cannot list resource {metric:?} in API group {GROUP:?} \
             in the namespace {namespace:?}{colon}{why}",
            name = user.name,
            colon = if why.is_empty() { "" } else { ": " },
        );
        Self { kind: Some(metric.to_owned()), ..Self::new(StatusCode::FORBIDDEN, "Forbidden", message) }
    }

    /// 403 for a path.
    pub(super) fn forbidden_path(user: &User, path: &str) -> Self {
        let message = format!("forbidden: User {:?} cannot get path {path:?}", user.name);
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// 404 for a path.
    pub(super) fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
    }

    /// 404 for a metric.
    pub(super) fn no_such_metric(metric: &str, message: String) -> Self {
        Self { kind: Some(metric.to_owned()), ..Self::new(StatusCode::NOT_FOUND, "NotFound", message) }
    }

    /// 405
    pub(super) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    /// 406
    pub(super) fn not_acceptable() -> Self {
        Self::new(
            StatusCode::NOT_ACCEPTABLE,
            "NotAcceptable",
            "only the following media types are accepted: application/json, application/vnd.kubernetes.protobuf",
        )
    }

    /// 500. Never 503: client-go retries that up to ten times, within one sync of the HPA.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// 504
    pub(super) fn timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
    }

    /// The `metav1.Status` document.
    pub(super) fn body(&self) -> Bytes {
        let details = self.kind.as_deref().map(|kind| Details { group: GROUP, kind });
        let document = Document {
            kind: "Status",
            api_version: "v1",
            metadata: Empty {},
            status: "Failure",
            message: &self.message,
            reason: self.reason,
            details,
            code: self.code.as_u16(),
        };
        // Strings and numbers only: serialising cannot fail.
        serde_json::to_vec(&document).unwrap_or_default().into()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: Empty,
    status: &'static str,
    message: &'a str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
    code: u16,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Details<'a> {
    group: &'static str,
    kind: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents() {
        let user = User { name: "jane".to_owned(), ..User::default() };
        let failures = [
            Failure::bad_request("unable to parse labelSelector \"a=\""),
            Failure::unauthorized(),
            Failure::forbidden_metric(&user, "web", "s0-prometheus", "RBAC: role not found"),
            Failure::forbidden_metric(&user, "web", "s0-prometheus", ""),
            Failure::forbidden_path(&user, "/metrics"),
            Failure::no_such_path(),
            Failure::no_such_metric("s0-prometheus", "no ScaledObject web/nginx".to_owned()),
            Failure::method_not_allowed(),
            Failure::not_acceptable(),
            Failure::internal("prometheus answered 502"),
            Failure::timeout("no answer in 8 s"),
        ];
        let documents: Vec<_> =
            failures.iter().map(|failure| String::from_utf8(failure.body().to_vec()).unwrap()).collect();
        insta::assert_snapshot!(documents.join("\n"));
    }
}
