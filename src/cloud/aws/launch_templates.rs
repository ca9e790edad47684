//! Launch templates, as far as a node's looks depend on them.

use serde::Deserialize;

use super::{
    action::DESCRIBE_LAUNCH_TEMPLATE_VERSIONS,
    answer::items,
    autoscaling::{InstanceRequirements, LaunchTemplateSpecification},
    client::Client,
    form::Form,
};
use crate::cloud::CloudError;

/// What a version of a launch template launches.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaunchTemplateData {
    /// The instance type,
    pub instance_type: Option<String>,
    /// or what it has to have.
    pub instance_requirements: Option<InstanceRequirements>,
    /// The image.
    pub image_id: Option<String>,
    /// Disks.
    #[serde(default, deserialize_with = "items")]
    pub block_device_mapping_set: Vec<BlockDeviceMapping>,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockDeviceMapping {
    /// What it is.
    pub ebs: Option<EbsBlockDevice>,
}

/// A network disk.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EbsBlockDevice {
    /// In GiB.
    pub volume_size: Option<i64>,
}

impl LaunchTemplateData {
    /// The size of its largest disk, in GiB, if it gives one.
    pub fn disk_gib(&self) -> Option<i64> {
        self.block_device_mapping_set.iter().filter_map(|mapping| mapping.ebs.as_ref()?.volume_size).max()
    }
}

/// Reads the version of a launch template that a group launches.
pub async fn launch_template(
    client: &Client,
    specification: &LaunchTemplateSpecification,
) -> Result<LaunchTemplateData, CloudError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Page {
        #[serde(default, deserialize_with = "items")]
        launch_template_version_set: Vec<Version>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        launch_template_data: LaunchTemplateData,
    }
    let version = specification.version.as_deref().unwrap_or("$Default");
    let id = specification.launch_template_id.as_deref();
    // One or the other: both together are refused.
    let name = specification.launch_template_name.as_deref().filter(|_| id.is_none());
    let form = Form::new()
        .set_some("LaunchTemplateId", id)
        .set_some("LaunchTemplateName", name)
        .list("LaunchTemplateVersion", [version]);
    let page: Page = client.query(&DESCRIBE_LAUNCH_TEMPLATE_VERSIONS, form).await?;
    let found = page.launch_template_version_set.into_iter().next();
    found.map(|version| version.launch_template_data).ok_or_else(|| {
        let template = id.or(specification.launch_template_name.as_deref()).unwrap_or("without a name");
        CloudError::NotFound(format!("version {version} of launch template {template}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::aws::answer::xml;

    #[test]
    fn a_launch_template_reads() {
        let body = "<R><imageId>ami-1</imageId><instanceRequirements><vCpuCount><min>2</min></vCpuCount>\
                    <cpuManufacturerSet><item>intel</item></cpuManufacturerSet></instanceRequirements>\
                    <blockDeviceMappingSet><item><deviceName>/dev/xvda</deviceName><ebs><volumeSize>50</volumeSize></ebs>\
                    </item><item><deviceName>b</deviceName></item></blockDeviceMappingSet></R>";
        let data: LaunchTemplateData = xml(body.as_bytes(), "X").unwrap();
        assert_eq!((data.instance_type.as_deref(), data.disk_gib()), (None, Some(50)));
        let requirements = data.instance_requirements.unwrap();
        assert_eq!(requirements["vCpuCount"].min.as_deref(), Some("2"));
        assert_eq!(requirements["cpuManufacturerSet"].any, ["intel"]);
    }
}
