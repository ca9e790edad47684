//! A machine for a NodeClaim.
//!
//! Source: karpenter-provider-aws, `pkg/providers/instance`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::Taint, apimachinery::pkg::util::intstr::IntOrString};
use kube::ResourceExt;
use tandem_core::{
    api::karpenter::{EC2NodeClassSpec, NodeClaim, RequirementWithMinValues},
    nodes::pools::{
        instance_type::{InstanceType, Offering},
        launch::{MinValuesPolicy, truncate, without_dear_spot, without_exotic},
        names::PRICE_OVERLAY_APPLIED,
        requirements::{
            Requirement, Requirements, WellKnownLabels,
            labels::{CAPACITY_TYPE, NODE_POOL, ON_DEMAND, SPOT, ZONE},
        },
    },
    scheduling::Resources,
};

use super::{
    AwsPools, Ready,
    class::{image_for, named},
    end::PROFILE,
    family::Family,
    labels::PARTITION,
    placement,
    status::Refusal,
    template::{Parts, template},
    user_data::{Bootstrap, user_data},
};
use crate::cloud::{
    CloudError,
    aws::fleet::{
        launch::{self, Choice, Launch, LaunchFailure, Machine},
        selectors::PlacementGroup,
    },
    pools::{Class, LaunchError, Launched, OfferingKey},
};

/// Instance types that one call of CreateFleet names (aws, `pkg/providers/instance`).
const MOST_TYPES: usize = 60;
/// Types in subnets that one call of CreateFleet may name (EC2 service quotas, instant fleets).
const MOST_CHOICES: usize = 300;
/// A claim this old may be one that another process launched a machine for; that one's Lease lasts longer.
const MAY_BE_LAUNCHED: SignedDuration = SignedDuration::from_secs(10);
/// The resource of interfaces that bypass the kernel.
const EFA: &str = "vpc.amazonaws.com/efa";
/// The tag, and the annotation, with a digest of what a class says of machines.
pub(super) const CLASS_HASH: &str = "karpenter.k8s.aws/ec2nodeclass-hash";
/// The tag of a machine with the claim that it was made for.
pub(super) const CLAIM_TAG: &str = "karpenter.sh/nodeclaim";
/// The tag with the class.
pub(super) const CLASS_TAG: &str = "karpenter.k8s.aws/ec2nodeclass";
/// The taint that a node bears until its claim has given it labels and taints.
const UNREGISTERED: &str = "karpenter.sh/unregistered";

impl AwsPools {
    /// Launches a machine of one of these types for a claim, or finds the one that was launched.
    pub(super) async fn launch(
        &self,
        claim: &NodeClaim,
        class: &Class,
        types: &[Arc<InstanceType>],
    ) -> Result<Launched, LaunchError> {
        let uid = claim.uid().unwrap_or_default();
        let attempt = self.attempts.lock().get(&uid).copied().unwrap_or(0);
        let age = claim
            .creation_timestamp()
            .map_or(SignedDuration::MAX, |created| Timestamp::now().duration_since(created.0));
        if (attempt > 0 || age >= MAY_BE_LAUNCHED)
            && let Some(machine) = self.machine_of(claim).await?
        {
            return self.launched(&machine, class).await.map_err(Into::into);
        }
        let ready = self.ready(class).await?;
        let plan = Plan::new(claim, types, ready.placement_group.as_ref(), &self.well_known)?;
        let mut launch = self.prepare(claim, class, &ready, &plan).await?;
        launch.token = format!("{uid}-{attempt}");
        let answered = launch::launch(&self.client, &launch).await;
        match answered {
            // Launched before, from what was to be had then.
            Err(CloudError::Refused { code, message, call }) if code == "IdempotentParameterMismatch" => {
                self.count(&uid);
                match self.machine_of(claim).await? {
                    Some(machine) => Ok(self.launched(&machine, class).await?),
                    None => Err(CloudError::Refused { call, code, message }.into()),
                }
            }
            Err(error) => {
                // No answer is no answer: the token tells EC2 that it is the same launch.
                if !matches!(error, CloudError::Unreachable { .. }) {
                    self.count(&uid);
                }
                if matches!(error, CloudError::NotFound(_)) {
                    self.templates.lock().clear();
                }
                Err(self.refused(class, &ready.spec, error).into())
            }
            Ok(answer) => self.answered(&uid, class, &ready, &plan, &launch.choices, answer),
        }
    }

