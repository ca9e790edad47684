//! EC2's instance types as node pools see them: labels, what there is of each resource, and what pods cannot have of it.
//!
//! Source: karpenter-provider-aws, `pkg/providers/instancetype/types.go`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString};
use tandem_core::{
    api::karpenter::{BlockDeviceMapping, EC2NodeClassSpec, KubeletConfiguration},
    nodes::pools::{
        instance_type::{InstanceType, Offering},
        requirements::{
            Operator, Requirement, Requirements,
            labels::{ARCH, CAPACITY_TYPE, INSTANCE_TYPE, PLACEMENT_GROUP, REGION, WINDOWS_BUILD, ZONE},
        },
    },
    scheduling::Resources,
};

use super::{family::Family, labels};
use crate::cloud::aws::instance_types::{Device, InstanceTypeInfo, MAX_PODS};

const MEBIBYTE: i64 = 1 << 20;
const GIBIBYTE: i64 = 1 << 30;
/// Memory of an ARM machine that Linux sets aside at its start, MiB.
const ARM_RESERVED_MIB: i64 = 64;
/// Memory that the kubelet keeps for each pod, and on top, MiB (EKS' images).
const KUBELET_MIB: (i64, i64) = (11, 255);
/// Processor that the kubelet keeps: up to so many thousandths of cores, a share of 10,000 of them (EKS' images).
const KUBELET_CPU: [(i64, i64); 4] = [(1000, 600), (2000, 100), (4000, 50), (i64::MAX, 25)];
/// Pods are evicted when less memory is left, MiB.
const EVICTION_MIB: i64 = 100;
/// Pods are evicted when less of the disk is left, percent.
const EVICTION_DISK: f64 = 10.0;
/// The disk of a node that does not say.
const DISK: i64 = 20 * GIBIBYTE;

/// What of nodes the flags say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Overheads {
    /// The share of a machine's memory that its hypervisor keeps.
    pub(super) memory: f64,
    /// Network interfaces whose addresses pods cannot have.
    pub(super) interfaces: i64,
}

/// What a type is on nodes of this class in this region, on these terms.
pub(super) fn instance_type(
    info: &InstanceTypeInfo,
    spec: &EC2NodeClassSpec,
    region: &str,
    overheads: Overheads,
    offerings: Vec<Offering>,
) -> InstanceType {
    let family = Family::of(spec);
    let capacity = capacity(info, spec, family, overheads);
    let overhead = overhead(info, spec, family, overheads, &capacity);
    let mut requirements = requirements(info, family);
    requirements.add(Requirement::is(REGION, region));
    // Outside of groups there is none: no value means that the label is absent.
    for key in [ZONE, CAPACITY_TYPE, PLACEMENT_GROUP, labels::PARTITION] {
        let values = offerings.iter().filter_map(|offering| offering.label(key));
        requirements.add(Requirement::new(key, Operator::In, values));
    }
    InstanceType::new(&info.name, requirements, capacity, overhead, offerings)
}

