//! Cloud identities as a way to a managed Prometheus: their parameters are read, so that manifests stay valid, and the
//! trigger says at each read that this version cannot use them.

use scalers_derive::Metadata;

use crate::input::Secret;
use crate::metadata::{Finding, View};
use crate::values::Ignored;

/// Parameters of AWS, GCP and Azure identities.
#[derive(Debug, Metadata)]
pub(crate) struct Parameters {
    /// AWS region; requests would be signed for Amazon Managed Prometheus. Not supported in this version.
    #[param(from = "meta,auth")]
    aws_region: Option<String>,
    /// Whose AWS identity signs, `pod` or `operator`.
    #[expect(dead_code, reason = "nothing reads what has no effect")]
    identity_owner: Option<Ignored>,
    /// JSON of a GCP service account. Not supported in this version.
    #[param(name = "GoogleApplicationCredentials", from = "auth")]
    google_credentials: Option<Secret>,
    /// JSON of a GCP service account, by a variable of the container. Not supported in this version.
    #[param(from = "env")]
    credentials: Option<Secret>,
    /// File with the JSON of a GCP service account, by a variable of the container. Not supported in this version.
    #[param(name = "credentialsFromEnvFile")]
    credentials_file: Option<String>,
}

impl Parameters {
    /// What the trigger would need, when it needs any of this.
    pub(crate) fn unsupported(&self, view: &mut View<'_>) -> Option<String> {
        let wanted = match view.input.identity_provider() {
            Some(provider) => format!("pod identity {provider:?}"),
            None if self.aws_region.is_some() => "signing requests for AWS (awsRegion)".to_owned(),
            None if self.google_credentials.is_some() => "GoogleApplicationCredentials".to_owned(),
            None if self.credentials.is_some() || self.credentials_file.is_some() => {
                "GCP credentials (credentialsFromEnv)".to_owned()
            }
            None => return None,
        };
        let message = format!("{wanted} is not supported in this version");
        view.warn(Finding::new(&message).hint("use authModes basic, bearer, custom, tls or oauth"));
        Some(message)
    }
}
