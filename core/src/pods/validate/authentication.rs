//! The rules for TriggerAuthentications, and ClusterTriggerAuthentications, which are the same.

use super::{Violation, reason};
use crate::api::keda::{AuthPodIdentity, OAuth2, TriggerAuthenticationSpec};

/// Every rule that a TriggerAuthentication breaks by itself.
pub fn trigger_authentication(spec: &TriggerAuthenticationSpec) -> Vec<Violation> {
    let mut violations = Vec::new();
    if let Some(identity) = &spec.pod_identity {
        match identity.provider.as_str() {
            "azure-workload" => violations.extend(azure(identity)),
            "aws" => violations.extend(aws(identity)),
            _ => {}
        }
    }
    violations.extend(spec.oauth2.as_ref().and_then(oauth2));
    violations
}

fn violation(field: &str, message: impl Into<String>) -> Violation {
    Violation::at(reason::INCORRECT_AUTHENTICATION, format!("spec.{field}"), message)
}

fn azure(identity: &AuthPodIdentity) -> Vec<Violation> {
    let is_empty = |text: &Option<String>| text.as_deref() == Some("");
    let is_set = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let mut violations = Vec::new();
    if is_empty(&identity.identity_id) {
        let message = "identityId of PodIdentity should not be empty. If it's set, identityId has to be different \
                       than \"\"";
        violations.push(violation("podIdentity.identityId", message));
    }
    if is_set(&identity.identity_authority_host) {
        if !is_set(&identity.identity_tenant_id) {
            let message = "identityTenantID of PodIdentity should not be nil or empty when identityAuthorityHost of \
                           PodIdentity is set";
            violations.push(violation("podIdentity.identityTenantId", message));
        }
    } else if is_empty(&identity.identity_tenant_id) {
        let message = "identityTenantId of PodIdentity should not be empty. If it's set, identityTenantId has to be \
                       different than \"\"";
        violations.push(violation("podIdentity.identityTenantId", message));
    }
    violations
}

fn aws(identity: &AuthPodIdentity) -> Vec<Violation> {
    let is_set = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let mut violations = Vec::new();
    if is_set(&identity.role_arn) && identity.identity_owner.as_deref() == Some("workload") {
        let message = "roleArn of PodIdentity can't be set if KEDA isn't identityOwner";
        violations.push(violation("podIdentity.roleArn", message));
    }
    if is_set(&identity.external_id) && !is_set(&identity.role_arn) {
        let message = "externalID of PodIdentity requires roleArn to be set";
        violations.push(violation("podIdentity.externalID", message));
    }
    violations
}

/// The first thing that is wrong with OAuth 2 credentials; a type that is not given is the default one.
fn oauth2(oauth2: &OAuth2) -> Option<Violation> {
    let type_ = oauth2.type_.as_deref().unwrap_or("clientCredentials");
    if type_ != "clientCredentials" {
        let message = format!("oauth2.type must be 'clientCredentials', got '{type_}'");
        return Some(violation("oauth2.type", message));
    }
    if oauth2.client_id.is_empty() {
        return Some(violation("oauth2.clientId", "oauth2.clientId is required when oauth2 is configured"));
    }
    if oauth2.token_url.is_empty() {
        return Some(violation("oauth2.tokenUrl", "oauth2.tokenUrl is required when oauth2 is configured"));
    }
    (!is_http_url(&oauth2.token_url))
        .then(|| violation("oauth2.tokenUrl", "oauth2.tokenUrl must be a valid http or https URL"))
}

/// `http://host…` or `https://host…`, without blanks and control characters.
fn is_http_url(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
        && !host.is_empty()
        && !url.chars().any(|c| c.is_control() || c == ' ')
}
