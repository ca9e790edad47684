//! Pods that wait for a node: which of them count, and which will fit what is there or on its way.

use std::{
    cmp::{Ordering, Reverse},
    collections::BTreeMap,
    fmt,
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    Input, Memory, Outcome, PassSettings, Waiting, place,
    requests::{self, Wanting},
    world::{World, by_key, invite},
};
use crate::{
    nodes::{buffer::is_virtual, provisioning_request::consumed_by},
    scheduling::{
        ClassId, LeftOut, Pod,
        pod::{Phase, Scheduled},
    },
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
    /// `--enable-provisioning-requests`.
    pub requests: bool,
}

impl PendingSettings {
    /// Whether a pod is of so low a priority that no node is kept or made for it.
    pub fn is_expendable(&self, pod: &Pod) -> bool {
        pod.shape.priority.is_some_and(|priority| priority < self.priority_cutoff)
    }

    /// Whether a pod that does not exist yet would ask for a node.
    pub(super) fn expects(&self, pod: &Pod) -> bool {
        let known =
            Pod { scheduled: Scheduled::Unschedulable(Timestamp::UNIX_EPOCH), created: None, ..pod.clone() };
        match self.ignores(&known, Timestamp::UNIX_EPOCH) {
            None => true,
            // The priority of what stands for room only says that everything else comes first.
            Some(why) => why == Ignored::Expendable && is_virtual(pod),
        }
    }

    /// Why a pod asks for no node now; `None` if it does.
    pub fn ignores(&self, pod: &Pod, now: Timestamp) -> Option<Ignored> {
        if pod.node.is_some() || pod.scheduled == Scheduled::Bound {
            // Most pods of a cluster; nothing else about them is looked at.
            return Some(Ignored::Bound);
        }
        let scheduler = &*pod.shape.scheduler;
        let named = |names: &[String]| names.iter().any(|name| name == scheduler);
        let delay = pod.shape.annotations.get(SCALE_UP_DELAY);
        let delay = delay.and_then(|text| text.parse::<SignedDuration>().ok()).unwrap_or_default();
        let delay = self.delay.max(delay);
        let reasons = [
            (pod.deleting.is_some(), Ignored::Deleted),
            (!matches!(pod.phase, Phase::Pending | Phase::Unknown), Ignored::Ended),
            (pod.scheduled == Scheduled::Gated, Ignored::Gated),
            (pod.scheduled == Scheduled::NotTried && !named(&self.bypassed), Ignored::NotTried),
            (!self.schedulers.is_empty() && !named(&self.schedulers), Ignored::Scheduler),
            (pod.is_of_daemon_set(), Ignored::DaemonSet),
            (self.is_expendable(pod), Ignored::Expendable),
            (pod.created.is_some_and(|created| now.duration_since(created) < delay), Ignored::TooYoung),
        ];
        let request =
            || consumed_by(pod).filter(|_| self.requests).map(|name| Ignored::Consumes(name.into()));
        reasons.into_iter().find_map(|(holds, reason)| holds.then_some(reason)).or_else(request)
    }
}

/// Pods without a node, as the metric `unschedulable_pods_count` has them (Cluster Autoscaler, `core/static_autoscaler.go`,
/// `listPods`): before it is asked which of them will fit, are expendable or too young.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unplaced {
    /// Those that the scheduler could not place.
    pub unschedulable: u32,
    /// Those that a scheduler of `--bypassed-scheduler-names` has not looked at yet.
    pub not_tried: u32,
}

/// Counts the pods without a node.
pub(super) fn unplaced(world: &World, settings: &PendingSettings) -> Unplaced {
    let mut unplaced = Unplaced::default();
    for pod in &world.unbound {
        let scheduler = &*pod.shape.scheduler;
        let named = |names: &[String]| names.iter().any(|name| name == scheduler);
        let is_other = !settings.schedulers.is_empty() && !named(&settings.schedulers);
        if is_other || pod.is_terminal() || pod.deleting.is_some() || pod.nominated.is_some() {
            continue;
        }
        match pod.scheduled {
            Scheduled::Unschedulable(_) => unplaced.unschedulable += 1,
            Scheduled::NotTried if named(&settings.bypassed) => unplaced.not_tried += 1,
            _ => {}
        }
    }
    unplaced
}

