use tandem_core::nodes::pools::requirements::labels::ON_DEMAND;

use super::*;
use crate::cloud::aws::answer::xml;

const OVERHEADS: Overheads = Overheads { memory: 0.075, interfaces: 0 };

/// As `DescribeInstanceTypes` answers.
fn info(
    name: &str,
    cpus: u32,
    mebibytes: u32,
    interfaces: u32,
    addresses: u32,
    more: &str,
) -> InstanceTypeInfo {
    let arm = name.starts_with("m6g");
    let body = format!(
        "<R><instanceType>{name}</instanceType><hypervisor>nitro</hypervisor><processorInfo><supportedArchitectures><item>{}\
         </item></supportedArchitectures><manufacturer>Intel</manufacturer><sustainedClockSpeedInGhz>3.1\
         </sustainedClockSpeedInGhz></processorInfo><vCpuInfo><defaultVCpus>{cpus}</defaultVCpus></vCpuInfo><memoryInfo>\
         <sizeInMiB>{mebibytes}</sizeInMiB></memoryInfo><networkInfo><maximumNetworkInterfaces>{interfaces}\
         </maximumNetworkInterfaces><ipv4AddressesPerInterface>{addresses}</ipv4AddressesPerInterface>\
         <defaultNetworkCardIndex>0</defaultNetworkCardIndex><networkCards><item><networkCardIndex>0</networkCardIndex>\
         <maximumNetworkInterfaces>{interfaces}</maximumNetworkInterfaces><baselineBandwidthInGbps>0.75\
         </baselineBandwidthInGbps></item></networkCards><encryptionInTransitSupported>false</encryptionInTransitSupported>\
         </networkInfo><ebsInfo><ebsOptimizedSupport>default</ebsOptimizedSupport><ebsOptimizedInfo>\
         <maximumBandwidthInMbps>4750</maximumBandwidthInMbps></ebsOptimizedInfo></ebsInfo>{more}</R>",
        if arm { "arm64" } else { "x86_64" }
    );
    xml(body.as_bytes(), "X").unwrap()
}

fn m5_large() -> InstanceTypeInfo {
    info("m5.large", 2, 8192, 3, 10, "")
}

fn spec(yaml: &str) -> EC2NodeClassSpec {
    serde_saphyr::from_str(yaml).unwrap()
}

fn built(info: &InstanceTypeInfo, spec: &EC2NodeClassSpec, overheads: Overheads) -> InstanceType {
    let requirements = [Requirement::is(ZONE, "r-1a"), Requirement::is(CAPACITY_TYPE, ON_DEMAND)];
    let offering = Offering {
        requirements: requirements.into_iter().collect(),
        price: 1.0,
        available: true,
        reservation: None,
    };
    instance_type(info, spec, "r-1", overheads, vec![offering])
}

/// The figures of Karpenter's own list of instance types.
#[test]
fn pods_may_use_what_karpenter_says() {
    for (info, cpu, mebibytes, gibibytes, pods) in [
        (m5_large(), 1930, 6903, 17, 29),
        (info("c5.4xlarge", 16, 32768, 8, 30, ""), 15890, 27381, 17, 234),
        (info("m6g.large", 2, 8192, 3, 10, ""), 1930, 6844, 17, 29),
        (info("t3.nano", 2, 512, 2, 2, ""), 1930, 74, 17, 4),
    ] {
        let allocatable = built(&info, &spec("amiFamily: AL2023"), OVERHEADS).allocatable().clone();
        let name = &info.name;
        assert_eq!(allocatable.cpu, cpu, "{name}");
        assert_eq!(allocatable.memory >> 20, mebibytes, "{name}");
        assert_eq!((allocatable.storage >> 30, allocatable.pods), (gibibytes, pods), "{name}");
    }
}