    /// What a fleet came to.
    fn answered(
        &self,
        uid: &str,
        class: &Class,
        ready: &Ready,
        plan: &Plan,
        choices: &[Choice],
        answer: launch::Launched,
    ) -> Result<Launched, LaunchError> {
        let sold_out = sold_out(plan, choices, &answer.failures);
        let Some((id, name, zone)) = answer.machine else {
            self.count(uid);
            let error = self.refused(class, &ready.spec, why_none(answer.failures));
            return Err(LaunchError { error, sold_out });
        };
        self.attempts.lock().remove(uid);
        let mut launched = plan.launched(&self.region(), &id, &name, zone.as_deref());
        let image = plan.find(&name).and_then(|one| image_for(&ready.images, one));
        launched.image = image.map(|image| image.id.clone());
        launched.annotations.insert(CLASS_HASH.to_owned(), ready.hash.clone());
        launched.annotations.insert(PROFILE.to_owned(), ready.instance_profile.clone());
        launched.sold_out = sold_out;
        Ok(launched)
    }

    /// Another token for the next attempt of a claim: EC2 would repeat its answer to this one.
    fn count(&self, uid: &str) {
        *self.attempts.lock().entry(uid.to_owned()).or_default() += 1;
    }

    /// The machine that was launched for a claim, if any.
    async fn machine_of(&self, claim: &NodeClaim) -> Result<Option<Machine>, CloudError> {
        let mut tags = self.cluster_tags();
        tags.insert(CLAIM_TAG.to_owned(), claim.name_any());
        Ok(launch::machines(&self.client, &tags).await?.into_iter().next())
    }

    /// What is known of a machine that was launched before.
    async fn launched(&self, machine: &Machine, class: &Class) -> Result<Launched, CloudError> {
        let ready = self.ready(class).await?;
        let name = &machine.instance_type;
        let found = ready.types.iter().find(|one| *one.name == **name);
        let Some(found) = found else {
            return Err(CloudError::NotFound(format!(
                "instance type {name} of machine {}",
                machine.instance_id
            )));
        };
        let capacity_type =
            if machine.instance_lifecycle.as_deref() == Some(SPOT) { SPOT } else { ON_DEMAND };
        let plan = Plan {
            requirements: Requirements::new(),
            types: vec![found.clone()],
            capacity_type,
            group: None,
            partition: machine.placement.partition_number,
            efa: false,
        };
        let zone = Some(machine.placement.availability_zone.as_str());
        let mut launched = plan.launched(&self.region(), &machine.instance_id, name, zone);
        launched.image = Some(machine.image_id.clone());
        let hash = machine.tag_set.iter().find(|tag| tag.key == CLASS_HASH);
        launched.annotations.extend(hash.map(|tag| (CLASS_HASH.to_owned(), tag.value.clone())));
        Ok(launched)
    }

