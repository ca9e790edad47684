//! Devices: which offers of a claim have those that its pods ask for, all of them together.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    claim::Open,
    kind::{Catalog, Kind},
    market::Market,
    mask::Mask,
    run::{Plan, Run},
};
use crate::{
    nodes::{pools::devices::Outfits, told::devices::Outfit},
    scheduling::{
        ClassId, Node, Reason, Resources, Snapshot,
        devices::{Slice, Trial},
        snapshot::Mold,
    },
};

/// Offers whose nodes have the same devices, and what such a node looks like to claims of devices.
#[derive(Debug)]
pub(super) struct Equipment {
    offers: Mask,
    mold: Mold,
    slices: Option<Arc<[Arc<Slice>]>>,
    is_unknown: bool,
}

/// What pods of a claim would have of devices, by the places of equipments in [`Catalog::equipment`]; what is absent will not
/// do. Empty as long as no pod asked for any.
pub(super) type Trials = BTreeMap<usize, Trial>;

/// What tells one equipment from another: what is published, the resources that are offered by name, and labels by which
/// devices say who may use them.
type Key = (Option<Arc<[Arc<Slice>]>>, Vec<Box<str>>, BTreeMap<String, String>);

/// The equipments of a pool.
fn equipments(snapshot: &mut Snapshot, market: &Market<'_>, outfits: &Outfits) -> Vec<Equipment> {
    let keys = snapshot.labels_of_devices();
    let mut found: Vec<(Key, Equipment)> = Vec::new();
    let mut of_type: BTreeMap<&str, Outfit> = BTreeMap::new();
    for at in market.all.iter() {
        let instance_type = market.instance_type(at);
        let outfit = of_type.entry(&instance_type.name).or_insert_with(|| outfits.of(&instance_type.name));
        let slices = match outfit {
            Outfit::Slices(slices) => Some(slices.clone()),
            Outfit::Unknown => None,
        };
        let offered = instance_type.allocatable().other.iter().filter(|(_, amount)| **amount > 0);
        let mut labels = if keys.is_empty() { BTreeMap::new() } else { market.labels(at) };
        labels.retain(|key, _| keys.contains(key));
        let key = (slices, offered.map(|(name, _)| name.clone()).collect(), labels);
        let place = found.iter().position(|(other, _)| *other == key).unwrap_or_else(|| {
            let other = key.1.iter().map(|name| (name.clone(), 1)).collect();
            let (slices, is_unknown) = (key.0.clone(), key.0.is_none());
            let node = Node {
                labels: key.2.clone(),
                allocatable: Resources { other, ..Resources::default() },
                slices: slices.clone(),
                devices_unknown: is_unknown,
                ..Node::default()
            };
            let mold = snapshot.mold(&node);
            let offers = Mask::none(market.offers.len());
            found.push((key, Equipment { offers, mold, slices, is_unknown }));
            found.len() - 1
        });
        found[place].1.offers.set(at);
    }
    found.into_iter().map(|(_, equipment)| equipment).collect()
}

impl Catalog<'_> {
    /// The offers of a market on which pods of a class would have their devices, each alone on its node. Only where nothing that
    /// is known will do, what nobody knows is tried.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn equipped(
        &mut self,
        snapshot: &mut Snapshot,
        market: usize,
        class: ClassId,
        of: &Mask,
    ) -> Result<Mask, Reason> {
        let pool = self.markets[market].pool;
        let Some(outfits) = &pool.outfits else {
            return if snapshot.claims_devices(class) { Err(Reason::DevicesIgnored) } else { Ok(of.clone()) };
        };
        if self.equipment.is_empty() {
            self.equipment = self.markets.iter().map(|_| None).collect();
        }
        let all = &mut self.equipment[market];
        let all = all.get_or_insert_with(|| equipments(snapshot, &self.markets[market], outfits));
        let (mut known, mut unknown) = (Mask::none(self.markets[market].offers.len()), None::<Mask>);
        let mut refused = Reason::NoDevices { invalid_pools: false };
        for equipment in all.iter().filter(|equipment| equipment.offers.meets(of)) {
            match snapshot.try_devices(class, equipment.mold.info(), &Trial::default(), true) {
                Ok(trial) if trial.presumes() => {
                    unknown.get_or_insert_with(|| equipment.offers.clone()).join(&equipment.offers);
                }
                Ok(_) => known.join(&equipment.offers),
                Err(reason) => refused = reason,
            }
        }
        known.keep(of);
        match unknown {
            Some(mut unknown) if known.is_empty() => {
                unknown.keep(of);
                self.presuming.insert((class, market));
                Ok(unknown)
            }
            _ if known.is_empty() => Err(refused),
            _ => Ok(known),
        }
    }

    /// What stands for a claim has of devices: what its cheapest offer would have.
    pub(super) fn equip(&self, open: &Open, node: &mut Node) {
        if let Some(place) = self.equipment_of(open) {
            let equipment = place.1;
            node.slices.clone_from(&equipment.slices);
            node.devices_unknown = equipment.is_unknown;
        }
    }

    /// The equipment of the cheapest offer of a claim whose pods ask for devices.
    fn equipment_of(&self, open: &Open) -> Option<(usize, &Equipment)> {
        let all = self.equipment.get(open.market)?.as_ref().filter(|_| !open.trials.is_empty())?;
        all.iter().enumerate().find(|(_, equipment)| equipment.offers.has(open.cheapest))
    }

    /// Whether what stands for two states of a claim has the same devices.
    pub(super) fn is_equipped_alike(&self, one: &Open, other: &Open) -> bool {
        let place = |open| self.equipment_of(open).map(|(place, _)| place);
        place(one) == place(other)
    }
}

impl Run<'_, '_> {
    /// Whether pods of a plan ask for devices.
    pub(super) fn asks_for_devices(&self, plan: usize) -> bool {
        self.catalog.kinds[self.plans[plan].kind].asks_for_devices
    }

    /// The offers of a view on which a claim would have the devices of one more pod, and what its pods would have there.
    pub(super) fn equipped(&mut self, open: &Open, plan: usize, view: usize) -> Option<(Mask, Trials)> {
        let Plan { kind, views, .. } = &self.plans[plan];
        let Kind { class, .. } = self.catalog.kinds[*kind];
        let mut mask = views[view].offers[open.market].clone()?;
        mask.keep(&open.offers);
        let all = self.catalog.equipment.get(open.market)?.as_ref()?;
        let may_presume = !self.tried[open.market];
        let (mut offers, mut trials) =
            (Mask::none(self.catalog.markets[open.market].offers.len()), Trials::new());
        let nothing = Trial::default();
        for (place, equipment) in all.iter().enumerate().filter(|(_, it)| it.offers.meets(&mask)) {
            let before = if open.trials.is_empty() { Some(&nothing) } else { open.trials.get(&place) };
            let Some(before) = before else { continue };
            let info = equipment.mold.info();
            if let Ok(trial) = self.snapshot.try_devices(class, info, before, may_presume) {
                offers.join(&equipment.offers);
                trials.insert(place, trial);
            }
        }
        mask.keep(&offers);
        (!mask.is_empty()).then_some((mask, trials))
    }
}
