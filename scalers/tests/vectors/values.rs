//! Cases about values: out of answers, in requests, as quantities.

use std::collections::BTreeMap;

use scalers::{Input, MetricType, without_index};
use serde_json::Value;

use crate::cases::{input, metric_type, same};
use crate::world::{Server, context};

/// The first of several fields that is there.
fn field<'a>(case: &'a Value, names: &[&str]) -> Result<&'a Value, String> {
    names.iter().find_map(|name| case.get(name)).ok_or_else(|| {
        format!(
            "none of {names:?} is given, only {:?}",
            case.as_object().map(|map| map.keys().collect::<Vec<_>>())
        )
    })
}

/// A number, also as the text `NaN` or `Inf`.
fn float(value: &Value) -> Result<f64, String> {
    let text = || value.as_str().and_then(|text| text.parse().ok());
    value.as_f64().or_else(text).ok_or_else(|| format!("{value} is no number"))
}

/// Thousandths of a quantity; at most what an `int64` holds, as the HPA takes them.
pub(crate) fn milli(quantity: &str) -> Result<i64, String> {
    let split = quantity.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(split);
    let number: f64 = number.parse().map_err(|_| format!("{quantity:?} is no quantity"))?;
    let thousandths = match suffix {
        "m" => 1.0,
        "" => 1e3,
        "k" => 1e6,
        "M" => 1e9,
        "G" => 1e12,
        "T" => 1e15,
        "P" => 1e18,
        "E" => 1e21,
        _ => {
            let exponent: i32 = suffix[1..].parse().map_err(|_| format!("{quantity:?} is no quantity"))?;
            10_f64.powi(exponent + 3)
        }
    };
    #[expect(clippy::cast_possible_truncation, reason = "`as` saturates, as wanted")]
    Ok((number * thousandths).round() as i64)
}

fn expected_milli(value: &Value) -> Result<i64, String> {
    match value.as_str() {
        Some(quantity) => milli(quantity),
        None => float(value).map(scalers::milli),
    }
}

/// Whether the case wants an error, said as a flag, a text, or a part of one.
fn wants_error(case: &Value) -> bool {
    let said = |name: &str| match case.get(name) {
        Some(Value::Bool(flag)) => *flag,
        Some(Value::String(_)) => true,
        _ => false,
    };
    said("expectedError") || said("expectedErrorContains")
}

/// Compares a value or an error with what a case wants.
fn compare(case: &Value, got: Result<i64, String>) -> Result<(), String> {
    match (got, wants_error(case)) {
        (Err(error), true) => {
            let part =
                ["expectedErrorContains", "expectedError"].iter().find_map(|name| case[*name].as_str());
            match part {
                Some(part) if !error.contains(part) => {
                    Err(format!("error is {error:?}, wanted {part:?} in it"))
                }
                _ => Ok(()),
            }
        }
        (Ok(milli), false) => {
            let wanted = field(case, &["expectedValue", "expectedMetric", "expected"])?;
            same("value in thousandths", milli, expected_milli(wanted)?)
        }
        (got, _) => Err(format!("got {got:?}, wanted {case}")),
    }
}

async fn read(input: &Input, endpoints: Vec<String>) -> Result<i64, String> {
    let scaler = scalers::build(input).map_err(|errors| errors.to_string())?;
    let reading = scaler.read(&context(None, endpoints), "").await;
    reading.map(|reading| reading.milli).map_err(|error| error.to_string())
}

