//! The pods of one workload, as its controller keeps them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use tandem_core::scheduling::{
    ClassId, Pod, Snapshot,
    pod::{Phase, Scheduled, Shape},
};

use super::{Counts, Instant, Workload, model};

/// The pods of one workload, the oldest first.
pub(super) struct Replicas {
    model: Pod,
    pub(super) class: ClassId,
    starts_in: Duration,
    serial: u64,
    pods: Vec<Replica>,
}

struct Replica {
    pod: Arc<Pod>,
    ready_at: Instant,
}

impl Replicas {
    pub(super) fn new(index: usize, workload: &Workload, snapshot: &mut Snapshot) -> Self {
        let model = model(index, workload);
        let class = snapshot.class(&model);
        let starts_in = Duration::from_secs(workload.starts_in.into());
        Self { model, class, starts_in, serial: 0, pods: Vec::new() }
    }

    /// The priority of its pods, 0 if no class set one.
    pub(super) fn priority(&self) -> i32 {
        self.model.shape.priority.unwrap_or_default()
    }

    /// `NAMESPACE/NAME` of the workload.
    pub(super) fn key(&self) -> String {
        self.model.key()
    }

    /// What its pods have in common.
    pub(super) fn shape(&self) -> &Arc<Shape> {
        &self.model.shape
    }

    pub(super) fn owns(&self, pod: &Pod) -> bool {
        Arc::ptr_eq(&self.model.shape, &pod.shape)
    }

    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.pods.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn sample(&self) -> Option<&Arc<Pod>> {
        self.pods.first().map(|replica| &replica.pod)
    }

    pub(super) fn pods(&self) -> impl Iterator<Item = Arc<Pod>> {
        self.pods.iter().map(|replica| replica.pod.clone())
    }

    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for Replica { pod, .. } in &self.pods {
            match (&pod.node, pod.ready) {
                (None, _) => counts.pending += 1,
                (Some(_), ready) => {
                    counts.running += 1;
                    counts.ready += u32::from(ready);
                }
            }
        }
        counts
    }

    /// Makes pods.
    pub(super) fn grow(&mut self, count: u32, now: Timestamp) {
        for _ in 0..count {
            let name: Arc<str> = format!("{}-{}", self.model.name, self.serial).into();
            self.serial += 1;
            let pod = Pod { uid: name.clone(), name, created: Some(now), ..self.model.clone() };
            self.pods.push(Replica { pod: Arc::new(pod), ready_at: Instant::MAX });
        }
    }

    /// Removes pods; the nodes that they ran on. Those without a node go first, then those not ready, then those that share
    /// their node with most others, then the youngest (Kubernetes, `pkg/controller/controller_utils.go`).
    pub(super) fn shrink(&mut self, count: u32) -> Vec<Arc<str>> {
        let mut together: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for node in self.pods.iter().filter_map(|replica| replica.pod.node.as_ref()) {
            *together.entry(node.clone()).or_default() += 1;
        }
        let rank = |replica: &Replica| {
            let pod = &replica.pod;
            let neighbours = pod.node.as_ref().and_then(|node| together.get(node)).copied().unwrap_or(0);
            (pod.node.is_some(), pod.ready, std::cmp::Reverse(neighbours))
        };
        let mut order: Vec<usize> = (0..self.pods.len()).rev().collect();
        order.sort_by_key(|index| rank(&self.pods[*index]));
        order.truncate(count as usize);
        order.sort_unstable();
        order.into_iter().rev().filter_map(|index| self.pods.remove(index).pod.node.clone()).collect()
    }

    /// The first pod without a node.
    pub(super) fn first_pending(&self) -> Option<usize> {
        self.pods.iter().position(|replica| replica.pod.node.is_none())
    }

    /// Says of the pods without a node that none fits; whether that is news.
    pub(super) fn give_up(&mut self, now: Timestamp) -> bool {
        let mut news = false;
        for replica in self.pods.iter_mut().filter(|replica| replica.pod.node.is_none()) {
            if !matches!(replica.pod.scheduled, Scheduled::Unschedulable(_)) {
                Arc::make_mut(&mut replica.pod).scheduled = Scheduled::Unschedulable(now);
                news = true;
            }
        }
        news
    }

    /// Binds a pod to a node; when it will be ready.
    pub(super) fn bind(&mut self, index: usize, node: Arc<str>, now: Instant, at_once: bool) -> Instant {
        let Replica { pod, ready_at } = &mut self.pods[index];
        *ready_at = if at_once { now } else { now + self.starts_in };
        let pod = Arc::make_mut(pod);
        pod.node = Some(node);
        pod.scheduled = Scheduled::Bound;
        pod.phase = Phase::Running;
        pod.started = pod.created;
        pod.ready = at_once;
        *ready_at
    }

    /// Those whose start is over are ready.
    pub(super) fn start(&mut self, now: Instant) {
        let started = self.pods.iter_mut().filter(|replica| !replica.pod.ready && replica.ready_at <= now);
        for replica in started {
            Arc::make_mut(&mut replica.pod).ready = true;
        }
    }

    /// Replaces pods by new ones without a node; whether there were any.
    pub(super) fn evict(&mut self, now: Timestamp, goes: impl Fn(&Pod) -> bool) -> bool {
        let before = self.pods.len();
        self.pods.retain(|replica| !goes(&replica.pod));
        let gone = u32::try_from(before - self.pods.len()).unwrap_or(u32::MAX);
        self.grow(gone, now);
        gone > 0
    }
}
