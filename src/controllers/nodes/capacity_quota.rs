//! CapacityQuotas (`--capacity-quotas-enabled`): read before a pass over node groups, and told what their nodes have.
//!
//! What they mean is `tandem_core::nodes::capacity_quota`, and the pass. The loop of node groups is the only one who writes
//! their status, once a pass at most.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject},
};
use parking_lot::Mutex;
use serde_json::json;
use tandem_core::{
    api::autoscaling::{self, CapacityQuotaStatus, CapacityQuotaUsage, v1alpha1},
    nodes::{
        buffer::Said,
        capacity_quota::{CapacityQuota, Problem, said},
    },
    scheduling::Node,
};

use crate::cluster::{
    cache::{Cache, watch_cluster},
    client::served,
    conditions::{self, Status},
    world::World,
};

const API_GROUP: &str = "autoscaling.x-k8s.io";
/// How the kind is called in paths.
const PLURAL: &str = "capacityquotas";

/// Why quotas cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum NotServed {
    /// Their kind is not there.
    #[error(
        "CRD capacityquotas.autoscaling.x-k8s.io is not installed, and --capacity-quotas-enabled is set; apply it: \
         kubectl apply -f crds/autoscaling.x-k8s.io_capacityquotas.yaml"
    )]
    NotInstalled,
    /// The API server did not say.
    #[error("it is not known whether there are CapacityQuotas: {0}")]
    Unknown(#[from] kube::Error),
}

/// A version of the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1Beta1,
    V1Alpha1,
}

impl Version {
    /// The best first.
    const ALL: [Self; 2] = [Self::V1Beta1, Self::V1Alpha1];

    fn name(self) -> &'static str {
        match self {
            Self::V1Beta1 => "v1beta1",
            Self::V1Alpha1 => "v1alpha1",
        }
    }

    /// The condition that says whether a quota is kept.
    fn valid(self) -> &'static str {
        match self {
            Self::V1Beta1 => "cluster-autoscaler.kubernetes.io/valid",
            Self::V1Alpha1 => "Valid",
        }
    }
}

/// All quotas, in the version that is served.
enum Objects {
    V1Beta1(Arc<Cache<autoscaling::CapacityQuota>>),
    V1Alpha1(Arc<Cache<v1alpha1::CapacityQuota>>),
}

impl Objects {
    /// In order of name.
    fn all(&self) -> Vec<Arc<autoscaling::CapacityQuota>> {
        let mut all: Vec<_> = match self {
            Self::V1Beta1(cache) => cache.all(),
            Self::V1Alpha1(cache) => {
                let read = |object: &Arc<_>| Arc::new(autoscaling::CapacityQuota::from(&**object));
                cache.all().iter().map(read).collect()
            }
        };
        all.sort_by_key(|object| object.name_any());
        all
    }
}

/// All quotas, and what is needed to tell them what their nodes have.
pub struct CapacityQuotas {
    client: Client,
    objects: Objects,
    version: Version,
    /// Whether statuses are written.
    writes: bool,
    /// What each was told last, by name: a schema that drops some of it must not have it written for ever.
    told: Mutex<BTreeMap<String, CapacityQuotaStatus>>,
    /// What each said when it could be read last, by name: an edit that cannot be read lifts no limit.
    kept: Mutex<BTreeMap<String, Arc<CapacityQuota>>>,
}

impl CapacityQuotas {
    /// Starts the watch.
    ///
    /// # Errors
    /// See [`NotServed`].
    pub async fn start(client: &Client, world: &Arc<World>, writes: bool) -> Result<Self, NotServed> {
        let mut best = None;
        for version in Version::ALL {
            let is_there = served(client, &format!("{API_GROUP}/{}", version.name())).await?.contains(PLURAL);
            best = best.or(is_there.then_some(version));
        }
        let version = best.ok_or(NotServed::NotInstalled)?;
        // Whoever waits for a quota to be raised waits for no interval.
        let world = world.clone();
        let changed = move || world.unschedulable.notify_one();
        let objects = match version {
            Version::V1Beta1 => Objects::V1Beta1(watch_cluster(client, move |_, _: &_| changed())),
            Version::V1Alpha1 => Objects::V1Alpha1(watch_cluster(client, move |_, _: &_| changed())),
        };
        tracing::info!(version = version.name(), "CapacityQuotas are kept");
        Ok(Self {
            client: client.clone(),
            objects,
            version,
            writes,
            told: Mutex::default(),
            kept: Mutex::default(),
        })
    }

