//! Launching machines through instant fleets, finding them again, ending them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Deserialize;

use crate::cloud::{
    CloudError,
    aws::{
        action::{
            CREATE_FLEET, CREATE_LAUNCH_TEMPLATE, DELETE_LAUNCH_TEMPLATE, DESCRIBE_INSTANCES,
            DESCRIBE_LAUNCH_TEMPLATES, TERMINATE_INSTANCES,
        },
        answer::{Failure, Ignored, items, next},
        client::{Client, classify},
        form::Form,
    },
};

/// Records of one page.
const PAGE: usize = 500;
/// Values of one filter, of the 200 that EC2 takes.
const FILTERED: usize = 100;

/// One choice of a launch.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The launch template's name.
    pub launch_template: String,
    /// `m5.large`.
    pub instance_type: String,
    /// `subnet-…`, which decides the zone.
    pub subnet: String,
    /// The zone.
    pub zone: String,
    /// What it costs, dollars an hour, as far as [`Launch::by_price`] is concerned.
    pub price: f64,
}

/// A launch of one machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// Whether spot capacity is bought.
    pub spot: bool,
    /// Whether the prices of the choices decide, and not those that EC2 knows.
    pub by_price: bool,
    /// `Context` of the call, for who has one.
    pub context: Option<String>,
    /// What it may be.
    pub choices: Vec<Choice>,
    /// Tags of the machine, its disks and the fleet.
    pub tags: BTreeMap<String, String>,
    /// Makes a repeated call the same launch.
    pub token: String,
}

/// What a launch came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Launched {
    /// The machine: id, type and zone; `None` if none of the choices could be had.
    pub machine: Option<(String, String, Option<String>)>,
    /// What could not be had, and why.
    pub failures: Vec<LaunchFailure>,
}

/// A choice that could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchFailure {
    /// `m5.large`.
    pub instance_type: String,
    /// The zone, if AWS says.
    pub zone: Option<String>,
    /// Why.
    pub error: CloudError,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// `i-…`.
    pub instance_id: String,
    /// `m5.large`.
    pub instance_type: String,
    /// `ami-…`.
    #[serde(default)]
    pub image_id: String,
    /// Where it is in its life.
    pub instance_state: MachineState,
    /// Where it is.
    pub placement: Placement,
    /// `spot`, or absent.
    pub instance_lifecycle: Option<String>,
    /// When it was launched.
    pub launch_time: Timestamp,
    /// `subnet-…`.
    #[serde(default)]
    pub subnet_id: String,
    /// Its security groups.
    #[serde(default, deserialize_with = "items")]
    pub group_set: Vec<GroupId>,
    /// Its tags.
    #[serde(default, deserialize_with = "items")]
    pub tag_set: Vec<MachineTag>,
}

/// A security group of a machine.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupId {
    /// `sg-…`.
    pub group_id: String,
}

/// Where a machine is in its life.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct MachineState {
    /// `pending`, `running`, `shutting-down`, `terminated`, `stopping` or `stopped`.
    pub name: String,
}

/// Where a machine is.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Its zone.
    pub availability_zone: String,
    /// The part of its placement group, if that has such.
    pub partition_number: Option<u32>,
}

/// A tag.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct MachineTag {
    /// Its key.
    pub key: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
}

/// Makes a launch template of this data; one of that name is taken as it is, so the name has to follow from the data.
pub async fn create_launch_template(
    client: &Client,
    name: &str,
    data: Form,
    tagged: &BTreeMap<String, String>,
) -> Result<(), CloudError> {
    let form = Form::new()
        .set("LaunchTemplateName", name)
        .nest("LaunchTemplateData", data)
        .nest("TagSpecification.1", tags("launch-template", tagged));
    match client.query::<Ignored>(&CREATE_LAUNCH_TEMPLATE, form).await {
        Err(CloudError::Refused { code, .. })
            if code == "InvalidLaunchTemplateName.AlreadyExistsException" =>
        {
            Ok(())
        }
        other => other.map(|_| ()),
    }
}

/// Names of launch templates with this tag.
pub async fn launch_templates(client: &Client, tag: (&str, &str)) -> Result<Vec<String>, CloudError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Page {
        #[serde(default, deserialize_with = "items")]
        launch_templates: Vec<Name>,
        next_token: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Name {
        launch_template_name: String,
    }
    let form = Form::new().filter(&format!("tag:{}", tag.0), [tag.1]);
    let (mut names, mut token) = (Vec::new(), None);
    loop {
        let page: Page =
            client.query(&DESCRIBE_LAUNCH_TEMPLATES, form.clone().set_some("NextToken", token)).await?;
        names.extend(page.launch_templates.into_iter().map(|found| found.launch_template_name));
        token = next(page.next_token);
        if token.is_none() {
            return Ok(names);
        }
    }
}

/// Removes a launch template.
pub async fn delete_launch_template(client: &Client, name: &str) -> Result<(), CloudError> {
    let form = Form::new().set("LaunchTemplateName", name);
    client.query::<Ignored>(&DELETE_LAUNCH_TEMPLATE, form).await.map(|_| ())
}

