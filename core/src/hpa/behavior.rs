//! How fast an HPA scales: the rules of its `behavior`, or the controller's older limits without one.
//!
//! Limits are those of Kubernetes (`pkg/controller/podautoscaler/horizontal.go`), defaults those of
//! `pkg/apis/autoscaling/v2/defaults.go`.

use std::cmp::Ordering;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior},
    apimachinery::pkg::api::resource::Quantity,
};

use super::{
    conditions::Reason,
    cutoff,
    spec::SpecError,
    state::{Memory, ScaleEvent},
};
use crate::quantity::parse_milli;

/// Replicas that any target may scale up to without a `behavior`.
const SCALE_UP_LIMIT_MINIMUM: i32 = 4;

/// Rules in both directions.
#[derive(Debug, Clone, PartialEq)]
pub struct Behavior {
    /// Up.
    pub up: Rules,
    /// Down.
    pub down: Rules,
}

/// Rules in one direction.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// How much may change in a period.
    pub policies: Vec<Policy>,
    /// Which of the policies decides.
    pub select: Select,
    /// How long recommendations hold back; `None` for the controller's own window (down only).
    pub window: Option<SignedDuration>,
    /// Tolerance of this direction, a fraction; `None` for the controller's own.
    pub tolerance: Option<f64>,
}

/// How much may change in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How much.
    pub amount: Amount,
    /// In how long.
    pub period: SignedDuration,
}

/// How much may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// So many pods.
    Pods(i32),
    /// So many percent of the pods at the start of the period.
    Percent(i32),
}

/// Which policy decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// The one that allows the most.
    Max,
    /// The one that allows the least.
    Min,
    /// None: this direction is off.
    Disabled,
}

impl Behavior {
    /// Reads the rules, each field that is not set with its default.
    pub fn compile(behavior: &HorizontalPodAutoscalerBehavior) -> Result<Self, SpecError> {
        let none = HPAScalingRules::default();
        let up = Rules::compile("scaleUp", behavior.scale_up.as_ref().unwrap_or(&none), Rules::default_up())?;
        let down = behavior.scale_down.as_ref().unwrap_or(&none);
        Ok(Self { up, down: Rules::compile("scaleDown", down, Rules::default_down())? })
    }
}

/// The period of the default policies, one sync of the controller.
const DEFAULT_PERIOD: SignedDuration = SignedDuration::from_secs(15);

impl Rules {
    /// Four pods or a doubling every 15 s, at once.
    pub fn default_up() -> Self {
        let policy = |amount| Policy { amount, period: DEFAULT_PERIOD };
        Self {
            policies: vec![policy(Amount::Pods(4)), policy(Amount::Percent(100))],
            select: Select::Max,
            window: Some(SignedDuration::ZERO),
            tolerance: None,
        }
    }

    /// Everything every 15 s, after the controller's window.
    pub fn default_down() -> Self {
        Self {
            policies: vec![Policy { amount: Amount::Percent(100), period: DEFAULT_PERIOD }],
            select: Select::Max,
            window: None,
            tolerance: None,
        }
    }

    fn compile(direction: &str, rules: &HPAScalingRules, default: Self) -> Result<Self, SpecError> {
        let policies = match &rules.policies {
            None => default.policies,
            Some(policies) => {
                policies.iter().map(|policy| Policy::compile(direction, policy)).collect::<Result<_, _>>()?
            }
        };
        let select = match rules.select_policy.as_deref() {
            None => default.select,
            Some("Max") => Select::Max,
            Some("Min") => Select::Min,
            Some("Disabled") => Select::Disabled,
            Some(value) => {
                return Err(SpecError::Choice {
                    field: format!("behavior.{direction}.selectPolicy"),
                    value: value.to_owned(),
                    expected: "Max, Min or Disabled",
                });
            }
        };
        let window =
            rules.stabilization_window_seconds.map(|seconds| SignedDuration::from_secs(seconds.into()));
        let tolerance =
            rules.tolerance.as_ref().map(|quantity| tolerance(direction, quantity)).transpose()?;
        Ok(Self { policies, select, window: window.or(default.window), tolerance })
    }

    /// The farthest that the policies look back.
    fn longest_period(&self) -> SignedDuration {
        self.policies.iter().map(|policy| policy.period).max().unwrap_or_default()
    }
}

impl Policy {
    fn compile(direction: &str, policy: &HPAScalingPolicy) -> Result<Self, SpecError> {
        let amount = match policy.type_.as_str() {
            "Pods" => Amount::Pods(policy.value),
            "Percent" => Amount::Percent(policy.value),
            value => {
                return Err(SpecError::Choice {
                    field: format!("behavior.{direction}.policies.type"),
                    value: value.to_owned(),
                    expected: "Pods or Percent",
                });
            }
        };
        Ok(Self { amount, period: SignedDuration::from_secs(policy.period_seconds.into()) })
    }
}

/// A tolerance as a fraction, computed as Go's `AsApproximateFloat64` does from the API server's canonical text.
fn tolerance(direction: &str, quantity: &Quantity) -> Result<f64, SpecError> {
    let field = || format!("behavior.{direction}.tolerance");
    let milli = parse_milli(&quantity.0).map_err(|source| SpecError::Quantity { field: field(), source })?;
    // Finer than a thousandth is rare; as a plain number it keeps its digits.
    let plain = quantity.0.parse::<f64>().ok().filter(|plain| (plain * 1000.0).fract() != 0.0);
    #[allow(clippy::cast_precision_loss, reason = "a tolerance is a small number")]
    Ok(plain.unwrap_or(milli as f64 * 0.001))
}

