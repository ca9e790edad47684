//! What an HPA will ask for.

use std::sync::Arc;

use jiff::Timestamp;

use crate::hpa::{
    Autoscaler, Observation, Outcome, Scale, Settings, State, behavior,
    conditions::RescaleReason,
    spec::{Metric, Source, Target},
    state::{Memory, Status},
    step,
};

/// Steps that a forecast looks ahead. A node takes longer to come than three syncs of the controller, so pods of the
/// second and third step would find it no earlier if they were waited for.
pub const STEPS: u32 = 3;

/// What an HPA will have asked for after [`STEPS`] syncs, if its metrics stay where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    /// Replicas that the target asks for now.
    pub from: i32,
    /// Replicas that it will ask for; never fewer.
    pub to: i32,
    /// The metric that asks for them, as the HPA's events name it.
    pub metric: Option<Arc<str>>,
    /// Whether it will ask for fewer instead: then what it asked for before comes no more.
    pub falls: bool,
}

impl Forecast {
    /// Whether it is more than the target asks for now.
    pub fn rises(&self) -> bool {
        self.to > self.from
    }
}

/// What the controller remembers of an HPA, as far as it can be told from outside.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    memory: Memory,
    replicas: Option<i32>,
}

impl History {
    /// Takes in what the controller will read at its next sync, and says what it will come to. A failed reading counts
    /// as it does with the controller: it lets a count rise, never fall.
    pub fn foresee(&mut self, hpa: &Autoscaler, settings: &Settings, seen: &Observation<'_>) -> Forecast {
        let replicas = seen.scale.map_or(0, |scale| scale.spec_replicas);
        let mut forecast = Forecast { from: replicas, to: replicas, metric: None, falls: false };
        let Ok(scale) = seen.scale else { return forecast };
        self.follow(hpa, replicas, seen.now);
        let mut state = State { memory: self.memory.clone(), status: Status::default() };
        let mut next = *seen;
        for number in 0..STEPS {
            let outcome = step(hpa, settings, &mut state, &next);
            if number == 0 {
                // What metrics ask for now is part of the past from now on; changes are, once they are seen.
                self.memory.recommendations.clone_from(&state.memory.recommendations);
            }
            forecast.falls |= outcome.desired < forecast.from;
            if outcome.desired > forecast.to {
                forecast.to = outcome.desired;
                if let Some(RescaleReason::MetricAboveTarget(metric)) =
                    outcome.rescale.map(|rescale| rescale.reason)
                {
                    forecast.metric.get_or_insert(metric);
                }
            }
            let replicas = outcome.desired;
            next.scale = Ok(Scale { spec_replicas: replicas, status_replicas: replicas, ..scale });
            next.now = next.now.checked_add(settings.sync_period).unwrap_or(Timestamp::MAX);
        }
        forecast.falls &= !forecast.rises();
        forecast
    }

    /// One step of the controller of which nothing comes, and the status that it would leave. What metrics ask for is
    /// remembered; of changes those that are seen are, whoever made them.
    pub fn look(
        &mut self,
        hpa: &Autoscaler,
        settings: &Settings,
        seen: &Observation<'_>,
    ) -> (Outcome, Status) {
        if let Ok(scale) = seen.scale {
            self.follow(hpa, scale.spec_replicas, seen.now);
        }
        let mut state = State { memory: self.memory.clone(), status: Status::default() };
        let outcome = step(hpa, settings, &mut state, seen);
        self.memory.recommendations = state.memory.recommendations;
        (outcome, state.status)
    }

    /// Keeps a change of the count, which the policies of a `behavior` reckon with.
    fn follow(&mut self, hpa: &Autoscaler, replicas: i32, now: Timestamp) {
        if let (Some(before), Some(rules)) = (self.replicas, &hpa.behavior)
            && before != replicas
        {
            behavior::store_scale_event(rules, &mut self.memory, before, replicas, now);
        }
        self.replicas = Some(replicas);
    }
}

