//! Nodes that kwok plays (`--cloud-provider=kwok`): Cluster Autoscaler's provider for trying things out.
//!
//! The API server is the cloud: a group's size is the number of its Node objects, so a restart forgets nothing.

mod config;
mod group;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node as ApiNode;
use kube::{
    Api, Client, Error, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
    core::PartialObjectMeta,
};
use tandem_core::{
    nodes::group::{GroupOptions, Instance, InstanceState, NodeGroup},
    scheduling::Node,
};

use super::{CloudError, CloudProvider, NodeRef, Template, kube_proxy::kube_proxy};
use config::Config;
use group::{FAKE, GROUP, Group};

/// Letters of the random end of a node's name: those of Kubernetes, which spell no words.
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// How long that end is.
const SUFFIX: usize = 5;

/// Names that are tried for one node: two in a row that are taken are next to impossible with fourteen million.
const NAMES_TRIED: usize = 3;

/// Nodes that kwok plays.
pub struct Kwok {
    nodes: Api<ApiNode>,
    config: Config,
    groups: BTreeMap<String, Group>,
    broken: BTreeMap<String, String>,
}

/// What is read of a node: its metadata.
type Metadata = PartialObjectMeta<ApiNode>;

impl Kwok {
    /// Reads the ConfigMap and the templates that it points at; they are not read again.
    ///
    /// # Errors
    /// The API server refused, or what is written cannot be used.
    pub async fn connect(client: Client, namespace: &str, config_map: &str) -> Result<Self, CloudError> {
        let (config, templates) = config::load(&client, namespace, config_map).await?;
        let (groups, broken) = group::groups(templates, &config);
        Ok(Self { nodes: Api::all(client), config, groups, broken })
    }

    fn group(&self, name: &str) -> Result<&Group, CloudError> {
        self.groups.get(name).ok_or_else(|| CloudError::NotFound(format!("node group {name}")))
    }

    /// The nodes of all groups.
    async fn members(&self) -> Result<Vec<Metadata>, CloudError> {
        let list = self.nodes.list_metadata(&ListParams::default()).await;
        let mut nodes = list.map_err(|error| CloudError::from_api("list nodes", &error))?.items;
        nodes.retain(|node| group_of(node).is_some());
        Ok(nodes)
    }

    /// The nodes of a group that are there to stay.
    async fn members_of(&self, group: &str) -> Result<Vec<Metadata>, CloudError> {
        let mut nodes = self.members().await?;
        nodes.retain(|node| group_of(node) == Some(group) && node.metadata.deletion_timestamp.is_none());
        Ok(nodes)
    }

    async fn create(&self, name: &str, group: &Group) -> Result<(), CloudError> {
        let mut taken = None;
        for _ in 0..NAMES_TRIED {
            let node = group.node(&format!("{name}-{}", random_end()));
            match self.nodes.create(&PostParams::default(), &node).await {
                Ok(_) => return Ok(()),
                Err(Error::Api(status)) if status.is_already_exists() => taken = Some(Error::Api(status)),
                Err(error) => return Err(CloudError::from_api("create nodes", &error)),
            }
        }
        taken.map_or(Ok(()), |error| Err(CloudError::from_api("create nodes", &error)))
    }

    /// Deletes a node; that it is gone already is as good.
    async fn delete(&self, name: &str) -> Result<(), CloudError> {
        match self.nodes.delete(name, &DeleteParams::default()).await {
            Err(Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(CloudError::from_api(format!("delete nodes {name}"), &error)),
            Ok(_) => Ok(()),
        }
    }

    /// Deletes all of these, whatever becomes of each; the first error is the answer.
    async fn delete_all(&self, names: impl Iterator<Item = String>) -> Result<(), CloudError> {
        let mut first = Ok(());
        for name in names {
            first = first.and(self.delete(&name).await);
        }
        first
    }
}

/// The group of a node that kwok plays for this provider.
fn group_of(node: &Metadata) -> Option<&str> {
    let annotations = node.annotations();
    let ours = annotations.get(FAKE.0).is_some_and(|value| value == FAKE.1);
    annotations.get(GROUP).filter(|_| ours).map(String::as_str)
}

/// The end of a new node's name. The standard library seeds each hasher at random, which is all that names need.
fn random_end() -> String {
    let mut random = RandomState::new().hash_one(0);
    let mut letter = || {
        let letter = LETTERS[usize::try_from(random % 27).unwrap_or(0)];
        random /= 27;
        char::from(letter)
    };
    (0..SUFFIX).map(|_| letter()).collect()
}

/// A call that this provider refuses itself.
fn refused(call: &str, message: String) -> CloudError {
    CloudError::Refused { call: call.to_owned(), code: "refused".to_owned(), message }
}

#[async_trait]
impl CloudProvider for Kwok {
    fn name(&self) -> &'static str {
        "kwok"
    }