/// What labels of a node of it are; a label that it does not have is required to be absent.
fn requirements(info: &InstanceTypeInfo, family: Family) -> Requirements {
    let mut known = BTreeMap::from([
        (INSTANCE_TYPE, info.name.clone()),
        (ARCH, info.architecture().to_owned()),
        (labels::CPU, info.vcpu_info.default_vcpus.to_string()),
        (labels::MEMORY, info.memory_mib().to_string()),
        (labels::ENCRYPTION, info.network_info.encryption_in_transit_supported.to_string()),
        (labels::HYPERVISOR, info.hypervisor.clone().unwrap_or_default()),
    ]);
    let mut know = |key, value: Option<String>| known.extend(value.map(|value| (key, value)));
    if let Some((group, size)) = info.name.split_once('.') {
        let (category, generation) = category(group);
        know(labels::CATEGORY, category);
        know(labels::GENERATION, generation);
        know(labels::FAMILY, Some(group.to_owned()));
        know(labels::SIZE, Some(size.to_owned()));
        know(labels::FLEX, Some(group.contains("-flex").to_string()));
    }
    know(labels::CPU_MANUFACTURER, info.processor_info.manufacturer.as_deref().map(kebab));
    let clock = info.processor_info.sustained_clock_speed_in_ghz;
    know(labels::CPU_CLOCK, clock.map(|ghz| format!("{:.0}", ghz * 1000.0)));
    let ebs = info.ebs_info.as_ref().filter(|ebs| ebs.ebs_optimized_support == "default");
    let ebs = ebs.and_then(|ebs| ebs.ebs_optimized_info.as_ref());
    know(labels::EBS_BANDWIDTH, ebs.map(|ebs| ebs.maximum_bandwidth_in_mbps.to_string()));
    let bandwidth: f64 =
        info.network_info.network_cards.iter().filter_map(|card| card.baseline_bandwidth_in_gbps).sum();
    know(labels::NETWORK_BANDWIDTH, (bandwidth > 0.0).then(|| format!("{:.0}", bandwidth * 1000.0)));
    let disks = info.instance_storage_info.as_ref().filter(|disks| disks.nvme_support != "unsupported");
    know(labels::LOCAL_NVME, disks.map(|disks| disks.total_size_in_gb.to_string()));
    let only = |devices: &[Device]| match devices {
        [device] => Some(device.clone()),
        _ => None,
    };
    let gpu = info.gpu_info.as_ref().and_then(|info| only(&info.gpus));
    if let Some(gpu) = gpu {
        know(labels::GPU_NAME, Some(kebab(&gpu.name)));
        know(labels::GPU_MANUFACTURER, gpu.manufacturer.as_deref().map(kebab));
        know(labels::GPU_COUNT, Some(gpu.count.to_string()));
        know(labels::GPU_MEMORY, gpu.memory_info.map(|memory| memory.size_in_mib.to_string()));
    }
    let chip = info.neuron_info.as_ref().and_then(|info| only(&info.neuron_devices));
    if let Some(chip) = chip {
        know(labels::ACCELERATOR_NAME, Some(kebab(&chip.name)));
        know(labels::ACCELERATOR_MANUFACTURER, Some("aws".to_owned()));
        know(labels::ACCELERATOR_COUNT, Some(chip.count.to_string()));
    }
    let absent = |key| Requirement::new(key, Operator::DoesNotExist, Vec::<&str>::new());
    let offered =
        labels::ALL.into_iter().filter(|key| !labels::OF_PLACE.contains(key)).chain([WINDOWS_BUILD]);
    let missing: Vec<_> = offered.filter(|key| !known.contains_key(key)).collect();
    let mut requirements: Requirements =
        known.iter().map(|(key, value)| Requirement::is(key, value)).collect();
    let of_family = family.requirements();
    let missing = missing.into_iter().filter(|key| of_family.iter().all(|one| &**one.key() != *key));
    requirements.extend(missing.map(absent).collect::<Vec<_>>());
    requirements.extend(of_family);
    requirements
}

/// The letters at the front of a family and the number behind them: `m` and `5` of `m5d`, `u` and `1` of `u-6tb1`.
fn category(family: &str) -> (Option<String>, Option<String>) {
    let letters = family.find(|letter: char| !letter.is_ascii_lowercase()).unwrap_or(family.len());
    let (letters, rest) = family.split_at(letters);
    let rest = match rest.strip_prefix('-').and_then(|rest| rest.split_once("tb")) {
        Some((terabytes, rest)) if terabytes.chars().all(|digit| digit.is_ascii_digit()) => rest,
        _ => rest,
    };
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    if letters.is_empty() || digits.is_empty() {
        return (None, None);
    }
    (Some(letters.to_owned()), Some(digits))
}

fn kebab(text: &str) -> String {
    text.replace(' ', "-").to_lowercase()
}

/// What a node of it has, as its kubelet will say.
fn capacity(
    info: &InstanceTypeInfo,
    spec: &EC2NodeClassSpec,
    family: Family,
    overheads: Overheads,
) -> Resources {
    let mut capacity = info.capacity();
    capacity.memory = memory(info, overheads);
    capacity.pods = pods(info, spec.kubelet.as_ref(), family, overheads);
    capacity.storage = storage(info, spec, family);
    let efa = info.network_info.efa_info.as_ref().map_or(0, |efa| efa.maximum_efa_interfaces);
    if efa > 0 {
        capacity.set("vpc.amazonaws.com/efa", efa);
    }
    if family.is_windows() {
        let addresses = (info.network_info.ipv4_addresses_per_interface - 1).max(0);
        capacity.set("vpc.amazonaws.com/PrivateIPv4Address", addresses);
    }
    capacity
}

/// What Linux sees of the machine's memory, bytes; whole MiB are kept by the hypervisor.
fn memory(info: &InstanceTypeInfo, overheads: Overheads) -> i64 {
    let arm = if info.architecture() == "arm64" { ARM_RESERVED_MIB } else { 0 };
    let mebibytes = info.memory_mib() - arm;
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "far below 2^53")]
    let kept = (mebibytes as f64 * overheads.memory).ceil() as i64;
    (mebibytes - kept).max(0) * MEBIBYTE
}

/// As many pods as the first card has addresses for.
fn addresses(info: &InstanceTypeInfo, overheads: Overheads) -> i64 {
    let network = &info.network_info;
    let card = network.network_cards.get(network.default_network_card_index);
    let interfaces = card
        .map(|card| card.maximum_network_interfaces)
        .filter(|interfaces| *interfaces > 0)
        .unwrap_or(network.maximum_network_interfaces);
    let usable = (interfaces - overheads.interfaces).max(0);
    if usable == 0 {
        return 0;
    }
    // Each interface's own address is no pod's, and two pods use the node's.
    usable * (network.ipv4_addresses_per_interface - 1) + 2
}

