//! The parameters of triggers, read by the parser that the scalers themselves use. Nothing is asked of any source.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
};

use scalers::{Input, Offline, Source};
use tandem_core::api::keda::{AuthenticationRef, ScaleTrigger, TriggerAuthenticationSpec};

use super::{Finding, Report, Rule, World, path::Path};

/// The object that the triggers belong to.
pub(super) struct Owner<'a> {
    /// `ScaledObject` or `ScaledJob`.
    pub kind: &'static str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// A formula reads the values, so that a trigger's own target may be absent.
    pub has_formula: bool,
}

/// Adds what is wrong with the parameters of each trigger.
pub(super) fn check(triggers: &[ScaleTrigger], owner: &Owner<'_>, world: &World<'_>, report: &mut Report) {
    for (index, trigger) in triggers.iter().enumerate() {
        let path = Path::of("spec.triggers").index(index);
        // Its absence is a finding of the schema or of KEDA's rules.
        if trigger.type_.is_empty() {
            continue;
        }
        let authentication = match &trigger.authentication_ref {
            None => Authentication::None,
            Some(reference) => Authentication::find(reference, owner, world),
        };
        if matches!(authentication, Authentication::Unseen) && world.complete {
            report.warnings.push(missing_authentication(trigger, owner, &path));
        }
        let Some(input) = input(index, trigger, owner, &authentication, &path, report) else { continue };
        // A parser that panics on one trigger must not keep the others from being read.
        let read = AssertUnwindSafe(|| read(&input, &authentication, &path, report));
        if catch_unwind(read).is_err() {
            let message = format!("the parameters of trigger {} could not be checked", trigger.type_);
            report.warnings.push(Finding::new(Rule::Trigger, &path, message));
        }
    }
}

/// What a trigger's `authenticationRef` names.
enum Authentication {
    /// It has none.
    None,
    /// Nothing that can be seen from here.
    Unseen,
    /// These parameters, whatever their values, and this pod identity.
    Names { names: BTreeSet<String>, identity: Option<scalers::PodIdentity> },
    /// Parameters whose names are not in the manifest.
    Open,
}

impl Authentication {
    fn find(reference: &AuthenticationRef, owner: &Owner<'_>, world: &World<'_>) -> Self {
        let name = &reference.name;
        if reference.is_cluster() {
            let found = world.lookup.cluster_trigger_authentication(name);
            found.map_or(Self::Unseen, |found| Self::of(&found.spec.spec))
        } else {
            let found = world.lookup.trigger_authentication(owner.namespace, name);
            found.map_or(Self::Unseen, |found| Self::of(&found.spec))
        }
    }

    fn of(spec: &TriggerAuthenticationSpec) -> Self {
        // A file holds names of its own.
        if spec.file_path.is_some() {
            return Self::Open;
        }
        let secrets = spec.secret_target_ref.iter().flatten().map(|value| &value.parameter);
        let config_maps = spec.config_map_target_ref.iter().flatten().map(|value| &value.parameter);
        let variables = spec.env.iter().flatten().map(|value| &value.parameter);
        let vault =
            spec.hashi_corp_vault.iter().flat_map(|vault| &vault.secrets).map(|value| &value.parameter);
        let azure =
            spec.azure_key_vault.iter().flat_map(|vault| &vault.secrets).map(|value| &value.parameter);
        let gcp =
            spec.gcp_secret_manager.iter().flat_map(|vault| &vault.secrets).map(|value| &value.parameter);
        let aws =
            spec.aws_secret_manager.iter().flat_map(|vault| &vault.secrets).map(|value| &value.parameter);
        let tokens = spec.bound_service_account_token.iter().flatten().map(|value| &value.parameter);
        let written = secrets
            .chain(config_maps)
            .chain(variables)
            .chain(vault)
            .chain(azure)
            .chain(gcp)
            .chain(aws)
            .chain(tokens);
        let oauth2 = spec.oauth2.iter().flat_map(|_| OAUTH2_PARAMETERS).map(ToString::to_string);
        Self::Names { names: written.cloned().chain(oauth2).collect(), identity: identity(spec) }
    }
}

/// What `oauth2` becomes (KEDA, `pkg/scaling/resolver/scale_resolvers.go`).
const OAUTH2_PARAMETERS: [&str; 5] =
    ["oauthTokenURI", "clientID", "clientSecret", "scopes", "endpointParams"];

