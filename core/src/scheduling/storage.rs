//! What a pod's claims ask of a node.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    family::Storage,
    filters::{Filter, FilterId},
    ids::{Strings, Symbol},
    reason::Reason,
    selector::{Conjunction, NodeSelector, Operator, Requirement, node_term},
    snapshot::Snapshot,
    surroundings::{Claim, READ_WRITE_ONCE_POD, StorageClass, Surroundings, Volume},
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
        let class = claim.class.as_ref().and_then(|class| surroundings.classes.get(class));
        let Some(class) = class.filter(|class| class.waits_for_consumer) else {
            return all.refuse(Reason::ClaimUnbound);
        };
        if let Some(terms) = places(&mut self.strings, key, claim, class, surroundings) {
            let selector = NodeSelector { all: Conjunction::default(), any: Some(terms.into()) };
            all.filters.push((self.filters.intern(Filter::Selector(selector)), Reason::NoVolume));
        }
        all.attached.push((self.strings.intern(&class.provisioner), self.strings.intern(&id)));
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

/// Where a volume for a claim that waits can be found or made; `None` if everywhere.
fn places(
    strings: &mut Strings,
    key: &(Arc<str>, Arc<str>),
    claim: &Claim,
    class: &StorageClass,
    surroundings: &Surroundings,
) -> Option<Vec<Conjunction>> {
    let mut terms = Vec::new();
    if &*class.provisioner != NO_PROVISIONER {
        if class.allowed_topologies.is_empty() {
            return None;
        }
        terms.extend(NodeSelector::of_topologies(strings, &class.allowed_topologies));
    }
    let suits = |volume: &&Volume| {
        volume.available
            && volume.class == claim.class
            && volume.bytes >= claim.bytes
            && volume.claim.as_ref().is_none_or(|kept_for| kept_for == key)
            && claim.access_modes.iter().all(|mode| volume.access_modes.contains(mode))
    };
    for volume in surroundings.volumes.values().filter(suits) {
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
