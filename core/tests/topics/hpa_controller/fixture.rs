//! HPAs, pods and samples from the short forms of the cases.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tandem_core::hpa::{
    Autoscaler, Reading, Settings,
    pods::{self, Sample, pod_usage},
    spec::{Metric, Source},
};

use super::{super::read, now, number};

/// Windows of samples in the controller's tests.
const WINDOW_S: i64 = 60;

pub(super) fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

pub(super) fn ago(age_s: i64) -> Timestamp {
    now() - seconds(age_s)
}

/// The pods of a case and what is measured of them.
#[derive(Default)]
pub(super) struct Fixture {
    pub(super) pods: Vec<Pod>,
    /// Usage of the containers of each pod, with the pod's name.
    usage: Vec<(String, Vec<i64>)>,
    /// When samples were taken.
    at: Timestamp,
}

impl Fixture {
    /// As the tests of the calculator have it: readiness changed and samples were taken at the beginning of time.
    pub(super) fn calculator(case: &Value, replicas: i32) -> Self {
        let phases = case["pod_phase"].as_array().map_or(0, Vec::len);
        let count = usize::try_from(replicas).unwrap_or_default().max(phases);
        let requests = &case["per_container_request_milli"];
        let pods = (0..count).map(|index| {
            let request = requests[index].as_i64();
            pod(case, index, [request, request], Timestamp::UNIX_EPOCH)
        });
        let usage: Vec<Vec<i64>> = read(&case["per_container_usage_milli"]);
        let usage =
            usage.into_iter().enumerate().map(|(index, usage)| (sample_name(case, index), usage)).collect();
        Self { pods: pods.collect(), usage, at: Timestamp::UNIX_EPOCH }
    }

    /// As the tests of the controller have it: readiness changed at the start, samples are new.
    pub(super) fn reconcile(case: &Value, replicas: i32) -> Self {
        let metrics = case["metrics"].as_array().map(Vec::as_slice).unwrap_or_default();
        let own = std::iter::once(case).chain(metrics);
        let requests = own.clone().find_map(|metric| metric["pod_request_milli"].as_array());
        let count = requests.map_or(usize::try_from(replicas).unwrap_or_default(), Vec::len);
        // Properties of pods may stand in the case or with a metric.
        let place = own
            .clone()
            .find(|place| place.as_object().is_some_and(|fields| fields.keys().any(|name| is_of_pods(name))));
        let pods = (0..count).map(|index| {
            let request = requests.map_or(Some(1000), |requests| requests[index].as_i64());
            let half = request.map(|request| request / 2);
            let place = place.unwrap_or(case);
            let start = place["pod_start_age_s"][index].as_i64().map_or(Timestamp::UNIX_EPOCH, ago);
            pod(place, index, [half, half], start)
        });
        Self { pods: pods.collect(), usage: Vec::new(), at: now() }
    }

    /// The HPA of a case with metrics in their short form.
    pub(super) fn autoscaler(case: &Value, metrics: &Value, behavior: &Value) -> Autoscaler {
        let metrics: Vec<_> = metrics.as_array().into_iter().flatten().map(metric_spec).collect();
        let hpa = read(&json!({
            "metadata": {"namespace": "test-namespace"},
            "spec": {
                "scaleTargetRef": {"kind": "Deployment", "name": "some-deployment"},
                "minReplicas": case["min"], "maxReplicas": number(&case["max"]).unwrap_or(i32::MAX),
                "metrics": metrics, "behavior": behavior,
            },
        }));
        Autoscaler::compile(&hpa).unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// What a metric is at: `values` are a series each, or a pod each.
    pub(super) fn reading<'a>(&self, metric: &Metric, values: &'a [i64], settings: &Settings) -> Reading<'a> {
        let samples: Vec<_> = match &metric.source {
            Source::External { .. } => return external_reading(values),
            Source::Object { .. } => {
                return values.first().map_or(NOTHING, |_| Reading::Values(&values[..1]));
            }
            Source::Resource { .. } | Source::ContainerResource { .. } if !self.usage.is_empty() => {
                let container = match &metric.source {
                    Source::ContainerResource { container, .. } => Some(container.as_str()),
                    _ => None,
                };
                let usage = self.usage.iter();
                usage
                    .filter_map(|(pod, usage)| self.sample(pod.clone(), of_containers(usage, container)?))
                    .collect()
            }
            Source::ContainerResource { .. } => {
                let halves = values.iter().enumerate().map(|(index, value)| (pod_name(index), value / 2));
                halves.filter_map(|(pod, value)| self.sample(pod, value)).collect()
            }
            _ => {
                let values = values.iter().enumerate();
                values.filter_map(|(index, value)| self.sample(pod_name(index), *value)).collect()
            }
        };
        if samples.is_empty() {
            return NOTHING;
        }
        Reading::Pods(pods::tally(metric, &self.pods, &samples, settings, now()))
    }

    #[allow(clippy::unnecessary_wraps, reason = "samples are filtered where they are made")]
    fn sample(&self, pod: String, value: i64) -> Option<Sample> {
        Some(Sample { pod, value, at: self.at, window: seconds(WINDOW_S) })
    }
}

