//! What decisions about nodes read: pods, nodes and what is around them, each in a small form of its own.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::DaemonSet, core::v1 as k8s, policy::v1::PodDisruptionBudget};
use kube::{Client, ResourceExt};
use tandem_core::{
    nodes::{
        demand,
        drain::{Budget, Budgets, Owners},
    },
    scheduling::{
        Node, Pod, Surroundings,
        pod::{Owner, Scheduled},
        profile::Profile,
    },
};
use tokio::sync::{Notify, watch};

use super::{
    devices::Devices, mirror::Mirror, pod_group::PodGroup, shapes::Shapes, storage::Storage,
    workloads::Workloads,
};

/// The cluster as decisions about nodes see it.
pub struct World {
    /// All pods.
    pub pods: Arc<Mirror<Pod>>,
    /// All nodes.
    pub nodes: Arc<Mirror<Node>>,
    /// A pod of each DaemonSet, bound to no node.
    pub daemon_sets: Arc<Mirror<Pod>>,
    budgets: Arc<Mirror<Budget>>,
    namespaces: Arc<Mirror<BTreeMap<String, String>>>,
    storage: Storage,
    workloads: Workloads,
    /// How many pods each has at once.
    jobs: Arc<Mirror<i32>>,
    /// Of PodGroups: how many pods have to run together, if any, and whether they are disrupted as a whole.
    gangs: Arc<Mirror<(Option<u32>, bool)>>,
    devices: Devices,
    /// What the scheduler is configured to do otherwise, if anything.
    profile: Option<Arc<Profile>>,
    /// Wakes who waits for a pod that fits nowhere.
    pub unschedulable: Arc<Notify>,
    /// Counts up when a pod, a node or a DaemonSet changes, for any number of subscribers.
    pub changes: watch::Sender<u64>,
}

impl World {
    /// Starts the watches. Services, and what controllers select by, are only kept if the scheduler's profile reads them.
    pub fn start(client: &Client, profile: Option<Arc<Profile>>) -> Arc<Self> {
        let unschedulable = Arc::new(Notify::new());
        let wakes = unschedulable.clone();
        let changes = watch::Sender::new(0);
        let changed = || {
            let changes = changes.clone();
            move || changes.send_modify(|count| *count += 1)
        };
        let shapes = Arc::new(Shapes::default());
        let shared = shapes.clone();
        let read_pod = move |pod: &k8s::Pod| {
            let pod = Pod::read(pod, |shape| shared.share(shape));
            if matches!(pod.scheduled, Scheduled::Unschedulable(_)) {
                wakes.notify_one();
            }
            pod
        };
        let read_set = move |set: &DaemonSet| Pod::read(&pod_of(set), |shape| shapes.share(shape));
        Arc::new(Self {
            pods: Mirror::start(client, read_pod, changed()),
            nodes: Mirror::start(client, Node::read, changed()),
            daemon_sets: Mirror::start(client, read_set, changed()),
            budgets: Mirror::start(client, |budget: &PodDisruptionBudget| Budget::read(budget), || {}),
            namespaces: Mirror::start(client, |namespace: &k8s::Namespace| namespace.labels().clone(), || {}),
            storage: Storage::start(client),
            workloads: Workloads::start(
                client,
                profile.as_ref().is_some_and(|profile| profile.reads_workloads()),
            ),
            jobs: Mirror::start(client, demand::replicas_of_job, || {}),
            gangs: Mirror::start_if_served(
                client,
                |group: &PodGroup| (group.needed(), group.is_undivided()),
                changed(),
            ),
            devices: Devices::start(client, changed()),
            profile,
            unschedulable,
            changes,
        })
    }

    /// Waits for the first listing of every kind.
    pub async fn synced(&self) {
        tokio::join!(
            self.pods.synced(),
            self.nodes.synced(),
            self.daemon_sets.synced(),
            self.budgets.synced(),
            self.namespaces.synced(),
            self.storage.synced(),
            self.workloads.synced(),
            self.jobs.synced(),
            self.gangs.synced(),
            self.devices.synced(),
        );
    }

    /// All nodes, with what the drivers of their volumes say.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        let (drivers_matter, now) = (self.storage.drivers_matter(), Timestamp::now());
        let nodes = self.nodes.all().into_iter();
        nodes.map(|node| self.storage.tell(node, drivers_matter, now)).collect()
    }

    /// All budgets as they are now.
    pub fn budgets(&self) -> Budgets {
        Budgets::new(self.budgets.all().into_iter().map(|budget| (*budget).clone()))
    }

    /// All controllers of pods.
    pub fn owners(&self) -> Owners {
        let mut owners = Owners::default();
        self.workloads.add_to(&mut owners);
        let jobs = self.jobs.entries().into_iter();
        owners.add("Job", jobs.map(|(key, _)| (key.namespace.into(), key.name.into(), None)));
        let sets = self.daemon_sets.entries().into_iter();
        owners.add("DaemonSet", sets.map(|(key, _)| (key.namespace.into(), key.name.into(), None)));
        owners
    }

    /// How many pods a controller wants, if it is one that Kubernetes has for pods that wait.
    pub fn replicas(&self, owner: &Owner, namespace: &str) -> Option<u32> {
        let replicas = match (&*owner.api_version, &*owner.kind) {
            ("batch/v1", "Job") => self.jobs.get(namespace, &owner.name).map(|count| *count),
            _ => self.workloads.replicas(owner, namespace),
        };
        replicas.map(|replicas| u32::try_from(replicas).unwrap_or(0))
    }

    /// What else the scheduler reads.
    pub fn surroundings(&self) -> Surroundings {
        let named = |name: String| -> Arc<str> { name.into() };
        let mut surroundings = Surroundings {
            namespaces: self
                .namespaces
                .entries()
                .into_iter()
                .map(|(key, labels)| (named(key.name), (*labels).clone()))
                .collect(),
            devices: self.devices.objects(),
            profile: self.profile.clone(),
            workloads: self.workloads.selectors(),
            ..Surroundings::default()
        };
        for (key, gang) in self.gangs.entries() {
            let key = (named(key.namespace), named(key.name));
            let (needed, undivided) = *gang;
            if undivided {
                surroundings.undivided.insert(key.clone());
            }
            surroundings.gangs.extend(needed.map(|needed| (key, needed)));
        }
        self.storage.add_to(&mut surroundings);
        surroundings
    }
}

/// A pod as the DaemonSet would make it.
fn pod_of(set: &DaemonSet) -> k8s::Pod {
    let template = &set.spec.template;
    let mut pod = k8s::Pod {
        metadata: template.metadata.clone().unwrap_or_default(),
        spec: template.spec.clone(),
        ..k8s::Pod::default()
    };
    pod.metadata.name = Some(set.name_any());
    pod.metadata.namespace = set.namespace();
    pod.metadata.owner_references =
        Some(vec![k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference {
            api_version: "apps/v1".to_owned(),
            kind: "DaemonSet".to_owned(),
            name: set.name_any(),
            uid: set.uid().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]);
    pod
}
