//! The document `cluster-autoscaler-status`, as Cluster Autoscaler writes it since 1.30.
//!
//! Source: Cluster Autoscaler, `clusterstate/api/types.go` and `clusterstate/clusterstate.go`. Fields stand in the order of
//! their names, as they do in what the peer writes.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    backoff::Backoff,
    cluster_state::{ClusterState, Found, GroupState, Readiness},
    group::NodeGroup,
    printed::timestamp,
};

/// The key of the ConfigMap that holds the document.
pub const KEY: &str = "status";
/// Annotation with the time of the last write, in the form of [`timestamp`].
pub const LAST_UPDATED: &str = "cluster-autoscaler.kubernetes.io/last-updated";
/// A provider's words are cut after so many characters.
const MESSAGE_LENGTH: usize = 500;
/// What then stands in the place of the rest.
const TRUNCATED: &str = "<truncated>";

/// The whole document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// `Initializing` until the first pass, then `Running`.
    pub autoscaler_status: AutoscalerStatus,
    /// The whole cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_wide: Option<ClusterWide>,
    /// Anything else to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Each group, in order of name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_groups: Vec<Group>,
    /// The time of the pass, in the form of [`timestamp`].
    pub time: String,
}

/// Whether there has been a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AutoscalerStatus {
    /// Not yet.
    Initializing,
    /// There has.
    Running,
}

/// The whole cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterWide {
    /// Whether enough nodes work.
    pub health: ClusterHealth,
    /// Whether nodes can go.
    pub scale_down: ScaleDown,
    /// Whether nodes come.
    pub scale_up: ClusterScaleUp,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// Whether enough of its nodes work.
    pub health: GroupHealth,
    /// Its name.
    pub name: String,
    /// Whether nodes can go.
    pub scale_down: ScaleDown,
    /// Whether nodes come.
    pub scale_up: GroupScaleUp,
}

/// Whether enough nodes work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthStatus {
    /// Enough do.
    Healthy,
    /// Too few do.
    Unhealthy,
}

/// The health of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterHealth {
    /// Of the last pass.
    #[serde(with = "seconds")]
    pub last_probe_time: Timestamp,
    /// Of the pass that changed the status last.
    #[serde(with = "seconds")]
    pub last_transition_time: Timestamp,
    /// How its nodes are.
    pub node_counts: NodeCounts,
    /// Whether enough work.
    pub status: HealthStatus,
}

/// The health of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupHealth {
    /// The size that the provider was asked for.
    pub cloud_provider_target: u32,
    /// Of the last pass.
    #[serde(with = "seconds")]
    pub last_probe_time: Timestamp,
    /// Of the pass that changed the status last.
    #[serde(with = "seconds")]
    pub last_transition_time: Timestamp,
    /// Its maximum.
    pub max_size: u32,
    /// Its minimum.
    pub min_size: u32,
    /// How its nodes are.
    pub node_counts: NodeCounts,
    /// Whether enough work.
    pub status: HealthStatus,
}

/// How nodes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeCounts {
    /// Instances that never became a node in time.
    pub long_unregistered: u32,
    /// Nodes.
    pub registered: Registered,
    /// Instances that are no node yet.
    pub unregistered: u32,
}

/// How registered nodes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registered {
    /// On their way out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub being_deleted: u32,
    /// Not ready yet.
    pub not_started: u32,
    /// Ready.
    pub ready: u32,
    /// Suspended by the provider.
    #[serde(default)]
    pub suspended: u32,
    /// All.
    pub total: u32,
    /// Not ready.
    pub unready: Unready,
}

/// Nodes that are not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unready {
    /// Of these those whose accelerators are not there yet.
    pub resource_unready: u32,
    /// All.
    pub total: u32,
}

/// Whether nodes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScaleUpStatus {
    /// They do.
    InProgress,
    /// Too few nodes of the group work to add any.
    Unhealthy,
    /// It failed a short while ago.
    Backoff,
    /// None are asked for.
    NoActivity,
}

/// Whether nodes come to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterScaleUp {
    /// Of the last pass.
    #[serde(with = "seconds")]
    pub last_probe_time: Timestamp,
    /// Of the pass that changed the status last.
    #[serde(with = "seconds")]
    pub last_transition_time: Timestamp,
    /// Whether they come.
    pub status: ScaleUpStatus,
}

