//! Storage as the scheduler sees it: claims, volumes, classes, and what CSI drivers say of nodes and of the room that they have.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1 as k8s,
};
use kube::Client;
use tandem_core::scheduling::{
    Declared, Node, Surroundings,
    surroundings::{Capacity, Claim, Driver, StorageClass, Volume},
};

use super::mirror::Mirror;

/// A node's drivers come after its kubelet, and tell their room a moment later: for so long after a node came, nobody knows
/// what will be there. A driver that pulls its image and registers takes a minute at most.
const SETTLING: SignedDuration = SignedDuration::from_mins(3);

/// The storage of the cluster.
pub(super) struct Storage {
    claims: Arc<Mirror<Claim>>,
    volumes: Arc<Mirror<Volume>>,
    classes: Arc<Mirror<StorageClass>>,
    nodes: Arc<Mirror<Drivers>>,
    /// Absent of drivers of which nothing is read.
    drivers: Arc<Mirror<Option<Driver>>>,
    capacities: Arc<Mirror<(Arc<str>, Capacity)>>,
    /// Whether it was said that drivers or capacities may not be read.
    warned: AtomicBool,
}

/// A `CSINode`.
#[derive(Debug, Default, PartialEq)]
struct Drivers {
    running: BTreeSet<Box<str>>,
    /// Volumes that may be attached, by driver.
    limits: BTreeMap<Box<str>, i64>,
}

impl Drivers {
    fn read(node: &k8s::CSINode) -> Self {
        let mut read = Self::default();
        for driver in &node.spec.drivers {
            read.running.insert(driver.name.as_str().into());
            let count = driver.allocatable.as_ref().and_then(|allocatable| allocatable.count);
            if let Some(count) = count {
                read.limits.insert(driver.name.as_str().into(), count.into());
            }
        }
        read
    }
}

impl Storage {
    /// Starts the watches.
    pub(super) fn start(client: &Client) -> Self {
        Self {
            claims: Mirror::start(client, |claim: &PersistentVolumeClaim| Claim::read(claim), || {}),
            volumes: Mirror::start(client, |volume: &PersistentVolume| Volume::read(volume), || {}),
            classes: Mirror::start(client, |class: &k8s::StorageClass| StorageClass::read(class), || {}),
            nodes: Mirror::start(client, Drivers::read, || {}),
            drivers: Mirror::start_if_readable(client, Driver::read, || {}),
            capacities: Mirror::start_if_readable(client, Capacity::read, || {}),
            warned: AtomicBool::new(false),
        }
    }

