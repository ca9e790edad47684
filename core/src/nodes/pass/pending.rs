//! Pods that wait for a node: which of them count, and which will fit what is there or on its way.

use std::{
    cmp::{Ordering, Reverse},
    collections::BTreeMap,
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    Input, Outcome, PassSettings, Waiting, place,
    world::{World, by_key, invite},
};
use crate::scheduling::{
    ClassId, Pod,
    pod::{Phase, Scheduled},
};

/// Annotation of pods: how long after it was made a pod causes no scale-up; only ever longer than the flag.
const SCALE_UP_DELAY: &str = "cluster-autoscaler.kubernetes.io/pod-scale-up-delay";

/// Which pods count.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PendingSettings {
    /// `--expendable-pods-priority-cutoff`.
    pub priority_cutoff: i32,
    /// `--new-pod-scale-up-delay`.
    pub delay: SignedDuration,
    /// `--allowed-scheduler-names`; empty means all.
    pub schedulers: Vec<String>,
    /// `--bypassed-scheduler-names`.
    pub bypassed: Vec<String>,
}

impl PendingSettings {
    /// Whether a pod is of so low a priority that no node is kept or made for it.
    pub fn is_expendable(&self, pod: &Pod) -> bool {
        pod.shape.priority.is_some_and(|priority| priority < self.priority_cutoff)
    }

    /// Whether a pod asks for a node now.
    fn asks(&self, pod: &Pod, now: Timestamp) -> bool {
        let scheduler = &*pod.shape.scheduler;
        let said = match pod.scheduled {
            Scheduled::Unschedulable(_) => true,
            Scheduled::NotTried => self.bypassed.iter().any(|name| name == scheduler),
            Scheduled::Bound | Scheduled::Gated => false,
        };
        let delay = pod.shape.annotations.get(SCALE_UP_DELAY);
        let delay = delay.and_then(|text| text.parse::<SignedDuration>().ok()).unwrap_or_default();
        said && pod.node.is_none()
            && pod.deleting.is_none()
            && matches!(pod.phase, Phase::Pending | Phase::Unknown)
            && (self.schedulers.is_empty() || self.schedulers.iter().any(|name| name == scheduler))
            && !pod.is_of_daemon_set()
            && !self.is_expendable(pod)
            && pod.created.is_none_or(|created| now.duration_since(created) >= self.delay.max(delay))
    }
}

/// The pods that fit neither what is there nor what is on its way. Those that fit are on the snapshot afterwards, as are
/// the nodes on their way.
pub(super) fn waiting(
    world: &mut World,
    input: &Input,
    settings: &PassSettings,
    outcome: &mut Outcome,
) -> Vec<Waiting> {
    let mut pods: Vec<_> =
        world.unbound.iter().filter(|pod| settings.pending.asks(pod, input.now)).cloned().collect();
    pods.sort_by(|one, other| by_turn(one, other));
    let tried = u32::try_from(pods.len()).unwrap_or(u32::MAX);
    pods.retain(|pod| !pod.nominated.as_deref().is_some_and(|node| world.id(node).is_some()));
    let classes = fit(world, pods);
    add_upcoming(world, input, outcome);
    let pods: Vec<_> = classes.into_iter().flat_map(|waiting| waiting.pods).collect();
    let mut waiting = fit(world, pods);
    outcome.unschedulable = waiting.iter().flat_map(|waiting| waiting.pods.iter().cloned()).collect();
    outcome.unschedulable.sort_by(|one, other| by_turn(one, other));
    outcome.fitting = tried - u32::try_from(outcome.unschedulable.len()).unwrap_or(tried);
    // Those that nobody has seen fail yet come last: they must not take the room of those that have.
    let unseen = moving(world, input).into_iter().chain(input.expected.iter().cloned()).collect();
    waiting.extend(fit(world, unseen));
    waiting
}

/// The scheduler takes the highest priority first, then the oldest.
fn by_turn(one: &Pod, other: &Pod) -> Ordering {
    let turn = |pod: &Pod| (Reverse(pod.shape.priority), pod.created);
    turn(one).cmp(&turn(other)).then_with(|| by_key(one, other))
}

/// Pods of nodes whose removal is under way will be made again, and need a place.
fn moving(world: &World, input: &Input) -> Vec<Arc<Pod>> {
    let pods = input.removing.keys().flat_map(|node| world.pods_on(node));
    pods.filter(|pod| pod.deleting.is_none() && pod.shape.owner.is_some())
        .filter(|pod| !pod.is_of_daemon_set() && !pod.is_mirror())
        .map(|pod| Arc::new(Pod { node: None, ..(**pod).clone() }))
        .collect()
}

/// Puts pods on the snapshot, in their order; returns those that fit nowhere, by class.
fn fit(world: &mut World, pods: Vec<Arc<Pod>>) -> Vec<Waiting> {
    let mut order: Vec<ClassId> = Vec::new();
    let mut by_class: BTreeMap<ClassId, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        let class = world.snapshot.class(&pod);
        let same = by_class.entry(class).or_default();
        if same.is_empty() {
            order.push(class);
        }
        same.push(pod);
    }
    let mut waiting = Vec::new();
    for class in order {
        let Some(mut pods) = by_class.remove(&class) else { continue };
        let count = u32::try_from(pods.len()).unwrap_or(u32::MAX);
        let guests = &mut world.guests;
        let left = place(&mut world.snapshot, class, count, None, |node, count| {
            invite(guests.entry(node).or_default(), class, count);
        });
        let pods = pods.split_off(pods.len() - left as usize);
        if !pods.is_empty() {
            waiting.push(Waiting { class, pods });
        }
    }
    waiting
}

/// Adds copies of the templates of groups whose nodes are on their way.
fn add_upcoming(world: &mut World, input: &Input, outcome: &mut Outcome) {
    for (id, state) in &outcome.found.groups {
        let Some(template) = input.templates.get(id) else { continue };
        for number in 0..state.upcoming {
            let mut node = template.node.clone();
            node.name = format!("{}-upcoming-{number}", node.name).into();
            node.labels.insert(crate::scheduling::HOSTNAME.to_owned(), node.name.to_string());
            let node = world.snapshot.add_node(&node);
            for pod in &template.pods {
                let class = world.snapshot.class(pod);
                world.snapshot.bind(class, node);
            }
        }
        outcome.upcoming += state.upcoming;
    }
}
