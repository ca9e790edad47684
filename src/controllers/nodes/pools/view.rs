//! Pools as controllers see them, whether NodePools or Provisioners.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use tandem_core::{
    api::karpenter::{NodePool, NodePoolSpec, Provisioner},
    nodes::pools::{cluster::labels_of, provisioner::Translation},
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
        labels_of(&self.name, &self.spec)
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
    use tandem_core::api::karpenter::RequirementWithMinValues;

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
}
