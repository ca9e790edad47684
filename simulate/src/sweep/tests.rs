use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::Manifest;
use crate::history::{History, Sample};

fn manifest(value: Value) -> Manifest {
    Manifest { file: "web.yaml".into(), line: 1, value: Arc::new(value) }
}

/// A Deployment that is scaled by requests per second, 100 of them a replica, under a day's load.
fn web() -> Input {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": "shop" },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "app": "web" } },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "web" }] } },
        },
    });
    let scaled_object = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": { "name": "web", "namespace": "shop" },
        "spec": {
            "scaleTargetRef": { "name": "web" },
            "minReplicaCount": 1,
            "triggers": [
                { "type": "prometheus", "metadata": { "serverAddress": "http://prometheus", "query": "x", "threshold": "100" } },
            ],
        },
    });
    let sample = |at: u32| {
        let wave = 1.0 - (f64::from(at) / 86_400.0 * std::f64::consts::TAU).cos();
        let sale = if (50_000..52_000).contains(&at) { 900.0 } else { 0.0 };
        Sample { at: 1_767_571_200 + i64::from(at), value: Some(100.0 + 600.0 * wave + sale) }
    };
    let samples: Vec<_> = (0..86_400).step_by(15).map(sample).collect();
    let history = Arc::new(History::new("day", &samples).unwrap());
    Input {
        name: "web".to_owned(),
        manifests: vec![manifest(deployment), manifest(scaled_object)],
        histories: BTreeMap::from([(("shop/web".to_owned(), "s0-prometheus".to_owned()), history)]),
        notes: Vec::new(),
    }
}

fn dimensions(texts: &[&str]) -> Vec<Dimension> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn swept(texts: &[&str], wish: &Wish) -> Sweep {
    sweep(&web(), &Options::default(), &dimensions(texts), wish).unwrap()
}