/// Whether an HPA divides a total among the pods that are ready, so that their number makes a difference to it.
pub fn counts_ready_pods(hpa: &Autoscaler) -> bool {
    let divides = |metric: &Metric| {
        matches!((&metric.source, metric.target), (Source::External { .. }, Target::Value(_)))
    };
    hpa.metrics.iter().any(divides)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::hpa::{Reading, Selector, conditions::ConditionType};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
    }

    fn hpa(kind: &str, max: i32, behavior: &Value) -> Autoscaler {
        let field = if kind == "Value" { "value" } else { "averageValue" };
        let mut spec = json!({
            "scaleTargetRef": {"kind": "Deployment", "name": "web"},
            "minReplicas": 1, "maxReplicas": max,
            "metrics": [{"type": "External", "external": {
                "metric": {"name": "queue"}, "target": {"type": kind, (field): "10"}}}],
        });
        if !behavior.is_null() {
            spec["behavior"] = behavior.clone();
        }
        let hpa: HorizontalPodAutoscaler = serde_json::from_value(json!({"spec": spec})).unwrap();
        Autoscaler::compile(&hpa).unwrap()
    }

    fn foresee(history: &mut History, hpa: &Autoscaler, second: i64, replicas: i32, value: i64) -> Forecast {
        let scale = Scale { spec_replicas: replicas, status_replicas: replicas, selector: Selector::Valid };
        let values = [value * 1000];
        let readings = [Reading::Values(&values)];
        let ready_pods = u32::try_from(replicas).ok();
        let seen = Observation {
            now: at(second),
            scale: Ok(scale),
            readings: &readings,
            ready_pods,
            update_error: None,
        };
        history.foresee(hpa, &Settings::of(37), &seen)
    }

    #[test]
    fn tolerance_maximum_and_policies_hold_as_with_the_controller() {
        let none = Value::Null;
        let four_a_minute =
            json!({"scaleUp": {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}]}});
        let never = json!({"scaleUp": {"selectPolicy": "Disabled"}});
        let later = json!({"scaleUp": {"stabilizationWindowSeconds": 300}});
        let cases = [
            ("within the tolerance", "AverageValue", 100, &none, 10, 105, 10),
            ("beyond it", "AverageValue", 100, &none, 10, 120, 12),
            ("without a behavior it doubles three times", "AverageValue", 100, &none, 2, 900, 16),
            ("the maximum", "AverageValue", 7, &none, 2, 900, 7),
            ("less is no demand", "AverageValue", 100, &none, 10, 20, 10),
            ("a policy", "AverageValue", 100, &four_a_minute, 10, 400, 14),
            ("scaling out is paused", "AverageValue", 100, &never, 10, 400, 10),
            ("a value does not multiply with its pods", "Value", 100, &none, 10, 15, 15),
        ];
        for (name, kind, max, behavior, replicas, value, expected) in cases {
            let forecast = foresee(&mut History::default(), &hpa(kind, max, behavior), 0, replicas, value);
            assert_eq!((forecast.from, forecast.to), (replicas, expected), "{name}");
            assert_eq!(forecast.metric.is_some(), expected > replicas, "{name}");
        }
        // What was asked for before the load came holds the count back.
        let (mut history, hpa) = (History::default(), hpa("AverageValue", 100, &later));
        assert!(!foresee(&mut history, &hpa, 0, 10, 100).rises());
        assert!(!foresee(&mut history, &hpa, 15, 10, 400).rises());
        assert!(foresee(&mut history, &hpa, 290, 10, 400).rises());
    }

    #[test]
    fn a_count_that_will_fall_is_said() {
        let at_once = json!({"scaleDown": {"stabilizationWindowSeconds": 0}});
        let cases =
            [(&at_once, 20, true), (&at_once, 100, false), (&at_once, 400, false), (&Value::Null, 20, false)];
        for (behavior, value, falls) in cases {
            let hpa = hpa("AverageValue", 100, behavior);
            let mut history = History::default();
            foresee(&mut history, &hpa, 0, 10, 100);
            assert_eq!(foresee(&mut history, &hpa, 15, 10, value).falls, falls, "{behavior} {value}");
        }
    }

    #[test]
    fn what_the_policies_have_used_up_is_remembered() {
        let rules = json!({"scaleUp": {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 600}]}});
        let (mut history, hpa) = (History::default(), hpa("AverageValue", 100, &rules));
        assert_eq!(foresee(&mut history, &hpa, 0, 10, 400).to, 14);
        assert_eq!(foresee(&mut history, &hpa, 15, 14, 400).to, 14, "four pods came, and no more may");
        assert_eq!(foresee(&mut history, &hpa, 700, 14, 400).to, 18);
    }

    #[test]
    fn a_look_counts_changes_that_were_made_and_not_those_that_it_asks_for() {
        let rules = json!({"scaleUp": {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 600}]}});
        let (mut history, hpa) = (History::default(), hpa("AverageValue", 100, &rules));
        let mut look = |second, replicas| {
            let scale =
                Scale { spec_replicas: replicas, status_replicas: replicas, selector: Selector::Valid };
            let readings = [Reading::Values(&[400_000])];
            let seen = Observation {
                now: at(second),
                scale: Ok(scale),
                readings: &readings,
                ready_pods: u32::try_from(replicas).ok(),
                update_error: None,
            };
            let (outcome, status) = history.look(&hpa, &Settings::of(37), &seen);
            let limited =
                status.condition(ConditionType::ScalingLimited).map(|it| it.reason.name().to_owned());
            (outcome.desired, limited)
        };
        let limited = Some("ScaleUpLimit".to_owned());
        assert_eq!(look(0, 10), (14, limited.clone()));
        assert_eq!(look(15, 10), (14, limited.clone()), "nobody made four pods");
        assert_eq!(look(30, 12), (14, limited.clone()), "somebody made two");
        assert_eq!(look(45, 14), (14, limited), "and two more");
    }

    proptest! {
        #[test]
        fn never_fewer_than_now_and_never_beyond_the_maximum(
            max in 1..200_i32,
            trace in prop::collection::vec((0..200_i32, 0..3000_i64), 1..12),
        ) {
            let (mut history, hpa) = (History::default(), hpa("AverageValue", max, &Value::Null));
            for (number, (replicas, value)) in (0_i64..).zip(trace) {
                let forecast = foresee(&mut history, &hpa, number * 15, replicas, value);
                prop_assert!(forecast.to >= replicas);
                prop_assert!(forecast.to <= max.max(replicas));
            }
        }
    }
}
