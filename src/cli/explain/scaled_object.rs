//! `tandem explain scaledobject`.

use std::collections::BTreeMap;

use anyhow::Context as _;
use k8s_openapi::api::{autoscaling::v2::HorizontalPodAutoscaler, events::v1::Event};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams},
    core::GroupVersionKind,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tandem_core::{
    api::keda::ScaledObject,
    hpa::Settings,
    nodes::demand::reasons::{EXPECTED_PODS_MISSING, PODS_EXPECTED},
    pods::{
        annotations::SCALED_OBJECT_LABEL,
        explain::{Explanation, MetricLine, Seen, explain as explained},
        hpa::hpa_name,
    },
    quantity::parse_milli,
};

use super::{Answer, Common, page::Page};
use crate::cluster::message;

/// Reads the object, its HPA and its metrics, and explains its count.
pub(super) async fn explain(common: &Common, client: Client) -> anyhow::Result<Answer> {
    let (namespace, name) = (common.namespace(&client), common.name.as_str());
    let objects: Api<ScaledObject> = Api::namespaced(client.clone(), namespace);
    let object = objects.get(name).await.with_context(|| format!("ScaledObject {namespace}/{name}"))?;
    let hpas: Api<HorizontalPodAutoscaler> = Api::namespaced(client.clone(), namespace);
    let known = object.status.as_ref().and_then(|status| status.hpa_name.clone());
    let hpa = hpas.get_opt(&known.unwrap_or_else(|| hpa_name(&object))).await?;
    let values = match &hpa {
        Some(hpa) => values(&client, namespace, name, hpa).await,
        None => BTreeMap::new(),
    };
    let version = client.apiserver_version().await?;
    let rules = Settings::of(version.minor.trim_end_matches('+').parse().unwrap_or(u32::MAX));
    let replicas = replicas(&client, namespace, &object).await;
    let seen = Seen { object: &object, hpa: hpa.as_ref(), values: &values, replicas, rules: &rules };
    let explanation = explained(&seen);
    let expected = expected(&client, namespace, name).await;
    Ok(Answer {
        page: page(&object, &explanation, expected.as_deref()),
        json: to_json(&object, &explanation, expected.as_deref()),
    })
}

/// An answer of external.metrics.k8s.io.
#[derive(Debug, Deserialize)]
struct ValueList {
    items: Vec<OneValue>,
}

#[derive(Debug, Deserialize)]
struct OneValue {
    value: String,
}

/// What the HPA would read of each external metric.
async fn values(
    client: &Client,
    namespace: &str,
    name: &str,
    hpa: &HorizontalPodAutoscaler,
) -> BTreeMap<String, Result<i64, String>> {
    let metrics = hpa.spec.metrics.iter().flatten().filter_map(|metric| metric.external.as_ref());
    let mut values = BTreeMap::new();
    for external in metrics {
        let metric = external.metric.name.clone();
        let value = value(client, namespace, name, &metric).await;
        values.insert(metric, value);
    }
    values
}

async fn value(client: &Client, namespace: &str, object: &str, metric: &str) -> Result<i64, String> {
    let path = format!(
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}?labelSelector={SCALED_OBJECT_LABEL}%3D{object}"
    );
    let request = http::Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
    let list: ValueList = client.request(request).await.map_err(|error| message(&error))?;
    let one = list.items.first().ok_or("no metrics returned from external metrics API")?;
    parse_milli(&one.value).map_err(|error| error.to_string())
}

/// Replicas that the target asks for.
async fn replicas(client: &Client, namespace: &str, object: &ScaledObject) -> Option<i32> {
    let target = object.status.as_ref()?.scale_target_gvkr.as_ref()?;
    let gvk = GroupVersionKind::gvk(&target.group, &target.version, &target.kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, &target.resource);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    api.get_scale(&object.spec.scale_target_ref.name).await.ok()?.spec?.replicas
}

/// What was last said of pods that nodes are asked for before they exist.
async fn expected(client: &Client, namespace: &str, name: &str) -> Option<String> {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let about = format!("regarding.kind=ScaledObject,regarding.name={name}");
    let events = events.list(&ListParams::default().fields(&about)).await.ok()?;
    let of_demand =
        |event: &&Event| matches!(event.reason.as_deref(), Some(PODS_EXPECTED | EXPECTED_PODS_MISSING));
    let last =
        events.items.iter().filter(of_demand).max_by_key(|event| event.event_time.as_ref().map(|at| at.0))?;
    let at = last.event_time.as_ref().map(|at| format!("{:.0}: ", at.0)).unwrap_or_default();
    Some(format!("{at}{}", last.note.as_deref().unwrap_or_default()))
}