/// Whether nodes come to a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupScaleUp {
    /// Why it is left alone; empty if it is not.
    #[serde(default)]
    pub backoff_info: BackoffInfo,
    /// Of the last pass.
    #[serde(with = "seconds")]
    pub last_probe_time: Timestamp,
    /// Of the pass that changed the status last.
    #[serde(with = "seconds")]
    pub last_transition_time: Timestamp,
    /// Whether they come.
    pub status: ScaleUpStatus,
}

/// Why a group is left alone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackoffInfo {
    /// The provider's code, or `timeout`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error_code: String,
    /// The provider's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error_message: String,
}

/// Whether nodes can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScaleDownStatus {
    /// Some are not needed.
    CandidatesPresent,
    /// All are needed.
    NoCandidates,
}

/// Whether nodes can go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleDown {
    /// Nodes that are not needed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub candidates: u32,
    /// Of the last pass.
    #[serde(with = "seconds")]
    pub last_probe_time: Timestamp,
    /// Of the pass that changed the status last.
    #[serde(with = "seconds")]
    pub last_transition_time: Timestamp,
    /// Whether they can.
    pub status: ScaleDownStatus,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// Times as the API server writes them: RFC 3339 in whole seconds.
mod seconds {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&time.strftime("%Y-%m-%dT%H:%M:%SZ"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// What a document tells.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The time of the pass.
    pub now: Timestamp,
    /// What the pass found.
    pub found: &'a Found,
    /// What is remembered: requests and groups that are left alone.
    pub memory: &'a ClusterState,
    /// Groups, in order of name.
    pub groups: &'a [NodeGroup],
    /// Nodes that are not needed, by group.
    pub candidates: &'a BTreeMap<Arc<str>, u32>,
}

impl Seen<'_> {
    /// The time of the pass as conditions tell it, in whole seconds.
    fn probed(&self) -> Timestamp {
        Timestamp::from_second(self.now.as_second()).unwrap_or(self.now)
    }
}

impl Status {
    /// The document before the first pass.
    pub fn initializing(now: Timestamp) -> Self {
        Self {
            autoscaler_status: AutoscalerStatus::Initializing,
            cluster_wide: None,
            message: String::new(),
            node_groups: Vec::new(),
            time: timestamp(now),
        }
    }

    /// The document after a pass. Times of transitions are those of `previous` where the status is the same.
    pub fn after(seen: &Seen<'_>, previous: Option<&Self>) -> Self {
        let known: BTreeMap<&str, &Group> = previous
            .into_iter()
            .flat_map(|previous| &previous.node_groups)
            .map(|group| (group.name.as_str(), group))
            .collect();
        let groups = seen.groups.iter().map(|group| Group::of(seen, group, known.get(&*group.id).copied()));
        Self {
            autoscaler_status: AutoscalerStatus::Running,
            cluster_wide: Some(ClusterWide::of(
                seen,
                previous.and_then(|previous| previous.cluster_wide.as_ref()),
            )),
            message: String::new(),
            node_groups: groups.collect(),
            time: timestamp(seen.now),
        }
    }

    /// The document with these problems as its message, cut as a provider's words are.
    #[must_use]
    pub fn saying(self, problems: &[String]) -> Self {
        Self { message: cut(&problems.join("; ")), ..self }
    }

    /// Whether it says the same as another but for when it was looked.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let mut other = other.clone();
        other.time.clone_from(&self.time);
        if let (Some(mine), Some(others)) = (&self.cluster_wide, &mut other.cluster_wide) {
            others.health.last_probe_time = mine.health.last_probe_time;
            others.scale_up.last_probe_time = mine.scale_up.last_probe_time;
            others.scale_down.last_probe_time = mine.scale_down.last_probe_time;
        }
        for (mine, others) in self.node_groups.iter().zip(&mut other.node_groups) {
            others.health.last_probe_time = mine.health.last_probe_time;
            others.scale_up.last_probe_time = mine.scale_up.last_probe_time;
            others.scale_down.last_probe_time = mine.scale_down.last_probe_time;
        }
        *self == other
    }
}

/// Since when the status is what it is.
fn since<T: PartialEq>(status: &T, previous: Option<(&T, Timestamp)>, now: Timestamp) -> Timestamp {
    previous.filter(|(previous, _)| *previous == status).map_or(now, |(_, since)| since)
}