fn pods(
    info: &InstanceTypeInfo,
    kubelet: Option<&KubeletConfiguration>,
    family: Family,
    overheads: Overheads,
) -> i64 {
    let most = match kubelet.and_then(|kubelet| kubelet.max_pods.as_ref()) {
        Some(IntOrString::Int(most)) => i64::from(*most),
        // An expression: what follows without one is the safe side.
        _ if family.pods_by_addresses() => addresses(info, overheads),
        _ => MAX_PODS,
    };
    let by_core = kubelet.and_then(|kubelet| kubelet.pods_per_core).filter(|pods| *pods > 0);
    match by_core.filter(|_| family.knows_pods_per_core()) {
        Some(pods) => most.min(i64::from(pods) * info.vcpu_info.default_vcpus),
        None => most,
    }
}

/// The disk on which pods' files are, bytes.
fn storage(info: &InstanceTypeInfo, spec: &EC2NodeClassSpec, family: Family) -> i64 {
    let local = info.instance_storage_info.as_ref();
    if let Some(local) = local.filter(|_| spec.instance_store_policy.as_deref() == Some("RAID0")) {
        return local.total_size_in_gb * 1_000_000_000;
    }
    let disks = spec.block_device_mappings.as_deref().unwrap_or_default();
    let root = disks.iter().find(|disk| disk.root_volume == Some(true));
    let named = || match family.root_device() {
        None => disks.last(),
        device => disks.iter().find(|disk| disk.device_name.as_deref() == device),
    };
    let size = |disk: &BlockDeviceMapping| disk.ebs.as_ref()?.volume_size.clone();
    let own = root.and_then(size).or_else(|| named().and_then(size));
    let default = || {
        let device = family.root_device();
        family.disks().iter().find(|disk| disk.device_name.as_deref() == device).and_then(size)
    };
    own.or_else(default).map_or(DISK, |size| amount("ephemeral-storage", &size.0))
}

/// What pods cannot have: what the kubelet and the system keep, and what has to be left lest pods are evicted.
fn overhead(
    info: &InstanceTypeInfo,
    spec: &EC2NodeClassSpec,
    family: Family,
    overheads: Overheads,
    capacity: &Resources,
) -> Resources {
    let kubelet = spec.kubelet.clone().unwrap_or_default();
    let counted = if family.reserves_by_addresses() { addresses(info, overheads) } else { capacity.pods };
    let mut reserved = Resources {
        cpu: kubelet_cpu(capacity.cpu),
        memory: (KUBELET_MIB.0 * counted + KUBELET_MIB.1) * MEBIBYTE,
        storage: GIBIBYTE,
        ..Resources::default()
    };
    override_with(&mut reserved, kubelet.kube_reserved.as_ref());
    let mut system = Resources::default();
    override_with(&mut system, kubelet.system_reserved.as_ref());
    reserved.add(&system);
    let left = |signal: &str, of: i64, default: i64| {
        let said = kubelet.eviction_hard.as_ref().and_then(|signals| signals.get(signal));
        said.map_or(default, |said| threshold(said, of))
    };
    let eviction = Resources {
        memory: left("memory.available", capacity.memory, EVICTION_MIB * MEBIBYTE),
        storage: left("nodefs.available", capacity.storage, percent(EVICTION_DISK, capacity.storage)),
        ..Resources::default()
    };
    reserved.add(&eviction);
    reserved
}

/// Of each range of cores its share, thousandths of a core.
fn kubelet_cpu(cpu: i64) -> i64 {
    let mut from = 0;
    let mut kept = 0;
    for (to, share) in KUBELET_CPU {
        kept += (cpu.min(to) - from).max(0) * share / 10_000;
        from = to;
    }
    kept
}

fn override_with(resources: &mut Resources, said: Option<&BTreeMap<String, String>>) {
    for (name, text) in said.into_iter().flatten() {
        resources.set(name, amount(name, text));
    }
}

/// An amount, or a share of the whole; all of it means that there is no threshold.
fn threshold(said: &str, of: i64) -> i64 {
    match said.strip_suffix('%').map(str::parse) {
        Some(Ok(share)) if share < 100.0 => percent(share, of),
        Some(_) => 0,
        None => amount("memory", said),
    }
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "far below 2^53")]
fn percent(share: f64, of: i64) -> i64 {
    (of as f64 / 100.0 * share).ceil() as i64
}

/// A quantity in the unit that its resource is counted in; one that does not parse counts as zero.
fn amount(name: &str, text: &str) -> i64 {
    Resources::from_list(&BTreeMap::from([(name.to_owned(), Quantity(text.to_owned()))])).get(name)
}

#[cfg(test)]
mod tests;
