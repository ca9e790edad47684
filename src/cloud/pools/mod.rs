//! Act: the providers of machines behind node pools (Karpenter's model of capacity), behind one trait.

pub mod measured;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{Client, Resource, ResourceExt as _};
pub use tandem_core::nodes::pools::sold_out::OfferingKey;
use tandem_core::{
    api::karpenter::{EC2NodeClass, NodeClaim, NodeClassReference},
    nodes::pools::{
        instance_type::InstanceType,
        requirements::{
            WellKnownLabels,
            labels::{CAPACITY_TYPE, INSTANCE_TYPE, ZONE},
        },
    },
    quantity::format_milli,
    scheduling::Resources,
};
use thiserror::Error;
use tokio::sync::watch;

use super::{
    CloudError,
    aws::{client::OnRequest, pools::AwsPools},
    kwok_pools::KwokPools,
};
use crate::cluster::{Key, cache::Cache};
use measured::Calls;

/// The names that `--node-pools-provider` may have.
pub const PROVIDERS: &[&str] = &["aws", "kwok"];

/// What the flags say to providers.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `CLUSTER_NAME`.
    pub cluster_name: String,
    /// `CLUSTER_ENDPOINT`; empty asks the provider.
    pub cluster_endpoint: String,
    /// `CLUSTER_CA_BUNDLE`, base64; empty is the one that Tandem trusts.
    pub cluster_authority: String,
    /// `ISOLATED_VPC`: prices cannot be asked for.
    pub isolated: bool,
    /// `VM_MEMORY_OVERHEAD_PERCENT`, a share.
    pub memory_overhead: f64,
    /// `RESERVED_ENIS`.
    pub reserved_interfaces: u32,
    /// Told of every request to AWS.
    pub on_aws_request: OnRequest,
    /// Where is counted what no call to the provider tells.
    pub calls: Calls,
    /// Counts up when a node class changes.
    pub changes: watch::Sender<u64>,
}

impl Settings {
    /// Counts up with every change of an object, for a watch.
    pub(super) fn on_change<K>(&self) -> impl Fn(Key, &K) + Send + Sync + 'static + use<K> {
        let changes = self.changes.clone();
        move |_, _| changes.send_modify(|count| *count += 1)
    }
}

/// Makes the provider of this name.
///
/// # Errors
/// There is no such provider, or what it is told cannot be used.
pub async fn connect(
    name: &str,
    settings: &Settings,
    client: &Client,
) -> Result<Arc<dyn PoolProvider>, CloudError> {
    match name {
        "aws" => Ok(Arc::new(AwsPools::connect(settings, client).await?)),
        "kwok" => Ok(Arc::new(KwokPools::connect(client, settings)?)),
        other => {
            let problem = format!("{other:?} is not known; there are {}", PROVIDERS.join(", "));
            Err(CloudError::configuration("--node-pools-provider", problem))
        }
    }
}

/// A kind of node class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassKind {
    /// Its group.
    pub group: &'static str,
    /// Its name.
    pub kind: &'static str,
}

impl ClassKind {
    /// The classes of this kind that a watch has seen.
    pub(super) fn seen<K: Resource<DynamicType = ()>>(self, cache: &Cache<K>) -> Vec<Class> {
        let class = |found: Arc<K>| Class {
            reference: NodeClassReference {
                group: self.group.to_owned(),
                kind: self.kind.to_owned(),
                name: found.name_any(),
            },
            inline: None,
        };
        cache.list("").into_iter().map(class).collect()
    }
}

/// The node class of a pool or a claim.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Class {
    /// What it is called.
    pub reference: NodeClassReference,
    /// What it says, if no object of the API does: a Provisioner or its AWSNodeTemplate said it.
    pub inline: Option<Arc<EC2NodeClass>>,
}

/// What a provider says of a node class.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClassState {
    /// Its generation; `None` if it is no object of the API.
    pub generation: Option<i64>,
    /// Why no node can be launched with it: a reason in one word, and a sentence.
    pub not_ready: Option<(&'static str, String)>,
    /// Whether it is being deleted, and waits for [`PoolProvider::end_class`].
    pub is_ending: bool,
}

