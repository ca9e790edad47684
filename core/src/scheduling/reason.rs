//! Why a node does not take a pod.

use std::{fmt, sync::Arc};

/// Why a node does not take a pod, in kube-scheduler's words when displayed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// A claim is not there: no node will do.
    ClaimNotFound(Arc<str>),
    /// The volume of a claim is gone for good: no node will do.
    ClaimLost(Arc<str>),
    /// A claim is being deleted: no node will do.
    ClaimDeleting(Arc<str>),
    /// A claim names a volume that is not there.
    VolumeNotFound(Arc<str>),
    /// A claim that is bound at once has no volume yet: no node will do.
    ClaimUnbound,
    /// The node is cordoned.
    Unschedulable,
    /// A taint that the pod does not tolerate.
    Taint,
    /// Its node selector or node affinity.
    NodeAffinity,
    /// A port of the node is taken.
    Ports,
    /// Too little of these resources is free, in the order cpu, memory, ephemeral-storage, pods, others.
    Insufficient {
        /// The resources.
        resources: Box<[Arc<str>]>,
        /// Whether the node could not take the pod even if it were empty.
        beyond_capacity: bool,
    },
    /// Another pod has a disk that the specification names.
    Disk,
    /// Another pod uses a claim that one pod alone may use.
    ClaimInUse,
    /// The node can have no more volumes of a driver attached.
    VolumeLimit,
    /// The volume cannot be reached from the node.
    VolumeAffinity,
    /// No volume for a claim could be had on the node.
    NoVolume,
    /// The driver of a claim's class has too little room where the node is.
    NoRoom,
    /// A CSI driver without which no pod that uses it may come.
    DriverMissing(Arc<str>),
    /// The volume is in another zone.
    VolumeZone,
    /// Topology spread.
    Spread,
    /// The node lacks the label that pods are spread by.
    SpreadLabel,
    /// Pod affinity.
    PodAffinity,
    /// Pod anti-affinity.
    PodAntiAffinity,
    /// The anti-affinity of a pod that is there.
    ExistingAntiAffinity,
    /// The kubelet does not declare what the pod needs.
    Features,
    /// A claim of devices is not there: no node will do.
    DeviceClaimNotFound(Arc<str>),
    /// A claim of devices cannot be met, since it or what it names is not right: no node will do.
    DeviceRequest(Arc<str>),
    /// Claims of devices cannot be read.
    DevicesUnknown,
    /// As many pods use a claim of devices as may.
    DeviceClaimInUse,
    /// A claim has devices that the node cannot use.
    DevicesElsewhere,
    /// Nobody knows which devices the node will have, and it is presumed to have those of another pod, if any.
    DevicesOfNewNode,
    /// Claims of devices get no new nodes (`IGNORE_DRA_REQUESTS`).
    DevicesIgnored,
    /// The node has not the devices that claims ask for.
    NoDevices {
        /// Whether some of what drivers publish contradicts itself.
        invalid_pools: bool,
    },
}

impl Reason {
    /// Whether preempting other pods could not help either (status `UnschedulableAndUnresolvable`).
    pub fn is_unresolvable(&self) -> bool {
        match self {
            Self::Insufficient { beyond_capacity, .. } => *beyond_capacity,
            Self::Ports
            | Self::Disk
            | Self::ClaimInUse
            | Self::VolumeLimit
            | Self::DriverMissing(_)
            | Self::Spread
            | Self::PodAntiAffinity
            | Self::ExistingAntiAffinity => false,
            _ => true,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClaimNotFound(name) => return write!(f, "persistentvolumeclaim \"{name}\" not found"),
            Self::ClaimLost(name) => {
                return write!(f, "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume");
            }
            Self::ClaimDeleting(name) => {
                return write!(f, "persistentvolumeclaim \"{name}\" is being deleted");
            }
            Self::VolumeNotFound(_) => {
                "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
            }
            Self::ClaimUnbound => "pod has unbound immediate PersistentVolumeClaims",
            Self::Unschedulable => "node(s) were unschedulable",
            Self::Taint => "node(s) had untolerated taint(s)",
            Self::NodeAffinity => "node(s) didn't match Pod's node affinity/selector",
            Self::Ports => "node(s) didn't have free ports for the requested pod ports",
            Self::Insufficient { resources, .. } => return insufficient(f, resources),
            Self::Disk => "node(s) had no available disk",
            Self::ClaimInUse => {
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
            }
            Self::VolumeLimit => "node(s) exceed max volume count",
            Self::VolumeAffinity => "node(s) didn't match PersistentVolume's node affinity",
            Self::NoVolume => "node(s) didn't find available persistent volumes to bind",
            Self::NoRoom => "node(s) did not have enough free storage",
            Self::DriverMissing(driver) => {
                return write!(f, "{driver} CSI driver is not installed on the node");
            }
            Self::VolumeZone => "node(s) had no available volume zone",
            Self::Spread => "node(s) didn't match pod topology spread constraints",
            Self::SpreadLabel => {
                "node(s) didn't match pod topology spread constraints (missing required label)"
            }
            Self::PodAffinity => "node(s) didn't match pod affinity rules",
            Self::PodAntiAffinity => "node(s) didn't match pod anti-affinity rules",
            Self::ExistingAntiAffinity => "node(s) didn't satisfy existing pods anti-affinity rules",
            Self::Features => "node(s) didn't match Pod's required features",
            Self::DeviceClaimNotFound(name) => return write!(f, "resourceclaim \"{name}\" not found"),
            Self::DeviceRequest(text) => text,
            Self::DevicesUnknown => {
                "cannot be judged: claims of devices (resource.k8s.io/v1) are not served or may not be read"
            }
            Self::DevicesOfNewNode => {
                "nobody knows which devices a new node has until one that is on its way tells"
            }
            Self::DevicesIgnored => {
                "pod has Dynamic Resource Allocation requirements, for which no nodes are made (--ignore-dra-requests)"
            }
            Self::DeviceClaimInUse => "resourceclaim in use",
            Self::DevicesElsewhere => "resourceclaim not available on the node",
            Self::NoDevices { invalid_pools: true } => "invalid resource pools were encountered",
            Self::NoDevices { invalid_pools: false } => "cannot allocate all claims",
        })
    }
}

fn insufficient(f: &mut fmt::Formatter<'_>, resources: &[Arc<str>]) -> fmt::Result {
    for (at, resource) in resources.iter().enumerate() {
        let separator = if at == 0 { "" } else { ", " };
        match &**resource {
            "pods" => write!(f, "{separator}Too many pods")?,
            resource => write!(f, "{separator}Insufficient {resource}")?,
        }
    }
    Ok(())
}
