//! Whether a node takes a pod: kube-scheduler's filters, in its order.

use std::sync::Arc;

use super::{
    class::Class,
    fleet::{Amounts, FIXED, fits},
    holds::Hold,
    ids::{ClassId, NodeId},
    profile::Plugin,
    reason::Reason,
    snapshot::Snapshot,
    topology::CounterId,
};

/// The names of the resources that every node has.
const FIXED_NAMES: [&str; FIXED] = ["cpu", "memory", "ephemeral-storage", "pods"];

/// The order in which kube-scheduler looks at them: pods first.
const FIXED_ORDER: [usize; FIXED] = [3, 0, 1, 2];

/// Classes and counts of pods that are expected on a node.
type Expected<'a> = &'a [(ClassId, u32)];

impl Snapshot {
    /// Whether a node takes a pod of a class; if not, the reason of the first filter that refuses, as kube-scheduler gives it.
    ///
    /// A node on which pods of the same or a higher priority are expected must take it with and without them.
    pub fn check(&self, class: ClassId, node: NodeId) -> Result<(), Reason> {
        let at = node.index();
        let spec = self.classes.get(class.0);
        self.admits(class, spec, at, &[])?;
        let expected = self.expected(spec, at);
        if expected.is_empty() { Ok(()) } else { self.admits(class, spec, at, &expected) }
    }

    /// How many copies of a class a node takes one after the other.
    ///
    /// Arithmetic, unless copies count for each other (topology spread, affinity): then 1 if it takes one at all, since how
    /// many more depends on where the others go.
    pub fn how_many(&self, class: ClassId, node: NodeId) -> u32 {
        if self.check(class, node).is_err() { 0 } else { self.how_many_more(class, node) }
    }

    /// As [`Snapshot::how_many`] of a node that is known to take one.
    pub(crate) fn how_many_more(&self, class: ClassId, node: NodeId) -> u32 {
        let at = node.index();
        let spec = self.classes.get(class.0);
        let own = &self.counters_of[self.classes.get(class.0).id.index()];
        let counts = |counter| own.contains(counter) && self.topology.domain(*counter, at).is_some();
        let excludes_itself = spec.family.apart.iter().any(counts)
            || spec.family.holds.iter().any(|hold| hold.conflicts(hold))
            || !spec.family.storage.exclusive.is_empty()
            || self.needs_devices(spec.family.devices, at);
        if excludes_itself || spec.family.gains_by_its_like() {
            return 1;
        }
        let expected = self.expected(spec, at);
        let free = self.free_beside(at, &expected);
        let fixed = spec.asked().iter().zip(free).filter(|(request, _)| **request > 0);
        let others =
            spec.others.iter().map(|(resource, request)| self.other_free(at, *resource, &expected) / request);
        let least = fixed.map(|(request, free)| free / request).chain(others).min().unwrap_or(i64::MAX);
        u32::try_from(least.max(1)).unwrap_or(u32::MAX)
    }

