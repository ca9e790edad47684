//! What is known of groups beyond one pass: nodes on their way, groups that fail, nodes that never came.
//!
//! Source of the rules: Cluster Autoscaler, `clusterstate/clusterstate.go`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    action::TO_BE_DELETED,
    backoff::{BackoffSettings, Backoffs},
    group::{Instance, InstanceError, InstanceState, NodeGroup},
    interruption::is_replaced,
    printed::duration,
};
use crate::scheduling::Node;

/// The code of a group whose nodes did not come in time.
pub const TIMEOUT: &str = "timeout";

/// What the flags say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClusterStateSettings {
    /// `--max-total-unready-percentage`.
    pub max_unready_percentage: f64,
    /// `--ok-total-unready-count`.
    pub ok_unready: u32,
    /// `--max-node-provision-time`.
    pub provision_time: SignedDuration,
    /// `--max-node-startup-time`.
    pub startup_time: SignedDuration,
    /// How long groups that failed are left alone.
    pub backoff: BackoffSettings,
}

/// Nodes that a group was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// When.
    pub since: Timestamp,
    /// Given up then.
    pub expected_by: Timestamp,
    /// How many have not come.
    pub nodes: u32,
}

/// How many nodes of a group, or of the cluster, are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readiness {
    /// Nodes.
    pub registered: u32,
    /// Of these ready.
    pub ready: u32,
    /// Of these not ready.
    pub unready: u32,
    /// Of these not ready yet.
    pub not_started: u32,
    /// Of these suspended by the provider (condition `Suspended`), to come back later.
    pub suspended: u32,
    /// Of these on their way out.
    pub being_deleted: u32,
    /// Of these about to be taken away, for which their group gets others without being asked.
    pub replaced: u32,
    /// Instances without a node.
    pub unregistered: u32,
    /// Instances without a node for too long.
    pub long_unregistered: u32,
}

/// What one group looks like now.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GroupState {
    /// How its nodes are.
    pub readiness: Readiness,
    /// Whether enough of its nodes work.
    pub healthy: bool,
    /// Nodes that were asked for and have not come.
    pub upcoming: u32,
    /// Nodes that are registered and not ready yet, which `upcoming` counts.
    pub starting: Vec<Arc<str>>,
    /// Instances that never became a node in time.
    pub long_unregistered: Vec<Arc<str>>,
    /// Instances that the provider could not make.
    pub failed: Vec<(Arc<str>, InstanceError)>,
    /// By how much the target is too high, and has been for too long.
    pub overstated: u32,
}

impl GroupState {
    /// Nodes that have not even registered: those that are starting are on their way, and there already.
    pub fn on_their_way(&self) -> u32 {
        self.upcoming.saturating_sub(u32::try_from(self.starting.len()).unwrap_or(u32::MAX))
    }
}

/// A request whose nodes did not come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// The group.
    pub group: Arc<str>,
    /// Nodes that did not come.
    pub nodes: u32,
    /// How long they were waited for.
    pub waited: SignedDuration,
}

/// What is found out in a pass.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Found {
    /// By group.
    pub groups: BTreeMap<Arc<str>, GroupState>,
    /// Over all nodes.
    pub total: Readiness,
    /// Whether enough nodes of the cluster work.
    pub healthy: bool,
    /// Requests that were given up just now.
    pub expired: Vec<Expired>,
    /// Requests that were fulfilled just now: the group and how long it took.
    pub fulfilled: Vec<(Arc<str>, SignedDuration)>,
    /// Groups whose instances the provider could not make, since this pass: the group, how many, and why.
    pub failures: Vec<(Arc<str>, u32, InstanceError)>,
}

/// What is remembered from pass to pass. Serialised into the status object, so that a restart forgets nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterState {
    /// Nodes asked for.
    pub requests: BTreeMap<String, Request>,
    /// Groups that are left alone.
    pub backoffs: Backoffs,
    /// Instances without a node, and since when.
    unregistered: BTreeMap<String, Timestamp>,
    /// Groups whose target has been above what there is, by how many, and since when.
    overstated: BTreeMap<String, (u32, Timestamp)>,
    /// Failed instances that have been reported.
    reported: BTreeSet<String>,
}

impl ClusterState {
    /// A group is being asked for more nodes.
    pub fn requested(&mut self, group: &str, nodes: u32, now: Timestamp, provision_time: SignedDuration) {
        let request = self.requests.entry(group.to_owned()).or_insert(Request {
            since: now,
            expected_by: now,
            nodes: 0,
        });
        request.nodes += nodes;
        request.expected_by = now.checked_add(provision_time).unwrap_or(Timestamp::MAX);
    }