/// A machine that was launched.
#[derive(Debug, Clone, PartialEq)]
pub struct Launched {
    /// `spec.providerID` of its node.
    pub provider_id: String,
    /// The image that it runs.
    pub image: Option<String>,
    /// Its type.
    pub instance_type: String,
    /// Its zone.
    pub zone: String,
    /// What it is paid by.
    pub capacity_type: String,
    /// Further labels of its node.
    pub labels: BTreeMap<String, String>,
    /// What its claim remembers of it.
    pub annotations: BTreeMap<String, String>,
    /// What it has.
    pub capacity: Resources,
    /// What pods may use of it.
    pub allocatable: Resources,
    /// What was seen to be sold out before this one was had.
    pub sold_out: Vec<OfferingKey>,
}

impl Launched {
    /// All labels that its node has because of what it is.
    pub fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        for (key, value) in
            [(INSTANCE_TYPE, &self.instance_type), (ZONE, &self.zone), (CAPACITY_TYPE, &self.capacity_type)]
        {
            labels.insert(key.to_owned(), value.clone());
        }
        labels
    }
}

/// A machine that a provider has.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// `spec.providerID` of its node.
    pub provider_id: String,
    /// The NodeClaim that it was made for.
    pub claim: String,
    /// Made then.
    pub created: Option<Timestamp>,
}

/// Why no machine was launched.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{error}")]
pub struct LaunchError {
    /// What went wrong.
    #[source]
    pub error: CloudError,
    /// What is known to be sold out now.
    pub sold_out: Vec<OfferingKey>,
}

impl From<CloudError> for LaunchError {
    fn from(error: CloudError) -> Self {
        Self { error, sold_out: Vec::new() }
    }
}

/// A provider of machines.
///
/// No call is retried by the caller at once; a provider does its own retries, with a deadline of its own.
#[async_trait]
pub trait PoolProvider: Send + Sync {
    /// Its name, as `--node-pools-provider` has it.
    fn name(&self) -> &'static str;

    /// The kinds of node classes that it serves. Pools of others are somebody else's. Inline classes it always serves.
    fn kinds(&self) -> &'static [ClassKind];

    /// Labels that its machines have although nobody asks for them.
    fn well_known(&self) -> &WellKnownLabels;

    /// The node classes that are objects of the API, whether or not a pool names them.
    fn classes(&self) -> Vec<Class>;

    /// Those of them that are EC2NodeClasses, for who tells of their conditions.
    fn node_classes(&self) -> Vec<Arc<EC2NodeClass>> {
        Vec::new()
    }

    /// Looks at a node class, and writes its status if it is an object of the API.
    async fn class_state(&self, class: &Class) -> Result<ClassState, CloudError>;

    /// Removes what was made for a node class when it said something else, and that none of its claims, which are these, uses
    /// any more.
    async fn tidy_class(&self, _class: &Class, _claims: &[Arc<NodeClaim>]) -> Result<(), CloudError> {
        Ok(())
    }

    /// Removes what was made for a node class that is being deleted and that no claim uses any more, and lets it go.
    async fn end_class(&self, _class: &Class) -> Result<(), CloudError> {
        Ok(())
    }

    /// All instance types that a node class allows, those that are sold out included.
    async fn instance_types(&self, class: &Class) -> Result<Arc<[Arc<InstanceType>]>, CloudError>;

    /// Launches a machine of one of these types, cheapest first, such that its labels satisfy the claim's requirements.
    ///
    /// Asked twice for the same claim it answers with the machine of the first time, so that a crash in between makes no
    /// second one.
    async fn create(
        &self,
        claim: &NodeClaim,
        class: &Class,
        types: &[Arc<InstanceType>],
    ) -> Result<Launched, LaunchError>;

    /// Starts the termination of a machine; [`CloudError::NotFound`] when it is gone.
    async fn delete(&self, provider_id: &str) -> Result<(), CloudError>;

    /// All machines that were made for NodeClaims of this cluster and are not being terminated.
    async fn list(&self) -> Result<Vec<Machine>, CloudError>;

    /// Why a machine is not what its node class asks for any more, in one word.
    async fn drifted(&self, claim: &NodeClaim, class: &Class) -> Result<Option<&'static str>, CloudError>;
}

/// Amounts as Kubernetes writes them.
pub fn quantities(resources: &Resources) -> BTreeMap<String, Quantity> {
    let text = |(name, amount): (&str, i64)| {
        let text = if name == "cpu" { format_milli(amount) } else { amount.to_string() };
        (name.to_owned(), Quantity(text))
    };
    resources.iter().map(text).collect()
}
