//! Another external metrics adapter behind this one: what we do not know, it answers.
//!
//! Only one server can own the API group in a cluster (kube-aggregator), so an adapter that was there before, Datadog's
//! or prometheus-adapter's, keeps serving its HPAs from here. The reader was authenticated and authorised here; the
//! adapter sees our `ServiceAccount`, which needs `list` on `external.metrics.k8s.io` there. The front proxy's headers
//! are not passed on: without the front proxy's certificate they mean nothing.

use std::{
    error::Error as _,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Response, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, VIA},
    uri::Scheme,
};
use http_body_util::Full;
use thiserror::Error;
use tokio::{fs, time::timeout};

/// Longest wait for the whole answer; the HPA's own deadline stands behind it.
const DEADLINE: Duration = Duration::from_secs(5);

/// Age at which token and CA are read again. Projected tokens are replaced well before they end.
const REREAD: Duration = Duration::from_mins(1);

/// Largest answer that is relayed: a list of one metric, however many labels.
const LARGEST: usize = 1024 * 1024;

/// How we name ourselves in `Via`, so that an upstream that leads back to us is noticed.
const VIA_TANDEM: &str = "1.1 tandem";

/// Where a pod finds its token.
pub const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// How to reach the other adapter.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// `https://datadog-cluster-agent-metrics-server.datadog.svc`, with a path in front of `/apis` if it needs one.
    pub url: String,
    /// The PEM bundle that verifies its certificate; without it the system's.
    pub ca_file: Option<PathBuf>,
    /// Takes any certificate. The token then goes to whoever answers.
    pub insecure_skip_tls_verify: bool,
    /// The bearer token to send, over https only.
    pub token_file: Option<PathBuf>,
}

/// Why the upstream gave no answer that can be relayed.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// The URL is not one.
    #[error("external metrics upstream {url:?} is not an http or https URL: {problem}")]
    Url {
        /// As configured.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// CA or token cannot be read.
    #[error("external metrics upstream: cannot read {path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// No connection, TLS failure, or the answer broke off.
    #[error("external metrics upstream {url}: {problem}")]
    Unreachable {
        /// As configured.
        url: String,
        /// What happened.
        problem: String,
    },
    /// It does not take our token.
    #[error(
        "external metrics upstream {url} refused Tandem's ServiceAccount with {status}: does it have list on \
         external.metrics.k8s.io?"
    )]
    Refused {
        /// As configured.
        url: String,
        /// 401 or 403.
        status: StatusCode,
    },
    /// Too large.
    #[error("external metrics upstream {url} answered with more than {LARGEST} bytes")]
    TooLarge {
        /// As configured.
        url: String,
    },
    /// Too slow.
    #[error("external metrics upstream {url} gave no answer in {} s", DEADLINE.as_secs())]
    Timeout {
        /// As configured.
        url: String,
    },
}

/// The other adapter.
pub struct Upstream {
    config: UpstreamConfig,
    /// Without the slash at its end.
    base: String,
    session: ArcSwapOption<Session>,
}

/// A client with the credentials it was made of.
struct Session {
    client: reqwest::Client,
    authority: Option<Vec<u8>>,
    authorization: Option<HeaderValue>,
    read: Instant,
}

impl Upstream {
    /// Checks the URL; files are read when they are needed. A crypto provider must be installed in the process.
    pub fn new(config: UpstreamConfig) -> Result<Self, UpstreamError> {
        let wrong =
            |problem: &str| UpstreamError::Url { url: config.url.clone(), problem: problem.to_owned() };
        let uri: Uri =
            config.url.parse().map_err(|error: http::uri::InvalidUri| wrong(&error.to_string()))?;
        if ![Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme()) {
            return Err(wrong("it must start with https:// or http://"));
        }
        if uri.query().is_some() {
            return Err(wrong("it must have no query"));
        }
        let base = config.url.trim_end_matches('/').to_owned();
        Ok(Self { config, base, session: ArcSwapOption::empty() })
    }

    /// Whether a request has been forwarded by one of us already.
    pub(super) fn is_loop(headers: &HeaderMap) -> bool {
        headers.get_all(VIA).iter().any(|via| via == VIA_TANDEM)
    }

