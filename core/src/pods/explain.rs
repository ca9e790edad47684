//! A ScaledObject's count, read out: metric, target, what it wants, what limits that, result.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, MetricStatus, MetricValueStatus};
use kube::ResourceExt as _;

use super::{
    annotations::Pause,
    reasons::{ACTIVE, FALLBACK, READY},
};
use crate::{
    api::keda::ScaledObject,
    hpa::{
        Autoscaler, Reading, Scale, Selector, Settings,
        pods::Tally,
        propose,
        spec::{Metric, Source, Target},
    },
    quantity::{format_milli, parse_milli},
};

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The object.
    pub object: &'a ScaledObject,
    /// Its HPA, with its status.
    pub hpa: Option<&'a HorizontalPodAutoscaler>,
    /// What external.metrics.k8s.io says of each metric, milli-units.
    pub values: &'a BTreeMap<String, Result<i64, String>>,
    /// Replicas that the target asks for.
    pub replicas: Option<i32>,
    /// The HPA controller's rules.
    pub rules: &'a Settings,
}

/// How an object's count comes about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What each metric of the HPA asks for.
    pub metrics: Vec<MetricLine>,
    /// What they ask for together, and the metric that asks for the most.
    pub wanted: Option<(i32, String)>,
    /// What keeps the count from that, in the order in which it acts.
    pub limits: Vec<Limit>,
    /// Replicas that the target asks for.
    pub replicas: Option<i32>,
    /// Replicas that the HPA last came to.
    pub desired: Option<i32>,
}

/// One metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricLine {
    /// The trigger's place and type, where the metric is a trigger's.
    pub trigger: Option<(usize, String)>,
    /// Its name.
    pub metric: String,
    /// What it is at, or why that is not known.
    pub value: Result<String, String>,
    /// Its target.
    pub target: String,
    /// Replicas that it asks for, before any limit.
    pub wanted: Option<i32>,
}

/// What keeps a count from what metrics ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Such as `pause`, `stabilization`, `behavior`, `maximum`.
    pub by: &'static str,
    /// What it does.
    pub text: String,
}

/// Explains an object.
pub fn explain(seen: &Seen<'_>) -> Explanation {
    let metrics = seen.hpa.and_then(|hpa| Autoscaler::compile(hpa).ok().map(|compiled| (hpa, compiled)));
    let metrics: Vec<_> = metrics.map(|(hpa, compiled)| lines(seen, hpa, &compiled)).unwrap_or_default();
    let most = metrics.iter().filter_map(|line| Some((line.wanted?, line.metric.clone())));
    let wanted = most.reduce(|best, next| if next.0 > best.0 { next } else { best });
    let status = seen.hpa.and_then(|hpa| hpa.status.as_ref());
    Explanation {
        limits: limits(seen, wanted.as_ref().map(|(wanted, _)| *wanted)),
        metrics,
        wanted,
        replicas: seen.replicas,
        desired: status.map(|status| status.desired_replicas),
    }
}

fn lines(seen: &Seen<'_>, hpa: &HorizontalPodAutoscaler, compiled: &Autoscaler) -> Vec<MetricLine> {
    let statuses =
        hpa.status.as_ref().and_then(|status| status.current_metrics.as_deref()).unwrap_or_default();
    compiled.metrics.iter().map(|metric| line(seen, compiled, metric, statuses)).collect()
}

fn line(seen: &Seen<'_>, hpa: &Autoscaler, metric: &Metric, statuses: &[MetricStatus]) -> MetricLine {
    let replicas = seen.replicas.unwrap_or_default();
    let pods = u32::try_from(replicas).unwrap_or_default();
    let scale = Scale { spec_replicas: replicas, status_replicas: replicas, selector: Selector::Valid };
    let wants = |reading: &Reading<'_>| {
        let proposal = propose(hpa, seen.rules, metric, reading, &scale, Some(pods));
        seen.replicas.and(proposal.ok()).map(|proposal| proposal.replicas)
    };
    let (name, value, wanted) = match &metric.source {
        Source::External { name, .. } => {
            let value = seen.values.get(name).cloned();
            let value = value.unwrap_or_else(|| Err("external.metrics.k8s.io was not asked".to_owned()));
            let wanted = value.as_ref().ok().and_then(|value| wants(&Reading::Values(&[*value])));
            (name.clone(), value.map(format_milli), wanted)
        }
        Source::Resource { resource } | Source::ContainerResource { resource, .. } => {
            let current = resource_status(statuses, &metric.source);
            let tally = current.and_then(|current| tally(current, pods));
            let text = current.map(resource_text).filter(|text| !text.is_empty());
            let wanted = tally.and_then(|tally| wants(&Reading::Pods(Ok(tally))));
            (resource.clone(), text.ok_or_else(|| "the HPA has no value yet".to_owned()), wanted)
        }
        Source::Pods { name } | Source::Object { name, .. } | Source::Unknown(name) => {
            (name.clone(), Err("not a metric of a trigger".to_owned()), None)
        }
    };
    MetricLine {
        trigger: trigger(seen.object, &metric.source),
        metric: name,
        value,
        target: target(metric),
        wanted,
    }
}

