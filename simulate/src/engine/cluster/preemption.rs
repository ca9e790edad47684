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

/// A pod that may have to go, and the place of its workload.
type Owned = (usize, Arc<Pod>);

impl Cluster<'_> {
    /// Makes room for the first pod of a workload that waits, if there are others that have to make way: where.
    pub(super) fn preempt(&mut self, index: usize, now: Instant) -> Option<NodeId> {
        let priority = self.workloads[index].priority();
        let lower = |workload: &Replicas| workload.priority() < priority && workload.counts().running > 0;
        if !self.workloads[index].shape().preempts || !self.workloads.iter().any(lower) {
            return None;
        }
        let (tenants, owned) = self.tenants(priority);
        let allowed: Vec<i32> = self.budgets().allowed().map(|budget| budget.allowed).collect();
        let class = self.workloads[index].class;
        let found = preempt(&mut self.snapshot, (class, priority), &tenants, &allowed)?;
        let place = tenants.iter().position(|(node, _)| *node == found.node)?;
        for victim in found.victims {
            let (workload, pod) = owned[place][victim].clone();
            self.make_way(workload, &pod, index, now);
        }
        Some(found.node)
    }

    /// The pods of lower priority, by node.
    fn tenants(&self, priority: i32) -> (Vec<(NodeId, Vec<Tenant>)>, Vec<Vec<Owned>>) {
        let budgets = self.budgets();
        let mut by_node: BTreeMap<NodeId, (Vec<Tenant>, Vec<Owned>)> = BTreeMap::new();
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
                let (tenants, owned) = by_node.entry(node).or_default();
                tenants.push(tenant);
                owned.push((index, pod));
            }
        }
        by_node.into_iter().map(|(node, (tenants, owned))| ((node, tenants), owned)).unzip()
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