/// A count within limits, and the limit that it met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limited {
    /// The count.
    pub replicas: i32,
    /// The reason of `ScalingLimited`.
    pub reason: Reason,
}

/// A count within what an HPA without a `behavior` allows: at most `factor` times the current one, or 4, a step.
pub fn limit_without_behavior(current: i32, desired: i32, min: i32, max: i32, factor: i32) -> Limited {
    let limit = current.saturating_mul(factor).max(SCALE_UP_LIMIT_MINIMUM);
    let most = max.min(limit);
    if desired < min {
        Limited { replicas: min, reason: Reason::TooFewReplicas }
    } else if desired > most {
        let reason = if max > limit { Reason::ScaleUpLimit } else { Reason::TooManyReplicas };
        Limited { replicas: most, reason }
    } else {
        Limited { replicas: desired, reason: Reason::DesiredWithinRange }
    }
}

/// A count within what the rules allow now; one that does not change is within any range.
pub fn limit(
    behavior: &Behavior,
    memory: &Memory,
    (current, desired): (i32, i32),
    (min, max): (i32, i32),
    now: Timestamp,
) -> Limited {
    let within = Limited { replicas: desired, reason: Reason::DesiredWithinRange };
    let limited = |replicas, reason| Limited { replicas, reason };
    match desired.cmp(&current) {
        Ordering::Greater => {
            let limit = scale_up_limit(&behavior.up, memory, current, now).max(current);
            let reason = if max > limit { Reason::ScaleUpLimit } else { Reason::TooManyReplicas };
            let most = max.min(limit);
            if desired > most { limited(most, reason) } else { within }
        }
        Ordering::Less => {
            let limit = scale_down_limit(&behavior.down, memory, current, now).min(current);
            let reason = if min < limit { Reason::ScaleDownLimit } else { Reason::TooFewReplicas };
            let least = min.max(limit);
            if desired < least { limited(least, reason) } else { within }
        }
        Ordering::Equal => within,
    }
}

/// Replicas that the policies allow to scale up to; below the current ones when a period is used up.
#[allow(clippy::cast_possible_truncation, reason = "`as` saturates")]
pub fn scale_up_limit(rules: &Rules, memory: &Memory, current: i32, now: Timestamp) -> i32 {
    let limits = rules.policies.iter().map(|policy| {
        let start = at_start_of_period(policy.period, memory, current, now);
        match policy.amount {
            Amount::Pods(pods) => start.saturating_add(pods),
            // Rounded up, or a small percentage of few pods would never add one.
            Amount::Percent(percent) => (f64::from(start) * (1.0 + f64::from(percent) / 100.0)).ceil() as i32,
        }
    });
    match rules.select {
        Select::Max => limits.max().unwrap_or(i32::MIN),
        Select::Min => limits.min().unwrap_or(i32::MAX),
        Select::Disabled => current,
    }
}

/// Replicas that the policies allow to scale down to; above the current ones when a period is used up.
#[allow(clippy::cast_possible_truncation, reason = "`as` saturates and cuts the fraction off as Go does")]
pub fn scale_down_limit(rules: &Rules, memory: &Memory, current: i32, now: Timestamp) -> i32 {
    let limits = rules.policies.iter().map(|policy| {
        let start = at_start_of_period(policy.period, memory, current, now);
        match policy.amount {
            Amount::Pods(pods) => start.saturating_sub(pods),
            Amount::Percent(percent) => (f64::from(start) * (1.0 - f64::from(percent) / 100.0)) as i32,
        }
    });
    match rules.select {
        Select::Max => limits.min().unwrap_or(i32::MAX),
        Select::Min => limits.max().unwrap_or(i32::MIN),
        Select::Disabled => current,
    }
}

fn at_start_of_period(period: SignedDuration, memory: &Memory, current: i32, now: Timestamp) -> i32 {
    let added = change_in_period(period, &memory.scale_ups, now);
    let removed = change_in_period(period, &memory.scale_downs, now);
    current.saturating_sub(added).saturating_add(removed)
}

/// Replicas that changed in the last `period`; an event exactly as old counts no more.
pub fn change_in_period(period: SignedDuration, events: &[ScaleEvent], now: Timestamp) -> i32 {
    let since = cutoff(now, period);
    events.iter().filter(|event| event.at > since).map(|event| event.change).fold(0, i32::saturating_add)
}

/// Keeps a change in memory for the policies, in the last place that became free.
pub fn store_scale_event(behavior: &Behavior, memory: &mut Memory, from: i32, to: i32, now: Timestamp) {
    let (rules, events) = if to > from {
        (&behavior.up, &mut memory.scale_ups)
    } else {
        (&behavior.down, &mut memory.scale_downs)
    };
    let since = cutoff(now, rules.longest_period());
    let event = ScaleEvent { change: to.saturating_sub(from).saturating_abs(), at: now, outdated: false };
    let mut free = None;
    for place in events.iter_mut() {
        place.outdated |= place.at < since;
        if place.outdated {
            free = Some(place);
        }
    }
    match free {
        Some(place) => *place = event,
        None => events.push(event),
    }
}
