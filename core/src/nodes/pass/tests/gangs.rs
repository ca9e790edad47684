use proptest::prelude::*;

use super::{super::explain, *};
use crate::scheduling::Surroundings;

/// A cluster that knows how many pods each gang takes.
fn knowing(mut cluster: Cluster, gangs: &[(&str, u32)]) -> Cluster {
    let gangs = gangs.iter().map(|(name, needed)| (("".into(), (*name).into()), *needed)).collect();
    cluster.input.surroundings = Arc::new(Surroundings { gangs, ..Surroundings::default() });
    cluster
}

/// Adds pods of a gang that wait.
fn gang(mut cluster: Cluster, name: &str, count: usize, cpu: i64) -> Cluster {
    let before = cluster.input.pods.len();
    cluster = cluster.waiting(count, cpu);
    for pod in &mut cluster.input.pods[before..] {
        Arc::make_mut(pod).gang = Some(name.into());
    }
    cluster
}

fn member(mut cluster: Cluster, name: &str, node: &str, cpu: i64) -> Cluster {
    cluster = cluster.running(node, cpu, |_| {});
    Arc::make_mut(cluster.input.pods.last_mut().unwrap()).gang = Some(name.into());
    cluster
}

fn once(mut cluster: Cluster) -> Outcome {
    cluster.pass(&mut Memory::default(), 0, &settings())
}

#[test]
fn nodes_are_asked_for_whole_gangs_only() {
    let up_to = |max| Cluster::default().group("a", (0, max), 1);
    let cases = [
        ("all fit", knowing(gang(up_to(9), "g", 4, 3000), &[("g", 4)]), vec![("a", 4)]),
        ("three of four fit", knowing(gang(up_to(3), "g", 4, 3000), &[("g", 4)]), vec![]),
        ("three are enough", knowing(gang(up_to(3), "g", 4, 3000), &[("g", 3)]), vec![("a", 3)]),
        (
            "one runs already",
            knowing(gang(member(up_to(4), "g", "a-0", 3000), "g", 3, 3000), &[("g", 4)]),
            vec![("a", 4)],
        ),
        ("one is not there yet", knowing(gang(up_to(9), "g", 3, 3000), &[("g", 4)]), vec![]),
        ("nobody knows how many it takes", gang(up_to(3), "g", 4, 3000), vec![("a", 3)]),
        (
            "others have what a gang cannot use",
            knowing(gang(up_to(3), "g", 4, 3000).waiting(2, 3000), &[("g", 4)]),
            vec![("a", 2)],
        ),
        (
            "of two gangs one, rather than half of each",
            knowing(gang(gang(up_to(4), "g", 4, 3000), "h", 4, 2500), &[("g", 4), ("h", 4)]),
            vec![("a", 4)],
        ),
    ];
    for (name, cluster, wanted) in cases {
        assert_eq!(grown(&once(cluster)), wanted, "{name}");
    }
}

