//! A pod as decisions see it: small, and sharing what identical pods have in common.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    self as k8s, Affinity, NodeSelectorTerm, Toleration, TopologySpreadConstraint,
};

use super::{
    declared,
    devices::{ExtendedRequest, PodClaim},
    resources::Resources,
    resources::{pod_limits, pod_requests},
};

/// Seconds that a pod has to stop when it does not say (API default).
pub const DEFAULT_GRACE_SECONDS: i64 = 30;

/// Annotations that a decision reads: their names begin so. Others are not kept.
const ANNOTATIONS_READ: &[&str] = &[
    "cluster-autoscaler.kubernetes.io/",
    "cluster-autoscaler.alpha.kubernetes.io/",
    "karpenter.sh/",
    "controller.kubernetes.io/pod-deletion-cost",
    "kubernetes.io/config.mirror",
    "autoscaling.x-k8s.io/",
];

/// What a pod's phase is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Accepted, not running.
    #[default]
    Pending,
    /// Bound, with at least one container that runs.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
    /// The node does not answer.
    Unknown,
}

/// What happens when a pod's containers end (`spec.restartPolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Restart {
    /// They start again.
    #[default]
    Always,
    /// They start again if they failed.
    OnFailure,
    /// That is the end.
    Never,
}

/// What the scheduler says of a pod (condition `PodScheduled`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheduled {
    /// The scheduler has not looked at it yet.
    #[default]
    NotTried,
    /// It has a node.
    Bound,
    /// No node fits, since then.
    Unschedulable(Timestamp),
    /// Its scheduling gates hold it back.
    Gated,
}

/// The controller that owns a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// Such as `ReplicaSet`.
    pub kind: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its uid.
    pub uid: Arc<str>,
    /// Such as `apps/v1`.
    pub api_version: Arc<str>,
}

/// A port of the node that a pod takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// Address; empty means all.
    pub ip: Box<str>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Box<str>,
    /// 1 to 65535.
    pub port: i32,
}

/// A disk that the specification itself names, and that pods of one node do not share unless they only read it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Disk {
    /// What tells it from all others, whatever their kind.
    pub id: Box<str>,
    /// Whether others may read it as well.
    pub is_shared: bool,
}

/// A volume that lives on the node, and so is lost when the pod moves.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalVolume {
    /// The volume's name in the pod.
    pub name: Box<str>,
    /// Whether it is in memory (`emptyDir` with `medium: Memory`).
    pub in_memory: bool,
}

/// What identical pods share: everything of the template that a decision reads.
///
/// Most pods that differ at all differ in what they ask for. So the rest is shared once more, and reads as if it were of the
/// shape itself; who changes it changes a copy.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Shape {
    /// What it asks of a node, see [`pod_requests`].
    pub requests: Resources,
    /// What of it devices may give.
    pub extended: Box<[ExtendedRequest]>,
    /// The most that it may use, see [`pod_limits`]; no decision reads it.
    pub limits: Resources,
    /// All else. Equal ones are one wherever pods are read: so the simulation sees at a glance which pods are alike.
    pub traits: Arc<Traits>,
}

impl Shape {
    /// A shape with these requests and traits.
    pub fn new(requests: Resources, traits: Traits) -> Self {
        Self { requests, extended: Box::default(), limits: Resources::default(), traits: Arc::new(traits) }
    }
}

/// A shape that asks for nothing.
impl From<Traits> for Shape {
    fn from(traits: Traits) -> Self {
        Self::new(Resources::default(), traits)
    }
}

impl Deref for Shape {
    type Target = Traits;

    fn deref(&self) -> &Traits {
        &self.traits
    }
}

impl DerefMut for Shape {
    fn deref_mut(&mut self) -> &mut Traits {
        Arc::make_mut(&mut self.traits)
    }
}

