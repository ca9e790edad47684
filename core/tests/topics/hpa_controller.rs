//! `hpa`: the HPA controller's algorithm, by suite.
//!
//! The controller's own tests run it with other settings than its defaults; [`settings`] has theirs.

mod fixture;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tandem_core::hpa::{
    self, Autoscaler, Observation, Scale, Selector, Settings, State,
    behavior::{self, Behavior, Rules},
    calculator::Current,
    conditions::Reason,
    pods::{self, Group},
    stabilization,
    state::{Memory, Recommendation, ScaleEvent},
};

use super::{Differences, Verdict, read};
use fixture::{Fixture, ago, seconds};

pub(super) fn judge(case: &Value) -> Verdict {
    match case["suite"].as_str() {
        Some("replica_calculator" | "derived") => calculator(case),
        Some("reconcile") => reconcile(case),
        Some("convert_no_behavior") => limit_without_behavior(case),
        Some("behavior_rate") => rate(case),
        Some("behavior_limit") => policies(case),
        Some("stabilize_no_behavior") => stabilize_without_behavior(case),
        Some("stabilize_with_behavior") => stabilize(case),
        Some("store_scale_event") => store(case),
        Some("group_pods") => group(case),
        Some("e2e_external") => end_to_end(case),
        other => Verdict::Disagrees(format!("no runner knows the suite {other:?}")),
    }
}

/// Any moment; cases name ages.
fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap_or_default()
}

/// The controller's settings in its own tests.
fn settings(case: &Value) -> Settings {
    let mut settings = Settings::of(37);
    if let Some(minor) = case["minor"].as_u64().and_then(|minor| u32::try_from(minor).ok()) {
        return Settings::of(minor);
    }
    let gates = &case["feature_gates"];
    let gate = |name: &str, default: bool| gates[name].as_bool().unwrap_or(default);
    settings.gates.scale_to_zero = gate("HPAScaleToZero", false);
    settings.gates.configurable_tolerance = gate("HPAConfigurableTolerance", true);
    settings.gates.pod_level_resources = gate("PodLevelResources", true);
    let setting = |name: &str, default| seconds(case[name].as_i64().unwrap_or(default));
    settings.cpu_initialization_period = setting("cpu_initialization_period_s", 120);
    settings.initial_readiness_delay = setting("initial_readiness_delay_s", 10);
    settings.downscale_stabilization = setting("downscale_stabilization_s", 300);
    // The tests of the controller raise its constant, so that no other limit hides behind it.
    settings.scale_up_limit_factor = 8;
    settings
}

fn number(value: &Value) -> Option<i32> {
    value.as_i64().and_then(|number| i32::try_from(number).ok())
}

/// One metric, before any limit.
fn calculator(case: &Value) -> Verdict {
    let mut differences = Differences::default();
    let current = number(&case["current_replicas"]).unwrap_or_default();
    let mut settings = settings(case);
    let tolerance = |name: &str| case[name].as_f64().unwrap_or(0.1).to_string();
    let (up, down) = (tolerance("tolerance_up"), tolerance("tolerance_down"));
    settings.gates.configurable_tolerance = true;
    let behavior = json!({"scaleUp": {"tolerance": up}, "scaleDown": {"tolerance": down}});
    let fixture = Fixture::calculator(case, current);
    let autoscaler = Fixture::autoscaler(case, &json!([case]), &behavior);
    let metric = &autoscaler.metrics[0];
    let values = fixture::values(case);
    let reading = fixture.reading(metric, &values, &settings);
    let replicas = |name: &str| number(&case[name]).unwrap_or(current);
    let scale = Scale {
        spec_replicas: replicas("spec_replicas"),
        status_replicas: replicas("status_replicas"),
        selector: Selector::Valid,
    };
    let ready = pods::ready_pods(&fixture.pods);
    let proposal = hpa::propose(&autoscaler, &settings, metric, &reading, &scale, ready);
    match (proposal, &case["expected_error"]) {
        (Err(failure), Value::String(text)) => {
            differences
                .holds(failure.message.contains(text), || format!("got the error {:?}", failure.message));
        }
        (Err(_), Value::Bool(true)) => {}
        (Err(failure), _) => differences.holds(false, || failure.message),
        (Ok(got), Value::String(_) | Value::Bool(true)) => {
            differences.holds(false, || format!("got {got:?}, wanted an error"));
        }
        (Ok(got), _) => compare_proposal(case, metric, got, &mut differences),
    }
    differences.verdict()
}

