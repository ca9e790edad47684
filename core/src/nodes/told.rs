//! What nodes of a group or a pool have told of themselves, so that no second one is bought for what the first had not.

pub mod devices;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    pools::requirements::labels::{INSTANCE_TYPE, NODE_POOL},
    template::may_await_devices,
};
use crate::scheduling::{Declared, Node, Surroundings, devices::Slice, room_after};

/// Of so many instance types of a pool at most it is presumed that they have what no node has told of yet. A pod that asks for
/// more than any machine has buys no more machines than this.
const TRIES: usize = 3;

/// So long what a node told is remembered when it is gone; then something else may come of its pool, with another image, say.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(6);

/// What new nodes of one group or pool have, as far as nodes of it told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    /// By instance type, and when it was told.
    declared: BTreeMap<Box<str>, (Timestamp, Arc<Declared>)>,
    /// Devices, of a pool.
    pub devices: devices::Told,
}

impl Told {
    /// What nodes of an instance type told last.
    pub fn known(&self, instance_type: &str) -> Option<&Arc<Declared>> {
        self.declared.get(instance_type).map(|(_, declared)| declared)
    }

    /// What a new node with these labels will say of itself.
    pub fn of_node(&self, labels: &BTreeMap<String, String>) -> Arc<Declared> {
        labels.get(INSTANCE_TYPE).map(|of_type| self.of(of_type)).unwrap_or_default()
    }

    /// What a new node of an instance type will say of itself.
    fn of(&self, instance_type: &str) -> Arc<Declared> {
        match self.known(instance_type) {
            Some(declared) => declared.clone(),
            None if self.declared.len() < TRIES => Arc::default(),
            None => {
                Arc::new(self.declared.values().map(|(_, declared)| declared).fold(Declared::default(), most))
            }
        }
    }
}

/// What nodes told, by group or pool.
#[derive(Debug, Default)]
pub struct Learned {
    told: BTreeMap<Box<str>, Told>,
    /// What drivers published of the nodes of each group. It is kept as long as the group is: no node would ever come that
    /// could tell it again.
    devices: BTreeMap<Box<str>, Arc<[Arc<Slice>]>>,
}

impl Learned {
    /// Takes in what the newest nodes of each pool and instance type say, and forgets what is too old. A kubelet speaks when
    /// its node is ready, drivers a while later.
    pub fn learn(&mut self, nodes: &[Arc<Node>], surroundings: &Surroundings, now: Timestamp) {
        for ((pool, of_type), node) in newest(nodes, |node| node.ready && node.declared.features.is_some()) {
            let features = node.declared.features.clone();
            self.note(pool, of_type, &Declared { features, ..Declared::default() }, now);
        }
        for ((pool, of_type), node) in newest(nodes, |node| node.declared.drivers.is_some()) {
            self.note(pool, of_type, &of_next(node, surroundings), now);
        }
        if let Some(objects) = &surroundings.devices {
            for ((pool, of_type), seen) in devices::seen(nodes, objects, now) {
                self.told.entry(pool.into()).or_default().devices.note(of_type, seen, now);
            }
        }
        self.forget(now);
    }

    /// Takes in what a node of a group or pool says, for one that comes after it; of what it does not say yet, the word of the
    /// one before it stands.
    pub fn note(&mut self, of: &str, instance_type: &str, said: &Declared, now: Timestamp) {
        let told = self.told.entry(of.into()).or_default();
        let (at, declared) =
            told.declared.entry(instance_type.into()).or_insert_with(|| (now, Arc::default()));
        *at = now;
        let declared = Arc::make_mut(declared);
        if said.features.is_some() {
            declared.features.clone_from(&said.features);
        }
        if said.drivers.is_some() {
            declared.drivers.clone_from(&said.drivers);
            declared.room.clone_from(&said.room);
        }
    }

    /// Takes in the devices of the model of a group, and that a node which is not so young any more has none.
    pub fn note_devices(
        &mut self,
        group: &str,
        model: &Node,
        published: Option<&Arc<[Arc<Slice>]>>,
        now: Timestamp,
    ) {
        if let Some(slices) = published {
            self.devices.insert(group.into(), slices.clone());
        } else if !may_await_devices(model, now) {
            self.devices.remove(group);
        }
    }

    /// The devices that nodes of a group had last.
    pub fn devices_of(&self, group: &str) -> Option<&Arc<[Arc<Slice>]>> {
        self.devices.get(group)
    }

    /// Forgets the devices of groups that are gone.
    pub fn retain_groups(&mut self, is_there: impl Fn(&str) -> bool) {
        self.devices.retain(|group, _| is_there(group));
    }

    /// Forgets what is too old.
    pub fn forget(&mut self, now: Timestamp) {
        self.told.retain(|_, told| {
            told.declared.retain(|_, (at, _)| now.duration_since(*at) < REMEMBERED);
            told.devices.forget(now);
            *told != Told::default()
        });
    }

    /// Forgets pools that are gone.
    pub fn retain_pools(&mut self, is_there: impl Fn(&str) -> bool) {
        self.told.retain(|pool, _| is_there(pool));
    }

    /// What nodes of a group or pool told.
    pub fn of(&self, pool: &str) -> Told {
        self.told.get(pool).cloned().unwrap_or_default()
    }
}

