//! What the status of an EC2NodeClass says (karpenter-provider-aws, `pkg/controllers/nodeclass`).

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::NodeSelectorRequirement, apimachinery::pkg::apis::meta::v1::Condition};
use tandem_core::{
    api::karpenter::{Ami, EC2NodeClassSpec, EC2NodeClassStatus, SecurityGroup, Subnet},
    nodes::pools::requirements::Requirements,
};

use super::class::Found;
use crate::{
    cloud::CloudError,
    cluster::conditions::{self, Status},
};

const SUBNETS_READY: &str = "SubnetsReady";
const SECURITY_GROUPS_READY: &str = "SecurityGroupsReady";
const AMIS_READY: &str = "AMIsReady";
const INSTANCE_PROFILE_READY: &str = "InstanceProfileReady";
const VALIDATION_SUCCEEDED: &str = "ValidationSucceeded";
/// Only of classes that name a group.
const PLACEMENT_GROUP_READY: &str = "PlacementGroupReady";
/// What has to hold for a class to be ready, in the order in which it is said.
const STAGES: [&str; 6] = [
    SUBNETS_READY,
    SECURITY_GROUPS_READY,
    AMIS_READY,
    INSTANCE_PROFILE_READY,
    VALIDATION_SUCCEEDED,
    PLACEMENT_GROUP_READY,
];

/// What AWS refused of a class: a reason in one word, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// As Karpenter's condition has it.
    pub(super) reason: &'static str,
    /// AWS' words, and what to do.
    pub(super) message: String,
}

/// The status of a class, from what its selectors found, its instance profile, and what AWS refused of it last.
pub(super) fn status(
    old: &EC2NodeClassStatus,
    spec: &EC2NodeClassSpec,
    found: &Found,
    profile: &Result<String, CloudError>,
    refused: Option<&Refusal>,
    now: Timestamp,
) -> EC2NodeClassStatus {
    let mut conditions = old.conditions.clone();
    let mut set = |kind, status, said: (&str, &str)| {
        conditions::set(&mut conditions, kind, status, said, now);
    };
    let selected = |len: Result<usize, &CloudError>, reason: &'static str, what: &str| match len {
        Ok(0) => {
            (Status::False, reason, format!("{what} did not match any; see which tags and ids it names"))
        }
        Ok(_) => (Status::True, "", String::new()),
        Err(error) => said_of(error),
    };
    for (kind, (status, reason, message)) in [
        (SUBNETS_READY, selected(found.subnets.as_ref().map(Vec::len), "SubnetsNotFound", "SubnetSelector")),
        (
            SECURITY_GROUPS_READY,
            selected(
                found.security_groups.as_ref().map(Vec::len),
                "SecurityGroupsNotFound",
                "SecurityGroupSelector",
            ),
        ),
        (AMIS_READY, selected(found.images.as_ref().map(Vec::len), "AMINotFound", "AMISelector")),
        (
            INSTANCE_PROFILE_READY,
            profile.as_ref().map_or_else(said_of, |_| (Status::True, "", String::new())),
        ),
        (
            VALIDATION_SUCCEEDED,
            refused.map_or((Status::True, "", String::new()), |refused| {
                (Status::False, refused.reason, refused.message.clone())
            }),
        ),
    ] {
        set(kind, status, (reason, &message));
    }
    if spec.capacity_reservation_selector_terms.is_some() {
        let said =
            ("NotOffered", "capacity reservations are not chosen by; nodes are bought on demand or as spot");
        set("CapacityReservationsReady", Status::False, said);
    }
    set_placement(&mut conditions, spec, found, now);
    let is_meant = |stage: &&str| *stage != PLACEMENT_GROUP_READY || spec.placement_group_selector.is_some();
    let stages: Vec<_> = STAGES.into_iter().filter(is_meant).collect();
    conditions::set_ready(&mut conditions, &stages, now);
    EC2NodeClassStatus {
        subnets: found
            .subnets
            .iter()
            .flatten()
            .map(|subnet| Subnet {
                id: subnet.subnet_id.clone(),
                zone: subnet.availability_zone.clone(),
                zone_id: Some(subnet.availability_zone_id.clone()).filter(|id| !id.is_empty()),
            })
            .collect(),
        security_groups: found
            .security_groups
            .iter()
            .flatten()
            .map(|group| SecurityGroup { id: group.group_id.clone(), name: Some(group.group_name.clone()) })
            .collect(),
        amis: found
            .images
            .iter()
            .flatten()
            .map(|image| Ami {
                id: image.id.clone(),
                name: Some(image.name.clone()),
                deprecated: image.is_deprecated.then_some(true),
                requirements: selectors(&image.requirements),
            })
            .collect(),
        instance_profile: profile.as_ref().ok().cloned().or_else(|| old.instance_profile.clone()),
        conditions,
        ..old.clone()
    }
}

/// What became of the placement group; nothing, of a class that names none.
fn set_placement(conditions: &mut Vec<Condition>, spec: &EC2NodeClassSpec, found: &Found, now: Timestamp) {
    if spec.placement_group_selector.is_none() {
        conditions.retain(|condition| condition.type_ != PLACEMENT_GROUP_READY);
        return;
    }
    let (status, reason, message) = match &found.placement_group {
        Ok(_) => (Status::True, "", String::new()),
        Err(error @ CloudError::NotFound(_)) => (Status::False, "PlacementGroupNotFound", error.to_string()),
        Err(error) => said_of(error),
    };
    conditions::set(conditions, PLACEMENT_GROUP_READY, status, (reason, &message), now);
}