fn compare_proposal(
    case: &Value,
    metric: &hpa::spec::Metric,
    got: hpa::calculator::Proposal,
    differences: &mut Differences,
) {
    differences.same("desired", Some(got.replicas), number(&case["expected_desired"]));
    let (usage, percent) = match got.current {
        Current::Value(usage) | Current::AverageValue(usage) => (usage, None),
        Current::Utilization { percent, average } => (average, Some(percent)),
    };
    for field in ["expected_usage_milli", "expected_raw_average_milli"] {
        if let Some(wanted) = case[field].as_i64() {
            differences.same(field, usage, wanted);
        }
    }
    if let Some(wanted) = number(&case["expected_utilization_percent"]) {
        differences.same("utilization", percent, Some(wanted));
    }
    if let Some(wanted) = case["expected_targets_column"].as_str() {
        differences.same("TARGETS", metric.column(Some(got.current)).as_str(), wanted);
    }
}

/// One step of a whole HPA.
fn reconcile(case: &Value) -> Verdict {
    let mut differences = Differences::default();
    let settings = settings(case);
    let spec_replicas = number(&case["spec_replicas"]).unwrap_or_default();
    let status_replicas = number(&case["status_replicas"]).unwrap_or(spec_replicas);
    let fixture = Fixture::reconcile(case, status_replicas);
    let autoscaler = Fixture::autoscaler(case, &case["metrics"], &fixture::behavior(case));
    let metrics = case["metrics"].as_array().map(Vec::as_slice).unwrap_or_default();
    let values: Vec<_> =
        autoscaler.metrics.iter().enumerate().map(|(at, _)| values_at(metrics, at)).collect();
    let readings: Vec<_> = (autoscaler.metrics.iter().zip(&values))
        .map(|(metric, values)| fixture.reading(metric, values, &settings))
        .collect();
    let mut state = initial_state(case, spec_replicas);
    let scale = Scale { spec_replicas, status_replicas, selector: selector(case) };
    let seen = Observation {
        now: now(),
        scale: case["scale_error"].as_str().map_or(Ok(scale), Err),
        readings: &readings,
        ready_pods: pods::ready_pods(&fixture.pods),
        update_error: case["update_error"].as_str(),
    };
    let outcome = hpa::step(&autoscaler, &settings, &mut state, &seen);
    differences.same("desired", Some(state.status.desired_replicas), number(&case["expected_desired"]));
    if let Some(wanted) = case["expected_scale_update"].as_bool() {
        differences.same("scale update", outcome.rescale.is_some(), wanted);
    }
    if let Some(wanted) = case["expected_conditions"].as_array() {
        let status = |reason: &Reason| if reason.status() { "True" } else { "False" };
        let got = state.status.conditions.iter().map(|condition| &condition.reason);
        let got = got.map(|reason| json!([reason.type_().name(), status(reason), reason.name()])).collect();
        differences.same("conditions", Value::Array(got), Value::Array(wanted.clone()));
    }
    if let Some(wanted) = case["expected_error"].as_bool() {
        differences.same("error", outcome.error.is_some(), wanted);
    }
    if let Some(wanted) = case["expected_messages"].as_array() {
        let conditions = state.status.conditions.iter();
        let got = conditions.map(|condition| json!(condition.reason.to_string())).collect();
        differences.same("messages", Value::Array(got), Value::Array(wanted.clone()));
    }
    if let Some(wanted) = case["expected_events"].as_array() {
        let got =
            outcome.events.iter().map(|event| json!(format!("{} {} {event}", event.type_(), event.reason())));
        differences.same("events", &Value::Array(got.collect()), &Value::Array(wanted.clone()));
    }
    if let Some(wanted) = case["expected_action_label"].as_str() {
        let got = match &outcome.rescale {
            None => "none",
            Some(rescale) if rescale.to > rescale.from => "scale_up",
            Some(_) => "scale_down",
        };
        differences.same("action", got, wanted);
    }
    differences.verdict()
}