    /// Launch templates are made, subnets are chosen.
    async fn prepare(
        &self,
        claim: &NodeClaim,
        class: &Class,
        ready: &Ready,
        plan: &Plan,
    ) -> Result<Launch, CloudError> {
        let family = Family::of(&ready.spec);
        let cluster = self.cluster.details(&self.client, family == Family::Al2023).await?;
        let mut common = ready.spec.tags.clone().unwrap_or_default();
        common.extend(self.cluster_tags());
        common.insert("eks:eks-cluster-name".to_owned(), self.cluster.name.clone());
        common.insert(CLASS_TAG.to_owned(), class.reference.name.clone());
        common.extend(claim.labels().get(NODE_POOL).map(|pool| (NODE_POOL.to_owned(), pool.clone())));
        // Types that share image, pods and interfaces share a launch template.
        let mut groups: BTreeMap<(&str, i64, i64), Vec<&InstanceType>> = BTreeMap::new();
        for one in &plan.types {
            if let Some(image) = image_for(&ready.images, one) {
                let efa = if plan.efa { one.capacity.get(EFA) } else { 0 };
                groups.entry((&image.id, one.capacity.pods, efa)).or_default().push(one);
            }
        }
        let mut names: BTreeMap<&str, String> = BTreeMap::new();
        for ((image, pods, efa), types) in groups {
            let mut kubelet = ready.spec.kubelet.clone().unwrap_or_default();
            kubelet.max_pods = Some(IntOrString::Int(i32::try_from(pods).unwrap_or(i32::MAX)));
            let bootstrap = Bootstrap {
                cluster: &self.cluster.name,
                endpoint: &cluster.endpoint,
                authority: &cluster.authority,
                service_cidr: &cluster.service_cidr,
                kubelet,
                taints: taints(claim),
                labels: labels(claim, plan.capacity_type),
                own: ready.spec.user_data.as_deref().unwrap_or_default(),
                raid: ready.spec.instance_store_policy.as_deref() == Some("RAID0"),
            };
            let template = template(
                &self.cluster.name,
                &Parts {
                    spec: &ready.spec,
                    image,
                    user_data: &user_data(family, &bootstrap)?,
                    instance_profile: &ready.instance_profile,
                    security_groups: ready.security_groups.iter().map(String::as_str).collect(),
                    placement: (plan.group.as_deref(), plan.partition),
                    efa,
                    spot: plan.capacity_type == SPOT,
                    tags: &common,
                },
            );
            let known = self.templates.lock().contains_key(&template.name);
            // Before it is made: what is noted is not tidied away.
            self.templates.lock().insert(template.name.clone(), tokio::time::Instant::now());
            if !known
                && let Err(error) = launch::create_launch_template(
                    &self.client,
                    &template.name,
                    template.data,
                    &self.owned(class),
                )
                .await
            {
                self.templates.lock().remove(&template.name);
                return Err(self.refused(class, &ready.spec, error));
            }
            names.extend(types.into_iter().map(|one| (&*one.name, template.name.clone())));
        }
        let choices = plan.choices(&names, &ready.subnets, &self.well_known);
        if choices.is_empty() {
            let message = "no offering satisfies the requirements of the NodeClaim".to_owned();
            return Err(CloudError::OutOfCapacity { code: "NoOffering".to_owned(), message });
        }
        let mut tags = common;
        tags.insert(CLAIM_TAG.to_owned(), claim.name_any());
        tags.insert(CLASS_HASH.to_owned(), ready.hash.clone());
        tags.entry("Name".to_owned()).or_insert_with(|| claim.name_any());
        Ok(Launch {
            spot: plan.capacity_type == SPOT,
            by_price: claim.annotations().contains_key(PRICE_OVERLAY_APPLIED),
            context: ready.spec.context.clone(),
            choices,
            tags,
            token: String::new(),
        })
    }

    /// What a refusal means to the class. What AWS says no to because of what the class names makes it not ready.
    fn refused(&self, class: &Class, spec: &EC2NodeClassSpec, error: CloudError) -> CloudError {
        let Some(refusal) = refusal(spec, &error) else { return error };
        let told = CloudError::configuration(named(&class.reference), refusal.message.clone());
        self.note(class, spec, refusal);
        told
    }
}

/// What of a refusal is the class' affair.
fn refusal(spec: &EC2NodeClassSpec, error: &CloudError) -> Option<Refusal> {
    let of_profile = |message: &str| {
        message.to_ascii_lowercase().contains("iaminstanceprofile")
            || message.to_ascii_lowercase().contains("iam instance profile")
    };
    match error {
        // A profile that was just made for a role is known to EC2 some seconds later: tried again.
        CloudError::Refused { code, message, .. } if of_profile(message) => {
            let name = spec.instance_profile.as_deref()?;
            let advice = "name one that is there, and that has a role";
            let message = format!("instance profile {name:?} is refused by EC2: {code}: {message}; {advice}");
            Some(Refusal { reason: "InstanceProfileNotFound", message })
        }
        CloudError::Denied { call, .. } => {
            let reason = match call.as_str() {
                "ec2:CreateFleet" => "CreateFleetAuthCheckFailed",
                "ec2:CreateLaunchTemplate" => "CreateLaunchTemplateAuthCheckFailed",
                _ => return None,
            };
            Some(Refusal { reason, message: error.to_string() })
        }
        CloudError::Refused { code, message, .. } if code == "InvalidUserData.Malformed" => {
            Some(Refusal { reason: "InvalidUserData", message: message.clone() })
        }
        _ => None,
    }
}

