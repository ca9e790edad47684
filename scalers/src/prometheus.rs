//! Scales on the value of a `PromQL` query.

mod range;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use scalers_derive::Metadata;
use serde::Deserialize;
use serde_json::Value;

use crate::auth::{self, Auth};
use crate::context::Context;
use crate::error::Error;
use crate::http::{Answer, address, send};
use crate::identity;
use crate::kind::{Example, Kind, Trigger};
use crate::metadata::{Finding, View};
use crate::promql;
use crate::rules::{http_url, target};
use crate::scaler::{Metric, Range, Reading, Scaler};
use crate::values::Ignored;

pub(crate) const KIND: Kind = Kind::of::<Parameters>(
    &["prometheus"],
    "The value of a PromQL query.\n\n\
     The query must give one number: a scalar or a single series. Works with everything that speaks Prometheus' query \
     API, such as Thanos, Cortex, Mimir and VictoriaMetrics.",
    Example {
        metadata: &[
            ("serverAddress", "http://prometheus-operated.monitoring:9090"),
            ("query", "sum(rate(istio_requests_total{destination_app=\"nginx\"}[2m]))"),
            ("threshold", "10"),
        ],
        metric_type: None,
    },
);

#[expect(clippy::struct_field_names, reason = "the names that users write")]
#[derive(Debug, Metadata)]
struct Parameters {
    /// Address of Prometheus, with the path under which it serves `/api/v1`, if any.
    server_address: String,
    /// The query, in `PromQL`.
    query: String,
    /// More fields of the query string, `key=value,…`.
    query_parameters: Option<BTreeMap<String, String>>,
    /// Target; may be absent where a scaling formula uses the trigger.
    threshold: Option<f64>,
    /// The trigger is active above this.
    #[param(default = "0")]
    activation_threshold: f64,
    /// Field `namespace` of the query string, for sources that keep tenants apart by it (Thanos Querier on `OpenShift`).
    namespace: Option<String>,
    /// More headers, `name=value,…`.
    custom_headers: Option<BTreeMap<String, String>>,
    /// Take an empty result, NaN and infinity for 0; otherwise they are errors.
    #[param(default = "true")]
    ignore_null_values: bool,
    /// Do not verify the server's certificate.
    #[param(default = "false")]
    unsafe_ssl: bool,
    /// Deadline of a request, instead of the global one.
    timeout: Option<Duration>,
    /// Has no effect any more: the metric is called `s<i>-prometheus`.
    #[param(announce = "metricName has no effect, the metric is named s<i>-prometheus; remove it")]
    #[expect(dead_code, reason = "nothing reads what has no effect")]
    metric_name: Option<Ignored>,
    #[param(group)]
    auth: auth::Parameters,
    #[param(group)]
    identity: identity::Parameters,
}

/// A query against one server.
struct Prometheus {
    /// The request without its time.
    url: Box<Url>,
    query: Box<str>,
    target_milli: i64,
    activation: f64,
    ignore_null: bool,
    headers: Option<Box<HeaderMap>>,
    timeout: Duration,
    auth: Auth,
    /// Why it cannot be asked in this version.
    unsupported: Option<Box<str>>,
}

impl Trigger for Parameters {
    fn build(self, view: &mut View<'_>) -> Option<Box<dyn Scaler>> {
        if self.auth.enabled() && view.input.identity_provider().is_some() {
            view.error(Finding::of("authModes", "pod identity cannot be enabled with other auth types"));
        }
        let target_milli = target(self.threshold, "threshold", view);
        let url = self.url(view);
        let headers = headers(self.custom_headers.as_ref(), view);
        if view.checking {
            promql::check(&self.query, view);
        }
        Some(Box::new(Prometheus {
            url: Box::new(url?),
            query: self.query.into(),
            target_milli: target_milli?,
            activation: self.activation_threshold,
            ignore_null: self.ignore_null_values,
            headers: headers.map(|headers| (!headers.is_empty()).then(|| Box::new(headers)))?,
            timeout: self.timeout.filter(|set| !set.is_zero()).unwrap_or(view.input.http_timeout()),
            unsupported: self.identity.unsupported(view).map(Into::into),
            auth: self.auth.auth(self.unsafe_ssl, view),
        }))
    }
}

