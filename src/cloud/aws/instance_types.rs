//! What instance types have.

use std::collections::BTreeMap;

use serde::Deserialize;
use tandem_core::scheduling::Resources;
use tokio::{sync::Mutex, time::Duration, time::Instant};

use super::{
    action::{DESCRIBE_INSTANCE_TYPES, GET_INSTANCE_TYPES},
    answer::{items, next},
    autoscaling::{InstanceRequirements, Requirement},
    client::Client,
    form::Form,
};
use crate::cloud::CloudError;

/// Types that one page may hold, and names that one call may give.
const PAGE: usize = 100;

/// How long what was read is taken as it is. Types do not change; new ones come every few weeks.
const FRESH: Duration = Duration::from_hours(12);

/// Pods on a node whose type is not known to have fewer addresses (Kubernetes' own limit).
pub const MAX_PODS: i64 = 110;

const MEBIBYTE: i64 = 1 << 20;

/// An instance type.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceTypeInfo {
    /// `m5.large`.
    #[serde(rename = "instanceType")]
    pub name: String,
    /// Whether it is a whole machine.
    #[serde(default)]
    pub bare_metal: bool,
    /// `nitro` or `xen`; absent for bare metal.
    pub hypervisor: Option<String>,
    /// `on-demand`, `spot`, `capacity-block`.
    #[serde(default, deserialize_with = "items")]
    pub supported_usage_classes: Vec<String>,
    /// What kind of processor.
    pub processor_info: ProcessorInfo,
    /// How many processors.
    #[serde(rename = "vCpuInfo")]
    pub vcpu_info: VcpuInfo,
    /// How much memory.
    pub memory_info: MemoryInfo,
    /// Local disks.
    pub instance_storage_info: Option<InstanceStorageInfo>,
    /// Network interfaces.
    pub network_info: NetworkInfo,
    /// GPUs.
    pub gpu_info: Option<GpuInfo>,
    /// Inference and training chips.
    pub neuron_info: Option<NeuronInfo>,
    /// Its way to volumes.
    pub ebs_info: Option<EbsInfo>,
    /// Where EC2 can put it to others.
    #[serde(default)]
    pub placement_group_info: PlacementGroupInfo,
}

/// Where EC2 can put machines of a type to each other.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlacementGroupInfo {
    /// `cluster`, `partition`, `spread`.
    #[serde(default, deserialize_with = "items")]
    pub supported_strategies: Vec<String>,
}

/// A machine's way to volumes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EbsInfo {
    /// `default`, `supported` or `unsupported`.
    #[serde(default)]
    pub ebs_optimized_support: String,
    /// How wide it is.
    pub ebs_optimized_info: Option<EbsOptimizedInfo>,
}

/// How wide a machine's way to volumes is.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EbsOptimizedInfo {
    /// In Mbit/s, for as long as there are credits.
    #[serde(default)]
    pub maximum_bandwidth_in_mbps: i64,
}

/// What kind of processor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessorInfo {
    /// `x86_64`, `arm64`, `i386`.
    #[serde(default, deserialize_with = "items")]
    pub supported_architectures: Vec<String>,
    /// `Intel`, `AMD`, `AWS`.
    pub manufacturer: Option<String>,
    /// In GHz.
    pub sustained_clock_speed_in_ghz: Option<f64>,
}

/// How many processors.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct VcpuInfo {
    /// As many as the machine shows.
    #[serde(rename = "defaultVCpus")]
    pub default_vcpus: i64,
}

/// An amount of memory.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct MemoryInfo {
    /// In MiB.
    #[serde(rename = "sizeInMiB")]
    pub size_in_mib: i64,
}

/// Local disks.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct InstanceStorageInfo {
    /// All of them, in GB.
    #[serde(rename = "totalSizeInGB")]
    pub total_size_in_gb: i64,
    /// `required`, `supported` or `unsupported`.
    #[serde(default)]
    pub nvme_support: String,
}

