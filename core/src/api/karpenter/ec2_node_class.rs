//! EC2NodeClass (`ec2nc`): what of nodes on EC2 is not a requirement.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::NodeSelectorRequirement;
use k8s_openapi::apimachinery::pkg::{
    api::resource::Quantity,
    apis::meta::v1::{Condition, Time},
};
use kube::CustomResource;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    kubelet::KubeletConfiguration,
    schema::set,
    selector_terms::{
        AMIS, AmiSelectorTerm, CAPACITY_RESERVATIONS, CapacityReservationSelectorTerm,
        PlacementGroupSelector, SECURITY_GROUPS, SUBNETS, SecurityGroupSelectorTerm, SubnetSelectorTerm,
    },
};
use crate::api::{
    numbers::quantity,
    rules::{Rule, rules},
};

/// How far an answer of the metadata service goes when a class does not say, in network hops: not into containers.
pub const DEFAULT_HOP_LIMIT: i64 = 1;

const SPEC: &[Rule] = &[
    (
        "must specify exactly one of ['role', 'instanceProfile']",
        "(has(self.role) && !has(self.instanceProfile)) || (!has(self.role) && has(self.instanceProfile))",
    ),
    (
        "if set, amiFamily must be 'AL2' or 'Custom' when using an AL2 alias",
        "!has(self.amiFamily) || (self.amiSelectorTerms.exists(x, has(x.alias) && x.alias.find('^[^@]+') == 'al2') ? (self.amiFamily == 'Custom' || self.amiFamily == 'AL2') : true)",
    ),
    (
        "if set, amiFamily must be 'AL2023' or 'Custom' when using an AL2023 alias",
        "!has(self.amiFamily) || (self.amiSelectorTerms.exists(x, has(x.alias) && x.alias.find('^[^@]+') == 'al2023') ? (self.amiFamily == 'Custom' || self.amiFamily == 'AL2023') : true)",
    ),
    (
        "if set, amiFamily must be 'Bottlerocket' or 'Custom' when using a Bottlerocket alias",
        "!has(self.amiFamily) || (self.amiSelectorTerms.exists(x, has(x.alias) && x.alias.find('^[^@]+') == 'bottlerocket') ? (self.amiFamily == 'Custom' || self.amiFamily == 'Bottlerocket') : true)",
    ),
    (
        "if set, amiFamily must be 'Windows2019' or 'Custom' when using a Windows2019 alias",
        "!has(self.amiFamily) || (self.amiSelectorTerms.exists(x, has(x.alias) && x.alias.find('^[^@]+') == 'windows2019') ? (self.amiFamily == 'Custom' || self.amiFamily == 'Windows2019') : true)",
    ),
    (
        "if set, amiFamily must be 'Windows2022' or 'Custom' when using a Windows2022 alias",
        "!has(self.amiFamily) || (self.amiSelectorTerms.exists(x, has(x.alias) && x.alias.find('^[^@]+') == 'windows2022') ? (self.amiFamily == 'Custom' || self.amiFamily == 'Windows2022') : true)",
    ),
    (
        "if set, amiFamily must be 'Windows2025' or 'Custom' when using a Windows2025 alias",
        "!has(self.amiFamily) || (self.amiSelectorTerms.exists(x, has(x.alias) && x.alias.find('^[^@]+') == 'windows2025') ? (self.amiFamily == 'Custom' || self.amiFamily == 'Windows2025') : true)",
    ),
    (
        "must specify amiFamily if amiSelectorTerms does not contain an alias",
        "self.amiSelectorTerms.exists(x, has(x.alias)) ? true : has(self.amiFamily)",
    ),
];
const ROLE: &[Rule] = &[("role cannot be empty", "self != ''")];
const INSTANCE_PROFILE: &[Rule] = &[("instanceProfile cannot be empty", "self != ''")];
const TAGS: &[Rule] = &[
    ("empty tag keys aren't supported", "self.all(k, k != '')"),
    (
        "tag contains a restricted tag matching eks:eks-cluster-name",
        "self.all(k, k != 'eks:eks-cluster-name')",
    ),
    (
        "tag contains a restricted tag matching kubernetes.io/cluster/",
        "self.all(k, !k.startsWith('kubernetes.io/cluster'))",
    ),
    (
        "tag contains a restricted tag matching karpenter.sh/nodepool",
        "self.all(k, k != 'karpenter.sh/nodepool')",
    ),
    (
        "tag contains a restricted tag matching karpenter.sh/nodeclaim",
        "self.all(k, k != 'karpenter.sh/nodeclaim')",
    ),
    (
        "tag contains a restricted tag matching karpenter.k8s.aws/ec2nodeclass",
        "self.all(k, k != 'karpenter.k8s.aws/ec2nodeclass')",
    ),
];
const DEVICES: &[Rule] = &[(
    "must have only one blockDeviceMappings with rootVolume",
    "self.filter(x, has(x.rootVolume) ? x.rootVolume == true : false).size() <= 1",
)];

