//! Events of demand, on the ScaledObject. The peers have none: there, pods and nodes do not know of each other.

use jiff::Timestamp;

use super::{Expectation, Forecast, Held};
use crate::pods::reasons::Event;

/// Nodes are asked for pods that do not exist yet.
pub const PODS_EXPECTED: &str = "PodsExpected";
/// Pods that nodes were asked for did not come.
pub const EXPECTED_PODS_MISSING: &str = "ExpectedPodsMissing";

/// Every reason: its types and when it is given. The documentation is written from this table.
pub const EVENTS: &[(&str, &str, &str)] = &[
    (PODS_EXPECTED, "Normal", "nodes are asked for pods that the HPA is about to ask for, once a rise"),
    (
        EXPECTED_PODS_MISSING,
        "Warning",
        "those pods did not come; for a while no nodes are asked for before pods of this object are pending",
    ),
];

/// What an expectation of this look says, if it says anything new.
pub fn news(expectation: &Expectation, forecast: &Forecast) -> Option<Event> {
    match expectation.held {
        Some(Held::CoolOff { until, begins: true }) => {
            Some(expected_pods_missing(expectation.missing, until))
        }
        _ => expectation.begins.then(|| pods_expected(expectation, forecast)),
    }
}

/// Nodes are asked for pods of an object that do not exist yet.
pub fn pods_expected(expectation: &Expectation, forecast: &Forecast) -> Event {
    let Expectation { pods, missing, held, .. } = expectation;
    let Forecast { from, to, metric, .. } = forecast;
    // Its selector, as Go prints it, tells nobody anything.
    let metric = metric.as_ref().and_then(|metric| metric.split('(').next());
    let by = metric.map(|metric| format!(" by {metric}")).unwrap_or_default();
    let most = match held {
        Some(Held::Most) => format!(" of {missing} (--max-expected-pods)"),
        _ => String::new(),
    };
    Event {
        type_: "Normal",
        reason: PODS_EXPECTED,
        message: format!("nodes are asked for {pods}{most} expected pods: {from} -> {to} replicas{by}"),
    }
}

/// Pods of an object did not come.
pub fn expected_pods_missing(missing: u32, until: Timestamp) -> Event {
    Event {
        type_: "Warning",
        reason: EXPECTED_PODS_MISSING,
        message: format!("{missing} expected pods did not come; none are expected until {until:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_said_with_its_cause_and_its_bound() {
        let mut expectation =
            Expectation { object: "ns/web".into(), pods: 6, missing: 6, held: None, begins: true };
        let metric = Some("external metric s0-queue(nil)".into());
        let forecast = Forecast { from: 2, to: 8, metric, falls: false };
        assert_eq!(
            pods_expected(&expectation, &forecast).message,
            "nodes are asked for 6 expected pods: 2 -> 8 replicas by external metric s0-queue"
        );
        (expectation.pods, expectation.held) = (4, Some(Held::Most));
        assert!(
            pods_expected(&expectation, &forecast).message.contains("4 of 6 (--max-expected-pods) expected")
        );
        let until = Timestamp::UNIX_EPOCH;
        assert!(expected_pods_missing(6, until).message.ends_with("until 1970-01-01T00:00:00Z"));
    }
}
