//! Pods that controllers will make and that are not there yet (`--enable-proactive-scaleup`).
//!
//! Source: Cluster Autoscaler, `processors/podinjection`.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;

use super::{DemandSettings, Expectation, Ledger, Wanted, offers};
use crate::scheduling::{
    Pod,
    pod::{Owner, Shape},
};

/// How long pods of a controller are waited for of which none comes: it makes what it may within seconds.
const PATIENCE: SignedDuration = SignedDuration::from_mins(1);
/// How long nothing is expected of it then (the peer's `baseBackoff`), each time twice as long,
const COOL_OFF: SignedDuration = SignedDuration::from_mins(5);
/// at most so long (the peer's `backoffThreshold`): longer than a node that is not needed stays, or it would be kept for ever.
const LONGEST: SignedDuration = SignedDuration::from_mins(30);

/// How many pods a Job will have at once: as many as run in parallel, of those that have yet to succeed.
pub fn replicas_of_job(job: &Job) -> i32 {
    let spec = job.spec.as_ref();
    if spec.and_then(|spec| spec.suspend) == Some(true) {
        return 0;
    }
    let parallelism = spec.and_then(|spec| spec.parallelism).unwrap_or(1);
    let succeeded = job.status.as_ref().and_then(|status| status.succeeded).unwrap_or(0);
    match spec.and_then(|spec| spec.completions) {
        // A queue of work: once a pod found it empty, no more are made.
        None if succeeded == 0 => parallelism.max(0),
        None => 0,
        Some(completions) => completions.saturating_sub(succeeded).min(parallelism).max(0),
    }
}

/// What is expected of the controllers of pods that wait.
#[derive(Debug, Clone, Default)]
pub struct Controllers(Ledger);

impl Controllers {
    /// The pods that will come, unbound, in order of their controllers. `waits` tells pods that ask for a node: with those that
    /// are expected they are `limit` at most. `replicas` tells how many pods a controller of a namespace wants, if it is one
    /// that counts; those whose uid is among `counted` are expected already.
    pub fn expected(
        &mut self,
        pods: &[Arc<Pod>],
        (counted, limit): (&BTreeSet<Arc<str>>, u32),
        waits: impl Fn(&Pod) -> bool,
        replicas: impl Fn(&Owner, &str) -> Option<u32>,
        now: Timestamp,
    ) -> Vec<Arc<Pod>> {
        let mut groups: HashMap<&str, Group<'_>> = HashMap::new();
        let mut waiting = 0_u32;
        for pod in pods.iter().filter(|pod| !pod.is_terminal() && pod.deleting.is_none()) {
            let is_waiting = waits(pod);
            waiting = waiting.saturating_add(u32::from(is_waiting));
            let Some(owner) = pod.shape.owner.as_ref().filter(|owner| !counted.contains(&owner.uid)) else {
                continue;
            };
            let group = groups.entry(&owner.uid).or_default();
            group.pods += 1;
            // The same one whatever the order in which pods are seen.
            if is_waiting && group.sample.is_none_or(|sample| newer(pod, sample)) {
                group.sample = Some(pod);
            }
        }
        let lacking: Vec<_> = groups.into_values().filter_map(|group| group.lacking(&replicas)).collect();
        let wanted: Vec<_> = lacking.iter().map(|(wanted, _)| wanted.clone()).collect();
        let most = limit.saturating_sub(waiting);
        let settings = DemandSettings { most, patience: PATIENCE, cool_off: COOL_OFF, longest: LONGEST };
        let shapes: HashMap<Arc<str>, Arc<Shape>> =
            lacking.into_iter().map(|(wanted, shape)| (wanted.object, shape)).collect();
        let expectations = self.0.update(&wanted, now, &settings);
        let pods_of = |one: &Expectation| -> Vec<_> {
            shapes.get(&one.object).into_iter().flat_map(|shape| offers::pods(one, shape)).collect()
        };
        expectations.iter().flat_map(pods_of).collect()
    }
}

/// The pods of a controller.
#[derive(Default)]
struct Group<'a> {
    pods: u32,
    /// One that waits; a controller all of whose pods have nodes is not made to wait for more.
    sample: Option<&'a Arc<Pod>>,
}

impl Group<'_> {
    fn lacking(&self, replicas: impl Fn(&Owner, &str) -> Option<u32>) -> Option<(Wanted, Arc<Shape>)> {
        let shape = &self.sample?.shape;
        let owner = shape.owner.as_ref()?;
        let replicas = replicas(owner, &shape.namespace)?;
        let object = format!("{}/{}/{}", owner.kind, shape.namespace, owner.name).into();
        Some((Wanted { object, replicas, max: replicas, pods: self.pods }, shape.clone()))
    }
}