const NOTHING: Reading<'static> = Reading::Failed("no metrics returned from the API");

pub(super) fn external_reading(values: &[i64]) -> Reading<'_> {
    Reading::Values(values)
}

fn is_of_pods(name: &str) -> bool {
    ["pod_ready", "pod_phase", "pod_start_age_s", "pod_deletion_timestamp", "pod_deleted"].contains(&name)
}

fn pod_name(index: usize) -> String {
    format!("test-pod-{index}")
}

/// The pod that a sample says it is of.
fn sample_name(case: &Value, index: usize) -> String {
    let names = ["metric_pod_names", "pod_names"].iter().find_map(|field| case[*field][index].as_str());
    names.map_or_else(|| pod_name(index), str::to_owned)
}

/// Every pod of the tests has two containers; one without a number has no usage.
fn of_containers(usage: &[i64], container: Option<&str>) -> Option<i64> {
    let value = |index: usize| usage.get(index).copied();
    pod_usage(&[("container1", value(0)), ("container2", value(1))], container)
}

fn pod(case: &Value, index: usize, requests: [Option<i64>; 2], ready_since: Timestamp) -> Pod {
    let ready = match &case["pod_ready"][index] {
        Value::Bool(false) => "False",
        Value::String(status) => status,
        _ => "True",
    };
    let start = case["pod_start_age_s"][index].as_i64().map_or(Timestamp::UNIX_EPOCH, ago);
    let deleting = ["pod_deletion_timestamp", "pod_deleted"].iter().any(|field| case[*field][index] == true);
    let container = |(place, request): (usize, &Option<i64>)| {
        let requests =
            request.map(|milli| json!({"cpu": format!("{milli}m"), "memory": format!("{milli}m")}));
        json!({"name": format!("container{}", place + 1), "resources": {"requests": requests}})
    };
    read(&json!({
        "metadata": {"name": pod_name(index), "deletionTimestamp": deleting.then(now)},
        "spec": {"containers": requests.iter().enumerate().map(container).collect::<Vec<_>>()},
        "status": {
            "phase": case["pod_phase"][index].as_str().unwrap_or("Running"),
            "startTime": start,
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": ready_since}],
        },
    }))
}

/// Values of a metric in its short form, however its kind calls them.
pub(super) fn values(metric: &Value) -> Vec<i64> {
    let fields = ["values_milli", "metric_values_milli", "pod_usage_milli", "pod_values_milli"];
    fields
        .iter()
        .find(|field| metric[**field].is_array())
        .map(|field| series(&metric[*field]))
        .unwrap_or_default()
}

/// A number or several.
pub(super) fn series(value: &Value) -> Vec<i64> {
    if let Some(one) = value.as_i64() {
        return vec![one];
    }
    value.as_array().into_iter().flatten().filter_map(Value::as_i64).collect()
}