    /// Whether a node takes a pod, of which the static filters are known to accept it.
    pub(super) fn takes(&self, class: ClassId, spec: &Class, at: usize) -> bool {
        let dynamic = |expected: Expected<'_>| {
            self.has_room(spec, at, expected)
                && self.conflict(spec, at, expected).is_none()
                && self.claims_free(spec)
                && self.attachable(spec, at, expected)
                && self.spread(spec, at, expected).is_ok()
                && self.neighbours(class, spec, at, expected).is_ok()
                && self.devices_fit(spec.family.devices, at).is_ok()
        };
        dynamic(&[]) && {
            let expected = self.expected(spec, at);
            expected.is_empty() || dynamic(&expected)
        }
    }

    /// Pods expected on the node that this class must leave room for.
    fn expected(&self, spec: &Class, at: usize) -> Vec<(ClassId, u32)> {
        let nominated = self.fleet.nodes[at].nominated.iter();
        nominated
            .copied()
            .filter(|(class, _)| self.classes.get(class.0).family.priority >= spec.family.priority)
            .collect()
    }

    fn admits(&self, class: ClassId, spec: &Class, at: usize, expected: Expected<'_>) -> Result<(), Reason> {
        let node = &self.fleet.nodes[at];
        let accepts = |filter| self.filters.accepts(filter, at, node, &self.strings);
        let refuse_unless = |holds: bool, reason: Reason| if holds { Ok(()) } else { Err(reason) };
        if let Some(reason) = self.impossible(class) {
            return Err(reason.clone());
        }
        refuse_unless(!node.unschedulable || spec.family.tolerates_cordon, Reason::Unschedulable)?;
        refuse_unless(accepts(spec.family.tolerations), Reason::Taint)?;
        let (own, added) = (spec.family.affinity, spec.family.added);
        refuse_unless(own.into_iter().chain(added).all(accepts), Reason::NodeAffinity)?;
        let conflict = self.conflict(spec, at, expected);
        refuse_unless(!matches!(conflict, Some(Hold::Port { .. })), Reason::Ports)?;
        if !self.has_room(spec, at, expected) {
            return Err(self.shortage(spec, at, expected));
        }
        refuse_unless(conflict.is_none(), Reason::Disk)?;
        refuse_unless(self.claims_free(spec), Reason::ClaimInUse)?;
        refuse_unless(self.attachable(spec, at, expected), Reason::VolumeLimit)?;
        if let Some((_, reason)) = spec.family.storage.filters.iter().find(|(filter, _)| !accepts(*filter)) {
            return Err(reason.clone());
        }
        self.spread(spec, at, expected)?;
        self.neighbours(class, spec, at, expected)?;
        refuse_unless(spec.family.features.is_none_or(accepts), Reason::Features)?;
        self.devices_fit(spec.family.devices, at)
    }

    /// What a pod wants for itself and another one has.
    fn conflict<'a>(&self, spec: &'a Class, at: usize, expected: Expected<'_>) -> Option<&'a Hold> {
        let is_asked = |hold: &&Hold| match hold {
            Hold::Port { .. } => !spec.family.without.has(Plugin::NodePorts),
            Hold::Disk { .. } => !spec.family.without.has(Plugin::VolumeRestrictions),
        };
        let is_taken = |hold: &&Hold| {
            let expected = expected.iter().flat_map(|(class, _)| &self.classes.get(class.0).family.holds);
            let mut taken = self.fleet.nodes[at].holds.iter().map(|(hold, _)| hold).chain(expected);
            taken.any(|taken| hold.conflicts(taken))
        };
        spec.family.holds.iter().filter(is_asked).find(is_taken)
    }

    fn free_beside(&self, at: usize, expected: Expected<'_>) -> Amounts {
        let mut free = self.fleet.free[at];
        for (class, count) in expected {
            for (free, request) in free.iter_mut().zip(self.classes.get(class.0).requests) {
                *free = free.saturating_sub(request.saturating_mul(i64::from(*count)));
            }
        }
        free
    }

    fn other_free(&self, at: usize, resource: u32, expected: Expected<'_>) -> i64 {
        let free = self.fleet.nodes[at].others_free.get(resource as usize).copied().unwrap_or(0);
        let asked = |(class, count): &(ClassId, u32)| {
            let class = self.classes.get(class.0);
            let mut others = class.others.iter().chain(&class.unasked);
            let request = others.find(|(other, _)| *other == resource).map_or(0, |(_, amount)| *amount);
            request.saturating_mul(i64::from(*count))
        };
        free.saturating_sub(expected.iter().map(asked).sum())
    }

    fn has_room(&self, spec: &Class, at: usize, expected: Expected<'_>) -> bool {
        if spec.family.without.has(Plugin::NodeResourcesFit) {
            return !self.fleet.nodes[at].is_closed;
        }
        let fixed = if expected.is_empty() {
            fits(&spec.requests, &self.fleet.free[at])
        } else {
            fits(&spec.requests, &self.free_beside(at, expected))
        };
        fixed
            && spec
                .others
                .iter()
                .all(|(resource, request)| self.has_other(spec, at, (*resource, *request), expected))
    }

    /// Whether there is so much of a resource, or else its devices have to do.
    fn has_other(&self, spec: &Class, at: usize, other: (u32, i64), expected: Expected<'_>) -> bool {
        let (resource, request) = other;
        request <= self.other_free(at, resource, expected)
            || self.is_device(spec.family.devices, resource, at)
    }

    /// What there is too little of.
    fn shortage(&self, spec: &Class, at: usize, expected: Expected<'_>) -> Reason {
        let node = &self.fleet.nodes[at];
        let free = self.free_beside(at, expected);
        let mut resources: Vec<Arc<str>> = Vec::new();
        let mut beyond_capacity = false;
        for resource in FIXED_ORDER {
            let request = spec.requests[resource];
            if request > 0 && request > free[resource] {
                resources.push(FIXED_NAMES[resource].into());
                beyond_capacity |= request > node.allocatable[resource];
            }
        }
        for (resource, request) in &spec.others {
            if !self.has_other(spec, at, (*resource, *request), expected) {
                resources.push(self.resource_name(*resource).clone());
                let most = node.others_allocatable.get(*resource as usize).copied().unwrap_or(0);
                beyond_capacity |= *request > most;
            }
        }
        Reason::Insufficient { resources: resources.into(), beyond_capacity }
    }

    fn claims_free(&self, spec: &Class) -> bool {
        let in_use = |claim| self.claims_in_use.get(claim).is_some_and(|count| *count > 0);
        spec.family.without.has(Plugin::VolumeRestrictions)
            || !spec.family.storage.exclusive.iter().any(in_use)
    }

    /// Whether the node may have the volumes attached that it has not attached yet.
    fn attachable(&self, spec: &Class, at: usize, expected: Expected<'_>) -> bool {
        let node = &self.fleet.nodes[at];
        let unlimited = node.limits.is_empty() || spec.family.without.has(Plugin::NodeVolumeLimits);
        if spec.family.storage.attached.is_empty() || unlimited {
            return true;
        }
        let expected =
            expected.iter().flat_map(|(class, _)| &self.classes.get(class.0).family.storage.attached);
        let mut there: Vec<_> = node.attached.iter().map(|(volume, _)| volume).chain(expected).collect();
        there.sort_unstable();
        there.dedup();
        node.limits.iter().all(|(driver, limit)| {
            let new = spec
                .family
                .storage
                .attached
                .iter()
                .filter(|volume| volume.0 == *driver && there.binary_search(volume).is_err());
            let new = new.count();
            let old = there.iter().filter(|volume| volume.0 == *driver).count();
            new == 0 || i64::try_from(old + new).is_ok_and(|count| count <= *limit)
        })
    }

    fn spread(&self, spec: &Class, at: usize, expected: Expected<'_>) -> Result<(), Reason> {
        for rule in &spec.family.spread {
            let domain = self.topology.domain(rule.counter, at).ok_or(Reason::SpreadLabel)?;
            let beside = self.expected_matches(rule.counter, at, expected);
            let count = self.topology.matched(rule.counter, domain) + beside;
            let least = self.topology.minimum(rule.counter, rule.min_domains, domain, beside);
            if count + u32::from(rule.counts_itself) > rule.max_skew.saturating_add(least) {
                return Err(Reason::Spread);
            }
        }
        Ok(())
    }

    /// How many expected pods a counter would count on the node.
    fn expected_matches(&self, counter: CounterId, at: usize, expected: Expected<'_>) -> u32 {
        let matches = |(class, _): &&(ClassId, u32)| {
            self.counters_of[self.classes.get(class.0).id.index()].contains(&counter)
        };
        if expected.is_empty() || !self.topology.counts_on(counter, at) {
            return 0;
        }
        expected.iter().filter(matches).map(|(_, count)| count).sum()
    }

    /// Affinity and anti-affinity between pods, both ways.
    fn neighbours(
        &self,
        class: ClassId,
        spec: &Class,
        at: usize,
        expected: Expected<'_>,
    ) -> Result<(), Reason> {
        if spec.family.without.has(Plugin::InterPodAffinity) {
            return Ok(());
        }
        let topology = &self.topology;
        if !self.is_near(spec, at, expected) {
            return Err(Reason::PodAffinity);
        }
        for counter in &spec.family.apart {
            if let Some(domain) = topology.domain(*counter, at)
                && (topology.matched(*counter, domain) > 0
                    || self.expected_matches(*counter, at, expected) > 0)
            {
                return Err(Reason::PodAntiAffinity);
            }
        }
        for counter in &self.counters_of[self.classes.get(class.0).id.index()] {
            let expects =
                |(other, _): &(ClassId, u32)| self.classes.get(other.0).family.apart.contains(counter);
            let expected = expected.iter().any(expects);
            if (expected || topology.has_owners(*counter))
                && let Some(domain) = topology.domain(*counter, at)
                && (expected || topology.is_repelled(*counter, domain))
            {
                return Err(Reason::ExistingAntiAffinity);
            }
        }
        Ok(())
    }

    /// Required affinity. The first of pods that want to be near each other may go anywhere that has the labels.
    fn is_near(&self, spec: &Class, at: usize, expected: Expected<'_>) -> bool {
        let topology = &self.topology;
        let mut all_there = true;
        for counter in &spec.family.near {
            let Some(domain) = topology.domain(*counter, at) else { return false };
            all_there &=
                topology.matched(*counter, domain) > 0 || self.expected_matches(*counter, at, expected) > 0;
        }
        let somewhere =
            |counter| topology.total(counter) > 0 || self.expected_matches(counter, at, expected) > 0;
        all_there || (spec.family.near_itself && !spec.family.near.iter().any(|counter| somewhere(*counter)))
    }
}
