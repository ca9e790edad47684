//! What the scheduler reads beside pods and nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::{
        core::v1::{
            NodeSelector, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec,
            TopologySelectorTerm, VolumeResourceRequirements,
        },
        storage::v1::{CSIDriver, CSIStorageCapacity, StorageClass as K8sStorageClass},
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use super::{
    devices,
    profile::{Profile, Workloads},
};
use crate::quantity::parse_milli;

/// The access mode that lets one pod alone use a claim.
pub const READ_WRITE_ONCE_POD: &str = "ReadWriteOncePod";

/// What the scheduler reads beside pods and nodes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Surroundings {
    /// The labels of namespaces, by name.
    pub namespaces: BTreeMap<Arc<str>, BTreeMap<String, String>>,
    /// Claims, by namespace and name.
    pub claims: BTreeMap<(Arc<str>, Arc<str>), Claim>,
    /// Volumes, by name.
    pub volumes: BTreeMap<Arc<str>, Volume>,
    /// Storage classes, by name.
    pub classes: BTreeMap<Arc<str>, StorageClass>,
    /// CSI drivers of which the scheduler reads anything, by name.
    pub drivers: BTreeMap<Arc<str>, Driver>,
    /// What drivers that tell it have room for, by storage class.
    pub capacities: BTreeMap<Arc<str>, Vec<Capacity>>,
    /// How many pods of a gang have to run for any to run (`minCount` of its PodGroup), by namespace and name.
    pub gangs: BTreeMap<(Arc<str>, Arc<str>), u32>,
    /// PodGroups whose pods are only disrupted all at once (`disruptionMode: all`).
    pub undivided: BTreeSet<(Arc<str>, Arc<str>)>,
    /// Devices and claims of them; `None` if they cannot be read.
    pub devices: Option<Arc<devices::Objects>>,
    /// What the scheduler is configured to do otherwise; `None` if nothing.
    pub profile: Option<Arc<Profile>>,
    /// Whose like pods are; only read if [`Profile::reads_workloads`].
    pub workloads: Arc<Workloads>,
}

/// A `PersistentVolumeClaim`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Claim {
    /// The storage class; absent or empty means none.
    pub class: Option<Arc<str>>,
    /// The volume it is bound to.
    pub volume: Option<Arc<str>>,
    /// How it is used, such as `ReadWriteOnce`.
    pub access_modes: Vec<String>,
    /// What it asks for, bytes.
    pub bytes: i64,
    /// The labels of volumes that it may be bound to; absent means all.
    pub selector: Option<LabelSelector>,
    /// Whether it asks for a block device (`volumeMode: Block`).
    pub is_block: bool,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// Whether its volume is gone (phase `Lost`).
    pub is_lost: bool,
}

/// A `PersistentVolume`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Volume {
    /// Labels; those of zone and region bind it to nodes.
    pub labels: BTreeMap<String, String>,
    /// The nodes from which it can be reached; absent means all.
    pub node_affinity: Option<NodeSelector>,
    /// The CSI driver and its handle, of a kind that a driver has taken over too; absent for volumes of other kinds.
    pub handle: Option<(Arc<str>, Arc<str>)>,
    /// The storage class.
    pub class: Option<Arc<str>>,
    /// What it holds, bytes.
    pub bytes: i64,
    /// How it may be used.
    pub access_modes: Vec<String>,
    /// The claim it is kept for, by namespace and name.
    pub claim: Option<(Arc<str>, Arc<str>)>,
    /// Whether it is a block device (`volumeMode: Block`).
    pub is_block: bool,
    /// Whether it is free to be bound: its phase is `Available`, and nobody deletes it.
    pub available: bool,
}

/// A `StorageClass`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StorageClass {
    /// Who makes its volumes; a CSI driver goes by the same name, or by that of [`driver_of`].
    pub provisioner: Arc<str>,
    /// Whether a claim is bound only when a pod that uses it is scheduled.
    pub waits_for_consumer: bool,
    /// Where volumes can be made; empty means everywhere.
    pub allowed_topologies: Vec<TopologySelectorTerm>,
}

/// A `CSIDriver`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Driver {
    /// Whether it tells how much room it has, and gets no volume where it has too little (`storageCapacity`).
    pub tells_capacity: bool,
    /// Whether pods that use it only go where it runs (`preventPodSchedulingIfMissing`).
    pub has_to_run: bool,
}

/// A `CSIStorageCapacity`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Capacity {
    /// The nodes that reach it; absent means none.
    pub topology: Option<LabelSelector>,
    /// The greatest volume that can be made, bytes; absent if the driver cannot tell now.
    pub bytes: Option<i64>,
}

fn name(name: Option<&String>) -> Option<Arc<str>> {
    name.filter(|name| !name.is_empty()).map(|name| name.as_str().into())
}

fn bytes(quantity: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>) -> i64 {
    quantity.and_then(|quantity| parse_milli(&quantity.0).ok()).map_or(0, |milli| milli.div_euclid(1000))
}