impl ClusterWide {
    fn of(seen: &Seen<'_>, previous: Option<&Self>) -> Self {
        let now = seen.probed();
        let health = health_status(seen.found.healthy);
        let grows = !seen.memory.requests.is_empty();
        let scale_up = if grows { ScaleUpStatus::InProgress } else { ScaleUpStatus::NoActivity };
        let known = previous.map(|previous| (&previous.health.status, previous.health.last_transition_time));
        let known_up =
            previous.map(|previous| (&previous.scale_up.status, previous.scale_up.last_transition_time));
        Self {
            health: ClusterHealth {
                last_probe_time: now,
                last_transition_time: since(&health, known, now),
                node_counts: NodeCounts::of(&seen.found.total),
                status: health,
            },
            scale_down: ScaleDown::of(
                seen.candidates.values().sum(),
                previous.map(|previous| &previous.scale_down),
                now,
            ),
            scale_up: ClusterScaleUp {
                last_probe_time: now,
                last_transition_time: since(&scale_up, known_up, now),
                status: scale_up,
            },
        }
    }
}

impl Group {
    fn of(seen: &Seen<'_>, group: &NodeGroup, previous: Option<&Self>) -> Self {
        let now = seen.probed();
        let unknown = GroupState::default();
        let state = seen.found.groups.get(&group.id).unwrap_or(&unknown);
        let health = health_status(state.healthy);
        let known = previous.map(|previous| (&previous.health.status, previous.health.last_transition_time));
        Self {
            health: GroupHealth {
                cloud_provider_target: group.target,
                last_probe_time: now,
                last_transition_time: since(&health, known, now),
                max_size: group.max,
                min_size: group.min,
                node_counts: NodeCounts::of(&state.readiness),
                status: health,
            },
            name: group.id.to_string(),
            scale_down: ScaleDown::of(
                seen.candidates.get(&group.id).copied().unwrap_or(0),
                previous.map(|previous| &previous.scale_down),
                now,
            ),
            scale_up: GroupScaleUp::of(seen, group, state, previous.map(|previous| &previous.scale_up)),
        }
    }
}

impl GroupScaleUp {
    fn of(seen: &Seen<'_>, group: &NodeGroup, state: &GroupState, previous: Option<&Self>) -> Self {
        let backoff = seen.memory.backoffs.of(&group.id, seen.now);
        let (status, backoff) = if seen.memory.requests.contains_key(&*group.id) {
            (ScaleUpStatus::InProgress, None)
        } else if !state.healthy {
            (ScaleUpStatus::Unhealthy, None)
        } else {
            (backoff.map_or(ScaleUpStatus::NoActivity, |_| ScaleUpStatus::Backoff), backoff)
        };
        let known = previous.map(|previous| (&previous.status, previous.last_transition_time));
        Self {
            backoff_info: backoff.map(BackoffInfo::of).unwrap_or_default(),
            last_probe_time: seen.probed(),
            last_transition_time: since(&status, known, seen.probed()),
            status,
        }
    }
}

impl ScaleDown {
    fn of(candidates: u32, previous: Option<&Self>, now: Timestamp) -> Self {
        let status =
            if candidates > 0 { ScaleDownStatus::CandidatesPresent } else { ScaleDownStatus::NoCandidates };
        let known = previous.map(|previous| (&previous.status, previous.last_transition_time));
        Self { candidates, last_probe_time: now, last_transition_time: since(&status, known, now), status }
    }
}

impl BackoffInfo {
    fn of(backoff: &Backoff) -> Self {
        Self { error_code: backoff.code.clone(), error_message: cut(&backoff.message) }
    }
}

impl NodeCounts {
    fn of(readiness: &Readiness) -> Self {
        Self {
            long_unregistered: readiness.long_unregistered,
            registered: Registered {
                being_deleted: readiness.being_deleted,
                not_started: readiness.not_started,
                ready: readiness.ready,
                suspended: readiness.suspended,
                total: readiness.registered,
                unready: Unready { resource_unready: 0, total: readiness.unready },
            },
            unregistered: readiness.unregistered,
        }
    }
}

fn health_status(is_healthy: bool) -> HealthStatus {
    if is_healthy { HealthStatus::Healthy } else { HealthStatus::Unhealthy }
}