/// Network interfaces.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkInfo {
    /// How many it may have.
    #[serde(default)]
    pub maximum_network_interfaces: i64,
    /// Addresses of each.
    #[serde(default)]
    pub ipv4_addresses_per_interface: i64,
    /// Whether traffic between machines is encrypted by the hardware.
    #[serde(default)]
    pub encryption_in_transit_supported: bool,
    /// Whether it has interfaces that bypass the kernel.
    #[serde(default)]
    pub efa_supported: bool,
    /// How many of those.
    pub efa_info: Option<EfaInfo>,
    /// Which of the cards addresses of pods are on.
    #[serde(default)]
    pub default_network_card_index: usize,
    /// Its cards.
    #[serde(default, deserialize_with = "items")]
    pub network_cards: Vec<NetworkCard>,
}

/// Interfaces that bypass the kernel.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EfaInfo {
    /// How many there may be.
    #[serde(default)]
    pub maximum_efa_interfaces: i64,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkCard {
    /// How many interfaces it may have.
    #[serde(default)]
    pub maximum_network_interfaces: i64,
    /// In Gbit/s, at any time.
    pub baseline_bandwidth_in_gbps: Option<f64>,
}

/// GPUs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct GpuInfo {
    /// By kind.
    #[serde(default, deserialize_with = "items")]
    pub gpus: Vec<Device>,
}

/// Inference and training chips.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NeuronInfo {
    /// By kind.
    #[serde(default, deserialize_with = "items")]
    pub neuron_devices: Vec<Device>,
}

/// Devices of one kind.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// `T4`.
    pub name: String,
    /// `NVIDIA`; AWS' own chips have none.
    pub manufacturer: Option<String>,
    /// How many.
    #[serde(default)]
    pub count: i64,
    /// Memory of each.
    pub memory_info: Option<MemoryInfo>,
}

impl InstanceTypeInfo {
    /// The architecture as Kubernetes names it, `amd64` or `arm64`.
    pub fn architecture(&self) -> &'static str {
        if self.processor_info.supported_architectures.iter().any(|name| name.starts_with("arm64")) {
            "arm64"
        } else {
            "amd64"
        }
    }

    /// A type of which nothing is known but its name; as most are, it is taken to be of Intel's architecture.
    pub fn unknown(name: String) -> Self {
        Self {
            name,
            bare_metal: false,
            hypervisor: None,
            supported_usage_classes: Vec::new(),
            processor_info: ProcessorInfo {
                supported_architectures: Vec::new(),
                manufacturer: None,
                sustained_clock_speed_in_ghz: None,
            },
            vcpu_info: VcpuInfo { default_vcpus: 0 },
            memory_info: MemoryInfo { size_in_mib: 0 },
            instance_storage_info: None,
            network_info: NetworkInfo::default(),
            gpu_info: None,
            neuron_info: None,
            ebs_info: None,
            placement_group_info: PlacementGroupInfo::default(),
        }
    }

    /// Memory in MiB.
    pub fn memory_mib(&self) -> i64 {
        self.memory_info.size_in_mib
    }

    /// GPUs, of all kinds.
    pub fn gpus(&self) -> i64 {
        self.gpu_info.iter().flat_map(|info| &info.gpus).map(|device| device.count).sum()
    }

    /// As many pods as there are addresses for: each interface's own is no pod's, and two pods use the node's
    /// (Amazon VPC CNI, secondary IP mode).
    pub fn pods(&self) -> Option<i64> {
        let network = &self.network_info;
        let known = network.maximum_network_interfaces > 0 && network.ipv4_addresses_per_interface > 0;
        let addresses = network.maximum_network_interfaces * (network.ipv4_addresses_per_interface - 1) + 2;
        known.then_some(addresses)
    }

    /// What a node of this type has, before anything is set aside for the system.
    pub fn capacity(&self) -> Resources {
        let mut capacity = Resources {
            cpu: self.vcpu_info.default_vcpus * 1000,
            memory: self.memory_mib() * MEBIBYTE,
            pods: self.pods().unwrap_or(MAX_PODS),
            ..Resources::default()
        };
        for device in self.gpu_info.iter().flat_map(|info| &info.gpus) {
            let name = match device.manufacturer.as_deref() {
                Some("AMD") => "amd.com/gpu",
                Some("Habana") => "habana.ai/gaudi",
                _ => "nvidia.com/gpu",
            };
            capacity.set(name, capacity.get(name) + device.count);
        }
        let chips: i64 =
            self.neuron_info.iter().flat_map(|info| &info.neuron_devices).map(|device| device.count).sum();
        if chips > 0 {
            capacity.set("aws.amazon.com/neuron", chips);
        }
        capacity
    }
}