fn page(object: &ScaledObject, explanation: &Explanation, expected: Option<&str>) -> Page {
    let mut page = Page::default();
    let metadata = &object.metadata;
    let (namespace, name) =
        (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default());
    let spec = &object.spec;
    let target = &spec.scale_target_ref;
    page.say(&format!(
        "ScaledObject {namespace}/{name} scales {} {}, from {} to {} replicas.",
        target.kind.as_deref().filter(|kind| !kind.is_empty()).unwrap_or("Deployment"),
        target.name,
        spec.min_replicas(),
        spec.max_replicas()
    ));
    if explanation.metrics.is_empty() {
        page.say("It has no HPA now.");
    } else {
        page.heading("Metrics");
        let head = ["TRIGGER", "METRIC", "VALUE", "TARGET", "WANTS"].map(str::to_owned);
        let rows = std::iter::once(head).chain(explanation.metrics.iter().map(row));
        page.table(&rows.collect::<Vec<_>>());
        for line in &explanation.metrics {
            if let Err(error) = &line.value {
                page.item(&format!("{}: {error}", line.metric));
            }
        }
    }
    page.heading("From what it wants to what it gets");
    page.entry(
        "wanted",
        &match &explanation.wanted {
            Some((wanted, metric)) => format!("{wanted} replicas, by {metric}"),
            None => "not known".to_owned(),
        },
    );
    for limit in &explanation.limits {
        page.entry("limited by", &format!("{}: {}", limit.by, limit.text));
    }
    if explanation.limits.is_empty() {
        page.entry("limited by", "nothing");
    }
    let count = |count: Option<i32>| count.map_or_else(|| "unknown".to_owned(), |count| count.to_string());
    let (now, desired) = (count(explanation.replicas), count(explanation.desired));
    page.entry("result", &format!("the HPA asks for {desired}, the target for {now}"));
    if let Some(expected) = expected {
        page.entry("nodes", expected);
    }
    page
}

fn row(line: &MetricLine) -> [String; 5] {
    let trigger = line.trigger.as_ref().map(|(place, kind)| format!("{place} {kind}"));
    let value = line.value.clone().unwrap_or_else(|_| "error".to_owned());
    let wanted = line.wanted.map_or_else(|| "unknown".to_owned(), |wanted| wanted.to_string());
    [trigger.unwrap_or_else(|| "all".to_owned()), line.metric.clone(), value, line.target.clone(), wanted]
}

fn to_json(object: &ScaledObject, explanation: &Explanation, expected: Option<&str>) -> Value {
    let metric = |line: &MetricLine| {
        json!({
            "trigger": line.trigger.as_ref().map(|(place, _)| place),
            "type": line.trigger.as_ref().map(|(_, kind)| kind),
            "metric": line.metric,
            "value": line.value.as_ref().ok(),
            "error": line.value.as_ref().err(),
            "target": line.target,
            "wanted": line.wanted,
        })
    };
    let limits = explanation.limits.iter().map(|limit| json!({"by": limit.by, "message": limit.text}));
    json!({
        "namespace": object.metadata.namespace,
        "name": object.metadata.name,
        "metrics": explanation.metrics.iter().map(metric).collect::<Vec<_>>(),
        "wanted": explanation.wanted.as_ref().map(|(wanted, _)| wanted),
        "wantedBy": explanation.wanted.as_ref().map(|(_, metric)| metric),
        "limits": limits.collect::<Vec<_>>(),
        "replicas": explanation.replicas,
        "desired": explanation.desired,
        "expectedPods": expected,
    })
}

#[cfg(test)]
mod tests {
    use tandem_core::pods::explain::Limit;

    use super::*;

    fn object() -> ScaledObject {
        serde_json::from_value(json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
            "metadata": {"name": "shop", "namespace": "default"},
            "spec": {"scaleTargetRef": {"name": "shop"}, "maxReplicaCount": 20, "triggers": []}
        }))
        .unwrap()
    }

    fn explanation() -> Explanation {
        let line = |metric: &str, value: Result<&str, &str>, wanted| MetricLine {
            trigger: Some((0, "prometheus".to_owned())),
            metric: metric.to_owned(),
            value: value.map(str::to_owned).map_err(str::to_owned),
            target: "10 a pod".to_owned(),
            wanted,
        };
        Explanation {
            metrics: vec![
                line("s0-prometheus", Ok("120"), Some(12)),
                line("s1-prometheus", Err("no answer within 3000 ms"), None),
            ],
            wanted: Some((12, "s0-prometheus".to_owned())),
            limits: vec![Limit { by: "behavior", text: "it rises too fast".to_owned() }],
            replicas: Some(4),
            desired: Some(8),
        }
    }

    #[test]
    fn a_count_is_told_from_metric_to_result() {
        let text = page(&object(), &explanation(), None).text();
        assert_eq!(
            text,
            "ScaledObject default/shop scales Deployment shop, from 0 to 20 replicas.\n\
             \n\
             Metrics\n  \
               TRIGGER       METRIC         VALUE  TARGET    WANTS\n  \
               0 prometheus  s0-prometheus  120    10 a pod  12\n  \
               0 prometheus  s1-prometheus  error  10 a pod  unknown\n  \
               s1-prometheus: no answer within 3000 ms\n\
             \n\
             From what it wants to what it gets\n  \
               wanted         12 replicas, by s0-prometheus\n  \
               limited by     behavior: it rises too fast\n  \
               result         the HPA asks for 8, the target for 4\n"
        );
        assert!(text.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn programs_get_the_same() {
        let json = to_json(&object(), &explanation(), Some("soon"));
        assert_eq!((&json["wanted"], &json["limits"][0]["by"]), (&json!(12), &json!("behavior")));
        assert_eq!(json["metrics"][1]["error"], "no answer within 3000 ms");
    }
}