    /// Waits for the first listing: whoever decides before that keeps no quota.
    pub async fn synced(&self) {
        match &self.objects {
            Objects::V1Beta1(cache) => cache.synced().await,
            Objects::V1Alpha1(cache) => cache.synced().await,
        }
    }

    /// The quotas that can be kept, in order of name. Each is told what those of these nodes have that it counts, the others
    /// what is wrong with them; one that could be read before is kept as it was.
    pub async fn look(&self, nodes: &[Arc<Node>]) -> Vec<Arc<CapacityQuota>> {
        let all = self.objects.all();
        let is_there = |name: &String| all.iter().any(|object| object.name_any() == *name);
        self.told.lock().retain(|name, _| is_there(name));
        self.kept.lock().retain(|name, _| is_there(name));
        for object in &all {
            let read = CapacityQuota::read(object);
            self.tell(object, read.as_ref(), nodes).await;
            self.kept.lock().extend(read.ok().map(|quota| (object.name_any(), Arc::new(quota))));
        }
        self.kept.lock().values().cloned().collect()
    }

    async fn tell(
        &self,
        object: &autoscaling::CapacityQuota,
        read: Result<&CapacityQuota, &Problem>,
        nodes: &[Arc<Node>],
    ) {
        if !self.writes {
            return;
        }
        let wanted = status(object, read, nodes, self.version, Timestamp::now());
        let name = object.name_any();
        if object.status.as_ref() == Some(&wanted) || self.told.lock().get(&name) == Some(&wanted) {
            return;
        }
        match self.write(object, &wanted).await {
            Ok(()) => drop(self.told.lock().insert(name, wanted)),
            Err(error) => tracing::warn!(quota = name, %error, "its status could not be written"),
        }
    }

    /// Writes a status to the object that it was decided upon.
    async fn write(
        &self,
        object: &autoscaling::CapacityQuota,
        status: &CapacityQuotaStatus,
    ) -> Result<(), kube::Error> {
        let version = self.version.name();
        let kind = ApiResource {
            group: API_GROUP.to_owned(),
            version: version.to_owned(),
            api_version: format!("{API_GROUP}/{version}"),
            kind: "CapacityQuota".to_owned(),
            plural: PLURAL.to_owned(),
        };
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
        // A resource that is limited no longer is taken away.
        let before = object.status.iter().filter_map(|status| status.used.as_ref()?.resources.as_ref());
        let mut used: BTreeMap<&str, Option<&str>> =
            before.flatten().map(|(resource, _)| (resource.as_str(), None)).collect();
        let now = status.used.iter().filter_map(|used| used.resources.as_ref());
        used.extend(now.flatten().map(|(resource, amount)| (resource.as_str(), Some(amount.0.as_str()))));
        let patch = json!({
            "metadata": {"resourceVersion": object.resource_version()},
            "status": {
                "used": status.used.is_some().then(|| json!({"resources": used})),
                "conditions": status.conditions,
                "observedGeneration": status.observed_generation,
            },
        });
        match api.patch_status(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
            // It has changed or gone meanwhile: its watch tells.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            result => result.map(drop),
        }
    }
}