/// What became of the target's selector; cases say nothing when it is fine.
fn selector(case: &Value) -> Selector<'_> {
    // Two words are no requirement.
    let parses = |term: &str| term.contains(['=', '!', '(']) || term.split_whitespace().count() == 1;
    match (&case["scale_selector"], case["ambiguous_with"].as_str()) {
        (Value::String(selector), Some(autoscalers)) => Selector::Ambiguous { selector, autoscalers },
        (Value::String(selector), None) if selector.is_empty() => Selector::Missing,
        (Value::String(selector), None) if !selector.split(',').all(parses) => Selector::Invalid(selector),
        _ => Selector::Valid,
    }
}

fn values_at(metrics: &[Value], at: usize) -> Vec<i64> {
    metrics.get(at).map(fixture::values).unwrap_or_default()
}

fn initial_state(case: &Value, replicas: i32) -> State {
    let conditions =
        ["initial_conditions", "prior_conditions"].iter().find_map(|name| case[*name].as_array());
    let conditions: Vec<_> = conditions
        .into_iter()
        .flatten()
        .map(|condition| match condition {
            Value::Array(parts) => json!({"type": parts[0], "status": parts[1], "reason": parts.get(2)}),
            condition => condition.clone(),
        })
        .collect();
    let hpa = read(&json!({
        "metadata": {}, "spec": {"scaleTargetRef": {"kind": "", "name": ""}, "maxReplicas": 1},
        "status": {"currentReplicas": replicas, "desiredReplicas": replicas, "conditions": conditions},
    }));
    let mut state = State::resume(&hpa);
    state.memory.recommendations = case["prior_recommendations"].as_array().map(|list| recommendations(list));
    state
}

fn recommendations(list: &[Value]) -> Vec<Recommendation> {
    let one = |value: &Value| Recommendation {
        replicas: number(&value["value"]).unwrap_or_default(),
        at: ago(value["age_s"].as_i64().unwrap_or_default()),
    };
    list.iter().map(one).collect()
}

fn events(list: &Value) -> Vec<ScaleEvent> {
    let one = |value: &Value| ScaleEvent {
        change: number(&value["replica_change"]).unwrap_or_default(),
        at: ago(value["age_s"].as_i64().unwrap_or_default()),
        outdated: value["outdated"].as_bool().unwrap_or_default(),
    };
    list.as_array().into_iter().flatten().map(one).collect()
}

fn memory(case: &Value) -> Memory {
    Memory {
        recommendations: case["recommendations"].as_array().map(|list| recommendations(list)),
        scale_ups: events(&case["scale_up_events"]),
        scale_downs: events(&case["scale_down_events"]),
    }
}

/// Bounds and counts of a case: (current, desired), (min, max).
fn counts(case: &Value) -> ((i32, i32), (i32, i32)) {
    let count = |name: &str, default| number(&case[name]).unwrap_or(default);
    let change = (count("current_replicas", 0), count("prenormalized_desired", 0));
    (change, (count("min", 0), count("max", i32::MAX)))
}

fn limit_without_behavior(case: &Value) -> Verdict {
    let ((current, desired), (min, max)) = counts(case);
    let factor = settings(case).scale_up_limit_factor;
    compare_limit(case, &behavior::limit_without_behavior(current, desired, min, max, factor))
}

