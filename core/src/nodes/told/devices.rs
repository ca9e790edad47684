//! Devices that nodes of a pool told of: what drivers published there, by instance type.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

use super::{REMEMBERED, TRIES};
use crate::{
    nodes::pools::requirements::labels::{INSTANCE_TYPE, NODE_POOL},
    scheduling::{
        Node,
        devices::{AttributeName, Device, Objects, Slice},
    },
};

/// A node's drivers have so long to publish its devices, from when it is ready: as long as those of its volumes have.
const SETTLING: SignedDuration = SignedDuration::from_mins(3);

/// The slices of a node.
pub type Slices = Arc<[Arc<Slice>]>;

/// What new nodes of one pool have of devices, as far as nodes of it told, by instance type.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told(BTreeMap<Box<str>, Known>);

/// What nodes of an instance type told.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    at: Timestamp,
    slices: Slices,
    /// Whether no more is to be expected of such a node.
    is_settled: bool,
}

/// What is seen of nodes of an instance type.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    slices: Slices,
    is_settled: bool,
}

/// What a new node has of devices.
#[derive(Debug, Clone, PartialEq)]
pub enum Outfit {
    /// These slices, if any.
    Slices(Slices),
    /// Nobody knows.
    Unknown,
}

impl Told {
    /// What nodes of an instance type had last.
    pub fn known(&self, instance_type: &str) -> Option<&Slices> {
        self.0.get(instance_type).map(|known| &known.slices)
    }

    /// How many devices of each driver nodes of each instance type had last.
    pub fn counts(&self) -> BTreeMap<String, BTreeMap<String, usize>> {
        let count = |slices: &Slices| {
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for slice in slices.iter() {
                *counts.entry(slice.pool.0.to_string()).or_default() += slice.devices.len();
            }
            counts
        };
        self.0.iter().map(|(of_type, known)| (of_type.to_string(), count(&known.slices))).collect()
    }

    /// Whether a node of an instance type has been there for so long that it told all.
    pub fn is_settled(&self, instance_type: &str) -> bool {
        self.0.get(instance_type).is_some_and(|known| known.is_settled)
    }

    /// What a new node of an instance type has, if it is one of those that may have devices: when some of these have told,
    /// no other is presumed to have any.
    pub fn of(&self, instance_type: &str, may_have: impl Fn(&str) -> bool) -> Outfit {
        if let Some(slices) = self.known(instance_type) {
            return Outfit::Slices(slices.clone());
        }
        let told = self.0.iter().filter(|(of_type, known)| known.is_settled && may_have(of_type)).count();
        if may_have(instance_type) && told < TRIES { Outfit::Unknown } else { Outfit::Slices([].into()) }
    }

    /// Takes in what is seen now.
    pub(super) fn note(&mut self, instance_type: &str, seen: Seen, now: Timestamp) {
        let Seen { slices, is_settled } = seen;
        let Some(known) = self.0.get_mut(instance_type) else {
            self.0.insert(instance_type.into(), Known { at: now, slices, is_settled });
            return;
        };
        // Drivers come to a new node one after the other.
        if is_settled || drivers(&known.slices).is_subset(&drivers(&slices)) {
            known.at = now;
            known.slices = in_common(&known.slices, slices);
            known.is_settled |= is_settled;
        }
    }

    /// Forgets what was told too long ago: that there are no devices. Those that there were are remembered as long as the pool
    /// is there, since otherwise a node would have to be tried again.
    pub(super) fn forget(&mut self, now: Timestamp) {
        self.0.retain(|_, known| !known.slices.is_empty() || now.duration_since(known.at) < REMEMBERED);
    }
}

/// Nodes of pools that are so young that their drivers may yet publish devices, by name.
pub fn settling(nodes: &[Arc<Node>], now: Timestamp) -> BTreeSet<Arc<str>> {
    let of_pool = nodes.iter().filter(|node| node.labels.contains_key(NODE_POOL));
    of_pool.filter(|node| !is_settled(node, now)).map(|node| node.name.clone()).collect()
}

