use tandem_core::nodes::pools::requirements::{Operator, labels::INSTANCE_TYPE};

use super::*;

fn one(name: &str, price: f64, terms: &[(&str, &str)]) -> Arc<InstanceType> {
    let offering = |(capacity_type, zone): &(&str, &str)| Offering {
        requirements: [Requirement::is(CAPACITY_TYPE, capacity_type), Requirement::is(ZONE, zone)]
            .into_iter()
            .collect(),
        price: if *capacity_type == SPOT { price / 2.0 } else { price },
        available: true,
        reservation: None,
    };
    let requirements = [Requirement::is(INSTANCE_TYPE, name), Requirement::is("size", "large")];
    let none = Resources::default();
    let offerings = terms.iter().map(offering).collect();
    Arc::new(InstanceType::new(name, requirements.into_iter().collect(), none.clone(), none, offerings))
}

fn claim(capacity_types: &[&str]) -> NodeClaim {
    let mut claim = NodeClaim::default();
    claim.spec.requirements =
        vec![RequirementWithMinValues::new(CAPACITY_TYPE, Operator::In, capacity_types)];
    claim
}

const BOTH: [(&str, &str); 4] = [(SPOT, "a"), (SPOT, "b"), (ON_DEMAND, "a"), (ON_DEMAND, "b")];

#[test]
fn a_claim_is_launched_as_what_costs_least() {
    let well_known = WellKnownLabels::default();
    let types = [one("dear", 2.0, &BOTH), one("cheap", 1.0, &BOTH)];
    let templates = BTreeMap::from([("dear", "t1".to_owned()), ("cheap", "t2".to_owned())]);
    let subnets = BTreeMap::from([("a".to_owned(), "subnet-a".to_owned())]);
    let choices = |capacity_types: &[&str]| {
        let plan = Plan::new(&claim(capacity_types), &types, None, &well_known).unwrap();
        let choices = plan.choices(&templates, &subnets, &well_known);
        let names = choices.iter().map(|choice| (choice.instance_type.clone(), choice.subnet.clone()));
        (plan.capacity_type, names.collect::<Vec<_>>())
    };
    let in_a = |name: &str| (name.to_owned(), "subnet-a".to_owned());
    assert_eq!(choices(&[SPOT, ON_DEMAND]), (SPOT, vec![in_a("cheap"), in_a("dear")]));
    assert_eq!(choices(&[ON_DEMAND]).0, ON_DEMAND);
}

#[test]
fn a_machine_has_the_labels_of_its_type_and_its_terms() {
    let well_known = WellKnownLabels::default();
    let plan = Plan::new(&claim(&[SPOT]), &[one("m5.large", 1.0, &BOTH)], None, &well_known).unwrap();
    let launched = plan.launched("r", "i-1", "m5.large", Some("b"));
    assert_eq!((launched.provider_id.as_str(), launched.zone.as_str()), ("aws:///b/i-1", "b"));
    assert_eq!((launched.labels["size"].as_str(), launched.labels[ZONE].as_str()), ("large", "b"));
    assert_eq!(launched.all_labels()[CAPACITY_TYPE], SPOT);
}

