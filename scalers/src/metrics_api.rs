//! Scales on a number that any HTTP endpoint serves.

use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use reqwest::Url;
use scalers_derive::Metadata;

use crate::auth::{self, Auth};
use crate::context::Context;
use crate::document::{self, Found};
use crate::error::Error;
use crate::exposition::Selector;
use crate::http::{address, send};
use crate::kind::{Example, Kind, Trigger};
use crate::metadata::{Finding, View};
use crate::names::normalize;
use crate::quantity;
use crate::rules::{http_url, target};
use crate::scaler::{Metric, Reading, Scaler};
use crate::values::choices;

pub(crate) const KIND: Kind = Kind::of::<Parameters>(
    &["metrics-api"],
    "A number that an HTTP endpoint serves, in JSON, YAML, XML or Prometheus' text format.\n\n\
     With `aggregateFromKubeServiceEndpoints` every endpoint of a Kubernetes Service is asked, and the numbers are put \
     together.",
    Example {
        metadata: &[
            ("url", "http://api.shop.svc.cluster.local:8080/stats"),
            ("valueLocation", "queue.length"),
            ("targetValue", "20"),
        ],
        metric_type: None,
    },
);

/// Endpoints of a Service that are asked at the same time (KEDA, `pkg/scalers/metrics_api_scaler.go`).
const AT_A_TIME: usize = 5;

/// Rounds of endpoints that may all be slow: a Service with more than fifty such is not worth waiting for.
const ROUNDS: u32 = 10;

choices! {
    /// How the answer is written.
    Format { Prometheus = "prometheus", Json = "json", Xml = "xml", Yaml = "yaml" }
}

choices! {
    /// How the numbers of several endpoints become one.
    Aggregation { Average = "average", Sum = "sum", Max = "max", Min = "min" }
}

#[derive(Debug, Metadata)]
struct Parameters {
    /// Target; may be absent where a scaling formula uses the trigger.
    target_value: Option<f64>,
    /// The trigger is active above this.
    #[param(default = "0")]
    activation_target_value: f64,
    /// Where to ask.
    url: String,
    /// How the answer is written.
    #[param(default = "json")]
    format: Format,
    /// Where the number is: a GJSON path in JSON, a dotted path in YAML and XML, a selector such as
    /// `queue_size{queue="orders"}` in Prometheus' text format.
    value_location: String,
    /// Do not verify the server's certificate.
    #[param(default = "false")]
    unsafe_ssl: bool,
    /// Take the host of `url`, `service.namespace…`, for a Kubernetes Service, and ask each of its endpoints.
    #[param(default = "false")]
    aggregate_from_kube_service_endpoints: bool,
    /// How the numbers of the endpoints become one.
    #[param(default = "average")]
    aggregation_type: Aggregation,
    /// Deadline of a request, instead of the global one.
    timeout: Option<Duration>,
    #[param(group)]
    auth: auth::Parameters,
}

/// An endpoint, or a Service's endpoints.
struct MetricsApi {
    url: Url,
    location: Location,
    path: String,
    target_milli: i64,
    activation: f64,
    /// Set when all endpoints of a Service are asked.
    service: Option<Service>,
    timeout: Duration,
    auth: Auth,
}

struct Service {
    namespace: String,
    name: String,
    aggregation: Aggregation,
}

/// How the number is found.
enum Location {
    Json,
    Yaml,
    Xml,
    Prometheus(Box<Selector>),
}

impl Trigger for Parameters {
    fn build(self, view: &mut View<'_>) -> Option<Box<dyn Scaler>> {
        let target_milli = target(self.target_value, "targetValue", view);
        let url = http_url(&self.url, "url", "http://api.shop:8080/stats", view);
        let location = self.location(view);
        let service = match url.as_ref().map(|url| self.service(url)).transpose() {
            Ok(service) => service.flatten(),
            Err(finding) => {
                view.error(finding);
                None
            }
        };
        Some(Box::new(MetricsApi {
            url: url?,
            location: location?,
            target_milli: target_milli?,
            service,
            activation: self.activation_target_value,
            timeout: self.timeout.filter(|set| !set.is_zero()).unwrap_or(view.input.http_timeout()),
            auth: self.auth.auth(self.unsafe_ssl, view),
            path: self.value_location,
        }))
    }
}

impl Parameters {
    fn location(&self, view: &mut View<'_>) -> Option<Location> {
        match self.format {
            Format::Json => Some(Location::Json),
            Format::Yaml => Some(Location::Yaml),
            Format::Xml => Some(Location::Xml),
            Format::Prometheus => match Selector::parse(&self.value_location) {
                Ok(selector) => Some(Location::Prometheus(Box::new(selector))),
                Err(problem) => {
                    view.error(Finding::of("valueLocation", problem.to_string()));
                    None
                }
            },
        }
    }

