use super::*;
use crate::nodes::buffer::{self, Placement};

/// Room for so many pods of a size is kept.
fn keeping(mut cluster: Cluster, count: u32, cpu: i64) -> Cluster {
    cluster.input.expected = buffer::pods("ns", "spare", &pod("template", cpu).shape, count);
    cluster
}

fn placed(outcome: &Outcome) -> Placement {
    assert_eq!(outcome.buffers.len(), 1);
    assert_eq!(&*outcome.buffers[0].buffer, "ns/spare");
    outcome.buffers[0].placement
}

fn once(mut cluster: Cluster) -> Outcome {
    cluster.pass(&mut Memory::default(), 0, &settings())
}

#[test]
fn room_is_made_after_all_pods_have_theirs() {
    let of = |there, new, nowhere| Placement { there, new, nowhere };
    let one = || Cluster::default().group("a", (0, 9), 1);
    let cases = [
        ("there is room", keeping(one(), 2, 2000), vec![], of(2, 0, 0)),
        ("there is room for one", keeping(one(), 2, 4000), vec![("a", 2)], of(1, 1, 0)),
        (
            "a pod took it without asking",
            keeping(one().running("a-0", 1000, |_| {}), 2, 2000),
            vec![("a", 2)],
            of(1, 1, 0),
        ),
        ("a pod that waits takes it", keeping(one().waiting(4, 1000), 1, 4000), vec![("a", 2)], of(0, 1, 0)),
        (
            "what waits leaves room on a new node",
            keeping(one().waiting(5, 1000), 3, 1000),
            vec![("a", 2)],
            of(0, 3, 0),
        ),
        ("no group can", keeping(one(), 1, 5000), vec![], of(0, 0, 1)),
        (
            "pods come before room where there are few nodes to be had",
            keeping(
                Cluster::default().group("a", (0, 2), 1).running("a-0", 4000, |_| {}).waiting(1, 1000),
                2,
                4000,
            ),
            vec![("a", 2)],
            of(0, 0, 2),
        ),
    ];
    for (name, cluster, wanted, placement) in cases {
        let outcome = once(cluster);
        assert_eq!(grown(&outcome), wanted, "{name}");
        assert_eq!(placed(&outcome), placement, "{name}");
        let told = outcome.plan.helped.iter().map(|(pod, _)| pod).chain(&outcome.unschedulable);
        assert!(
            told.into_iter().all(|pod| pod.name.starts_with("waiting")),
            "{name}: no pod is there to be told"
        );
    }
}

#[test]
fn it_is_said_which_groups_grow_for_room_and_why_none_can() {
    let one = || Cluster::default().group("a", (0, 9), 0);
    let helped = once(keeping(one(), 1, 4000));
    assert_eq!(helped.buffers[0].groups, ["a".into()]);
    let refused = once(keeping(one(), 1, 5000));
    let refusal = Refusal { group: "a".into(), reason: "Insufficient cpu".to_owned() };
    assert_eq!(*refused.buffers[0].refusals, [refusal]);
}

#[test]
fn nodes_stay_as_long_as_room_is_kept_there() {
    let two = || Cluster::default().group("a", (0, 9), 2).running("a-0", 3000, |_| {});
    let removed_of = |mut cluster: Cluster| {
        let mut memory = Memory::default();
        cluster.pass(&mut memory, 0, &settings());
        let outcome = cluster.pass(&mut memory, 30, &settings());
        removed(&outcome).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(removed_of(two()), ["a-1"]);
    assert_eq!(removed_of(keeping(two(), 3, 1000)), [""; 0]);
    assert_eq!(removed_of(keeping(two(), 1, 1000)), ["a-1"], "there is room beside what runs");
}
