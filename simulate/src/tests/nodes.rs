use super::*;
use crate::outcome::{Event, ObjectOutcome};

fn reasons(outcome: &Outcome) -> Vec<&str> {
    outcome.events.iter().map(|event| event.reason.as_str()).collect()
}

fn of_reason<'a>(outcome: &'a Outcome, reason: &str) -> Vec<&'a Event> {
    outcome.events.iter().filter(|event| event.reason == reason).collect()
}

#[test]
fn nodes_come_for_pods_that_wait_and_go_when_nobody_needs_them() {
    let load = history(&[(0, Some(15.0)), (600, Some(155.0)), (2400, Some(15.0))], 7200);
    let manifests = vec![
        deployment("web", 2),
        scaled_object("web", &json!({"minReplicaCount": 1})),
        node_group("general", (1, 10), "2", 0.1),
    ];
    let outcome = play(manifests, &load);
    let (object, nodes) = (&outcome.objects[0], &outcome.nodes.types[0]);
    let at =
        |second: usize| (object.ready[second / 15], object.pending[second / 15], nodes.ready[second / 15]);
    // A node takes four pods of half a core.
    assert_eq!(at(585), (2, 0, 1));
    assert!(object.pending.iter().any(|pending| *pending > 0), "pods wait for nodes");
    assert!(nodes.starting.iter().any(|starting| *starting > 0), "nodes take their time");
    assert_eq!(at(2385), (16, 0, 4));
    assert_eq!(at(7185), (2, 0, 1));
    let summary = &outcome.summary;
    assert_eq!((summary.nodes_added, summary.nodes_removed), (3, 3));
    let dollars = summary.cost.unwrap();
    assert!((dollars - summary.node_hours * 0.1).abs() < 1e-9, "{dollars} for {}", summary.node_hours);
    assert!(object.summary.pending_pod_seconds > 0);
    let reasons: Vec<_> = outcome.events.iter().map(|event| &*event.reason).collect();
    assert!(reasons.contains(&"ScaledUpGroup") && reasons.contains(&"ScaleDownEmpty"), "{reasons:?}");
}

#[test]
fn a_full_group_leaves_pods_waiting_and_says_why() {
    let load = history(&[(0, Some(95.0))], 1800);
    let manifests =
        vec![deployment("web", 1), scaled_object("web", &json!({})), node_group("small", (0, 1), "2", 0.1)];
    let outcome = play(manifests, &load);
    let object = &outcome.objects[0];
    assert_eq!((object.running.last(), object.pending.last()), (Some(&4), Some(&6)));
    let refused = outcome.events.iter().find(|event| event.reason == "NotTriggerScaleUp").unwrap();
    assert!(refused.message.contains("max"), "{}", refused.message);
}

#[test]
fn pods_that_are_about_to_be_asked_for_find_their_nodes_sooner() {
    let load = history(&[(0, Some(15.0)), (600, Some(305.0))], 2400);
    let groups = node_group("general", (1, 20), "2", 0.1);
    let pool = node_pool("spot", &json!({}));
    for (nodes, reason) in [(groups, "ScaledUpGroup"), (pool, "Launched")] {
        let input = input(
            vec![deployment("web", 2), scaled_object("web", &json!({"minReplicaCount": 1})), nodes],
            &load,
        );
        let play = |max_expected_pods| {
            let outcome = run(&input, &Options { max_expected_pods, ..Options::default() }).unwrap();
            let reasons: Vec<_> = outcome.events.iter().map(|event| event.reason.clone()).collect();
            (outcome.objects[0].clone(), reasons)
        };
        let ((with, reasons), (without, quiet)) = (play(100), play(0));
        assert_eq!((with.ready.last(), without.ready.last()), (Some(&31), Some(&31)), "{reason}");
        let seconds = |object: &ObjectOutcome| object.summary.spike_to_capacity_seconds;
        // The HPA doubles the count three times, each 15 s after the other.
        assert!(seconds(&with) + 15 <= seconds(&without), "{} and {}", seconds(&with), seconds(&without));
        assert!(with.summary.pending_pod_seconds < without.summary.pending_pod_seconds, "{reason}");
        let place = |wanted: &str| reasons.iter().position(|reason| reason == wanted);
        let (expected, grown) = (place("PodsExpected"), reasons.iter().rposition(|known| known == reason));
        assert!(expected.is_some() && expected < grown, "{reasons:?}");
        assert!(!reasons.contains(&"ExpectedPodsMissing".to_owned()), "{reasons:?}");
        assert!(!quiet.contains(&"PodsExpected".to_owned()), "{quiet:?}");
    }
}

