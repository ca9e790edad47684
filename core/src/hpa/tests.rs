//! What holds for any HPA, and what the vectors do not reach.

use k8s_openapi::api::{autoscaling::v2::HorizontalPodAutoscaler, core::v1 as core};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    behavior::change_in_period,
    conditions::ConditionType,
    pods::{Sample, pod_usage},
    spec::{Metric, Source, Target},
    state::{Memory, ScaleEvent},
    *,
};

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap_or_default()
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap_or_else(|problem| panic!("{problem}"))
}

fn try_compile(spec: &Value) -> Result<Autoscaler, SpecError> {
    let mut spec = spec.clone();
    spec["scaleTargetRef"] = json!({"kind": "Deployment", "name": "web"});
    let hpa: HorizontalPodAutoscaler = read(json!({"metadata": {"namespace": "ns"}, "spec": spec}));
    Autoscaler::compile(&hpa)
}

fn compile(spec: &Value) -> Autoscaler {
    try_compile(spec).unwrap_or_else(|problem| panic!("{problem}"))
}

fn external(kind: &str, target: i64) -> Value {
    let field = if kind == "Value" { "value" } else { "averageValue" };
    json!({"type": "External", "external": {
        "metric": {"name": "queue"}, "target": {"type": kind, (field): format!("{target}m")}}})
}

fn scale(replicas: i32) -> Scale<'static> {
    Scale { spec_replicas: replicas, status_replicas: replicas, selector: Selector::Valid }
}

