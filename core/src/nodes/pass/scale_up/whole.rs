//! Groups that are at zero or at their maximum (`ZeroOrMaxNodeScaling`): all their nodes come at once or none.
//!
//! Source: Cluster Autoscaler, `core/scaleup/orchestrator/orchestrator.go`.

use super::{Candidate, Room, ScaleUp};

/// Why such a group does not grow if `--max-nodes-total` leaves room for some of its nodes only.
const TOO_MANY: &str = "atomic scale-up exceeds cluster node count limit";

impl ScaleUp<'_> {
    /// Whether all nodes of a group come at once.
    pub(super) fn is_whole(&self, candidate: usize) -> bool {
        self.candidates[candidate].group.options.zero_or_max
    }

    /// The nodes that a group gets if pods need so many.
    pub(super) fn as_whole(&self, candidate: usize, needed: u32) -> u32 {
        if needed > 0 && self.is_whole(candidate) { self.room[candidate] } else { needed }
    }

    /// Adds the nodes beyond those that pods need; other pods may use them. Returns how many there are then.
    pub(super) fn fill(&mut self, candidate: usize, needed: u32) -> u32 {
        let all = self.as_whole(candidate, needed);
        let Candidate { template, .. } = &self.candidates[candidate];
        for number in needed..all {
            let mut node = template.node.clone();
            node.rename(format!("{}-whole-{number}", node.name).into());
            let node = self.snapshot.add_node(&node);
            for pod in &template.pods {
                let class = self.snapshot.class(pod);
                self.snapshot.bind(class, node);
            }
        }
        all
    }

    /// Why a group may get none of its nodes, if a limit leaves room for so few; groups of single nodes may get some.
    pub(super) fn barred_by(&self, candidate: usize, nodes: u32, room: &Room) -> Option<String> {
        let (allowed, limit) = room.allowed(&self.candidates[candidate].template.node, nodes);
        let is_whole = self.is_whole(candidate);
        let is_barred = allowed == 0 || (is_whole && allowed < nodes);
        let too_many = is_whole && room.nodes.is_some_and(|left| left < nodes);
        limit.filter(|_| is_barred).map(|limit| if too_many { TOO_MANY.to_owned() } else { limit })
    }
}
