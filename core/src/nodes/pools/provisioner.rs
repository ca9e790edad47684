//! Provisioners and AWSNodeTemplates, read as the NodePools and EC2NodeClasses that they were followed by.
//!
//! Sources: the webhooks of core and aws at v0.31.0 for what they fill in; aws, `website/content/en/v0.32/upgrading` for what
//! became of each field.

use std::collections::BTreeMap;

use kube::{ResourceExt, core::ObjectMeta};
use serde_json::Value;
use thiserror::Error;

use super::requirements::{
    Operator,
    labels::{ARCH, CAPACITY_TYPE, INSTANCE_TYPE, ON_DEMAND, OS, normalize},
};
use crate::api::karpenter::{
    AWSNodeTemplate, AWSNodeTemplateSpec, AmiSelectorTerm, Disruption, EC2NodeClass, EC2NodeClassSpec, NEVER,
    NodeClaimTemplate, NodeClaimTemplateSpec, NodeClassReference, NodePool, NodePoolSpec, Provisioner,
    ProvisionerSpec, RequirementWithMinValues, SecurityGroupSelectorTerm, SubnetSelectorTerm,
    TemplateMetadata,
};

/// How far an answer of the metadata service went by default before v1, network hops: into containers.
const HOP_LIMIT: i64 = 2;
/// The label of nodes by which pods chose a Provisioner.
const PROVISIONER_NAME: &str = "karpenter.sh/provisioner-name";
/// Annotations of nodes with a new name.
const ANNOTATIONS: [(&str, &str); 2] = [
    ("karpenter.sh/do-not-consolidate", "karpenter.sh/do-not-disrupt"),
    ("karpenter.sh/do-not-evict", "karpenter.sh/do-not-disrupt"),
];
/// The group of AWSNodeTemplates and EC2NodeClasses.
const AWS: &str = "karpenter.k8s.aws";
const INSTANCE_FAMILY: &str = "karpenter.k8s.aws/instance-family";
const INSTANCE_CATEGORY: &str = "karpenter.k8s.aws/instance-category";
const INSTANCE_GENERATION: &str = "karpenter.k8s.aws/instance-generation";

/// A Provisioner as what followed it.
#[derive(Debug, Clone, PartialEq)]
pub struct Translation {
    /// The pool, of the same name.
    pub pool: NodePool,
    /// The class that it refers to; none if the provider is not AWS.
    pub class: Option<EC2NodeClass>,
    /// What nothing stands for.
    pub lost: Vec<Lost>,
}

impl Translation {
    /// Leaves out requirements of labels that only machines of its class have, for providers to whom the class means nothing.
    pub fn without_labels_of_class(&mut self) {
        let spec = &mut self.pool.spec.template.spec;
        let prefix = format!("{}/", spec.node_class_ref.group);
        spec.requirements.retain(|requirement| !requirement.key.starts_with(&prefix));
    }
}

/// What a Provisioner says and a NodePool cannot.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Lost {
    /// A launch template of one's own.
    #[error("launchTemplate {0:?} has no equivalent; say in the EC2NodeClass what it says")]
    LaunchTemplate(String),
    /// The container runtime.
    #[error("kubeletConfiguration.containerRuntime has no equivalent; nodes run containerd")]
    ContainerRuntime,
    /// Settings of the kubelet for a provider other than AWS.
    #[error("kubeletConfiguration has no equivalent in a NodePool; say it in the node class")]
    Kubelet,
    /// Tags beside ids.
    #[error("{0}: ids select alone, the tags beside them are left out")]
    TagsBesideIds(&'static str),
    /// Neither a role nor a profile, which a global setting used to give.
    #[error("instanceProfile is absent; name a role or an instanceProfile in the EC2NodeClass")]
    InstanceProfile,
    /// A family that has no images to choose by itself.
    #[error("amiFamily {0:?} has no alias; name the images in amiSelectorTerms")]
    Images(String),
}

