//! A trigger as written, with what its references resolved to.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::scaler::MetricType;

/// Everything a scaler is built from.
#[derive(Clone, Default)]
pub struct Input {
    /// `type` of the trigger, e.g. `prometheus`.
    pub trigger_type: String,
    /// Position in `spec.triggers`, from 0.
    pub trigger_index: usize,
    /// `name` of the trigger.
    pub trigger_name: Option<String>,
    /// `metadata` of the trigger, as written.
    pub metadata: BTreeMap<String, String>,
    /// Parameters that the `TriggerAuthentication` resolved to.
    pub auth_params: BTreeMap<String, Secret>,
    /// Environment of the target's container; may hold secrets, so `Debug` shows the names only.
    pub resolved_env: BTreeMap<String, String>,
    /// Pod identity of the `TriggerAuthentication`.
    pub pod_identity: Option<PodIdentity>,
    /// `metricType` of the trigger.
    pub metric_type: Option<MetricType>,
    /// A scaling formula uses this trigger, so its own target may be absent.
    pub as_metric_source: bool,
    /// `ScaledObject` or `ScaledJob`.
    pub object_kind: String,
    /// Name of the object.
    pub object_name: String,
    /// Namespace of the object.
    pub namespace: String,
    /// Deadline of one HTTP or gRPC request, unless the trigger sets its own (`KEDA_HTTP_DEFAULT_TIMEOUT`); zero means
    /// [`DEFAULT_HTTP_TIMEOUT`].
    pub http_timeout: Duration,
}

/// KEDA's default of `KEDA_HTTP_DEFAULT_TIMEOUT`.
pub const DEFAULT_HTTP_TIMEOUT: Duration = Duration::from_secs(3);

impl Input {
    /// [`Input::http_timeout`], or its default.
    pub fn http_timeout(&self) -> Duration {
        if self.http_timeout.is_zero() { DEFAULT_HTTP_TIMEOUT } else { self.http_timeout }
    }

    /// The provider of the pod identity, unless there is none.
    pub(crate) fn identity_provider(&self) -> Option<&str> {
        let provider = self.pod_identity.as_ref()?.provider.as_str();
        (!matches!(provider, "" | "none")).then_some(provider)
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input")
            .field("object", &format_args!("{} {}/{}", self.object_kind, self.namespace, self.object_name))
            .field("trigger", &format_args!("{} {}", self.trigger_index, self.trigger_type))
            .field("trigger_name", &self.trigger_name)
            .field("metadata", &self.metadata)
            .field("auth_params", &self.auth_params)
            .field("resolved_env", &self.resolved_env.keys())
            .field("pod_identity", &self.pod_identity)
            .field("metric_type", &self.metric_type)
            .field("as_metric_source", &self.as_metric_source)
            .field("http_timeout", &self.http_timeout)
            .finish()
    }
}

/// `podIdentity` of a `TriggerAuthentication`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodIdentity {
    /// `aws`, `aws-eks`, `azure-workload`, `gcp` or `none`.
    pub provider: String,
    /// Client id of a federated Azure identity.
    pub identity_id: Option<String>,
    /// Tenant of a federated Azure identity.
    pub identity_tenant_id: Option<String>,
    /// Authority of a federated Azure identity.
    pub identity_authority_host: Option<String>,
    /// `keda` or `workload`: whose AWS role is used.
    pub identity_owner: Option<String>,
    /// AWS role to assume.
    pub role_arn: Option<String>,
    /// External id to assume the AWS role with.
    pub external_id: Option<String>,
}

/// A value nobody may print: `Debug` and `Display` show `***`, the memory is wiped on drop.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// The value itself, for the wire.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value.into())
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self(value.into())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

impl Hash for Secret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expose().hash(state);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let input = Input {
            auth_params: [("password".to_owned(), Secret::from("hunter2"))].into(),
            resolved_env: [("PASSWORD".to_owned(), "hunter3".to_owned())].into(),
            ..Input::default()
        };
        let text = format!("{input:?} {} {:?}", input.auth_params["password"], input.auth_params["password"]);
        assert!(!text.contains("hunter"), "{text}");
        assert!(text.contains("PASSWORD"), "{text}");
    }
}
