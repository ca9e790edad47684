//! Nodes that have been broken for too long (core, `pkg/controllers/node/health`; gate `NodeRepair`).

use std::{collections::BTreeSet, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{
    cluster::{Cluster, Member},
    names::condition,
    node_claim::{holds, pool_of},
};
use crate::scheduling::Node;

/// Percent of a pool's nodes, rounded up, that may be broken and still be replaced: if it is more, it is not the nodes.
const MOST_BROKEN: usize = 20;

/// A condition that a node should have, and how long it may be without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The condition.
    pub condition: &'static str,
    /// How long it may not hold.
    pub toleration: SignedDuration,
}

/// What nodes should be, on AWS as its node monitoring agent says it (aws, `pkg/cloudprovider`, `RepairPolicies`).
pub const POLICIES: [Policy; 6] = [
    Policy { condition: "Ready", toleration: SignedDuration::from_mins(30) },
    Policy { condition: "AcceleratedHardwareReady", toleration: SignedDuration::from_mins(10) },
    Policy { condition: "StorageReady", toleration: SignedDuration::from_mins(30) },
    Policy { condition: "NetworkingReady", toleration: SignedDuration::from_mins(30) },
    Policy { condition: "KernelReady", toleration: SignedDuration::from_mins(30) },
    Policy { condition: "ContainerRuntimeReady", toleration: SignedDuration::from_mins(30) },
];

/// A claim whose node is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The claim.
    pub claim: Arc<str>,
    /// The condition that its node does not have.
    pub condition: &'static str,
}

/// Which nodes are replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Repairs {
    /// Claims to delete, whatever runs on their nodes.
    pub due: Vec<Broken>,
    /// Claims whose pools have too many broken nodes.
    pub blocked: Vec<Broken>,
    /// When the next node will have been broken for too long.
    pub next: Option<Timestamp>,
}

/// Nodes that have been broken for longer than is tolerated, pool by pool; pods are not asked.
pub fn repairs(cluster: &Cluster, now: Timestamp) -> Repairs {
    let mut repairs = Repairs::default();
    let members = cluster.members();
    let registered = |member: &&Member| holds(&member.claim, condition::REGISTERED) && member.node.is_some();
    let members: Vec<&Member> = members.iter().filter(registered).collect();
    let pools: BTreeSet<Option<&str>> = members.iter().map(|member| pool_of(&member.claim)).collect();
    for pool in pools {
        let of_pool = || members.iter().filter(|member| pool_of(&member.claim) == pool);
        let is_broken = |member: &&&Member| member.node.as_ref().is_some_and(|node| broken(node).is_some());
        let (all, ill) = (of_pool().count(), of_pool().filter(is_broken).count());
        let is_too_much = ill > (all * MOST_BROKEN).div_ceil(100);
        for member in of_pool().filter(|member| !cluster.is_leaving(&member.claim)) {
            let Some((condition, until)) = member.node.as_deref().and_then(broken) else { continue };
            let broken = Broken { claim: member.name.clone(), condition };
            if until > now {
                repairs.next = Some(repairs.next.map_or(until, |next| next.min(until)));
            } else if is_too_much {
                repairs.blocked.push(broken);
            } else {
                repairs.due.push(broken);
            }
        }
    }
    repairs
}

/// What is wrong with a node, and until when that is tolerated: of several conditions the one that ends first.
fn broken(node: &Node) -> Option<(&'static str, Timestamp)> {
    let wrong = POLICIES.iter().filter_map(|policy| {
        let (holds, since) = node.condition(policy.condition)?;
        let until = since.unwrap_or(Timestamp::UNIX_EPOCH).checked_add(policy.toleration).ok()?;
        (!holds).then_some((policy.condition, until))
    });
    wrong.min_by_key(|(_, until)| *until)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        nodes::pools::testing::{add_node, cluster},
        scheduling::node::Condition,
    };

    /// Nodes, each with what it has not, and for how many minutes.
    fn of(nodes: &[Option<(&str, i64)>]) -> (Cluster, Timestamp) {
        let mut cluster = cluster();
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(9);
        for (number, wrong) in nodes.iter().enumerate() {
            add_node(&mut cluster, &format!("node-{number}"), 1, "zone-1", vec![]);
            if let (Some((condition, minutes)), Some(node)) = (wrong, cluster.nodes.last_mut()) {
                let since = Some(now - SignedDuration::from_mins(*minutes));
                let said = Condition::new(false, since);
                Arc::make_mut(node).conditions.insert((*condition).into(), said);
            }
        }
        (cluster, now)
    }

    fn names(broken: &[Broken]) -> Vec<String> {
        broken.iter().map(|it| format!("{} {}", it.claim, it.condition)).collect()
    }

    #[test]
    fn a_node_that_is_broken_for_too_long_goes() {
        let (cluster, now) = of(&[Some(("Ready", 30)), Some(("Ready", 29)), None, None, None, None]);
        let found = repairs(&cluster, now);
        assert_eq!(names(&found.due), ["node-0 Ready"]);
        assert_eq!(found.next, Some(now + SignedDuration::from_mins(1)));
        let (cluster, now) = of(&[Some(("AcceleratedHardwareReady", 10)), Some(("MemoryPressure", 99))]);
        assert_eq!(names(&repairs(&cluster, now).due), ["node-0 AcceleratedHardwareReady"]);
    }

    #[test]
    fn if_more_than_a_fifth_is_broken_it_is_not_the_nodes() {
        let ill = Some(("Ready", 99));
        for (nodes, due) in
            [(vec![ill], 1), (vec![ill, ill, None], 0), (vec![ill, ill, None, None, None, None], 2)]
        {
            let (mut cluster, now) = of(&nodes);
            let found = repairs(&cluster, now);
            assert_eq!((found.due.len(), found.blocked.len()), (due, nodes.iter().flatten().count() - due));
            cluster.leaving =
                cluster.claims.iter().filter_map(|it| Some(it.metadata.name.as_deref()?.into())).collect();
            assert_eq!(repairs(&cluster, now), Repairs::default());
        }
    }
}
