use super::*;

const LABEL: &str = "accelerator";

/// A group of machines with four GPUs of a type each.
fn with_gpus(cluster: Cluster, id: &str, kind: &str, count: u32) -> Cluster {
    let mut cluster = cluster.group(id, (0, 9), count);
    let equip = |node: &mut Node| {
        node.labels.insert(LABEL.to_owned(), kind.to_owned());
        node.allocatable.set("nvidia.com/gpu", 4);
    };
    equip(&mut cluster.input.templates.get_mut(id).unwrap().node);
    for number in 0..count {
        cluster = cluster.with_node(&format!("{id}-{number}"), equip);
    }
    cluster
}

fn wanting(mut cluster: Cluster, count: usize) -> Cluster {
    let before = cluster.input.pods.len();
    cluster = cluster.waiting(count, 100);
    for pod in &mut cluster.input.pods[before..] {
        Arc::make_mut(&mut Arc::make_mut(pod).shape).requests.set("nvidia.com/gpu", 4);
    }
    cluster
}

fn bounded(kind: &str, min: i64, max: i64) -> PassSettings {
    let mut settings = settings();
    settings.scale_up.max_gpus = [(kind.to_owned(), max)].into();
    settings.scale_down.min_gpus = [(kind.to_owned(), min)].into();
    settings.scale_down.gpu_label = LABEL.to_owned();
    settings
}

#[test]
fn no_more_gpus_of_a_type_come_than_are_allowed() {
    let t4 = || with_gpus(Cluster::default(), "t4", "t4", 1);
    let busy =
        |cluster: Cluster| cluster.running("t4-0", 100, |shape| shape.requests.set("nvidia.com/gpu", 4));
    let unready = busy(t4()).with_node("t4-0", |node| {
        node.allocatable.other.clear();
    });
    let cases = [
        ("without a limit of their type", bounded("a100", 0, 4), busy(t4()), vec![("t4", 4)]),
        ("with room for two", bounded("t4", 0, 12), busy(t4()), vec![("t4", 3)]),
        ("with room for none", bounded("t4", 0, 7), busy(t4()), vec![]),
        (
            "those on their way count",
            bounded("t4", 0, 12),
            busy(t4()).instance("t4", "new", false),
            vec![("t4", 3)],
        ),
        ("those that a node has yet to show count", bounded("t4", 0, 12), unready, vec![("t4", 3)]),
        (
            "another type may come",
            bounded("t4", 0, 4),
            with_gpus(busy(t4()), "a100", "a100", 0),
            vec![("a100", 3)],
        ),
    ];
    for (name, settings, cluster, wanted) in cases {
        let outcome = wanting(cluster, 3).pass(&mut Memory::default(), 0, &settings);
        assert_eq!(grown(&outcome), wanted, "{name}");
    }
    let outcome = wanting(busy(t4()), 1).pass(&mut Memory::default(), 0, &bounded("t4", 0, 4));
    let reason = &outcome.plan.refused[0].1[0].reason;
    assert_eq!(reason, "exceeded quota: \"cluster-wide\", resources: t4");
}

#[test]
fn no_fewer_gpus_of_a_type_stay_than_are_wanted() {
    for (min, wanted) in [(0, 3), (4, 2), (5, 1), (12, 0)] {
        let mut cluster = with_gpus(Cluster::default(), "t4", "t4", 3);
        let (mut memory, settings) = (Memory::default(), bounded("t4", min, 100));
        cluster.pass(&mut memory, 0, &settings);
        let outcome = cluster.pass(&mut memory, 30, &settings);
        assert_eq!(removed(&outcome).len(), wanted, "{min}");
        let kept = outcome.unremovable.iter();
        let kept = kept.filter(|it| it.reason == UnremovableReason::MinimalResourceLimitExceeded);
        assert_eq!(kept.count(), 3 - wanted, "{min}");
    }
}
