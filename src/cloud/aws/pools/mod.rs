//! Machines of node pools on EC2 (`--node-pools-provider=aws`): Karpenter's provider.
//!
//! A machine carries the name of its NodeClaim as a tag from its first moment, and the call that makes it a token of the
//! claim's, so that a crash at any step makes no second one.

mod class;
mod cluster;
mod create;
mod end;
mod family;
mod instance_profile;
mod labels;
mod machine_type;
mod market;
mod placement;
mod status;
mod template;
mod terminate;
mod user_data;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use jiff::Timestamp;
use kube::{
    Api, Client as Kubernetes, ResourceExt,
    api::{Patch, PatchParams},
};
use parking_lot::Mutex;
use reqsign_core::hash::hex_sha256;
use serde::Serialize;
use serde_json::json;
use tandem_core::{
    api::karpenter::{EC2NodeClass, EC2NodeClassSpec, EC2NodeClassStatus, NodeClaim},
    nodes::pools::{
        instance_type::InstanceType,
        requirements::{
            WellKnownLabels,
            labels::{INSTANCE_TYPE, PLACEMENT_GROUP},
        },
    },
};
use tokio::time::{Duration, Instant};

use self::{
    class::{ClassImage, Found, Memory, image_for, named},
    cluster::Cluster,
    create::{CLAIM_TAG, CLASS_HASH, CLASS_TAG},
    end::is_ending,
    instance_profile::InstanceProfiles,
    machine_type::Overheads,
    market::{Market, Markets},
    status::{Refusal, not_ready},
    terminate::Terminations,
};
use super::{
    Config,
    client::Client,
    fleet::{launch, selectors::PlacementGroup},
};
use crate::{
    cloud::{
        CloudError,
        pools::{Class, ClassKind, ClassState, LaunchError, Launched, Machine, PoolProvider, Settings},
    },
    cluster::cache::{Cache, watch_cluster},
};

/// The one kind of node class.
const KIND: ClassKind = ClassKind { group: "karpenter.k8s.aws", kind: "EC2NodeClass" };
/// How long what AWS refused of a class is taken to be refused still, unless the class changes.
const REFUSED: Duration = Duration::from_mins(5);
/// A launch template that was not used for so long is removed; one that is wanted again is made again (aws, `pkg/cache`).
const TEMPLATE_UNUSED: Duration = Duration::from_mins(5);
/// How long it is taken that machines have the images and networks that they had: those hardly change.
const MACHINES_FRESH: Duration = Duration::from_mins(5);
/// The tag of launch templates with the cluster that they are of.
const CLUSTER_TAG: &str = "karpenter.k8s.aws/cluster";
/// The annotation with the way that digests of classes are made, and that way.
const CLASS_HASH_VERSION: (&str, &str) = ("karpenter.k8s.aws/ec2nodeclass-hash-version", "tandem-v1");

/// What is said of a class that nodes are launched with no more.
const ENDING: &str = "it is being deleted";

/// Machines of node pools on EC2.
pub struct AwsPools {
    client: Client,
    cluster: Cluster,
    isolated: bool,
    overheads: Overheads,
    class_api: Api<EC2NodeClass>,
    classes: Arc<Cache<EC2NodeClass>>,
    /// What is known of each class, by name; one look at a time.
    slots: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<Slot>>>>,
    refusals: Mutex<BTreeMap<String, (EC2NodeClassSpec, Refusal, Instant)>>,
    markets: Markets,
    profiles: InstanceProfiles,
    well_known: WellKnownLabels,
    /// When launch templates were used last, by name.
    templates: Mutex<BTreeMap<String, Instant>>,
    /// How often a machine was asked for and refused, by the claim's uid.
    attempts: Mutex<HashMap<String, u32>>,
    terminations: Terminations,
    machines: tokio::sync::Mutex<Option<(Instant, Arc<Machines>)>>,
}

/// Machines by id.
type Machines = HashMap<String, launch::Machine>;

/// What is known of a class.
#[derive(Default)]
struct Slot {
    memory: Memory,
    types: Option<Known>,
}

/// Types of a class, and what they follow from.
struct Known {
    market: Arc<Market>,
    found: Found,
    spec: EC2NodeClassSpec,
    types: Arc<[Arc<InstanceType>]>,
}