/// Instance types that were read, kept for [`FRESH`].
#[derive(Debug, Default)]
pub struct InstanceTypes {
    known: Mutex<BTreeMap<String, (Instant, InstanceTypeInfo)>>,
    /// Types that meet requirements, by the call's parameters.
    matching: Mutex<BTreeMap<Wanted, (Instant, Vec<String>)>>,
}

/// Requirements, and an architecture.
type Wanted = (InstanceRequirements, String);

impl InstanceTypes {
    /// What types have, by name; those that do not exist here are left out. Asks for what is not known yet only.
    pub async fn of(
        &self,
        client: &Client,
        names: &[String],
    ) -> Result<BTreeMap<String, InstanceTypeInfo>, CloudError> {
        let mut known = self.known.lock().await;
        let missing: Vec<&String> = names
            .iter()
            .filter(|name| known.get(*name).is_none_or(|(read, _)| read.elapsed() > FRESH))
            .collect();
        for names in missing.chunks(PAGE) {
            // A filter, since a name that does not exist here makes the call by names fail for all.
            let form = Form::new().filter("instance-type", names).set("MaxResults", PAGE);
            for info in describe(client, &form).await? {
                known.insert(info.name.clone(), (Instant::now(), info));
            }
        }
        let found = names.iter().filter_map(|name| known.get(name));
        Ok(found.map(|(_, info)| (info.name.clone(), info.clone())).collect())
    }

    /// Names of types that meet requirements.
    pub async fn matching(
        &self,
        client: &Client,
        requirements: &InstanceRequirements,
        architecture: &str,
    ) -> Result<Vec<String>, CloudError> {
        let key = (requirements.clone(), architecture.to_owned());
        let mut matching = self.matching.lock().await;
        if let Some((read, names)) = matching.get(&key)
            && read.elapsed() < FRESH
        {
            return Ok(names.clone());
        }
        let form = Form::new()
            .list("ArchitectureType", [architecture])
            .list("VirtualizationType", ["hvm"])
            .nest("InstanceRequirements", requirement_form(requirements));
        let names = matching_pages(client, &form).await?;
        matching.insert(key, (Instant::now(), names.clone()));
        Ok(names)
    }
}

/// All types of the region that run Linux or Windows, by name: about ten pages.
pub async fn all(client: &Client) -> Result<BTreeMap<String, InstanceTypeInfo>, CloudError> {
    let form = Form::new()
        .filter("supported-virtualization-type", ["hvm"])
        .filter("processor-info.supported-architecture", ["x86_64", "arm64"])
        .set("MaxResults", PAGE);
    Ok(describe(client, &form).await?.into_iter().map(|info| (info.name.clone(), info)).collect())
}

async fn describe(client: &Client, form: &Form) -> Result<Vec<InstanceTypeInfo>, CloudError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Page {
        #[serde(default, deserialize_with = "items")]
        instance_type_set: Vec<InstanceTypeInfo>,
        next_token: Option<String>,
    }
    let (mut types, mut token) = (Vec::new(), None);
    loop {
        let page: Page =
            client.query(&DESCRIBE_INSTANCE_TYPES, form.clone().set_some("NextToken", token)).await?;
        types.extend(page.instance_type_set);
        token = next(page.next_token);
        if token.is_none() {
            return Ok(types);
        }
    }
}