/// Why a Provisioner cannot be read as a NodePool.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProvisionerError {
    /// Two ways to remove nodes.
    #[error("provisioner {0:?} has ttlSecondsAfterEmpty and consolidation.enabled, leave one out")]
    TwoWaysToRemove(String),
    /// Two node classes.
    #[error("provisioner {0:?} has provider and providerRef, leave one out")]
    TwoProviders(String),
    /// No node class.
    #[error("provisioner {0:?} has neither provider nor providerRef, name an AWSNodeTemplate in providerRef")]
    NoProvider(String),
    /// The AWSNodeTemplate is not there.
    #[error("provisioner {provisioner:?}: there is no AWSNodeTemplate {template:?}")]
    NoTemplate {
        /// The Provisioner.
        provisioner: String,
        /// The AWSNodeTemplate.
        template: String,
    },
    /// The inline provider is no AWSNodeTemplate.
    #[error("provisioner {provisioner:?}: provider cannot be read: {problem}")]
    Provider {
        /// The Provisioner.
        provisioner: String,
        /// What is wrong.
        problem: String,
    },
}

/// Reads a Provisioner as a NodePool; `template` finds an AWSNodeTemplate by its name.
pub fn translate(
    provisioner: &Provisioner,
    template: impl FnOnce(&str) -> Option<AWSNodeTemplate>,
) -> Result<Translation, ProvisionerError> {
    let (name, spec) = (provisioner.name_any(), &provisioner.spec);
    let mut lost = Vec::new();
    let (reference, class) = match (&spec.provider, &spec.provider_ref) {
        (Some(_), Some(_)) => return Err(ProvisionerError::TwoProviders(name)),
        (None, None) => return Err(ProvisionerError::NoProvider(name)),
        (Some(provider), None) => {
            let template = inline(&name, provider)?;
            aws(name.clone(), &template, spec, &mut lost)
        }
        (None, Some(reference)) => {
            let group = reference.api_version.as_deref().and_then(|version| version.split('/').next());
            let kind = reference.kind.as_deref().unwrap_or("AWSNodeTemplate");
            if kind == "AWSNodeTemplate" {
                let template = template(&reference.name).ok_or_else(|| ProvisionerError::NoTemplate {
                    provisioner: name.clone(),
                    template: reference.name.clone(),
                })?;
                // The settings of the kubelet are the class's now, so that Provisioners with any cannot share one.
                let class = match spec.kubelet_configuration {
                    Some(_) => format!("{}-{name}", reference.name),
                    None => reference.name.clone(),
                };
                aws(class, &template.spec, spec, &mut lost)
            } else {
                lost.extend(spec.kubelet_configuration.as_ref().map(|_| Lost::Kubelet));
                let group = group.unwrap_or_default().to_owned();
                (NodeClassReference { group, kind: kind.to_owned(), name: reference.name.clone() }, None)
            }
        }
    };
    let pool = NodePool {
        metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
        spec: NodePoolSpec {
            template: NodeClaimTemplate {
                metadata: Some(metadata(&name, spec)),
                spec: NodeClaimTemplateSpec {
                    taints: spec.taints.clone(),
                    startup_taints: spec.startup_taints.clone(),
                    requirements: requirements(spec, class.is_some()),
                    node_class_ref: reference,
                    termination_grace_period: None,
                    expire_after: Some(seconds(spec.ttl_seconds_until_expired)),
                },
            },
            disruption: disruption(&name, spec)?,
            limits: spec.limits.as_ref().and_then(|limits| limits.resources.clone()),
            weight: spec.weight,
            replicas: None,
        },
        status: None,
    };
    Ok(Translation { pool, class, lost })
}

fn inline(provisioner: &str, provider: &Value) -> Result<AWSNodeTemplateSpec, ProvisionerError> {
    serde_json::from_value(provider.clone()).map_err(|problem| ProvisionerError::Provider {
        provisioner: provisioner.to_owned(),
        problem: problem.to_string(),
    })
}

/// So many seconds, or never.
fn seconds(ttl: Option<i64>) -> String {
    ttl.map_or_else(|| NEVER.to_owned(), |seconds| format!("{seconds}s"))
}

fn disruption(name: &str, spec: &ProvisionerSpec) -> Result<Disruption, ProvisionerError> {
    let consolidates =
        spec.consolidation.as_ref().and_then(|consolidation| consolidation.enabled) == Some(true);
    let (policy, after) = match (consolidates, spec.ttl_seconds_after_empty) {
        (true, Some(_)) => return Err(ProvisionerError::TwoWaysToRemove(name.to_owned())),
        (true, None) => ("WhenEmptyOrUnderutilized", "0s".to_owned()),
        (false, ttl) => ("WhenEmpty", seconds(ttl)),
    };
    Ok(Disruption {
        consolidate_after: Some(after),
        consolidation_policy: Some(policy.to_owned()),
        budgets: None,
    })
}

