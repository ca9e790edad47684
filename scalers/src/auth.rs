//! How a trigger proves who it is to an HTTP source: the parameters that several trigger types share.
//!
//! Names, aliases, lookup orders and required combinations are KEDA's (`pkg/scalers/authentication`).

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::RequestBuilder;
use reqwest::header::{HeaderName, HeaderValue};
use scalers_derive::Metadata;

use crate::context::Context;
use crate::error::Error;
use crate::http::{OwnTransport, Transport};
use crate::input::Secret;
use crate::metadata::{Finding, View};
use crate::oauth::{Grant, OAuth};
use crate::values::{Form, choices};

choices! {
    /// One way to authenticate.
    Mode {
        ApiKey = "apiKey",
        Basic = "basic",
        Tls = "tls",
        Bearer = "bearer",
        Custom = "custom",
        OAuth = "oauth",
    }
}

choices! {
    /// Where an API key goes.
    Method { Header = "header", Query = "query" }
}

/// Parameters of HTTP authentication.
#[derive(Debug, Metadata)]
pub(crate) struct Parameters {
    /// How to authenticate; several are separated by commas.
    #[param(name = "authModes;authMode", from = "meta,auth", exclusive = "bearer;basic;oauth")]
    modes: Option<Vec<Mode>>,
    /// Token of mode bearer.
    #[param(name = "bearerToken;token", from = "auth")]
    bearer_token: Option<Secret>,
    /// User of mode basic.
    #[param(from = "auth")]
    username: Option<Secret>,
    /// Password of mode basic.
    #[param(from = "auth")]
    password: Option<Secret>,
    /// PEM bundle of the authorities that sign the server's certificate, beside the system's.
    #[param(from = "auth")]
    ca: Option<Secret>,
    /// PEM client certificate of mode tls.
    #[param(from = "auth")]
    cert: Option<Secret>,
    /// PEM private key of mode tls.
    #[param(from = "auth")]
    key: Option<Secret>,
    /// Header of mode custom.
    #[param(from = "auth")]
    custom_auth_header: Option<String>,
    /// Value of the header of mode custom.
    #[param(from = "auth")]
    custom_auth_value: Option<Secret>,
    /// Key of mode apiKey.
    #[param(from = "meta,auth")]
    api_key: Option<Secret>,
    /// Where the API key goes.
    #[param(from = "meta,auth", default = "header")]
    method: Method,
    /// Name of the header or query field of the API key, by default `X-API-KEY` or `api_key`.
    #[param(from = "meta,auth")]
    key_param_name: Option<String>,
    /// Token endpoint of mode oauth.
    #[param(name = "oauthTokenURI", from = "auth")]
    oauth_token_uri: Option<String>,
    /// Client id of mode oauth.
    #[param(name = "clientID", from = "auth")]
    client_id: Option<Secret>,
    /// Client secret of mode oauth; an endpoint may want something else, in `endpointParams`.
    #[param(from = "auth")]
    client_secret: Option<Secret>,
    /// Scopes of mode oauth.
    #[param(name = "scopes;scope", from = "auth")]
    scopes: Option<Vec<String>>,
    /// More form fields for the token endpoint of mode oauth.
    #[param(from = "auth")]
    endpoint_params: Option<Form>,
}

/// What goes onto a request.
#[derive(Debug)]
enum Credential {
    Basic { username: Secret, password: Option<Secret> },
    Header { name: HeaderName, value: HeaderValue },
    Query { name: String, value: Secret },
    OAuth(Box<OAuth>),
}

/// A trigger's way to its HTTP source.
#[derive(Debug)]
pub(crate) struct Auth {
    pub(crate) transport: Transport,
    credentials: Box<[Credential]>,
}

impl Parameters {
    /// Whether any mode is set.
    pub(crate) fn enabled(&self) -> bool {
        self.modes.as_ref().is_some_and(|modes| !modes.is_empty())
    }

    /// Checks that each mode has what it needs, in KEDA's words; makes the credentials and the transport.
    pub(crate) fn auth(self, unverified: bool, view: &mut View<'_>) -> Auth {
        let modes = self.modes.clone().unwrap_or_default();
        let mut credentials = Vec::new();
        for mode in &modes {
            match self.credential(*mode) {
                Ok(credential) => credentials.extend(credential),
                // What is missing may be in a TriggerAuthentication that cannot be seen.
                Err(Missing::Parameters(_)) if view.offline.auth => {}
                Err(Missing::Parameters(message)) => view.error(Finding::of("authModes", message)),
                Err(Missing::Invalid(param, message)) => view.error(Finding::of(param, message)),
            }
        }
        let identity = modes.contains(&Mode::Tls).then_some(self.cert.zip(self.key)).flatten();
        let transport = if identity.is_some() || self.ca.is_some() {
            let own = OwnTransport { ca: self.ca, identity, unverified, client: OnceLock::new() };
            Transport::Own(Box::new(own))
        } else {
            Transport::shared(unverified)
        };
        Auth { transport, credentials: credentials.into() }
    }