/// The trigger that a metric is of: external metrics begin with its place, resources are named by its type.
fn trigger(object: &ScaledObject, source: &Source) -> Option<(usize, String)> {
    let triggers = &object.spec.triggers;
    let place = match source {
        Source::External { name, .. } => name.strip_prefix('s')?.split_once('-')?.0.parse().ok()?,
        Source::Resource { resource } | Source::ContainerResource { resource, .. } => {
            triggers.iter().position(|trigger| trigger.type_ == *resource)?
        }
        _ => return None,
    };
    Some((place, triggers.get(place)?.type_.clone()))
}

fn target(metric: &Metric) -> String {
    match metric.target {
        Target::AverageValue(milli) => format!("{} a pod", format_milli(milli)),
        Target::Value(milli) => format!("{} in total", format_milli(milli)),
        Target::Utilization(percent) => format!("{percent}%"),
        Target::Missing => "none".to_owned(),
    }
}

/// What the status of an HPA says of a resource; `None` of other metrics, and before the HPA has a value.
pub fn resource_status<'a>(statuses: &'a [MetricStatus], source: &Source) -> Option<&'a MetricValueStatus> {
    statuses.iter().find_map(|status| match source {
        Source::Resource { resource } => {
            status.resource.as_ref().filter(|status| status.name == *resource).map(|status| &status.current)
        }
        Source::ContainerResource { resource, container } => status
            .container_resource
            .as_ref()
            .filter(|status| status.name == *resource && status.container == *container)
            .map(|status| &status.current),
        _ => None,
    })
}

fn resource_text(current: &MetricValueStatus) -> String {
    let percent = current.average_utilization.map(|percent| format!("{percent}%"));
    percent.or_else(|| current.average_value.as_ref().map(|value| value.0.clone())).unwrap_or_default()
}

/// Pods that use what the HPA saw on average.
pub fn tally(current: &MetricValueStatus, pods: u32) -> Option<Tally> {
    match (current.average_utilization, &current.average_value) {
        (Some(percent), _) => Some(Tally::alike(pods, i64::from(percent), 100)),
        (None, Some(average)) => Some(Tally::alike(pods, parse_milli(&average.0).ok()?, 0)),
        (None, None) => None,
    }
}