fn identity(spec: &TriggerAuthenticationSpec) -> Option<scalers::PodIdentity> {
    let identity = spec.pod_identity.clone()?;
    Some(scalers::PodIdentity {
        provider: identity.provider,
        identity_id: identity.identity_id,
        identity_tenant_id: identity.identity_tenant_id,
        identity_authority_host: identity.identity_authority_host,
        identity_owner: identity.identity_owner,
        role_arn: identity.role_arn,
        external_id: identity.external_id,
    })
}

fn missing_authentication(trigger: &ScaleTrigger, owner: &Owner<'_>, path: &Path) -> Finding {
    let reference = trigger.authentication_ref.clone().unwrap_or_default();
    let path = path.key("authenticationRef");
    let name = &reference.name;
    let message = if reference.is_cluster() {
        format!("ClusterTriggerAuthentication {name:?} does not exist")
    } else {
        format!("TriggerAuthentication {name:?} does not exist in namespace {:?}", owner.namespace)
    };
    Finding::new(Rule::Reference, &path, message).hint(
        "the trigger does not work until it does; a ClusterTriggerAuthentication needs its kind to be named",
    )
}

fn input(
    index: usize,
    trigger: &ScaleTrigger,
    owner: &Owner<'_>,
    authentication: &Authentication,
    path: &Path,
    report: &mut Report,
) -> Option<Input> {
    let metric_type = match trigger.metric_type.as_deref().filter(|text| !text.is_empty()).map(str::parse) {
        None => None,
        Some(Ok(metric_type)) => Some(metric_type),
        Some(Err(error)) => {
            let error: scalers::UnknownMetricType = error;
            report.errors.push(Finding::new(Rule::Trigger, &path.key("metricType"), error.to_string()));
            return None;
        }
    };
    Some(Input {
        trigger_type: trigger.type_.clone(),
        trigger_index: index,
        trigger_name: trigger.name.clone(),
        metadata: trigger.metadata.clone(),
        metric_type,
        pod_identity: match authentication {
            Authentication::Names { identity, .. } => identity.clone(),
            _ => None,
        },
        as_metric_source: owner.has_formula,
        object_kind: owner.kind.to_owned(),
        object_name: owner.name.to_owned(),
        namespace: owner.namespace.to_owned(),
        ..Input::default()
    })
}

fn read(input: &Input, authentication: &Authentication, path: &Path, report: &mut Report) {
    // The target's environment is the cluster's to know.
    let offline = Offline { auth: !matches!(authentication, Authentication::None), env: true };
    let found = scalers::check(input, offline);
    let place = |finding: scalers::Finding| Finding {
        rule: Rule::Trigger,
        path: finding.param.as_deref().map_or_else(|| path.clone(), |param| parameter(input, param, path)),
        message: finding.message,
        hint: finding.hint,
    };
    report.errors.extend(found.errors.into_iter().map(place));
    if let Authentication::Names { names, .. } = authentication {
        report.errors.extend(unnamed(input, names).map(place));
    }
    report.warnings.extend(found.warnings.into_iter().map(place));
}

/// Where a parameter is written: `metadata`, under its name or as `<name>FromEnv`, and if neither is there `metadata`
/// itself. The metric type stands beside it.
fn parameter(input: &Input, param: &str, path: &Path) -> Path {
    let metadata = path.key("metadata");
    let from_env = format!("{param}FromEnv");
    match () {
        () if input.metadata.contains_key(param) => metadata.key(param),
        () if input.metadata.contains_key(&from_env) => metadata.key(&from_env),
        () if param == "metricType" => path.key(param),
        () => metadata,
    }
}

/// The parameters that are required, that a TriggerAuthentication may give, and that this one does not.
fn unnamed<'a>(
    input: &'a Input,
    names: &'a BTreeSet<String>,
) -> impl Iterator<Item = scalers::Finding> + use<'a> {
    let params = scalers::kind(&input.trigger_type).map_or(&[][..], |kind| kind.params);
    let given = |param: &scalers::Param| param.names.iter().any(|name| names.contains(*name));
    let lacking = move |finding: &scalers::Finding| {
        let param = params.iter().find(|param| Some(param.name()) == finding.param.as_deref());
        param.is_some_and(|param| param.required && param.from.contains(&Source::Auth) && !given(param))
    };
    let seen = scalers::check(input, Offline { auth: true, env: true }).errors;
    let strict = scalers::check(input, Offline { auth: false, env: true }).errors;
    strict.into_iter().filter(move |finding| lacking(finding) && !seen.contains(finding))
}
