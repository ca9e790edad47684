//! Machines of Cluster API (`--cloud-provider=clusterapi`): MachineDeployments, MachineSets and MachinePools whose
//! annotations give them a minimum and a maximum are groups.
//!
//! Where Tandem differs from Cluster Autoscaler: an object that cannot be read is named and leaves the others; a paused
//! Cluster pauses its groups; `namespace=` of several discoveries are all looked at; a machine that is marked for
//! deletion twice shrinks its group once.

mod capacity;
pub mod discovery;
mod scalable;
mod world;

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    discovery as served,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tandem_core::{
    nodes::group::{InstanceState, NodeGroup},
    scheduling::Node,
};

use super::{CloudError, CloudProvider, NodeRef, Template, kube_proxy::kube_proxy};
use discovery::Discovery;
use scalable::{InfrastructureRef, Keys, Machine, Scalable, normalized};
use world::{Kinds, View, World};

/// The API group when `CAPI_GROUP` does not say.
pub const DEFAULT_GROUP: &str = "cluster.x-k8s.io";

/// The architecture of nodes that say none when `CAPI_SCALE_ZERO_DEFAULT_ARCH` does not say either.
pub const DEFAULT_ARCHITECTURE: &str = "amd64";

/// What the flags and the environment say.
#[derive(Debug, Clone)]
pub struct Options {
    /// `CAPI_GROUP`.
    pub group: String,
    /// `CAPI_VERSION`; the version that the API server prefers if it is absent.
    pub version: Option<String>,
    /// `CAPI_SCALE_ZERO_DEFAULT_ARCH`.
    pub architecture: String,
    /// `--node-group-auto-discovery`; without any, every object that has the annotations is a group.
    pub discoveries: Vec<Discovery>,
}

/// Machines of Cluster API.
pub struct ClusterApi {
    management: Client,
    workload: Client,
    kinds: Kinds,
    keys: Keys,
    options: Options,
    seen: Mutex<Seen>,
    /// Machine templates never change; only those that say a capacity are kept, since that may still come.
    machine_templates: Mutex<HashMap<InfrastructureRef, Arc<Value>>>,
}

/// What the last look saw.
#[derive(Clone, Default)]
struct Seen {
    world: Arc<World>,
    /// The group of each machine (`NAMESPACE/NAME`) and of each providerID.
    members: Arc<HashMap<String, Arc<str>>>,
}

impl ClusterApi {
    /// Asks the management cluster what it serves. `workload` is the cluster whose nodes the machines become.
    ///
    /// # Errors
    /// The API group is not served, or the API server refused.
    pub async fn connect(management: Client, workload: Client, options: Options) -> Result<Self, CloudError> {
        let kinds = Kinds::discover(&management, &options.group, options.version.as_deref()).await?;
        let keys = Keys::of(&options.group);
        let (seen, machine_templates) = (Mutex::default(), Mutex::default());
        Ok(Self { management, workload, kinds, keys, options, seen, machine_templates })
    }

    async fn look(&self) -> Result<Arc<World>, CloudError> {
        let Self { management, workload, kinds, keys, options, .. } = self;
        let view = View { management, workload, kinds, keys, discoveries: &options.discoveries };
        let world = Arc::new(view.look().await?);
        *self.seen.lock() = Seen { world: world.clone(), members: Arc::new(members(&world)) };
        Ok(world)
    }

    /// The group's machine template, if it refers to one that is there.
    async fn infrastructure(&self, scalable: &Scalable) -> Result<Option<Arc<Value>>, CloudError> {
        let Some(reference) = InfrastructureRef::of(scalable) else { return Ok(None) };
        if let Some(kept) = self.machine_templates.lock().get(&reference) {
            return Ok(Some(kept.clone()));
        }
        let InfrastructureRef { namespace, group, version, kind, name } = &reference;
        let failed =
            |error: kube::Error| CloudError::from_api(format!("get {kind} {namespace}/{name}"), &error);
        let resource = if let Some(version) = version {
            let wanted = GroupVersionKind::gvk(group, version, kind);
            Some(served::pinned_kind(&self.management, &wanted).await.map_err(failed)?.0)
        } else {
            let group = served::group(&self.management, group).await.map_err(failed)?;
            group.recommended_kind(kind).map(|(resource, _)| resource)
        };
        let Some(resource) = resource else { return Ok(None) };
        let api: Api<DynamicObject> = Api::namespaced_with(self.management.clone(), namespace, &resource);
        let Some(object) = api.get_opt(name).await.map_err(failed)? else { return Ok(None) };
        let object = Arc::new(object.data);
        if !object["status"]["capacity"].is_null() {
            self.machine_templates.lock().insert(reference, object.clone());
        }
        Ok(Some(object))
    }