fn rate(case: &Value) -> Verdict {
    let (change, bounds) = counts(case);
    let behavior = Behavior {
        up: rules(&case["scale_up_rules"], Direction::Up),
        down: rules(&case["scale_down_rules"], Direction::Down),
    };
    compare_limit(case, &behavior::limit(&behavior, &memory(case), change, bounds, now()))
}

fn compare_limit(case: &Value, got: &behavior::Limited) -> Verdict {
    let mut differences = Differences::default();
    differences.same("desired", Some(got.replicas), number(&case["expected_desired"]));
    if let Some(wanted) = case["expected_reason"].as_str() {
        differences.same("reason", got.reason.name(), wanted);
    }
    differences.verdict()
}

#[derive(Clone, Copy)]
enum Direction {
    Up,
    Down,
}

/// The rules of one direction, read as the API server and the live path read them.
fn rules(value: &Value, direction: Direction) -> Rules {
    let name = match direction {
        Direction::Up => "scaleUp",
        Direction::Down => "scaleDown",
    };
    let mut object = serde_json::Map::new();
    if !value.is_null() {
        object.insert(name.to_owned(), fixture::rules(value));
    }
    let behavior = Behavior::compile(&read(&Value::Object(object)));
    let behavior = behavior.unwrap_or_else(|problem| panic!("{problem}"));
    match direction {
        Direction::Up => behavior.up,
        Direction::Down => behavior.down,
    }
}

fn policies(case: &Value) -> Verdict {
    let mut differences = Differences::default();
    let current = number(&case["current_replicas"]).unwrap_or_default();
    let memory = memory(case);
    let got = match case["direction"].as_str() {
        Some("down") => {
            behavior::scale_down_limit(&rules(&case["rules"], Direction::Down), &memory, current, now())
        }
        _ => behavior::scale_up_limit(&rules(&case["rules"], Direction::Up), &memory, current, now()),
    };
    differences.same("limit", Some(got), number(&case["expected_limit"]));
    differences.verdict()
}

fn stabilize_without_behavior(case: &Value) -> Verdict {
    let window = seconds(case["window_s"].as_i64().unwrap_or(300));
    let mut list = memory(case).recommendations.unwrap_or_default();
    let ((_, desired), _) = counts(case);
    let got = stabilization::highest_of_window(&mut list, window, desired, now());
    compare_stabilized(case, got.replicas, &list)
}

fn stabilize(case: &Value) -> Verdict {
    let window = |name: &str| case[name].as_i64().map(seconds);
    let behavior = Behavior {
        up: Rules {
            window: window("scale_up_window_s").or(Some(SignedDuration::ZERO)),
            ..Rules::default_up()
        },
        down: Rules { window: window("scale_down_window_s"), ..Rules::default_down() },
    };
    let mut list = memory(case).recommendations.unwrap_or_default();
    let (change, _) = counts(case);
    let controller = settings(case).downscale_stabilization;
    let got = stabilization::between_windows(&mut list, &behavior, controller, change, now());
    compare_stabilized(case, got.replicas, &list)
}

fn compare_stabilized(case: &Value, got: i32, list: &[Recommendation]) -> Verdict {
    let mut differences = Differences::default();
    differences.same("stabilized", Some(got), number(&case["expected_stabilized"]));
    if let Some(wanted) = case["expected_log_length"].as_u64() {
        differences.same("log length", list.len() as u64, wanted);
    }
    if case["expected_log"].is_array() {
        let got: Vec<_> = list.iter().map(|recommendation| recommendation.replicas).collect();
        differences.same("log", got, read(&case["expected_log"]));
    }
    differences.verdict()
}

