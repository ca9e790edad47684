//! From a pod with a claim to a node that has what it asks for, pass by pass.

use std::{collections::BTreeSet, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::{
    nodes::{
        drain::Budgets,
        pools::{
            cluster::Cluster,
            disrupt::{self, decide},
            provision::{Input, Plan, provision},
            requirements::{Operator, Requirements, labels::ON_DEMAND},
            solver::Options,
            testing::{ZONES, add_node_of, claim, cluster, devices, instance_type, pod, slice, with_gpus},
        },
        told::{Learned, devices::settling},
    },
    scheduling::{Resources, Surroundings, devices::Objects},
};

/// A cluster of one pool over time.
struct World {
    cluster: Cluster,
    objects: Objects,
    memory: Learned,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let (cluster, objects) = (cluster(), devices());
        Self { cluster, objects, memory: Learned::default(), now: Timestamp::UNIX_EPOCH }
    }

    /// Looks at what is there now, as the controllers do.
    fn look(&mut self) {
        let surroundings =
            Surroundings { devices: Some(Arc::new(self.objects.clone())), ..Surroundings::default() };
        self.memory.learn(&self.cluster.nodes, &surroundings, self.now);
        self.cluster.surroundings = Arc::new(surroundings);
        self.cluster.settling = Some(settling(&self.cluster.nodes, self.now));
        self.cluster.pools[0].told = self.memory.of("general");
    }

    fn waits(&mut self, name: &str, gpus: usize) {
        self.cluster.pods.push(Arc::new(with_gpus(pod(name, "a", 100), gpus)));
    }

    fn plan(&mut self) -> Plan {
        self.look();
        let pods = self.cluster.needy();
        provision(&Input { cluster: &self.cluster, pods: &pods, options: Options::default() })
    }

    /// How many pods have a place that is there or on its way, get a new node, and go nowhere.
    fn counts(&mut self) -> (usize, usize, usize) {
        let plan = self.plan();
        let placed = plan.claims.iter().map(|claim| claim.pods.len()).sum();
        (plan.nominations.len(), placed, plan.unschedulable.len())
    }

    fn launch(&mut self, name: &str, cores: i64) {
        self.cluster.claims.push(Arc::new(claim(name, cores, ZONES[0], ON_DEMAND)));
    }

    /// The machine of a claim becomes a node that is ready.
    fn come(&mut self, name: &str, cores: i64) {
        self.cluster.claims.retain(|claim| claim.metadata.name.as_deref() != Some(name));
        add_node_of(&mut self.cluster, claim(name, cores, ZONES[0], ON_DEMAND), cores, Vec::new());
        Arc::make_mut(self.cluster.nodes.last_mut().unwrap()).created = Some(self.now);
    }

    fn publish(&mut self, node: &str, count: usize) {
        let slice = slice(node, count);
        self.objects.slices.insert(slice.name.clone(), slice);
    }

    fn pass_minutes(&mut self, minutes: i64) {
        self.now += SignedDuration::from_mins(minutes);
    }
}

#[test]
fn one_node_tells_and_the_others_are_bought_by_knowledge() {
    let mut world = World::new();
    for number in 0..3 {
        world.waits(&format!("pod-{number}"), 1);
    }
    assert!(world.plan().claims[0].presumes_devices);
    assert_eq!(world.counts(), (0, 1, 2), "one node is tried");
    world.launch("first", 2);
    assert_eq!(world.counts(), (1, 0, 2), "it is on its way");
    world.come("first", 2);
    world.pass_minutes(2);
    assert_eq!(world.counts(), (1, 0, 2), "its driver is");
    world.publish("first", 2);
    let plan = world.plan();
    assert_eq!((plan.nominations.len(), plan.claims.len()), (2, 1));
    assert_eq!(plan.claims[0].types.iter().map(|it| &*it.name).collect::<Vec<_>>(), ["cores-02"]);
    assert!(!plan.claims[0].presumes_devices);
    world.waits("pod-3", 1);
    assert_eq!(world.counts(), (2, 2, 0));
    world.launch("second", 2);
    assert_eq!(world.counts(), (4, 0, 0), "what is on its way has the devices of the first");
    world.come("second", 2);
    world.waits("pod-4", 1);
    assert_eq!(world.counts(), (4, 1, 0), "and before its driver says so");
    world.publish("second", 1);
    assert_eq!(world.counts(), (3, 2, 0), "then its word counts");
}

