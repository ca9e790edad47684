use super::*;

/// Pods that are about to be made.
fn expecting(mut cluster: Cluster, count: usize, cpu: i64) -> Cluster {
    cluster.input.expected =
        (0..count).map(|number| Arc::new(pod(&format!("expected-{number}"), cpu))).collect();
    cluster
}

fn one() -> Cluster {
    Cluster::default().group("a", (0, 9), 1)
}

#[test]
fn nodes_are_asked_for_pods_that_do_not_exist_yet() {
    let cases = [
        ("they fit", one(), 4, vec![]),
        ("they do not", one(), 5, vec![("a", 2)]),
        ("pods that wait come first", one().waiting(4, 1000), 4, vec![("a", 2)]),
        ("a node on its way is enough", one().instance("a", "a-new", false), 8, vec![]),
        ("no group beyond its maximum", Cluster::default().group("a", (0, 2), 1), 40, vec![("a", 2)]),
    ];
    for (name, cluster, count, expected) in cases {
        let outcome = expecting(cluster, count, 1000).pass(&mut Memory::default(), 0, &settings());
        assert_eq!(grown(&outcome), expected, "{name}");
        let told = outcome.plan.helped.iter().map(|(pod, _)| pod).chain(&outcome.unschedulable);
        assert!(told.into_iter().all(|pod| pod.name.starts_with("waiting")), "{name}: nobody knows them");
    }
}

#[test]
fn pods_that_would_ask_for_nothing_are_not_expected() {
    let mut cluster = expecting(one(), 9, 1000);
    for pod in &mut cluster.input.expected {
        Arc::make_mut(&mut Arc::make_mut(pod).shape).priority = Some(-100);
    }
    assert_eq!(grown(&cluster.pass(&mut Memory::default(), 0, &settings())), []);
}

#[test]
fn nodes_stay_as_long_as_pods_are_expected_there() {
    let two = || Cluster::default().group("a", (0, 9), 2).running("a-0", 3000, |_| {});
    let removed_of = |mut cluster: Cluster| {
        let mut memory = Memory::default();
        cluster.pass(&mut memory, 0, &settings());
        let outcome = cluster.pass(&mut memory, 30, &settings());
        removed(&outcome).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(removed_of(two()), ["a-1"]);
    assert_eq!(removed_of(expecting(two(), 3, 1000)), [""; 0]);
    assert_eq!(removed_of(expecting(two(), 1, 1000)), ["a-1"], "they fit beside what runs");
}