    /// Waits for the first listing of every kind.
    pub(super) async fn synced(&self) {
        tokio::join!(
            self.claims.synced(),
            self.volumes.synced(),
            self.classes.synced(),
            self.nodes.synced(),
            self.drivers.synced(),
            self.capacities.synced(),
        );
        let readable = self.drivers.is_listed() && self.capacities.is_listed();
        if !readable && !self.warned.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                "csidrivers or csistoragecapacities may not be listed and watched: storage capacity is not considered"
            );
        }
    }

    /// A node, with what its drivers say.
    pub(super) fn tell(&self, node: Arc<Node>, drivers_matter: bool, now: Timestamp) -> Arc<Node> {
        let said = self.nodes.get("", &node.name);
        let limited = said.as_ref().is_some_and(|said| !said.limits.is_empty());
        let settled = node.created.is_none_or(|created| now.duration_since(created) > SETTLING);
        let asked = drivers_matter && settled;
        if !limited && !asked {
            return node;
        }
        let mut told = (*node).clone();
        if asked {
            let running = said.as_ref().map(|said| said.running.clone()).unwrap_or_default();
            told.declared = Arc::new(Declared { drivers: Some(running), ..(*told.declared).clone() });
        }
        if let Some(said) = said {
            told.volume_limits.clone_from(&said.limits);
        }
        Arc::new(told)
    }

    /// Whether there is a driver that is asked where it runs, or how much room it has.
    pub(super) fn drivers_matter(&self) -> bool {
        self.drivers.all().iter().any(|driver| driver.is_some())
    }

    /// Adds what the scheduler reads of storage.
    pub(super) fn add_to(&self, surroundings: &mut Surroundings) {
        let named = |name: String| -> Arc<str> { name.into() };
        let claims = self.claims.entries().into_iter();
        surroundings.claims =
            claims.map(|(key, claim)| ((named(key.namespace), named(key.name)), (*claim).clone())).collect();
        let volumes = self.volumes.entries().into_iter();
        surroundings.volumes = volumes.map(|(key, it)| (named(key.name), (*it).clone())).collect();
        let classes = self.classes.entries().into_iter();
        surroundings.classes = classes.map(|(key, it)| (named(key.name), (*it).clone())).collect();
        let drivers = self.drivers.entries().into_iter();
        surroundings.drivers = drivers.filter_map(|(key, it)| Some((named(key.name), (*it)?))).collect();
        if !self.capacities.is_listed() {
            // Without their word every driver would seem to be full.
            surroundings.drivers.values_mut().for_each(|driver| driver.tells_capacity = false);
        }
        surroundings.capacities = self.capacities(surroundings);
    }

    /// The room for volumes of classes that some claim waits for; that of others changes all the time, and nobody asks.
    fn capacities(&self, surroundings: &Surroundings) -> BTreeMap<Arc<str>, Vec<Capacity>> {
        let waiting = surroundings.claims.values().filter(|claim| claim.volume.is_none());
        let wanted: BTreeSet<_> = waiting.filter_map(|claim| claim.class.clone()).collect();
        let mut by_class: BTreeMap<Arc<str>, Vec<Capacity>> = BTreeMap::new();
        for (class, capacity) in self.capacities.all().iter().map(|it| &**it) {
            if wanted.contains(class) {
                by_class.entry(class.clone()).or_default().push(capacity.clone());
            }
        }
        by_class
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// An API server with a driver and a claim of its class, that refuses some kinds.
    fn server(refused: &'static [&'static str]) -> Client {
        let answer = move |request: Request<Body>| async move {
            let path = request.uri().path().to_owned();
            let kind = path.rsplit('/').next().unwrap_or_default();
            if request.uri().query().is_some_and(|query| query.contains("watch")) {
                std::future::pending::<()>().await;
            }
            let (code, body) = if refused.contains(&kind) {
                (403, json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403}))
            } else {
                (200, json!({"metadata": {"resourceVersion": "1"}, "items": items(kind)}))
            };
            Response::builder().status(code).body(Body::from(body.to_string().into_bytes()))
        };
        Client::new(tower::service_fn(answer), "default")
    }

    fn items(kind: &str) -> Value {
        match kind {
            "csidrivers" => json!([{"metadata": {"name": "csi"}, "spec": {"storageCapacity": true}}]),
            "csistoragecapacities" => json!([
                {"metadata": {"name": "a", "namespace": "n"}, "storageClassName": "fast", "capacity": "1Gi"},
                {"metadata": {"name": "b", "namespace": "n"}, "storageClassName": "idle", "capacity": "1Gi"},
            ]),
            "persistentvolumeclaims" => {
                json!([{"metadata": {"name": "c", "namespace": "n"}, "spec": {"storageClassName": "fast"}}])
            }
            "csinodes" => {
                json!([{"metadata": {"name": "n"}, "spec": {"drivers": [{"name": "csi", "nodeID": "n"}]}}])
            }
            _ => json!([]),
        }
    }

    async fn storage(refused: &'static [&'static str]) -> (Storage, Surroundings) {
        let storage = Storage::start(&server(refused));
        storage.synced().await;
        let mut surroundings = Surroundings::default();
        storage.add_to(&mut surroundings);
        (storage, surroundings)
    }

    #[tokio::test]
    async fn what_may_not_be_read_holds_nobody_up_and_refuses_no_node() {
        let cases: [(&[&str], Option<bool>, usize); 4] = [
            (&[], Some(true), 1),
            (&["csistoragecapacities"], Some(false), 0),
            (&["csidrivers"], None, 1),
            (&["csidrivers", "csistoragecapacities"], None, 0),
        ];
        for (refused, tells, classes) in cases {
            let (storage, surroundings) = storage(refused).await;
            let driver = surroundings.drivers.get("csi").map(|driver| driver.tells_capacity);
            assert_eq!((driver, surroundings.capacities.len()), (tells, classes), "{refused:?}");
            assert_eq!(storage.warned.into_inner(), !refused.is_empty(), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn nobody_knows_what_runs_on_a_node_that_came_a_moment_ago() {
        let (storage, _) = storage(&[]).await;
        let created = Timestamp::UNIX_EPOCH;
        let node =
            |name: &str| Arc::new(Node { name: name.into(), created: Some(created), ..Node::default() });
        let drivers = |name: &str, minutes: i64| {
            let told = storage.tell(
                node(name),
                storage.drivers_matter(),
                created + SignedDuration::from_mins(minutes),
            );
            told.declared.drivers.as_ref().map(BTreeSet::len)
        };
        assert_eq!([drivers("n", 1), drivers("n", 4), drivers("other", 4)], [None, Some(1), Some(0)]);
        let unasked = storage.tell(node("n"), false, created + SignedDuration::from_mins(4));
        assert_eq!(unasked.declared.drivers, None, "no driver is asked for");
    }
}
