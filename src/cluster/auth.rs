//! What a TriggerAuthentication resolves to.

use std::{collections::BTreeMap, sync::Arc};

use scalers::{PodIdentity, Secret};
use tandem_core::api::keda::{AuthTargetRef, AuthenticationRef, OAuth2, TriggerAuthenticationSpec};

use super::{
    Cluster, Key,
    env::{EnvError, Sources},
    named::NamedError,
    scale::Target,
};

/// Why an authentication gives no parameters.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// It does not exist.
    #[error("{kind} {name:?} not found{place}")]
    Missing {
        /// TriggerAuthentication or ClusterTriggerAuthentication.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Where it was looked for.
        place: String,
    },
    /// A Secret or ConfigMap, or its key, does not exist.
    #[error("{kind} {key} has no key {field:?} (parameter {parameter:?}); does it exist?")]
    MissingValue {
        /// Secret or ConfigMap.
        kind: &'static str,
        /// Which one.
        key: Key,
        /// The key asked for.
        field: String,
        /// The parameter it should become.
        parameter: String,
    },
    /// A provider that this version does not speak.
    #[error("{0} of a TriggerAuthentication is not supported by this version of Tandem; use secretTargetRef")]
    Unsupported(&'static str),
    /// Only manifests are there.
    #[error("the environment of a container is not known from manifests; use secretTargetRef")]
    NoContainers,
    /// A Secret or ConfigMap cannot be read.
    #[error(transparent)]
    Named(#[from] NamedError),
    /// The target's environment cannot be read.
    #[error(transparent)]
    Env(#[from] EnvError),
}

/// The resolved parameters of one trigger.
#[derive(Default)]
pub struct Authentication {
    /// By parameter name.
    pub params: BTreeMap<String, Secret>,
    /// The pod identity.
    pub identity: Option<PodIdentity>,
}

/// Where the environment of a trigger's target is found.
pub struct EnvSource<'a> {
    /// The target, or why it is not known.
    pub target: &'a Result<Target, String>,
    /// `envSourceContainerName`.
    pub container: Option<&'a str>,
}

/// Where values are found that authentications refer to.
pub(crate) trait Values: Send {
    /// A value of a Secret; `None` where the Secret or the key is missing.
    fn secret(
        &mut self,
        namespace: &str,
        name: &str,
        key: &str,
    ) -> impl Future<Output = Result<Option<String>, AuthError>> + Send;

    /// A value of a ConfigMap; `None` where the ConfigMap or the key is missing.
    fn config_map(
        &mut self,
        namespace: &str,
        name: &str,
        key: &str,
    ) -> impl Future<Output = Result<Option<String>, AuthError>> + Send;

    /// The environment of a container of the target, of the usual one if none is named.
    fn environment(
        &mut self,
        container: Option<&str>,
    ) -> impl Future<Output = Result<BTreeMap<String, String>, AuthError>> + Send;
}

/// What a TriggerAuthentication resolves to, whose Secrets live in `namespace`, in KEDA's order
/// (`pkg/scaling/resolver/scale_resolvers.go`): environment, ConfigMaps, Secrets, OAuth 2; later ones win.
///
/// # Errors
/// See [`AuthError`].
pub(crate) async fn resolve(
    spec: &TriggerAuthenticationSpec,
    namespace: &str,
    values: &mut impl Values,
) -> Result<Authentication, AuthError> {
    refuse_unsupported(spec)?;
    let mut resolved = Authentication::default();
    if let Some(identity) = &spec.pod_identity {
        resolved.identity = Some(PodIdentity {
            provider: identity.provider.clone(),
            identity_id: identity.identity_id.clone(),
            identity_tenant_id: identity.identity_tenant_id.clone(),
            identity_authority_host: identity.identity_authority_host.clone(),
            identity_owner: identity.identity_owner.clone(),
            role_arn: identity.role_arn.clone(),
            external_id: identity.external_id.clone(),
        });
    }
    for variable in spec.env.iter().flatten() {
        let container = variable.container_name.as_deref().filter(|name| !name.is_empty());
        if let Some(value) = values.environment(container).await?.get(&variable.name) {
            resolved.params.insert(variable.parameter.clone(), value.clone().into());
        }
    }
    for reference in spec.config_map_target_ref.iter().flatten() {
        let AuthTargetRef { parameter, name, key } = reference;
        let value = values.config_map(namespace, name, key).await?;
        let value = value.ok_or_else(|| missing("ConfigMap", namespace, reference))?;
        resolved.params.insert(parameter.clone(), value.into());
    }
    for reference in spec.secret_target_ref.iter().flatten() {
        let AuthTargetRef { parameter, name, key } = reference;
        let value = values.secret(namespace, name, key).await?;
        let value = value.ok_or_else(|| missing("Secret", namespace, reference))?;
        resolved.params.insert(parameter.clone(), value.into());
    }
    if let Some(client) = &spec.oauth2 {
        oauth2(namespace, client, &mut resolved.params, values).await?;
    }
    Ok(resolved)
}

/// The parameters under which scalers with OAuth expect a client's credentials.
async fn oauth2(
    namespace: &str,
    oauth2: &OAuth2,
    params: &mut BTreeMap<String, Secret>,
    values: &mut impl Values,
) -> Result<(), AuthError> {
    let at = &oauth2.client_secret.value_from.secret_key_ref;
    let secret = values.secret(namespace, &at.name, &at.key).await?;
    let secret = secret.ok_or_else(|| AuthError::MissingValue {
        kind: "Secret",
        key: Key::new(namespace, &at.name),
        field: at.key.clone(),
        parameter: "clientSecret".to_owned(),
    })?;
    let endpoint: Vec<_> =
        oauth2.token_url_params.iter().flatten().map(|(name, value)| format!("{name}={value}")).collect();
    params.insert("oauthTokenURI".to_owned(), oauth2.token_url.clone().into());
    params.insert("clientID".to_owned(), oauth2.client_id.clone().into());
    params.insert("clientSecret".to_owned(), secret.into());
    params.insert(
        "scopes".to_owned(),
        oauth2.scopes.iter().flatten().cloned().collect::<Vec<_>>().join(",").into(),
    );
    params.insert("endpointParams".to_owned(), endpoint.join("&").into());
    Ok(())
}

/// The values as the API server has them; what they come from is watched while `sources` are held.
struct Live<'a> {
    cluster: &'a Cluster,
    env: &'a EnvSource<'a>,
    sources: &'a mut Sources,
}

