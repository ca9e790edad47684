//! A provider behind a gRPC server of the user's (`--cloud-provider=externalgrpc`).
//!
//! Servers written for Cluster Autoscaler work unchanged, those for versions before 1.35 too. Where Tandem asks less
//! often: the group of a node that the server listed as an instance is known from that list. Where it asks more often:
//! templates are asked for again after [`TEMPLATE_LIFE`], so that a change needs no restart.

mod config;
pub(crate) mod objects;
mod protocol;
mod read;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    error::Error as _,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use prost::Message;
use tandem_core::{
    nodes::group::{GroupOptions, NodeGroup},
    scheduling::{Node, Pod},
};
use tokio::time::Instant;
use tonic::{Code, ConnectError, Status};

use super::{CloudError, CloudProvider, NodeRef, Template};
use config::Connection;
use protocol::{
    CLEANUP, DECREASE_TARGET_SIZE, DELETE_NODES, Empty, ExternalGrpcNode, GET_AVAILABLE_GPU_TYPES,
    GET_OPTIONS, GPU_LABEL, GroupId, INCREASE_SIZE, Method, NODE_GROUP_FOR_NODE, NODE_GROUPS, NODES,
    NodeGroupAutoscalingOptionsRequest, NodeGroupDeleteNodesRequest, NodeGroupForNodeRequest,
    PRICING_NODE_PRICE, PRICING_POD_PRICE, PricingNodePriceRequest, PricingPodPriceRequest, REFRESH,
    SizeRequest, TARGET_SIZE, TEMPLATE_NODE_INFO, WireTimestamp,
};
use read::Listed;

/// Groups whose details are asked for at a time: enough that a hundred groups take no time, few enough for a server
/// that a homelab runs.
const GROUPS_AT_A_TIME: usize = 8;

/// How long a template is taken for what the server still says.
const TEMPLATE_LIFE: Duration = Duration::from_mins(10);

/// What prices are asked for: an hour.
const PRICED: SignedDuration = SignedDuration::from_hours(1);

/// A provider behind a gRPC server of the user's.
pub struct ExternalGrpc {
    server: Connection,
    /// What holds for groups that do not say otherwise; the server is told.
    defaults: GroupOptions,
    gpu_label: OnceLock<String>,
    templates: Mutex<HashMap<String, (Instant, Option<Template>)>>,
    /// The group of each node that was looked at since the last refresh, by providerID, or by name without one.
    members: Mutex<HashMap<Arc<str>, Option<Arc<str>>>>,
}

impl ExternalGrpc {
    /// Reads the file of `--cloud-config`; the server is only spoken to when it is needed. `defaults` is what the
    /// flags say of every group.
    ///
    /// # Errors
    /// [`CloudError::Configuration`].
    pub fn connect(cloud_config: &Path, defaults: GroupOptions) -> Result<Self, CloudError> {
        Ok(Self {
            server: Connection::read(cloud_config)?,
            defaults,
            gpu_label: OnceLock::new(),
            templates: Mutex::default(),
            members: Mutex::default(),
        })
    }

