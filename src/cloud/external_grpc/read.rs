//! What answers mean, and which of them make no sense.

use std::{collections::BTreeSet, sync::Arc};

use jiff::SignedDuration;
use tandem_core::nodes::group::{GroupOptions, Instance, InstanceError, InstanceState};

use super::{
    objects,
    protocol::{
        self, GET_OPTIONS, MetaDuration, NODE_GROUPS, NODES, NodeGroupAutoscalingOptions,
        NodeGroupNodesResponse, NodeGroupTargetSizeResponse, NodeGroupTemplateNodeInfoResponse,
        NodeGroupsResponse, PriceResponse, TARGET_SIZE, TEMPLATE_NODE_INFO, WireDuration,
    },
};
use crate::cloud::{CloudError, Template};

/// `instanceErrorClass` of a provider that has no more of what it was asked for.
const OUT_OF_RESOURCES: i32 = 1;

/// Cluster Autoscaler's defaults of what a server is told when the flags are not known (`config/const.go`).
const THRESHOLD: f64 = 0.5;
const UNNEEDED: SignedDuration = SignedDuration::from_mins(10);
const UNREADY: SignedDuration = SignedDuration::from_mins(20);
const PROVISION: SignedDuration = SignedDuration::from_mins(15);

/// A group as `NodeGroups` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) id: Arc<str>,
    pub(super) min: u32,
    pub(super) max: u32,
}

/// An answer that makes no sense.
fn garbage(method: &str, message: String) -> CloudError {
    CloudError::Refused { call: method.to_owned(), code: "garbage".to_owned(), message }
}

/// The groups that make sense, and the others with the reason. Of a group that is listed twice the first counts.
pub(super) fn listed(answer: NodeGroupsResponse) -> (Vec<Listed>, Vec<(String, CloudError)>) {
    let mut seen = BTreeSet::new();
    let mut groups = Vec::new();
    let mut left_out = Vec::new();
    for group in answer.node_groups {
        let bounds = (u32::try_from(group.min_size), u32::try_from(group.max_size));
        let problem = match bounds {
            _ if group.id.is_empty() => "a group without an id".to_owned(),
            _ if !seen.insert(group.id.clone()) => "it is listed twice".to_owned(),
            (Ok(min), Ok(max)) if min <= max => {
                groups.push(Listed { id: group.id.into(), min, max });
                continue;
            }
            _ => format!("sizes from {} to {} make no sense", group.min_size, group.max_size),
        };
        left_out.push((group.id, garbage(NODE_GROUPS.name, problem)));
    }
    (groups, left_out)
}

pub(super) fn target(answer: NodeGroupTargetSizeResponse) -> Result<u32, CloudError> {
    let size = answer.target_size;
    u32::try_from(size).map_err(|_| garbage(TARGET_SIZE.name, format!("a target of {size} nodes")))
}

/// The instances, each once. One that says nothing of its state runs, as with Cluster Autoscaler.
pub(super) fn instances(answer: NodeGroupNodesResponse) -> Result<Vec<Instance>, CloudError> {
    let mut seen = BTreeSet::new();
    let mut instances = Vec::new();
    for instance in answer.instances {
        if instance.id.is_empty() {
            return Err(garbage(NODES.name, "an instance without an id".to_owned()));
        }
        if seen.insert(instance.id.clone()) {
            let state = instance.status.map_or(InstanceState::Running, state);
            instances.push(Instance { id: instance.id.into(), state });
        }
    }
    Ok(instances)
}

fn state(status: protocol::InstanceStatus) -> InstanceState {
    match status.instance_state() {
        protocol::InstanceState::Unspecified | protocol::InstanceState::Running => InstanceState::Running,
        protocol::InstanceState::Deleting => InstanceState::Deleting,
        protocol::InstanceState::Creating => {
            let error = status.error_info.filter(|error| !error.error_code.is_empty());
            InstanceState::Creating(error.map(|error| InstanceError {
                out_of_resources: error.instance_error_class == OUT_OF_RESOURCES,
                code: error.error_code,
                message: error.error_message,
            }))
        }
    }
}