/// A class that nodes can be launched with.
struct Ready {
    spec: EC2NodeClassSpec,
    hash: String,
    /// The best by zone.
    subnets: BTreeMap<String, String>,
    security_groups: Vec<String>,
    images: Vec<ClassImage>,
    placement_group: Option<PlacementGroup>,
    instance_profile: String,
    types: Arc<[Arc<InstanceType>]>,
}

impl AwsPools {
    /// A provider with the credentials and the region that the environment leads to.
    ///
    /// # Errors
    /// The cluster has no name, or the region is not known.
    pub async fn connect(settings: &Settings, kubernetes: &Kubernetes) -> Result<Self, CloudError> {
        let config = Config { on_request: settings.on_aws_request.clone(), ..Config::new(vec![], vec![]) };
        let classes = watch_cluster::<EC2NodeClass>(kubernetes, settings.on_change());
        Self::new(settings, &config, kubernetes, classes).await
    }

    /// As [`AwsPools::connect`], with the environment of `config` and the classes of `classes`.
    pub async fn new(
        settings: &Settings,
        config: &Config,
        kubernetes: &Kubernetes,
        classes: Arc<Cache<EC2NodeClass>>,
    ) -> Result<Self, CloudError> {
        let cluster = Cluster::new(settings, kubernetes.clone())?;
        let client = super::connect(config)
            .await
            .map_err(|error| CloudError::configuration("--node-pools-provider=aws", error.to_string()))?;
        Ok(Self {
            client,
            cluster,
            isolated: settings.isolated,
            overheads: Overheads {
                memory: settings.memory_overhead,
                interfaces: settings.reserved_interfaces.into(),
            },
            class_api: Api::all(kubernetes.clone()),
            classes,
            slots: Mutex::default(),
            refusals: Mutex::default(),
            markets: Markets::default(),
            profiles: InstanceProfiles::default(),
            well_known: WellKnownLabels::default().with(labels::ALL),
            templates: Mutex::default(),
            attempts: Mutex::default(),
            terminations: Terminations::default(),
            machines: tokio::sync::Mutex::default(),
        })
    }

    fn region(&self) -> String {
        self.client.region().to_owned()
    }

