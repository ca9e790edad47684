//! Nodes to come: what their pods would have of the devices that such a node has.

use std::sync::Arc;

use super::{
    Access,
    demand::Need,
    held::{MOST_USERS, is_unknown},
    ledger::Given,
};
use crate::scheduling::{
    fleet::NodeInfo,
    ids::{ClassId, NodeId, Symbol},
    reason::Reason,
    snapshot::Snapshot,
};

/// Where a node to come is, as long as devices are looked for there: no real node has this number.
const NOWHERE: NodeId = NodeId::at(u32::MAX);

/// What the pods of a node to come would have of devices, if it had those that it is tried with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trial {
    given: Vec<Arc<Given>>,
    /// Claims that pods share and that would get their devices there.
    shared: Vec<Symbol>,
}

impl Trial {
    /// Whether it presumes that the node has what nobody knows.
    pub(crate) fn presumes(&self) -> bool {
        self.given.iter().any(|given| given.is_presumed())
    }
}

impl Snapshot {
    /// Whether pods of a class ask for devices, be it by the name of a resource.
    pub(crate) fn asks_for_devices(&self, class: ClassId) -> bool {
        self.classes.get(class.0).family.devices.is_some()
    }

    /// Whether pods of a class have claims of devices.
    pub(crate) fn claims_devices(&self, class: ClassId) -> bool {
        let demand = self.classes.get(class.0).family.devices.map(|id| self.devices.demand(id));
        demand.is_some_and(|demand| !demand.needs.is_empty())
    }

    /// Whether devices do for a resource that pods of a class ask for.
    pub(crate) fn may_be_device(&mut self, class: ClassId, resource: &str) -> bool {
        let resource = self.resource(resource);
        let demand = self.classes.get(class.0).family.devices.map(|id| self.devices.demand(id));
        let extended = demand.and_then(|demand| demand.extended.as_ref());
        extended.is_some_and(|extended| extended.is_about(resource))
    }

    /// From now on nothing is presumed of nodes whose devices nobody knows.
    pub(crate) fn presume_no_devices(&mut self) {
        self.devices.is_strict = true;
    }

    /// Labels by which devices that are no node's own say who may use them.
    pub(crate) fn labels_of_devices(&self) -> Vec<String> {
        let Some(objects) = &self.surroundings.devices else { return Vec::new() };
        let slices = objects.slices.values();
        let own = slices.clone().filter_map(|slice| slice.access.as_ref());
        let each = slices.flat_map(|slice| slice.devices.iter().map(|device| &device.access));
        let selectors = own.chain(each).filter_map(|access| match access {
            Access::Nodes(selector) => Some(&**selector),
            _ => None,
        });
        let allocated =
            objects.claims.values().filter_map(|claim| claim.allocation.as_ref()?.nodes.as_deref());
        let terms = selectors.chain(allocated).flat_map(|selector| &selector.node_selector_terms);
        let asked = terms.flat_map(|term| term.match_expressions.iter().flatten());
        let mut keys: Vec<_> = asked.map(|expression| expression.key.clone()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// What the pods of a node to come would have with one more of a class. Where nobody knows its devices, they are presumed to
    /// be those that one pod asks for, if `may_presume`.
    ///
    /// # Errors
    /// Its claims cannot be met there.
    pub(crate) fn try_devices(
        &mut self,
        class: ClassId,
        node: &NodeInfo,
        trial: &Trial,
        may_presume: bool,
    ) -> Result<Trial, Reason> {
        let Some(id) = self.classes.get(class.0).family.devices else { return Ok(trial.clone()) };
        let demand = self.devices.demand(id).clone();
        if let Some(reason) = &demand.impossible {
            return Err(reason.clone());
        }
        let mut after = trial.clone();
        let mut unallocated: Vec<&Need> = Vec::new();
        for need in &demand.needs {
            let state = need.claim.map(|claim| self.devices.state(claim)).unwrap_or_default();
            if state.users >= MOST_USERS {
                return Err(Reason::DeviceClaimInUse);
            }
            if need.claim.is_some_and(|claim| trial.shared.contains(&claim)) {
                continue;
            }
            match state.given {
                Some(given) if !given.reach.includes(NOWHERE, node, &self.strings) => {
                    return Err(Reason::DevicesElsewhere);
                }
                Some(_) => {}
                None => unallocated.push(need),
            }
            // A claim that is tied to a single node is somewhere else; any other need not be looked for here again.
            after.shared.extend(need.claim);
        }
        let extended = demand.extended.as_ref().and_then(|extended| extended.on(node));
        unallocated.extend(extended.as_deref());
        for given in &trial.given {
            self.devices.ledger.add(given);
        }
        let found = self.search(NOWHERE, node, &unallocated);
        for given in &trial.given {
            self.devices.ledger.remove(given);
        }
        let found = match found {
            Err(Reason::NoDevices { .. }) if is_unknown(node) => {
                if trial.presumes() || !may_presume || self.devices.is_strict {
                    return Err(Reason::DevicesOfNewNode);
                }
                vec![Given::presumed(NOWHERE); unallocated.len()]
            }
            found => found?,
        };
        after.given.extend(found.into_iter().map(Arc::new));
        Ok(after)
    }
}
