use tandem_core::nodes::pools::requirements::Requirements;

use super::*;
use crate::cloud::aws::fleet::selectors::{SecurityGroup, Subnet};

fn found() -> Found {
    let subnet = Subnet {
        subnet_id: "subnet-1".to_owned(),
        availability_zone: "r-1a".to_owned(),
        availability_zone_id: String::new(),
        available_ip_address_count: 1,
    };
    let group = SecurityGroup { group_id: "sg-1".to_owned(), group_name: String::new() };
    let image = |id: &str, architecture: &str| ClassImage {
        id: id.to_owned(),
        name: String::new(),
        is_deprecated: false,
        requirements: [family::architecture(architecture)].into_iter().collect(),
    };
    Found {
        subnets: Ok(vec![subnet]),
        security_groups: Ok(vec![group]),
        images: Ok(vec![image("ami-arm", "arm64"), image("ami-new", "x86_64"), image("ami-old", "x86_64")]),
        placement_group: Ok(None),
    }
}

fn machine(image: &str, subnet: &str, group: &str) -> launch::Machine {
    launch::Machine {
        instance_id: "i-1".to_owned(),
        instance_type: "m5.large".to_owned(),
        image_id: image.to_owned(),
        instance_state: launch::MachineState { name: "running".to_owned() },
        placement: launch::Placement { availability_zone: "r-1a".to_owned(), partition_number: None },
        instance_lifecycle: None,
        launch_time: Timestamp::UNIX_EPOCH,
        subnet_id: subnet.to_owned(),
        group_set: vec![launch::GroupId { group_id: group.to_owned() }],
        tag_set: Vec::new(),
    }
}

#[test]
fn a_machine_drifts_from_what_its_class_finds() {
    let requirements: Requirements = [family::architecture("x86_64")].into_iter().collect();
    let none = tandem_core::scheduling::Resources::default();
    let of = InstanceType::new("m5.large", requirements, none.clone(), none, Vec::new());
    for (image, subnet, group, wanted) in [
        ("ami-new", "subnet-1", "sg-1", None),
        ("ami-old", "subnet-1", "sg-1", Some("AMIDrift")),
        ("ami-new", "subnet-2", "sg-1", Some("SubnetDrift")),
        ("ami-new", "subnet-2", "sg-2", Some("SecurityGroupDrift")),
    ] {
        assert_eq!(
            drift(&machine(image, subnet, group), &found(), Some(&of)),
            wanted,
            "{image} {subnet} {group}"
        );
    }
    let lost = || Err(CloudError::NotOffered("nothing"));
    let nothing = Found {
        subnets: lost(),
        security_groups: Err(CloudError::NotOffered("n")),
        images: Ok(Vec::new()),
        placement_group: Err(CloudError::NotOffered("n")),
    };
    assert_eq!(drift(&machine("a", "b", "c"), &nothing, Some(&of)), None, "what is not known is no reason");

    let group = |id: &str| {
        Ok(Some(PlacementGroup {
            group_id: id.to_owned(),
            strategy: "spread".to_owned(),
            partition_count: 0,
        }))
    };
    let mut claim = NodeClaim::default();
    for (label, placement_group, wanted) in [
        (None, Ok(None), None),
        (None, group("pg-1"), Some("PlacementGroupDrift")),
        (Some("pg-1"), group("pg-1"), None),
        (Some("pg-1"), group("pg-2"), Some("PlacementGroupDrift")),
        (Some("pg-1"), Ok(None), Some("PlacementGroupDrift")),
        (Some("pg-1"), Err(CloudError::NotOffered("n")), None),
    ] {
        claim.metadata.labels =
            label.map(|label| BTreeMap::from([(PLACEMENT_GROUP.to_owned(), label.to_owned())]));
        let found = Found { placement_group, ..found() };
        assert_eq!(moved(&claim, &found), wanted, "{label:?} {:?}", found.placement_group);
    }
}

#[test]
fn the_digest_is_of_what_machines_are_made_from() {
    let spec = |yaml: &str| serde_saphyr::from_str::<EC2NodeClassSpec>(yaml).unwrap();
    let plain = class_hash(&spec("{role: r, amiFamily: AL2}"));
    assert_eq!(class_hash(&spec("{role: r, amiFamily: AL2, subnetSelectorTerms: [{id: subnet-1}]}")), plain);
    assert_ne!(class_hash(&spec("{role: r, amiFamily: AL2, userData: x}")), plain);
    assert_eq!(machine_id("aws:///r-1a/i-1"), "i-1");
}
