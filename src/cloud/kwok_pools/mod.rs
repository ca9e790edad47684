//! Machines that kwok plays (`--node-pools-provider=kwok`): Karpenter's provider for trying things out.
//!
//! The API server is the cloud: the Node object is the machine, and bears the name of its NodeClaim.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, NodeSpec, NodeStatus, Taint},
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{
    Api, Client, Error, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use parking_lot::Mutex;
use serde_json::json;
use tandem_core::{
    api::karpenter::{KWOKNodeClass, NodeClaim, RequirementWithMinValues},
    nodes::pools::{
        catalogue,
        instance_type::{InstanceType, Offering},
        requirements::{
            Requirements, WellKnownLabels,
            labels::{CAPACITY_TYPE, HOSTNAME, INSTANCE_TYPE, NODE_POOL, ZONE},
        },
    },
    scheduling::Resources,
};

use super::{
    CloudError,
    pools::{
        Class, ClassKind, ClassState, LaunchError, Launched, Machine, PoolProvider, Settings, quantities,
    },
};
use crate::cluster::cache::{Cache, watch_cluster};

/// The file of instance types, instead of those that are built in.
const FILE: &str = "INSTANCE_TYPES_FILE_PATH";
/// What provider ids begin with.
const SCHEME: &str = "kwok://";
/// The annotation, and the label, by which kwok takes a node for its own, and its value.
const FAKE: (&str, &str) = ("kwok.x-k8s.io/node", "fake");
/// The taint that a node bears until its claim has given it labels and taints.
const UNREGISTERED: &str = "karpenter.sh/unregistered";
/// The one kind of node class.
const KIND: ClassKind = ClassKind { group: "karpenter.kwok.sh", kind: "KWOKNodeClass" };

/// Machines that kwok plays.
pub struct KwokPools {
    nodes: Api<Node>,
    class_api: Api<KWOKNodeClass>,
    classes: Arc<Cache<KWOKNodeClass>>,
    types: Arc<[Arc<InstanceType>]>,
    well_known: WellKnownLabels,
    /// Machines whose node comes later.
    delayed: Arc<Mutex<BTreeSet<String>>>,
}

impl KwokPools {
    /// Reads the instance types; the file is not read again.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn connect(client: &Client, settings: &Settings) -> Result<Self, CloudError> {
        let types = match std::env::var_os(FILE).filter(|path| !path.is_empty()) {
            None => catalogue::built_in(),
            Some(path) => {
                let what = || format!("{FILE} {}", path.display());
                let wrong = |problem: String| CloudError::configuration(what(), problem);
                let text = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
                catalogue::read(&text).map_err(|error| wrong(error.to_string()))?
            }
        };
        Ok(Self {
            nodes: Api::all(client.clone()),
            class_api: Api::all(client.clone()),
            classes: watch_cluster::<KWOKNodeClass>(client, settings.on_change()),
            types: types.into(),
            well_known: WellKnownLabels::default().with(catalogue::LABELS),
            delayed: Arc::default(),
        })
    }

    /// How long after the launch the node appears.
    fn delay(&self, class: &Class) -> Result<Duration, CloudError> {
        let Some(found) = self.classes.get("", &class.reference.name) else { return Ok(Duration::ZERO) };
        let Some(text) = &found.spec.node_registration_delay else { return Ok(Duration::ZERO) };
        humantime::parse_duration(text).map_err(|_| {
            let what = format!("KWOKNodeClass {} nodeRegistrationDelay", class.reference.name);
            CloudError::configuration(what, format!("{text:?} is no duration, write such as 30s"))
        })
    }

    async fn appear(nodes: Api<Node>, node: Node) -> Result<(), CloudError> {
        match nodes.create(&PostParams::default(), &node).await {
            // It is the one that was made before a crash: nobody else takes the name of a claim.
            Err(Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(error) => Err(CloudError::from_api("create nodes", &error)),
            Ok(_) => Ok(()),
        }
    }

    /// The machine of a claim that was launched before, as its node says.
    async fn existing(&self, name: &str) -> Result<Option<Launched>, CloudError> {
        let node = self.nodes.get_opt(name).await;
        let node = node.map_err(|error| CloudError::from_api("get nodes", &error))?;
        Ok(node.filter(|node| node.labels().contains_key(NODE_POOL)).map(|node| launched_of(&node)))
    }
}

/// What a node says of its machine.
fn launched_of(node: &Node) -> Launched {
    let label = |key: &str| node.labels().get(key).cloned().unwrap_or_default();
    let status = node.status.as_ref();
    Launched {
        provider_id: node.spec.as_ref().and_then(|spec| spec.provider_id.clone()).unwrap_or_default(),
        image: None,
        instance_type: label(INSTANCE_TYPE),
        zone: label(ZONE),
        capacity_type: label(CAPACITY_TYPE),
        labels: node.labels().clone(),
        annotations: BTreeMap::new(),
        capacity: Resources::from_optional(status.and_then(|status| status.capacity.as_ref())),
        allocatable: Resources::from_optional(status.and_then(|status| status.allocatable.as_ref())),
        sold_out: Vec::new(),
    }
}

/// The node that a claim gets of an instance type, on these terms.
fn node_of(claim: &NodeClaim, requirements: &Requirements, of: &InstanceType, offering: &Offering) -> Node {
    let name = claim.name_any();
    let mut labels = claim.labels().clone();
    for source in [requirements, &of.requirements, &offering.requirements] {
        let single = source.iter().filter(|requirement| requirement.len() == 1);
        labels.extend(single.filter_map(|one| Some((one.key().to_string(), one.any()?))));
    }
    labels.insert(HOSTNAME.to_owned(), name.clone());
    labels.insert(FAKE.0.to_owned(), FAKE.1.to_owned());
    let annotations = BTreeMap::from([(FAKE.0.to_owned(), FAKE.1.to_owned())]);
    Node {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            provider_id: Some(format!("{SCHEME}{name}")),
            taints: Some(vec![Taint {
                key: UNREGISTERED.to_owned(),
                effect: "NoExecute".to_owned(),
                ..Taint::default()
            }]),
            ..NodeSpec::default()
        }),
        status: Some(NodeStatus {
            capacity: Some(quantities(&of.capacity)),
            allocatable: Some(quantities(of.allocatable())),
            ..NodeStatus::default()
        }),
    }
}

