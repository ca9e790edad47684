//! Properties of the HPA of a ScaledObject.
#![allow(clippy::unwrap_used, reason = "a test may")]

use k8s_openapi::{
    api::autoscaling::v2::{
        HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior,
        MetricTarget,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::OwnerReference},
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::json;
use tandem_core::{
    api::keda::ScaledObject,
    pods::hpa::{
        MetricKind, ResourceTarget, ScaleTargetGvk, Target, TargetKind, TriggerMetric, external_metrics,
        generate, needs_update,
    },
    quantity::{format_milli, parse_milli},
};

fn gvk() -> ScaleTargetGvk {
    ScaleTargetGvk {
        group: "apps".to_owned(),
        version: "v1".to_owned(),
        kind: "Deployment".to_owned(),
        resource: "deployments".to_owned(),
    }
}

prop_compose! {
    fn rules()(
        window in option::of(0..3600),
        policy in option::of(select(vec!["Max", "Min", "Disabled"])),
        policies in option::of(vec((select(vec!["Pods", "Percent"]), 1..500, 1..1800), 1..3)),
        tolerance in option::of(select(vec!["0.1", "100m", "0", "1"])),
    ) -> HPAScalingRules {
        HPAScalingRules {
            stabilization_window_seconds: window,
            select_policy: policy.map(str::to_owned),
            policies: policies.map(|policies| {
                let policy = |(type_, value, period_seconds): (&str, i32, i32)| {
                    HPAScalingPolicy { type_: type_.to_owned(), value, period_seconds }
                };
                policies.into_iter().map(policy).collect()
            }),
            tolerance: tolerance.map(|text| Quantity(text.to_owned())),
        }
    }
}

prop_compose! {
    fn object()(
        min in option::of(0..50),
        max in option::of(50..500),
        labels in prop::collection::btree_map("[a-z]{1,5}", "[a-z]{0,5}", 0..4),
        paused in select(vec!["paused-scale-in", "paused-scale-out", "other"]),
        behavior in option::of((option::of(rules()), option::of(rules()))),
        uid in option::of("[a-z]{4}"),
    ) -> ScaledObject {
        let mut object: ScaledObject = serde_json::from_value(json!({
            "metadata": {"name": "so", "namespace": "ns", "labels": labels, "annotations": {}, "uid": uid},
            "spec": {"scaleTargetRef": {"name": "web"}, "minReplicaCount": min, "maxReplicaCount": max, "advanced": {
                "horizontalPodAutoscalerConfig": {},
            }},
        })).unwrap();
        object.metadata.annotations =
            Some([(format!("autoscaling.keda.sh/{paused}"), "true".to_owned())].into());
        object.spec.advanced.as_mut().unwrap().horizontal_pod_autoscaler_config.as_mut().unwrap().behavior =
            behavior.map(|(scale_up, scale_down)| HorizontalPodAutoscalerBehavior { scale_up, scale_down });
        object
    }
}

fn metrics() -> impl Strategy<Value = Vec<TriggerMetric>> {
    let external = (any::<bool>(), 0..i64::MAX).prop_map(|(value, milli)| MetricKind::External {
        name: "prometheus".to_owned(),
        target: Target { kind: if value { TargetKind::Value } else { TargetKind::AverageValue }, milli },
    });
    let target = prop_oneof![
        (1..200).prop_map(ResourceTarget::Utilization),
        select(vec!["512Mi", "0.5", "500m", "1024Ki"])
            .prop_map(|q| ResourceTarget::AverageValue(q.to_owned())),
    ];
    let resource = (select(vec!["cpu", "memory"]), option::of("[a-z]{3}"), target).prop_map(
        |(resource, container, target)| MetricKind::Resource {
            resource: resource.to_owned(),
            container,
            target,
        },
    );
    vec(prop_oneof![external, resource], 1..6).prop_map(|kinds| {
        let metric = |(index, mut kind)| {
            if let MetricKind::External { name, .. } = &mut kind {
                *name = format!("s{index}-{name}");
            }
            TriggerMetric {
                trigger_index: index,
                trigger_type: String::new(),
                trigger_name: None,
                metric: kind,
            }
        };
        kinds.into_iter().enumerate().map(metric).collect()
    })
}

/// What the API server makes of an HPA that it stores (`pkg/apis/autoscaling/v2/defaults.go` of Kubernetes).
fn stored(mut hpa: HorizontalPodAutoscaler) -> HorizontalPodAutoscaler {
    hpa.metadata.resource_version = Some("7".to_owned());
    let canonical = |target: &mut MetricTarget| {
        for quantity in target.average_value.iter_mut().chain(&mut target.value) {
            quantity.0 = format_milli(parse_milli(&quantity.0).unwrap());
        }
    };
    for metric in hpa.spec.metrics.iter_mut().flatten() {
        metric.external.iter_mut().for_each(|source| canonical(&mut source.target));
        metric.resource.iter_mut().for_each(|source| canonical(&mut source.target));
        metric.container_resource.iter_mut().for_each(|source| canonical(&mut source.target));
    }
    if let Some(behavior) = &mut hpa.spec.behavior {
        let policy =
            |type_: &str, value| HPAScalingPolicy { type_: type_.to_owned(), value, period_seconds: 15 };
        let up = behavior.scale_up.get_or_insert_default();
        up.stabilization_window_seconds.get_or_insert(0);
        up.select_policy.get_or_insert_with(|| "Max".to_owned());
        up.policies.get_or_insert_with(|| vec![policy("Pods", 4), policy("Percent", 100)]);
        let down = behavior.scale_down.get_or_insert_default();
        down.select_policy.get_or_insert_with(|| "Max".to_owned());
        down.policies.get_or_insert_with(|| vec![policy("Percent", 100)]);
        for tolerance in up.tolerance.iter_mut().chain(&mut down.tolerance) {
            tolerance.0 = format_milli(parse_milli(&tolerance.0).unwrap());
        }
    }
    hpa
}

proptest! {
    #[test]
    fn what_is_stored_needs_no_update(object in object(), metrics in metrics()) {
        let desired = generate(&object, &gvk(), &metrics, "1").unwrap();
        prop_assert_eq!(&desired, &generate(&object, &gvk(), &metrics, "1").unwrap());
        let mut found = stored(desired.clone());
        prop_assert!(!needs_update(&found, &desired));
        found.metadata.labels.get_or_insert_default().insert("foreign".to_owned(), "label".to_owned());
        found.metadata.annotations.get_or_insert_default().insert("foreign".to_owned(), "annotation".to_owned());
        prop_assert!(!needs_update(&found, &desired));
    }

    #[test]
    fn external_metrics_read_back(object in object(), metrics in metrics()) {
        let found = stored(generate(&object, &gvk(), &metrics, "1").unwrap());
        let wanted: Vec<_> = metrics
            .into_iter()
            .filter_map(|metric| match metric.metric {
                MetricKind::External { name, target } => Some((name, target)),
                MetricKind::Resource { .. } => None,
            })
            .collect();
        prop_assert_eq!(external_metrics(&found), wanted);
    }

    #[test]
    fn what_differs_needs_an_update(object in object(), metrics in metrics(), edit in 0..EDITS.len()) {
        let desired = generate(&object, &gvk(), &metrics, "1").unwrap();
        let mut found = stored(desired.clone());
        EDITS[edit](&mut found);
        prop_assert!(needs_update(&found, &desired));
    }

    #[test]
    fn replicas_are_in_order(object in object(), metrics in metrics()) {
        let hpa = generate(&object, &gvk(), &metrics, "1").unwrap();
        prop_assert!(hpa.spec.min_replicas >= Some(1));
        prop_assert!(hpa.spec.min_replicas <= Some(hpa.spec.max_replicas));
    }

    #[test]
    fn every_metric_is_there_in_the_order_of_types(object in object(), metrics in metrics()) {
        let specs = generate(&object, &gvk(), &metrics, "1").unwrap().spec.metrics.unwrap();
        prop_assert_eq!(specs.len(), metrics.len());
        prop_assert!(specs.is_sorted_by_key(|spec| spec.type_.clone()));
        let names: Vec<_> = specs.iter().filter_map(|spec| Some(spec.external.as_ref()?.metric.name.as_str())).collect();
        prop_assert!(names.is_sorted());
    }
}

/// What somebody may do to an HPA, each of which has to be undone.
const EDITS: [fn(&mut HorizontalPodAutoscaler); 9] = [
    |hpa| hpa.metadata.labels = None,
    |hpa| hpa.metadata.annotations.iter_mut().flatten().for_each(|(_, value)| value.push('x')),
    |hpa| hpa.spec.min_replicas = hpa.spec.min_replicas.map(|min| min + 1),
    |hpa| hpa.spec.max_replicas += 1,
    |hpa| drop(hpa.spec.metrics.as_mut().and_then(Vec::pop)),
    |hpa| {
        let metrics = hpa.spec.metrics.get_or_insert_default();
        metrics.extend(metrics.first().cloned());
    },
    |hpa| hpa.spec.scale_target_ref.name.push('x'),
    |hpa| hpa.spec.scale_target_ref.kind.push_str("Set"),
    |hpa| {
        let behavior = hpa.spec.behavior.get_or_insert_default();
        behavior.scale_up.get_or_insert_default().stabilization_window_seconds = Some(3601);
    },
];

#[test]
fn an_owner_made_anew_is_another_owner() {
    let object: ScaledObject = serde_json::from_value(json!({
        "metadata": {"name": "so", "namespace": "ns", "uid": "new"},
        "spec": {"scaleTargetRef": {"name": "web"}},
    }))
    .unwrap();
    let metric = MetricKind::External { name: "s0-x".to_owned(), target: Target::default() };
    let metrics =
        [TriggerMetric { trigger_index: 0, trigger_type: "x".to_owned(), trigger_name: None, metric }];
    let desired = generate(&object, &gvk(), &metrics, "1").unwrap();
    let owners = desired.metadata.owner_references.clone().unwrap();
    assert_eq!((owners[0].controller, owners[0].uid.as_str()), (Some(true), "new"));
    let mut found = desired.clone();
    found.metadata.owner_references =
        Some(vec![OwnerReference { uid: "old".to_owned(), ..owners[0].clone() }]);
    assert!(needs_update(&found, &desired));
}
