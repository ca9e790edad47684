//! Pools as controllers see them, whether NodePools or Provisioners.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use tandem_core::{
    api::karpenter::{NodePool, NodePoolSpec, Provisioner, RequirementWithMinValues},
    nodes::pools::{
        provisioner::Translation,
        requirements::{Requirement, Requirements, labels::NODE_POOL},
    },
    scheduling::Resources,
};

use super::conditions;
use crate::cloud::pools::Class;

/// How a digest is made ([`digest`]): claims whose digest was made another way are not compared by it.
pub(super) const HASH_VERSION: &str = "tandem-v1";

/// A pool as controllers see it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pool {
    /// Its name.
    pub(super) name: String,
    /// What it says; of a Provisioner, what that is read as.
    pub(super) spec: NodePoolSpec,
    /// Its node class.
    pub(super) class: Class,
    /// The object, as the owner of claims.
    pub(super) owner: OwnerReference,
    /// Whether nodes may be launched of it.
    pub(super) is_ready: bool,
    /// Whether it is being deleted.
    pub(super) is_deleting: bool,
    /// Digest of what its claims are made from.
    pub(super) hash: String,
}

impl Pool {
    /// A NodePool.
    pub(super) fn of_node_pool(pool: &NodePool) -> Self {
        let status = pool.status.as_ref().map(|status| status.conditions.as_slice());
        let class = Class { reference: pool.spec.template.spec.node_class_ref.clone(), inline: None };
        Self {
            is_ready: conditions::holds(status.unwrap_or_default(), "Ready"),
            ..Self::new(pool, pool.spec.clone(), class)
        }
    }

    /// A Provisioner.
    pub(super) fn of_provisioner(provisioner: &Provisioner, translation: Translation) -> Self {
        let status = provisioner.status.as_ref().map(|status| status.conditions.as_slice());
        let Translation { pool, class, .. } = translation;
        let class =
            Class { reference: pool.spec.template.spec.node_class_ref.clone(), inline: class.map(Arc::new) };
        Self {
            is_ready: conditions::holds(status.unwrap_or_default(), "Active"),
            ..Self::new(provisioner, pool.spec, class)
        }
    }

    fn new<K: Resource<DynamicType = ()>>(object: &K, spec: NodePoolSpec, class: Class) -> Self {
        Self {
            name: object.name_any(),
            hash: digest(&spec),
            owner: OwnerReference {
                api_version: K::api_version(&()).into_owned(),
                kind: K::kind(&()).into_owned(),
                name: object.name_any(),
                uid: object.uid().unwrap_or_default(),
                controller: None,
                block_owner_deletion: Some(true),
            },
            is_ready: false,
            is_deleting: object.meta().deletion_timestamp.is_some(),
            spec,
            class,
        }
    }

    /// Labels that every node of it has because it says so.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let metadata = self.spec.template.metadata.as_ref();
        let mut labels = metadata.and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
        labels.insert(NODE_POOL.to_owned(), self.name.clone());
        let reference = &self.class.reference;
        let class = format!("{}/{}", reference.group, reference.kind.to_lowercase());
        labels.insert(class, reference.name.clone());
        labels
    }

    /// What the labels of its nodes have to be.
    pub(super) fn requirements(&self) -> Requirements {
        let labels = self.labels();
        let labels = labels.iter().map(|(key, value)| Requirement::is(key, value));
        let mut requirements = RequirementWithMinValues::read_all(&self.spec.template.spec.requirements);
        requirements.extend(labels);
        requirements
    }

    /// What its nodes together may not exceed, by resource; `nodes` counts them.
    pub(super) fn limits(&self) -> BTreeMap<String, i64> {
        let limits = self.spec.limits.iter().flatten();
        limits
            .map(|(name, quantity)| {
                let one = BTreeMap::from([(name.clone(), quantity.clone())]);
                (name.clone(), Resources::from_list(&one).get(name))
            })
            .collect()
    }
}

/// FNV-1a over the template without its requirements, which are compared by what they mean.
fn digest(spec: &NodePoolSpec) -> String {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let mut template = spec.template.clone();
    template.spec.requirements.clear();
    let text = serde_json::to_vec(&template).unwrap_or_default();
    let hash = text.iter().fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
    hash.to_string()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;

    #[test]
    fn the_digest_is_of_the_template_without_requirements() {
        let spec = NodePoolSpec::default();
        let mut required = spec.clone();
        required.template.spec.requirements.push(RequirementWithMinValues::default());
        required.weight = Some(3);
        assert_eq!(digest(&spec), digest(&required));
        let mut other = spec.clone();
        other.template.spec.expire_after = Some("1h".to_owned());
        assert_ne!(digest(&spec), digest(&other));
    }

    #[test]
    fn limits_are_in_the_unit_of_resources() {
        let limits = [("cpu", "1000"), ("memory", "1Gi"), ("nodes", "3")];
        let limits = limits.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))).into();
        let spec = NodePoolSpec { limits: Some(limits), ..NodePoolSpec::default() };
        let pool = Pool::of_node_pool(&NodePool { spec, ..NodePool::default() });
        let wanted = [("cpu", 1_000_000), ("memory", 1 << 30), ("nodes", 3)];
        assert_eq!(pool.limits(), wanted.map(|(name, amount)| (name.to_owned(), amount)).into());
    }
}