fn store(case: &Value) -> Verdict {
    let mut differences = Differences::default();
    let change = number(&case["replica_change"]).unwrap_or_default();
    // Without a behavior the controller remembers no changes.
    let remembers = case["policies"].as_array().is_some_and(|policies| !policies.is_empty());
    let policies = json!({"policies": case["policies"]});
    for direction in [Direction::Up, Direction::Down] {
        let rules = || rules(&policies, direction);
        let behavior = Behavior { up: rules(), down: rules() };
        let previous = events(&case["previous_events"]);
        if let Some(wanted) = number(&case["expected_change_in_last_60s_before_store"]) {
            let got = behavior::change_in_period(seconds(60), &previous, now());
            differences.same("change in the last minute", got, wanted);
        }
        let mut memory = Memory { scale_ups: previous.clone(), scale_downs: previous, ..Memory::default() };
        let (from, to) = match direction {
            Direction::Up => (100, 100 + change),
            Direction::Down => (100 + change, 100),
        };
        if remembers {
            behavior::store_scale_event(&behavior, &mut memory, from, to, now());
        }
        let got = match direction {
            Direction::Up => memory.scale_ups,
            Direction::Down => memory.scale_downs,
        };
        let got: Vec<_> = got.iter().map(|event| (event.change, event.outdated)).collect();
        let wanted = events(&case["expected_events"]);
        let wanted: Vec<_> = wanted.iter().map(|event| (event.change, event.outdated)).collect();
        differences.same("events", got, wanted);
    }
    differences.verdict()
}

fn group(case: &Value) -> Verdict {
    let mut differences = Differences::default();
    let settings = settings(case);
    let resource = case["resource"].as_str().unwrap_or_default();
    let mut groups: [Vec<String>; 4] = Default::default();
    for pod in case["pods"].as_array().into_iter().flatten() {
        let sample = fixture::grouped_sample(pod);
        let group = pods::group(&fixture::grouped_pod(pod), sample.as_ref(), resource, &settings, now());
        let place = match group {
            Group::Ready => 0,
            Group::Unready => 1,
            Group::Missing => 2,
            Group::Ignored => 3,
        };
        groups[place].push(read(&pod["name"]));
    }
    let [ready, named @ ..] = groups;
    differences.same("ready", Some(ready.len() as u64), case["expected_ready_count"].as_u64());
    for (field, mut got) in
        ["expected_unready", "expected_missing", "expected_ignored"].into_iter().zip(named)
    {
        let mut wanted: Vec<String> = read(&case[field]);
        got.sort();
        wanted.sort();
        differences.same(field, got, wanted);
    }
    differences.verdict()
}

/// Sync periods that a test waits for a count: two minutes past the stabilization window.
const PATIENCE: i64 = 28;

/// Metrics change, and the count follows.
fn end_to_end(case: &Value) -> Verdict {
    let mut differences = Differences::default();
    let settings = Settings::of(37);
    let mut replicas = number(&case["spec_replicas"]).unwrap_or_default();
    let mut state = State::default();
    let mut time = now();
    for step in case["steps"].as_array().into_iter().flatten() {
        let Some(metrics) = step["metrics_milli"].as_object() else { continue };
        let autoscaler = external_autoscaler(case, metrics);
        let values: Vec<Vec<i64>> = metrics.values().map(fixture::series).collect();
        let readings: Vec<_> = values.iter().map(|values| fixture::external_reading(values)).collect();
        let wanted = number(&step["wait_replicas"]);
        for _ in 0..PATIENCE {
            let scale =
                Scale { spec_replicas: replicas, status_replicas: replicas, selector: Selector::Valid };
            let ready_pods = u32::try_from(replicas).ok();
            let seen = Observation {
                now: time,
                scale: Ok(scale),
                readings: &readings,
                ready_pods,
                update_error: None,
            };
            replicas = hpa::step(&autoscaler, &settings, &mut state, &seen).desired;
            time += settings.sync_period;
            if Some(replicas) == wanted {
                break;
            }
        }
        differences.same("replicas", Some(replicas), wanted);
    }
    differences.verdict()
}

fn external_autoscaler(case: &Value, metrics: &serde_json::Map<String, Value>) -> Autoscaler {
    let specs = metrics.keys().map(|name| {
        json!({"kind": "External", "name": name, "target_type": case["target_type"],
               "target_milli": case["target_milli"]})
    });
    Fixture::autoscaler(case, &specs.collect(), &fixture::behavior(case))
}