fn problem(texts: &[&str]) -> String {
    let problems = sweep(&web(), &Options::default(), &dimensions(texts), &Wish::default()).unwrap_err();
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn values_are_lists_and_ranges() {
    for (text, values) in [
        ("max=5,10,20", json!([5, 10, 20])),
        ("max=5..20/5", json!([5, 10, 15, 20])),
        ("max=1..3", json!([1, 2, 3])),
        ("max=1,10..30/10", json!([1, 10, 20, 30])),
        ("threshold=0.1..0.3/0.1", json!([0.1, 0.2, 0.3])),
        ("consolidateAfter=30s,5m,Never", json!(["30s", "5m", "Never"])),
        ("ScaledObject/shop/web:spec.fallback.behavior=static", json!(["static"])),
    ] {
        assert_eq!(json!(text.parse::<Dimension>().unwrap().values), values, "{text}");
    }
    for text in ["max", "max=", "max=5,,6", "max=20..5/5", "max=5..20/0", "max=a..b", "max=0..1000000"] {
        assert!(text.parse::<Dimension>().is_err(), "{text}");
    }
}

#[test]
fn keys_stand_for_fields_of_the_manifests() {
    let path = |key: &str| {
        let dimension = Dimension { key: key.to_owned(), values: vec![json!(5)] };
        let fields = dimension.fields(&web()).unwrap();
        let written: Vec<_> = fields.iter().map(|field| field.written(&json!(5)).to_string()).collect();
        let paths: Vec<_> = fields.iter().map(|field| field.path.as_str()).collect();
        format!("{} = {}", paths.join(","), written.join(","))
    };
    assert_eq!(path("threshold"), r#"spec.triggers[0].metadata.threshold = "5""#);
    assert_eq!(path("min"), "spec.minReplicaCount = 5");
    assert_eq!(path("web:max"), "spec.maxReplicaCount = 5");
    assert_eq!(path("ScaledObject/shop/web:cooldown"), "spec.cooldownPeriod = 5");
    assert_eq!(path("shop/web:polling"), "spec.pollingInterval = 5");
    let behavior =
        "spec.advanced.horizontalPodAutoscalerConfig.behavior.scaleDown.stabilizationWindowSeconds = 5";
    assert_eq!(path("stabilization"), behavior);
    assert_eq!(
        path("ScaledObject/web:spec.triggers[0].metadata.threshold"),
        r#"spec.triggers[0].metadata.threshold = "5""#
    );
}

#[test]
fn every_combination_is_played_and_the_last_key_changes_fastest() {
    let sweep = swept(&["threshold=50,100", "max=5,20,40"], &Wish::default());
    let values: Vec<_> = sweep.points.iter().map(|point| json!(point.values)).collect();
    let expected = [[50, 5], [50, 20], [50, 40], [100, 5], [100, 20], [100, 40]].map(|pair| json!(pair));
    assert_eq!(values, expected);
    assert_eq!(sweep.unit, CostUnit::PodHours, "there are no prices");
    let (few, many) = (&sweep.points[3], &sweep.points[5]);
    assert!(few.cost < many.cost && few.summary.unserved_share > many.summary.unserved_share);
}

#[test]
fn the_recommended_setting_is_the_cheapest_under_the_limit() {
    let wish = Wish { recommend: true, max_unserved: Some(0.01), threads: None };
    let sweep = swept(&["threshold=20..100/10", "max=5,20,80"], &wish);
    let chosen = &sweep.points[sweep.recommended.unwrap()];
    assert!(chosen.front && chosen.summary.unserved_share <= 0.01);
    for point in &sweep.points {
        assert!(
            point.cost >= chosen.cost || point.summary.unserved_share > 0.01,
            "{point:?} is cheaper than {chosen:?}"
        );
    }
    let (threshold, max) = (chosen.values[0].to_string(), &chosen.values[1]);
    let patch = |form: &str, patch: Value| {
        format!("kubectl patch scaledobject web -n shop --type {form} -p '{patch}'")
    };
    let path = "/spec/triggers/0/metadata/threshold";
    assert_eq!(
        sweep.patches,
        [
            patch("merge", json!({ "spec": { "maxReplicaCount": max } })),
            patch("json", json!([{ "op": "replace", "path": path, "value": threshold }])),
        ]
    );
    let text = sweep.to_string();
    assert!(text.contains("◀ recommended") && text.contains("Recommended: threshold="), "{text}");

    let never = swept(&["max=1,2"], &Wish { max_unserved: Some(0.0), ..wish });
    assert_eq!((never.recommended, never.patches.len()), (None, 0));
    assert!(never.to_string().contains("No setting leaves less than 0% unserved"), "{never}");
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let with = |threads| {
        let wish = Wish { recommend: true, max_unserved: Some(0.01), threads: NonZero::new(threads) };
        serde_json::to_string(&swept(&["threshold=40..100/10", "cooldown=60,300"], &wish)).unwrap()
    };
    let one = with(1);
    for threads in [2, 3, 16] {
        assert_eq!(with(threads), one, "{threads} threads");
    }
}

#[test]
fn what_cannot_be_swept_is_said() {
    for (text, said) in [
        ("speed=1", "--sweep speed: the keys are threshold, min, max"),
        ("consolidateAfter=30s", "no object of the manifests has such a setting"),
        ("spec.maxReplicaCount=5", "name the object: KIND/NAMESPACE/NAME:spec.maxReplicaCount"),
        ("ScaledObject/shop/api:spec.maxReplicaCount=5", "the manifests hold no ScaledObject/shop/api"),
        ("ScaledObject/web:spec.triggers[4].type=cron", "there is no element 4"),
        ("max=ten", "with max=ten: "),
    ] {
        let problem = problem(&[text]);
        assert!(problem.contains(said), "{text}: {problem}");
    }
    let many = ["max=1..1000", "min=1..1000"];
    assert!(problem(&many).contains("1000 × 1000 settings are more than 10000"));
}

#[test]
fn a_problem_is_that_of_the_first_setting_that_has_one() {
    for threads in [1, 2, 8] {
        let wish = Wish { threads: NonZero::new(threads), ..Wish::default() };
        let problems =
            sweep(&web(), &Options::default(), &dimensions(&["max=5,ten,6,eleven"]), &wish).unwrap_err();
        assert!(problems[0].to_string().contains("with max=ten"), "{problems:?}");
    }
}

fn point(cost: f64, unserved: f64) -> Point {
    let summary = Summary { unserved_share: unserved, ..Summary::default() };
    Point { values: Vec::new(), summary, cost, front: false }
}

proptest! {
    #[test]
    fn the_front_is_what_nothing_dominates(pairs in prop::collection::vec((0..6_u8, 0..6_u8), 1..40)) {
        let mut points: Vec<_> = pairs.iter().map(|(cost, left)| point((*cost).into(), (*left).into())).collect();
        mark_front(&mut points);
        for (index, (cost, left)) in pairs.iter().enumerate() {
            let dominated = pairs.iter().enumerate().any(|(other, (c, l))| {
                c <= cost && l <= left && ((c, l) != (cost, left) || other < index)
            });
            prop_assert_eq!(points[index].front, !dominated, "{:?} at {}", pairs, index);
        }
    }
}

#[test]
fn a_higher_target_makes_no_replica_stronger() {
    let sweep = swept(&["threshold=100,200,400"], &Wish::default());
    let unserved: Vec<_> = sweep.points.iter().map(|point| point.summary.unserved_share).collect();
    assert!(
        unserved[0] < 0.05 && unserved[1] > 0.3 && unserved[2] > 0.6,
        "of what 100 a replica serve: {unserved:?}"
    );
    assert!(sweep.points.is_sorted_by(|one, next| one.cost > next.cost));
}