    /// Looks at the cluster.
    pub fn update(
        &mut self,
        nodes: &[Arc<Node>],
        groups: &[NodeGroup],
        now: Timestamp,
        settings: &ClusterStateSettings,
    ) -> Found {
        let by_id: BTreeMap<&str, &Arc<Node>> = nodes.iter().map(|node| (&*node.provider_id, node)).collect();
        let replaced = replaced(groups, &by_id);
        self.forget_gone(groups);
        let mut found = Found::default();
        for node in nodes {
            count(&mut found.total, node, replaced.contains(&*node.provider_id), now, settings.startup_time);
        }
        for group in groups {
            let state = self.group(group, &by_id, &replaced, now, settings);
            found.total.unregistered += state.readiness.unregistered;
            found.total.long_unregistered += state.readiness.long_unregistered;
            found.groups.insert(group.id.clone(), state);
        }
        for group in groups {
            let Some(state) = found.groups.get(&group.id).cloned() else { continue };
            self.settle(group, &state, now, settings, &mut found);
        }
        // Who backs off or was given up is no longer waited for.
        for group in groups {
            let upcoming = self.upcoming(group, &found.groups[&group.id], now);
            if let Some(state) = found.groups.get_mut(&group.id) {
                state.upcoming = upcoming;
            }
        }
        found.healthy = is_healthy(found.total.unready, found.total.registered, settings);
        self.backoffs.forget(now, settings.backoff);
        found
    }

    /// Whether nothing in it waits for a time to come.
    pub fn is_at_rest(&self) -> bool {
        self.requests.is_empty()
            && self.backoffs.is_empty()
            && self.unregistered.is_empty()
            && self.overstated.is_empty()
    }

    fn forget_gone(&mut self, groups: &[NodeGroup]) {
        let ids: BTreeSet<&str> = groups.iter().map(|group| &*group.id).collect();
        self.requests.retain(|group, _| ids.contains(group.as_str()));
        self.overstated.retain(|group, _| ids.contains(group.as_str()));
        let instances: BTreeSet<&str> =
            groups.iter().flat_map(|group| &group.instances).map(|instance| &*instance.id).collect();
        self.unregistered.retain(|id, _| instances.contains(id.as_str()));
        self.reported.retain(|id| instances.contains(id.as_str()));
    }

    fn group(
        &mut self,
        group: &NodeGroup,
        by_id: &BTreeMap<&str, &Arc<Node>>,
        replaced: &BTreeSet<&str>,
        now: Timestamp,
        settings: &ClusterStateSettings,
    ) -> GroupState {
        let provision_time = group.options.max_provision_time.unwrap_or(settings.provision_time);
        let startup_time = group.options.max_startup_time.unwrap_or(settings.startup_time);
        let mut state = GroupState::default();
        for Instance { id, state: life } in &group.instances {
            if let Some(node) = by_id.get(&**id) {
                self.unregistered.remove(&**id);
                if count(&mut state.readiness, node, replaced.contains(&**id), now, startup_time) {
                    state.starting.push(node.name.clone());
                }
                continue;
            }
            match life {
                InstanceState::Deleting => continue,
                InstanceState::Creating(Some(error)) => {
                    state.failed.push((id.clone(), error.clone()));
                    continue;
                }
                InstanceState::Running | InstanceState::Creating(None) => {}
            }
            let since = *self.unregistered.entry(id.to_string()).or_insert(now);
            if now.duration_since(since) > provision_time {
                state.readiness.long_unregistered += 1;
                state.long_unregistered.push(id.clone());
            } else {
                state.readiness.unregistered += 1;
            }
        }
        let requested = self.requests.get(&*group.id).map_or(0, |request| request.nodes);
        let Readiness {
            ready,
            unready,
            not_started,
            suspended,
            being_deleted,
            replaced,
            long_unregistered,
            ..
        } = state.readiness;
        let expected = group.target.saturating_sub(long_unregistered.saturating_add(requested));
        let missing = expected.saturating_sub(ready + suspended + not_started + being_deleted + replaced);
        state.healthy = is_healthy(missing, ready + unready + not_started, settings);
        state.overstated = self.overstated(group, &state, now, provision_time);
        state
    }

    /// A target that has been above the instances for too long is lowered to them (`fixNodeGroupSize`).
    fn overstated(
        &mut self,
        group: &NodeGroup,
        state: &GroupState,
        now: Timestamp,
        provision_time: SignedDuration,
    ) -> u32 {
        let there = u32::try_from(group.instances.len()).unwrap_or(u32::MAX);
        let by = group.target.saturating_sub(there);
        if by == 0 || !state.failed.is_empty() {
            self.overstated.remove(&*group.id);
            return 0;
        }
        let known = self.overstated.entry(group.id.to_string()).or_insert((by, now));
        if known.0 != by {
            *known = (by, now);
        }
        if now.duration_since(known.1) > provision_time { by } else { 0 }
    }

