//! Node groups out of Auto Scaling groups: what they have, what they lack, and how they grow and shrink.
//!
//! Placeholders, and that a failed activity marks them, are Cluster Autoscaler's (`auto_scaling_groups.go`).

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use tandem_core::nodes::group::{GroupOptions, Instance, InstanceError, InstanceState, NodeGroup};
use tokio::{
    sync::Mutex,
    time::{Duration, Instant},
};

use super::{
    action::{Action, SET_DESIRED_CAPACITY, TERMINATE_INSTANCE_IN_GROUP},
    autoscaling::{self, AutoScalingGroup, GroupInstance},
    client::{Client, refused},
    discovery::Discovery,
    tags::Tagged,
};
use crate::cloud::{CloudError, NodeRef};

/// How long groups are taken as they are (Cluster Autoscaler: one minute).
const FRESH: Duration = Duration::from_mins(1);

/// The same while machines come or go: whoever waits for them should not wait for us too.
const FRESH_WHILE_CHANGING: Duration = Duration::from_secs(5);

/// How far before the start a failed activity still counts: as long as a node may take to come.
const HINDSIGHT: SignedDuration = SignedDuration::from_mins(15);

/// The code of a placeholder that will not become a machine (Cluster Autoscaler).
const UNFULFILLED: &str = "placeholder-cannot-be-fulfilled";

/// The groups that are meant, as they were when last read.
#[derive(Debug)]
pub(super) struct Groups {
    discovery: Discovery,
    started: Timestamp,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the groups were read; `None` asks for another read.
    read: Option<Instant>,
    groups: BTreeMap<String, Known>,
    problems: Vec<(String, CloudError)>,
    /// When Tandem last set a group's size: failures before that are of the past.
    resized: BTreeMap<String, Timestamp>,
}

#[derive(Debug, Clone)]
struct Known {
    group: AutoScalingGroup,
    min: u32,
    max: u32,
    /// Why it cannot grow, in the words of its newest failed activity.
    failure: Option<String>,
}

impl Groups {
    pub(super) fn new(discovery: Discovery, started: Timestamp) -> Self {
        Self { discovery, started, state: Mutex::default() }
    }

    /// All groups, read again if that was a minute ago; with those that cannot be read.
    pub(super) async fn list(
        &self,
        client: &Client,
    ) -> Result<(Vec<NodeGroup>, Vec<(String, CloudError)>), CloudError> {
        let mut state = self.state.lock().await;
        let changing = state.groups.values().any(Known::is_changing);
        let fresh = if changing { FRESH_WHILE_CHANGING } else { FRESH };
        if state.read.is_none_or(|read| read.elapsed() >= fresh) {
            self.read(client, &mut state).await?;
        }
        let groups = state.groups.values().map(Known::node_group).collect();
        Ok((groups, state.problems.clone()))
    }

    /// One group as it was when last read.
    pub(super) async fn get(&self, client: &Client, name: &str) -> Result<AutoScalingGroup, CloudError> {
        let mut state = self.state.lock().await;
        if state.read.is_none() {
            self.read(client, &mut state).await?;
        }
        known(&state, name).map(|known| known.group.clone())
    }

    async fn read(&self, client: &Client, state: &mut State) -> Result<(), CloudError> {
        let names: Vec<&str> = self.discovery.named.keys().map(String::as_str).collect();
        let mut found = autoscaling::groups_by_name(client, &names).await?;
        let mut problems: Vec<_> = names
            .iter()
            .filter(|name| found.iter().all(|group| group.name != **name))
            .map(|name| (String::from(*name), CloudError::NotFound(format!("Auto Scaling group {name}"))))
            .collect();
        if !self.discovery.tags.is_empty() {
            let discovered = autoscaling::groups_by_tags(client, &self.discovery.tags).await?;
            found.extend(
                discovered.into_iter().filter(|group| !self.discovery.named.contains_key(&group.name)),
            );
        }
        let mut groups = BTreeMap::new();
        for group in found {
            let since = state.resized.get(&group.name).copied().unwrap_or(self.started - HINDSIGHT);
            match self.know(client, group, since).await {
                Ok(known) => drop(groups.insert(known.group.name.clone(), known)),
                Err((name, error)) => problems.push((name, error)),
            }
        }
        *state = State {
            read: Some(Instant::now()),
            groups,
            problems,
            resized: std::mem::take(&mut state.resized),
        };
        Ok(())
    }

    async fn know(
        &self,
        client: &Client,
        group: AutoScalingGroup,
        since: Timestamp,
    ) -> Result<Known, (String, CloudError)> {
        let (min, max) = self
            .discovery
            .named
            .get(&group.name)
            .map_or((group.min_size, group.max_size), |spec| (spec.min, spec.max));
        let failure = if group.desired_capacity > counted(&group) {
            failure(client, &group.name, since).await.map_err(|error| (group.name.clone(), error))?
        } else {
            None
        };
        Ok(Known { group, min, max, failure })
    }