/// The newest pod has what admission added, too.
fn newer(one: &Pod, other: &Pod) -> bool {
    (one.created, &one.name) > (other.created, &other.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scheduling::{
        Resources,
        pod::{Scheduled, Traits},
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
    }

    fn pod(set: &str, number: usize, scheduled: Scheduled) -> Arc<Pod> {
        let owner = Owner {
            kind: "ReplicaSet".into(),
            name: set.into(),
            uid: format!("uid-{set}").into(),
            api_version: "apps/v1".into(),
        };
        let traits = Traits { namespace: "ns".into(), owner: Some(owner), ..Traits::default() };
        let shape = Arc::new(Shape::new(Resources::default(), traits));
        Arc::new(Pod { name: format!("{set}-{number}").into(), shape, scheduled, ..Pod::default() })
    }

    /// Pods of a set: some with a node, the others without.
    fn set(name: &str, bound: usize, waiting: usize) -> Vec<Arc<Pod>> {
        let scheduled =
            |number| if number < bound { Scheduled::Bound } else { Scheduled::Unschedulable(at(0)) };
        (0..bound + waiting).map(|number| pod(name, number, scheduled(number))).collect()
    }

    /// How many pods are expected of sets that want so many each.
    fn expected(controllers: &mut Controllers, pods: &[Arc<Pod>], replicas: u32, second: i64) -> usize {
        limited(controllers, pods, (replicas, &[], 5000), second)
    }

    fn limited(
        controllers: &mut Controllers,
        pods: &[Arc<Pod>],
        (replicas, counted, limit): (u32, &[&str], u32),
        second: i64,
    ) -> usize {
        let counted = counted.iter().map(|uid| Arc::from(*uid)).collect();
        let waits = |pod: &Pod| matches!(pod.scheduled, Scheduled::Unschedulable(_));
        let of = |owner: &Owner, namespace: &str| {
            (&*owner.kind == "ReplicaSet" && namespace == "ns").then_some(replicas)
        };
        let expected = controllers.expected(pods, (&counted, limit), waits, of, at(second));
        assert!(expected.iter().all(|pod| pod.node.is_none() && pod.shape.owner.is_some()));
        expected.len()
    }

    #[test]
    fn what_a_controller_lacks_is_expected_where_one_of_its_pods_waits() {
        let two = || [set("a", 1, 1), set("b", 0, 2)].concat();
        for (name, pods, rule, wanted) in [
            ("all that it lacks", set("a", 3, 1), (10, &[][..], 5000), 6),
            ("none, since it lacks none", set("a", 3, 1), (4, &[], 5000), 0),
            ("none, since it has more", set("a", 3, 1), (2, &[], 5000), 0),
            ("none, since all have nodes", set("a", 3, 0), (10, &[], 5000), 0),
            ("those of each", two(), (10, &[], 5000), 16),
            ("as many as may be, beside those that wait", two(), (10, &[], 9), 6),
            ("none, since as many wait", two(), (10, &[], 3), 0),
            ("those that nobody else expects", two(), (10, &["uid-a"], 5000), 8),
        ] {
            assert_eq!(limited(&mut Controllers::default(), &pods, rule, 0), wanted, "{name}");
        }
        let gated = [pod("a", 0, Scheduled::Gated)];
        assert_eq!(expected(&mut Controllers::default(), &gated, 10, 0), 0, "it asks for no node yet");
    }

    #[test]
    fn pods_that_a_controller_cannot_make_hold_a_node_ever_less() {
        let (mut controllers, pods) = (Controllers::default(), set("a", 0, 1));
        let mut expected_at = Vec::new();
        for minute in 0..120 {
            if expected(&mut controllers, &pods, 4, minute * 60) > 0 {
                expected_at.push(minute);
            }
        }
        assert_eq!(expected_at, [0, 6, 17, 38, 69, 100]);
        let more = set("a", 0, 2);
        assert_eq!(expected(&mut controllers, &more, 4, 120 * 60), 2, "one came");
        assert_eq!(expected(&mut controllers, &more, 4, 121 * 60), 0);
        assert_eq!(expected(&mut controllers, &more, 4, 126 * 60), 2, "and the next wait is short again");
    }

    #[test]
    fn a_job_has_as_many_pods_as_it_says() {
        for (spec, status, wanted) in [
            (json!({}), json!({}), 1),
            (json!({"parallelism": 3}), json!({}), 3),
            (json!({"parallelism": 3}), json!({"succeeded": 1}), 0),
            (json!({"parallelism": 3, "completions": 9}), json!({}), 3),
            (json!({"parallelism": 3, "completions": 9}), json!({"succeeded": 7}), 2),
            (json!({"completions": 9}), json!({"succeeded": 10}), 0),
            (json!({"parallelism": 0, "completions": 9}), json!({}), 0),
            (json!({"parallelism": 3, "suspend": true}), json!({}), 0),
        ] {
            let mut job = json!({"metadata": {}, "spec": spec, "status": status});
            job["spec"]["template"] = json!({});
            let job: Job = serde_json::from_value(job).unwrap();
            assert_eq!(replicas_of_job(&job), wanted, "{spec} {status}");
        }
    }
}