/// What a decision reads of a pod's template but what the pod asks for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Traits {
    /// The namespace: spread, affinity and budgets select in it.
    pub namespace: Arc<str>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations that decisions read.
    pub annotations: BTreeMap<String, String>,
    /// The controller.
    pub owner: Option<Owner>,
    /// `spec.nodeSelector`.
    pub node_selector: BTreeMap<String, String>,
    /// `spec.affinity`.
    pub affinity: Option<Box<Affinity>>,
    /// Terms of node affinity of which one has to hold as well: no pod says so, the scheduler's
    /// [`Profile`](super::profile::Profile) does.
    pub added: Box<[NodeSelectorTerm]>,
    /// `spec.tolerations`.
    pub tolerations: Vec<Toleration>,
    /// `spec.topologySpreadConstraints`.
    pub spread: Vec<TopologySpreadConstraint>,
    /// Ports of the node that it takes.
    pub ports: Vec<HostPort>,
    /// Disks that the specification itself names.
    pub disks: Box<[Disk]>,
    /// Volumes that live on the node.
    pub local_volumes: Vec<LocalVolume>,
    /// What the kubelet has to declare (`status.declaredFeatures` of its node), in order.
    pub features: Box<[&'static str]>,
    /// `spec.priority`; absent means that no class set one.
    pub priority: Option<i32>,
    /// Whether it may preempt (`preemptionPolicy` is not `Never`).
    pub preempts: bool,
    /// `spec.schedulerName`.
    pub scheduler: Arc<str>,
    /// Seconds that it has to stop.
    pub grace_seconds: i64,
    /// What happens when its containers end.
    pub restart: Restart,
}

/// A pod as decisions see it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pod {
    /// Its name; the namespace is in the shape.
    pub name: Arc<str>,
    /// Its uid.
    pub uid: Arc<str>,
    /// What it shares with its like.
    pub shape: Arc<Shape>,
    /// The node that it is bound to.
    pub node: Option<Arc<str>>,
    /// The node that it is expected on (`status.nominatedNodeName`).
    pub nominated: Option<Arc<str>>,
    /// What the scheduler says.
    pub scheduled: Scheduled,
    /// Its phase.
    pub phase: Phase,
    /// Condition `Ready`.
    pub ready: bool,
    /// Created then.
    pub created: Option<Timestamp>,
    /// Started then (`status.startTime`).
    pub started: Option<Timestamp>,
    /// To be gone then (`deletionTimestamp`); absent if it is not being deleted.
    pub deleting: Option<Timestamp>,
    /// Claims of its volumes, by name, ephemeral ones as `POD-VOLUME`.
    pub claims: Vec<Arc<str>>,
    /// Its claims of devices.
    pub device_claims: Vec<PodClaim>,
    /// The gang that it is only scheduled with (`spec.schedulingGroup.podGroupName`).
    pub gang: Option<Arc<str>>,
}