/// Why a pod asks for no node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ignored {
    /// It has one.
    Bound,
    /// It is being deleted.
    Deleted,
    /// It has ended.
    Ended,
    /// Its scheduling gates hold it back.
    Gated,
    /// The scheduler has not looked at it yet.
    NotTried,
    /// `--allowed-scheduler-names` does not name its scheduler.
    Scheduler,
    /// DaemonSets run on the nodes that there are.
    DaemonSet,
    /// `--expendable-pods-priority-cutoff` is above its priority.
    Expendable,
    /// `--new-pod-scale-up-delay`, or its annotation, has not passed.
    TooYoung,
    /// The ProvisioningRequest of this name asks for its room.
    Consumes(Arc<str>),
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Bound => "it has a node",
            Self::Deleted => "it is being deleted",
            Self::Ended => "it has ended",
            Self::Gated => "its scheduling gates hold it back",
            Self::NotTried => "the scheduler has not looked at it yet",
            Self::Scheduler => "--allowed-scheduler-names does not name its scheduler",
            Self::DaemonSet => "pods of DaemonSets run on the nodes that there are",
            Self::Expendable => "its priority is below --expendable-pods-priority-cutoff",
            Self::TooYoung => "--new-pod-scale-up-delay or its annotation has not passed yet",
            Self::Consumes(request) => {
                return write!(f, "it consumes ProvisioningRequest {request}, which asks for its room");
            }
        };
        f.write_str(text)
    }
}

/// The pods and the requests that fit neither what is there nor what is on its way. Those that fit are on the snapshot
/// afterwards, as are the nodes on their way. Gangs that are left out are looked at as if they were not there.
pub(super) fn waiting(
    memory: &Memory,
    world: &mut World,
    input: &Input,
    settings: &PassSettings,
    left_out: &LeftOut,
    outcome: &mut Outcome,
) -> (Vec<Waiting>, Vec<Wanting>) {
    let mut pods = asking(world, input, settings);
    pods.retain(|pod| !left_out.has(pod));
    let tried = u32::try_from(pods.len()).unwrap_or(u32::MAX);
    pods.retain(|pod| pod.nominated.as_deref().is_none_or(|node| world.id(node).is_none()));
    let classes = fit(world, pods);
    add_upcoming(world, input, outcome);
    let pods: Vec<_> = classes.into_iter().flat_map(|waiting| waiting.pods).collect();
    let mut waiting = fit(world, pods);
    outcome.unschedulable = waiting.iter().flat_map(|waiting| waiting.pods.iter().cloned()).collect();
    outcome.unschedulable.sort_by(|one, other| by_turn(one, other));
    outcome.fitting = tried - u32::try_from(outcome.unschedulable.len()).unwrap_or(tried);
    let moving = moving(world, input);
    waiting.extend(fit(world, moving));
    let wanting = requests::place(memory, world, input, outcome);
    // Those that nobody has seen fail yet come last: they must not take the room of those that have.
    let expected = input.expected.iter().filter(|pod| settings.pending.expects(pod)).cloned().collect();
    waiting.extend(fit(world, expected));
    outcome.consuming = consuming(world, input, settings);
    (waiting, wanting)
}

/// The pods that would ask for a node if no request did so in their place.
fn consuming(world: &World, input: &Input, settings: &PassSettings) -> Vec<Arc<Pod>> {
    let consumes =
        |pod: &&Arc<Pod>| matches!(settings.pending.ignores(pod, input.now), Some(Ignored::Consumes(_)));
    if settings.pending.requests {
        world.unbound.iter().filter(consumes).cloned().collect()
    } else {
        Vec::new()
    }
}

/// The pods that ask for a node, in the scheduler's order.
pub(super) fn asking(world: &World, input: &Input, settings: &PassSettings) -> Vec<Arc<Pod>> {
    let asks = |pod: &&Arc<Pod>| settings.pending.ignores(pod, input.now).is_none();
    let mut pods: Vec<_> = world.unbound.iter().filter(asks).cloned().collect();
    pods.sort_by(|one, other| by_turn(one, other));
    pods
}

/// The scheduler takes the highest priority first, then the oldest.
pub(super) fn by_turn(one: &Pod, other: &Pod) -> Ordering {
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

/// Pods by class, in the order in which each class comes first.
pub(super) fn by_class(world: &mut World, pods: Vec<Arc<Pod>>) -> Vec<Waiting> {
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
    let of = |class| Some(Waiting { class, pods: by_class.remove(&class)? });
    order.into_iter().filter_map(of).collect()
}

/// Puts pods on the snapshot, in their order; returns those that fit nowhere, by class.
pub(super) fn fit(world: &mut World, pods: Vec<Arc<Pod>>) -> Vec<Waiting> {
    let mut waiting = Vec::new();
    for Waiting { class, mut pods } in by_class(world, pods) {
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
pub(super) fn add_upcoming(world: &mut World, input: &Input, outcome: &mut Outcome) {
    for (id, state) in &outcome.found.groups {
        let Some(template) = input.templates.get(id) else { continue };
        for number in 0..state.upcoming {
            let mut node = template.node.clone();
            node.rename(format!("{}-upcoming-{number}", node.name).into());
            let node = world.snapshot.add_node(&node);
            for pod in &template.pods {
                let class = world.snapshot.class(pod);
                world.snapshot.bind(class, node);
            }
        }
        outcome.upcoming += state.upcoming;
    }
}
