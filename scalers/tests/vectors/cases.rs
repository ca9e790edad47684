//! Cases about metadata, names and the calendar; the list of what is not built.

use std::time::Duration;

use scalers::{Input, Metric, MetricType, PodIdentity, Reading, Scaler, metric_name};
use serde_json::Value;

use crate::world::context;
use crate::{Verdict, values};

/// Trigger types of KEDA that are not built yet. Their cases are left out; any other unknown type disagrees.
const NOT_BUILT: &[&str] = &[
    "activemq",
    "apache-kafka",
    "arangodb",
    "artemis-queue",
    "aws-cloudwatch",
    "aws-dynamodb",
    "aws-dynamodb-streams",
    "aws-kinesis-stream",
    "aws-sqs-queue",
    "azure-app-insights",
    "azure-blob",
    "azure-data-explorer",
    "azure-eventhub",
    "azure-log-analytics",
    "azure-monitor",
    "azure-pipelines",
    "azure-queue",
    "azure-servicebus",
    "beanstalkd",
    "cassandra",
    "clickhouse",
    "couchdb",
    "datadog",
    "dynatrace",
    "elastic-forecast",
    "elasticsearch",
    "etcd",
    "forgejo-runner",
    "gcp-cloudtasks",
    "gcp-pubsub",
    "gcp-spanner",
    "gcp-stackdriver",
    "gcp-storage",
    "github-runner",
    "graphite",
    "huawei-cloudeye",
    "ibmmq",
    "influxdb",
    "kafka",
    "liiklus",
    "loki",
    "mongodb",
    "mssql",
    "mysql",
    "nats-jetstream",
    "new-relic",
    "nsq",
    "opensearch",
    "openstack-metric",
    "openstack-swift",
    "postgresql",
    "predictkube",
    "pulsar",
    "rabbitmq",
    "redis",
    "redis-cluster",
    "redis-cluster-streams",
    "redis-sentinel",
    "redis-sentinel-streams",
    "redis-streams",
    "selenium-grid",
    "solace-direct-messaging",
    "solace-event-queue",
    "solarwinds",
    "solr",
    "splunk",
    "splunk-observability",
    "sumologic",
    "temporal",
];

/// Variants whose part of the product is not built yet, with the reason.
const VARIANTS_NOT_BUILT: &[(&str, &str)] =
    &[("seleniumResponse", "trigger type selenium-grid is not built yet")];

/// Runs one case.
pub(crate) async fn judge(topic: &str, case: &Value) -> Verdict {
    let kind = case["kind"].as_str().unwrap_or_default();
    if let Some((_, why)) = VARIANTS_NOT_BUILT.iter().find(|(variant, _)| *variant == kind) {
        return Verdict::LeftOut(why);
    }
    if case["triggerType"].as_str().is_some_and(|trigger_type| NOT_BUILT.contains(&trigger_type)) {
        return Verdict::LeftOut("trigger types not built yet");
    }
    let result = match (topic, kind) {
        ("keda_cron" | "keda_metadata", "parse") => parse(case),
        ("keda_cron" | "keda_metric_names", "metricName") => name(case).await,
        ("keda_cron", "activity") => activity(case).await,
        ("keda_values", "valueFromResponse") => values::value_from_response(case).await,
        ("keda_values", "queryResponse") => values::query_response(case).await,
        ("keda_values", "queryRequest") => values::query_request(case).await,
        ("keda_values", "aggregate") => values::aggregate(case).await,
        ("keda_values", "targetMilli" | "metricMilli") => values::float_to_quantity(case),
        ("keda_values", "metricTargetType") => values::metric_target_type(case),
        ("keda_values", "metricTarget") => values::metric_target(case),
        ("keda_values", "removeIndex") => values::remove_index(case),
        ("keda_values", "normalizeString") => values::normalize_string(case),
        _ => Err(format!("nothing here knows the variant {kind:?} of this topic")),
    };
    match result {
        Ok(()) => Verdict::Agrees,
        Err(how) => Verdict::Disagrees(how),
    }
}

