//! What a request is to a pass, and what time and its pods have made of it.

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt as _;

use super::{
    Pods, Problem, Request, Stage,
    conditions::{self, BOOKED, Former, SCHEDULABLE_POD_SETS},
    pods,
    terms::{MOST_PODS, Terms},
};
use crate::{
    api::autoscaling::{PodSet, ProvisioningRequest, ProvisioningRequestSpec},
    nodes::buffer::Said,
    scheduling::{Pod, pod::Shape},
};

/// A request that was looked at.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sight {
    /// What is to be said of it.
    pub said: Vec<Said>,
    /// What a pass has to see; `None` if it asks for nothing (any more).
    pub request: Option<Request>,
    /// Whether it is tried again when there is no room.
    pub retries: bool,
}

/// Looks at a request; `None` if somebody else answers it. `consumers` are the pods that have a node and consume it,
/// `template` finds PodTemplates of its namespace by name, `instance` is `--check-capacity-processor-instance`.
pub fn look(
    object: &ProvisioningRequest,
    consumers: &[Arc<Pod>],
    template: impl Fn(&str) -> Option<Arc<Shape>>,
    instance: &str,
    now: Timestamp,
) -> Option<Sight> {
    let terms = Terms::read(&object.spec, instance)?;
    let former = Former(object.status.as_ref().map_or(&[], |status| &status.conditions));
    let over = |said: Option<Said>| Some(Sight { said: said.into_iter().collect(), ..Sight::default() });
    if former.is_over() {
        return over(None);
    }
    let booked = former.booked();
    let created = object.creation_timestamp().map_or(now, |time| time.0);
    if booked.is_some_and(|(since, _)| now.duration_since(since) >= BOOKED) {
        return over(Some(conditions::booking_expired()));
    }
    if booked.is_none() && former.was_refused() && now.duration_since(created) >= terms.valid {
        return over(Some(conditions::expired()));
    }
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let mut sets = match sets(&object.spec, (&namespace, &name), template) {
        Ok(sets) => sets,
        Err(problem) => return over(Some(conditions::wrong(&problem, booked.is_some()))),
    };
    let mut said = Vec::new();
    if let Some((_, whole)) = booked {
        if !whole {
            keep_those_that_fit(&mut sets, object);
        }
        consume(&mut sets, consumers);
        if sets.iter().all(|set| set.pods.is_empty()) {
            return over(Some(conditions::consumed()));
        }
    } else {
        said.push(conditions::accepted(&terms));
    }
    let request = Request {
        name: format!("{namespace}/{name}").into(),
        uid: object.uid().unwrap_or_default().into(),
        class: terms.class,
        stage: if booked.is_some() { Stage::Booked } else { Stage::Open },
        sets,
    };
    Some(Sight { said, request: Some(request), retries: terms.retries })
}

/// The pods that a spec asks room for.
fn sets(
    spec: &ProvisioningRequestSpec,
    (namespace, request): (&str, &str),
    template: impl Fn(&str) -> Option<Arc<Shape>>,
) -> Result<Vec<Pods>, Problem> {
    let counts = spec.pod_sets.iter().enumerate();
    let counts: Vec<_> = counts.map(|(set, of)| Ok((set, of, count(set, of)?))).collect::<Result<_, _>>()?;
    let all: u64 = counts.iter().map(|(_, _, count)| u64::from(*count)).sum();
    match all {
        0 => return Err(Problem::NoPodSets),
        pods if pods > u64::from(MOST_PODS) => return Err(Problem::TooMany { pods }),
        _ => {}
    }
    let of = |(set, of, count): (usize, &PodSet, u32)| {
        let name = &of.pod_template_ref.name;
        let missing = || Problem::NoTemplate { set, namespace: namespace.to_owned(), name: name.to_owned() };
        let shape = template(name).ok_or_else(missing)?;
        let pods = pods(namespace, request, (set, &shape), count);
        Ok(Pods { template: name.as_str().into(), pods })
    };
    counts.into_iter().map(of).collect()
}

