//! What kubelets and drivers say of nodes, and what nobody knows of nodes to come.

use std::sync::Arc;

use k8s_openapi::{
    api::{core::v1 as k8s, storage::v1::CSIStorageCapacity},
    apimachinery::pkg::api::resource::Quantity,
};
use serde_json::{Value, json};
use tandem_core::scheduling::{
    Declared, Node, Pod, Presumed, Reason, Resources, Snapshot, Surroundings,
    pod::Traits,
    room_after,
    surroundings::{Capacity, Claim, Driver, StorageClass, Volume},
};

const GIB: i64 = 1 << 30;
const NODE_KEY: &str = "topology.example.com/node";
const ZONE: &str = "topology.kubernetes.io/zone";

fn capacity(topology: &Value, gib: Option<i64>) -> Capacity {
    let capacity = CSIStorageCapacity {
        storage_class_name: "fast".to_owned(),
        node_topology: serde_json::from_value(topology.clone()).expect("a label selector"),
        capacity: gib.map(|gib| Quantity(format!("{gib}Gi"))),
        ..CSIStorageCapacity::default()
    };
    Capacity::read(&capacity).1
}

/// A claim of 2 GiB of a class whose driver has this much room.
fn world(capacities: Vec<Capacity>) -> Surroundings {
    let mut world = Surroundings::default();
    let claim = Claim { class: Some("fast".into()), bytes: 2 * GIB, ..Claim::default() };
    world.claims.insert(("n".into(), "data".into()), claim);
    let class =
        StorageClass { provisioner: "csi".into(), waits_for_consumer: true, ..StorageClass::default() };
    world.classes.insert("fast".into(), class);
    world.drivers.insert("csi".into(), Driver { tells_capacity: true, has_to_run: false });
    world.capacities.insert("fast".into(), capacities);
    world
}

fn pod() -> Pod {
    let traits = Traits { namespace: "n".into(), ..Traits::default() };
    Pod { shape: Arc::new(traits.into()), claims: vec!["data".into()], ..Pod::default() }
}

fn node(name: &str, declared: Declared) -> Node {
    let labels = [(ZONE, "z1"), (NODE_KEY, name)].map(|(key, value)| (key.to_owned(), value.to_owned()));
    Node {
        name: name.into(),
        labels: labels.into(),
        allocatable: Resources { pods: 10, ..Resources::default() },
        declared: Arc::new(declared),
        ..Node::default()
    }
}

/// What is known of a node whose driver runs.
fn known() -> Declared {
    Declared { drivers: Some(["csi".into()].into()), ..Declared::default() }
}

#[test]
fn a_volume_is_made_where_its_driver_has_room() {
    let here = json!({"matchLabels": {NODE_KEY: "a"}});
    let zone = json!({"matchLabels": {ZONE: "z1"}});
    let exists = json!({"matchExpressions": [{"key": ZONE, "operator": "Exists"}]});
    let no = || Err(Reason::NoRoom);
    // Who is told of: a node whose driver runs, and one of which nobody knows anything.
    let cases = [
        ("nobody tells", vec![], no(), Ok(())),
        ("on the node", vec![capacity(&here, Some(2))], Ok(()), Ok(())),
        ("too little", vec![capacity(&here, Some(1))], no(), no()),
        ("cannot be told now", vec![capacity(&here, None)], no(), no()),
        ("in its zone", vec![capacity(&zone, Some(2))], Ok(()), Ok(())),
        ("in any zone", vec![capacity(&exists, Some(2))], Ok(()), Ok(())),
        ("everywhere", vec![capacity(&json!({}), Some(2))], Ok(()), Ok(())),
        ("nowhere", vec![capacity(&Value::Null, Some(2))], no(), Ok(())),
        ("one of two", vec![capacity(&here, Some(1)), capacity(&zone, Some(9))], Ok(()), Ok(())),
        ("elsewhere", vec![capacity(&json!({"matchLabels": {NODE_KEY: "b"}}), Some(9))], no(), Ok(())),
    ];
    for (name, capacities, of_known, of_unknown) in cases {
        for (declared, wanted) in [(known(), of_known), (Declared::default(), of_unknown)] {
            let mut snapshot = Snapshot::new(Arc::new(world(capacities.clone())));
            let id = snapshot.add_node(&node("a", declared));
            let class = snapshot.class(&pod());
            assert_eq!(snapshot.check(class, id), wanted, "{name}");
            assert_eq!(snapshot.find(class, None).is_some(), wanted.is_ok(), "{name}");
        }
    }
}

#[test]
fn who_does_not_tell_has_room() {
    let mut world = world(Vec::new());
    world.drivers.clear();
    let mut snapshot = Snapshot::new(Arc::new(world));
    let id = snapshot.add_node(&node("a", known()));
    let class = snapshot.class(&pod());
    assert_eq!(snapshot.check(class, id), Ok(()));
}

#[test]
fn a_volume_that_is_there_needs_no_room() {
    let mut world = world(Vec::new());
    let affinity = json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": NODE_KEY, "operator": "In", "values": ["a"]}]}]});
    let volume = Volume {
        class: Some("fast".into()),
        bytes: 2 * GIB,
        available: true,
        node_affinity: Some(serde_json::from_value(affinity).expect("an affinity")),
        ..Volume::default()
    };
    world.volumes.insert("spare".into(), volume);
    let mut snapshot = Snapshot::new(Arc::new(world));
    let [a, b] = ["a", "b"].map(|name| snapshot.add_node(&node(name, known())));
    let class = snapshot.class(&pod());
    assert_eq!([a, b].map(|node| snapshot.check(class, node)), [Ok(()), Err(Reason::NoRoom)]);
}

