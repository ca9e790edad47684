//! Launch templates: what of a launch does not depend on type and subnet.
//!
//! Source: karpenter-provider-aws, `pkg/providers/launchtemplate`; EC2's `RequestLaunchTemplateData`.

use std::collections::BTreeMap;

use tandem_core::{
    api::karpenter::{BlockDeviceMapping, DEFAULT_HOP_LIMIT, EC2NodeClassSpec},
    quantity::parse_milli,
};

use super::{digest, family::Family};
use crate::cloud::aws::{fleet::launch::tags, form::Form};

const GIBIBYTE: i64 = 1 << 30;
/// Sizes of volumes are thousandths of bytes when they are read.
const MILLI: i64 = 1000;

/// What a launch template is made from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parts<'a> {
    /// The class.
    pub(super) spec: &'a EC2NodeClassSpec,
    /// `ami-…`.
    pub(super) image: &'a str,
    /// Base64; empty is none.
    pub(super) user_data: &'a str,
    /// Gives the machine its role.
    pub(super) instance_profile: &'a str,
    /// `sg-…`.
    pub(super) security_groups: Vec<&'a str>,
    /// The placement group, `pg-…`, and the part of it.
    pub(super) placement: (Option<&'a str>, Option<u32>),
    /// Interfaces that bypass the kernel.
    pub(super) efa: i64,
    /// Whether it is for spot capacity.
    pub(super) spot: bool,
    /// Tags of what comes with a machine.
    pub(super) tags: &'a BTreeMap<String, String>,
}

/// A launch template.
#[derive(Debug, Clone)]
pub(super) struct Template {
    /// Its name; one that follows from the data, so that equal ones are shared.
    pub(super) name: String,
    /// Its data.
    pub(super) data: Form,
}

/// The launch template of these parts, for machines of this cluster.
pub(super) fn template(cluster: &str, parts: &Parts<'_>) -> Template {
    let spec = parts.spec;
    let metadata = spec.metadata_options.clone().unwrap_or_default().or_defaults(DEFAULT_HOP_LIMIT);
    let mut data = Form::new()
        .set("ImageId", parts.image)
        .set_some("UserData", Some(parts.user_data).filter(|data| !data.is_empty()))
        .set("IamInstanceProfile.Name", parts.instance_profile)
        .set_some("MetadataOptions.HttpEndpoint", metadata.http_endpoint)
        .set_some("MetadataOptions.HttpProtocolIpv6", metadata.http_protocol_ipv6)
        .set_some("MetadataOptions.HttpPutResponseHopLimit", metadata.http_put_response_hop_limit)
        .set_some("MetadataOptions.HttpTokens", metadata.http_tokens)
        .set_some("Monitoring.Enabled", spec.detailed_monitoring)
        .set_some("Placement.GroupId", parts.placement.0)
        .set_some("Placement.PartitionNumber", parts.placement.1)
        .set_some(
            "CpuOptions.NestedVirtualization",
            spec.cpu_options.as_ref().and_then(|cpu| cpu.nested_virtualization.as_deref()),
        );
    let interfaces = interfaces(parts);
    if interfaces.is_empty() {
        data = data.list("SecurityGroupId", &parts.security_groups);
    }
    for (index, interface) in interfaces.into_iter().enumerate() {
        data = data.nest(&format!("NetworkInterface.{}", index + 1), interface);
    }
    let disks = spec.block_device_mappings.clone().unwrap_or_else(|| Family::of(spec).disks());
    for (index, disk) in disks.iter().enumerate() {
        data = data.nest(&format!("BlockDeviceMapping.{}", index + 1), mapping(disk));
    }
    let request = parts.spot.then_some("spot-instances-request");
    for (index, resource) in ["network-interface"].into_iter().chain(request).enumerate() {
        data = data.nest(&format!("TagSpecification.{}", index + 1), tags(resource, parts.tags));
    }
    let digest = digest(&(cluster, data.clone().encode("", "")));
    Template { name: format!("karpenter.k8s.aws/{digest}"), data }
}

