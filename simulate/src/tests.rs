use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    Input, Manifest, Options, Outcome,
    history::{History, Sample},
    run,
};

/// The midnight of a Monday.
const START: i64 = 1_767_571_200;

fn manifest(value: Value) -> Manifest {
    Manifest { file: "test.yaml".into(), line: 1, value: Arc::new(value) }
}

fn deployment(name: &str, replicas: u32) -> Manifest {
    manifest(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{
                    "name": "app", "resources": {"requests": {"cpu": "500m", "memory": "256Mi"}},
                }]},
            },
        },
    }))
}

fn scaled_object(name: &str, more: &Value) -> Manifest {
    let mut value = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "scaleTargetRef": {"name": name},
            "triggers": [{
                "type": "prometheus",
                "metadata": {"serverAddress": "http://prometheus:9090", "query": "sum(rate(x[2m]))", "threshold": "10"},
            }],
        },
    });
    let spec = value["spec"].as_object_mut().unwrap();
    spec.extend(more.as_object().cloned().unwrap_or_default());
    manifest(value)
}

/// Samples every 15 s, from changes at seconds.
fn history(changes: &[(u32, Option<f64>)], length: u32) -> Arc<History> {
    let samples = (0..length).step_by(15).map(|at| {
        let value = changes.iter().rev().find(|(from, _)| *from <= at).and_then(|(_, value)| *value);
        Sample { at: START + i64::from(at), value }
    });
    Arc::new(History::new("history", &samples.collect::<Vec<_>>()).unwrap())
}

fn input(manifests: Vec<Manifest>, history: &Arc<History>) -> Input {
    let of = |manifest: &Manifest| ((manifest.key(), "s0-prometheus".to_owned()), history.clone());
    let objects = manifests.iter().filter(|manifest| manifest.kind() == "ScaledObject");
    let histories: BTreeMap<_, _> = objects.map(of).collect();
    Input { name: "test".to_owned(), manifests, histories, notes: Vec::new() }
}

fn play(manifests: Vec<Manifest>, history: &Arc<History>) -> Outcome {
    run(&input(manifests, history), &Options::default()).unwrap()
}

/// What an object wants at a second.
fn wanted(outcome: &Outcome, second: u32) -> u32 {
    outcome.objects[0].wanted[(second / outcome.axis.step_seconds) as usize]
}

#[test]
fn a_step_goes_from_zero_to_what_it_needs_and_back() {
    let load = history(&[(0, Some(0.0)), (600, Some(95.0)), (1800, Some(0.0))], 3600);
    let outcome = play(vec![deployment("web", 0), scaled_object("web", &json!({}))], &load);
    assert_eq!(outcome.axis.start, Timestamp::from_second(START).unwrap());
    assert_eq!((outcome.axis.step_seconds, outcome.axis.points), (15, 241));
    let object = &outcome.objects[0];
    assert_eq!((object.wanted.len(), object.metrics[0].values.len()), (241, 241));
    assert_eq!(wanted(&outcome, 585), 0);
    // Within a polling interval it is awake, and the HPA doubles at least: 1, 5, 10.
    assert!(wanted(&outcome, 645) >= 1);
    assert_eq!(wanted(&outcome, 900), 10);
    // 5 minutes of stabilization, then the cooldown is over, too.
    assert_eq!(wanted(&outcome, 2055), 10);
    assert_eq!(wanted(&outcome, 2400), 0);
    let reasons: Vec<_> = outcome.events.iter().map(|event| &*event.reason).collect();
    assert_eq!(reasons.first(), Some(&"KEDAScaleTargetActivated"));
    assert!(reasons.contains(&"SuccessfulRescale"), "{reasons:?}");
    assert!(
        object.summary.unserved_share > 0.0 && object.summary.unserved_share < 0.2,
        "{:?}",
        object.summary
    );
    assert_eq!(object.summary.replicas_max, 10);
}

#[test]
fn a_gap_never_scales_down() {
    let load = history(&[(0, Some(100.0)), (600, None), (3000, Some(100.0))], 3600);
    let outcome = play(vec![deployment("web", 10), scaled_object("web", &json!({}))], &load);
    assert!(outcome.objects[0].wanted.iter().all(|wanted| *wanted == 10), "{:?}", outcome.objects[0].wanted);
    assert!(outcome.events.iter().any(|event| event.reason == "FailedGetExternalMetric"));
    assert!(outcome.notes.iter().any(|note| note.contains("no samples from")), "{:?}", outcome.notes);
}

#[test]
fn a_fallback_stands_in() {
    let load = history(&[(0, Some(20.0)), (600, None), (3000, Some(20.0))], 3600);
    let fallback = json!({"fallback": {"failureThreshold": 3, "replicas": 7}});
    let outcome = play(vec![deployment("web", 2), scaled_object("web", &fallback)], &load);
    assert_eq!((wanted(&outcome, 585), wanted(&outcome, 1200), wanted(&outcome, 3585)), (2, 7, 2));
}