    /// What a new node would look like; `None` if nothing says so.
    async fn node(&self, scalable: &Scalable) -> Result<Option<Node>, CloudError> {
        // Annotations are enough, so a machine template that cannot be read is no obstacle by itself.
        let (infrastructure, error) = match self.infrastructure(scalable).await {
            Ok(infrastructure) => (infrastructure, None),
            Err(error) => (None, Some(error)),
        };
        let name = format!("template-node-for-{}", scalable.name);
        let architecture = &self.options.architecture;
        let node = capacity::template(&name, &scalable.object, infrastructure.as_deref(), architecture)
            .map_err(|problem| CloudError::configuration(format!("node group {}", scalable.id), problem))?;
        match (node, error) {
            (None, Some(error)) => Err(error),
            (node, _) => Ok(node),
        }
    }

    /// Why a group cannot grow from nothing; such a group is left out, as with Cluster Autoscaler.
    async fn obstacle(&self, scalable: &Scalable) -> Option<CloudError> {
        if scalable.replicas > 0 {
            return None;
        }
        match self.node(scalable).await {
            Ok(Some(_)) => None,
            Ok(None) => Some(CloudError::configuration(
                format!("node group {}", scalable.id),
                "it has no nodes, and nothing says what one would look like; annotate it with \
                 capacity.cluster-autoscaler.kubernetes.io/cpu and …/memory",
            )),
            Err(error) => Some(error),
        }
    }

    /// A group as the last look saw it.
    async fn scalable(&self, id: &str) -> Result<Scalable, CloudError> {
        let kept = self.seen.lock().world.scalable(id).cloned();
        match kept {
            Some(scalable) => Ok(scalable),
            None => found(&*self.look().await?, id).cloned(),
        }
    }

    fn api(&self, scalable: &Scalable) -> Result<Api<DynamicObject>, CloudError> {
        let resource = self.kinds.of(scalable.kind).ok_or(CloudError::NotOffered(scalable.kind.name()))?;
        Ok(Api::namespaced_with(self.management.clone(), &scalable.namespace, resource))
    }

    /// The size that a group is asked for now.
    async fn replicas(&self, scalable: &Scalable) -> Result<u32, CloudError> {
        let scale = self.api(scalable)?.get_scale(&scalable.name).await;
        let scale = scale
            .map_err(|error| CloudError::from_api(format!("get the scale of {}", scalable.id), &error))?;
        let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
        Ok(u32::try_from(replicas).unwrap_or(0))
    }

    async fn set_replicas(&self, scalable: &Scalable, replicas: u32) -> Result<(), CloudError> {
        if replicas > scalable.max || replicas < scalable.min {
            let Scalable { id, min, max, .. } = scalable;
            return Err(refused(
                "set replicas",
                format!("{id} would have {replicas} nodes, allowed are {min} to {max}"),
            ));
        }
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let answer = self.api(scalable)?.patch_scale(&scalable.name, &PatchParams::default(), &patch).await;
        answer
            .map(drop)
            .map_err(|error| CloudError::from_api(format!("patch the scale of {}", scalable.id), &error))
    }

    /// Marks a machine as the one to go next, or takes the mark off.
    async fn mark(&self, machine: &Machine, mark: Option<Timestamp>) -> Result<(), CloudError> {
        let resource = &self.kinds.machine;
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.management.clone(), &machine.namespace, resource);
        let value = mark.map(|time| time.to_string());
        let patch = Patch::Merge(json!({"metadata": {"annotations": {&self.keys.delete_machine: value}}}));
        let answer = api.patch(&machine.name, &PatchParams::default(), &patch).await;
        answer
            .map(drop)
            .map_err(|error| CloudError::from_api(format!("patch machines {}", machine.key()), &error))
    }
}

/// The group of every machine and every providerID.
fn members(world: &World) -> HashMap<String, Arc<str>> {
    let mut members = HashMap::new();
    for scalable in &world.scalables {
        for machine in world.machines_of(scalable) {
            members.insert(machine.key(), scalable.id.clone());
            if let Some(id) = &machine.provider_id {
                members.insert(normalized(id).to_owned(), scalable.id.clone());
            }
        }
        for instance in world.instances(scalable) {
            members.insert(normalized(&instance.id).to_owned(), scalable.id.clone());
        }
    }
    members
}

fn found<'a>(world: &'a World, id: &str) -> Result<&'a Scalable, CloudError> {
    world.scalable(id).ok_or_else(|| CloudError::NotFound(format!("node group {id}")))
}

/// A call that this provider refuses itself.
fn refused(call: &str, message: String) -> CloudError {
    CloudError::Refused { call: call.to_owned(), code: "refused".to_owned(), message }
}

