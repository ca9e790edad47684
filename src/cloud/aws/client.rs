//! Calls to AWS: signed, retried, measured.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use reqsign_aws_v4::{Credential, RequestSigner};
use reqsign_core::{Signer, hash::hex_sha256};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    SetupError,
    action::{Action, Protocol, Service},
    answer::{self, Failure},
    credentials::{Chain, Http, context},
    endpoints::Endpoints,
    form::Form,
};
use crate::cloud::CloudError;

/// How long a call may take, retries included: a pass over all groups is due every ten seconds, and a call that takes
/// longer than this is worth less than the next pass.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long one attempt may take. The slowest answers (a hundred instance types) take about two seconds.
const ATTEMPT: Duration = Duration::from_secs(15);

/// How often a call is tried if `AWS_MAX_ATTEMPTS` does not say (AWS SDKs, retry mode `standard`).
const ATTEMPTS: u32 = 3;

/// The longest pause between attempts (AWS SDKs, retry mode `standard`).
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// Codes that ask for patience (AWS SDKs and tools reference, retry behaviour).
const THROTTLED: [&str; 12] = [
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
    "LimitExceededException",
    "SlowDown",
    "PriorRequestNotComplete",
    "EC2ThrottledException",
];

/// Codes of faults that pass.
const TRANSIENT: [&str; 6] = [
    "RequestTimeout",
    "RequestTimeoutException",
    "InternalError",
    "InternalFailure",
    "ServiceUnavailable",
    "Unavailable",
];

/// Codes that say no to whoever asks.
const DENIED: [&str; 4] =
    ["UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "Client.UnauthorizedOperation"];

/// Codes that say that there is no more of it (Karpenter, `pkg/errors`; EC2 API error codes).
pub(super) const OUT_OF_CAPACITY: [&str; 10] = [
    "InsufficientInstanceCapacity",
    "InsufficientCapacity",
    "InsufficientHostCapacity",
    "InsufficientReservedInstanceCapacity",
    "InsufficientFreeAddressesInSubnet",
    "UnfulfillableCapacity",
    "MaxSpotInstanceCountExceeded",
    "MaxFleetCountExceeded",
    "VcpuLimitExceeded",
    "ReservationCapacityExceeded",
];

/// Told of every request: the action, `success` or the code of the error, and how long the answer took
/// (`cluster_autoscaler_aws_request_duration_seconds{endpoint,status}`).
#[derive(Clone)]
pub struct OnRequest(Arc<Observer>);

type Observer = dyn Fn(&'static str, &str, Duration) + Send + Sync;

impl OnRequest {
    /// Tells `observer`.
    pub fn new(observer: impl Fn(&'static str, &str, Duration) + Send + Sync + 'static) -> Self {
        Self(Arc::new(observer))
    }
}

impl Default for OnRequest {
    /// Tells nobody.
    fn default() -> Self {
        Self::new(|_, _, _| ())
    }
}

impl std::fmt::Debug for OnRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnRequest")
    }
}

/// Speaks to the services of one region.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    endpoints: Arc<Endpoints>,
    signers: Arc<HashMap<&'static str, Signer<Credential>>>,
    attempts: u32,
    on_request: OnRequest,
}

impl Client {
    /// A client with the credentials that `environment` leads to; nothing is sent yet.
    pub fn new(
        endpoints: Endpoints,
        environment: &HashMap<String, String>,
        on_request: OnRequest,
    ) -> Result<Self, SetupError> {
        let http = client(reqwest::Client::builder())?;
        let credentials = Http {
            outside: http.clone(),
            local: client(reqwest::Client::builder().no_proxy())?,
            sts: endpoints.overridden(Service::Sts).cloned().map(Arc::new),
        };
        let region = endpoints.region();
        let common = Signer::new(
            context(environment.clone(), credentials),
            Chain::new(region),
            RequestSigner::new(Service::Ec2.name(), region),
        );
        // All share one cache of credentials.
        let signer = |service: Service| {
            let signing = RequestSigner::new(service.name(), &endpoints.of(service).region);
            (service.name(), common.clone().with_request_signer(signing))
        };
        let signers = Service::ALL.into_iter().map(signer).collect();
        Ok(Self {
            http,
            attempts: attempts(environment)?,
            signers: Arc::new(signers),
            endpoints: Arc::new(endpoints),
            on_request,
        })
    }