impl Pod {
    /// `NAMESPACE/NAME`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.shape.namespace, self.name)
    }

    /// Whether it has claims neither of volumes nor of devices.
    pub fn has_no_claims(&self) -> bool {
        self.claims.is_empty() && self.device_claims.is_empty()
    }

    /// Whether it has a node, or had one that it leaves.
    pub fn is_placed(&self) -> bool {
        self.node.is_some() || self.scheduled == Scheduled::Bound
    }

    /// Whether it has ended, so that it takes nothing of its node any more.
    pub fn is_terminal(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// Whether the kubelet made it from a file (annotation `kubernetes.io/config.mirror`).
    pub fn is_mirror(&self) -> bool {
        self.shape.annotations.contains_key("kubernetes.io/config.mirror")
    }

    /// Whether a DaemonSet runs it.
    pub fn is_of_daemon_set(&self) -> bool {
        self.shape.owner.as_ref().is_some_and(|owner| &*owner.kind == "DaemonSet")
            || self
                .shape
                .annotations
                .get("cluster-autoscaler.kubernetes.io/daemonset-pod")
                .is_some_and(|value| value == "true")
    }

    /// Reads a pod of the API; `share` returns a shape that is already kept, if there is an equal one.
    pub fn read(pod: &k8s::Pod, share: impl FnOnce(Shape) -> Arc<Shape>) -> Self {
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let name: Arc<str> = pod.metadata.name.as_deref().unwrap_or_default().into();
        Self {
            claims: spec.map(|spec| claims(&name, spec)).unwrap_or_default(),
            device_claims: device_claims(pod),
            uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
            node: spec
                .and_then(|spec| spec.node_name.as_deref())
                .filter(|node| !node.is_empty())
                .map(Arc::from),
            nominated: status.and_then(|status| status.nominated_node_name.as_deref()).map(Arc::from),
            scheduled: scheduled(pod),
            phase: match status.and_then(|status| status.phase.as_deref()) {
                Some("Running") => Phase::Running,
                Some("Succeeded") => Phase::Succeeded,
                Some("Failed") => Phase::Failed,
                Some("Unknown") => Phase::Unknown,
                _ => Phase::Pending,
            },
            ready: condition(pod, "Ready").is_some_and(|condition| condition.status == "True"),
            created: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
            started: status.and_then(|status| status.start_time.as_ref()).map(|time| time.0),
            deleting: pod.metadata.deletion_timestamp.as_ref().map(|time| time.0),
            gang: spec
                .and_then(|spec| spec.scheduling_group.as_ref())
                .and_then(|group| group.pod_group_name.as_deref())
                .map(Arc::from),
            shape: share(Shape::read(pod)),
            name,
        }
    }
}

impl Shape {
    /// Reads what a pod shares with its like.
    pub fn read(pod: &k8s::Pod) -> Self {
        let extended = pod.spec.as_ref().map(ExtendedRequest::of_pod).unwrap_or_default();
        let limits = pod.spec.as_ref().map(pod_limits).unwrap_or_default();
        Self { extended, limits, ..Self::new(pod_requests(pod), Traits::read(pod)) }
    }
}

impl Traits {
    fn read(pod: &k8s::Pod) -> Self {
        let none = k8s::PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&none);
        Self {
            namespace: pod.metadata.namespace.as_deref().unwrap_or_default().into(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            annotations: annotations_read(pod.metadata.annotations.as_ref()),
            owner: owner(pod),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            affinity: spec.affinity.clone().map(Box::new),
            added: Box::default(),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            spread: spec.topology_spread_constraints.clone().unwrap_or_default(),
            ports: host_ports(spec),
            disks: disks(spec),
            local_volumes: local_volumes(spec),
            features: declared::features(spec),
            priority: spec.priority,
            preempts: spec.preemption_policy.as_deref() != Some("Never"),
            scheduler: spec.scheduler_name.as_deref().unwrap_or("default-scheduler").into(),
            grace_seconds: spec.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS),
            restart: match spec.restart_policy.as_deref() {
                Some("Never") => Restart::Never,
                Some("OnFailure") => Restart::OnFailure,
                _ => Restart::Always,
            },
        }
    }
}

fn annotations_read(all: Option<&BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let read = |name: &String| ANNOTATIONS_READ.iter().any(|prefix| name.starts_with(prefix));
    all.into_iter().flatten().filter(|(name, _)| read(name)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn owner(pod: &k8s::Pod) -> Option<Owner> {
    let owners = pod.metadata.owner_references.as_ref()?;
    let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
    Some(Owner {
        kind: owner.kind.as_str().into(),
        name: owner.name.as_str().into(),
        uid: owner.uid.as_str().into(),
        api_version: owner.api_version.as_str().into(),
    })
}

fn condition<'a>(pod: &'a k8s::Pod, name: &str) -> Option<&'a k8s::PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == name)
}

fn scheduled(pod: &k8s::Pod) -> Scheduled {
    let bound =
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty());
    if bound {
        return Scheduled::Bound;
    }
    let gates = pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref());
    if gates.is_some_and(|gates| !gates.is_empty()) {
        return Scheduled::Gated;
    }
    match condition(pod, "PodScheduled") {
        Some(condition) if condition.status == "False" => match condition.reason.as_deref() {
            Some("Unschedulable") => Scheduled::Unschedulable(
                condition.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            ),
            Some("SchedulingGated") => Scheduled::Gated,
            _ => Scheduled::NotTried,
        },
        _ => Scheduled::NotTried,
    }
}

