//! Credentials: found in the places that AWS' own clients look at, in their order.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt;
use reqsign_aws_v4::{
    AssumeRoleWithWebIdentityCredentialProvider as WebIdentity, Credential,
    ECSCredentialProvider as Container, EnvCredentialProvider as Keys, IMDSv2CredentialProvider as Metadata,
    ProfileCredentialProvider as Profile,
};
use reqsign_core::{Context, Error, FileRead, HttpSend, ProvideCredential, Result, StaticEnv};

use super::endpoints::Endpoint;

/// How long one request for credentials may take. Link-local services answer in milliseconds or are not there.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Hosts that a token may be sent to without TLS (AWS SDKs and tools reference, container credential provider).
const CONTAINER_HOSTS: [&str; 5] =
    ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]", "localhost", "127.0.0.1"];

/// Where credentials come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    Keys,
    /// IAM roles for service accounts: a token in a file is exchanged at STS.
    WebIdentity,
    /// A profile in a file.
    Profile,
    /// EKS Pod Identity, or ECS.
    Container,
    /// The machine's metadata service, or what stands in for it (kube2iam, kiam).
    Metadata,
}

impl Source {
    /// The first that the environment speaks of; the metadata service needs no word.
    fn of(environment: &HashMap<String, String>) -> Self {
        let set = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty());
        if set("AWS_ACCESS_KEY_ID") && set("AWS_SECRET_ACCESS_KEY") {
            Self::Keys
        } else if set("AWS_WEB_IDENTITY_TOKEN_FILE") && set("AWS_ROLE_ARN") {
            Self::WebIdentity
        } else if set("AWS_PROFILE") || set("AWS_SHARED_CREDENTIALS_FILE") {
            Self::Profile
        } else if set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") || set("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
            Self::Container
        } else {
            Self::Metadata
        }
    }
}

/// Provides credentials from the one source that is configured. A source that fails is an error: falling through to
/// the next one, as generic chains do, ends with another role's rights or with an error about the wrong thing.
#[derive(Debug)]
pub(super) struct Chain {
    region: String,
    metadata: Metadata,
}

impl Chain {
    pub(super) fn new(region: &str) -> Self {
        Self { region: region.to_owned(), metadata: Metadata::new() }
    }
}

impl ProvideCredential for Chain {
    type Credential = Credential;

    async fn provide_credential(&self, context: &Context) -> Result<Option<Credential>> {
        let environment = context.env_vars();
        match Source::of(&environment) {
            Source::Keys => Keys::new().provide_credential(context).await,
            Source::WebIdentity => {
                let mut provider = WebIdentity::new().with_region(self.region.clone());
                if environment.get("AWS_STS_REGIONAL_ENDPOINTS").is_none_or(|value| value != "legacy") {
                    provider = provider.with_regional_sts_endpoint();
                }
                provider.provide_credential(context).await
            }
            Source::Profile => Profile::default().provide_credential(context).await,
            Source::Container => container(&environment)?.provide_credential(context).await,
            Source::Metadata => self.metadata.provide_credential(context).await,
        }
    }
}

/// Relative addresses win over full ones and files over values, as in AWS' own clients.
fn container(environment: &HashMap<String, String>) -> Result<Container> {
    let get = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let mut provider = Container::new();
    if let Some(path) = get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        provider = provider.with_relative_uri(path);
    } else if let Some(uri) = get("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
        let rest = uri.strip_prefix("http://");
        let trusted = rest.is_none_or(|rest| {
            let authority = rest.split(['/', '?']).next().unwrap_or_default();
            CONTAINER_HOSTS.iter().any(|host| {
                authority.strip_prefix(host).is_some_and(|port| port.is_empty() || port.starts_with(':'))
            })
        });
        if !trusted {
            return Err(Error::config_invalid(format!(
                "AWS_CONTAINER_CREDENTIALS_FULL_URI is {uri:?}, but a token is only sent over https or to one of {}",
                CONTAINER_HOSTS.join(", ")
            )));
        }
    }
    if let Some(file) = get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        provider = provider.with_auth_token_file(file);
    }
    Ok(provider)
}

/// What reqsign reads files, variables and addresses with.
pub(super) fn context(environment: HashMap<String, String>, http: Http) -> Context {
    let home_dir = environment.get("HOME").map(Into::into);
    Context::new()
        .with_env(StaticEnv { home_dir, envs: environment })
        .with_file_read(Files)
        .with_http_send(http)
}

/// Reads files anew each time: tokens rotate.
#[derive(Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> Result<Vec<u8>> {
        tokio::fs::read(path)
            .await
            .map_err(|error| Error::config_invalid(format!("cannot read {path}")).with_source(error))
    }
}

/// Sends the requests for credentials.
#[derive(Debug, Clone)]
pub(super) struct Http {
    /// Reaches STS, through a proxy if one is configured.
    pub(super) outside: reqwest::Client,
    /// Reaches link-local addresses, never through a proxy.
    pub(super) local: reqwest::Client,
    /// Stands in for STS, whose address reqsign makes up itself.
    pub(super) sts: Option<Arc<Endpoint>>,
}

impl HttpSend for Http {
    async fn http_send(&self, mut request: http::Request<Bytes>) -> Result<http::Response<Bytes>> {
        let is_sts = request.uri().host().is_some_and(|host| host.starts_with("sts."));
        if let Some(sts) = self.sts.as_deref().filter(|_| is_sts) {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            *request.uri_mut() = format!("{}{path}", sts.url).parse().map_err(|error| {
                Error::config_invalid(format!("the address of STS {:?}", sts.url)).with_source(error)
            })?;
        }
        let client = if is_sts { &self.outside } else { &self.local };
        // Neither addresses nor bodies are quoted: they carry tokens.
        let failed = |error: reqwest::Error| {
            Error::unexpected("no answer to the request for credentials").with_source(error.without_url())
        };
        let mut request = reqwest::Request::try_from(request).map_err(failed)?;
        *request.timeout_mut() = Some(TIMEOUT);
        let response: http::Response<reqwest::Body> = client.execute(request).await.map_err(failed)?.into();
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(failed)?.to_bytes();
        Ok(http::Response::from_parts(head, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn sources_in_their_order() {
        let all = [
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "b"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"),
            ("AWS_ROLE_ARN", "arn"),
            ("AWS_PROFILE", "p"),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials"),
        ];
        for (from, source) in [
            (0, Source::Keys),
            (1, Source::WebIdentity),
            (2, Source::WebIdentity),
            (3, Source::Profile),
            (4, Source::Profile),
            (5, Source::Container),
            (6, Source::Metadata),
        ] {
            assert_eq!(Source::of(&environment(&all[from..])), source, "from {from}");
        }
    }

    #[test]
    fn tokens_go_to_link_local_hosts_or_over_tls() {
        for (uri, trusted) in [
            ("http://169.254.170.23/v1/credentials", true),
            ("http://[fd00:ec2::23]/v1/credentials", true),
            ("http://127.0.0.1:8080/c", true),
            ("https://example.test/c", true),
            ("http://example.test/c", false),
            ("http://169.254.170.23.example.test/c", false),
            ("http://127.0.0.1.example.test/c", false),
        ] {
            let given = environment(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri)]);
            assert_eq!(container(&given).is_ok(), trusted, "{uri}");
        }
    }
}