/// Plugins that were part of Kubernetes, and the CSI drivers that have taken their volumes over (csi-translation-lib).
const TAKEN_OVER: [(&str, &str); 7] = [
    ("kubernetes.io/aws-ebs", EBS),
    ("kubernetes.io/gce-pd", GCE_DISK),
    ("kubernetes.io/azure-disk", AZURE_DISK),
    ("kubernetes.io/azure-file", "file.csi.azure.com"),
    ("kubernetes.io/cinder", CINDER),
    ("kubernetes.io/vsphere-volume", VSPHERE),
    ("kubernetes.io/portworx-volume", "pxd.portworx.com"),
];
const EBS: &str = "ebs.csi.aws.com";
const GCE_DISK: &str = "pd.csi.storage.gke.io";
const AZURE_DISK: &str = "disk.csi.azure.com";
const CINDER: &str = "cinder.csi.openstack.org";
const VSPHERE: &str = "csi.vsphere.vmware.com";

/// The CSI driver that makes the volumes of a provisioner.
pub(super) fn driver_of(provisioner: &str) -> &str {
    TAKEN_OVER.iter().find(|(plugin, _)| *plugin == provisioner).map_or(provisioner, |(_, driver)| driver)
}

/// The driver of a volume, and what it knows the volume by.
fn handle(spec: &PersistentVolumeSpec) -> Option<(Arc<str>, Arc<str>)> {
    let csi = spec.csi.as_ref().map(|it| (it.driver.as_str(), it.volume_handle.as_str()));
    // Ids of EBS may be written with their zone before them: `aws://zone/vol-1`.
    let ebs = spec.aws_elastic_block_store.as_ref().map(|it| it.volume_id.as_str());
    let ebs = ebs.map(|id| (EBS, id.rsplit_once('/').map_or(id, |(_, id)| id)));
    let gce = spec.gce_persistent_disk.as_ref().map(|it| (GCE_DISK, it.pd_name.as_str()));
    let azure = spec.azure_disk.as_ref().map(|it| (AZURE_DISK, it.disk_uri.as_str()));
    let cinder = spec.cinder.as_ref().map(|it| (CINDER, it.volume_id.as_str()));
    let vsphere = spec.vsphere_volume.as_ref().map(|it| (VSPHERE, it.volume_path.as_str()));
    let first = csi.or(ebs).or(gce).or(azure).or(cinder).or(vsphere);
    first.map(|(driver, handle)| (driver.into(), handle.into()))
}

fn is_block(mode: Option<&str>) -> bool {
    mode == Some("Block")
}

impl Claim {
    /// Reads a claim of the API.
    pub fn read(claim: &PersistentVolumeClaim) -> Self {
        let Some(spec) = &claim.spec else { return Self::default() };
        let requests = |resources: &VolumeResourceRequirements| {
            bytes(resources.requests.as_ref().and_then(|requests| requests.get("storage")))
        };
        Self {
            class: name(spec.storage_class_name.as_ref()),
            volume: name(spec.volume_name.as_ref()),
            access_modes: spec.access_modes.clone().unwrap_or_default(),
            bytes: spec.resources.as_ref().map_or(0, requests),
            selector: spec.selector.clone(),
            is_block: is_block(spec.volume_mode.as_deref()),
            is_deleting: claim.metadata.deletion_timestamp.is_some(),
            is_lost: claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost"),
        }
    }
}

impl Volume {
    /// Reads a volume of the API.
    pub fn read(volume: &PersistentVolume) -> Self {
        let Some(spec) = &volume.spec else { return Self::default() };
        let claim = spec.claim_ref.as_ref();
        Self {
            labels: volume.metadata.labels.clone().unwrap_or_default(),
            node_affinity: spec.node_affinity.as_ref().and_then(|affinity| affinity.required.clone()),
            handle: handle(spec),
            class: name(spec.storage_class_name.as_ref()),
            bytes: bytes(spec.capacity.as_ref().and_then(|capacity| capacity.get("storage"))),
            access_modes: spec.access_modes.clone().unwrap_or_default(),
            claim: claim
                .and_then(|claim| Some((name(claim.namespace.as_ref())?, name(claim.name.as_ref())?))),
            is_block: is_block(spec.volume_mode.as_deref()),
            available: volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Available")
                && volume.metadata.deletion_timestamp.is_none(),
        }
    }
}

impl Driver {
    /// Reads a driver of the API; `None` if the scheduler reads nothing of it.
    pub fn read(driver: &CSIDriver) -> Option<Self> {
        let read = Self {
            tells_capacity: driver.spec.storage_capacity == Some(true),
            has_to_run: driver.spec.prevent_pod_scheduling_if_missing == Some(true),
        };
        (read != Self::default()).then_some(read)
    }
}

impl Capacity {
    /// Reads a capacity of the API, and the name of the storage class that it is of.
    pub fn read(capacity: &CSIStorageCapacity) -> (Arc<str>, Self) {
        let most = capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref());
        let bytes = most.map(|most| bytes(Some(most)));
        (
            capacity.storage_class_name.as_str().into(),
            Self { topology: capacity.node_topology.clone(), bytes },
        )
    }
}

impl StorageClass {
    /// Reads a storage class of the API.
    pub fn read(class: &K8sStorageClass) -> Self {
        Self {
            provisioner: class.provisioner.as_str().into(),
            waits_for_consumer: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            allowed_topologies: class.allowed_topologies.clone().unwrap_or_default(),
        }
    }
}