fn limits(seen: &Seen<'_>, wanted: Option<i32>) -> Vec<Limit> {
    let mut limits = Vec::new();
    let mut add = |by, text: String| limits.push(Limit { by, text });
    let pause = Pause::of(seen.object.annotations());
    if pause.full {
        let place = pause.replicas.map(|replicas| format!("at {replicas} replicas"));
        let place = place.unwrap_or_else(|| "where it is".to_owned());
        add("pause", format!("an annotation holds the target {place}"));
    }
    let ways = [(pause.scale_in, "no replicas are removed"), (pause.scale_out, "no replicas are added")];
    for (_, text) in ways.into_iter().filter(|(holds, _)| *holds && !pause.full) {
        add("pause", format!("by an annotation {text}"));
    }
    let conditions =
        seen.object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    for condition in conditions {
        let text = || condition.message.clone();
        match (condition.type_.as_str(), condition.status.as_str()) {
            (FALLBACK, "True") => add("fallback", text()),
            (ACTIVE, "False") => add("activity", text()),
            (READY, "False" | "Unknown") => add("error", text()),
            _ => {}
        }
    }
    let hpa = seen.hpa.and_then(|hpa| hpa.status.as_ref()?.conditions.as_deref()).unwrap_or_default();
    for condition in hpa {
        let reason = condition.reason.as_deref().unwrap_or_default();
        let by = match (condition.type_.as_str(), condition.status.as_str(), reason) {
            ("ScalingActive" | "AbleToScale", "False", _) => "error",
            ("AbleToScale", _, "ScaleUpStabilized" | "ScaleDownStabilized") => "stabilization",
            ("ScalingLimited", "True", "ScaleUpLimit" | "ScaleDownLimit") => "behavior",
            ("ScalingLimited", "True", "TooManyReplicas") => "maximum",
            ("ScalingLimited", "True", "TooFewReplicas") => "minimum",
            _ => continue,
        };
        add(by, condition.message.clone().unwrap_or_else(|| reason.to_owned()));
    }
    // The HPA may not have looked yet.
    let max = seen.object.spec.max_replicas();
    if wanted.is_some_and(|wanted| wanted > max) && !limits.iter().any(|limit| limit.by == "maximum") {
        limits.push(Limit { by: "maximum", text: format!("maxReplicaCount is {max}") });
    }
    limits
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(annotations: &Value) -> ScaledObject {
        serde_json::from_value(json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
            "metadata": {"name": "web", "namespace": "ns", "annotations": annotations},
            "spec": {
                "scaleTargetRef": {"name": "web"}, "maxReplicaCount": 20,
                "triggers": [
                    {"type": "prometheus", "metadata": {"threshold": "10"}},
                    {"type": "cpu", "metadata": {"value": "80"}}
                ]
            }
        }))
        .unwrap()
    }

    fn hpa(conditions: &Value) -> HorizontalPodAutoscaler {
        serde_json::from_value(json!({
            "metadata": {"name": "keda-hpa-web", "namespace": "ns"},
            "spec": {
                "scaleTargetRef": {"kind": "Deployment", "name": "web"},
                "minReplicas": 1, "maxReplicas": 20,
                "metrics": [
                    {"type": "External", "external": {"metric": {"name": "s0-prometheus"},
                        "target": {"type": "AverageValue", "averageValue": "10"}}},
                    {"type": "Resource", "resource": {"name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": 80}}}
                ]
            },
            "status": {
                "desiredReplicas": 8, "currentReplicas": 4,
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "current": {"averageUtilization": 40, "averageValue": "200m"}}}],
                "conditions": conditions
            }
        }))
        .unwrap()
    }

    fn explained(annotations: &Value, conditions: &Value, value: Result<i64, String>) -> Explanation {
        let (object, hpa) = (object(annotations), hpa(conditions));
        let values = BTreeMap::from([("s0-prometheus".to_owned(), value)]);
        let rules = Settings::of(37);
        let seen =
            Seen { object: &object, hpa: Some(&hpa), values: &values, replicas: Some(4), rules: &rules };
        explain(&seen)
    }

    #[test]
    fn each_metric_says_what_it_wants() {
        let explanation = explained(&json!({}), &json!([]), Ok(120_000));
        let [external, cpu] = explanation.metrics.as_slice() else { panic!("{explanation:?}") };
        assert_eq!(external.trigger, Some((0, "prometheus".to_owned())));
        assert_eq!(
            (external.value.as_deref(), &*external.target, external.wanted),
            (Ok("120"), "10 a pod", Some(12))
        );
        assert_eq!(cpu.trigger, Some((1, "cpu".to_owned())));
        assert_eq!((cpu.value.as_deref(), &*cpu.target, cpu.wanted), (Ok("40%"), "80%", Some(2)));
        assert_eq!(explanation.wanted, Some((12, "s0-prometheus".to_owned())));
        assert_eq!(
            (explanation.replicas, explanation.desired, explanation.limits),
            (Some(4), Some(8), vec![])
        );
    }

    #[test]
    fn what_limits_the_count_is_named() {
        let condition = |type_: &str, status: &str, reason: &str| json!([{"type": type_, "status": status, "reason": reason, "message": "why"}]);
        let none = json!({});
        let paused = json!({"autoscaling.keda.sh/paused-replicas": "3"});
        let cases = [
            (&none, condition("ScalingLimited", "True", "ScaleUpLimit"), 120_000, vec!["behavior"]),
            (&none, condition("ScalingLimited", "True", "TooManyReplicas"), 900_000, vec!["maximum"]),
            (&none, condition("ScalingLimited", "False", "DesiredWithinRange"), 900_000, vec!["maximum"]),
            (&none, condition("AbleToScale", "True", "ScaleDownStabilized"), 10_000, vec!["stabilization"]),
            (&none, condition("AbleToScale", "True", "ReadyForNewScale"), 10_000, vec![]),
            (&none, condition("ScalingActive", "False", "FailedGetExternalMetric"), 1, vec!["error"]),
            (&paused, json!([]), 120_000, vec!["pause"]),
        ];
        for (annotations, conditions, value, expected) in cases {
            let limits = explained(annotations, &conditions, Ok(value)).limits;
            let by: Vec<_> = limits.iter().map(|limit| limit.by).collect();
            assert_eq!(by, expected, "{conditions}");
        }
    }

    #[test]
    fn a_metric_that_cannot_be_read_wants_nothing() {
        let explanation = explained(&json!({}), &json!([]), Err("no answer".to_owned()));
        assert_eq!(explanation.metrics[0].value, Err("no answer".to_owned()));
        assert_eq!((explanation.metrics[0].wanted, explanation.wanted), (None, Some((2, "cpu".to_owned()))));
    }
}