/// Ports of containers and of sidecars, which run as long as they do.
fn host_ports(spec: &k8s::PodSpec) -> Vec<HostPort> {
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let mut ports: Vec<_> = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            Some(HostPort {
                ip: port.host_ip.as_deref().unwrap_or_default().into(),
                protocol: port.protocol.as_deref().unwrap_or("TCP").into(),
                port: number,
            })
        })
        .collect();
    ports.sort();
    ports
}

/// Source: kube-scheduler, `plugins/volumerestrictions/volume_restrictions.go`.
fn disks(spec: &k8s::PodSpec) -> Box<[Disk]> {
    let disk =
        |id: String, is_shared: Option<bool>| Disk { id: id.into(), is_shared: is_shared == Some(true) };
    let mut disks = Vec::new();
    for volume in spec.volumes.iter().flatten() {
        let gce = volume.gce_persistent_disk.as_ref();
        disks.extend(gce.map(|it| disk(format!("gce {}", it.pd_name), it.read_only)));
        let ebs = volume.aws_elastic_block_store.as_ref();
        disks.extend(ebs.map(|it| disk(format!("ebs {}", it.volume_id), None)));
        let iscsi = volume.iscsi.as_ref();
        disks.extend(iscsi.map(|it| disk(format!("iscsi {}", it.iqn), it.read_only)));
        // An image is the same if one of its monitors is.
        disks.extend(volume.rbd.iter().flat_map(|it| {
            let pool = it.pool.as_deref().unwrap_or("rbd");
            it.monitors
                .iter()
                .map(move |monitor| disk(format!("rbd {monitor} {pool} {}", it.image), it.read_only))
        }));
    }
    disks.sort_unstable();
    disks.dedup();
    disks.into()
}

fn local_volumes(spec: &k8s::PodSpec) -> Vec<LocalVolume> {
    let volumes = spec.volumes.iter().flatten();
    volumes
        .filter(|volume| volume.empty_dir.is_some() || volume.host_path.is_some())
        .map(|volume| LocalVolume {
            name: volume.name.as_str().into(),
            in_memory: volume.empty_dir.as_ref().is_some_and(|dir| dir.medium.as_deref() == Some("Memory")),
        })
        .collect()
}

fn claims(pod: &str, spec: &k8s::PodSpec) -> Vec<Arc<str>> {
    let volumes = spec.volumes.iter().flatten();
    volumes
        .filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => Some(claim.claim_name.as_str().into()),
            (None, Some(_)) => Some(format!("{pod}-{}", volume.name).into()),
            (None, None) => None,
        })
        .collect()
}

/// Claims of devices; a template that needs no claim (a status without a name) asks for nothing.
fn device_claims(pod: &k8s::Pod) -> Vec<PodClaim> {
    let claims = pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
    let extended = pod.status.as_ref().and_then(|status| status.extended_resource_claim_status.as_ref());
    let extended = extended.map(|status| PodClaim::Extended(status.resource_claim_name.as_str().into()));
    let made = |name: &str| {
        let status = pod.status.as_ref()?;
        status.resource_claim_statuses.iter().flatten().find(|made| made.name == name)
    };
    claims
        .filter_map(|claim| {
            if let Some(name) = &claim.resource_claim_name {
                return Some(PodClaim::Named(name.as_str().into()));
            }
            let template = claim.resource_claim_template_name.as_deref()?.into();
            match made(&claim.name) {
                None => Some(PodClaim::Own { template, name: None }),
                Some(made) => {
                    let name = made.resource_claim_name.as_deref()?.into();
                    Some(PodClaim::Own { template, name: Some(name) })
                }
            }
        })
        .chain(extended)
        .collect()
}