/// A pool of spot machines whose template says more.
fn node_pool(name: &str, more: &Value) -> Manifest {
    let mut value = json!({
        "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": name},
        "spec": {
            "template": {"spec": {
                "nodeClassRef": {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default"},
                "requirements": [
                    {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]},
                    {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
                ],
            }},
            "disruption": {"consolidationPolicy": "WhenEmptyOrUnderutilized", "consolidateAfter": "1m"},
        },
    });
    let spec = value["spec"]["template"]["spec"].as_object_mut().unwrap();
    spec.extend(more.as_object().cloned().unwrap_or_default());
    manifest(value)
}

#[test]
fn node_pools_make_nodes_for_pods_and_give_them_back() {
    let load = history(&[(0, Some(15.0)), (600, Some(155.0)), (2400, Some(15.0))], 7200);
    let pool = node_pool("spot", &json!({}));
    let outcome =
        play(vec![deployment("web", 2), scaled_object("web", &json!({"minReplicaCount": 1})), pool], &load);
    let object = &outcome.objects[0];
    assert_eq!((object.ready[585 / 15], object.ready[2385 / 15], object.ready[7185 / 15]), (2, 16, 2));
    let nodes = |second: usize| outcome.nodes.types.iter().map(|kind| kind.ready[second / 15]).sum::<u32>();
    let cost = |second: usize| outcome.nodes.cost_per_hour[second / 15];
    assert!(nodes(585) >= 1 && nodes(2385) >= 1, "{:?}", outcome.nodes.types);
    assert!(cost(2385) > 3.0 * cost(585), "{} after {}", cost(2385), cost(585));
    assert!(cost(7185) < cost(2385) / 3.0, "{} after {}", cost(7185), cost(2385));
    assert!(outcome.nodes.types.iter().all(|kind| kind.name.ends_with(" spot")));
    assert!(outcome.summary.nodes_removed >= 1);
    let reasons: BTreeMap<&str, usize> = outcome.events.iter().fold(BTreeMap::new(), |mut counts, event| {
        *counts.entry(&*event.reason).or_default() += 1;
        counts
    });
    assert!(reasons.contains_key("Launched") && reasons.contains_key("DisruptionTerminating"), "{reasons:?}");
}

/// A Deployment of so many pods of half a core, with a priority class.
fn of_class(name: &str, replicas: u32, class: &str) -> Manifest {
    let mut input = Input { manifests: vec![deployment(name, replicas)], ..Input::default() };
    input.set("Deployment", name, "spec.template.spec.priorityClassName", &json!(class)).unwrap();
    input.manifests.remove(0)
}

fn priority_class(name: &str, value: i32) -> Manifest {
    manifest(json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value,
    }))
}

#[test]
fn pods_of_a_higher_priority_take_the_place_of_others() {
    let load = history(&[(0, Some(5.0)), (600, Some(35.0))], 1800);
    let budget = |app: &str| {
        manifest(json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": app, "namespace": "shop"},
            "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": app}}},
        }))
    };
    // Two nodes of four pods; one pod of the shop, three of each batch, one of which nobody may disturb.
    let manifests = vec![
        priority_class("high", 1000),
        of_class("web", 1, "high"),
        scaled_object("web", &json!({"minReplicaCount": 1})),
        deployment("held", 3),
        budget("held"),
        deployment("free", 3),
        node_group("small", (2, 2), "2", 0.1),
    ];
    let outcome = play(manifests, &load);
    let web = &outcome.objects[0];
    assert_eq!((web.ready.last(), web.summary.pending_pod_seconds), (Some(&4), 0));
    let preempted = of_reason(&outcome, "Preempted");
    assert_eq!(preempted.len(), 2, "one place was free: {preempted:?}");
    assert!(preempted.iter().all(|event| event.object.starts_with("Pod shop/free-")), "{preempted:?}");
    assert!(preempted[0].message.starts_with("Preempted by pod shop/web"), "{preempted:?}");
    assert!(reasons(&outcome).contains(&"NotTriggerScaleUp"), "they wait for a node that cannot come");
}

#[test]
fn spot_machines_are_taken_back_at_times_that_a_seed_tells() {
    let load = history(&[(0, Some(155.0))], 4 * 3600);
    let input = input(
        vec![
            deployment("web", 16),
            scaled_object("web", &json!({"minReplicaCount": 1})),
            node_pool("spot", &json!({})),
        ],
        &load,
    );
    let play = |rate, seed| {
        let options = Options { spot_interruptions_per_day: rate, seed, ..Options::default() };
        run(&input, &options).unwrap()
    };
    assert_eq!(of_reason(&play(0.0, 1), "SpotInterrupted"), Vec::<&Event>::new());
    let (one, again, other) = (play(48.0, 1), play(48.0, 1), play(48.0, 2));
    assert_eq!(serde_json::to_string(&one).unwrap(), serde_json::to_string(&again).unwrap());
    assert_ne!(of_reason(&one, "SpotInterrupted"), of_reason(&other, "SpotInterrupted"));
    let taken = of_reason(&one, "SpotInterrupted");
    // Each node twice an hour.
    let per_node_hour = f64::from(u32::try_from(taken.len()).unwrap()) / one.summary.node_hours;
    assert!((1.0..3.0).contains(&per_node_hour), "{per_node_hour}: {taken:?}");
    assert!(taken[0].object.starts_with("NodeClaim spot-") && taken[0].kind == "Warning", "{taken:?}");
    assert!(of_reason(&one, "Launched").len() >= taken.len(), "each has another in its place");
    let web = &one.objects[0];
    assert!(web.ready.iter().any(|ready| *ready < 16) && web.ready[240..].contains(&16), "{:?}", web.ready);
    for point in 0..one.axis.points {
        assert_eq!(web.running[point] + web.pending[point], web.wanted[point]);
    }
}

