//! `keda_hpa`: the HPA of a ScaledObject, step by step.

use k8s_openapi::{
    api::autoscaling::v2::HorizontalPodAutoscaler, apimachinery::pkg::api::resource::Quantity,
};
use kube::ResourceExt;
use serde_json::Value;
use tandem_core::{
    api::keda::{ScaleTrigger, ScaledObject},
    pods::{
        annotations::Pause,
        hpa::{
            self, HpaError, MetricKind, ResourceTarget, ScaleTargetGvk, Target, TargetKind, TriggerMetric,
        },
        validate,
    },
};

use super::{Differences, Verdict, object, read, schema, unknown_kind};

/// The version in the cases' labels.
const VERSION: &str = "main";

pub(super) fn judge(case: &Value) -> Verdict {
    match case["kind"].as_str() {
        Some("reconcile") => reconcile(case),
        Some("hpaMinMax") => min_and_max(case),
        Some("metricNames") => metric_names(case),
        _ => unknown_kind(case),
    }
}

fn min_and_max(case: &Value) -> Verdict {
    let mut object = ScaledObject::default();
    object.spec.min_replica_count = read(&case["minReplicaCount"]);
    object.spec.max_replica_count = read(&case["maxReplicaCount"]);
    let mut differences = Differences::default();
    differences.same("min", object.spec.hpa_min_replicas(), read(&case["expectedMin"]));
    differences.same("max", object.spec.max_replicas(), read(&case["expectedMax"]));
    differences.verdict()
}

fn metric_names(case: &Value) -> Verdict {
    let triggers: Vec<ScaleTrigger> = read(&case["triggers"]);
    let indices =
        case["triggers"].as_array().into_iter().flatten().map(|trigger| trigger["triggerIndex"].as_u64());
    let metrics: Vec<_> =
        indices.zip(&triggers).map(|(index, trigger)| metric(index.unwrap_or_default(), trigger)).collect();
    let mut differences = Differences::default();
    let generated = generate(&ScaledObject::default(), &metrics);
    if let Some(text) = case["expectedErrorContains"].as_str() {
        let said = generated.as_ref().is_err_and(|error| error.to_string().contains(text));
        differences.holds(said, || format!("got {generated:?}, wanted the error {text:?}"));
    } else {
        differences.holds(generated.is_ok(), || format!("got {generated:?}"));
        let wanted: Vec<String> = read(&case["expectedExternalMetricNames"]);
        differences.same("external metric names", hpa::metric_names(&metrics).0, wanted);
    }
    differences.verdict()
}

fn reconcile(case: &Value) -> Verdict {
    let mut differences = Differences::default();
    let mut desired = None;
    for step in case["steps"].as_array().into_iter().flatten() {
        match step["op"].as_str() {
            Some("CREATE" | "UPDATE") => desired = reconcile_object(step, &mut differences),
            Some("EDIT HPA") => drift(desired.as_ref(), &mut differences),
            // What is gone is made anew from the object, or goes with it.
            Some("DELETE HorizontalPodAutoscaler" | "DELETE ScaledObject") => {}
            _ => differences.holds(false, || format!("no runner knows the step {}", step["op"])),
        }
    }
    differences.verdict()
}

/// Checks what an object gives rise to; its HPA, unless there is none.
fn reconcile_object(step: &Value, differences: &mut Differences) -> Option<HorizontalPodAutoscaler> {
    let refused = schema::refused::<ScaledObject>(&step["scaledObject"]);
    if let Some(field) = step["expectedSchemaErrorField"].as_str() {
        differences.holds(refused.iter().any(|path| path == field), || format!("{refused:?} lacks {field}"));
        return None;
    }
    differences.same("fields refused by the schema", refused, Vec::new());
    let object: ScaledObject = object(&step["scaledObject"]);
    let pause = Pause::of(object.annotations());
    if let Some(paused) = step["expectedPaused"].as_str() {
        differences.same("Paused", if pause.any() { "True" } else { "False" }, paused);
    }
    if step["expectedHpaAbsent"] == true {
        differences.holds(pause.full, || "the HPA stays".to_owned());
        return None;
    }
    let metrics: Vec<_> =
        (0..).zip(&object.spec.triggers).map(|(index, trigger)| metric(index, trigger)).collect();
    let generated = generate(&object, &metrics);
    let ready = pause.full || (validate::reconcilable(&object).is_empty() && generated.is_ok());
    if let Some(wanted) = step["expectedReady"].as_str() {
        differences.same("Ready", if ready { "True" } else { "False" }, wanted);
    }
    if let Ok(got) = &generated {
        compare(step, got, &metrics, differences);
    } else if !step["expectedHpa"].is_null() {
        differences.holds(false, || format!("got {generated:?}"));
    }
    generated.ok()
}