    /// The tag by which everything of the cluster is known.
    fn cluster_tags(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(format!("kubernetes.io/cluster/{}", self.cluster.name), "owned".to_owned())])
    }

    /// Tags of what belongs to a class.
    fn owned(&self, class: &Class) -> BTreeMap<String, String> {
        let mut tags = self.cluster_tags();
        tags.insert(CLUSTER_TAG.to_owned(), self.cluster.name.clone());
        tags.insert(CLASS_TAG.to_owned(), class.reference.name.clone());
        tags
    }

    /// What a class says, with its object if it is one of the API.
    fn spec(&self, class: &Class) -> Result<(EC2NodeClassSpec, Option<Arc<EC2NodeClass>>), CloudError> {
        if let Some(inline) = &class.inline {
            return Ok((inline.spec.clone(), None));
        }
        let found = self.classes.get("", &class.reference.name);
        let found = found.ok_or_else(|| CloudError::NotFound(named(&class.reference)))?;
        Ok((found.spec.clone(), Some(found)))
    }

    fn slot(&self, class: &Class) -> Arc<tokio::sync::Mutex<Slot>> {
        let kind = if class.inline.is_some() { "inline" } else { "object" };
        self.slots.lock().entry(format!("{kind}/{}", class.reference.name)).or_default().clone()
    }

    async fn find(&self, slot: &mut Slot, spec: &EC2NodeClassSpec) -> Found {
        slot.memory.find(&self.client, spec, || self.cluster.version()).await
    }

    /// The instance profile of a class; one is made for a role.
    async fn profile(&self, class: &Class, spec: &EC2NodeClassSpec) -> Result<String, CloudError> {
        if let Some(name) = spec.instance_profile.as_deref().filter(|name| !name.is_empty()) {
            return Ok(name.to_owned());
        }
        let Some((name, role)) = self.own_profile(class, spec) else {
            let problem =
                "names neither a role nor an instanceProfile, without which machines cannot join the cluster";
            return Err(CloudError::configuration(named(&class.reference), problem));
        };
        self.profiles.ensure(&self.client, &name, role, &self.owned(class)).await?;
        Ok(name)
    }

    /// The profile that is made for a class that names a role, and the role.
    fn own_profile<'a>(&self, class: &Class, spec: &'a EC2NodeClassSpec) -> Option<(String, &'a str)> {
        let names_profile = spec.instance_profile.as_deref().is_some_and(|name| !name.is_empty());
        let role = spec.role.as_deref().filter(|role| !role.is_empty() && !names_profile)?;
        let role = role.rsplit('/').next().unwrap_or(role);
        let name = format!("{}_{}", self.cluster.name, digest(&(self.region(), &class.reference.name, role)));
        Some((name, role))
    }

    async fn types(
        &self,
        slot: &mut Slot,
        spec: &EC2NodeClassSpec,
        found: &Found,
    ) -> Result<Arc<[Arc<InstanceType>]>, CloudError> {
        let market = self.markets.get(&self.client, self.isolated).await?;
        if let Some(known) = &slot.types
            && Arc::ptr_eq(&known.market, &market)
            && known.found == *found
            && known.spec == *spec
        {
            return Ok(known.types.clone());
        }
        let types = market.of_class(spec, self.client.region(), found, self.overheads);
        slot.types = Some(Known { market, found: found.clone(), spec: spec.clone(), types: types.clone() });
        Ok(types)
    }

    /// All that a launch needs of a class.
    ///
    /// # Errors
    /// It is not ready, which is a configuration error, or AWS does not answer.
    async fn ready(&self, class: &Class) -> Result<Ready, CloudError> {
        let (spec, object) = self.spec(class)?;
        if object.is_some_and(|object| is_ending(&object)) {
            return Err(CloudError::configuration(named(&class.reference), ENDING));
        }
        let slot = self.slot(class);
        let mut slot = slot.lock().await;
        let found = self.find(&mut slot, &spec).await;
        let types = self.types(&mut slot, &spec, &found).await?;
        drop(slot);
        let Found { subnets, security_groups, images, placement_group } = found;
        let missing = |what: &str| {
            CloudError::configuration(named(&class.reference), format!("{what} did not match any"))
        };
        let some = |is_empty: bool, what| if is_empty { Err(missing(what)) } else { Ok(()) };
        let (subnets, security_groups, images) = (subnets?, security_groups?, images?);
        some(subnets.is_empty(), "SubnetSelector")?;
        some(security_groups.is_empty(), "SecurityGroupSelector")?;
        some(images.is_empty(), "AMISelector")?;
        let mut by_zone = BTreeMap::new();
        for subnet in subnets {
            by_zone.entry(subnet.availability_zone).or_insert(subnet.subnet_id);
        }
        Ok(Ready {
            hash: class_hash(&spec),
            instance_profile: self.profile(class, &spec).await?,
            subnets: by_zone,
            security_groups: security_groups.into_iter().map(|group| group.group_id).collect(),
            images,
            placement_group: placement_group?,
            types,
            spec,
        })
    }

    /// Notes what AWS refused of a class.
    fn note(&self, class: &Class, spec: &EC2NodeClassSpec, refusal: Refusal) {
        let noted = (spec.clone(), refusal, Instant::now());
        self.refusals.lock().insert(class.reference.name.clone(), noted);
    }

    fn refusal_of(&self, class: &Class, spec: &EC2NodeClassSpec) -> Option<Refusal> {
        let mut refusals = self.refusals.lock();
        refusals.retain(|_, (_, _, since)| since.elapsed() < REFUSED);
        let (refused, refusal, _) = refusals.get(&class.reference.name)?;
        (refused == spec).then(|| refusal.clone())
    }

    async fn write(
        &self,
        object: &EC2NodeClass,
        hash: &str,
        status: &EC2NodeClassStatus,
    ) -> Result<(), CloudError> {
        let failed = |error| CloudError::from_api("patch ec2nodeclasses", &error);
        let name = object.name_any();
        let annotations = object.annotations();
        if annotations.get(CLASS_HASH).map(String::as_str) != Some(hash) {
            let annotations = json!({ CLASS_HASH: hash, CLASS_HASH_VERSION.0: CLASS_HASH_VERSION.1 });
            let patch = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
            self.class_api.patch(&name, &PatchParams::default(), &patch).await.map_err(failed)?;
        }
        if object.status.as_ref() != Some(status) {
            let mut patch = json!({ "status": status });
            // A merge leaves what it does not name.
            for list in ["subnets", "securityGroups", "amis"] {
                if patch["status"][list].is_null() {
                    patch["status"][list] = json!([]);
                }
            }
            let patch = Patch::Merge(patch);
            self.class_api.patch_status(&name, &PatchParams::default(), &patch).await.map_err(failed)?;
        }
        Ok(())
    }

    /// All machines of the cluster's claims, as they are now.
    async fn read_machines(&self) -> Result<Arc<Machines>, CloudError> {
        let mut tags = self.cluster_tags();
        tags.insert(CLAIM_TAG.to_owned(), "*".to_owned());
        let machines = launch::machines(&self.client, &tags).await?;
        let machines = machines.into_iter().map(|machine| (machine.instance_id.clone(), machine)).collect();
        let machines = Arc::new(machines);
        *self.machines.lock().await = Some((Instant::now(), Arc::clone(&machines)));
        Ok(machines)
    }

    /// A machine as it was a while ago, read if it was not there then.
    async fn machine(&self, id: &str) -> Result<Option<launch::Machine>, CloudError> {
        let kept = self.machines.lock().await.clone();
        let fresh = kept.filter(|(read, _)| read.elapsed() < MACHINES_FRESH).map(|(_, machines)| machines);
        let machines = match fresh.filter(|machines| machines.contains_key(id)) {
            Some(machines) => machines,
            None => self.read_machines().await?,
        };
        Ok(machines.get(id).cloned())
    }

    /// Removes launch templates that nobody used for a while, also those of a process that is no more.
    async fn tidy(&self) -> Result<(), CloudError> {
        self.templates.lock().retain(|_, used| used.elapsed() < TEMPLATE_UNUSED);
        for name in launch::launch_templates(&self.client, (CLUSTER_TAG, &self.cluster.name)).await? {
            if self.templates.lock().contains_key(&name) {
                continue;
            }
            match launch::delete_launch_template(&self.client, &name).await {
                Err(CloudError::NotFound(_)) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl PoolProvider for AwsPools {
    fn name(&self) -> &'static str {
        "aws"
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

    fn node_classes(&self) -> Vec<Arc<EC2NodeClass>> {
        self.classes.list("")
    }

    async fn class_state(&self, class: &Class) -> Result<ClassState, CloudError> {
        self.classes.synced().await;
        let (spec, object) = self.spec(class)?;
        if let Some(object) = &object {
            if is_ending(object) {
                return Ok(ClassState {
                    generation: object.metadata.generation,
                    not_ready: Some((
                        "NodeClassTerminating",
                        format!("{} {ENDING}", named(&class.reference)),
                    )),
                    is_ending: true,
                });
            }
            self.hold(class, object).await?;
        }
        let slot = self.slot(class);
        let found = self.find(&mut *slot.lock().await, &spec).await;
        let profile = self.profile(class, &spec).await;
        let refused = self.refusal_of(class, &spec);
        let old = object.as_ref().and_then(|object| object.status.clone()).unwrap_or_default();
        let status = status::status(&old, &spec, &found, &profile, refused.as_ref(), Timestamp::now());
        if let Some(object) = &object {
            self.write(object, &class_hash(&spec), &status).await?;
        }
        Ok(ClassState {
            generation: object.and_then(|object| object.metadata.generation),
            not_ready: not_ready(&status).map(|why| ("NodeClassNotReady", why)),
            is_ending: false,
        })
    }

    async fn tidy_class(&self, class: &Class, claims: &[Arc<NodeClaim>]) -> Result<(), CloudError> {
        self.forget(class, claims).await
    }

    async fn end_class(&self, class: &Class) -> Result<(), CloudError> {
        self.end(class).await
    }

    async fn instance_types(&self, class: &Class) -> Result<Arc<[Arc<InstanceType>]>, CloudError> {
        let (spec, _) = self.spec(class)?;
        let slot = self.slot(class);
        let mut slot = slot.lock().await;
        let found = self.find(&mut slot, &spec).await;
        self.types(&mut slot, &spec, &found).await
    }

    async fn create(
        &self,
        claim: &NodeClaim,
        class: &Class,
        types: &[Arc<InstanceType>],
    ) -> Result<Launched, LaunchError> {
        self.launch(claim, class, types).await
    }

    async fn delete(&self, provider_id: &str) -> Result<(), CloudError> {
        self.terminations.end(&self.client, machine_id(provider_id)).await
    }

    async fn list(&self) -> Result<Vec<Machine>, CloudError> {
        let machines = self.read_machines().await?;
        if let Err(error) = self.tidy().await {
            tracing::warn!(%error, "launch templates that nobody uses are still there");
        }
        let machine = |machine: &launch::Machine| Machine {
            provider_id: format!("aws:///{}/{}", machine.placement.availability_zone, machine.instance_id),
            claim: machine
                .tag_set
                .iter()
                .find(|tag| tag.key == CLAIM_TAG)
                .map(|tag| tag.value.clone())
                .unwrap_or_default(),
            created: Some(machine.launch_time),
        };
        Ok(machines.values().map(machine).collect())
    }

    async fn drifted(&self, claim: &NodeClaim, class: &Class) -> Result<Option<&'static str>, CloudError> {
        let (spec, _) = self.spec(class)?;
        if claim.annotations().get(CLASS_HASH).is_some_and(|hash| *hash != class_hash(&spec)) {
            return Ok(Some("NodeClassDrift"));
        }
        let Some(id) = claim.status.as_ref().and_then(|status| status.provider_id.as_deref()) else {
            return Ok(None);
        };
        let Some(machine) = self.machine(machine_id(id)).await? else { return Ok(None) };
        let slot = self.slot(class);
        let mut slot = slot.lock().await;
        let found = self.find(&mut slot, &spec).await;
        let types = self.types(&mut slot, &spec, &found).await?;
        let name = claim.labels().get(INSTANCE_TYPE);
        let of = types.iter().find(|one| name.is_some_and(|name| *one.name == **name));
        Ok(drift(&machine, &found, of.map(|of| &**of)).or_else(|| moved(claim, &found)))
    }
}

/// Whether a claim's machine is in another placement group than its class finds now.
fn moved(claim: &NodeClaim, found: &Found) -> Option<&'static str> {
    let wanted = found.placement_group.as_ref().ok()?.as_ref().map(|group| &group.group_id);
    (claim.labels().get(PLACEMENT_GROUP) != wanted).then_some("PlacementGroupDrift")
}

/// Why a machine is not what its class finds now; what could not be found is no reason.
fn drift(machine: &launch::Machine, found: &Found, of: Option<&InstanceType>) -> Option<&'static str> {
    let images = found.images.as_ref().ok();
    let image = images.zip(of).and_then(|(images, of)| image_for(images, of));
    if image.is_some_and(|image| image.id != machine.image_id) {
        return Some("AMIDrift");
    }
    if let Ok(groups) = &found.security_groups
        && !groups.is_empty()
    {
        let wanted: BTreeSet<&str> = groups.iter().map(|group| group.group_id.as_str()).collect();
        let seen: BTreeSet<&str> = machine.group_set.iter().map(|group| group.group_id.as_str()).collect();
        if !seen.is_empty() && wanted != seen {
            return Some("SecurityGroupDrift");
        }
    }
    let subnets = found.subnets.as_ref().ok().filter(|subnets| !subnets.is_empty())?;
    let is_found = subnets.iter().any(|subnet| subnet.subnet_id == machine.subnet_id);
    (!machine.subnet_id.is_empty() && !is_found).then_some("SubnetDrift")
}

/// `i-…` of `aws:///zone/i-…`.
fn machine_id(provider_id: &str) -> &str {
    provider_id.rsplit('/').next().unwrap_or(provider_id)
}

/// Digest of what of a class machines are made from: all but what is found by selectors, which is compared by what it finds.
fn class_hash(spec: &EC2NodeClassSpec) -> String {
    digest(&EC2NodeClassSpec {
        subnet_selector_terms: Vec::new(),
        security_group_selector_terms: Vec::new(),
        ami_selector_terms: Vec::new(),
        capacity_reservation_selector_terms: None,
        placement_group_selector: None,
        ..spec.clone()
    })
}

/// The first half of the first half of a SHA-256, in hexadecimal digits.
fn digest(of: &impl Serialize) -> String {
    let text = serde_json::to_vec(of).unwrap_or_default();
    hex_sha256(&text).chars().take(16).collect()
}

#[cfg(test)]
mod tests;