/// A step of an HPA whose target has all its pods ready.
fn step_at(
    hpa: &Autoscaler,
    state: &mut State,
    replicas: i32,
    readings: &[Reading<'_>],
    now: Timestamp,
) -> Outcome {
    let ready_pods = u32::try_from(replicas).ok();
    let seen = Observation { now, scale: Ok(scale(replicas)), readings, ready_pods, update_error: None };
    step(hpa, &Settings::of(37), state, &seen)
}

/// A metric of any kind; `Some` rules for both directions now and then.
fn autoscaler() -> impl Strategy<Value = Autoscaler> {
    let metric = prop_oneof![
        (1..100_000_i64).prop_map(|target| external("AverageValue", target)),
        (1..100_000_i64).prop_map(|target| external("Value", target)),
        (1..200).prop_map(|percent| json!({"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})),
        (1..2_000_i64).prop_map(|target| json!({"type": "Pods", "pods": {
            "metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": format!("{target}m")}}})),
    ];
    let rules = || {
        let policy = (any::<bool>(), 1..200, 1..1800).prop_map(|(pods, value, period)| {
            json!({"type": if pods { "Pods" } else { "Percent" }, "value": value, "periodSeconds": period})
        });
        let select = prop_oneof![Just("Max"), Just("Min"), Just("Disabled")];
        (prop::collection::vec(policy, 1..3), select, prop::option::of(0..3600_i32)).prop_map(
            |(policies, select, window)| {
                json!({"policies": policies, "selectPolicy": select, "stabilizationWindowSeconds": window})
            },
        )
    };
    let behavior = prop::option::of((rules(), rules()));
    (0..20_i32, 0..200_i32, prop::collection::vec(metric, 1..4), behavior).prop_map(
        |(min, more, metrics, behavior)| {
            let behavior = behavior.map(|(up, down)| json!({"scaleUp": up, "scaleDown": down}));
            let max = (min + more).max(1);
            compile(
                &json!({"minReplicas": min, "maxReplicas": max, "metrics": metrics, "behavior": behavior}),
            )
        },
    )
}

/// What a metric may be at; errors included.
#[derive(Debug, Clone, Copy)]
struct Load {
    usage: i64,
    blanks: (u32, u32),
    fails: bool,
}

fn loads() -> impl Strategy<Value = Vec<Load>> {
    let load = (0..1_000_000_i64, (0..3_u32, 0..3_u32), prop::bool::weighted(0.2));
    prop::collection::vec(load.prop_map(|(usage, blanks, fails)| Load { usage, blanks, fails }), 4)
}

/// Readings of the right kind for each metric; `values` holds those of external ones.
fn readings<'a>(hpa: &Autoscaler, loads: &[Load], replicas: i32, values: &'a [[i64; 1]]) -> Vec<Reading<'a>> {
    let one = |((metric, load), value): ((&Metric, &Load), &'a [i64; 1])| {
        if load.fails {
            return Reading::Failed("unreachable");
        }
        if matches!(metric.source, Source::External { .. }) {
            return Reading::Values(value);
        }
        let (unready, missing) = load.blanks;
        let ready = replicas.unsigned_abs().saturating_sub(unready + missing).max(1);
        let tally = Tally::alike(ready, load.usage / i64::from(ready), 500);
        let blank = |pods: u32| i64::from(pods) * 500;
        Reading::Pods(Ok(Tally {
            unready,
            missing,
            unready_requests: blank(unready),
            missing_requests: blank(missing),
            missing_usage: blank(missing),
            ..tally
        }))
    };
    hpa.metrics.iter().zip(loads).zip(values).map(one).collect()
}

fn memory() -> impl Strategy<Value = Memory> {
    let recommendation = (0..300_i32, 0..4_000_i64)
        .prop_map(|(replicas, age)| Recommendation { replicas, at: now() - SignedDuration::from_secs(age) });
    let events = || {
        let event = (1..50_i32, 0..2_000_i64).prop_map(|(change, age)| ScaleEvent {
            change,
            at: now() - SignedDuration::from_secs(age),
            outdated: false,
        });
        prop::collection::vec(event, 0..6)
    };
    (prop::option::of(prop::collection::vec(recommendation, 0..20)), events(), events()).prop_map(
        |(recommendations, scale_ups, scale_downs)| Memory { recommendations, scale_ups, scale_downs },
    )
}

proptest! {
    #[test]
    fn counts_stay_in_bounds(
        hpa in autoscaler(), loads in loads(), memory in memory(), replicas in 0..300_i32,
    ) {
        let values: Vec<_> = loads.iter().map(|load| [load.usage]).collect();
        let readings = readings(&hpa, &loads, replicas, &values);
        let mut state = State { memory, ..State::default() };
        let outcome = step_at(&hpa, &mut state, replicas, &readings, now());
        if replicas == 0 {
            prop_assert_eq!(outcome.desired, 0, "somebody else's zero stays");
        } else {
            prop_assert!((hpa.min..=hpa.max).contains(&outcome.desired), "{outcome:?}");
        }
    }

    #[test]
    fn errors_never_scale_down(
        hpa in autoscaler(), mut loads in loads(), memory in memory(), place in 0..3_usize, more in 0..300_i32,
    ) {
        loads[place % hpa.metrics.len()].fails = true;
        let replicas = (hpa.min + more).clamp(1, hpa.max);
        let values: Vec<_> = loads.iter().map(|load| [load.usage]).collect();
        let readings = readings(&hpa, &loads, replicas, &values);
        let mut state = State { memory, ..State::default() };
        let outcome = step_at(&hpa, &mut state, replicas, &readings, now());
        prop_assert!(outcome.desired >= replicas, "{outcome:?}");
        prop_assert!(outcome.error.is_some() || replicas < hpa.min);
    }

    #[test]
    fn more_load_never_fewer_replicas(
        mut hpa in autoscaler(), loads in loads(), more in prop::collection::vec(0..1_000_000_i64, 4),
        memory in memory(), replicas in 1..300_i32,
    ) {
        hpa.behavior = None;
        let quiet: Vec<_> =
            loads.iter().map(|load| Load { fails: false, blanks: (0, 0), ..*load }).collect();
        let busy: Vec<_> =
            quiet.iter().zip(more).map(|(load, more)| Load { usage: load.usage + more, ..*load }).collect();
        let desired = |loads: &[Load]| {
            let values: Vec<_> = loads.iter().map(|load| [load.usage]).collect();
            let readings = readings(&hpa, loads, replicas, &values);
            let mut state = State { memory: memory.clone(), ..State::default() };
            step_at(&hpa, &mut state, replicas, &readings, now()).desired
        };
        prop_assert!(desired(&quiet) <= desired(&busy));
    }

    #[test]
    fn memory_stays_small(hpa in autoscaler(), usage in prop::collection::vec(0..100_000_i64, 600)) {
        let (mut state, mut time, mut replicas) = (State::default(), now(), hpa.min.max(1));
        for usage in usage {
            let values = [[usage]; 4];
            let loads = [Load { usage, blanks: (0, 0), fails: false }; 4];
            replicas = step_at(&hpa, &mut state, replicas, &readings(&hpa, &loads, replicas, &values), time).desired;
            time += SignedDuration::from_secs(15);
        }
        // One place a step within the longest window, an hour, and the one that just left it.
        prop_assert!(state.memory.recommendations.iter().flatten().count() <= 242);
        prop_assert!(state.memory.scale_ups.len() <= 122 && state.memory.scale_downs.len() <= 122);
    }
}

#[test]
fn a_new_controller_waits_one_window_before_it_scales_down() {
    let hpa = compile(&json!({"maxReplicas": 10, "metrics": [external("AverageValue", 1000)]}));
    let mut state = State::default();
    let mut counts = Vec::new();
    for sync in 0..22 {
        let time = now() + SignedDuration::from_secs(15 * sync);
        counts.push(step_at(&hpa, &mut state, 6, &[Reading::Values(&[2000])], time).desired);
    }
    // The count found at the start still holds exactly one window later, at the 21st sync.
    let wanted: Vec<_> = std::iter::repeat_n(6, 21).chain([2]).collect();
    assert_eq!(counts, wanted);
}

#[test]
fn conditions_keep_their_place_and_the_time_of_their_last_change() {
    let hpa = compile(&json!({"maxReplicas": 10, "metrics": [external("AverageValue", 1000)]}));
    let mut state = State::default();
    let later = now() + SignedDuration::from_secs(15);
    step_at(&hpa, &mut state, 3, &[Reading::Values(&[3000])], now());
    step_at(&hpa, &mut state, 3, &[Reading::Failed("unreachable")], later);
    let got: Vec<_> = state
        .status
        .conditions
        .iter()
        .map(|condition| (condition.reason.type_(), condition.reason.status(), condition.since))
        .collect();
    let wanted = [
        (ConditionType::AbleToScale, true, now()),
        (ConditionType::ScalingActive, false, later),
        (ConditionType::ScalingLimited, false, now()),
    ];
    assert_eq!(got, wanted);
    assert_eq!(state.status.current_metrics, [None]);
}

#[test]
fn an_hpa_without_metrics_looks_at_cpu() {
    let hpa = compile(&json!({"maxReplicas": 3}));
    assert_eq!((hpa.min, hpa.metrics.len()), (1, 1));
    assert_eq!(hpa.metrics[0].target, Target::Utilization(80));
    assert_eq!(&*hpa.metrics[0].text, "cpu resource utilization (percentage of request)");
}

#[test]
fn an_hpa_that_no_server_admits_is_refused_with_the_place() {
    for (spec, wanted) in [
        (
            json!({"metrics": [{"type": "External"}]}),
            "metrics[0] of the HPA has the type \"External\" but no such",
        ),
        (
            json!({"behavior": {"scaleUp": {"selectPolicy": "Most"}}}),
            "behavior.scaleUp.selectPolicy of the HPA is",
        ),
        (
            json!({"behavior": {"scaleDown": {"tolerance": "x"}}}),
            "behavior.scaleDown.tolerance of the HPA: quantity",
        ),
        (
            json!({"behavior": {"scaleDown": {"policies": [{"type": "All", "value": 1, "periodSeconds": 1}]}}}),
            "behavior.scaleDown.policies.type of the HPA is \"All\", expected Pods or Percent",
        ),
    ] {
        let mut spec = spec;
        spec["maxReplicas"] = json!(3);
        let text = try_compile(&spec).map_or_else(|problem| problem.to_string(), |hpa| format!("{hpa:?}"));
        assert!(text.starts_with(wanted), "{text}");
    }
}

#[test]
fn before_1_33_the_edge_of_the_tolerance_is_outside() {
    let hpa = compile(&json!({"maxReplicas": 99, "metrics": [external("AverageValue", 1000)]}));
    for (minor, wanted) in [(32, 11), (33, 10)] {
        let reading = Reading::Values(&[11_000]);
        let got = propose(&hpa, &Settings::of(minor), &hpa.metrics[0], &reading, &scale(10), Some(10));
        assert_eq!(got.map(|proposal| proposal.replicas), Ok(wanted), "1.{minor}");
    }
}

/// A pod with containers, sidecars among them, that request milli-units of cpu.
fn pod(requests: &[(&str, Option<i64>)], more: &Value) -> core::Pod {
    let container = |(name, milli): &(&str, Option<i64>)| {
        let requests = milli.map(|milli| json!({"cpu": format!("{milli}m")}));
        let always = name.starts_with("sidecar").then_some("Always");
        json!({"name": name, "restartPolicy": always, "resources": {"requests": requests}})
    };
    let (init, own): (Vec<_>, Vec<_>) = requests.iter().partition(|(name, _)| !name.starts_with("main"));
    let mut spec = json!({
        "containers": own.into_iter().map(container).collect::<Vec<_>>(),
        "initContainers": init.into_iter().map(container).collect::<Vec<_>>(),
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    read(json!({"metadata": {"name": "p"}, "spec": spec}))
}

#[test]
#[expect(clippy::large_stack_arrays, reason = "a table")]
fn requests_are_of_the_container_the_pod_or_all_that_runs_for_good() {
    let whole = json!({"resources": {"requests": {"cpu": "2"}}});
    let memory = json!({"resources": {"requests": {"memory": "2"}}, "overhead": {"cpu": "10m"}});
    let main = ("main", Some(100));
    let gates = Gates::of(37);
    for (pod, container, gates, wanted) in [
        (pod(&[main, ("sidecar", Some(20)), ("start", Some(900))], &json!({})), None, gates, "120"),
        (pod(&[main, ("main-2", Some(50))], &whole), Some("main-2"), gates, "50"),
        (pod(&[main], &whole), None, gates, "2000"),
        (pod(&[main], &whole), None, Gates::of(33), "100"),
        (pod(&[main, ("sidecar", Some(20)), ("start", Some(900))], &memory), None, gates, "930"),
        (pod(&[("main", None)], &memory), None, gates, "10"),
        (
            pod(&[main, ("main-2", None)], &json!({})),
            None,
            gates,
            "missing request for cpu in container main-2 of Pod p",
        ),
        (pod(&[main], &json!({})), Some("start"), gates, "container start not found in Pod p"),
        (
            pod(&[("main", None)], &json!({"resources": {"requests": {"memory": "2"}}})),
            None,
            gates,
            "missing pod-level request for cpu in Pod p",
        ),
    ] {
        let got = requests::of_pod(&pod, container, "cpu", gates);
        let got = got.map_or_else(|problem| problem.to_string(), |milli| milli.to_string());
        assert_eq!(got, wanted, "{:?}", pod.spec);
    }
}

#[test]
fn a_pod_has_a_sample_when_each_container_that_counts_has_usage() {
    let both = [("a", Some(1)), ("b", Some(2))];
    let one = [("a", Some(1)), ("b", None)];
    for (usage, container, wanted) in [
        (&both[..], None, Some(3)),
        (&both, Some("b"), Some(2)),
        (&both, Some("c"), None),
        (&one, None, None),
        (&one, Some("a"), Some(1)),
        (&[], None, None),
    ] {
        assert_eq!(pod_usage(usage, container), wanted, "{usage:?} {container:?}");
    }
}

#[test]
fn succeeded_pods_are_ignored_from_1_38() {
    let pod: core::Pod = read(json!({"metadata": {"name": "p"}, "status": {"phase": "Succeeded"}}));
    let sample = Sample { pod: "p".to_owned(), value: 1, at: now(), window: SignedDuration::ZERO };
    for (minor, wanted) in [(37, pods::Group::Ready), (38, pods::Group::Ignored)] {
        assert_eq!(pods::group(&pod, Some(&sample), "memory", &Settings::of(minor), now()), wanted);
    }
}

#[test]
fn alike_pods_tally_as_listed_ones_do() {
    let hpa = compile(&json!({"maxReplicas": 9}));
    let listed = |index: u32| -> core::Pod {
        read(json!({
            "metadata": {"name": format!("p{index}")},
            "spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "500m"}}}]},
            "status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        }))
    };
    let pods: Vec<_> = (0..3).map(listed).collect();
    let sample =
        |index: u32| Sample { pod: format!("p{index}"), value: 400, at: now(), window: SignedDuration::ZERO };
    let samples: Vec<_> = (0..3).map(sample).collect();
    let got = pods::tally(&hpa.metrics[0], &pods, &samples, &Settings::of(37), now());
    assert_eq!(got, Ok(Tally::alike(3, 400, 500)));
    assert_eq!(pods::ready_pods(&pods), Some(3));
}

#[test]
fn periods_count_what_is_younger() {
    let event = |age| ScaleEvent { change: 1, at: now() - SignedDuration::from_secs(age), outdated: false };
    assert_eq!(change_in_period(SignedDuration::from_secs(60), &[event(0), event(59), event(60)], now()), 2);
}
