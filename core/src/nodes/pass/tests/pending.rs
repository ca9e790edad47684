//! Pods without a node, counted before anything is asked about them.

use super::*;

#[test]
fn pods_without_a_node_count_whether_or_not_they_ask_for_one() {
    let mut settings = settings();
    settings.pending.bypassed = vec!["own".to_owned()];
    let scheduler =
        |name: &'static str| move |pod: &mut Pod| Arc::make_mut(&mut pod.shape).scheduler = name.into();
    let mut cluster = Cluster::default()
        .group("workers", (0, 9), 1)
        .running("workers-0", 100, |_| {})
        .waiting(1, 100)
        .waiting(1, 9_000)
        .waiting(1, 100)
        .last_pod(|pod| Arc::make_mut(&mut pod.shape).priority = Some(i32::MIN))
        .waiting(1, 100)
        .last_pod(|pod| pod.deleting = Some(at(0)))
        .waiting(1, 100)
        .last_pod(|pod| pod.nominated = Some("workers-0".into()))
        .waiting(1, 100)
        .last_pod(|pod| pod.scheduled = Scheduled::Gated)
        .waiting(2, 100)
        .last_pod(|pod| pod.scheduled = Scheduled::NotTried)
        .last_pod(scheduler("own"))
        .waiting(1, 100)
        .last_pod(|pod| pod.scheduled = Scheduled::NotTried);
    let outcome = cluster.pass(&mut Memory::default(), 0, &settings);
    // One that fits, one that fits nowhere, an expendable one, and the first of two.
    assert_eq!(outcome.unplaced, Unplaced { unschedulable: 4, not_tried: 1 });
    assert_eq!(outcome.unschedulable.len(), 1);
    settings.pending.schedulers = vec!["own".to_owned()];
    let outcome = cluster.pass(&mut Memory::default(), 0, &settings);
    assert_eq!(outcome.unplaced, Unplaced { unschedulable: 0, not_tried: 1 });
}

#[test]
fn the_end_of_each_part_is_heard_of_in_turn() {
    let mut cluster = Cluster::default().group("workers", (0, 9), 1).running("workers-0", 100, |_| {});
    cluster.input.now = at(0);
    let (mut model, mut memory) = (Model::new(settings()), Memory::default());
    let mut parts = |cluster: &Cluster| {
        let mut ended = Vec::new();
        model.pass_in_parts(&mut memory, &cluster.input, &mut |_, _| None, &mut |part| ended.push(part));
        ended
    };
    assert_eq!(parts(&cluster), [Part::State, Part::ScaleUp, Part::ScaleDown]);
    for number in 1..6 {
        cluster = cluster.instance("workers", &format!("workers-{number}"), true);
    }
    let broken = |node: &mut Node| (node.ready, node.created) = (false, Some(at(-600)));
    let broken =
        (1..6).fold(cluster, |cluster, number| cluster.with_node(&format!("workers-{number}"), broken));
    assert_eq!(parts(&broken), [], "nothing is decided in a cluster that does not work");
}