    /// The region that it speaks to.
    pub fn region(&self) -> &str {
        self.endpoints.region()
    }

    /// A call of a query API (EC2, Auto Scaling, STS).
    pub async fn query<T: DeserializeOwned>(&self, action: &Action, form: Form) -> Result<T, CloudError> {
        let Protocol::Query(version) = action.service.protocol() else {
            return Err(refused(action, "Protocol", "the service has no query API"));
        };
        let body = Bytes::from(form.encode(action.name, version));
        let answer =
            self.send(action, "/", "application/x-www-form-urlencoded; charset=utf-8", None, body).await?;
        answer::xml(&answer, action.name).map_err(|problem| refused(action, "MalformedAnswer", &problem))
    }

    /// A call of a JSON API (SQS, SSM, Pricing).
    pub async fn json<T: DeserializeOwned>(
        &self,
        action: &Action,
        body: &serde_json::Value,
    ) -> Result<T, CloudError> {
        let Protocol::Json { target, content_type } = action.service.protocol() else {
            return Err(refused(action, "Protocol", "the service has no JSON API"));
        };
        let target = format!("{target}.{}", action.name);
        let answer =
            self.send(action, "/", content_type, Some(&target), Bytes::from(body.to_string())).await?;
        self.read_json(action, &answer)
    }

    /// A read of a REST API (EKS).
    pub async fn get<T: DeserializeOwned>(&self, action: &Action, path: &str) -> Result<T, CloudError> {
        let answer = self.send(action, path, "application/json", None, Bytes::new()).await?;
        self.read_json(action, &answer)
    }

    #[allow(clippy::unused_self, reason = "reads as the client's")]
    fn read_json<T: DeserializeOwned>(&self, action: &Action, answer: &Bytes) -> Result<T, CloudError> {
        // Actions without a result answer with nothing.
        let text: &[u8] = if answer.is_empty() { b"null" } else { answer };
        serde_json::from_slice(text).map_err(|error| refused(action, "MalformedAnswer", &error.to_string()))
    }

    /// Tries until there is an answer, a refusal, no attempt left or no time.
    async fn send(
        &self,
        action: &Action,
        path: &str,
        content_type: &'static str,
        target: Option<&str>,
        body: Bytes,
    ) -> Result<Bytes, CloudError> {
        let deadline = Instant::now() + DEADLINE;
        let mut attempt = 1;
        loop {
            let started = Instant::now();
            let until = deadline.min(started + ATTEMPT);
            let request = self.attempt(action, path, content_type, target, body.clone());
            let result = timeout_at(until, request).await.unwrap_or_else(|_| {
                Err(Attempt::Lost(format!("nothing came within {} s", ATTEMPT.as_secs())))
            });
            let failed = match result {
                Ok(body) => {
                    (self.on_request.0)(action.name, "success", started.elapsed());
                    return Ok(body);
                }
                Err(failed) => failed,
            };
            (self.on_request.0)(action.name, failed.status(), started.elapsed());
            let pause = pause(attempt, random_share());
            let again =
                failed.may_retry(action) && attempt < self.attempts && Instant::now() + pause < deadline;
            if !again {
                return Err(failed.into_error(action));
            }
            tracing::debug!(action = action.name, attempt, error = %failed.message(), "tried again");
            sleep(pause).await;
            attempt += 1;
        }
    }