    /// Raises a group by `delta` above `target`. Never lowers it, should somebody have raised it meanwhile.
    pub(super) async fn increase(
        &self,
        client: &Client,
        name: &str,
        target: u32,
        delta: u32,
        now: Timestamp,
    ) -> Result<(), CloudError> {
        let mut state = self.state.lock().await;
        let max = known(&state, name)?.max;
        let size = target.saturating_add(delta);
        if size > max {
            let message = format!("group {name} would have {size} nodes, its maximum is {max}");
            return Err(refused(&SET_DESIRED_CAPACITY, "AboveMaximum", &message));
        }
        let current = fresh(client, name, &SET_DESIRED_CAPACITY).await?;
        if current.desired_capacity < size {
            self.resize(client, &mut state, current, size, now).await
        } else {
            tracing::info!(group = name, size, desired = current.desired_capacity, "is as large already");
            state.read = None;
            Ok(())
        }
    }

    /// Terminates nodes, one call each, and lowers the group's size with each; placeholders lower the size alone.
    /// After a failure the others are still tried, and the first failure is returned.
    pub(super) async fn delete(
        &self,
        client: &Client,
        name: &str,
        nodes: &[NodeRef],
        now: Timestamp,
    ) -> Result<(), CloudError> {
        let mut state = self.state.lock().await;
        let (min, desired) = known(&state, name).map(|known| (known.min, known.group.desired_capacity))?;
        let (placeholders, machines): (Vec<_>, Vec<_>) =
            nodes.iter().partition(|node| instance_id(&node.provider_id).starts_with("i-placeholder-"));
        if usize::try_from(desired).is_ok_and(|desired| desired < nodes.len() + min as usize) {
            let message = format!(
                "group {name} has a size of {desired} and a minimum of {min}, {} nodes cannot be deleted",
                nodes.len()
            );
            return Err(refused(&TERMINATE_INSTANCE_IN_GROUP, "BelowMinimum", &message));
        }
        // Whatever happens now, what is known is out of date.
        state.read = None;
        let mut first = Ok(());
        for node in machines {
            let deleted = delete_machine(client, known(&state, name)?, node).await;
            first = first.and(deleted);
        }
        if !placeholders.is_empty() {
            let lowered = self.lower(client, &mut state, name, count(placeholders.len()), now).await;
            first = first.and(lowered);
        }
        first
    }

    /// Takes a machine out of its group, which gets another for it at once; what ends is left to end.
    pub(super) async fn replace(
        &self,
        client: &Client,
        name: &str,
        node: &NodeRef,
    ) -> Result<bool, CloudError> {
        let mut state = self.state.lock().await;
        let id = instance_id(&node.provider_id);
        let is_it = |instance: &&GroupInstance| instance.instance_id == id;
        let instance = known(&state, name)?.group.instances.iter().find(is_it);
        let serves = instance.is_some_and(|instance| instance.lifecycle_state == "InService");
        state.read = None;
        if serves {
            autoscaling::detach(client, name, id).await?;
        }
        Ok(serves)
    }

    /// What was read is out of date.
    pub(super) async fn forget(&self) {
        self.state.lock().await.read = None;
    }

    /// Lowers the size from `target` by `delta` machines that have not come; never below those that have.
    pub(super) async fn decrease(
        &self,
        client: &Client,
        name: &str,
        target: u32,
        delta: u32,
        now: Timestamp,
    ) -> Result<(), CloudError> {
        let mut state = self.state.lock().await;
        known(&state, name)?;
        let current = fresh(client, name, &SET_DESIRED_CAPACITY).await?;
        let size = target.saturating_sub(delta);
        if current.desired_capacity > target {
            let message = format!(
                "group {name} was raised from {target} to {} meanwhile; lowering it to {size} would end new nodes",
                current.desired_capacity
            );
            return Err(refused(&SET_DESIRED_CAPACITY, "SizeChanged", &message));
        }
        if size < counted(&current) {
            let message = format!(
                "group {name} has {} instances; lowering it from {target} to {size} would end some",
                counted(&current)
            );
            return Err(refused(&SET_DESIRED_CAPACITY, "InstancesExist", &message));
        }
        if current.desired_capacity > size {
            self.resize(client, &mut state, current, size, now).await?;
        }
        Ok(())
    }

