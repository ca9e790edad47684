//! Pods that are drained one priority after another, each with a grace period of its own.
//!
//! Source: Cluster Autoscaler, `core/scaledown/actuation/priority.go`, which took it from the kubelet's graceful shutdown.

use std::{str::FromStr, sync::Arc, time::Duration};

use crate::scheduling::Pod;

/// The longest grace period of pods by priority (`--drain-priority-config`), the lowest priority first; empty if none are told
/// apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Priorities(Vec<(i32, Duration)>);

impl FromStr for Priorities {
    type Err = String;

    /// Reads `PRIORITY:SECONDS,PRIORITY:SECONDS`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut priorities = Vec::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let read = pair.split_once(':').and_then(|(priority, seconds)| {
                let seconds: u64 = seconds.trim().parse().ok()?;
                Some((priority.trim().parse().ok()?, Duration::from_secs(seconds)))
            });
            let hint =
                || format!("{pair:?} is no priority and grace period; write PRIORITY:SECONDS, as 1000:60");
            priorities.push(read.ok_or_else(hint)?);
        }
        priorities.sort();
        if let Some(twice) = priorities.windows(2).find(|two| two[0].0 == two[1].0) {
            return Err(format!("priority {} is given twice; write each once", twice[0].0));
        }
        Ok(Self(priorities))
    }
}

impl Priorities {
    /// Whether no priorities are told apart.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pods that go together, in the order in which they go, with the longest grace period of each; `longest` is that of
    /// all if no priorities are told apart. A pod goes with the highest priority that is not above its own, or with the
    /// lowest.
    pub fn groups(
        &self,
        pods: Vec<Arc<Pod>>,
        longest: Option<Duration>,
    ) -> Vec<(Option<Duration>, Vec<Arc<Pod>>)> {
        if self.0.is_empty() {
            return vec![(longest, pods)];
        }
        let mut groups: Vec<_> = self.0.iter().map(|(_, grace)| (Some(*grace), Vec::new())).collect();
        for pod in pods {
            let priority = pod.shape.priority.unwrap_or(0);
            let above = self.0.partition_point(|(other, _)| *other <= priority);
            groups[above.saturating_sub(1)].1.push(pod);
        }
        groups.retain(|(_, pods)| !pods.is_empty());
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::{
        Resources,
        pod::{Shape, Traits},
    };

    fn pod(name: &str, priority: Option<i32>) -> Arc<Pod> {
        let shape = Shape::new(Resources::default(), Traits { priority, ..Traits::default() });
        Arc::new(Pod { name: name.into(), shape: Arc::new(shape), ..Pod::default() })
    }

    #[test]
    fn pods_go_by_priority_each_with_its_grace() {
        let priorities: Priorities = "1000:60, 0:30,2000:10".parse().unwrap();
        let pods = [("low", -5), ("zero", 0), ("middle", 999), ("high", 1000), ("top", 5000)];
        let pods = pods.map(|(name, priority)| pod(name, Some(priority)));
        let groups = priorities.groups(pods.into_iter().chain([pod("none", None)]).collect(), None);
        let names = groups.iter().map(|(grace, pods)| {
            (grace.unwrap().as_secs(), pods.iter().map(|pod| &*pod.name).collect::<Vec<_>>())
        });
        assert_eq!(
            names.collect::<Vec<_>>(),
            [(30, vec!["low", "zero", "middle", "none"]), (60, vec!["high"]), (10, vec!["top"])]
        );
    }

    #[test]
    fn without_priorities_all_go_at_once() {
        let groups = Priorities::default().groups(vec![pod("a", Some(9))], Some(Duration::from_secs(600)));
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].0, Some(Duration::from_secs(600)));
    }

    #[test]
    fn what_does_not_read_is_said() {
        for (wrong, said) in [
            ("60", "\"60\" is no priority and grace period"),
            ("1:2,high:60", "\"high:60\" is no priority"),
            ("1:-2", "\"1:-2\" is no priority"),
            ("1:2,1:3", "priority 1 is given twice"),
        ] {
            let error = wrong.parse::<Priorities>().unwrap_err();
            assert!(error.starts_with(said), "{wrong}: {error}");
        }
        assert!("".parse::<Priorities>().unwrap().is_empty());
    }
}