/// What was refused is false, what got no answer is not known.
fn said_of(error: &CloudError) -> (Status, &'static str, String) {
    match error {
        CloudError::Throttled { .. } | CloudError::Unreachable { .. } => {
            (Status::Unknown, "NotAnswered", error.to_string())
        }
        CloudError::Denied { .. } => (Status::False, "Unauthorized", error.to_string()),
        _ => (Status::False, "Refused", error.to_string()),
    }
}

/// Why no node can be launched with a class, by its status; `None` if it can.
pub(super) fn not_ready(status: &EC2NodeClassStatus) -> Option<String> {
    let ready = conditions::find(&status.conditions, "Ready")?;
    (ready.status != "True").then(|| ready.message.clone())
}

/// Requirements as a selector has them; shorter labels first.
fn selectors(requirements: &Requirements) -> Vec<NodeSelectorRequirement> {
    let mut selectors: Vec<_> = requirements
        .iter()
        .flat_map(tandem_core::nodes::pools::requirements::Requirement::selectors)
        .map(|selector| NodeSelectorRequirement {
            key: selector.key.to_string(),
            operator: selector.operator.name().to_owned(),
            values: Some(selector.values.iter().map(ToString::to_string).collect::<Vec<_>>())
                .filter(|values| !values.is_empty()),
        })
        .collect();
    selectors.sort_by(|left, right| (left.key.len(), &left.key).cmp(&(right.key.len(), &right.key)));
    selectors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::aws::fleet::selectors;

    fn found() -> Found {
        let subnet = selectors::Subnet {
            subnet_id: "subnet-1".to_owned(),
            availability_zone: "r-1a".to_owned(),
            availability_zone_id: "r1-az1".to_owned(),
            available_ip_address_count: 9,
        };
        Found {
            subnets: Ok(vec![subnet]),
            security_groups: Ok(Vec::new()),
            images: Ok(Vec::new()),
            placement_group: Ok(None),
        }
    }

    fn says(status: &EC2NodeClassStatus, kind: &str) -> (String, String) {
        let condition = conditions::find(&status.conditions, kind).unwrap();
        (condition.status.clone(), condition.reason.clone())
    }

    #[test]
    fn every_part_is_said_for_itself() {
        let denied = CloudError::Denied { call: "ec2:DescribeImages".to_owned(), message: "no".to_owned() };
        let found = Found { images: Err(denied), ..found() };
        let lost = Err(CloudError::Unreachable { call: "iam:Get".to_owned(), message: "timeout".to_owned() });
        let spec = EC2NodeClassSpec::default();
        let status =
            status(&EC2NodeClassStatus::default(), &spec, &found, &lost, None, Timestamp::UNIX_EPOCH);
        for (kind, wanted) in [
            (SUBNETS_READY, ("True", "SubnetsReady")),
            (SECURITY_GROUPS_READY, ("False", "SecurityGroupsNotFound")),
            (AMIS_READY, ("False", "Unauthorized")),
            (INSTANCE_PROFILE_READY, ("Unknown", "NotAnswered")),
            (VALIDATION_SUCCEEDED, ("True", "ValidationSucceeded")),
            ("Ready", ("False", "UnhealthyDependents")),
        ] {
            let (seen, reason) = says(&status, kind);
            assert_eq!((seen.as_str(), reason.as_str()), wanted, "{kind}");
        }
        let why = not_ready(&status).unwrap();
        assert!(why.starts_with("SecurityGroupsReady: SecurityGroupSelector did not match any"), "{why}");
        assert_eq!(status.subnets[0].zone_id.as_deref(), Some("r1-az1"));
    }

    #[test]
    fn what_is_refused_makes_a_class_not_ready_until_it_is_not() {
        let image = super::super::class::ClassImage {
            id: "ami-1".to_owned(),
            name: "one".to_owned(),
            is_deprecated: false,
            requirements: [super::super::family::architecture("arm64")].into_iter().collect(),
        };
        let group = selectors::SecurityGroup { group_id: "sg-1".to_owned(), group_name: "nodes".to_owned() };
        let found = Found { security_groups: Ok(vec![group]), images: Ok(vec![image]), ..found() };
        let refused = Refusal { reason: "InstanceProfileNotFound", message: "p".to_owned() };
        let (spec, profile) = (EC2NodeClassSpec::default(), Ok("p".to_owned()));
        let now = Timestamp::UNIX_EPOCH;
        let first = status(&EC2NodeClassStatus::default(), &spec, &found, &profile, Some(&refused), now);
        assert_eq!(not_ready(&first).as_deref(), Some("ValidationSucceeded: p"));
        let lost = Found {
            placement_group: Err(CloudError::NotFound("placement group g".to_owned())),
            ..found.clone()
        };
        let named: EC2NodeClassSpec = serde_saphyr::from_str("{placementGroupSelector: {name: g}}").unwrap();
        let without = status(&first, &named, &lost, &profile, None, now);
        assert_eq!(
            says(&without, PLACEMENT_GROUP_READY),
            ("False".to_owned(), "PlacementGroupNotFound".to_owned())
        );
        let why = not_ready(&without).unwrap();
        assert!(why.contains("placement group g"), "{why}");
        let second = status(&without, &spec, &found, &profile, None, now);
        assert!(
            conditions::find(&second.conditions, PLACEMENT_GROUP_READY).is_none(),
            "it names none any more"
        );
        assert_eq!((not_ready(&second), second.instance_profile.as_deref()), (None, Some("p")));
        assert_eq!(second.amis[0].requirements[0].values, Some(vec!["arm64".to_owned()]));
    }
}
