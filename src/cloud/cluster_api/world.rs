//! Cluster API's objects as the management cluster has them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Error, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams},
    discovery,
};
use tandem_core::nodes::group::Instance;

use super::{
    discovery::Discovery,
    scalable::{Keys, Kind, Machine, Scalable, id, normalized},
};
use crate::cloud::{CloudError, NodeRef};

/// The kinds of the API group that are served, in one version.
#[derive(Debug, Clone)]
pub(super) struct Kinds {
    /// Those whose objects may be groups.
    pub(super) scalable: Vec<(Kind, ApiResource)>,
    pub(super) machine: ApiResource,
    cluster: Option<ApiResource>,
}

impl Kinds {
    /// Asks which kinds are served: in `version`, or in the version that the API server prefers.
    ///
    /// # Errors
    /// The group or the version is not served, or Machines and MachineSets are not.
    pub(super) async fn discover(
        client: &Client,
        group: &str,
        version: Option<&str>,
    ) -> Result<Self, CloudError> {
        let wrong = |problem: String| CloudError::configuration(format!("API group {group}"), problem);
        let served = discovery::group(client, group).await.map_err(|error| match error {
            Error::Discovery(_) => wrong(
                "it is not served; is Cluster API installed, and does --cloud-config name its cluster?"
                    .to_owned(),
            ),
            error => CloudError::from_api(format!("discover {group}"), &error),
        })?;
        let version = version.unwrap_or_else(|| served.preferred_version_or_latest());
        let resources = served.versioned_resources(version);
        if resources.is_empty() {
            let versions: Vec<_> = served.versions().collect();
            return Err(wrong(format!("version {version} is not served, but {}", versions.join(", "))));
        }
        let find = |kind: &str| {
            resources.iter().find(|(resource, _)| resource.kind == kind).map(|(resource, _)| resource.clone())
        };
        let needed = |kind: &str| find(kind).ok_or_else(|| wrong(format!("{version} has no {kind}")));
        needed(Kind::Set.name())?;
        let scalable = [Kind::Deployment, Kind::Set, Kind::Pool];
        Ok(Self {
            machine: needed("Machine")?,
            cluster: find("Cluster"),
            scalable: scalable.into_iter().filter_map(|kind| Some((kind, find(kind.name())?))).collect(),
        })
    }

    /// The kind of a group.
    pub(super) fn of(&self, kind: Kind) -> Option<&ApiResource> {
        self.scalable.iter().find(|(other, _)| *other == kind).map(|(_, resource)| resource)
    }
}

/// What one look saw.
#[derive(Debug, Default)]
pub(super) struct World {
    /// The groups, in the order of their ids.
    pub(super) scalables: Vec<Scalable>,
    /// Objects that are meant to be groups and cannot be, with the reason.
    pub(super) broken: Vec<(String, CloudError)>,
    pub(super) machines: Vec<Machine>,
    /// `spec.providerID` by node, of the nodes whose machines have none.
    nodes: BTreeMap<String, String>,
}

/// What to look at.
pub(super) struct View<'a> {
    pub(super) management: &'a Client,
    pub(super) workload: &'a Client,
    pub(super) kinds: &'a Kinds,
    pub(super) keys: &'a Keys,
    pub(super) discoveries: &'a [Discovery],
}

