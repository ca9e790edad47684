//! What claims ask of nodes, case by case.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, TopologySelectorLabelRequirement,
    TopologySelectorTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::json;
use tandem_core::scheduling::{
    ClassId, Node, NodeId, Pod, Reason, Resources, Snapshot, Surroundings,
    pod::{Shape, Traits},
    surroundings::{Claim, READ_WRITE_ONCE_POD, StorageClass, Volume},
};

const ZONE: &str = "topology.kubernetes.io/zone";

fn node(name: &str, zone: Option<&str>) -> Node {
    Node {
        name: name.into(),
        labels: zone.map(|zone| (ZONE.to_owned(), zone.to_owned())).into_iter().collect(),
        allocatable: Resources { pods: 10, ..Resources::default() },
        volume_limits: [("csi".into(), 2)].into(),
        ..Node::default()
    }
}

fn pod(claims: &[&str]) -> Pod {
    let requests = Resources { pods: 1, ..Resources::default() };
    let shape = Shape::new(requests, Traits { namespace: "n".into(), ..Traits::default() });
    Pod {
        shape: Arc::new(shape),
        claims: claims.iter().map(|name| (*name).into()).collect(),
        ..Pod::default()
    }
}

fn in_zone(zone: &str) -> NodeSelector {
    let requirement =
        NodeSelectorRequirement { key: ZONE.into(), operator: "In".into(), values: Some(vec![zone.into()]) };
    let term = NodeSelectorTerm { match_expressions: Some(vec![requirement]), match_fields: None };
    NodeSelector { node_selector_terms: vec![term] }
}

/// Adds a claim that is bound to a volume.
fn bound(world: &mut Surroundings, name: &str, volume: Volume) {
    let claim = Claim { volume: Some(name.into()), ..Claim::default() };
    world.claims.insert(("n".into(), name.into()), claim);
    world.volumes.insert(name.into(), volume);
}

/// Adds a claim that has no volume yet.
fn unbound(world: &mut Surroundings, name: &str, class: Option<&str>) {
    let claim = Claim { class: class.map(Into::into), bytes: 10, ..Claim::default() };
    world.claims.insert(("n".into(), name.into()), claim);
}

fn bound_to(volume: &str) -> Claim {
    Claim { volume: Some(volume.into()), ..Claim::default() }
}

fn of_hand() -> Claim {
    Claim { class: Some("by-hand".into()), bytes: 10, ..Claim::default() }
}