#[async_trait]
impl CloudProvider for ClusterApi {
    fn name(&self) -> &'static str {
        "clusterapi"
    }

    async fn groups(&self) -> Result<(Vec<NodeGroup>, Vec<(String, CloudError)>), CloudError> {
        let world = self.look().await?;
        let mut left_out = world.broken.clone();
        let mut groups = Vec::new();
        for scalable in &world.scalables {
            if let Some(error) = self.obstacle(scalable).await {
                left_out.push((scalable.id.to_string(), error));
                continue;
            }
            groups.push(NodeGroup {
                id: scalable.id.clone(),
                min: scalable.min,
                max: scalable.max,
                target: scalable.replicas,
                instances: world.instances(scalable),
                options: scalable.options.clone(),
            });
        }
        Ok((groups, left_out))
    }

    async fn group_of(&self, node: &NodeRef, groups: &[NodeGroup]) -> Result<Option<Arc<str>>, CloudError> {
        let members = self.seen.lock().members.clone();
        let annotation = |key: &str| node.annotations.get(key);
        let machine = annotation(&self.keys.cluster_namespace)
            .zip(annotation(&self.keys.machine))
            .map(|(namespace, name)| format!("{namespace}/{name}"));
        let by_machine = machine.and_then(|key| members.get(&key));
        let found = by_machine.or_else(|| members.get(normalized(&node.provider_id)));
        Ok(found.filter(|id| groups.iter().any(|group| group.id == **id)).cloned())
    }

    async fn template(&self, group: &str) -> Result<Option<Template>, CloudError> {
        let scalable = self.scalable(group).await?;
        let node = self.node(&scalable).await?;
        Ok(node.map(|node| Template { node, pods: vec![kube_proxy(&scalable.name)] }))
    }

    async fn increase(&self, group: &str, target: u32, delta: u32) -> Result<(), CloudError> {
        let scalable = self.scalable(group).await?;
        let wanted = target.saturating_add(delta);
        // Somebody may have asked for more since.
        if self.replicas(&scalable).await? >= wanted {
            return Ok(());
        }
        self.set_replicas(&scalable, wanted).await
    }

    async fn delete_nodes(&self, group: &str, nodes: &[NodeRef]) -> Result<(), CloudError> {
        let world = self.look().await?;
        let scalable = found(&world, group)?;
        let mut doomed = Vec::new();
        for node in nodes {
            match world.machine_of(node, &self.keys) {
                Some(machine) if !scalable.has(machine) => {
                    return Err(refused("delete_nodes", format!("node {} is none of {group}", node.name)));
                }
                Some(machine) if machine.deleting => {}
                Some(machine) => doomed.push(machine),
                None => return Err(CloudError::NotFound(format!("the machine of node {}", node.name))),
            }
        }
        let staying = world.machines_of(scalable).filter(|machine| !machine.deleting).count();
        let mut replicas = self.replicas(scalable).await?;
        // A machine that is marked counts as gone if the group has already shrunk below its machines.
        let shrunk = usize::try_from(replicas).is_ok_and(|replicas| replicas < staying);
        doomed.retain(|machine| !(machine.marked && shrunk));
        let left = usize::try_from(replicas).unwrap_or(usize::MAX).saturating_sub(doomed.len());
        if usize::try_from(scalable.min).is_ok_and(|min| left < min) {
            let message = format!("{group} would have {left} nodes, its minimum is {}", scalable.min);
            return Err(refused("delete_nodes", message));
        }
        for machine in doomed {
            self.mark(machine, Some(Timestamp::now())).await?;
            if let Err(error) = self.set_replicas(scalable, replicas.saturating_sub(1)).await {
                // A mark that stays would choose this machine whenever the group shrinks next.
                if let Err(left) = self.mark(machine, None).await {
                    tracing::warn!(machine = machine.key(), %left, "a machine stays marked for deletion");
                }
                return Err(error);
            }
            replicas -= 1;
        }
        Ok(())
    }

    async fn decrease_target(&self, group: &str, target: u32, delta: u32) -> Result<(), CloudError> {
        let world = self.look().await?;
        let scalable = found(&world, group)?;
        let wanted = target.saturating_sub(delta);
        let nodes = world.instances(scalable).iter().filter(|instance| is_node(&instance.state)).count();
        if usize::try_from(wanted).is_ok_and(|wanted| wanted < nodes) {
            let message =
                format!("{group} has {nodes} nodes: a target of {wanted} would delete existing ones");
            return Err(refused("decrease_target", message));
        }
        self.set_replicas(scalable, wanted).await
    }

    fn gpu_label(&self) -> &'static str {
        "cluster-api/accelerator"
    }
}

fn is_node(state: &InstanceState) -> bool {
    *state == InstanceState::Running
}