    /// The Service of the host, when its endpoints are to be asked.
    fn service(&self, url: &Url) -> Result<Option<Service>, Finding> {
        if !self.aggregate_from_kube_service_endpoints {
            return Ok(None);
        }
        let host = url.host_str().unwrap_or_default();
        let mut labels = host.split('.').map(str::to_owned);
        let (Some(name), Some(namespace)) = (labels.next(), labels.next()) else {
            let message = format!(
                "invalid hostname {host} : expected at least 2 elements, first being service name and second being the \
                 namespace"
            );
            return Err(Finding::of("url", message));
        };
        Ok(Some(Service { namespace, name, aggregation: self.aggregation_type }))
    }
}

#[async_trait]
impl Scaler for MetricsApi {
    async fn metrics(&self, _: &Context) -> Result<Vec<Metric>, Error> {
        let name = normalize(&format!("metric-api-{}", self.path));
        Ok(vec![Metric::External { name, target_milli: self.target_milli }])
    }

    fn activation(&self) -> f64 {
        self.activation
    }

    fn patience(&self) -> Duration {
        let once = self.auth.patience(self.timeout);
        if self.service.is_some() { once * ROUNDS } else { once }
    }

    async fn read(&self, cx: &Context, _: &str) -> Result<Reading, Error> {
        let value = match &self.service {
            Some(service) => self.aggregate(cx, service).await?,
            None => self.ask(cx, self.url.clone()).await?,
        };
        Ok(Reading::above(value, self.activation))
    }
}

impl MetricsApi {
    /// Asks one endpoint. Up to the hints, the texts are KEDA's (`pkg/scalers/metrics_api_scaler.go`).
    async fn ask(&self, cx: &Context, url: Url) -> Result<f64, Error> {
        let at = address(&url);
        let request = self.auth.transport.client(&cx.http)?.get(url);
        let answer = send(cx, self.auth.apply(cx, request, self.timeout).await?, self.timeout).await?;
        let failed = |what: &str| format!("error requesting metrics endpoint: {what} (from {at})");
        if answer.status.as_u16() != 200 {
            let what = format!("{}: api returned {}", self.url.path(), answer.status.as_u16());
            return Err(Error::Refused(failed(&what)));
        }
        self.value(&answer.body).map_err(|problem| Error::Answer(failed(&problem)))
    }

    fn value(&self, body: &[u8]) -> Result<f64, String> {
        let found = match &self.location {
            Location::Json => document::json(body, &self.path),
            Location::Yaml => document::yaml(body, &self.path),
            Location::Xml => document::xml(body, &self.path),
            Location::Prometheus(selector) => {
                return selector.find(&String::from_utf8_lossy(body)).map_err(|problem| problem.to_string());
            }
        };
        let wrong = |got: &str| {
            format!(
                "valueLocation must point to value of type number or a string representing a Quantity got: '{got}' at \
                 {}",
                self.path
            )
        };
        match found.map_err(|problem| problem.to_string())? {
            Found::Number(number) => Ok(number),
            Found::Text(text) => quantity::parse(&text).ok_or_else(|| wrong(&text)),
            Found::Other(what) => Err(wrong(what)),
        }
    }

    /// Asks every endpoint of a Service; those that fail do not count, unless all do.
    async fn aggregate(&self, cx: &Context, service: &Service) -> Result<f64, Error> {
        let endpoints = cx.cluster.service_endpoints(&service.namespace, &service.name).await?;
        let place = || format!("Service {}/{}", service.namespace, service.name);
        if endpoints.is_empty() {
            return Err(Error::Cluster(format!("{} has no ready endpoints", place())));
        }
        let addresses = addresses(&endpoints, self.url.port_or_known_default());
        if addresses.is_empty() {
            let message = format!("{} has several ports, none is that of url", place());
            return Err(Error::Cluster(format!("{message} (give the port of the pods in url)")));
        }
        let asked = addresses.len();
        let urls: Vec<_> = addresses.into_iter().map(|address| self.at(address)).collect();
        let answers: Vec<_> = stream::iter(urls)
            .map(|url| async move { self.ask(cx, url?).await })
            .buffer_unordered(AT_A_TIME)
            .collect()
            .await;
        let (values, problems): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        let values: Vec<f64> = values.into_iter().flatten().collect();
        if let Some(value) = service.aggregation.of(&values) {
            return Ok(value);
        }
        let first = problems.into_iter().find_map(Result::err).map(|problem| problem.to_string());
        Err(Error::Answer(format!(
            "could not get any metric successfully from the {asked} provided endpoints of {}: {}",
            place(),
            first.unwrap_or_default()
        )))
    }