fn fast() -> LabelSelector {
    let labels = [("disk".to_owned(), "fast".to_owned())].into();
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

fn world() -> Surroundings {
    let mut world = Surroundings::default();
    bound(&mut world, "local", Volume { node_affinity: Some(in_zone("a")), ..Volume::default() });
    let labels = [("failure-domain.beta.kubernetes.io/zone".to_owned(), "a__b".to_owned())].into();
    bound(&mut world, "zonal", Volume { labels, ..Volume::default() });
    for name in ["disk-0", "disk-1", "disk-2"] {
        bound(&mut world, name, Volume { handle: Some(("csi".into(), name.into())), ..Volume::default() });
    }
    let claim = Claim { volume: Some("gone".into()), ..Claim::default() };
    world.claims.insert(("n".into(), "of-nothing".into()), claim);
    unbound(&mut world, "immediate", Some("immediate"));
    unbound(&mut world, "classless", None);
    unbound(&mut world, "anywhere", Some("anywhere"));
    unbound(&mut world, "in-a", Some("in-a"));
    unbound(&mut world, "by-hand", Some("by-hand"));
    let claims = [
        ("lost", Claim { is_lost: true, ..bound_to("disk-0") }),
        ("leaving", Claim { is_deleting: true, ..bound_to("disk-0") }),
        ("picky", Claim { selector: Some(fast()), ..of_hand() }),
        ("fussy", Claim { selector: Some(LabelSelector::default()), ..of_hand() }),
        ("raw", Claim { is_block: true, ..of_hand() }),
    ];
    world.claims.extend(claims.map(|(name, claim)| (("n".into(), name.into()), claim)));
    let waits = |provisioner: &str| StorageClass {
        provisioner: provisioner.into(),
        waits_for_consumer: true,
        allowed_topologies: Vec::new(),
    };
    let label = TopologySelectorLabelRequirement { key: ZONE.into(), values: vec!["a".into()] };
    let allowed = TopologySelectorTerm { match_label_expressions: Some(vec![label]) };
    world.classes.insert("immediate".into(), StorageClass { waits_for_consumer: false, ..waits("csi") });
    world.classes.insert("anywhere".into(), waits("csi"));
    world.classes.insert("in-a".into(), StorageClass { allowed_topologies: vec![allowed], ..waits("csi") });
    world.classes.insert("by-hand".into(), waits("kubernetes.io/no-provisioner"));
    let spare = |bytes, zone| Volume {
        class: Some("by-hand".into()),
        bytes,
        available: true,
        node_affinity: Some(in_zone(zone)),
        ..Volume::default()
    };
    world.volumes.insert("spare".into(), spare(10, "b"));
    world.volumes.insert("too-small".into(), spare(9, "a"));
    let labels = [("disk".to_owned(), "fast".to_owned())].into();
    world.volumes.insert("fast".into(), Volume { labels, bytes: 99, ..spare(10, "c") });
    world.volumes.insert("block".into(), Volume { is_block: true, ..spare(10, "a") });
    world
}

fn snapshot() -> (Snapshot, NodeId, NodeId, NodeId) {
    let mut snapshot = Snapshot::new(Arc::new(world()));
    let [a, b, nowhere] = [("a", Some("a")), ("b", Some("b")), ("nowhere", None)]
        .map(|(name, zone)| snapshot.add_node(&node(name, zone)));
    (snapshot, a, b, nowhere)
}

#[test]
fn claims_bind_pods_to_places() {
    let not_found = || Err(Reason::ClaimNotFound("missing".into()));
    let lost = || Err(Reason::ClaimLost("lost".into()));
    let leaving = || Err(Reason::ClaimDeleting("leaving".into()));
    let no_volume = || Err(Reason::VolumeNotFound("gone".into()));
    let ok = || Ok(());
    let cases = [
        ("local", [ok(), Err(Reason::VolumeAffinity), Err(Reason::VolumeAffinity)]),
        ("zonal", [ok(), ok(), ok()]),
        ("missing", [not_found(), not_found(), not_found()]),
        ("of-nothing", [no_volume(), no_volume(), no_volume()]),
        ("immediate", [Err(Reason::ClaimUnbound), Err(Reason::ClaimUnbound), Err(Reason::ClaimUnbound)]),
        ("classless", [Err(Reason::ClaimUnbound), Err(Reason::ClaimUnbound), Err(Reason::ClaimUnbound)]),
        ("anywhere", [ok(), ok(), ok()]),
        ("in-a", [ok(), Err(Reason::NoVolume), Err(Reason::NoVolume)]),
        ("by-hand", [Err(Reason::NoVolume), ok(), Err(Reason::NoVolume)]),
        ("fussy", [Err(Reason::NoVolume), ok(), Err(Reason::NoVolume)]),
        ("raw", [ok(), Err(Reason::NoVolume), Err(Reason::NoVolume)]),
        ("picky", [Err(Reason::NoVolume), Err(Reason::NoVolume), Err(Reason::NoVolume)]),
        ("lost", [lost(), lost(), lost()]),
        ("leaving", [leaving(), leaving(), leaving()]),
    ];
    let (mut snapshot, a, b, nowhere) = snapshot();
    for (claim, wanted) in cases {
        let class = snapshot.class(&pod(&[claim]));
        let got = [a, b, nowhere].map(|node| snapshot.check(class, node));
        assert_eq!(got, wanted, "{claim}");
        let first = [a, b, nowhere].into_iter().zip(&wanted).find(|(_, verdict)| verdict.is_ok());
        assert_eq!(snapshot.find(class, None), first.map(|(node, _)| node), "{claim}");
    }
    let elsewhere = snapshot.add_node(&node("elsewhere", Some("c")));
    let picky = snapshot.class(&pod(&["picky"]));
    assert_eq!(snapshot.check(picky, elsewhere), Ok(()));
    let zonal = snapshot.class(&pod(&["zonal"]));
    assert_eq!(snapshot.check(zonal, elsewhere), Err(Reason::VolumeZone));
}

#[test]
fn a_node_has_so_many_volumes_attached_and_a_shared_one_counts_once() {
    let (mut snapshot, a, ..) = snapshot();
    let [zero, one, two] = ["disk-0", "disk-1", "disk-2"].map(|claim| snapshot.class(&pod(&[claim])));
    for class in [zero, zero, one] {
        assert_eq!(snapshot.check(class, a), Ok(()));
        snapshot.bind(class, a);
    }
    assert_eq!(snapshot.check(two, a), Err(Reason::VolumeLimit));
    assert_eq!(snapshot.check(one, a), Ok(()));
    snapshot.unbind(zero, a);
    assert_eq!(snapshot.check(two, a), Err(Reason::VolumeLimit));
    snapshot.unbind(zero, a);
    assert_eq!(snapshot.check(two, a), Ok(()));
}

#[test]
fn volumes_of_old_plugins_count_for_the_drivers_that_took_them_over() {
    let mut world = Surroundings::default();
    let ebs = |id: &str| -> Volume {
        let spec = json!({"awsElasticBlockStore": {"volumeID": id}});
        Volume::read(&serde_json::from_value(json!({"spec": spec})).unwrap())
    };
    bound(&mut world, "old", ebs("aws://a/vol-1"));
    bound(&mut world, "same", ebs("vol-1"));
    bound(&mut world, "other", ebs("vol-2"));
    unbound(&mut world, "new", Some("gp2"));
    let class = json!({"provisioner": "kubernetes.io/aws-ebs", "volumeBindingMode": "WaitForFirstConsumer"});
    world.classes.insert("gp2".into(), StorageClass::read(&serde_json::from_value(class).unwrap()));
    let mut snapshot = Snapshot::new(Arc::new(world));
    let limits = [("ebs.csi.aws.com".into(), 1)].into();
    let there = snapshot.add_node(&Node { volume_limits: limits, ..node("a", None) });
    let [old, same, other, new] = ["old", "same", "other", "new"].map(|claim| snapshot.class(&pod(&[claim])));
    assert_eq!(snapshot.check(new, there), Ok(()));
    snapshot.bind(old, there);
    assert_eq!(snapshot.check(same, there), Ok(()));
    assert_eq!(snapshot.check(other, there), Err(Reason::VolumeLimit));
    assert_eq!(snapshot.check(new, there), Err(Reason::VolumeLimit));
}

#[test]
fn what_one_pod_alone_may_use_keeps_others_from_every_node() {
    let mut world = Surroundings::default();
    bound(&mut world, "own", Volume::default());
    let claim = world.claims.get_mut(&("n".into(), "own".into())).expect("the claim");
    claim.access_modes.push(READ_WRITE_ONCE_POD.to_owned());
    let mut snapshot = Snapshot::new(Arc::new(world));
    let [a, b] = ["a", "b"].map(|name| snapshot.add_node(&node(name, None)));
    let class: ClassId = snapshot.class(&pod(&["own"]));
    assert_eq!(snapshot.find(class, None), Some(a));
    snapshot.bind(class, a);
    assert_eq!(snapshot.find(class, None), None);
    assert_eq!(snapshot.check(class, b), Err(Reason::ClaimInUse));
    snapshot.unbind(class, a);
    assert_eq!(snapshot.find(class, None), Some(a));
}