/// What of nodes on EC2 is not a requirement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "karpenter.k8s.aws",
    version = "v1",
    kind = "EC2NodeClass",
    plural = "ec2nodeclasses",
    category = "karpenter",
    shortname = "ec2nc",
    shortname = "ec2ncs",
    status = "EC2NodeClassStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Role", type_ = "string", json_path = ".spec.role", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rules(SPEC))]
pub struct EC2NodeClassSpec {
    /// Which subnets instances run in.
    #[serde(default)]
    #[schemars(!default, length(max = 30), transform = rules(SUBNETS))]
    pub subnet_selector_terms: Vec<SubnetSelectorTerm>,
    /// Which security groups they get.
    #[serde(default)]
    #[schemars(!default, length(max = 30), transform = rules(SECURITY_GROUPS))]
    pub security_group_selector_terms: Vec<SecurityGroupSelectorTerm>,
    /// Which capacity reservations they may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 30), transform = rules(CAPACITY_RESERVATIONS))]
    pub capacity_reservation_selector_terms: Option<Vec<CapacityReservationSelectorTerm>>,
    /// Which placement group they are in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement_group_selector: Option<PlacementGroupSelector>,
    /// Whether they get a public address; the subnet decides if it does not say.
    #[serde(default, rename = "associatePublicIPAddress", skip_serializing_if = "Option::is_none")]
    pub associate_public_ip_address: Option<bool>,
    /// IPv4 prefixes of the first network interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ip_prefix_count: Option<i32>,
    /// Which images they run.
    #[serde(default)]
    #[schemars(!default, length(min = 1, max = 30), transform = rules(AMIS))]
    pub ami_selector_terms: Vec<AmiSelectorTerm>,
    /// How user data is worded; that of the alias, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "enum" = ["AL2", "AL2023", "Bottlerocket", "Custom", "Windows2019", "Windows2022", "Windows2025"]
    ))]
    pub ami_family: Option<String>,
    /// User data, into which the settings of the kubelet are merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// The role of the nodes; an instance profile is made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = rules(ROLE))]
    pub role: Option<String>,
    /// The instance profile of the nodes, instead of a role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = rules(INSTANCE_PROFILE))]
    pub instance_profile: Option<String>,
    /// Tags of everything that is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = rules(TAGS))]
    pub tags: Option<BTreeMap<String, String>>,
    /// Settings of the kubelet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubelet: Option<KubeletConfiguration>,
    /// Disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 50), transform = rules(DEVICES), transform = volumes)]
    pub block_device_mappings: Option<Vec<BlockDeviceMapping>>,
    /// What becomes of disks that belong to the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["RAID0"]))]
    pub instance_store_policy: Option<String>,
    /// Network interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 150))]
    pub network_interfaces: Option<Vec<NetworkInterface>>,
    /// Whether CloudWatch has a figure a minute of each instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detailed_monitoring: Option<bool>,
    /// The metadata service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = metadata_defaults)]
    pub metadata_options: Option<MetadataOptions>,
    /// How long idle connections are tracked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_tracking: Option<ConnectionTracking>,
    /// `Context` of CreateFleet, reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// The processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_options: Option<CpuOptions>,
}

/// A disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockDeviceMapping {
    /// The device, such as `/dev/xvda`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    /// Its volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ebs: Option<BlockDevice>,
    /// Whether the kubelet's files are on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_volume: Option<bool>,
}

/// A volume.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockDevice {
    /// Whether it goes with its instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_on_termination: Option<bool>,
    /// Whether it is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// Operations a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<i64>,
    /// The key that encrypts it.
    #[serde(default, rename = "kmsKeyID", skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    /// The snapshot that it begins as.
    #[serde(default, rename = "snapshotID", skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// Throughput, MiB a second (gp3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<i64>,
    /// How fast the snapshot is copied, MiB a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 300))]
    pub volume_initialization_rate: Option<i32>,
    /// Its size.
    #[serde(default, deserialize_with = "quantity", skip_serializing_if = "Option::is_none")]
    pub volume_size: Option<Quantity>,
    /// Its type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["standard", "io1", "io2", "gp2", "sc1", "st1", "gp3"]))]
    pub volume_type: Option<String>,
}

/// What v1 asks of volumes and the kinds before it do not.
fn volumes(schema: &mut Schema) {
    set(
        schema,
        "/items/properties/ebs",
        json!({"x-kubernetes-validations": [
            {"message": "snapshotID or volumeSize must be defined", "rule": "has(self.snapshotID) || has(self.volumeSize)"},
            {
                "message": "snapshotID must be set when volumeInitializationRate is set",
                "rule": "!has(self.volumeInitializationRate) || (has(self.snapshotID) && self.snapshotID != '')",
            },
        ]}),
    );
    if let Some(size) = schema.pointer_mut("/items/properties/ebs/properties/volumeSize") {
        *size = json!({
            "description": "Its size in Gi, G, Ti or T.",
            "type": "string",
            "pattern": r"^((?:[1-9][0-9]{0,3}|[1-4][0-9]{4}|[5][0-8][0-9]{3}|59000)Gi|(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|[6][0-3][0-9]{3}|64000)G|([1-9]||[1-5][0-7]|58)Ti|([1-9]||[1-5][0-9]|6[0-3]|64)T)$",
        });
    }
}

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkInterface {
    /// The card that it is on.
    #[serde(default)]
    #[schemars(!default, range(min = 0))]
    pub network_card_index: i32,
    /// Its place on the card.
    #[serde(default)]
    #[schemars(!default, range(min = 0))]
    pub device_index: i32,
    /// Its type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["interface", "efa-only"]))]
    pub interface_type: Option<String>,
}

