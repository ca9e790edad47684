mod nodes;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use proptest::prelude::*;
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

#[test]
fn an_hpa_on_cpu_shares_the_usage_among_its_pods() {
    let hpa = manifest(json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 2, "maxReplicas": 20,
            "metrics": [{"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
        },
    }));
    // Two cores at half of half a core each.
    let load = history(&[(0, Some(0.5)), (600, Some(2.0))], 3600);
    let mut input = input(vec![deployment("web", 2), hpa], &load);
    input.histories.insert(("shop/web".to_owned(), "cpu".to_owned()), load);
    let outcome = run(&input, &Options::default()).unwrap();
    assert_eq!((wanted(&outcome, 585), wanted(&outcome, 3585)), (2, 8));
    assert!((outcome.objects[0].metrics[0].target - 0.25).abs() < 1e-9);
}

#[test]
fn a_calendar_runs_on_the_virtual_clock() {
    let cron = json!({"triggers": [{"type": "cron", "metadata": {
        "timezone": "Etc/UTC", "start": "0 1 * * *", "end": "0 2 * * *", "desiredReplicas": "4"}}]});
    let mut input =
        input(vec![deployment("web", 0), scaled_object("web", &cron)], &history(&[(0, Some(0.0))], 60));
    input.histories.clear();
    let problems = run(&input, &Options::default()).unwrap_err();
    assert_eq!(problems[0].to_string(), "no history tells from when to when: give --start and --end");
    let at = |second| Timestamp::from_second(START + second).unwrap();
    let options = Options { start: Some(at(0)), end: Some(at(4 * 3600)), ..Options::default() };
    let outcome = run(&input, &options).unwrap();
    assert_eq!((wanted(&outcome, 3585), wanted(&outcome, 3720), wanted(&outcome, 3 * 3600)), (0, 4, 0));
}

#[test]
fn what_is_missing_or_wrong_has_its_place() {
    let mut input =
        input(vec![deployment("web", 1), scaled_object("web", &json!({}))], &history(&[(0, Some(1.0))], 60));
    input.histories.clear();
    let problems = run(&input, &Options::default()).unwrap_err();
    assert_eq!(problems.len(), 1);
    let text = problems[0].to_string();
    assert!(
        text.starts_with("test.yaml:1: ScaledObject shop/web: spec.triggers[0]: has no history"),
        "{text}"
    );
    input.set("ScaledObject", "web", "spec.triggers[0].metadata.threshold", &json!("none")).unwrap();
    let text = run(&input, &Options::default()).unwrap_err()[0].to_string();
    assert!(text.contains("threshold"), "{text}");
    let absent = input.set("", "other", "spec.x", &json!(1)).unwrap_err().to_string();
    assert_eq!(absent, "the manifests hold no object other");
}

fn node_group(name: &str, (min, max): (u32, u32), cpu: &str, price: f64) -> Manifest {
    manifest(json!({
        "apiVersion": "simulate.tandem.dev/v1", "kind": "NodeGroup", "metadata": {"name": name},
        "spec": {
            "min": min, "max": max, "pricePerHour": price,
            "template": {"allocatable": {"cpu": cpu, "memory": "8Gi"}},
        },
    }))
}

#[test]
fn what_only_a_server_knows_is_told_by_the_options() {
    let external = json!({"triggers": [{"type": "external-push", "name": "jobs", "metadata": {
        "scalerAddress": "scaler.shop:6000"}}]});
    let load = history(&[(0, Some(0.0)), (600, Some(45.0))], 1800);
    let mut input = input(vec![deployment("web", 0), scaled_object("web", &external)], &load);
    input.histories = [(("shop/web".to_owned(), "jobs".to_owned()), load)].into();
    let problem = run(&input, &Options::default()).unwrap_err()[0].to_string();
    assert!(
        problem.contains("spec.triggers[0]: only its server knows")
            && problem.contains("--target shop/web:0=VALUE"),
        "{problem}"
    );
    for name in ["0", "jobs"] {
        let targets = [(format!("shop/web:{name}"), 10.0)].into();
        let outcome = run(&input, &Options { targets, ..Options::default() }).unwrap();
        assert_eq!((wanted(&outcome, 585), wanted(&outcome, 1200)), (0, 5), "{name}");
        assert_eq!(outcome.objects[0].metrics[0].name, "s0-external-push");
    }
}

#[test]
fn an_object_that_is_there_twice_is_refused() {
    let load = history(&[(0, Some(1.0))], 60);
    let manifests = vec![deployment("web", 1), scaled_object("web", &json!({})), deployment("web", 2)];
    let problem = run(&input(manifests, &load), &Options::default()).unwrap_err()[0].to_string();
    assert_eq!(problem, "test.yaml:1: Deployment shop/web: is in test.yaml:1 already: keep one");
}

/// Loads with gaps.
fn loads() -> impl Strategy<Value = Vec<(u32, Option<f64>)>> {
    let change = (15..7200_u32, prop::option::weighted(0.9, 0.0..400.0_f64));
    prop::collection::vec(change, 1..12).prop_map(|mut changes| {
        changes.push((0, Some(10.0)));
        changes.sort_by_key(|(at, _)| *at);
        changes.dedup_by_key(|(at, _)| *at);
        changes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The same input gives the same bytes, counts keep their bounds, and every pod is somewhere.
    #[test]
    fn worlds_are_repeatable_and_keep_their_bounds(
        changes in loads(), min in 0..3_u32, max in 3..20_u32, nodes: bool,
    ) {
        let load = history(&changes, 7200);
        let mut manifests = vec![
            deployment("web", min),
            scaled_object("web", &json!({"minReplicaCount": min, "maxReplicaCount": max})),
        ];
        if nodes {
            manifests.push(node_group("general", (0, 3), "2", 0.1));
        }
        let (one, other) = (play(manifests.clone(), &load), play(manifests, &load));
        prop_assert_eq!(serde_json::to_string(&one).unwrap(), serde_json::to_string(&other).unwrap());
        let object = &one.objects[0];
        for point in 0..one.axis.points {
            prop_assert!((min..=max).contains(&object.wanted[point]), "{:?}", object.wanted);
            prop_assert_eq!(object.running[point] + object.pending[point], object.wanted[point]);
            prop_assert!(object.ready[point] <= object.running[point]);
        }
        for kind in &one.nodes.types {
            prop_assert!(kind.ready.iter().zip(&kind.starting).all(|(ready, starting)| ready + starting <= 3));
        }
    }

    /// While the source fails nothing is scaled down.
    #[test]
    fn nothing_scales_down_in_a_gap(changes in loads(), from in 600..5000_u32) {
        let mut changes: Vec<_> = changes.into_iter().filter(|(at, _)| *at < from).collect();
        changes.push((from, None));
        let input = input(vec![deployment("web", 1), scaled_object("web", &json!({}))], &history(&changes, 7200));
        let end = Some(Timestamp::from_second(START + 7200).unwrap());
        let outcome = run(&input, &Options { end, step: Some(15), ..Options::default() }).unwrap();
        let wanted = &outcome.objects[0].wanted[(from / 15) as usize + 1..];
        prop_assert!(wanted.windows(2).all(|pair| pair[0] <= pair[1]), "{:?}", wanted);
    }
}