/// The `behavior` of a case, if it has one.
pub(super) fn behavior(case: &Value) -> Value {
    let direction = |api: &str, short: &str| {
        let given = [&case["behavior"][api], &case[short]].into_iter().find(|rules| !rules.is_null());
        given.map(rules)
    };
    match (direction("scaleUp", "scale_up_rules"), direction("scaleDown", "scale_down_rules")) {
        (None, None) if !case["behavior"].is_object() => Value::Null,
        (up, down) => json!({"scaleUp": up, "scaleDown": down}),
    }
}

/// Rules as the API has them: policies as objects, the tolerance as a quantity.
pub(super) fn rules(rules: &Value) -> Value {
    let mut rules = rules.clone();
    for policy in rules["policies"].as_array_mut().into_iter().flatten() {
        if policy.is_array() {
            *policy = json!({"type": policy[0], "value": policy[1], "periodSeconds": policy[2]});
        }
    }
    if let Some(tolerance) = rules["tolerance"].as_f64() {
        rules["tolerance"] = json!(tolerance.to_string());
    }
    rules
}

fn metric_spec(metric: &Value) -> Value {
    let kind = metric["kind"].as_str().or_else(|| metric["metric_kind"].as_str()).unwrap_or_default();
    let target_type = metric["target_type"].as_str().unwrap_or_default();
    let mut target = json!({"type": target_type});
    let milli = metric["target_milli"].as_i64().map(|milli| format!("{milli}m"));
    match target_type {
        "Value" => target["value"] = json!(milli),
        "AverageValue" => target["averageValue"] = json!(milli),
        "Utilization" => target["averageUtilization"] = metric["target_percent"].clone(),
        _ => {}
    }
    let selector = Some(&metric["selector"]).filter(|selector| selector.is_object());
    let identifier = json!({"name": metric["name"].as_str().unwrap_or("qps"), "selector": selector});
    let resource = metric["resource"].as_str().or_else(|| metric["name"].as_str()).unwrap_or("cpu");
    match kind {
        "Resource" if metric["container"].is_string() => container_resource(resource, metric, &target),
        "ContainerResource" => container_resource(resource, metric, &target),
        "Resource" => json!({"type": kind, "resource": {"name": resource, "target": target}}),
        "Pods" => json!({"type": kind, "pods": {"metric": identifier, "target": target}}),
        "Object" => {
            let object: Vec<&str> = metric["object"]
                .as_str()
                .unwrap_or("apps/v1 Deployment some-deployment")
                .split(' ')
                .collect();
            let object = match object[..] {
                [version, kind, name] => json!({"apiVersion": version, "kind": kind, "name": name}),
                _ => json!({"kind": "", "name": ""}),
            };
            json!({"type": kind, "object": {"describedObject": object, "metric": identifier, "target": target}})
        }
        "External" => json!({"type": kind, "external": {"metric": identifier, "target": target}}),
        other => json!({"type": other}),
    }
}

fn container_resource(resource: &str, metric: &Value, target: &Value) -> Value {
    let container = metric["container"].as_str().unwrap_or("container1");
    let source = json!({"name": resource, "container": container, "target": target});
    json!({"type": "ContainerResource", "containerResource": source})
}

/// A pod of the suite `group_pods`.
pub(super) fn grouped_pod(pod: &Value) -> Pod {
    let age = |field: &str| pod[field].as_i64().map(ago);
    let ready = pod["ready_condition"].as_str().map(|status| {
        let since = age("ready_transition_age_s");
        json!([{"type": "Ready", "status": status, "lastTransitionTime": since}])
    });
    read(&json!({
        "metadata": {"name": pod["name"], "deletionTimestamp": (pod["deletion_timestamp"] == true).then(now)},
        "status": {"phase": pod["phase"], "startTime": age("start_age_s"), "conditions": ready},
    }))
}

/// The sample of such a pod.
pub(super) fn grouped_sample(pod: &Value) -> Option<Sample> {
    let metric = pod["metric"].as_object()?;
    Some(Sample {
        pod: read(&pod["name"]),
        value: 1,
        at: ago(metric.get("age_s").and_then(Value::as_i64).unwrap_or_default()),
        window: seconds(metric.get("window_s").and_then(Value::as_i64).unwrap_or(WINDOW_S)),
    })
}