/// Launches one machine: of spot capacity what is least likely to be taken back for its price, on demand the cheapest
/// (Karpenter, `pkg/providers/instance`).
pub async fn launch(client: &Client, launch: &Launch) -> Result<Launched, CloudError> {
    let answer: FleetAnswer = client.query(&CREATE_FLEET, fleet_form(launch)).await?;
    Ok(answer.launched())
}

fn fleet_form(launch: &Launch) -> Form {
    let capacity = if launch.spot { "spot" } else { "on-demand" };
    let mut form = Form::new()
        .set("Type", "instant")
        .set("ClientToken", &launch.token)
        .set_some("Context", launch.context.as_deref())
        .set("TargetCapacitySpecification.TotalTargetCapacity", 1)
        .set("TargetCapacitySpecification.DefaultTargetCapacityType", capacity);
    let (option, strategy) = match (launch.spot, launch.by_price) {
        (true, false) => ("SpotOptions.AllocationStrategy", "price-capacity-optimized"),
        (true, true) => ("SpotOptions.AllocationStrategy", "capacity-optimized-prioritized"),
        (false, false) => ("OnDemandOptions.AllocationStrategy", "lowest-price"),
        (false, true) => ("OnDemandOptions.AllocationStrategy", "prioritized"),
    };
    form = form.set(option, strategy);
    // In the order of the first choice of each.
    let mut templates: Vec<(&str, Vec<&Choice>)> = Vec::new();
    for choice in &launch.choices {
        match templates.iter_mut().find(|(name, _)| *name == choice.launch_template) {
            Some((_, choices)) => choices.push(choice),
            None => templates.push((&choice.launch_template, vec![choice])),
        }
    }
    for (index, (template, choices)) in templates.into_iter().enumerate() {
        let mut config = Form::new()
            .set("LaunchTemplateSpecification.LaunchTemplateName", template)
            .set("LaunchTemplateSpecification.Version", "$Latest");
        for (index, choice) in choices.into_iter().enumerate() {
            let one = Form::new()
                .set("InstanceType", &choice.instance_type)
                .set("SubnetId", &choice.subnet)
                .set("AvailabilityZone", &choice.zone)
                // The least comes first.
                .set_some("Priority", launch.by_price.then_some(choice.price));
            config = config.nest(&format!("Overrides.{}", index + 1), one);
        }
        form = form.nest(&format!("LaunchTemplateConfigs.{}", index + 1), config);
    }
    for (index, resource) in ["instance", "volume", "fleet"].into_iter().enumerate() {
        form = form.nest(&format!("TagSpecification.{}", index + 1), tags(resource, &launch.tags));
    }
    form
}