#[test]
fn a_class_may_say_otherwise() {
    let all = |yaml: &str, overheads| built(&m5_large(), &spec(yaml), overheads);
    let kubelet = all(
        "{amiFamily: AL2023, kubelet: {maxPods: 20, podsPerCore: 4, kubeReserved: {cpu: 200m, memory: 1Gi}, \
         systemReserved: {memory: 1Gi}, evictionHard: {memory.available: 10%, nodefs.available: 100%}}}",
        Overheads { memory: 0.0, interfaces: 0 },
    );
    assert_eq!(kubelet.capacity.pods, 8);
    assert_eq!(kubelet.overhead.cpu, 200);
    assert_eq!(kubelet.overhead.memory, (2 << 30) + (8_i64 << 30) / 10 + 1);
    assert_eq!(kubelet.overhead.storage, 1 << 30);

    // The kubelet of Bottlerocket knows no pods by core, and counts the pods that there are.
    let bottlerocket = all("{amiFamily: Bottlerocket, kubelet: {maxPods: 20, podsPerCore: 4}}", OVERHEADS);
    assert_eq!(bottlerocket.capacity.pods, 20);
    assert_eq!(bottlerocket.overhead.memory >> 20, 11 * 20 + 255 + 100);
    // An interface that pods cannot use.
    let reserved = all("amiFamily: AL2023", Overheads { memory: 0.075, interfaces: 1 });
    assert_eq!(reserved.capacity.pods, 20);

    for (yaml, wanted) in [
        (
            "{amiFamily: AL2023, blockDeviceMappings: [{deviceName: /dev/xvda, ebs: {volumeSize: 100Gi}}]}",
            100,
        ),
        ("{amiFamily: AL2023, blockDeviceMappings: [{deviceName: /dev/xvdc, ebs: {volumeSize: 100Gi}}]}", 20),
        ("{amiFamily: Custom, blockDeviceMappings: [{deviceName: /dev/xvdc, ebs: {volumeSize: 50Gi}}]}", 50),
        (
            "{amiFamily: AL2023, blockDeviceMappings: [{deviceName: /dev/a, rootVolume: true, ebs: {volumeSize: 7Gi}}]}",
            7,
        ),
        ("{amiFamily: AL2023, instanceStorePolicy: RAID0}", 20),
        ("amiFamily: Windows2022", 50),
    ] {
        assert_eq!(all(yaml, OVERHEADS).capacity.storage >> 30, wanted, "{yaml}");
    }
    let disks = "<instanceStorageInfo><totalSizeInGB>75</totalSizeInGB><nvmeSupport>required</nvmeSupport></instanceStorageInfo>";
    let local = info("m5d.large", 2, 8192, 3, 10, disks);
    let raid = built(&local, &spec("{amiFamily: AL2023, instanceStorePolicy: RAID0}"), OVERHEADS);
    assert_eq!(raid.capacity.storage, 75_000_000_000);
}

#[test]
fn labels_are_karpenters() {
    let gpu = "<gpuInfo><gpus><item><name>Tesla T4</name><manufacturer>NVIDIA</manufacturer><count>1</count><memoryInfo>\
               <sizeInMiB>16384</sizeInMiB></memoryInfo></item></gpus></gpuInfo>";
    let of = built(&info("g4dn.xlarge", 4, 16384, 3, 10, gpu), &spec("amiFamily: AL2023"), OVERHEADS);
    let value = |key: &str| of.requirements.get(key).and_then(Requirement::any).unwrap_or_default();
    for (key, wanted) in [
        (INSTANCE_TYPE, "g4dn.xlarge"),
        (ARCH, "amd64"),
        ("kubernetes.io/os", "linux"),
        (ZONE, "r-1a"),
        (REGION, "r-1"),
        (CAPACITY_TYPE, ON_DEMAND),
        (labels::CATEGORY, "g"),
        (labels::FAMILY, "g4dn"),
        (labels::GENERATION, "4"),
        (labels::SIZE, "xlarge"),
        (labels::FLEX, "false"),
        (labels::CPU, "4"),
        (labels::CPU_MANUFACTURER, "intel"),
        (labels::CPU_CLOCK, "3100"),
        (labels::MEMORY, "16384"),
        (labels::EBS_BANDWIDTH, "4750"),
        (labels::NETWORK_BANDWIDTH, "750"),
        (labels::HYPERVISOR, "nitro"),
        (labels::ENCRYPTION, "false"),
        (labels::GPU_NAME, "tesla-t4"),
        (labels::GPU_MANUFACTURER, "nvidia"),
        (labels::GPU_COUNT, "1"),
        (labels::GPU_MEMORY, "16384"),
    ] {
        assert_eq!(value(key), wanted, "{key}");
    }
    let operator = |key: &str| of.requirements.get(key).map(Requirement::operator);
    for absent in [labels::ACCELERATOR_COUNT, labels::LOCAL_NVME, WINDOWS_BUILD] {
        assert_eq!(operator(absent), Some(Operator::DoesNotExist), "{absent}");
    }
    assert_eq!(of.capacity.get("nvidia.com/gpu"), 1);
    let windows = built(&m5_large(), &spec("amiFamily: Windows2022"), OVERHEADS);
    let windows = |key: &str| windows.requirements.get(key).and_then(Requirement::any);
    assert_eq!(windows("kubernetes.io/os").as_deref(), Some("windows"));
    assert_eq!(windows(WINDOWS_BUILD).as_deref(), Some("10.0.20348"));
}

#[test]
fn a_family_is_letters_and_a_number() {
    for (name, letters, number) in [
        ("m5", Some("m"), Some("5")),
        ("c7i-flex", Some("c"), Some("7")),
        ("u-6tb1", Some("u"), Some("1")),
        ("u7i-12tb", Some("u"), Some("7")),
        ("g4dn", Some("g"), Some("4")),
        ("mac2-m2", Some("mac"), Some("2")),
        ("hpc6a", Some("hpc"), Some("6")),
        ("x", None, None),
    ] {
        let (category, generation) = category(name);
        assert_eq!((category.as_deref(), generation.as_deref()), (letters, number), "{name}");
    }
}
