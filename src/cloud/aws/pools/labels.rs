//! Labels of nodes on EC2, as Karpenter names them (karpenter-provider-aws, `pkg/apis/v1/labels.go`).

/// The letters at the front of a family, `m`.
pub const CATEGORY: &str = "karpenter.k8s.aws/instance-category";
/// `m5`.
pub const FAMILY: &str = "karpenter.k8s.aws/instance-family";
/// The number behind the letters, `5`.
pub const GENERATION: &str = "karpenter.k8s.aws/instance-generation";
/// `large`.
pub const SIZE: &str = "karpenter.k8s.aws/instance-size";
/// Processors.
pub const CPU: &str = "karpenter.k8s.aws/instance-cpu";
/// `intel`, `amd` or `aws`.
pub const CPU_MANUFACTURER: &str = "karpenter.k8s.aws/instance-cpu-manufacturer";
/// In MHz.
pub const CPU_CLOCK: &str = "karpenter.k8s.aws/instance-cpu-sustained-clock-speed-mhz";
/// In MiB.
pub const MEMORY: &str = "karpenter.k8s.aws/instance-memory";
/// To volumes, in Mbit/s.
pub const EBS_BANDWIDTH: &str = "karpenter.k8s.aws/instance-ebs-bandwidth";
/// In Mbit/s.
pub const NETWORK_BANDWIDTH: &str = "karpenter.k8s.aws/instance-network-bandwidth";
/// Disks of the machine's own, in GB.
pub const LOCAL_NVME: &str = "karpenter.k8s.aws/instance-local-nvme";
/// `nitro` or `xen`.
pub const HYPERVISOR: &str = "karpenter.k8s.aws/instance-hypervisor";
/// Whether the hardware encrypts between machines.
pub const ENCRYPTION: &str = "karpenter.k8s.aws/instance-encryption-in-transit-supported";
/// Whether it gives full processors at most times only.
pub const FLEX: &str = "karpenter.k8s.aws/instance-capability-flex";
/// `t4`.
pub const GPU_NAME: &str = "karpenter.k8s.aws/instance-gpu-name";
/// `nvidia`.
pub const GPU_MANUFACTURER: &str = "karpenter.k8s.aws/instance-gpu-manufacturer";
/// How many.
pub const GPU_COUNT: &str = "karpenter.k8s.aws/instance-gpu-count";
/// Of each, in MiB.
pub const GPU_MEMORY: &str = "karpenter.k8s.aws/instance-gpu-memory";
/// `inferentia`.
pub const ACCELERATOR_NAME: &str = "karpenter.k8s.aws/instance-accelerator-name";
/// `aws`.
pub const ACCELERATOR_MANUFACTURER: &str = "karpenter.k8s.aws/instance-accelerator-manufacturer";
/// How many.
pub const ACCELERATOR_COUNT: &str = "karpenter.k8s.aws/instance-accelerator-count";
/// The zone's id, which is the same in all accounts.
pub const ZONE_ID: &str = "topology.k8s.aws/zone-id";

/// All of them.
pub const ALL: [&str; 22] = [
    CATEGORY,
    FAMILY,
    GENERATION,
    SIZE,
    CPU,
    CPU_MANUFACTURER,
    CPU_CLOCK,
    MEMORY,
    EBS_BANDWIDTH,
    NETWORK_BANDWIDTH,
    LOCAL_NVME,
    HYPERVISOR,
    ENCRYPTION,
    FLEX,
    GPU_NAME,
    GPU_MANUFACTURER,
    GPU_COUNT,
    GPU_MEMORY,
    ACCELERATOR_NAME,
    ACCELERATOR_MANUFACTURER,
    ACCELERATOR_COUNT,
    ZONE_ID,
];