#[test]
fn a_pod_is_told_what_its_gang_lacks() {
    let cluster = Cluster::default().group("a", (0, 3), 1);
    let outcome = once(knowing(gang(cluster, "g", 4, 3000), &[("g", 4)]));
    assert_eq!((outcome.unschedulable.len(), outcome.fitting), (4, 0));
    let reasons = |at: usize| {
        let (_, refusals) = &outcome.plan.refused[at];
        refusals.iter().map(|refusal| refusal.reason.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(reasons(0), ["gang group g: 3 of 4 pods fit"]);
    assert_eq!(reasons(3), ["gang group g: 3 of 4 pods fit", "max node group size reached"]);
    let told = crate::nodes::reasons::not_trigger_scale_up(&outcome.plan.refused[0].1);
    assert_eq!(told.message, "pod didn't trigger scale-up: 1 gang group g: 3 of 4 pods fit");
}

/// Two nodes are there, two more on their way, or never.
fn half_there(max: u32, coming: bool) -> Cluster {
    let mut cluster = Cluster::default().group("a", (0, max), 2);
    if coming {
        cluster = cluster.instance("a", "a-2", false).instance("a", "a-3", false);
    }
    knowing(gang(cluster, "g", 4, 3000), &[("g", 4)])
}

#[test]
fn a_gang_keeps_the_nodes_that_it_waits_for() {
    let unneeded = |cluster: Cluster| {
        let outcome = once(cluster);
        assert_eq!(grown(&outcome), vec![]);
        outcome.unneeded.iter().map(|unneeded| unneeded.node.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(unneeded(half_there(4, true)), [""; 0], "the others come");
    assert_eq!(unneeded(half_there(3, false)), ["a-0", "a-1"], "the others never come");
}

#[test]
fn a_member_moves_only_where_it_has_a_place() {
    let running = |room: i64| {
        let cluster = Cluster::default().group("a", (0, 9), 2);
        let cluster = member(member(cluster, "g", "a-0", 1000), "g", "a-1", 1000);
        knowing(cluster.running("a-1", 3000 - room, |_| {}), &[("g", 2)])
    };
    let stays = |cluster: Cluster| {
        let outcome = once(cluster);
        outcome.unneeded.iter().all(|unneeded| &*unneeded.node != "a-0")
    };
    assert_eq!([0, 1000].map(|room| stays(running(room))), [true, false]);
}

#[test]
fn a_gang_that_is_disrupted_as_a_whole_keeps_its_nodes() {
    let cluster = Cluster::default().group("a", (0, 9), 3);
    let cluster = member(member(cluster, "g", "a-0", 1000), "g", "a-1", 1000);
    let mut cluster = knowing(cluster, &[("g", 2)]);
    Arc::make_mut(&mut cluster.input.surroundings).undivided.insert(("".into(), "g".into()));
    let outcome = once(cluster);
    let names: Vec<_> = outcome.unneeded.iter().map(|unneeded| &*unneeded.node).collect();
    assert_eq!(names, ["a-2"]);
    let kept = outcome.unremovable.iter().filter(|kept| kept.reason == UnremovableReason::DividesGang);
    assert_eq!(kept.map(|kept| &*kept.node).collect::<Vec<_>>(), ["a-0", "a-1"]);
}

#[test]
fn explanations_name_the_gang() {
    let explained = |cluster: &Cluster| {
        let (memory, settings) = (Memory::default(), settings());
        let pod = explain::pod(cluster.input.pods.last().unwrap(), &memory, &cluster.input, &settings);
        let node = explain::node(&cluster.input.nodes[0], &memory, &cluster.input, &settings);
        (pod.gang.map(|gang| (gang.to_string(), gang.lacks())), node.gangs)
    };
    assert_eq!(explained(&half_there(4, true)), (None, vec!["/g".to_owned()]));
    let lacks = |fit: u32| Some((format!("gang group g: {fit} of 4 pods fit"), 4 - fit));
    assert_eq!(explained(&half_there(3, false)), (lacks(3), vec![]));
    let alone = knowing(gang(Cluster::default().group("a", (0, 9), 1), "g", 1, 3000), &[("g", 4)]);
    assert_eq!(explained(&alone), (lacks(1), vec![]), "three pods are not there yet");
}

proptest! {
    #[test]
    fn no_part_of_a_gang_gets_nodes(
        gangs in prop::collection::vec((1..5_u32, prop::collection::vec(prop::bool::ANY, 0..5), 500..4000_i64), 1..5),
        others in prop::collection::vec(500..4000_i64, 0..4),
        (nodes, max) in (0..3_u32, 0..8_u32),
    ) {
        let names = ["g", "h", "i", "j"];
        let mut cluster = Cluster::default().group("a", (0, max), nodes.min(max));
        for (name, (_, members, cpu)) in names.iter().zip(&gangs) {
            for bound in members {
                cluster = match bound {
                    true if nodes.min(max) > 0 => member(cluster, name, "a-0", 0),
                    _ => gang(cluster, name, 1, *cpu),
                };
            }
        }
        for cpu in others {
            cluster = cluster.waiting(1, cpu);
        }
        let known: Vec<_> = names.iter().zip(&gangs).map(|(name, (needed, ..))| (*name, *needed)).collect();
        let cluster = knowing(cluster, &known);
        let outcome = once(cluster.clone());
        let refused: Vec<_> = outcome.plan.refused.iter().map(|(pod, _)| pod.name.clone()).collect();
        for (name, needed) in known {
            let of_gang = || cluster.input.pods.iter().filter(|pod| pod.gang.as_deref() == Some(name));
            let helped = outcome.plan.helped.iter().any(|(pod, _)| pod.gang.as_deref() == Some(name));
            let fit = of_gang().filter(|pod| !refused.contains(&pod.name)).count();
            prop_assert!(!helped || fit >= needed as usize, "{name}: {fit} of {needed}");
        }
        let answered = outcome.plan.helped.len() + refused.len();
        prop_assert_eq!(outcome.unschedulable.len(), answered, "each is answered once");
        prop_assert_eq!(outcome, once(cluster), "the same again");
    }
}
