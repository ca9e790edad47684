//! Pods and nodes of the benchmarks.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Affinity, PodAffinityTerm, PodAntiAffinity, TopologySpreadConstraint},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use tandem_core::{
    draws::Draws,
    scheduling::{
        HOSTNAME, Node, Pod, Resources,
        pod::{Owner, Phase, Scheduled, Shape, Traits},
    },
};

/// The label of the zone that a node is in.
pub(crate) const ZONE: &str = "topology.kubernetes.io/zone";
/// Bytes in a mebibyte.
pub(crate) const MIB: i64 = 1 << 20;

/// Requests that pods which all differ have, as thousandths of what the uniform ones have: 500 values from a half to one
/// and a half.
const SIZES: [i64; 2] = [500, 2];
/// Controllers of pods that all differ.
const OWNERS: u64 = 300;

/// A node in the zone of its template.
pub(crate) fn node(name: &str, cpu: i64, memory: i64, pods: i64) -> Node {
    let allocatable = Resources { cpu, memory, pods, ..Resources::default() };
    let labels = [(HOSTNAME, name), (ZONE, "zone-a")];
    Node {
        name: name.into(),
        provider_id: name.into(),
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        capacity: allocatable.clone(),
        allocatable,
        ready: true,
        ..Node::default()
    }
}

/// What a plain pod is like.
pub(crate) fn shape(cpu: i64, memory: i64) -> Shape {
    let requests = Resources { cpu, memory, pods: 1, ..Resources::default() };
    let labels = [("app".to_owned(), "p".to_owned())].into();
    Shape::new(requests, Traits { namespace: "default".into(), labels, ..Traits::default() })
}

/// A shape with other traits.
pub(crate) fn with(mut shape: Shape, change: impl FnOnce(&mut Traits)) -> Shape {
    change(&mut shape);
    shape
}

/// That many pods: all alike, or each different.
pub(crate) fn pods(name: &str, count: usize, shape: &Shape, differ: bool) -> Vec<Pod> {
    let mut draws = Draws(count as u64);
    let shapes = if differ {
        shared((0..count).map(|number| different(shape, number, &mut draws)).collect())
    } else {
        vec![Arc::new(shape.clone()); count]
    };
    let pod = |(number, shape)| {
        let name: Arc<str> = format!("{name}-{number:06}").into();
        Pod { uid: name.clone(), name, shape, ..Pod::default() }
    };
    shapes.into_iter().enumerate().map(pod).collect()
}

/// Shapes that share their traits where these are equal, as those of pods that are watched do.
pub(crate) fn shared(shapes: Vec<Shape>) -> Vec<Arc<Shape>> {
    let mut all: BTreeMap<String, Arc<Traits>> = BTreeMap::new();
    let share = |mut shape: Shape| {
        let text = format!("{:?}", shape.traits);
        shape.traits = all.entry(text).or_insert(shape.traits).clone();
        Arc::new(shape)
    };
    shapes.into_iter().map(share).collect()
}

/// A pod of one of 300 owners, with one of 500 sizes; each third one has a constraint.
fn different(like: &Shape, number: usize, draws: &mut Draws) -> Shape {
    let mut shape = like.clone();
    #[allow(clippy::cast_possible_wrap, reason = "below 500")]
    let mut sized = |amount: &mut i64| {
        *amount = (*amount * (SIZES[0] + SIZES[1] * draws.below(500) as i64) / 1_000).max(1);
    };
    sized(&mut shape.requests.cpu);
    sized(&mut shape.requests.memory);
    let owner = format!("owner-{}", draws.below(OWNERS));
    shape.labels.insert("owner".to_owned(), owner.clone());
    match number % 9 {
        0 => {
            shape.node_selector.insert(ZONE.to_owned(), "zone-a".to_owned());
        }
        3 => shape.spread = vec![spread(ZONE, selector("owner", &owner))],
        6 => {
            // Few enough of each that one more node or less does not decide.
            let apart = format!("{owner}-apart");
            shape.labels.insert("apart".to_owned(), apart.clone());
            shape.affinity = Some(apart_from(term("apart", &apart, HOSTNAME)));
        }
        _ => {}
    }
    let name: Arc<str> = owner.into();
    shape.owner =
        Some(Owner { kind: "ReplicaSet".into(), uid: name.clone(), name, api_version: "apps/v1".into() });
    shape
}

/// A pod that the scheduler has found no node for.
pub(crate) fn unschedulable(pod: Pod) -> Arc<Pod> {
    Arc::new(Pod { scheduled: Scheduled::Unschedulable(jiff::Timestamp::UNIX_EPOCH), ..pod })
}

/// A pod that runs on a node.
pub(crate) fn running(pod: Pod, node: &Arc<str>) -> Arc<Pod> {
    Arc::new(Pod {
        node: Some(node.clone()),
        scheduled: Scheduled::Bound,
        phase: Phase::Running,
        ready: true,
        ..pod
    })
}

/// Selects a label.
pub(crate) fn selector(key: &str, value: &str) -> LabelSelector {
    LabelSelector {
        match_labels: Some([(key.to_owned(), value.to_owned())].into()),
        ..LabelSelector::default()
    }
}

/// A hard spread with a skew of one.
pub(crate) fn spread(topology_key: &str, selector: LabelSelector) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: topology_key.to_owned(),
        when_unsatisfiable: "DoNotSchedule".to_owned(),
        label_selector: Some(selector),
        ..TopologySpreadConstraint::default()
    }
}

/// The pods with a label, by topology.
pub(crate) fn term(key: &str, value: &str, topology_key: &str) -> PodAffinityTerm {
    PodAffinityTerm {
        label_selector: Some(selector(key, value)),
        topology_key: topology_key.to_owned(),
        ..PodAffinityTerm::default()
    }
}

/// Required anti-affinity.
pub(crate) fn apart_from(term: PodAffinityTerm) -> Box<Affinity> {
    let anti = PodAntiAffinity {
        required_during_scheduling_ignored_during_execution: Some(vec![term]),
        ..PodAntiAffinity::default()
    };
    Box::new(Affinity { pod_anti_affinity: Some(anti), ..Affinity::default() })
}