    /// Takes placeholders off a group's size as it is now: some may have become machines since the decision, and a size
    /// below the number of machines makes AWS choose one to end.
    async fn lower(
        &self,
        client: &Client,
        state: &mut State,
        name: &str,
        placeholders: u32,
        now: Timestamp,
    ) -> Result<(), CloudError> {
        let current = fresh(client, name, &SET_DESIRED_CAPACITY).await?;
        let min = known(state, name)?.min;
        let size = without_placeholders(current.desired_capacity, placeholders, counted(&current), min);
        if size < current.desired_capacity {
            self.resize(client, state, current, size, now).await?;
        }
        state.read = None;
        Ok(())
    }

    async fn resize(
        &self,
        client: &Client,
        state: &mut State,
        group: AutoScalingGroup,
        size: u32,
        now: Timestamp,
    ) -> Result<(), CloudError> {
        tracing::info!("Setting asg {} size to {size}", group.name);
        autoscaling::set_desired_capacity(client, &group.name, size).await?;
        state.resized.insert(group.name.clone(), now);
        if let Some(known) = state.groups.get_mut(&group.name) {
            known.group = AutoScalingGroup { desired_capacity: size, ..group };
            known.failure = None;
        }
        Ok(())
    }
}

impl Known {
    /// Whether it has other machines than those that it is to have.
    fn is_changing(&self) -> bool {
        let in_service = |instance: &&GroupInstance| instance.lifecycle_state == "InService";
        let settled = self.group.instances.iter().filter(in_service).count();
        settled != self.group.instances.len() || settled != self.group.desired_capacity as usize
    }

    fn node_group(&self) -> NodeGroup {
        let group = &self.group;
        let machines = group.instances.iter().filter_map(|instance| {
            let id = provider_id(&instance.availability_zone, &instance.instance_id);
            Some(Instance { id, state: state(&instance.lifecycle_state)? })
        });
        let error = self.failure.as_ref().map(|message| InstanceError {
            // Whatever the reason, another group is the better choice; Cluster Autoscaler says so of all.
            out_of_resources: true,
            code: UNFULFILLED.to_owned(),
            message: message.clone(),
        });
        let zone = group.availability_zones.first().map_or("", String::as_str);
        let placeholders = (counted(group)..group.desired_capacity).map(|index| Instance {
            id: provider_id(zone, &format!("i-placeholder-{}-{index}", group.name)),
            state: InstanceState::Creating(error.clone()),
        });
        NodeGroup {
            id: group.name.as_str().into(),
            min: self.min,
            max: self.max,
            target: group.desired_capacity,
            instances: machines.chain(placeholders).collect(),
            options: GroupOptions {
                rebalances: group.capacity_rebalance,
                ..Tagged::read(&group.tags).options
            },
        }
    }
}

/// `aws:///ZONE/ID`, as the kubelet's cloud provider writes it into `spec.providerID`.
fn provider_id(zone: &str, id: &str) -> Arc<str> {
    format!("aws:///{zone}/{id}").into()
}

/// The id at the end of a provider's id, or the id itself.
pub(super) fn instance_id(provider_id: &str) -> &str {
    provider_id.rsplit('/').next().unwrap_or(provider_id)
}

/// Where an instance is in its life, by the lifecycle of Auto Scaling; `None` if it is no node (any more).
fn state(lifecycle: &str) -> Option<InstanceState> {
    let phase = lifecycle.split(':').next().unwrap_or_default();
    match phase {
        // In a warm pool, or handed over to somebody else.
        "Warmed" | "Detaching" | "Detached" | "Terminated" => None,
        "Terminating" => Some(InstanceState::Deleting),
        "Pending" => Some(InstanceState::Creating(None)),
        _ => Some(InstanceState::Running),
    }
}

/// The instances that count towards the group's size.
fn counted(group: &AutoScalingGroup) -> u32 {
    let counts = |instance: &&GroupInstance| {
        matches!(state(&instance.lifecycle_state), Some(InstanceState::Running | InstanceState::Creating(_)))
            && !matches!(instance.lifecycle_state.as_str(), "Standby" | "EnteringStandby")
    };
    count(group.instances.iter().filter(counts).count())
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The size without placeholders: not below the machines that are there, nor below the minimum.
fn without_placeholders(desired: u32, placeholders: u32, machines: u32, min: u32) -> u32 {
    desired.saturating_sub(placeholders).max(machines).max(min)
}

fn known<'a>(state: &'a State, name: &str) -> Result<&'a Known, CloudError> {
    state.groups.get(name).ok_or_else(|| CloudError::NotFound(format!("node group {name}")))
}

async fn fresh(client: &Client, name: &str, action: &Action) -> Result<AutoScalingGroup, CloudError> {
    let found = autoscaling::groups_by_name(client, &[name]).await?;
    found
        .into_iter()
        .find(|group| group.name == name)
        .ok_or_else(|| CloudError::NotFound(format!("Auto Scaling group {name}, named to {}", action.name)))
}

