//! Which devices new nodes of pools have, as far as anybody knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{instance_type::InstanceType, requirements::Requirement};
use crate::{
    nodes::told::devices::{Outfit, Told, drivers},
    scheduling::{Node, devices::Slice},
};

/// What resources that are no devices begin with: memory, volumes, and addresses of the network.
const NO_DEVICES: [&str; 4] = [
    "hugepages-",
    "attachable-volumes-",
    "vpc.amazonaws.com/pod-eni",
    "vpc.amazonaws.com/PrivateIPv4Address",
];
/// What labels of machines with devices say in their name.
const DEVICES: [&str; 2] = ["gpu", "accelerator"];

/// Which devices new nodes of a pool have, as far as anybody knows.
#[derive(Debug, Clone, Default)]
pub struct Outfits {
    told: Told,
    /// Instance types that may have devices of which nobody knows.
    candidates: BTreeSet<Arc<str>>,
    /// Whether a node is on its way, or has just come, that will tell: until then no other is tried.
    pub is_tried: bool,
}

impl Outfits {
    /// What is known of a pool. Of its instance types those may have devices whose provider tells of accelerators; which are of
    /// which driver nobody can say. If it tells of none, all may.
    pub fn new(told: &Told, types: &[Arc<InstanceType>]) -> Self {
        let names = |of: &dyn Fn(&InstanceType) -> bool| -> BTreeSet<_> {
            types.iter().filter(|it| of(it)).map(|it| it.name.clone()).collect()
        };
        let mut candidates = names(&tells_of_devices);
        if candidates.is_empty() {
            candidates = names(&|_| true);
        }
        Self { told: told.clone(), candidates, is_tried: false }
    }

    /// What a new node of an instance type has.
    pub fn of(&self, instance_type: &str) -> Outfit {
        self.told.of(instance_type, |of_type| self.candidates.contains(of_type))
    }

    /// Whether a node that is on its way, or has just come, will tell what nobody knows yet.
    pub(super) fn will_tell(&self, instance_type: &str) -> bool {
        !self.told.is_settled(instance_type)
            && (self.told.known(instance_type).is_some() || self.of(instance_type) == Outfit::Unknown)
    }

    /// Gives a node that is on its way, or has just come, what its drivers have yet to publish.
    pub(super) fn complete(
        &self,
        node: &mut Node,
        instance_type: &str,
        published: &BTreeMap<Arc<str>, Vec<Arc<Slice>>>,
    ) {
        let published = published.get(&node.name);
        let there = drivers(published.map_or(&[], Vec::as_slice));
        match self.of(instance_type) {
            Outfit::Unknown => node.devices_unknown = published.is_none(),
            Outfit::Slices(slices) => {
                let awaited: Vec<_> =
                    slices.iter().filter(|slice| !there.contains(&slice.pool.0)).cloned().collect();
                node.slices = (!awaited.is_empty()).then(|| awaited.into());
            }
        }
    }
}

/// Whether what a provider says of an instance type tells of devices.
fn tells_of_devices(instance_type: &InstanceType) -> bool {
    let resources = instance_type.capacity.other.iter().filter(|(_, amount)| **amount > 0);
    let mut resources = resources.map(|(name, _)| name).filter(|name| name.contains('/'));
    let says = |requirement: &Requirement| {
        let names = DEVICES.iter().any(|word| requirement.key().contains(word));
        names && !requirement.is_complement() && !requirement.values().is_empty()
    };
    resources.any(|name| !NO_DEVICES.iter().any(|prefix| name.starts_with(prefix)))
        || instance_type.requirements.iter().any(says)
}

#[cfg(test)]
mod tests;
