//! Calls of Auto Scaling, and what they answer with.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use super::{
    action::{
        DESCRIBE_AUTO_SCALING_GROUPS, DESCRIBE_LAUNCH_CONFIGURATIONS, DESCRIBE_SCALING_ACTIVITIES,
        DETACH_INSTANCES, SET_DESIRED_CAPACITY, TERMINATE_INSTANCE_IN_GROUP,
    },
    answer::{Ignored, members, next},
    client::Client,
    form::Form,
};
use crate::cloud::CloudError;

/// Records that one page may hold, and names that one call may give.
const PAGE: usize = 100;

/// A group.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AutoScalingGroup {
    /// Its name.
    #[serde(rename = "AutoScalingGroupName")]
    pub name: String,
    /// It never gets smaller, in machines.
    pub min_size: u32,
    /// It never gets larger, in machines.
    pub max_size: u32,
    /// The size that it is kept at, in machines.
    pub desired_capacity: u32,
    /// What it launches, in the old form.
    pub launch_configuration_name: Option<String>,
    /// What it launches.
    pub launch_template: Option<LaunchTemplateSpecification>,
    /// What it launches, if of several types.
    pub mixed_instances_policy: Option<MixedInstancesPolicy>,
    /// Whether it replaces machines that are likely to be taken back.
    #[serde(default)]
    pub capacity_rebalance: bool,
    /// Its zones.
    #[serde(default, deserialize_with = "members")]
    pub availability_zones: Vec<String>,
    /// Its machines.
    #[serde(default, deserialize_with = "members")]
    pub instances: Vec<GroupInstance>,
    /// Its tags.
    #[serde(default, deserialize_with = "members")]
    pub tags: Vec<Tag>,
}

/// A machine of a group.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GroupInstance {
    /// `i-…`.
    pub instance_id: String,
    /// Its zone.
    pub availability_zone: String,
    /// Where it is in its life: `Pending`, `InService`, `Terminating:Wait` and so on.
    pub lifecycle_state: String,
}

/// A tag.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Tag {
    /// Its key.
    pub key: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
}

/// Names a launch template.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LaunchTemplateSpecification {
    /// By its id,
    pub launch_template_id: Option<String>,
    /// or by its name.
    pub launch_template_name: Option<String>,
    /// A number, `$Latest` or `$Default`; absent means the latter.
    pub version: Option<String>,
}

/// What a group of several instance types launches.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MixedInstancesPolicy {
    /// The launch template and what of it differs.
    pub launch_template: Option<MixedLaunchTemplate>,
}

/// A launch template and what of it differs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MixedLaunchTemplate {
    /// The launch template.
    pub launch_template_specification: Option<LaunchTemplateSpecification>,
    /// What differs, in order of preference.
    #[serde(default, deserialize_with = "members")]
    pub overrides: Vec<Override>,
}

/// What differs from a launch template.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Override {
    /// The instance type,
    pub instance_type: Option<String>,
    /// or what it has to have.
    pub instance_requirements: Option<InstanceRequirements>,
    /// Another launch template.
    pub launch_template_specification: Option<LaunchTemplateSpecification>,
}

/// What an instance type has to have, by names as the service gives them.
pub type InstanceRequirements = BTreeMap<String, Requirement>;

/// One requirement: a value, a range or a list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Deserialize)]
pub struct Requirement {
    /// A value,
    #[serde(rename = "$text")]
    pub value: Option<String>,
    /// or at least this much
    #[serde(alias = "Min")]
    pub min: Option<String>,
    /// and at most this much,
    #[serde(alias = "Max")]
    pub max: Option<String>,
    /// or any of these.
    #[serde(default, alias = "member", alias = "item")]
    pub any: Vec<String>,
}

/// What a group did.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Activity {
    /// When it began.
    pub start_time: Timestamp,
    /// `Successful`, `Failed`, `InProgress` and others.
    pub status_code: String,
    /// Why it failed.
    #[serde(default)]
    pub status_message: String,
}

/// What a group of the old kind launches.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LaunchConfiguration {
    /// Its name.
    pub launch_configuration_name: String,
    /// The instance type.
    pub instance_type: String,
}

/// The groups of these names; those that do not exist are left out.
pub async fn groups_by_name(client: &Client, names: &[&str]) -> Result<Vec<AutoScalingGroup>, CloudError> {
    let mut groups = Vec::new();
    for names in names.chunks(PAGE) {
        groups.extend(describe(client, &Form::new().list("AutoScalingGroupNames.member", names)).await?);
    }
    Ok(groups)
}

/// The groups that have all these tags; without a value any will do.
pub async fn groups_by_tags(
    client: &Client,
    tags: &BTreeMap<String, Option<String>>,
) -> Result<Vec<AutoScalingGroup>, CloudError> {
    let mut form = Form::new();
    for (index, (key, value)) in tags.iter().enumerate() {
        let filter = format!("Filters.member.{}", index + 1);
        let (name, wanted) = match value {
            Some(value) => (format!("tag:{key}"), value),
            None => ("tag-key".to_owned(), key),
        };
        form = form.set(format!("{filter}.Name"), name).set(format!("{filter}.Values.member.1"), wanted);
    }
    describe(client, &form).await
}

