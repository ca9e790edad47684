//! Act: the providers of nodes behind one trait.

pub mod aws;
pub mod cluster_api;
pub mod external_grpc;
pub mod kube_proxy;
pub mod kwok;
pub mod kwok_pools;
pub mod pools;
pub mod provider;
pub mod spec;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use tandem_core::{
    nodes::group::NodeGroup,
    scheduling::{Node, Pod},
};
use thiserror::Error;

pub use tandem_core::nodes::group::Template;

use crate::cluster::message;

/// Why a provider did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CloudError {
    /// What the user wrote (a flag, a file, an annotation) cannot be used.
    #[error("{what}: {problem}")]
    Configuration {
        /// Where it is written.
        what: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// It does not offer this call.
    #[error("the provider does not offer {0}")]
    NotOffered(&'static str),
    /// It has no more of what was asked for.
    #[error("out of capacity: {code}: {message}")]
    OutOfCapacity {
        /// The provider's code.
        code: String,
        /// The provider's words.
        message: String,
    },
    /// It asks to be asked less often.
    #[error("{call} was throttled by the provider and went on being so over all retries: {message}")]
    Throttled {
        /// The call.
        call: String,
        /// The provider's words.
        message: String,
    },
    /// The credentials may not do this.
    #[error("{call} is denied: {message}; allow it in the policy of the role that Tandem runs as")]
    Denied {
        /// The call, as the permission is named.
        call: String,
        /// The provider's words.
        message: String,
    },
    /// What was named is not there.
    #[error("{0} does not exist")]
    NotFound(String),
    /// It was refused, or the answer makes no sense.
    #[error("{call} failed: {code}: {message}")]
    Refused {
        /// The call.
        call: String,
        /// The provider's code.
        code: String,
        /// The provider's words.
        message: String,
    },
    /// No answer.
    #[error("{call} got no answer: {message}")]
    Unreachable {
        /// The call.
        call: String,
        /// What went wrong on the way.
        message: String,
    },
}

impl CloudError {
    /// [`CloudError::Configuration`].
    pub fn configuration(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Configuration { what: what.into(), problem: problem.into() }
    }

    /// The provider's code, or ours, for a label of a metric.
    pub fn code(&self) -> &str {
        match self {
            Self::Configuration { .. } => "configuration",
            Self::NotOffered(_) => "notOffered",
            Self::Throttled { .. } => "throttled",
            Self::Denied { .. } => "denied",
            Self::NotFound(_) => "notFound",
            Self::OutOfCapacity { code, .. } | Self::Refused { code, .. } => code,
            Self::Unreachable { .. } => "unreachable",
        }
    }

    /// What the API server's refusal of `call` means to a provider that works through it.
    pub fn from_api(call: impl Into<String>, error: &kube::Error) -> Self {
        let (call, message) = (call.into(), message(error));
        match error {
            kube::Error::Api(status) => match status.code {
                403 => Self::Denied { call, message },
                404 => Self::NotFound(message.strip_suffix(" not found").unwrap_or(&message).to_owned()),
                429 => Self::Throttled { call, message },
                _ => Self::Refused { call, code: status.reason.clone(), message },
            },
            _ => Self::Unreachable { call, message },
        }
    }
}

/// A node as providers know it: its names, and what they may have written upon it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct NodeRef {
    /// The node's name.
    pub name: Arc<str>,
    /// `spec.providerID`; for one that never registered the instance's id.
    pub provider_id: Arc<str>,
    /// Its labels; none of one that never registered.
    pub labels: BTreeMap<String, String>,
    /// Its annotations; none of one that never registered.
    pub annotations: BTreeMap<String, String>,
}

impl From<&Node> for NodeRef {
    fn from(node: &Node) -> Self {
        Self {
            name: node.name.clone(),
            provider_id: node.provider_id.clone(),
            labels: node.labels.clone(),
            annotations: node.annotations.clone(),
        }
    }
}

/// A provider of node groups (Cluster Autoscaler's model of capacity).
///
/// No call is retried by the caller within a pass; a provider does its own retries, with a deadline of its own.
#[async_trait]
pub trait CloudProvider: Send + Sync {
    /// Its name, as `--cloud-provider` has it.
    fn name(&self) -> &'static str;

    /// The groups with their sizes and instances as they are now. Called once a pass, so caching is the provider's affair.
    /// A group that cannot be read is left out and named in the second list, with the reason; the pass goes on.
    async fn groups(&self) -> Result<(Vec<NodeGroup>, Vec<(String, CloudError)>), CloudError>;

    /// The group that a node belongs to, if it is one of `groups`; by instance ids unless the provider knows better.
    async fn group_of(&self, node: &NodeRef, groups: &[NodeGroup]) -> Result<Option<Arc<str>>, CloudError> {
        let of = |group: &&NodeGroup| group.instances.iter().any(|instance| instance.id == node.provider_id);
        Ok(groups.iter().find(of).map(|group| group.id.clone()))
    }

    /// What a new node of the group would look like; `None` if the provider cannot say.
    async fn template(&self, group: &str) -> Result<Option<Template>, CloudError>;

    /// Raises the group's target by `delta` nodes above `target`, the size that the decision was made upon. Returns when
    /// the size is set; nodes come later.
    async fn increase(&self, group: &str, target: u32, delta: u32) -> Result<(), CloudError>;

    /// Terminates these nodes, and lowers the target by as many.
    async fn delete_nodes(&self, group: &str, nodes: &[NodeRef]) -> Result<(), CloudError>;

    /// A machine of the group is about to be taken away, whatever is done: the group gets another one now and not when it
    /// misses it, and its target stays. Whether it does; one that ends already is replaced by itself.
    async fn replace(&self, _group: &str, _node: &NodeRef) -> Result<bool, CloudError> {
        Ok(false)
    }

    /// Somebody else has changed a group: what was read is out of date.
    async fn changed(&self) {}

    /// Lowers the target by `delta` nodes that have not come yet, from `target`, the size that the decision was made upon.
    /// Never terminates a node.
    async fn decrease_target(&self, group: &str, target: u32, delta: u32) -> Result<(), CloudError>;

    /// The label that marks nodes with GPUs; empty until the provider has been asked, and if it knows none.
    fn gpu_label(&self) -> &str;

    /// The values that the label of [`Self::gpu_label`] may have; empty if the provider does not say.
    async fn gpu_types(&self) -> Result<BTreeSet<String>, CloudError> {
        Ok(BTreeSet::new())
    }

    /// The price of running this node for an hour; `None` if the provider has no prices.
    async fn node_price(&self, _node: &Node) -> Result<Option<f64>, CloudError> {
        Ok(None)
    }

    /// What a pod with these requests would cost in an hour; `None` if the provider has no prices.
    async fn pod_price(&self, _pod: &Pod) -> Result<Option<f64>, CloudError> {
        Ok(None)
    }

    /// Called once, by the replica that leads, at a clean exit.
    async fn cleanup(&self) -> Result<(), CloudError> {
        Ok(())
    }
}