/// The metadata service of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetadataOptions {
    /// Whether it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["enabled", "disabled"]))]
    pub http_endpoint: Option<String>,
    /// Whether it answers on IPv6.
    #[serde(default, rename = "httpProtocolIPv6", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["enabled", "disabled"]))]
    pub http_protocol_ipv6: Option<String>,
    /// How far its answers go, network hops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub http_put_response_hop_limit: Option<i64>,
    /// Whether it wants a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["required", "optional"]))]
    pub http_tokens: Option<String>,
}

impl MetadataOptions {
    /// These, and `hop_limit` and the rest of the defaults where they do not say.
    #[must_use]
    pub fn or_defaults(self, hop_limit: i64) -> Self {
        let or = |value: Option<String>, default: &str| value.or_else(|| Some(default.to_owned()));
        Self {
            http_endpoint: or(self.http_endpoint, "enabled"),
            http_protocol_ipv6: or(self.http_protocol_ipv6, "disabled"),
            http_put_response_hop_limit: self.http_put_response_hop_limit.or(Some(hop_limit)),
            http_tokens: or(self.http_tokens, "required"),
        }
    }
}

/// The defaults, for what is absent as a whole and for each field.
fn metadata_defaults(schema: &mut Schema) {
    let defaults = json!(MetadataOptions::default().or_defaults(DEFAULT_HOP_LIMIT));
    for (name, default) in defaults.as_object().into_iter().flatten() {
        set(schema, &format!("/properties/{name}"), json!({"default": default}));
    }
    schema.insert("default".to_owned(), defaults);
}

/// How long idle connections are tracked, seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionTracking {
    /// Established TCP connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 432_000))]
    pub tcp_established_timeout: Option<i32>,
    /// UDP flows with several packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 180))]
    pub udp_stream_timeout: Option<i32>,
    /// UDP flows with one packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 30, max = 60))]
    pub udp_timeout: Option<i32>,
}

/// The processor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CpuOptions {
    /// Whether instances may run virtual machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["enabled", "disabled"]))]
    pub nested_virtualization: Option<String>,
}

/// What Tandem found for an EC2NodeClass.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EC2NodeClassStatus {
    /// Subnets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<Subnet>,
    /// Security groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_groups: Vec<SecurityGroup>,
    /// Capacity reservations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capacity_reservations: Vec<CapacityReservation>,
    /// Images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub amis: Vec<Ami>,
    /// The instance profile of the role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_profile: Option<String>,
    /// `AMIsReady`, `SubnetsReady`, `SecurityGroupsReady`, `InstanceProfileReady`, `ValidationSucceeded`,
    /// `PlacementGroupReady`, `CapacityReservationsReady`, `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A subnet that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Subnet {
    /// Id.
    #[serde(default)]
    #[schemars(!default)]
    pub id: String,
    /// Name of its zone in this account.
    #[serde(default)]
    #[schemars(!default)]
    pub zone: String,
    /// Name of its zone in all accounts.
    #[serde(default, rename = "zoneID", skip_serializing_if = "Option::is_none")]
    pub zone_id: Option<String>,
}

/// A security group that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecurityGroup {
    /// Id.
    #[serde(default)]
    #[schemars(!default)]
    pub id: String,
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A capacity reservation that was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapacityReservation {
    /// Zone.
    #[serde(default)]
    #[schemars(!default)]
    pub availability_zone: String,
    /// It ends then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Time>,
    /// Id.
    #[serde(default)]
    #[schemars(!default, extend("pattern" = "^cr-[0-9a-z]+$"))]
    pub id: String,
    /// How instances are matched to it.
    #[serde(default)]
    #[schemars(!default, extend("enum" = ["open", "targeted"]))]
    pub instance_match_criteria: String,
    /// Instance type.
    #[serde(default)]
    #[schemars(!default)]
    pub instance_type: String,
    /// Whether EC2 may take its instances back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interruptible: Option<bool>,
    /// Account that owns it.
    #[serde(default, rename = "ownerID")]
    #[schemars(!default, extend("pattern" = "^[0-9]{12}$"))]
    pub owner_id: String,
    /// Type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["default", "capacity-block"], "default" = "default"))]
    pub reservation_type: Option<String>,
    /// State.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["active", "expiring"], "default" = "active"))]
    pub state: Option<String>,
}

/// An image that was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ami {
    /// Id.
    #[serde(default)]
    #[schemars(!default)]
    pub id: String,
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it is deprecated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<bool>,
    /// Instance types that it runs on.
    #[serde(default)]
    #[schemars(!default)]
    pub requirements: Vec<NodeSelectorRequirement>,
}