#[test]
fn what_no_machine_has_buys_no_more_than_three() {
    let mut world = World::new();
    world.waits("pod", 1);
    for number in 0..3 {
        let plan = world.plan();
        assert_eq!(plan.claims.len(), 1, "{number} told that they have none");
        assert_eq!(plan.claims[0].types.len(), 20 - number, "those are not tried again");
        let cores = plan.claims[0].types[0].capacity.cpu / 1_000;
        let name = format!("node-{number}");
        world.launch(&name, cores);
        assert_eq!(world.counts(), (1, 0, 0));
        world.come(&name, cores);
        world.pass_minutes(3);
        assert_eq!(world.counts(), (1, 0, 0), "its driver has three minutes");
        world.pass_minutes(1);
    }
    assert_eq!(world.counts(), (0, 0, 1));
    world.cluster.nodes.clear();
    world.cluster.claims.clear();
    world.pass_minutes(60);
    assert_eq!(world.counts(), (0, 0, 1), "nor when they are gone");
    // Whoever installs a driver after all is believed.
    world.come("late", 4);
    world.publish("late", 1);
    world.pass_minutes(4);
    assert_eq!(world.counts(), (1, 0, 0));
}

#[test]
fn nothing_is_replaced_by_a_type_without_the_devices() {
    let replacements = |known: &[(i64, usize)]| {
        let mut world = World::new();
        let mut names = BTreeSet::new();
        for (cores, count) in known {
            let name = format!("told-{cores}");
            world.come(&name, *cores);
            world.publish(&name, *count);
            names.insert(name);
        }
        world.pass_minutes(10);
        world.look();
        world.cluster.nodes.clear();
        world.cluster.claims.clear();
        world.objects.slices.clear();
        world.come("large", 8);
        world.publish("large", 2);
        let mut running = with_gpus(pod("runs", "a", 100), 1);
        running.node = Some("large".into());
        running.scheduled = crate::scheduling::pod::Scheduled::Bound;
        world.cluster.pods.push(Arc::new(running));
        world.pass_minutes(10);
        world.look();
        let input = disrupt::Input {
            cluster: &world.cluster,
            budgets: &Budgets::new(Vec::new()),
            nominated: &BTreeSet::new(),
            options: Options::default(),
            spot_to_spot: true,
            now: world.now,
        };
        let command = decide(&input, |_| true).command;
        let types = command.into_iter().flat_map(|command| command.replacements).flat_map(|it| it.types);
        types.map(|it| it.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(replacements(&[(2, 0), (3, 1), (4, 0)]), ["cores-03"]);
    assert!(replacements(&[(2, 0)]).is_empty(), "what nobody knows is no replacement");
}

#[test]
fn types_may_have_devices_if_their_provider_tells_of_accelerators() {
    let with = |name: &str, amount: i64, label: Option<(&str, Operator, &[&str])>| {
        let plain = instance_type(1);
        let mut capacity = plain.capacity.clone();
        capacity.set(name, amount);
        let label =
            label.map(|(key, operator, values)| Requirement::new(key, operator, values.iter().copied()));
        let requirements: Requirements = plain.requirements.iter().cloned().chain(label).collect();
        InstanceType::new(name, requirements, capacity, Resources::default(), Vec::new())
    };
    let table = [
        (with("nvidia.com/gpu", 1, None), true),
        (with("nvidia.com/gpu", 0, None), false),
        (with("vpc.amazonaws.com/pod-eni", 9, None), false),
        (with("vpc.amazonaws.com/efa", 1, None), true),
        (with("hugepages-2Mi", 4, None), false),
        (with("cpu", 4, Some(("provider/instance-gpu-count", Operator::In, &["1"]))), true),
        (with("cpu", 4, Some(("provider/instance-gpu-count", Operator::DoesNotExist, &[]))), false),
        (with("cpu", 4, Some(("provider/instance-accelerator-name", Operator::In, &["inferentia"]))), true),
    ];
    for (instance_type, wanted) in table {
        assert_eq!(tells_of_devices(&instance_type), wanted, "{}", instance_type.name);
        let types = [Arc::new(instance_type.clone()), super::super::testing::instance_type(2)];
        let outfits = Outfits::new(&Told::default(), &types);
        let is_tried = |of_type: &str| outfits.of(of_type) == Outfit::Unknown;
        assert!(is_tried(&instance_type.name) || !wanted);
        assert_eq!(is_tried("cores-02"), !wanted, "beside {}", instance_type.name);
    }
}