impl Parameters {
    /// The request without its time.
    fn url(&self, view: &mut View<'_>) -> Option<Url> {
        let mut url = http_url(&self.server_address, "serverAddress", "http://prometheus.monitoring:9090", view)?;
        url.set_path(&format!("{}/api/v1/query", url.path().trim_end_matches('/')));
        url.query_pairs_mut()
            .append_pair("query", &self.query)
            .extend_pairs(self.namespace.iter().map(|namespace| ("namespace", namespace)))
            .extend_pairs(self.query_parameters.iter().flatten());
        Some(url)
    }
}

/// Headers of a `name=value` map.
fn headers(map: Option<&BTreeMap<String, String>>, view: &mut View<'_>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in map.into_iter().flatten() {
        let (Ok(header), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) else {
            let message = format!("customHeaders: {name:?} and its value do not make a header");
            view.error(Finding::of("customHeaders", message));
            return None;
        };
        headers.append(header, value);
    }
    Some(headers)
}

#[async_trait]
impl Scaler for Prometheus {
    async fn metrics(&self, _: &Context) -> Result<Vec<Metric>, Error> {
        Ok(vec![Metric::External { name: "prometheus".to_owned(), target_milli: self.target_milli }])
    }

    fn judge(&self, value: f64) -> Result<Reading, Error> {
        let value = if value.is_finite() {
            value
        } else if self.ignore_null {
            0.0
        } else {
            return Err(not_finite(value));
        };
        Ok(Reading::above(value, self.activation))
    }

    fn patience(&self) -> Duration {
        self.auth.patience(self.timeout)
    }

    async fn history(&self, cx: &Context, range: Range) -> Result<Vec<(i64, f64)>, Error> {
        self.range(cx, range).await
    }

    async fn read(&self, cx: &Context, _: &str) -> Result<Reading, Error> {
        if let Some(unsupported) = &self.unsupported {
            return Err(Error::Configuration(unsupported.to_string()));
        }
        let mut url = Url::clone(&self.url);
        url.query_pairs_mut().append_pair("time", &rfc3339(cx));
        let mut request = self.auth.transport.client(&cx.http)?.get(url);
        if let Some(headers) = &self.headers {
            request = request.headers(HeaderMap::clone(headers));
        }
        let request = self.auth.apply(cx, request, self.timeout).await?;
        let answer = send(cx, request, self.timeout).await?;
        self.value(&answer, cx).map(|value| Reading::above(value, self.activation))
    }
}

