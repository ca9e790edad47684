//! Claims of devices on nodes to come.

use super::*;
use crate::{
    nodes::{
        pools::testing::{devices as objects, naming_gpu, slice, with_gpus, with_shared_gpu},
        told::Learned,
    },
    scheduling::devices::{PodClaim, Slice},
};

/// A pool of which machines with so many cores have told that they have so many devices, long ago.
fn told<'a>(types: &'a [Arc<InstanceType>], known: &[(&str, usize)]) -> Pool<'a> {
    let mut published = objects();
    let mut nodes = Vec::new();
    for (of_type, count) in known {
        let labels = [(NODE_POOL, "default"), (INSTANCE_TYPE, of_type)];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        nodes.push(Arc::new(Node { name: (*of_type).into(), labels, ready: true, ..Node::default() }));
        let slice: Arc<Slice> = slice(of_type, *count);
        if *count > 0 {
            published.slices.insert(slice.name.clone(), slice);
        }
    }
    let mut memory = Learned::default();
    let surroundings = Surroundings { devices: Some(Arc::new(published)), ..Surroundings::default() };
    memory.learn(&nodes, &surroundings, Timestamp::UNIX_EPOCH);
    let told = memory.of("default");
    let outfits = Some(Outfits::new(&told.devices, types));
    Pool { told, outfits, ..pool("default", types) }
}

fn solved(pools: &[Pool<'_>], pods: &[Pod]) -> Solution {
    let surroundings = Surroundings { devices: Some(Arc::new(objects())), ..Surroundings::default() };
    solve(&mut Snapshot::new(Arc::new(surroundings)), pools, pods, Options::default())
}

/// The pods and the instance types of each claim.
fn shown(solution: &Solution) -> Vec<(usize, Vec<&str>)> {
    let claims = solution.claims.iter();
    claims.map(|claim| (claim.pods.len(), claim.types.iter().map(|it| &*it.name).collect())).collect()
}

fn asking(cpu: i64, count: usize, gpus: usize) -> Vec<Pod> {
    pods(shape("a", cpu), count).into_iter().map(|pod| with_gpus(pod, gpus)).collect()
}

#[test]
fn a_node_has_the_devices_of_all_its_pods() {
    let types = types();
    let known = [("amd64-1", 0), ("amd64-2", 1), ("amd64-4", 1), ("amd64-8", 4)];
    let small = shape("a", 100);
    let one = |count| asking(100, count, 1);
    let shared = |count| -> Vec<_> { pods(small.clone(), count).into_iter().map(with_shared_gpu).collect() };
    let naming = |count| -> Vec<_> { pods(small.clone(), count).into_iter().map(naming_gpu).collect() };
    let plain = |count| pods(small.clone(), count);
    let (two, four, eight) = ("amd64-2", "amd64-4", "amd64-8");
    let table = [
        ("one", one(1), vec![(1, vec![two, four, eight])]),
        (
            "one each: a node of four devices costs more than two of one",
            one(2),
            vec![(1, vec![two, four, eight]), (1, vec![two, four, eight])],
        ),
        ("two at once", asking(100, 1, 2), vec![(1, vec![eight])]),
        ("more than any has", asking(100, 1, 5), vec![]),
        ("one that all share", shared(3), vec![(3, vec![two, four, eight])]),
        ("by the name of a resource", naming(1), vec![(1, vec![two, four, eight])]),
        ("beside pods that ask for none", [one(1), plain(2)].concat(), vec![(3, vec![two, four, eight])]),
    ];
    for (name, pods, wanted) in table {
        let solution = solved(&[told(&types, &known)], &pods);
        assert_eq!(shown(&solution), wanted, "{name}: {:?}", solution.failures);
        assert!(solution.claims.iter().all(|claim| !claim.presumes_devices), "{name}");
        let placed = wanted.iter().map(|(pods, _)| pods).sum::<usize>();
        assert_eq!(solution.failures.len(), pods.len() - placed, "{name}");
        assert!(solution.claims.iter().all(|claim| claim.requests.other.is_empty()), "{name}");
    }
}

#[test]
fn pods_fill_the_devices_of_a_node() {
    let types = types();
    let pool = told(&types, &[("amd64-2", 0), ("amd64-4", 0), ("amd64-8", 4)]);
    let solution = solved(std::slice::from_ref(&pool), &asking(100, 6, 1));
    assert_eq!(shown(&solution), [(4, vec!["amd64-8"]), (2, vec!["amd64-8"])]);
    // Those that share a device count once, wherever they come in between.
    let small = pods(shape("b", 50), 9).into_iter().map(with_shared_gpu);
    let solution = solved(&[pool], &[asking(100, 3, 1), small.collect()].concat());
    assert_eq!(shown(&solution), [(12, vec!["amd64-8"])]);
}

#[test]
fn what_nobody_knows_is_tried_once() {
    let types = types();
    let tried = |known: &[(&str, usize)], pods: &[Pod]| solved(&[told(&types, known)], pods);
    let solution = tried(&[], &asking(100, 3, 1));
    assert_eq!(solution.claims.len(), 1, "one node tells for all");
    assert!(solution.claims[0].presumes_devices);
    assert_eq!((solution.claims[0].pods.len(), solution.claims[0].types.len()), (1, types.len()));
    let why = solution.failures[0].to_string();
    assert!(why.contains("until one that is on its way tells"), "{why}");

    // It is not presumed where something is known that will do.
    let solution = tried(&[("arm64-8", 2)], &asking(100, 1, 1));
    assert_eq!(shown(&solution), [(1, vec!["arm64-8"])]);
    let solution = tried(&[("arm64-8", 2)], &asking(100, 1, 3));
    assert_eq!(solution.claims[0].types.len(), types.len() - 1);

    // While one is on its way, no other is tried; when three have told, no other is presumed to have more.
    let mut pool = told(&types, &[("amd64-1", 0)]);
    pool.outfits.as_mut().unwrap().is_tried = true;
    assert!(solved(&[pool], &asking(100, 1, 1)).claims.is_empty());
    let nowhere = tried(&[("amd64-1", 0), ("amd64-2", 1), ("amd64-4", 1)], &asking(100, 1, 2));
    assert!(nowhere.claims.is_empty());
    assert!(nowhere.failures[0].to_string().contains("cannot allocate all claims"), "{nowhere:?}");
}

#[test]
fn claims_that_cannot_be_judged_get_no_node() {
    let types = types();
    let mut asking = pods(shape("a", 100), 1);
    let claim = PodClaim::Own { template: "t".into(), name: None };
    asking[0].device_claims = vec![claim];
    let refused = |pool, devices| {
        let mut snapshot = Snapshot::new(Arc::new(Surroundings { devices, ..Surroundings::default() }));
        let solution = solve(&mut snapshot, &[pool], &asking, Options::default());
        solution.failures[0].to_string()
    };
    let known = || told(&types, &[("amd64-2", 1)]);
    assert!(refused(known(), None).contains("cannot be judged: claims of devices (resource.k8s.io/v1)"));
    let mut there = objects();
    let missing = refused(known(), Some(Arc::new(there.clone())));
    assert!(missing.contains("resourceclaimtemplate \"t\" not found"), "{missing}");
    let request = there.templates.values().next().unwrap().clone();
    there.templates.insert(("default".into(), "t".into()), request);
    let ignored = refused(pool("default", &types), Some(Arc::new(there)));
    assert!(ignored.contains("Dynamic Resource Allocation requirements"), "{ignored}");
}