    /// Relays a GET of `path_and_query`: status, `Content-Type`, `Retry-After` and body of the answer.
    pub(super) async fn get(
        &self,
        path_and_query: &str,
        headers: &HeaderMap,
    ) -> Result<Response<Full<Bytes>>, UpstreamError> {
        match timeout(DEADLINE, self.relay(path_and_query, headers)).await {
            Ok(answer) => answer,
            Err(_) => Err(UpstreamError::Timeout { url: self.base.clone() }),
        }
    }

    async fn relay(
        &self,
        path_and_query: &str,
        headers: &HeaderMap,
    ) -> Result<Response<Full<Bytes>>, UpstreamError> {
        let session = self.session().await?;
        let mut request =
            session.client.get(format!("{}{path_and_query}", self.base)).header(VIA, VIA_TANDEM);
        if let Some(authorization) = &session.authorization {
            request = request.header(http::header::AUTHORIZATION, authorization.clone());
        }
        for accept in headers.get_all(ACCEPT) {
            request = request.header(ACCEPT, accept.clone());
        }
        let mut answer = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = answer.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(UpstreamError::Refused { url: self.base.clone(), status });
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.unreachable(error))? {
            if body.len() + chunk.len() > LARGEST {
                return Err(UpstreamError::TooLarge { url: self.base.clone() });
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = Response::new(Full::new(body.freeze()));
        *response.status_mut() = status;
        for name in [CONTENT_TYPE, RETRY_AFTER] {
            if let Some(value) = answer.headers().get(&name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
        // An answer without one would be taken for protobuf.
        response.headers_mut().entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        Ok(response)
    }

    /// The client in use; its files are read again after a minute, and it is rebuilt if the CA changed.
    async fn session(&self) -> Result<Arc<Session>, UpstreamError> {
        let former = self.session.load_full();
        if let Some(session) = &former
            && session.read.elapsed() < REREAD
        {
            return Ok(session.clone());
        }
        let authority = match &self.config.ca_file {
            Some(path) => Some(read(path).await?),
            None => None,
        };
        let authorization = self.authorization().await?;
        let client = match former {
            Some(former) if former.authority == authority => former.client.clone(),
            _ => self.client(authority.as_deref())?,
        };
        let session = Arc::new(Session { client, authority, authorization, read: Instant::now() });
        self.session.store(Some(session.clone()));
        Ok(session)
    }

    async fn authorization(&self) -> Result<Option<HeaderValue>, UpstreamError> {
        let Some(path) = self.config.token_file.as_ref().filter(|_| self.base.starts_with("https://")) else {
            return Ok(None);
        };
        let token = read(path).await?;
        let value = [b"Bearer ", token.trim_ascii()].concat();
        let mut value = HeaderValue::from_bytes(&value).map_err(|_| UpstreamError::File {
            path: path.clone(),
            error: io::Error::new(io::ErrorKind::InvalidData, "not a bearer token"),
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// No redirect is followed and no proxy asked: the token is meant for this address.
    fn client(&self, authority: Option<&[u8]>) -> Result<reqwest::Client, UpstreamError> {
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tls_danger_accept_invalid_certs(self.config.insecure_skip_tls_verify);
        if let Some(pem) = authority {
            let certificates =
                reqwest::Certificate::from_pem_bundle(pem).map_err(|error| self.unreachable(error))?;
            builder = builder.tls_certs_only(certificates);
        }
        builder.build().map_err(|error| self.unreachable(error))
    }

    fn unreachable(&self, error: reqwest::Error) -> UpstreamError {
        // reqwest says "error sending request"; what went wrong stands in its sources.
        let error = error.without_url();
        let causes = std::iter::successors(error.source(), |&cause| cause.source());
        let problem = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
        UpstreamError::Unreachable { url: self.base.clone(), problem }
    }
}

async fn read(path: &PathBuf) -> Result<Vec<u8>, UpstreamError> {
    fs::read(path).await.map_err(|error| UpstreamError::File { path: path.clone(), error })
}

#[cfg(test)]
mod tests;