    async fn attempt(
        &self,
        action: &Action,
        path: &str,
        content_type: &'static str,
        target: Option<&str>,
        body: Bytes,
    ) -> Result<Bytes, Attempt> {
        let url = format!("{}{path}", self.endpoints.of(action.service).url);
        let method = if body.is_empty() { http::Method::GET } else { http::Method::POST };
        let mut builder = http::Request::builder()
            .method(method)
            .uri(&url)
            .header(http::header::CONTENT_TYPE, content_type)
            .header("x-amz-content-sha256", hex_sha256(&body));
        if let Some(target) = target {
            builder = builder.header("x-amz-target", target);
        }
        let request =
            builder.body(body).map_err(|error| Attempt::NotSent(format!("no address {url:?}: {error}")))?;
        let (mut head, body) = request.into_parts();
        let signer = self.signers.get(action.service.name());
        let signer = signer.ok_or_else(|| Attempt::NotSent("no signer".to_owned()))?;
        signer.sign(&mut head, None).await.map_err(|error| Attempt::NotSent(no_credentials(&error)))?;
        let request = reqwest::Request::try_from(http::Request::from_parts(head, body))
            .map_err(|error| Attempt::NotSent(chain(&error)))?;
        let response = self.http.execute(request).await.map_err(|error| {
            if error.is_connect() {
                Attempt::NotConnected(chain(&error))
            } else {
                Attempt::Lost(chain(&error))
            }
        })?;
        let status = response.status();
        let kind =
            response.headers().get("x-amzn-errortype").and_then(|kind| kind.to_str().ok()).map(str::to_owned);
        let body = response.bytes().await.map_err(|error| Attempt::Lost(chain(&error)))?;
        if status.is_success() {
            return Ok(body);
        }
        Err(Attempt::Refused(status.as_u16(), answer::failure(&body, kind.as_deref(), status.as_u16())))
    }
}