/// Nodes keep the label by which pods chose the Provisioner.
fn metadata(name: &str, spec: &ProvisionerSpec) -> TemplateMetadata {
    let mut labels = spec.labels.clone().unwrap_or_default();
    labels.insert(PROVISIONER_NAME.to_owned(), name.to_owned());
    let renamed = |key: &String| {
        let new = ANNOTATIONS.iter().find(|(old, _)| old == key).map(|(_, new)| *new);
        new.unwrap_or(key).to_owned()
    };
    let annotations = spec
        .annotations
        .as_ref()
        .map(|annotations| annotations.iter().map(|(key, value)| (renamed(key), value.clone())).collect());
    TemplateMetadata { labels: Some(labels), annotations }
}

/// Its requirements, and what the webhooks filled in.
fn requirements(spec: &ProvisionerSpec, aws: bool) -> Vec<RequirementWithMinValues> {
    let mut requirements: Vec<_> = spec
        .requirements
        .iter()
        .map(|requirement| RequirementWithMinValues {
            key: requirement.key.clone(),
            operator: requirement.operator.clone(),
            values: requirement.values.clone().unwrap_or_default(),
            min_values: None,
        })
        .collect();
    let labels = spec.labels.iter().flat_map(BTreeMap::keys).map(String::as_str);
    let said: Vec<String> = spec
        .requirements
        .iter()
        .map(|requirement| requirement.key.as_str())
        .chain(labels)
        .map(|key| normalize(key).to_owned())
        .collect();
    let is_said = |keys: &[&str]| said.iter().any(|said| keys.contains(&said.as_str()));
    let mut unless = |keys: &[&str], key: &str, operator, values: &[&str]| {
        if !is_said(keys) {
            requirements.push(RequirementWithMinValues::new(key, operator, values));
        }
    };
    unless(&[OS], OS, Operator::In, &["linux"]);
    unless(&[ARCH], ARCH, Operator::In, &["amd64"]);
    unless(&[CAPACITY_TYPE], CAPACITY_TYPE, Operator::In, &[ON_DEMAND]);
    if aws {
        let any = [INSTANCE_TYPE, INSTANCE_FAMILY, INSTANCE_CATEGORY, INSTANCE_GENERATION];
        unless(&any, INSTANCE_CATEGORY, Operator::In, &["c", "m", "r"]);
        unless(&any, INSTANCE_GENERATION, Operator::Gt, &["2"]);
    }
    requirements
}

fn aws(
    name: String,
    template: &AWSNodeTemplateSpec,
    spec: &ProvisionerSpec,
    lost: &mut Vec<Lost>,
) -> (NodeClassReference, Option<EC2NodeClass>) {
    let mut kubelet = spec.kubelet_configuration.clone();
    let runtime = kubelet.as_mut().and_then(|kubelet| kubelet.others.remove("containerRuntime"));
    lost.extend(runtime.map(|_| Lost::ContainerRuntime));
    lost.extend(template.launch_template.clone().map(Lost::LaunchTemplate));
    if template.instance_profile.is_none() {
        lost.push(Lost::InstanceProfile);
    }
    let reference =
        NodeClassReference { group: AWS.to_owned(), kind: "EC2NodeClass".to_owned(), name: name.clone() };
    let subnets = select("subnetSelector", template.subnet_selector.as_ref(), lost);
    let groups = select("securityGroupSelector", template.security_group_selector.as_ref(), lost);
    let family = template.ami_family.clone().unwrap_or_else(|| "AL2".to_owned());
    let class = EC2NodeClass {
        metadata: ObjectMeta { name: Some(name), ..ObjectMeta::default() },
        spec: EC2NodeClassSpec {
            subnet_selector_terms: subnets
                .into_iter()
                .map(|Selected { id, tags }| SubnetSelectorTerm { tags, id })
                .collect(),
            security_group_selector_terms: groups
                .into_iter()
                .map(|Selected { id, tags }| SecurityGroupSelectorTerm { tags, id, name: None })
                .collect(),
            ami_selector_terms: images(template, &family, lost),
            ami_family: Some(family),
            user_data: template.user_data.clone(),
            instance_profile: template.instance_profile.clone(),
            tags: template.tags.clone(),
            kubelet,
            block_device_mappings: template.block_device_mappings.clone(),
            detailed_monitoring: template.detailed_monitoring,
            metadata_options: Some(
                template.metadata_options.clone().unwrap_or_default().or_defaults(HOP_LIMIT),
            ),
            context: template.context.clone(),
            ..EC2NodeClassSpec::default()
        },
        status: None,
    };
    (reference, Some(class))
}

