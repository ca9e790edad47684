//! Capacity buffers: room that is kept for pods which are not there yet.
//!
//! A buffer stands for pods that only the decisions about nodes see: no scheduler knows them, so a real pod takes their room
//! the moment it comes, and the room is made again. They are placed after all pods that are real.

mod conditions;
mod quota;
pub mod reasons;
mod scopes;
mod size;

use std::{collections::BTreeMap, sync::Arc};

pub use conditions::{Placement, Said, limited, provisioning, ready};
pub use quota::{Allotment, Quota, allot};
pub use scopes::Traits;
pub use size::{MOST_REPLICAS, Problem, Source, replicas};

use super::pools::provision::Plan;
use crate::scheduling::{
    Pod,
    pod::{Owner, Shape},
};

/// The API version of buffers.
pub const API_VERSION: &str = "autoscaling.x-k8s.io/v1beta1";
/// Their kind.
pub const KIND: &str = "CapacityBuffer";

/// The annotation of pods that only stand for room, `true` (Karpenter, `pkg/controllers/capacitybuffer`).
const FAKE_POD: &str = "karpenter.sh/capacity-buffer-fake-pod";
/// The annotation that names their buffer.
const BUFFER_NAME: &str = "karpenter.sh/capacity-buffer-name";
/// The annotation that names its namespace.
const BUFFER_NAMESPACE: &str = "karpenter.sh/capacity-buffer-namespace";
/// Their priority: below every other, since they may be in nobody's way.
const LOWEST_PRIORITY: i32 = i32::MIN;

/// The pods that stand for a buffer, as its template has them. Their volumes are left out: no claims are there for them.
pub fn pods(namespace: &str, name: &str, template: &Shape, count: u32) -> Vec<Arc<Pod>> {
    let mut shape = template.clone();
    let said = [(FAKE_POD, "true"), (BUFFER_NAME, name), (BUFFER_NAMESPACE, namespace)];
    shape.annotations.extend(said.map(|(key, value)| (key.to_owned(), value.to_owned())));
    shape.namespace = namespace.into();
    (shape.priority, shape.preempts) = (Some(LOWEST_PRIORITY), false);
    let (kind, api_version) = (KIND.into(), API_VERSION.into());
    shape.owner = Some(Owner { kind, name: name.into(), uid: "".into(), api_version });
    let shape = Arc::new(shape);
    let pod = |number| {
        let name: Arc<str> = format!("capacity-buffer-{name}-{number}").into();
        let uid = format!("{namespace}/{name}").into();
        Arc::new(Pod { uid, name, shape: shape.clone(), ..Pod::default() })
    };
    (0..count).map(pod).collect()
}

/// Whether a pod only stands for the room of a buffer.
pub fn is_virtual(pod: &Pod) -> bool {
    let shape = &pod.shape;
    shape.priority == Some(LOWEST_PRIORITY) && shape.annotations.get(FAKE_POD).is_some_and(|it| it == "true")
}

/// The buffer that a pod stands for, `NAMESPACE/NAME`.
pub fn buffer_of(pod: &Pod) -> Option<Arc<str>> {
    let annotation = |key| pod.shape.annotations.get(key);
    let (namespace, name) = (annotation(BUFFER_NAMESPACE)?, annotation(BUFFER_NAME)?);
    is_virtual(pod).then(|| format!("{namespace}/{name}").into())
}

/// Where the pods of each buffer would be by a plan of node pools for `pods`.
pub fn placements(pods: &[Arc<Pod>], plan: &Plan) -> BTreeMap<Arc<str>, Placement> {
    let mut placements: BTreeMap<Arc<str>, Placement> = BTreeMap::new();
    let mut count = |at: usize, add: fn(&mut Placement)| {
        if let Some(buffer) = pods.get(at).and_then(|pod| buffer_of(pod)) {
            add(placements.entry(buffer).or_default());
        }
    };
    plan.nominations.iter().for_each(|(pod, _)| count(*pod, |placement| placement.there += 1));
    let new = plan.claims.iter().flat_map(|claim| &claim.pods);
    new.for_each(|pod| count(*pod, |placement| placement.new += 1));
    plan.unschedulable.iter().for_each(|failure| count(failure.pod, |placement| placement.nowhere += 1));
    placements
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::pod::Traits;

    #[test]
    fn pods_of_a_buffer_are_known_by_their_annotations_and_their_priority() {
        let labels = [("app".to_owned(), "web".to_owned())].into();
        let template = Shape::from(Traits { labels, priority: Some(1_000), ..Traits::default() });
        let pods = pods("shop", "spare", &template, 2);
        assert_eq!(pods.len(), 2);
        assert_ne!(pods[0].uid, pods[1].uid);
        assert!(Arc::ptr_eq(&pods[0].shape, &pods[1].shape), "one shape, read once");
        assert_eq!((&*pods[1].shape.namespace, pods[1].shape.priority), ("shop", Some(i32::MIN)));
        assert_eq!(pods[0].shape.labels, template.labels);
        assert_eq!(buffer_of(&pods[0]).as_deref(), Some("shop/spare"));
        assert_eq!(buffer_of(&Pod::default()), None);
        let mut real = Pod { shape: pods[0].shape.clone(), ..Pod::default() };
        Arc::make_mut(&mut real.shape).priority = Some(0);
        assert!(!is_virtual(&real), "whoever writes the annotation on a pod of their own keeps a real pod");
    }
}