    fn credential(&self, mode: Mode) -> Result<Option<Credential>, Missing> {
        match mode {
            Mode::Basic => {
                let username = self.username.clone();
                let username =
                    username.ok_or(Missing::Parameters("username is required when basic auth is enabled"))?;
                Ok(Some(Credential::Basic { username, password: self.password.clone() }))
            }
            Mode::Bearer => {
                let token = self.bearer_token.as_ref();
                let token = token
                    .ok_or(Missing::Parameters("bearer token is required when bearer auth is enabled"))?;
                let value = Secret::from(format!("Bearer {}", token.expose()));
                header("bearerToken", "authorization", &value).map(Some)
            }
            Mode::Custom => {
                let (Some(name), Some(value)) = (&self.custom_auth_header, &self.custom_auth_value) else {
                    return Err(Missing::Parameters(
                        "customAuthHeader and customAuthValue are required when custom auth is enabled",
                    ));
                };
                header("customAuthHeader", name, value).map(Some)
            }
            Mode::ApiKey => {
                let key = self.api_key.as_ref();
                let key = key.ok_or(Missing::Parameters("apiKey is required when apiKey auth is enabled"))?;
                let name = self.key_param_name.as_deref();
                match self.method {
                    Method::Header => header("keyParamName", name.unwrap_or("X-API-KEY"), key).map(Some),
                    Method::Query => {
                        let name = name.unwrap_or("api_key").to_owned();
                        Ok(Some(Credential::Query { name, value: key.clone() }))
                    }
                }
            }
            // The authority may be one that the system trusts.
            Mode::Tls if self.cert.is_some() && self.key.is_some() => Ok(None),
            Mode::Tls => Err(Missing::Parameters("cert and key are required when tls auth is enabled")),
            Mode::OAuth => self.oauth().map(|oauth| Some(Credential::OAuth(Box::new(oauth)))),
        }
    }

    fn oauth(&self) -> Result<OAuth, Missing> {
        let (Some(uri), Some(client_id)) = (&self.oauth_token_uri, &self.client_id) else {
            return Err(Missing::Parameters("oauthTokenURI and clientID are required when oauth is enabled"));
        };
        let token_uri = reqwest::Url::parse(uri)
            .map_err(|_| Missing::Invalid("oauthTokenURI", "oauthTokenURI is not a URL"))?;
        Ok(OAuth::new(Grant {
            token_uri,
            client_id: client_id.clone(),
            client_secret: self.client_secret.clone(),
            scope: self.scopes.as_deref().unwrap_or_default().join(" "),
            endpoint_params: self.endpoint_params.clone().unwrap_or_default().0,
        }))
    }
}

/// Why a mode has no credential.
enum Missing {
    Parameters(&'static str),
    Invalid(&'static str, &'static str),
}

fn header(param: &'static str, name: &str, value: &Secret) -> Result<Credential, Missing> {
    let name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Missing::Invalid(param, "the name of the authentication header is no header name"))?;
    let mut value = HeaderValue::from_str(value.expose()).map_err(|_| {
        Missing::Invalid(param, "the value of the authentication header holds characters no header has")
    })?;
    value.set_sensitive(true);
    Ok(Credential::Header { name, value })
}

impl Auth {
    /// The longest that a request may take, with the two that fetching a token takes at most.
    pub(crate) fn patience(&self, timeout: Duration) -> Duration {
        let fetches = self.credentials.iter().any(|credential| matches!(credential, Credential::OAuth(_)));
        if fetches { timeout * 3 } else { timeout }
    }

    /// Puts the credentials on a request; fetches a token first where one is needed.
    pub(crate) async fn apply(
        &self,
        cx: &Context,
        mut request: RequestBuilder,
        timeout: Duration,
    ) -> Result<RequestBuilder, Error> {
        for credential in &self.credentials {
            request = match credential {
                Credential::Basic { username, password } => {
                    request.basic_auth(username.expose(), password.as_ref().map(Secret::expose))
                }
                Credential::Header { name, value } => request.header(name, value.clone()),
                Credential::Query { name, value } => request.query(&[(name, value.expose())]),
                Credential::OAuth(oauth) => {
                    let token = oauth.token(cx, self.transport.client(&cx.http)?, timeout).await?;
                    request.bearer_auth(token.expose())
                }
            };
        }
        Ok(request)
    }
}
