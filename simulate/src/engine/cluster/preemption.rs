//! Pods of a higher priority take the place of others, as `tandem-core` decides it.

use std::{collections::BTreeMap, sync::Arc};

use tandem_core::{
    pods::reasons::Event,
    scheduling::{
        NodeId, Pod,
        preempt::{Tenant, preempt},
    },
};

use super::{Cluster, Instant, Replicas};

/// The pods of a node that may have to go.
#[derive(Default)]
struct Lodgers {
    tenants: Vec<Tenant>,
    /// The same with the places of their workloads.
    pods: Vec<(usize, Arc<Pod>)>,
}

impl Cluster<'_> {
    /// Makes room for the first pod of a workload that waits, if there are others that have to make way: where.
    pub(super) fn preempt(&mut self, index: usize, now: Instant) -> Option<NodeId> {
        let priority = self.workloads[index].priority();
        let lower = |workload: &Replicas| workload.priority() < priority && workload.counts().running > 0;
        if !self.workloads[index].shape().preempts || !self.workloads.iter().any(lower) {
            return None;
        }
        let mut lodgers = self.lodgers(priority);
        let tenants: Vec<_> =
            lodgers.iter_mut().map(|(node, here)| (*node, std::mem::take(&mut here.tenants))).collect();
        let allowed: Vec<i32> = self.budgets().allowed().map(|budget| budget.allowed).collect();
        let class = self.workloads[index].class;
        let found = preempt(&mut self.snapshot, (class, priority), &tenants, &allowed)?;
        let here = lodgers.remove(&found.node)?;
        for (workload, pod) in found.victims.into_iter().filter_map(|victim| here.pods.get(victim)) {
            self.make_way(*workload, pod, index, now);
        }
        Some(found.node)
    }

    /// The pods of lower priority, by node.
    fn lodgers(&self, priority: i32) -> BTreeMap<NodeId, Lodgers> {
        let budgets = self.budgets();
        let mut by_node: BTreeMap<NodeId, Lodgers> = BTreeMap::new();
        for (index, workload) in self.workloads.iter().enumerate() {
            if workload.priority() >= priority {
                continue;
            }
            let Some(sample) = workload.sample() else { continue };
            let covering = budgets.allowed().enumerate().filter(|(_, budget)| budget.covers(sample));
            let covering: Vec<usize> = covering.map(|(at, _)| at).collect();
            for pod in workload.pods() {
                let Some(node) = pod.node.as_ref().and_then(|node| self.machines.id(node)) else { continue };
                let tenant = Tenant {
                    class: workload.class,
                    priority: workload.priority(),
                    started: pod.started,
                    budgets: covering.clone(),
                };
                let here = by_node.entry(node).or_default();
                here.tenants.push(tenant);
                here.pods.push((index, pod));
            }
        }
        by_node
    }

    /// A pod goes for one of another workload, and is made again.
    fn make_way(&mut self, workload: usize, victim: &Pod, whom: usize, now: Instant) {
        let time = self.clock.time(now);
        let Some(node) = &victim.node else { return };
        let message = format!("Preempted by pod {} on node {node}", self.workloads[whom].key());
        let event = Event { type_: "Normal", reason: "Preempted", message };
        self.tell(time, format!("Pod {}", victim.key()), event);
        self.pools.note(node, time);
        self.machines.unbind(&mut self.snapshot, node, self.workloads[workload].class);
        self.workloads[workload].evict(time, |pod| pod.uid == victim.uid);
        self.changed.insert(workload);
        self.due.insert((now, super::Due::Place));
    }
}