/// A trigger at a server, with the defaults that its type needs.
fn trigger(case: &Value, trigger_type: &str, address: &str) -> Input {
    let mut input = input(case);
    trigger_type.clone_into(&mut input.trigger_type);
    let url = format!("http://{address}");
    let location = case["valueLocation"].as_str().unwrap_or("value");
    let defaults = match trigger_type {
        "metrics-api" => vec![("url", url.as_str()), ("valueLocation", location), ("targetValue", "1")],
        _ => vec![("serverAddress", url.as_str()), ("query", "up"), ("threshold", "1")],
    };
    for (key, value) in defaults {
        input.metadata.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
    for key in ["format", "aggregationType", "ignoreNullValues", "unsafeSsl", "query", "namespace"] {
        let value = match &case[key] {
            Value::String(text) => text.clone(),
            Value::Bool(flag) => flag.to_string(),
            _ => continue,
        };
        input.metadata.insert(key.to_owned(), value);
    }
    for key in ["queryParameters", "customHeaders"] {
        let pairs: Vec<_> = case[key]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
            .collect();
        if !pairs.is_empty() {
            input.metadata.insert(key.to_owned(), pairs.join(","));
        }
    }
    input
}

pub(crate) async fn value_from_response(case: &Value) -> Result<(), String> {
    let server = Server::start("127.0.0.1:0", 200, case["body"].as_str().unwrap_or_default()).await;
    compare(case, read(&trigger(case, "metrics-api", &server.address), Vec::new()).await)
}

pub(crate) async fn query_response(case: &Value) -> Result<(), String> {
    let (status, body) = (case["status"].as_u64().unwrap_or(200), case["body"].as_str().unwrap_or_default());
    let server = Server::start("127.0.0.1:0", status, body).await;
    let trigger_type = case["triggerType"].as_str().unwrap_or("prometheus");
    compare(case, read(&trigger(case, trigger_type, &server.address), Vec::new()).await)
}

pub(crate) async fn query_request(case: &Value) -> Result<(), String> {
    let body = case["body"].as_str().unwrap_or(r#"{"data":{"result":[]}}"#);
    let server = Server::start("127.0.0.1:0", case["status"].as_u64().unwrap_or(200), body).await;
    let mut trigger = trigger(case, case["triggerType"].as_str().unwrap_or("prometheus"), &server.address);
    let address = format!("http://{}{}", server.address, base_path(case));
    trigger.metadata.insert("serverAddress".to_owned(), address);
    let value = read(&trigger, Vec::new()).await?;
    let head = server.head();
    let mut lines = head.split("\r\n");
    let first: Vec<_> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, _] = first[..] else { return Err(format!("the request is {head:?}")) };
    let url = reqwest::Url::parse(&format!("http://host{target}")).map_err(|problem| problem.to_string())?;
    let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let expectations = case.as_object().into_iter().flatten().filter(|(key, _)| key.starts_with("expected"));
    for (key, wanted) in expectations {
        match (key.as_str(), wanted) {
            ("expectedMethod", wanted) => same("method", Some(method), wanted.as_str())?,
            ("expectedPath", wanted) => same("path", Some(url.path()), wanted.as_str())?,
            ("expectedQuery" | "expectedQueryParameters" | "expectedParameters", Value::Object(fields)) => {
                fields.iter().try_for_each(|(name, wanted)| query_field(&query, name, wanted))?;
            }
            ("expectedHeaders", Value::Object(fields)) => fields.iter().try_for_each(|(name, wanted)| {
                same(name, headers.get(&name.to_lowercase()).map(String::as_str), wanted.as_str())
            })?,
            ("expectedError", Value::Bool(false)) | ("expectedValue" | "expectedError", Value::Null) => {}
            ("expectedValue", wanted) => same("value", value, expected_milli(wanted)?)?,
            (key, wanted) => return Err(format!("nothing here knows the expectation {key}: {wanted}")),
        }
    }
    Ok(())
}

/// The path of the server's address, which is ours and so has another host than the case says.
fn base_path(case: &Value) -> &str {
    let names = [
        "serverAddress",
        "serverAddressPath",
        "serverAddressSuffix",
        "addressSuffix",
        "serverPath",
        "basePath",
    ];
    let address =
        names.iter().find_map(|name| case[*name].as_str()).or(case["metadata"]["serverAddress"].as_str());
    let address = address.unwrap_or_default();
    let bare = address.split_once("://").map_or(address, |(_, rest)| rest);
    bare.find('/').map_or("", |slash| &bare[slash..])
}

/// The time is now, whatever the case calls it.
fn query_field(query: &BTreeMap<String, String>, name: &str, wanted: &Value) -> Result<(), String> {
    let got = query.get(name).map(String::as_str);
    if name == "time" && wanted.as_str().is_none_or(|text| text.parse::<jiff::Timestamp>().is_err()) {
        let time: jiff::Timestamp =
            got.unwrap_or_default().parse().map_err(|problem| format!("time {got:?}: {problem}"))?;
        let age = jiff::Timestamp::now().as_second() - time.as_second();
        return if (0..60).contains(&age) { Ok(()) } else { Err(format!("time {time} is not now")) };
    }
    same(name, got, wanted.as_str())
}

/// Each endpoint is a number, or an answer with status and body.
pub(crate) async fn aggregate(case: &Value) -> Result<(), String> {
    let endpoints = field(case, &["endpoints", "values", "responses", "bodies", "endpointValues"])?;
    let endpoints = endpoints.as_array().ok_or("the endpoints are no list")?;
    let mut servers: Vec<Server> = Vec::new();
    for (i, endpoint) in endpoints.iter().enumerate() {
        // A Service's endpoints differ in address, not in port.
        let port =
            servers.first().and_then(|server| server.address.rsplit_once(':')).map_or("0", |(_, port)| port);
        let address = format!("127.0.0.{}:{port}", i + 1);
        let (status, body) = match endpoint {
            Value::Object(answer) => (
                answer.get("status").and_then(Value::as_u64).unwrap_or(200),
                match answer.get("value") {
                    Some(value) => format!("{{\"value\":{value}}}"),
                    None => answer.get("body").and_then(Value::as_str).unwrap_or_default().to_owned(),
                },
            ),
            Value::Number(number) => (200, format!("{{\"value\":{number}}}")),
            Value::String(body) => (200, body.clone()),
            _ => (500, String::new()),
        };
        servers.push(Server::start(&address, status, &body).await);
    }
    let mut trigger = trigger(case, "metrics-api", "service.namespace.svc");
    trigger.metadata.insert("aggregateFromKubeServiceEndpoints".to_owned(), "true".to_owned());
    let addresses = servers.iter().map(|server| server.address.clone()).collect();
    compare(case, read(&trigger, addresses).await)
}

pub(crate) fn float_to_quantity(case: &Value) -> Result<(), String> {
    let value = float(field(case, &["value", "metricValue", "input"])?)?;
    let wanted = case
        .as_object()
        .into_iter()
        .flatten()
        .find(|(key, _)| key.starts_with("expected"))
        .ok_or("nothing is expected")?;
    let wanted = match wanted {
        (key, Value::Number(number)) if key.ends_with("Milli") => number.as_i64().unwrap_or(i64::MAX),
        (_, quantity) => expected_milli(quantity)?,
    };
    same("thousandths", scalers::milli(value), wanted)
}

pub(crate) fn metric_target_type(case: &Value) -> Result<(), String> {
    let set = metric_type(field(case, &["metricType", "input"])?);
    let got = MetricType::for_external(set).map_err(|error| error.to_string());
    match (got, wants_error(case)) {
        (Err(error), true) => match case["expectedErrorContains"].as_str().or(case["expectedError"].as_str())
        {
            Some(part) if !error.contains(part) => Err(format!("error is {error:?}, wanted {part:?} in it")),
            _ => Ok(()),
        },
        (Ok(got), false) => {
            let wanted =
                field(case, &["expectedMetricType", "expectedType", "expectedTargetType", "expected"])?;
            same("type", Some(got.as_str()), wanted.as_str())
        }
        (got, wanted) => Err(format!("got {got:?}, wanted an error: {wanted}")),
    }
}

pub(crate) fn metric_target(case: &Value) -> Result<(), String> {
    let metric_type = metric_type(&case["metricType"]).unwrap_or_default();
    let value = float(field(case, &["metricValue", "value", "input"])?)?;
    let wanted = field(case, &["expectedTarget", "expectedMetricTarget", "expected"])?;
    same("type", Some(metric_type.as_str()), wanted["type"].as_str())?;
    let quantity = match metric_type {
        MetricType::AverageValue => &wanted["averageValue"],
        MetricType::Value | MetricType::Utilization => &wanted["value"],
    };
    same("target in thousandths", scalers::milli(value), expected_milli(quantity)?)
}

pub(crate) fn remove_index(case: &Value) -> Result<(), String> {
    let index = case["triggerIndex"].as_u64().and_then(|index| index.try_into().ok()).unwrap_or_default();
    let metric = case["metricName"].as_str().unwrap_or_default();
    match (without_index(index, metric), wants_error(case)) {
        (Err(_), true) => Ok(()),
        (Ok(name), false) => {
            let names = ["expectedMetricName", "expectedMetricNameWithoutIndex", "expectedName", "expected"];
            let wanted =
                field(case, &names).or_else(|_| field(case, &["expectedMetricNameWithoutIndexPrefix"]))?;
            same("name", Some(name), wanted.as_str())
        }
        (got, wanted) => Err(format!("got {got:?}, wanted an error: {wanted}")),
    }
}

pub(crate) fn normalize_string(case: &Value) -> Result<(), String> {
    let text = field(case, &["input", "value", "text"])?.as_str().unwrap_or_default();
    let wanted = field(case, &["expected", "expectedOutput", "expectedString", "expectedValue"])?;
    same("name", Some(scalers::normalize(text).as_str()), wanted.as_str())
}