fn client(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, SetupError> {
    builder.connect_timeout(Duration::from_secs(5)).build().map_err(|error| SetupError::Client(chain(&error)))
}

fn attempts(environment: &HashMap<String, String>) -> Result<u32, SetupError> {
    match environment.get("AWS_MAX_ATTEMPTS") {
        None => Ok(ATTEMPTS),
        Some(text) => match text.parse() {
            Ok(attempts) if attempts > 0 => Ok(attempts),
            _ => Err(SetupError::Variable {
                name: "AWS_MAX_ATTEMPTS",
                value: text.clone(),
                wanted: "a whole number from 1 up",
            }),
        },
    }
}

/// How an attempt failed.
#[derive(Debug)]
enum Attempt {
    /// It was never sent.
    NotSent(String),
    /// It reached nobody.
    NotConnected(String),
    /// It was sent, and whether it took effect is not known.
    Lost(String),
    /// It was answered with this status.
    Refused(u16, Failure),
}

impl Attempt {
    fn status(&self) -> &str {
        match self {
            Self::NotSent(_) | Self::NotConnected(_) | Self::Lost(_) => "error",
            Self::Refused(_, failure) => &failure.code,
        }
    }

    fn message(&self) -> &str {
        match self {
            Self::NotSent(message) | Self::NotConnected(message) | Self::Lost(message) => message,
            Self::Refused(_, failure) => &failure.message,
        }
    }

    fn may_retry(&self, action: &Action) -> bool {
        match self {
            Self::NotSent(_) => false,
            Self::NotConnected(_) => true,
            Self::Lost(_) => action.repeatable,
            Self::Refused(status, failure) => {
                let code = failure.code.as_str();
                THROTTLED.contains(&code)
                    || ((*status >= 500 || TRANSIENT.contains(&code))
                        && !OUT_OF_CAPACITY.contains(&code)
                        && action.repeatable)
            }
        }
    }

    fn into_error(self, action: &Action) -> CloudError {
        let call = action.permission();
        match self {
            Self::NotSent(message) | Self::NotConnected(message) | Self::Lost(message) => {
                CloudError::Unreachable { call, message }
            }
            Self::Refused(_, failure) => classify(call, failure),
        }
    }
}

/// What a code means to whoever called.
pub(super) fn classify(call: String, failure: Failure) -> CloudError {
    let Failure { code, message } = failure;
    let is = |codes: &[&str]| codes.contains(&code.as_str());
    if is(&THROTTLED) {
        CloudError::Throttled { call, message }
    } else if is(&DENIED) {
        CloudError::Denied { call, message }
    } else if is(&OUT_OF_CAPACITY) {
        CloudError::OutOfCapacity { code, message }
    } else if code.ends_with("NotFound")
        || code.ends_with("NotFoundException")
        // SQS by its older protocol, by its newer one, and IAM.
        || code.ends_with("NonExistentQueue")
        || ["QueueDoesNotExist", "NoSuchEntity"].contains(&code.as_str())
        // Auto Scaling has one code for everything that is wrong with a request.
        || (code == "ValidationError" && message.contains("not found"))
    {
        CloudError::NotFound(format!("what {call} names ({message})"))
    } else {
        CloudError::Refused { call, code, message }
    }
}

pub(super) fn refused(action: &Action, code: &str, message: &str) -> CloudError {
    CloudError::Refused { call: action.permission(), code: code.to_owned(), message: message.to_owned() }
}

fn no_credentials(error: &reqsign_core::Error) -> String {
    let context: Vec<_> =
        error.context().iter().filter(|line| !line.contains("credential_type")).cloned().collect();
    let details = if context.is_empty() { String::new() } else { format!(" ({})", context.join("; ")) };
    format!(
        "no credentials: {}{details}; give the pod a role through an annotated ServiceAccount (IRSA), EKS Pod Identity or \
         the node's role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        chain(error)
    )
}

/// An error with what it comes from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// The pause after an attempt: a random share of one second, doubled each time ("full jitter").
fn pause(attempt: u32, share: f64) -> Duration {
    let longest =
        Duration::from_secs(1).saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(LONGEST_PAUSE);
    longest.mul_f64(share)
}

/// From 0 to 1.
#[allow(clippy::cast_precision_loss, reason = "32 bits fit")]
fn random_share() -> f64 {
    (RandomState::new().build_hasher().finish() >> 32) as f64 / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::aws::action::{DESCRIBE_INSTANCES, TERMINATE_INSTANCE_IN_GROUP};

    #[test]
    fn pauses_double_up_to_a_limit() {
        for (attempt, share, millis) in
            [(1, 1.0, 1000), (2, 1.0, 2000), (3, 0.5, 2000), (9, 1.0, 20_000), (1, 0.0, 0)]
        {
            assert_eq!(pause(attempt, share), Duration::from_millis(millis));
        }
        assert!((0.0..=1.0).contains(&random_share()));
    }

    #[test]
    fn what_may_have_taken_effect_is_sent_once() {
        let refused = |status, code: &str| {
            Attempt::Refused(status, Failure { code: code.to_owned(), message: String::new() })
        };
        for (attempt, read, write) in [
            (Attempt::Lost(String::new()), true, false),
            (Attempt::NotConnected(String::new()), true, true),
            (Attempt::NotSent(String::new()), false, false),
            (refused(400, "Throttling"), true, true),
            (refused(503, "RequestLimitExceeded"), true, true),
            (refused(500, "InternalFailure"), true, false),
            (refused(500, "InsufficientInstanceCapacity"), false, false),
            (refused(400, "ValidationError"), false, false),
        ] {
            assert_eq!(attempt.may_retry(&DESCRIBE_INSTANCES), read, "{attempt:?}");
            assert_eq!(attempt.may_retry(&TERMINATE_INSTANCE_IN_GROUP), write, "{attempt:?}");
        }
    }

    #[test]
    fn codes_become_errors_that_say_what_to_do() {
        let error = |code: &str, message: &str| {
            classify("ec2:Describe".into(), Failure { code: code.into(), message: message.into() })
        };
        assert!(
            matches!(error("UnauthorizedOperation", ""), CloudError::Denied { call, .. } if call == "ec2:Describe")
        );
        assert!(matches!(error("RequestLimitExceeded", ""), CloudError::Throttled { .. }));
        assert!(matches!(error("UnfulfillableCapacity", ""), CloudError::OutOfCapacity { .. }));
        assert!(matches!(error("InvalidInstanceID.NotFound", ""), CloudError::NotFound(_)));
        let message = "AutoScalingGroup name not found - null";
        assert!(matches!(error("ValidationError", message), CloudError::NotFound(_)));
        assert!(matches!(error("ValidationError", "too large"), CloudError::Refused { .. }));
    }

    #[test]
    fn attempts_are_a_number() {
        let with =
            |value: &str| attempts(&HashMap::from([("AWS_MAX_ATTEMPTS".to_owned(), value.to_owned())]));
        assert_eq!(with("5").unwrap(), 5);
        assert_eq!(attempts(&HashMap::new()).unwrap(), ATTEMPTS);
        for bad in ["0", "-1", "many"] {
            assert!(with(bad).unwrap_err().to_string().contains("whole number"), "{bad}");
        }
    }
}