impl View<'_> {
    /// Lists everything. A list a kind and pass: a few thousand machines are a few megabytes, and what a write changed
    /// is seen at once.
    pub(super) async fn look(&self) -> Result<World, CloudError> {
        let lists =
            self.kinds.scalable.iter().map(|(kind, resource)| async move {
                Ok::<_, CloudError>((*kind, self.list(resource).await?))
            });
        let clusters = async {
            match &self.kinds.cluster {
                Some(resource) => self.list(resource).await,
                None => Ok(Vec::new()),
            }
        };
        let (lists, machines, clusters) =
            tokio::try_join!(futures::future::try_join_all(lists), self.list(&self.kinds.machine), clusters)?;
        let paused = paused_clusters(&clusters);
        let mut world = World::default();
        for (kind, objects) in lists {
            for object in objects.iter().filter(|object| self.is_candidate(kind, object, &paused)) {
                match Scalable::read(kind, object, self.keys) {
                    Ok(Some(scalable)) => world.scalables.push(scalable),
                    Ok(None) => {}
                    Err(problem) => {
                        let id = id(kind, object);
                        let error = CloudError::configuration(format!("node group {id}"), problem);
                        world.broken.push((id, error));
                    }
                }
            }
        }
        world.scalables.sort_by(|one, other| one.id.cmp(&other.id));
        world.machines = machines.iter().map(|object| Machine::read(object, self.keys)).collect();
        world.nodes = self.nodes_of(&world.machines).await?;
        Ok(world)
    }

    async fn list(&self, resource: &ApiResource) -> Result<Vec<DynamicObject>, CloudError> {
        let client = self.management.clone();
        let api: Api<DynamicObject> = match Discovery::only_namespace(self.discoveries) {
            Some(namespace) => Api::namespaced_with(client, namespace, resource),
            None => Api::all_with(client, resource),
        };
        let list = api.list(&ListParams::default()).await;
        Ok(list.map_err(|error| CloudError::from_api(format!("list {}", resource.plural), &error))?.items)
    }

    /// Whether an object may be a group: discovered, not paused, and no MachineSet of a MachineDeployment.
    fn is_candidate(&self, kind: Kind, object: &DynamicObject, paused: &BTreeSet<(String, String)>) -> bool {
        let namespace = object.namespace().unwrap_or_default();
        let cluster = self.keys.cluster(object);
        let discovered = self.discoveries.is_empty()
            || self.discoveries.iter().any(|one| one.admits(&namespace, cluster, object.labels()));
        let owned = kind == Kind::Set
            && object.owner_references().iter().any(|owner| owner.kind == "MachineDeployment");
        let paused = object.annotations().contains_key(&self.keys.paused)
            || paused.contains(&(namespace, cluster.to_owned()));
        discovered && !owned && !paused
    }

    /// `spec.providerID` of the nodes that machines without one have become.
    async fn nodes_of(&self, machines: &[Machine]) -> Result<BTreeMap<String, String>, CloudError> {
        if !machines.iter().any(|machine| machine.provider_id.is_none() && machine.node.is_some()) {
            return Ok(BTreeMap::new());
        }
        let nodes: Api<Node> = Api::all(self.workload.clone());
        let list = nodes.list(&ListParams::default()).await;
        let list = list.map_err(|error| CloudError::from_api("list nodes", &error))?;
        let id = |node: Node| Some((node.name_any(), node.spec?.provider_id?));
        Ok(list.items.into_iter().filter_map(id).collect())
    }
}

/// Namespaces and names of the clusters that nobody should touch.
fn paused_clusters(clusters: &[DynamicObject]) -> BTreeSet<(String, String)> {
    let paused = |cluster: &&DynamicObject| cluster.data["spec"]["paused"] == true;
    let key = |cluster: &DynamicObject| (cluster.namespace().unwrap_or_default(), cluster.name_any());
    clusters.iter().filter(paused).map(key).collect()
}

impl World {
    /// A group by its id.
    pub(super) fn scalable(&self, id: &str) -> Option<&Scalable> {
        self.scalables.iter().find(|scalable| *scalable.id == *id)
    }

    /// The machines of a group.
    pub(super) fn machines_of<'a>(&'a self, scalable: &'a Scalable) -> impl Iterator<Item = &'a Machine> {
        self.machines.iter().filter(|machine| scalable.has(machine))
    }

    /// The instances of a group, each once.
    pub(super) fn instances(&self, scalable: &Scalable) -> Vec<Instance> {
        let of_machines = self.machines_of(scalable).map(|machine| machine.instance(&self.nodes));
        let mut seen = BTreeSet::new();
        of_machines
            .chain(scalable.pool_instances())
            .filter(|instance| seen.insert(instance.id.clone()))
            .collect()
    }

    /// The machine that a node runs on: by the node's annotations, by providerID, or by the id that an instance has
    /// which will never be a node.
    pub(super) fn machine_of(&self, node: &NodeRef, keys: &Keys) -> Option<&Machine> {
        let annotation = |key: &str| node.annotations.get(key).map(String::as_str);
        if let (Some(namespace), Some(name)) =
            (annotation(&keys.cluster_namespace), annotation(&keys.machine))
        {
            let named = |machine: &&Machine| machine.namespace == namespace && machine.name == name;
            return self.machines.iter().find(named);
        }
        let wanted = normalized(&node.provider_id);
        let by_provider =
            |machine: &&Machine| machine.provider_id.as_deref().is_some_and(|id| normalized(id) == wanted);
        let by_instance = |machine: &&Machine| *machine.instance(&self.nodes).id == *node.provider_id;
        self.machines.iter().find(by_provider).or_else(|| self.machines.iter().find(by_instance))
    }
}