/// The outcome of a comparison.
#[expect(clippy::needless_pass_by_value, reason = "the calls read better")]
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, wanted: T) -> Result<(), String> {
    if got == wanted { Ok(()) } else { Err(format!("{what} is {got:?}, wanted {wanted:?}")) }
}

/// The trigger of a case.
pub(crate) fn input(case: &Value) -> Input {
    let config = &case["config"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pairs = |map: &Value| -> Vec<(String, String)> {
        map.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), text(value))).collect()
    };
    let identity = |identity: &Value| PodIdentity {
        provider: text(&identity["provider"]),
        role_arn: identity["roleArn"].as_str().map(str::to_owned),
        identity_id: identity["identityId"].as_str().map(str::to_owned),
        ..PodIdentity::default()
    };
    Input {
        trigger_type: case["triggerType"].as_str().unwrap_or("cron").to_owned(),
        trigger_index: case["triggerIndex"]
            .as_u64()
            .and_then(|index| index.try_into().ok())
            .unwrap_or_default(),
        metadata: pairs(&case["metadata"]).into_iter().collect(),
        auth_params: pairs(&case["authParams"]).into_iter().map(|(key, value)| (key, value.into())).collect(),
        resolved_env: pairs(&case["resolvedEnv"]).into_iter().collect(),
        pod_identity: case.get("podIdentity").filter(|value| value.is_object()).map(identity),
        metric_type: metric_type(&config["metricType"]),
        as_metric_source: config["asMetricSource"].as_bool().unwrap_or_default(),
        object_kind: config["scalableObjectType"].as_str().unwrap_or("ScaledObject").to_owned(),
        object_name: text(&config["scalableObjectName"]),
        namespace: text(&config["scalableObjectNamespace"]),
        http_timeout: config["globalHTTPTimeout"].as_u64().map(Duration::from_nanos).unwrap_or_default(),
        ..Input::default()
    }
}

/// `None` when it is absent or empty.
pub(crate) fn metric_type(value: &Value) -> Option<MetricType> {
    value.as_str().filter(|text| !text.is_empty()).map(|text| text.parse().unwrap())
}

fn parse(case: &Value) -> Result<(), String> {
    let built = scalers::build(&input(case)).map(drop).map_err(|errors| errors.to_string());
    let wanted = case["expectedParses"].as_bool().ok_or("expectedParses is missing")?;
    if built.is_ok() != wanted {
        return Err(format!("metadata gave {built:?}, wanted accepted: {wanted}"));
    }
    match (built, case["expectedErrorContains"].as_str()) {
        (Err(error), Some(part)) if !error.contains(part) => {
            Err(format!("error is {error:?}, wanted {part:?} in it"))
        }
        _ => Ok(()),
    }
}

fn build(case: &Value) -> Result<Box<dyn Scaler>, String> {
    scalers::build(&input(case)).map_err(|errors| format!("metadata was refused: {errors}"))
}

async fn name(case: &Value) -> Result<(), String> {
    let context = context(None, Vec::new());
    let metrics = build(case)?.metrics(&context).await.map_err(|error| error.to_string())?;
    let Some(Metric::External { name, target_milli }) = metrics.into_iter().next() else {
        return Err("there is no external metric".to_owned());
    };
    let wanted = case["expectedMetricName"].as_str().unwrap_or_default();
    same("name", metric_name(input(case).trigger_index, &name), wanted.to_owned())?;
    match case["expectedTarget"].as_str() {
        Some(wanted) => same("target in thousandths", target_milli, values::milli(wanted)?),
        None => Ok(()),
    }
}

async fn activity(case: &Value) -> Result<(), String> {
    let now =
        case["now"].as_str().unwrap_or_default().parse().map_err(|problem| format!("now: {problem}"))?;
    let reading =
        build(case)?.read(&context(Some(now), Vec::new()), "").await.map_err(|error| error.to_string())?;
    let milli = values::milli(case["expectedValue"].as_str().unwrap_or_default())?;
    let active = case["expectedActive"].as_bool().ok_or("expectedActive is missing")?;
    same("reading", reading, Reading { milli, active })
}