#[test]
fn a_node_to_come_has_what_one_like_it_had_when_its_disks_were_empty() {
    let here = json!({"matchLabels": {NODE_KEY: "a"}});
    let bound = |name: &str, on: &str| {
        let affinity = json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": NODE_KEY, "operator": "In", "values": [on]}]}]});
        let node_affinity = Some(serde_json::from_value(affinity).expect("an affinity"));
        (name.into(), Volume { class: Some("fast".into()), bytes: GIB, node_affinity, ..Volume::default() })
    };
    // Left on the node, volumes on it, and whether 2 GiB fit on another.
    let cases = [(0, 1, false), (0, 2, true), (1, 1, true), (1, 0, false), (5, 0, true)];
    for (left, taken, fits) in cases {
        let mut world = world(vec![capacity(&here, Some(left))]);
        world.volumes.extend((0..taken).map(|number| bound(&format!("v{number}"), "a")));
        world.volumes.extend([bound("other", "b")]);
        let source = node("a", known());
        let mut fresh = source.clone();
        fresh.rename("new".into());
        let room = room_after(&source, &fresh, &world);
        assert_eq!(room, [("fast".into(), (left + taken) * GIB)].into(), "{left} and {taken}");
        fresh.declared = Arc::new(Declared { room, ..known() });
        let mut snapshot = Snapshot::new(Arc::new(world));
        let id = snapshot.add_node(&fresh);
        let class = snapshot.class(&pod());
        assert_eq!(snapshot.check(class, id).is_ok(), fits, "{left} and {taken}");
    }
}

#[test]
fn a_driver_that_has_to_run_runs_or_is_not_known_of() {
    let mut world = world(vec![capacity(&json!({}), Some(9))]);
    world.drivers.insert("csi".into(), Driver { tells_capacity: false, has_to_run: true });
    let mut snapshot = Snapshot::new(Arc::new(world));
    let none = Declared { drivers: Some([].into()), ..Declared::default() };
    let nodes = [known(), none, Declared::default()].map(|declared| snapshot.add_node(&node("a", declared)));
    let class = snapshot.class(&pod());
    let missing = Err(Reason::DriverMissing("csi".into()));
    assert_eq!(nodes.map(|node| snapshot.check(class, node)), [Ok(()), missing, Ok(())]);
}

#[test]
fn a_kubelet_declares_what_pods_need() {
    let all = "RestartAllContainersOnContainerExits";
    let exit = |action: &str| json!({"name": "c", "restartPolicyRules": [{"action": action}]});
    let mount = |options: Value| json!({"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v", "bindMountOptions": options}]});
    let cases = [
        (json!({"containers": []}), vec![]),
        (json!({"containers": [exit("Restart")]}), vec![]),
        (json!({"containers": [exit("RestartAllContainers")]}), vec![all]),
        (json!({"containers": [], "initContainers": [exit("RestartAllContainers")]}), vec![all]),
        (json!({"containers": [], "hostNetwork": true}), vec![]),
        (json!({"containers": [], "hostUsers": false}), vec![]),
        (json!({"containers": [], "hostNetwork": true, "hostUsers": true}), vec![]),
        (
            json!({"containers": [], "hostNetwork": true, "hostUsers": false}),
            vec!["UserNamespacesHostNetworkSupport"],
        ),
        (json!({"containers": [mount(json!([]))]}), vec![]),
        (json!({"containers": [mount(json!(["noexec"]))]}), vec!["VolumeBindMountOptions"]),
        (
            json!({"containers": [mount(json!(["noexec"])), exit("RestartAllContainers")]}),
            vec![all, "VolumeBindMountOptions"],
        ),
    ];
    for (spec, needed) in cases {
        let pod: k8s::Pod = serde_json::from_value(json!({"spec": spec})).expect("a pod");
        let pod = Pod::read(&pod, Arc::new);
        assert_eq!(*pod.shape.features, *needed, "{spec}");
        let mut snapshot = Snapshot::default();
        let declares = |features: &[&str]| Declared {
            features: Some(features.iter().map(|feature| (*feature).into()).collect()),
            ..Declared::default()
        };
        let class = snapshot.class(&pod);
        let judged = [declares(&[all, "Other"]), declares(&needed), Declared::default()].map(|declared| {
            let node = snapshot.add_node(&node("a", declared));
            snapshot.check(class, node)
        });
        let some = if needed.iter().all(|feature| *feature == all) { Ok(()) } else { Err(Reason::Features) };
        assert_eq!(judged, [some, Ok(()), Ok(())], "{spec}");
    }
}

#[test]
fn nodes_say_what_they_declare_and_descriptions_say_what_they_can() {
    let with = |features: &Value| -> k8s::Node {
        serde_json::from_value(json!({"status": {"declaredFeatures": features}})).expect("a node")
    };
    let features = |node: &Node| node.declared.features.as_ref().map(std::collections::BTreeSet::len);
    let (none, some) = (with(&json!(null)), with(&json!(["A", "B"])));
    assert_eq!([&none, &some].map(|node| features(&Node::read(node))), [Some(0), Some(2)]);
    assert_eq!([&none, &some].map(|node| features(&Node::describe(node))), [None, Some(2)]);
    assert_eq!(Presumed::Driver("csi".into()).to_string(), "that the CSI driver csi runs there");
}

#[test]
fn labels_with_a_nodes_name_follow_it() {
    let mut node = node("a", Declared::default());
    node.labels.extend([
        ("kubernetes.io/hostname".to_owned(), "host-a".to_owned()),
        ("by-host".to_owned(), "host-a".to_owned()),
        ("role".to_owned(), String::new()),
    ]);
    node.rename("b".into());
    let labels: Vec<_> = node.labels.values().map(String::as_str).collect();
    assert_eq!(labels, ["b", "b", "", "b", "z1"], "{:?}", node.labels);
}
