//! In which order pods leave a node, and how long each may take.
//!
//! Source: Cluster Autoscaler, `core/scaledown/actuation/{drain,priority}.go` and `utils/daemonset/daemonset.go`.

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use jiff::SignedDuration;
use thiserror::Error;

use crate::scheduling::Pod;

/// Annotation of DaemonSets' pods: whether they are evicted when their node goes, whatever the flags say.
const EVICT_DAEMON_POD: &str = "cluster-autoscaler.kubernetes.io/enable-ds-eviction";

/// Why an order cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OrderError {
    /// It is no pair of two integers.
    #[error("{0:?} is no pair of a priority and seconds; write PRIORITY:SECONDS,..., such as 1000:60,0:30")]
    Pair(String),
    /// A priority comes twice.
    #[error("priority {0} comes twice; give it one grace period")]
    Twice(i32),
}

/// The longest grace period by priority (`--drain-priority-config`): pods of lower priorities leave first, and have to be gone
/// before the next are asked to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order(BTreeMap<i32, u32>);

impl FromStr for Order {
    type Err = OrderError;

    fn from_str(text: &str) -> Result<Self, OrderError> {
        let mut order = Self::default();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let numbers = pair
                .split_once(':')
                .and_then(|(priority, seconds)| Some((priority.parse().ok()?, seconds.parse().ok()?)));
            let (priority, seconds) = numbers.ok_or_else(|| OrderError::Pair(pair.to_owned()))?;
            if order.0.insert(priority, seconds).is_some() {
                return Err(OrderError::Twice(priority));
            }
        }
        Ok(order)
    }
}

/// Pods that leave together.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Their own grace periods count up to this.
    pub grace: SignedDuration,
    /// The pods.
    pub pods: Vec<Arc<Pod>>,
}

impl Order {
    /// Those that leave first come first. Without an order all leave at once, within `grace`.
    ///
    /// A pod is of the highest priority that is not above its own, or of the lowest there is.
    pub fn turns(&self, pods: &[Arc<Pod>], grace: SignedDuration) -> Vec<Turn> {
        let lowest = self.0.first_key_value();
        let of = |pod: &Pod| self.0.range(..=pod.shape.priority.unwrap_or(0)).next_back().or(lowest);
        let mut turns: BTreeMap<Option<i32>, Turn> = BTreeMap::new();
        for pod in pods {
            let own = of(pod);
            let grace = own.map_or(grace, |(_, seconds)| SignedDuration::from_secs(i64::from(*seconds)));
            let turn = turns.entry(own.map(|(priority, _)| *priority));
            turn.or_insert_with(|| Turn { grace, pods: Vec::new() }).pods.push(pod.clone());
        }
        turns.into_values().collect()
    }
}

/// Whether a DaemonSet's pod is evicted when its node goes: as its annotation says, else as the flag does.
pub fn is_daemon_pod_evicted(pod: &Pod, by_default: bool) -> bool {
    pod.shape.annotations.get(EVICT_DAEMON_POD).map_or(by_default, |value| value == "true")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::pod::{Shape, Traits};

    fn pod(priority: Option<i32>, annotation: Option<&str>) -> Arc<Pod> {
        let annotations = annotation.map(|value| (EVICT_DAEMON_POD.to_owned(), value.to_owned()));
        let traits = Traits { priority, annotations: annotations.into_iter().collect(), ..Traits::default() };
        Arc::new(Pod { shape: Arc::new(Shape::from(traits)), ..Pod::default() })
    }

    fn turns(order: &str, priorities: &[i32]) -> Vec<(i64, Vec<i32>)> {
        let order: Order = order.parse().unwrap();
        let pods: Vec<_> = priorities.iter().map(|priority| pod(Some(*priority), None)).collect();
        let turns = order.turns(&pods, SignedDuration::from_secs(600));
        let of = |turn: &Turn| turn.pods.iter().filter_map(|pod| pod.shape.priority).collect();
        turns.iter().map(|turn| (turn.grace.as_secs(), of(turn))).collect()
    }

    #[test]
    fn lower_priorities_leave_first() {
        assert_eq!(turns("", &[5, -5]), [(600, vec![5, -5])]);
        assert_eq!(turns("", &[]), []);
        let order = "1000:20, 0:60,100:30";
        assert_eq!(
            turns(order, &[5000, 1000, 999, 100, 99, 0, -7]),
            [(60, vec![99, 0, -7]), (30, vec![999, 100]), (20, vec![5000, 1000])]
        );
        assert_eq!(turns(order, &[2000]), [(20, vec![2000])], "nobody waits for a turn that has no pods");
        let none = "0:1,-1:2".parse::<Order>().unwrap().turns(&[pod(None, None)], SignedDuration::ZERO);
        assert_eq!(none[0].grace.as_secs(), 1, "no priority is priority 0");
    }

    #[test]
    fn what_is_no_order_is_said() {
        for wrong in ["0", "0:-1", "a:1", "0:1:2"] {
            assert_eq!(wrong.parse::<Order>(), Err(OrderError::Pair(wrong.to_owned())), "{wrong}");
        }
        assert_eq!("0:1,0:2".parse::<Order>(), Err(OrderError::Twice(0)));
    }

    #[test]
    fn a_daemon_sets_pod_says_for_itself_whether_it_is_evicted() {
        for (annotation, by_default, wanted) in [
            (None, true, true),
            (None, false, false),
            (Some("true"), false, true),
            (Some("false"), true, false),
            (Some(""), true, false),
        ] {
            assert_eq!(is_daemon_pod_evicted(&pod(None, annotation), by_default), wanted, "{annotation:?}");
        }
    }
}