fn is_settled(node: &Node, now: Timestamp) -> bool {
    let since = node.condition("Ready").and_then(|(_, since)| since).max(node.created);
    node.ready && since.is_none_or(|since| now.duration_since(since) > SETTLING)
}

/// What nodes show, by pool and instance type: of those whose drivers publish most the newest. That it has none shows only a
/// node whose drivers have had their time.
pub(super) fn seen<'n>(
    nodes: &'n [Arc<Node>],
    objects: &Objects,
    now: Timestamp,
) -> BTreeMap<(&'n str, &'n str), Seen> {
    // Without a class nobody can ask for devices.
    if objects.classes.is_empty() {
        return BTreeMap::new();
    }
    let by_node = objects.by_node();
    let mut best: BTreeMap<(&str, &str), (bool, &Node)> = BTreeMap::new();
    let rank = |node: &'n Node| {
        let published = by_node.get(&node.name).map_or(&[][..], Vec::as_slice);
        (drivers(published).len(), node.created, &node.name)
    };
    for node in nodes {
        let (Some(pool), Some(of_type)) = (node.labels.get(NODE_POOL), node.labels.get(INSTANCE_TYPE)) else {
            continue;
        };
        let is_settled = is_settled(node, now);
        if is_settled || by_node.contains_key(&node.name) {
            let (any_settled, best) = best.entry((pool, of_type)).or_insert((is_settled, node));
            *any_settled |= is_settled;
            if rank(best) < rank(node) {
                *best = node;
            }
        }
    }
    let seen = best.into_iter().map(|(of, (is_settled, node))| {
        let slices = by_node.get(&node.name).map_or_else(|| [].into(), |slices| slices.as_slice().into());
        (of, Seen { slices, is_settled })
    });
    seen.collect()
}

/// The drivers of slices.
pub fn drivers(slices: &[Arc<Slice>]) -> BTreeSet<&Arc<str>> {
    slices.iter().map(|slice| &slice.pool.0).collect()
}