fn count(set: usize, of: &PodSet) -> Result<u32, Problem> {
    let wrong = Problem::Count { set, count: of.count };
    u32::try_from(of.count).ok().filter(|count| *count > 0).ok_or(wrong)
}

/// Of a request for which there was room in part, the rest asks for nothing.
fn keep_those_that_fit(sets: &mut Vec<Pods>, object: &ProvisioningRequest) {
    let status = object.status.as_ref();
    let detail = status.and_then(|status| status.provisioning_class_details.get(SCHEDULABLE_POD_SETS));
    let fitting: Vec<String> =
        detail.and_then(|detail| serde_json::from_str(detail).ok()).unwrap_or_default();
    sets.retain(|set| fitting.iter().any(|template| **template == *set.template));
}

/// A pod that has a node takes the room of one that asks for as much, or else of any.
fn consume(sets: &mut [Pods], consumers: &[Arc<Pod>]) {
    for consumer in consumers {
        let alike =
            |set: &Pods| set.pods.last().is_some_and(|pod| pod.shape.requests == consumer.shape.requests);
        let at = sets.iter().position(alike).or_else(|| sets.iter().position(|set| !set.pods.is_empty()));
        if let Some(set) = at.and_then(|at| sets.get_mut(at)) {
            set.pods.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use serde_json::{Value, json};

    use super::*;
    use crate::{nodes::provisioning_request::consumed_by, scheduling::Resources};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
    }

    fn shape(cpu: i64) -> Arc<Shape> {
        let requests = Resources { cpu, pods: 1, ..Resources::default() };
        Arc::new(Shape { requests, ..Shape::default() })
    }

    /// The templates that there are: their names are their cores.
    fn template(name: &str) -> Option<Arc<Shape>> {
        name.parse().ok().map(|cores: i64| shape(cores * 1_000))
    }

    /// A request for pods of one core and of two.
    fn request(pod_sets: &Value, status: &Value) -> ProvisioningRequest {
        serde_json::from_value(json!({
            "apiVersion": "autoscaling.x-k8s.io/v1", "kind": "ProvisioningRequest",
            "metadata": {"namespace": "ns", "name": "r", "uid": "u", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {
                "provisioningClassName": "best-effort-atomic-scale-up.autoscaling.x-k8s.io",
                "parameters": {"ValidUntilSeconds": "100"},
                "podSets": pod_sets,
            },
            "status": status,
        }))
        .unwrap()
    }

    fn sets(counts: &[(&str, i64)]) -> Value {
        counts.iter().map(|(name, count)| json!({"podTemplateRef": {"name": name}, "count": count})).collect()
    }

    fn condition(kind: &str, status: &str, reason: &str) -> Value {
        json!({"type": kind, "status": status, "reason": reason, "message": "",
            "lastTransitionTime": "1970-01-01T00:00:00Z"})
    }

    /// What is said at a time, and for how many pods of each set the pass has to see room.
    fn seen(
        object: &ProvisioningRequest,
        consumers: &[Arc<Pod>],
        second: i64,
    ) -> (String, Option<Vec<usize>>) {
        let sight = look(object, consumers, template, "", at(second)).unwrap();
        let said: Vec<_> =
            sight.said.iter().map(|it| format!("{} {} {}", it.kind, it.holds, it.reason)).collect();
        let counts = |request: Request| request.sets.iter().map(|set| set.pods.len()).collect();
        (said.join(", "), sight.request.map(counts))
    }

    #[test]
    fn it_asks_until_it_is_answered_or_too_old() {
        let both = sets(&[("1", 2), ("2", 1)]);
        let of = |conditions: &[Value]| request(&both, &json!({"conditions": conditions}));
        let refused = [condition("Provisioned", "False", "CapacityIsNotFound")];
        let found = [condition("Provisioned", "True", "CapacityIsFound")];
        let room = || Some(vec![2, 1]);
        for (name, object, second, said, pods) in [
            ("it is new", of(&[]), 0, "Accepted true Accepted", room()),
            ("nobody has tried it yet", of(&[]), 1_000, "Accepted true Accepted", room()),
            ("it is tried again", of(&refused), 99, "Accepted true Accepted", room()),
            ("it is too old", of(&refused), 100, "Failed true Expired", None),
            ("room is kept", of(&found), 599, "", room()),
            ("for ten minutes", of(&found), 600, "BookingExpired true CapacityReservationTimeExpired", None),
            ("it failed", of(&[condition("Failed", "True", "Expired")]), 0, "", None),
            ("it is over", of(&[condition("BookingExpired", "True", "x"), found[0].clone()]), 0, "", None),
        ] {
            assert_eq!(seen(&object, &[], second), (said.to_owned(), pods), "{name}");
        }
    }

    #[test]
    fn pods_that_have_a_node_take_the_room_that_was_kept_for_them() {
        let booked = json!({"conditions": [condition("Provisioned", "True", "CapacityIsFound")]});
        let object = request(&sets(&[("1", 2), ("2", 1)]), &booked);
        let pod = |cores: i64| Arc::new(Pod { shape: shape(cores * 1_000), ..Pod::default() });
        assert_eq!(seen(&object, &[pod(2)], 1).1, Some(vec![2, 0]), "as much as it requests");
        assert_eq!(seen(&object, &[pod(7)], 1).1, Some(vec![1, 1]), "nobody asked for as much");
        let all = [pod(1), pod(1), pod(2)];
        assert_eq!(seen(&object, &all, 1), ("BookingExpired true CapacityBookingConsumed".to_owned(), None));
        let part = json!({"conditions": [condition("Provisioned", "True", "PartialCapacityIsFound")],
            "provisioningClassDetails": {"schedulablePodSets": "[\"2\"]"}});
        assert_eq!(seen(&request(&sets(&[("1", 2), ("2", 1)]), &part), &[], 1).1, Some(vec![1]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let none = Value::Null;
        let booked = json!({"conditions": [condition("Provisioned", "True", "CapacityIsFound")]});
        for (pod_sets, status, kind, reason, message) in [
            (sets(&[]), &none, "Failed", "FailedToCreatePods", "podSets is empty"),
            (
                sets(&[("1", 0)]),
                &none,
                "Failed",
                "FailedToCreatePods",
                "podSets[0].count is 0; write 1 or more",
            ),
            (sets(&[("1", 5), ("1", -3)]), &none, "Failed", "FailedToCreatePods", "podSets[1].count is -3"),
            (sets(&[("1", 100_001)]), &none, "Failed", "FailedToCreatePods", "podSets count 100001 pods"),
            (
                sets(&[("one", 1)]),
                &none,
                "Accepted",
                "PodTemplateNotFound",
                "there is no PodTemplate one in namespace ns; create it",
            ),
            (sets(&[("one", 1)]), &booked, "Failed", "FailedToBookCapacity", "there is no PodTemplate one"),
        ] {
            let sight = look(&request(&pod_sets, status), &[], template, "", at(0)).unwrap();
            assert_eq!(sight.request, None, "{pod_sets}");
            assert_eq!((sight.said[0].kind, sight.said[0].reason), (kind, reason), "{pod_sets}");
            assert!(sight.said[0].message.starts_with(message), "{}", sight.said[0].message);
        }
        let waiting = json!({"conditions": [condition("Accepted", "False", "PodTemplateNotFound")]});
        let said = seen(&request(&sets(&[("one", 1)]), &waiting), &[], 100).0;
        assert_eq!(said, "Failed true Expired", "a template that never comes is not waited for without end");
    }

    #[test]
    fn pods_of_a_request_are_as_its_templates_and_consume_it() {
        let sight = look(&request(&sets(&[("1", 2)]), &Value::Null), &[], template, "", at(0)).unwrap();
        let request = sight.request.unwrap();
        let pods = &request.sets[0].pods;
        assert_eq!((&*pods[0].shape.namespace, pods[0].shape.requests.cpu), ("ns", 1_000));
        assert_eq!(consumed_by(&pods[1]), Some("r"));
        assert!(Arc::ptr_eq(&pods[0].shape, &pods[1].shape), "one shape, read once");
        assert_ne!(pods[0].uid, pods[1].uid);
        assert_eq!(consumed_by(&Pod::default()), None);
    }
}
