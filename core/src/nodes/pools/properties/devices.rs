//! Claims of devices: what is bought has them.

use super::*;
use crate::{
    nodes::{
        pools::testing::{devices, instance_type, naming_gpu, slice, with_gpus, with_shared_gpu},
        told::Learned,
    },
    scheduling::{Surroundings, devices::Objects},
};

/// A cluster in which pods ask for devices.
struct Equipped {
    cluster: Cluster,
    /// How many devices machines have that told.
    told: BTreeMap<String, usize>,
    /// How many devices nodes have that are there or on their way.
    there: BTreeMap<String, usize>,
}

/// How many devices machines of so many cores really have.
fn really(cores: i64) -> usize {
    usize::try_from(cores % 5).unwrap()
}

fn publish(objects: &mut Objects, node: &str, count: usize) {
    let slice = slice(node, count);
    objects.slices.insert(slice.name.clone(), slice);
}

impl Equipped {
    fn draw(draws: &mut Draws) -> Self {
        let (mut cluster, mut objects) = (cluster(), devices());
        let (mut told, mut there) = (BTreeMap::new(), BTreeMap::new());
        let mut before = Cluster::default();
        let share = draws.one(&[2, 10, 30]);
        for cores in 1..=20 {
            if draws.percent(share) {
                let of = claim(&format!("told-{cores}"), cores, ZONES[0], ON_DEMAND);
                add_node_of(&mut before, of, cores, Vec::new());
                publish(&mut objects, &format!("told-{cores}"), really(cores));
                told.insert(instance_type(cores).name.to_string(), really(cores));
            }
        }
        let surroundings = |objects: &Objects| {
            Arc::new(Surroundings { devices: Some(Arc::new(objects.clone())), ..Surroundings::default() })
        };
        let mut memory = Learned::default();
        memory.learn(&before.nodes, &surroundings(&objects), NOW);
        cluster.pools[0].told = memory.of("general");
        objects.slices.clear();
        let mut settling = BTreeSet::new();
        for number in 0..draws.below(4) {
            let (name, cores) = (format!("node-{number}"), i64::try_from(1 + draws.below(20)).unwrap());
            let known = told.get(&*instance_type(cores).name).copied();
            let of = claim(&name, cores, draws.one(&ZONES), ON_DEMAND);
            // What is on its way, or young, of which nobody knows anything, takes the claims of one pod.
            there.insert(name.clone(), known.unwrap_or(usize::MAX));
            match draws.below(3) {
                0 => cluster.claims.push(Arc::new(of)),
                1 => {
                    add_node_of(&mut cluster, of, cores, Vec::new());
                    settling.insert(Arc::from(name));
                }
                _ => {
                    add_node_of(&mut cluster, of, cores, Vec::new());
                    publish(&mut objects, &name, really(cores));
                    there.insert(name, really(cores));
                }
            }
        }
        cluster.settling = Some(settling);
        cluster.surroundings = surroundings(&objects);
        Self { cluster, told, there }
    }

    /// Whether these pods together have enough of so many devices.
    fn suffice(pods: &[&Arc<Pod>], count: usize) -> bool {
        let asked = |pod: &&&Arc<Pod>| pod.shape.labels[KIND].parse::<usize>().ok();
        let own: Vec<usize> = pods.iter().filter_map(|pod| asked(&pod)).collect();
        let is_shared = pods.iter().any(|pod| pod.shape.labels[KIND] == "shared");
        if count == usize::MAX {
            return own.len() + usize::from(is_shared) <= 1;
        }
        own.iter().sum::<usize>() + usize::from(is_shared) <= count
    }
}