/// Interfaces, where security groups alone do not say it.
fn interfaces(parts: &Parts<'_>) -> Vec<Form> {
    let spec = parts.spec;
    let own = spec.network_interfaces.as_deref().unwrap_or_default();
    let wanted: Vec<(i32, i32, Option<&str>)> = if own.is_empty() {
        // All but the first of a card are second on theirs.
        let efa = i32::try_from(parts.efa).unwrap_or(i32::MAX);
        (0..efa).map(|card| (card, i32::from(card > 0), Some("efa"))).collect()
    } else {
        let of =
            own.iter().map(|one| (one.network_card_index, one.device_index, one.interface_type.as_deref()));
        of.collect()
    };
    let plain = spec.associate_public_ip_address.is_some()
        || spec.ip_prefix_count.is_some()
        || spec.connection_tracking.is_some();
    let wanted = if wanted.is_empty() && plain { vec![(0, 0, None)] } else { wanted };
    // EC2 gives public addresses to machines with one interface only.
    let public = spec.associate_public_ip_address.filter(|_| wanted.len() == 1);
    let interface = |(card, device, kind): (i32, i32, Option<&str>)| {
        let is_first = card == 0 && device == 0;
        let tracking = spec.connection_tracking.clone().unwrap_or_default();
        let timeout = "ConnectionTrackingSpecification";
        Form::new()
            .set("NetworkCardIndex", card)
            .set("DeviceIndex", device)
            .set_some("InterfaceType", kind)
            .set_some("AssociatePublicIpAddress", public.filter(|_| is_first))
            .set_some("Ipv4PrefixCount", spec.ip_prefix_count.filter(|_| is_first))
            .set_some(format!("{timeout}.TcpEstablishedTimeout"), tracking.tcp_established_timeout)
            .set_some(format!("{timeout}.UdpStreamTimeout"), tracking.udp_stream_timeout)
            .set_some(format!("{timeout}.UdpTimeout"), tracking.udp_timeout)
            .list("SecurityGroupId", &parts.security_groups)
    };
    wanted.into_iter().map(interface).collect()
}

fn mapping(disk: &BlockDeviceMapping) -> Form {
    let mut form = Form::new().set_some("DeviceName", disk.device_name.as_deref());
    if let Some(ebs) = &disk.ebs {
        // EC2 counts whole GiB.
        let size = ebs.volume_size.as_ref().and_then(|size| parse_milli(&size.0).ok());
        let size = size.map(|size| (size / MILLI + GIBIBYTE - 1) / GIBIBYTE);
        let volume = Form::new()
            .set_some("DeleteOnTermination", ebs.delete_on_termination)
            .set_some("Encrypted", ebs.encrypted)
            .set_some("VolumeType", ebs.volume_type.as_deref())
            .set_some("VolumeSize", size)
            .set_some("Iops", ebs.iops)
            .set_some("Throughput", ebs.throughput)
            .set_some("KmsKeyId", ebs.kms_key_id.as_deref())
            .set_some("SnapshotId", ebs.snapshot_id.as_deref())
            .set_some("VolumeInitializationRate", ebs.volume_initialization_rate);
        form = form.nest("Ebs", volume);
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(yaml: &str, efa: i64, spot: bool) -> (String, String) {
        let spec: EC2NodeClassSpec = serde_saphyr::from_str(yaml).unwrap();
        let tags = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
        let parts = Parts {
            spec: &spec,
            image: "ami-1",
            user_data: "eA==",
            instance_profile: "profile",
            security_groups: vec!["sg-1", "sg-2"],
            placement: spec
                .placement_group_selector
                .as_ref()
                .map_or((None, None), |_| (Some("pg-1"), Some(2))),
            efa,
            spot,
            tags: &tags,
        };
        let template = template("test", &parts);
        (template.name, template.data.encode("A", "1").replace('&', "\n"))
    }

    #[test]
    fn a_plain_class() {
        let (name, text) = encoded("amiFamily: AL2023", 0, false);
        assert!(name.starts_with("karpenter.k8s.aws/") && name.len() == 34, "{name}");
        insta::assert_snapshot!(text);
        assert_ne!(encoded("amiFamily: AL2023", 0, true).0, name, "another template has another name");
    }

    #[test]
    fn a_class_with_everything() {
        let yaml = "{amiFamily: Custom, associatePublicIPAddress: false, ipPrefixCount: 2, detailedMonitoring: true, \
                    metadataOptions: {httpTokens: optional}, connectionTracking: {udpTimeout: 40}, \
                    cpuOptions: {nestedVirtualization: enabled}, placementGroupSelector: {name: g}, blockDeviceMappings: [{deviceName: /dev/sda1, ebs: \
                    {volumeSize: 20500Mi, volumeType: io2, iops: 4000, throughput: 125, kmsKeyID: k, snapshotID: snap-1, \
                    volumeInitializationRate: 100}}]}";
        insta::assert_snapshot!(encoded(yaml, 0, true).1);
    }

    #[test]
    fn interfaces_bypass_the_kernel_on_each_card() {
        let text = encoded("amiFamily: AL2023", 2, false).1;
        for line in [
            "NetworkInterface.1.DeviceIndex=0",
            "NetworkInterface.2.NetworkCardIndex=1",
            "NetworkInterface.2.DeviceIndex=1",
            "NetworkInterface.2.InterfaceType=efa",
            "NetworkInterface.2.SecurityGroupId.2=sg-2",
        ] {
            assert!(text.lines().any(|seen| seen == line), "{line} in {text}");
        }
        assert!(!text.contains("\nSecurityGroupId"), "{text}");
    }
}
