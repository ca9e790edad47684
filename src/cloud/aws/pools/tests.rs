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
    }
}

fn machine(image: &str, subnet: &str, group: &str) -> launch::Machine {
    launch::Machine {
        instance_id: "i-1".to_owned(),
        instance_type: "m5.large".to_owned(),
        image_id: image.to_owned(),
        instance_state: launch::MachineState { name: "running".to_owned() },
        placement: launch::Placement { availability_zone: "r-1a".to_owned() },
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
    let nothing =
        Found { subnets: lost(), security_groups: Err(CloudError::NotOffered("n")), images: Ok(Vec::new()) };
    assert_eq!(drift(&machine("a", "b", "c"), &nothing, Some(&of)), None, "what is not known is no reason");
}

#[test]
fn the_digest_is_of_what_machines_are_made_from() {
    let spec = |yaml: &str| serde_saphyr::from_str::<EC2NodeClassSpec>(yaml).unwrap();
    let plain = class_hash(&spec("{role: r, amiFamily: AL2}"));
    assert_eq!(class_hash(&spec("{role: r, amiFamily: AL2, subnetSelectorTerms: [{id: subnet-1}]}")), plain);
    assert_ne!(class_hash(&spec("{role: r, amiFamily: AL2, userData: x}")), plain);
    assert_eq!(machine_id("aws:///r-1a/i-1"), "i-1");
}