/// What a claim is launched as.
struct Plan {
    requirements: Requirements,
    /// Cheapest first.
    types: Vec<Arc<InstanceType>>,
    capacity_type: &'static str,
    /// The placement group, `pg-…`.
    group: Option<String>,
    /// The part of it.
    partition: Option<u32>,
    efa: bool,
}

impl Plan {
    fn new(
        claim: &NodeClaim,
        types: &[Arc<InstanceType>],
        group: Option<&PlacementGroup>,
        well_known: &WellKnownLabels,
    ) -> Result<Self, CloudError> {
        let mut requirements = RequirementWithMinValues::read_all(&claim.spec.requirements);
        let uid = claim.uid().unwrap_or_default();
        let partition = group.and_then(|group| placement::partition(group, &requirements, &uid));
        requirements.extend(partition.map(|partition| Requirement::is(PARTITION, &partition.to_string())));
        let mut types = types.to_vec();
        without_exotic(&mut types, &requirements);
        without_dear_spot(&mut types, &requirements, well_known);
        let can = |capacity_type: &str| {
            requirements.allows(CAPACITY_TYPE, capacity_type)
                && types.iter().any(|one| {
                    one.available(&requirements, well_known)
                        .any(|offering| offering.capacity_type() == Some(capacity_type))
                })
        };
        let capacity_type = if can(SPOT) { SPOT } else { ON_DEMAND };
        requirements.add(Requirement::is(CAPACITY_TYPE, capacity_type));
        types.retain(|one| one.available(&requirements, well_known).next().is_some());
        let types = truncate(types, &requirements, MOST_TYPES, MinValuesPolicy::BestEffort, well_known)
            .map_err(|error| CloudError::configuration("minValues", error.to_string()))?;
        let asked = claim.spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let efa = Resources::from_optional(asked).get(EFA) > 0;
        let group = group.map(|group| group.group_id.clone());
        Ok(Self { requirements, types, capacity_type, group, partition, efa })
    }

    fn find(&self, name: &str) -> Option<&InstanceType> {
        self.types.iter().find(|one| &*one.name == name).map(|one| &**one)
    }

    /// Each type in each zone that it can be had in, in the subnet with the most free addresses; cheapest first.
    fn choices(
        &self,
        templates: &BTreeMap<&str, String>,
        subnets: &BTreeMap<String, String>,
        well_known: &WellKnownLabels,
    ) -> Vec<Choice> {
        let mut choices = Vec::new();
        for one in &self.types {
            let Some(template) = templates.get(&*one.name) else { continue };
            for offering in one.available(&self.requirements, well_known) {
                let Some((zone, subnet)) = offering.zone().and_then(|zone| subnets.get_key_value(zone))
                else {
                    continue;
                };
                let choice = Choice {
                    launch_template: template.clone(),
                    instance_type: one.name.to_string(),
                    subnet: subnet.clone(),
                    zone: zone.clone(),
                    price: offering.price,
                };
                choices.push(choice);
            }
        }
        choices.sort_by(|left, right| left.price.total_cmp(&right.price));
        choices.truncate(MOST_CHOICES);
        choices
    }

    /// What a machine of one of the types is.
    fn launched(&self, region: &str, id: &str, name: &str, zone: Option<&str>) -> Launched {
        let found = self.find(name);
        let partition = self.partition.map(|partition| partition.to_string());
        let fits = |offering: &&Offering| {
            offering.capacity_type() == Some(self.capacity_type)
                && partition.as_deref().is_none_or(|partition| offering.label(PARTITION) == Some(partition))
                && zone.is_none_or(|zone| offering.zone() == Some(zone))
        };
        let offering = found.and_then(|one| one.offerings.iter().find(fits));
        let zone = zone.or_else(|| offering.and_then(Offering::zone)).unwrap_or(region);
        let sources = [found.map(|one| &one.requirements), offering.map(|offering| &offering.requirements)];
        // Of a machine that is found again the partition may not be known.
        let is_known = |key: &str| key != PARTITION || partition.is_some();
        let single = sources.into_iter().flatten().flat_map(Requirements::iter);
        let single = single.filter(|one| one.len() == 1 && is_known(one.key()));
        Launched {
            provider_id: format!("aws:///{zone}/{id}"),
            image: None,
            instance_type: name.to_owned(),
            zone: zone.to_owned(),
            capacity_type: self.capacity_type.to_owned(),
            labels: single.filter_map(|one| Some((one.key().to_string(), one.any()?))).collect(),
            annotations: BTreeMap::new(),
            capacity: found.map(|one| one.capacity.clone()).unwrap_or_default(),
            allocatable: found.map(|one| one.allocatable().clone()).unwrap_or_default(),
            sold_out: Vec::new(),
        }
    }
}