#[test]
fn claims_end_when_they_have_lived_long_enough() {
    let load = history(&[(0, Some(15.0))], 4 * 3600);
    let pool = node_pool("short", &json!({"expireAfter": "1h"}));
    let outcome =
        play(vec![deployment("web", 2), scaled_object("web", &json!({"minReplicaCount": 1})), pool], &load);
    let expired = of_reason(&outcome, "Expired");
    assert_eq!(expired.len(), 3, "{:?}", reasons(&outcome));
    let seconds = expired[1].at.duration_since(expired[0].at).as_secs();
    assert!((3600..3620).contains(&seconds), "{seconds}");
    assert_eq!(outcome.objects[0].ready.last(), Some(&2));
}

#[test]
fn overlays_decide_what_machines_cost() {
    let load = history(&[(0, Some(15.0))], 1800);
    let overlay = |name: &str, spec: &Value| {
        let mut spec = spec.clone();
        let own = "m-4x-amd64-linux";
        spec["requirements"] =
            json!([{"key": "node.kubernetes.io/instance-type", "operator": "In", "values": [own]}]);
        manifest(json!({
            "apiVersion": "karpenter.sh/v1alpha1", "kind": "NodeOverlay", "metadata": {"name": name}, "spec": spec,
        }))
    };
    let world = |overlays: Vec<Manifest>| {
        let object = scaled_object("web", &json!({"minReplicaCount": 1}));
        let mut manifests = vec![deployment("web", 2), object, node_pool("spot", &json!({}))];
        manifests.extend(overlays);
        input(manifests, &load)
    };
    let outcome =
        run(&world(vec![overlay("cheap", &json!({"price": "0.001"}))]), &Options::default()).unwrap();
    let names: Vec<_> = outcome.nodes.types.iter().map(|kind| kind.name.as_str()).collect();
    assert_eq!(names, ["m-4x-amd64-linux spot"]);
    assert!((outcome.nodes.cost_per_hour.last().unwrap() - 0.001).abs() < 1e-9);
    assert!(!outcome.notes.iter().any(|note| note.contains("NodeOverlay")), "{:?}", outcome.notes);
    let twice = vec![overlay("a", &json!({"price": "1"})), overlay("b", &json!({"price": "2"}))];
    let wrong = run(&world(twice), &Options::default()).unwrap_err();
    let said = wrong[0].to_string();
    assert!(said.contains("/a: spec: conflict with another overlay: \"b\""), "{said}");
}

#[test]
fn a_provisioner_is_the_pool_that_followed_it() {
    let load = history(&[(0, Some(15.0)), (600, Some(95.0))], 1800);
    let provisioner = |spec: Value| {
        manifest(json!({
            "apiVersion": "karpenter.sh/v1alpha5", "kind": "Provisioner", "metadata": {"name": "old"}, "spec": spec,
        }))
    };
    let template = manifest(json!({
        "apiVersion": "karpenter.k8s.aws/v1alpha1", "kind": "AWSNodeTemplate", "metadata": {"name": "default"},
        "spec": {"subnetSelector": {"team": "shop"}, "securityGroupSelector": {"team": "shop"}},
    }));
    let world = |spec: Value| {
        let object = scaled_object("web", &json!({"minReplicaCount": 1}));
        input(vec![deployment("web", 2), object, template.clone(), provisioner(spec)], &load)
    };
    let spec = json!({"providerRef": {"name": "default"}, "consolidation": {"enabled": true}});
    let outcome = run(&world(spec), &Options::default()).unwrap();
    assert_eq!(outcome.objects[0].ready.last(), Some(&10));
    assert!(
        outcome.nodes.types.iter().all(|kind| kind.name.ends_with(" on-demand")),
        "{:?}",
        outcome.nodes.types
    );
    assert!(!outcome.notes.iter().any(|note| note.contains("without effect")), "{:?}", outcome.notes);
    let wrong = run(&world(json!({"providerRef": {"name": "gone"}})), &Options::default()).unwrap_err();
    assert!(wrong[0].to_string().contains("there is no AWSNodeTemplate \"gone\""), "{}", wrong[0]);
}