impl Values for Live<'_> {
    async fn secret(&mut self, namespace: &str, name: &str, key: &str) -> Result<Option<String>, AuthError> {
        Ok(self.cluster.secret_value(namespace, name, key, self.sources).await?)
    }

    async fn config_map(
        &mut self,
        namespace: &str,
        name: &str,
        key: &str,
    ) -> Result<Option<String>, AuthError> {
        Ok(self.cluster.config_map_value(namespace, name, key, self.sources).await?)
    }

    async fn environment(&mut self, container: Option<&str>) -> Result<BTreeMap<String, String>, AuthError> {
        let target = self.env.target.as_ref().map_err(|message| EnvError::NoTemplate {
            kind: "scaleTargetRef".to_owned(),
            name: String::new(),
            message: message.clone(),
        })?;
        Ok(self.cluster.environment(target, container.or(self.env.container), self.sources).await?)
    }
}

impl Cluster {
    /// Resolves `reference` for an object in `namespace`.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub async fn authentication(
        &self,
        namespace: &str,
        reference: &AuthenticationRef,
        env: &EnvSource<'_>,
        sources: &mut Sources,
    ) -> Result<Authentication, AuthError> {
        let (spec, secrets_in) = self.authentication_spec(namespace, reference)?;
        resolve(&spec, &secrets_in, &mut Live { cluster: self, env, sources }).await
    }

    /// The spec, and the namespace in which its Secrets live.
    fn authentication_spec(
        &self,
        namespace: &str,
        reference: &AuthenticationRef,
    ) -> Result<(Arc<TriggerAuthenticationSpec>, String), AuthError> {
        if reference.is_cluster() {
            let found = self.cluster_authentications.get("", &reference.name);
            let found = found.ok_or_else(|| AuthError::Missing {
                kind: "ClusterTriggerAuthentication",
                name: reference.name.clone(),
                place: String::new(),
            })?;
            return Ok((Arc::new(found.spec.spec.clone()), self.cluster_object_namespace.clone()));
        }
        let found = self.authentications.get(namespace, &reference.name);
        let found = found.ok_or_else(|| AuthError::Missing {
            kind: "TriggerAuthentication",
            name: reference.name.clone(),
            place: format!(" in namespace {namespace}"),
        })?;
        Ok((Arc::new(found.spec.clone()), namespace.to_owned()))
    }
}

fn missing(kind: &'static str, namespace: &str, reference: &AuthTargetRef) -> AuthError {
    AuthError::MissingValue {
        kind,
        key: Key::new(namespace, &reference.name),
        field: reference.key.clone(),
        parameter: reference.parameter.clone(),
    }
}

/// Half an authentication is worse than none: a trigger would call its source with parameters missing.
fn refuse_unsupported(spec: &TriggerAuthenticationSpec) -> Result<(), AuthError> {
    let present = [
        ("filePath", spec.file_path.is_some()),
        ("hashiCorpVault", spec.hashi_corp_vault.is_some()),
        ("azureKeyVault", spec.azure_key_vault.is_some()),
        ("gcpSecretManager", spec.gcp_secret_manager.is_some()),
        ("awsSecretManager", spec.aws_secret_manager.is_some()),
        ("boundServiceAccountToken", spec.bound_service_account_token.is_some()),
    ];
    present
        .into_iter()
        .find(|(_, present)| *present)
        .map_or(Ok(()), |(name, _)| Err(AuthError::Unsupported(name)))
}