/// Now, to the second, as KEDA sends it.
fn rfc3339(cx: &Context) -> String {
    let now = (cx.now)();
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// An answer of the query API, as far as we read it.
#[derive(Deserialize, Default)]
#[serde(default)]
struct QueryAnswer {
    data: Data,
    error: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Data {
    result_type: Option<String>,
    result: Value,
}

impl Prometheus {
    /// The one value of an answer. Up to the hints, the texts are KEDA's (`pkg/scalers/prometheus_scaler.go`).
    fn value(&self, answer: &Answer, cx: &Context) -> Result<f64, Error> {
        let status = answer.status;
        let address = || address(&self.url);
        let parsed = serde_json::from_slice::<QueryAnswer>(&answer.body);
        if !status.is_success() {
            let said = parsed.ok().and_then(|answer| answer.error).or_else(|| hint(status.as_u16()));
            let said = said.map(|said| format!(" ({said})")).unwrap_or_default();
            return Err(Error::Refused(format!(
                "prometheus query api returned error. status: {}{said}, from {}",
                status.as_u16(),
                address()
            )));
        }
        let data = parsed
            .map_err(|problem| {
                let message = format!("{} did not answer as Prometheus does: {problem}", address());
                Error::Answer(format!("{message} (is serverAddress right?)"))
            })?
            .data;
        // A scalar is a sample by itself; anything else is a list of series.
        let sample = match (data.result_type.as_deref(), data.result) {
            (Some("scalar"), sample) => sample,
            (kind @ Some("matrix" | "string"), _) => return Err(self.no_number(kind)),
            (_, Value::Null) => return self.null("the result is empty", cx),
            (_, Value::Array(mut series)) => match series.len() {
                0 => return self.null("the result is empty", cx),
                1 => series.remove(0).get_mut("value").map(Value::take).unwrap_or_default(),
                many => {
                    let message = format!("prometheus query {} returned multiple elements", self.query);
                    return Err(Error::Answer(format!("{message} ({many} series; wrap it in sum())")));
                }
            },
            _ => return Err(self.no_number(data.result_type.as_deref())),
        };
        self.number(&sample, cx)
    }

    /// The number of a sample, `[time, "number"]`.
    fn number(&self, sample: &Value, cx: &Context) -> Result<f64, Error> {
        let values = sample.as_array().map(Vec::as_slice).unwrap_or_default();
        let text = match values {
            [] => return self.null("the value list is empty", cx),
            [_] => {
                let message = format!("prometheus query {} didn't return enough values", self.query);
                return Err(Error::Answer(message));
            }
            [_, Value::Null, ..] => return self.null("the value is null", cx),
            [_, value, ..] => value.as_str().unwrap_or_default(),
        };
        let number: f64 = text.parse().map_err(|_| {
            Error::Answer(format!("prometheus query {} returned {text:?}, which is no number", self.query))
        })?;
        if number.is_finite() {
            return Ok(number);
        }
        cx.observer.empty_answer(self.ignore_null);
        if self.ignore_null { Ok(0.0) } else { Err(not_finite(text)) }
    }

    fn no_number(&self, kind: Option<&str>) -> Error {
        let kind = kind.unwrap_or("something else");
        Error::Answer(format!("prometheus query {} returned a {kind}, not a number", self.query))
    }

    fn null(&self, what: &str, cx: &Context) -> Result<f64, Error> {
        cx.observer.empty_answer(self.ignore_null);
        if self.ignore_null {
            return Ok(0.0);
        }
        Err(Error::Answer(format!("prometheus metrics 'prometheus' target may be lost, {what}")))
    }
}

/// The error for NaN and infinity where nulls are not ignored.
fn not_finite(value: impl std::fmt::Display) -> Error {
    Error::Answer(format!("prometheus query returns {value}"))
}

/// What a refusal without an explanation usually means.
fn hint(status: u16) -> Option<String> {
    let hint = match status {
        401 | 403 => "the server wants other credentials: see authModes",
        404 => "no query API there: is the path in serverAddress right?",
        _ => return None,
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Input;
    use crate::metadata::Offline;
    use crate::testing::{Fixture, Server, input};

    fn trigger(address: &str, more: &[(&str, &str)]) -> Input {
        let mut metadata = vec![("serverAddress", address), ("query", "sum(x{a=\"b&c\"})"), ("threshold", "10")];
        metadata.extend(more);
        input("prometheus", &metadata)
    }

    async fn read(input: &Input) -> Result<Reading, String> {
        let scaler = crate::build(input).unwrap();
        scaler.read(&Fixture::new().context, "prometheus").await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn answers_become_values() {
        let vector = |value: &str| {
            format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{}},"value":[1,{value}]}}]}}}}"#)
        };
        let lost = |what: &str| Err(format!("prometheus metrics 'prometheus' target may be lost, {what}"));
        for (body, ignore, wanted) in [
            (vector("\"26\""), true, Ok((26_000, true))),
            (vector("\"0.0004\""), true, Ok((0, true))),
            (vector("\"-3\""), true, Ok((0, false))),
            (vector("\"NaN\""), true, Ok((0, false))),
            (vector("\"NaN\""), false, Err("prometheus query returns NaN".to_owned())),
            (vector("\"+Inf\""), true, Ok((0, false))),
            (vector("\"+Inf\""), false, Err("prometheus query returns +Inf".to_owned())),
            (vector("null"), true, Ok((0, false))),
            (vector("null"), false, lost("the value is null")),
            (
                vector("\"x\""),
                true,
                Err("prometheus query sum(x{a=\"b&c\"}) returned \"x\", which is no number".to_owned()),
            ),
            (r#"{"data":{"resultType":"scalar","result":[1,"4.5"]}}"#.to_owned(), true, Ok((4_500, true))),
            (r#"{"data":{"result":[]}}"#.to_owned(), true, Ok((0, false))),
            (r#"{"data":{"result":[]}}"#.to_owned(), false, lost("the result is empty")),
            (r#"{"data":{"result":[{"value":[]}]}}"#.to_owned(), false, lost("the value list is empty")),
            (
                r#"{"data":{"result":[{"value":["1"]}]}}"#.to_owned(),
                true,
                Err("prometheus query sum(x{a=\"b&c\"}) didn't return enough values".to_owned()),
            ),
            (
                r#"{"data":{"result":[{},{},{}]}}"#.to_owned(),
                true,
                Err("prometheus query sum(x{a=\"b&c\"}) returned multiple elements (3 series; wrap it in sum())".to_owned()),
            ),
        ] {
            let server = Server::answering(200, &body).await;
            let got = read(&trigger(&server.url(), &[("ignoreNullValues", &ignore.to_string())])).await;
            assert_eq!(got, wanted.map(|(milli, active)| Reading { milli, active }), "{body}");
        }
    }

    #[test]
    fn a_trigger_that_gives_its_source_time_is_waited_for() {
        let patience = |input: &Input| crate::build(input).unwrap().patience();
        assert_eq!(patience(&trigger("http://p", &[])), Duration::from_secs(3));
        let mut patient = trigger("http://p", &[("timeout", "20s"), ("authModes", "oauth")]);
        let parameters = [("oauthTokenURI", "http://t"), ("clientID", "me"), ("clientSecret", "x")];
        patient.auth_params = parameters.map(|(name, value)| (name.to_owned(), value.into())).into();
        assert_eq!(patience(&patient), Duration::from_mins(1), "two requests for a token, one for the value");
    }

    #[tokio::test]
    async fn refusals_say_what_to_do() {
        for (status, body, wanted) in [
            (401, "", "status: 401 (the server wants other credentials: see authModes), from http://"),
            (404, "page not found", "status: 404 (no query API there: is the path in serverAddress right?)"),
            (422, r#"{"status":"error","error":"too many samples"}"#, "status: 422 (too many samples), from http://"),
            (500, "", "prometheus query api returned error. status: 500, from http://"),
            (200, "<html>", "did not answer as Prometheus does"),
        ] {
            let server = Server::answering(status, body).await;
            let error = read(&trigger(&server.url(), &[])).await.unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[tokio::test]
    async fn the_request_carries_what_the_trigger_says() {
        let server = Server::answering(200, r#"{"data":{"result":[]}}"#).await;
        let input = trigger(
            &format!("{}/prom/", server.url()),
            &[
                ("namespace", "shop"),
                ("queryParameters", "first=foo, second=b r"),
                ("customHeaders", "X-Scope-OrgID=team, x-other=1"),
                ("authModes", "bearer"),
            ],
        )
        .with_auth(&[("bearerToken", "t0k3n\n")]);
        let scaler = crate::build(&input).unwrap();
        scaler.read(&Fixture::at("2026-01-01T08:00:00.75Z").context, "prometheus").await.unwrap();
        let request = &server.requests()[0];
        assert_eq!(request.method, "GET");
        assert!(request.target.starts_with("/prom/api/v1/query?query=sum"), "{}", request.target);
        let query = request.query();
        for (field, value) in [
            ("query", "sum(x{a=\"b&c\"})"),
            ("time", "2026-01-01T08:00:00Z"),
            ("namespace", "shop"),
            ("first", "foo"),
            ("second", "b r"),
        ] {
            assert_eq!(query[field], value);
        }
        for (header, value) in [("x-scope-orgid", "team"), ("x-other", "1"), ("authorization", "Bearer t0k3n")] {
            assert_eq!(request.headers[header], value);
        }
    }

    #[tokio::test]
    async fn each_way_to_authenticate_reaches_the_wire() {
        let token = Server::answering(200, r#"{"access_token":"oauth-token"}"#).await;
        for (modes, auth, header, value) in [
            ("basic", vec![("username", "u"), ("password", "p")], "authorization", "Basic dTpw"),
            ("basic", vec![("username", "u")], "authorization", "Basic dTo="),
            ("bearer", vec![("token", "t")], "authorization", "Bearer t"),
            ("custom", vec![("customAuthHeader", "X-Auth"), ("customAuthValue", "v")], "x-auth", "v"),
            ("apiKey", vec![("apiKey", "k")], "x-api-key", "k"),
            ("apiKey", vec![("apiKey", "k"), ("keyParamName", "X-Key")], "x-key", "k"),
            (
                "oauth",
                vec![("oauthTokenURI", token.address.as_str()), ("clientID", "i"), ("clientSecret", "s")],
                "authorization",
                "Bearer oauth-token",
            ),
        ] {
            let uri = token.url();
            let auth: Vec<_> = auth
                .into_iter()
                .map(|(name, value)| (name, if name == "oauthTokenURI" { uri.as_str() } else { value }))
                .collect();
            let server = Server::answering(200, r#"{"data":{"result":[]}}"#).await;
            read(&trigger(&server.url(), &[("authModes", modes)]).with_auth(&auth)).await.unwrap();
            assert_eq!(server.requests()[0].headers[header], value, "{modes}");
        }
        let server = Server::answering(200, r#"{"data":{"result":[]}}"#).await;
        let input = trigger(&server.url(), &[("authModes", "apiKey"), ("method", "query"), ("apiKey", "k")]);
        read(&input).await.unwrap();
        assert_eq!(server.requests()[0].query()["api_key"], "k");
    }

    #[test]
    fn all_errors_come_at_once_and_no_secret_with_them() {
        let input = input(
            "prometheus",
            &[
                ("serverAddress", "prometheus:9090"),
                ("threshold", "ten"),
                ("timeout", "-1"),
                ("customHeaders", "key1=value1,key2"),
                ("authModes", "basic,bearer"),
            ],
        )
        .with_auth(&[("bearerToken", "hunter2")]);
        let errors: Vec<_> = crate::build(&input).err().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "missing required parameter \"query\" in [triggerMetadata]",
                "unable to set param \"threshold\" value \"ten\": expected a number",
                "unable to set param \"customHeaders\" value \"key1=value1,key2\": expected format key=value",
                "unable to set param \"timeout\" value \"-1\": duration cannot be negative",
                "parameter \"authModes,authMode\" value \"basic,bearer\" must contain only one of [bearer basic oauth]",
            ]
        );
    }

    #[test]
    fn values_from_secrets_are_never_quoted() {
        let input = trigger("http://p", &[("authModes", "custom")])
            .with_auth(&[("customAuthHeader", "hunter 2"), ("customAuthValue", "hunter2\u{1}")]);
        let errors = crate::build(&input).err().unwrap().to_string();
        assert!(errors.contains("no header name") && !errors.contains("hunter"), "{errors}");
        let input = trigger("http://p", &[]).with_auth(&[("method", "hunter2")]);
        let errors = crate::build(&input).err().unwrap().to_string();
        assert!(errors.contains("value from authParams must be one of [header query]"), "{errors}");
    }

    #[test]
    fn checks_see_what_building_lets_pass() {
        let input = trigger(
            "http://p:9090",
            &[("metricName", "old"), ("treshold", "5"), ("authModes", "bearer"), ("awsRegion", "eu-west-1")],
        );
        let offline = Offline { auth: true, env: false };
        let findings = crate::check(&input, offline);
        assert_eq!(findings.errors, []);
        let warnings: Vec<_> = findings.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            [
                "scaler prometheus info: metricName has no effect, the metric is named s<i>-prometheus; remove it",
                "signing requests for AWS (awsRegion) is not supported in this version (use authModes basic, bearer, \
                 custom, tls or oauth)",
                "unknown parameter \"treshold\" in trigger prometheus (did you mean \"threshold\"?)",
            ]
        );
        let findings = crate::check(&input, Offline::default());
        assert_eq!(findings.errors[0].message, "bearer token is required when bearer auth is enabled");
    }

    #[tokio::test]
    async fn an_identity_is_refused_when_it_is_used() {
        let mut input = trigger("http://p:9090", &[]);
        input.pod_identity =
            Some(crate::PodIdentity { provider: "azure-workload".to_owned(), ..Default::default() });
        let error = read(&input).await.unwrap_err();
        assert_eq!(error, "pod identity \"azure-workload\" is not supported in this version");
    }

    #[test]
    fn a_target_is_needed_unless_a_formula_uses_the_trigger() {
        let mut input = input("prometheus", &[("serverAddress", "http://p"), ("query", "up")]);
        let errors = crate::build(&input).err().unwrap().to_string();
        assert!(errors.contains("missing required parameter \"threshold\" in [triggerMetadata]"), "{errors}");
        input.as_metric_source = true;
        assert!(crate::build(&input).is_ok());
    }

    #[test]
    fn a_scaler_is_small() {
        assert!(std::mem::size_of::<Prometheus>() <= 160, "{}", std::mem::size_of::<Prometheus>());
    }
}
