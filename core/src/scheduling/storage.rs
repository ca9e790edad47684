//! What a pod's claims ask of a node.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    declared::{Demand, Room},
    family::Storage,
    filters::{Filter, FilterId},
    ids::{Strings, Symbol},
    profile::{Plugin, Profile},
    reason::Reason,
    selector::{Conjunction, NodeSelector, Operator, Requirement, all_match, label_selector, node_term},
    snapshot::Snapshot,
    surroundings::{Claim, READ_WRITE_ONCE_POD, StorageClass, Surroundings, Volume, driver_of},
};

/// The provisioner of classes whose volumes somebody makes by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// Labels that bind a volume to a place, as they were called first and as they are called.
const PLACES: &[(&str, &str)] = &[
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
];

/// Between the zones of a volume that lives in several.
const ZONE_SEPARATOR: &str = "__";

impl Snapshot {
    /// What claims in a namespace ask (kube-scheduler's plugins `VolumeRestrictions`,
    /// `NodeVolumeLimits`, `VolumeBinding` and `VolumeZone`).
    pub(super) fn storage(&mut self, namespace: &Arc<str>, claims: &[Arc<str>]) -> Storage {
        let surroundings = self.surroundings.clone();
        let mut all = Collected::default();
        for name in claims {
            let key = (namespace.clone(), name.clone());
            match surroundings.claims.get(&key) {
                None => all.refuse(Reason::ClaimNotFound(name.clone())),
                Some(claim) => self.claim(&key, claim, &surroundings, &mut all),
            }
        }
        all.attached.sort_unstable();
        all.attached.dedup();
        self.drivers(&surroundings, &mut all);
        all.exclusive.sort_unstable();
        all.filters.extend(all.zones);
        Storage {
            impossible: all.impossible,
            filters: all.filters.into(),
            attached: all.attached.into(),
            exclusive: all.exclusive.into(),
        }
    }

    fn claim(
        &mut self,
        key: &(Arc<str>, Arc<str>),
        claim: &Claim,
        surroundings: &Surroundings,
        all: &mut Collected,
    ) {
        let name = || key.1.clone();
        if claim.is_lost {
            return all.refuse(Reason::ClaimLost(name()));
        }
        if claim.is_deleting {
            return all.refuse(Reason::ClaimDeleting(name()));
        }
        let id = format!("{}/{}", key.0, key.1);
        if claim.access_modes.iter().any(|mode| mode == READ_WRITE_ONCE_POD) {
            all.exclusive.push(self.strings.intern(&id));
        }
        if let Some(name) = &claim.volume {
            match surroundings.volumes.get(name) {
                None => all.refuse(Reason::VolumeNotFound(name.clone())),
                Some(volume) => self.bound_volume(volume, all),
            }
            return;
        }
        let class = claim.class.as_ref().and_then(|name| Some((name, surroundings.classes.get(name)?)));
        let Some((name, class)) = class.filter(|(_, class)| class.waits_for_consumer) else {
            return all.refuse(Reason::ClaimUnbound);
        };
        if let Some(there) = places(&mut self.strings, key, claim, surroundings) {
            self.made_volume(name, class, claim, there, surroundings, all);
        }
        all.attached.push((self.strings.intern(driver_of(&class.provisioner)), self.strings.intern(&id)));
    }

    /// Where a volume can be made, if not found.
    fn made_volume(
        &mut self,
        name: &Arc<str>,
        class: &StorageClass,
        claim: &Claim,
        there: Vec<Conjunction>,
        surroundings: &Surroundings,
        all: &mut Collected,
    ) {
        let by_hand = &*class.provisioner == NO_PROVISIONER;
        if by_hand || !class.allowed_topologies.is_empty() {
            let allowed = NodeSelector::of_topologies(&mut self.strings, &class.allowed_topologies);
            let allowed = allowed.into_iter().filter(|_| !by_hand);
            let any = there.iter().cloned().chain(allowed).collect();
            let selector = NodeSelector { all: Conjunction::default(), any: Some(any) };
            all.filters.push((self.filters.intern(Filter::Selector(selector)), Reason::NoVolume));
        }
        let driver = surroundings.drivers.get(&class.provisioner);
        if driver.is_some_and(|driver| driver.tells_capacity) {
            let room = Room::read(&mut self.strings, name, claim, there, surroundings);
            all.filters.push((self.filters.intern(Filter::Demand(Demand::Room(room))), Reason::NoRoom));
        }
    }

    /// That drivers run where they have to.
    fn drivers(&mut self, surroundings: &Surroundings, all: &mut Collected) {
        let mut drivers: Vec<_> = all.attached.iter().map(|(driver, _)| *driver).collect();
        drivers.dedup();
        for driver in drivers {
            let name = self.strings.name(driver).clone();
            if surroundings.drivers.get(&name).is_some_and(|driver| driver.has_to_run) {
                let filter = Filter::Demand(Demand::Driver(name.clone()));
                all.filters.push((self.filters.intern(filter), Reason::DriverMissing(name)));
            }
        }
    }