/// What a server is told that holds without its word.
pub(super) fn wire_options(defaults: &GroupOptions) -> NodeGroupAutoscalingOptions {
    let duration = |given: Option<SignedDuration>, default| given.unwrap_or(default);
    let unneeded = duration(defaults.unneeded_time, UNNEEDED);
    let unready = duration(defaults.unready_time, UNREADY);
    let provision = duration(defaults.max_provision_time, PROVISION);
    let startup = duration(defaults.max_startup_time, PROVISION);
    let wire =
        |time: SignedDuration| Some(WireDuration { seconds: time.as_secs(), nanos: time.subsec_nanos() });
    let meta = |time: SignedDuration| {
        Some(MetaDuration { duration: i64::try_from(time.as_nanos()).unwrap_or(i64::MAX) })
    };
    NodeGroupAutoscalingOptions {
        scale_down_utilization_threshold: defaults.utilization_threshold.unwrap_or(THRESHOLD),
        scale_down_gpu_utilization_threshold: defaults.gpu_utilization_threshold.unwrap_or(THRESHOLD),
        scale_down_unneeded_time: meta(unneeded),
        scale_down_unready_time: meta(unready),
        max_node_provision_time: meta(provision),
        zero_or_max_node_scaling: defaults.zero_or_max,
        ignore_daemon_sets_utilization: defaults.ignore_daemon_sets.unwrap_or(false),
        scale_down_unneeded_duration: wire(unneeded),
        scale_down_unready_duration: wire(unready),
        max_node_provision_duration: wire(provision),
        max_node_startup_duration: wire(startup),
    }
}

/// A server says all of its options or none, so that a threshold of zero is meant: nothing is scaled in. Only a time
/// that is absent is the flag's, which Cluster Autoscaler takes for no time at all.
pub(super) fn options(options: NodeGroupAutoscalingOptions) -> Result<GroupOptions, CloudError> {
    let NodeGroupAutoscalingOptions {
        scale_down_utilization_threshold: threshold,
        scale_down_gpu_utilization_threshold: gpu_threshold,
        ..
    } = options;
    if !threshold.is_finite() || !gpu_threshold.is_finite() {
        let message = format!("thresholds of {threshold} and {gpu_threshold} make no sense");
        return Err(garbage(GET_OPTIONS.name, message));
    }
    let time = |new: Option<WireDuration>, old: Option<MetaDuration>| {
        let new = new.and_then(|time| {
            SignedDuration::from_secs(time.seconds).checked_add(SignedDuration::from_nanos(time.nanos.into()))
        });
        new.or(old.map(|time| SignedDuration::from_nanos(time.duration)))
    };
    Ok(GroupOptions {
        utilization_threshold: Some(threshold),
        gpu_utilization_threshold: Some(gpu_threshold),
        unneeded_time: time(options.scale_down_unneeded_duration, options.scale_down_unneeded_time),
        unready_time: time(options.scale_down_unready_duration, options.scale_down_unready_time),
        max_provision_time: time(options.max_node_provision_duration, options.max_node_provision_time),
        max_startup_time: time(options.max_node_startup_duration, None),
        ignore_daemon_sets: Some(options.ignore_daemon_sets_utilization),
        zero_or_max: options.zero_or_max_node_scaling,
        ..GroupOptions::default()
    })
}

/// The template that an answer holds; `None` if it holds none.
pub(super) fn template(
    group: &str,
    answer: &NodeGroupTemplateNodeInfoResponse,
) -> Result<Option<Template>, CloudError> {
    let bytes = if answer.node_bytes.is_empty() { &answer.node_info } else { &answer.node_bytes };
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut node = objects::node(bytes)
        .map_err(|error| garbage(TEMPLATE_NODE_INFO.name, format!("nodeBytes are no v1.Node: {error}")))?;
    if node.allocatable.iter().next().is_none() {
        let problem = "the node of nodeBytes has neither allocatable nor capacity".to_owned();
        return Err(garbage(TEMPLATE_NODE_INFO.name, problem));
    }
    if node.name.is_empty() {
        node.name = format!("template-node-for-{group}").into();
    }
    // Servers that make up a node often leave its conditions out.
    node.ready = node.condition("Ready").is_none_or(|(ready, _)| ready);
    Ok(Some(Template { node, pods: Vec::new() }))
}

/// The price of an answer; `None` if the server has no prices.
pub(super) fn price(
    method: &'static str,
    answer: Result<PriceResponse, CloudError>,
) -> Result<Option<f64>, CloudError> {
    match answer {
        Ok(PriceResponse { price }) if price.is_finite() && price >= 0.0 => Ok(Some(price)),
        Ok(PriceResponse { price }) => Err(garbage(method, format!("a price of {price}"))),
        Err(CloudError::NotOffered(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A number of nodes as the protocol has it.
pub(super) fn delta(method: &str, delta: u32) -> Result<i32, CloudError> {
    i32::try_from(delta).map_err(|_| CloudError::Refused {
        call: method.to_owned(),
        code: "out of range".to_owned(),
        message: format!("{delta} nodes are more than the protocol can say"),
    })
}