/// Tags of what is made of this kind.
pub fn tags(resource: &str, tags: &BTreeMap<String, String>) -> Form {
    let mut form = Form::new().set("ResourceType", resource);
    for (index, (key, value)) in tags.iter().enumerate() {
        form = form.set(format!("Tag.{}.Key", index + 1), key).set(format!("Tag.{}.Value", index + 1), value);
    }
    form
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FleetAnswer {
    #[serde(default, deserialize_with = "items")]
    fleet_instance_set: Vec<FleetInstance>,
    #[serde(default, deserialize_with = "items")]
    error_set: Vec<FleetError>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FleetInstance {
    #[serde(default, deserialize_with = "items")]
    instance_ids: Vec<String>,
    #[serde(default)]
    instance_type: String,
    launch_template_and_overrides: Option<Overridden>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FleetError {
    error_code: String,
    #[serde(default)]
    error_message: String,
    launch_template_and_overrides: Option<Overridden>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Overridden {
    overrides: Option<Overrides>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Overrides {
    instance_type: Option<String>,
    availability_zone: Option<String>,
}

impl FleetAnswer {
    fn launched(self) -> Launched {
        let overrides =
            |overridden: Option<Overridden>| overridden.and_then(|it| it.overrides).unwrap_or_default();
        let machine = self.fleet_instance_set.into_iter().find_map(|instance| {
            let id = instance.instance_ids.into_iter().next()?;
            Some((
                id,
                instance.instance_type,
                overrides(instance.launch_template_and_overrides).availability_zone,
            ))
        });
        let failures = self.error_set.into_iter().map(|error| {
            let at = overrides(error.launch_template_and_overrides);
            let failure = Failure { code: error.error_code, message: error.error_message };
            LaunchFailure {
                instance_type: at.instance_type.unwrap_or_default(),
                zone: at.availability_zone,
                error: classify(CREATE_FLEET.permission(), failure),
            }
        });
        Launched { machine, failures: failures.collect() }
    }
}

/// Machines that have all these tags (`*` means any value) and have not begun to end.
pub async fn machines(client: &Client, tags: &BTreeMap<String, String>) -> Result<Vec<Machine>, CloudError> {
    let states = ["pending", "running", "stopping", "stopped"];
    let mut form = Form::new().filter("instance-state-name", states).set("MaxResults", PAGE);
    for (key, value) in tags {
        form = if value == "*" {
            form.filter("tag-key", [key])
        } else {
            form.filter(&format!("tag:{key}"), [value])
        };
    }
    described(client, &form).await
}

/// Those of these machines that EC2 knows, in whatever state. By a filter: as parameters, one that EC2 has forgotten would
/// refuse them all.
pub async fn machines_by_id(client: &Client, ids: &[String]) -> Result<Vec<Machine>, CloudError> {
    let mut machines = Vec::new();
    for ids in ids.chunks(FILTERED) {
        machines.extend(described(client, &Form::new().filter("instance-id", ids)).await?);
    }
    Ok(machines)
}

async fn described(client: &Client, form: &Form) -> Result<Vec<Machine>, CloudError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Page {
        #[serde(default, deserialize_with = "items")]
        reservation_set: Vec<Reservation>,
        next_token: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Reservation {
        #[serde(default, deserialize_with = "items")]
        instances_set: Vec<Machine>,
    }
    let (mut machines, mut token) = (Vec::new(), None);
    loop {
        let page: Page = client.query(&DESCRIBE_INSTANCES, form.clone().set_some("NextToken", token)).await?;
        machines.extend(page.reservation_set.into_iter().flat_map(|reservation| reservation.instances_set));
        token = next(page.next_token);
        if token.is_none() {
            return Ok(machines);
        }
    }
}

/// Ends machines; answers with those that had ended before.
pub async fn terminate(client: &Client, ids: &[String]) -> Result<BTreeSet<String>, CloudError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        #[serde(default, deserialize_with = "items")]
        instances_set: Vec<Change>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Change {
        instance_id: String,
        current_state: MachineState,
        previous_state: MachineState,
    }
    let answer: Answer = client.query(&TERMINATE_INSTANCES, Form::new().list("InstanceId", ids)).await?;
    let has_ended = |change: &Change| {
        [&change.current_state, &change.previous_state].iter().any(|state| state.name == "terminated")
    };
    Ok(answer.instances_set.into_iter().filter(has_ended).map(|change| change.instance_id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::aws::answer::xml;

    #[test]
    fn a_fleet_answers_with_machines_and_failures() {
        let body = "<CreateFleetResponse><fleetId>f</fleetId><errorSet><item><errorCode>InsufficientInstanceCapacity</errorCode>\
            <errorMessage>none</errorMessage><launchTemplateAndOverrides><overrides><instanceType>m5.large</instanceType>\
            <availabilityZone>r-1a</availabilityZone></overrides></launchTemplateAndOverrides></item></errorSet>\
            <fleetInstanceSet><item><instanceIds><item>i-1</item></instanceIds><instanceType>c5.large</instanceType>\
            <launchTemplateAndOverrides><overrides><availabilityZone>r-1b</availabilityZone></overrides>\
            </launchTemplateAndOverrides></item></fleetInstanceSet></CreateFleetResponse>";
        let launched = xml::<FleetAnswer>(body.as_bytes(), "CreateFleet").unwrap().launched();
        assert_eq!(launched.machine, Some(("i-1".into(), "c5.large".into(), Some("r-1b".into()))));
        let [failure] = &launched.failures[..] else { panic!("{launched:?}") };
        assert_eq!((failure.instance_type.as_str(), failure.zone.as_deref()), ("m5.large", Some("r-1a")));
        assert!(matches!(failure.error, CloudError::OutOfCapacity { .. }));
    }

    #[test]
    fn choices_are_grouped_by_launch_template() {
        let choice = |template: &str, instance_type: &str| Choice {
            launch_template: template.into(),
            instance_type: instance_type.into(),
            subnet: "s".into(),
            zone: "z".into(),
            price: 0.5,
        };
        let mut launch = Launch {
            spot: true,
            by_price: false,
            context: None,
            choices: vec![choice("b", "m5.large"), choice("a", "m6g.large"), choice("b", "c5.large")],
            tags: BTreeMap::from([("k".into(), "v".into())]),
            token: "t".into(),
        };
        let text = fleet_form(&launch).encode("CreateFleet", "1");
        for part in [
            "SpotOptions.AllocationStrategy=price-capacity-optimized",
            "LaunchTemplateConfigs.2.LaunchTemplateSpecification.LaunchTemplateName=a",
            "LaunchTemplateConfigs.1.Overrides.2.InstanceType=c5.large",
            "TagSpecification.3.ResourceType=fleet&TagSpecification.3.Tag.1.Key=k",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("OnDemandOptions") && !text.contains("Priority"));
        launch.by_price = true;
        for (spot, strategy) in [
            (true, "SpotOptions.AllocationStrategy=capacity-optimized-prioritized"),
            (false, "OnDemandOptions.AllocationStrategy=prioritized"),
        ] {
            launch.spot = spot;
            let text = fleet_form(&launch).encode("CreateFleet", "1");
            assert!(text.contains(strategy), "{text}");
            assert!(text.contains("LaunchTemplateConfigs.2.Overrides.1.Priority=0.5"), "{text}");
        }
    }
}