#[test]
fn failures_say_what_is_sold_out() {
    let well_known = WellKnownLabels::default();
    let plan = Plan::new(&claim(&[ON_DEMAND]), &[one("m5.large", 1.0, &BOTH)], None, &well_known).unwrap();
    let choice = |name: &str, zone: &str| Choice {
        launch_template: String::new(),
        instance_type: name.to_owned(),
        subnet: String::new(),
        zone: zone.to_owned(),
        price: 1.0,
    };
    let choices = [choice("x", "a"), choice("x", "b"), choice("y", "a")];
    let failure = |code: &str, name: &str, zone: Option<&str>| LaunchFailure {
        instance_type: name.to_owned(),
        zone: zone.map(str::to_owned),
        error: CloudError::OutOfCapacity { code: code.to_owned(), message: "m".to_owned() },
    };
    let keys = |failure| {
        let keys = sold_out(&plan, &choices, &[failure]);
        keys.into_iter().map(|key| format!("{} {}", key.instance_type, key.zone)).collect::<Vec<_>>()
    };
    for (failed, wanted) in [
        (failure("InsufficientInstanceCapacity", "x", Some("a")), vec!["x a"]),
        (failure("InsufficientInstanceCapacity", "x", None), vec!["x a", "x b"]),
        (failure("VcpuLimitExceeded", "x", Some("a")), vec!["x a", "x b"]),
        (failure("InsufficientFreeAddressesInSubnet", "x", Some("a")), vec!["x a", "y a"]),
        (failure("MaxSpotInstanceCountExceeded", "x", Some("a")), vec!["x a", "x b", "y a"]),
    ] {
        assert_eq!(keys(failed.clone()), wanted, "{failed:?}");
    }
    let refused = LaunchFailure {
        error: CloudError::Refused {
            call: "c".to_owned(),
            code: "InvalidX".to_owned(),
            message: String::new(),
        },
        ..failure("", "x", None)
    };
    assert_eq!(sold_out(&plan, &choices, std::slice::from_ref(&refused)), []);
    let other = failure("UnfulfillableCapacity", "x", None);
    assert_eq!(why_none(vec![other.clone(), refused]).code(), "InvalidX", "capacity passes, this does not");
    let both = why_none(vec![other, failure("VcpuLimitExceeded", "y", None)]).to_string();
    assert_eq!(both, "out of capacity: VcpuLimitExceeded: UnfulfillableCapacity: m; VcpuLimitExceeded: m");
    assert!(matches!(why_none(Vec::new()), CloudError::OutOfCapacity { .. }));
}

#[test]
fn what_is_the_fault_of_a_class_is_told_apart() {
    let refused = |code: &str, message: &str| CloudError::Refused {
        call: "ec2:CreateFleet".to_owned(),
        code: code.to_owned(),
        message: message.to_owned(),
    };
    let denied = |call: &str| CloudError::Denied { call: call.to_owned(), message: "no".to_owned() };
    let spec = |yaml: &str| serde_saphyr::from_str::<EC2NodeClassSpec>(yaml).unwrap();
    let profile =
        "Value (p) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name";
    for (yaml, error, wanted) in [
        ("instanceProfile: p", refused("InvalidParameterValue", profile), Some("InstanceProfileNotFound")),
        ("role: r", refused("InvalidParameterValue", profile), None),
        ("role: r", denied("ec2:CreateFleet"), Some("CreateFleetAuthCheckFailed")),
        ("role: r", denied("ec2:CreateLaunchTemplate"), Some("CreateLaunchTemplateAuthCheckFailed")),
        ("role: r", refused("InvalidParameterValue", "other"), None),
    ] {
        let seen = refusal(&spec(yaml), &error).map(|refusal| refusal.reason);
        assert_eq!(seen, wanted, "{error:?}");
    }
}

#[test]
fn the_kubelet_is_told_what_it_may_say() {
    let mut claim = claim(&[ON_DEMAND]);
    for key in
        ["karpenter.sh/nodepool", "team", "topology.kubernetes.io/zone", "x.k8s.io/y", "kubernetes.io/arch"]
    {
        claim.labels_mut().insert(key.to_owned(), "v".to_owned());
    }
    let labels = labels(&claim, ON_DEMAND);
    let keys: Vec<_> = labels.keys().map(String::as_str).collect();
    assert_eq!(keys, ["karpenter.sh/capacity-type", "karpenter.sh/nodepool", "team"]);
    claim.spec.startup_taints =
        Some(vec![Taint { key: "cni".to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() }]);
    let keys: Vec<_> = taints(&claim).into_iter().map(|taint| taint.key).collect();
    assert_eq!(keys, ["cni", UNREGISTERED]);
}