/// A pod that waits, labelled with what it asks for.
fn asks(draws: &mut Draws, number: usize) -> Pod {
    let size = cpu(draws, 3_000);
    let kind = draws.one(&["1", "1", "2", "3", "shared", "named", "none"]);
    let pod = with(pod(&format!("waits-{number}"), "waits", size), |shape| {
        let label = if kind == "named" { "1" } else { kind };
        shape.labels.insert(KIND.to_owned(), label.to_owned());
    });
    match kind {
        "shared" => with_shared_gpu(pod),
        "named" => naming_gpu(pod),
        "none" => pod,
        count => with_gpus(pod, count.parse().unwrap()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: WORLDS / 10, ..ProptestConfig::default() })]

    #[test]
    fn every_pod_gets_its_devices(seed in any::<u64>()) {
        let mut draws = Draws(seed);
        let mut world = Equipped::draw(&mut draws);
        for number in 0..draws.below(9) {
            let waits = asks(&mut draws, usize::try_from(number).unwrap());
            world.cluster.pods.push(Arc::new(waits));
        }
        let pods = world.cluster.needy();
        let plan = plan(&world.cluster);
        let mut of_shared = BTreeSet::new();
        for (number, claim) in plan.claims.iter().enumerate() {
            let there: Vec<_> = claim.pods.iter().map(|pod| &pods[*pod]).collect();
            for of_type in &claim.types {
                let count = world.told.get(&*of_type.name).copied();
                let none = if claim.presumes_devices { usize::MAX } else { 0 };
                prop_assert!(Equipped::suffice(&there, count.unwrap_or(none)), "{of_type:?}: {claim:?}");
            }
            if there.iter().any(|pod| pod.shape.labels[KIND] == "shared") {
                of_shared.insert(format!("new {number}"));
            }
        }
        let mut by_node: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for (pod, target) in &plan.nominations {
            let name = target.claim.as_ref().unwrap().to_string();
            if pods[*pod].shape.labels[KIND] == "shared" {
                of_shared.insert(name.clone());
            }
            by_node.entry(name).or_default().push(&pods[*pod]);
        }
        for (name, there) in by_node {
            prop_assert!(Equipped::suffice(&there, world.there[&name]), "{name}: {there:?}");
        }
        prop_assert!(of_shared.len() <= 1, "what is shared is in two places: {of_shared:?}");
        prop_assert!(plan.claims.iter().filter(|claim| claim.presumes_devices).count() <= 1);
    }

    #[test]
    fn a_crash_buys_no_device_twice(seed in any::<u64>()) {
        let mut draws = Draws(seed);
        let mut world = Equipped::draw(&mut draws);
        let (size, gpus) = (cpu(&mut draws, 3_000), usize::try_from(1 + draws.below(3)).unwrap());
        for number in 0..draws.below(8) {
            let waits = with_gpus(pod(&format!("waits-{number}"), "waits", size), gpus);
            world.cluster.pods.push(Arc::new(waits));
        }
        let planned = plan(&world.cluster);
        let most = usize::try_from(draws.below(planned.claims.len() as u64 + 1)).unwrap();
        for (number, wanted) in planned.claims[..most].iter().enumerate() {
            let is_launched = draws.percent(50);
            let made = written(&world.cluster, wanted, &format!("new-{number}"), is_launched);
            world.cluster.claims.push(Arc::new(made));
        }
        let again = plan(&world.cluster);
        prop_assert!(most + again.claims.len() <= planned.claims.len(), "{most} made, then {:?}", again.claims);
    }
}

#[test]
fn the_worlds_have_what_is_known_and_what_is_not() {
    let (mut known, mut presumed, mut nominated, mut refused) = (0, 0, 0, 0);
    for seed in 0..500 {
        let mut draws = Draws(seed);
        let mut world = Equipped::draw(&mut draws);
        for number in 0..4 {
            let waits = asks(&mut draws, number);
            world.cluster.pods.push(Arc::new(waits));
        }
        let plan = plan(&world.cluster);
        let is_known = |claim: &&solver::Claim| !claim.presumes_devices;
        known += plan.claims.iter().filter(is_known).count();
        presumed += plan.claims.iter().filter(|claim| claim.presumes_devices).count();
        nominated += plan.nominations.len();
        refused += plan.unschedulable.len();
    }
    let all = [known, presumed, nominated, refused];
    assert!(all.iter().all(|count| *count > 20), "known, presumed, there, refused: {all:?}");
}