/// Why a group lacks machines, if an activity since then failed.
async fn failure(client: &Client, name: &str, since: Timestamp) -> Result<Option<String>, CloudError> {
    let activities = autoscaling::activities(client, name).await?;
    let recent = activities.into_iter().take_while(|activity| activity.start_time >= since);
    Ok(recent
        .into_iter()
        .find(|activity| activity.status_code == "Failed")
        .map(|activity| activity.status_message))
}

async fn delete_machine(client: &Client, group: &Known, node: &NodeRef) -> Result<(), CloudError> {
    let id = instance_id(&node.provider_id);
    let instance = group.group.instances.iter().find(|instance| instance.instance_id == id);
    match instance.map(|instance| state(&instance.lifecycle_state)) {
        None => Err(CloudError::NotFound(format!("instance {id} in group {}", group.group.name))),
        Some(Some(InstanceState::Deleting) | None) => {
            tracing::info!(node = &*node.name, instance = id, "is being terminated already");
            Ok(())
        }
        Some(_) => autoscaling::terminate(client, id).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::aws::autoscaling::Tag;

    fn group(desired: u32, lifecycles: &[&str]) -> AutoScalingGroup {
        let instance = |(index, lifecycle): (usize, &&str)| GroupInstance {
            instance_id: format!("i-{index}"),
            availability_zone: "r-1a".into(),
            lifecycle_state: (*lifecycle).into(),
        };
        AutoScalingGroup {
            name: "g".into(),
            min_size: 0,
            max_size: 9,
            desired_capacity: desired,
            launch_configuration_name: None,
            launch_template: None,
            mixed_instances_policy: None,
            capacity_rebalance: true,
            availability_zones: vec!["r-1b".into(), "r-1a".into()],
            instances: lifecycles.iter().enumerate().map(instance).collect(),
            tags: vec![Tag {
                key: "k8s.io/cluster-autoscaler/node-template/autoscaling-options/scaledownunneededtime"
                    .into(),
                value: "3m".into(),
            }],
        }
    }

    fn node_group(desired: u32, lifecycles: &[&str], failure: Option<&str>) -> NodeGroup {
        let failure = failure.map(str::to_owned);
        Known { group: group(desired, lifecycles), min: 1, max: 5, failure }.node_group()
    }

    #[test]
    fn lifecycles_are_states_and_what_is_missing_has_placeholders() {
        let seen = node_group(
            4,
            &["InService", "Pending:Wait", "Terminating:Wait", "Standby", "Warmed:Stopped"],
            None,
        );
        let instances: Vec<_> =
            seen.instances.iter().map(|instance| (&*instance.id, instance.state.clone())).collect();
        assert_eq!(
            instances,
            [
                ("aws:///r-1a/i-0", InstanceState::Running),
                ("aws:///r-1a/i-1", InstanceState::Creating(None)),
                ("aws:///r-1a/i-2", InstanceState::Deleting),
                ("aws:///r-1a/i-3", InstanceState::Running),
                ("aws:///r-1b/i-placeholder-g-2", InstanceState::Creating(None)),
                ("aws:///r-1b/i-placeholder-g-3", InstanceState::Creating(None)),
            ]
        );
        assert_eq!((seen.target, seen.min, seen.max), (4, 1, 5));
        assert_eq!(seen.options.unneeded_time, Some(SignedDuration::from_mins(3)));
        assert!(seen.options.rebalances);
    }

    #[test]
    fn a_failed_activity_marks_placeholders_only() {
        let seen = node_group(2, &["Pending"], Some("no capacity"));
        assert_eq!(seen.instances[0].state, InstanceState::Creating(None));
        let InstanceState::Creating(Some(error)) = &seen.instances[1].state else { panic!("{seen:?}") };
        assert_eq!(
            (error.out_of_resources, &*error.code, &*error.message),
            (true, UNFULFILLED, "no capacity")
        );
    }

    #[test]
    fn a_size_never_goes_below_the_machines_that_are_there() {
        for (desired, placeholders, machines, min, size) in [
            (5, 2, 3, 0, 3),
            (5, 2, 4, 0, 4),
            (5, 2, 5, 0, 5),
            (5, 5, 0, 1, 1),
            (3, 9, 0, 0, 0),
            (4, 1, 2, 0, 3),
        ] {
            assert_eq!(without_placeholders(desired, placeholders, machines, min), size);
        }
    }

    #[test]
    fn ids_are_the_ends_of_provider_ids() {
        for (text, id) in [
            ("aws:///r-1a/i-0abc", "i-0abc"),
            ("i-0abc", "i-0abc"),
            ("aws:///r-1a/i-placeholder-g-0", "i-placeholder-g-0"),
        ] {
            assert_eq!(instance_id(text), id);
        }
    }
}