/// What two nodes show that have the same devices: attributes of which each has its own, such as serial numbers, no other node
/// will have. Where the devices differ, those that are seen now count.
fn in_common(known: &Slices, seen: Slices) -> Slices {
    let devices = |slices: &[Arc<Slice>]| -> BTreeMap<(Arc<str>, Arc<str>), Device> {
        let all = slices.iter().flat_map(|slice| slice.devices.iter().map(|device| (&slice.pool.0, device)));
        all.map(|(driver, device)| ((driver.clone(), device.name.clone()), device.clone())).collect()
    };
    let (before, now) = (devices(known), devices(&seen));
    if !before.keys().eq(now.keys()) {
        return seen;
    }
    let differs = |slice: &Slice, device: &Device, name: &AttributeName| {
        let other = now.get(&(slice.pool.0.clone(), device.name.clone()));
        other.is_none_or(|other| other.attributes.get(name) != device.attributes.get(name))
    };
    known.iter().map(|slice| slice.without(|device, name| differs(slice, device, name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        nodes::{
            pools::testing::{devices, slice},
            told::Learned,
        },
        scheduling::{Surroundings, devices::Attribute},
    };

    /// What is there: nodes by minute of their creation, with what drivers published there.
    struct World {
        memory: Learned,
        nodes: Vec<Arc<Node>>,
        objects: Objects,
    }

    impl World {
        fn new() -> Self {
            Self { memory: Learned::default(), nodes: Vec::new(), objects: devices() }
        }

        fn add(&mut self, minute: i64, slices: &[Arc<Slice>]) {
            let labels = [(NODE_POOL, "web"), (INSTANCE_TYPE, "large")];
            let node = Node {
                name: format!("node-{minute}").into(),
                labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
                created: Some(at(minute)),
                ready: true,
                ..Node::default()
            };
            self.nodes.push(Arc::new(node));
            for slice in slices {
                self.objects.slices.insert(slice.name.clone(), slice.clone());
            }
        }

        /// How many devices a new node is known to have then, and whether that is all.
        fn known(&mut self, minute: i64) -> Option<(usize, bool)> {
            let devices = Some(Arc::new(self.objects.clone()));
            let surroundings = Surroundings { devices, ..Surroundings::default() };
            self.memory.learn(&self.nodes, &surroundings, at(minute));
            let told = self.memory.of("web").devices;
            let slices = told.known("large")?;
            Some((slices.iter().map(|slice| slice.devices.len()).sum(), told.is_settled("large")))
        }
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
    }

    #[test]
    fn what_drivers_publish_counts_at_once_and_that_they_do_not_after_a_while() {
        let mut world = World::new();
        world.add(0, &[]);
        assert_eq!(world.known(3), None, "the driver may be on its way");
        assert_eq!(settling(&world.nodes, at(3)).len(), 1);
        assert_eq!(world.known(4), Some((0, true)));
        assert!(settling(&world.nodes, at(4)).is_empty());
        world.add(5, &[slice("node-5", 2)]);
        assert_eq!(world.known(6), Some((2, true)));
        world.add(7, &[]);
        assert_eq!(world.known(20), Some((2, true)), "a node whose driver fails says nothing of others");
        world.nodes.clear();
        world.objects.slices.clear();
        assert_eq!(world.known(10_000), Some((2, true)), "without it a node would have to be tried again");
        world.memory.retain_pools(|pool| pool != "web");
        assert_eq!(world.known(10_001), None);
    }

    #[test]
    fn that_there_are_no_devices_is_forgotten() {
        let mut world = World::new();
        world.add(0, &[]);
        assert_eq!(world.known(10), Some((0, true)));
        world.nodes.clear();
        assert_eq!(world.known(60 * 6), Some((0, true)));
        assert_eq!(world.known(60 * 6 + 10), None);
    }

    #[test]
    fn no_other_node_has_the_serial_number_of_one() {
        let with_uuid = |node: &str| {
            let mut slice = (*slice(node, 1)).clone();
            let attributes = &mut slice.devices[0].attributes;
            attributes.insert(("gpu.test".into(), "uuid".into()), Attribute::Text(node.into()));
            attributes.insert(("gpu.test".into(), "model".into()), Attribute::Text("t4".into()));
            Arc::new(slice)
        };
        let mut world = World::new();
        let names = |world: &World| -> Vec<String> {
            let told = world.memory.of("web").devices;
            let attributes = told.known("large").unwrap()[0].devices[0].attributes.keys();
            attributes.map(|(_, name)| name.to_string()).collect()
        };
        world.add(0, &[with_uuid("node-0")]);
        world.known(1);
        assert_eq!(names(&world), ["model", "uuid"]);
        world.add(2, &[with_uuid("node-2")]);
        world.known(3);
        assert_eq!(names(&world), ["model"]);
        world.known(10);
        assert_eq!(names(&world), ["model"], "it does not come back");
    }

    #[test]
    fn after_some_types_no_other_is_presumed_to_have_devices() {
        let known = |is_settled| Known { at: at(0), slices: [].into(), is_settled };
        let told = |types: &[&str]| Told(types.iter().map(|name| ((*name).into(), known(true))).collect());
        let may_have = |of_type: &str| of_type != "plain";
        let table = [
            (told(&[]), "a", true),
            (told(&[]), "plain", false),
            (told(&["a"]), "a", false),
            (told(&["a", "b"]), "c", true),
            (told(&["a", "b", "plain"]), "c", true),
            (told(&["a", "b", "c"]), "d", false),
        ];
        for (told, of_type, wanted) in table {
            assert_eq!(told.of(of_type, may_have) == Outfit::Unknown, wanted, "{of_type} {told:?}");
        }
    }
}