    /// `url` at another address.
    fn at(&self, address: &str) -> Result<Url, Error> {
        let mut url = self.url.clone();
        let moved = address.rsplit_once(':').and_then(|(host, port)| {
            url.set_host(Some(host)).ok()?;
            url.set_port(Some(port.parse().ok()?)).ok()
        });
        moved.map(|()| url).ok_or_else(|| Error::Cluster(format!("{address} is not the address of an endpoint")))
    }
}

/// The `ip:port` to ask of each endpoint: the port of the URL, or the only one there is.
fn addresses(endpoints: &[String], port: Option<u16>) -> Vec<&str> {
    let port_of = |endpoint: &str| endpoint.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let all = || endpoints.iter().map(String::as_str);
    let with_port: Vec<_> = all().filter(|endpoint| port_of(endpoint) == port).collect();
    let first = all().next().and_then(port_of);
    if with_port.is_empty() && all().all(|endpoint| port_of(endpoint) == first) { all().collect() } else { with_port }
}

impl Aggregation {
    /// `None` of nothing.
    fn of(self, values: &[f64]) -> Option<f64> {
        let sum = values.iter().sum::<f64>();
        match self {
            Self::Max => values.iter().copied().reduce(f64::max),
            Self::Min => values.iter().copied().reduce(f64::min),
            Self::Sum => (!values.is_empty()).then_some(sum),
            #[expect(clippy::cast_precision_loss, reason = "no Service has 2^53 endpoints")]
            Self::Average => (!values.is_empty()).then(|| sum / values.len() as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Input;
    use crate::testing::{Fixture, Server, World, input};

    fn trigger(url: &str, location: &str, more: &[(&str, &str)]) -> Input {
        let mut metadata = vec![("url", url), ("valueLocation", location), ("targetValue", "10")];
        metadata.extend(more);
        input("metrics-api", &metadata)
    }

    async fn read(input: &Input, fixture: &Fixture) -> Result<Reading, String> {
        let scaler = crate::build(input).unwrap();
        scaler.read(&fixture.context, "").await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn each_format_gives_its_number() {
        let json = r#"{"components":[{"tasks":32,"str":"64","k":"1k","wrong":"NaN"}],"count":2.43}"#;
        let number = "valueLocation must point to value of type number or a string representing a Quantity got:";
        for (format, body, location, wanted) in [
            ("json", json, "count", Ok(2_430)),
            ("json", json, "components.0.k", Ok(1_000_000)),
            ("json", json, "components.0.wrong", Err(format!("{number} 'NaN'"))),
            ("json", json, "gone", Err(format!("{number} 'Null' at gone"))),
            ("json", "<html>", "count", Err("not JSON".to_owned())),
            ("yaml", "a: {b: 3}", "a.b", Ok(3_000)),
            ("yaml", "a: {b: 3}", "a.c", Err("key 'c' not found in path 'a.c'".to_owned())),
            ("xml", "<a><b>4</b></a>", "a.b", Ok(4_000)),
            ("prometheus", "jobs{q=\"a\"} 5\njobs{q=\"b\"} 6", "jobs{q=\"b\"}", Ok(6_000)),
            ("prometheus", "jobs{q=\"a\"} 5", "other", Err("metric 'other' not found".to_owned())),
        ] {
            let server = Server::answering(200, body).await;
            let got = read(&trigger(&server.url(), location, &[("format", format)]), &Fixture::new()).await;
            match wanted {
                Ok(milli) => assert_eq!(got, Ok(Reading { milli, active: true }), "{format} {location}"),
                Err(part) => {
                    let error = got.unwrap_err();
                    assert!(error.starts_with("error requesting metrics endpoint: "), "{error}");
                    assert!(error.contains(&part) && error.contains(&server.url()), "{error}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_refusal_names_the_path() {
        let server = Server::answering(418, "").await;
        let url = format!("{}/api/v1/", server.url());
        let error = read(&trigger(&url, "a", &[]), &Fixture::new()).await.unwrap_err();
        assert_eq!(
            error,
            format!("error requesting metrics endpoint: /api/v1/: api returned 418 (from {})", server.url())
        );
    }

    #[tokio::test]
    async fn the_endpoints_of_a_service_become_one_number() {
        let first = Server::answering(200, r#"{"n":2}"#).await;
        let (_, port) = first.address.split_once(':').unwrap();
        let second = Server::start_at(&format!("127.0.0.2:{port}"), |_| (200, r#"{"n":10}"#.to_owned())).await;
        let broken = Server::start_at(&format!("127.0.0.3:{port}"), |_| (500, String::new())).await;
        let endpoints = [&first, &second, &broken].map(|server| server.address.clone()).to_vec();
        let endpoints = [
            (("web".to_owned(), "api".to_owned()), endpoints),
            (("web".to_owned(), "broken".to_owned()), vec![broken.address.clone()]),
            (("web".to_owned(), "ports".to_owned()), vec!["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()]),
        ];
        let fixture = Fixture::of(World { endpoints: endpoints.into(), ..World::default() });
        let ask = async |service: &str, aggregation: &str| {
            let url = format!("http://{service}.web.svc/x?y=z");
            let more = [("aggregateFromKubeServiceEndpoints", "true"), ("aggregationType", aggregation)];
            read(&trigger(&url, "n", &more), &fixture).await.map(|reading| reading.milli)
        };
        for (aggregation, wanted) in [("average", 6_000), ("sum", 12_000), ("max", 10_000), ("min", 2_000)] {
            assert_eq!(ask("api", aggregation).await, Ok(wanted), "{aggregation}");
        }
        assert_eq!(second.requests()[0].target, "/x?y=z");
        let error = ask("broken", "sum").await.unwrap_err();
        assert!(error.contains("from the 1 provided endpoints of Service web/broken: error requesting"), "{error}");
        assert_eq!(
            ask("ports", "sum").await.unwrap_err(),
            "Service web/ports has several ports, none is that of url (give the port of the pods in url)"
        );
        assert_eq!(ask("gone", "sum").await.unwrap_err(), "Service web/gone has no ready endpoints");
    }

    #[test]
    fn numbers_are_put_together() {
        let values = [2.0, 10.0, 3.0];
        for (aggregation, wanted) in [
            (Aggregation::Average, 5.0),
            (Aggregation::Sum, 15.0),
            (Aggregation::Max, 10.0),
            (Aggregation::Min, 2.0),
        ] {
            assert_eq!(aggregation.of(&values), Some(wanted));
            assert_eq!(aggregation.of(&[]), None);
        }
    }

    #[test]
    fn the_port_of_the_url_or_the_only_one_is_asked() {
        let endpoints = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (all, port, wanted) in [
            (vec!["10.0.0.1:80", "10.0.0.1:90", "10.0.0.2:80"], 80, vec!["10.0.0.1:80", "10.0.0.2:80"]),
            (vec!["10.0.0.1:8080", "10.0.0.2:8080"], 80, vec!["10.0.0.1:8080", "10.0.0.2:8080"]),
            (vec!["[fd00::1]:8080"], 8080, vec!["[fd00::1]:8080"]),
            (vec!["10.0.0.1:81", "10.0.0.1:82"], 80, vec![]),
        ] {
            assert_eq!(addresses(&endpoints(&all), Some(port)), wanted, "{all:?}");
        }
    }

    #[test]
    fn metadata_is_refused_where_keda_refuses_it() {
        for (more, auth, fits) in [
            (vec![], vec![], true),
            (vec![("targetValue", "aa")], vec![], false),
            (vec![("targetValue", "")], vec![], false),
            (vec![("url", "")], vec![], false),
            (vec![("url", "dummy:1230")], vec![], false),
            (vec![("timeout", "1000")], vec![], true),
            (vec![("timeout", "-1")], vec![], false),
            (vec![("format", "toml")], vec![], false),
            (vec![("format", "prometheus"), ("valueLocation", "a{b=c}")], vec![], false),
            (vec![("aggregateFromKubeServiceEndpoints", "true")], vec![], false),
            (vec![("authMode", "tls")], vec![("ca", "caaa"), ("cert", "ceert"), ("key", "keey")], true),
            (vec![("authMode", "tls")], vec![("ca", "caaa"), ("cert", "ceert")], false),
            (vec![("authMode", "tls")], vec![("cert", "ceert"), ("key", "keey")], true),
            (vec![("authMode", "apiKey,tls")], vec![("apiKey", "k"), ("ca", "c"), ("cert", "c"), ("key", "k")], true),
            (vec![("authMode", "apiKey")], vec![], false),
            (vec![("authMode", "bearer")], vec![("token", "t")], true),
            (vec![("authMode", "oauth")], vec![("clientID", "i"), ("clientSecret", "s")], false),
            (vec![("unsafeSsl", "yes")], vec![], false),
        ] {
            let input = trigger("http://dummy:1230/api/v1/", "metric", &more).with_auth(&auth);
            assert_eq!(crate::build(&input).is_ok(), fits, "{more:?} {auth:?}");
        }
    }

    #[tokio::test]
    async fn the_name_spells_the_location() {
        let scaler = crate::build(&trigger("http://api", "metric.test", &[])).unwrap();
        let metrics = scaler.metrics(&Fixture::new().context).await.unwrap();
        let name = "metric-api-metric-test".to_owned();
        assert_eq!(metrics, [Metric::External { name, target_milli: 10_000 }]);
    }
}
