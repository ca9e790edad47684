//! Labels of nodes on EC2, as Karpenter names them (karpenter-provider-aws, `pkg/apis/v1/labels.go`).

use tandem_core::nodes::pools::requirements::labels::PLACEMENT_GROUP;

/// The letters at the front of a family, `m`.
pub(super) const CATEGORY: &str = "karpenter.k8s.aws/instance-category";
/// `m5`.
pub(super) const FAMILY: &str = "karpenter.k8s.aws/instance-family";
/// The number behind the letters, `5`.
pub(super) const GENERATION: &str = "karpenter.k8s.aws/instance-generation";
/// `large`.
pub(super) const SIZE: &str = "karpenter.k8s.aws/instance-size";
/// Processors.
pub(super) const CPU: &str = "karpenter.k8s.aws/instance-cpu";
/// `intel`, `amd` or `aws`.
pub(super) const CPU_MANUFACTURER: &str = "karpenter.k8s.aws/instance-cpu-manufacturer";
/// In MHz.
pub(super) const CPU_CLOCK: &str = "karpenter.k8s.aws/instance-cpu-sustained-clock-speed-mhz";
/// In MiB.
pub(super) const MEMORY: &str = "karpenter.k8s.aws/instance-memory";
/// To volumes, in Mbit/s.
pub(super) const EBS_BANDWIDTH: &str = "karpenter.k8s.aws/instance-ebs-bandwidth";
/// In Mbit/s.
pub(super) const NETWORK_BANDWIDTH: &str = "karpenter.k8s.aws/instance-network-bandwidth";
/// Disks of the machine's own, in GB.
pub(super) const LOCAL_NVME: &str = "karpenter.k8s.aws/instance-local-nvme";
/// `nitro` or `xen`.
pub(super) const HYPERVISOR: &str = "karpenter.k8s.aws/instance-hypervisor";
/// Whether the hardware encrypts between machines.
pub(super) const ENCRYPTION: &str = "karpenter.k8s.aws/instance-encryption-in-transit-supported";
/// Whether it gives full processors at most times only.
pub(super) const FLEX: &str = "karpenter.k8s.aws/instance-capability-flex";
/// `t4`.
pub(super) const GPU_NAME: &str = "karpenter.k8s.aws/instance-gpu-name";
/// `nvidia`.
pub(super) const GPU_MANUFACTURER: &str = "karpenter.k8s.aws/instance-gpu-manufacturer";
/// How many.
pub(super) const GPU_COUNT: &str = "karpenter.k8s.aws/instance-gpu-count";
/// Of each, in MiB.
pub(super) const GPU_MEMORY: &str = "karpenter.k8s.aws/instance-gpu-memory";
/// `inferentia`.
pub(super) const ACCELERATOR_NAME: &str = "karpenter.k8s.aws/instance-accelerator-name";
/// `aws`.
pub(super) const ACCELERATOR_MANUFACTURER: &str = "karpenter.k8s.aws/instance-accelerator-manufacturer";
/// How many.
pub(super) const ACCELERATOR_COUNT: &str = "karpenter.k8s.aws/instance-accelerator-count";
/// The zone's id, which is the same in all accounts.
pub(super) const ZONE_ID: &str = "topology.k8s.aws/zone-id";

/// The part of its placement group that a machine is in.
pub(super) const PARTITION: &str = "karpenter.k8s.aws/placement-group-partition";

/// All of them.
pub(super) const ALL: [&str; 24] = [
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
    PLACEMENT_GROUP,
    PARTITION,
];
/// Those that follow from where a machine is, not from what it is.
pub(super) const OF_PLACE: [&str; 3] = [ZONE_ID, PLACEMENT_GROUP, PARTITION];