/// The newest node that `speaks`, by pool and instance type.
fn newest(nodes: &[Arc<Node>], speaks: impl Fn(&Node) -> bool) -> BTreeMap<(&str, &str), &Node> {
    let mut newest: BTreeMap<(&str, &str), &Node> = BTreeMap::new();
    for node in nodes.iter().filter(|node| speaks(node)) {
        if let (Some(pool), Some(of_type)) = (node.labels.get(NODE_POOL), node.labels.get(INSTANCE_TYPE)) {
            let newest = newest.entry((pool, of_type)).or_insert(node);
            if (newest.created, &newest.name) < (node.created, &node.name) {
                *newest = node;
            }
        }
    }
    newest
}

/// What a node says, for one of its kind that comes after it.
fn of_next(node: &Node, surroundings: &Surroundings) -> Declared {
    let mut next = node.clone();
    // No real node has a name with a space.
    next.rename("new node".into());
    Declared { room: room_after(node, &next, surroundings), ..(*node.declared).clone() }
}

/// What either says.
fn most(mut one: Declared, other: &Arc<Declared>) -> Declared {
    let union = |one: &mut Option<BTreeSet<Box<str>>>, other: &Option<BTreeSet<Box<str>>>| {
        if let Some(other) = other {
            one.get_or_insert_default().extend(other.iter().cloned());
        }
    };
    union(&mut one.features, &other.features);
    union(&mut one.drivers, &other.drivers);
    for (class, bytes) in &other.room {
        let most = one.room.entry(class.clone()).or_default();
        *most = (*most).max(*bytes);
    }
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: i64, of_type: &str, drivers: Option<&[&str]>) -> Arc<Node> {
        let labels = [(NODE_POOL, "web"), (INSTANCE_TYPE, of_type)];
        let drivers = drivers.map(|names| names.iter().map(|name| (*name).into()).collect());
        Arc::new(Node {
            name: format!("node-{number}").into(),
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            created: Timestamp::from_second(number).ok(),
            declared: Arc::new(Declared { drivers, ..Declared::default() }),
            ..Node::default()
        })
    }

    fn drivers(memory: &Learned, of_type: &str) -> Option<Vec<String>> {
        let declared = memory.of("web").of(of_type);
        declared.drivers.as_ref().map(|drivers| drivers.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_newest_settled_node_tells_of_the_next() {
        let mut memory = Learned::default();
        let nodes =
            [node(2, "large", Some(&["new"])), node(1, "large", Some(&["old"])), node(3, "large", None)];
        memory.learn(&nodes, &Surroundings::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(drivers(&memory, "large"), Some(vec!["new".to_owned()]));
        assert_eq!(drivers(&memory, "small"), None, "nobody has told of this one");
        let soon = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(5);
        memory.learn(&[], &Surroundings::default(), soon);
        assert_eq!(
            drivers(&memory, "large"),
            Some(vec!["new".to_owned()]),
            "the node is gone, its word is not"
        );
        memory.learn(&[], &Surroundings::default(), Timestamp::UNIX_EPOCH + REMEMBERED);
        assert_eq!(drivers(&memory, "large"), None);
    }

    #[test]
    fn a_group_has_the_devices_that_its_nodes_had_last() {
        let mut memory = Learned::default();
        let at = |minutes| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
        let (model, slices): (_, Arc<[_]>) = (node(0, "", None), [Arc::default()].into());
        memory.note_devices("web", &model, Some(&slices), at(1));
        memory.forget(at(1) + REMEMBERED);
        assert_eq!(memory.devices_of("web"), Some(&slices), "the group may be empty for long");
        memory.note_devices("web", &model, None, at(10));
        assert_eq!(memory.devices_of("web"), Some(&slices), "the driver may be on its way");
        memory.note_devices("web", &model, None, at(20));
        assert_eq!(memory.devices_of("web"), None);
        memory.note_devices("web", &model, Some(&slices), at(21));
        memory.retain_groups(|group| group != "web");
        assert_eq!(memory.devices_of("web"), None);
    }

    #[test]
    fn a_kubelet_speaks_before_drivers_do() {
        let mut memory = Learned::default();
        let mut young = (*node(2, "large", None)).clone();
        young.ready = true;
        young.declared = Arc::new(Declared { features: Some(["New".into()].into()), ..Declared::default() });
        let nodes = [node(1, "large", Some(&["csi"])), Arc::new(young)];
        memory.learn(&nodes, &Surroundings::default(), Timestamp::UNIX_EPOCH);
        let declared = memory.of("web").of("large");
        assert_eq!(declared.features, Some(["New".into()].into()));
        assert_eq!(drivers(&memory, "large"), Some(vec!["csi".to_owned()]));
    }

    #[test]
    fn after_some_types_no_other_is_presumed_to_have_more() {
        let mut memory = Learned::default();
        let nodes = [node(1, "a", Some(&["one"])), node(2, "b", Some(&["two"])), node(3, "c", Some(&[]))];
        memory.learn(&nodes[..TRIES - 1], &Surroundings::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(drivers(&memory, "other"), None);
        memory.learn(&nodes, &Surroundings::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(drivers(&memory, "other"), Some(vec!["one".to_owned(), "two".to_owned()]));
    }
}