async fn describe(client: &Client, form: &Form) -> Result<Vec<AutoScalingGroup>, CloudError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Page {
        #[serde(default, deserialize_with = "members")]
        auto_scaling_groups: Vec<AutoScalingGroup>,
        next_token: Option<String>,
    }
    let (mut groups, mut token) = (Vec::new(), None);
    loop {
        let form = form.clone().set("MaxRecords", PAGE).set_some("NextToken", token);
        let page: Page = client.query(&DESCRIBE_AUTO_SCALING_GROUPS, form).await?;
        groups.extend(page.auto_scaling_groups);
        token = next(page.next_token);
        if token.is_none() {
            return Ok(groups);
        }
    }
}

/// The newest activities of a group, newest first; one page, since older ones decide nothing.
pub async fn activities(client: &Client, group: &str) -> Result<Vec<Activity>, CloudError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Page {
        #[serde(default, deserialize_with = "members")]
        activities: Vec<Activity>,
    }
    let form = Form::new().set("AutoScalingGroupName", group).set("MaxRecords", PAGE);
    Ok(client.query::<Page>(&DESCRIBE_SCALING_ACTIVITIES, form).await?.activities)
}

/// A launch configuration.
pub async fn launch_configuration(client: &Client, name: &str) -> Result<LaunchConfiguration, CloudError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Page {
        #[serde(default, deserialize_with = "members")]
        launch_configurations: Vec<LaunchConfiguration>,
    }
    let form = Form::new().list("LaunchConfigurationNames.member", [name]);
    let page: Page = client.query(&DESCRIBE_LAUNCH_CONFIGURATIONS, form).await?;
    let found = page.launch_configurations.into_iter().find(|found| found.launch_configuration_name == name);
    found.ok_or_else(|| CloudError::NotFound(format!("launch configuration {name}")))
}

/// Sets the size of a group, in machines, whatever its cooldown.
pub async fn set_desired_capacity(client: &Client, group: &str, size: u32) -> Result<(), CloudError> {
    let form = Form::new()
        .set("AutoScalingGroupName", group)
        .set("DesiredCapacity", size)
        .set("HonorCooldown", false);
    client.query::<Ignored>(&SET_DESIRED_CAPACITY, form).await.map(|_| ())
}

/// Takes a machine out of a group, whose size stays as it is: another is launched.
pub async fn detach(client: &Client, group: &str, instance: &str) -> Result<(), CloudError> {
    let form = Form::new()
        .set("AutoScalingGroupName", group)
        .list("InstanceIds.member", [instance])
        .set("ShouldDecrementDesiredCapacity", false);
    client.query::<Ignored>(&DETACH_INSTANCES, form).await.map(|_| ())
}

/// Terminates a machine of a group and lowers the group's size by it.
pub async fn terminate(client: &Client, instance: &str) -> Result<(), CloudError> {
    let form = Form::new().set("InstanceId", instance).set("ShouldDecrementDesiredCapacity", true);
    client.query::<Ignored>(&TERMINATE_INSTANCE_IN_GROUP, form).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::aws::answer::xml;

    #[test]
    fn a_mixed_group_reads() {
        let body = "<R><AutoScalingGroupName>g</AutoScalingGroupName><MixedInstancesPolicy><LaunchTemplate>\
            <LaunchTemplateSpecification><LaunchTemplateId>lt-1</LaunchTemplateId><LaunchTemplateName>t</LaunchTemplateName>\
            <Version>$Latest</Version></LaunchTemplateSpecification><Overrides><member><InstanceRequirements><VCpuCount>\
            <Min>2</Min><Max>4</Max></VCpuCount><MemoryMiB><Min>4096</Min></MemoryMiB><CpuManufacturers><member>amd</member>\
            <member>intel</member></CpuManufacturers><BareMetal>excluded</BareMetal></InstanceRequirements></member>\
            </Overrides></LaunchTemplate></MixedInstancesPolicy><MinSize>1</MinSize><MaxSize>5</MaxSize>\
            <DesiredCapacity>2</DesiredCapacity><AvailabilityZones><member>a</member></AvailabilityZones>\
            <Instances><member><InstanceId>i-1</InstanceId><AvailabilityZone>a</AvailabilityZone>\
            <LifecycleState>InService</LifecycleState></member></Instances><Tags><member><Key>k</Key><Value/></member></Tags>\
            </R>";
        let group: AutoScalingGroup = xml(body.as_bytes(), "X").unwrap();
        assert_eq!((group.min_size, group.max_size, group.desired_capacity), (1, 5, 2));
        assert_eq!(group.tags, [Tag { key: "k".into(), value: String::new() }]);
        assert_eq!(group.instances[0].lifecycle_state, "InService");
        let template = group.mixed_instances_policy.unwrap().launch_template.unwrap();
        let requirements = template.overrides[0].instance_requirements.as_ref().unwrap();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            requirements["VCpuCount"],
            Requirement { min: text("2"), max: text("4"), ..Requirement::default() }
        );
        assert_eq!(requirements["MemoryMiB"].max, None);
        assert_eq!(requirements["CpuManufacturers"].any, ["amd", "intel"]);
        assert_eq!(requirements["BareMetal"].value, text("excluded"));
    }

    #[test]
    fn an_activity_reads() {
        let body = "<R><StartTime>2026-11-21T12:30:30.794229Z</StartTime><StatusCode>Failed</StatusCode>\
                    <StatusMessage>no capacity</StatusMessage><Progress>100</Progress></R>";
        let activity: Activity = xml(body.as_bytes(), "X").unwrap();
        assert_eq!(activity.start_time, "2026-11-21T12:30:30.794229Z".parse().unwrap());
        assert_eq!((&*activity.status_code, &*activity.status_message), ("Failed", "no capacity"));
    }
}