/// A text that is not too long for the document.
fn cut(text: &str) -> String {
    let mut short: String = text.chars().take(MESSAGE_LENGTH).collect();
    if short.len() < text.len() {
        short.push_str(TRUNCATED);
    }
    short
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::nodes::{backoff::BackoffSettings, group::GroupOptions};

    const BACKOFF: BackoffSettings = BackoffSettings {
        first: SignedDuration::from_mins(5),
        longest: SignedDuration::from_mins(30),
        forgotten: SignedDuration::from_hours(3),
    };

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn group() -> NodeGroup {
        NodeGroup {
            id: "workers".into(),
            min: 2,
            max: 12,
            target: 8,
            instances: Vec::new(),
            options: GroupOptions::default(),
        }
    }

    /// A cluster with one group, which is well and leaves its nodes idle or not.
    fn status(now: Timestamp, memory: &ClusterState, idle: u32, previous: Option<&Status>) -> Status {
        let readiness = Readiness { registered: 4, ready: 3, being_deleted: 1, ..Readiness::default() };
        let state = GroupState { readiness, healthy: true, ..GroupState::default() };
        let found = Found {
            groups: BTreeMap::from([("workers".into(), state)]),
            total: readiness,
            healthy: true,
            ..Found::default()
        };
        let candidates = BTreeMap::from([("workers".into(), idle)]);
        let groups = [group()];
        Status::after(
            &Seen { now, found: &found, memory, groups: &groups, candidates: &candidates },
            previous,
        )
    }

    #[test]
    fn is_written_as_the_peer_writes_it() {
        let mut memory = ClusterState::default();
        let now = at("2026-03-01T12:00:00.54675Z");
        memory.backoffs.fail("workers", "QUOTA_EXCEEDED", &"x".repeat(501), now, BACKOFF);
        let status = status(now, &memory, 2, None);
        insta::assert_snapshot!(serde_saphyr::to_string(&status).unwrap().replace(&"x".repeat(500), "XXX"));
        let read: Status = serde_saphyr::from_str(&serde_saphyr::to_string(&status).unwrap()).unwrap();
        assert!(read.says_the_same(&status), "{read:?}");
    }

    #[test]
    fn a_transition_is_when_the_status_changed() {
        let memory = ClusterState::default();
        let (first, later) = (at("2026-03-01T12:00:00Z"), at("2026-03-01T12:05:00Z"));
        let before = status(first, &memory, 0, None);
        let same = status(later, &memory, 0, Some(&before));
        assert!(same.says_the_same(&before));
        let idle = status(later, &memory, 1, Some(&before));
        assert!(!idle.says_the_same(&before));
        let group = &idle.node_groups[0];
        assert_eq!(group.scale_down.last_transition_time, later);
        assert_eq!(group.health.last_transition_time, first);
        assert_eq!(group.health.last_probe_time, later);
    }

    #[test]
    fn a_group_that_grows_is_in_progress_whatever_else() {
        let mut memory = ClusterState::default();
        let now = at("2026-03-01T12:00:00Z");
        memory.backoffs.fail("workers", "x", "y", now, BACKOFF);
        memory.requested("workers", 2, now, SignedDuration::from_mins(15));
        let status = status(now, &memory, 0, None);
        assert_eq!(status.node_groups[0].scale_up.status, ScaleUpStatus::InProgress);
        assert_eq!(status.cluster_wide.unwrap().scale_up.status, ScaleUpStatus::InProgress);
    }

    #[test]
    fn times_are_gos() {
        assert_eq!(
            timestamp(at("2023-11-24T04:28:19.546750398Z")),
            "2023-11-24 04:28:19.546750398 +0000 UTC"
        );
        assert_eq!(timestamp(at("2023-11-24T04:28:19Z")), "2023-11-24 04:28:19 +0000 UTC");
    }

    #[test]
    fn what_is_wrong_is_its_message() {
        let status = Status::initializing(Timestamp::UNIX_EPOCH);
        let wrong = status.clone().saying(&["a is gone".to_owned(), "b".repeat(600)]);
        assert!(wrong.message.starts_with("a is gone; bbb") && wrong.message.ends_with(TRUNCATED));
        assert!(!wrong.says_the_same(&status));
        assert_eq!(wrong.saying(&[]), status);
    }
}