    fn bound_volume(&mut self, volume: &Volume, all: &mut Collected) {
        if let Some(affinity) = &volume.node_affinity {
            let terms = Some(affinity.node_selector_terms.as_slice());
            let selector = NodeSelector::read(&mut self.strings, &BTreeMap::new(), terms);
            all.filters.push((self.filters.intern(Filter::Selector(selector)), Reason::VolumeAffinity));
        }
        if let Some(selector) = zones(&mut self.strings, volume) {
            all.zones.push((self.filters.intern(Filter::Selector(selector)), Reason::VolumeZone));
        }
        if let Some((driver, handle)) = &volume.handle {
            all.attached.push((self.strings.intern(driver), self.strings.intern(handle)));
        }
    }
}

impl Storage {
    /// Leaves out what the plugins would ask that the scheduler does without.
    ///
    /// Before they look at nodes, `VolumeBinding` refuses claims that cannot be bound, `VolumeZone` those without a volume, and
    /// `VolumeRestrictions` those that are not there.
    pub(super) fn leave_out(&mut self, profile: &Profile) {
        const ALL: [Plugin; 3] = [Plugin::VolumeBinding, Plugin::VolumeZone, Plugin::VolumeRestrictions];
        let refuses = |reason: &Reason| {
            let by = match reason {
                Reason::ClaimNotFound(_) => &ALL[..],
                Reason::ClaimUnbound | Reason::VolumeNotFound(_) => &ALL[..2],
                _ => &ALL[..1],
            };
            by.iter().any(|plugin| !profile.lacks_pre(*plugin))
        };
        self.impossible = self.impossible.take().filter(refuses);
        let asked = std::mem::take(&mut self.filters).into_iter().filter(|(_, reason)| {
            let plugin = match reason {
                Reason::VolumeZone => Plugin::VolumeZone,
                Reason::DriverMissing(_) => Plugin::NodeVolumeLimits,
                _ => Plugin::VolumeBinding,
            };
            !profile.lacks(plugin)
        });
        self.filters = asked.collect();
    }
}

#[derive(Default)]
struct Collected {
    impossible: Option<Reason>,
    filters: Vec<(FilterId, Reason)>,
    zones: Vec<(FilterId, Reason)>,
    attached: Vec<(Symbol, Symbol)>,
    exclusive: Vec<Symbol>,
}

impl Collected {
    /// The first reason stays.
    fn refuse(&mut self, reason: Reason) {
        self.impossible.get_or_insert(reason);
    }
}

/// Where a volume that a claim waits for is there already; `None` if everywhere.
fn places(
    strings: &mut Strings,
    key: &(Arc<str>, Arc<str>),
    claim: &Claim,
    surroundings: &Surroundings,
) -> Option<Vec<Conjunction>> {
    let mut terms = Vec::new();
    let wanted = claim.selector.as_ref().map(|selector| label_selector(strings, Some(selector), []));
    let suits = |volume: &&Volume| {
        volume.available
            && volume.class == claim.class
            && volume.is_block == claim.is_block
            && volume.bytes >= claim.bytes
            && volume.claim.as_ref().is_none_or(|kept_for| kept_for == key)
            && claim.access_modes.iter().all(|mode| volume.access_modes.contains(mode))
    };
    for volume in surroundings.volumes.values().filter(suits) {
        let labels = strings.labels(&volume.labels);
        if wanted.as_ref().is_some_and(|wanted| !all_match(wanted, &labels, strings)) {
            continue;
        }
        let affinity = volume.node_affinity.as_ref()?;
        terms.extend(affinity.node_selector_terms.iter().map(|term| node_term(strings, term)));
    }
    Some(terms)
}

/// The nodes in the places that a volume's labels name; a node that names no place will do.
fn zones(strings: &mut Strings, volume: &Volume) -> Option<NodeSelector> {
    let mut here = Vec::new();
    for (key, value) in &volume.labels {
        let Some((_, key)) = PLACES.iter().find(|(first, now)| key == first || key == now) else { continue };
        let mut values: Vec<_> = value.split(ZONE_SEPARATOR).map(|zone| strings.intern(zone)).collect();
        values.sort_unstable();
        values.dedup();
        here.push(Requirement { key: strings.intern(key), operator: Operator::In(values.into()) });
    }
    if here.is_empty() {
        return None;
    }
    here.sort_unstable();
    let mut nowhere: Vec<_> = PLACES
        .iter()
        .map(|(_, key)| Requirement { key: strings.intern(key), operator: Operator::DoesNotExist })
        .collect();
    nowhere.sort_unstable();
    Some(NodeSelector { all: Conjunction::default(), any: Some([here.into(), nowhere.into()].into()) })
}