/// What is sold out, as failures of a fleet say. A failure that names no type or no zone is of all that were asked for.
fn sold_out(plan: &Plan, choices: &[Choice], failures: &[LaunchFailure]) -> Vec<OfferingKey> {
    let mut found = BTreeSet::new();
    let failures =
        failures.iter().filter(|failure| matches!(failure.error, CloudError::OutOfCapacity { .. }));
    for failure in failures {
        let is_meant = |choice: &&Choice| {
            let all_types = matches!(
                failure.error.code(),
                "InsufficientFreeAddressesInSubnet"
                    | "MaxSpotInstanceCountExceeded"
                    | "MaxFleetCountExceeded"
            ) || is_full(&failure.error);
            let all_zones =
                matches!(failure.error.code(), "MaxSpotInstanceCountExceeded" | "VcpuLimitExceeded");
            (all_types || failure.instance_type.is_empty() || choice.instance_type == failure.instance_type)
                && (all_zones || failure.zone.as_ref().is_none_or(|zone| *zone == choice.zone))
        };
        found.extend(choices.iter().filter(is_meant).map(|choice| OfferingKey {
            capacity_type: plan.capacity_type.to_owned(),
            instance_type: choice.instance_type.clone(),
            zone: choice.zone.clone(),
            placement_group: plan.group.clone(),
        }));
    }
    found.into_iter().collect()
}

/// Whether a placement group has as many machines in a zone as it may have (seven, of those that spread them).
fn is_full(error: &CloudError) -> bool {
    matches!(error, CloudError::OutOfCapacity { message, .. } if message.contains("spread placement group"))
}

/// Why a fleet came to nothing: what is no want of capacity first, since that passes.
fn why_none(failures: Vec<LaunchFailure>) -> CloudError {
    let mut texts = BTreeSet::new();
    let mut code = "UnfulfillableCapacity".to_owned();
    for failure in failures {
        match failure.error {
            CloudError::OutOfCapacity { code: seen, message } => {
                code.clone_from(&seen);
                texts.insert(format!("{seen}: {message}"));
            }
            other => return other,
        }
    }
    let message = if texts.is_empty() {
        "CreateFleet answered with neither a machine nor a reason".to_owned()
    } else {
        texts.into_iter().collect::<Vec<_>>().join("; ")
    };
    CloudError::OutOfCapacity { code, message }
}

/// Taints that the node has from the first moment on.
fn taints(claim: &NodeClaim) -> Vec<Taint> {
    let own = claim.spec.taints.iter().chain(&claim.spec.startup_taints).flatten().cloned();
    let unregistered =
        Taint { key: UNREGISTERED.to_owned(), effect: "NoExecute".to_owned(), ..Taint::default() };
    own.chain([unregistered]).collect()
}

/// Labels that the kubelet may give its node; of Kubernetes' own it may give few, and those the cloud provider gives.
fn labels(claim: &NodeClaim, capacity_type: &str) -> BTreeMap<String, String> {
    let may = |key: &str| {
        let domain = key.split('/').next().unwrap_or_default();
        let reserved = |reserved: &str| domain == reserved || domain.ends_with(&format!(".{reserved}"));
        !(reserved("kubernetes.io") || reserved("k8s.io")) && key != ZONE
    };
    let own = claim.labels().iter().filter(|(key, _)| may(key));
    let mut labels: BTreeMap<_, _> = own.map(|(key, value)| (key.clone(), value.clone())).collect();
    labels.insert(CAPACITY_TYPE.to_owned(), capacity_type.to_owned());
    labels
}

#[cfg(test)]
mod tests;
