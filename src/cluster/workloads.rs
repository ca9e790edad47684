//! Controllers that keep a number of pods, and the Services before them: how many, and whose like their pods are.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, StatefulSet},
        core::v1::{ReplicationController, Service},
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::Client;
use parking_lot::Mutex;
use tandem_core::{
    nodes::drain::Owners,
    scheduling::{
        pod::Owner,
        profile::{Controller, Workloads as Selectors},
    },
};

use super::mirror::Mirror;

/// What is kept of a controller.
#[derive(Debug, PartialEq)]
struct Kept {
    replicas: Option<i32>,
    /// What it selects by, if anybody asks.
    selector: Option<Arc<LabelSelector>>,
}

/// `spec.selector` of a Service, if it has one.
type OfService = Option<Arc<BTreeMap<String, String>>>;

/// Controllers and Services of the cluster.
pub(super) struct Workloads {
    controllers: [(Controller, Arc<Mirror<Kept>>); 3],
    /// Only there if anybody asks for selectors.
    services: Option<Arc<Mirror<OfService>>>,
    /// The last answer, and the versions of what it was made from.
    last: Mutex<([u64; 4], Arc<Selectors>)>,
}

impl Workloads {
    /// Starts the watches; `selects` says whether anybody asks for selectors.
    pub(super) fn start(client: &Client, selects: bool) -> Self {
        let keep = move |replicas, selector: Option<LabelSelector>| {
            let selector = selector.filter(|_| selects).map(Arc::new);
            Kept { replicas, selector }
        };
        let of_controller = move |controller: &ReplicationController| {
            let spec = controller.spec.as_ref();
            let labels = spec.and_then(|spec| spec.selector.clone());
            let selector =
                labels.map(|labels| LabelSelector { match_labels: Some(labels), ..LabelSelector::default() });
            keep(spec.and_then(|spec| spec.replicas), selector)
        };
        let of_replica_set = move |set: &ReplicaSet| keep(set.spec.replicas, Some(set.spec.selector.clone()));
        let of_stateful_set =
            move |set: &StatefulSet| keep(set.spec.replicas, Some(set.spec.selector.clone()));
        let of_service = |service: &Service| service.spec.as_ref()?.selector.clone().map(Arc::new);
        Self {
            controllers: [
                (Controller::ReplicationController, Mirror::start(client, of_controller, || {})),
                (Controller::ReplicaSet, Mirror::start(client, of_replica_set, || {})),
                (Controller::StatefulSet, Mirror::start(client, of_stateful_set, || {})),
            ],
            services: selects.then(|| Mirror::start(client, of_service, || {})),
            last: Mutex::default(),
        }
    }

    /// Waits for the first listing of every kind.
    pub(super) async fn synced(&self) {
        for (_, controllers) in &self.controllers {
            controllers.synced().await;
        }
        if let Some(services) = &self.services {
            services.synced().await;
        }
    }

    /// How many pods a controller keeps, if it is one of these.
    pub(super) fn replicas(&self, owner: &Owner, namespace: &str) -> Option<i32> {
        let kind = Controller::of(owner)?;
        let (_, controllers) = self.controllers.iter().find(|(of, _)| *of == kind)?;
        // Whoever leaves the number out gets one.
        controllers.get(namespace, &owner.name).map(|kept| kept.replicas.unwrap_or(1))
    }

    /// Adds how many pods each controller keeps.
    pub(super) fn add_to(&self, owners: &mut Owners) {
        for (kind, controllers) in &self.controllers {
            let entries = controllers.entries().into_iter();
            let of = entries.map(|(key, kept)| (key.namespace.into(), key.name.into(), kept.replicas));
            owners.add(kind.name(), of);
        }
    }

    /// Whose like pods are; nothing if nobody asks. The same until something changes.
    pub(super) fn selectors(&self) -> Arc<Selectors> {
        let Some(services) = &self.services else { return Arc::default() };
        let [one, two, three] = &self.controllers;
        let versions = [one.1.version(), two.1.version(), three.1.version(), services.version()];
        let mut last = self.last.lock();
        if last.0 != versions {
            *last = (versions, Arc::new(self.read(services)));
        }
        last.1.clone()
    }

    fn read(&self, services: &Mirror<OfService>) -> Selectors {
        let mut selectors = Selectors::default();
        for (key, service) in services.entries() {
            let of_namespace = || selectors.services.entry(key.namespace.into()).or_default();
            if let Some(selector) = &*service {
                of_namespace().push(selector.clone());
            }
        }
        for (kind, controllers) in &self.controllers {
            for (key, kept) in controllers.entries() {
                let key = (*kind, key.namespace.into(), key.name.into());
                selectors.controllers.extend(kept.selector.clone().map(|selector| (key, selector)));
            }
        }
        selectors
    }
}