    async fn groups(&self) -> Result<(Vec<NodeGroup>, Vec<(String, CloudError)>), CloudError> {
        let mut instances: BTreeMap<String, Vec<Instance>> = BTreeMap::new();
        for node in self.members().await? {
            let deleting = node.metadata.deletion_timestamp.is_some();
            let state = if deleting { InstanceState::Deleting } else { InstanceState::Running };
            let group = group_of(&node).unwrap_or_default().to_owned();
            let id = group::provider_id(&node.name_any()).into();
            instances.entry(group).or_default().push(Instance { id, state });
        }
        let group = |(name, group): (&String, &Group)| {
            let instances = instances.remove(name).unwrap_or_default();
            let staying =
                instances.iter().filter(|instance| instance.state == InstanceState::Running).count();
            NodeGroup {
                id: name.as_str().into(),
                min: group.min,
                max: group.max,
                target: u32::try_from(staying).unwrap_or(u32::MAX),
                instances,
                options: GroupOptions::default(),
            }
        };
        let groups = self.groups.iter().map(group).collect();
        let named = |(name, problem): (&String, &String)| {
            (name.clone(), CloudError::configuration(format!("node group {name}"), problem.as_str()))
        };
        Ok((groups, self.broken.iter().map(named).collect()))
    }

    async fn template(&self, group: &str) -> Result<Option<Template>, CloudError> {
        let made = self.group(group)?.node(&format!("template-node-for-{group}"));
        let mut node = Node::describe(&made);
        // kwok makes every node ready at once.
        node.ready = true;
        Ok(Some(Template { node, pods: vec![kube_proxy(group)] }))
    }

    async fn increase(&self, group: &str, target: u32, delta: u32) -> Result<(), CloudError> {
        let found = self.group(group)?;
        let wanted = target.saturating_add(delta);
        if wanted > found.max {
            let message = format!("{group} would have {wanted} nodes, its maximum is {}", found.max);
            return Err(refused("increase", message));
        }
        let present = u32::try_from(self.members_of(group).await?.len()).unwrap_or(u32::MAX);
        // Never more than was asked for, even if nodes vanished since.
        for _ in 0..wanted.saturating_sub(present).min(delta) {
            self.create(group, found).await?;
        }
        Ok(())
    }

    async fn delete_nodes(&self, group: &str, nodes: &[NodeRef]) -> Result<(), CloudError> {
        let found = self.group(group)?;
        let list = self.nodes.list_metadata(&ListParams::default()).await;
        let mut all = list.map_err(|error| CloudError::from_api("list nodes", &error))?.items;
        all.retain(|node| node.metadata.deletion_timestamp.is_none());
        let named: BTreeSet<&str> = nodes.iter().map(|node| &*node.name).collect();
        let (doomed, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|node| named.contains(node.name_any().as_str()));
        if let Some(stranger) = doomed.iter().find(|node| group_of(node) != Some(group)) {
            let message = format!("node {} is none of {group} that kwok plays", stranger.name_any());
            return Err(refused("delete_nodes", message));
        }
        let left = others.iter().filter(|node| group_of(node) == Some(group)).count();
        if u32::try_from(left).is_ok_and(|left| left < found.min) {
            let message = format!("{group} would have {left} nodes, its minimum is {}", found.min);
            return Err(refused("delete_nodes", message));
        }
        self.delete_all(doomed.iter().map(ResourceExt::name_any)).await
    }

    /// There never is a node that has not come yet.
    async fn decrease_target(&self, group: &str, target: u32, delta: u32) -> Result<(), CloudError> {
        self.group(group)?;
        let present = self.members_of(group).await?.len();
        let wanted = target.saturating_sub(delta);
        if u32::try_from(present).is_ok_and(|present| present <= wanted) {
            return Ok(());
        }
        let message = format!("{group} has {present} nodes: a target of {wanted} would delete existing ones");
        Err(refused("decrease_target", message))
    }

    fn gpu_label(&self) -> &str {
        &self.config.gpu_label
    }

    async fn gpu_types(&self) -> Result<BTreeSet<String>, CloudError> {
        Ok(self.config.gpu_types.iter().cloned().collect())
    }

    /// Deletes every node that it made.
    async fn cleanup(&self) -> Result<(), CloudError> {
        let nodes = self.members().await?;
        let ours = |node: &&Metadata| group_of(node).is_some_and(|group| self.groups.contains_key(group));
        self.delete_all(nodes.iter().filter(ours).map(ResourceExt::name_any)).await
    }
}