#[async_trait]
impl PoolProvider for KwokPools {
    fn name(&self) -> &'static str {
        "kwok"
    }

    fn kinds(&self) -> &'static [ClassKind] {
        &[KIND]
    }

    fn well_known(&self) -> &WellKnownLabels {
        &self.well_known
    }

    fn classes(&self) -> Vec<Class> {
        KIND.seen(&self.classes)
    }

    /// What stands in a Provisioner means nothing to kwok, and so is always ready.
    async fn class_state(&self, class: &Class) -> Result<ClassState, CloudError> {
        if class.inline.is_some() {
            return Ok(ClassState::default());
        }
        self.classes.synced().await;
        let name = &class.reference.name;
        let Some(found) = self.classes.get("", name) else {
            return Err(CloudError::NotFound(format!("KWOKNodeClass {name}")));
        };
        let ready = found.status.iter().flat_map(|status| &status.conditions);
        if !ready.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
            let ready = Condition {
                type_: "Ready".to_owned(),
                status: "True".to_owned(),
                reason: "Ready".to_owned(),
                message: String::new(),
                observed_generation: found.metadata.generation,
                last_transition_time: Time(Timestamp::now()),
            };
            let patch = Patch::Merge(json!({"status": {"conditions": [ready]}}));
            let written = self.class_api.patch_status(name, &PatchParams::default(), &patch).await;
            written.map_err(|error| CloudError::from_api("patch kwoknodeclasses/status", &error))?;
        }
        Ok(ClassState { generation: found.metadata.generation, ..ClassState::default() })
    }

    async fn instance_types(&self, _: &Class) -> Result<Arc<[Arc<InstanceType>]>, CloudError> {
        Ok(self.types.clone())
    }

    async fn create(
        &self,
        claim: &NodeClaim,
        class: &Class,
        types: &[Arc<InstanceType>],
    ) -> Result<Launched, LaunchError> {
        if let Some(existing) = self.existing(&claim.name_any()).await? {
            return Ok(existing);
        }
        let requirements = RequirementWithMinValues::read_all(&claim.spec.requirements);
        let offered = types.iter().filter_map(|one| {
            let cheapest = one.cheapest(&requirements, &self.well_known)?;
            Some((one, cheapest))
        });
        let cheapest = offered.min_by(|(_, left), (_, right)| left.price.total_cmp(&right.price));
        let Some((instance_type, offering)) = cheapest else {
            let message = "no offering satisfies the requirements of the NodeClaim".to_owned();
            return Err(CloudError::OutOfCapacity { code: "NoOffering".to_owned(), message }.into());
        };
        let node = node_of(claim, &requirements, instance_type, offering);
        let launched = launched_of(&node);
        let delay = self.delay(class)?;
        if delay.is_zero() {
            Self::appear(self.nodes.clone(), node).await?;
            return Ok(launched);
        }
        let (name, nodes, delayed) = (claim.name_any(), self.nodes.clone(), self.delayed.clone());
        delayed.lock().insert(name.clone());
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            // Who deleted the machine meanwhile took the name out.
            if delayed.lock().contains(&name)
                && let Err(error) = Self::appear(nodes, node).await
            {
                tracing::warn!(name, %error, "kwok's node cannot be made");
            }
            delayed.lock().remove(&name);
        });
        Ok(launched)
    }

    async fn delete(&self, provider_id: &str) -> Result<(), CloudError> {
        let name = provider_id.strip_prefix(SCHEME).unwrap_or(provider_id);
        if self.delayed.lock().remove(name) {
            return Ok(());
        }
        let gone = || CloudError::NotFound(format!("machine {provider_id}"));
        let failed = |error| CloudError::from_api(format!("delete nodes {name}"), &error);
        match self.nodes.get_opt(name).await.map_err(failed)? {
            None => Err(gone()),
            // What its finalizer holds is an object; the machine is no more.
            Some(node) if node.metadata.deletion_timestamp.is_some() => Err(gone()),
            Some(_) => match self.nodes.delete(name, &DeleteParams::default()).await {
                Err(Error::Api(status)) if status.is_not_found() => Err(gone()),
                Err(error) => Err(failed(error)),
                Ok(_) => Ok(()),
            },
        }
    }

    async fn list(&self) -> Result<Vec<Machine>, CloudError> {
        let of_pools = ListParams::default().labels(NODE_POOL);
        let list = self.nodes.list_metadata(&of_pools).await;
        let list = list.map_err(|error| CloudError::from_api("list nodes", &error))?;
        let ours = list.items.iter().filter(|node| {
            node.metadata.deletion_timestamp.is_none()
                && node.annotations().get(FAKE.0).is_some_and(|value| value == FAKE.1)
        });
        let created = |node: &ObjectMeta| node.creation_timestamp.as_ref().map(|time| time.0);
        let machine =
            |claim: String, created| Machine { provider_id: format!("{SCHEME}{claim}"), claim, created };
        let mut machines: Vec<_> =
            ours.map(|node| machine(node.name_any(), created(&node.metadata))).collect();
        machines.extend(self.delayed.lock().iter().map(|name| machine(name.clone(), None)));
        Ok(machines)
    }

    async fn drifted(&self, _: &NodeClaim, _: &Class) -> Result<Option<&'static str>, CloudError> {
        Ok(None)
    }
}