    /// Requests that are fulfilled, failed or given up.
    fn settle(
        &mut self,
        group: &NodeGroup,
        state: &GroupState,
        now: Timestamp,
        settings: &ClusterStateSettings,
        found: &mut Found,
    ) {
        let id = &group.id;
        let new: Vec<_> =
            state.failed.iter().filter(|(instance, _)| !self.reported.contains(&**instance)).collect();
        if let Some((_, error)) = new.first() {
            let count = u32::try_from(new.len()).unwrap_or(u32::MAX);
            self.backoffs.fail(id, &error.code, &error.message, now, settings.backoff);
            if let Some(request) = self.requests.get_mut(&**id) {
                request.nodes = request.nodes.saturating_sub(count);
            }
            found.failures.push((id.clone(), count, error.clone()));
            let instances: Vec<_> = new.iter().map(|(instance, _)| instance.to_string()).collect();
            self.reported.extend(instances);
        }
        let Some(request) = self.requests.get(&**id).cloned() else { return };
        let Readiness { ready, unready, suspended, long_unregistered, .. } = state.readiness;
        let there = ready + unready + suspended + long_unregistered;
        if request.nodes == 0 {
            self.requests.remove(&**id);
        } else if there + state.readiness.being_deleted >= group.target {
            self.requests.remove(&**id);
            self.backoffs.succeed(id);
            found.fulfilled.push((id.clone(), now.duration_since(request.since)));
        } else if now > request.expected_by {
            self.requests.remove(&**id);
            let waited = now.duration_since(request.since);
            let nodes = request.nodes.min(group.target.saturating_sub(there));
            let message = format!("Scale-up timed out for node group {id} after {}", duration(waited));
            self.backoffs.fail(id, TIMEOUT, &message, now, settings.backoff);
            found.expired.push(Expired { group: id.clone(), nodes, waited });
        }
    }

    /// Nodes that a group was asked for and that are not ready to run pods.
    fn upcoming(&self, group: &NodeGroup, state: &GroupState, now: Timestamp) -> u32 {
        // A target above the instances was raised, by whoever it was, and may be as long as it is not overstated.
        let is_awaited = self.requests.contains_key(&*group.id)
            || !state.starting.is_empty()
            || state.readiness.replaced > 0
            || state.readiness.unregistered > 0
            || (self.overstated.contains_key(&*group.id) && state.overstated == 0);
        if !is_awaited || self.backoffs.of(&group.id, now).is_some() {
            return 0;
        }
        let Readiness { ready, unready, suspended, long_unregistered, being_deleted, .. } = state.readiness;
        let failed = u32::try_from(state.failed.len()).unwrap_or(u32::MAX);
        group.target.saturating_sub(ready + unready + suspended + long_unregistered + being_deleted + failed)
    }
}

/// Provider ids of nodes that no group counts on any more: what ends or is about to end is no part of the target, or the
/// group gets another for it.
fn replaced<'a>(groups: &'a [NodeGroup], by_id: &BTreeMap<&str, &Arc<Node>>) -> BTreeSet<&'a str> {
    let is_replaced = |group: &NodeGroup, instance: &Instance| {
        let says_so = |node: &&Arc<Node>| node.taints.iter().any(|it| is_replaced(&it.key, &group.options));
        instance.state == InstanceState::Deleting || by_id.get(&*instance.id).is_some_and(says_so)
    };
    let of =
        |group: &'a NodeGroup| group.instances.iter().filter(move |instance| is_replaced(group, instance));
    groups.iter().flat_map(of).map(|instance| &*instance.id).collect()
}

/// Counts a node; whether it is on its way to being ready.
fn count(
    readiness: &mut Readiness,
    node: &Node,
    is_replaced: bool,
    now: Timestamp,
    startup_time: SignedDuration,
) -> bool {
    readiness.registered += 1;
    let age = node.created.map(|created| now.duration_since(created));
    if node.taint(TO_BE_DELETED).is_some() || node.deleting.is_some() {
        readiness.being_deleted += 1;
    } else if is_replaced {
        readiness.replaced += 1;
    } else if node.condition("Suspended").is_some_and(|(suspended, _)| suspended) {
        readiness.suspended += 1;
    } else if node.ready {
        readiness.ready += 1;
    } else if age.is_some_and(|age| age < startup_time) {
        readiness.not_started += 1;
        return true;
    } else {
        readiness.unready += 1;
    }
    false
}

fn is_healthy(unready: u32, all: u32, settings: &ClusterStateSettings) -> bool {
    unready <= settings.ok_unready
        || f64::from(unready) <= settings.max_unready_percentage / 100.0 * f64::from(all)
}

#[cfg(test)]
mod tests;