async fn matching_pages(client: &Client, form: &Form) -> Result<Vec<String>, CloudError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Page {
        #[serde(default, deserialize_with = "items")]
        instance_type_set: Vec<Name>,
        next_token: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Name {
        instance_type: String,
    }
    let (mut names, mut token) = (Vec::new(), None);
    loop {
        let page: Page = client.query(&GET_INSTANCE_TYPES, form.clone().set_some("NextToken", token)).await?;
        names.extend(page.instance_type_set.into_iter().map(|found| found.instance_type));
        token = next(page.next_token);
        if token.is_none() {
            return Ok(names);
        }
    }
}

/// Requirements as EC2 takes them. Auto Scaling writes `CpuManufacturers`, launch templates answer `cpuManufacturerSet`,
/// and the parameter is `CpuManufacturer.1`.
fn requirement_form(requirements: &InstanceRequirements) -> Form {
    let mut form = Form::new();
    for (name, Requirement { value, min, max, any }) in requirements {
        let name = parameter(name, !any.is_empty());
        form = form
            .set_some(name.clone(), value.as_deref().map(str::trim).filter(|value| !value.is_empty()))
            .set_some(format!("{name}.Min"), min.as_deref())
            .set_some(format!("{name}.Max"), max.as_deref())
            .list(&name, any);
    }
    form
}

fn parameter(name: &str, is_list: bool) -> String {
    let name = match name.strip_suffix("Set").or_else(|| name.strip_suffix('s')) {
        Some(singular) if is_list => singular,
        _ => name,
    };
    let mut characters = name.chars();
    characters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(characters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::aws::answer::xml;

    fn info(extra: &str, interfaces: i64) -> InstanceTypeInfo {
        let body = format!(
            "<R><instanceType>t</instanceType><processorInfo><supportedArchitectures><item>x86_64</item>\
             </supportedArchitectures><sustainedClockSpeedInGhz>2.5</sustainedClockSpeedInGhz></processorInfo><vCpuInfo>\
             <defaultVCpus>4</defaultVCpus></vCpuInfo><memoryInfo><sizeInMiB>16384</sizeInMiB></memoryInfo><networkInfo>\
             <maximumNetworkInterfaces>{interfaces}</maximumNetworkInterfaces><ipv4AddressesPerInterface>10\
             </ipv4AddressesPerInterface></networkInfo>{extra}</R>"
        );
        xml(body.as_bytes(), "X").unwrap()
    }

    #[test]
    fn a_type_has_what_a_node_has() {
        let gpus = "<gpuInfo><gpus><item><name>T4</name><manufacturer>NVIDIA</manufacturer><count>2</count></item></gpus>\
                    </gpuInfo>";
        let info = info(gpus, 3);
        let capacity = info.capacity();
        assert_eq!((capacity.cpu, capacity.memory, capacity.pods), (4000, 16 << 30, 29));
        assert_eq!((capacity.get("nvidia.com/gpu"), info.gpus(), info.architecture()), (2, 2, "amd64"));
    }

    #[test]
    fn pods_are_limited_by_addresses_where_those_are_known() {
        assert_eq!(info("", 8).capacity().pods, 8 * 9 + 2);
        assert_eq!(info("", 0).capacity().pods, MAX_PODS);
    }

    #[test]
    fn requirements_are_named_as_the_call_names_them() {
        let text = |text: &str| Some(text.to_owned());
        let requirements = InstanceRequirements::from([
            ("VCpuCount".into(), Requirement { min: text("2"), max: text("4"), ..Requirement::default() }),
            ("BareMetal".into(), Requirement { value: text("excluded"), ..Requirement::default() }),
            ("CpuManufacturers".into(), Requirement { any: vec!["amd".into()], ..Requirement::default() }),
            (
                "allowedInstanceTypeSet".into(),
                Requirement { any: vec!["m*".into()], ..Requirement::default() },
            ),
        ]);
        assert_eq!(
            requirement_form(&requirements).encode("A", "1"),
            "Action=A&Version=1&BareMetal=excluded&CpuManufacturer.1=amd&VCpuCount.Min=2&VCpuCount.Max=4&\
             AllowedInstanceType.1=m%2A"
        );
    }
}
