//! Devices (dynamic resource allocation): which a pod's claims would get on a node.
//!
//! Decides as kube-scheduler's plugin `DynamicResources` with structured parameters does
//! (`k8s.io/dynamic-resource-allocation/structured`), devices in its order, so that what is placed here takes what it will
//! really take. Whatever a driver publishes and a claim asks for in a way that is not known here, is refused with a reason.

mod allocate;
mod capacity;
mod claim;
mod demand;
mod depth;
mod expression;
mod extended;
mod held;
mod ledger;
mod outfit;
mod pools;
mod selector;
mod semver;
mod slice;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

pub use capacity::{Capacity, Policy, Range, Requested};
pub use claim::{
    Allocated, Allocation, Alternative, Claim, ClaimSpec, Constraint, Count, DeviceClass, DeviceToleration,
    Request, Rule,
};
pub use extended::ExtendedRequest;
pub use selector::Selector;
pub use slice::{Access, Amounts, Attribute, AttributeName, Device, DeviceTaint, PoolName, Slice, TaintRule};

use super::pod::Pod;

pub(super) use demand::DemandId;
pub(super) use extended::is_foreign;
pub(super) use held::{Devices, NodeDevices, Undo};
pub(crate) use outfit::Trial;

/// What the scheduler reads of devices. The same `Arc` is known to be equal to itself without a look, as of all that is `Eq`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Objects {
    /// Slices, by name.
    pub slices: BTreeMap<Arc<str>, Arc<Slice>>,
    /// Taints of devices that slices do not tell, by name.
    pub taint_rules: BTreeMap<Arc<str>, Arc<TaintRule>>,
    /// Classes, by name.
    pub classes: BTreeMap<Arc<str>, Arc<DeviceClass>>,
    /// Claims, by namespace and name.
    pub claims: BTreeMap<(Arc<str>, Arc<str>), Arc<Claim>>,
    /// Templates, by namespace and name.
    pub templates: BTreeMap<(Arc<str>, Arc<str>), Arc<ClaimSpec>>,
}

/// A claim of a pod (`spec.resourceClaims`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PodClaim {
    /// One by name, which others may use too.
    Named(Arc<str>),
    /// One of its own, made from a template.
    Own {
        /// The template.
        template: Arc<str>,
        /// Its name, once it is made.
        name: Option<Arc<str>>,
    },
    /// The one that the scheduler made for the extended resources of a pod (`status.extendedResourceClaimStatus`). Where the
    /// pod goes next, it gets another.
    Extended(Arc<str>),
}

impl Objects {
    /// What the claims of pods have; `None` of a claim that has nothing yet, or is not there.
    pub fn allocations(&self, pods: &[Arc<Pod>]) -> Vec<Option<Arc<Allocation>>> {
        let of = |pod: &Pod, claim: &PodClaim| {
            let key = (pod.shape.namespace.clone(), claim.name()?.clone());
            self.claims.get(&key)?.allocation.clone()
        };
        let claims = pods.iter().flat_map(|pod| pod.device_claims.iter().map(|claim| of(pod, claim)));
        claims.collect()
    }

    /// The slices of devices that a node alone has, by the nodes' names.
    pub fn by_node(&self) -> BTreeMap<Arc<str>, Vec<Arc<Slice>>> {
        let mut by_node: BTreeMap<Arc<str>, Vec<Arc<Slice>>> = BTreeMap::new();
        for slice in self.slices.values() {
            if let Some(node) = slice.node() {
                by_node.entry(node.clone()).or_default().push(slice.clone());
            }
        }
        by_node
    }
}