/// What is to be said. Of a quota that cannot be kept what its nodes have stays as it was.
fn status(
    object: &autoscaling::CapacityQuota,
    read: Result<&CapacityQuota, &Problem>,
    nodes: &[Arc<Node>],
    version: Version,
    now: Timestamp,
) -> CapacityQuotaStatus {
    let mut status = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    for Said { kind, holds, reason, message } in said(read.err(), version.valid()) {
        let holds = if holds { Status::True } else { Status::False };
        conditions::set(&mut status.conditions, kind, holds, (reason, &message), now);
        let own = status.conditions.iter_mut().filter(|condition| condition.type_ == kind);
        own.for_each(|condition| condition.observed_generation = generation);
    }
    if let Ok(quota) = read {
        let resources = quota.used(nodes.iter().map(|node| &**node));
        status.used = Some(CapacityQuotaUsage { resources: Some(resources) });
    }
    // The former version has no such field.
    status.observed_generation = generation.filter(|_| version == Version::V1Beta1);
    status
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tandem_core::scheduling::Resources;

    use super::*;

    fn object(limits: &Value) -> autoscaling::CapacityQuota {
        let object = json!({"apiVersion": "autoscaling.x-k8s.io/v1beta1", "kind": "CapacityQuota",
            "metadata": {"name": "q", "generation": 3}, "spec": {"limits": {"resources": limits}}});
        serde_json::from_value(object).unwrap()
    }

    fn of(
        object: &autoscaling::CapacityQuota,
        nodes: usize,
        version: Version,
        now: Timestamp,
    ) -> CapacityQuotaStatus {
        let capacity = Resources { cpu: 3500, ..Resources::default() };
        let node = Arc::new(Node { capacity, ..Node::default() });
        status(object, CapacityQuota::read(object).as_ref(), &vec![node; nodes], version, now)
    }

    #[test]
    fn a_status_says_what_nodes_have_and_changes_with_it_alone() {
        let (now, later) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(60).unwrap());
        let mut quota = object(&json!({"cpu": 8, "nodes": 9}));
        let two = of(&quota, 2, Version::V1Beta1, now);
        let wanted = json!({
            "used": {"resources": {"cpu": "7", "nodes": "2"}},
            "conditions": [
                {"type": "cluster-autoscaler.kubernetes.io/valid", "status": "True", "reason": "ValidationSucceeded",
                    "message": "CapacityQuota is valid", "observedGeneration": 3,
                    "lastTransitionTime": "1970-01-01T00:00:00Z"},
                {"type": "Reconciled", "status": "True", "reason": "ReconciliationSucceeded",
                    "message": "CapacityQuota successfully reconciled", "observedGeneration": 3,
                    "lastTransitionTime": "1970-01-01T00:00:00Z"},
            ],
            "observedGeneration": 3,
        });
        assert_eq!(serde_json::to_value(&two).unwrap(), wanted);
        quota.status = Some(two.clone());
        assert_eq!(of(&quota, 2, Version::V1Beta1, later), two, "nothing is new");
        assert_ne!(of(&quota, 3, Version::V1Beta1, later), two);
        let older = of(&object(&json!({"cpu": 8})), 2, Version::V1Alpha1, now);
        assert_eq!((older.conditions[0].type_.as_str(), older.observed_generation), ("Valid", None));
    }

    #[tokio::test]
    async fn an_edit_that_cannot_be_read_lifts_no_limit() {
        let unasked = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>()
                .await
        });
        let cache = Arc::new(Cache::new(0));
        let quotas = CapacityQuotas {
            client: Client::new(unasked, "default"),
            objects: Objects::V1Beta1(cache.clone()),
            version: Version::V1Beta1,
            writes: false,
            told: Mutex::default(),
            kept: Mutex::default(),
        };
        let say = |limits: Value| cache.insert(String::new(), "q".to_owned(), Arc::new(object(&limits)));
        say(json!({"cpu": "many"}));
        assert!(quotas.look(&[]).await.is_empty(), "it never said what it means");
        say(json!({"nodes": 9}));
        let kept = quotas.look(&[]).await;
        assert_eq!(kept[0].limits().collect::<Vec<_>>(), [("nodes", 9)]);
        say(json!({"nodes": "many"}));
        assert_eq!(quotas.look(&[]).await, kept);
        say(json!({"nodes": 4}));
        assert_eq!(quotas.look(&[]).await[0].limits().collect::<Vec<_>>(), [("nodes", 4)]);
    }

    #[test]
    fn a_quota_that_cannot_be_kept_says_so() {
        let now = Timestamp::UNIX_EPOCH;
        let status = of(&object(&json!({"cpu": "many"})), 2, Version::V1Beta1, now);
        let said: Vec<_> = status.conditions.iter().map(|it| (&*it.status, &*it.reason)).collect();
        assert_eq!(said, [("False", "ValidationFailed"), ("False", "ReconciliationFailed")]);
        assert_eq!(status.used, None);
    }
}