fn compare(
    step: &Value,
    got: &HorizontalPodAutoscaler,
    metrics: &[TriggerMetric],
    differences: &mut Differences,
) {
    if !step["expectedHpa"].is_null() {
        let mut wanted: HorizontalPodAutoscaler = read(&step["expectedHpa"]);
        wanted.spec.metrics.get_or_insert_default();
        differences.holds(!hpa::needs_update(&wanted, got), || "the wanted HPA would be updated".to_owned());
        differences.same("HPA", serde_json::json!(got), serde_json::json!(wanted));
    }
    if let Some(count) = step["expectedMetricCount"].as_u64() {
        differences.same("metrics", got.spec.metrics.iter().flatten().count() as u64, count);
    }
    let (external, resource) = hpa::metric_names(metrics);
    for (field, got) in [("externalMetricNames", external), ("resourceMetricNames", resource)] {
        let wanted = &step["expectedStatus"][field];
        if !wanted.is_null() {
            differences.same(field, got, read(wanted));
        }
    }
}

/// Whatever somebody edits is noticed.
fn drift(desired: Option<&HorizontalPodAutoscaler>, differences: &mut Differences) {
    let Some(desired) = desired else { return };
    for (what, edit) in EDITS {
        let mut edited = desired.clone();
        edit(&mut edited);
        differences
            .holds(hpa::needs_update(&edited, desired), || format!("a change of {what} goes unnoticed"));
    }
}

type Edit = fn(&mut HorizontalPodAutoscaler);

const EDITS: [(&str, Edit); 6] = [
    ("a label", |hpa| hpa.metadata.labels.iter_mut().flatten().for_each(|(_, value)| value.push('x'))),
    ("labels", |hpa| hpa.metadata.labels = None),
    ("the minimum", |hpa| hpa.spec.min_replicas = Some(77)),
    ("the maximum", |hpa| hpa.spec.max_replicas += 1),
    ("the metrics", |hpa| hpa.spec.metrics = None),
    ("a target", |hpa| {
        for source in hpa.spec.metrics.iter_mut().flatten().filter_map(|metric| metric.external.as_mut()) {
            source.target.average_value = Some(Quantity("123456".to_owned()));
        }
    }),
];

fn generate(object: &ScaledObject, metrics: &[TriggerMetric]) -> Result<HorizontalPodAutoscaler, HpaError> {
    let gvk = ScaleTargetGvk {
        group: "apps".to_owned(),
        version: "v1".to_owned(),
        kind: "Deployment".to_owned(),
        resource: "deployments".to_owned(),
    };
    hpa::generate(object, &gvk, metrics, VERSION)
}

/// What the scaler of a trigger says of its metric.
fn metric(index: u64, trigger: &ScaleTrigger) -> TriggerMetric {
    let parameter = |name: &str| trigger.metadata.get(name).map_or("", String::as_str);
    let value = parameter("value").to_owned();
    let (part, target) = match trigger.type_.as_str() {
        "cron" => {
            let line = |name: &str| parameter(name).replace(' ', "").replace('*', "x").replace('/', "Sl");
            let zone = parameter("timezone").replace('/', "-");
            (format!("cron-{zone}-{}-{}", line("start"), line("end")), "1")
        }
        other => (other.to_owned(), parameter("threshold")),
    };
    let metric = if trigger.is_resource() {
        let kind = trigger.metric_type.as_deref().unwrap_or(parameter("type"));
        let target = match kind {
            "Utilization" => ResourceTarget::Utilization(value.parse().unwrap_or_default()),
            _ => ResourceTarget::AverageValue(value),
        };
        let container = trigger.metadata.get("containerName").cloned();
        MetricKind::Resource { resource: trigger.type_.clone(), container, target }
    } else {
        let kind = match trigger.metric_type.as_deref() {
            Some("Value") => TargetKind::Value,
            _ => TargetKind::AverageValue,
        };
        let milli = tandem_core::quantity::parse_milli(target).unwrap_or_default();
        MetricKind::External { name: format!("s{index}-{part}"), target: Target { kind, milli } }
    };
    TriggerMetric {
        trigger_index: usize::try_from(index).unwrap_or_default(),
        trigger_type: trigger.type_.clone(),
        trigger_name: trigger.name.clone(),
        metric,
    }
}