/// What one term selects by.
#[derive(Debug, PartialEq)]
struct Selected {
    id: Option<String>,
    tags: Option<BTreeMap<String, String>>,
}

/// A selector as terms: one an id, or one a combination of the values that its tags list.
fn select(
    field: &'static str,
    selector: Option<&BTreeMap<String, String>>,
    lost: &mut Vec<Lost>,
) -> Vec<Selected> {
    let Some(selector) = selector else { return Vec::new() };
    let (ids, tags) = split(selector);
    if ids.is_empty() {
        return combinations(&tags).into_iter().map(|tags| Selected { id: None, tags: Some(tags) }).collect();
    }
    if !tags.is_empty() {
        lost.push(Lost::TagsBesideIds(field));
    }
    ids.into_iter().map(|id| Selected { id: Some(id), tags: None }).collect()
}

/// The ids of a selector, and its tags.
fn split(selector: &BTreeMap<String, String>) -> (Vec<String>, BTreeMap<&str, &str>) {
    let is_ids = |key: &str| matches!(key, "aws-ids" | "aws::ids");
    let ids = selector.iter().filter(|(key, _)| is_ids(key)).flat_map(|(_, ids)| listed(ids)).collect();
    let tags = selector.iter().filter(|(key, _)| !is_ids(key));
    (ids, tags.map(|(key, value)| (key.as_str(), value.as_str())).collect())
}

fn listed(values: &str) -> impl Iterator<Item = String> {
    values.split(',').map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned)
}

/// One map a combination of the values that each tag lists.
fn combinations(tags: &BTreeMap<&str, &str>) -> Vec<BTreeMap<String, String>> {
    tags.iter().fold(vec![BTreeMap::new()], |combinations, (key, values)| {
        let values: Vec<_> = if values.is_empty() { vec!["*".to_owned()] } else { listed(values).collect() };
        let with = |(combination, value): (&BTreeMap<String, String>, &String)| {
            let mut combination = combination.clone();
            combination.insert((*key).to_owned(), value.clone());
            combination
        };
        combinations
            .iter()
            .flat_map(|combination| values.iter().map(move |value| (combination, value)))
            .map(with)
            .collect()
    })
}

/// The images that are selected, or those that EKS makes of the family.
fn images(template: &AWSNodeTemplateSpec, family: &str, lost: &mut Vec<Lost>) -> Vec<AmiSelectorTerm> {
    let Some(selector) = &template.ami_selector else {
        let alias = match family {
            "AL2" => "al2@latest",
            "Bottlerocket" => "bottlerocket@latest",
            "Windows2019" => "windows2019@latest",
            "Windows2022" => "windows2022@latest",
            _ => {
                lost.push(Lost::Images(family.to_owned()));
                return Vec::new();
            }
        };
        return vec![AmiSelectorTerm { alias: Some(alias.to_owned()), ..AmiSelectorTerm::default() }];
    };
    let (ids, mut tags) = split(selector);
    if !ids.is_empty() {
        if !tags.is_empty() {
            lost.push(Lost::TagsBesideIds("amiSelector"));
        }
        let by_id = |id| AmiSelectorTerm { id: Some(id), ..AmiSelectorTerm::default() };
        return ids.into_iter().map(by_id).collect();
    }
    let choices = |values: Option<&str>| -> Vec<Option<String>> {
        values.map_or_else(|| vec![None], |values| listed(values).map(Some).collect())
    };
    let (names, owners) = (choices(tags.remove("aws::name")), choices(tags.remove("aws::owners")));
    let tags = combinations(&tags);
    let mut terms = Vec::new();
    for name in &names {
        for owner in &owners {
            terms.extend(tags.iter().map(|tags| AmiSelectorTerm {
                name: name.clone(),
                owner: owner.clone(),
                tags: Some(tags.clone()).filter(|tags| !tags.is_empty()),
                ..AmiSelectorTerm::default()
            }));
        }
    }
    terms
}

#[cfg(test)]
mod tests;