    /// Calls a method that may be called twice.
    async fn ask<Q, A>(&self, method: &Method<Q, A>, message: Q) -> Result<A, CloudError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.call(method, message, |status| status.source().is_some()).await
    }

    /// Calls a method that must not be called twice.
    async fn tell<Q, A>(&self, method: &Method<Q, A>, message: Q) -> Result<A, CloudError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.call(method, message, never_left).await
    }

    /// A channel tells how its last attempt to connect ended before it makes another, and of a broken connection only
    /// when it is used: hence the second try, where `again` says that it does no harm.
    async fn call<Q, A>(
        &self,
        method: &Method<Q, A>,
        message: Q,
        again: impl Fn(&Status) -> bool,
    ) -> Result<A, CloudError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let Connection { channel, timeout, .. } = &self.server;
        let call = async {
            match method.call(channel.clone(), message.clone(), *timeout).await {
                Err(status) if again(&status) => method.call(channel.clone(), message, *timeout).await,
                answer => answer,
            }
        };
        match tokio::time::timeout(*timeout, call).await {
            Ok(answer) => answer.map_err(|status| self.error(method.name, &status)),
            Err(_) => Err(self.silent(method.name)),
        }
    }

    fn silent(&self, method: &'static str) -> CloudError {
        let seconds = self.server.timeout.as_secs_f64();
        let message = format!("{} was silent for {seconds} s (grpc_timeout)", self.server.address);
        CloudError::Unreachable { call: method.to_owned(), message }
    }

    fn error(&self, method: &'static str, status: &Status) -> CloudError {
        let call = method.to_owned();
        if status.code() == Code::Unimplemented {
            return CloudError::NotOffered(method);
        }
        if matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled) {
            return self.silent(method);
        }
        // A status with a cause was made here, not by the server.
        if status.source().is_some() {
            let message = format!("{}: {}", self.server.address, config::root(status));
            return CloudError::Unreachable { call, message };
        }
        let (code, message) = (format!("{:?}", status.code()), status.message().to_owned());
        if status.code() == Code::ResourceExhausted && method == INCREASE_SIZE.name {
            return CloudError::OutOfCapacity { code, message };
        }
        CloudError::Refused { call, code, message }
    }

    /// A group with its size, instances and options.
    async fn details(&self, listed: Listed) -> Result<NodeGroup, (String, CloudError)> {
        let id = listed.id.to_string();
        let named = |error| (id.clone(), error);
        let group = GroupId { id: id.clone() };
        let request = NodeGroupAutoscalingOptionsRequest {
            id: id.clone(),
            defaults: Some(read::wire_options(&self.defaults)),
        };
        let (target, nodes, options) = tokio::join!(
            self.ask(&TARGET_SIZE, group.clone()),
            self.ask(&NODES, group),
            self.ask(&GET_OPTIONS, request),
        );
        let options = match options {
            Ok(answer) => {
                answer.node_group_autoscaling_options.map(read::options).transpose().map_err(named)?
            }
            Err(CloudError::NotOffered(_)) => None,
            Err(error) => return Err(named(error)),
        };
        Ok(NodeGroup {
            target: read::target(target.map_err(named)?).map_err(named)?,
            instances: read::instances(nodes.map_err(named)?).map_err(named)?,
            options: options.unwrap_or_default(),
            id: listed.id,
            min: listed.min,
            max: listed.max,
        })
    }

    /// Asks for the label of GPUs until there is an answer; without one there simply are no GPUs.
    async fn learn_gpu_label(&self) {
        if self.gpu_label.get().is_some() {
            return;
        }
        match self.ask(&GPU_LABEL, Empty {}).await {
            Ok(answer) => drop(self.gpu_label.set(answer.label)),
            Err(CloudError::NotOffered(_)) => drop(self.gpu_label.set(String::new())),
            Err(error) => tracing::warn!(%error, "the label of nodes with GPUs is not known"),
        }
    }

    async fn fetch_template(&self, group: &str) -> Result<Option<Template>, CloudError> {
        match self.ask(&TEMPLATE_NODE_INFO, GroupId { id: group.to_owned() }).await {
            Ok(answer) => read::template(group, &answer),
            Err(CloudError::NotOffered(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether a call failed before it was sent.
fn never_left(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn key(node: &NodeRef) -> &Arc<str> {
    if node.provider_id.is_empty() { &node.name } else { &node.provider_id }
}

fn wire_node(node: &NodeRef) -> ExternalGrpcNode {
    ExternalGrpcNode {
        provider_id: node.provider_id.to_string(),
        name: node.name.to_string(),
        labels: node.labels.clone(),
        annotations: node.annotations.clone(),
    }
}

/// The hour from now on.
fn priced_hour() -> (Option<WireTimestamp>, Option<WireTimestamp>) {
    let wire = |time: Timestamp| WireTimestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() };
    let now = Timestamp::now();
    (Some(wire(now)), now.checked_add(PRICED).ok().map(wire))
}

#[async_trait]
impl CloudProvider for ExternalGrpc {
    fn name(&self) -> &'static str {
        "externalgrpc"
    }

    async fn groups(&self) -> Result<(Vec<NodeGroup>, Vec<(String, CloudError)>), CloudError> {
        self.ask(&REFRESH, Empty {}).await?;
        let (listed, mut left_out) = read::listed(self.ask(&NODE_GROUPS, Empty {}).await?);
        self.learn_gpu_label().await;
        let details = stream::iter(listed.into_iter().map(|group| self.details(group)));
        let mut groups = Vec::new();
        for answer in details.buffered(GROUPS_AT_A_TIME).collect::<Vec<_>>().await {
            match answer {
                Ok(group) => groups.push(group),
                Err(named) => left_out.push(named),
            }
        }
        let ids = |group: &NodeGroup| {
            let id = group.id.clone();
            group
                .instances
                .iter()
                .map(move |instance| (instance.id.clone(), Some(id.clone())))
                .collect::<Vec<_>>()
        };
        *self.members.lock() = groups.iter().flat_map(ids).collect();
        Ok((groups, left_out))
    }

    async fn group_of(&self, node: &NodeRef, groups: &[NodeGroup]) -> Result<Option<Arc<str>>, CloudError> {
        if let Some(known) = self.members.lock().get(key(node)) {
            return Ok(known.clone());
        }
        let request = NodeGroupForNodeRequest { node: Some(wire_node(node)) };
        let id = self.ask(&NODE_GROUP_FOR_NODE, request).await?.node_group.unwrap_or_default().id;
        let group = groups.iter().find(|group| *group.id == *id).map(|group| group.id.clone());
        self.members.lock().insert(key(node).clone(), group.clone());
        Ok(group)
    }

    async fn template(&self, group: &str) -> Result<Option<Template>, CloudError> {
        if let Some((asked, template)) = self.templates.lock().get(group)
            && asked.elapsed() < TEMPLATE_LIFE
        {
            return Ok(template.clone());
        }
        let template = self.fetch_template(group).await?;
        self.templates.lock().insert(group.to_owned(), (Instant::now(), template.clone()));
        Ok(template)
    }

    async fn increase(&self, group: &str, _target: u32, delta: u32) -> Result<(), CloudError> {
        let request = SizeRequest { id: group.to_owned(), delta: read::delta(INCREASE_SIZE.name, delta)? };
        self.tell(&INCREASE_SIZE, request).await.map(drop)
    }

    async fn delete_nodes(&self, group: &str, nodes: &[NodeRef]) -> Result<(), CloudError> {
        let request = NodeGroupDeleteNodesRequest {
            nodes: nodes.iter().map(wire_node).collect(),
            id: group.to_owned(),
        };
        self.tell(&DELETE_NODES, request).await.map(drop)
    }

    async fn decrease_target(&self, group: &str, _target: u32, delta: u32) -> Result<(), CloudError> {
        let delta = -read::delta(DECREASE_TARGET_SIZE.name, delta)?;
        self.tell(&DECREASE_TARGET_SIZE, SizeRequest { id: group.to_owned(), delta }).await.map(drop)
    }

    fn gpu_label(&self) -> &str {
        self.gpu_label.get().map_or("", String::as_str)
    }

    async fn gpu_types(&self) -> Result<BTreeSet<String>, CloudError> {
        let answer = self.ask(&GET_AVAILABLE_GPU_TYPES, Empty {}).await?;
        Ok(answer.gpu_types.into_keys().collect())
    }

    async fn node_price(&self, node: &Node) -> Result<Option<f64>, CloudError> {
        let (start, end) = priced_hour();
        let request = PricingNodePriceRequest {
            node: Some(wire_node(&NodeRef::from(node))),
            start_time: start,
            end_time: end,
            start_timestamp: start,
            end_timestamp: end,
        };
        read::price(PRICING_NODE_PRICE.name, self.ask(&PRICING_NODE_PRICE, request).await)
    }

    async fn pod_price(&self, pod: &Pod) -> Result<Option<f64>, CloudError> {
        let (start, end) = priced_hour();
        let pod = objects::pod_bytes(pod);
        let request = PricingPodPriceRequest {
            pod: pod.clone(),
            start_time: start,
            end_time: end,
            pod_bytes: pod,
            start_timestamp: start,
            end_timestamp: end,
        };
        read::price(PRICING_POD_PRICE.name, self.ask(&PRICING_POD_PRICE, request).await)
    }

    async fn cleanup(&self) -> Result<(), CloudError> {
        match self.ask(&CLEANUP, Empty {}).await {
            Err(CloudError::NotOffered(_)) => Ok(()),
            answer => answer.map(drop),
        }
    }
}
